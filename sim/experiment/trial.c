/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One phase of the protocol on one deployment: the phase object listens to the simulation, sets the window of the meters
 * and ends the run. Every trial carries the laws. */
#include "apmw/experiment.h"

#include <stdlib.h>

#include "apmw/power_form.h"

/* Simulated seconds between two looks whether a phase is hopeless; a look counts all requests, so later on they are a
 * LOOK_SHARE-th of the time so far apart. */
enum { LOOK_S = 60, LOOK_SHARE = 16 };

typedef struct driver {
    const apmw_trial_config *config;
    apmw_phase *phase;
    apmw_window *window;
    apmw_sim *sim;
    apmw_probe probe;
    apmw_event_handle alarm;
    apmw_time alarm_at;
    bool listening; /* requests are the phase's: false during the warm-up of lanes */
    bool gave_up, ended;
} driver;

static void on_alarm(apmw_des *des, void *subject, uint64_t argument);

/* After anything that may have moved the phase: window, alarm, end. */
static void follow(driver *d)
{
    apmw_phase_window(d->phase, &d->window->from, &d->window->to);
    if (apmw_phase_now(d->phase) == APMW_PHASE_ENDED && !d->ended) {
        d->ended = true;
        apmw_sim_stop(d->sim);
        return;
    }
    const apmw_time next = apmw_phase_next(d->phase);
    if (next != d->alarm_at) {
        apmw_des *des = apmw_sim_des(d->sim);
        apmw_des_cancel(des, &d->alarm);
        d->alarm_at = next;
        if (next != APMW_TIME_NEVER) {
            const apmw_time now = apmw_des_now(des);
            d->alarm = apmw_des_schedule(des, next > now ? next : now, APMW_EVENT_CONTROL, on_alarm, d, 0);
        }
    }
}

static void on_alarm(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    driver *d = subject;
    d->alarm_at = APMW_TIME_NEVER;
    apmw_phase_advance(d->phase, apmw_des_now(des));
    follow(d);
}

static void on_look(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    driver *d = subject;
    const apmw_tier *tier = &d->config->tiers[d->config->give_up_tier];
    const int64_t enough = 10 * d->config->n_agents > 200 ? 10 * d->config->n_agents : 200;
    if (apmw_phase_hopeless(d->phase, tier, enough, 2.0)) {
        d->gave_up = true;
        apmw_sim_stop(d->sim);
        return;
    }
    const apmw_time now = apmw_des_now(des), least = LOOK_S * APMW_NS_PER_S, share = now / LOOK_SHARE;
    apmw_des_schedule(des, now + (share > least ? share : least), APMW_EVENT_CONTROL, on_look, d, 0);
}

static void on_submit(void *self, apmw_time now, const apmw_request_record *record)
{
    driver *d = self;
    if (d->listening) {
        apmw_phase_on_submit(d->phase, now, record);
        follow(d);
    }
}

static void on_request(void *self, apmw_time now, const apmw_request_record *record)
{
    driver *d = self;
    if (d->listening) {
        apmw_phase_on_request(d->phase, now, record);
        follow(d);
    }
}

static void on_profile(void *self, apmw_time now)
{
    driver *d = self;
    d->listening = true;
    apmw_phase_begin(d->phase, now);
    follow(d);
}

static double step_w(void *self, double duty, double bw_util, double flop_util)
{
    return apmw_power_step_w(self, duty, bw_util, flop_util);
}

/* Everything a trial allocates. */
typedef struct parts {
    apmw_phase *phase;
    apmw_laws *laws;
    apmw_collector *collector;
    apmw_step_meter *steps;
    apmw_energy_meter *energy[APMW_POOLS]; /* [0] of aggregated engines */
    apmw_step_cost *scaled[APMW_POOLS];
    apmw_power_params power[APMW_POOLS];
    size_t n_engines, n_prefill;
    apmw_engine_config *engines;
    apmw_sim *sim;
} parts;

static void free_parts(parts *p)
{
    apmw_sim_free(p->sim);
    apmw_phase_free(p->phase);
    apmw_laws_free(p->laws);
    apmw_collector_free(p->collector);
    apmw_step_meter_free(p->steps);
    for (int i = 0; i < APMW_POOLS; i++) {
        apmw_energy_meter_free(p->energy[i]);
        if (p->scaled[i] != NULL) {
            apmw_step_cost_free(p->scaled[i]);
        }
    }
    free(p->engines);
}

/* How a trial differs from its deployment. */
typedef struct variant {
    double time_scale, prefill_scale, acceptance_scale;
    bool kv_all_windows;
} variant;

