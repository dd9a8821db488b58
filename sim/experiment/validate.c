/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Predicts every selected row, each in its own slot, and gathers errors by group. */
#include "apmw/validate.h"
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"

static const double nan_value = (double)NAN;

apmw_status apmw_validate_run(apmw_catalog *catalog, const apmw_points *points, const bool *keep,
                              const apmw_validate_options *options, apmw_validation *out, apmw_error *err)
{
    apmw_predictor *predictor = NULL;
    memset(out, 0, sizeof *out);
    out->points = points;
    out->predictions = calloc(points->n + 1, sizeof *out->predictions);
    out->selected = calloc(points->n + 1, sizeof *out->selected);
    if (!out->predictions || !out->selected) {
        apmw_validation_free(out);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu points", points->n);
    }
    for (size_t i = 0; i < points->n; i++) {
        bool half = options->half == APMW_HALF_ALL || points->items[i].judge == (options->half == APMW_HALF_JUDGE);
        out->selected[i] = half && (!keep || keep[i]);
        out->n_selected += out->selected[i];
        out->predictions[i] = (apmw_prediction){.ttft_ms = nan_value, .tpot_ms = nan_value, .power_w = nan_value,
                                                .ttft_ln_sd = nan_value, .tpot_ln_sd = nan_value};
    }
    apmw_status status = apmw_predictor_create(catalog, points, out->selected, &predictor, err);
    if (status != APMW_OK) {
        apmw_validation_free(out);
        return status;
    }
    const apmw_predict_options predict = {.no_fit = options->no_fit, .acceptance_length = nan_value, .power = true};
    apmw_status worst = APMW_OK;
    apmw_error first = {.status = APMW_OK};
    size_t done = 0;
    bool stop = false;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < points->n; i++) {
        bool skip;
#pragma omp atomic read
        skip = stop;
        if (!out->selected[i])
            continue;
        if (skip) {
            apmw_copy(out->predictions[i].reason, sizeof out->predictions[i].reason, "interrupted");
            continue;
        }
        apmw_error why = {.status = APMW_OK};
        apmw_status mine = apmw_predict(predictor, i, &predict, &out->predictions[i], &why);
        if (mine != APMW_OK) {
            apmw_copy(out->predictions[i].reason, sizeof out->predictions[i].reason, why.message);
#pragma omp critical(apmw_validate_errors)
            if (worst == APMW_OK || mine == APMW_E_INTERNAL) {
                worst = mine;
                first = why;
            }
        }
        size_t now;
#pragma omp atomic capture
        now = ++done;
        if (options->progress && omp_get_thread_num() == 0 && options->progress(options->self, now, out->n_selected))
#pragma omp atomic write
            stop = true;
    }
    apmw_predictor_free(predictor);
    out->interrupted = stop;
    for (size_t i = 0; i < points->n; i++)
        out->n_supported += out->selected[i] && out->predictions[i].supported;
    if (worst != APMW_OK) {
        apmw_validation_free(out);
        return apmw_error_set(err, worst, "%s", first.message);
    }
    return APMW_OK;
}

void apmw_validation_free(apmw_validation *validation)
{
    free(validation->predictions);
    free(validation->selected);
    memset(validation, 0, sizeof *validation);
}

double apmw_validation_error(const apmw_validation *validation, size_t i, apmw_metric metric)
{
    const apmw_point *m = &validation->points->items[i];
    const apmw_prediction *p = &validation->predictions[i];
    double measured = metric == APMW_METRIC_TTFT ? m->ttft_ms : metric == APMW_METRIC_TPOT ? m->tpot_ms : m->power_w;
    double predicted = metric == APMW_METRIC_TTFT ? p->ttft_ms : metric == APMW_METRIC_TPOT ? p->tpot_ms : p->power_w;
    if (!validation->selected[i] || !p->supported || !(measured > 0))
        return nan_value;
    return predicted / measured - 1;
}

double apmw_validation_within90(const apmw_validation *validation, size_t i, apmw_metric metric)
{
    const apmw_prediction *p = &validation->predictions[i];
    const double error = apmw_validation_error(validation, i, metric);
    const double sd = metric == APMW_METRIC_TTFT ? p->ttft_ln_sd : metric == APMW_METRIC_TPOT ? p->tpot_ln_sd : nan_value;
    return isnan(error) || isnan(sd) ? nan_value : fabs(log1p(error)) <= APMW_Z90 * sd;
}

const char *apmw_metric_name(apmw_metric metric)
{
    static const char *const names[] = {"ttft_ms", "tpot_ms", "power_w_per_gpu"};
    return metric < APMW_METRICS ? names[metric] : "";
}

/* ------------------------------------------------------------------ groups */

enum { BY_PLATFORM = 1, BY_MODEL = 2, BY_ENGINE = 4 };

