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

static void parallel_tools_wait_for_the_longest(void **state)
{
    (void)state;
    /* One tool: 1 to 10 s, log-uniform, so 2 of 10 waits are below 10^0.2. The longest of a geometric number with mean 3 is
     * below x, where one tool is with probability F, with probability (F / 3) / (1 - 2 F / 3): .0769 at F = .2, and the
     * median is at F = .75. */
    const char *const one[] = {"tool_fast_share=0", "tool_10s_share=1", "tool_60s_share=0", "user_share=0",
                               "sub_session_share=0", "tool_overhead=0"};
    const char *const three[] = {"tool_fast_share=0", "tool_10s_share=1", "tool_60s_share=0", "user_share=0",
                                 "sub_session_share=0", "tool_overhead=0", "tool_calls=3"};
    apmw_trace single = run(300, 1, one, 6), several = run(300, 1, three, 7);
    apmw_trace_stats a = stats_of(&single, false), b = stats_of(&several, false);
    near("median of one", a.delay_s.p50, pow(10, .5), .02);
    near("median of the longest", b.delay_s.p50, pow(10, .75), .02);
    near("P90 of the longest", b.delay_s.p90, pow(10, 2.7 / 2.8), .02); /* .9 = (F / 3) / (1 - 2 F / 3) */
    apmw_trace_free(&single);
    apmw_trace_free(&several);
}

static void sub_agents_fork(void **state)
{
    (void)state;
    const char *const forks[] = {"sub_session_share=1", "sub_groups=5", "sub_fork_share=0.5"};
    apmw_trace trace = run(200, 3, forks, 3);
    int forked = 0, fresh = 0;
    for (size_t k = 0; k < trace.n; k++) {
        const apmw_trajectory *t = &trace.items[k];
        for (int32_t lane = 1; lane < t->n_lanes; lane++) {
            int32_t i = 0;
            while (t->turns[i].lane != lane) {
                i++;
            }
            const apmw_turn *u = &t->turns[i], *spawner = &t->turns[t->lanes[lane].spawn_after];
            const bool fork = u->parent == t->lanes[lane].spawn_after && u->shared_in == spawner->n_in;
            assert_true(!fork || u->n_in > spawner->n_in);
            forked += fork;
            fresh += !fork;
        }
    }
    near("share of forks", (double)forked / (forked + fresh), .5, .1); /* less where the window has no room */
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
        cmocka_unit_test(parallel_tools_wait_for_the_longest), cmocka_unit_test(sub_agents_fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
