/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "router_view.h"

#include <stdlib.h>
#include <string.h>

/* Up to `tokens` of a stream were sent to an engine's rank; the router takes it into account from `from` on. It does not
 * hear of evictions. */
typedef struct sending {
    uint32_t engine;
    int32_t rank;
    int64_t tokens;
    apmw_time from;
} sending;

typedef struct sendings {
    sending *items;
    size_t n, capacity;
} sendings;

/* Loads of one engine as last heard: [0] of all, [1 + rank]. */
typedef struct heard {
    int64_t *loads;
    apmw_time at;
} heard;

struct apmw_router_view {
    apmw_router_knowledge knowledge;
    apmw_engine *const *engines;
    size_t n_engines;
    const apmw_des *des;
    const apmw_streams *streams;
    heard *heard;
    sendings *of; /* by stream */
    size_t n_of;
};

apmw_router_view *apmw_router_view_create(const apmw_router_knowledge *knowledge, apmw_engine *const *engines,
                                          size_t n_engines, const apmw_des *des, const apmw_streams *streams)
{
    apmw_router_view *view = calloc(1, sizeof *view);
    heard *books = calloc(n_engines, sizeof *books);
    if (view == NULL || books == NULL) {
        free(view);
        free(books);
        return NULL;
    }
    *view = (apmw_router_view){.knowledge = *knowledge, .engines = engines, .n_engines = n_engines, .des = des,
                               .streams = streams, .heard = books};
    return view;
}

void apmw_router_view_free(apmw_router_view *view)
{
    if (view == NULL) {
        return;
    }
    for (size_t i = 0; i < view->n_engines; i++) {
        free(view->heard[i].loads);
    }
    for (size_t i = 0; i < view->n_of; i++) {
        free(view->of[i].items);
    }
    free(view->heard);
    free(view->of);
    free(view);
}

/* Without memory for a report the router looks at the engine itself. */
static const int64_t *report(apmw_router_view *view, size_t engine)
{
    heard *h = &view->heard[engine];
    const int ranks = apmw_engine_ranks(view->engines[engine]);
    const apmw_time now = apmw_des_now(view->des);
    if (h->loads != NULL && now - h->at < view->knowledge.delay_ns) {
        return h->loads;
    }
    if (h->loads == NULL) {
        h->loads = calloc((size_t)ranks + 1, sizeof *h->loads);
    }
    if (h->loads != NULL) {
        for (int k = -1; k < ranks; k++) {
            h->loads[k + 1] = apmw_engine_load(view->engines[engine], k);
        }
        h->at = now;
    }
    return h->loads;
}

int64_t apmw_router_view_load(apmw_router_view *view, size_t engine, int rank)
{
    const int64_t *loads = view->knowledge.delay_ns > 0 ? report(view, engine) : NULL;
    return loads != NULL ? loads[rank + 1] : apmw_engine_load(view->engines[engine], rank);
}

static int64_t sent_match(const apmw_router_view *view, size_t engine, int rank, apmw_stream stream, int64_t n_prompt)
{
    const apmw_time now = apmw_des_now(view->des);
    int64_t best = 0, limit = n_prompt;
    for (apmw_stream s = stream; s != 0; s = apmw_streams_parent(view->streams, s)) {
        const sendings *list = s < view->n_of ? &view->of[s] : NULL;
        for (size_t i = 0; list != NULL && i < list->n; i++) {
            const sending *x = &list->items[i];
            if (x->engine == engine && x->rank == rank && x->from <= now) {
                const int64_t tokens = x->tokens < limit ? x->tokens : limit;
                best = tokens > best ? tokens : best;
            }
        }
        const int64_t fork = apmw_streams_fork(view->streams, s);
        limit = fork < limit ? fork : limit;
    }
    return best;
}

int64_t apmw_router_view_match(const apmw_router_view *view, size_t engine, int rank, apmw_stream stream, int64_t n_prompt)
{
    return view->knowledge.kv_by_sending ? sent_match(view, engine, rank, stream, n_prompt)
                                         : apmw_engine_match(view->engines[engine], rank, stream, n_prompt);
}

static bool note(apmw_router_view *view, apmw_stream stream, sending x)
{
    if (stream >= view->n_of) {
        const size_t n = (size_t)stream * 2 + 64;
        sendings *bigger = realloc(view->of, n * sizeof *bigger);
        if (bigger == NULL) {
            return false;
        }
        memset(bigger + view->n_of, 0, (n - view->n_of) * sizeof *bigger);
        view->of = bigger;
        view->n_of = n;
    }
    sendings *list = &view->of[stream];
    for (size_t i = 0; i < list->n; i++) {
        if (list->items[i].engine == x.engine && list->items[i].rank == x.rank) {
            /* What was known stays known; the growth counts with it, a turn early at most. */
            if (x.tokens > list->items[i].tokens) {
                list->items[i].tokens = x.tokens;
            }
            return true;
        }
    }
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 2 : 2 * list->capacity;
        sending *bigger = realloc(list->items, capacity * sizeof *bigger);
        if (bigger == NULL) {
            return false;
        }
        list->items = bigger;
        list->capacity = capacity;
    }
    list->items[list->n++] = x;
    return true;
}

bool apmw_router_view_sent(apmw_router_view *view, size_t engine, int rank, apmw_stream stream, int64_t n_prompt)
{
    if (!view->knowledge.kv_by_sending || rank < 0) {
        return true;
    }
    const apmw_time from = apmw_des_now(view->des) + view->knowledge.delay_ns;
    int64_t tokens = n_prompt;
    /* The prefix of a stream is that of its ancestors, where other branches look for it. */
    for (apmw_stream s = stream; s != 0 && tokens > 0; s = apmw_streams_parent(view->streams, s)) {
        if (!note(view, s, (sending){(uint32_t)engine, (int32_t)rank, tokens, from})) {
            return false;
        }
        const int64_t fork = apmw_streams_fork(view->streams, s);
        tokens = fork < tokens ? fork : tokens;
    }
    return true;
}
