/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The "disaggregation" section: pools of prefill and decode engines and the link between them. */
#include <math.h>

#include "scenario_private.h"

static const char *const POOLS[APMW_POOLS] = {[APMW_POOL_PREFILL] = "prefill", [APMW_POOL_DECODE] = "decode"};

static apmw_status read_pool(const apmw_json_cur *section, int index, apmw_pool_scenario *pool, apmw_error *err)
{
    static const char *const KEYS[] = {"platform", "engine", "layout", "memory_fraction", "max_num_seqs",
                                       "max_num_batched_tokens", NULL};
    apmw_json_cur item;
    bool present;
    apmw_status status = apmw_scenario_opt_object(section, POOLS[index], KEYS, &item, &present, err);
    if (status != APMW_OK || !present) {
        return status;
    }
    READ(apmw_scenario_opt_text(&item, "platform", pool->platform, sizeof pool->platform, err));
    READ(apmw_scenario_opt_text(&item, "engine", pool->engine, sizeof pool->engine, err));
    READ(apmw_scenario_opt_text(&item, "layout", pool->layout, sizeof pool->layout, err));
    READ(apmw_json_opt_double(&item, "memory_fraction", 0.01, 1.0, &pool->memory_fraction, err));
    READ(apmw_json_opt_int(&item, "max_num_seqs", 1, 1000000, &pool->max_num_seqs, err));
    READ(apmw_json_opt_int(&item, "max_num_batched_tokens", 1, 100000000, &pool->max_num_batched_tokens, err));
    return status;
}

static apmw_status read_link(const apmw_json_cur *section, apmw_link_scenario *link, apmw_error *err)
{
    static const char *const KEYS[] = {"gbyte_per_s", "latency_us", "decode_first", NULL};
    apmw_json_cur item;
    bool present;
    apmw_status status = apmw_scenario_opt_object(section, "link", KEYS, &item, &present, err);
    if (status == APMW_OK && present) {
        READ(apmw_json_opt_double(&item, "gbyte_per_s", 1e-6, 1e9, &link->gbyte_per_s, err));
        READ(apmw_json_opt_double(&item, "latency_us", 0.0, 1e9, &link->latency_us, err));
        READ(apmw_json_opt_bool(&item, "decode_first", &link->decode_first, err));
    }
    return status;
}

apmw_status apmw_scenario_read_pools(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"prefill", "decode", "link", "decode_routing", NULL};
    apmw_json_cur section;
    bool present;
    apmw_status status = apmw_scenario_opt_object(root, "disaggregation", KEYS, &section, &present, err);
    if (status != APMW_OK || !present) {
        return status;
    }
    s->disaggregated = true;
    for (int i = 0; i < APMW_POOLS; i++) {
        READ(read_pool(&section, i, &s->pools[i], err));
        if (status == APMW_OK && s->pools[i].layout[0] == '\0') {
            status = apmw_json_error(&section, err, APMW_E_DATA, "%s needs a layout, such as \"dep4x6\"", POOLS[i]);
        }
    }
    READ(read_link(&section, &s->link, err));
    READ(apmw_scenario_opt_routing(&section, "decode_routing", &s->decode_routing, err));
    return status;
}

static void write_pool(const apmw_pool_scenario *pool, const char *name, apmw_json_writer *w)
{
    apmw_json_begin_object(w, name);
    if (pool->platform[0] != '\0') {
        apmw_json_string(w, "platform", pool->platform);
    }
    if (pool->engine[0] != '\0') {
        apmw_json_string(w, "engine", pool->engine);
    }
    apmw_json_string(w, "layout", pool->layout);
    if (!isnan(pool->memory_fraction)) {
        apmw_json_double(w, "memory_fraction", pool->memory_fraction);
    }
    if (pool->max_num_seqs > 0) {
        apmw_json_int(w, "max_num_seqs", pool->max_num_seqs);
    }
    if (pool->max_num_batched_tokens > 0) {
        apmw_json_int(w, "max_num_batched_tokens", pool->max_num_batched_tokens);
    }
    apmw_json_end_object(w);
}

void apmw_scenario_write_pools(const apmw_scenario *s, apmw_json_writer *w)
{
    if (!s->disaggregated) {
        return;
    }
    apmw_json_begin_object(w, "disaggregation");
    for (int i = 0; i < APMW_POOLS; i++) {
        write_pool(&s->pools[i], POOLS[i], w);
    }
    apmw_json_begin_object(w, "link");
    if (!isnan(s->link.gbyte_per_s)) {
        apmw_json_double(w, "gbyte_per_s", s->link.gbyte_per_s);
    }
    if (!isnan(s->link.latency_us)) {
        apmw_json_double(w, "latency_us", s->link.latency_us);
    }
    apmw_json_bool(w, "decode_first", s->link.decode_first);
    apmw_json_end_object(w);
    apmw_json_string(w, "decode_routing", apmw_scenario_routing_name(s->decode_routing));
    apmw_json_end_object(w);
}
