/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw simulate: one scenario, once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_agentx.h"
#include "cli_scenario.h"

enum { KEY_PLATFORM = 0x7300, KEY_AGENTS, KEY_DURATION, KEY_RESULT, KEY_ROWS };

typedef struct options {
    apmw_scenario scenario;
    const char *result; /* HDF5 file to write, NULL = none */
    bool rows;
    const char *file;   /* scenario, NULL = none */
    apmw_start *starts; /* of the scenario, owned; NULL = drawn */
    size_t n_starts;
} options;

static const struct argp_option options_table[] = {
    {"platform", KEY_PLATFORM, "P", 0, "Accelerator or node (apmw list platforms)", 1},
    {"agents", KEY_AGENTS, "N", 0, "Population, or requests in flight of a fixed loop", 1},
    {"duration", KEY_DURATION, "S", 0, "Measure so many seconds instead of a whole phase", 1},
    {"result", KEY_RESULT, "FILE.h5", 0, "Write every request and step to an HDF5 file", 2},
    {"rows", KEY_ROWS, NULL, 0, "Also print which measured table prices which operation", 2},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->scenario;
        return 0;
    case KEY_PLATFORM:
        if (!apmw_copy(o->scenario.platform, sizeof o->scenario.platform, arg)) {
            argp_error(state, "--platform takes at most %zu characters", sizeof o->scenario.platform - 1);
        }
        return 0;
    case KEY_AGENTS:
        o->scenario.agents = apmw_cli_whole(state, "agents", arg, 1, 1000000);
        return 0;
    case KEY_DURATION:
        o->scenario.duration_s = apmw_cli_number(state, "duration", arg, 1.0, 1e7);
        return 0;
    case KEY_RESULT:
        o->result = arg;
        return 0;
    case KEY_ROWS:
        o->rows = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0) {
            argp_error(state, "one scenario at a time, \"%s\" is too much", arg);
        }
        o->file = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&apmw_cli_scenario_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {
    .options = options_table,
    .parser = parse,
    .children = children,
    .args_doc = "[SCENARIO.json]",
    .doc = "Simulates one deployment under one load: a phase of the protocol with agents, or a closed loop of fixed "
           "lengths. --protocol agentx replays sessions in lanes as InferenceX AgentX does (--agents is their number). Options override the scenario (format: sim/SCENARIO.md).\v"
           "Example: apmw simulate --platform h200 --model gpt-oss-120b --engine vllm --layout tp4x2 --agents 32",
};

/* ------------------------------------------------------------------ output */

static void put_spread(apmw_table *table, const char *name, const char *unit, const apmw_spread *s)
{
    apmw_table_text(table, name);
    apmw_table_text(table, unit);
    apmw_table_int(table, s->n);
    const double values[] = {s->mean, s->p5, s->p25, s->p50, s->p75, s->p95, s->p99};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        apmw_table_number(table, values[i], 4);
    }
}

static apmw_table *latency_table(const apmw_latency_summary *l)
{
    static const char *const NAMES[] = {"metric", "unit", "n", "mean", "p5", "p25", "p50", "p75", "p95", "p99"};
    apmw_table *table = apmw_table_create(sizeof NAMES / sizeof NAMES[0], NAMES);
    if (table != NULL) {
        put_spread(table, "TTFT", "s", &l->ttft_s);
        put_spread(table, "queueing", "s", &l->queue_s);
        put_spread(table, "TPOT", "s", &l->tpot_s);
        put_spread(table, "output speed", "tok/s", &l->output_speed);
        put_spread(table, "end to end", "s", &l->e2e_s);
        put_spread(table, "end-to-end speed", "tok/s", &l->e2e_speed);
    }
    return table;
}

static void json_spread(apmw_json_writer *w, const char *key, const apmw_spread *s)
{
    apmw_json_begin_object(w, key);
    apmw_json_int(w, "n", s->n);
    apmw_json_double(w, "mean", s->mean);
    apmw_json_double(w, "min", s->min);
    apmw_json_double(w, "p5", s->p5);
    apmw_json_double(w, "p25", s->p25);
    apmw_json_double(w, "p50", s->p50);
    apmw_json_double(w, "p75", s->p75);
    apmw_json_double(w, "p90", s->p90);
    apmw_json_double(w, "p95", s->p95);
    apmw_json_double(w, "p99", s->p99);
    apmw_json_double(w, "max", s->max);
    apmw_json_end_object(w);
}

