/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Small deployments on a linear cost and hand-made trajectories, for tests of load drivers, routing and trials. Header
 * only, since test support knows no layer above base. */
#ifndef APMW_AGENTS_CASE_H
#define APMW_AGENTS_CASE_H
#include <string.h>

#include "apmw/cluster.h"
#include "apmw/metrics.h"
#include "test_support.h"

static inline apmw_step_cost *case_cost(double fixed_s, double per_token_s, double per_seq_s)
{
    const apmw_linear_cost numbers = {.fixed_s = fixed_s, .per_token_s = per_token_s, .per_seq_s = per_seq_s,
                                      .flops_per_token = 1e9, .bytes_per_step = 1e9, .n_kinds = 1,
                                      .kv_cap = {INT64_MAX}, .n_accelerators = 1};
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    assert_non_null(cost);
    return cost;
}

static inline apmw_engine_config case_engine(const apmw_step_cost *cost)
{
    return (apmw_engine_config){.cost = cost, .batching = APMW_BATCHING_VLLM, .n_ranks = 1, .max_num_seqs = 256,
                                .max_num_batched_tokens = 4096, .chunked_prefill = true, .block_tokens = 16,
                                .kv_blocks = 100000, .prefix_caching = true, .acceptance_length = 1.0};
}

static inline apmw_turn case_turn(int64_t n_in, int64_t n_out, int32_t parent, int64_t shared_in, int64_t shared_out,
                                  double delay_s)
{
    return (apmw_turn){.n_in = n_in, .n_out = n_out, .parent = parent, .shared_in = shared_in,
                       .shared_out = shared_out, .delay_ns = apmw_time_from_s(delay_s)};
}

/* Appends a trajectory of one lane. global_tokens 0 = no shared prefix. */
static inline void case_add(apmw_trace *trace, const apmw_turn *turns, int32_t n, int64_t global_tokens)
{
    apmw_turn copy[64];
    apmw_lane lane = {.spawn_after = -1, .join_before = -1};
    memcpy(copy, turns, (size_t)n * sizeof *turns);
    const apmw_trajectory t = {.id = "case", .source = "test", .global_id = global_tokens > 0 ? 0 : -1,
                               .global_tokens = global_tokens, .turns = copy, .n_turns = n, .lanes = &lane, .n_lanes = 1};
    apmw_error err = {0};
    trace->block_tokens = 1;
    assert_ok(apmw_trace_add(trace, &t, &err), &err);
}

/* Runs to the end with the laws attached; the caller frees the collector. */
static inline apmw_collector *case_run(const apmw_sim_config *config, apmw_workload workload, bool keep_steps)
{
    apmw_error err = {0};
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = true, .tokens_balance = true});
    apmw_collector *collector = apmw_collector_create(NULL, keep_steps);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
    apmw_sim *sim = NULL;
    assert_ok(apmw_sim_create(config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    assert_int_equal(apmw_laws_submitted(laws), apmw_laws_terminal(laws));
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    return collector;
}

/* Two runs of the same requests: all counts equal, ends at most `tolerance` apart. */
static inline void case_same_records(const apmw_collector *a, const apmw_collector *b, apmw_time tolerance)
{
    size_t n, m;
    const apmw_request_record *x = apmw_collector_requests(a, &n), *y = apmw_collector_requests(b, &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++) {
        assert_true(x[i].id == y[i].id && x[i].agent == y[i].agent && x[i].turn == y[i].turn && x[i].play == y[i].play &&
                    x[i].engine == y[i].engine && x[i].rank == y[i].rank && x[i].n_cached == y[i].n_cached &&
                    x[i].state == y[i].state && x[i].n_preemptions == y[i].n_preemptions);
        const apmw_time apart = x[i].done > y[i].done ? x[i].done - y[i].done : y[i].done - x[i].done;
        assert_true(apart <= tolerance);
    }
}

#endif
