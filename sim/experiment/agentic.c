/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured runs of agents (agentic.h): read, simulated, compared. */
#include "apmw/agentic.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apmw/json.h"
#include "apmw/text.h"
#include "csv_row.h"

/* Simulated beyond the end of a run, so that prompts the server had counted by then end and are known. */
enum { AFTER_S = 1800 };

/* ------------------------------------------------------------------ reading */

static void read_run(csv_row *r, apmw_agentic_run *run)
{
    const double none = (double)NAN;
    apmw_copy(run->name, sizeof run->name, apmw_csv_row_text(r, "run"));
    const double users = apmw_csv_row_number(r, "users");
    run->users = users >= 1.0 && users <= 1e6 ? (int64_t)users : 0;
    run->offload = strcmp(apmw_csv_row_text(r, "offload"), "on") == 0;
    run->use = strcmp(apmw_csv_row_text(r, "use"), "yes") == 0;
    apmw_copy(run->why_not, sizeof run->why_not, apmw_csv_row_text(r, "why_not"));
    run->duration_s = apmw_csv_row_number(r, "duration_s");
    run->server_s = apmw_csv_row_number(r, "server_s");
    run->output_tokens = apmw_csv_row_number(r, "output_tokens");
    run->endless_share = 0.01 * apmw_csv_row_number(r, "endless_percent");
    run->kv_tokens = apmw_csv_row_number(r, "kv_tokens");
    apmw_agentic_figures *m = &run->measured;
    m->requests = apmw_csv_row_number(r, "requests");
    m->ttft_s = 1e-3 * apmw_csv_row_number(r, "ttft_p50_ms");
    m->tpot_s = 1e-3 * apmw_csv_row_number(r, "tpot_p50_ms");
    m->gpu_hit = 0.01 * apmw_csv_row_number(r, "prompt_gpu_percent");
    m->host_hit = 0.01 * apmw_csv_row_number(r, "prompt_host_percent");
    m->requeried_hit = 0.01 * apmw_csv_row_number(r, "gpu_hit_percent");
    m->host_requeried_hit = 0.01 * apmw_csv_row_number(r, "cpu_hit_percent");
    m->prompt_tokens = apmw_csv_row_number(r, "server_prompt_tokens") / apmw_csv_row_number(r, "server_prompts");
    m->mean_running = apmw_csv_row_number(r, "mean_running");
    m->mean_waiting = apmw_csv_row_number(r, "mean_waiting");
    m->preemptions = apmw_csv_row_number(r, "preemptions");
    run->predicted = (apmw_agentic_figures){none, none, none, none, none, none, none, none, none, none, none};
    run->predicted_kv_tokens = none;
    if (r->status == APMW_OK && run->use &&
        (run->users < 1 || !(run->duration_s > 0.0) || !(run->server_s > 0.0) || !(run->output_tokens >= 1.0) || !(run->kv_tokens >= 1.0))) {
        r->status = apmw_error_set(r->err, APMW_E_DATA, "run %s: users, duration_s, server_s, output_tokens and kv_tokens are needed",
                                   run->name);
    }
}