static void json_latency(apmw_json_writer *w, const apmw_latency_summary *l)
{
    apmw_json_begin_object(w, "requests");
    apmw_json_int(w, "measured", l->n_requests);
    apmw_json_int(w, "done", l->n_done);
    apmw_json_int(w, "rejected", l->n_rejected);
    apmw_json_int(w, "preempted", l->n_preempted);
    apmw_json_int(w, "one_token", l->n_one_token);
    apmw_json_int(w, "prompt_tokens", l->prompt_tokens);
    apmw_json_int(w, "cached_tokens", l->cached_tokens);
    apmw_json_int(w, "output_tokens", l->output_tokens);
    apmw_json_int(w, "recomputed_tokens", l->recomputed_tokens);
    apmw_json_double(w, "hit_share", l->hit_share);
    apmw_json_int(w, "fetched_tokens", l->fetched_tokens);
    apmw_json_double(w, "loaded_share", l->loaded_share);
    json_spread(w, "ttft_s", &l->ttft_s);
    json_spread(w, "queue_s", &l->queue_s);
    json_spread(w, "tpot_s", &l->tpot_s);
    json_spread(w, "output_speed_tok_s", &l->output_speed);
    json_spread(w, "e2e_s", &l->e2e_s);
    json_spread(w, "e2e_speed_tok_s", &l->e2e_speed);
    apmw_json_end_object(w);
}

static void json_steps(apmw_json_writer *w, const apmw_step_summary *s)
{
    apmw_json_begin_object(w, "steps");
    apmw_json_double(w, "window_s", s->window_s);
    apmw_json_double(w, "count", s->n_steps);
    apmw_json_double(w, "busy_share", s->busy_share);
    apmw_json_double(w, "mean_step_s", s->mean_step_s);
    apmw_json_double(w, "mean_batch", s->mean_batch);
    apmw_json_double(w, "mean_waiting", s->mean_waiting);
    apmw_json_double(w, "kv_mean_share", s->kv_mean_share);
    apmw_json_double(w, "kv_peak_share", s->kv_peak_share);
    apmw_json_double(w, "prefill_tok_s", s->prefill_tok_s);
    apmw_json_double(w, "decode_tok_s", s->decode_tok_s);
    apmw_json_double(w, "prefill_step_share", s->prefill_step_share);
    apmw_json_double(w, "duty", s->duty);
    apmw_json_double(w, "outside_domain_share", s->outside_share);
    apmw_json_end_object(w);
}

/* Unknown power is null, as everywhere. */
static void json_energy(apmw_json_writer *w, const apmw_energy_summary *e, bool known)
{
    const double none = (double)NAN;
    apmw_json_begin_object(w, "power");
    apmw_json_double(w, "watts_per_accelerator", known ? e->mean_w : none);
    apmw_json_double(w, "energy_j", known ? e->energy_j : none);
    apmw_json_double(w, "step_energy_j", known ? e->busy_j : none);
    apmw_json_double(w, "gap_energy_j", known ? e->gap_j : none);
    apmw_json_double(w, "idle_energy_j", known ? e->idle_j : none);
    apmw_json_double(w, "busy_share", e->busy_share);
    apmw_json_double(w, "gap_share", e->gap_share);
    apmw_json_double(w, "idle_share", e->idle_share);
    apmw_json_double(w, "bandwidth_utilisation", e->bw_util);
    apmw_json_double(w, "flop_utilisation", e->flop_util);
    apmw_json_end_object(w);
}

static void json_verdicts(apmw_json_writer *w, const apmw_trial_result *r, const apmw_tier *tiers, size_t n_tiers)
{
    apmw_json_begin_array(w, "verdicts");
    for (size_t t = 0; t < n_tiers; t++) {
        const apmw_verdict *v = &r->verdict[t];
        apmw_json_begin_object(w, NULL);
        apmw_json_int(w, "tier", tiers[t].number);
        apmw_cli_limits(w, "limits", &tiers[t]);
        apmw_json_bool(w, "valid", v->valid);
        apmw_json_bool(w, "pass", v->pass);
        apmw_json_int(w, "requests", v->n_measured);
        apmw_json_int(w, "failed", v->n_failed);
        apmw_json_int(w, "trajectories", v->trajectories);
        apmw_json_int(w, "trajectories_fewest_agent", v->trajectories_fewest_agent);
        for (int i = 0; i < tiers[t].n_criteria; i++) {
            char name[64];
            snprintf(name, sizeof name, "p%g_%s", 100.0 * tiers[t].criteria[i].quantile,
                     apmw_slo_metric_name(tiers[t].criteria[i].metric));
            apmw_json_double(w, name, v->value[i]);
        }
        apmw_json_string(w, "reasons", v->reasons);
        apmw_json_end_object(w);
    }
    apmw_json_end_array(w);
}

