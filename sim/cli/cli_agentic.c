/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cli_agentic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* The trace as the scenario names it, or where it lies in the data folder. */
static apmw_status load_trace(apmw_cli *cli, const apmw_scenario *scenario, apmw_trace *out, apmw_error *err)
{
    if (scenario->trace[0] == '\0') {
        return apmw_error_set(err, APMW_E_SCENARIO, "the scenario of measured runs names no trace");
    }
    char *path = apmw_cli_data_path(cli, scenario->trace);
    if (path == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    FILE *here = fopen(scenario->trace, "rb");
    const char *name = here != NULL ? scenario->trace : path;
    if (here != NULL) {
        fclose(here);
    }
    apmw_status status = apmw_cli_input(cli, name, err);
    if (status == APMW_OK) {
        status = apmw_trace_load(name, NULL, out, err);
    }
    free(path);
    return status;
}

static double percent(double share)
{
    return 100.0 * share;
}

static apmw_table *table_of(const apmw_agentic *a)
{
    static const char *const NAMES[] = {
        "run", "users", "offload", "requests", "predicted_requests", "prompt_tokens", "predicted_prompt_tokens",
        "gpu_hit_percent", "predicted_gpu_hit_percent", "host_hit_percent", "predicted_host_hit_percent",
        "ttft_p50_s", "predicted_ttft_p50_s", "ttft_error_percent", "tpot_p50_ms", "predicted_tpot_p50_ms",
        "tpot_error_percent", "running", "predicted_running", "waiting", "predicted_waiting", "reason"};
    apmw_table *t = apmw_table_create(sizeof NAMES / sizeof NAMES[0], NAMES);
    for (size_t i = 0; t != NULL && i < a->n; i++) {
        const apmw_agentic_run *r = &a->runs[i];
        const apmw_agentic_figures *m = &r->measured, *p = &r->predicted;
        apmw_table_text(t, r->name);
        apmw_table_int(t, r->users);
        apmw_table_text(t, r->offload ? "on" : "off");
        const double values[] = {m->requests, p->requests, m->prompt_tokens, p->prompt_tokens, percent(m->gpu_hit),
                                 percent(p->gpu_hit), percent(r->offload ? m->host_hit : (double)NAN),
                                 percent(r->offload ? p->host_hit : (double)NAN), m->ttft_s, p->ttft_s,
                                 percent(p->ttft_s / m->ttft_s - 1.0), 1e3 * m->tpot_s, 1e3 * p->tpot_s,
                                 percent(p->tpot_s / m->tpot_s - 1.0), m->mean_running, p->mean_running,
                                 m->mean_waiting, p->mean_waiting};
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            apmw_table_number(t, values[k], k == 2 || k == 3 ? 6 : 3);
        }
        apmw_table_text(t, r->use ? (r->reason[0] != '\0' ? r->reason : NULL) : r->why_not);
    }
    return t;
}

static void knee_line(const apmw_agentic *a, bool offload, apmw_buf *out)
{
    for (int predicted = 0; predicted < 2; predicted++) {
        int64_t below = 0, above = 0;
        if (apmw_agentic_knee(a, offload, predicted != 0, &below, &above)) {
            apmw_buf_printf(out, "knee, %s host offload, %s: between %lld and %lld users\n", offload ? "with" : "without",
                            predicted != 0 ? "predicted" : "measured", (long long)below, (long long)above);
        } else {
            apmw_buf_printf(out, "knee, %s host offload, %s: none\n", offload ? "with" : "without",
                            predicted != 0 ? "predicted" : "measured");
        }
    }
}

static void json_knee(const apmw_agentic *a, apmw_json_writer *w, const char *key, bool offload, bool predicted)
{
    int64_t below = 0, above = 0;
    if (apmw_agentic_knee(a, offload, predicted, &below, &above)) {
        apmw_json_begin_array(w, key);
        apmw_json_int(w, NULL, below);
        apmw_json_int(w, NULL, above);
        apmw_json_end_array(w);
    } else {
        apmw_json_null(w, key);
    }
}

static void json_figures(const apmw_agentic_figures *f, apmw_json_writer *w, const char *key)
{
    apmw_json_begin_object(w, key);
    apmw_json_double(w, "requests", f->requests);
    apmw_json_double(w, "prompt_tokens", f->prompt_tokens);
    apmw_json_double(w, "gpu_hit", f->gpu_hit);
    apmw_json_double(w, "host_hit", f->host_hit);
    apmw_json_double(w, "requeried_gpu_hit", f->requeried_hit);
    apmw_json_double(w, "requeried_host_hit", f->host_requeried_hit);
    apmw_json_double(w, "ttft_p50_s", f->ttft_s);
    apmw_json_double(w, "tpot_p50_s", f->tpot_s);
    apmw_json_double(w, "mean_running", f->mean_running);
    apmw_json_double(w, "mean_waiting", f->mean_waiting);
    apmw_json_double(w, "preemptions", f->preemptions);
    apmw_json_end_object(w);
}

