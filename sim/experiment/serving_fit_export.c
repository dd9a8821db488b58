/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From solved trees to entries of the overhead table and to a report. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "serving_fit_tree.h"

enum { ROWS_FOR_SD = 8 };
static const double p90_of_normal = 1.6449; /* 90 % of |normal| lie below */

/* Rows below a node. */
static bool below(const fit_row *row, const serving_tree *tree, int node)
{
    return row->path[tree->level[node]] == node;
}

static double spread(double *values, size_t n)
{
    return apmw_quantile(values, n, 0.9) / p90_of_normal;
}

/* What an interval needs at this node: the spread of left-out rows below it, or of its nearest ancestor with enough
 * rows. A root stands for models that were never measured: there its own numbers, not those of the models, are used. */
static apmw_status node_sd(const serving_stage *stage, const serving_tree *tree, int node, double out[2], size_t *n_rows,
                           apmw_error *err)
{
    double *values = calloc(tree->n_rows + 1, sizeof *values);
    if (!values)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    out[0] = out[1] = (double)NAN;
    *n_rows = 0;
    const fit_row *some = NULL;
    for (size_t i = 0; i < tree->n_rows; i++)
        if (below(&stage->rows[tree->first + i], tree, node)) {
            some = &stage->rows[tree->first + i];
            ++*n_rows;
        }
    fit_tree shape = {.start = tree->start};
    for (int m = 0; some && m < 2; m++)
        for (int level = tree->level[node]; level >= 0 && isnan(out[m]); level--) {
            size_t n = 0;
            for (size_t i = 0; i < tree->n_rows; i++) {
                const fit_row *row = &stage->rows[tree->first + i];
                double r = stage->left_out[tree->first + i][m];
                if (!below(row, tree, some->path[level]))
                    continue;
                if (level == 0) {
                    double total[FIT_PARAMS], predicted[2];
                    apmw_fit_row_total(&shape, tree->x, row, 1, total);
                    apmw_fit_row_predict(row, total, predicted);
                    r = log(predicted[m]) - row->ln_measured[m];
                }
                if (isfinite(r))
                    values[n++] = fabs(r);
            }
            if (n >= ROWS_FOR_SD || (level == 0 && n > 0))
                out[m] = spread(values, n);
        }
    free(values);
    return APMW_OK;
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

/* One entry of one role and family. */
static apmw_status export_role(const serving_stage *stage, const serving_tree *tree, int node, const char *family,
                               const char *role, const double sd[2], size_t n_rows, apmw_overhead_table *table,
                               apmw_error *err)
{
    const serving_label *label = &tree->label[node];
    apmw_overhead_entry e;
    memset(&e, 0, sizeof e);
    apmw_copy(e.engine, sizeof e.engine, label->engine);
    star(e.model, sizeof e.model, label->model);
    star(e.family, sizeof e.family, family);
    star(e.platform, sizeof e.platform, label->platform);
    star(e.precision, sizeof e.precision, label->precision);
    apmw_copy(e.role, sizeof e.role, role);
    apmw_copy(e.released_from, sizeof e.released_from, "*");
    if (label->month[0])
        snprintf(e.released_from, sizeof e.released_from, "%.7s-01", label->month);
    e.draft_tokens = label->draft_tokens;
    double total[FIT_PARAMS];
    const fit_row *row = NULL;
    for (size_t i = 0; !row && i < tree->n_rows; i++)
        if (below(&stage->rows[tree->first + i], tree, node))
            row = &stage->rows[tree->first + i];
    if (!row)
        return APMW_OK;
    fit_tree shape = {.start = tree->start};
    apmw_fit_row_total(&shape, tree->x, row, tree->level[node] + 1, total);
    const apmw_overhead *base = NULL;
    apmw_overhead plain[2];
    double plain_tp = 0;
    if (stage->speculative) {
        /* The plain entry of the same key, or the prior: a speculative one deviates from it. */
        const apmw_overhead_key key = {.engine = e.engine, .model = e.model, .family = e.family, .platform = e.platform,
                                       .precision = e.precision, .role = role,
                                       .released = label->month[0] ? e.released_from : "9999-12-31"};
        const apmw_overhead_entry *found = apmw_overhead_table_find(table, &key);
        apmw_overhead_prior(e.engine, role, &plain[0]);
        if (found) {
            plain[0] = found->value;
            plain_tp = found->layer_tp_s;
        }
        plain[1] = plain[0];
        base = plain;
    }
    apmw_overhead value[2];
    double without_tp[FIT_PARAMS];
    memcpy(without_tp, total, sizeof total);
    without_tp[FIT_LAYER_TP] = 0;
    bool decode = strcmp(role, "decode") == 0, prefill = strcmp(role, "prefill") == 0;
    apmw_serving_fit_overheads(without_tp, base, label->disagg, 1, value);
    e.value = value[decode ? 1 : 0];
    e.layer_tp_s = prefill ? 0 : fmax(plain_tp + 1e-6 * (base ? total[FIT_LAYER_TP] : fmax(total[FIT_LAYER_TP], 0)), 0);
    if (stage->speculative && !prefill) {
        e.value.acceptance = apmw_serving_fit_acceptance(total, label->draft_tokens, 1024);
        e.value.acceptance_ln_osl = 0.01 * total[FIT_ACCEPT_OSL];
    }
    const double *variance = &tree->variance[node * FIT_PARAMS];
    e.sd_layer_s = 1e-6 * sqrt(variance[FIT_LAYER]);
    e.sd_seq_s = 1e-6 * sqrt(variance[FIT_SEQ]);
    e.sd_request_s = 1e-3 * sqrt(variance[FIT_REQUEST]);
    e.value.ln_sd_time = sd[FIT_TPOT];
    e.value.ln_sd_ttft = sd[FIT_TTFT];
    snprintf(e.value.basis, sizeof e.value.basis, "fitted on %zu rows of %s%s%s%s%s%s", n_rows, e.engine,
             label->model[0] ? " " : "", label->model, label->platform[0] ? " " : "", label->platform,
             stage->speculative ? " speculative" : "");
    return append(table, &e, err);
}

static apmw_status export_node(const serving_stage *stage, const serving_tree *tree, int node,
                               apmw_overhead_table *table, apmw_error *err)
{
    static const char *const nvidia[] = {"*"}, *const amd[] = {"cdna3", "cdna4"};
    const serving_label *label = &tree->label[node];
    const char *own[1] = {label->family}, *const *families = own;
    size_t n_families = 1, n_rows;
    double sd[2];
    if (!label->family[0]) {
        /* Software of another vendor is other software: its entries hold for its families only. */
        bool is_amd = strcmp(label->vendor, "amd") == 0;
        families = is_amd ? amd : nvidia;
        n_families = is_amd ? 2 : 1;
    }
    if (stage->speculative && label->level == 0)
        return APMW_OK; /* a draft length of no model */
    apmw_status status = node_sd(stage, tree, node, sd, &n_rows, err);
    for (size_t f = 0; status == APMW_OK && f < n_families; f++) {
        status = export_role(stage, tree, node, families[f], label->disagg ? "decode" : "", sd, n_rows, table, err);
        if (status == APMW_OK && label->disagg)
            status = export_role(stage, tree, node, families[f], "prefill", sd, n_rows, table, err);
    }
    return status;
}

apmw_status apmw_serving_export(const apmw_catalog *catalog, const apmw_points *points, const serving_stage *stage,
                           const serving_stage *plain, apmw_overhead_table *table, apmw_error *err)
{
    (void)catalog;
    (void)points;
    (void)plain;
    for (size_t t = 0; t < stage->n_trees; t++)
        for (int level = 0; level < FIT_PATH; level++)
            for (int node = 0; node < stage->trees[t].n_nodes; node++) {
                if (stage->trees[t].level[node] != level)
                    continue;
                apmw_status status = export_node(stage, &stage->trees[t], node, table, err);
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
                if (below(&stage->rows[tree->first + i], tree, node) && isfinite(r))
                    values[n++] = fabs(expm1(r));
            }
            apmw_buf_printf(report, " %5.1f", n > 0 ? 100 * apmw_quantile(values, n, 0.5) : (double)NAN);
        }
}

