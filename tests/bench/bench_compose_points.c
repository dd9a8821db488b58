/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Static check of the composition without any fitted number: time per output token of the aggregated,
 * non-speculative serving points, from the step at full batch and mean context plus the share of prompt steps, against
 * what was measured. No scheduler is simulated (apmw validate does that): this shows wrong rows, fast.
 *
 *   bench_compose_points [--data DIR] [--half fit|judge|all] [--disagg] [--rows] [--report] [--match TEXT]
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "apmw/buf.h"
#include "apmw/compose.h"
#include "apmw/csv.h"
#include "apmw/text.h"

typedef struct group {
    char name[128];
    double *error, *residual, *ratio, *layer, *seqs; /* composed, layers (1/s) and sequences (1/s) over measured */
    size_t n;
} group;

typedef struct point {
    apmw_serving_spec spec;
    double isl, osl, concurrency, tpot_s, workers; /* decode workers of a disaggregated row, else 0 */
    char name[96];
} point;

static const char *cell(const apmw_csv *csv, size_t row, const char *name)
{
    return apmw_csv_cell(csv, row, apmw_csv_col(csv, name));
}

static int number(const apmw_csv *csv, size_t row, const char *name)
{
    return atoi(cell(csv, row, name));
}

/* "fit" half when the hash of the layout key is even. */
static bool in_fit_half(const apmw_csv *csv, size_t row)
{
    char key[256];
    snprintf(key, sizeof key, "%s|%s|%s|%s|%s|%s|%s", cell(csv, row, "platform"), cell(csv, row, "model"),
             cell(csv, row, "engine"), cell(csv, row, "precision"), cell(csv, row, "tp"), cell(csv, row, "moe_ep"),
             cell(csv, row, "attention_dp"));
    return apmw_hash64(key, strlen(key), 0) % 2 == 0;
}

/* Anomalous runs (hwmodels/ACCURACY.md): a cold start, and prompts that were longer than labelled. */
static bool excluded(const apmw_csv *csv, size_t row)
{
    bool r1 = !strcmp(cell(csv, row, "model"), "deepseek-v3-r1") && !strcmp(cell(csv, row, "engine"), "sglang");
    const char *day = cell(csv, row, "measured"), *platform = cell(csv, row, "platform");
    return (r1 && !strcmp(platform, "b200") && !strcmp(day, "2025-11-10")) ||
           (r1 && !strcmp(platform, "b300") && !strcmp(day, "2026-04-17"));
}

/* Settings of disaggregated rows are written "P:a D:b", "-" = not set: the part of the decode workers. */
static void decode_part(char *text)
{
    char *d = strstr(text, "D:");
    if (!d) {
        if (!strncmp(text, "P:", 2)) {
            text[0] = 0;
        }
        return;
    }
    memmove(text, d + 2, strlen(d + 2) + 1);
    if (!strcmp(text, "-")) {
        text[0] = 0;
    }
}

static void copy_setting(char *out, size_t size, const char *cell_text)
{
    char text[512];
    apmw_copy(text, sizeof text, cell_text);
    decode_part(text);
    apmw_copy(out, size, text);
}

