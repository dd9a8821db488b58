/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Prefill and decode apart, worked by hand on a linear cost: step = 10 ms + 10 us a token + 1 ms a decoding sequence. */
#include <math.h>

#include "agents_case.h"

/* 100 kB a token; links of 1 GB/s: 0.1 ms a token. */
static apmw_kv_link slow_link(void)
{
    return (apmw_kv_link){.out_bytes_per_s = 1e9, .in_bytes_per_s = 4e9, .bytes_per_token = 1e5,
                          .latency_ns = 5000000};
}

static apmw_kv_link free_link(void)
{
    return (apmw_kv_link){.out_bytes_per_s = (double)INFINITY, .in_bytes_per_s = (double)INFINITY, .bytes_per_token = 1e5};
}

static apmw_collector *run(int n_prefill, int n_decode, apmw_kv_link link, int64_t decode_blocks, apmw_workload workload)
{
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    apmw_engine_config engines[4];
    for (int i = 0; i < n_prefill + n_decode; i++) {
        engines[i] = case_engine(cost);
        if (i >= n_prefill && decode_blocks > 0) {
            engines[i].kv_blocks = decode_blocks;
        }
    }
    const apmw_sim_config config = {.engines = engines, .n_engines = (size_t)(n_prefill + n_decode),
                                    .n_prefill = (size_t)n_prefill, .link = link, .seed = 1};
    apmw_collector *collector = case_run(&config, workload, true);
    apmw_step_cost_free(cost);
    return collector;
}

static apmw_workload fixed(int64_t slots, int64_t n, int64_t isl, int64_t osl)
{
    const apmw_fixed_loop loop = {.slots = slots, .n_requests = n, .isl = isl, .osl = osl, .ratio = 1.0};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_fixed_loop(&loop, &workload, &err), &err);
    return workload;
}

/* A transfer that costs nothing leaves what one engine does for one client alone. */
static void free_transfer_costs_nothing(void **state)
{
    (void)state;
    apmw_collector *apart = run(1, 1, free_link(), 0, fixed(1, 5, 1000, 101));
    apmw_collector *one = run(0, 1, free_link(), 0, fixed(1, 5, 1000, 101));
    size_t n, m;
    const apmw_request_record *a = apmw_collector_requests(apart, &n), *b = apmw_collector_requests(one, &m);
    assert_int_equal(n, 5);
    assert_int_equal(m, 5);
    for (size_t i = 0; i < n; i++) {
        assert_near(apmw_record_ttft_s(&a[i]), apmw_record_ttft_s(&b[i]), 2e-9);
        assert_near(apmw_record_tpot_s(&a[i]), apmw_record_tpot_s(&b[i]), 2e-9);
        assert_int_equal(a[i].n_transferred, 1000);
        assert_int_equal(a[i].engine, 1);
    }
    apmw_collector_free(apart);
    apmw_collector_free(one);
}

static void transfer_delays_the_first_token_only(void **state)
{
    (void)state;
    apmw_collector *collector = run(1, 1, slow_link(), 0, fixed(1, 3, 1000, 101));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    for (size_t i = 0; i < n; i++) {
        /* Prompt 20 ms, 1000 tokens of 0.1 ms, 5 ms; then 100 steps of 11.01 ms. */
        assert_near(apmw_record_ttft_s(&r[i]), 0.02 + 0.1 + 0.005, 4e-9);
        assert_near(apmw_record_tpot_s(&r[i]), 0.01101, 2e-9);
    }
    apmw_collector_free(collector);
}

static void last_chunk_is_all_that_is_left(void **state)
{
    (void)state;
    apmw_kv_link link = slow_link();
    link.decode_first = true;
    link.last_chunk_tokens = 200;
    link.out_bytes_per_s = 1e10; /* 10 ms for the prompt, 2 ms for a chunk */
    link.in_bytes_per_s = 1e10;
    apmw_collector *collector = run(1, 1, link, 0, fixed(1, 3, 1000, 101));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        assert_near(apmw_record_ttft_s(&r[i]), 0.02 + 0.002 + 0.005, 4e-9);
        assert_int_equal(r[i].n_transferred, 1000);
    }
    apmw_collector_free(collector);
}

/* Two prefill engines end together. Each way out takes its 100 ms; the way in takes the two in turn, 25 ms each at 4 GB/s
 * beside them, or 200 ms each at 0.5 GB/s. */
static void each_end_takes_its_own_time(void **state)
{
    (void)state;
    const struct {
        double in_bytes_per_s, first, second;
    } cases[] = {{4e9, 0.125, 0.125}, {0.5e9, 0.225, 0.425}};
    for (int c = 0; c < 2; c++) {
        apmw_kv_link link = slow_link();
        link.in_bytes_per_s = cases[c].in_bytes_per_s;
        apmw_collector *collector = run(2, 1, link, 0, fixed(2, 2, 1000, 11));
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 2);
        const double first = fmin(apmw_record_ttft_s(&r[0]), apmw_record_ttft_s(&r[1]));
        const double second = fmax(apmw_record_ttft_s(&r[0]), apmw_record_ttft_s(&r[1]));
        assert_near(first, cases[c].first, 4e-9);
        /* The second joins at a step boundary of the first. */
        assert_true(second >= cases[c].second - 4e-9 && second <= cases[c].second + 0.0121);
        apmw_collector_free(collector);
    }
}

/* Work on the tokens of a hand-over delays a request and holds up no other. */
static void handover_is_a_delay(void **state)
{
    (void)state;
    apmw_kv_link link = free_link();
    link.handover_ns_per_token = 50000; /* 50 ms for 1000 tokens */
    apmw_collector *collector = run(2, 2, link, 0, fixed(2, 2, 1000, 11));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    for (size_t i = 0; i < n; i++) {
        assert_near(apmw_record_ttft_s(&r[i]), 0.02 + 0.05, 4e-9);
    }
    apmw_collector_free(collector);
}

