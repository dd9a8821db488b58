/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From solved trees to entries of the overhead table and to a report. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "serving_fit_tree.h"

enum { ROWS_FOR_SD = 8, LAYOUTS_OF_TREE = 4 };

static bool has(const fit_row *row, const serving_tree *tree, int node)
{
    return row->path[tree->kind[node]] == node;
}

/* The first row of a node, and how many there are. */
static const fit_row *rows_of(const serving_stage *stage, const serving_tree *tree, int node, size_t *n)
{
    const fit_row *first = NULL;
    *n = 0;
    for (size_t i = 0; i < tree->n_rows; i++)
        if (has(&stage->rows[tree->first + i], tree, node)) {
            first = first ? first : &stage->rows[tree->first + i];
            ++*n;
        }
    return first;
}

/* ln(predicted / measured) of a row for one who knows no more of it than a node of this kind: its layout left out of the
 * leaf of its cell, its whole cell left out of what several cells share, no number of its model in what knows no model. */
static double ln_error(const serving_stage *stage, const serving_tree *tree, size_t i, int kind, int m)
{
    const fit_row *row = &stage->rows[tree->first + i];
    if (kind == SERVING_LEAF)
        return stage->left_out[tree->first + i][m];
    if (kind != SERVING_ENGINE && kind != SERVING_PLATFORM)
        return stage->cell_out[tree->first + i][m];
    fit_tree shape = {.start = tree->start};
    double total[FIT_PARAMS], predicted[2];
    apmw_fit_row_total(&shape, tree->x, row, apmw_serving_down_to[SERVING_PLATFORM], total);
    apmw_fit_row_predict(row, total, predicted);
    return log(predicted[m]) - row->ln_measured[m];
}

/* Spread of that over the rows of a node, or of the whole tree (node < 0); NaN with too few rows. */
static double pooled_sd(const serving_stage *stage, const serving_tree *tree, int node, int kind, int m, double *scratch)
{
    size_t n = 0;
    for (size_t i = 0; i < tree->n_rows; i++) {
        if (node >= 0 && !has(&stage->rows[tree->first + i], tree, node))
            continue;
        const double r = ln_error(stage, tree, i, kind, m);
        if (isfinite(r))
            scratch[n++] = fabs(r);
    }
    return n >= (node >= 0 ? 2 : ROWS_FOR_SD) ? apmw_quantile(scratch, n, 0.9) / APMW_Z90 : (double)NAN;
}

/* Distinct layouts among the rows of a node: rows of one layout err alike. */
static size_t layouts_of(const serving_stage *stage, const serving_tree *tree, int node)
{
    size_t n = 0;
    for (size_t i = 0; i < tree->n_rows; i++) {
        const fit_row *row = &stage->rows[tree->first + i];
        bool first = has(row, tree, node);
        for (size_t j = 0; j < i && first; j++)
            first = stage->rows[tree->first + j].path[SERVING_LAYOUT] != row->path[SERVING_LAYOUT];
        n += first;
    }
    return n;
}

/* A few layouts say little of how far the next one lies, so a node's own spread is drawn to that of its tree, which counts
 * as LAYOUTS_OF_TREE layouts. */
static void spread_of(const serving_stage *stage, const serving_tree *tree, int node, double *scratch, double out[2])
{
    const double n = (double)layouts_of(stage, tree, node);
    for (int m = 0; m < 2; m++) {
        const double all = pooled_sd(stage, tree, -1, tree->kind[node], m, scratch);
        const double own = pooled_sd(stage, tree, node, tree->kind[node], m, scratch);
        out[m] = isnan(own) ? all : isnan(all) ? own : sqrt((n * own * own + LAYOUTS_OF_TREE * all * all) / (n + LAYOUTS_OF_TREE));
    }
}