/* Engines [first, first + replicas) of one pool: their cost, configuration and energy books. */
static bool make_pool(const apmw_deployment *d, int index, size_t first, const variant *v, const apmw_window *window,
                      parts *p)
{
    const size_t n = (size_t)d->choice.replicas;
    p->power[index] = d->power;
    const apmw_energy_config energy = {
        .n_engines = n,
        .first_engine = first,
        .accelerators = d->cost->n_accelerators,
        .step_w = step_w,
        .self = &p->power[index],
        .idle_w = apmw_power_idle_w(&d->power),
        .limit_w = d->power.tdp_w,
        .peak_flop_per_s = d->peak_flop_per_s,
        .hbm_bytes_per_s = d->hbm_bytes_per_s,
        .long_gap_s = 1.0,
    };
    p->energy[index] = apmw_energy_meter_create(window, &energy);
    p->scaled[index] = apmw_step_cost_scaled(
        d->cost, index == APMW_POOL_PREFILL && p->n_prefill > 0 ? v->prefill_scale : v->time_scale);
    for (size_t i = first; i < first + n; i++) {
        p->engines[i] = d->engine;
        p->engines[i].cost = p->scaled[index];
        /* Fewer accepted at every position alike: S_i scales, and with it E[accepted] and E[accepted^2]. */
        const double drafted = d->engine.acceptance_length - 1.0, scale = v->acceptance_scale;
        p->engines[i].acceptance_length = 1.0 + drafted * scale;
        if (d->engine.acceptance_variance > 0.0) {
            p->engines[i].acceptance_variance =
                scale * (d->engine.acceptance_variance + drafted * drafted) - scale * scale * drafted * drafted;
        }
        if (v->kv_all_windows) {
            p->engines[i].kv_blocks = d->kv_blocks_all_windows > 0 ? d->kv_blocks_all_windows : 1;
        }
    }
    return p->energy[index] != NULL && p->scaled[index] != NULL;
}

static apmw_status make_parts(const apmw_deployment *deployment, const variant *v, bool one_request_per_agent,
                              const apmw_window *window, parts *p, apmw_error *err)
{
    const apmw_deployment *prefill = deployment->prefill;
    p->n_prefill = prefill != NULL ? (size_t)prefill->choice.replicas : 0;
    p->n_engines = p->n_prefill + (size_t)deployment->choice.replicas;
    p->laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = one_request_per_agent, .tokens_balance = true});
    p->collector = apmw_collector_create(window, false);
    p->steps = apmw_step_meter_create(window, p->n_engines);
    p->engines = calloc(p->n_engines, sizeof *p->engines);
    bool ok = p->laws != NULL && p->collector != NULL && p->steps != NULL && p->engines != NULL;
    if (ok && prefill != NULL) {
        ok = make_pool(prefill, APMW_POOL_PREFILL, 0, v, window, p);
    }
    ok = ok && make_pool(deployment, prefill != NULL ? APMW_POOL_DECODE : 0, p->n_prefill, v, window, p);
    return ok ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory for a trial");
}

/* What listens to every run. Returns their number, at most 6. */
static size_t meter_probes(const parts *p, const apmw_collector *extra, const apmw_probe **out)
{
    size_t n = 0;
    out[n++] = apmw_laws_probe(p->laws);
    out[n++] = apmw_collector_probe(p->collector);
    out[n++] = apmw_step_meter_probe(p->steps);
    for (int i = 0; i < APMW_POOLS; i++) {
        if (p->energy[i] != NULL) {
            out[n++] = apmw_energy_meter_probe(p->energy[i]);
        }
    }
    if (extra != NULL) {
        out[n++] = apmw_collector_probe(extra);
    }
    return n;
}

static apmw_sim_config sim_config(const apmw_deployment *d, const parts *p, apmw_routing routing,
                                  apmw_routing decode_routing, apmw_router_knowledge knowledge, uint64_t seed)
{
    const apmw_tiers_setup *tiers = d->prefill != NULL ? &d->prefill->tiers : &d->tiers;
    return (apmw_sim_config){.engines = p->engines, .n_engines = p->n_engines, .n_prefill = p->n_prefill,
                             .link = d->link, .tiers = tiers->n_tiers > 0 ? tiers : NULL, .routing = routing,
                             .decode_routing = decode_routing, .knowledge = knowledge, .seed = seed};
}

