/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "router.h"

#include "router_view.h"

#include <stdlib.h>
#include <string.h>

/* A session's home; rank -2 = none yet. */
typedef struct home {
    int32_t engine, rank;
} home;

struct apmw_router {
    apmw_routing routing;
    apmw_router_view *view;
    apmw_engine *const *engines;
    size_t n_engines, next; /* next: round robin */
    home *homes;            /* by agent */
    size_t n_homes;
    int64_t **sessions;     /* of each engine and rank; allocated on first use */
};

apmw_router *apmw_router_create(apmw_routing routing, const apmw_router_knowledge *knowledge, apmw_engine *const *engines,
                                size_t n_engines, const apmw_des *des, const apmw_streams *streams)
{
    apmw_router *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    r->sessions = calloc(n_engines, sizeof *r->sessions);
    r->view = apmw_router_view_create(knowledge, engines, n_engines, des, streams);
    if (r->sessions == NULL || r->view == NULL) {
        free(r->sessions);
        apmw_router_view_free(r->view);
        free(r);
        return NULL;
    }
    r->routing = routing;
    r->engines = engines;
    r->n_engines = n_engines;
    return r;
}

void apmw_router_free(apmw_router *router)
{
    if (router != NULL) {
        for (size_t i = 0; i < router->n_engines; i++) {
            free(router->sessions[i]);
        }
        free(router->sessions);
        apmw_router_view_free(router->view);
        free(router->homes);
        free(router);
    }
}

static size_t least_loaded(const apmw_router *r)
{
    size_t best = 0;
    int64_t best_load = apmw_router_view_load(r->view, 0, -1);
    for (size_t i = 1; i < r->n_engines; i++) {
        const int64_t load = apmw_router_view_load(r->view, i, -1);
        if (load < best_load) {
            best = i;
            best_load = load;
        }
    }
    return best;
}

/* Longest match; among equals the least loaded rank, then the first. */
static apmw_route longest_match(const apmw_router *r, const apmw_request *request)
{
    apmw_route best = {.engine = 0, .rank = 0};
    int64_t best_match = -1, best_load = 0;
    for (size_t i = 0; i < r->n_engines; i++) {
        const int ranks = apmw_engine_ranks(r->engines[i]);
        for (int k = 0; k < ranks; k++) {
            const int64_t match = apmw_router_view_match(r->view, i, k, request->stream, request->record.n_prompt);
            const int64_t load = apmw_router_view_load(r->view, i, k);
            if (match > best_match || (match == best_match && load < best_load)) {
                best = (apmw_route){.engine = i, .rank = k};
                best_match = match;
                best_load = load;
            }
        }
    }
    return best;
}

static bool reserve_homes(apmw_router *r, size_t n)
{
    if (n <= r->n_homes) {
        return true;
    }
    const size_t wanted = n > r->n_homes * 2 ? n : r->n_homes * 2;
    home *bigger = realloc(r->homes, wanted * sizeof *bigger);
    if (bigger == NULL) {
        return false;
    }
    for (size_t i = r->n_homes; i < wanted; i++) {
        bigger[i] = (home){.engine = 0, .rank = -2};
    }
    r->homes = bigger;
    r->n_homes = wanted;
    return true;
}

/* A session settles where the fewest sessions live: at the moment of its first request most sessions are waiting for
 * their tools, so the requests in flight say little; they break ties. */
static bool settle(apmw_router *r, home *out)
{
    int64_t best_sessions = -1, best_load = 0;
    for (size_t i = 0; i < r->n_engines; i++) {
        const int ranks = apmw_engine_ranks(r->engines[i]);
        if (r->sessions[i] == NULL) {
            r->sessions[i] = calloc((size_t)ranks, sizeof *r->sessions[i]);
            if (r->sessions[i] == NULL) {
                return false;
            }
        }
        for (int k = 0; k < ranks; k++) {
            const int64_t sessions = r->sessions[i][k], load = apmw_router_view_load(r->view, i, k);
            if (best_sessions < 0 || sessions < best_sessions || (sessions == best_sessions && load < best_load)) {
                *out = (home){.engine = (int32_t)i, .rank = k};
                best_sessions = sessions;
                best_load = load;
            }
        }
    }
    r->sessions[out->engine][out->rank]++;
    return true;
}

bool apmw_router_choose(apmw_router *router, const apmw_request *request, apmw_route *out)
{
    *out = (apmw_route){.engine = 0, .rank = -1};
    switch (router->routing) {
    case APMW_ROUTING_ROUND_ROBIN:
        out->engine = router->next;
        router->next = (router->next + 1) % router->n_engines;
        return true;
    case APMW_ROUTING_LEAST_LOADED:
        out->engine = least_loaded(router);
        return true;
    case APMW_ROUTING_KV_AWARE:
        *out = longest_match(router, request);
        return apmw_router_view_sent(router->view, out->engine, out->rank, request->stream, request->record.n_prompt);
    case APMW_ROUTING_AFFINITY:
        break;
    }
    const int32_t agent = request->record.agent;
    if (agent < 0) { /* no session to keep together */
        out->engine = least_loaded(router);
        return true;
    }
    if (!reserve_homes(router, (size_t)agent + 1)) {
        return false;
    }
    home *h = &router->homes[agent];
    if (h->rank == -2 && !settle(router, h)) {
        return false;
    }
    *out = (apmw_route){.engine = (size_t)h->engine, .rank = h->rank};
    return true;
}