static void read_point(const apmw_csv *csv, size_t row, point *p)
{
    *p = (point){.isl = number(csv, row, "isl"), .osl = number(csv, row, "osl"),
                 .concurrency = number(csv, row, "concurrency"), .tpot_s = atof(cell(csv, row, "tpot_ms")) / 1e3};
    apmw_copy(p->spec.platform, sizeof p->spec.platform, cell(csv, row, "platform"));
    apmw_copy(p->spec.model, sizeof p->spec.model, cell(csv, row, "model"));
    apmw_copy(p->spec.engine, sizeof p->spec.engine, cell(csv, row, "engine"));
    apmw_copy(p->spec.precision, sizeof p->spec.precision, cell(csv, row, "precision"));
    copy_setting(p->spec.kv_dtype, sizeof p->spec.kv_dtype, cell(csv, row, "kv_dtype"));
    copy_setting(p->spec.moe_backend, sizeof p->spec.moe_backend, cell(csv, row, "moe_backend"));
    apmw_copy(p->spec.released, sizeof p->spec.released, cell(csv, row, "measured"));
    p->spec.layout = (apmw_layout){.tp = number(csv, row, "tp"), .pp = number(csv, row, "pp"),
                                   .attention_dp = number(csv, row, "attention_dp"),
                                   .moe_tp = number(csv, row, "moe_tp"), .moe_ep = number(csv, row, "moe_ep")};
    if (number(csv, row, "decode_workers") > 0) {
        p->workers = number(csv, row, "decode_workers");
        apmw_copy(p->spec.role, sizeof p->spec.role, "decode");
        p->spec.layout = (apmw_layout){.tp = number(csv, row, "decode_tp"), .pp = number(csv, row, "decode_pp"),
                                       .attention_dp = number(csv, row, "decode_attention_dp"),
                                       .moe_tp = number(csv, row, "decode_moe_tp"), .moe_ep = number(csv, row, "decode_moe_ep")};
    }
    snprintf(p->name, sizeof p->name, "%s %s %s %s", p->spec.platform, p->spec.model, p->spec.engine, p->spec.precision);
}

/* A disaggregated decode worker: no prompts beside the decodes. */
static double predict_decode(const apmw_step_cost *cost, const point *p)
{
    double dp = p->spec.layout.attention_dp > 1 ? p->spec.layout.attention_dp : 1, ctx = 0.9 * (p->isl + p->osl / 2);
    int64_t total = (int64_t)ceil(p->concurrency / p->workers), seqs = (int64_t)ceil((double)total / dp);
    apmw_step_load load = {.n_seqs = seqs, .rank_tokens = seqs, .total_seqs = total, .total_tokens = total};
    for (int k = 0; k < cost->n_kinds; k++) {
        load.kv[k] = (double)seqs * fmin(ctx, (double)cost->kv_cap[k]);
    }
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    return work.time_s;
}

/* Step at full batch and mean context, plus what the prompts of the other requests add to each step. */
static double predict(const apmw_step_cost *cost, const point *p)
{
    if (p->workers > 0) {
        return predict_decode(cost, p);
    }
    double dp = p->spec.layout.attention_dp > 1 ? p->spec.layout.attention_dp : 1;
    double batch = p->concurrency / dp, isl = 0.9 * p->isl, osl = 0.9 * p->osl;
    int64_t seqs = (int64_t)ceil(batch), total = (int64_t)p->concurrency;
    apmw_step_load load = {.n_seqs = seqs, .rank_tokens = seqs, .total_seqs = total, .total_tokens = total};
    double ctx = isl + osl / 2;
    for (int k = 0; k < cost->n_kinds; k++) {
        double cap = (double)cost->kv_cap[k];
        load.kv[k] = (double)seqs * (ctx < cap ? ctx : cap);
    }
    apmw_step_work decode, mixed;
    apmw_step_cost_eval(cost, &load, &decode);
    apmw_chunk chunk = {(int64_t)isl, 0, 1};
    load.chunks = &chunk;
    load.n_chunks = 1;
    load.rank_tokens += chunk.new_tokens;
    load.total_tokens += chunk.new_tokens * (int64_t)dp;
    bool alone = !strcmp(p->spec.engine, "sglang");
    if (alone) {
        load.n_seqs = load.total_seqs = 0;
        load.rank_tokens = chunk.new_tokens;
        load.total_tokens = chunk.new_tokens * (int64_t)dp;
        memset(load.kv, 0, sizeof load.kv);
    }
    apmw_step_cost_eval(cost, &load, &mixed);
    double prompt = alone ? mixed.time_s : mixed.time_s - decode.time_s;
    return decode.time_s + (p->concurrency - 1) / dp / osl * prompt;
}

