/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Two traces are the same, field by field (structs have padding, so memcmp would not do). Needs cmocka. */
#ifndef APMW_TEST_TRACES_SAME_H
#define APMW_TEST_TRACES_SAME_H
#include "apmw/trace.h"

static inline void assert_same_turn(const apmw_turn *a, const apmw_turn *b)
{
    assert_int_equal(a->n_in, b->n_in);
    assert_int_equal(a->n_out, b->n_out);
    assert_int_equal(a->parent, b->parent);
    assert_int_equal(a->lane, b->lane);
    assert_int_equal(a->shared_in, b->shared_in);
    assert_int_equal(a->shared_out, b->shared_out);
    assert_int_equal(a->delay_ns, b->delay_ns);
    assert_int_equal(a->trigger, b->trigger);
}

static inline void assert_same_trajectory(const apmw_trajectory *a, const apmw_trajectory *b)
{
    assert_string_equal(a->id, b->id);
    assert_string_equal(a->source, b->source);
    assert_int_equal(a->global_id, b->global_id);
    assert_int_equal(a->global_tokens, b->global_tokens);
    assert_int_equal(a->n_turns, b->n_turns);
    assert_int_equal(a->n_lanes, b->n_lanes);
    for (int32_t i = 0; i < a->n_turns; i++) {
        assert_same_turn(&a->turns[i], &b->turns[i]);
    }
    for (int32_t k = 0; k < a->n_lanes; k++) {
        assert_int_equal(a->lanes[k].spawn_after, b->lanes[k].spawn_after);
        assert_int_equal(a->lanes[k].join_before, b->lanes[k].join_before);
    }
}

static inline void assert_same_trace(const apmw_trace *a, const apmw_trace *b)
{
    assert_string_equal(a->hash, b->hash);
    assert_string_equal(a->note, b->note);
    assert_int_equal(a->block_tokens, b->block_tokens);
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        assert_same_trajectory(&a->items[i], &b->items[i]);
    }
}

#endif
