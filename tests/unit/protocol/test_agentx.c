/* SPDX-License-Identifier: GPL-3.0-or-later */
/* AgentX: its rules as shipped, a phase that begins by command, and what it reports of a few requests, by hand. */
#include <math.h>
#include <string.h>

#include "apmw/agentx.h"
#include "apmw/protocol.h"
#include "test_support.h"

static void shipped_rules(void **state)
{
    (void)state;
    /* https://github.com/SemiAnalysisAI/agentx-harness and InferenceX, commit 843c6254: canonical run, fast run, default. */
    static const struct {
        const char *version;
        double window, from, to, tree;
        int warmups;
    } EXPECTED[] = {{"agentx", 3600, 0.25, 0.75, 300, 10}, {"agentx-fast", 1200, 0.25, 0.75, 300, 1},
                    {"agentx-mvp", 1800, 0, 1, 0, 1}};
    apmw_tier_book book;
    apmw_error err = {0};
    assert_ok(apmw_tier_book_load(APMW_SOURCE_DIR "/sim/protocol/tiers.json", &book, &err), &err);
    apmw_phase_rules r;
    for (int i = 0; i < 3; i++) {
        assert_ok(apmw_tier_book_rules(&book, EXPECTED[i].version, &r, &err), &err);
        assert_true(r.lanes && r.warmup_turns == EXPECTED[i].warmups && r.min_trajectories == 0);
        assert_near(r.min_window_s, EXPECTED[i].window, 0);
        assert_near(r.start_from, EXPECTED[i].from, 0);
        assert_near(r.start_to, EXPECTED[i].to, 0);
        assert_near(r.tree_idle_s, EXPECTED[i].tree, 0);
        assert_near(r.system_idle_s, 10, 0);
        assert_near(r.warmup_grace_s, 1800, 0);
        assert_near(r.max_failed_share, 0.01, 0);
        assert_int_equal(apmw_tier_book_count(&book, "deepseek-v4-pro", EXPECTED[i].version), 0);
    }
    assert_ok(apmw_tier_book_rules(&book, NULL, &r, &err), &err);
    assert_false(r.lanes); /* AgentPerf stays the default */
    assert_error(apmw_tier_book_rules(&book, "agentxx", &r, &err), APMW_E_USAGE, &err, "agentx-fast");
    apmw_tier_book_free(&book);
}

static void refuses(const char *rules, const char *message)
{
    const char *path = test_path(test_directory(), "tiers.json");
    apmw_buf text = {0};
    apmw_buf_printf(&text, "{\"schema\":\"apmw.tiers/1\",\"protocols\":[{\"version\":\"v\",\"min_window_s\":1,\"timeout_s\":10,"
                    "\"max_failed_share\":0,%s}],\"tiers\":[]}", rules);
    test_write(path, text.data, text.length);
    apmw_buf_free(&text);
    apmw_tier_book book;
    apmw_error err = {0};
    assert_error(apmw_tier_book_load(path, &book, &err), APMW_E_DATA, &err, message);
}

static void malformed_rules(void **state)
{
    (void)state;
#define REST "\"warmup_turns\":1,\"warmup_grace_s\":1,\"tree_idle_s\":1,\"system_idle_s\":1}"
    refuses("\"lanes\":{\"start_from\":0.8,\"start_to\":0.2," REST, "start_from");
    refuses("\"lanes\":{\"start_from\":0.2,\"start_to\":1.2," REST, "start_to");
    refuses("\"lanes\":{\"start_fom\":0.2,\"start_to\":0.8," REST, "start_from");
    refuses("\"spawn_per_s\":1,\"lanes\":{\"start_from\":0.2,\"start_to\":0.8," REST, "spawn_per_s");
}

/* Sent at `at`, TTFT, and the time from first to last token. */
static apmw_request_record request(double at, double ttft, double rest, int64_t n_prompt, int64_t n_cached, int64_t n_out)
{
    apmw_request_record r = {.state = APMW_REQUEST_DONE, .n_prompt = n_prompt, .n_cached = n_cached, .n_out = n_out};
    r.submitted = apmw_time_from_s(at);
    r.first_token = apmw_time_from_s(at + ttft);
    r.last_token = r.done = apmw_time_from_s(at + ttft + rest);
    return r;
}

static void phase_begins_by_command(void **state)
{
    (void)state;
    const apmw_phase_rules rules = {.version = "t", .lanes = true, .min_window_s = 100, .timeout_s = 1000,
                                    .max_failed_share = 0.01};
    const apmw_tier tier = {.number = 0, .n_criteria = 1, .criteria = {{APMW_SLO_TTFT, 0.9, 3}}};
    apmw_phase *phase = apmw_phase_create(&rules, 3);
    apmw_phase_begin(phase, apmw_time_from_s(50));
    assert_int_equal(apmw_phase_now(phase), APMW_PHASE_MEASURE);
    assert_int_equal(apmw_phase_next(phase), apmw_time_from_s(150));
    const apmw_request_record late = request(40, 90, 1, 10, 0, 2); /* of the warm-up: not measured */
    apmw_request_record r = request(60, 2, 1, 10, 0, 2), open = request(149, 4, 1, 10, 0, 2);
    apmw_phase_on_submit(phase, r.submitted, &r);
    apmw_phase_on_request(phase, r.done, &r);
    apmw_phase_on_request(phase, late.done, &late);
    apmw_phase_on_submit(phase, open.submitted, &open);
    assert_int_equal(apmw_phase_advance(phase, apmw_time_from_s(150)), APMW_PHASE_DRAIN);
    apmw_phase_on_request(phase, open.done, &open);
    assert_int_equal(apmw_phase_now(phase), APMW_PHASE_ENDED);
    apmw_verdict v;
    apmw_error err = {0};
    assert_ok(apmw_phase_verdict(phase, &tier, &v, &err), &err);
    assert_true(v.valid && !v.pass); /* two of three agents were never heard of, and need not be */
    assert_int_equal(v.n_measured, 2);
    assert_near(v.value[0], 3.8, 1e-9); /* P90 of 2 and 4 */
    apmw_phase_free(phase);
}

