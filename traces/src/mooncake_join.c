/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Mooncake rows become trajectories so that every reuse the block ids tell is kept.
 *
 * Sharing inside a trajectory is exact: each turn names the earlier one with the longest common prefix.
 * Sharing between trajectories is only possible as a shared prefix group, so rows are cut apart exactly
 * there:
 *   - rows that begin with the same block form a class; the prefix common to all of a class is known;
 *   - a class is one conversation, hence one trajectory, unless its rows look independent: more than 32
 * different continuations follow the common prefix, or that prefix is less than half of a mean prompt. Then
 * the common prefix becomes a shared group and each continuation a trajectory of its own. Nothing is lost
 * either way. Only AIPerf sessions, whose bounds are given, can lose sharing between sessions: the part of
 * nested prefixes that lies beyond the one common to their class.
 *
 * Within a trajectory a row that holds all full blocks of the last prompt of a lane continues that lane; any
 * other row opens a lane of its own in the background. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "apmw/time.h"
#include "mooncake.h"

enum { MANY_CONTINUATIONS = 32 };

/* Rows whose prompts begin with the same block. */
typedef struct class_info {
    int32_t rows, continuations;
    int32_t first; /* row */
    int32_t lcp_node;
    int lcp;       /* blocks common to all rows */
    int32_t group; /* -1: the class is one trajectory */
    double blocks;
    bool has_session;
} class_info;

typedef struct draft {
    apmw_trajectory t;
    double *t_ms;  /* by turn */
    int32_t *tail; /* by lane: its last turn */
    int32_t last_main;
} draft;

typedef struct place {
    int32_t node;  /* of the whole prompt; 0 without ids */
    int32_t first; /* node of its first block */
    int32_t draft, turn;
} place;

typedef struct join {
    const char *path;
    const apmw_tr_row *rows;
    int32_t n;
    int64_t block;
    apmw_tr_trie trie;
    place *places;       /* by row */
    class_info *classes; /* by node */
    int32_t *passing;    /* by node: rows whose prompt has this prefix */
    int32_t *draft_of;   /* by node, -1 = none: the trajectory of the prompts that pass here */
    draft *drafts;
    int32_t n_drafts;
} join;

static apmw_status no_memory(const join *j, apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", j->path);
}

/* A later row of a session: its ids continue a prompt that is not spelled out. */
static bool is_increment(const join *j, int32_t i)
{
    return j->rows[i].session != NULL && j->places[i].first == -1;
}

/* ---- classes --------------------------------------------------------------------------------------------
 */

/* Enters the whole prompts into the trie. */
static apmw_status enter_prompts(join *j, apmw_error *err)
{
    for (int32_t i = 0; i < j->n; i++) {
        place *p = &j->places[i];
        if (is_increment(j, i)) {
            continue;
        }
        int32_t node = 0;
        p->first = 0;
        for (int k = 0; k < j->rows[i].n_ids; k++) {
            bool made = false;
            apmw_status status = apmw_tr_trie_step(&j->trie, node, j->rows[i].ids[k], &node, &made, err);
            if (status != APMW_OK) {
                return status;
            }
            p->first = k == 0 ? node : p->first;
        }
        p->node = node;
    }
    j->classes = calloc(j->trie.n, sizeof *j->classes);
    j->passing = calloc(j->trie.n, sizeof *j->passing);
    j->draft_of = malloc(j->trie.n * sizeof *j->draft_of);
    if (j->classes == NULL || j->passing == NULL || j->draft_of == NULL) {
        return no_memory(j, err);
    }
    for (size_t node = 0; node < j->trie.n; node++) {
        j->draft_of[node] = -1;
    }
    return APMW_OK;
}

static void count_classes(join *j)
{
    for (int32_t i = 0; i < j->n; i++) {
        if (is_increment(j, i) || j->places[i].first == 0) {
            continue;
        }
        class_info *c = &j->classes[j->places[i].first];
        c->first = c->rows == 0 ? i : c->first;
        c->rows++;
        c->blocks += j->rows[i].n_ids;
        c->has_session = c->has_session || j->rows[i].session != NULL;
        for (int32_t node = j->places[i].node; node > 0; node = j->trie.up[node]) {
            j->passing[node]++;
        }
    }
    for (size_t node = 1; node < j->trie.n; node++) {
        class_info *c = &j->classes[node];
        if (c->rows == 0) {
            continue;
        }
        /* The common prefix is the deepest place on the first row's path that all rows pass. */
        int32_t at = j->places[c->first].node;
        int depth = j->rows[c->first].n_ids;
        while (j->passing[at] < c->rows) {
            at = j->trie.up[at];
            depth--;
        }
        c->lcp_node = at;
        c->lcp = depth;
    }
}

