/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The phase machine, told what a client sees: spawn, settle, window, drain; which requests count; verdicts. */
#include <math.h>

#include "apmw/protocol.h"
#include "test_support.h"

static const apmw_phase_rules RULES = {.version = "t", .spawn_per_s = 1, .settle_s = 10, .steady_s = 5,
                                       .min_window_s = 100, .min_trajectories = 4, .min_trajectories_per_agent = 1,
                                       .timeout_s = 1000, .max_failed_share = 0.1};
static const apmw_tier TIER = {.model = "m", .number = 1, .n_criteria = 2,
                               .criteria = {{APMW_SLO_OUTPUT_SPEED, 0.25, 20}, {APMW_SLO_TTFT, 0.95, 10}}};

static apmw_request_record begin(apmw_phase *phase, int32_t agent, double at)
{
    const apmw_request_record r = {.agent = agent, .submitted = apmw_time_from_s(at), .n_prompt = 10, .n_out = 101};
    apmw_phase_on_submit(phase, r.submitted, &r);
    return r;
}

/* Ends with that TTFT and output speed. */
static void end(apmw_phase *phase, apmw_request_record r, double ttft, double speed, bool last)
{
    r.state = APMW_REQUEST_DONE;
    r.first_token = r.submitted + apmw_time_from_s(ttft);
    r.last_token = r.done = r.first_token + apmw_time_from_s(100.0 / speed);
    r.last_of_trajectory = last;
    apmw_phase_on_request(phase, r.done, &r);
}

static double from_s(const apmw_phase *phase)
{
    apmw_time from, to;
    apmw_phase_window(phase, &from, &to);
    return from == APMW_TIME_NEVER ? -1 : apmw_time_to_s(from);
}

static double to_s(const apmw_phase *phase)
{
    apmw_time from, to;
    apmw_phase_window(phase, &from, &to);
    return to == APMW_TIME_NEVER ? -1 : apmw_time_to_s(to);
}

static void states(void **state)
{
    (void)state;
    apmw_phase *phase = apmw_phase_create(&RULES, 2);
    assert_int_equal(apmw_phase_now(phase), APMW_PHASE_SPAWN);
    apmw_request_record a = begin(phase, 0, 0);
    assert_near(from_s(phase), -1, 0);
    apmw_request_record b = begin(phase, 1, 1); /* all active at 1 s: measured from 1 + max(10, 5) */
    assert_int_equal(apmw_phase_now(phase), APMW_PHASE_SETTLE);
    assert_near(from_s(phase), 11, 1e-9);
    assert_int_equal(apmw_phase_next(phase), apmw_time_from_s(11));
    end(phase, a, 1, 20, true); /* ends at 6 s; counts as a trajectory, not as a request */
    assert_int_equal(apmw_phase_advance(phase, apmw_time_from_s(11)), APMW_PHASE_MEASURE);
    a = begin(phase, 0, 11); /* at the very settling end: measured */
    end(phase, a, 1, 20, true);
    end(phase, b, 3, 20, true); /* began before the window: not measured */
    b = begin(phase, 1, 20);
    end(phase, b, 2, 25, true); /* the fourth trajectory: only the window's length is missing */
    assert_int_equal(apmw_phase_next(phase), apmw_time_from_s(111));
    a = begin(phase, 0, 110);
    assert_int_equal(apmw_phase_advance(phase, apmw_time_from_s(111)), APMW_PHASE_DRAIN);
    assert_near(to_s(phase), 111, 1e-8);
    b = begin(phase, 1, 111.5); /* after the end: not measured, not waited for */
    end(phase, a, 4, 50, false);
    assert_int_equal(apmw_phase_now(phase), APMW_PHASE_ENDED);
    apmw_verdict v;
    apmw_error err = {0};
    assert_ok(apmw_phase_verdict(phase, &TIER, &v, &err), &err);
    assert_true(v.valid);
    assert_int_equal(v.n_measured, 3);
    assert_int_equal(v.trajectories, 4);
    assert_int_equal(v.trajectories_fewest_agent, 2);
    assert_near(v.value[0], 22.5, 1e-6);   /* P25 of 20, 25, 50 */
    assert_near(v.value[1], 3.8, 1e-6);    /* P95 of 1, 2, 4 */
    assert_near(v.margin, 22.5 / 20, 1e-6);
    assert_true(v.pass);
    apmw_phase_free(phase);
}

/* One agent with n requests of given speeds and TTFTs in the window, then the verdict. */
static apmw_verdict verdict_of(const double (*requests)[2], int n, const apmw_phase_rules *rules, const apmw_tier *tier)
{
    apmw_phase *phase = apmw_phase_create(rules, 1);
    end(phase, begin(phase, 0, 0), 0.5, 100, true);
    for (int i = 0; i < n; i++) {
        apmw_phase_advance(phase, apmw_time_from_s(20));
        end(phase, begin(phase, 0, 20), requests[i][0], requests[i][1], true);
    }
    apmw_phase_advance(phase, apmw_time_from_s(2000));
    apmw_verdict v;
    apmw_error err = {0};
    assert_ok(apmw_phase_verdict(phase, tier, &v, &err), &err);
    apmw_phase_free(phase);
    return v;
}

