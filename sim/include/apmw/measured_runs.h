/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured runs of listed requests against one server, and the same runs simulated. Format: a folder with scenario.json,
 * runs.csv and requests.csv (hwmodels/evidence/import_runs.py). What was cached of each prompt and how many tokens a
 * drafting step gained are inputs, as logged. */
#ifndef APMW_MEASURED_RUNS_H
#define APMW_MEASURED_RUNS_H
#include "apmw/experiment.h"

typedef struct apmw_run_request {
    int64_t n_prompt, n_out, n_cached;
    double ttft_s, tpot_s, e2e_s;                               /* measured; NaN = not known */
    double predicted_ttft_s, predicted_tpot_s, predicted_e2e_s; /* NaN = not simulated */
} apmw_run_request;

/* Medians over the requests of a run, and the means that the burst at its start moves. */
typedef struct apmw_run_figures {
    double ttft_s, ttft_mean_s, tpot_s, tpot_mean_s, e2e_s;
} apmw_run_figures;

typedef struct apmw_measured_run {
    char name[32];
    char kind[16];             /* figures of one kind are summed up together */
    int64_t concurrency;
    double accept_length;      /* tokens gained a drafting step */
    char accept_from[32];
    double accept_spread;      /* relative sd of it between requests */
    apmw_run_request *requests; /* in the order of sending */
    size_t n;
    double cached_share;       /* of prompt tokens */
    apmw_run_figures measured, predicted;
} apmw_measured_run;

typedef struct apmw_measured_runs {
    apmw_measured_run *runs;
    size_t n;
    apmw_scenario scenario;
} apmw_measured_runs;

/* `path` is runs.csv; the other two files lie beside it. */
apmw_status apmw_measured_runs_load(const char *path, apmw_measured_runs *out, apmw_error *err);
void apmw_measured_runs_free(apmw_measured_runs *runs);
/* Simulates one run. */
apmw_status apmw_measured_run_predict(apmw_catalog *catalog, const apmw_scenario *scenario, apmw_measured_run *run,
                                      apmw_error *err);

#endif
