/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Each allocation of a run of the event queue fails once: the zero handle and APMW_E_NOMEM tell. And once the
 * queue has had its largest size, nothing is allocated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <stdlib.h>

#include "apmw/des.h"
#include "failing_alloc.h"

enum { EVENTS = 3000 };

static void nothing(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)subject;
    (void)argument;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    if (!FAILING_ALLOC) {
        skip();
    }
    long n = 1;
    for (bool reached = true; reached; n++) {
        const long live = failing_alloc_live;
        failing_alloc_countdown = n;
        apmw_des *des = apmw_des_create();
        bool told = des == NULL;
        for (int i = 0; i < EVENTS && des != NULL; i++) {
            const apmw_event_handle h = apmw_des_schedule(des, i, APMW_EVENT_CLIENT, nothing, NULL, 0);
            told = told || h.generation == 0;
        }
        reached = failing_alloc_countdown == 0;
        failing_alloc_countdown = 0;
        assert_true(told == reached);
        if (des != NULL) {
            assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), told ? APMW_E_NOMEM : APMW_OK);
            assert_int_equal(apmw_des_handled(des), told ? 0 : EVENTS);
        }
        apmw_des_free(des);
        assert_true(failing_alloc_live == live);
    }
    assert_true(n > 8);
}

typedef struct replay {
    apmw_event_handle handles[EVENTS];
    int left;
} replay;

static void again(apmw_des *des, void *subject, uint64_t argument)
{
    replay *r = subject;
    if (r->left-- > 0) {
        const uint64_t other = (argument * 7 + 1) % EVENTS;
        r->handles[argument] = apmw_des_schedule(des, apmw_des_now(des) + 1 + (apmw_time)(argument % 5),
                                                 APMW_EVENT_CLIENT, again, r, argument);
        apmw_des_cancel(des, &r->handles[other]);
        r->handles[other] =
            apmw_des_schedule(des, apmw_des_now(des) + EVENTS, APMW_EVENT_CLIENT, again, r, other);
    }
}

static void test_steady_state_allocates_nothing(void **state)
{
    (void)state;
    if (!FAILING_ALLOC) {
        skip();
    }
    apmw_des *des = apmw_des_create();
    static replay r;
    r.left = 200 * EVENTS;
    for (int i = 0; i < EVENTS; i++) {
        r.handles[i] = apmw_des_schedule(des, i % 10, APMW_EVENT_CLIENT, again, &r, (uint64_t)i);
    }
    apmw_des_run(des, 60); /* the heap reaches its size: live and cancelled entries */
    assert_true(r.left > 0);
    failing_alloc_countdown = LONG_MAX;
    assert_int_equal(apmw_des_run(des, APMW_TIME_NEVER), APMW_OK);
    assert_true(failing_alloc_countdown == LONG_MAX);
    failing_alloc_countdown = 0;
    apmw_des_free(des);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
