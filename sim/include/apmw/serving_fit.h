/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Engine overheads from measured serving points.
 *
 * Each row of the fit half is simulated; the logarithms of its TPOT and TTFT are compared with the measured ones. A row's
 * overhead is a sum along a path: engine (and vendor), model, precision, platform, epoch of the run (days that follow each other
 * within a week share a build); each node
 * adds a deviation that is drawn towards zero with a stated sd, so a node with few rows stays near its parent (a linear
 * mixed model, solved for its mode; residuals are robust, Huber). Simulated times are nearly linear in the overheads, so
 * a round simulates every row once for each number and then solves a whole tree at once; three rounds suffice.
 *
 * Disaggregated rows make trees of their own: time per layer and sequence are the decode worker's, the rest the prefill
 * worker's. Speculative rows are fitted last, as deviations from their engine's plain overhead, with the tokens that a
 * step emits at 1,024 output tokens and its slope over ln output length. */
#ifndef APMW_SERVING_FIT_H
#define APMW_SERVING_FIT_H
#include <stdbool.h>
#include <stddef.h>
#include "apmw/buf.h"
#include "apmw/hwmodel.h"
#include "apmw/overhead.h"
#include "apmw/points.h"
#include "apmw/validate.h"

typedef struct apmw_serving_fit_options {
    int rounds;               /* 3 */
    double ttft_limit_ms;     /* rows above it do not speak about TTFT: they queue. 8,000 */
    double sd_tpot, sd_ttft;  /* of ln, of one row: weights. 0.05, 0.15 */
    double huber;             /* 1 */
    double spread;            /* sd of a child's deviation as a share of its engine's prior sd; 0.3 */
    bool report_rows;         /* a line of the report for each row */
    bool (*progress)(void *self, size_t done, size_t total);
    void *self;
} apmw_serving_fit_options;
void apmw_serving_fit_defaults(apmw_serving_fit_options *out);

typedef struct apmw_serving_fit_result {
    apmw_overhead_table table;
    size_t n_rows, n_nodes;
    double median_abs_tpot, median_abs_ttft; /* of the rows used, in sample */
    double left_out_tpot, left_out_ttft;     /* median absolute, rows of a fifth of the layouts left out in turn */
} apmw_serving_fit_result;

/* use (n flags): rows that may be used; judge-half rows and excluded ones never are. */
apmw_status apmw_fit_serving(apmw_catalog *catalog, const apmw_points *points, const bool *use,
                             const apmw_serving_fit_options *options, apmw_serving_fit_result *out, apmw_buf *report,
                             apmw_error *err);
void apmw_serving_fit_result_free(apmw_serving_fit_result *result);

/* What `apmw fit serving` calls: points file in, engines file out. */
apmw_status apmw_experiment_fit_serving(apmw_catalog *catalog, const char *points_path, const char *engines_path,
                                        const char *provenance, const apmw_serving_fit_options *options,
                                        apmw_buf *report, apmw_error *err);

/* What predictions of rows that no fit saw are off by, and how often they lie inside their own intervals, on the fit half
 * alone: a fifth of its layouts is left out in turn, everything is fitted on the rest, and what was left out is simulated
 * with that. The report has a line a kind of deployment; nothing is written. Takes five times as long as a fit. */
apmw_status apmw_experiment_cross_validate(apmw_catalog *catalog, const char *points_path,
                                           const apmw_serving_fit_options *options, apmw_buf *report, apmw_error *err);

#endif