static void count_continuations(join *j)
{
    /* Marks the last node of each class's common prefix with its class. */
    int32_t *ends = j->draft_of; /* not yet used for its purpose */
    for (size_t node = 1; node < j->trie.n; node++) {
        if (j->classes[node].rows > 0) {
            ends[j->classes[node].lcp_node] = (int32_t)node;
        }
    }
    for (size_t node = 1; node < j->trie.n; node++) {
        int32_t up = j->trie.up[node];
        if (ends[up] >= 0) {
            j->classes[ends[up]].continuations++;
        }
    }
    for (size_t node = 0; node < j->trie.n; node++) {
        ends[node] = -1;
    }
}

static void number_groups(join *j, int32_t next)
{
    for (int32_t i = 0; i < j->n; i++) {
        if (is_increment(j, i) || j->places[i].first == 0) {
            continue;
        }
        class_info *c = &j->classes[j->places[i].first];
        if (c->first != i) {
            continue;
        }
        bool split =
            c->has_session || c->continuations > MANY_CONTINUATIONS || 2.0 * c->lcp < c->blocks / c->rows;
        c->group = c->rows > 1 && split ? next++ : -1;
    }
}

/* ---- trajectories ---------------------------------------------------------------------------------------
 */

static apmw_status add_draft(join *j, int32_t i, int32_t *out, apmw_error *err)
{
    if ((j->n_drafts & (j->n_drafts - 1)) == 0) {
        size_t capacity = j->n_drafts == 0 ? 1 : (size_t)j->n_drafts * 2;
        draft *drafts = realloc(j->drafts, capacity * sizeof *drafts);
        if (drafts == NULL) {
            return no_memory(j, err);
        }
        j->drafts = drafts;
    }
    *out = j->n_drafts++;
    draft *d = &j->drafts[*out];
    memset(d, 0, sizeof *d);
    d->t.global_id = -1;
    snprintf(d->t.source, sizeof d->t.source, "mooncake");
    const apmw_tr_row *r = &j->rows[i];
    if (r->session == NULL) {
        snprintf(d->t.id, sizeof d->t.id, "mooncake-%lld", (long long)r->line);
    } else if (!apmw_copy(d->t.id, sizeof d->t.id, r->session) || r->session[0] == '\0') {
        return apmw_error_set(err, APMW_E_DATA, "%s:%lld: /session_id: must have 1 to %zu bytes", j->path,
                              (long long)r->line, sizeof d->t.id - 1);
    }
    const class_info *c = j->places[i].first > 0 ? &j->classes[j->places[i].first] : NULL;
    if (c != NULL && c->group >= 0) {
        int64_t tokens = c->lcp * j->block;
        d->t.global_id = c->group;
        d->t.global_tokens = tokens < r->n_in ? tokens : r->n_in;
    }
    return APMW_OK;
}

/* Room for one more turn and one more lane; called before each push, when the counts are powers of two or 0.
 */
static apmw_status make_room(const join *j, draft *d, apmw_error *err)
{
    size_t turns = (size_t)d->t.n_turns, lanes = (size_t)d->t.n_lanes;
    if ((turns & (turns - 1)) == 0) {
        double *t_ms = realloc(d->t_ms, (turns == 0 ? 1 : turns * 2) * sizeof *t_ms);
        if (t_ms == NULL) {
            return no_memory(j, err);
        }
        d->t_ms = t_ms;
    }
    if ((lanes & (lanes - 1)) == 0) {
        int32_t *tail = realloc(d->tail, (lanes == 0 ? 1 : lanes * 2) * sizeof *tail);
        if (tail == NULL) {
            return no_memory(j, err);
        }
        d->tail = tail;
    }
    return APMW_OK;
}

static apmw_status set_delay(const join *j, int32_t i, double ms, apmw_turn *turn, apmw_error *err)
{
    if (!(ms <= (double)APMW_TR_MAX_DELAY_NS / 1e6)) {
        return apmw_error_set(err, APMW_E_DATA, "%s:%lld: a wait of %g ms is out of range", j->path,
                              (long long)j->rows[i].line, ms);
    }
    turn->delay_ns = apmw_time_from_s(fmax(0, ms) / 1000);
    return APMW_OK;
}