/* Chunks of 200 on a link that needs 100 ms for all: it is busy since the prompt began, so it ends at 100 ms, not at
 * 20 ms + the last chunk's 20. */
static void earlier_chunks_take_the_link_too(void **state)
{
    (void)state;
    apmw_kv_link link = slow_link();
    link.decode_first = true;
    link.last_chunk_tokens = 200;
    link.latency_ns = 0;
    apmw_collector *collector = run(1, 1, link, 0, fixed(1, 3, 1000, 101));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        assert_near(apmw_record_ttft_s(&r[i]), 0.1, 4e-9);
    }
    apmw_collector_free(collector);
}

/* The prefill engine cannot take such a prompt; decode had taken blocks for it first. Others go on. */
static void what_prefill_refuses_frees_decode(void **state)
{
    (void)state;
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    apmw_engine_config engines[2] = {case_engine(cost), case_engine(cost)};
    engines[0].kv_blocks = 50;   /* 800 tokens */
    engines[1].kv_blocks = 70;   /* one such request at a time */
    apmw_kv_link link = free_link();
    link.decode_first = true;
    const apmw_sim_config config = {.engines = engines, .n_engines = 2, .n_prefill = 1, .link = link, .seed = 1};
    apmw_collector *collector = case_run(&config, fixed(2, 8, 1000, 20), true);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 8);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].state, APMW_REQUEST_REJECTED);
    }
    apmw_collector_free(collector);
    apmw_step_cost_free(cost);
}

/* The second turn of a conversation: the decode engine has prompt and output of the first, the prefill engine its
 * prompt. Only what each lacks is computed or sent. */
static void only_what_is_missing_is_sent(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    const apmw_turn turns[2] = {case_turn(1600, 161, -1, 0, 0, 1.0), case_turn(3200, 17, 0, 1600, 160, 0.0)};
    case_add(&trace, turns, 2, 0);
    const apmw_agents agents = {.trace = &trace, .n_agents = 1, .spawn_interval_ns = 1, .output_cached = true,
                                .delay_scale = 1.0, .plays_per_agent = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = run(1, 1, slow_link(), 0, workload);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 2);
    assert_int_equal(r[0].n_transferred, 1600);
    assert_int_equal(r[1].n_cached, 1600);
    assert_int_equal(r[1].n_transferred, 3200 - 1760);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

/* Room for two conversations at a time on the decode side: the others keep their KV on the prefill side and wait. */
static void full_decode_pool_holds_back(void **state)
{
    (void)state;
    apmw_collector *collector = run(1, 1, free_link(), 2 * 70 + 1, fixed(6, 12, 1000, 101));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 12);
    double longest = 0.0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].state, APMW_REQUEST_DONE);
        assert_int_equal(r[i].n_preemptions, 0);
        longest = fmax(longest, apmw_record_ttft_s(&r[i]));
    }
    /* The fifth and sixth wait for two pairs of 100 steps of at least 11 ms. */
    assert_true(longest > 2.2);
    apmw_collector_free(collector);
}

static void what_decode_refuses_is_let_go(void **state)
{
    (void)state;
    for (int decode_first = 0; decode_first < 2; decode_first++) {
        apmw_kv_link link = free_link();
        link.decode_first = decode_first == 1;
        apmw_collector *collector = run(1, 1, link, 10, fixed(2, 4, 1000, 101));
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 4);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(r[i].state, APMW_REQUEST_REJECTED);
        }
        apmw_collector_free(collector);
    }
}

static void one_token_needs_no_decode(void **state)
{
    (void)state;
    apmw_collector *collector = run(1, 1, slow_link(), 0, fixed(1, 2, 1000, 1));
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 2);
    assert_near(apmw_record_ttft_s(&r[0]), 0.02, 2e-9);
    assert_int_equal(r[0].engine, 0);
    apmw_collector_free(collector);
}

static void impossible_links_are_refused(void **state)
{
    (void)state;
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    const apmw_engine_config engines[2] = {case_engine(cost), case_engine(cost)};
    apmw_sim_config config = {.engines = engines, .n_engines = 2, .n_prefill = 1, .link = free_link(), .seed = 1};
    config.link.out_bytes_per_s = 0.0;
    apmw_sim *sim = NULL;
    apmw_error err = {0};
    assert_int_equal(apmw_sim_create(&config, fixed(1, 1, 10, 2), NULL, 0, &sim, &err), APMW_E_SCENARIO);
    config.link = free_link();
    config.n_prefill = 2;
    assert_int_equal(apmw_sim_create(&config, fixed(1, 1, 10, 2), NULL, 0, &sim, &err), APMW_E_SCENARIO);
    apmw_step_cost_free(cost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_transfer_costs_nothing), cmocka_unit_test(transfer_delays_the_first_token_only),
        cmocka_unit_test(last_chunk_is_all_that_is_left), cmocka_unit_test(each_end_takes_its_own_time), cmocka_unit_test(handover_is_a_delay),
        cmocka_unit_test(earlier_chunks_take_the_link_too), cmocka_unit_test(what_prefill_refuses_frees_decode),
        cmocka_unit_test(only_what_is_missing_is_sent), cmocka_unit_test(full_decode_pool_holds_back),
        cmocka_unit_test(what_decode_refuses_is_let_go), cmocka_unit_test(one_token_needs_no_decode),
        cmocka_unit_test(impossible_links_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
