/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "scenario_private.h"

#include <math.h>
#include <string.h>

#include "apmw/text.h"

static const char *const ROUTINGS[] = {
    [APMW_ROUTING_AFFINITY] = "affinity",
    [APMW_ROUTING_ROUND_ROBIN] = "round-robin",
    [APMW_ROUTING_LEAST_LOADED] = "least-loaded",
    [APMW_ROUTING_KV_AWARE] = "kv-aware",
};
static const char *const PADDINGS[] = {
    [APMW_PADDING_NONE] = "none",
    [APMW_PADDING_ROWS] = "rows",
    [APMW_PADDING_SEQUENCES] = "sequences",
    [APMW_PADDING_ENGINE] = "engine",
};
static const char *const WORKLOADS[] = {[APMW_WORKLOAD_AGENTS] = "agents", [APMW_WORKLOAD_FIXED] = "fixed"};

void apmw_scenario_init(apmw_scenario *out)
{
    memset(out, 0, sizeof *out);
    out->memory_fraction = (double)NAN;
    out->draft_tokens = -1;
    out->acceptance_length = (double)NAN;
    for (int i = 0; i < APMW_POOLS; i++) {
        out->pools[i].memory_fraction = (double)NAN;
    }
    out->link.gbyte_per_s = out->link.latency_us = (double)NAN;
    apmw_kv_scenario_init(&out->kv);
    out->frontend_scale = 1.0;
    out->graph_padding = APMW_PADDING_ENGINE;
    out->prefix_caching = true;
    out->prefill_delay_ms = 5000.0; /* as the one server that is known to delay was set */
    out->trajectories = 500;
    out->agents = 16;
    out->delay_scale = 1.0;
    out->sent = apmw_sent_as_recorded();
    out->isl = 1024;
    out->osl = 1024;
    out->length_ratio = 0.8;
    out->seed = 42; /* of AgentPerf's client */
}

apmw_status apmw_scenario_opt_text(const apmw_json_cur *object, const char *key, char *out, size_t size, apmw_error *err)
{
    const char *text = NULL;
    const apmw_status status = apmw_json_opt_string(object, key, &text, err);
    if (status == APMW_OK && text != NULL && !apmw_copy(out, size, text)) {
        return apmw_json_error(object, err, APMW_E_DATA, "%s is longer than %zu characters", key, size - 1);
    }
    return status;
}

apmw_status apmw_scenario_opt_count(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi, int *out,
                             apmw_error *err)
{
    int64_t value = *out;
    const apmw_status status = apmw_json_opt_int(object, key, lo, hi, &value, err);
    *out = (int)value;
    return status;
}

apmw_status apmw_scenario_opt_choice(const apmw_json_cur *object, const char *key, const char *const *names, size_t n,
                                     size_t *out, apmw_error *err)
{
    const char *text = NULL;
    const apmw_status status = apmw_json_opt_string(object, key, &text, err);
    if (status != APMW_OK || text == NULL) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return APMW_OK;
        }
    }
    const char *near = apmw_near(text, names, n);
    return apmw_json_error(object, err, APMW_E_DATA, "%s \"%s\" is unknown%s%s%s", key, text,
                           near == NULL ? "" : " (did you mean \"", near == NULL ? "" : near, near == NULL ? "" : "\"?)");
}

apmw_status apmw_scenario_opt_routing(const apmw_json_cur *object, const char *key, apmw_routing *out, apmw_error *err)
{
    size_t routing = (size_t)*out;
    const apmw_status status = apmw_scenario_opt_choice(object, key, ROUTINGS, sizeof ROUTINGS / sizeof ROUTINGS[0], &routing, err);
    *out = (apmw_routing)routing;
    return status;
}

const char *apmw_scenario_routing_name(apmw_routing routing)
{
    return ROUTINGS[routing];
}

apmw_status apmw_scenario_opt_object(const apmw_json_cur *object, const char *key, const char *const *keys, apmw_json_cur *out,
                              bool *present, apmw_error *err)
{
    *present = apmw_json_has(object, key);
    if (!*present) {
        return APMW_OK;
    }
    const apmw_status status = apmw_json_child(object, key, out, err);
    return status == APMW_OK ? apmw_json_only_keys(out, keys, err) : status;
}

