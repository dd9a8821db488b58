/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Labels, paths and folds of the rows of a serving fit. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "serving_fit_tree.h"

const unsigned apmw_serving_down_to[SERVING_KINDS] = {
    [SERVING_ENGINE] = 1U << SERVING_ENGINE,
    [SERVING_MODEL] = 1U << SERVING_ENGINE | 1U << SERVING_MODEL,
    [SERVING_MODEL_PRECISION] = 1U << SERVING_ENGINE | 1U << SERVING_MODEL | 1U << SERVING_MODEL_PRECISION,
    [SERVING_PLATFORM] = 1U << SERVING_ENGINE | 1U << SERVING_PLATFORM,
    [SERVING_MODEL_PLATFORM] =
        1U << SERVING_ENGINE | 1U << SERVING_MODEL | 1U << SERVING_PLATFORM | 1U << SERVING_MODEL_PLATFORM,
    [SERVING_MODEL_EPOCH] = 1U << SERVING_ENGINE | 1U << SERVING_MODEL | 1U << SERVING_MODEL_EPOCH,
    [SERVING_LEAF] = SERVING_KNOWN_KINDS,
    [SERVING_LAYOUT] = FIT_ALL_KINDS,
};

/* The label of one kind of node of a row. Returns false when the row has none (no day: no epoch). */
static bool cut(const serving_label *full, int kind, serving_label *out)
{
    bool model = kind != SERVING_ENGINE && kind != SERVING_PLATFORM;
    *out = (serving_label){.disagg = full->disagg, .kind = kind};
    memcpy(out->engine, full->engine, sizeof out->engine);
    memcpy(out->vendor, full->vendor, sizeof out->vendor);
    if (full->draft_tokens != 0)
        out->draft_tokens = model ? full->draft_tokens : -1;
    if (model)
        memcpy(out->model, full->model, sizeof out->model);
    if (kind == SERVING_MODEL_PRECISION || kind == SERVING_LEAF || kind == SERVING_LAYOUT)
        memcpy(out->precision, full->precision, sizeof out->precision);
    if (kind == SERVING_PLATFORM || kind == SERVING_MODEL_PLATFORM || kind == SERVING_LEAF ||
        kind == SERVING_LAYOUT)
        apmw_copy(out->platform, sizeof out->platform,
                  kind == SERVING_PLATFORM && !full->disagg ? apmw_overhead_silicon(full->platform) : full->platform);
    if (kind == SERVING_MODEL_EPOCH || kind == SERVING_LEAF)
        memcpy(out->epoch, full->epoch, sizeof out->epoch);
    if (kind == SERVING_LAYOUT) {
        out->tp = full->tp;
        out->moe_ep = full->moe_ep;
        out->attention_dp = full->attention_dp;
        return strcmp(full->vendor, "amd") != 0; /* AMD's cells have one layout nearly all */
    }
    return (kind != SERVING_MODEL_EPOCH && kind != SERVING_LEAF) || full->epoch[0] != '\0';
}

static bool same_label(const serving_label *a, const serving_label *b)
{
    return a->kind == b->kind && a->disagg == b->disagg && a->draft_tokens == b->draft_tokens &&
           a->tp == b->tp && a->moe_ep == b->moe_ep && a->attention_dp == b->attention_dp &&
           strcmp(a->engine, b->engine) == 0 && strcmp(a->vendor, b->vendor) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->platform, b->platform) == 0 &&
           strcmp(a->precision, b->precision) == 0 && strcmp(a->epoch, b->epoch) == 0;
}

