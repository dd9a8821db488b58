/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The serving fit: rows become trees, rounds of simulation and solution, and the table of entries. */
#include "apmw/serving_fit.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "serving_fit_tree.h"

/* Start of tokens a speculative step by draft length (0..4): halfway between one and all accepted. */
static const double accept_start[] = {1, 1.5, 1.9, 2.2, 2.5};
/* Steps of the numeric slopes, in fitting units. */
static const double steps[FIT_PARAMS] = {5, 0, 5, 10, 10, 2, 0.1, 1.5, 5, 0};
/* Sds of an engine's prior and bounds of a row's total, in fitting units: time per layer 20 +- 20 us, 20 us a sequence, 60 ms
 * a request, 5 us a prompt token (composition.md 6, 7: the spread over engines and models); kernels +- 10 %, prompts' kernels
 * +- 30 %; acceptance +- 30 %. */
static const double root_sd[FIT_PARAMS] = {20, 4, 10, 20, 60, 5, 0.5, 3, 30, 10};
/* Workers of disaggregated deployments run one kind of step, whose sums of kernels are within 7 % without any fit: decode
 * workers carry little else, prompts' kernels their own time. Chosen on the fit half with whole layouts left out (wider sds: 7.2
 * instead of 6.3 % of TPOT, 90 % within 22 instead of 17 %). A token's time beside the kernels of prompts is the handing over of
 * its KV. */
static const double worker_sd[FIT_PARAMS] = {3, 1, 3, 2, 60, 15, 0.5, 1.5, 30, 10};
static const double lowest[FIT_PARAMS] = {0, 0, -30, 0, 0, 0, 0, 3, -60, -30};
static const double highest[FIT_PARAMS] = {500, 100, 100, 1000, 2000, 200, 20, 50, 100, 50};

void apmw_serving_fit_defaults(apmw_serving_fit_options *out)
{
    *out = (apmw_serving_fit_options){.rounds = 3, .ttft_limit_ms = 8000, .sd_tpot = 0.05, .sd_ttft = 0.15,
                                      .huber = 1, .spread = 0.3};
}

/* Overheads of the two roles from a total; `base` is added (speculative rows) or NULL. */
void apmw_serving_fit_overheads(const double *total, const apmw_overhead *base, bool disagg, int tp, apmw_overhead out[2])
{
    const double *t = total;
    apmw_overhead *loop = &out[disagg ? 1 : 0], *front = &out[0];
    for (int r = 0; r < 2; r++) {
        memset(&out[r], 0, sizeof out[r]);
        out[r].prefill_scale = 1;
        if (base)
            out[r] = base[r];
    }
    loop->layer_s = fmax(loop->layer_s + 1e-6 * (t[FIT_LAYER] + t[FIT_LAYER_TP] * log2(tp > 1 ? tp : 1)), 0);
    loop->kernel_extra = fmax(loop->kernel_extra + 0.01 * t[FIT_KERNEL], -0.5);
    loop->seq_s = fmax(loop->seq_s + 1e-6 * t[FIT_SEQ], 0);
    front->request_s = fmax(front->request_s + 1e-3 * t[FIT_REQUEST], 0);
    front->frontend_s_per_token = fmax(front->frontend_s_per_token + 1e-6 * t[FIT_FRONTEND], 0);
    front->prefill_floor_layer_s = fmax(front->prefill_floor_layer_s + 1e-3 * t[FIT_FLOOR], 0);
    front->prefill_scale = fmax((base ? front->prefill_scale : 0) + 0.1 * t[FIT_SCALE], 0.1);
}

double apmw_serving_fit_acceptance(const double *total, int draft_tokens, double osl)
{
    int k = draft_tokens < 0 ? 0 : draft_tokens > 4 ? 4 : draft_tokens;
    return accept_start[k] * exp(0.01 * (total[FIT_ACCEPT] + total[FIT_ACCEPT_OSL] * log(osl / 1024)));
}

/* ------------------------------------------------------------------ simulation of rows */

