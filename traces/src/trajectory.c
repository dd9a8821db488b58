/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

static apmw_status no_memory(apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "out of memory for a trace");
}

/* True when an array of n items, grown by doubling from nothing, has no free place. */
static bool is_full(size_t n)
{
    return (n & (n - 1)) == 0;
}

static void *grow(void *items, size_t n, size_t size)
{
    size_t capacity = n == 0 ? 1 : n * 2;
    if (capacity > SIZE_MAX / size) {
        return NULL;
    }
    return realloc(items, capacity * size);
}

apmw_status apmw_tr_push_turn(apmw_trajectory *trajectory, const apmw_turn *turn, apmw_error *err)
{
    if (trajectory->n_turns >= APMW_TR_MAX_TURNS) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s has more than %d turns", trajectory->id,
                              APMW_TR_MAX_TURNS);
    }
    size_t n = (size_t)trajectory->n_turns;
    if (is_full(n)) {
        apmw_turn *turns = grow(trajectory->turns, n, sizeof *turns);
        if (turns == NULL) {
            return no_memory(err);
        }
        trajectory->turns = turns;
    }
    trajectory->turns[n] = *turn;
    trajectory->n_turns++;
    return APMW_OK;
}

apmw_status apmw_tr_push_lane(apmw_trajectory *trajectory, int32_t spawn_after, int32_t join_before,
                              apmw_error *err)
{
    if (trajectory->n_lanes >= APMW_TR_MAX_TURNS) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s has more than %d lanes", trajectory->id,
                              APMW_TR_MAX_TURNS);
    }
    size_t n = (size_t)trajectory->n_lanes;
    if (is_full(n)) {
        apmw_lane *lanes = grow(trajectory->lanes, n, sizeof *lanes);
        if (lanes == NULL) {
            return no_memory(err);
        }
        trajectory->lanes = lanes;
    }
    trajectory->lanes[n].spawn_after = spawn_after;
    trajectory->lanes[n].join_before = join_before;
    trajectory->n_lanes++;
    return APMW_OK;
}

void apmw_trajectory_free(apmw_trajectory *trajectory)
{
    if (trajectory == NULL) {
        return;
    }
    free(trajectory->turns);
    free(trajectory->lanes);
    memset(trajectory, 0, sizeof *trajectory);
}

void apmw_trace_free(apmw_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    for (size_t i = 0; i < trace->n; i++) {
        apmw_trajectory_free(&trace->items[i]);
    }
    free(trace->items);
    memset(trace, 0, sizeof *trace);
}

apmw_status apmw_tr_take(apmw_trace *trace, apmw_trajectory *trajectory, apmw_error *err)
{
    apmw_status status = apmw_trajectory_check(trajectory, err);
    if (status == APMW_OK && is_full(trace->n)) {
        apmw_trajectory *items = grow(trace->items, trace->n, sizeof *items);
        if (items == NULL) {
            status = no_memory(err);
        } else {
            trace->items = items;
        }
    }
    if (status != APMW_OK) {
        apmw_trajectory_free(trajectory);
        return status;
    }
    /* The arrays grew by doubling; a large corpus should not carry the slack. */
    apmw_turn *turns = realloc(trajectory->turns, (size_t)trajectory->n_turns * sizeof *turns);
    trajectory->turns = turns != NULL ? turns : trajectory->turns;
    apmw_lane *lanes = realloc(trajectory->lanes, (size_t)trajectory->n_lanes * sizeof *lanes);
    trajectory->lanes = lanes != NULL ? lanes : trajectory->lanes;
    trace->items[trace->n++] = *trajectory;
    memset(trajectory, 0, sizeof *trajectory);
    return APMW_OK;
}

apmw_status apmw_trace_add(apmw_trace *trace, const apmw_trajectory *trajectory, apmw_error *err)
{
    apmw_status status = apmw_trajectory_check(trajectory, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_trajectory copy = *trajectory;
    size_t turns_size = (size_t)trajectory->n_turns * sizeof *copy.turns;
    size_t lanes_size = (size_t)trajectory->n_lanes * sizeof *copy.lanes;
    copy.turns = malloc(turns_size);
    copy.lanes = malloc(lanes_size);
    if (copy.turns == NULL || copy.lanes == NULL) {
        apmw_trajectory_free(&copy);
        return no_memory(err);
    }
    memcpy(copy.turns, trajectory->turns, turns_size);
    memcpy(copy.lanes, trajectory->lanes, lanes_size);
    return apmw_tr_take(trace, &copy, err);
}

/* ---- the rules ------------------------------------------------------------------------------------------
 */

static apmw_status check_head(const apmw_trajectory *t, apmw_error *err)
{
    if (memchr(t->id, '\0', sizeof t->id) == NULL || t->id[0] == '\0') {
        return apmw_error_set(err, APMW_E_DATA, "a trajectory has an empty or unterminated id");
    }
    if (memchr(t->source, '\0', sizeof t->source) == NULL) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s: source is not terminated", t->id);
    }
    if (t->n_turns < 1 || t->turns == NULL) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s has no turns", t->id);
    }
    if (t->n_turns > APMW_TR_MAX_TURNS) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s has more than %d turns", t->id,
                              APMW_TR_MAX_TURNS);
    }
    if (t->n_lanes < 1 || t->n_lanes > t->n_turns || t->lanes == NULL) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s: %d lanes for %d turns; every lane, the main line included, needs "
            "at least one turn",
            t->id, t->n_lanes, t->n_turns);
    }
    if (t->global_id < -1 || t->global_tokens < 0 || t->global_tokens > APMW_TR_MAX_TOKENS ||
        (t->global_id == -1 && t->global_tokens != 0)) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s: shared prefix group %d with %lld tokens; the group is -1 with 0 "
            "tokens, or >= 0",
            t->id, t->global_id, (long long)t->global_tokens);
    }
    return APMW_OK;
}

