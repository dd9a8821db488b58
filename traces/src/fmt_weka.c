/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WEKA / SemiAnalysis AgentX sessions (kv-cache-tester, AIPerf weka_trace): one JSON object a session. What
 * is kept, guessed and lost is written in traces/FORMAT.md, section 4. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "apmw/time.h"
#include "private.h"

/* Block ids of a prompt, and of the request before it in the same list (the compact form counts from that
 * one). */
typedef struct ids {
    uint64_t *items;
    int n;
} ids;

typedef struct request {
    double t, api_time, think_time; /* seconds; NaN = not recorded */
    int64_t n_in, n_out;
    bool is_user;
    int32_t turn; /* index in the trajectory */
} request;

typedef struct session {
    apmw_trajectory t;
    apmw_tr_trie trie;
    int32_t *path; /* trie nodes of the prompt at hand */
    int path_capacity;
    int32_t *end; /* by turn: the node of its whole prompt, and how many blocks that is */
    int *depth;
    int64_t block;
    request *main; /* the main line so far */
    int32_t n_main;
    double joined_at;     /* completion of the last sub-agent that the next main turn waits for; NaN = none */
    int32_t first_joined; /* its first lane: lanes from here on are joined before the next main turn */
    int n_inner;          /* requests of all sub-agents */
    bool absolute;        /* inner times count from the session's start, not from the spawn */
} session;

/* ---- block ids ------------------------------------------------------------------------------------------
 */

