/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The "kv_tiers" section: what lies below HBM, and what HBM itself lets go first. */
#include <math.h>
#include <string.h>

#include "apmw/text.h"
#include "scenario_private.h"

static const char *const KINDS[] = {[APMW_TIER_HOST] = "host", [APMW_TIER_NVME] = "nvme", [APMW_TIER_REMOTE] = "remote"};
static const char *const LOADS[] = {"faster", "always", "never"};
static const char *const POLICIES[] = {"lru", "fifo", "lfu", "s3-fifo", "idle-ttl"};
static const char *const WRITES[] = {"through", "back"};
static const char *const FOUND[] = {"written", "released"};
static const char *const SHARINGS[] = {"fifo", "fair"};

const char *apmw_tier_kind_name(apmw_tier_kind kind)
{
    return KINDS[kind];
}

void apmw_kv_scenario_init(apmw_kv_scenario *out)
{
    memset(out, 0, sizeof *out);
}

static apmw_status read_tier(const apmw_json_cur *item, apmw_tier_scenario *t, apmw_error *err)
{
    static const char *const KEYS[] = {"kind", "gbyte", "load_gbyte_per_s", "store_gbyte_per_s", "latency_us", "policy",
                                       "idle_ttl_s", "half_life_s", "block_tokens", "cascade", NULL};
    *t = (apmw_tier_scenario){.gbyte = (double)NAN, .load_gbyte_per_s = (double)NAN, .store_gbyte_per_s = (double)NAN,
                              .latency_us = (double)NAN, .cascade = true};
    size_t kind = 0, policy = 0;
    apmw_status status = apmw_json_only_keys(item, KEYS, err);
    if (status == APMW_OK && !apmw_json_has(item, "kind")) {
        status = apmw_json_error(item, err, APMW_E_DATA, "a tier needs a kind: host, nvme or remote");
    }
    READ(apmw_scenario_opt_choice(item, "kind", KINDS, sizeof KINDS / sizeof KINDS[0], &kind, err));
    READ(apmw_json_opt_double(item, "gbyte", 1e-6, 1e12, &t->gbyte, err));
    READ(apmw_json_opt_double(item, "load_gbyte_per_s", 1e-6, 1e9, &t->load_gbyte_per_s, err));
    READ(apmw_json_opt_double(item, "store_gbyte_per_s", 1e-6, 1e9, &t->store_gbyte_per_s, err));
    READ(apmw_json_opt_double(item, "latency_us", 0.0, 1e9, &t->latency_us, err));
    READ(apmw_scenario_opt_choice(item, "policy", POLICIES, sizeof POLICIES / sizeof POLICIES[0], &policy, err));
    READ(apmw_json_opt_double(item, "idle_ttl_s", 1e-6, 1e9, &t->idle_ttl_s, err));
    READ(apmw_json_opt_double(item, "half_life_s", 1e-6, 1e9, &t->half_life_s, err));
    READ(apmw_json_opt_int(item, "block_tokens", 1, 1000000, &t->block_tokens, err));
    READ(apmw_json_opt_bool(item, "cascade", &t->cascade, err));
    t->kind = (apmw_tier_kind)kind;
    t->policy = (apmw_kv_policy)policy;
    if (status == APMW_OK && (t->policy == APMW_KV_IDLE_TTL) != (t->idle_ttl_s > 0.0)) {
        status = apmw_json_error(item, err, APMW_E_DATA, "policy \"idle-ttl\" and idle_ttl_s need each other");
    }
    if (status == APMW_OK && t->half_life_s > 0.0 && t->policy != APMW_KV_LFU) {
        status = apmw_json_error(item, err, APMW_E_DATA, "half_life_s is of policy \"lfu\"");
    }
    return status;
}

static apmw_status read_tiers(const apmw_json_cur *section, apmw_kv_scenario *s, apmw_error *err)
{
    apmw_json_cur list;
    if (!apmw_json_has(section, "tiers")) {
        return APMW_OK;
    }
    apmw_status status = apmw_json_child(section, "tiers", &list, err);
    if (status == APMW_OK && (apmw_json_typeof(&list) != APMW_JSON_ARRAY || apmw_json_length(&list) > APMW_KV_MAX_TIERS)) {
        return apmw_json_error(&list, err, APMW_E_DATA, "tiers is a list of at most %d, the nearest first", APMW_KV_MAX_TIERS);
    }
    s->n_tiers = 0;
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&list); i++) {
        apmw_json_cur item;
        status = apmw_json_at(&list, i, &item, err);
        READ(read_tier(&item, &s->tiers[i], err));
        if (status == APMW_OK && i > 0 && s->tiers[i].kind <= s->tiers[i - 1].kind) {
            status = apmw_json_error(&item, err, APMW_E_DATA, "%s cannot lie below %s: host, nvme, remote, each once",
                                     KINDS[s->tiers[i].kind], KINDS[s->tiers[i - 1].kind]);
        }
        s->n_tiers = i + 1;
    }
    return status;
}