static apmw_status make_lanes(const apmw_trial_config *config, driver *d, apmw_workload *out, apmw_error *err)
{
    const apmw_phase_rules *rules = config->rules;
    const apmw_lanes lanes = {
        .trace = config->trace,
        .n_lanes = config->n_agents,
        .start_from = rules->start_from,
        .start_to = rules->start_to,
        .warmup_turns = rules->warmup_turns,
        .warmup_grace_ns = apmw_time_from_s(rules->warmup_grace_s),
        .profile_ns = apmw_time_from_s(rules->min_window_s),
        .tree_idle_ns = apmw_time_from_s(rules->tree_idle_s),
        .system_idle_ns = apmw_time_from_s(rules->system_idle_s),
        .share_global = config->share_prefix,
        .output_cached = config->output_cached,
        .max_context = config->max_context,
        .delay_scale = config->delay_scale,
        .seed = config->seed,
        .on_profile = on_profile,
        .self = d,
    };
    return apmw_workload_lanes(&lanes, out, err);
}

static apmw_status make_agents(const apmw_trial_config *config, apmw_workload *out, apmw_error *err)
{
    const apmw_agents agents = {
        .trace = config->trace,
        .n_agents = config->n_agents,
        .spawn_interval_ns = apmw_time_from_s(1.0 / config->rules->spawn_per_s),
        .max_start_offset = config->rules->max_start_offset,
        .max_output_tokens = config->rules->max_output_tokens,
        .share_global = config->share_prefix,
        .output_cached = config->output_cached,
        .max_context = config->max_context,
        .delay_scale = config->delay_scale,
        .concurrent_lanes = config->concurrent_subagents,
        .seed = config->seed,
        .starts = config->starts,
        .n_starts = config->n_starts,
    };
    return apmw_workload_agents(&agents, out, err);
}

static apmw_status make_sim(const apmw_trial_config *config, driver *d, parts *p, apmw_error *err)
{
    apmw_workload workload;
    const apmw_status status =
        config->rules->lanes ? make_lanes(config, d, &workload, err) : make_agents(config, &workload, err);
    if (status != APMW_OK) {
        return status;
    }
    const apmw_probe *probes[8];
    /* The phase first: it sets the window that the meters read in the same instant. */
    probes[0] = &d->probe;
    const size_t n_probes = 1 + meter_probes(p, config->collector, probes + 1);
    const apmw_sim_config sim =
        sim_config(config->deployment, p, config->routing, config->decode_routing, config->knowledge, config->seed);
    return apmw_sim_create(&sim, workload, probes, n_probes, &p->sim, err);
}

static apmw_status read_energy(parts *p, const apmw_deployment *d, apmw_time now, apmw_trial_result *out, apmw_error *err)
{
    if (d->prefill == NULL) {
        return apmw_energy_meter_finish(p->energy[0], now, &out->energy, err);
    }
    apmw_status status = APMW_OK;
    for (int i = 0; i < APMW_POOLS && status == APMW_OK; i++) {
        status = apmw_energy_meter_finish(p->energy[i], now, &out->pool_energy[i], err);
    }
    const int prefill = d->prefill->accelerators;
    apmw_energy_join(&out->pool_energy[0], prefill, &out->pool_energy[1], d->accelerators - prefill, &out->energy);
    apmw_time waited_ns;
    apmw_sim_transfers(p->sim, &out->transfer_bytes, &waited_ns);
    const int64_t n = apmw_laws_terminal(p->laws);
    out->transfer_wait_s = n > 0 ? apmw_time_to_s(waited_ns) / (double)n : 0.0;
    return status;
}

/* What the meters saw; the window of a run that gave up ends where it stopped. */
static apmw_status read_meters(parts *p, const apmw_deployment *deployment, const apmw_window *window,
                               apmw_trial_result *out, apmw_error *err)
{
    const apmw_time now = apmw_des_now(apmw_sim_des(p->sim));
    size_t n = 0;
    apmw_status status = apmw_laws_status(p->laws, err);
    if (status == APMW_OK) {
        status = apmw_collector_status(p->collector, err);
    }
    if (status == APMW_OK) {
        const apmw_request_record *records = apmw_collector_requests(p->collector, &n);
        apmw_latency_count(records, n, &out->latency);
        apmw_step_meter_summary(p->steps, now, &out->steps);
        const apmw_deployment *front = deployment->prefill != NULL ? deployment->prefill : deployment;
        const double serial_s = (double)out->latency.prompt_tokens * 1e-9 * front->engine.frontend_ns_per_token;
        out->frontend_share = serial_s / (out->steps.window_s * (double)front->choice.replicas);
        status = read_energy(p, deployment, now, out, err);
    }
    const apmw_tiers *tiers = apmw_sim_tiers(p->sim);
    for (size_t t = 0; tiers != NULL && t < apmw_tiers_count(tiers); t++) {
        apmw_tiers_stats(tiers, t, &out->tiers[t]);
    }
    out->window = *window;
    out->simulated_s = apmw_time_to_s(now);
    out->n_turns = apmw_laws_terminal(p->laws);
    out->n_events = apmw_des_handled(apmw_sim_des(p->sim));
    return status;
}