void apmw_serving_report(const apmw_points *points, const serving_stage *stages, int n_stages, apmw_buf *report)
{
    (void)points;
    apmw_buf_puts(report, "# Totals down to the platform. Errors: median absolute %, TPOT in sample and with layouts left out, "
                          "then TTFT.\n"
                          "# engine model platform k rows | us/layer +us/doubling kernel% us/seq | ms/request us/token floor-ms/layer "
                          "scale | tokens/step ln-osl | TPOT in, out, TTFT in, out\n");
    for (int s = 0; s < n_stages; s++)
        for (size_t t = 0; t < stages[s].n_trees; t++) {
            const serving_tree *tree = &stages[s].trees[t];
            double *values = calloc(tree->n_rows + 1, sizeof *values);
            for (int node = 0; values && node < tree->n_nodes; node++) {
                const serving_label *label = &tree->label[node];
                if (label->level > 3)
                    continue;
                const fit_row *row = NULL;
                size_t n = 0;
                for (size_t i = 0; i < tree->n_rows; i++)
                    if (below(&stages[s].rows[tree->first + i], tree, node)) {
                        row = &stages[s].rows[tree->first + i];
                        n++;
                    }
                double x[FIT_PARAMS];
                fit_tree shape = {.start = tree->start};
                if (!row)
                    continue;
                apmw_fit_row_total(&shape, tree->x, row, label->level + 1, x);
                apmw_buf_printf(report, "%s%s %s %s %d %zu | %.1f %+.1f %+.1f %.1f | %.1f %.2f %.3f %.2f |", label->engine,
                                label->disagg ? "(disagg)" : "", label->model[0] ? label->model : label->vendor,
                                label->platform[0] ? label->platform : label->family[0] ? label->family : "*",
                                label->draft_tokens, n, x[FIT_LAYER], x[FIT_LAYER_TP], x[FIT_KERNEL], x[FIT_SEQ],
                                x[FIT_REQUEST], x[FIT_FRONTEND], x[FIT_FLOOR], x[FIT_SCALE] / 10);
                if (stages[s].speculative)
                    apmw_buf_printf(report, " %.2f %+.3f", apmw_serving_fit_acceptance(x, label->draft_tokens, 1024),
                                    0.01 * x[FIT_ACCEPT_OSL]);
                apmw_buf_puts(report, " |");
                report_errors(&stages[s], tree, node, values, report);
                apmw_buf_puts(report, "\n");
            }
            free(values);
        }
}