static apmw_status append(apmw_overhead_table *table, const apmw_overhead_entry *entry, apmw_error *err)
{
    apmw_overhead_entry *grown = realloc(table->entry, (table->n + 1) * sizeof *grown);
    if (!grown)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    table->entry = grown;
    table->entry[table->n++] = *entry;
    return APMW_OK;
}

static void star(char *out, size_t size, const char *text)
{
    apmw_copy(out, size, text[0] ? text : "*");
}

/* The addends of one node. The root carries the start of the fit; the model the start of the acceptance. */
static void addends(const serving_stage *stage, const serving_tree *tree, int node, double out[FIT_PARAMS])
{
    memcpy(out, &tree->x[node * FIT_PARAMS], FIT_PARAMS * sizeof *out);
    for (int p = 0; !stage->speculative && tree->kind[node] == SERVING_ENGINE && p < FIT_PARAMS; p++)
        out[p] += tree->start[p];
}

static apmw_status export_role(const serving_stage *stage, const serving_tree *tree, int node, const char *role,
                               const double sd[2], size_t n_rows, apmw_overhead_table *table, apmw_error *err)
{
    const serving_label *label = &tree->label[node];
    bool loop = strcmp(role, "prefill") != 0, front = strcmp(role, "decode") != 0;
    apmw_overhead_entry e;
    double x[FIT_PARAMS];
    memset(&e, 0, sizeof e);
    addends(stage, tree, node, x);
    apmw_copy(e.engine, sizeof e.engine, label->engine);
    star(e.vendor, sizeof e.vendor, label->vendor);
    star(e.model, sizeof e.model, label->model);
    apmw_copy(e.family, sizeof e.family, "*");
    star(e.platform, sizeof e.platform, label->platform);
    star(e.precision, sizeof e.precision, label->precision);
    apmw_copy(e.role, sizeof e.role, role);
    apmw_copy(e.released_from, sizeof e.released_from, "*");
    if (label->epoch[0])
        apmw_copy(e.released_from, sizeof e.released_from, label->epoch);
    e.draft_tokens = label->draft_tokens;
    if (loop) {
        e.value.layer_s = 1e-6 * x[FIT_LAYER];
        e.layer_tp_s = 1e-6 * x[FIT_LAYER_TP];
        e.value.kernel_extra = 0.01 * x[FIT_KERNEL];
        e.value.seq_s = 1e-6 * x[FIT_SEQ];
        e.ln_acceptance = 0.01 * x[FIT_ACCEPT];
        e.value.acceptance_ln_osl = 0.01 * x[FIT_ACCEPT_OSL];
        if (stage->speculative && label->kind == SERVING_MODEL)
            e.ln_acceptance += log(apmw_serving_fit_acceptance(tree->start, label->draft_tokens, 1024));
    }
    if (front) {
        e.value.request_s = 1e-3 * x[FIT_REQUEST];
        e.value.frontend_s_per_token = 1e-6 * x[FIT_FRONTEND];
        e.value.prefill_floor_layer_s = 1e-3 * x[FIT_FLOOR];
        e.value.prefill_scale = 0.1 * x[FIT_SCALE];
    } else if (label->kind == SERVING_ENGINE && !stage->speculative) {
        e.value.prefill_scale = 1; /* decode workers run no prompts */
    }
    const double *variance = &tree->variance[node * FIT_PARAMS];
    e.sd_layer_s = 1e-6 * sqrt(variance[FIT_LAYER]);
    e.sd_seq_s = 1e-6 * sqrt(variance[FIT_SEQ]);
    e.sd_request_s = 1e-3 * sqrt(variance[FIT_REQUEST]);
    e.value.ln_sd_time = sd[FIT_TPOT];
    e.value.ln_sd_ttft = sd[FIT_TTFT];
    snprintf(e.value.basis, sizeof e.value.basis, "fitted on %zu rows of %s%s%s%s%s%s%s%s%s", n_rows, e.engine,
             label->model[0] ? " " : "", label->model, label->platform[0] ? " " : "", label->platform,
             label->precision[0] ? " " : "", label->precision, stage->speculative ? " speculative" : "",
             label->disagg ? " disaggregated" : "");
    return append(table, &e, err);
}