static apmw_status read_chances(const apmw_json_cur *list, apmw_scenario *s, apmw_error *err)
{
    const int n = apmw_json_length(list);
    if (apmw_json_typeof(list) != APMW_JSON_ARRAY || n < 1 || n > APMW_MAX_DRAFTS) {
        return apmw_json_error(list, err, APMW_E_DATA, "expected a list of 1 to %d chances", APMW_MAX_DRAFTS);
    }
    apmw_status status = APMW_OK;
    for (int i = 0; i < n && status == APMW_OK; i++) {
        apmw_json_cur item;
        status = apmw_json_at(list, i, &item, err);
        READ(apmw_json_as_double(&item, &s->acceptance_by_position[i], err));
        if (status == APMW_OK && !(s->acceptance_by_position[i] >= 0.0 && s->acceptance_by_position[i] <= 1.0)) {
            status = apmw_json_error(&item, err, APMW_E_DATA, "a chance lies in 0..1");
        }
    }
    s->n_acceptance = n;
    return status;
}

static apmw_status read_speculation(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"draft_tokens", "acceptance_length", "acceptance_preset", "acceptance_by_position",
                                       "acceptance_fixed", NULL};
    apmw_json_cur item, list;
    bool present;
    apmw_status status = apmw_scenario_opt_object(root, "speculation", KEYS, &item, &present, err);
    if (status == APMW_OK && present) {
        READ(apmw_scenario_opt_count(&item, "draft_tokens", 0, 16, &s->draft_tokens, err));
        READ(apmw_json_opt_double(&item, "acceptance_length", 1.0, 17.0, &s->acceptance_length, err));
        READ(apmw_scenario_opt_text(&item, "acceptance_preset", s->acceptance_preset, sizeof s->acceptance_preset, err));
        READ(apmw_json_opt_bool(&item, "acceptance_fixed", &s->acceptance_fixed, err));
        if (status == APMW_OK && apmw_json_has(&item, "acceptance_by_position")) {
            status = apmw_json_child(&item, "acceptance_by_position", &list, err);
            READ(read_chances(&list, s, err));
        }
        const int stated = !isnan(s->acceptance_length) + (s->acceptance_preset[0] != '\0') + (s->n_acceptance > 0);
        if (status == APMW_OK && stated > 1) {
            status = apmw_json_error(&item, err, APMW_E_DATA,
                                     "acceptance_length, acceptance_preset and acceptance_by_position say the same thing: state one");
        }
    }
    return status;
}

static apmw_status opt_delay(const apmw_json_cur *item, apmw_scenario *s, apmw_error *err)
{
    apmw_status status = apmw_scenario_opt_count(item, "prefill_delay_passes", 0, 100000, &s->prefill_delay_passes, err);
    READ(apmw_json_opt_double(item, "prefill_delay_ms", 0.0, 1e9, &s->prefill_delay_ms, err));
    return status;
}

static apmw_status read_settings(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"max_num_seqs", "max_num_batched_tokens", "block_tokens", "recv_interval",
                                       "frontend_scale", "prefix_caching", "kv_all_windows", "graph_padding", "prefill_delay_passes",
                                       "prefill_delay_ms", NULL};
    apmw_json_cur item;
    bool present;
    apmw_status status = apmw_scenario_opt_object(root, "engine_settings", KEYS, &item, &present, err);
    if (status == APMW_OK && present) {
        READ(apmw_json_opt_int(&item, "max_num_seqs", 1, 1000000, &s->max_num_seqs, err));
        READ(apmw_json_opt_int(&item, "max_num_batched_tokens", 1, 100000000, &s->max_num_batched_tokens, err));
        READ(apmw_json_opt_int(&item, "block_tokens", 1, 65536, &s->block_tokens, err));
        READ(apmw_scenario_opt_count(&item, "recv_interval", 0, 100000, &s->recv_interval, err));
        READ(apmw_json_opt_double(&item, "frontend_scale", 0.0, 1000.0, &s->frontend_scale, err));
        READ(apmw_json_opt_bool(&item, "prefix_caching", &s->prefix_caching, err));
        READ(opt_delay(&item, s, err));
        READ(apmw_json_opt_bool(&item, "kv_all_windows", &s->kv_all_windows, err));
        size_t padding = (size_t)s->graph_padding;
        READ(apmw_scenario_opt_choice(&item, "graph_padding", PADDINGS, sizeof PADDINGS / sizeof PADDINGS[0], &padding, err));
        s->graph_padding = (apmw_graph_padding)padding;
    }
    return status;
}

