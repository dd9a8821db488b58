/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reading of points.csv: labels, layout, settings and measured values of a row, and the split into halves. */
#include "apmw/points.h"
#include "points_private.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"

typedef struct reader {
    const apmw_csv *csv;
    const char *path;
    size_t row;
} reader;

static const char *cell(const reader *r, const char *name)
{
    return apmw_csv_cell(r->csv, r->row, apmw_csv_col(r->csv, name));
}

/* The part of a cell that belongs to a role: all of it, or what follows "P:" / "D:"; "" for "-". */
static void role_text(const char *text, apmw_role role, char *out, size_t size)
{
    out[0] = '\0';
    const char *mark = role == APMW_ROLE_PREFILL ? "P:" : "D:";
    bool marked = strncmp(text, "P:", 2) == 0 || strncmp(text, "D:", 2) == 0;
    if (role == APMW_ROLE_ENGINE || !marked) {
        apmw_copy(out, size, text);
        return;
    }
    const char *begin = text;
    while (begin && strncmp(begin, mark, 2) != 0) {
        begin = strstr(begin + 1, mark);
        if (begin && begin[-1] == ' ')
            break;
    }
    if (!begin)
        return;
    begin += 2;
    const char *end = role == APMW_ROLE_PREFILL ? strstr(begin, " D:") : NULL;
    size_t n = end ? (size_t)(end - begin) : strlen(begin);
    if (n >= size)
        n = size - 1;
    memcpy(out, begin, n);
    out[n] = '\0';
    if (strcmp(out, "-") == 0)
        out[0] = '\0';
}

static apmw_status role_number(const reader *r, const char *name, apmw_role role, const apmw_formula_vars *vars,
                               double *out, apmw_error *err)
{
    char text[256];
    role_text(cell(r, name), role, text, sizeof text);
    *out = (double)NAN;
    if (!text[0] || strcmp(text, "auto") == 0 || strcmp(text, "none") == 0)
        return APMW_OK;
    apmw_error why;
    if (apmw_formula_eval(text, vars, out, &why) != APMW_OK)
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s: %s", r->path, r->row + 2, name, why.message);
    return APMW_OK;
}

/* The number after `key` in free text, or NaN. The key must begin a word. */
static double number_after(const char *text, const char *key)
{
    for (const char *at = strstr(text, key); at; at = strstr(at + 1, key)) {
        if (at != text && !isspace((unsigned char)at[-1]) && at[-1] != '-' && at[-1] != ':')
            continue;
        char *end;
        double value = strtod(at + strlen(key), &end);
        if (end != at + strlen(key))
            return value;
    }
    return (double)NAN;
}

/* Draft length of "num_nextn_predict_layers=3", "MTP layers 3", "speculative-num-steps=2", "num-steps=2". */
static double draft_length(const char *text)
{
    static const char *const keys[] = {"num_nextn_predict_layers=", "MTP layers ", "num-steps="};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double value = number_after(text, keys[i]);
        if (!isnan(value))
            return value;
    }
    return (double)NAN;
}

static apmw_status read_layout(const reader *r, const char *prefix, apmw_layout *out, apmw_error *err)
{
    const struct {
        const char *name;
        int *value;
    } fields[] = {{"tp", &out->tp}, {"pp", &out->pp}, {"attention_dp", &out->attention_dp},
                  {"moe_tp", &out->moe_tp}, {"moe_ep", &out->moe_ep}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char name[40];
        bool experts = strncmp(fields[i].name, "moe_", 4) == 0; /* 0 = not stated: the composer's default */
        int64_t value = experts ? 0 : 1;
        snprintf(name, sizeof name, "%s%s", prefix, fields[i].name);
        apmw_status status = apmw_csv_int(r->csv, r->row, apmw_csv_col(r->csv, name), value, &value, err);
        if (status != APMW_OK)
            return status;
        if (value < (experts ? 0 : 1) || value > 4096)
            return apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s: %lld is not between 1 and 4096", r->path, r->row + 2,
                                  name, (long long)value);
        *fields[i].value = (int)value;
    }
    return APMW_OK;
}