static int by_users(const void *a, const void *b)
{
    const apmw_agentic_run *x = a, *y = b;
    if (x->offload != y->offload) {
        return x->offload ? 1 : -1;
    }
    if (x->users != y->users) {
        return x->users < y->users ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static apmw_status read_runs(const char *path, apmw_agentic *out, apmw_error *err)
{
    csv_row r = {.err = err};
    apmw_csv *csv = NULL;
    r.status = apmw_csv_load(path, &csv, err);
    r.csv = csv;
    if (r.status == APMW_OK) {
        out->n = apmw_csv_rows(csv);
        out->runs = calloc(out->n + 1, sizeof *out->runs);
        r.status = out->runs == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu runs", out->n) : APMW_OK;
    }
    for (r.row = 0; r.row < out->n && r.status == APMW_OK; r.row++) {
        read_run(&r, &out->runs[r.row]);
    }
    apmw_csv_free(csv);
    if (r.status == APMW_OK) {
        qsort(out->runs, out->n, sizeof *out->runs, by_users);
    }
    return r.status == APMW_OK || err == NULL ? r.status : apmw_error_wrap(err, "%s", path);
}

static apmw_status read_client(const char *path, apmw_agentic *out, apmw_error *err)
{
    static const char *const KEYS[] = {"schema", "first_prompt_scale", "growth_scale", "answer_tokens", "output_spread",
                                       "max_delay_s", "max_recorded_tokens", "first_token_timeout_s", NULL};
    apmw_json *doc = NULL;
    out->sent = apmw_sent_as_recorded();
    apmw_status status = apmw_json_load(path, &doc, err);
    if (status != APMW_OK) {
        return status;
    }
    const apmw_json_cur root = apmw_json_root(doc);
    status = apmw_json_only_keys(&root, KEYS, err);
    const struct {
        const char *key;
        double lo, hi, *out;
    } numbers[] = {{"first_prompt_scale", 1e-3, 1e3, &out->sent.first_prompt_scale},
                   {"growth_scale", 0.0, 1e3, &out->sent.growth_scale},
                   {"answer_tokens", 0.0, 1e6, &out->sent.answer_tokens},
                   {"output_spread", 0.0, 10.0, &out->sent.output_spread},
                   {"max_delay_s", 0.0, 1e9, &out->sent.max_delay_s},
                   {"first_token_timeout_s", 0.0, 1e9, &out->first_token_timeout_s}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && status == APMW_OK; i++) {
        status = apmw_json_opt_double(&root, numbers[i].key, numbers[i].lo, numbers[i].hi, numbers[i].out, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_int(&root, "max_recorded_tokens", 0, 1000000000, &out->sent.max_recorded_tokens, err);
    }
    apmw_json_free(doc);
    return status;
}

apmw_status apmw_agentic_load(const char *dir, apmw_agentic *out, apmw_error *err)
{
    char path[1100];
    memset(out, 0, sizeof *out);
    apmw_scenario_init(&out->scenario);
    if (strlen(dir) > sizeof out->users_path - 32) {
        return apmw_error_set(err, APMW_E_USAGE, "the name of the folder is too long");
    }
    snprintf(out->users_path, sizeof out->users_path, "%s/users.csv", dir);
    struct stat info;
    snprintf(out->waits_path, sizeof out->waits_path, "%s/waits.csv", dir);
    if (lstat(out->waits_path, &info) != 0 && errno == ENOENT) {
        out->waits_path[0] = '\0'; /* waits are those of the trace */
    }
    snprintf(path, sizeof path, "%s/scenario.json", dir);
    apmw_status status = apmw_scenario_load(path, &out->scenario, err);
    if (status == APMW_OK) {
        snprintf(path, sizeof path, "%s/client.json", dir);
        status = read_client(path, out, err);
    }
    if (status == APMW_OK) {
        snprintf(path, sizeof path, "%s/runs.csv", dir);
        status = read_runs(path, out, err);
    }
    if (status != APMW_OK) {
        apmw_agentic_free(out);
    }
    return status;
}

void apmw_agentic_free(apmw_agentic *agentic)
{
    free(agentic->runs);
    agentic->runs = NULL;
    agentic->n = 0;
}

static apmw_trajectory *find_session(apmw_trace *trace, const char *id)
{
    for (size_t i = 0; i < trace->n; i++) {
        if (strcmp(trace->items[i].id, id) == 0) {
            return &trace->items[i];
        }
    }
    return NULL;
}

apmw_status apmw_agentic_set_waits(const apmw_agentic *agentic, apmw_trace *recorded, apmw_error *err)
{
    csv_row r = {.err = err};
    apmw_csv *csv = NULL;
    if (agentic->waits_path[0] == '\0') {
        return APMW_OK;
    }
    r.status = apmw_csv_load(agentic->waits_path, &csv, err);
    r.csv = csv;
    const size_t n = r.status == APMW_OK ? apmw_csv_rows(csv) : 0;
    for (r.row = 0; r.row < n && r.status == APMW_OK; r.row++) {
        const char *session = apmw_csv_row_text(&r, "session");
        const double turn = apmw_csv_row_number(&r, "turn"), wait_s = apmw_csv_row_number(&r, "wait_s");
        if (r.status != APMW_OK) {
            break;
        }
        apmw_trajectory *t = find_session(recorded, session);
        if (t == NULL) {
            r.status = apmw_error_set(err, APMW_E_DATA, "line %zu: the trace has no session \"%s\"", r.row + 2, session);
        } else if (!(turn >= 0.0 && turn < t->n_turns) || turn > floor(turn)) {
            r.status = apmw_error_set(err, APMW_E_DATA, "line %zu: session \"%s\" has no turn %g", r.row + 2, session, turn);
        } else if (!(wait_s >= 0.0 && wait_s <= 1e9)) {
            r.status = apmw_error_set(err, APMW_E_DATA, "line %zu: a wait of %g s is not 0 to 1e9", r.row + 2, wait_s);
        } else {
            t->turns[(int32_t)turn].delay_ns = apmw_time_from_s(wait_s);
        }
    }
    apmw_csv_free(csv);
    if (r.status == APMW_OK) {
        apmw_trace_rehash(recorded);
        return APMW_OK;
    }
    return err == NULL ? r.status : apmw_error_wrap(err, "%s", agentic->waits_path);
}

/* ------------------------------------------------------------------ simulating */

typedef struct load {
    apmw_start *starts;
    size_t n_starts;
    apmw_trace trace;
} load;

static void free_load(load *l)
{
    free(l->starts);
    apmw_trace_free(&l->trace);
}

static apmw_status make_load(const apmw_agentic *agentic, const apmw_trace *recorded, const apmw_agentic_run *run,
                             int64_t max_context, load *out, apmw_error *err)
{
    apmw_sent sent = agentic->sent;
    sent.output_tokens = run->output_tokens;
    sent.endless_share = run->endless_share;
    sent.endless_context = max_context;
    apmw_status status = apmw_starts_load(agentic->users_path, recorded, run->users, &out->starts, &out->n_starts, err);
    if (status == APMW_OK) {
        status = apmw_trace_as_sent(recorded, out->starts, &out->n_starts, &sent, &out->trace, err);
    }
    return status;
}

/* The client's figures are those of requests that ended in the run; the server's counters know each prompt that had its
 * first token by their last reading. */
static apmw_status summarize(const apmw_collector *collector, apmw_agentic_run *run, apmw_error *err)
{
    size_t n = 0, ended = 0;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    apmw_agentic_figures *out = &run->predicted;
    const apmw_time end = apmw_time_from_s(run->duration_s), read = apmw_time_from_s(run->server_s);
    apmw_latency_summary latency;
    apmw_request_record *done = calloc(n + 1, sizeof *done);
    apmw_status status = apmw_collector_status(collector, err);
    if (status == APMW_OK && done == NULL) {
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu requests", n);
    }
    double prompts = 0.0, tokens = 0.0, hbm = 0.0, below = 0.0, preemptions = 0.0;
    for (size_t i = 0; i < n && status == APMW_OK; i++) {
        if (r[i].state == APMW_REQUEST_DONE && r[i].done <= end) {
            done[ended++] = r[i];
            preemptions += r[i].n_preemptions;
        }
        if (r[i].state == APMW_REQUEST_DONE && r[i].first_token <= read) {
            prompts += 1.0;
            tokens += (double)r[i].n_prompt;
            hbm += (double)r[i].n_cached;
            below += (double)r[i].n_fetched;
        }
    }
    if (status == APMW_OK) {
        status = apmw_latency_summarize(done, ended, &latency, err);
    }
    free(done);
    if (status != APMW_OK) {
        return status;
    }
    out->requests = (double)latency.n_done;
    out->ttft_s = latency.ttft_s.p50;
    out->tpot_s = latency.tpot_s.p50;
    out->gpu_hit = hbm / tokens;
    out->host_hit = below / tokens;
    out->prompt_tokens = tokens / prompts;
    out->preemptions = preemptions;
    return APMW_OK;
}

static apmw_status simulate(const apmw_deployment *d, const apmw_agentic *agentic, const load *l, apmw_agentic_run *run,
                            apmw_error *err)
{
    const apmw_scenario *s = &agentic->scenario;
    const apmw_time end = apmw_time_from_s(run->duration_s);
    const apmw_window window = {.from = 0, .to = end};
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = !s->concurrent_subagents});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    apmw_step_meter *meter = apmw_step_meter_create(&window, 1);
    apmw_sim *sim = NULL;
    apmw_status status = laws == NULL || collector == NULL || meter == NULL
                             ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for a run")
                             : APMW_OK;
    const apmw_agents agents = {
        .trace = &l->trace,
        .n_agents = run->users,
        .share_global = s->share_prefix,
        .output_cached = s->output_cached,
        .max_context = d->engine.max_model_len,
        .delay_scale = s->delay_scale,
        .concurrent_lanes = s->concurrent_subagents,
        .seed = s->seed,
        .starts = l->starts,
        .n_starts = l->n_starts,
        .first_token_timeout_ns = apmw_time_from_s(agentic->first_token_timeout_s),
    };
    apmw_workload workload;
    if (status == APMW_OK) {
        status = apmw_workload_agents(&agents, &workload, err);
    }
    if (status == APMW_OK) {
        apmw_engine_config engine = d->engine;
        engine.cost = d->cost;
        engine.kv_blocks = (int64_t)floor(run->kv_tokens / (double)engine.block_tokens);
        const apmw_probe *const probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector),
                                            apmw_step_meter_probe(meter)};
        const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .routing = s->routing, .seed = s->seed,
                                        .tiers = run->offload ? &d->tiers : NULL};
        status = apmw_sim_create(&config, workload, probes, 3, &sim, err);
        if (status == APMW_OK) {
            status = apmw_sim_run(sim, apmw_time_from_s(run->duration_s + AFTER_S), err);
        }
        if (status == APMW_OK) {
            status = apmw_laws_status(laws, err);
        }
        if (status == APMW_OK) {
            apmw_step_summary steps;
            apmw_step_meter_summary(meter, end, &steps);
            run->predicted.mean_running = steps.mean_batch * steps.busy_share;
            run->predicted.mean_waiting = steps.mean_waiting * steps.busy_share;
            status = summarize(collector, run, err);
        }
        apmw_sim_free(sim);
    }
    apmw_step_meter_free(meter);
    apmw_collector_free(collector);
    apmw_laws_free(laws);
    return status;
}

