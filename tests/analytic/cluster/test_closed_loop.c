/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Closed loops on a linear cost, worked by hand: step = 10 ms + 10 us a token + 1 ms a decoding sequence. */
#include <math.h>

#include "agents_case.h"
#include "apmw/rng.h"

static apmw_collector *fixed(const apmw_fixed_loop *loop)
{
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    const apmw_engine_config engine = case_engine(cost);
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_fixed_loop(loop, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, true);
    apmw_step_cost_free(cost);
    return collector;
}

static void one_slot(void **state)
{
    (void)state;
    const apmw_fixed_loop loop = {.slots = 1, .n_requests = 5, .isl = 1000, .osl = 101, .ratio = 1.0, .seed = 0,
                                  .gap_ns = 3000};
    apmw_collector *collector = fixed(&loop);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++) {
        /* Prompt: 10 ms + 1000 x 10 us. Then 100 steps of 10 ms + 10 us + 1 ms. */
        assert_near(apmw_record_ttft_s(&r[i]), 0.02, 2e-9);
        assert_near(apmw_record_tpot_s(&r[i]), 0.01101, 2e-9);
        assert_near(apmw_record_e2e_s(&r[i]), 0.02 + 100 * 0.01101, 1e-7);
        assert_true(i == 0 ? r[i].submitted == 0 : r[i].submitted == r[i - 1].done + 3000);
    }
    apmw_collector_free(collector);
}

static void burst(void **state)
{
    (void)state;
    /* Four prompts of 1000 tokens fit one budget of 4096: all start together and stay together. */
    const apmw_fixed_loop loop = {.slots = 4, .n_requests = 8, .isl = 1000, .osl = 11, .ratio = 1.0, .seed = 0};
    apmw_collector *collector = fixed(&loop);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 8);
    const double prefill = 0.01 + 4000e-5, decode = 0.01 + 4e-5 + 4e-3;
    for (size_t i = 0; i < n; i++) {
        assert_near(apmw_record_ttft_s(&r[i]), prefill, 2e-9);
        assert_near(apmw_record_tpot_s(&r[i]), decode, 2e-9);
    }
    assert_near(apmw_time_to_s(r[7].done), 2 * (prefill + 10 * decode), 1e-7);
    apmw_collector_free(collector);
}

static void lengths_are_drawn_inputs_first(void **state)
{
    (void)state;
    const apmw_fixed_loop loop = {.slots = 2, .n_requests = 6, .isl = 1024, .osl = 8192, .ratio = 0.8, .seed = 3};
    apmw_collector *collector = fixed(&loop);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    /* int(0.8 L) = 819 and 6553. That the generator is numpy's is shown in tests/unit/base/test_rng.c. */
    int64_t in[6], out[6];
    apmw_mt19937 generator;
    apmw_mt19937_seed(&generator, 3);
    apmw_mt19937_randint(&generator, 819, 1024, 6, in);
    apmw_mt19937_randint(&generator, 6553, 8192, 6, out);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].n_prompt, in[r[i].id]);
        assert_int_equal(r[i].n_out, out[r[i].id]);
    }
    apmw_collector_free(collector);
}

/* Mean in flight = arrival rate x mean residence over a window of agents in steady state; and throughput of a closed loop
 * = agents / (residence + think time). */
static void littles_law(void **state)
{
    (void)state;
    enum { AGENTS = 7, TURNS = 40, PLAYS = 5 };
    apmw_trace trace = {0};
    apmw_turn turns[TURNS];
    for (int k = 0; k < TURNS; k++) {
        turns[k] = case_turn(512 + 16 * k, 50, k - 1, k == 0 ? 0 : 512 + 16 * (k - 1), 0, 0.5);
    }
    case_add(&trace, turns, TURNS, 0);
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    const apmw_engine_config engine = case_engine(cost);
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    const apmw_agents agents = {.trace = &trace, .n_agents = AGENTS, .spawn_interval_ns = 1, .delay_scale = 1.0,
                                .seed = 1, .plays_per_agent = PLAYS};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, false);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    const double from = 20.0, to = 80.0;
    double in_window = 0, residence = 0, overlap = 0;
    for (size_t i = 0; i < n; i++) {
        const double begin = apmw_time_to_s(r[i].submitted), end = apmw_time_to_s(r[i].done);
        overlap += fmax(0.0, fmin(end, to) - fmax(begin, from));
        if (begin >= from && begin < to) {
            in_window += 1;
            residence += end - begin;
        }
    }
    const double rate = in_window / (to - from), mean = residence / in_window;
    assert_near_relative(overlap / (to - from), rate * mean, 0.02); /* edge terms: 7 requests of some 460 */
    assert_near_relative(rate, AGENTS / (mean + 0.5), 0.02);
    apmw_collector_free(collector);
    apmw_step_cost_free(cost);
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_slot), cmocka_unit_test(burst),
                                       cmocka_unit_test(lengths_are_drawn_inputs_first), cmocka_unit_test(littles_law)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
