/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fits of the power form (power_form.h) to measured accelerator power, and their judgement on models left out whole.
 *
 * Evidence comes as rows: what an engine did (duty, bandwidth and FLOP utilisation) and the watts that were measured.
 * Rows of ML.ENERGY are made here by composing a steady decode step with its share of prompt tokens; rows of
 * serving points with power are made by whoever simulates them. Which platform is fitted on what, and what stands in
 * for platforms without measurements, is data: hwmodels/rules/power.json. */
#ifndef APMW_FIT_POWER_H
#define APMW_FIT_POWER_H
#include <stdbool.h>
#include <stddef.h>
#include "apmw/buf.h"
#include "apmw/hwmodel.h"
#include "apmw/power_form.h"
#include "apmw/text.h"

typedef struct apmw_power_use {
    double duty, bw_util, flop_util;
} apmw_power_use;

typedef struct apmw_power_row {
    char platform[24];     /* accelerator id */
    char group[112];       /* held out whole: "model|gpu" */
    char config[176];      /* what batches share: model, task, precision, number of accelerators */
    double batch;
    apmw_power_use measured;  /* kernel time and work over the measured step */
    apmw_power_use simulated; /* the same over the predicted step; NaN where there is none */
    double measured_step_s, kernel_s, simulated_step_s;
    double watts;          /* measured, one accelerator */
    bool composed;         /* false: priced by a roofline, since no rule composes the model */
    bool judge;            /* half that no fit sees */
} apmw_power_row;

/* True for groups whose XXH3-64 (seed 0) is odd: the half that judges. */
bool apmw_power_is_judge(const char *group);

/* Reads the ML.ENERGY table (columns model, task, weight_precision, gpu, num_gpus, avg_batch, avg_output_len,
 * avg_power_W_total, out_tok_per_s, ...) and prices a step of each row. `path` NULL = the file that the rules name.
 * *rows is freed by the caller with free(). notes (may be NULL) gets one line for each model that is not composed. */
apmw_status apmw_power_rows_mlenergy(apmw_catalog *catalog, const char *path, apmw_power_row **rows, size_t *n,
                                     apmw_buf *notes, apmw_error *err);

enum { APMW_POWER_FREE_A = 1, APMW_POWER_FREE_B = 2, APMW_POWER_FREE_TOP = 4 };
typedef struct apmw_power_fit {
    apmw_power_params params; /* with covariance of (ln a, ln b) and sd_config; tdp_w and forms as in start */
    size_t n_rows, n_groups;
    double rms;               /* of ln(predicted / measured), in sample */
    double left_out_median, left_out_median_abs, left_out_p90_abs; /* groups left out one at a time, fractions */
    double sd_config, sd_within; /* of ln: between configurations, between batches of one (left out) */
} apmw_power_fit;

/* Robust (Huber, 1.345 sd) least squares of ln watts over rows[use[i]], GSL Levenberg-Marquardt on the logarithms of
 * the free parameters; the covariance is the delete-one-group jackknife, since batches of one model are nearly
 * copies of each other. With one group only the covariance is that of least squares. APMW_E_DATA with fewer rows
 * than parameters or no finite row. */
apmw_status apmw_fit_power(const apmw_power_row *rows, const size_t *use, size_t n_use,
                           const apmw_power_params *start, unsigned free_parameters, apmw_power_fit *out,
                           apmw_error *err);

/* Power parameters of one platform from the rules and the rows' fit half: fitted where the rules say so and rows of
 * that platform exist, else scaled by TDP from a relative, with the words "no measured power" in `basis`. fit may be
 * NULL; fit->n_rows = 0 when nothing was fitted. */
apmw_status apmw_power_params_for(const apmw_catalog *catalog, const char *platform, const apmw_power_row *rows,
                                  size_t n_rows, apmw_power_params *out, apmw_power_fit *fit, apmw_error *err);

/* Errors, in % of the measured watts, by platform and by model, fit half and judge half, with the measured and with the
 * simulated step rate, of the parameters that apmw_power_params_for gives on these rows. One row of the table a
 * group. */
apmw_status apmw_power_judge_table(const apmw_catalog *catalog, const apmw_power_row *rows, size_t n_rows,
                                   apmw_table **out, apmw_error *err);

#endif