static apmw_status simulate_at(const apmw_predictor *predictor, const apmw_point *point, const serving_stage *stage,
                               const fit_row *row, const double *total, double out[2], apmw_error *err)
{
    apmw_overhead overheads[2];
    apmw_prediction prediction;
    const apmw_engine_settings *settings =
        apmw_predictor_settings(predictor, row->point, point->disagg ? APMW_ROLE_DECODE : APMW_ROLE_ENGINE);
    apmw_serving_fit_overheads(total, stage->base ? stage->base[row->point] : NULL, point->disagg,
                          point->layout[point->disagg].tp, overheads);
    apmw_predict_options options = {.overhead = {&overheads[0], &overheads[1]}, .acceptance_length = (double)NAN};
    if (point->speculative && isnan(point->acceptance_length) && settings)
        options.acceptance_length =
            apmw_serving_fit_acceptance(total, (int)settings->draft_tokens, (double)point->osl);
    apmw_status status = apmw_predict(predictor, row->point, &options, &prediction, err);
    out[FIT_TPOT] = prediction.supported ? prediction.tpot_ms : (double)NAN;
    out[FIT_TTFT] = !prediction.supported ? (double)NAN
                    : row->queued         ? apmw_serving_whole_ms(point, prediction.ttft_ms, prediction.tpot_ms)
                                          : prediction.ttft_ms;
    return status;
}

static apmw_status simulate_row(const apmw_predictor *predictor, const apmw_points *points, const serving_stage *stage,
                                fit_row *row, apmw_error *err)
{
    const apmw_point *point = &points->items[row->point];
    apmw_status status = simulate_at(predictor, point, stage, row, row->at, row->simulated, err);
    memset(row->slope, 0, sizeof row->slope);
    if (status != APMW_OK || isnan(row->simulated[0]))
        return status;
    for (int p = 0; status == APMW_OK && p < FIT_PARAMS; p++) {
        double total[FIT_PARAMS], moved[2];
        if (steps[p] == 0 || (p == FIT_ACCEPT && !point->speculative))
            continue;
        memcpy(total, row->at, sizeof total);
        total[p] += steps[p];
        status = simulate_at(predictor, point, stage, row, total, moved, err);
        for (int m = 0; m < 2; m++)
            row->slope[m][p] = isnan(moved[m]) ? 0 : (moved[m] - row->simulated[m]) / steps[p];
    }
    double doublings = log2(fmax(point->layout[point->disagg].tp, 1));
    for (int m = 0; m < 2; m++) {
        row->slope[m][FIT_LAYER_TP] = row->slope[m][FIT_LAYER] * doublings;
        row->slope[m][FIT_ACCEPT_OSL] = row->slope[m][FIT_ACCEPT] * log((double)point->osl / 1024);
    }
    return status;
}

static apmw_status simulate_all(const apmw_predictor *predictor, const apmw_points *points, serving_stage *stage,
                                const apmw_serving_fit_options *options, size_t *done, size_t total,
                                apmw_error *err)
{
    apmw_status worst = APMW_OK;
    apmw_error first = {.status = APMW_OK};
    bool stop = false;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < stage->n_rows; i++) {
        apmw_error why = {.status = APMW_OK};
        bool skip;
#pragma omp atomic read
        skip = stop;
        if (skip)
            continue;
        apmw_status mine = simulate_row(predictor, points, stage, &stage->rows[i], &why);
        if (mine != APMW_OK)
#pragma omp critical(apmw_serving_fit_errors)
        {
            worst = mine;
            first = why;
        }
        size_t now;
#pragma omp atomic capture
        now = ++*done;
        if (options->progress && omp_get_thread_num() == 0 && options->progress(options->self, now, total))
#pragma omp atomic write
            stop = true;
    }
    if (stop)
        return apmw_error_set(err, APMW_E_INTERRUPTED, "serving fit: interrupted");
    return worst == APMW_OK ? APMW_OK : apmw_error_set(err, worst, "%s", first.message);
}

/* ------------------------------------------------------------------ stages */

/* Shares of an engine's sd by which nodes of a kind may deviate. Chosen on the fit half with whole layouts, whole cells
 * (model, platform, precision) and whole platforms of a model left out: crossed nodes bring the time per token of left-out cells
 * from 8.9 to 7.0 %; TTFT gains nothing from precision and month. */
static const double amd_time_share[FIT_PATH] = {1, 1, 1, 1, 1, 1, 1, 0};
static const double time_share[FIT_PATH] = {1, 1, 2, 1, 1, 2, 1, 0};
/* What kernels take beyond their rows is a matter of the rows that a model's number format uses: no engine's, no platform's. */
static const double kernel_share[FIT_PATH] = {0, 1, 2, 0, 1, 2, 1, 0};
static const double ttft_share[FIT_PATH] = {1, 1, 0, 1, 1, 0, 0.7, 0};
static const double osl_share[FIT_PATH] = {1, 1, 0, 0, 0, 0, 0, 0}; /* a property of engine and model */
/* Prefill workers by precision and epoch too: B200's of FP8 take twice the time of their rows, those of FP4 just theirs; and
 * more by model: a request costs 30 ms with gpt-oss and 100 with R1. */
