/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Predictions of measured serving points, and their errors. A predictor composes every deployment of a set of points
 * once, without engine overhead, and lays overheads over it; so one predictor serves validation without a fit, with the
 * fitted engines, and the fit itself. */
#ifndef APMW_VALIDATE_H
#define APMW_VALIDATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/buf.h"
#include "apmw/compose.h"
#include "apmw/hwmodel.h"
#include "apmw/json.h"
#include "apmw/points.h"

typedef struct apmw_predictor apmw_predictor;

/* Mean use of the accelerators while engines stepped, for power. */
typedef struct apmw_use {
    double duty, bw_util, flop_util, busy_share;
} apmw_use;

typedef struct apmw_prediction {
    bool supported;
    char reason[320];          /* why not, or "" */
    double ttft_ms, tpot_ms;   /* the statistic that the row names */
    double ttft_ln_sd, tpot_ln_sd; /* what the fit says that ln of them is off by; NaN = it does not */
    double power_w;            /* of one accelerator, mean over the run; NaN without power parameters */
    double role_power_w[2];    /* disaggregated: prefill, decode */
    apmw_use use[2];           /* aggregated: [0]; disaggregated: prefill, decode */
    double wait_share;         /* of TTFT before the first scheduling */
    double kv_tokens;          /* pool of one (decode) rank */
    double kv_peak_share;
    double outside_share;      /* of steps, priced outside the measured domain */
    double mean_step_ms, mean_batch;
    double acceptance_length;  /* tokens a step that were assumed, 1 without speculation */
    int n_borrowed;
    char basis[160];           /* of the overhead */
} apmw_prediction;

/* What replaces the fitted numbers. NULL pointers = the catalogue's. */
typedef struct apmw_predict_options {
    bool no_fit;                       /* no overhead at all, prompts as composed */
    const apmw_overhead *overhead[2];  /* of the engine, or of prefill and decode workers */
    double acceptance_length;          /* NaN = as stated, as fitted, or the model's curve, in this order */
    bool power;                        /* fill in power */
} apmw_predict_options;

/* Loads platforms and composes all deployments of the points (in parallel). Points are borrowed and must outlive the
 * predictor; `only` (n flags, may be NULL) limits it to some of them. Deployments that do not compose are
 * remembered with their reason. */
apmw_status apmw_predictor_create(apmw_catalog *catalog, const apmw_points *points, const bool *only,
                                  apmw_predictor **out, apmw_error *err);
void apmw_predictor_free(apmw_predictor *predictor);
/* Thread-safe. Errors of the program itself (memory, broken laws) come back as status; what a row lacks is a
 * prediction that is not supported. */
apmw_status apmw_predict(const apmw_predictor *predictor, size_t point, const apmw_predict_options *options,
                         apmw_prediction *out, apmw_error *err);
/* The deployment of a point's role and its fitted overhead; NULL when the settings could not be made. */
const apmw_serving_spec *apmw_predictor_spec(const apmw_predictor *predictor, size_t point, apmw_role role);
const apmw_overhead *apmw_predictor_overhead(const apmw_predictor *predictor, size_t point, apmw_role role);
const apmw_engine_settings *apmw_predictor_settings(const apmw_predictor *predictor, size_t point, apmw_role role);

/* A cost with an overhead laid over one that was composed without. `inner` is borrowed. The same as composing with
 * the overhead. NULL when out of memory. */
apmw_step_cost *apmw_overhead_cost(const apmw_step_cost *inner, const apmw_overhead *overhead, double layers);
/* A decode worker's cost: prompts are already in KV, so chunks cost nothing. `inner` is borrowed. */
apmw_step_cost *apmw_decode_only_cost(const apmw_step_cost *inner);

/* What the accelerators of a measured point with power did: for fits and judgements of power. A disaggregated point speaks
 * by its decode workers, which never idle. */
typedef struct apmw_point_power {
    size_t point;
    double watts;         /* measured, one accelerator */
    apmw_use measured;    /* work of the predicted steps over the measured time per token */
    apmw_use simulated;   /* over the predicted one */
    double kernel_s, measured_step_s, simulated_step_s;
} apmw_point_power;
/* Predicts the points that have power and a measured TPOT; unsupported ones are left out. The caller frees *out. */
apmw_status apmw_points_power(apmw_catalog *catalog, const apmw_points *points, apmw_point_power **out, size_t *n,
                              apmw_error *err);

/* ------------------------------------------------------------------ validation */

typedef enum apmw_half { APMW_HALF_ALL, APMW_HALF_FIT, APMW_HALF_JUDGE } apmw_half;
typedef enum apmw_metric { APMW_METRIC_TTFT, APMW_METRIC_TPOT, APMW_METRIC_POWER, APMW_METRICS } apmw_metric;

typedef struct apmw_validate_options {
    bool no_fit;
    apmw_half half;
    /* Called from one thread as rows are done; true = stop (rows done so far are kept). */
    bool (*progress)(void *self, size_t done, size_t total);
    void *self;
} apmw_validate_options;

typedef struct apmw_validation {
    const apmw_points *points;
    apmw_prediction *predictions; /* of every point */
    bool *selected;               /* predicted rows */
    size_t n_selected, n_supported;
    bool interrupted;
} apmw_validation;

/* keep (n flags, may be NULL) selects rows before the half does. */
apmw_status apmw_validate_run(apmw_catalog *catalog, const apmw_points *points, const bool *keep,
                              const apmw_validate_options *options, apmw_validation *out, apmw_error *err);
void apmw_validation_free(apmw_validation *validation);
/* predicted / measured - 1, NaN when one of them is missing. */
double apmw_validation_error(const apmw_validation *validation, size_t i, apmw_metric metric);
/* 1 = the measured value lies in the prediction's own 90 % interval, 0 = outside, NaN = either is missing. */
double apmw_validation_within90(const apmw_validation *validation, size_t i, apmw_metric metric);

typedef struct apmw_validation_group {
    char platform[24], model[32], engine[16]; /* "" = all */
    const char *mode;                         /* "agg", "disagg" or "" */
    bool speculative, excluded;
    const char *half;                         /* "all", "fit", "judge" */
    apmw_metric metric;
    size_t n;
    double median_abs, mean_abs, p90_abs, median_signed;
    double within90;                          /* share of rows inside their own 90 % intervals; NaN = none has one */
} apmw_validation_group;
/* Errors of the rows of one half (ALL = every selected row) by (platform, model, engine, mode, speculative, metric), and
 * with `totals` also over all, by platform, by engine and by model. Excluded rows form groups of their own. The caller
 * frees *out. */
apmw_status apmw_validation_groups(const apmw_validation *validation, apmw_half half, bool totals,
                                   apmw_validation_group **out, size_t *n, apmw_error *err);
const char *apmw_metric_name(apmw_metric metric);

/* The keys of schema apmw.validation/1 into an open object: rows, groups, totals. */
apmw_status apmw_validation_write(const apmw_validation *validation, apmw_json_writer *w, apmw_error *err);

#endif