static void write_json(apmw_cli *cli, const apmw_agentic *a, apmw_buf *out)
{
    apmw_json_writer w = apmw_json_writer_make(out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "schema", "apmw.agentic-validation/1");
    apmw_cli_provenance(cli, &w, "provenance");
    apmw_json_begin_array(&w, "runs");
    for (size_t i = 0; i < a->n; i++) {
        const apmw_agentic_run *r = &a->runs[i];
        apmw_json_begin_object(&w, NULL);
        apmw_json_string(&w, "run", r->name);
        apmw_json_int(&w, "users", r->users);
        apmw_json_bool(&w, "offload", r->offload);
        apmw_json_bool(&w, "used", r->use);
        apmw_json_string(&w, "reason", r->use ? r->reason : r->why_not);
        apmw_json_double(&w, "output_tokens", r->output_tokens);
        apmw_json_double(&w, "kv_tokens", r->kv_tokens);
        apmw_json_double(&w, "kv_tokens_from_scenario", r->predicted_kv_tokens);
        json_figures(&r->measured, &w, "measured");
        json_figures(&r->predicted, &w, "predicted");
        apmw_json_end_object(&w);
    }
    apmw_json_end_array(&w);
    apmw_json_begin_object(&w, "knee");
    json_knee(a, &w, "measured", false, false);
    json_knee(a, &w, "predicted", false, true);
    json_knee(a, &w, "measured_with_offload", true, false);
    json_knee(a, &w, "predicted_with_offload", true, true);
    apmw_json_end_object(&w);
    apmw_json_end_object(&w);
    apmw_buf_puts(out, "\n");
}

static int emit(apmw_cli *cli, const apmw_agentic *a)
{
    apmw_buf out = {0};
    if (cli->format == APMW_FORMAT_JSON) {
        write_json(cli, a, &out);
    } else {
        apmw_table *table = table_of(a);
        if (table == NULL) {
            return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
        }
        apmw_table_render(table, cli->format, &out);
        apmw_table_free(table);
        if (cli->format == APMW_FORMAT_TABLE) {
            apmw_buf_puts(&out, "\n");
            knee_line(a, false, &out);
            knee_line(a, true, &out);
        }
    }
    const int code = apmw_cli_emit(cli, &out);
    apmw_buf_free(&out);
    return code;
}

int apmw_cli_agentic(apmw_cli *cli, apmw_catalog *catalog, const char *dir, const char *only)
{
    static const char *const FILES[] = {"scenario.json", "client.json", "runs.csv", "users.csv"};
    apmw_error err = {0};
    apmw_agentic a;
    apmw_trace trace = {0};
    apmw_status status = apmw_agentic_load(dir, &a, &err);
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0] && status == APMW_OK; i++) {
        char path[1100];
        snprintf(path, sizeof path, "%s/%s", dir, FILES[i]);
        status = apmw_cli_input(cli, path, &err);
    }
    if (status == APMW_OK) {
        status = load_trace(cli, &a.scenario, &trace, &err);
    }
    if (status == APMW_OK) {
        status = apmw_agentic_set_waits(&a, &trace, &err);
    }
    if (status == APMW_OK && a.waits_path[0] != '\0') {
        status = apmw_cli_input(cli, a.waits_path, &err);
    }
    bool found = only == NULL;
    bool stopped = false;
    for (size_t i = 0; i < a.n && status == APMW_OK && !stopped; i++) {
        apmw_agentic_run *run = &a.runs[i];
        const bool wanted = only == NULL || strcmp(only, run->name) == 0;
        found = found || wanted;
        apmw_cli_progress(cli, "simulating", i, a.n);
        if (wanted && run->use) {
            status = apmw_agentic_predict(catalog, &a, &trace, run, &err);
        } else if (!wanted) {
            apmw_copy(run->reason, sizeof run->reason, "not asked for");
        }
        stopped = apmw_cli_interrupted();
    }
    apmw_cli_progress_end(cli);
    if (status == APMW_OK && !found) {
        status = apmw_error_set(&err, APMW_E_USAGE, "no run \"%s\" in %s", only, dir);
    }
    int code = status == APMW_OK ? emit(cli, &a) : apmw_cli_fail(cli, &err);
    if (code == APMW_OK && stopped) {
        code = 130;
    }
    apmw_trace_free(&trace);
    apmw_agentic_free(&a);
    return code;
}
