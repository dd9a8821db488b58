/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers of KV below an engine, worked by hand on a linear cost: step = 10 ms + 10 us a token. The pool holds 150 blocks of
 * 16 tokens. A conversation of 1600 tokens fills 100; another of 1600 takes 100, so that the first keeps 50 blocks, 800
 * tokens; then the first comes back with 1616. */
#include <math.h>

#include "tiers_case.h"

static const asked RETURNS[] = {{0.0, 0, 1600, 1}, {1.0, 1, 1600, 1}, {2.0, 0, 1616, 1}};
enum { BACK = 2 };

static apmw_sim_config deployment(apmw_engine_config *engines, size_t n, const apmw_step_cost *cost,
                                  const apmw_tiers_setup *tiers)
{
    for (size_t i = 0; i < n; i++) {
        engines[i] = case_engine(cost);
        engines[i].kv_blocks = 150;
    }
    return (apmw_sim_config){.engines = engines, .n_engines = n, .routing = APMW_ROUTING_ROUND_ROBIN, .tiers = tiers, .seed = 1};
}

static void run(const asked *list, size_t n, size_t n_engines, const apmw_tiers_setup *tiers, script *s,
                apmw_tier_stats stats[APMW_KV_MAX_TIERS])
{
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    apmw_engine_config engines[2];
    const apmw_sim_config config = deployment(engines, n_engines, cost, tiers);
    *s = (script){.list = list, .n = n};
    memset(stats, 0, APMW_KV_MAX_TIERS * sizeof *stats);
    script_run(s, &config, stats);
    apmw_step_cost_free(cost);
}

static apmw_tiers_setup one_tier(apmw_kv_load load, double bytes_per_s)
{
    return (apmw_tiers_setup){.tiers = {case_tier("host", 100000, bytes_per_s)}, .n_tiers = 1, .load = load};
}

static double ttft(const script *s, size_t i)
{
    return apmw_record_ttft_s(&s->requests[i].record);
}

static void without_tiers_it_is_computed(void **state)
{
    (void)state;
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    run(RETURNS, 3, 1, NULL, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_cached, 800);
    assert_int_equal(s.requests[BACK].record.n_fetched, 0);
    assert_near(ttft(&s, BACK), 0.01 + 816 * 1e-5, 2e-9);
}

static void what_was_lost_is_loaded(void **state)
{
    (void)state;
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    for (int back = 0; back < 2; back++) {
        apmw_tiers_setup tiers = one_tier(APMW_KV_LOAD_ALWAYS, 1e9);
        tiers.write_back = back == 1;
        run(RETURNS, 3, 1, &tiers, &s, stats);
        assert_int_equal(s.requests[BACK].record.n_cached, 800);
        assert_int_equal(s.requests[BACK].record.n_fetched, 800);
        /* 800 tokens of 0.1 ms, 5 ms; then 16 tokens. */
        assert_near(ttft(&s, BACK), 0.08 + 0.005 + 0.01 + 16 * 1e-5, 4e-9);
        assert_int_equal(stats[0].loads, 1);
        assert_int_equal(stats[0].loaded_tokens, 800);
        assert_near(stats[0].loaded_bytes, 8e7, 1.0);
        assert_near(stats[0].load_busy_s, 0.08, 1e-9);
        assert_near(stats[0].load_wait_s, 0.0, 1e-9);
        assert_int_equal(stats[0].capacity_tokens, 100000);
        /* Through: both prompts and the block that came with the return. Back: the first, when its tail went, and the
         * second, when the return took its place. */
        assert_int_equal(stats[0].stored_tokens, back == 1 ? 3200 : 3216);
        assert_int_equal(stats[0].cached_tokens, stats[0].stored_tokens);
    }
}

/* Computing 800 tokens more in the same pass takes 8 ms. */
static void a_load_that_is_slower_is_not_done(void **state)
{
    (void)state;
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    apmw_tiers_setup tiers = one_tier(APMW_KV_LOAD_FASTER, 1e10); /* 8 ms and 5 ms */
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_fetched, 0);
    assert_int_equal(stats[0].declined_tokens, 800);
    assert_near(ttft(&s, BACK), 0.01 + 816 * 1e-5, 2e-9);
    tiers = one_tier(APMW_KV_LOAD_FASTER, 1e11); /* 0.8 ms and 5 ms */
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_fetched, 800);
    assert_near(ttft(&s, BACK), 0.0008 + 0.005 + 0.01 + 16 * 1e-5, 4e-9);
    tiers = one_tier(APMW_KV_LOAD_NEVER, 1e11);
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_fetched, 0);
}

