/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured runs of listed requests (measured_runs.h): read, simulated. */
#include "apmw/measured_runs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "csv_row.h"

/* ------------------------------------------------------------------ reading */

static int64_t count(csv_row *r, const char *column, int64_t least)
{
    const int64_t value = apmw_csv_row_int(r, column, least - 1);
    if (r->status == APMW_OK && (value < least || value > INT32_MAX)) {
        r->status = apmw_error_set(r->err, APMW_E_DATA, "%s:%zu: %s: %lld is below %lld or out of range", r->path, r->row + 2,
                                   column, (long long)value, (long long)least);
    }
    return value;
}

static void name_of(csv_row *r, const char *column, char *out, size_t size)
{
    if (!apmw_copy(out, size, apmw_csv_row_text(r, column)) && r->status == APMW_OK) {
        r->status = apmw_error_set(r->err, APMW_E_DATA, "%s:%zu: %s: longer than %zu letters", r->path, r->row + 2, column,
                                   size - 1);
    }
}

static void read_run(csv_row *r, apmw_measured_run *run)
{
    const double none = (double)NAN;
    name_of(r, "run", run->name, sizeof run->name);
    name_of(r, "kind", run->kind, sizeof run->kind);
    name_of(r, "accept_from", run->accept_from, sizeof run->accept_from);
    run->concurrency = count(r, "concurrency", 1);
    run->accept_length = apmw_csv_row_number(r, "accept_length");
    run->accept_spread = apmw_csv_row_number(r, "accept_spread");
    run->measured = (apmw_run_figures){.ttft_s = 1e-3 * apmw_csv_row_number(r, "ttft_p50_ms"), .ttft_mean_s = 1e-3 * apmw_csv_row_number(r, "ttft_mean_ms"),
                                       .tpot_s = 1e-3 * apmw_csv_row_number(r, "tpot_p50_ms"), .tpot_mean_s = 1e-3 * apmw_csv_row_number(r, "tpot_mean_ms"),
                                       .e2e_s = 1e-3 * apmw_csv_row_number(r, "e2e_p50_ms")};
    run->predicted = (apmw_run_figures){none, none, none, none, none};
    run->cached_share = none;
    if (r->status == APMW_OK && (!(run->accept_length >= 1.0) || !(run->accept_spread >= 0.0))) {
        r->status = apmw_error_set(r->err, APMW_E_DATA,
                                   "%s:%zu: accept_length, accept_spread: a step gains at least a token, and no sd is below 0",
                                   r->path, r->row + 2);
    }
}

static apmw_status read_runs(const char *path, apmw_measured_runs *out, apmw_error *err)
{
    apmw_csv *csv = NULL;
    csv_row r = {.path = path, .err = err};
    r.status = apmw_csv_load(path, &csv, err);
    r.csv = csv;
    if (r.status == APMW_OK) {
        out->n = apmw_csv_rows(csv);
        out->runs = calloc(out->n + 1, sizeof *out->runs);
        if (out->runs == NULL) {
            out->n = 0;
            r.status = apmw_error_set(err, APMW_E_NOMEM, "out of memory for the runs of %s", path);
        }
    }
    for (; r.row < out->n && r.status == APMW_OK; r.row++) {
        read_run(&r, &out->runs[r.row]);
    }
    apmw_csv_free(csv);
    return r.status;
}

static apmw_measured_run *find(const apmw_measured_runs *runs, const char *name)
{
    for (size_t i = 0; i < runs->n; i++) {
        if (strcmp(runs->runs[i].name, name) == 0) {
            return &runs->runs[i];
        }
    }
    return NULL;
}

static void read_request(csv_row *r, const apmw_measured_runs *runs)
{
    char name[sizeof runs->runs[0].name] = "";
    name_of(r, "run", name, sizeof name);
    apmw_run_request request = {.n_prompt = count(r, "prompt_tokens", 1),
                                .n_out = count(r, "output_tokens", 1),
                                .n_cached = count(r, "cached_tokens", 0),
                                .ttft_s = 1e-3 * apmw_csv_row_number(r, "ttft_ms"),
                                .tpot_s = 1e-3 * apmw_csv_row_number(r, "tpot_ms"),
                                .e2e_s = 1e-3 * apmw_csv_row_number(r, "e2e_ms"),
                                .predicted_ttft_s = (double)NAN,
                                .predicted_tpot_s = (double)NAN,
                                .predicted_e2e_s = (double)NAN};
    if (r->status != APMW_OK) {
        return;
    }
    apmw_measured_run *run = find(runs, name);
    if (run == NULL || request.n_cached >= request.n_prompt) {
        r->status = run == NULL ? apmw_error_set(r->err, APMW_E_DATA, "%s:%zu: run: \"%s\" is not in runs.csv", r->path,
                                                 r->row + 2, name)
                                : apmw_error_set(r->err, APMW_E_DATA, "%s:%zu: cached_tokens: as long as the prompt", r->path,
                                                 r->row + 2);
        return;
    }
    apmw_run_request *larger = realloc(run->requests, (run->n + 1) * sizeof *larger);
    if (larger == NULL) {
        r->status = apmw_error_set(r->err, APMW_E_NOMEM, "out of memory for %zu requests", run->n + 1);
        return;
    }
    run->requests = larger;
    run->requests[run->n++] = request;
}