static void label(const apmw_point *p, int by, apmw_validation_group *out)
{
    memset(out, 0, sizeof *out);
    if (by & BY_PLATFORM)
        apmw_copy(out->platform, sizeof out->platform, p->platform);
    if (by & BY_MODEL)
        apmw_copy(out->model, sizeof out->model, p->model);
    if (by & BY_ENGINE)
        apmw_copy(out->engine, sizeof out->engine, p->engine);
    out->mode = p->disagg ? "disagg" : "agg";
    out->speculative = p->speculative;
    out->excluded = p->excluded[0] != '\0';
}

static int compare_labels(const apmw_validation_group *a, const apmw_validation_group *b)
{
    int c = a->excluded - b->excluded;
    c = c ? c : strcmp(a->mode, b->mode);
    c = c ? c : a->speculative - b->speculative;
    c = c ? c : strcmp(a->platform, b->platform);
    c = c ? c : strcmp(a->model, b->model);
    return c ? c : strcmp(a->engine, b->engine);
}

static int by_label(const void *a, const void *b)
{
    return compare_labels(a, b);
}

static void fill(const apmw_validation *v, apmw_half half, int by, apmw_metric metric, double *errors,
                 apmw_validation_group *g)
{
    double within = 0, n_sure = 0;
    g->metric = metric;
    g->half = half == APMW_HALF_ALL ? "all" : half == APMW_HALF_FIT ? "fit" : "judge";
    for (size_t i = 0; i < v->points->n; i++) {
        const apmw_point *p = &v->points->items[i];
        apmw_validation_group own;
        double error = apmw_validation_error(v, i, metric);
        if (isnan(error) || (half != APMW_HALF_ALL && p->judge != (half == APMW_HALF_JUDGE)))
            continue;
        label(p, by, &own);
        if (compare_labels(&own, g) != 0)
            continue;
        const double inside = apmw_validation_within90(v, i, metric);
        within += isnan(inside) ? 0 : inside;
        n_sure += !isnan(inside);
        errors[g->n++] = error;
    }
    g->within90 = n_sure > 0 ? within / n_sure : nan_value;
    if (g->n == 0)
        return;
    g->median_signed = apmw_quantile(errors, g->n, 0.5);
    for (size_t i = 0; i < g->n; i++) {
        errors[i] = fabs(errors[i]);
        g->mean_abs += errors[i] / (double)g->n;
    }
    g->median_abs = apmw_quantile(errors, g->n, 0.5);
    g->p90_abs = apmw_quantile(errors, g->n, 0.9);
}

/* Groups of one grouping, in order of label; rows without an error make none. */
static size_t add_grouping(const apmw_validation *v, apmw_half half, int by, double *errors,
                           apmw_validation_group *labels, apmw_validation_group *out)
{
    size_t n_labels = 0, n = 0;
    for (size_t i = 0; i < v->points->n; i++)
        if (v->selected[i])
            label(&v->points->items[i], by, &labels[n_labels++]);
    qsort(labels, n_labels, sizeof *labels, by_label);
    for (size_t i = 0; i < n_labels; i++) {
        if (i > 0 && compare_labels(&labels[i - 1], &labels[i]) == 0)
            continue;
        for (int m = 0; m < APMW_METRICS; m++) {
            apmw_validation_group group = labels[i];
            fill(v, half, by, (apmw_metric)m, errors, &group);
            if (group.n > 0)
                out[n++] = group;
        }
    }
    return n;
}

apmw_status apmw_validation_groups(const apmw_validation *validation, apmw_half half, bool totals,
                                   apmw_validation_group **out, size_t *n, apmw_error *err)
{
    static const int groupings[] = {BY_PLATFORM | BY_MODEL | BY_ENGINE, 0, BY_PLATFORM, BY_ENGINE, BY_MODEL};
    size_t points = validation->points->n + 1, n_groupings = totals ? 5 : 1;
    double *errors = calloc(points, sizeof *errors);
    apmw_validation_group *labels = calloc(points, sizeof *labels);
    *n = 0;
    *out = calloc(points * n_groupings * APMW_METRICS, sizeof **out);
    if (!errors || !labels || !*out) {
        free(errors);
        free(labels);
        free(*out);
        *out = NULL;
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for groups");
    }
    for (size_t i = 0; i < n_groupings; i++)
        *n += add_grouping(validation, half, groupings[i], errors, labels, *out + *n);
    free(errors);
    free(labels);
    return APMW_OK;
}

/* ------------------------------------------------------------------ JSON */

static void write_triple(apmw_json_writer *w, const char *key, double ttft, double tpot, double power)
{
    apmw_json_begin_object(w, key);
    apmw_json_double(w, "ttft_ms", ttft);
    apmw_json_double(w, "tpot_ms", tpot);
    apmw_json_double(w, "power_w_per_gpu", power);
    apmw_json_end_object(w);
}