/* Best constants per layer and step and per sequence and step, and the mean absolute ln error that they leave: what no
 * constant can mend. */
static void best_constants(const group *g, double *layer_s, double *seq_s, double *left)
{
    *left = HUGE_VAL;
    for (double b = 0; b < 61e-6; b += 3e-6) {
        for (double s = 0; s < 200e-6; s += 1e-6) {
            double sum = 0;
            for (size_t i = 0; i < g->n; i++) {
                sum += fabs(log(g->ratio[i] + s * g->layer[i] + b * g->seqs[i]));
            }
            if (sum < *left * (double)g->n) {
                *left = sum / (double)g->n;
                *layer_s = s;
                *seq_s = b;
            }
        }
    }
}

static void add(group **groups, size_t *n, const char *name, double error, double residual, double layer, double seqs)
{
    group *g = NULL;
    for (size_t i = 0; i < *n && !g; i++) {
        g = strcmp((*groups)[i].name, name) ? NULL : &(*groups)[i];
    }
    if (!g) {
        *groups = realloc(*groups, (*n + 1) * sizeof **groups);
        g = &(*groups)[(*n)++];
        *g = (group){.n = 0};
        apmw_copy(g->name, sizeof g->name, name);
    }
    g->error = realloc(g->error, (g->n + 1) * sizeof *g->error);
    g->residual = realloc(g->residual, (g->n + 1) * sizeof *g->residual);
    g->ratio = realloc(g->ratio, (g->n + 1) * sizeof *g->ratio);
    g->layer = realloc(g->layer, (g->n + 1) * sizeof *g->layer);
    g->seqs = realloc(g->seqs, (g->n + 1) * sizeof *g->seqs);
    g->error[g->n] = error;
    g->ratio[g->n] = error + 1;
    g->layer[g->n] = layer;
    g->seqs[g->n] = seqs;
    g->residual[g->n++] = residual;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const group *)a)->name, ((const group *)b)->name);
}

static void print_groups(group *groups, size_t n)
{
    double total_left = 0, total_n = 0;
    qsort(groups, n, sizeof *groups, by_name);
    printf("%-44s %4s %7s %7s %7s %9s %8s %7s %7s\n", "group", "n", "median%", "|med|%", "|p90|%", "us/layer", "s us", "b us", "left%");
    for (size_t i = 0; i < n; i++) {
        group *g = &groups[i];
        double signed_median = apmw_quantile(g->error, g->n, 0.5), us = apmw_quantile(g->residual, g->n, 0.5);
        for (size_t j = 0; j < g->n; j++) {
            g->error[j] = fabs(g->error[j]);
        }
        double left, best = 0, seq = 0;
        best_constants(g, &best, &seq, &left);
        total_left += left * (double)g->n;
        total_n += (double)g->n;
        printf("%-44s %4zu %+7.1f %7.1f %7.1f %+9.1f %8.0f %7.0f %7.1f\n", g->name, g->n, 100 * signed_median,
               100 * apmw_quantile(g->error, g->n, 0.5), 100 * apmw_quantile(g->error, g->n, 0.9), us, 1e6 * best, 1e6 * seq,
               100 * left);
        free(g->seqs);
        free(g->ratio);
        free(g->layer);
        free(g->error);
        free(g->residual);
    }
    printf("mean left over: %.2f %%\n", 100 * total_left / total_n);
    free(groups);
}