static apmw_status label_of(const apmw_catalog *catalog, const apmw_predictor *predictor, const apmw_points *points,
                            size_t i, serving_label *out, apmw_error *err)
{
    const apmw_point *p = &points->items[i];
    const apmw_accelerator_spec *accelerator;
    const apmw_engine_settings *settings =
        apmw_predictor_settings(predictor, i, p->disagg ? APMW_ROLE_DECODE : APMW_ROLE_ENGINE);
    memset(out, 0, sizeof *out);
    apmw_status status = apmw_catalog_accelerator(catalog, p->platform, &accelerator, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->engine, sizeof out->engine, p->engine);
    apmw_copy(out->vendor, sizeof out->vendor, accelerator->vendor);
    apmw_copy(out->model, sizeof out->model, p->model);
    apmw_copy(out->platform, sizeof out->platform, apmw_overhead_platform(p->platform));
    apmw_copy(out->precision, sizeof out->precision, p->precision);
    /* Builds for AMD parts of the time turned over faster than months: within December 2025 a layer lost up to 60 us. Others
     * get their epochs below. */
    bool amd = strcmp(accelerator->vendor, "amd") == 0;
    bool late = amd && strlen(p->measured) == 10 && strcmp(p->measured + 8, "16") >= 0;
    apmw_copy(out->epoch, sizeof out->epoch, p->measured);
    if (amd && p->measured[0])
        snprintf(out->epoch, sizeof out->epoch, "%.7s-%s", p->measured, late ? "16" : "01");
    out->draft_tokens = p->speculative && settings ? (int)settings->draft_tokens : 0;
    out->tp = p->layout[p->disagg].tp;
    out->moe_ep = p->layout[p->disagg].moe_ep;
    out->attention_dp = p->layout[p->disagg].attention_dp;
    out->disagg = p->disagg;
    return APMW_OK;
}

/* Days since 0000-03-01 of yyyy-mm-dd, -1 without a day. */
static int day_of(const char *text)
{
    int y, m, d;
    if (sscanf(text, "%d-%d-%d", &y, &m, &d) != 3)
        return -1;
    y -= m <= 2;
    m += m <= 2 ? 9 : -3;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + d - 1;
}

static int earlier(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Runs of an engine and model are batches of days, each with one build of the server: a day that follows the last one by
 * more than a week begins an epoch, and rows get the first day of theirs. */
apmw_status apmw_serving_epochs(serving_label *labels, size_t n, apmw_error *err)
{
    enum { SAME_BUILD_DAYS = 7 };
    const char **days = calloc(n + 1, sizeof *days);
    char (*starts)[sizeof labels->epoch] = calloc(n + 1, sizeof *starts);
    for (size_t i = 0; days && starts && i < n; i++) {
        size_t n_days = 0;
        for (size_t j = 0; j < n; j++)
            if (strcmp(labels[i].engine, labels[j].engine) == 0 && strcmp(labels[i].model, labels[j].model) == 0 &&
                strcmp(labels[i].vendor, labels[j].vendor) == 0 && day_of(labels[j].epoch) >= 0)
                days[n_days++] = labels[j].epoch;
        qsort(days, n_days, sizeof *days, earlier);
        const char *start = n_days > 0 ? days[0] : "";
        for (size_t j = 0; j < n_days && strcmp(days[j], labels[i].epoch) <= 0; j++)
            if (j > 0 && day_of(days[j]) - day_of(days[j - 1]) > SAME_BUILD_DAYS)
                start = days[j];
        bool given = strcmp(labels[i].vendor, "amd") == 0;
        apmw_copy(starts[i], sizeof starts[i],
                  given ? labels[i].epoch : day_of(labels[i].epoch) >= 0 ? start : "");
    }
    for (size_t i = 0; days && starts && i < n; i++)
        memcpy(labels[i].epoch, starts[i], sizeof starts[i]);
    apmw_status status = days && starts ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    free(days);
    free(starts);
    return status;
}

static bool same_cell(const apmw_point *a, const apmw_point *b)
{
    return a->disagg == b->disagg && strcmp(a->platform, b->platform) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->engine, b->engine) == 0 && strcmp(a->precision, b->precision) == 0;
}

static bool same_layout(const apmw_point *a, const apmw_point *b)
{
    const apmw_layout *x = &a->layout[a->disagg], *y = &b->layout[b->disagg];
    return x->tp == y->tp && x->moe_ep == y->moe_ep && x->attention_dp == y->attention_dp;
}

