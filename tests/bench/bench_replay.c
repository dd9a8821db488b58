/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Turns a second: 16 agents that replay trajectories of 200 turns at contexts around 100,000 tokens. */
#include <stdio.h>
#include <stdlib.h>

#include "apmw/cluster.h"
#include "apmw/metrics.h"
#include "apmw/rng.h"
#include "bench.h"

enum { AGENTS = 16, TURNS = 200 };

static apmw_trace make_trace(void)
{
    apmw_trace trace = {.block_tokens = 1};
    for (int i = 0; i < 64; i++) {
        static apmw_turn turns[TURNS];
        apmw_rng rng = apmw_rng_make(7, "bench", (uint64_t)i, 0);
        int64_t context = 90000;
        for (int t = 0; t < TURNS; t++) {
            const int64_t in = context + 50 + (int64_t)apmw_rng_below(&rng, 100);
            turns[t] = (apmw_turn){.n_in = in,
                                   .n_out = 1 + (int64_t)apmw_rng_below(&rng, 400),
                                   .parent = t - 1,
                                   .shared_in = t == 0 ? 0 : turns[t - 1].n_in,
                                   .delay_ns = (int64_t)apmw_rng_below(&rng, 2000000000)};
            context = in;
        }
        apmw_lane lane = {.spawn_after = -1, .join_before = -1};
        apmw_trajectory trajectory = {
            .id = "bench", .source = "bench", .global_id = -1, .turns = turns, .n_turns = TURNS, .lanes = &lane, .n_lanes = 1};
        apmw_error err = {0};
        if (apmw_trace_add(&trace, &trajectory, &err) != APMW_OK) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
    }
    return trace;
}

int main(int argc, char **argv)
{
    const apmw_linear_cost numbers = {.fixed_s = 0.008, .per_token_s = 5e-6, .per_seq_s = 2e-5, .per_kv_s = {2e-9},
                                      .per_pair_s = 2e-11, .flops_per_token = 1e11, .bytes_per_step = 1e11,
                                      .bytes_per_kv = {1000}, .n_kinds = 1, .kv_cap = {INT64_MAX}, .n_accelerators = 8};
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    apmw_trace trace = make_trace();
    const apmw_engine_config engine = {.cost = cost, .batching = APMW_BATCHING_VLLM, .n_ranks = 1, .max_num_seqs = 1024,
                                       .max_num_batched_tokens = 8192, .chunked_prefill = true, .block_tokens = 16,
                                       .kv_blocks = 200000, .prefix_caching = true, .acceptance_length = 1.0};
    const apmw_agents agents = {.trace = &trace, .n_agents = AGENTS, .spawn_interval_ns = APMW_NS_PER_S,
                                .delay_scale = 1.0, .seed = 1, .plays_per_agent = 20};
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = true, .tokens_balance = true});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
    apmw_workload workload;
    apmw_sim *sim = NULL;
    apmw_error err = {0};
    const double begin = bench_now_s();
    if (apmw_workload_agents(&agents, &workload, &err) != APMW_OK ||
        apmw_sim_create(&config, workload, probes, 2, &sim, &err) != APMW_OK ||
        apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err) != APMW_OK || apmw_laws_status(laws, &err) != APMW_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    const double seconds = bench_now_s() - begin;
    const double turns = (double)apmw_laws_terminal(laws);
    bench_head("replay", argc, argv);
    printf("\"agents\":%d,\"turns\":%.0f,\"events\":%llu,\"simulated_s\":%.0f,\"wall_s\":%.3f,\"turns_per_s\":%.0f}\n",
           AGENTS, turns, (unsigned long long)apmw_des_handled(apmw_sim_des(sim)),
           apmw_time_to_s(apmw_des_now(apmw_sim_des(sim))), seconds, turns / seconds);
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    apmw_collector_free(collector);
    apmw_step_cost_free(cost);
    apmw_trace_free(&trace);
    return turns / seconds >= 10000.0 ? 0 : 1;
}