/* hk leading ids of the previous request, then runs [first, count]. */
static apmw_status expand(const apmw_json_cur *object, int64_t limit, ids *now, apmw_error *err)
{
    int64_t kept = 0;
    apmw_json_cur runs;
    apmw_status status = apmw_json_get_int(object, "hk", 0, now->n, &kept, err);
    if (status == APMW_OK) {
        status = apmw_json_child(object, "hr", &runs, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    if (kept > limit) {
        return apmw_json_error(object, err, APMW_E_DATA, "hk keeps %lld ids, the prompt has %lld blocks",
                               (long long)kept, (long long)limit);
    }
    if (apmw_json_typeof(&runs) != APMW_JSON_ARRAY) {
        return apmw_json_error(&runs, err, APMW_E_DATA, "expected an array of [first, count]");
    }
    if (limit > INT32_MAX / 16) {
        return apmw_json_error(object, err, APMW_E_DATA, "a prompt of %lld blocks is out of range",
                               (long long)limit);
    }
    uint64_t *items = realloc(now->items, ((size_t)limit + (size_t)kept + 1) * sizeof *items);
    if (items == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    now->items = items;
    now->n = (int)kept;
    for (int i = 0; i < apmw_json_length(&runs); i++) {
        apmw_json_cur run, cell;
        double pair[2] = {0, 0};
        status = apmw_json_at(&runs, i, &run, err);
        if (status == APMW_OK && (apmw_json_typeof(&run) != APMW_JSON_ARRAY || apmw_json_length(&run) != 2)) {
            status = apmw_json_error(&run, err, APMW_E_DATA, "expected [first, count]");
        }
        for (int k = 0; k < 2 && status == APMW_OK; k++) {
            status = apmw_json_at(&run, k, &cell, err);
            if (status == APMW_OK) {
                status = apmw_json_as_double(&cell, &pair[k], err);
            }
        }
        if (status == APMW_OK &&
            (!(pair[1] >= 0 && pair[1] <= (double)(limit - now->n) && fabs(pair[0]) < 0x1p52) ||
             pair[0] != floor(pair[0]) || pair[1] != floor(pair[1]))) {
            status =
                apmw_json_error(&run, err, APMW_E_DATA,
                                "a run of %g ids from %g; the prompt has %lld blocks, %d are listed before",
                                pair[1], pair[0], (long long)limit, now->n);
        }
        if (status != APMW_OK) {
            return status;
        }
        for (int k = 0; k < (int)pair[1]; k++) {
            double id = pair[0] + k;
            memcpy(&now->items[now->n++], &id, sizeof id);
        }
    }
    return APMW_OK;
}

static apmw_status read_ids(const apmw_json_cur *object, int64_t n_in, int64_t block, ids *now,
                            apmw_error *err)
{
    int64_t limit = (n_in + block - 1) / block;
    if (apmw_json_has(object, "hk")) {
        return expand(object, limit, now, err);
    }
    uint64_t *items = NULL;
    int n = 0;
    apmw_status status = apmw_tr_ids(object, "hash_ids", &items, &n, err);
    if (status != APMW_OK) {
        return status;
    }
    free(now->items);
    *now = (ids){items, n};
    if (n > limit) {
        return apmw_json_error(object, err, APMW_E_DATA, "%d hash_ids for %lld tokens in blocks of %lld", n,
                               (long long)n_in, (long long)block);
    }
    return APMW_OK;
}

/* Enters a prompt into the trie. *shared = how many of its blocks were there before, *last = the node of
 * these. */
static apmw_status enter(session *s, const ids *prompt, int *shared, int32_t *last, apmw_error *err)
{
    if (s->path_capacity < prompt->n + 1) {
        int32_t *path = realloc(s->path, ((size_t)prompt->n + 1) * sizeof *path);
        if (path == NULL) {
            return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        }
        s->path = path;
        s->path_capacity = prompt->n + 1;
    }
    int32_t node = 0;
    *shared = 0;
    *last = 0;
    for (int i = 0; i < prompt->n; i++) {
        bool made = false;
        apmw_status status = apmw_tr_trie_step(&s->trie, node, prompt->items[i], &node, &made, err);
        if (status != APMW_OK) {
            return status;
        }
        if (!made) {
            *shared = i + 1;
            *last = node;
        }
        s->path[i] = node;
    }
    s->end[s->t.n_turns] = node;
    s->depth[s->t.n_turns] = prompt->n;
    return APMW_OK;
}

/* Whether the prompt of an earlier turn begins with the `shared` blocks that end in `node`. */
static bool passes(const session *s, int32_t turn, int shared, int32_t node)
{
    int32_t at = s->end[turn];
    for (int depth = s->depth[turn]; depth > shared; depth--) {
        at = s->trie.up[at];
    }
    return s->depth[turn] >= shared && at == node;
}

/* The earlier turn that shares most with this prompt: `usual` (the previous turn of the lane, or -1) unless
 * another shares more. */
static apmw_status find_parent(session *s, const ids *prompt, int32_t usual, apmw_turn *turn, apmw_error *err)
{
    int shared = 0;
    int32_t last = 0;
    apmw_status status = enter(s, prompt, &shared, &last, err);
    if (status != APMW_OK) {
        return status;
    }
    turn->parent = usual;
    if (shared > 0 && (usual == -1 || !passes(s, usual, shared, last))) {
        turn->parent = s->trie.owner[last];
    } else if (usual == -1 && s->t.n_turns > 0) {
        /* A turn without parent would begin with the tools of the main line, and these ids say that it does
         * not. */
        turn->parent = s->t.n_turns - 1;
    }
    for (int i = 0; i < prompt->n; i++) {
        s->trie.owner[s->path[i]] = s->t.n_turns;
    }
    if (turn->parent >= 0) {
        int64_t most =
            s->t.turns[turn->parent].n_in < turn->n_in ? s->t.turns[turn->parent].n_in : turn->n_in;
        turn->shared_in = shared * s->block < most ? shared * s->block : most;
    }
    return APMW_OK;
}

/* ---- requests -------------------------------------------------------------------------------------------
 */

static apmw_status read_user(const apmw_json_cur *object, bool *is_user, apmw_error *err)
{
    *is_user = false;
    if (!apmw_json_has(object, "input_types")) {
        return APMW_OK;
    }
    apmw_json_cur types;
    apmw_status status = apmw_json_child(object, "input_types", &types, err);
    if (status == APMW_OK && apmw_json_typeof(&types) != APMW_JSON_ARRAY) {
        status = apmw_json_error(&types, err, APMW_E_DATA, "expected an array of strings");
    }
    bool text = false, tool = false;
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&types); i++) {
        apmw_json_cur type;
        const char *name = "";
        status = apmw_json_at(&types, i, &type, err);
        if (status == APMW_OK) {
            status = apmw_json_as_string(&type, &name, err);
        }
        text = text || strcmp(name, "text") == 0;
        tool = tool || strcmp(name, "tool_result") == 0;
    }
    *is_user = text && !tool;
    return status;
}

static apmw_status read_request(const apmw_json_cur *object, request *r, apmw_error *err)
{
    *r = (request){.api_time = (double)NAN, .think_time = (double)NAN};
    apmw_status status = apmw_json_get_double(object, "t", 0, 1e9, &r->t, err);
    if (status == APMW_OK) {
        status = apmw_json_get_int(object, "in", 1, APMW_TR_MAX_TOKENS, &r->n_in, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(object, "out", 0, APMW_TR_MAX_TOKENS, &r->n_out, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_double(object, "api_time", 0, 1e9, &r->api_time, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_double(object, "think_time", -1e9, 1e9, &r->think_time, err);
    }
    if (status == APMW_OK) {
        status = read_user(object, &r->is_user, err);
    }
    return status;
}

/* Seconds from the completion of `before` to the submission of `now`. think_time of the file is right only
 * where the request before has an api_time: otherwise it counts from an older completion. Without api_time
 * the whole gap is taken, which is too long by that request's service time. */
static double gap(const request *before, const request *now)
{
    if (isnan(before->api_time)) {
        return fmax(0, now->t - before->t);
    }
    return fmax(0, isnan(now->think_time) ? now->t - before->t - before->api_time : now->think_time);
}

static apmw_status add_turn(session *s, const apmw_json_cur *object, request *r, apmw_turn *turn,
                            double delay, int32_t usual_parent, ids *prompt, apmw_error *err)
{
    apmw_status status = read_ids(object, r->n_in, s->block, prompt, err);
    if (status != APMW_OK) {
        return status;
    }
    if (delay * 1e9 > (double)APMW_TR_MAX_DELAY_NS) {
        return apmw_json_error(object, err, APMW_E_DATA, "waits %.0f s, which is more than %lld days", delay,
                               (long long)(APMW_TR_MAX_DELAY_NS / APMW_NS_PER_S / 86400));
    }
    turn->n_in = r->n_in;
    turn->n_out = r->n_out > 0 ? r->n_out : 1; /* interrupted calls are recorded with no output */
    turn->delay_ns = apmw_time_from_s(delay);
    status = find_parent(s, prompt, usual_parent, turn, err);
    r->turn = s->t.n_turns;
    return status == APMW_OK ? apmw_tr_push_turn(&s->t, turn, err) : status;
}

static apmw_status add_main(session *s, const apmw_json_cur *object, ids *prompt, apmw_error *err)
{
    request r;
    apmw_status status = read_request(object, &r, err);
    if (status != APMW_OK) {
        return status;
    }
    const request *before = s->n_main > 0 ? &s->main[s->n_main - 1] : NULL;
    apmw_turn turn = {.trigger = r.is_user ? APMW_TURN_USER : APMW_TURN_TOOL};
    double delay = before != NULL ? gap(before, &r) : 0;
    bool joins = !isnan(s->joined_at);
    if (joins) {
        turn.trigger = APMW_TURN_JOIN;
        delay = fmax(0, r.t - s->joined_at);
    }
    status = add_turn(s, object, &r, &turn, delay, before != NULL ? before->turn : -1, prompt, err);
    if (status != APMW_OK) {
        return status;
    }
    for (int32_t k = s->first_joined; joins && k < s->t.n_lanes; k++) {
        if (s->t.lanes[k].join_before == -2) {
            s->t.lanes[k].join_before = r.turn;
        }
    }
    s->joined_at = (double)NAN;
    s->main[s->n_main++] = r;
    return APMW_OK;
}

/* ---- sub-agents -----------------------------------------------------------------------------------------
 */

/* A marker stands at the completion of its sub-agent; without duration (launched in the background, end not
 * recorded) at its launch. */
static apmw_status read_marker(const apmw_json_cur *marker, double *t, double *spawn, bool *ended,
                               apmw_error *err)
{
    double duration_ms = (double)NAN;
    apmw_status status = apmw_json_get_double(marker, "t", 0, 1e9, t, err);
    if (status == APMW_OK) {
        status = apmw_json_opt_double(marker, "duration_ms", 0, 1e12, &duration_ms, err);
    }
    *ended = !isnan(duration_ms);
    *spawn = *ended ? fmax(0, *t - duration_ms / 1000) : *t;
    return status;
}

static apmw_status is_marker(const apmw_json_cur *object, bool *yes, apmw_error *err)
{
    const char *type = "";
    apmw_status status = apmw_json_opt_string(object, "type", &type, err);
    *yes = strcmp(type, "subagent") == 0;
    return status;
}

static apmw_status inner_requests(const apmw_json_cur *marker, apmw_json_cur *list, apmw_error *err)
{
    apmw_status status = apmw_json_child(marker, "requests", list, err);
    if (status == APMW_OK && apmw_json_typeof(list) != APMW_JSON_ARRAY) {
        status = apmw_json_error(list, err, APMW_E_DATA, "expected an array of requests");
    }
    return status;
}

static apmw_status add_subagent(session *s, const apmw_json_cur *marker, apmw_error *err)
{
    double t = 0, spawn = 0;
    bool ended = false;
    apmw_json_cur list;
    apmw_status status = read_marker(marker, &t, &spawn, &ended, err);
    if (status == APMW_OK) {
        status = inner_requests(marker, &list, err);
    }
    int n = status == APMW_OK ? apmw_json_length(&list) : 0;
    if (n == 0) {
        return status;
    }
    const request *parent = NULL;
    for (int32_t i = 0; i < s->n_main; i++) {
        parent = s->main[i].t <= spawn ? &s->main[i] : parent;
    }
    int32_t lane = s->t.n_lanes;
    /* -2 marks a lane that the next main turn will join. */
    status = apmw_tr_push_lane(&s->t, parent != NULL ? parent->turn : -1, ended ? -2 : -1, err);
    if (ended) {
        s->first_joined = isnan(s->joined_at) ? lane : s->first_joined;
        s->joined_at = isnan(s->joined_at) ? t : fmax(t, s->joined_at);
    }
    double origin = s->absolute ? 0 : spawn;
    /* Without api_time of the parent its completion is taken to be the spawn. */
    double start = parent == NULL ? 0 : isnan(parent->api_time) ? spawn : parent->t + parent->api_time;
    request before = {0};
    ids prompt = {0};
    for (int i = 0; i < n && status == APMW_OK; i++) {
        apmw_json_cur item;
        request r;
        status = apmw_json_at(&list, i, &item, err);
        if (status == APMW_OK) {
            status = read_request(&item, &r, err);
        }
        if (status != APMW_OK) {
            break;
        }
        apmw_turn turn = {.lane = lane, .trigger = r.is_user && i > 0 ? APMW_TURN_USER : APMW_TURN_TOOL};
        double delay = i == 0 ? fmax(0, origin + r.t - start) : gap(&before, &r);
        status = add_turn(s, &item, &r, &turn, delay, i == 0 ? -1 : before.turn, &prompt, err);
        before = r;
    }
    free(prompt.items);
    return status;
}

/* Inner times count from the spawn in kv-cache-tester files and from the session's start in later corpora.
 * They are absolute if no sub-agent that began later than 5 s has an inner time before its own spawn (2 s of
 * grace for the rounding of t). */
static apmw_status survey(session *s, const apmw_json_cur *requests, apmw_error *err)
{
    int seen = 0;
    bool contradicted = false;
    for (int i = 0; i < apmw_json_length(requests); i++) {
        apmw_json_cur item, list, first;
        bool marker = false, ended = false;
        double t = 0, spawn = 0, inner = 0;
        apmw_status status = apmw_json_at(requests, i, &item, err);
        if (status == APMW_OK) {
            status = is_marker(&item, &marker, err);
        }
        if (status == APMW_OK && marker) {
            status = read_marker(&item, &t, &spawn, &ended, err);
        }
        if (status == APMW_OK && marker) {
            status = inner_requests(&item, &list, err);
        }
        if (status != APMW_OK) {
            return status;
        }
        s->n_inner += marker ? apmw_json_length(&list) : 0;
        if (!marker || apmw_json_length(&list) == 0 || spawn < 5) {
            continue;
        }
        status = apmw_json_at(&list, 0, &first, err);
        if (status == APMW_OK) {
            status = apmw_json_get_double(&first, "t", 0, 1e9, &inner, err);
        }
        if (status != APMW_OK) {
            return status;
        }
        seen++;
        contradicted = contradicted || inner < spawn - 2;
    }
    s->absolute = seen > 0 && !contradicted;
    return APMW_OK;
}

/* ---- sessions -------------------------------------------------------------------------------------------
 */

/* Sessions whose tool definitions have the same length are taken to have the same ones: ids are local to a
 * session, so the file cannot tell. The system prompt names the working directory and is not taken to be
 * shared. */
static apmw_status read_group(session *s, const apmw_json_cur *root, apmw_error *err)
{
    int64_t tools = 0;
    apmw_status status = apmw_json_opt_int(root, "tool_tokens", 0, INT32_MAX, &tools, err);
    s->t.global_id = -1;
    for (int32_t i = 0; tools > 0 && i < s->t.n_turns; i++) {
        if (s->t.turns[i].parent == -1) {
            s->t.global_id = (int32_t)tools;
            s->t.global_tokens = tools < s->t.turns[i].n_in ? tools : s->t.turns[i].n_in;
        }
    }
    return status;
}

static apmw_status read_requests(session *s, const apmw_json_cur *requests, apmw_error *err)
{
    apmw_status status = survey(s, requests, err);
    int n = apmw_json_length(requests);
    ids prompt = {0};
    size_t places = (size_t)n + (size_t)s->n_inner + 1;
    s->main = malloc(places * sizeof *s->main);
    s->end = malloc(places * sizeof *s->end);
    s->depth = malloc(places * sizeof *s->depth);
    if (status == APMW_OK && (s->main == NULL || s->end == NULL || s->depth == NULL)) {
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (int i = 0; i < n && status == APMW_OK; i++) {
        apmw_json_cur item;
        bool marker = false;
        status = apmw_json_at(requests, i, &item, err);
        if (status == APMW_OK) {
            status = is_marker(&item, &marker, err);
        }
        if (status == APMW_OK) {
            status = marker ? add_subagent(s, &item, err) : add_main(s, &item, &prompt, err);
        }
    }
    for (int32_t k = 1; k < s->t.n_lanes; k++) {
        if (s->t.lanes[k].join_before == -2) {
            s->t.lanes[k].join_before = -1; /* no main turn follows */
        }
    }
    free(prompt.items);
    return status;
}

static apmw_status read_session(session *s, const apmw_json_cur *root, const char *path, apmw_trace *trace,
                                apmw_error *err)
{
    const char *id = "";
    apmw_json_cur requests;
    s->block = 64;
    s->joined_at = (double)NAN;
    snprintf(s->t.source, sizeof s->t.source, "weka");
    apmw_status status = apmw_json_get_string(root, "id", &id, err);
    if (status == APMW_OK && (!apmw_copy(s->t.id, sizeof s->t.id, id) || id[0] == '\0')) {
        status = apmw_json_error(root, err, APMW_E_DATA, "id must have 1 to %zu bytes", sizeof s->t.id - 1);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_int(root, "block_size", 1, 1 << 20, &s->block, err);
    }
    if (status == APMW_OK) {
        status = apmw_tr_set_block(trace, s->block, path, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_child(root, "requests", &requests, err);
    }
    if (status == APMW_OK &&
        (apmw_json_typeof(&requests) != APMW_JSON_ARRAY || apmw_json_length(&requests) == 0)) {
        status = apmw_json_error(&requests, err, APMW_E_DATA, "expected an array of one request or more");
    }
    if (status == APMW_OK) {
        status = apmw_tr_push_lane(&s->t, -1, -1, err);
    }
    if (status == APMW_OK) {
        status = apmw_tr_trie_init(&s->trie, err);
    }
    if (status == APMW_OK) {
        status = read_requests(s, &requests, err);
    }
    if (status == APMW_OK) {
        status = read_group(s, root, err);
    }
    if (status == APMW_OK) {
        apmw_error why = {0};
        status = apmw_trajectory_check(&s->t, &why);
        if (status != APMW_OK) {
            status = apmw_json_error(root, err, status, "%s", why.message);
        }
    }
    return status;
}

static apmw_status load(const char *path, apmw_trace *trace, apmw_error *err)
{
    apmw_tr_reader *reader = NULL;
    apmw_status status = apmw_tr_reader_open(path, &reader, err);
    while (status == APMW_OK) {
        apmw_json *doc = NULL;
        status = apmw_tr_reader_json(reader, &doc, err);
        if (status != APMW_OK || doc == NULL) {
            break;
        }
        apmw_json_cur root = apmw_json_root(doc);
        session s = {0};
        status = read_session(&s, &root, path, trace, err);
        if (status == APMW_OK) {
            status = apmw_tr_take(trace, &s.t, err);
        } else {
            apmw_trajectory_free(&s.t);
        }
        apmw_tr_trie_free(&s.trie);
        free(s.path);
        free(s.main);
        free(s.end);
        free(s.depth);
        apmw_json_free(doc);
    }
    apmw_tr_reader_close(reader);
    return status;
}

const apmw_tr_format apmw_tr_format_weka = {{"weka",
                                             "WEKA / SemiAnalysis AgentX sessions (kv-cache-tester JSON, "
                                             "also its compact hk/hr form); a session an object "
                                             "(traces/FORMAT.md, section 4)",
                                             false},
                                            load};