/* Folds leave whole layouts out, or whole length shapes where a cell has one layout, as the split into halves does. */
int apmw_serving_fold(const apmw_points *points, const bool *keep, size_t i)
{
    const apmw_point *p = &points->items[i];
    const apmw_layout *l = &p->layout[p->disagg];
    bool single = true;
    for (size_t j = 0; single && j < points->n; j++)
        single = !keep[j] || !same_cell(p, &points->items[j]) || same_layout(p, &points->items[j]);
    char key[192];
    int n = snprintf(key, sizeof key, "%s|%s|%s|%s|%d|%d|%d", p->platform, p->model, p->engine, p->precision, l->tp,
                     l->moe_ep, l->attention_dp);
    if (single && n > 0 && (size_t)n < sizeof key)
        snprintf(key + n, sizeof key - (size_t)n, "|%lld/%lld", (long long)p->isl, (long long)p->osl);
    return (int)(apmw_hash64(key, strlen(key), 1) % SERVING_FOLDS);
}

/* Whole cells left out: what a cell never measured gets. */
static int cell_fold_of(const apmw_point *p)
{
    char key[128];
    snprintf(key, sizeof key, "%s|%s|%s|%s", p->platform, p->model, p->engine, p->precision);
    return (int)(apmw_hash64(key, strlen(key), 1) % SERVING_FOLDS);
}

/* Runs of one month that repeat a layout at one load are nearly copies (nightly runs): together they count once and a bit. */
static double weight_of(const apmw_points *points, const bool *keep, size_t i)
{
    const apmw_point *p = &points->items[i];
    double copies = 0;
    for (size_t j = 0; j < points->n; j++) {
        const apmw_point *q = &points->items[j];
        copies += keep[j] && same_cell(p, q) && same_layout(p, q) && p->speculative == q->speculative &&
                  p->isl == q->isl && p->osl == q->osl && p->concurrency == q->concurrency &&
                  strncmp(p->measured, q->measured, 7) == 0;
    }
    return 1 / sqrt(copies);
}

static int node_of(serving_tree *tree, const serving_label *label)
{
    for (int i = 0; i < tree->n_nodes; i++)
        if (same_label(&tree->label[i], label))
            return i;
    tree->label[tree->n_nodes] = *label;
    tree->kind[tree->n_nodes] = label->kind;
    return tree->n_nodes++;
}

static void start_of(const serving_stage *stage, const serving_label *root, double start[FIT_PARAMS])
{
    memset(start, 0, FIT_PARAMS * sizeof *start);
    if (stage->speculative)
        return; /* deviations from the plain overhead; acceptance from its own start */
    apmw_overhead prior;
    apmw_overhead_prior(root->engine, root->disagg ? "decode" : "", &prior);
    start[FIT_LAYER] = prior.layer_s * 1e6;
    start[FIT_SEQ] = prior.seq_s * 1e6;
    start[FIT_REQUEST] = prior.request_s * 1e3;
    start[FIT_FRONTEND] = prior.frontend_s_per_token * 1e6;
    start[FIT_SCALE] = prior.prefill_scale * 10;
    start[FIT_FLOOR] = 0.5; /* where the floor acts at all; at 0 it would have no slope and stay there */
}

double apmw_serving_whole_ms(const apmw_point *point, double ttft_ms, double tpot_ms)
{
    return ttft_ms + tpot_ms * fmax((1 + point->ratio) / 2 * (double)point->osl - 1, 0);
}