static const apmw_tiers_setup *tiers_of(const apmw_deployment *d)
{
    return d->prefill != NULL ? &d->prefill->tiers : &d->tiers;
}

/* Links of the engines that compute prompts, each way and tier. */
static double link_seconds(const apmw_deployment *d, const apmw_trial_result *r)
{
    const apmw_deployment *front = d->prefill != NULL ? d->prefill : d;
    return r->simulated_s * front->choice.replicas * front->engine.n_ranks;
}

static void json_tiers(apmw_json_writer *w, const apmw_deployment *d, const apmw_trial_result *r)
{
    const apmw_tiers_setup *setup = tiers_of(d);
    if (setup->n_tiers == 0) {
        return;
    }
    apmw_json_begin_array(w, "kv_tiers");
    for (size_t t = 0; t < setup->n_tiers; t++) {
        const apmw_tier_stats *s = &r->tiers[t];
        apmw_json_begin_object(w, NULL);
        apmw_json_string(w, "name", setup->tiers[t].kv.name);
        apmw_json_int(w, "capacity_tokens", s->capacity_tokens);
        apmw_json_int(w, "cached_tokens", s->cached_tokens);
        apmw_json_int(w, "loads", s->loads);
        apmw_json_int(w, "loaded_tokens", s->loaded_tokens);
        apmw_json_int(w, "prefetched_tokens", s->prefetched_tokens);
        apmw_json_int(w, "declined_tokens", s->declined_tokens);
        apmw_json_int(w, "stored_tokens", s->stored_tokens);
        apmw_json_int(w, "evicted_tokens", s->evicted_tokens);
        apmw_json_double(w, "loaded_bytes_sum_of_links", s->loaded_bytes);
        apmw_json_double(w, "stored_bytes_sum_of_links", s->stored_bytes);
        apmw_json_double(w, "load_link_busy_share", s->load_busy_s / link_seconds(d, r));
        apmw_json_double(w, "store_link_busy_share", s->store_busy_s / link_seconds(d, r));
        apmw_json_double(w, "mean_load_wait_s", s->loads > 0 ? s->load_wait_s / (double)s->loads : (double)NAN);
        apmw_json_double(w, "longest_store_backlog_s", s->store_backlog_s);
        apmw_json_end_object(w);
    }
    apmw_json_end_array(w);
}

static void text_tiers(const apmw_deployment *d, const apmw_trial_result *r, apmw_buf *out)
{
    const apmw_tiers_setup *setup = tiers_of(d);
    for (size_t t = 0; t < setup->n_tiers; t++) {
        const apmw_tier_stats *s = &r->tiers[t];
        apmw_buf_printf(out, "KV tier %s: %.3g of %.3g M tokens full; %lld loads of %.4g M tokens, %.3g M declined, %.3g M "
                        "prefetched, mean wait %.3g ms; %.4g M stored, %.4g M evicted; links busy %.3g %% up, %.3g %% down\n",
                        setup->tiers[t].kv.name, 1e-6 * (double)s->cached_tokens, 1e-6 * (double)s->capacity_tokens,
                        (long long)s->loads, 1e-6 * (double)s->loaded_tokens, 1e-6 * (double)s->declined_tokens,
                        1e-6 * (double)s->prefetched_tokens, s->loads > 0 ? 1e3 * s->load_wait_s / (double)s->loads : 0.0,
                        1e-6 * (double)s->stored_tokens, 1e-6 * (double)s->evicted_tokens,
                        100.0 * s->load_busy_s / link_seconds(d, r), 100.0 * s->store_busy_s / link_seconds(d, r));
    }
}

typedef struct outcome {
    const options *o;
    const apmw_deployment *deployment;
    const apmw_trial_result *result;
    const apmw_tier *tiers;
    size_t n_tiers;
    const apmw_agentx_summary *agentx; /* NULL = another protocol */
} outcome;

