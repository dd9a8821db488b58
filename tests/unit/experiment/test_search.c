/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Doubling and bisection on made-up verdicts, and the search by margins on made-up margins: the bracket is right for every
 * capacity, and no population is asked twice. */
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

/* Margins as deployments show them: capacity^a / n^a, with a cliff above the capacity, or hidden behind one constant. */
typedef enum margin_kind { POWER, CLIFF, BLIND } margin_kind;
typedef struct margin_oracle {
    oracle base;
    margin_kind kind;
} margin_oracle;

static apmw_status margins(void *self, int64_t n, double *ln_margin, bool *out, apmw_error *err)
{
    margin_oracle *o = self;
    const apmw_status status = passes(&o->base, n, out, err);
    const double smooth = 0.7 * log(((double)o->base.capacity + 0.5) / (double)n);
    *ln_margin = o->kind == POWER ? smooth : o->kind == CLIFF ? (*out ? fmax(smooth, 0.02) : -2.0) : (*out ? (double)INFINITY : -0.01);
    return status;
}

static apmw_bracket by_margin(margin_oracle *o, int64_t start, int64_t limit, double resolution)
{
    apmw_bracket b;
    apmw_error err = {0};
    memset(o->base.asked, 0, sizeof o->base.asked);
    o->base.calls = 0;
    assert_ok(apmw_margin_search(margins, o, start, limit, resolution, &b, &err), &err);
    assert_int_equal(b.n_trials, o->base.calls);
    return b;
}

static void margins_find_every_capacity(void **state)
{
    (void)state;
    margin_oracle o = {0};
    for (int kind = POWER; kind <= BLIND; kind++) {
        o.kind = (margin_kind)kind;
        for (o.base.capacity = 0; o.base.capacity <= 300; o.base.capacity += 1 + o.base.capacity / 16) {
            for (int64_t start = 1; start <= 400; start += 1 + start / 3) {
                const apmw_bracket b = by_margin(&o, start, 4096, 0.0);
                assert_int_equal(b.pass, o.base.capacity);
                assert_int_equal(b.fail, o.base.capacity + 1);
                /* Whatever the margins say: steps double from 2 % up to a factor of two, and every third look halves. */
                const int halvings = (int)ceil(log2((double)(o.base.capacity + start) + 2));
                assert_true(o.base.calls <= 6 + halvings + 3 * halvings);
            }
        }
    }
}

static void margins_save_trials(void **state)
{
    (void)state;
    margin_oracle o = {.kind = POWER};
    for (o.base.capacity = 50; o.base.capacity <= 3000; o.base.capacity += 37) {
        for (int k = -3; k <= 3; k++) { /* from a guess 30 % off at most, to a percent */
            const int64_t guess = (int64_t)((double)o.base.capacity * (1.0 + 0.1 * k));
            const apmw_bracket b = by_margin(&o, guess, 4096, 0.01);
            assert_true(b.pass <= o.base.capacity && b.fail > o.base.capacity);
            assert_true(b.fail - b.pass <= 1 || (double)(b.fail - b.pass) <= 0.01 * (double)b.pass);
            assert_true(o.base.calls <= 6);
        }
    }
}

static void margins_limit_and_errors(void **state)
{
    (void)state;
    margin_oracle o = {.base = {.capacity = 5000}, .kind = POWER};
    apmw_bracket b = by_margin(&o, 40, 1000, 0.01);
    assert_int_equal(b.pass, 1000);
    assert_int_equal(b.fail, 0);
    o.base.capacity = 0;
    b = by_margin(&o, 4096, 4096, 0.01);
    assert_int_equal(b.pass, 0);
    assert_int_equal(b.fail, 1);
    apmw_error err = {0};
    assert_error(apmw_margin_search(margins, &o, 0, 10, 0.0, &b, &err), APMW_E_SCENARIO, &err, "start");
    o.base = (oracle){.capacity = 10, .fails = APMW_E_INTERNAL};
    assert_error(apmw_margin_search(margins, &o, 2, 10, 0.0, &b, &err), APMW_E_INTERNAL, &err, "broken trial");
    assert_near(apmw_margin_slope((double)NAN), -0.3, 0.0);
    assert_near(apmw_margin_slope(2.0), -0.3, 0.0);
    assert_near(apmw_margin_slope(-0.7), -0.7, 0.0);
    assert_near(apmw_margin_slope(-50.0), -10.0, 0.0);
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
                                       cmocka_unit_test(margins_find_every_capacity), cmocka_unit_test(margins_save_trials),
                                       cmocka_unit_test(margins_limit_and_errors),
                                       cmocka_unit_test(intervals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
