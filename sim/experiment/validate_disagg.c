/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The load of disaggregated points. The first token is taken as the decode worker's: it streams to the client, after the
 * prompt's KV has come over and the worker has a place for the sequence. */
#include <math.h>
#include <stdlib.h>
#include "apmw/rng.h"
#include "validate_private.h"

typedef struct slot {
    apmw_request prefill, decode;
    apmw_time submitted;
    int64_t request;
} slot;

typedef struct loop {
    disagg_loop config;
    apmw_sim *sim;
    int64_t *n_in, *n_out;
    slot *slots;
    int64_t next;
} loop;

static apmw_engine *least_loaded(loop *l, size_t from, size_t n, size_t *index)
{
    size_t best = from;
    for (size_t i = from + 1; i < from + n; i++)
        if (apmw_engine_load(apmw_sim_engine(l->sim, i), -1) < apmw_engine_load(apmw_sim_engine(l->sim, best), -1))
            best = i;
    *index = best;
    return apmw_sim_engine(l->sim, best);
}

static void submit(loop *l, slot *s, apmw_request *request, int64_t n_out, size_t from, size_t n)
{
    size_t index;
    apmw_engine *engine = least_loaded(l, from, n, &index);
    request->record = (apmw_request_record){.id = (uint64_t)s->request,
                                            .agent = (int32_t)(s - l->slots),
                                            .trajectory = -1,
                                            .play = (int32_t)s->request,
                                            .rank = -1,
                                            .engine = (int32_t)index,
                                            .n_prompt = l->n_in[s->request],
                                            .n_out = n_out,
                                            .last_of_trajectory = true};
    request->stream = 0;
    request->output_kept = false;
    request->rank_hint = -1;
    request->max_tokens = n_out;
    apmw_engine_submit(engine, request);
}

static void send_next(loop *l, slot *s)
{
    s->request = l->next++;
    s->submitted = apmw_des_now(apmw_sim_des(l->sim));
    submit(l, s, &s->prefill, 1, 0, l->config.n_prefill);
}

static void on_gap_over(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    loop *l = subject;
    if (l->next < l->config.client.n_requests)
        send_next(l, &l->slots[argument]);
}

static void next_after(loop *l, slot *s, apmw_time now)
{
    if (l->next < l->config.client.n_requests)
        apmw_des_schedule(apmw_sim_des(l->sim), now + l->config.client.gap_ns, APMW_EVENT_CLIENT, on_gap_over, l,
                          (uint64_t)(s - l->slots));
}

static void on_transferred(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    loop *l = subject;
    slot *s = &l->slots[argument];
    submit(l, s, &s->decode, l->n_out[s->request], l->config.n_prefill, l->config.n_decode);
}

static slot *slot_of_prefill(loop *l, apmw_request *request)
{
    return &l->slots[request->record.agent];
}

static void on_prefilled(apmw_request *request, void *self, apmw_time now)
{
    loop *l = self;
    slot *s = slot_of_prefill(l, request);
    if (request->record.state != APMW_REQUEST_DONE) {
        next_after(l, s, now);
        return;
    }
    double seconds = l->config.transfer_fixed_s + l->config.transfer_s_per_token * (double)request->record.n_prompt;
    apmw_des_schedule(apmw_sim_des(l->sim), now + apmw_time_from_s(seconds), APMW_EVENT_TRANSFER, on_transferred, l,
                      (uint64_t)(s - l->slots));
}

static void on_decoded(apmw_request *request, void *self, apmw_time now)
{
    loop *l = self;
    slot *s = slot_of_prefill(l, request);
    const apmw_request_record *r = &request->record;
    if (r->state == APMW_REQUEST_DONE) {
        l->config.ttft_s[s->request] = apmw_time_to_s(r->first_token - s->submitted);
        if (r->n_out > 1)
            l->config.tpot_s[s->request] = apmw_time_to_s(r->last_token - r->first_token) / (double)(r->n_out - 1);
    }
    next_after(l, s, now);
}

static void on_start(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    loop *l = subject;
    for (int64_t i = 0; i < l->config.client.slots && l->next < l->config.client.n_requests; i++)
        send_next(l, &l->slots[i]);
}

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    loop *l = self;
    l->sim = sim;
    apmw_des_schedule(apmw_sim_des(sim), 0, APMW_EVENT_CLIENT, on_start, l, 0);
    return APMW_OK;
}

static void free_loop(void *self)
{
    loop *l = self;
    free(l->n_in);
    free(l->n_out);
    free(l->slots);
    free(l);
}

apmw_status apmw_predict_disagg_workload(const disagg_loop *config, apmw_workload *out, apmw_error *err)
{
    size_t n = (size_t)config->client.n_requests;
    loop *l = calloc(1, sizeof *l);
    if (l) {
        l->config = *config;
        l->n_in = calloc(n, sizeof *l->n_in);
        l->n_out = calloc(n, sizeof *l->n_out);
        l->slots = calloc((size_t)config->client.slots, sizeof *l->slots);
    }
    if (!l || !l->n_in || !l->n_out || !l->slots) {
        if (l)
            free_loop(l);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu requests", n);
    }
    apmw_mt19937 state;
    apmw_mt19937_seed(&state, config->client.seed);
    apmw_mt19937_randint(&state, (int64_t)floor((double)config->client.isl * config->client.ratio),
                         config->client.isl, (int64_t)n, l->n_in);
    apmw_mt19937_randint(&state, (int64_t)floor((double)config->client.osl * config->client.ratio),
                         config->client.osl, (int64_t)n, l->n_out);
    for (size_t i = 0; i < n; i++) {
        l->n_in[i] = l->n_in[i] < 1 ? 1 : l->n_in[i];
        l->n_out[i] = l->n_out[i] < 1 ? 1 : l->n_out[i];
        config->ttft_s[i] = config->tpot_s[i] = (double)NAN;
    }
    for (int64_t i = 0; i < config->client.slots; i++) {
        l->slots[i].prefill.on_done = on_prefilled;
        l->slots[i].prefill.self = l;
        l->slots[i].decode.on_done = on_decoded;
        l->slots[i].decode.self = l;
    }
    *out = (apmw_workload){.self = l, .start = start, .free = free_loop};
    return APMW_OK;
}