static void json_pool(apmw_json_writer *w, const char *name, const apmw_deployment *d, int accelerators,
                      const apmw_energy_summary *e)
{
    const bool known = d->power.tdp_w > 0.0;
    apmw_json_begin_object(w, name);
    apmw_json_string(w, "platform", d->spec.platform);
    apmw_json_string(w, "engine", d->spec.engine);
    apmw_json_string(w, "layout", d->choice.name);
    apmw_json_int(w, "accelerators", accelerators);
    apmw_json_double(w, "kv_tokens_per_rank", d->kv_tokens);
    apmw_json_double(w, "busy_share", e->busy_share);
    apmw_json_double(w, "watts_per_accelerator", known ? e->mean_w : (double)NAN);
    apmw_json_end_object(w);
}

/* Prefill and decode, and what went between them. */
static void json_pools(apmw_json_writer *w, const apmw_deployment *d, const apmw_trial_result *r)
{
    if (d->prefill == NULL) {
        return;
    }
    const int prefill = d->prefill->accelerators;
    apmw_json_begin_object(w, "pools");
    json_pool(w, "prefill", d->prefill, prefill, &r->pool_energy[APMW_POOL_PREFILL]);
    json_pool(w, "decode", d, d->accelerators - prefill, &r->pool_energy[APMW_POOL_DECODE]);
    apmw_json_double(w, "kv_bytes_sent", r->transfer_bytes);
    apmw_json_double(w, "mean_link_wait_s", r->transfer_wait_s);
    apmw_json_end_object(w);
}

static void write_json(apmw_cli *cli, const outcome *x, apmw_buf *out)
{
    const apmw_deployment *d = x->deployment;
    apmw_buf scenario = {0};
    apmw_scenario_write(&x->o->scenario, &scenario);
    apmw_json_writer w = apmw_json_writer_make(out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "schema", "apmw.simulation/1");
    apmw_cli_provenance(cli, &w, "provenance");
    apmw_json_string(&w, "scenario", scenario.length > 0 ? scenario.data : "");
    apmw_json_string(&w, "platform", d->platform);
    apmw_json_string(&w, "model", d->spec.model);
    apmw_json_string(&w, "engine", d->spec.engine);
    apmw_json_string(&w, "precision", d->spec.precision);
    apmw_json_string(&w, "layout", d->name);
    apmw_json_int(&w, "accelerators", d->accelerators);
    apmw_json_double(&w, "kv_tokens_per_rank", d->kv_tokens);
    apmw_json_string(&w, "basis", d->basis);
    apmw_json_bool(&w, "projected", d->projected);
    apmw_cli_notes_json(&w, &d->notes);
    apmw_json_int(&w, "agents", x->result->n_agents);
    apmw_json_double(&w, "simulated_s", x->result->simulated_s);
    json_latency(&w, &x->result->latency);
    json_steps(&w, &x->result->steps);
    json_energy(&w, &x->result->energy, d->power.tdp_w > 0.0);
    json_pools(&w, d, x->result);
    json_tiers(&w, d, x->result);
    json_verdicts(&w, x->result, x->tiers, x->n_tiers);
    if (x->agentx != NULL) {
        apmw_cli_agentx_json(x->agentx, &w);
    }
    if (x->o->rows) {
        apmw_json_string(&w, "rows", d->rows.length > 0 ? d->rows.data : "");
    }
    apmw_json_end_object(&w);
    apmw_buf_puts(out, "\n");
    apmw_buf_free(&scenario);
}

/* Of a mean accelerator. */
static double limit_w(const apmw_deployment *d)
{
    const double n = d->prefill != NULL ? (double)d->prefill->accelerators : 0.0, all = (double)d->accelerators;
    return (n > 0.0 ? n * d->prefill->power.tdp_w / all : 0.0) + (all - n) * d->power.tdp_w / all;
}

