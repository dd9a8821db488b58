/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Requests of a list in a closed loop, each with so much of its prompt cached (cluster.h). Prompts that begin alike are
 * branches of one root, which every rank is given before the first of them. */
#include "apmw/cluster.h"

#include <stdlib.h>

typedef struct listed {
    apmw_listed config;
    apmw_sim *sim;
    apmw_stream root;
    apmw_request *slots;
    apmw_request *primers; /* one a rank of each engine */
    size_t n_primers, primed;
    size_t next; /* request to send */
} listed;

static void send_next(listed *all, apmw_request *slot)
{
    const size_t i = all->next++;
    const apmw_listed_request *r = &all->config.requests[i];
    slot->record = (apmw_request_record){
        .id = i,
        .agent = (int32_t)(slot - all->slots),
        .trajectory = -1,
        .play = (int32_t)i,
        .rank = -1,
        .n_prompt = r->n_prompt,
        .n_out = r->n_out,
        .last_of_trajectory = true,
    };
    slot->stream = apmw_streams_new(apmw_sim_streams(all->sim), r->n_cached > 0 ? all->root : 0, r->n_cached);
    slot->rank_hint = -1;
    slot->max_tokens = r->n_out;
    apmw_sim_submit(all->sim, slot);
}

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    (void)now;
    listed *all = self;
    if (all->next < all->config.n_requests) {
        send_next(all, request);
    }
}

static void begin(listed *all)
{
    for (int64_t i = 0; i < all->config.slots && all->next < all->config.n_requests; i++) {
        send_next(all, &all->slots[i]);
    }
}

static void on_begin(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    begin(subject);
}

static void on_primed(apmw_request *request, void *self, apmw_time now)
{
    (void)request;
    listed *all = self;
    if (++all->primed == all->n_primers) {
        apmw_des_schedule(apmw_sim_des(all->sim), now, APMW_EVENT_CLIENT, on_begin, all, 0);
    }
}

/* A root as long as the most that any request finds, and a token that is computed for it. */
static void prime(listed *all, int64_t n_root)
{
    const size_t n_engines = apmw_sim_engines(all->sim);
    size_t k = 0;
    for (size_t e = 0; e < n_engines; e++) {
        const int ranks = apmw_engine_ranks(apmw_sim_engine(all->sim, e));
        for (int rank = 0; rank < ranks; rank++) {
            apmw_request *p = &all->primers[k++];
            p->record = (apmw_request_record){.id = all->config.n_requests + k, .agent = -1, .trajectory = -1, .rank = -1,
                                              .n_prompt = n_root + 1, .n_out = 1};
            p->stream = all->root;
            p->rank_hint = rank;
            p->silent = true;
            p->on_done = on_primed;
            p->self = all;
            apmw_engine_submit(apmw_sim_engine(all->sim, e), p);
        }
    }
}

static void on_start(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    listed *all = subject;
    int64_t n_root = 0;
    for (size_t i = 0; i < all->config.n_requests; i++) {
        n_root = all->config.requests[i].n_cached > n_root ? all->config.requests[i].n_cached : n_root;
    }
    if (n_root > 0) {
        prime(all, n_root);
    } else {
        begin(all);
    }
}

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    listed *all = self;
    all->sim = sim;
    all->root = apmw_streams_new(apmw_sim_streams(sim), 0, 0);
    for (size_t e = 0; e < apmw_sim_engines(sim); e++) {
        all->n_primers += (size_t)apmw_engine_ranks(apmw_sim_engine(sim, e));
    }
    all->primers = calloc(all->n_primers, sizeof *all->primers);
    if (all->root == 0 || all->primers == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for listed requests");
    }
    apmw_des_schedule(apmw_sim_des(sim), 0, APMW_EVENT_CLIENT, on_start, all, 0);
    return APMW_OK;
}

static void free_listed(void *self)
{
    listed *all = self;
    free(all->slots);
    free(all->primers);
    free(all);
}

apmw_status apmw_workload_listed(const apmw_listed *config, apmw_workload *out, apmw_error *err)
{
    if (config->slots < 1 || config->n_requests < 1) {
        return apmw_error_set(err, APMW_E_SCENARIO, "listed requests: slots and requests must be at least 1");
    }
    for (size_t i = 0; i < config->n_requests; i++) {
        const apmw_listed_request *r = &config->requests[i];
        if (r->n_prompt < 1 || r->n_out < 1 || r->n_cached < 0 || r->n_cached >= r->n_prompt) {
            return apmw_error_set(err, APMW_E_SCENARIO,
                                  "listed request %zu: at least a token of prompt and output, and a token that is not cached", i);
        }
    }
    listed *all = calloc(1, sizeof *all);
    if (all != NULL) {
        all->config = *config;
        all->slots = calloc((size_t)config->slots, sizeof *all->slots);
    }
    if (all == NULL || all->slots == NULL) {
        free(all);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %lld slots", (long long)config->slots);
    }
    for (int64_t i = 0; i < config->slots; i++) {
        all->slots[i].on_done = on_done;
        all->slots[i].self = all;
    }
    *out = (apmw_workload){.self = all, .start = start, .free = free_listed};
    return APMW_OK;
}
