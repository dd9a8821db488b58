/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One AgentX trial whose window, requests and throughput are known: one lane, one kind of turn, a linear cost. */
#include "apmw/agentx.h"
#include "study_case.h"

enum { TURNS = 40 };

/* Turns of 1,600 tokens of which 1,440 repeat, 21 output tokens, 4 s of tools. */
static void even_trace(apmw_trace *trace)
{
    apmw_turn turns[TURNS];
    for (int k = 0; k < TURNS; k++) {
        turns[k] = case_turn(1600, 21, k - 1, k == 0 ? 0 : 1440, 0, 4.0);
    }
    case_add(trace, turns, TURNS, 0);
}

static void one_lane(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    even_trace(&trace);
    apmw_deployment d = case_deployment("tp1", 1e-3, 1);
    const apmw_phase_rules rules = {.version = "case", .lanes = true, .start_from = 0.25, .start_to = 0.75, .warmup_turns = 3,
                                    .warmup_grace_s = 100, .min_window_s = 1000, .timeout_s = 10000,
                                    .max_failed_share = 0.01};
    const apmw_tier tier = {.number = 0, .n_criteria = 1, .criteria = {{APMW_SLO_TTFT, 0.9, 1}}};
    apmw_collector *collector = apmw_collector_create(NULL, false);
    const apmw_trial_config config = {.deployment = &d, .trace = &trace, .rules = &rules, .tiers = &tier, .n_tiers = 1,
                                      .n_agents = 1, .seed = 3, .delay_scale = 1.0, .time_scale = 1.0,
                                      .acceptance_scale = 1.0, .give_up_tier = -1, .collector = collector};
    apmw_trial_result result;
    apmw_error err = {0};
    assert_ok(apmw_trial_run(&config, &result, &err), &err);
    /* Three warm-ups, each a prompt step: 10 ms and 10 us a computed token, the first with all 1,600. */
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    const double warm_s = 3 * 0.010 + 1e-5 * (1600 + 160 + 160), from_s = apmw_time_to_s(result.window.from);
    assert_near(from_s, warm_s, 1e-6);
    assert_near(apmw_time_to_s(result.window.to) - from_s, 1000, 1e-6);
    assert_int_equal(result.latency.n_requests, (int64_t)n - 3);
    assert_int_equal(result.verdict[0].n_measured, (int64_t)n - 3);
    assert_true(result.verdict[0].valid && result.verdict[0].pass);
    /* A turn: 11.6 ms to the first token, 20 steps of 10 + 1 + 0.01 ms, 4 s of tools: 4.2318 s. */
    const double turn_s = 0.0116 + 20 * 0.01101 + 4.0;
    assert_near(result.verdict[0].value[0], 0.0116, 1e-6);
    assert_true(result.latency.n_requests >= (int64_t)(1000 / turn_s) &&
                result.latency.n_requests <= (int64_t)(1000 / turn_s) + 1);
    /* All but the first turns of the sessions that follow find 1,440 tokens. */
    int64_t cold = 0;
    for (size_t i = 0; i < n; i++) {
        cold += r[i].turn == 0 && r[i].submitted >= result.window.from;
    }
    assert_true(cold >= 5 && cold <= 7);
    assert_int_equal(result.latency.cached_tokens, 1440 * (result.latency.n_requests - cold));
    const apmw_agentx_price price = {.all_in_kw = (double)NAN, .usd_per_hour = (double)NAN};
    apmw_agentx_summary s;
    assert_ok(apmw_agentx_summarize(r, n, result.window.from, result.window.to, 1, &price, &s, &err), &err);
    assert_int_equal(s.n_sent, result.latency.n_requests);
    assert_near_relative(s.total_tok_s, 1621 / turn_s, 0.01);
    assert_near(s.interactivity_p90, 1 / 0.01101, 1e-3);
    assert_near_relative(s.e2e_interactivity_p50, 21 / (turn_s - 4.0), 1e-4);
    assert_true(isnan(s.tok_s_per_mw));
    apmw_collector_free(collector);
    apmw_deployment_free(&d);
    apmw_trace_free(&trace);
}

/* Contexts that do not fit are refused, and too many of them fail the verdict. */
static void overflow(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_turn turns[TURNS];
    for (int k = 0; k < TURNS; k++) {
        turns[k] = case_turn(100 * (k + 1), 21, k - 1, k == 0 ? 0 : 100 * k, 0, 1.0);
    }
    case_add(&trace, turns, TURNS, 0);
    apmw_deployment d = case_deployment("tp1", 1e-3, 1);
    const apmw_phase_rules rules = {.version = "case", .lanes = true, .start_from = 0.5, .start_to = 0.5, .warmup_turns = 1,
                                    .warmup_grace_s = 100, .min_window_s = 300, .timeout_s = 10000,
                                    .max_failed_share = 0.01};
    const apmw_tier tier = {.number = 0, .n_criteria = 1, .criteria = {{APMW_SLO_TTFT, 0.9, 10}}};
    for (int fits = 0; fits < 2; fits++) {
        d.engine.max_model_len = fits ? 100000 : 3000;
        const apmw_trial_config config = {.deployment = &d, .trace = &trace, .rules = &rules, .tiers = &tier, .n_tiers = 1,
                                          .n_agents = 4, .seed = 3, .delay_scale = 1.0, .time_scale = 1.0,
                                          .acceptance_scale = 1.0, .give_up_tier = -1,
                                          .max_context = d.engine.max_model_len};
        apmw_trial_result result;
        apmw_error err = {0};
        assert_ok(apmw_trial_run(&config, &result, &err), &err);
        assert_true(result.verdict[0].valid);
        assert_true(result.verdict[0].pass == (fits != 0));
        assert_true((result.latency.n_rejected > 0) == (fits == 0));
        if (!fits) {
            assert_contains(result.verdict[0].reasons, "failed");
        }
    }
    apmw_deployment_free(&d);
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_lane), cmocka_unit_test(overflow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