static apmw_status check_sharing(const apmw_trajectory *t, int32_t i, apmw_error *err)
{
    const apmw_turn *turn = &t->turns[i];
    if (turn->parent < -1 || turn->parent >= i) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, turn %d: parent %d is not an earlier turn",
                              t->id, i, turn->parent);
    }
    if (turn->shared_in < 0 || turn->shared_out < 0) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, turn %d: negative shared tokens", t->id, i);
    }
    if (turn->parent == -1) {
        if (turn->shared_in != 0 || turn->shared_out != 0) {
            return apmw_error_set(err, APMW_E_DATA,
                                  "trajectory %s, turn %d: shares tokens but names no parent", t->id, i);
        }
        if (t->global_tokens > turn->n_in) {
            return apmw_error_set(err, APMW_E_DATA,
                                  "trajectory %s, turn %d: has no parent, so it starts with the group's %lld "
                                  "tokens, but its prompt has only %lld",
                                  t->id, i, (long long)t->global_tokens, (long long)turn->n_in);
        }
        return APMW_OK;
    }
    const apmw_turn *parent = &t->turns[turn->parent];
    if (turn->shared_in > turn->n_in || turn->shared_in > parent->n_in) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s, turn %d: shares %lld prompt tokens; its prompt has %lld and that "
            "of turn %d has %lld",
            t->id, i, (long long)turn->shared_in, (long long)turn->n_in, turn->parent,
            (long long)parent->n_in);
    }
    if (turn->shared_out > parent->n_out || turn->shared_out > turn->n_in - turn->shared_in) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s, turn %d: shares %lld output tokens of turn %d, which wrote %lld; "
            "%lld prompt tokens are left for them",
            t->id, i, (long long)turn->shared_out, turn->parent, (long long)parent->n_out,
            (long long)(turn->n_in - turn->shared_in));
    }
    if (turn->shared_out > 0 && turn->shared_in != parent->n_in) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s, turn %d: shares output of turn %d without its whole prompt (%lld of "
            "%lld tokens)",
            t->id, i, turn->parent, (long long)turn->shared_in, (long long)parent->n_in);
    }
    return APMW_OK;
}

static apmw_status check_turn(const apmw_trajectory *t, int32_t i, apmw_error *err)
{
    const apmw_turn *turn = &t->turns[i];
    if (turn->n_in < 1 || turn->n_in > APMW_TR_MAX_TOKENS || turn->n_out < 1 ||
        turn->n_out > APMW_TR_MAX_TOKENS) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "trajectory %s, turn %d: %lld prompt and %lld output tokens; both must be 1 or more "
            "(and below 2^40)",
            t->id, i, (long long)turn->n_in, (long long)turn->n_out);
    }
    if (turn->delay_ns < 0 || turn->delay_ns > APMW_TR_MAX_DELAY_NS) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, turn %d: delay of %lld ns is out of range",
                              t->id, i, (long long)turn->delay_ns);
    }
    if (turn->trigger != APMW_TURN_TOOL && turn->trigger != APMW_TURN_USER &&
        turn->trigger != APMW_TURN_JOIN) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, turn %d: unknown trigger %d", t->id, i,
                              (int)turn->trigger);
    }
    if (turn->lane < 0 || turn->lane >= t->n_lanes) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, turn %d: lane %d of %d", t->id, i, turn->lane,
                              t->n_lanes);
    }
    if (turn->lane > 0) {
        const apmw_lane *lane = &t->lanes[turn->lane];
        if (i <= lane->spawn_after || (lane->join_before >= 0 && i >= lane->join_before)) {
            return apmw_error_set(
                err, APMW_E_DATA,
                "trajectory %s, turn %d: lane %d is spawned after turn %d and joined before turn "
                "%d, so its turns must stand between them",
                t->id, i, turn->lane, lane->spawn_after, lane->join_before);
        }
    }
    return check_sharing(t, i, err);
}

