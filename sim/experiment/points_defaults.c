/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Engine defaults as data: which settings hold where a row or a scenario is silent. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "points_private.h"

void apmw_points_settings_clear(apmw_engine_settings *s)
{
    memset(s, 0, sizeof *s);
    double *const numbers[] = {&s->token_budget,  &s->max_prefill_tokens, &s->max_seqs,          &s->max_model_len,
                               &s->block_tokens,  &s->kv_memory_fraction, &s->recv_interval,     &s->batch_wait_tokens,
                               &s->batch_wait_iters, &s->adp_wait_iters,  &s->draft_tokens,      &s->num_prompts,
                               &s->max_total_tokens, &s->graph_max_batch};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        *numbers[i] = (double)NAN;
    s->chunked_prefill = -1;
}

int apmw_points_role_index(apmw_role role)
{
    return role == APMW_ROLE_DECODE ? 1 : 0;
}

void apmw_points_formula_vars(const apmw_point *point, apmw_role role, double k, apmw_formula_vars *out)
{
    const apmw_layout *layout = &point->layout[apmw_points_role_index(role)];
    *out = (apmw_formula_vars){
        .conc = point->concurrency > 0 ? (double)point->concurrency : (double)NAN,
        .isl = point->isl > 0 ? (double)point->isl : (double)NAN,
        .osl = point->osl > 0 ? (double)point->osl : (double)NAN,
        .tp = layout->tp,
        .adp = layout->attention_dp,
        .ep = layout->moe_ep > 0 ? layout->moe_ep : 1,
        .k = isnan(k) ? 0 : k,
        .workers = point->workers[apmw_points_role_index(role)],
    };
}