/* A near tier of 1600 tokens keeps of the first conversation nothing once it has the second; the far one has it all. */
static void what_the_near_tier_lost_comes_from_the_far_one(void **state)
{
    (void)state;
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    apmw_tiers_setup tiers = {.tiers = {case_tier("host", 1600, 1e9), case_tier("nvme", 100000, 5e8)},
                              .n_tiers = 2,
                              .load = APMW_KV_LOAD_ALWAYS};
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_fetched, 0); /* without cascade it is gone */
    tiers.tiers[0].kv.cascade = true;
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(s.requests[BACK].record.n_fetched, 800);
    assert_near(ttft(&s, BACK), 0.16 + 0.005 + 0.01 + 16 * 1e-5, 4e-9);
    assert_int_equal(stats[0].loaded_tokens, 0);
    assert_int_equal(stats[1].loaded_tokens, 800);
    /* A near tier that holds 1200 tokens of it: both load at once. */
    tiers.tiers[0] = case_tier("host", 2800, 1e9);
    tiers.tiers[0].kv.cascade = true;
    run(RETURNS, 3, 1, &tiers, &s, stats);
    assert_int_equal(stats[0].loaded_tokens, 400);
    assert_int_equal(stats[1].loaded_tokens, 400);
    assert_near(ttft(&s, BACK), 0.08 + 0.005 + 0.01 + 16 * 1e-5, 4e-9); /* the slower of 40 and 80 ms */
}

/* The front end holds the request for 200 ms; meanwhile the far tier's 800 tokens come to the near one. */
static void prefetch_uses_the_wait(void **state)
{
    (void)state;
    script s;
    for (int prefetch = 0; prefetch < 2; prefetch++) {
        apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
        apmw_tiers_setup tiers = {.tiers = {case_tier("host", 1600, 1e10), case_tier("nvme", 100000, 5e8)},
                                  .n_tiers = 2,
                                  .load = APMW_KV_LOAD_ALWAYS,
                                  .prefetch = prefetch == 1};
        tiers.tiers[0].kv.cascade = true;
        apmw_engine_config engine;
        const apmw_sim_config config = deployment(&engine, 1, cost, &tiers);
        engine.request_overhead_ns = 400000000;
        s = (script){.list = RETURNS, .n = 3};
        apmw_tier_stats stats[APMW_KV_MAX_TIERS];
        script_run(&s, &config, stats);
        /* Of the far tier 800 tokens take 165 ms; prefetched, which brings all 1600 in 325 ms, the near one's 13 ms. */
        assert_int_equal(s.requests[BACK].record.n_fetched, 800);
        assert_near(ttft(&s, BACK), 0.4 + (prefetch == 1 ? 0.008 : 0.16) + 0.005 + 0.01 + 16 * 1e-5, 4e-9);
        assert_int_equal(stats[1].prefetched_tokens, prefetch == 1 ? 1600 : 0);
        assert_int_equal(stats[prefetch == 1 ? 0 : 1].loaded_tokens, 800);
        apmw_step_cost_free(cost);
    }
}

/* The second engine has never seen the conversation; a store for both has. */
static void a_shared_tier_serves_every_engine(void **state)
{
    (void)state;
    const asked list[] = {{0.0, 0, 1600, 1}, {1.0, 0, 1616, 1}};
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    for (int shared = 0; shared < 2; shared++) {
        apmw_tiers_setup tiers = one_tier(APMW_KV_LOAD_ALWAYS, 1e9);
        tiers.tiers[0].shared = shared == 1;
        run(list, 2, 2, &tiers, &s, stats);
        assert_int_equal(s.requests[1].record.engine, 1);
        assert_int_equal(s.requests[1].record.n_fetched, shared == 1 ? 1600 : 0);
        assert_int_equal(stats[0].capacity_tokens, shared == 1 ? 100000 : 200000);
    }
}

