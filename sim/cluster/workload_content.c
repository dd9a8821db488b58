/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which trajectories are played by whom, and what their prompts contain. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/rng.h"
#include "workload_play.h"

int64_t apmw_replay_output(const apmw_replay *replay, const apmw_turn *turn)
{
    const int64_t cap = replay->max_output_tokens;
    return cap > 0 && turn->n_out > cap ? cap : turn->n_out;
}

/* A permutation of [0, n) as a function: four Feistel rounds on the next even power of two, walked until inside
 * (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). */
static uint64_t permuted(uint64_t key, uint64_t n, uint64_t x)
{
    unsigned half = 1;
    while ((1ULL << (2 * half)) < n) {
        half++;
    }
    const uint64_t mask = (1ULL << half) - 1;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            apmw_rng rng = {.key = key, .counter = (round << 32) | right};
            const uint64_t mixed = left ^ (apmw_rng_u64(&rng) & mask);
            left = right;
            right = mixed;
        }
        x = (left << half) | right;
    } while (x >= n);
    return x;
}

uint64_t apmw_replay_assigned(const apmw_replay *replay, int32_t agent, int32_t number)
{
    const uint64_t n = replay->n_playable, a = (uint64_t)agent;
    const uint64_t key = apmw_rng_key(replay->seed, "trajectories", (uint64_t)number, a / n);
    return permuted(key, n, a % n);
}

/* Turns that fit the context limit: all before the first that does not. */
static int32_t fitting_turns(const apmw_replay *replay, const apmw_trajectory *t)
{
    int32_t n = 0;
    while (n < t->n_turns && (replay->max_context <= 0 ||
                              t->turns[n].n_in + apmw_replay_output(replay, &t->turns[n]) <= replay->max_context)) {
        n++;
    }
    return n;
}

apmw_status apmw_replay_prepare(apmw_replay *replay, apmw_error *err)
{
    const apmw_trace *trace = replay->trace;
    replay->playable = calloc(trace->n, sizeof *replay->playable);
    replay->n_fit = calloc(trace->n, sizeof *replay->n_fit);
    if (replay->playable == NULL || replay->n_fit == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu trajectories", trace->n);
    }
    for (size_t i = 0; i < trace->n; i++) {
        const apmw_trajectory *t = &trace->items[i];
        const int32_t n = fitting_turns(replay, t);
        replay->n_globals = t->global_id >= replay->n_globals ? t->global_id + 1 : replay->n_globals;
        if (n > 0) {
            replay->playable[replay->n_playable] = (int32_t)i;
            replay->n_fit[replay->n_playable++] = n;
        }
    }
    if (replay->n_playable == 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "no trajectory has a first turn within %" PRId64 " tokens of context",
                              replay->max_context);
    }
    replay->globals = calloc((size_t)replay->n_globals + 1, sizeof *replay->globals);
    if (replay->globals == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %d prefix groups", replay->n_globals);
    }
    return APMW_OK;
}

void apmw_replay_free(apmw_replay *replay)
{
    free(replay->playable);
    free(replay->n_fit);
    free(replay->globals);
}

/* Stream under which a turn without parent starts: the shared or the play's own copy of its prefix group. */
static apmw_stream root_prefix(apmw_replay *replay, const apmw_trajectory *t, apmw_stream *own)
{
    apmw_streams *streams = apmw_sim_streams(replay->sim);
    apmw_stream *prefix = replay->share_global && t->global_id >= 0 ? &replay->globals[t->global_id] : own;
    if (*prefix == 0) {
        *prefix = apmw_streams_new(streams, 0, 0);
    }
    return *prefix;
}

/* What is known of a turn's stream while streams are laid. */
typedef struct laid {
    bool extended;       /* a later turn already goes on at the end of its content */
    int32_t resender;    /* turn whose prompt repeats most of this one's output, and how much */
    int64_t resent_tokens;
} laid;

/* Where a turn's prompt begins to differ from everything before: it shares `common` tokens with `stream`. A part of the
 * parent's output is common if it was kept as it was generated, or if an earlier turn has sent it again as input. */
static void find_common(const apmw_play *play, const apmw_trajectory *t, int32_t i, const laid *books, apmw_stream *stream,
                        int64_t *common)
{
    const apmw_turn *turn = &t->turns[i];
    const int32_t p = turn->parent;
    const int64_t produced = play->kept[p] ? apmw_replay_output(play->replay, &t->turns[p]) : 0;
    int64_t out = turn->shared_out < produced ? turn->shared_out : produced;
    *stream = play->streams[p];
    const laid *parent = &books[p];
    if (turn->shared_out > out && parent->resent_tokens > out) {
        out = turn->shared_out < parent->resent_tokens ? turn->shared_out : parent->resent_tokens;
        *stream = play->streams[parent->resender];
    }
    *common = turn->shared_in + out;
}

static apmw_stream child_stream(apmw_play *play, const apmw_trajectory *t, int32_t i, laid *books)
{
    apmw_streams *streams = apmw_sim_streams(play->replay->sim);
    const apmw_turn *turn = &t->turns[i];
    const int32_t p = turn->parent;
    apmw_stream base;
    int64_t common;
    find_common(play, t, i, books, &base, &common);
    const int64_t end = t->turns[p].n_in + (play->kept[p] ? apmw_replay_output(play->replay, &t->turns[p]) : 0);
    apmw_stream stream;
    if (base == play->streams[p] && common == end && !books[p].extended) {
        stream = base;
        books[p].extended = true;
    } else if (common == 0) {
        stream = apmw_streams_new(streams, 0, 0);
    } else {
        stream = apmw_streams_new(streams, base, common);
    }
    if (turn->shared_out > books[p].resent_tokens) {
        books[p].resender = i;
        books[p].resent_tokens = turn->shared_out;
    }
    return stream;
}

/* Turns before a start offset too: what follows shares with their prompts. A turn extends its parent's stream when it goes
 * on exactly where that stream's content ends and is the first to do so, else it forks where the two part. */
bool apmw_play_lay_streams(apmw_play *play)
{
    apmw_replay *replay = play->replay;
    const apmw_trajectory *t = apmw_play_trajectory(play);
    laid *books = calloc((size_t)t->n_turns, sizeof *books);
    if (books == NULL) {
        return false;
    }
    memset(play->kept, 0, (size_t)t->n_turns * sizeof *play->kept);
    for (int32_t i = 0; i < t->n_turns && replay->output_cached; i++) {
        if (t->turns[i].parent >= 0 && t->turns[i].shared_out > 0) {
            play->kept[t->turns[i].parent] = true;
        }
    }
    apmw_stream own = 0;
    bool ok = true;
    for (int32_t i = 0; i < t->n_turns && ok; i++) {
        if (t->turns[i].parent >= 0) {
            play->streams[i] = child_stream(play, t, i, books);
        } else {
            const int64_t prefix = t->global_id >= 0 ? t->global_tokens : 0;
            const apmw_stream root = prefix > 0 ? root_prefix(replay, t, &own) : 0;
            play->streams[i] = root == 0 && prefix > 0 ? 0
                                                       : apmw_streams_new(apmw_sim_streams(replay->sim), root,
                                                                          root != 0 ? prefix : 0);
        }
        ok = play->streams[i] != 0;
    }
    free(books);
    return ok;
}
