/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random trajectories that use everything the model of a trace allows. */
#ifndef APMW_TEST_TRACES_RANDOM_H
#define APMW_TEST_TRACES_RANDOM_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/rng.h"
#include "apmw/trace.h"

enum { RANDOM_MAX_TURNS = 24 };

typedef struct random_parts {
    apmw_turn turns[RANDOM_MAX_TURNS];
    apmw_lane lanes[RANDOM_MAX_TURNS];
} random_parts;

static inline int64_t random_up_to(apmw_rng *rng, int64_t most)
{
    return (int64_t)apmw_rng_below(rng, (uint64_t)most + 1);
}

/* A turn at place i whose parent and sharing obey the rules; half of the parents are shared whole. */
static inline apmw_turn random_turn(apmw_rng *rng, const apmw_trajectory *t, int32_t i, int64_t max_tokens)
{
    apmw_turn u = {.parent = -1, .delay_ns = random_up_to(rng, 5000000000)};
    u.n_out = 1 + random_up_to(rng, max_tokens / 4);
    u.trigger = apmw_rng_below(rng, 4) == 0 ? APMW_TURN_USER : APMW_TURN_TOOL;
    int64_t fresh = random_up_to(rng, max_tokens / 2);
    if (i > 0 && apmw_rng_below(rng, 12) != 0) {
        u.parent = apmw_rng_below(rng, 3) != 0 ? i - 1 : (int32_t)apmw_rng_below(rng, (uint64_t)i);
        const apmw_turn *parent = &t->turns[u.parent];
        u.shared_in = apmw_rng_below(rng, 2) == 0 ? parent->n_in : random_up_to(rng, parent->n_in);
        if (u.shared_in == parent->n_in && apmw_rng_below(rng, 2) == 0) {
            u.shared_out = random_up_to(rng, parent->n_out);
        }
        u.n_in = u.shared_in + u.shared_out + fresh;
    } else {
        u.n_in = t->global_tokens + fresh;
    }
    u.n_in = u.n_in > 0 ? u.n_in : 1;
    return u;
}

/* Fills `t`, whose arrays are those of `parts`. */
static inline void random_trajectory(apmw_rng *rng, size_t index, int64_t max_tokens, random_parts *parts,
                                     apmw_trajectory *t)
{
    memset(t, 0, sizeof *t);
    snprintf(t->id, sizeof t->id, "random-%zu", index);
    snprintf(t->source, sizeof t->source, "test");
    t->turns = parts->turns;
    t->lanes = parts->lanes;
    t->global_id = -1;
    if (apmw_rng_below(rng, 3) != 0) {
        t->global_id = (int32_t)apmw_rng_below(rng, 3);
        t->global_tokens = random_up_to(rng, max_tokens / 2);
    }
    t->lanes[0] = (apmw_lane){-1, -1};
    t->n_lanes = 1;
    int32_t n = 1 + (int32_t)apmw_rng_below(rng, RANDOM_MAX_TURNS);
    int32_t main_turn = -1;
    while (t->n_turns < n) {
        int32_t i = t->n_turns, left = n - i;
        bool spawn = main_turn >= 0 && left >= 3 && apmw_rng_below(rng, 5) == 0;
        if (!spawn) {
            t->turns[t->n_turns++] = random_turn(rng, t, i, max_tokens);
            main_turn = i;
            continue;
        }
        /* A sub-agent of one or two turns, joined by the next main-line turn or left alone. */
        int32_t lane = t->n_lanes++;
        bool joined = apmw_rng_below(rng, 2) == 0;
        int32_t turns = 1 + (int32_t)apmw_rng_below(rng, 2);
        for (int32_t k = 0; k < turns; k++) {
            t->turns[t->n_turns] = random_turn(rng, t, t->n_turns, max_tokens);
            t->turns[t->n_turns++].lane = lane;
        }
        t->lanes[lane] = (apmw_lane){main_turn, joined ? t->n_turns : -1};
        t->turns[t->n_turns] = random_turn(rng, t, t->n_turns, max_tokens);
        t->turns[t->n_turns].trigger = joined ? APMW_TURN_JOIN : APMW_TURN_TOOL;
        main_turn = t->n_turns++;
    }
}

static inline apmw_trace random_trace(uint64_t seed, size_t n, int64_t max_tokens, int64_t block_tokens)
{
    apmw_trace trace = {.block_tokens = block_tokens};
    apmw_rng rng = apmw_rng_make(seed, "test.random_trace", 0, 0);
    snprintf(trace.note, sizeof trace.note, "random %llu", (unsigned long long)seed);
    for (size_t i = 0; i < n; i++) {
        random_parts parts;
        apmw_trajectory t;
        apmw_error err = {0};
        random_trajectory(&rng, i, max_tokens, &parts, &t);
        if (apmw_trace_add(&trace, &t, &err) != APMW_OK) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        }
    }
    apmw_trace_rehash(&trace);
    return trace;
}

#endif
