/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Inside of engines' tiers: connector_tiers.c acts, connector_tiers_make.c makes, ends and reports. */
#ifndef APMW_CONNECTOR_TIERS_H
#define APMW_CONNECTOR_TIERS_H
#include "apmw/kv_connector.h"
#include "tier_link.h"

typedef struct rank_tiers {
    apmw_kv_tiers *stack;
    apmw_tier_link load[APMW_KV_MAX_TIERS], store[APMW_KV_MAX_TIERS];
    int64_t inserted[APMW_KV_MAX_TIERS]; /* blocks whose writes are booked */
} rank_tiers;

typedef struct engine_tiers {
    apmw_tiers *owner;
    apmw_connector connector;
    const apmw_engine_config *config;
    rank_tiers *ranks;
} engine_tiers;

typedef struct job job;

/* What one tier gives to a fetch. */
typedef struct part {
    job *job;
    bool pinned;
    apmw_kv_lease lease;
    apmw_transfer transfer;
} part;

/* A load from its decision on: what was promised stays pinned until it has come. */
struct job {
    engine_tiers *owner;
    rank_tiers *rank;
    apmw_engine *engine;
    const apmw_request *asker; /* decided, and its blocks are not taken yet; else NULL */
    int64_t declined[APMW_KV_MAX_TIERS]; /* tokens that it could have had */
    apmw_request *request;     /* on its way; NULL: a prefetch of this stream */
    apmw_stream stream;
    int64_t to;
    size_t n_coming;
    part parts[APMW_KV_MAX_TIERS]; /* by tier */
    job *prev, *next;
};

/* What a running request writes to the first tier, where that can be found only when the request lets go of its KV. */
typedef struct writer {
    rank_tiers *rank;
    const apmw_request *request;
    apmw_kv_write write;
    int64_t tokens; /* whose writes are booked */
    struct writer *prev, *next;
} writer;

struct apmw_tiers {
    apmw_des *des;
    apmw_tiers_setup setup;
    apmw_kv_tiers *shared; /* the last tier, if it is one store for all */
    int64_t shared_inserted;
    engine_tiers *engines;
    size_t n_engines;
    job *open, *spare;
    writer *writers;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    void (*fail)(void *self);
    void *self;
};

/* What apmw_connector asks of an engine's tiers; `self` is an engine_tiers. */
extern const apmw_connector apmw_tiers_behaviour;

#endif
