/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Doubling and bisection on made-up verdicts: the bracket is right for every capacity, and no population is asked twice. */
#include <math.h>
#include <string.h>

#include "apmw/experiment.h"
#include "test_support.h"

typedef struct oracle {
    int64_t capacity;
    bool asked[4097];
    int calls;
    apmw_status fails;
} oracle;

static apmw_status passes(void *self, int64_t n, bool *out, apmw_error *err)
{
    oracle *o = self;
    assert_true(n >= 1 && n <= 4096);
    assert_false(o->asked[n]);
    o->asked[n] = true;
    o->calls++;
    *out = n <= o->capacity;
    return o->fails == APMW_OK ? APMW_OK : apmw_error_set(err, o->fails, "broken trial");
}

static apmw_bracket search(oracle *o, int64_t start, double growth, int64_t limit, double resolution)
{
    apmw_bracket b;
    apmw_error err = {0};
    memset(o->asked, 0, sizeof o->asked);
    o->calls = 0;
    assert_ok(apmw_bracket_search(passes, o, start, growth, limit, resolution, &b, &err), &err);
    assert_int_equal(b.n_trials, o->calls);
    return b;
}

static void every_capacity(void **state)
{
    (void)state;
    oracle o = {0};
    for (o.capacity = 0; o.capacity <= 300; o.capacity++) {
        const apmw_bracket b = search(&o, 2, 2.0, 4096, 0.0);
        assert_int_equal(b.pass, o.capacity);
        assert_int_equal(b.fail, o.capacity + 1);
        /* log2 up and log2 down */
        assert_true(o.calls <= 2 * (int)ceil(log2((double)o.capacity + 2)) + 2);
    }
}

static void every_guess(void **state)
{
    (void)state;
    oracle o = {.capacity = 100};
    for (int64_t guess = 1; guess <= 400; guess += 7) {
        const apmw_bracket b = search(&o, guess, 1.15, 4096, 0.0);
        assert_int_equal(b.pass, 100);
        assert_int_equal(b.fail, 101);
    }
    for (o.capacity = 0; o.capacity <= 12; o.capacity++) { /* small steps still move by one agent */
        for (int64_t guess = 1; guess <= 12; guess++) {
            const apmw_bracket b = search(&o, guess, 1.01, 4096, 0.0);
            assert_int_equal(b.pass, o.capacity);
            assert_int_equal(b.fail, o.capacity + 1);
        }
    }
}

static void resolution(void **state)
{
    (void)state;
    oracle o = {0};
    for (o.capacity = 1; o.capacity <= 2000; o.capacity += 13) {
        const apmw_bracket b = search(&o, 2, 2.0, 4096, 0.05);
        assert_true(b.pass <= o.capacity && b.fail > o.capacity);
        assert_true(b.fail - b.pass <= 1 || (double)(b.fail - b.pass) <= 0.05 * (double)b.pass);
    }
}

static void limit_and_errors(void **state)
{
    (void)state;
    oracle o = {.capacity = 5000};
    apmw_bracket b = search(&o, 2, 2.0, 1000, 0.0);
    assert_int_equal(b.pass, 1000);
    assert_int_equal(b.fail, 0);
    apmw_error err = {0};
    assert_error(apmw_bracket_search(passes, &o, 0, 2.0, 10, 0.0, &b, &err), APMW_E_SCENARIO, &err, "start");
    assert_error(apmw_bracket_search(passes, &o, 2, 1.0, 10, 0.0, &b, &err), APMW_E_SCENARIO, &err, "growth");
    o = (oracle){.capacity = 10, .fails = APMW_E_INTERNAL};
    assert_error(apmw_bracket_search(passes, &o, 2, 2.0, 10, 0.0, &b, &err), APMW_E_INTERNAL, &err, "broken trial");
}

static void intervals(void **state)
{
    (void)state;
    const apmw_interval_part parts[] = {{"a", 0.3, 0.0}, {"b", 0.4, 0.1}};
    apmw_interval i;
    apmw_interval_combine(100, parts, 2, &i);
    assert_near(i.lo, 100 * exp(-0.5), 1e-9);
    assert_near(i.hi, 100 * exp(0.1), 1e-9);
    assert_int_equal(i.n_parts, 2);
    apmw_interval_combine(100, parts, 0, &i);
    assert_true(i.lo <= 100 && i.hi >= 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_capacity), cmocka_unit_test(every_guess),
                                       cmocka_unit_test(resolution), cmocka_unit_test(limit_and_errors),
                                       cmocka_unit_test(intervals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
