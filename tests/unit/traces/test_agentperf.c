/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The AgentPerf-like generator must have the benchmark's published moments, and say which are its knobs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_same.h"

static void near(const char *what, double value, double target, double tolerance)
{
    if (fabs(value - target) > tolerance * target) {
        fail_msg("%s is %.6g, not within %g %% of %.6g", what, value, 100 * tolerance, target);
    }
}

/* artificialanalysis.ai/methodology/agentperf: ISL mean ~27K (5K to 131K), OSL median ~150 and P95 ~2K, 500
 * trajectories = 18,997 prompts, at most 200 turns, tool time 0.1 to 5 s with median ~1 s. */
static void has_the_published_moments(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {1, 2, 20260618};
    for (size_t s = 0; s < sizeof seeds / sizeof seeds[0]; s++) {
        apmw_trace trace;
        apmw_error err = {0};
        if (apmw_synth_run("agentperf", 4000, seeds[s], NULL, 0, &trace, &err) != APMW_OK) {
            fail_msg("%s", err.message);
        }
        apmw_trace_stats stats;
        assert_int_equal(apmw_trace_stats_compute(&trace, 16, false, &stats, &err), APMW_OK);
        near("ISL mean", stats.isl.mean, 27000, .05);
        near("OSL p50", stats.osl.p50, 150, .05);
        near("OSL p95", stats.osl.p95, 2000, .05);
        near("turns mean", stats.turns.mean, 18997.0 / 500, .05);
        near("delay p50", stats.delay_s.p50, 1, .05);
        assert_true(stats.turns.max == 200);
        assert_true(stats.isl.min >= 5000 && stats.isl.max <= 131072);
        assert_true(stats.delay_s.min >= .1 && stats.delay_s.max <= 5);
        assert_true(stats.osl.max <= 16384);
        /* Nothing is shared across trajectories: the benchmark puts a random prefix first. */
        assert_true(stats.hit_infinite == stats.hit_infinite_shared);
        assert_true(stats.hit_infinite > .94 && stats.hit_infinite < .98);
        apmw_trace_free(&trace);
    }
}

static void is_a_function_of_its_seed(void **state)
{
    (void)state;
    apmw_trace a, b, c, longer;
    apmw_error err = {0};
    assert_int_equal(apmw_synth_run("agentperf", 20, 7, NULL, 0, &a, &err), APMW_OK);
    assert_int_equal(apmw_synth_run("agentperf", 20, 7, NULL, 0, &b, &err), APMW_OK);
    assert_int_equal(apmw_synth_run("agentperf", 20, 8, NULL, 0, &c, &err), APMW_OK);
    assert_int_equal(apmw_synth_run("agentperf", 40, 7, NULL, 0, &longer, &err), APMW_OK);
    assert_string_equal(a.hash, b.hash);
    assert_string_not_equal(a.hash, c.hash);
    /* A larger set begins with the smaller one. */
    for (size_t i = 0; i < a.n; i++) {
        assert_same_trajectory(&a.items[i], &longer.items[i]);
    }
    apmw_trace_free(&a);
    apmw_trace_free(&b);
    apmw_trace_free(&c);
    apmw_trace_free(&longer);
}

static void takes_overrides_by_name(void **state)
{
    (void)state;
    static const char *const overrides[] = {"turns_min=10",     "turns_max=10",
                                            "growth_sigma=0",   "growth_session_sigma=0",
                                            "growth_mean=1000", "global_tokens=4000"};
    apmw_trace trace;
    apmw_error err = {0};
    assert_int_equal(apmw_synth_run("agentperf", 50, 1, overrides, 6, &trace, &err), APMW_OK);
    for (size_t i = 0; i < trace.n; i++) {
        const apmw_trajectory *t = &trace.items[i];
        assert_int_equal(t->n_turns, 10);
        assert_int_equal(t->global_tokens, 4000);
        for (int32_t k = 1; k < t->n_turns; k++) {
            assert_int_equal(t->turns[k].n_in - t->turns[k - 1].n_in, 1000);
            assert_int_equal(t->turns[k].shared_in, t->turns[k - 1].n_in);
        }
    }
    apmw_trace_stats stats;
    assert_int_equal(apmw_trace_stats_compute(&trace, 16, false, &stats, &err), APMW_OK);
    double extra = 49 * 4000; /* every trajectory but the first finds the group's prefix */
    assert_true(fabs((stats.hit_infinite_shared - stats.hit_infinite) * stats.total_in - extra) < 1);
    apmw_trace_free(&trace);
}

static void refuses(const char *name, const char *override, const char *message)
{
    apmw_trace trace;
    apmw_error err = {0};
    assert_int_equal(apmw_synth_run(name, 1, 1, &override, 1, &trace, &err), APMW_E_USAGE);
    if (strstr(err.message, message) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, message);
    }
    assert_null(trace.items);
}

static void refuses_what_it_does_not_know(void **state)
{
    (void)state;
    refuses("agentprf", "isl_max=1", "did you mean 'agentperf'");
    refuses("agentperf", "isl_mx=9000", "did you mean 'isl_max'");
    refuses("agentperf", "isl_max", "NAME=VALUE");
    refuses("agentperf", "isl_max=many", "not a number");
    refuses("agentperf", "osl_short_share=2", "between 0 and 1");
    refuses("agentperf", "turns_min=300", "turns_max");
    refuses("agentperf", "global_tokens=6000", "start_min");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_published_moments),
        cmocka_unit_test(is_a_function_of_its_seed),
        cmocka_unit_test(takes_overrides_by_name),
        cmocka_unit_test(refuses_what_it_does_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