static apmw_status read_requests(const char *path, const apmw_measured_runs *runs, apmw_error *err)
{
    apmw_csv *csv = NULL;
    csv_row r = {.path = path, .err = err};
    r.status = apmw_csv_load(path, &csv, err);
    r.csv = csv;
    for (; r.status == APMW_OK && r.row < apmw_csv_rows(csv); r.row++) {
        read_request(&r, runs);
    }
    apmw_csv_free(csv);
    for (size_t i = 0; i < runs->n && r.status == APMW_OK; i++) {
        apmw_measured_run *run = &runs->runs[i];
        double prompt = 0.0, cached = 0.0;
        for (size_t k = 0; k < run->n; k++) {
            prompt += (double)run->requests[k].n_prompt;
            cached += (double)run->requests[k].n_cached;
        }
        run->cached_share = cached / prompt;
        if (run->n == 0) {
            r.status = apmw_error_set(err, APMW_E_DATA, "%s: no request of run %s", path, run->name);
        }
    }
    return r.status;
}

apmw_status apmw_measured_runs_load(const char *path, apmw_measured_runs *out, apmw_error *err)
{
    char beside[1100];
    memset(out, 0, sizeof *out);
    apmw_scenario_init(&out->scenario);
    const char *slash = strrchr(path, '/');
    const int folder = slash == NULL ? 0 : (int)(slash - path) + 1;
    if (folder > 1000) {
        return apmw_error_set(err, APMW_E_USAGE, "the name of the folder is too long");
    }
    snprintf(beside, sizeof beside, "%.*sscenario.json", folder, path);
    apmw_status status = apmw_scenario_load(beside, &out->scenario, err);
    if (status == APMW_OK) {
        status = read_runs(path, out, err);
    }
    if (status == APMW_OK) {
        snprintf(beside, sizeof beside, "%.*srequests.csv", folder, path);
        status = read_requests(beside, out, err);
    }
    if (status != APMW_OK) {
        apmw_measured_runs_free(out);
    }
    return status;
}

void apmw_measured_runs_free(apmw_measured_runs *runs)
{
    for (size_t i = 0; i < runs->n; i++) {
        free(runs->runs[i].requests);
    }
    free(runs->runs);
    runs->runs = NULL;
    runs->n = 0;
}

/* ------------------------------------------------------------------ simulating */

static apmw_status summarize(const apmw_collector *collector, apmw_measured_run *run, apmw_error *err)
{
    size_t n = 0;
    const apmw_request_record *records = apmw_collector_requests(collector, &n);
    apmw_latency_summary latency;
    apmw_status status = apmw_collector_status(collector, err);
    if (status == APMW_OK) {
        status = apmw_latency_summarize(records, n, &latency, err);
    }
    if (status == APMW_OK && latency.n_done != (int64_t)run->n) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "run %s: %lld of %zu requests ended, %lld were refused", run->name,
                                (long long)latency.n_done, run->n, (long long)latency.n_rejected);
    }
    if (status != APMW_OK) {
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        apmw_run_request *r = &run->requests[records[i].id];
        r->predicted_ttft_s = apmw_record_ttft_s(&records[i]);
        r->predicted_tpot_s = apmw_record_tpot_s(&records[i]);
        r->predicted_e2e_s = apmw_record_e2e_s(&records[i]);
    }
    run->predicted = (apmw_run_figures){.ttft_s = latency.ttft_s.p50, .ttft_mean_s = latency.ttft_s.mean, .tpot_s = latency.tpot_s.p50,
                                        .tpot_mean_s = latency.tpot_s.mean, .e2e_s = latency.e2e_s.p50};
    return APMW_OK;
}

static apmw_status simulate(const apmw_deployment *d, const apmw_scenario *s, const apmw_listed_request *requests,
                            apmw_measured_run *run, apmw_error *err)
{
    const apmw_listed listed = {.requests = requests, .n_requests = run->n, .slots = run->concurrency};
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){0});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    apmw_sim *sim = NULL;
    apmw_workload workload;
    apmw_status status = laws == NULL || collector == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for a run")
                                                           : apmw_workload_listed(&listed, &workload, err);
    if (status == APMW_OK) {
        apmw_engine_config engine = d->engine;
        engine.cost = d->cost;
        engine.acceptance_spread = run->accept_spread;
        const apmw_probe *const probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
        const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .routing = s->routing, .seed = s->seed};
        status = apmw_sim_create(&config, workload, probes, 2, &sim, err);
    }
    if (status == APMW_OK) {
        status = apmw_sim_run(sim, APMW_TIME_NEVER, err);
    }
    if (status == APMW_OK) {
        status = apmw_laws_status(laws, err);
    }
    if (status == APMW_OK) {
        status = summarize(collector, run, err);
    }
    apmw_sim_free(sim);
    apmw_collector_free(collector);
    apmw_laws_free(laws);
    return status;
}

apmw_status apmw_measured_run_predict(apmw_catalog *catalog, const apmw_scenario *scenario, apmw_measured_run *run,
                                      apmw_error *err)
{
    apmw_scenario s = *scenario;
    apmw_deployment deployment = {0};
    double context = 0.0;
    apmw_listed_request *requests = calloc(run->n + 1, sizeof *requests);
    if (requests == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu requests", run->n);
    }
    for (size_t i = 0; i < run->n; i++) {
        const apmw_run_request *r = &run->requests[i];
        requests[i] = (apmw_listed_request){.n_prompt = r->n_prompt, .n_out = r->n_out, .n_cached = r->n_cached};
        context += ((double)r->n_prompt + 0.5 * (double)r->n_out) / (double)run->n;
    }
    s.acceptance_length = run->accept_length;
    apmw_status status = apmw_deployment_of(catalog, &s, context, &deployment, err);
    if (status == APMW_OK && (deployment.prefill != NULL || deployment.choice.replicas != 1)) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "measured runs are of one engine, not of %s", deployment.name);
    }
    if (status == APMW_OK) {
        status = simulate(&deployment, &s, requests, run, err);
    }
    apmw_deployment_free(&deployment);
    free(requests);
    return status;
}
