/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A study that is told to stop does little more, counted in passes whose cost it asks for, not in seconds: nothing with
 * one thread, and with several what each had begun. */
#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "study_case.h"

enum { LAYOUTS = 6, MAX_CALLS = 512 };

static atomic_llong passes; /* cost evaluations of all threads */
static const apmw_step_cost_ops *linear;

static void counted_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    atomic_fetch_add(&passes, 1);
    linear->eval(cost, load, out);
}

static void counted_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                        int64_t n_steps, apmw_step_work *out)
{
    atomic_fetch_add(&passes, 1);
    linear->sum(cost, load, growth, n_steps, out);
}

static void counted_free(apmw_step_cost *cost)
{
    linear->free(cost);
}

static const apmw_step_cost_ops counted = {"counted", counted_eval, counted_sum, counted_free};

typedef struct watcher {
    int stop_at; /* call of progress that asks for the stop; 0 = none */
    int calls;
    long long at[MAX_CALLS]; /* passes by each call */
} watcher;

static bool watch(void *self, size_t done, size_t total)
{
    (void)done;
    (void)total;
    watcher *w = self;
    assert_true(w->calls < MAX_CALLS);
    w->at[w->calls++] = atomic_load(&passes);
    return w->stop_at > 0 && w->calls >= w->stop_at;
}

/* Passes of the whole study; what the watcher saw stays in it. */
static long long run(int threads, watcher *w)
{
    apmw_deployment deployments[LAYOUTS];
    for (int i = 0; i < LAYOUTS; i++) {
        char name[8];
        snprintf(name, sizeof name, "l%d", i);
        deployments[i] = case_deployment(name, 1e-3 + 2e-4 * i, 1);
        linear = deployments[i].cost->ops;
        deployments[i].cost->ops = &counted;
    }
    apmw_trace trace = {0};
    case_trace(&trace);
    apmw_scenario scenario;
    apmw_scenario_init(&scenario);
    const apmw_phase_rules rules = case_rules();
    const apmw_tier tiers[] = {case_tier(1, 30, 5), case_tier(2, 50, 2)};
    const char *const platforms[] = {"case"};
    const apmw_study_config config = {.scenario = &scenario, .platforms = platforms, .n_platforms = 1, .trace = &trace,
                                      .rules = &rules, .tiers = tiers, .n_tiers = 2, .resolution = 0.0, .interval = true,
                                      .progress = watch, .self = w};
    apmw_study *study = NULL;
    apmw_error err = {0};
    atomic_store(&passes, 0);
    omp_set_num_threads(threads);
    const apmw_status status = apmw_study_run_on(deployments, LAYOUTS, &config, &study, &err);
    assert_int_equal(status, w->stop_at > 0 ? APMW_E_INTERRUPTED : APMW_OK);
    apmw_study_free(study);
    apmw_trace_free(&trace);
    return atomic_load(&passes);
}

static void nothing_begins_after_the_stop(void **state)
{
    (void)state;
    watcher *whole = calloc(1, sizeof *whole), *w = calloc(1, sizeof *w);
    assert_non_null(whole);
    assert_non_null(w);
    const long long all = run(1, whole);
    assert_true(whole->calls > 8);
    long long longest = whole->at[0];
    for (int k = 1; k < whole->calls; k++) {
        const long long one = whole->at[k] - whole->at[k - 1];
        longest = one > longest ? one : longest;
    }
    for (int k = 1; k < whole->calls; k += 3) {
        *w = (watcher){.stop_at = k};
        const long long done = run(1, w);
        assert_int_equal(w->at[k - 1], whole->at[k - 1]);
        assert_int_equal(done, w->at[k - 1]);
    }
    /* Of two threads one may be in a search, and begin another between the call and the flag. */
    *w = (watcher){.stop_at = 1};
    const long long done = run(2, w);
    assert_true(done - w->at[0] <= 2 * longest);
    assert_true(all - whole->at[0] > 2 * longest);
    free(whole);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_begins_after_the_stop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