static void write_text(const outcome *x, apmw_buf *out)
{
    const apmw_deployment *d = x->deployment;
    const apmw_trial_result *r = x->result;
    apmw_buf_printf(out, "%s%s %s %s %s %s, %d accelerators, %lld %s: %lld requests measured over %.0f s of %.0f s\n\n",
                    d->platform, d->projected ? " (projected)" : "", d->spec.model, d->spec.precision, d->spec.engine, d->name, d->accelerators,
                    (long long)r->n_agents,
                    x->agentx != NULL ? "lanes" : x->o->scenario.workload == APMW_WORKLOAD_AGENTS ? "agents" : "slots",
                    (long long)r->latency.n_requests, r->steps.window_s, r->simulated_s);
    apmw_table *table = latency_table(&r->latency);
    if (table != NULL) {
        apmw_table_render(table, APMW_FORMAT_TABLE, out);
    }
    apmw_table_free(table);
    apmw_buf_printf(out, "\nsteps: %.3g ms, batch %.3g, busy %.3g %%, KV %.3g %% full (peak %.3g), prefill %.4g and decode %.4g tok/s, "
                    "%.2g %% outside the measured domain\n",
                    1e3 * r->steps.mean_step_s, r->steps.mean_batch, 100.0 * r->steps.busy_share,
                    100.0 * r->steps.kv_mean_share, 100.0 * r->steps.kv_peak_share, r->steps.prefill_tok_s,
                    r->steps.decode_tok_s, 100.0 * r->steps.outside_share);
    apmw_buf_printf(out, "cache: %.3g %% of prompt tokens hit; %lld of %lld requests preempted, %lld rejected, %lld with one token\n",
                    100.0 * r->latency.hit_share, (long long)r->latency.n_preempted, (long long)r->latency.n_requests,
                    (long long)r->latency.n_rejected, (long long)r->latency.n_one_token);
    if (r->latency.fetched_tokens > 0) {
        apmw_buf_printf(out, "loaded from below HBM: %.3g %% of prompt tokens\n", 100.0 * r->latency.loaded_share);
    }
    text_tiers(d, r, out);
    if (d->power.tdp_w > 0.0) {
        if (d->prefill != NULL) {
            apmw_buf_printf(out, "pools: prefill %.0f W, %.3g %% busy; decode %.0f W, %.3g %% busy; %.3g GB of KV sent, %.3g ms "
                            "wait for a link\n", r->pool_energy[0].mean_w, 100.0 * r->pool_energy[0].busy_share,
                            r->pool_energy[1].mean_w, 100.0 * r->pool_energy[1].busy_share, 1e-9 * r->transfer_bytes,
                            1e3 * r->transfer_wait_s);
        }
        apmw_buf_printf(out, "power: %.0f W an accelerator (limit %.0f), %.3g %% idle\n", r->energy.mean_w, limit_w(d),
                        100.0 * r->energy.idle_share);
    }
    if (x->agentx != NULL) {
        apmw_cli_agentx_text(x->agentx, out);
    }
    for (size_t t = 0; t < x->n_tiers; t++) {
        const apmw_verdict *v = &r->verdict[t];
        apmw_tier_title(&x->tiers[t], out);
        apmw_buf_printf(out, ": %s%s%s\n", v->pass ? "met" : v->valid ? "not met" : "no verdict",
                        v->reasons[0] != '\0' ? ": " : "", v->reasons);
    }
    apmw_buf_printf(out, "%s\n", d->basis);
    if (x->o->rows) {
        apmw_buf_printf(out, "%s", d->rows.length > 0 ? d->rows.data : "");
    }
}

static int emit(apmw_cli *cli, const outcome *x)
{
    apmw_buf text = {0};
    if (cli->format == APMW_FORMAT_JSON) {
        write_json(cli, x, &text);
    } else if (cli->format == APMW_FORMAT_CSV) {
        apmw_table *table = latency_table(&x->result->latency);
        if (table == NULL) {
            return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
        }
        apmw_table_render(table, APMW_FORMAT_CSV, &text);
        apmw_table_free(table);
    } else {
        write_text(x, &text);
    }
    const int code = apmw_cli_emit(cli, &text);
    apmw_buf_free(&text);
    return code;
}

/* ------------------------------------------------------------------ run */