apmw_status apmw_serving_export(const serving_stage *stage, apmw_overhead_table *table, apmw_error *err)
{
    for (size_t t = 0; t < stage->n_trees; t++) {
        const serving_tree *tree = &stage->trees[t];
        double *scratch = calloc(tree->n_rows + 1, sizeof *scratch);
        apmw_status status = scratch ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
        for (int kind = 0; kind < SERVING_LAYOUT; kind++)
            for (int node = 0; status == APMW_OK && node < tree->n_nodes; node++) {
                double sd[2];
                size_t n_rows;
                if (tree->kind[node] != kind || !rows_of(stage, tree, node, &n_rows))
                    continue;
                spread_of(stage, tree, node, scratch, sd);
                bool disagg = tree->label[node].disagg;
                status = export_role(stage, tree, node, disagg ? "decode" : "", sd, n_rows, table, err);
                if (status == APMW_OK && disagg)
                    status = export_role(stage, tree, node, "prefill", sd, n_rows, table, err);
            }
        free(scratch);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static void report_errors(const serving_stage *stage, const serving_tree *tree, int node, double *values,
                          apmw_buf *report)
{
    for (int m = 0; m < 2; m++)
        for (int out = 0; out < 2; out++) {
            size_t n = 0;
            for (size_t i = 0; i < tree->n_rows; i++) {
                double r = out ? stage->left_out[tree->first + i][m] : stage->residual[tree->first + i][m];
                if (has(&stage->rows[tree->first + i], tree, node) && isfinite(r))
                    values[n++] = fabs(expm1(r));
            }
            apmw_buf_printf(report, " %5.1f", n > 0 ? 100 * apmw_quantile(values, n, 0.5) : (double)NAN);
        }
}

static void report_node(const serving_stage *stage, const serving_tree *tree, int node, double *values, apmw_buf *report)
{
    const serving_label *label = &tree->label[node];
    fit_tree shape = {.start = tree->start};
    double x[FIT_PARAMS];
    size_t n;
    const fit_row *row = rows_of(stage, tree, node, &n);
    if (!row || label->precision[0] || label->epoch[0])
        return;
    apmw_fit_row_total(&shape, tree->x, row, apmw_serving_down_to[label->kind], x);
    apmw_buf_printf(report, "%s%s %s %s %s %d %zu | %.1f %+.1f %+.1f %.1f | %.1f %.2f %.3f %.2f |", label->engine,
                    label->disagg ? "(disagg)" : "", label->vendor, label->model[0] ? label->model : "*",
                    label->platform[0] ? label->platform : "*", label->draft_tokens, n, x[FIT_LAYER], x[FIT_LAYER_TP],
                    x[FIT_KERNEL], x[FIT_SEQ], x[FIT_REQUEST], x[FIT_FRONTEND], x[FIT_FLOOR], x[FIT_SCALE] / 10);
    if (stage->speculative && label->draft_tokens > 0)
        apmw_buf_printf(report, " %.2f %+.3f", apmw_serving_fit_acceptance(x, label->draft_tokens, 1024),
                        0.01 * x[FIT_ACCEPT_OSL]);
    apmw_buf_puts(report, " |");
    report_errors(stage, tree, node, values, report);
    apmw_buf_puts(report, "\n");
}

/* Median and 90 % of absolute errors, pooled over a tree: of layouts left out, then of whole cells left out. */
static void report_pooled(const serving_stage *stage, const serving_tree *tree, double *values, apmw_buf *report)
{
    const serving_label *root = &tree->label[0];
    apmw_buf_printf(report, "# left out, %s%s%s %s, %zu rows (median, 90 %%):", root->engine,
                    root->disagg ? " disaggregated" : "", stage->speculative ? " speculative" : "", root->vendor,
                    tree->n_rows);
    for (int cells = 0; cells < 2; cells++) {
        apmw_buf_puts(report, cells ? "; cells TPOT, TTFT" : " layouts TPOT, TTFT");
        for (int m = 0; m < 2; m++) {
            double(*errors)[2] = cells ? stage->cell_out : stage->left_out;
            size_t n = 0;
            for (size_t i = 0; i < tree->n_rows; i++)
                if (isfinite(errors[tree->first + i][m]))
                    values[n++] = 100 * fabs(expm1(errors[tree->first + i][m]));
            double median = n > 0 ? apmw_quantile(values, n, 0.5) : (double)NAN;
            apmw_buf_printf(report, " %5.1f %5.1f%s", median, n > 0 ? apmw_quantile(values, n, 0.9) : (double)NAN,
                            m == 0 ? "," : "");
        }
    }
    apmw_buf_puts(report, "\n");
}

static void report_row(const apmw_points *points, const serving_stage *stage, size_t i, apmw_buf *report)
{
    const apmw_point *p = &points->items[stage->rows[i].point];
    const apmw_layout *l = &p->layout[p->disagg];
    apmw_buf_printf(report, "row,%s,%s,%s,%s,%s,%d,%d,%d,%d,%lld,%lld,%lld,%s,%s,%.6g,%.6g,%.6g,%.6g", p->id, p->engine,
                    p->model, p->platform, p->precision, p->speculative, l->tp, l->moe_ep, l->attention_dp,
                    (long long)p->isl, (long long)p->osl, (long long)p->concurrency, p->measured,
                    p->median ? "median" : "mean", p->tpot_ms, p->ttft_ms, stage->rows[i].simulated[FIT_TPOT],
                    stage->rows[i].simulated[FIT_TTFT]);
    for (int m = 0; m < 2; m++)
        apmw_buf_printf(report, ",%.1f,%.1f,%.1f", 100 * expm1(stage->residual[i][m]), 100 * expm1(stage->left_out[i][m]),
                        100 * expm1(stage->cell_out[i][m]));
    apmw_buf_puts(report, "\n");
}

static const char *const row_header =
    "# row,id,engine,model,platform,precision,speculative,tp,moe_ep,attention_dp,isl,osl,concurrency,measured,statistic,tpot_ms,"
    "ttft_ms,simulated_tpot_ms,simulated_ttft_ms,then % error of TPOT and of TTFT: in sample,layout left out,cell left out\n";

void apmw_serving_report(const apmw_points *points, const serving_stage *stages, int n_stages, bool rows, apmw_buf *report)
{
    apmw_buf_puts(report,
                  "# Sums down to engine, model, platform, model on platform. Errors: median absolute %, TPOT in sample and with "
                  "layouts left out, then TTFT.\n"
                  "# engine vendor model platform k rows | us/layer +us/doubling kernel% us/seq | ms/request us/token "
                  "floor-ms/layer scale | tokens/step ln-osl | TPOT in, out, TTFT in, out\n");
    if (rows)
        apmw_buf_puts(report, row_header);
    for (int s = 0; s < n_stages; s++)
        for (size_t t = 0; t < stages[s].n_trees; t++) {
            const serving_tree *tree = &stages[s].trees[t];
            double *values = calloc(tree->n_rows + 1, sizeof *values);
            for (int kind = 0; values && kind < SERVING_LAYOUT; kind++)
                for (int node = 0; node < tree->n_nodes; node++)
                    if (tree->kind[node] == kind)
                        report_node(&stages[s], tree, node, values, report);
            if (values)
                report_pooled(&stages[s], tree, values, report);
            for (size_t i = 0; rows && i < tree->n_rows; i++)
                report_row(points, &stages[s], tree->first + i, report);
            free(values);
        }
}