static apmw_status read_sent(const apmw_json_cur *workload, apmw_sent *sent, apmw_error *err)
{
    static const char *const KEYS[] = {"first_prompt_scale", "growth_scale", "answer_tokens", "output_tokens",
                                       "output_spread", "max_delay_s", "max_recorded_tokens", NULL};
    apmw_json_cur item;
    bool present;
    apmw_status status = apmw_scenario_opt_object(workload, "sent", KEYS, &item, &present, err);
    if (status == APMW_OK && present) {
        READ(apmw_json_opt_double(&item, "first_prompt_scale", 1e-3, 1e3, &sent->first_prompt_scale, err));
        READ(apmw_json_opt_double(&item, "growth_scale", 0.0, 1e3, &sent->growth_scale, err));
        READ(apmw_json_opt_double(&item, "answer_tokens", 0.0, 1e6, &sent->answer_tokens, err));
        READ(apmw_json_opt_double(&item, "output_tokens", 0.0, 1e6, &sent->output_tokens, err));
        READ(apmw_json_opt_double(&item, "output_spread", 0.0, 10.0, &sent->output_spread, err));
        READ(apmw_json_opt_double(&item, "max_delay_s", 0.0, 1e9, &sent->max_delay_s, err));
        READ(apmw_json_opt_int(&item, "max_recorded_tokens", 0, 1000000000, &sent->max_recorded_tokens, err));
    }
    return status;
}

static apmw_status read_workload(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"kind", "trace", "trajectories", "agents", "share_prefix", "output_cached",
                                       "concurrent_subagents",
                                       "delay_scale", "starts", "sent", "slots", "isl", "osl", "requests", "length_ratio", NULL};
    apmw_json_cur item;
    bool present;
    size_t kind = (size_t)s->workload;
    apmw_status status = apmw_scenario_opt_object(root, "workload", KEYS, &item, &present, err);
    if (status != APMW_OK || !present) {
        return status;
    }
    READ(apmw_scenario_opt_choice(&item, "kind", WORKLOADS, sizeof WORKLOADS / sizeof WORKLOADS[0], &kind, err));
    s->workload = (apmw_workload_kind)kind;
    READ(apmw_scenario_opt_text(&item, "trace", s->trace, sizeof s->trace, err));
    READ(apmw_json_opt_int(&item, "trajectories", 1, 10000000, &s->trajectories, err));
    READ(apmw_json_opt_int(&item, "agents", 1, 1000000, &s->agents, err));
    READ(apmw_json_opt_int(&item, "slots", 1, 1000000, &s->agents, err));
    READ(apmw_json_opt_bool(&item, "share_prefix", &s->share_prefix, err));
    READ(apmw_json_opt_bool(&item, "output_cached", &s->output_cached, err));
    READ(apmw_json_opt_bool(&item, "concurrent_subagents", &s->concurrent_subagents, err));
    READ(apmw_json_opt_double(&item, "delay_scale", 0.0, 1e6, &s->delay_scale, err));
    READ(apmw_scenario_opt_text(&item, "starts", s->starts, sizeof s->starts, err));
    READ(read_sent(&item, &s->sent, err));
    READ(apmw_json_opt_int(&item, "isl", 1, 100000000, &s->isl, err));
    READ(apmw_json_opt_int(&item, "osl", 1, 100000000, &s->osl, err));
    READ(apmw_json_opt_int(&item, "requests", 1, 100000000, &s->requests, err));
    READ(apmw_json_opt_double(&item, "length_ratio", 1e-3, 1.0, &s->length_ratio, err));
    return status;
}

static apmw_status read_protocol(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"version", "tier", "slo", NULL};
    apmw_json_cur item;
    bool present;
    if (apmw_json_has(root, "protocol") && apmw_json_child(root, "protocol", &item, err) == APMW_OK &&
        apmw_json_typeof(&item) == APMW_JSON_STRING) { /* the version alone */
        return apmw_scenario_opt_text(root, "protocol", s->protocol, sizeof s->protocol, err);
    }
    apmw_status status = apmw_scenario_opt_object(root, "protocol", KEYS, &item, &present, err);
    if (status == APMW_OK && present) {
        READ(apmw_scenario_opt_text(&item, "version", s->protocol, sizeof s->protocol, err));
        READ(apmw_scenario_opt_count(&item, "tier", 0, 99, &s->tier, err));
        READ(apmw_scenario_opt_text(&item, "slo", s->slo, sizeof s->slo, err));
    }
    return status;
}

