/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Turns a second of one engine: agents that replay conversations of long contexts, linear cost.
 * bench_engine [agents [turns]]; prints one line a policy and mode. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "apmw/engine.h"
#include "apmw/rng.h"

enum { MAX_AGENTS = 4096 };

typedef struct bench {
    apmw_des *des;
    apmw_streams *streams;
    apmw_engine *engine;
    int64_t turns, ended, tokens;
    struct agent {
        apmw_request request;
        int64_t turn;
        uint64_t index;
    } agents[MAX_AGENTS];
} bench;

/* Lengths of an agent's turn: about 2,000 new prompt tokens, 500 of output and 8 s of tool time. */
static double draw(uint64_t agent, int64_t turn, const char *purpose, double mean)
{
    return mean * (0.5 + apmw_rng_uniform_at(apmw_rng_key(1, purpose, agent, (uint64_t)turn), 0));
}

static bench *b;

static void begin_turn(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    struct agent *a = subject;
    apmw_request *r = &a->request;
    /* A conversation starts at 100,000 tokens and is taken anew when it reaches 200,000. */
    if (a->turn == 0 || r->record.n_prompt > 200000) {
        r->stream = apmw_streams_new(b->streams, 0, 0);
        r->record.n_prompt = 100000;
    } else {
        r->record.n_prompt += r->record.n_out + (int64_t)draw(a->index, a->turn, "prompt", 2000.0);
    }
    r->record.n_out = (int64_t)draw(a->index, a->turn, "out", 500.0);
    r->record.id = a->index * 1000000 + (uint64_t)a->turn;
    a->turn++;
    apmw_engine_submit(b->engine, r);
}

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    struct agent *a = self;
    b->ended++;
    b->tokens += request->record.n_out;
    if (a->turn < b->turns)
        apmw_des_schedule(b->des, now + apmw_time_from_s(draw(a->index, a->turn, "delay", 8.0)),
                          APMW_EVENT_CLIENT, begin_turn, a, 0);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run(const char *name, apmw_batching batching, int n_agents, int64_t turns, int draft_tokens,
                bool plain)
{
    const apmw_linear_cost numbers = {.fixed_s = 0.008,
                                      .per_token_s = 20e-6,
                                      .per_kv_s = {2e-9},
                                      .per_pair_s = 1e-11,
                                      .n_kinds = 1,
                                      .kv_cap = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX},
                                      .n_accelerators = 8};
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    b = calloc(1, sizeof *b);
    b->des = apmw_des_create();
    b->streams = apmw_streams_create();
    b->turns = turns;
    const apmw_engine_config config = {.cost = cost,
                                       .streams = b->streams,
                                       .batching = batching,
                                       .n_ranks = 1,
                                       .max_num_seqs = 256,
                                       .max_num_batched_tokens = 8192,
                                       .chunked_prefill = true,
                                       .block_tokens = 16,
                                       .kv_blocks = 12500 * (int64_t)n_agents,
                                       .prefix_caching = true,
                                       .recv_interval = 10,
                                       .draft_tokens = draft_tokens,
                                       .acceptance_length = draft_tokens ? 2.5 : 0.0,
                                       .plain = plain};
    apmw_error err;
    if (apmw_engine_create(b->des, &config, 0, NULL, 0, &b->engine, &err) != APMW_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    for (int i = 0; i < n_agents; i++) {
        b->agents[i].index = (uint64_t)i;
        b->agents[i].request.output_kept = true;
        b->agents[i].request.rank_hint = -1;
        b->agents[i].request.on_done = on_done;
        b->agents[i].request.self = &b->agents[i];
        apmw_des_schedule(b->des, apmw_time_from_s(0.5 * i), APMW_EVENT_CLIENT, begin_turn, &b->agents[i], 0);
    }
    const double begin = seconds();
    apmw_des_run(b->des, APMW_TIME_NEVER);
    const double took = seconds() - begin;
    printf(
        "%-16s %5d agents %8lld turns %10.0f turns/s %8.1f steps/turn %6.1f events/turn %9.0fx real time\n",
        name, n_agents, (long long)b->ended, (double)b->ended / took,
        (double)apmw_engine_steps(b->engine) / (double)b->ended,
        (double)apmw_des_handled(b->des) / (double)b->ended, apmw_time_to_s(apmw_des_now(b->des)) / took);
    apmw_engine_free(b->engine);
    apmw_streams_free(b->streams);
    apmw_des_free(b->des);
    apmw_step_cost_free(cost);
    free(b);
}

int main(int argc, char **argv)
{
    const int n_agents = argc > 1 ? atoi(argv[1]) : 16;
    const int64_t turns = argc > 2 ? atoll(argv[2]) : 200;
    if (n_agents < 1 || n_agents > MAX_AGENTS || turns < 1)
        return 64;
    run("vllm", APMW_BATCHING_VLLM, n_agents, turns, 0, false);
    run("vllm drafts", APMW_BATCHING_VLLM, n_agents, turns, 3, false);
    run("sglang", APMW_BATCHING_SGLANG, n_agents, turns, 0, false);
    run("trtllm", APMW_BATCHING_TRTLLM, n_agents, turns, 0, false);
    run("vllm plain", APMW_BATCHING_VLLM, n_agents, turns < 50 ? turns : 50, 0, true);
    return 0;
}