apmw_status apmw_kv_scenario_read(const apmw_json_cur *root, apmw_kv_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"hbm_policy", "write", "found", "load", "prefetch", "link_sharing", "tiers",
                                       NULL};
    apmw_json_cur section;
    bool present;
    apmw_status status = apmw_scenario_opt_object(root, "kv_tiers", KEYS, &section, &present, err);
    if (status != APMW_OK || !present) {
        return status;
    }
    size_t policy = (size_t)s->hbm_policy, write = s->write_back, found = s->found_when_released;
    size_t load = (size_t)s->load, sharing = s->fair_links;
    /* Blocks of HBM do not expire. */
    READ(apmw_scenario_opt_choice(&section, "hbm_policy", POLICIES, APMW_KV_IDLE_TTL, &policy, err));
    READ(apmw_scenario_opt_choice(&section, "write", WRITES, sizeof WRITES / sizeof WRITES[0], &write, err));
    READ(apmw_scenario_opt_choice(&section, "found", FOUND, sizeof FOUND / sizeof FOUND[0], &found, err));
    if (status == APMW_OK && write == 1 && found == 1) {
        status = apmw_json_error(&section, err, APMW_E_DATA,
                                 "\"found\": \"released\" is of what requests write as they run: "
                                 "\"write\": \"through\"");
    }
    READ(apmw_scenario_opt_choice(&section, "load", LOADS, sizeof LOADS / sizeof LOADS[0], &load, err));
    READ(apmw_json_opt_bool(&section, "prefetch", &s->prefetch, err));
    READ(apmw_scenario_opt_choice(&section, "link_sharing", SHARINGS, sizeof SHARINGS / sizeof SHARINGS[0], &sharing, err));
    READ(read_tiers(&section, s, err));
    s->hbm_policy = (apmw_kv_policy)policy;
    s->write_back = write == 1;
    s->found_when_released = found == 1;
    s->load = (apmw_kv_load)load;
    s->fair_links = sharing == 1;
    return status;
}

static void double_if(apmw_json_writer *w, const char *key, double value)
{
    if (!isnan(value)) {
        apmw_json_double(w, key, value);
    }
}

static void write_tier(const apmw_tier_scenario *t, apmw_json_writer *w)
{
    apmw_json_begin_object(w, NULL);
    apmw_json_string(w, "kind", KINDS[t->kind]);
    double_if(w, "gbyte", t->gbyte);
    double_if(w, "load_gbyte_per_s", t->load_gbyte_per_s);
    double_if(w, "store_gbyte_per_s", t->store_gbyte_per_s);
    double_if(w, "latency_us", t->latency_us);
    apmw_json_string(w, "policy", POLICIES[t->policy]);
    if (t->idle_ttl_s > 0.0) {
        apmw_json_double(w, "idle_ttl_s", t->idle_ttl_s);
    }
    if (t->half_life_s > 0.0) {
        apmw_json_double(w, "half_life_s", t->half_life_s);
    }
    if (t->block_tokens > 0) {
        apmw_json_int(w, "block_tokens", t->block_tokens);
    }
    apmw_json_bool(w, "cascade", t->cascade);
    apmw_json_end_object(w);
}

void apmw_kv_scenario_write(const apmw_kv_scenario *s, apmw_json_writer *w)
{
    if (s->n_tiers == 0 && s->hbm_policy == APMW_KV_LRU) {
        return;
    }
    apmw_json_begin_object(w, "kv_tiers");
    apmw_json_string(w, "hbm_policy", POLICIES[s->hbm_policy]);
    apmw_json_string(w, "write", WRITES[s->write_back]);
    apmw_json_string(w, "found", FOUND[s->found_when_released]);
    apmw_json_string(w, "load", LOADS[s->load]);
    apmw_json_bool(w, "prefetch", s->prefetch);
    apmw_json_string(w, "link_sharing", SHARINGS[s->fair_links]);
    apmw_json_begin_array(w, "tiers");
    for (int i = 0; i < s->n_tiers; i++) {
        write_tier(&s->tiers[i], w);
    }
    apmw_json_end_array(w);
    apmw_json_end_object(w);
}