static apmw_status add_tree(serving_stage *stage, const apmw_points *points, const bool *keep,
                            const serving_label *labels, const size_t *rows, size_t n_rows, size_t root,
                            const apmw_serving_fit_options *options, apmw_error *err)
{
    serving_tree *tree = &stage->trees[stage->n_trees];
    serving_label wanted;
    (void)cut(&labels[root], SERVING_ENGINE, &wanted);
    tree->first = stage->n_rows;
    tree->kind = calloc(n_rows * FIT_PATH, sizeof *tree->kind);
    tree->label = calloc(n_rows * FIT_PATH, sizeof *tree->label);
    if (!tree->kind || !tree->label)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    stage->n_trees++;
    for (size_t i = 0; i < n_rows; i++) {
        serving_label own;
        const apmw_point *p = &points->items[rows[i]];
        (void)cut(&labels[i], SERVING_ENGINE, &own);
        if (!same_label(&own, &wanted))
            continue;
        fit_row *row = &stage->rows[stage->n_rows++];
        row->point = rows[i];
        for (int kind = 0; kind < SERVING_KINDS; kind++)
            row->path[kind] = cut(&labels[i], kind, &own) ? node_of(tree, &own) : -1;
        row->ln_measured[FIT_TPOT] = p->tpot_ms > 0 ? log(p->tpot_ms) : (double)NAN;
        /* Means of AMD runs hold a stall of about 10 s in the first burst (+ 1 s at every load, medians of the same layouts
         * do not): compilation in the measured run, not serving. */
        const bool amd = strcmp(labels[i].vendor, "amd") == 0, late = p->ttft_ms > options->ttft_limit_ms;
        /* Where prompts queue for long, the time to the first token says little and the whole time of a request, which is
         * requests in flight over the rate, how fast prompts are served. Not of AMD: full queues of its split
         * workers are off by factors that nothing explains, and pull the time per token of all others along. */
        row->queued = late && !amd;
        const double time_ms = row->queued ? apmw_serving_whole_ms(p, p->ttft_ms, p->tpot_ms) : p->ttft_ms;
        row->ln_measured[FIT_TTFT] = p->ttft_ms > 0 && !(amd && (late || !p->median)) ? log(time_ms) : (double)NAN;
        row->fold = apmw_serving_fold(points, keep, rows[i]);
        row->cell_fold = cell_fold_of(p);
        row->weight = weight_of(points, keep, rows[i]);
        tree->n_rows++;
    }
    start_of(stage, &wanted, tree->start);
    /* No collectives and no attention of AMD parts are measured, and releases of 2025 took up to 400 us a layer:
     * composition.md 10. */
    tree->wider = strcmp(wanted.vendor, "amd") != 0 ? 1 : wanted.disagg ? 0.75 : 1.5;
    tree->workers = wanted.disagg && strcmp(wanted.vendor, "amd") != 0;
    /* Builds of one part within two months lie 120 us a layer apart (MI300X, 2025-12 to 2026-02, at every load). */
    tree->wider_build =
        strcmp(wanted.vendor, "amd") != 0 ? 1 : wanted.disagg || stage->speculative ? tree->wider : 6;
    if (!stage->speculative && strcmp(wanted.vendor, "amd") == 0) {
        tree->start[FIT_LAYER] = 80;
        /* Builds that served both: prompts of 1k in 77 ms and of 8k in 300, two looks of the scheduler included. */
        tree->start[FIT_REQUEST] = wanted.disagg ? 90 : 25; /* and a transfer to arrange */
        tree->start[FIT_FRONTEND] = 5;
        tree->start[FIT_SCALE] = 12;
        tree->start[FIT_FLOOR] = 0.1; /* where prompts of aggregated engines end; above, it trades with their kernels */
    }
    size_t n = (size_t)tree->n_nodes * FIT_PARAMS;
    tree->x = calloc(n, sizeof *tree->x);
    tree->variance = calloc(n, sizeof *tree->variance);
    tree->scratch = calloc(n, sizeof *tree->scratch);
    if (!tree->x || !tree->variance || !tree->scratch)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    for (size_t i = 0; i < tree->n_rows; i++)
        memcpy(stage->rows[tree->first + i].at, tree->start, sizeof tree->start);
    return APMW_OK;
}

