/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The shipped tiers hold the published numbers; malformed books are refused with the place. */
#include <string.h>

#include "apmw/protocol.h"
#include "test_support.h"

static void shipped(void **state)
{
    (void)state;
    apmw_tier_book book;
    apmw_error err = {0};
    assert_ok(apmw_tier_book_load(APMW_SOURCE_DIR "/sim/protocol/tiers.json", &book, &err), &err);
    /* https://artificialanalysis.ai/methodology/agentperf, readings of 2026-07-15 and 2026-07-21 */
    static const double V4[][2] = {{20, 10}, {60, 5}, {180, 3}};
    static const double OSS[][2] = {{100, 5}, {250, 3}, {500, 2}, {2000, 1}};
    assert_int_equal(apmw_tier_book_count(&book, "deepseek-v4-pro", "v2026-06"), 3);
    assert_int_equal(apmw_tier_book_count(&book, "gpt-oss-120b", NULL), 4);
    for (int i = 0; i < 7; i++) {
        apmw_tier t;
        const double *limits = i < 3 ? V4[i] : OSS[i - 3];
        assert_ok(apmw_tier_book_tier(&book, i < 3 ? "deepseek-v4-pro" : "gpt-oss-120b", NULL, i < 3 ? i + 1 : i - 2, &t,
                                      &err), &err);
        assert_int_equal(t.n_criteria, 2);
        assert_true(t.criteria[0].metric == APMW_SLO_OUTPUT_SPEED && t.criteria[1].metric == APMW_SLO_TTFT);
        assert_near(t.criteria[0].quantile, 0.25, 0);
        assert_near(t.criteria[1].quantile, 0.95, 0);
        assert_near(t.criteria[0].limit, limits[0], 0);
        assert_near(t.criteria[1].limit, limits[1], 0);
    }
    apmw_phase_rules rules;
    assert_ok(apmw_tier_book_rules(&book, NULL, &rules, &err), &err);
    assert_string_equal(rules.version, "v2026-06");
    assert_true(rules.min_trajectories == 30 && rules.min_trajectories_per_agent == 3 && rules.max_start_offset == 10 &&
                rules.max_output_tokens == 16384);
    assert_near(rules.min_window_s, 600, 0);
    assert_near(rules.steady_s, 30, 0);
    assert_near(rules.spawn_per_s, 1, 0);
    apmw_tier t;
    assert_error(apmw_tier_book_tier(&book, "gpt-oss-120b", NULL, 5, &t, &err), APMW_E_USAGE, &err, "gpt-oss-120b (4)");
    assert_error(apmw_tier_book_rules(&book, "v1", &rules, &err), APMW_E_USAGE, &err, "v2026-06");
    assert_ok(apmw_tier_book_tier(&book, "deepseek-v4-pro", NULL, 1, &t, &err), &err);
    apmw_buf text = {0};
    apmw_tier_text(&t, &text);
    assert_string_equal(text.data, "P25 output speed >= 20 tok/s and P95 TTFT <= 10 s");
    apmw_buf_free(&text);
    apmw_tier_book_free(&book);
}

static void refuses(const char *tier, const char *message)
{
    const char *path = test_path(test_directory(), "tiers.json");
    apmw_buf text = {0};
    apmw_buf_printf(&text, "{\"schema\":\"apmw.tiers/1\",\"protocols\":[{\"version\":\"v\",\"spawn_per_s\":1,\"settle_s\":1,"
                    "\"steady_s\":1,\"min_window_s\":1,\"min_trajectories\":1,\"min_trajectories_per_agent\":1,"
                    "\"timeout_s\":10,\"max_failed_share\":0,\"max_start_offset\":0,\"max_output_tokens\":0}],"
                    "\"tiers\":[{\"model\":\"m\",\"version\":\"v\",\"number\":1,%s}]}", tier);
    test_write(path, text.data, text.length);
    apmw_buf_free(&text);
    apmw_tier_book book;
    apmw_error err = {0};
    assert_error(apmw_tier_book_load(path, &book, &err), APMW_E_DATA, &err, message);
}

static void malformed(void **state)
{
    (void)state;
    refuses("\"criteria\":[]", "criteria");
    refuses("\"criteria\":[{\"metric\":\"ttft\",\"quantile\":0.5,\"at_most\":1}]", "nearest: ttft_s");
    refuses("\"criteria\":[{\"metric\":\"ttft_s\",\"quantile\":0.5,\"at_least\":1}]", "takes at_most");
    refuses("\"criteria\":[{\"metric\":\"ttft_s\",\"quantile\":1.5,\"at_most\":1}]", "quantile");
    refuses("\"criteria\":[{\"metric\":\"ttft_s\",\"quantile\":0.5,\"at_mst\":1}]", "at_most");
}

static void own_limits(void **state)
{
    (void)state;
    apmw_tier t;
    apmw_error err = {0};
    assert_ok(apmw_tier_parse("p25.speed=30,p99.9.ttft=7.5,p90.e2e=12", &t, &err), &err);
    assert_int_equal(t.n_criteria, 3);
    assert_int_equal(t.number, 0);
    assert_true(t.criteria[0].metric == APMW_SLO_OUTPUT_SPEED && t.criteria[1].metric == APMW_SLO_TTFT &&
                t.criteria[2].metric == APMW_SLO_E2E_SPEED);
    assert_near(t.criteria[1].limit, 7.5, 0);
    assert_near(t.criteria[1].quantile, 0.999, 1e-12);
    assert_near(t.criteria[2].quantile, 0.9, 1e-12);
    const char *const wrong[] = {"", "p25", "p25.speed", "p25.speed=", "p25.speed=0", "p101.ttft=3", "25.speed=3",
                                 "p25.sped=3", "p25.speed=3,", "p25.speed=3x", "px.speed=3"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_error(apmw_tier_parse(wrong[i], &t, &err), APMW_E_USAGE, &err, "is not like");
    }
    assert_error(apmw_tier_parse("p1.ttft=1,p2.ttft=1,p3.ttft=1,p4.ttft=1,p5.ttft=1", &t, &err), APMW_E_USAGE, &err,
                 "at most");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped), cmocka_unit_test(malformed),
                                       cmocka_unit_test(own_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
