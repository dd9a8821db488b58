/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Capacity of a linear cost by hand: step = 10 ms + 10 us a token + c a decoding sequence, agents without tool time, so the
 * batch is nearly the population. */
#include "study_case.h"

static const apmw_phase_rules *rules(void)
{
    static apmw_phase_rules r;
    r = case_rules();
    return &r;
}

static void find(apmw_deployment *d, const apmw_tier *tier, apmw_capacity *out)
{
    apmw_trace trace = {0};
    case_trace(&trace);
    const apmw_trial_config config = {.deployment = d, .trace = &trace, .rules = rules(), .tiers = tier, .n_tiers = 1,
                                      .seed = 3, .delay_scale = 1.0, .time_scale = 1.0, .acceptance_scale = 1.0,
                                      .give_up_tier = 0};
    apmw_trial_book *book = apmw_trial_book_create(&config);
    apmw_error err = {0};
    assert_ok(apmw_capacity_search(book, 0, 0, 0.0, 1.0, out, &err), &err);
    /* Law L24: no population twice, the last pass below the first fail. */
    for (size_t i = 1; i < apmw_trial_book_count(book); i++) {
        assert_true(apmw_trial_book_at(book, i - 1)->n_agents < apmw_trial_book_at(book, i)->n_agents);
    }
    assert_int_equal(out->bracket.fail, out->bracket.pass + 1);
    apmw_trial_book_free(book);
    apmw_trace_free(&trace);
}

static void speed_limits(void **state)
{
    (void)state;
    /* A decode step of n sequences lasts 10 + 1.01 n ms, and a request sees one prompt step of another (10 ms + 40-odd
     * tokens) for each request that starts meanwhile: with all N alike, N - 1 of them in its 42 tokens or so. At N = 16:
     * 26.2 ms x 42 + 15 x 0.6 ms = 1.109 s for 41 gaps: 37.9 tok/s. */
    apmw_deployment d = case_deployment("tp1", 1e-3, 1);
    const apmw_tier tier = case_tier(1, 40.0, 10.0);
    apmw_capacity c;
    find(&d, &tier, &c);
    /* 25 ms a token at the limit: 10 + 1.01 n + 0.6 n / 41 = 25 gives n = 14.6; P25 asks a little more than the mean. */
    assert_true(c.agents >= 13 && c.agents <= 15);
    assert_string_equal(c.limited_by, "speed");
    assert_contains(c.limited_why, "output_speed");
    assert_near(c.at_pass.steps.mean_batch, (double)c.agents, 1.0);
    assert_true(c.at_pass.verdict[0].pass && !c.at_fail.verdict[0].pass);
    assert_true(c.at_pass.verdict[0].margin >= 1.0 && c.at_fail.verdict[0].margin < 1.0);
    /* Duty is 1 without host time, FLOP and bandwidth are negligible: P = 700 (0.2 + 0.77 (1 - exp(-1 / 1.26))). */
    assert_near_relative(c.at_pass.energy.mean_w, 700 * (0.2 + 0.77 * (1 - exp(-1 / 1.26))), 0.02);
    apmw_deployment_free(&d);
    /* Two replicas carry twice as many. */
    apmw_deployment two = case_deployment("tp1x2", 1e-3, 2);
    apmw_capacity c2;
    find(&two, &tier, &c2);
    assert_true(c2.agents >= 2 * c.agents - 2 && c2.agents <= 2 * c.agents + 2);
    apmw_deployment_free(&two);
}

static void ttft_limits(void **state)
{
    (void)state;
    /* A serial front end of 0.1 ms a prompt token: some 35 ms a request, 28 requests a second at most. A request without
     * queueing lasts 42 tokens x 11 ms or more, so beyond some 20 agents the rest wait at the front end. */
    apmw_deployment d = case_deployment("tp1", 1e-5, 1);
    d.engine.frontend_ns_per_token = 1e5;
    const apmw_tier tier = case_tier(1, 20.0, 0.5);
    apmw_capacity c;
    find(&d, &tier, &c);
    assert_string_equal(c.limited_by, "ttft");
    assert_contains(c.limited_why, "front end");
    assert_true(c.agents >= 10 && c.agents <= 45);
    assert_true(c.at_fail.frontend_share > 0.9 && c.at_fail.frontend_share < 1.05);
    apmw_deployment_free(&d);
}

static void memory_limits(void **state)
{
    (void)state;
    /* 200 blocks of 16 tokens hold about six contexts of 500 tokens. Ten seconds of tools keep the batch small, so only
     * what waits in the cache fills it; prompts that must be computed again are priced at 1 ms a token. */
    apmw_deployment d = case_deployment("tp1", 1e-4, 1);
    apmw_step_cost_free(d.cost);
    d.cost = case_cost(0.01, 3e-4, 1e-4);
    d.engine = case_engine(d.cost);
    d.engine.kv_blocks = 300;
    const apmw_tier tier = case_tier(1, 25.0, 10.0);
    apmw_capacity c;
    find(&d, &tier, &c);
    assert_string_equal(c.limited_by, "kv memory");
    apmw_deployment_free(&d);
    /* A pool that cannot hold the longest request: no capacity, and it says why. */
    apmw_deployment tiny = case_deployment("tp1", 1e-4, 1);
    tiny.engine.kv_blocks = 20;
    find(&tiny, &tier, &c);
    assert_int_equal(c.agents, 0);
    assert_string_equal(c.limited_by, "kv memory");
    assert_contains(c.limited_why, "never fit");
    apmw_deployment_free(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(speed_limits), cmocka_unit_test(ttft_limits),
                                       cmocka_unit_test(memory_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
