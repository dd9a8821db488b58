/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random trajectories on random deployments: the laws hold, the same seed gives the same records whoever observes, and
 * the plain engine gives them too, within a microsecond. */
#include "agents_case.h"
#include "apmw/rng.h"

static void random_trace(uint64_t seed, apmw_trace *trace)
{
    apmw_rng rng = apmw_rng_make(seed, "trace", 0, 0);
    const int n = 1 + (int)apmw_rng_below(&rng, 6);
    for (int i = 0; i < n; i++) {
        apmw_turn turns[12];
        const int n_turns = 1 + (int)apmw_rng_below(&rng, 12);
        const int64_t global = apmw_rng_below(&rng, 2) == 0 ? 100 : 0;
        for (int k = 0; k < n_turns; k++) {
            const int parent = k == 0 || apmw_rng_below(&rng, 10) == 0 ? -1 : (int)apmw_rng_below(&rng, (uint64_t)k);
            const bool whole = parent >= 0 && apmw_rng_below(&rng, 3) > 0;
            const int64_t in = parent < 0 ? 0 : turns[parent].n_in;
            const int64_t shared = parent < 0 ? 0 : whole ? in : (int64_t)apmw_rng_below(&rng, (uint64_t)in + 1);
            const int64_t out = whole ? (int64_t)apmw_rng_below(&rng, (uint64_t)turns[parent].n_out + 1) : 0;
            turns[k] = case_turn((parent < 0 ? global : 0) + shared + out + 1 + (int64_t)apmw_rng_below(&rng, 600),
                                 1 + (int64_t)apmw_rng_below(&rng, 80), parent, shared, out, 2 * apmw_rng_uniform(&rng));
        }
        case_add(trace, turns, n_turns, global);
    }
}

static apmw_collector *run(uint64_t seed, const apmw_trace *trace, bool plain, bool keep_steps)
{
    apmw_rng rng = apmw_rng_make(seed, "deployment", 0, 0);
    apmw_step_cost *cost = case_cost(0.005, 2e-5, 2e-4);
    apmw_engine_config engines[4];
    const size_t n_engines = 1 + apmw_rng_below(&rng, 2);
    const int ranks = 1 + (int)apmw_rng_below(&rng, 3);
    const apmw_batching batching = (apmw_batching)apmw_rng_below(&rng, 3);
    const int64_t blocks = 150 + (int64_t)apmw_rng_below(&rng, 2000);
    const int draft = (int)apmw_rng_below(&rng, 3);
    for (size_t i = 0; i < 4; i++) {
        engines[i] = case_engine(cost);
        engines[i].batching = batching;
        engines[i].n_ranks = ranks;
        engines[i].kv_blocks = blocks;
        engines[i].max_num_seqs = 4;
        engines[i].max_num_batched_tokens = 512;
        engines[i].max_prefill_tokens = batching == APMW_BATCHING_SGLANG ? 512 : 0;
        engines[i].draft_tokens = draft;
        engines[i].acceptance_length = 1.0 + 0.6 * draft;
        engines[i].frontend_ns_per_token = 1000;
        engines[i].request_overhead_ns = 5000000;
        engines[i].plain = plain;
    }
    const apmw_agents agents = {.trace = trace, .n_agents = 1 + (int64_t)apmw_rng_below(&rng, 9),
                                .spawn_interval_ns = APMW_NS_PER_S / 3, .max_start_offset = 3, .max_output_tokens = 60,
                                .share_global = apmw_rng_below(&rng, 2) == 0,
                                .output_cached = apmw_rng_below(&rng, 2) == 0, .delay_scale = 1.0, .seed = seed,
                                .plays_per_agent = 3};
    const apmw_routing routing = (apmw_routing)apmw_rng_below(&rng, 4);
    const apmw_sim_config config = {.engines = engines, .n_engines = n_engines, .routing = routing, .seed = seed};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, keep_steps);
    apmw_step_cost_free(cost);
    return collector;
}

static void laws_and_repeatability(void **state)
{
    (void)state;
    for_each_seed(seed, 150) {
        apmw_trace trace = {0};
        random_trace(seed, &trace);
        apmw_collector *first = run(seed, &trace, false, false);
        apmw_collector *again = run(seed, &trace, false, true); /* more is observed: nothing changes */
        case_same_records(first, again, 0);
        apmw_collector *plain = run(seed, &trace, true, false);
        case_same_records(first, plain, 1000);
        apmw_collector_free(plain);
        apmw_collector_free(again);
        apmw_collector_free(first);
        apmw_trace_free(&trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(laws_and_repeatability)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