int main(int argc, char **argv)
{
    const char *data = APMW_SOURCE_DIR, *half = "all", *match = "", *mode = "agg";
    bool rows = false, report_rows = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--data") && i + 1 < argc) {
            data = argv[++i];
        } else if (!strcmp(argv[i], "--half") && i + 1 < argc) {
            half = argv[++i];
        } else if (!strcmp(argv[i], "--match") && i + 1 < argc) {
            match = argv[++i];
        } else if (!strcmp(argv[i], "--disagg")) {
            mode = "disagg";
        } else if (!strcmp(argv[i], "--rows")) {
            rows = true;
        } else if (!strcmp(argv[i], "--report")) {
            report_rows = true;
        }
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/hwmodels/evidence/serving/points.csv.zst", data);
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_csv *csv = NULL;
    if (apmw_catalog_open(data, &catalog, &err) || apmw_csv_load(path, &csv, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    group *groups = NULL, *engines = NULL;
    size_t n_groups = 0, n_engines = 0, unsupported = 0, compiled = 0;
    double compile_s = 0;
    apmw_step_cost *cost = NULL;
    apmw_serving_spec last = {0};
    for (size_t row = 0; row < apmw_csv_rows(csv); row++) {
        point p;
        if (strcmp(cell(csv, row, "mode"), mode) || strcmp(cell(csv, row, "spec_method"), "none") ||
            !*cell(csv, row, "length_range_ratio") || excluded(csv, row)) {
            continue;
        }
        if ((!strcmp(half, "fit") && !in_fit_half(csv, row)) || (!strcmp(half, "judge") && in_fit_half(csv, row))) {
            continue;
        }
        read_point(csv, row, &p);
        if (!strstr(p.name, match)) {
            continue;
        }
        if (!cost || memcmp(&last, &p.spec, sizeof last)) {
            apmw_step_cost_free(cost);
            cost = NULL;
            apmw_compose_report report = {0};
            struct timespec a, b;
            (void)apmw_catalog_platform(catalog, p.spec.platform, &(const apmw_hwmodel *){0}, NULL);
            clock_gettime(CLOCK_MONOTONIC, &a);
            apmw_status st = apmw_compose(catalog, &p.spec, NULL, &cost, report_rows ? &report : NULL, &err);
            clock_gettime(CLOCK_MONOTONIC, &b);
            compile_s += (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
            compiled++;
            if (report_rows && !st) {
                printf("%s\n", report.rows.data);
            }
            apmw_compose_report_free(&report);
            last = p.spec;
            if (st) {
                fprintf(stderr, "%s: %s\n", p.name, err.message);
                unsupported++;
                last = (apmw_serving_spec){0};
                continue;
            }
        }
        const apmw_llm_spec *llm = NULL;
        (void)apmw_catalog_llm(catalog, p.spec.model, &llm, NULL);
        double t = predict(cost, &p), error = t / p.tpot_s - 1, us = (p.tpot_s - t) / llm->layers * 1e6;
        if (rows) {
            printf("%-38s tp%d dp%d ep%d %5.0f/%5.0f N %4.0f %s: %8.3f ms, measured %8.3f, %+6.1f %%, %+6.1f us/layer\n", p.name,
                   p.spec.layout.tp, p.spec.layout.attention_dp, p.spec.layout.moe_ep, p.isl, p.osl, p.concurrency,
                   p.spec.released, 1e3 * t, 1e3 * p.tpot_s, 100 * error, us);
        }
        double per_layer = llm->layers / p.tpot_s, dp = p.spec.layout.attention_dp > 1 ? p.spec.layout.attention_dp : 1;
        double per_seq = p.concurrency / dp / p.tpot_s;
        add(&groups, &n_groups, p.name, error, us, per_layer, per_seq);
        add(&engines, &n_engines, p.spec.engine, error, us, per_layer, per_seq);
        add(&engines, &n_engines, "~all", error, us, per_layer, per_seq);
    }
    print_groups(groups, n_groups);
    print_groups(engines, n_engines);
    printf("%zu rows unsupported; %zu compiled, %.1f ms each\n", unsupported, compiled, 1e3 * compile_s / (double)compiled);
    apmw_step_cost_free(cost);
    apmw_csv_free(csv);
    apmw_catalog_free(catalog);
    return 0;
}