/* The second engine is asked for what the first still decodes on (n_out 100, a second), then for what it has ended. */
static void what_is_written_is_found_when_it_is_let_go(void **state)
{
    (void)state;
    const asked lists[2][2] = {{{0.0, 0, 1600, 100}, {0.5, 0, 1616, 1}}, {{0.0, 0, 1600, 100}, {5.0, 0, 1616, 1}}};
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    for (int after = 0; after < 2; after++) {
        for (int late = 0; late < 2; late++) {
            apmw_tiers_setup tiers = one_tier(APMW_KV_LOAD_ALWAYS, 1e9);
            tiers.tiers[0].shared = true;
            tiers.found_when_released = late == 1;
            run(lists[after], 2, 2, &tiers, &s, stats);
            assert_int_equal(s.requests[1].record.n_fetched, after == 0 && late == 1 ? 0 : 1600);
            /* 100 blocks of the first prompt, one more of the second. Late, also 6 of the 99 tokens that were
             * generated and are in KV, and the second's own 100 where it found none: both write them, the first
             * alone makes them findable. */
            const int64_t written = late == 0 ? 1616 : after == 1 ? 1616 + 96 : 1600 + 1616 + 96;
            assert_int_equal(stats[0].stored_tokens, written);
        }
    }
}

/* Two conversations come back at once, each lacks 800 tokens (80 ms). One after another: 80 and 160 ms; in equal shares
 * both after 160 ms. The steps of the one that is first are not in the other's way then. */
static void loads_share_the_link(void **state)
{
    (void)state;
    const asked list[] = {{0.0, 0, 800, 1}, {0.5, 1, 800, 1},  {1.0, 2, 1600, 1}, {1.5, 3, 800, 1},
                          {2.0, 0, 816, 1}, {2.0, 1, 816, 1}};
    script s;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    for (int fair = 0; fair < 2; fair++) {
        apmw_tiers_setup tiers = one_tier(APMW_KV_LOAD_ALWAYS, 1e9);
        tiers.fair_links = fair == 1;
        run(list, 6, 1, &tiers, &s, stats);
        assert_int_equal(s.requests[4].record.n_fetched, 800);
        assert_int_equal(s.requests[5].record.n_fetched, 800);
        assert_near(ttft(&s, 5), 0.16 + 0.005 + 0.01 + (fair == 1 ? 32 : 16) * 1e-5, 1e-8);
        assert_near(ttft(&s, 4), (fair == 1 ? 0.16 : 0.08) + 0.005 + 0.01 + (fair == 1 ? 32 : 16) * 1e-5, 1e-8);
        assert_near(stats[0].load_wait_s, fair == 1 ? 0.16 : 0.08, 1e-8);
        assert_near(stats[0].load_busy_s, 0.16, 1e-8);
    }
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-3);
    apmw_tiers_setup bad[5] = {one_tier(APMW_KV_LOAD_ALWAYS, 0.0), one_tier(APMW_KV_LOAD_ALWAYS, 1e9), {.n_tiers = 0},
                               {.tiers = {case_tier("near", 1600, 1e9), case_tier("far", 1600, 1e9)}, .n_tiers = 2}};
    bad[1].tiers[0].kv.capacity_bytes = 10.0;
    bad[3].tiers[0].shared = true;
    bad[4] = one_tier(APMW_KV_LOAD_ALWAYS, 1e9);
    bad[4].write_back = bad[4].found_when_released = true;
    for (int i = 0; i < 5; i++) {
        apmw_engine_config engine;
        const apmw_sim_config config = deployment(&engine, 1, cost, &bad[i]);
        const apmw_workload none = {0};
        apmw_sim *sim = NULL;
        apmw_error err = {0};
        assert_int_equal(apmw_sim_create(&config, none, NULL, 0, &sim, &err), APMW_E_SCENARIO);
        assert_null(sim);
    }
    apmw_step_cost_free(cost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_tiers_it_is_computed),
        cmocka_unit_test(what_was_lost_is_loaded),
        cmocka_unit_test(a_load_that_is_slower_is_not_done),
        cmocka_unit_test(what_the_near_tier_lost_comes_from_the_far_one),
        cmocka_unit_test(prefetch_uses_the_wait),
        cmocka_unit_test(a_shared_tier_serves_every_engine),
        cmocka_unit_test(what_is_written_is_found_when_it_is_let_go),
        cmocka_unit_test(loads_share_the_link),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