apmw_status apmw_agentic_predict(apmw_catalog *catalog, const apmw_agentic *agentic, const apmw_trace *recorded,
                                 apmw_agentic_run *run, apmw_error *err)
{
    load l = {0};
    apmw_deployment deployment = {0};
    const apmw_llm_spec *llm = NULL;
    apmw_status status = apmw_catalog_llm(catalog, agentic->scenario.model, &llm, err);
    if (status == APMW_OK) {
        status = make_load(agentic, recorded, run, llm->context_tokens, &l, err);
    }
    if (status == APMW_OK) {
        status = apmw_deployment_of(catalog, &agentic->scenario, apmw_trace_mean_context(&l.trace), &deployment, err);
    }
    if (status == APMW_OK && (deployment.prefill != NULL || deployment.choice.replicas != 1)) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "measured runs of agents are of one engine, not of %s", deployment.name);
    }
    if (status == APMW_OK && run->offload && deployment.tiers.n_tiers == 0) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "run %s sends KV to host memory, and the scenario has no kv_tiers",
                                run->name);
    }
    if (status == APMW_OK) {
        run->predicted_kv_tokens = deployment.kv_tokens;
        status = simulate(&deployment, agentic, &l, run, err);
    }
    apmw_deployment_free(&deployment);
    free_load(&l);
    return status;
}

/* ------------------------------------------------------------------ the knee */

bool apmw_agentic_knee(const apmw_agentic *agentic, bool offload, bool predicted, int64_t *below, int64_t *above)
{
    const apmw_agentic_run *last = NULL;
    for (size_t i = 0; i < agentic->n; i++) {
        const apmw_agentic_run *run = &agentic->runs[i];
        const double hit = predicted ? run->predicted.gpu_hit : run->measured.gpu_hit;
        if (!run->use || run->offload != offload || isnan(hit)) {
            continue;
        }
        if (last != NULL && hit < 0.5 * (predicted ? last->predicted.gpu_hit : last->measured.gpu_hit)) {
            *below = last->users;
            *above = run->users;
            return true;
        }
        last = run;
    }
    return false;
}
