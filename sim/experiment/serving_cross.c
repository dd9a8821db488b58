/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Errors and coverage of rows that no fit saw, on the fit half alone. The folds inside a fit move its numbers by one linear
 * step and leave all else as it was with the rows; here the whole fit is done again without them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "serving_fit_tree.h"

/* ln(predicted / measured) of one left-out row and the sd that its fit gave it; NaN = none. */
typedef struct cross_row {
    double ln_error[2], ln_sd[2];
} cross_row;

static apmw_status predict_left_out(apmw_catalog *catalog, const apmw_points *points, const bool *out_of_fit,
                                    const apmw_overhead_table *table, cross_row *rows, apmw_error *err)
{
    apmw_predictor *predictor = NULL;
    apmw_status status = apmw_predictor_create(catalog, points, out_of_fit, &predictor, err);
    apmw_error *errors = calloc(points->n + 1, sizeof *errors);
    if (status == APMW_OK && errors == NULL)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < points->n; i++) {
        const apmw_point *p = &points->items[i];
        if (status != APMW_OK || !out_of_fit[i])
            continue;
        apmw_overhead overhead[2];
        apmw_prediction prediction;
        for (int r = 0; r < (p->disagg ? 2 : 1) && errors[i].status == APMW_OK; r++) {
            const apmw_role role = !p->disagg ? APMW_ROLE_ENGINE : r == 0 ? APMW_ROLE_PREFILL : APMW_ROLE_DECODE;
            (void)apmw_overhead_lookup_in(catalog, table, apmw_predictor_spec(predictor, i, role), &overhead[r], &errors[i]);
        }
        if (errors[i].status != APMW_OK)
            continue;
        const apmw_overhead *last = &overhead[p->disagg];
        const double osl = log((double)p->osl / 1024.0); /* where the acceptance is stated */
        const apmw_predict_options options = {
            .overhead = {&overhead[0], &overhead[1]},
            .acceptance_length = isnan(p->acceptance_length) && last->acceptance > 0
                                     ? last->acceptance * exp(last->acceptance_ln_osl * osl)
                                     : (double)NAN};
        if (apmw_predict(predictor, i, &options, &prediction, &errors[i]) != APMW_OK || !prediction.supported)
            continue;
        rows[i].ln_error[FIT_TPOT] = log(prediction.tpot_ms / p->tpot_ms);
        rows[i].ln_error[FIT_TTFT] = log(prediction.ttft_ms / p->ttft_ms);
        rows[i].ln_sd[FIT_TPOT] = last->ln_sd_time;
        rows[i].ln_sd[FIT_TTFT] = overhead[0].ln_sd_ttft;
    }
    for (size_t i = 0; status == APMW_OK && i < points->n; i++)
        if (errors[i].status != APMW_OK)
            status = apmw_error_set(err, errors[i].status, "%s", errors[i].message);
    free(errors);
    apmw_predictor_free(predictor);
    return status;
}

/* One line: rows for which `engine` ("" = any) and both flags agree. */
static void report_group(const apmw_points *points, const cross_row *rows, const char *engine, int disagg, int speculative,
                         double *errors, double *z, apmw_buf *report)
{
    for (int m = 0; m < 2; m++) {
        size_t n = 0, inside = 0;
        for (size_t i = 0; i < points->n; i++) {
            const apmw_point *p = &points->items[i];
            if (!isfinite(rows[i].ln_error[m]) || (engine[0] && strcmp(engine, p->engine) != 0) ||
                (disagg >= 0 && p->disagg != (disagg > 0)) || (speculative >= 0 && p->speculative != (speculative > 0)))
                continue;
            errors[n] = 100 * fabs(expm1(rows[i].ln_error[m]));
            z[n] = fabs(rows[i].ln_error[m]) / rows[i].ln_sd[m] / APMW_Z90;
            inside += z[n] <= 1;
            n++;
        }
        if (n == 0)
            return;
        if (m == 0)
            apmw_buf_printf(report, "%-8s %-7s %-12s", engine[0] ? engine : "all",
                            disagg < 0 ? "all" : disagg ? "disagg" : "agg",
                            speculative < 0 ? "all" : speculative ? "speculative" : "plain");
        const double covered = 100.0 * (double)inside / (double)n, factor = apmw_quantile(z, n, 0.9);
        apmw_buf_printf(report, " | %s %4zu rows, error %5.1f %5.1f %%, within 90 %% interval %3.0f %%, widening %.2f",
                        m == FIT_TPOT ? "TPOT" : "TTFT", n, apmw_quantile(errors, n, 0.5), apmw_quantile(errors, n, 0.9), covered,
                        factor);
    }
    apmw_buf_puts(report, "\n");
}

static void report_all(const apmw_points *points, const cross_row *rows, double *errors, double *z, apmw_buf *report)
{
    static const char *const engines[] = {"", "vllm", "sglang", "trtllm", "atom"};
    apmw_buf_puts(report, "# Layouts left out of the fit half: median and 90 % of absolute errors, share inside the interval that "
                          "their fit gave, and what that would have to be multiplied by to hold 90 %.\n");
    report_group(points, rows, "", -1, -1, errors, z, report);
    for (int disagg = 0; disagg < 2; disagg++)
        for (int speculative = 0; speculative < 2; speculative++)
            for (size_t e = 0; e < sizeof engines / sizeof engines[0]; e++)
                report_group(points, rows, engines[e], disagg, speculative, errors, z, report);
}

apmw_status apmw_experiment_cross_validate(apmw_catalog *catalog, const char *points_path,
                                           const apmw_serving_fit_options *options, apmw_buf *report, apmw_error *err)
{
    apmw_points points;
    apmw_serving_fit_options defaults;
    apmw_serving_fit_defaults(&defaults);
    apmw_status status = apmw_points_load(points_path, apmw_catalog_dir(catalog), &points, err);
    if (status != APMW_OK)
        return status;
    bool *keep = calloc(points.n + 1, sizeof *keep), *use = calloc(points.n + 1, sizeof *use),
         *out = calloc(points.n + 1, sizeof *out);
    cross_row *rows = calloc(points.n + 1, sizeof *rows);
    double *errors = calloc(points.n + 1, sizeof *errors), *z = calloc(points.n + 1, sizeof *z);
    if (!keep || !use || !out || !rows || !errors || !z)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu points", points.n);
    for (size_t i = 0; status == APMW_OK && i < points.n; i++) {
        keep[i] = !points.items[i].judge && !points.items[i].excluded[0];
        rows[i] = (cross_row){{(double)NAN, (double)NAN}, {(double)NAN, (double)NAN}};
    }
    for (int fold = 0; status == APMW_OK && fold < SERVING_FOLDS; fold++) {
        apmw_serving_fit_result result;
        for (size_t i = 0; i < points.n; i++) {
            out[i] = keep[i] && apmw_serving_fold(&points, keep, i) == fold;
            use[i] = keep[i] && !out[i];
        }
        status = apmw_fit_serving(catalog, &points, use, options ? options : &defaults, &result, NULL, err);
        if (status == APMW_OK) {
            status = predict_left_out(catalog, &points, out, &result.table, rows, err);
            apmw_serving_fit_result_free(&result);
        }
    }
    if (status == APMW_OK)
        report_all(&points, rows, errors, z, report);
    free(keep);
    free(use);
    free(out);
    free(rows);
    free(errors);
    free(z);
    apmw_points_free(&points);
    return status;
}
