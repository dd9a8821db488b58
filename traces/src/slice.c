/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Parts of a trace. A trajectory is only ever cut at its end: what comes before never refers to what comes
 * after. */
#include <stdlib.h>
#include <string.h>

#include "apmw/rng.h"
#include "private.h"

static apmw_status no_memory(apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "out of memory for a part of a trace");
}

/* Number of turns to keep, in playing order. */
static int32_t kept_turns(const apmw_trajectory *t, const apmw_trace_part *part)
{
    int64_t main_turns = 0;
    for (int32_t i = 0; i < t->n_turns; i++) {
        const apmw_turn *u = &t->turns[i];
        main_turns += u->lane == 0;
        if ((part->max_turns > 0 && main_turns > part->max_turns) ||
            (part->max_context > 0 && u->n_in + u->n_out > part->max_context)) {
            return i;
        }
    }
    return t->n_turns;
}

static apmw_status cut(const apmw_trajectory *from, int32_t n_turns, apmw_trajectory *out, apmw_error *err)
{
    *out = *from;
    out->turns = NULL;
    out->lanes = NULL;
    out->n_turns = 0;
    out->n_lanes = 0;
    int32_t *number = malloc((size_t)from->n_lanes * sizeof *number);
    if (number == NULL) {
        return no_memory(err);
    }
    for (int32_t k = 0; k < from->n_lanes; k++) {
        number[k] = -1;
    }
    for (int32_t i = 0; i < n_turns; i++) {
        number[from->turns[i].lane] = 0;
    }
    apmw_status status = APMW_OK;
    for (int32_t k = 0; k < from->n_lanes && status == APMW_OK; k++) {
        /* A sub-agent may be first in playing order; the main line stays lane 0 all the same. */
        if (number[k] == 0) {
            const apmw_lane *lane = &from->lanes[k];
            number[k] = out->n_lanes;
            status = apmw_tr_push_lane(out, lane->spawn_after,
                                       lane->join_before < n_turns ? lane->join_before : -1, err);
        }
    }
    for (int32_t i = 0; i < n_turns && status == APMW_OK; i++) {
        apmw_turn turn = from->turns[i];
        turn.lane = number[turn.lane];
        status = apmw_tr_push_turn(out, &turn, err);
    }
    free(number);
    if (status != APMW_OK) {
        apmw_trajectory_free(out);
    }
    return status;
}

/* Whether any main-line turn is among the first n. */
static bool has_main(const apmw_trajectory *t, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (t->turns[i].lane == 0) {
            return true;
        }
    }
    return false;
}

static apmw_status cut_all(const apmw_trace *trace, const apmw_trace_part *part, apmw_trace *out,
                           apmw_error *err)
{
    size_t last = part->last == 0 ? trace->n : part->last;
    if (part->first >= last || last > trace->n) {
        return apmw_error_set(err, APMW_E_USAGE, "trajectories %zu to %zu of a trace that has %zu",
                              part->first, last, trace->n);
    }
    for (size_t i = part->first; i < last; i++) {
        const apmw_trajectory *from = &trace->items[i];
        int32_t n = kept_turns(from, part);
        if (n == from->n_turns) {
            apmw_status status = apmw_trace_add(out, from, err);
            if (status != APMW_OK) {
                return status;
            }
        } else if (has_main(from, n)) {
            apmw_trajectory t;
            apmw_status status = cut(from, n, &t, err);
            if (status == APMW_OK) {
                status = apmw_tr_take(out, &t, err);
            }
            if (status != APMW_OK) {
                return status;
            }
        }
    }
    return APMW_OK;
}

/* Keeps `count` trajectories: each next one with the probability that makes all subsets equally likely. */
static void draw(apmw_trace *trace, size_t count, uint64_t seed)
{
    apmw_rng rng = apmw_rng_make(seed, "trace.sample", 0, 0);
    size_t kept = 0, n = trace->n;
    for (size_t i = 0; i < n; i++) {
        if (apmw_rng_below(&rng, n - i) < count - kept) {
            apmw_trajectory t = trace->items[i];
            trace->items[i] = (apmw_trajectory){0};
            trace->items[kept++] = t;
        } else {
            apmw_trajectory_free(&trace->items[i]);
        }
    }
    trace->n = kept;
}

apmw_status apmw_trace_slice(const apmw_trace *trace, const apmw_trace_part *part, apmw_trace *out,
                             apmw_error *err)
{
    memset(out, 0, sizeof *out);
    out->block_tokens = trace->block_tokens;
    memcpy(out->note, trace->note, sizeof out->note);
    apmw_status status = cut_all(trace, part, out, err);
    if (status == APMW_OK && out->n == 0) {
        status =
            apmw_error_set(err, APMW_E_USAGE, "no trajectory is left: every first turn exceeds %lld tokens",
                           (long long)part->max_context);
    }
    if (status == APMW_OK && part->sample > out->n) {
        status = apmw_error_set(err, APMW_E_USAGE, "a sample of %zu out of %zu trajectories", part->sample,
                                out->n);
    }
    if (status != APMW_OK) {
        apmw_trace_free(out);
        return status;
    }
    if (part->sample > 0) {
        draw(out, part->sample, part->seed);
    }
    apmw_trace_rehash(out);
    return APMW_OK;
}