static apmw_status write_result(apmw_cli *cli, const options *o, const apmw_deployment *deployment,
                                const apmw_collector *collector, const apmw_trace *trace, apmw_error *err)
{
    size_t n_requests, n_steps;
    const apmw_request_record *requests = apmw_collector_requests(collector, &n_requests);
    const apmw_step_record *steps = apmw_collector_steps(collector, &n_steps);
    apmw_buf argv = {0}, scenario = {0};
    for (int i = 0; i < cli->argc; i++) {
        apmw_buf_printf(&argv, "%s%s", i > 0 ? " " : "", cli->argv[i]);
    }
    apmw_scenario_write(&o->scenario, &scenario);
    char hw[64], content[64];
    snprintf(hw, sizeof hw, "platform %s=%s", deployment->spec.platform, deployment->hw_hash);
    snprintf(content, sizeof content, "trace content=%s", trace->hash);
    const char *const inputs[] = {hw, content};
    const apmw_result_info info = {.version = apmw_cli_version(), .git = apmw_cli_git(),
                                   .argv = argv.length > 0 ? argv.data : "",
                                   .scenario_json = scenario.length > 0 ? scenario.data : "",
                                   .inputs = inputs, .n_inputs = 2};
    const apmw_status status =
        apmw_result_write(o->result, &info, requests, n_requests, steps, n_steps, err);
    apmw_buf_free(&argv);
    apmw_buf_free(&scenario);
    return status;
}

/* Spreads of the measured requests among all that were kept. */
static apmw_status measured_latency(const apmw_collector *collector, const apmw_window *window,
                                    apmw_latency_summary *out, apmw_error *err)
{
    size_t n, kept = 0;
    const apmw_request_record *all = apmw_collector_requests(collector, &n);
    apmw_request_record *some = malloc((n + 1) * sizeof *some);
    if (some == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i].submitted >= window->from && all[i].submitted < window->to) {
            some[kept++] = all[i];
        }
    }
    const apmw_status status = apmw_latency_summarize(some, kept, out, err);
    free(some);
    return status;
}

static apmw_status run_agents(const options *o, const apmw_deployment *deployment, const apmw_trace *trace,
                              apmw_phase_rules rules, const apmw_tier *tiers, size_t n_tiers,
                              const apmw_collector *collector, apmw_trial_result *out, apmw_error *err)
{
    const apmw_scenario *s = &o->scenario;
    if (s->duration_s > 0.0) {
        rules.min_window_s = s->duration_s;
        rules.min_trajectories = rules.min_trajectories_per_agent = 0;
    }
    const apmw_trial_config config = {
        .deployment = deployment, .trace = trace, .rules = &rules, .tiers = tiers, .n_tiers = n_tiers,
        .n_agents = s->agents, .seed = s->seed, .routing = s->routing, .decode_routing = s->decode_routing,
        .knowledge = {apmw_time_from_s(s->router_delay_s), s->router_kv_by_sending}, .share_prefix = s->share_prefix,
        .output_cached = s->output_cached, .concurrent_subagents = s->concurrent_subagents, .delay_scale = s->delay_scale, .time_scale = 1.0, .acceptance_scale = 1.0,
        .max_context = deployment->engine.max_model_len, .starts = o->starts, .n_starts = o->n_starts,
        .give_up_tier = -1, .collector = collector};
    return apmw_trial_run(&config, out, err);
}

static apmw_status run_load(const options *o, const apmw_deployment *deployment, const apmw_trace *trace,
                            const apmw_phase_rules *rules, const apmw_tier *tiers, size_t n_tiers,
                            const apmw_collector *collector, apmw_trial_result *out, apmw_error *err)
{
    const apmw_scenario *s = &o->scenario;
    apmw_status status;
    if (s->workload == APMW_WORKLOAD_AGENTS) {
        status = run_agents(o, deployment, trace, *rules, tiers, n_tiers, collector, out, err);
    } else {
        const apmw_fixed_loop loop = {.slots = s->agents, .n_requests = s->requests > 0 ? s->requests : 10 * s->agents,
                                      .isl = s->isl, .osl = s->osl, .ratio = s->length_ratio, .seed = (uint32_t)s->seed};
        const apmw_router_knowledge knowledge = {apmw_time_from_s(s->router_delay_s), s->router_kv_by_sending};
        status = apmw_fixed_run(deployment, &loop, s->routing, s->decode_routing, knowledge, collector, out, err);
    }
    if (status == APMW_OK) {
        status = apmw_collector_status(collector, err);
    }
    return status == APMW_OK ? measured_latency(collector, &out->window, &out->latency, err) : status;
}

static double mean_context(const apmw_scenario *s, const apmw_trace *trace)
{
    return s->workload == APMW_WORKLOAD_FIXED ? (double)s->isl + 0.5 * (double)s->osl : apmw_trace_mean_context(trace);
}