static const double worker_time_share[FIT_PATH] = {1, 1, 1, 1, 1, 1, 1, 2};
/* Split workers of AMD: FP8 prompts take what their rows say, those of FP4, whose rows of bf16 attention are slow ones, half. */
static const double amd_worker_ttft_share[FIT_PATH] = {1, 1, 2, 1, 1, 0, 0.7, 0};
static const double worker_ttft_share[FIT_PATH] = {1, 2, 1, 1, 1, 0.5, 0.7, 1.4};

static void set_priors(serving_stage *stage, const serving_tree *tree, const apmw_serving_fit_options *options,
                       fit_tree *out)
{
    bool amd = strcmp(tree->label[0].vendor, "amd") == 0;
    out->huber = options->huber;
    out->row_sd[FIT_TPOT] = options->sd_tpot;
    out->row_sd[FIT_TTFT] = options->sd_ttft;
    for (int p = 0; p < FIT_PARAMS; p++) {
        bool accept = p == FIT_ACCEPT || p == FIT_ACCEPT_OSL, ttft = p >= FIT_REQUEST && p <= FIT_SCALE;
        out->lower[p] = stage->speculative && !accept ? -1e9 : lowest[p];
        out->upper[p] = stage->speculative && !accept ? 1e9 : highest[p];
        for (int kind = 0; kind < FIT_PATH; kind++) {
            /* Speculative rows: the engine's plain overhead is known, so even the root only deviates; but trees of drafts are
             * built and accepted on the host, sequence by sequence. */
            double share = kind == 0 && (accept || p == FIT_SEQ || !stage->speculative) ? 1 : options->spread;
            const double *shares = p == FIT_ACCEPT_OSL ? osl_share
                                   : tree->workers     ? (ttft ? worker_ttft_share : worker_time_share)
                                   : amd && ttft && tree->label[0].disagg ? amd_worker_ttft_share
                                   : ttft              ? ttft_share
                                   : amd               ? amd_time_share
                                   : p == FIT_KERNEL   ? kernel_share
                                                       : time_share;
            share *= shares[kind];
            if (accept && !stage->speculative)
                share = 0;
            double wider = p == FIT_LAYER && kind == SERVING_LEAF ? tree->wider_build : tree->wider;
            out->sd[kind][p] = share * (tree->workers ? worker_sd : root_sd)[p] * (accept ? 1 : wider);
        }
    }
    out->start = tree->start;
    out->down_to = apmw_serving_down_to;
}

static apmw_status solve_trees(serving_stage *stage, const apmw_serving_fit_options *options, bool last,
                               apmw_error *err)
{
    for (size_t t = 0; t < stage->n_trees; t++) {
        serving_tree *tree = &stage->trees[t];
        fit_tree problem = {.rows = stage->rows + tree->first, .n_rows = tree->n_rows, .n_nodes = tree->n_nodes,
                            .kind = tree->kind};
        set_priors(stage, tree, options, &problem);
        apmw_status status = apmw_fit_tree_solve(&problem, -1, tree->x, last ? tree->variance : NULL, err);
        for (int fold = 0; status == APMW_OK && last && fold < 2 * SERVING_FOLDS; fold++) {
            problem.cells = fold >= SERVING_FOLDS;
            status = apmw_fit_tree_solve(&problem, fold % SERVING_FOLDS, tree->scratch, NULL, err);
            for (size_t i = 0; status == APMW_OK && i < tree->n_rows; i++)
                if ((problem.cells ? problem.rows[i].cell_fold : problem.rows[i].fold) == fold % SERVING_FOLDS)
                    apmw_serving_residuals(&problem, tree->scratch, &problem.rows[i],
                                           (problem.cells ? stage->cell_out : stage->left_out)[tree->first + i]);
        }
        if (status != APMW_OK)
            return status;
        for (size_t i = 0; i < tree->n_rows; i++) {
            fit_row *row = &problem.rows[i];
            apmw_serving_residuals(&problem, tree->x, row, stage->residual[tree->first + i]);
            if (!last)
                apmw_fit_row_total(&problem, tree->x, row, SERVING_KNOWN_KINDS, row->at);
            for (int p = 0; !last && !stage->speculative && p < FIT_PARAMS; p++)
                row->at[p] = fmin(fmax(row->at[p], lowest[p]), highest[p]);
        }
    }
    return APMW_OK;
}

static apmw_status run_stage(const apmw_predictor *predictor, const apmw_points *points, serving_stage *stage,
                             const apmw_serving_fit_options *options, size_t *done, size_t total, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (int round = 0; status == APMW_OK && round < options->rounds; round++) {
        status = simulate_all(predictor, points, stage, options, done, total, err);
        if (status == APMW_OK)
            status = solve_trees(stage, options, round == options->rounds - 1, err);
    }
    return status;
}

