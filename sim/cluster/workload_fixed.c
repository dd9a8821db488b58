/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The load of the measured serving points: facts about the client in hwmodels/evidence/README.md (InferenceX
 * benchmark_serving.py): all slots start at the same instant, the next request goes out the moment one ends, lengths
 * uniform on [int(ratio L), L] from numpy's RandomState(seed), all inputs drawn before all outputs. */
#include "apmw/cluster.h"

#include <math.h>
#include <stdlib.h>

#include "apmw/rng.h"

typedef struct fixed_loop {
    apmw_fixed_loop config;
    apmw_sim *sim;
    int64_t *n_in, *n_out;
    apmw_request *slots;
    int64_t next; /* request to send */
} fixed_loop;

static void send_next(fixed_loop *loop, apmw_request *slot)
{
    const int64_t i = loop->next++;
    const int32_t agent = (int32_t)(slot - loop->slots);
    slot->record = (apmw_request_record){
        .id = (uint64_t)i,
        .agent = agent,
        .trajectory = -1,
        .play = (int32_t)i,
        .turn = 0,
        .rank = -1,
        .n_prompt = loop->n_in[i],
        .n_out = loop->n_out[i],
        .last_of_trajectory = true,
    };
    slot->stream = 0; /* no prompt shares anything with another */
    slot->output_kept = false;
    slot->rank_hint = -1;
    slot->max_tokens = loop->n_out[i]; /* the client asks for exactly the drawn length */
    apmw_sim_submit(loop->sim, slot);
}

static void on_gap_over(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    fixed_loop *loop = subject;
    if (loop->next < loop->config.n_requests) {
        send_next(loop, &loop->slots[argument]);
    }
}

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    fixed_loop *loop = self;
    if (loop->next < loop->config.n_requests) {
        apmw_des_schedule(apmw_sim_des(loop->sim), now + loop->config.gap_ns, APMW_EVENT_CLIENT, on_gap_over, loop,
                          (uint64_t)(request - loop->slots));
    }
}

static void on_start(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    fixed_loop *loop = subject;
    for (int64_t i = 0; i < loop->config.slots && loop->next < loop->config.n_requests; i++) {
        send_next(loop, &loop->slots[i]);
    }
}

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    fixed_loop *loop = self;
    loop->sim = sim;
    apmw_des_schedule(apmw_sim_des(sim), 0, APMW_EVENT_CLIENT, on_start, loop, 0);
    return APMW_OK;
}

static void free_loop(void *self)
{
    fixed_loop *loop = self;
    free(loop->n_in);
    free(loop->n_out);
    free(loop->slots);
    free(loop);
}

apmw_status apmw_workload_fixed_loop(const apmw_fixed_loop *config, apmw_workload *out, apmw_error *err)
{
    if (config->slots < 1 || config->n_requests < 1 || config->isl < 1 || config->osl < 1) {
        return apmw_error_set(err, APMW_E_SCENARIO, "fixed loop: slots, requests and lengths must be at least 1");
    }
    if (!(config->ratio > 0.0 && config->ratio <= 1.0) || config->gap_ns < 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "fixed loop: ratio %g must be in (0, 1] and the gap not negative",
                              config->ratio);
    }
    fixed_loop *loop = calloc(1, sizeof *loop);
    if (loop != NULL) {
        loop->config = *config;
        loop->n_in = calloc((size_t)config->n_requests, sizeof *loop->n_in);
        loop->n_out = calloc((size_t)config->n_requests, sizeof *loop->n_out);
        loop->slots = calloc((size_t)config->slots, sizeof *loop->slots);
    }
    if (loop == NULL || loop->n_in == NULL || loop->n_out == NULL || loop->slots == NULL) {
        if (loop != NULL) {
            free_loop(loop);
        }
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %lld requests", (long long)config->n_requests);
    }
    apmw_mt19937 state;
    apmw_mt19937_seed(&state, config->seed);
    const int64_t least_in = (int64_t)floor((double)config->isl * config->ratio);
    const int64_t least_out = (int64_t)floor((double)config->osl * config->ratio);
    apmw_mt19937_randint(&state, least_in, config->isl, config->n_requests, loop->n_in);
    apmw_mt19937_randint(&state, least_out, config->osl, config->n_requests, loop->n_out);
    for (int64_t i = 0; i < config->n_requests; i++) {
        loop->n_in[i] = loop->n_in[i] < 1 ? 1 : loop->n_in[i];
        loop->n_out[i] = loop->n_out[i] < 1 ? 1 : loop->n_out[i];
    }
    for (int64_t i = 0; i < config->slots; i++) {
        loop->slots[i].on_done = on_done;
        loop->slots[i].self = loop;
    }
    *out = (apmw_workload){.self = loop, .start = start, .free = free_loop};
    return APMW_OK;
}