/* A trial that gave up is judged on what it has. */
static apmw_status judge(const apmw_trial_config *config, driver *d, apmw_trial_result *out, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (size_t t = 0; t < config->n_tiers && status == APMW_OK; t++) {
        status = apmw_phase_verdict(d->phase, &config->tiers[t], &out->verdict[t], err);
        out->hopeless[t] = d->gave_up && apmw_phase_hopeless(d->phase, &config->tiers[t], 1, 2.0);
    }
    out->gave_up = d->gave_up;
    return status;
}

apmw_status apmw_trial_run(const apmw_trial_config *config, apmw_trial_result *out, apmw_error *err)
{
    *out = (apmw_trial_result){.n_agents = config->n_agents};
    if (config->n_tiers > APMW_MAX_TIERS || config->n_agents < 1 || !(config->time_scale > 0.0) ||
        !(config->acceptance_scale >= 0.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "a trial needs agents, positive scales and at most %d tiers",
                              APMW_MAX_TIERS);
    }
    apmw_window window = {.from = APMW_TIME_NEVER, .to = APMW_TIME_NEVER};
    parts p = {0};
    driver d = {.config = config, .window = &window, .alarm_at = APMW_TIME_NEVER, .listening = !config->rules->lanes};
    d.probe = (apmw_probe){.self = &d, .on_submit = on_submit, .on_request = on_request};
    const variant v = {config->time_scale, config->prefill_scale > 0.0 ? config->prefill_scale : config->time_scale,
                       config->acceptance_scale, config->kv_all_windows};
    apmw_status status = make_parts(config->deployment, &v, !config->concurrent_subagents && !config->rules->lanes, &window, &p, err);
    if (status == APMW_OK) {
        d.phase = p.phase = apmw_phase_create(config->rules, config->n_agents);
        status = d.phase == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for a phase") : APMW_OK;
    }
    if (status == APMW_OK) {
        status = make_sim(config, &d, &p, err);
    }
    if (status == APMW_OK) {
        d.sim = p.sim;
        if (config->give_up_tier >= 0 && (size_t)config->give_up_tier < config->n_tiers) {
            apmw_des_schedule(apmw_sim_des(p.sim), LOOK_S * APMW_NS_PER_S, APMW_EVENT_CONTROL, on_look, &d, 0);
        }
        status = apmw_sim_run(p.sim, APMW_TIME_NEVER - 1, err);
    }
    if (status == APMW_OK) {
        status = judge(config, &d, out, err);
    }
    if (status == APMW_OK) {
        status = read_meters(&p, config->deployment, &window, out, err);
    }
    free_parts(&p);
    return status;
}

apmw_status apmw_fixed_run(const apmw_deployment *deployment, const apmw_fixed_loop *loop, apmw_routing routing,
                           apmw_routing decode_routing, apmw_router_knowledge knowledge,
                           const apmw_collector *collector, apmw_trial_result *out, apmw_error *err)
{
    *out = (apmw_trial_result){.n_agents = loop->slots};
    apmw_window window = {.from = 0, .to = APMW_TIME_NEVER};
    parts p = {0};
    apmw_workload workload;
    apmw_status status = make_parts(deployment, &(variant){1.0, 1.0, 1.0, false}, true, &window, &p, err);
    if (status == APMW_OK) {
        status = apmw_workload_fixed_loop(loop, &workload, err);
    }
    if (status == APMW_OK) {
        const apmw_probe *probes[6];
        const size_t n = meter_probes(&p, collector, probes);
        const apmw_sim_config sim = sim_config(deployment, &p, routing, decode_routing, knowledge, loop->seed);
        status = apmw_sim_create(&sim, workload, probes, n, &p.sim, err);
    }
    if (status == APMW_OK) {
        status = apmw_sim_run(p.sim, APMW_TIME_NEVER - 1, err);
    }
    if (status == APMW_OK) {
        status = read_meters(&p, deployment, &window, out, err);
    }
    free_parts(&p);
    return status;
}