static double median_error(const serving_stage *stages, int n_stages, bool left_out, int metric)
{
    size_t n = 0, total = 0;
    for (int s = 0; s < n_stages; s++)
        total += stages[s].n_rows;
    double *values = calloc(total + 1, sizeof *values);
    if (!values)
        return (double)NAN;
    for (int s = 0; s < n_stages; s++)
        for (size_t i = 0; i < stages[s].n_rows; i++) {
            double r = left_out ? stages[s].left_out[i][metric] : stages[s].residual[i][metric];
            if (isfinite(r))
                values[n++] = fabs(expm1(r));
        }
    double median = n > 0 ? apmw_quantile(values, n, 0.5) : (double)NAN;
    free(values);
    return median;
}

apmw_status apmw_fit_serving(apmw_catalog *catalog, const apmw_points *points, const bool *use,
                             const apmw_serving_fit_options *options, apmw_serving_fit_result *out, apmw_buf *report,
                             apmw_error *err)
{
    serving_stage stages[2];
    apmw_predictor *predictor = NULL;
    size_t done = 0;
    memset(out, 0, sizeof *out);
    memset(stages, 0, sizeof stages);
    bool *keep = calloc(points->n + 1, sizeof *keep);
    apmw_status status = keep ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    for (size_t i = 0; status == APMW_OK && i < points->n; i++)
        keep[i] = !points->items[i].judge && !points->items[i].excluded[0] && (!use || use[i]);
    if (status == APMW_OK)
        status = apmw_predictor_create(catalog, points, keep, &predictor, err);
    for (int s = 0; status == APMW_OK && s < 2; s++) {
        stages[s].speculative = s == 1;
        status = apmw_serving_stage_build(catalog, predictor, points, keep, options, &stages[s], err);
    }
    size_t total = (size_t)options->rounds * (stages[0].n_rows + stages[1].n_rows);
    if (status == APMW_OK && stages[0].n_rows > 0)
        status = run_stage(predictor, points, &stages[0], options, &done, total, err);
    if (status == APMW_OK)
        status = apmw_serving_export(&stages[0], &out->table, err);
    if (status == APMW_OK)
        status = apmw_serving_bases(points, &out->table, &stages[1], err);
    if (status == APMW_OK && stages[1].n_rows > 0)
        status = run_stage(predictor, points, &stages[1], options, &done, total, err);
    if (status == APMW_OK)
        status = apmw_serving_export(&stages[1], &out->table, err);
    if (status == APMW_OK) {
        out->n_rows = stages[0].n_rows + stages[1].n_rows;
        for (int s = 0; s < 2; s++)
            for (size_t t = 0; t < stages[s].n_trees; t++)
                out->n_nodes += (size_t)stages[s].trees[t].n_nodes;
        out->median_abs_tpot = median_error(stages, 2, false, FIT_TPOT);
        out->median_abs_ttft = median_error(stages, 2, false, FIT_TTFT);
        out->left_out_tpot = median_error(stages, 2, true, FIT_TPOT);
        out->left_out_ttft = median_error(stages, 2, true, FIT_TTFT);
        if (report)
            apmw_serving_report(points, stages, 2, options->report_rows, report);
    } else {
        apmw_overhead_table_free(&out->table);
    }
    for (int s = 0; s < 2; s++)
        apmw_serving_stage_free(&stages[s], points->n);
    apmw_predictor_free(predictor);
    free(keep);
    return status;
}

void apmw_serving_fit_result_free(apmw_serving_fit_result *result)
{
    apmw_overhead_table_free(&result->table);
}

apmw_status apmw_experiment_fit_serving(apmw_catalog *catalog, const char *points_path, const char *engines_path,
                                        const char *provenance, const apmw_serving_fit_options *options,
                                        apmw_buf *report, apmw_error *err)
{
    apmw_points points;
    apmw_serving_fit_result result;
    apmw_serving_fit_options defaults;
    apmw_serving_fit_defaults(&defaults);
    apmw_status status = apmw_points_load(points_path, apmw_catalog_dir(catalog), &points, err);
    if (status != APMW_OK)
        return status;
    status = apmw_fit_serving(catalog, &points, NULL, options ? options : &defaults, &result, report, err);
    if (status == APMW_OK) {
        snprintf(result.table.provenance, sizeof result.table.provenance, "%s; points %s", provenance ? provenance : "",
                 points.hash);
        status = apmw_overhead_table_save(&result.table, engines_path, err);
        apmw_serving_fit_result_free(&result);
    }
    apmw_points_free(&points);
    return status;
}
