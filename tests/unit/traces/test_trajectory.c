/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Every rule of a trajectory: a good one passes, and one change at a time is refused with trajectory, turn
 * and reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_same.h"

typedef struct parts {
    apmw_trajectory t;
    apmw_turn turns[6];
    apmw_lane lanes[3];
} parts;

static void good(parts *p)
{
    memset(p, 0, sizeof *p);
    const apmw_turn turns[6] = {
        {.n_in = 1000, .n_out = 50, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 500, .n_out = 7, .parent = 0, .lane = 1, .delay_ns = 1},
        {.n_in = 700, .n_out = 9, .parent = 1, .lane = 1, .shared_in = 500, .shared_out = 7, .delay_ns = 2},
        {.n_in = 800, .n_out = 9, .parent = 0, .lane = 2, .shared_in = 640, .delay_ns = 5},
        {.n_in = 1200,
         .n_out = 1,
         .parent = 0,
         .shared_in = 1000,
         .shared_out = 50,
         .trigger = APMW_TURN_JOIN},
        {.n_in = 300, .n_out = 3, .parent = 4, .shared_in = 256, .delay_ns = 9},
    };
    const apmw_lane lanes[3] = {{-1, -1}, {0, 4}, {0, -1}};
    memcpy(p->turns, turns, sizeof turns);
    memcpy(p->lanes, lanes, sizeof lanes);
    p->t = (apmw_trajectory){.id = "sample",
                             .source = "test",
                             .global_id = 3,
                             .global_tokens = 128,
                             .turns = p->turns,
                             .n_turns = 6,
                             .lanes = p->lanes,
                             .n_lanes = 3};
}

static void refuse(const parts *p, const char *reason)
{
    apmw_error err = {0};
    apmw_trace trace = {.block_tokens = 1};
    assert_int_equal(apmw_trajectory_check(&p->t, &err), APMW_E_DATA);
    if (strstr(err.message, reason) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, reason);
    }
    assert_int_equal(apmw_trace_add(&trace, &p->t, &err), APMW_E_DATA);
    assert_null(trace.items);
}

static void passes_when_it_is_good(void **state)
{
    (void)state;
    parts p;
    apmw_error err = {0};
    good(&p);
    assert_int_equal(apmw_trajectory_check(&p.t, &err), APMW_OK);
    apmw_trace trace = {.block_tokens = 1};
    assert_int_equal(apmw_trace_add(&trace, &p.t, &err), APMW_OK);
    assert_same_trajectory(&p.t, &trace.items[0]);
    assert_ptr_not_equal(trace.items[0].turns, p.turns); /* a copy */
    apmw_trace_free(&trace);
    assert_null(trace.items);
    apmw_trace_free(&trace); /* again does no harm */
}

/* `change` is one statement on `p`. */
#define REFUSE(change, reason)                                                                               \
    do {                                                                                                     \
        parts p;                                                                                             \
        good(&p);                                                                                            \
        change;                                                                                              \
        refuse(&p, reason);                                                                                  \
    } while (0)

static void is_refused_rule_by_rule(void **state)
{
    (void)state;
    REFUSE(p.t.id[0] = '\0', "id");
    REFUSE(memset(p.t.id, 'x', sizeof p.t.id), "id");
    REFUSE(memset(p.t.source, 'x', sizeof p.t.source), "source");
    REFUSE(p.t.n_turns = 0, "no turns");
    REFUSE(p.t.n_lanes = 0, "0 lanes");
    REFUSE(p.t.n_lanes = 7, "7 lanes");
    REFUSE(p.t.global_id = -2, "group -2");
    REFUSE(p.t.global_id = -1, "group -1");
    REFUSE(p.t.global_tokens = -1, "-1 tokens");
    REFUSE(p.t.global_tokens = 1001, "turn 0");
    REFUSE(p.turns[2].n_in = 0, "turn 2");
    REFUSE(p.turns[2].n_out = 0, "turn 2");
    REFUSE(p.turns[2].n_in = INT64_MAX, "turn 2");
    REFUSE(p.turns[2].parent = 2, "parent 2");
    REFUSE(p.turns[2].parent = -2, "parent -2");
    REFUSE(p.turns[2].parent = -1, "names no parent");
    REFUSE(p.turns[2].shared_in = -1, "negative");
    REFUSE(p.turns[2].shared_in = 501, "turn 2");
    REFUSE(p.turns[5].shared_in = 301, "turn 5");
    REFUSE(p.turns[2].shared_out = 8, "turn 2");
    REFUSE(p.turns[2].n_in = 506, "turn 2");
    REFUSE(p.turns[2].shared_in = 499, "whole prompt");
    REFUSE(p.turns[2].delay_ns = -1, "delay");
    REFUSE(p.turns[2].delay_ns = INT64_MAX, "delay");
    REFUSE(p.turns[2].trigger = (apmw_turn_trigger)3, "trigger 3");
    REFUSE(p.turns[2].trigger = APMW_TURN_JOIN, "no lane is joined");
    REFUSE(p.turns[2].lane = 3, "lane 3 of 3");
    REFUSE(p.turns[2].lane = -1, "lane -1");
    REFUSE(p.turns[3].lane = 1, "lane 2 has no turns");
    REFUSE(p.lanes[0].spawn_after = 0, "main line");
    REFUSE(p.lanes[0].join_before = 4, "main line");
    REFUSE(p.lanes[1].spawn_after = 1, "spawning turn 1");
    REFUSE(p.lanes[1].join_before = 2, "joining turn 2");
    REFUSE(p.lanes[1].join_before = 6, "joining turn 6");
    REFUSE(p.lanes[1].spawn_after = 4, "stand between");
    REFUSE(p.turns[5].lane = 1, "stand between");
}

static void message_is_optional(void **state)
{
    (void)state;
    parts p;
    good(&p);
    p.turns[1].n_in = 0;
    assert_int_equal(apmw_trajectory_check(&p.t, NULL), APMW_E_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_when_it_is_good),
        cmocka_unit_test(is_refused_rule_by_rule),
        cmocka_unit_test(message_is_optional),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