apmw_status apmw_engine_defaults_open(const char *data_dir, apmw_engine_defaults **out, apmw_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/hwmodels/rules/engine_defaults.json", data_dir);
    *out = calloc(1, sizeof **out);
    if (!*out)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    apmw_status status = apmw_json_load(path, &(*out)->doc, err);
    if (status != APMW_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

void apmw_engine_defaults_free(apmw_engine_defaults *defaults)
{
    if (!defaults)
        return;
    apmw_json_free(defaults->doc);
    free(defaults);
}

/* A name, or a list of names. */
static apmw_status text_fits(const apmw_json_cur *item, const char *value, bool *fits, apmw_error *err)
{
    const char *text;
    apmw_status status = APMW_OK;
    *fits = false;
    if (apmw_json_typeof(item) != APMW_JSON_ARRAY) {
        status = apmw_json_as_string(item, &text, err);
        *fits = status == APMW_OK && strcmp(text, value) == 0;
        return status;
    }
    for (int i = 0; status == APMW_OK && !*fits && i < apmw_json_length(item); i++) {
        apmw_json_cur entry;
        status = apmw_json_at(item, i, &entry, err);
        if (status == APMW_OK)
            status = apmw_json_as_string(&entry, &text, err);
        *fits = status == APMW_OK && strcmp(text, value) == 0;
    }
    return status;
}

static apmw_status range_fits(const apmw_json_cur *item, double value, bool *fits, apmw_error *err)
{
    double bound[2];
    if (apmw_json_length(item) != 2)
        return apmw_json_error(item, err, APMW_E_DATA, "expected [low, high]");
    for (int i = 0; i < 2; i++) {
        apmw_json_cur entry;
        apmw_status status = apmw_json_at(item, i, &entry, err);
        if (status == APMW_OK)
            status = apmw_json_as_double(&entry, &bound[i], err);
        if (status != APMW_OK)
            return status;
    }
    *fits = value >= bound[0] && value <= bound[1];
    return APMW_OK;
}

static const char *const when_keys[] = {"engine",  "platform", "model",  "precision",    "role", "source",
                                        "disagg",  "recipe",   "speculative", "from",    "until", "tp",
                                        "attention_dp", "isl", "osl",    "concurrency",  NULL};

static const char *role_name(apmw_role role)
{
    return role == APMW_ROLE_ENGINE ? "engine" : role == APMW_ROLE_PREFILL ? "prefill" : "decode";
}

static apmw_status when_fits(const apmw_json_cur *when, const apmw_point *point, apmw_role role, bool *fits,
                             apmw_error *err)
{
    const apmw_layout *layout = &point->layout[apmw_points_role_index(role)];
    const struct {
        const char *key, *value;
    } texts[] = {{"engine", point->engine}, {"platform", point->platform}, {"model", point->model},
                 {"precision", point->precision}, {"role", role_name(role)}, {"source", point->source}};
    const struct {
        const char *key;
        bool value;
    } flags[] = {{"disagg", point->disagg}, {"recipe", point->has_recipe}, {"speculative", point->speculative}};
    const struct {
        const char *key;
        double value;
    } ranges[] = {{"tp", layout->tp}, {"attention_dp", layout->attention_dp}, {"isl", (double)point->isl},
                  {"osl", (double)point->osl}, {"concurrency", (double)point->concurrency}};
    apmw_json_cur item;
    apmw_status status = apmw_json_only_keys(when, when_keys, err);
    *fits = true;
    for (size_t i = 0; status == APMW_OK && *fits && i < sizeof texts / sizeof texts[0]; i++)
        if (apmw_json_has(when, texts[i].key)) {
            status = apmw_json_child(when, texts[i].key, &item, err);
            if (status == APMW_OK)
                status = text_fits(&item, texts[i].value, fits, err);
        }
    for (size_t i = 0; status == APMW_OK && *fits && i < sizeof flags / sizeof flags[0]; i++) {
        bool wanted = flags[i].value;
        status = apmw_json_opt_bool(when, flags[i].key, &wanted, err);
        *fits = wanted == flags[i].value;
    }
    for (size_t i = 0; status == APMW_OK && *fits && i < sizeof ranges / sizeof ranges[0]; i++)
        if (apmw_json_has(when, ranges[i].key)) {
            status = apmw_json_child(when, ranges[i].key, &item, err);
            if (status == APMW_OK)
                status = range_fits(&item, ranges[i].value, fits, err);
        }
    const char *from = NULL, *until = NULL;
    if (status == APMW_OK)
        status = apmw_json_opt_string(when, "from", &from, err);
    if (status == APMW_OK)
        status = apmw_json_opt_string(when, "until", &until, err);
    /* Days compare as text. A row without a day is taken as of today: later than every rule. */
    if (from && point->measured[0] && strcmp(point->measured, from) < 0)
        *fits = false;
    if (until && (!point->measured[0] || strcmp(point->measured, until) >= 0))
        *fits = false;
    return status;
}

static apmw_status number_of(const apmw_json_cur *set, const char *key, const apmw_formula_vars *vars, double *out,
                             apmw_error *err)
{
    apmw_json_cur item;
    if (!apmw_json_has(set, key))
        return APMW_OK;
    apmw_status status = apmw_json_child(set, key, &item, err);
    if (status != APMW_OK)
        return status;
    if (apmw_json_typeof(&item) == APMW_JSON_NUMBER)
        return apmw_json_as_double(&item, out, err);
    const char *text;
    status = apmw_json_as_string(&item, &text, err);
    if (status != APMW_OK)
        return status;
    apmw_error why;
    /* A formula over a number that this row lacks leaves the setting open. */
    if (apmw_formula_eval(text, vars, out, &why) != APMW_OK && !strstr(why.message, "not known for this row"))
        return apmw_json_error(&item, err, APMW_E_DATA, "%s", why.message);
    return APMW_OK;
}

typedef struct field {
    const char *key;
    double *value;
} field;

static apmw_status apply_rule(const apmw_json_cur *set, const apmw_formula_vars *vars, const field *fields,
                              size_t n_fields, apmw_engine_settings *out, apmw_error *err)
{
    static const char *const keys[] = {"token_budget", "max_prefill_tokens", "max_seqs", "max_model_len",
                                       "block_tokens", "kv_memory_fraction", "recv_interval", "batch_wait_tokens",
                                       "batch_wait_iters", "adp_wait_iters", "draft_tokens", "num_prompts",
                                       "graph_max_batch", "graph_padding", "chunked_prefill", "batching", "kv_dtype",
                                       "moe_backend", "precision",
                                       NULL};
    apmw_status status = apmw_json_only_keys(set, keys, err);
    for (size_t i = 0; status == APMW_OK && i < n_fields; i++)
        status = number_of(set, fields[i].key, vars, fields[i].value, err);
    if (status == APMW_OK && apmw_json_has(set, "chunked_prefill")) {
        bool on = false;
        status = apmw_json_get_bool(set, "chunked_prefill", &on, err);
        out->chunked_prefill = on;
    }
    const struct {
        const char *key;
        char *value;
        size_t size;
    } texts[] = {{"batching", out->batching, sizeof out->batching},
                 {"graph_padding", out->graph_padding, sizeof out->graph_padding},
                 {"precision", out->precision, sizeof out->precision},
                 {"kv_dtype", out->kv_dtype, sizeof out->kv_dtype},
                 {"moe_backend", out->moe_backend, sizeof out->moe_backend}};
    for (size_t i = 0; status == APMW_OK && i < sizeof texts / sizeof texts[0]; i++) {
        const char *text = NULL;
        status = apmw_json_opt_string(set, texts[i].key, &text, err);
        if (text)
            apmw_copy(texts[i].value, texts[i].size, text);
    }
    return status;
}

static void overlay(const apmw_engine_settings *row, field *fields, const field *cells, size_t n,
                    apmw_engine_settings *out)
{
    for (size_t i = 0; i < n; i++)
        if (!isnan(*cells[i].value))
            *fields[i].value = *cells[i].value;
    if (row->chunked_prefill >= 0)
        out->chunked_prefill = row->chunked_prefill;
    out->absorbed_chunks = row->absorbed_chunks;
    if (row->kv_dtype[0])
        apmw_copy(out->kv_dtype, sizeof out->kv_dtype, row->kv_dtype);
    if (row->moe_backend[0])
        apmw_copy(out->moe_backend, sizeof out->moe_backend, row->moe_backend);
    if (row->graph_padding[0])
        apmw_copy(out->graph_padding, sizeof out->graph_padding, row->graph_padding);
    if (row->batching[0])
        apmw_copy(out->batching, sizeof out->batching, row->batching);
}

enum { N_FIELDS = 14 };
static void list_fields(apmw_engine_settings *s, field *out)
{
    const field fields[N_FIELDS] = {
        {"draft_tokens", &s->draft_tokens}, /* first: the others may depend on it */
        {"token_budget", &s->token_budget},
        {"max_prefill_tokens", &s->max_prefill_tokens},
        {"max_seqs", &s->max_seqs},
        {"max_model_len", &s->max_model_len},
        {"block_tokens", &s->block_tokens},
        {"kv_memory_fraction", &s->kv_memory_fraction},
        {"recv_interval", &s->recv_interval},
        {"batch_wait_tokens", &s->batch_wait_tokens},
        {"batch_wait_iters", &s->batch_wait_iters},
        {"adp_wait_iters", &s->adp_wait_iters},
        {"num_prompts", &s->num_prompts},
        {"max_total_tokens", &s->max_total_tokens},
        {"graph_max_batch", &s->graph_max_batch},
    };
    memcpy(out, fields, sizeof fields);
}

/* One pass over the rules. With `only_draft` set, only the draft length is taken: budgets depend on it. */
static apmw_status apply_rules(const apmw_engine_defaults *defaults, const apmw_point *point, apmw_role role,
                               bool only_draft, double k, apmw_engine_settings *out, apmw_error *err)
{
    apmw_json_cur root = apmw_json_root(defaults->doc), rules;
    apmw_formula_vars vars;
    field fields[N_FIELDS];
    apmw_points_formula_vars(point, role, k, &vars);
    list_fields(out, fields);
    apmw_status status = apmw_json_child(&root, "rules", &rules, err);
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&rules); i++) {
        apmw_json_cur rule, when, set;
        bool fits = false;
        status = apmw_json_at(&rules, i, &rule, err);
        if (status == APMW_OK)
            status = apmw_json_child(&rule, "when", &when, err);
        if (status == APMW_OK)
            status = when_fits(&when, point, role, &fits, err);
        if (status != APMW_OK || !fits)
            continue;
        status = apmw_json_child(&rule, "set", &set, err);
        if (status != APMW_OK)
            continue;
        status = only_draft ? number_of(&set, fields[0].key, &vars, fields[0].value, err)
                            : apply_rule(&set, &vars, fields, N_FIELDS, out, err);
    }
    return status;
}

