/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/measured_steps.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"

/* ------------------------------------------------------------------ file */

typedef struct columns {
    const apmw_csv *csv;
    const char *path;
    size_t row;
} columns;

static apmw_status text_cell(const columns *c, const char *name, char *out, size_t size, apmw_error *err)
{
    int col;
    apmw_status status = apmw_csv_need(c->csv, name, &col, err);
    if (status == APMW_OK && !apmw_copy(out, size, apmw_csv_cell(c->csv, c->row, col)))
        status = apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s: longer than %zu letters", c->path, c->row + 2, name, size - 1);
    return status;
}

static apmw_status count_cell(const columns *c, const char *name, int64_t *out, apmw_error *err)
{
    int col;
    apmw_status status = apmw_csv_need(c->csv, name, &col, err);
    if (status == APMW_OK)
        status = apmw_csv_int(c->csv, c->row, col, 0, out, err);
    if (status == APMW_OK && (*out < 0 || *out > INT32_MAX))
        status = apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s: %lld is out of range", c->path, c->row + 2, name, (long long)*out);
    return status;
}

static apmw_status number_cell(const columns *c, const char *name, double *out, apmw_error *err)
{
    int col;
    apmw_status status = apmw_csv_need(c->csv, name, &col, err);
    return status == APMW_OK ? apmw_csv_double(c->csv, c->row, col, out, err) : status;
}

static apmw_status read_spec(const columns *c, apmw_serving_spec *spec, apmw_error *err)
{
    const struct {
        const char *name;
        char *out;
        size_t size;
    } texts[] = {{"platform", spec->platform, sizeof spec->platform}, {"model", spec->model, sizeof spec->model},
                 {"engine", spec->engine, sizeof spec->engine},       {"precision", spec->precision, sizeof spec->precision},
                 {"released", spec->released, sizeof spec->released}};
    const char *const names[] = {"tp", "attention_dp", "moe_ep", "draft_tokens"};
    int64_t n[4] = {0};
    apmw_status status = APMW_OK;
    for (size_t i = 0; status == APMW_OK && i < sizeof texts / sizeof texts[0]; i++)
        status = text_cell(c, texts[i].name, texts[i].out, texts[i].size, err);
    for (size_t i = 0; status == APMW_OK && i < 4; i++)
        status = count_cell(c, names[i], &n[i], err);
    spec->layout = (apmw_layout){.tp = (int)n[0], .attention_dp = (int)n[1], .moe_ep = (int)n[2]};
    spec->draft_tokens = (int)n[3];
    return status;
}

static apmw_status read_step(const columns *c, apmw_measured_step *step, apmw_error *err)
{
    char kind[16] = "";
    const struct {
        const char *name;
        int64_t *out;
    } counts[] = {{"rank_seqs", &step->rank_seqs},     {"total_seqs", &step->total_seqs},     {"new_tokens", &step->new_tokens},
                  {"past_tokens", &step->past_tokens}, {"chunk_tokens", &step->chunk_tokens}, {"samples", &step->samples}};
    apmw_status status = text_cell(c, "point", step->point, sizeof step->point, err);
    if (status == APMW_OK)
        status = read_spec(c, &step->spec, err);
    if (status == APMW_OK)
        status = text_cell(c, "kind", kind, sizeof kind, err);
    for (size_t i = 0; status == APMW_OK && i < sizeof counts / sizeof counts[0]; i++)
        status = count_cell(c, counts[i].name, counts[i].out, err);
    if (status == APMW_OK)
        status = number_cell(c, "rank_kv_tokens", &step->rank_kv_tokens, err);
    if (status == APMW_OK)
        status = number_cell(c, "ms", &step->measured_ms, err);
    if (status != APMW_OK)
        return status;
    step->predicted_ms = (double)NAN;
    step->prompt = strcmp(kind, "prompt") == 0;
    if (!step->prompt && strcmp(kind, "decode") != 0)
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: kind: \"%s\" is neither decode nor prompt", c->path, c->row + 2, kind);
    if (!(step->measured_ms > 0))
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: ms: a time above 0 is expected", c->path, c->row + 2);
    if (step->prompt ? step->new_tokens < 1 || step->chunk_tokens < 1
                     : step->rank_seqs < 1 || step->total_seqs < step->rank_seqs || !(step->rank_kv_tokens >= 1))
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: %s: these counts make no pass", c->path, c->row + 2, kind);
    return APMW_OK;
}

