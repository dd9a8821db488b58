/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shared by the files of prediction and validation. */
#ifndef APMW_VALIDATE_PRIVATE_H
#define APMW_VALIDATE_PRIVATE_H
#include "apmw/cluster.h"
#include "apmw/metrics.h"
#include "apmw/power_form.h"
#include "apmw/validate.h"

/* One composed deployment. */
typedef struct predictor_deployment {
    apmw_serving_spec spec;
    apmw_step_cost *cost; /* NULL: reason */
    apmw_overhead overhead;
    double layers;
    int n_borrowed;
    char reason[320];
} predictor_deployment;

/* One role of one point. */
typedef struct predictor_role {
    apmw_engine_settings settings;
    size_t deployment;
    double kv_tokens, weight_bytes;
    char reason[320]; /* "" = it can run */
} predictor_role;

struct apmw_predictor {
    apmw_catalog *catalog;
    const apmw_points *points;
    predictor_role (*roles)[2];
    bool *ready;             /* point was prepared */
    predictor_deployment *deployments;
    size_t n_deployments;
};

/* What a run of one point needs, resolved. */
typedef struct predict_run {
    const apmw_point *point;
    apmw_engine_config engine[2];
    int workers[2];
    int accelerators[2];      /* of one worker */
    const apmw_step_cost *cost[2];
    int64_t n_requests;
    apmw_kv_link link;        /* disaggregated: from prefill to decode workers */
    const apmw_power_params *power; /* NULL = none */
    double peak_flop_per_s, hbm_bytes_per_s;
} predict_run;

/* Runs the load and fills times, use and power. */
apmw_status apmw_predict_simulate(const predict_run *run, apmw_prediction *out, apmw_error *err);

#endif
