/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sessions as a client sends them (sent.h). */
#include "apmw/sent.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/csv.h"
#include "apmw/rng.h"
#include "apmw/text.h"

apmw_sent apmw_sent_as_recorded(void)
{
    return (apmw_sent){.first_prompt_scale = 1.0, .growth_scale = 1.0};
}

/* ------------------------------------------------------------------ starts */

static int32_t find_session(const apmw_trace *trace, const char *id)
{
    for (size_t i = 0; i < trace->n; i++) {
        if (strcmp(trace->items[i].id, id) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

/* The place-th turn of the main line, -1 = there are fewer. */
static int32_t main_turn(const apmw_trajectory *t, int64_t place)
{
    for (int32_t i = 0; i < t->n_turns; i++) {
        if (t->turns[i].lane == 0 && place-- == 0) {
            return i;
        }
    }
    return -1;
}

static apmw_status read_start(const apmw_csv *csv, size_t row, const int cols[3], const char *path, const apmw_trace *trace,
                              int64_t n_agents, int64_t *user, apmw_start *out, apmw_error *err)
{
    const int64_t before = *user;
    int64_t turn = 0;
    apmw_status status = apmw_csv_int(csv, row, cols[0], -1, user, err);
    if (status == APMW_OK) {
        status = apmw_csv_int(csv, row, cols[2], -1, &turn, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    if (*user <= before || turn < 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: users are positive numbers in ascending order, turns count from 0",
                              path, row + 2);
    }
    const char *session = apmw_csv_cell(csv, row, cols[1]);
    out->trajectory = find_session(trace, session);
    if (out->trajectory < 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: the trace has no session \"%s\"", path, row + 2, session);
    }
    out->turn = main_turn(&trace->items[out->trajectory], *user <= n_agents ? turn : 0);
    if (out->turn < 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s:%zu: the main line of %s has no turn %" PRId64, path, row + 2, session,
                              turn);
    }
    return APMW_OK;
}

apmw_status apmw_starts_load(const char *path, const apmw_trace *trace, int64_t n_agents, apmw_start **out, size_t *n,
                             apmw_error *err)
{
    static const char *const NAMES[3] = {"user", "session", "turn"};
    apmw_csv *csv = NULL;
    int cols[3];
    *out = NULL;
    *n = 0;
    apmw_status status = apmw_csv_load(path, &csv, err);
    for (int i = 0; i < 3 && status == APMW_OK; i++) {
        status = apmw_csv_need(csv, NAMES[i], &cols[i], err);
    }
    const size_t rows = status == APMW_OK ? apmw_csv_rows(csv) : 0;
    if (status == APMW_OK) {
        *out = calloc(rows + 1, sizeof **out);
        status = *out == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu starts", rows) : APMW_OK;
    }
    int64_t user = 0;
    for (size_t i = 0; i < rows && status == APMW_OK; i++) {
        status = read_start(csv, i, cols, path, trace, n_agents, &user, &(*out)[*n], err);
        *n += status == APMW_OK;
    }
    apmw_csv_free(csv);
    if (status != APMW_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

/* ------------------------------------------------------------------ lengths */

static int64_t at_least_one(double tokens)
{
    const int64_t n = llround(tokens);
    return n > 1 ? n : 1;
}

/* A prompt that goes on where another one of the play ended. What was repeated of that one in whole blocks is repeated
 * whole: ids of blocks say no more. */
static void send_turn(const apmw_trajectory *recorded, int32_t i, int32_t first, int64_t block_tokens, const apmw_sent *sent,
                      apmw_turn *turns)
{
    const apmw_turn *r = &recorded->turns[i];
    apmw_turn *turn = &turns[i];
    const int32_t p = r->parent;
    const bool follows = p >= first && turns[p].lane == r->lane && r->shared_in > 0;
    const int64_t growth = follows ? r->n_in - recorded->turns[p].n_in : 0;
    if (follows && growth >= 0) {
        turn->n_in = at_least_one((double)turns[p].n_in + sent->growth_scale * (double)growth + sent->answer_tokens);
    } else {
        turn->n_in = at_least_one(sent->first_prompt_scale * (double)r->n_in);
    }
    if (p >= 0) {
        const int64_t parent_in = recorded->turns[p].n_in;
        const bool whole = r->shared_in >= parent_in - block_tokens + 1;
        turn->shared_in = whole ? turns[p].n_in
                                : (int64_t)floor((double)turns[p].n_in * (double)r->shared_in / (double)parent_in);
        turn->shared_in = turn->shared_in < turn->n_in ? turn->shared_in : turn->n_in;
        turn->shared_out = sent->answer_tokens > 0.0 || turn->shared_in < turns[p].n_in ? 0 : r->shared_out;
    }
}

static apmw_time capped(apmw_time delay_ns, const apmw_sent *sent)
{
    const apmw_time longest = apmw_time_from_s(sent->max_delay_s);
    return sent->max_delay_s > 0.0 && delay_ns > longest ? longest : delay_ns;
}

/* Part of what was sent, as prompts and outputs are: the same answers whatever the seed of the simulation. */
static bool never_ends(const apmw_sent *sent, int32_t session, int32_t turn)
{
    apmw_rng rng = apmw_rng_make(1, "endless answer", (uint64_t)session, (uint64_t)turn);
    return sent->endless_share > 0.0 && apmw_rng_uniform(&rng) < sent->endless_share;
}

/* Lognormal, so that no answer is negative; the mean is that of the run. */
static double answer(const apmw_sent *sent, int32_t session, int32_t turn)
{
    if (!(sent->output_spread > 0.0)) {
        return sent->output_tokens;
    }
    apmw_rng rng = apmw_rng_make(1, "answer", (uint64_t)session, (uint64_t)turn);
    const double variance = log1p(sent->output_spread * sent->output_spread);
    return sent->output_tokens * exp(sqrt(variance) * apmw_rng_normal(&rng) - 0.5 * variance);
}

static void send_session(const apmw_trajectory *recorded, int32_t session, int32_t first, int64_t block_tokens,
                         const apmw_sent *sent, apmw_turn *turns)
{
    for (int32_t i = 0; i < recorded->n_turns; i++) {
        apmw_turn *turn = &turns[i];
        *turn = recorded->turns[i];
        if (i >= first) {
            send_turn(recorded, i, first, block_tokens, sent, turns);
        }
        if (sent->output_tokens > 0.0) {
            turn->n_out = at_least_one(answer(sent, session, i));
            turn->shared_out = turn->shared_out < turn->n_out ? turn->shared_out : turn->n_out;
        }
        if (i >= first && never_ends(sent, session, i) && sent->endless_context - turn->n_in > turn->n_out) {
            turn->n_out = sent->endless_context - turn->n_in;
        }
        turn->delay_ns = capped(turn->delay_ns, sent);
    }
}

/* The session up to where the client ends it: before the first turn of the main line from `first` on whose recorded prompt
 * is beyond `most` (0 = never), *end, -1 = its own end. Turns that are left keep their places. Nothing is left when that is
 * the first one. */
static apmw_status cut(const apmw_trajectory *session, int64_t block_tokens, int32_t first, int64_t most, int32_t *end,
                       apmw_trace *out, apmw_error *err)
{
    apmw_trajectory copy = *session;
    const apmw_trace one = {.items = &copy, .n = 1, .block_tokens = block_tokens};
    apmw_trace_part part = {0};
    *end = -1;
    for (int32_t i = 0; i < session->n_turns && *end < 0; i++) {
        if (session->turns[i].lane == 0) {
            if (most > 0 && i >= first && session->turns[i].n_in > most) {
                *end = i;
            } else {
                part.max_turns++;
            }
        }
    }
    return part.max_turns == 0 ? APMW_OK : apmw_trace_slice(&one, &part, out, err);
}

static apmw_status send_start(const apmw_trace *recorded, apmw_start *start, const apmw_sent *sent, bool *kept,
                              apmw_trace *out, apmw_error *err)
{
    const apmw_trajectory *whole = &recorded->items[start->trajectory];
    apmw_trace part = {0};
    int32_t end = -1;
    apmw_status status = cut(whole, recorded->block_tokens, start->turn, sent->max_recorded_tokens, &end, &part, err);
    start->after_ns = end >= 0 ? capped(whole->turns[end].delay_ns, sent) : 0;
    *kept = status == APMW_OK && part.n == 1 && start->turn < part.items[0].n_turns;
    if (*kept) {
        apmw_trajectory session = part.items[0];
        apmw_turn *turns = calloc((size_t)session.n_turns, sizeof *turns);
        if (turns == NULL) {
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory for %d turns", session.n_turns);
        } else {
            send_session(&part.items[0], start->trajectory, start->turn, recorded->block_tokens, sent, turns);
            session.turns = turns;
            /* The shared prefix is as long as before, or as the shortest prompt that begins with it. */
            for (int32_t i = 0; i < session.n_turns; i++) {
                if (turns[i].parent < 0 && session.global_tokens > turns[i].n_in) {
                    session.global_tokens = turns[i].n_in;
                }
            }
            status = apmw_trajectory_check(&session, err);
            if (status == APMW_OK) {
                status = apmw_trace_add(out, &session, err);
            }
            free(turns);
        }
    }
    apmw_trace_free(&part);
    return status;
}

apmw_status apmw_trace_as_sent(const apmw_trace *recorded, apmw_start *starts, size_t *n, const apmw_sent *sent,
                               apmw_trace *out, apmw_error *err)
{
    *out = (apmw_trace){.block_tokens = recorded->block_tokens};
    if (!(sent->first_prompt_scale > 0.0) || !(sent->growth_scale >= 0.0) || !(sent->answer_tokens >= 0.0) ||
        !(sent->output_tokens >= 0.0) || !(sent->output_spread >= 0.0) || !(sent->max_delay_s >= 0.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "what a client sends: scales, tokens and waits are not negative");
    }
    if (!(sent->endless_share >= 0.0 && sent->endless_share <= 1.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "what a client sends: %g is no share of answers that never end",
                              sent->endless_share);
    }
    apmw_status status = APMW_OK;
    size_t left = 0;
    for (size_t i = 0; i < *n && status == APMW_OK; i++) {
        bool kept = false;
        status = send_start(recorded, &starts[i], sent, &kept, out, err);
        if (status == APMW_OK && kept) {
            starts[left] = (apmw_start){.trajectory = (int32_t)left, .turn = starts[i].turn, .after_ns = starts[i].after_ns};
            left++;
        }
    }
    *n = left;
    if (status == APMW_OK && left == 0) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "no start is left: every session ends before its first turn");
    }
    if (status != APMW_OK) {
        apmw_trace_free(out);
        return status;
    }
    memcpy(out->note, recorded->note, sizeof out->note);
    apmw_trace_rehash(out);
    return APMW_OK;
}