static apmw_status read_scenario(const apmw_json *doc, apmw_scenario *s, apmw_error *err)
{
    static const char *const KEYS[] = {"schema", "platform", "model", "engine", "engine_version", "precision", "kv_dtype",
                                       "moe_backend", "layout", "accelerators", "memory_fraction", "speculation",
                                       "engine_settings", "routing", "router_delay_s",
                                       "router_kv_by_sending", "disaggregation", "kv_tiers", "workload", "protocol", "duration_s", "seed", NULL};
    const apmw_json_cur root = apmw_json_root(doc);
    const char *schema = NULL;
    int64_t seed = (int64_t)s->seed;
    apmw_status status = apmw_json_only_keys(&root, KEYS, err);
    READ(apmw_json_opt_string(&root, "schema", &schema, err));
    if (status == APMW_OK && schema != NULL && strcmp(schema, "apmw.scenario/1") != 0) {
        status = apmw_json_error(&root, err, APMW_E_DATA, "schema is \"%s\", expected \"apmw.scenario/1\"", schema);
    }
    READ(apmw_scenario_opt_text(&root, "platform", s->platform, sizeof s->platform, err));
    READ(apmw_scenario_opt_text(&root, "model", s->model, sizeof s->model, err));
    READ(apmw_scenario_opt_text(&root, "engine", s->engine, sizeof s->engine, err));
    READ(apmw_scenario_opt_text(&root, "engine_version", s->engine_version, sizeof s->engine_version, err));
    READ(apmw_scenario_opt_text(&root, "precision", s->precision, sizeof s->precision, err));
    READ(apmw_scenario_opt_text(&root, "kv_dtype", s->kv_dtype, sizeof s->kv_dtype, err));
    READ(apmw_scenario_opt_text(&root, "moe_backend", s->moe_backend, sizeof s->moe_backend, err));
    READ(apmw_scenario_opt_text(&root, "layout", s->layout, sizeof s->layout, err));
    READ(apmw_scenario_opt_count(&root, "accelerators", 0, 65536, &s->accelerators, err));
    READ(apmw_json_opt_double(&root, "memory_fraction", 0.01, 1.0, &s->memory_fraction, err));
    READ(read_speculation(&root, s, err));
    READ(read_settings(&root, s, err));
    READ(apmw_scenario_opt_routing(&root, "routing", &s->routing, err));
    READ(apmw_json_opt_double(&root, "router_delay_s", 0.0, 1e6, &s->router_delay_s, err));
    READ(apmw_json_opt_bool(&root, "router_kv_by_sending", &s->router_kv_by_sending, err));
    READ(apmw_scenario_read_pools(&root, s, err));
    READ(apmw_kv_scenario_read(&root, &s->kv, err));
    READ(read_workload(&root, s, err));
    READ(read_protocol(&root, s, err));
    READ(apmw_json_opt_double(&root, "duration_s", 0.0, 1e7, &s->duration_s, err));
    READ(apmw_json_opt_int(&root, "seed", 0, INT64_MAX, &seed, err));
    s->seed = (uint64_t)seed;
    return status;
}

apmw_status apmw_scenario_parse(const char *name, const char *text, size_t n, apmw_scenario *inout, apmw_error *err)
{
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_parse(name, text, n, &doc, err);
    READ(read_scenario(doc, inout, err));
    apmw_json_free(doc);
    return status;
}

apmw_status apmw_scenario_load(const char *path, apmw_scenario *inout, apmw_error *err)
{
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_load(path, &doc, err);
    READ(read_scenario(doc, inout, err));
    apmw_json_free(doc);
    return status;
}

/* What is unset is left out, so that reading back leaves the default. */
static void text_if(apmw_json_writer *w, const char *key, const char *text)
{
    if (text[0] != '\0') {
        apmw_json_string(w, key, text);
    }
}

static void int_if(apmw_json_writer *w, const char *key, int64_t value)
{
    if (value > 0) {
        apmw_json_int(w, key, value);
    }
}

static void double_if(apmw_json_writer *w, const char *key, double value)
{
    if (!isnan(value)) {
        apmw_json_double(w, key, value);
    }
}