apmw_status apmw_point_settings(const apmw_engine_defaults *defaults, const apmw_point *point, apmw_role role,
                                apmw_engine_settings *out, apmw_error *err)
{
    apmw_engine_settings row = point->settings[apmw_points_role_index(role)];
    field fields[N_FIELDS], cells[N_FIELDS];
    apmw_points_settings_clear(out);
    list_fields(out, fields);
    list_fields(&row, cells);
    apmw_status status = apply_rules(defaults, point, role, true, 0, out, err);
    if (status != APMW_OK)
        return status;
    double k = isnan(row.draft_tokens) ? out->draft_tokens : row.draft_tokens;
    if (!point->speculative)
        k = 0;
    status = apply_rules(defaults, point, role, false, k, out, err);
    if (status != APMW_OK)
        return status;
    overlay(&row, fields, cells, N_FIELDS, out);
    out->draft_tokens = isnan(k) ? 0 : k;
    if (!out->batching[0])
        return apmw_error_set(err, APMW_E_SCENARIO, "engine \"%s\" has no rule in engine_defaults.json", point->engine);
    return APMW_OK;
}

apmw_status apmw_points_client(const apmw_engine_defaults *defaults, apmw_point *point, apmw_error *err)
{
    static const char *const keys[] = {"when", "length_range_ratio", "prompt_scale", "burst_prompt_s", "_source", NULL};
    apmw_json_cur root = apmw_json_root(defaults->doc), list;
    apmw_status status = apmw_json_child(&root, "clients", &list, err);
    double ratio = 1, scale = 1, burst = 0;
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&list); i++) {
        apmw_json_cur entry, when;
        bool fits = false;
        status = apmw_json_at(&list, i, &entry, err);
        if (status == APMW_OK)
            status = apmw_json_only_keys(&entry, keys, err);
        if (status == APMW_OK)
            status = apmw_json_child(&entry, "when", &when, err);
        if (status == APMW_OK)
            status = when_fits(&when, point, point->disagg ? APMW_ROLE_PREFILL : APMW_ROLE_ENGINE, &fits, err);
        if (status == APMW_OK && fits)
            status = apmw_json_opt_double(&entry, "length_range_ratio", 1e-3, 1, &ratio, err);
        if (status == APMW_OK && fits)
            status = apmw_json_opt_double(&entry, "prompt_scale", 1, 100, &scale, err);
        if (status == APMW_OK && fits)
            status = apmw_json_opt_double(&entry, "burst_prompt_s", 0, 10, &burst, err);
    }
    if (isnan(point->ratio))
        point->ratio = ratio;
    point->prompt_scale = scale;
    point->burst_prompt_s = burst;
    return status;
}