static void summary(void **state)
{
    (void)state;
    apmw_request_record r[] = {
        request(5, 1, 1, 1000, 0, 1),      /* warm-up */
        request(10, 1, 4, 1000, 800, 41),  /* ITL 0.1 s, E2E 5 s: 0.122 s a token */
        request(20, 2, 4, 2000, 1900, 21), /* ITL 0.2 s, E2E 6 s: 0.286 s a token */
        request(30, 3, 0, 500, 0, 1),      /* one token: no ITL; 3 s a token */
        request(105, 4, 6, 4000, 0, 21),   /* ends after the profile: latency counts, throughput does not */
        request(110, 1, 1, 1000, 0, 5),    /* sent after it */
        request(40, 1, 1, 9000, 0, 5),     /* refused */
    };
    r[2].last_of_trajectory = r[4].last_of_trajectory = true;
    r[6].state = APMW_REQUEST_REJECTED;
    const apmw_agentx_price price = {.all_in_kw = 2.0, .usd_per_hour = 3.6};
    apmw_agentx_summary s;
    apmw_error err = {0};
    assert_ok(apmw_agentx_summarize(r, 7, apmw_time_from_s(10), apmw_time_from_s(110), 4, &price, &s, &err), &err);
    assert_near(s.window_s, 100, 1e-9);
    assert_int_equal(s.n_sent, 5);
    assert_int_equal(s.n_done, 4);
    assert_int_equal(s.n_refused, 1);
    assert_int_equal(s.n_completed, 3);
    assert_int_equal(s.n_sessions, 1);
    assert_near(s.hit_share, 2700.0 / 3500, 1e-12);
    assert_near(s.input_tok_s, 3500.0 / 400, 1e-12); /* cached tokens included */
    assert_near(s.output_tok_s, 63.0 / 400, 1e-12);
    assert_near(s.total_tok_s, 3563.0 / 400, 1e-12);
    /* ITL 0.1, 0.2, 0.3: median 0.2, P90 0.28. E2E a token 5/41, 2/7, 10/21, 3: median the mean of the middle two, P90 at
     * 0.7 between the last two. */
    assert_near(s.interactivity_p50, 1 / 0.2, 1e-9);
    assert_near(s.interactivity_p90, 1 / 0.28, 1e-9);
    assert_near(s.e2e_interactivity_p50, 1 / ((2.0 / 7 + 10.0 / 21) / 2), 1e-9);
    assert_near(s.e2e_interactivity_p90, 1 / (10.0 / 21 + 0.7 * (3 - 10.0 / 21)), 1e-9);
    assert_near(s.ttft_p50_s, 2.5, 1e-9);
    assert_near(s.ttft_p90_s, 3.7, 1e-9);
    assert_near(s.e2e_p90_s, 6 + 0.7 * 4, 1e-9);
    assert_near(s.tok_s_per_mw, 3563.0 / 400 / 0.002, 1e-6);
    assert_near(s.usd_per_mtok, 3.6 / (3563.0 / 400 * 3600) * 1e6, 1e-6);
    /* Nothing there: nothing known. */
    assert_ok(apmw_agentx_summarize(r, 0, 0, apmw_time_from_s(10), 1, &price, &s, &err), &err);
    assert_true(s.n_sent == 0 && isnan(s.hit_share) && isnan(s.interactivity_p90) && isnan(s.ttft_p50_s));
    assert_near(s.total_tok_s, 0, 0);
}

static void prices(void **state)
{
    (void)state;
    const char *path = APMW_SOURCE_DIR "/sim/protocol/agentx.json";
    apmw_agentx_price price;
    apmw_error err = {0};
    assert_ok(apmw_agentx_price_load(path, "gb300", &price, &err), &err);
    assert_near(price.all_in_kw, 2.10, 0);
    assert_near(price.usd_per_hour, 2.65, 0);
    assert_ok(apmw_agentx_price_load(path, "tpu", &price, &err), &err);
    assert_true(isnan(price.all_in_kw) && isnan(price.usd_per_hour));
    const char *bad = test_path(test_directory(), "agentx.json");
    const char text[] = "{\"schema\":\"apmw.agentx/1\",\"platforms\":[{\"platform\":\"x\",\"all_in_kv\":1,\"usd_per_hour\":1}]}";
    test_write(bad, text, strlen(text));
    assert_error(apmw_agentx_price_load(bad, "x", &price, &err), APMW_E_DATA, &err, "all_in_kw");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_rules), cmocka_unit_test(malformed_rules),
                                       cmocka_unit_test(phase_begins_by_command), cmocka_unit_test(summary),
                                       cmocka_unit_test(prices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
