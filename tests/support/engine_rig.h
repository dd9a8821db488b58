/* SPDX-License-Identifier: GPL-3.0-or-later */
/* An engine on a clock of its own, requests submitted at given times, and everything that observers saw. */
#ifndef APMW_TEST_ENGINE_RIG_H
#define APMW_TEST_ENGINE_RIG_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "apmw/engine.h"

typedef struct engine_rig {
    apmw_des *des;
    apmw_streams *streams;
    apmw_step_cost *cost;
    apmw_engine *engine;
    apmw_probe probe;
    apmw_request **requests;
    size_t n_requests;
    uint64_t *ended; /* ids in order of on_request */
    size_t n_ended;
    apmw_step_record *steps;
    size_t n_steps;
} engine_rig;

static inline void rig_on_request(void *self, apmw_time now, const apmw_request_record *record)
{
    engine_rig *rig = self;
    assert_true(now == record->done);
    if ((rig->n_ended & (rig->n_ended - 1)) == 0)
        rig->ended = realloc(rig->ended, (rig->n_ended ? 2 * rig->n_ended : 1) * sizeof *rig->ended);
    rig->ended[rig->n_ended++] = record->id;
}

static inline void rig_on_step(void *self, const apmw_step_record *record)
{
    engine_rig *rig = self;
    if ((rig->n_steps & (rig->n_steps - 1)) == 0)
        rig->steps = realloc(rig->steps, (rig->n_steps ? 2 * rig->n_steps : 1) * sizeof *rig->steps);
    rig->steps[rig->n_steps++] = *record;
}

/* Cost of fixed + per token seconds, on one uncapped attention kind. */
static inline apmw_linear_cost rig_cost(double fixed_s, double per_token_s)
{
    apmw_linear_cost cost = {
        .fixed_s = fixed_s, .per_token_s = per_token_s, .n_kinds = 1, .n_accelerators = 1};
    for (int k = 0; k < APMW_KV_KINDS; k++)
        cost.kv_cap[k] = INT64_MAX;
    return cost;
}

/* vLLM, one rank, no cache, KV without end: tests change what they are about. */
static inline apmw_engine_config rig_config(void)
{
    return (apmw_engine_config){.batching = APMW_BATCHING_VLLM,
                                .n_ranks = 1,
                                .max_num_seqs = 1000,
                                .max_num_batched_tokens = 1000,
                                .chunked_prefill = true,
                                .block_tokens = 16,
                                .kv_blocks = 1000000};
}

static inline engine_rig *rig_open(const apmw_linear_cost *cost, apmw_engine_config config)
{
    engine_rig *rig = calloc(1, sizeof *rig);
    rig->des = apmw_des_create();
    rig->streams = apmw_streams_create();
    rig->cost = apmw_step_cost_linear(cost);
    rig->probe = (apmw_probe){.self = rig, .on_request = rig_on_request, .on_step = rig_on_step};
    config.cost = rig->cost;
    config.streams = rig->streams;
    const apmw_probe *probes[] = {&rig->probe};
    apmw_error err = {0};
    if (apmw_engine_create(rig->des, &config, 0, probes, 1, &rig->engine, &err) != APMW_OK)
        fail_msg("%s", err.message);
    return rig;
}

static inline void rig_close(engine_rig *rig)
{
    apmw_engine_free(rig->engine);
    for (size_t i = 0; i < rig->n_requests; i++)
        free(rig->requests[i]);
    apmw_step_cost_free(rig->cost);
    apmw_streams_free(rig->streams);
    apmw_des_free(rig->des);
    free(rig->requests);
    free(rig->ended);
    free(rig->steps);
    free(rig);
}

/* A request of a fresh stream, owned by the rig; its id is its index. */
static inline apmw_request *rig_request(engine_rig *rig, int64_t n_prompt, int64_t n_out)
{
    apmw_request *request = calloc(1, sizeof *request);
    if ((rig->n_requests & (rig->n_requests - 1)) == 0)
        rig->requests =
            realloc(rig->requests, (rig->n_requests ? 2 * rig->n_requests : 1) * sizeof(*rig->requests));
    request->record.id = rig->n_requests;
    request->record.n_prompt = n_prompt;
    request->record.n_out = n_out;
    request->rank_hint = -1;
    request->stream = apmw_streams_new(rig->streams, 0, 0);
    rig->requests[rig->n_requests++] = request;
    return request;
}

static inline void rig_submit_event(apmw_des *des, void *subject, uint64_t argument)
{
    engine_rig *rig = subject;
    (void)des;
    apmw_engine_submit(rig->engine, rig->requests[argument]);
}

static inline void rig_submit_at(engine_rig *rig, apmw_time when, const apmw_request *request)
{
    apmw_des_schedule(rig->des, when, APMW_EVENT_CLIENT, rig_submit_event, rig, request->record.id);
}

/* A fresh request, submitted at `when`. */
static inline apmw_request *rig_add(engine_rig *rig, apmw_time when, int64_t n_prompt, int64_t n_out)
{
    apmw_request *request = rig_request(rig, n_prompt, n_out);
    rig_submit_at(rig, when, request);
    return request;
}

static inline void rig_check(engine_rig *rig)
{
    apmw_error err = {0};
    if (apmw_engine_check(rig->engine, &err) != APMW_OK)
        fail_msg("%s", err.message);
}

/* Runs to the end; everything must have ended. */
static inline void rig_run(engine_rig *rig)
{
    assert_int_equal(apmw_des_run(rig->des, APMW_TIME_NEVER), APMW_OK);
    rig_check(rig);
    assert_int_equal(rig->n_ended, rig->n_requests);
}

#endif
