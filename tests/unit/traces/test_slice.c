/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Parts of a trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_random.h"
#include "traces_same.h"

static apmw_trace slice(const apmw_trace *trace, apmw_trace_part part)
{
    apmw_trace out;
    apmw_error err = {0};
    if (apmw_trace_slice(trace, &part, &out, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    return out;
}

static void of_nothing_is_the_whole(void **state)
{
    (void)state;
    apmw_trace trace = random_trace(1, 20, 1000, 16), whole = slice(&trace, (apmw_trace_part){0});
    assert_same_trace(&trace, &whole);
    apmw_trace_free(&whole);
    apmw_trace_free(&trace);
}

static void by_range(void **state)
{
    (void)state;
    apmw_trace trace = random_trace(2, 20, 1000, 16),
               part = slice(&trace, (apmw_trace_part){.first = 5, .last = 8});
    assert_int_equal(part.n, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_same_trajectory(&part.items[i], &trace.items[5 + i]);
    }
    apmw_trace_free(&part);
    apmw_trace_free(&trace);
}

/* What is left is the beginning of what was, and keeps every rule (apmw_trace_add checks); lanes are
 * renumbered. */
static void by_turns_and_context(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        apmw_trace trace = random_trace(seed, 20, 1000, 16);
        int64_t turns = 1 + (int64_t)(seed % 6), context = seed % 2 == 0 ? 0 : 1500;
        apmw_trace part = slice(&trace, (apmw_trace_part){.max_turns = turns, .max_context = context});
        size_t at = 0;
        for (size_t i = 0; i < part.n; i++, at++) {
            const apmw_trajectory *t = &part.items[i];
            while (strcmp(trace.items[at].id, t->id) != 0) {
                at++;
            }
            const apmw_trajectory *from = &trace.items[at];
            int64_t main_turns = 0;
            for (int32_t k = 0; k < t->n_turns; k++) {
                main_turns += t->turns[k].lane == 0;
                assert_int_equal(t->turns[k].n_in, from->turns[k].n_in);
                assert_int_equal(t->turns[k].parent, from->turns[k].parent);
                assert_int_equal(t->turns[k].lane == 0, from->turns[k].lane == 0);
                assert_true(context == 0 || t->turns[k].n_in + t->turns[k].n_out <= context);
            }
            assert_true(main_turns >= 1 && main_turns <= turns);
            if (t->n_turns < from->n_turns) {
                const apmw_turn *next = &from->turns[t->n_turns];
                assert_true((main_turns == turns && next->lane == 0) ||
                            (context > 0 && next->n_in + next->n_out > context));
            }
        }
        apmw_trace_free(&part);
        apmw_trace_free(&trace);
    }
}

static void by_lot(void **state)
{
    (void)state;
    apmw_trace trace = random_trace(3, 50, 100, 16);
    int taken[50] = {0};
    for (uint64_t seed = 0; seed < 1000; seed++) {
        apmw_trace part = slice(&trace, (apmw_trace_part){.sample = 10, .seed = seed});
        assert_int_equal(part.n, 10);
        size_t at = 0;
        for (size_t i = 0; i < part.n; i++, at++) { /* in order, none twice */
            while (at < trace.n && strcmp(trace.items[at].id, part.items[i].id) != 0) {
                at++;
            }
            assert_true(at < trace.n);
            taken[at]++;
        }
        apmw_trace again = slice(&trace, (apmw_trace_part){.sample = 10, .seed = seed});
        assert_string_equal(part.hash, again.hash);
        apmw_trace_free(&again);
        apmw_trace_free(&part);
    }
    for (int i = 0; i < 50; i++) { /* 200 expected, standard deviation 12.6 */
        assert_in_range(taken[i], 137, 263);
    }
    apmw_trace_free(&trace);
}

static void what_cannot_be(void **state)
{
    (void)state;
    apmw_trace trace = random_trace(4, 10, 1000, 16), out;
    apmw_error err = {0};
    static const struct {
        apmw_trace_part part;
        const char *reason;
    } cases[] = {
        {{.first = 10}, "10"},
        {{.first = 3, .last = 3}, "3 to 3"},
        {{.first = 3, .last = 11}, "3 to 11"},
        {{.sample = 11}, "11 out of 10"},
        {{.max_context = 1}, "no trajectory is left"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(apmw_trace_slice(&trace, &cases[i].part, &out, &err), APMW_E_USAGE);
        if (strstr(err.message, cases[i].reason) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.message, cases[i].reason);
        }
        assert_null(out.items);
    }
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_nothing_is_the_whole), cmocka_unit_test(by_range),
        cmocka_unit_test(by_turns_and_context),    cmocka_unit_test(by_lot),
        cmocka_unit_test(what_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