apmw_status apmw_points_excluded(const apmw_engine_defaults *defaults, const apmw_point *point, char *out, size_t size,
                            apmw_error *err)
{
    apmw_json_cur root = apmw_json_root(defaults->doc), list;
    apmw_status status = apmw_json_child(&root, "excluded", &list, err);
    out[0] = '\0';
    for (int i = 0; status == APMW_OK && !out[0] && i < apmw_json_length(&list); i++) {
        apmw_json_cur entry, when;
        bool fits = false;
        const char *reason = NULL;
        status = apmw_json_at(&list, i, &entry, err);
        if (status == APMW_OK)
            status = apmw_json_child(&entry, "when", &when, err);
        if (status == APMW_OK)
            status = when_fits(&when, point, point->disagg ? APMW_ROLE_DECODE : APMW_ROLE_ENGINE, &fits, err);
        if (status == APMW_OK && fits) {
            status = apmw_json_get_string(&entry, "reason", &reason, err);
            if (reason)
                apmw_copy(out, size, reason);
        }
    }
    return status;
}

/* One entry of "layouts" over the label of one role; formulas see the label. */
static apmw_status relabel(const apmw_json_cur *entry, apmw_point *point, apmw_role role, apmw_error *err)
{
    static const char *const keys[] = {"tp", "attention_dp", "moe_tp", "moe_ep", NULL};
    apmw_layout *layout = &point->layout[apmw_points_role_index(role)];
    int *const out[] = {&layout->tp, &layout->attention_dp, &layout->moe_tp, &layout->moe_ep};
    apmw_formula_vars vars;
    apmw_json_cur set;
    apmw_points_formula_vars(point, role, 0, &vars);
    apmw_status status = apmw_json_child(entry, "layout", &set, err);
    if (status == APMW_OK)
        status = apmw_json_only_keys(&set, keys, err);
    for (int i = 0; status == APMW_OK && keys[i]; i++) {
        double value = *out[i];
        status = number_of(&set, keys[i], &vars, &value, err);
        if (status == APMW_OK && !(value >= 0 && value <= 1024))
            return apmw_json_error(&set, err, APMW_E_DATA, "%s: %g is no number of ranks", keys[i], value);
        *out[i] = (int)value;
    }
    return status;
}

apmw_status apmw_points_relabel(const apmw_engine_defaults *defaults, apmw_point *point, apmw_error *err)
{
    apmw_json_cur root = apmw_json_root(defaults->doc), list;
    if (!apmw_json_has(&root, "layouts"))
        return APMW_OK;
    apmw_status status = apmw_json_child(&root, "layouts", &list, err);
    for (int r = 0; r < (point->disagg ? 2 : 1); r++) {
        apmw_role role = !point->disagg ? APMW_ROLE_ENGINE : r == 0 ? APMW_ROLE_PREFILL : APMW_ROLE_DECODE;
        bool done = false;
        for (int i = 0; status == APMW_OK && !done && i < apmw_json_length(&list); i++) {
            apmw_json_cur entry, when;
            status = apmw_json_at(&list, i, &entry, err);
            if (status == APMW_OK)
                status = apmw_json_child(&entry, "when", &when, err);
            if (status == APMW_OK)
                status = when_fits(&when, point, role, &done, err);
            if (status == APMW_OK && done)
                status = relabel(&entry, point, role, err);
        }
    }
    return status;
}