static apmw_status push(join *j, int32_t i, draft *d, const apmw_turn *turn, apmw_error *err)
{
    apmw_status status = apmw_tr_push_turn(&d->t, turn, err);
    if (status == APMW_OK) {
        place *p = &j->places[i];
        p->turn = d->t.n_turns - 1;
        d->t_ms[p->turn] = j->rows[i].t_ms;
        d->tail[turn->lane] = p->turn;
        d->last_main = turn->lane == 0 ? p->turn : d->last_main;
    }
    return status;
}

/* The earlier row of this trajectory that shares most with row i; the latest of several. *shared in blocks.
 */
static int32_t best_row(const join *j, int32_t i, int *shared)
{
    int32_t node = j->places[i].node;
    *shared = j->rows[i].n_ids;
    while (node > 0) {
        int32_t owner = j->trie.owner[node];
        if (owner >= 0 && j->places[owner].draft == j->places[i].draft) {
            return owner;
        }
        node = j->trie.up[node];
        --*shared;
    }
    return -1;
}

static apmw_status add_row(join *j, int32_t i, apmw_error *err)
{
    const apmw_tr_row *r = &j->rows[i];
    place *p = &j->places[i];
    draft *d = &j->drafts[p->draft];
    apmw_status status = make_room(j, d, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_turn turn = {.n_in = r->n_in, .n_out = r->n_out, .parent = -1, .trigger = APMW_TURN_USER};
    if (d->t.n_turns == 0) {
        status = apmw_tr_push_lane(&d->t, -1, -1, err);
    } else {
        int shared = 0;
        int32_t best = best_row(j, i, &shared);
        APMW_CHECK(best >= 0); /* rows of a trajectory have at least one block in common */
        const place *q = &j->places[best];
        const apmw_turn *parent = &d->t.turns[q->turn];
        int64_t most = parent->n_in < r->n_in ? parent->n_in : r->n_in;
        turn.parent = q->turn;
        turn.shared_in = shared * j->block < most ? shared * j->block : most;
        bool continues = d->tail[parent->lane] == q->turn && shared >= parent->n_in / j->block;
        int32_t before = continues ? q->turn : d->last_main;
        turn.lane = continues ? parent->lane : d->t.n_lanes;
        if (!continues) {
            status = apmw_tr_push_lane(&d->t, d->last_main, -1, err);
        }
        if (status == APMW_OK) {
            status = set_delay(j, i, r->t_ms - d->t_ms[before], &turn, err);
        }
    }
    if (status == APMW_OK) {
        status = push(j, i, d, &turn, err);
    }
    for (int32_t node = p->node; node > 0; node = j->trie.up[node]) {
        j->trie.owner[node] = i;
    }
    return status;
}

/* Which trajectory a row without session belongs to: that of the place where its class is cut apart. */
static apmw_status place_row(join *j, int32_t i, apmw_error *err)
{
    place *p = &j->places[i];
    if (p->first == 0) {
        return add_draft(j, i, &p->draft, err);
    }
    const class_info *c = &j->classes[p->first];
    int32_t at = p->first;
    if (c->group >= 0) {
        at = p->node;
        int depth = j->rows[i].n_ids;
        if (depth <= c->lcp) {
            return add_draft(j, i, &p->draft, err); /* nothing but the shared prefix */
        }
        for (; depth > c->lcp + 1; depth--) {
            at = j->trie.up[at];
        }
    }
    if (j->draft_of[at] >= 0) {
        p->draft = j->draft_of[at];
        return APMW_OK;
    }
    apmw_status status = add_draft(j, i, &p->draft, err);
    j->draft_of[at] = p->draft;
    return status;
}

/* A row of a session: the context is all that came before, outputs included, and what the row adds. */
static apmw_status add_session_row(join *j, int32_t i, apmw_error *err)
{
    const apmw_tr_row *r = &j->rows[i];
    draft *d = &j->drafts[j->places[i].draft];
    apmw_status status = make_room(j, d, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_turn turn = {.n_in = r->n_in, .n_out = r->n_out, .parent = d->t.n_turns - 1};
    if (d->t.n_turns == 0) {
        turn.trigger = APMW_TURN_USER;
        status = apmw_tr_push_lane(&d->t, -1, -1, err);
    } else {
        const apmw_turn *before = &d->t.turns[turn.parent];
        turn.shared_in = before->n_in;
        turn.shared_out = before->n_out;
        turn.n_in += before->n_in + before->n_out;
        double wait = isnan(r->delay_ms) ? r->t_ms - d->t_ms[turn.parent] : r->delay_ms;
        if (isnan(wait)) {
            status = apmw_error_set(err, APMW_E_DATA,
                                    "%s:%lld: neither delay nor two timestamps say when turn %d of "
                                    "session %s starts",
                                    j->path, (long long)r->line, d->t.n_turns, r->session);
        } else {
            status = set_delay(j, i, wait, &turn, err);
        }
        if (status == APMW_OK && turn.n_in > APMW_TR_MAX_TOKENS) {
            status = apmw_error_set(err, APMW_E_DATA, "%s:%lld: the context of session %s is out of range",
                                    j->path, (long long)r->line, r->session);
        }
    }
    return status == APMW_OK ? push(j, i, d, &turn, err) : status;
}

/* ---- sessions -------------------------------------------------------------------------------------------
 */

typedef struct named {
    const char *session;
    int32_t row;
} named;

static int by_session(const void *left, const void *right)
{
    const named *a = left, *b = right;
    int order = strcmp(a->session, b->session);
    return order != 0 ? order : (a->row > b->row) - (a->row < b->row);
}

/* Marks later rows of a session (first = -1) and leads them to the first one (node = its row). */
static apmw_status mark_sessions(join *j, apmw_error *err)
{
    named *list = malloc(((size_t)j->n + 1) * sizeof *list);
    if (list == NULL) {
        return no_memory(j, err);
    }
    size_t n = 0;
    for (int32_t i = 0; i < j->n; i++) {
        if (j->rows[i].session != NULL) {
            list[n++] = (named){j->rows[i].session, i};
        }
    }
    qsort(list, n, sizeof *list, by_session);
    int32_t first = 0;
    for (size_t k = 0; k < n; k++) {
        if (k == 0 || strcmp(list[k].session, list[k - 1].session) != 0) {
            first = list[k].row;
        } else {
            j->places[list[k].row].first = -1;
            j->places[list[k].row].node = first;
        }
    }
    free(list);
    return APMW_OK;
}

static apmw_status build(join *j, int32_t next_group, apmw_error *err)
{
    apmw_status status = mark_sessions(j, err);
    if (status == APMW_OK) {
        status = enter_prompts(j, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    count_classes(j);
    count_continuations(j);
    number_groups(j, next_group);
    for (int32_t i = 0; i < j->n && status == APMW_OK; i++) {
        place *p = &j->places[i];
        if (j->rows[i].session == NULL) {
            status = place_row(j, i, err);
            status = status == APMW_OK ? add_row(j, i, err) : status;
        } else {
            if (is_increment(j, i)) {
                p->draft = j->places[p->node].draft;
            } else {
                status = add_draft(j, i, &p->draft, err);
            }
            status = status == APMW_OK ? add_session_row(j, i, err) : status;
        }
    }
    return status;
}

apmw_status apmw_tr_mooncake_join(const char *path, const apmw_tr_row *rows, size_t n, int64_t block,
                                  apmw_trace *trace, apmw_error *err)
{
    join j = {.path = path, .rows = rows, .n = (int32_t)n, .block = block};
    /* Ids of different files name different blocks, so their groups must not meet. */
    int32_t next_group = 0;
    for (size_t i = 0; i < trace->n; i++) {
        next_group = trace->items[i].global_id >= next_group ? trace->items[i].global_id + 1 : next_group;
    }
    j.places = calloc(n + 1, sizeof *j.places);
    apmw_status status = j.places == NULL ? no_memory(&j, err) : apmw_tr_trie_init(&j.trie, err);
    if (status == APMW_OK) {
        status = build(&j, next_group, err);
    }
    for (int32_t k = 0; k < j.n_drafts; k++) {
        if (status == APMW_OK) {
            status = apmw_tr_take(trace, &j.drafts[k].t, err);
            if (status != APMW_OK) {
                apmw_error_wrap(err, "%s", path);
            }
        }
        apmw_trajectory_free(&j.drafts[k].t);
        free(j.drafts[k].t_ms);
        free(j.drafts[k].tail);
    }
    free(j.drafts);
    free(j.places);
    free(j.classes);
    free(j.passing);
    free(j.draft_of);
    apmw_tr_trie_free(&j.trie);
    return status;
}
