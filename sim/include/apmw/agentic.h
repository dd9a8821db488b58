/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured runs of closed-loop agents against one server, and the same runs simulated. Format: a folder with scenario.json,
 * runs.csv, users.csv and perhaps waits.csv (hwmodels/evidence/agentic/README.md). */
#ifndef APMW_AGENTIC_H
#define APMW_AGENTIC_H
#include "apmw/experiment.h"
#include "apmw/sent.h"

/* What a run shows, measured or simulated. NaN = unknown, or does not apply. */
typedef struct apmw_agentic_figures {
    double requests;         /* completed */
    double ttft_s, tpot_s;   /* medians over them */
    double gpu_hit;          /* shares of prompt tokens: found in HBM when a request was admitted */
    double host_hit;         /* found below it */
    double requeried_hit;    /* measured: hits / queries of vLLM's counter, which counts a waiting prompt at every step */
    double host_requeried_hit; /* measured: the same of the tier below: hits among what HBM did not have */
    double prompt_tokens;    /* mean of a request */
    double mean_running, mean_waiting;
    double preemptions;
} apmw_agentic_figures;

typedef struct apmw_agentic_run {
    char name[32];
    int64_t users;
    bool offload;            /* KV goes to host memory */
    bool use;
    char why_not[96];        /* of a run that is not used */
    double duration_s;
    double server_s;         /* of the last reading of the server's counters */
    double output_tokens;    /* mean of a request, an input: outputs were not forced */
    double endless_share;    /* of its requests, an input: answers that never ended */
    double kv_tokens;        /* pool that the server reported */
    apmw_agentic_figures measured, predicted;
    double predicted_kv_tokens;
    char reason[256];        /* why there is no prediction, or "" */
} apmw_agentic_run;

typedef struct apmw_agentic {
    apmw_agentic_run *runs;  /* without offload first, by users */
    size_t n;
    apmw_scenario scenario;
    apmw_sent sent;
    double first_token_timeout_s; /* of the client; 0 = none */
    char users_path[1024], waits_path[1024]; /* waits "": there are none */
} apmw_agentic;

/* The folder's runs and scenario. */
apmw_status apmw_agentic_load(const char *dir, apmw_agentic *out, apmw_error *err);
void apmw_agentic_free(apmw_agentic *agentic);
/* Where the folder has a waits.csv (session, turn: its place in the trajectory, wait_s), those turns wait so long: a
 * client may read a recording otherwise than the importer does. APMW_E_DATA names file, line and what is wrong. */
apmw_status apmw_agentic_set_waits(const apmw_agentic *agentic, apmw_trace *recorded, apmw_error *err);
/* Simulates one run on sessions of `recorded`. A run that cannot be simulated keeps its reason. */
apmw_status apmw_agentic_predict(apmw_catalog *catalog, const apmw_agentic *agentic, const apmw_trace *recorded,
                                 apmw_agentic_run *run, apmw_error *err);

/* Where the KV pool stops to carry the agents: the neighbouring numbers of users between which the share of prompt tokens
 * that HBM holds first falls by more than half. Runs that are not used, and those of the other kind, are passed over.
 * False: it does not fall. */
bool apmw_agentic_knee(const apmw_agentic *agentic, bool offload, bool predicted, int64_t *below, int64_t *above);

#endif