static void write_row(const apmw_validation *v, size_t i, apmw_json_writer *w)
{
    const apmw_point *m = &v->points->items[i];
    const apmw_prediction *p = &v->predictions[i];
    apmw_json_begin_object(w, NULL);
    apmw_json_string(w, "id", m->id);
    apmw_json_string(w, "platform", m->platform);
    apmw_json_string(w, "model", m->model);
    apmw_json_string(w, "engine", m->engine);
    apmw_json_string(w, "mode", m->disagg ? "disagg" : "agg");
    apmw_json_string(w, "precision", m->precision[0] ? m->precision : NULL);
    apmw_json_int(w, "isl", m->isl);
    apmw_json_int(w, "osl", m->osl);
    apmw_json_int(w, "concurrency", m->concurrency);
    apmw_json_bool(w, "speculative", m->speculative);
    apmw_json_string(w, "statistic", m->median ? "median" : "mean");
    apmw_json_string(w, "half", m->judge ? "judge" : "fit");
    apmw_json_string(w, "excluded", m->excluded[0] ? m->excluded : NULL);
    apmw_json_bool(w, "supported", p->supported);
    apmw_json_string(w, "reason", p->supported ? NULL : p->reason);
    write_triple(w, "measured", m->ttft_ms, m->tpot_ms, m->power_w);
    write_triple(w, "predicted", p->ttft_ms, p->tpot_ms, p->power_w);
    if (p->supported) {
        apmw_json_double(w, "error_ttft", apmw_validation_error(v, i, APMW_METRIC_TTFT));
        apmw_json_double(w, "error_tpot", apmw_validation_error(v, i, APMW_METRIC_TPOT));
        apmw_json_double(w, "ln_sd_ttft", p->ttft_ln_sd);
        apmw_json_double(w, "ln_sd_tpot", p->tpot_ln_sd);
        apmw_json_double(w, "kv_pool_tokens", p->kv_tokens);
        apmw_json_double(w, "kv_peak_share", p->kv_peak_share);
        apmw_json_double(w, "outside_domain_share", p->outside_share);
        apmw_json_double(w, "mean_step_ms", p->mean_step_ms);
        apmw_json_double(w, "mean_batch", p->mean_batch);
        apmw_json_double(w, "acceptance_length", m->speculative ? p->acceptance_length : nan_value);
        apmw_json_int(w, "borrowed_operations", p->n_borrowed);
        apmw_json_string(w, "overhead", p->basis);
    }
    apmw_json_end_object(w);
}

static void write_group(const apmw_validation_group *g, apmw_json_writer *w)
{
    apmw_json_begin_object(w, NULL);
    apmw_json_string(w, "platform", g->platform[0] ? g->platform : "all");
    apmw_json_string(w, "model", g->model[0] ? g->model : "all");
    apmw_json_string(w, "engine", g->engine[0] ? g->engine : "all");
    apmw_json_string(w, "mode", g->mode);
    apmw_json_bool(w, "speculative", g->speculative);
    apmw_json_bool(w, "excluded", g->excluded);
    apmw_json_string(w, "half", g->half);
    apmw_json_string(w, "metric", apmw_metric_name(g->metric));
    apmw_json_int(w, "n", (int64_t)g->n);
    apmw_json_double(w, "median_abs_error", g->median_abs);
    apmw_json_double(w, "mean_abs_error", g->mean_abs);
    apmw_json_double(w, "p90_abs_error", g->p90_abs);
    apmw_json_double(w, "median_signed_error", g->median_signed);
    apmw_json_double(w, "within_90", g->within90);
    apmw_json_end_object(w);
}

static apmw_status write_groups(const apmw_validation *v, apmw_half half, bool totals, const char *key,
                                apmw_json_writer *w, apmw_error *err)
{
    apmw_validation_group *groups;
    size_t n;
    apmw_status status = apmw_validation_groups(v, half, totals, &groups, &n, err);
    if (status != APMW_OK)
        return status;
    apmw_json_begin_array(w, key);
    for (size_t i = 0; i < n; i++)
        write_group(&groups[i], w);
    apmw_json_end_array(w);
    free(groups);
    return APMW_OK;
}

apmw_status apmw_validation_write(const apmw_validation *v, apmw_json_writer *w, apmw_error *err)
{
    apmw_json_int(w, "n_rows", (int64_t)v->n_selected);
    apmw_json_int(w, "n_supported", (int64_t)v->n_supported);
    apmw_json_bool(w, "interrupted", v->interrupted);
    apmw_json_begin_array(w, "rows");
    for (size_t i = 0; i < v->points->n; i++)
        if (v->selected[i])
            write_row(v, i, w);
    apmw_json_end_array(w);
    apmw_status status = write_groups(v, APMW_HALF_ALL, false, "groups", w, err);
    if (status == APMW_OK)
        status = write_groups(v, APMW_HALF_FIT, true, "groups_fit", w, err);
    if (status == APMW_OK)
        status = write_groups(v, APMW_HALF_JUDGE, true, "groups_judge", w, err);
    return status;
}