static apmw_status check_anchor(const apmw_trajectory *t, int32_t lane, const char *what, int32_t turn,
                                apmw_error *err)
{
    if (turn < -1 || turn >= t->n_turns || (turn >= 0 && t->turns[turn].lane != 0)) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s, lane %d: %s turn %d is not a main-line turn",
                              t->id, lane, what, turn);
    }
    return APMW_OK;
}

static apmw_status check_lanes(const apmw_trajectory *t, apmw_error *err)
{
    if (t->lanes[0].spawn_after != -1 || t->lanes[0].join_before != -1) {
        return apmw_error_set(err, APMW_E_DATA, "trajectory %s: the main line cannot be spawned or joined",
                              t->id);
    }
    /* One mark a lane that has a turn, one a turn that joins a lane. */
    unsigned char *seen = calloc((size_t)t->n_lanes + (size_t)t->n_turns, 1);
    if (seen == NULL) {
        return no_memory(err);
    }
    unsigned char *joins = seen + t->n_lanes;
    apmw_status status = APMW_OK;
    for (int32_t k = 1; k < t->n_lanes && status == APMW_OK; k++) {
        const apmw_lane *lane = &t->lanes[k];
        status = check_anchor(t, k, "spawning", lane->spawn_after, err);
        if (status == APMW_OK) {
            status = check_anchor(t, k, "joining", lane->join_before, err);
        }
        if (status == APMW_OK && lane->join_before >= 0) {
            joins[lane->join_before] = 1;
        }
    }
    for (int32_t i = 0; i < t->n_turns && status == APMW_OK; i++) {
        if (t->turns[i].lane >= 0 && t->turns[i].lane < t->n_lanes) {
            seen[t->turns[i].lane] = 1;
        }
        if (t->turns[i].trigger == APMW_TURN_JOIN && !joins[i]) {
            status = apmw_error_set(
                err, APMW_E_DATA,
                "trajectory %s, turn %d: triggered by a join, but no lane is joined before it", t->id, i);
        }
    }
    for (int32_t k = 0; k < t->n_lanes && status == APMW_OK; k++) {
        if (!seen[k]) {
            status = apmw_error_set(err, APMW_E_DATA, "trajectory %s: lane %d has no turns", t->id, k);
        }
    }
    free(seen);
    return status;
}

apmw_status apmw_trajectory_check(const apmw_trajectory *trajectory, apmw_error *err)
{
    apmw_status status = check_head(trajectory, err);
    if (status == APMW_OK) {
        status = check_lanes(trajectory, err);
    }
    for (int32_t i = 0; i < trajectory->n_turns && status == APMW_OK; i++) {
        status = check_turn(trajectory, i, err);
    }
    return status;
}

/* ---- content hash ---------------------------------------------------------------------------------------
 */

/* Numbers enter the hash as little-endian bytes, so that it is the same on every machine. */
static unsigned char *put(unsigned char *to, int64_t value)
{
    uint64_t bits = (uint64_t)value;
    for (int k = 0; k < 8; k++) {
        to[k] = (unsigned char)(bits >> (8 * k));
    }
    return to + 8;
}

static uint64_t hash_trajectory(const apmw_trajectory *t, uint64_t seed)
{
    unsigned char bytes[256];
    uint64_t hash = apmw_hash64(t->id, strlen(t->id) + 1, seed);
    hash = apmw_hash64(t->source, strlen(t->source) + 1, hash);
    unsigned char *p = put(put(put(put(bytes, t->global_id), t->global_tokens), t->n_turns), t->n_lanes);
    hash = apmw_hash64(bytes, (size_t)(p - bytes), hash);
    for (int32_t i = 0; i < t->n_turns; i++) {
        const apmw_turn *u = &t->turns[i];
        p = put(put(put(put(bytes, u->n_in), u->n_out), u->parent), u->lane);
        p = put(put(put(put(p, u->shared_in), u->shared_out), u->delay_ns), u->trigger);
        hash = apmw_hash64(bytes, (size_t)(p - bytes), hash);
    }
    for (int32_t k = 0; k < t->n_lanes; k++) {
        p = put(put(bytes, t->lanes[k].spawn_after), t->lanes[k].join_before);
        hash = apmw_hash64(bytes, (size_t)(p - bytes), hash);
    }
    return hash;
}

void apmw_trace_rehash(apmw_trace *trace)
{
    unsigned char bytes[16];
    put(put(bytes, trace->block_tokens), (int64_t)trace->n);
    uint64_t hash = apmw_hash64(bytes, sizeof bytes, 0);
    for (size_t i = 0; i < trace->n; i++) {
        hash = hash_trajectory(&trace->items[i], hash);
    }
    snprintf(trace->hash, sizeof trace->hash, "%016llx", (unsigned long long)hash);
}
