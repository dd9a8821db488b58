/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The event queue by hand-worked cases: order of ties, cancelling, stopping, going on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "apmw/des.h"

typedef struct log {
    char text[256];
    size_t n;
    apmw_time times[256];
} log;

static void note(apmw_des *des, void *subject, uint64_t argument)
{
    log *l = subject;
    l->times[l->n] = apmw_des_now(des);
    l->text[l->n++] = (char)argument;
    l->text[l->n] = '\0';
}

static apmw_event_handle at(apmw_des *des, log *l, apmw_time when, apmw_event_class cls, char name)
{
    return apmw_des_schedule(des, when, cls, note, l, (uint64_t)name);
}

static void test_ties_go_by_class_then_by_sequence(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    log l = {.n = 0};
    at(des, &l, 5, APMW_EVENT_CONTROL, 'g');
    at(des, &l, 5, APMW_EVENT_ENGINE, 'f');
    at(des, &l, 5, APMW_EVENT_CLIENT, 'e');
    at(des, &l, 5, APMW_EVENT_ARRIVAL, 'c');
    at(des, &l, 5, APMW_EVENT_ARRIVAL, 'd');
    at(des, &l, 5, APMW_EVENT_TRANSFER, 'b');
    at(des, &l, 5, APMW_EVENT_STEP_END, 'a');
    at(des, &l, 4, APMW_EVENT_CONTROL, '0');
    assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), APMW_OK);
    assert_string_equal(l.text, "0abcdefg");
    assert_int_equal(apmw_des_now(des), 5);
    assert_int_equal(apmw_des_handled(des), 8);
    apmw_des_free(des);
}

static void test_cancel(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    log l = {.n = 0};
    apmw_event_handle a = at(des, &l, 1, APMW_EVENT_CLIENT, 'a');
    apmw_event_handle b = at(des, &l, 2, APMW_EVENT_CLIENT, 'b');
    const apmw_event_handle copy = b;
    assert_true(apmw_des_pending(des, a));
    apmw_des_cancel(des, &b);
    assert_int_equal(b.generation, 0);
    assert_false(apmw_des_pending(des, copy));
    /* The freed slot is used again; the old handle must not reach the new event. */
    apmw_event_handle c = at(des, &l, 3, APMW_EVENT_CLIENT, 'c');
    apmw_event_handle old = copy;
    apmw_des_cancel(des, &old);
    assert_true(apmw_des_pending(des, c));
    assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), APMW_OK);
    assert_string_equal(l.text, "ac");
    assert_false(apmw_des_pending(des, a));
    apmw_des_cancel(des, &a); /* it has run: nothing happens */
    apmw_event_handle none = {0, 0};
    apmw_des_cancel(des, &none);
    assert_false(apmw_des_pending(des, none));
    apmw_des_free(des);
}

static void test_until_and_going_on(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    log l = {.n = 0};
    at(des, &l, 10, APMW_EVENT_CLIENT, 'a');
    at(des, &l, 20, APMW_EVENT_CLIENT, 'b');
    at(des, &l, 30, APMW_EVENT_CLIENT, 'c');
    apmw_des_run(des, 20);
    assert_string_equal(l.text, "ab");
    assert_int_equal(apmw_des_now(des), 20);
    apmw_des_run(des, 25);
    assert_string_equal(l.text, "ab");
    assert_int_equal(apmw_des_now(des), 25);
    apmw_des_run(des, 3); /* already past: the clock never goes back */
    assert_int_equal(apmw_des_now(des), 25);
    apmw_des_run(des, 1000);
    assert_string_equal(l.text, "abc");
    assert_int_equal(apmw_des_now(des), 30); /* the queue is empty: the last event's time */
    apmw_des_free(des);
}

static void stop(apmw_des *des, void *subject, uint64_t argument)
{
    note(des, subject, argument);
    apmw_des_stop(des);
}

static void test_stop(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    log l = {.n = 0};
    apmw_des_schedule(des, 1, APMW_EVENT_CLIENT, stop, &l, 'a');
    at(des, &l, 1, APMW_EVENT_CLIENT, 'b');
    assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), APMW_OK);
    assert_string_equal(l.text, "a");
    assert_int_equal(apmw_des_now(des), 1);
    assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), APMW_OK);
    assert_string_equal(l.text, "ab");
    apmw_des_free(des);
}

static void again(apmw_des *des, void *subject, uint64_t argument)
{
    note(des, subject, argument);
    if (argument == 'x') {
        /* At its own instant, of an earlier class: it still runs, now, before what else waits. */
        at(des, subject, apmw_des_now(des), APMW_EVENT_STEP_END, 'y');
    }
}

static void test_events_schedule_at_their_own_instant(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    log l = {.n = 0};
    apmw_des_schedule(des, 7, APMW_EVENT_ARRIVAL, again, &l, 'x');
    at(des, &l, 7, APMW_EVENT_ENGINE, 'z');
    apmw_des_run(des, APMW_TIME_NEVER);
    assert_string_equal(l.text, "xyz");
    assert_int_equal(l.times[0], 7);
    assert_int_equal(l.times[2], 7);
    apmw_des_free(des);
}

static void test_two_simulations_in_one_process(void **state)
{
    (void)state;
    apmw_des *a = apmw_des_create(), *b = apmw_des_create();
    log la = {.n = 0}, lb = {.n = 0};
    at(a, &la, 1, APMW_EVENT_CLIENT, 'a');
    at(b, &lb, 9, APMW_EVENT_CLIENT, 'b');
    apmw_des_run(b, APMW_TIME_NEVER);
    apmw_des_run(a, APMW_TIME_NEVER);
    assert_string_equal(la.text, "a");
    assert_string_equal(lb.text, "b");
    assert_int_equal(apmw_des_now(a), 1);
    apmw_des_free(a);
    apmw_des_free(b);
    apmw_des_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ties_go_by_class_then_by_sequence),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_until_and_going_on),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_events_schedule_at_their_own_instant),
        cmocka_unit_test(test_two_simulations_in_one_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