static apmw_status work(apmw_cli *cli, options *o, apmw_catalog *catalog, int *code, apmw_error *err)
{
    apmw_phase_rules rules = {0};
    apmw_tier tiers[APMW_MAX_TIERS];
    apmw_trace trace = {0};
    apmw_deployment deployment = {0};
    apmw_trial_result result;
    apmw_agentx_summary agentx;
    size_t n_tiers = 0;
    const apmw_llm_spec *llm = NULL;
    const bool agents = o->scenario.workload == APMW_WORKLOAD_AGENTS;
    apmw_status status = apmw_catalog_llm(catalog, o->scenario.model, &llm, err);
    if (status == APMW_OK) {
        status = apmw_cli_platform(catalog, o->scenario.platform, err);
    }
    if (status == APMW_OK && agents) {
        /* A model without tiers can still be simulated; an asked tier must exist. */
        apmw_error none = {0};
        status = apmw_cli_tiers(cli, &o->scenario, &rules, tiers, &n_tiers, &none);
        if (status == APMW_E_USAGE && o->scenario.tier == 0 && o->scenario.slo[0] == '\0' && rules.version[0] != '\0') {
            n_tiers = 0;
            status = APMW_OK;
        } else if (status != APMW_OK) {
            apmw_error_set(err, status, "%s", none.message);
        }
    }
    if (status == APMW_OK && agents) {
        status = rules.lanes && o->scenario.starts[0] != '\0'
                     ? apmw_error_set(err, APMW_E_SCENARIO, "workload.starts is for agents, not for lanes of %s", rules.version)
                     : apmw_cli_load(cli, &o->scenario, &trace, &o->starts, &o->n_starts, err);
    }
    if (status == APMW_OK) {
        status = apmw_deployment_of(catalog, &o->scenario, mean_context(&o->scenario, &trace), &deployment, err);
    }
    if (status == APMW_OK) {
        apmw_cli_notes(cli, &deployment.notes);
    }
    apmw_collector *collector = status == APMW_OK ? apmw_collector_create(NULL, o->result != NULL) : NULL;
    if (status == APMW_OK) {
        status = collector == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory")
                                   : run_load(o, &deployment, &trace, &rules, tiers, n_tiers, collector, &result, err);
    }
    if (status == APMW_OK && o->result != NULL) {
        status = write_result(cli, o, &deployment, collector, &trace, err);
    }
    const bool lanes = agents && rules.lanes;
    if (status == APMW_OK && lanes) {
        status = apmw_cli_agentx(cli, &deployment, collector, &result.window, &agentx, err);
    }
    if (status == APMW_OK) {
        const outcome x = {.o = o, .deployment = &deployment, .result = &result, .tiers = tiers, .n_tiers = n_tiers,
                           .agentx = lanes ? &agentx : NULL};
        *code = emit(cli, &x);
        if (*code == APMW_OK && (o->scenario.tier > 0 || o->scenario.slo[0] != '\0') && n_tiers == 1 && !result.verdict[0].pass) {
            *code = APMW_NO;
        }
    }
    free(o->starts);
    apmw_collector_free(collector);
    apmw_deployment_free(&deployment);
    apmw_trace_free(&trace);
    return status;
}

static int run(apmw_cli *cli, int argc, char **argv)
{
    options o = {0};
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_status status = APMW_OK;
    int code = apmw_cli_parse_scenario(cli, &parser, argc, argv, &o, &o.scenario, &o.file, &status, &err);
    if (code != APMW_OK) {
        return code;
    }
    if (status == APMW_OK && (o.scenario.platform[0] == '\0' || o.scenario.model[0] == '\0')) {
        status = apmw_error_set(&err, APMW_E_USAGE,
                                "a platform and a model are needed, from a scenario or by --platform and --model");
    }
    if (status == APMW_OK) {
        status = apmw_catalog_open(cli->data_dir, &catalog, &err);
    }
    if (status == APMW_OK) {
        status = work(cli, &o, catalog, &code, &err);
    }
    apmw_catalog_free(catalog);
    return status == APMW_OK ? code : apmw_cli_fail(cli, &err);
}

const apmw_command apmw_command_simulate = {"simulate", "Run one scenario and summarise it", run};