static apmw_status read_settings(const reader *r, const apmw_point *point, apmw_role role,
                                 apmw_engine_settings *out, apmw_error *err)
{
    apmw_formula_vars vars;
    char text[512];
    apmw_points_settings_clear(out);
    role_text(cell(r, "spec_settings"), role, text, sizeof text);
    out->draft_tokens = draft_length(text);
    if (isnan(out->draft_tokens)) {
        apmw_status status = apmw_csv_double(r->csv, r->row, apmw_csv_col(r->csv, "spec_tokens"),
                                             &out->draft_tokens, err);
        if (status != APMW_OK)
            return status;
    }
    apmw_points_formula_vars(point, role, out->draft_tokens, &vars);
    const struct {
        const char *name;
        double *value;
    } numbers[] = {{"token_budget", &out->token_budget},     {"max_prefill_tokens", &out->max_prefill_tokens},
                   {"max_seqs", &out->max_seqs},             {"max_model_len", &out->max_model_len},
                   {"block_size", &out->block_tokens},       {"kv_memory_fraction", &out->kv_memory_fraction},
                   {"scheduler_recv_interval", &out->recv_interval}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        apmw_status status = role_number(r, numbers[i].name, role, &vars, numbers[i].value, err);
        if (status != APMW_OK)
            return status;
    }
    const char *prompts = cell(r, "num_prompts");
    if (prompts[0] == '=' || isdigit((unsigned char)prompts[0])) {
        apmw_status status = role_number(r, "num_prompts", APMW_ROLE_ENGINE, &vars, &out->num_prompts, err);
        if (status != APMW_OK)
            return status;
    }
    /* A number, a formula, or "max 64 of a list of 10". */
    role_text(cell(r, "cuda_graph_max_batch"), role, text, sizeof text);
    out->graph_max_batch = number_after(text, "max ");
    if (text[0] == '=' || isdigit((unsigned char)text[0])) {
        apmw_status status = role_number(r, "cuda_graph_max_batch", role, &vars, &out->graph_max_batch, err);
        if (status != APMW_OK)
            return status;
    }
    role_text(cell(r, "kv_dtype"), role, text, sizeof text);
    if (strncmp(text, "fp8", 3) == 0)
        text[3] = '\0';
    apmw_copy(out->kv_dtype, sizeof out->kv_dtype, strcmp(text, "auto") == 0 ? "" : text);
    role_text(cell(r, "moe_backend"), role, text, sizeof text);
    apmw_copy(out->moe_backend, sizeof out->moe_backend, text);
    role_text(cell(r, "chunked_prefill"), role, text, sizeof text);
    out->chunked_prefill = text[0] ? strcmp(text, "on") == 0 : -1;
    role_text(cell(r, "attention_dp_balance"), role, text, sizeof text);
    out->adp_wait_iters = number_after(text, "timeout_iters=");
    role_text(cell(r, "server_other"), role, text, sizeof text);
    out->batch_wait_iters = number_after(text, "batch_wait_timeout_iters=");
    out->max_total_tokens = number_after(text, "max-total-tokens=");
    out->absorbed_chunks = strstr(text, "disable-chunked-prefix-cache") != NULL;
    out->batch_wait_tokens = number_after(text, "batch_wait_max_tokens_ratio=") * out->token_budget;
    return APMW_OK;
}

/* Engine names as users may write them. */
static apmw_status copy_label(const reader *r, const char *name, bool needed, char *out, size_t size,
                              apmw_error *err)
{
    const char *text = cell(r, name);
    if (needed && !text[0])
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s is empty", r->path, r->row + 2, name);
    if (!apmw_copy(out, size, text))
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s \"%s\" is longer than %zu characters", r->path, r->row + 2,
                              name, text, size - 1);
    return APMW_OK;
}

