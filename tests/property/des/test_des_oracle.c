/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue against a sorted list: random schedules, cancels and stops, from outside and from inside events.
 * After every event the list must name the same event as the queue, at the same time. Times are drawn from a
 * small range so that most of them tie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/des.h"
#include "apmw/rng.h"

enum { MAX_EVENTS = 20000 };

typedef struct oracle_event {
    apmw_time when;
    int cls;
    uint64_t name; /* counts up, so it is also the order of scheduling */
    apmw_event_handle handle;
} oracle_event;

typedef struct world {
    apmw_des *des;
    apmw_rng rng;
    oracle_event list[MAX_EVENTS]; /* sorted by (when, cls, name) */
    size_t n;
    uint64_t names, left, handled;
    apmw_event_handle dead[64]; /* handles of events that are gone */
    size_t n_dead;
    unsigned cancel_percent;
    uint64_t span;
} world;

static void on_event(apmw_des *des, void *subject, uint64_t argument);

static void bury(world *w, apmw_event_handle handle)
{
    w->dead[w->n_dead++ % 64] = handle;
}

static void schedule_one(world *w)
{
    if (w->left == 0 || w->n == MAX_EVENTS) {
        return;
    }
    w->left--;
    oracle_event e = {.name = w->names++};
    e.when = apmw_des_now(w->des) + (apmw_time)apmw_rng_below(&w->rng, w->span);
    e.cls = (int)apmw_rng_below(&w->rng, 6);
    e.handle = apmw_des_schedule(w->des, e.when, (apmw_event_class)e.cls, on_event, w, e.name);
    assert_int_not_equal(e.handle.generation, 0);
    size_t i = w->n;
    while (i > 0 &&
           (w->list[i - 1].when > e.when || (w->list[i - 1].when == e.when && w->list[i - 1].cls > e.cls))) {
        i--;
    }
    memmove(&w->list[i + 1], &w->list[i], (w->n - i) * sizeof e);
    w->list[i] = e;
    w->n++;
}

static void cancel_one(world *w)
{
    if (w->n == 0) {
        return;
    }
    const size_t i = (size_t)apmw_rng_below(&w->rng, w->n);
    apmw_event_handle handle = w->list[i].handle;
    assert_true(apmw_des_pending(w->des, handle));
    bury(w, handle);
    apmw_des_cancel(w->des, &handle);
    w->n--;
    memmove(&w->list[i], &w->list[i + 1], (w->n - i) * sizeof w->list[0]);
}

static void act(world *w)
{
    const uint64_t count = apmw_rng_below(&w->rng, 4);
    for (uint64_t i = 0; i < count; i++) {
        if (apmw_rng_below(&w->rng, 100) < w->cancel_percent) {
            cancel_one(w);
        } else {
            schedule_one(w);
        }
    }
    if (w->n_dead > 0) {
        const size_t known = w->n_dead < 64 ? w->n_dead : 64;
        apmw_event_handle gone = w->dead[apmw_rng_below(&w->rng, known)];
        assert_false(apmw_des_pending(w->des, gone));
        apmw_des_cancel(w->des, &gone);
    }
}

static void on_event(apmw_des *des, void *subject, uint64_t argument)
{
    world *w = subject;
    assert_true(w->n > 0);
    const oracle_event first = w->list[0];
    assert_int_equal(argument, first.name);
    assert_int_equal(apmw_des_now(des), first.when);
    bury(w, first.handle);
    w->n--;
    memmove(&w->list[0], &w->list[1], w->n * sizeof first);
    w->handled++;
    assert_int_equal(apmw_des_handled(des), w->handled);
    act(w);
    if (apmw_rng_below(&w->rng, 50) == 0) {
        apmw_des_stop(des);
    }
}

static void run_case(uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->des = apmw_des_create();
    w->rng = apmw_rng_make(seed, "test.des", 0, 0);
    w->left = 200 + apmw_rng_below(&w->rng, 2000);
    w->cancel_percent = (unsigned)apmw_rng_below(&w->rng, 70);
    w->span = 1 + apmw_rng_below(&w->rng, seed % 2 == 0 ? 20 : 100000);
    const uint64_t burst = apmw_rng_below(&w->rng, 1000);
    for (uint64_t i = 0; i < burst; i++) {
        schedule_one(w);
    }
    /* Cancel most of the burst in some cases: this is what sweeps the heap. */
    for (uint64_t i = 0; seed % 3 == 0 && i < burst * 3 / 4; i++) {
        cancel_one(w);
    }
    while (w->n > 0 || w->left > 0) {
        schedule_one(w);
        const apmw_time before = apmw_des_now(w->des);
        const apmw_time until = before + (apmw_time)apmw_rng_below(&w->rng, 2 * w->span);
        const uint64_t handled = w->handled;
        assert_int_equal(apmw_des_run(w->des, until), APMW_OK);
        assert_true(apmw_des_now(w->des) >= before && apmw_des_now(w->des) <= until);
        if (w->n > 0 && w->list[0].when > until && handled == w->handled) {
            assert_int_equal(apmw_des_now(w->des), until);
        }
        act(w);
    }
    assert_int_equal(apmw_des_run(w->des, APMW_TIME_NEVER), APMW_OK);
    assert_int_equal(apmw_des_handled(w->des), w->handled);
    apmw_des_free(w->des);
    free(w);
}

static void test_same_order_as_a_sorted_list(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        run_case(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_order_as_a_sorted_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