static void write_workload(const apmw_scenario *s, apmw_json_writer *w)
{
    apmw_json_begin_object(w, "workload");
    apmw_json_string(w, "kind", WORKLOADS[s->workload]);
    if (s->workload == APMW_WORKLOAD_AGENTS) {
        text_if(w, "trace", s->trace);
        apmw_json_int(w, "trajectories", s->trajectories);
        apmw_json_int(w, "agents", s->agents);
        apmw_json_bool(w, "share_prefix", s->share_prefix);
        apmw_json_bool(w, "output_cached", s->output_cached);
        apmw_json_bool(w, "concurrent_subagents", s->concurrent_subagents);
        apmw_json_double(w, "delay_scale", s->delay_scale);
        if (s->starts[0] != '\0') {
            apmw_json_string(w, "starts", s->starts);
            apmw_json_begin_object(w, "sent");
            apmw_json_double(w, "first_prompt_scale", s->sent.first_prompt_scale);
            apmw_json_double(w, "growth_scale", s->sent.growth_scale);
            apmw_json_double(w, "answer_tokens", s->sent.answer_tokens);
            apmw_json_double(w, "output_tokens", s->sent.output_tokens);
            apmw_json_double(w, "output_spread", s->sent.output_spread);
            apmw_json_double(w, "max_delay_s", s->sent.max_delay_s);
            apmw_json_int(w, "max_recorded_tokens", s->sent.max_recorded_tokens);
            apmw_json_end_object(w);
        }
    } else {
        apmw_json_int(w, "slots", s->agents);
        apmw_json_int(w, "isl", s->isl);
        apmw_json_int(w, "osl", s->osl);
        int_if(w, "requests", s->requests);
        apmw_json_double(w, "length_ratio", s->length_ratio);
    }
    apmw_json_end_object(w);
}

void apmw_scenario_write(const apmw_scenario *scenario, apmw_buf *out)
{
    const apmw_scenario *s = scenario;
    apmw_json_writer w = apmw_json_writer_make(out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "schema", "apmw.scenario/1");
    text_if(&w, "platform", s->platform);
    text_if(&w, "model", s->model);
    text_if(&w, "engine", s->engine);
    text_if(&w, "engine_version", s->engine_version);
    text_if(&w, "precision", s->precision);
    text_if(&w, "kv_dtype", s->kv_dtype);
    text_if(&w, "moe_backend", s->moe_backend);
    text_if(&w, "layout", s->layout);
    int_if(&w, "accelerators", s->accelerators);
    double_if(&w, "memory_fraction", s->memory_fraction);
    if (s->draft_tokens >= 0) {
        apmw_json_begin_object(&w, "speculation");
        apmw_json_int(&w, "draft_tokens", s->draft_tokens);
        double_if(&w, "acceptance_length", s->acceptance_length);
        text_if(&w, "acceptance_preset", s->acceptance_preset);
        if (s->n_acceptance > 0) {
            apmw_json_begin_array(&w, "acceptance_by_position");
            for (int i = 0; i < s->n_acceptance; i++) {
                apmw_json_double(&w, NULL, s->acceptance_by_position[i]);
            }
            apmw_json_end_array(&w);
        }
        if (s->acceptance_fixed) {
            apmw_json_bool(&w, "acceptance_fixed", true);
        }
        apmw_json_end_object(&w);
    }
    apmw_json_begin_object(&w, "engine_settings");
    int_if(&w, "max_num_seqs", s->max_num_seqs);
    int_if(&w, "max_num_batched_tokens", s->max_num_batched_tokens);
    int_if(&w, "block_tokens", s->block_tokens);
    apmw_json_int(&w, "recv_interval", s->recv_interval);
    apmw_json_double(&w, "frontend_scale", s->frontend_scale);
    apmw_json_bool(&w, "prefix_caching", s->prefix_caching);
    if (s->prefill_delay_passes > 0) {
        apmw_json_int(&w, "prefill_delay_passes", s->prefill_delay_passes);
        apmw_json_double(&w, "prefill_delay_ms", s->prefill_delay_ms);
    }
    if (s->kv_all_windows) {
        apmw_json_bool(&w, "kv_all_windows", true);
    }
    if (s->graph_padding != APMW_PADDING_ENGINE) {
        apmw_json_string(&w, "graph_padding", PADDINGS[s->graph_padding]);
    }
    apmw_json_end_object(&w);
    apmw_json_string(&w, "routing", ROUTINGS[s->routing]);
    if (s->router_delay_s > 0.0) {
        apmw_json_double(&w, "router_delay_s", s->router_delay_s);
    }
    if (s->router_kv_by_sending) {
        apmw_json_bool(&w, "router_kv_by_sending", true);
    }
    apmw_scenario_write_pools(s, &w);
    apmw_kv_scenario_write(&s->kv, &w);
    write_workload(s, &w);
    apmw_json_begin_object(&w, "protocol");
    text_if(&w, "version", s->protocol);
    apmw_json_int(&w, "tier", s->tier);
    text_if(&w, "slo", s->slo);
    apmw_json_end_object(&w);
    if (s->duration_s > 0.0) {
        apmw_json_double(&w, "duration_s", s->duration_s);
    }
    apmw_json_int(&w, "seed", (int64_t)s->seed);
    apmw_json_end_object(&w);
}