static void limits_are_inclusive(void **state)
{
    (void)state;
    const double at[][2] = {{10, 20}, {10, 20}, {10, 20}, {10, 20}};
    apmw_verdict v = verdict_of(at, 4, &RULES, &TIER);
    assert_true(v.valid && v.pass && v.met[0] && v.met[1]);
    const double slow[][2] = {{10, 20}, {10, 19.9}, {10, 19.9}, {10, 20}};
    v = verdict_of(slow, 4, &RULES, &TIER);
    assert_true(v.valid && !v.pass && !v.met[0] && v.met[1]);
    assert_contains(v.reasons, "output_speed_tok_s");
    assert_true(v.margin < 1);
    const double late[][2] = {{10, 20}, {10, 20}, {10, 20}, {10.5, 20}};
    v = verdict_of(late, 4, &RULES, &TIER);
    assert_true(v.valid && !v.pass && v.met[0] && !v.met[1]);
    assert_contains(v.reasons, "ttft_s");
    /* Three quarters at the speed is enough: a quarter may be slower. */
    const double quarter[][2] = {{1, 20}, {1, 20}, {1, 20}, {1, 20}, {1, 5}};
    assert_true(verdict_of(quarter, 5, &RULES, &TIER).pass);
}

static void end_to_end_speed(void **state)
{
    (void)state;
    /* 101 tokens; TTFT 5 s and 100 tokens at 20/s: 10 s in all. */
    const double at[][2] = {{5, 20}, {5, 20}, {5, 20}, {5, 20}};
    apmw_tier tier = {.n_criteria = 1, .criteria = {{APMW_SLO_E2E_SPEED, 0.25, 10.1}}};
    apmw_verdict v = verdict_of(at, 4, &RULES, &tier);
    assert_near(v.value[0], 10.1, 1e-6);
    assert_true(v.pass || fabs(v.value[0] - 10.1) < 1e-9);
    tier.criteria[0].limit = 10.2;
    assert_false(verdict_of(at, 4, &RULES, &tier).pass);
}

static void invalid_phases(void **state)
{
    (void)state;
    const double at[][2] = {{1, 20}, {1, 20}};
    apmw_phase_rules rules = RULES;
    rules.timeout_s = 50; /* before the window is long enough */
    apmw_verdict v = verdict_of(at, 2, &rules, &TIER);
    assert_false(v.valid);
    assert_false(v.pass);
    assert_contains(v.reasons, "window");
    assert_contains(v.reasons, "timed out");
    rules = RULES;
    rules.min_trajectories = 100;
    v = verdict_of(at, 2, &rules, &TIER);
    assert_false(v.valid);
    assert_contains(v.reasons, "3 trajectories < 100");
    /* An agent that never begins. */
    apmw_phase *phase = apmw_phase_create(&RULES, 2);
    end(phase, begin(phase, 0, 0), 1, 20, true);
    apmw_phase_advance(phase, apmw_time_from_s(1001));
    apmw_error err = {0};
    assert_ok(apmw_phase_verdict(phase, &TIER, &v, &err), &err);
    assert_false(v.valid);
    assert_contains(v.reasons, "1 of 2 agents");
    apmw_phase_free(phase);
}

static void failures_and_single_tokens(void **state)
{
    (void)state;
    apmw_phase *phase = apmw_phase_create(&RULES, 1);
    end(phase, begin(phase, 0, 0), 1, 20, true);
    apmw_phase_advance(phase, apmw_time_from_s(20));
    for (int i = 0; i < 5; i++) {
        end(phase, begin(phase, 0, 20), 1, 20, true);
    }
    apmw_request_record one = begin(phase, 0, 30);
    one.n_out = 1;
    end(phase, one, 1, 1e9, true); /* no speed */
    apmw_request_record lost = begin(phase, 0, 40);
    lost.state = APMW_REQUEST_REJECTED;
    apmw_phase_on_request(phase, apmw_time_from_s(41), &lost);
    apmw_phase_advance(phase, apmw_time_from_s(300));
    apmw_verdict v;
    apmw_error err = {0};
    assert_ok(apmw_phase_verdict(phase, &TIER, &v, &err), &err);
    assert_true(v.valid);
    assert_int_equal(v.n_measured, 7);
    assert_int_equal(v.n_failed, 1);
    assert_int_equal(v.n_one_token, 1);
    assert_near(v.value[0], 20, 1e-6);
    assert_false(v.pass); /* 1 of 7 is more than a tenth */
    assert_contains(v.reasons, "failed");
    apmw_phase_free(phase);
}

static void hopeless(void **state)
{
    (void)state;
    apmw_phase *phase = apmw_phase_create(&RULES, 1);
    end(phase, begin(phase, 0, 0), 1, 20, true);
    apmw_phase_advance(phase, apmw_time_from_s(20));
    for (int i = 0; i < 20; i++) {
        end(phase, begin(phase, 0, 20), 1, i % 2 == 0 ? 19 : 21, false); /* half too slow, a quarter is allowed */
    }
    assert_false(apmw_phase_hopeless(phase, &TIER, 100, 1.5)); /* too few to say */
    assert_true(apmw_phase_hopeless(phase, &TIER, 20, 1.5));
    assert_false(apmw_phase_hopeless(phase, &TIER, 20, 2.0)); /* not more than twice the allowed share */
    apmw_phase_free(phase);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(states), cmocka_unit_test(limits_are_inclusive),
                                       cmocka_unit_test(end_to_end_speed), cmocka_unit_test(invalid_phases),
                                       cmocka_unit_test(failures_and_single_tokens), cmocka_unit_test(hopeless)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