static apmw_status read_measured(const reader *r, apmw_point *out, apmw_error *err)
{
    const struct {
        const char *name;
        double *value;
    } numbers[] = {{"ttft_ms", &out->ttft_ms},
                   {"tpot_ms", &out->tpot_ms},
                   {"power_w_per_gpu", &out->power_w},
                   {"prefill_power_w_per_gpu", &out->role_power_w[0]},
                   {"decode_power_w_per_gpu", &out->role_power_w[1]},
                   {"acceptance_length", &out->acceptance_length},
                   {"length_range_ratio", &out->ratio}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        apmw_status status =
            apmw_csv_double(r->csv, r->row, apmw_csv_col(r->csv, numbers[i].name), numbers[i].value, err);
        if (status != APMW_OK)
            return status;
    }
    /* A row of medians alone, as other tools write them. */
    const char *statistic = cell(r, "statistic");
    out->median = strcmp(statistic, "median") == 0;
    if (isnan(out->ttft_ms) && isnan(out->tpot_ms)) {
        apmw_status status = apmw_csv_double(r->csv, r->row, apmw_csv_col(r->csv, "median_ttft_ms"), &out->ttft_ms,
                                             err);
        if (status == APMW_OK)
            status = apmw_csv_double(r->csv, r->row, apmw_csv_col(r->csv, "median_tpot_ms"), &out->tpot_ms, err);
        if (status != APMW_OK)
            return status;
        out->median = true;
    }
    if (!isnan(out->ratio) && !(out->ratio > 0 && out->ratio <= 1))
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: length_range_ratio %g is not in (0, 1]", r->path, r->row + 2,
                              out->ratio);
    return APMW_OK;
}

