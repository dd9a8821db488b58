/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The Claude-Code-like generator against the corpus it is fitted to: 710 sessions of cc-traces-weka-042026.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "apmw/trace.h"

static apmw_trace run(size_t n, uint64_t seed, const char *const *overrides, size_t n_overrides)
{
    apmw_trace trace;
    apmw_error err = {0};
    if (apmw_synth_run("claude-code", n, seed, overrides, n_overrides, &trace, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    return trace;
}

static apmw_trace_stats stats_of(const apmw_trace *trace, bool output_cached)
{
    apmw_trace_stats stats;
    apmw_error err = {0};
    assert_int_equal(apmw_trace_stats_compute(trace, 64, output_cached, &stats, &err), APMW_OK);
    return stats;
}

static void near(const char *what, double value, double target, double tolerance)
{
    if (!(fabs(value - target) <= tolerance * target)) {
        fail_msg("%s is %.6g, not within %g %% of %.6g", what, value, 100 * tolerance, target);
    }
}

/* The corpus' own numbers; the tolerances are what independent draws with four dependences reach
 * (traces/FORMAT.md, section 6), not a standard of the corpus. */
static void resembles_the_corpus(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        apmw_trace trace = run(4000, seed, NULL, 0);
        apmw_trace_stats s = stats_of(&trace, false);
        near("turns mean", s.turns.mean, 68.5, .05);
        near("turns p50", s.turns.p50, 45, .08);
        near("turns p90", s.turns.p90, 155, .08);
        near("ISL mean", s.isl.mean, 123450, .08);
        near("ISL p50", s.isl.p50, 104644, .10);
        near("OSL mean", s.osl.mean, 439, .03);
        near("OSL p50", s.osl.p50, 216, .03);
        near("OSL p95", s.osl.p95, 1543, .05);
        near("growth mean", s.growth.mean, 1653, .05);
        near("growth p50", s.growth.p50, 653, .08);
        near("infinite-cache hit", s.hit_infinite, .9632, .01);
        assert_true(s.hit_infinite_shared > s.hit_infinite);
        /* 17 of 710 sessions have sub-agents: 63 of them with 676 turns. */
        near("sub-agent lanes a session", (double)(s.n_lanes - 4000) / 4000, 63.0 / 710, .35);
        near("turns a sub-agent", (double)s.n_subagent_turns / (double)(s.n_lanes - 4000), 676.0 / 63, .12);
        apmw_trace_free(&trace);
    }
}

static void output_identity_is_a_switch(void **state)
{
    (void)state;
    static const char *const with[] = {"output_identity=1"};
    apmw_trace resend = run(300, 1, NULL, 0), keep = run(300, 1, with, 1);
    apmw_trace_stats a = stats_of(&resend, true), b = stats_of(&keep, true), c = stats_of(&keep, false);
    assert_true(a.total_in == b.total_in); /* the prompts are the same */
    assert_true(b.hit_infinite > a.hit_infinite);
    assert_true(c.hit_infinite == a.hit_infinite);
    apmw_trace_free(&resend);
    apmw_trace_free(&keep);
}

static void sharing_is_a_switch(void **state)
{
    (void)state;
    static const char *const without[] = {"global_groups=0"};
    apmw_trace trace = run(300, 1, without, 1);
    apmw_trace_stats s = stats_of(&trace, false);
    assert_true(s.hit_infinite_shared == s.hit_infinite);
    for (size_t i = 0; i < trace.n; i++) {
        assert_int_equal(trace.items[i].global_id, -1);
    }
    apmw_trace_free(&trace);
}

/* The parent is blocked until all of its sub-agents have joined. */
static void sub_agents_are_joined(void **state)
{
    (void)state;
    static const char *const always[] = {"sub_session_share=1", "sub_groups=20"};
    apmw_trace trace = run(50, 3, always, 2);
    int64_t lanes = 0;
    for (size_t i = 0; i < trace.n; i++) {
        const apmw_trajectory *t = &trace.items[i];
        for (int32_t k = 1; k < t->n_lanes; k++, lanes++) {
            assert_true(t->lanes[k].join_before > t->lanes[k].spawn_after);
            assert_int_equal(t->turns[t->lanes[k].join_before].trigger, APMW_TURN_JOIN);
        }
    }
    assert_true(lanes > 500);
    apmw_trace_free(&trace);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {"tool_fast_share=.9", "sub_two_share=.9", "window=2e6",
                                        "global_tokens=199999", "turn_max=5"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apmw_trace trace;
        apmw_error err = {0};
        assert_int_equal(apmw_synth_run("claude-code", 1, 1, &cases[i], 1, &trace, &err), APMW_E_USAGE);
    }
}

/* Every parameter at both ends of its range makes a valid trace or is refused; the rules are checked on the
 * way. */
static void extremes_do_no_harm(void **state)
{
    (void)state;
    size_t n_synths;
    const apmw_synth *synths = apmw_synth_list(&n_synths);
    for (size_t g = 0; g < n_synths; g++) {
        apmw_buf text = {0};
        apmw_error err = {0};
        assert_int_equal(apmw_synth_describe(synths[g].name, &text, &err), APMW_OK);
        int seen = 0;
        for (char *line = strtok(text.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            char name[64], lo[32], hi[32];
            if (sscanf(line, "  %63s %*s [%31[^,], %31[^]]]", name, lo, hi) != 3) {
                continue;
            }
            seen++;
            for (int end = 0; end < 2; end++) {
                char set[128];
                const char *overrides[2] = {set,
                                            strcmp(name, "turns_max") == 0 ? "turns_min=1" : "turns_max=50"};
                bool has_min = strcmp(synths[g].name, "agentperf") == 0;
                if (strcmp(name, "turns_max") == 0 && !has_min) {
                    overrides[1] = "user_share=.1";
                }
                snprintf(set, sizeof set, "%s=%s", name, end == 0 ? lo : hi);
                apmw_trace trace;
                apmw_status status = apmw_synth_run(synths[g].name, 3, 1, overrides, 2, &trace, &err);
                if (status != APMW_OK && status != APMW_E_USAGE) {
                    fail_msg("%s %s: %s", synths[g].name, set, err.message);
                }
                apmw_trace_free(&trace);
            }
        }
        assert_true(seen > 20);
        apmw_buf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resembles_the_corpus),       cmocka_unit_test(output_identity_is_a_switch),
        cmocka_unit_test(sharing_is_a_switch),        cmocka_unit_test(sub_agents_are_joined),
        cmocka_unit_test(contradictions_are_refused), cmocka_unit_test(extremes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