apmw_status apmw_serving_stage_build(const apmw_catalog *catalog, const apmw_predictor *predictor, const apmw_points *points,
                                const bool *keep, const apmw_serving_fit_options *options, serving_stage *out,
                                apmw_error *err)
{
    size_t n = points->n + 1, n_rows = 0;
    size_t *rows = calloc(n, sizeof *rows);
    serving_label *labels = calloc(n, sizeof *labels);
    out->rows = calloc(n, sizeof *out->rows);
    out->trees = calloc(n, sizeof *out->trees);
    out->residual = calloc(n, sizeof *out->residual);
    out->left_out = calloc(n, sizeof *out->left_out);
    out->cell_out = calloc(n, sizeof *out->cell_out);
    apmw_status status = APMW_OK;
    if (!rows || !labels || !out->rows || !out->trees || !out->residual || !out->left_out || !out->cell_out)
        status = apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    for (size_t i = 0; status == APMW_OK && i < points->n; i++)
        if (keep[i] && points->items[i].speculative == out->speculative &&
            apmw_predictor_spec(predictor, i, points->items[i].disagg ? APMW_ROLE_DECODE : APMW_ROLE_ENGINE)) {
            apmw_error why = {.status = APMW_OK};
            if (label_of(catalog, predictor, points, i, &labels[n_rows], &why) == APMW_OK)
                rows[n_rows++] = i; /* an unknown platform has no row that could be simulated */
        }
    if (status == APMW_OK)
        status = apmw_serving_epochs(labels, n_rows, err);
    for (size_t i = 0; status == APMW_OK && i < n_rows; i++) {
        bool seen = false;
        serving_label own, other;
        (void)cut(&labels[i], SERVING_ENGINE, &own);
        for (size_t j = 0; !seen && j < i; j++) {
            (void)cut(&labels[j], SERVING_ENGINE, &other);
            seen = same_label(&own, &other);
        }
        if (!seen)
            status = add_tree(out, points, keep, labels, rows, n_rows, i, options, err);
    }
    for (size_t i = 0; status == APMW_OK && i < n; i++)
        for (int m = 0; m < 2; m++)
            out->residual[i][m] = out->left_out[i][m] = out->cell_out[i][m] = (double)NAN;
    free(rows);
    free(labels);
    return status;
}

void apmw_serving_stage_free(serving_stage *stage, size_t n_points)
{
    for (size_t t = 0; stage->trees && t < stage->n_trees; t++) {
        free(stage->trees[t].kind);
        free(stage->trees[t].label);
        free(stage->trees[t].x);
        free(stage->trees[t].variance);
        free(stage->trees[t].scratch);
    }
    for (size_t i = 0; stage->base && i < n_points; i++)
        free(stage->base[i]);
    free(stage->base);
    free(stage->trees);
    free(stage->rows);
    free(stage->residual);
    free(stage->left_out);
    free(stage->cell_out);
    memset(stage, 0, sizeof *stage);
}

void apmw_serving_residuals(const fit_tree *tree, const double *x, const fit_row *row, double out[2])
{
    double total[FIT_PARAMS], predicted[2];
    apmw_fit_row_total(tree, x, row, SERVING_KNOWN_KINDS, total);
    apmw_fit_row_predict(row, total, predicted);
    for (int m = 0; m < 2; m++)
        out[m] = m == FIT_TTFT && row->queued ? (double)NAN : log(predicted[m]) - row->ln_measured[m];
}

apmw_status apmw_serving_bases(const apmw_points *points, const apmw_overhead_table *table, serving_stage *stage,
                               apmw_error *err)
{
    stage->base = calloc(points->n + 1, sizeof *stage->base);
    if (!stage->base)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    for (size_t t = 0; t < stage->n_trees; t++)
        for (size_t i = 0; i < stage->trees[t].n_rows; i++) {
            const fit_row *row = &stage->rows[stage->trees[t].first + i];
            const serving_label *root = &stage->trees[t].label[row->path[SERVING_ENGINE]];
            const apmw_point *p = &points->items[row->point];
            apmw_overhead *base = calloc(2, sizeof *base);
            if (!base)
                return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
            stage->base[row->point] = base;
            for (int r = 0; r < (p->disagg ? 2 : 1); r++) {
                const char *role = !p->disagg ? "" : r == 0 ? "prefill" : "decode";
                const apmw_overhead_key key = {.engine = root->engine, .vendor = root->vendor, .model = p->model,
                                               .family = "", .platform = apmw_overhead_platform(p->platform),
                                               .precision = p->precision,
                                               .role = role, .released = p->measured, .tp = p->layout[r].tp};
                if (apmw_overhead_table_value(table, &key, &base[r]) == 0)
                    apmw_overhead_prior(root->engine, role, &base[r]);
            }
        }
    return APMW_OK;
}