static apmw_status read_counts(const reader *r, apmw_point *out, apmw_error *err)
{
    const struct {
        const char *name;
        int64_t *value, missing;
    } counts[] = {{"isl", &out->isl, -1}, {"osl", &out->osl, -1}, {"concurrency", &out->concurrency, -1},
                  {"accelerators", &out->accelerators, 0}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        apmw_status status = apmw_csv_int(r->csv, r->row, apmw_csv_col(r->csv, counts[i].name), counts[i].missing,
                                          counts[i].value, err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static apmw_status read_row(const reader *r, const apmw_engine_defaults *defaults, apmw_point *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    apmw_status status = copy_label(r, "id", false, out->id, sizeof out->id, err);
    if (status == APMW_OK && !out->id[0])
        snprintf(out->id, sizeof out->id, "row%zu", r->row + 2);
    if (status == APMW_OK)
        status = copy_label(r, "platform", true, out->platform, sizeof out->platform, err);
    if (status == APMW_OK)
        status = copy_label(r, "model", true, out->model, sizeof out->model, err);
    if (status == APMW_OK)
        status = copy_label(r, "engine", true, out->engine, sizeof out->engine, err);
    if (status == APMW_OK)
        status = copy_label(r, "precision", false, out->precision, sizeof out->precision, err);
    apmw_copy(out->engine_version, sizeof out->engine_version, cell(r, "engine_version"));
    apmw_copy(out->measured, sizeof out->measured, cell(r, "measured"));
    out->disagg = strcmp(cell(r, "mode"), "disagg") == 0;
    if (status == APMW_OK)
        status = read_counts(r, out, err);
    if (status == APMW_OK)
        status = read_measured(r, out, err);
    if (status != APMW_OK)
        return status;
    const char *source = cell(r, "source");
    if (strstr(source, "data/"))
        apmw_copy(out->source, sizeof out->source, "vendor");
    else if (source[0])
        apmw_copy(out->source, sizeof out->source, "inferencex");
    out->has_recipe = cell(r, "server_certainty")[0] != '\0';
    const char *method = cell(r, "spec_method");
    out->speculative = method[0] && strcmp(method, "none") != 0;
    if (out->disagg) {
        const char *const prefixes[2] = {"prefill_", "decode_"};
        for (int i = 0; status == APMW_OK && i < 2; i++) {
            char name[40];
            int64_t workers = 1;
            status = read_layout(r, prefixes[i], &out->layout[i], err);
            snprintf(name, sizeof name, "%sworkers", prefixes[i]);
            if (status == APMW_OK)
                status = apmw_csv_int(r->csv, r->row, apmw_csv_col(r->csv, name), 1, &workers, err);
            out->workers[i] = (int)workers;
        }
        for (int i = 0; status == APMW_OK && i < 2; i++)
            status = read_settings(r, out, i == 0 ? APMW_ROLE_PREFILL : APMW_ROLE_DECODE, &out->settings[i], err);
    } else {
        status = read_layout(r, "", &out->layout[0], err);
        out->workers[0] = 1;
        if (status == APMW_OK)
            status = read_settings(r, out, APMW_ROLE_ENGINE, &out->settings[0], err);
    }
    if (status == APMW_OK && out->speculative) {
        /* "MTP layers 0" is no speculation whatever the label says. */
        double k = out->settings[out->disagg ? 1 : 0].draft_tokens;
        if (k == 0)
            out->speculative = false;
    }
    if (status == APMW_OK)
        status = apmw_points_client(defaults, out, err);
    if (status == APMW_OK)
        status = apmw_points_excluded(defaults, out, out->excluded, sizeof out->excluded, err);
    return status;
}

apmw_status apmw_points_from_csv(const apmw_csv *csv, const char *path, const char *data_dir, apmw_points *out,
                                 apmw_error *err)
{
    static const char *const needed[] = {"platform", "model", "engine", "isl", "osl", "concurrency"};
    apmw_engine_defaults *defaults = NULL;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        int col;
        apmw_status status = apmw_csv_need(csv, needed[i], &col, err);
        if (status != APMW_OK)
            return status;
    }
    apmw_status status = apmw_engine_defaults_open(data_dir, &defaults, err);
    if (status != APMW_OK)
        return status;
    size_t n = apmw_csv_rows(csv);
    out->items = calloc(n + 1, sizeof *out->items);
    if (!out->items)
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    for (size_t i = 0; status == APMW_OK && i < n; i++) {
        reader r = {.csv = csv, .path = path, .row = i};
        status = read_row(&r, defaults, &out->items[i], err);
        out->n = i + 1;
    }
    if (status == APMW_OK)
        apmw_points_split(out);
    for (size_t i = 0; status == APMW_OK && i < n; i++)
        status = apmw_points_relabel(defaults, &out->items[i], err);
    apmw_engine_defaults_free(defaults);
    if (status != APMW_OK)
        apmw_points_free(out);
    return status;
}

apmw_status apmw_points_load(const char *path, const char *data_dir, apmw_points *out, apmw_error *err)
{
    apmw_csv *csv = NULL;
    memset(out, 0, sizeof *out);
    apmw_status status = apmw_csv_load(path, &csv, err);
    if (status != APMW_OK)
        return status;
    status = apmw_points_from_csv(csv, path, data_dir, out, err);
    apmw_csv_free(csv);
    if (status == APMW_OK && strcmp(path, "-") != 0)
        status = apmw_file_hash(path, out->hash, err);
    if (status != APMW_OK)
        apmw_points_free(out);
    return status;
}

void apmw_points_free(apmw_points *points)
{
    free(points->items);
    memset(points, 0, sizeof *points);
}

static bool same_group(const apmw_point *a, const apmw_point *b)
{
    return a->disagg == b->disagg && strcmp(a->platform, b->platform) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->engine, b->engine) == 0 && strcmp(a->precision, b->precision) == 0;
}

static bool same_layout(const apmw_point *a, const apmw_point *b)
{
    const apmw_layout *x = &a->layout[a->disagg], *y = &b->layout[b->disagg];
    return x->tp == y->tp && x->moe_ep == y->moe_ep && x->attention_dp == y->attention_dp;
}

void apmw_points_split(apmw_points *points)
{
    for (size_t i = 0; i < points->n; i++) {
        apmw_point *p = &points->items[i];
        const apmw_layout *layout = &p->layout[p->disagg];
        bool single = true;
        for (size_t j = 0; single && j < points->n; j++)
            if (same_group(p, &points->items[j]) && !same_layout(p, &points->items[j]))
                single = false;
        char key[256];
        int n = snprintf(key, sizeof key, "%s|%s|%s|%s|%d|%d|%d", p->platform, p->model, p->engine, p->precision,
                         layout->tp, layout->moe_ep > 0 ? layout->moe_ep : 1, layout->attention_dp);
        if (single && n > 0 && (size_t)n < sizeof key)
            snprintf(key + n, sizeof key - (size_t)n, "|%lld/%lld", (long long)p->isl, (long long)p->osl);
        p->judge = (apmw_hash64(key, strlen(key), 0) & 1U) != 0;
    }
}
