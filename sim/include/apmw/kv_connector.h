/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Engines with tiers of KV below their HBM (kv_tiers.h): what is computed or evicted goes down, what a prompt
 * has below comes up beside the steps, over links that are shared, when that is worth it. After vLLM's
 * offloading connector, SGLang's HiCache and LMCache.
 *
 * Each rank of an engine has its own stack of tiers and its own links; a shared tier is one store for all engines,
 * reached over links of each rank. Writes go out over links of their own (PCIe and C2C are full duplex); what is
 * being written can be found at once, since until then it is still in HBM or in a staging buffer, or when its request
 * ends. What was loaded is in HBM and goes down again by the same rules: nothing is copied from tier to
 * tier on the way, except by prefetch and by cascading evictions. */
#ifndef APMW_KV_CONNECTOR_H
#define APMW_KV_CONNECTOR_H
#include "apmw/des.h"
#include "apmw/engine.h"
#include "apmw/kv_tiers.h"

typedef struct apmw_tier_setup {
    apmw_kv_tier_config kv;   /* capacity of one rank's tier, or of the whole store if shared; its `shared` is not read */
    bool shared;              /* only the last tier can be */
    double load_bytes_per_s;  /* of one rank, > 0; INFINITY = no limit */
    double store_bytes_per_s;
    apmw_time latency_ns;     /* of a load */
} apmw_tier_setup;

typedef struct apmw_tiers_setup {
    apmw_tier_setup tiers[APMW_KV_MAX_TIERS]; /* nearest first */
    size_t n_tiers;
    apmw_kv_load load;
    /* false: a prompt is written when it is computed, and what was generated when the request ends (write-through); true: when HBM evicts it. The fast engine
     * takes the blocks of a stretch of decode steps at once, so with write-back a write may come up to a stretch off. */
    bool write_back;
    /* Write-through only. false: what is being written can be found at once. true: when its request lets go of its
     * KV (it ends or is preempted); until then it stays in the first tier, and with it what the request found there.
     * What was generated and can never be asked for is written too. So does vLLM's native offloading. */
    bool found_when_released;
    /* What is found only below the first tier is brought to it when a request is submitted, not when it is admitted.
     * Needs an engine of one rank or a router that names the rank. */
    bool prefetch;
    bool fair_links; /* loads share a link equally; false: first come, first served */
} apmw_tiers_setup;

typedef struct apmw_tiers apmw_tiers;
/* The engines' configurations must live as long. `fail` is called when memory is short. */
apmw_status apmw_tiers_create(apmw_des *des, const apmw_streams *streams, const apmw_tiers_setup *setup,
                              const apmw_engine_config *engines, size_t n_engines, void (*fail)(void *self), void *self,
                              apmw_tiers **out, apmw_error *err);
/* After the engines. */
void apmw_tiers_free(apmw_tiers *tiers);
/* What engine i is configured with. */
const apmw_connector *apmw_tiers_connector(const apmw_tiers *tiers, size_t i);

typedef struct apmw_tier_stats {
    int64_t loads, loaded_tokens, stored_tokens, evicted_tokens, prefetched_tokens;
    int64_t declined_tokens; /* were there, and computing them was faster */
    double loaded_bytes, stored_bytes;
    double load_wait_s;    /* sum over loads, before their first byte moved (fair links: beyond the time alone) */
    double load_busy_s, store_busy_s; /* sums over links */
    double store_backlog_s; /* the longest that a write has waited */
    int64_t capacity_tokens, cached_tokens; /* over all ranks */
} apmw_tier_stats;
/* Sums over engines and ranks. */
void apmw_tiers_stats(const apmw_tiers *tiers, size_t tier, apmw_tier_stats *out);
size_t apmw_tiers_count(const apmw_tiers *tiers);
/* Time to compute tokens [from, to) of a prompt alone, in passes of at most chunk_tokens. */
double apmw_recompute_s(const apmw_step_cost *cost, int64_t from, int64_t to, int64_t chunk_tokens);
apmw_status apmw_tiers_check(const apmw_tiers *tiers, apmw_error *err);

#endif