apmw_status apmw_measured_steps_load(const apmw_csv *csv, const char *path, apmw_measured_step **out, size_t *n,
                                     apmw_error *err)
{
    size_t rows = apmw_csv_rows(csv);
    apmw_status status = APMW_OK;
    *n = rows;
    *out = calloc(rows + 1, sizeof **out);
    if (!*out)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory for %zu steps", path, rows);
    for (size_t i = 0; status == APMW_OK && i < rows; i++) {
        const columns c = {csv, path, i};
        status = read_step(&c, &(*out)[i], err);
    }
    if (status != APMW_OK) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return status;
}

/* ------------------------------------------------------------------ prediction */

static bool same_deployment(const apmw_serving_spec *a, const apmw_serving_spec *b)
{
    return strcmp(a->platform, b->platform) == 0 && strcmp(a->model, b->model) == 0 && strcmp(a->engine, b->engine) == 0 &&
           strcmp(a->precision, b->precision) == 0 && strcmp(a->released, b->released) == 0 &&
           a->layout.tp == b->layout.tp && a->layout.attention_dp == b->layout.attention_dp &&
           a->layout.moe_ep == b->layout.moe_ep && a->draft_tokens == b->draft_tokens;
}

static double decode_s(const apmw_step_cost *cost, const apmw_measured_step *s)
{
    apmw_step_work work;
    int64_t rows = 1 + s->spec.draft_tokens;
    double seqs = (double)s->rank_seqs;
    apmw_step_load load = {.n_seqs = s->rank_seqs, .rank_tokens = s->rank_seqs * rows, .total_seqs = s->total_seqs,
                           .total_tokens = s->total_seqs * rows};
    for (int k = 0; k < cost->n_kinds; k++)
        load.kv[k] = seqs * fmin(s->rank_kv_tokens / seqs, (double)cost->kv_cap[k]);
    cost->ops->eval(cost, &load, &work);
    return work.time_s;
}

static double prompt_s(const apmw_step_cost *cost, const apmw_measured_step *s)
{
    double total = 0;
    int64_t past = s->past_tokens;
    for (int64_t left = s->new_tokens; left > 0;) {
        apmw_step_work work;
        int64_t now = left < s->chunk_tokens ? left : s->chunk_tokens;
        const apmw_chunk chunk = {.new_tokens = now, .past_tokens = past, .is_last = now == left};
        const apmw_step_load load = {.rank_tokens = now, .total_tokens = now, .chunks = &chunk, .n_chunks = 1};
        cost->ops->eval(cost, &load, &work);
        total += work.time_s;
        past += now;
        left -= now;
    }
    return total;
}

apmw_status apmw_measured_steps_predict(apmw_catalog *catalog, bool no_fit, apmw_measured_step *steps, size_t n,
                                        apmw_error *err)
{
    apmw_step_cost *cost = NULL;
    apmw_overhead overhead = {.prefill_scale = 1};
    apmw_status status = APMW_OK;
    for (size_t i = 0; status == APMW_OK && i < n; i++) {
        apmw_measured_step *s = &steps[i];
        if (i == 0 || !same_deployment(&s->spec, &steps[i - 1].spec)) {
            apmw_error why = {.status = APMW_OK};
            if (cost)
                cost->ops->free(cost);
            cost = NULL;
            if (!no_fit && (status = apmw_overhead_lookup(catalog, &s->spec, &overhead, &why)) != APMW_OK)
                status = status == APMW_E_SCENARIO ? APMW_OK : status;
            else
                status = apmw_compose(catalog, &s->spec, no_fit ? NULL : &overhead, &cost, NULL, &why);
            if (!cost)
                (void)apmw_copy(s->reason, sizeof s->reason, why.message);
            if (status != APMW_OK && status != APMW_E_SCENARIO)
                return apmw_error_set(err, status, "%s", why.message);
            status = APMW_OK;
        } else if (!cost) {
            (void)apmw_copy(s->reason, sizeof s->reason, steps[i - 1].reason);
        }
        if (!cost)
            continue;
        double front = no_fit || !s->prompt ? 0
                                            : overhead.request_s + overhead.frontend_s_per_token *
                                                                       (double)(s->new_tokens + s->past_tokens);
        s->predicted_ms = 1e3 * (front + (s->prompt ? prompt_s(cost, s) : decode_s(cost, s)));
    }
    if (cost)
        cost->ops->free(cost);
    return status;
}
