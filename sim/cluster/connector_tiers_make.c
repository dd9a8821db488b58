/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>

#include "connector_tiers.h"

static void make_link(apmw_tiers *tiers, double bytes_per_s, apmw_time latency_ns, bool fair, apmw_tier_link *out)
{
    *out = (apmw_tier_link){.des = tiers->des, .bytes_per_s = bytes_per_s, .latency_ns = latency_ns, .fair = fair};
}

static apmw_status make_rank(apmw_tiers *tiers, rank_tiers *rank, apmw_kv_tier_config *configs,
                             const apmw_streams *streams, apmw_error *err)
{
    for (size_t t = 0; t < tiers->setup.n_tiers; t++) {
        const apmw_tier_setup *s = &tiers->setup.tiers[t];
        make_link(tiers, s->load_bytes_per_s, s->latency_ns, tiers->setup.fair_links, &rank->load[t]);
        make_link(tiers, s->store_bytes_per_s, 0, false, &rank->store[t]);
    }
    return apmw_kv_tiers_create(streams, configs, tiers->setup.n_tiers, &rank->stack, err);
}

static apmw_status make_engine(apmw_tiers *tiers, engine_tiers *e, const apmw_engine_config *config,
                               apmw_kv_tier_config *configs, const apmw_streams *streams, apmw_error *err)
{
    const apmw_tiers_setup *setup = &tiers->setup;
    e->owner = tiers;
    e->config = config;
    e->connector = apmw_tiers_behaviour;
    e->connector.self = e;
    if (!setup->write_back) {
        e->connector.evicted = NULL;
    }
    if (!setup->found_when_released) {
        e->connector.released = NULL;
    }
    if (!setup->prefetch || setup->n_tiers < 2) {
        e->connector.submitted = NULL;
    }
    e->ranks = calloc((size_t)config->n_ranks, sizeof *e->ranks);
    if (e->ranks == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for tiers of KV");
    }
    apmw_status status = APMW_OK;
    for (int r = 0; r < config->n_ranks && status == APMW_OK; r++) {
        status = make_rank(tiers, &e->ranks[r], configs, streams, err);
    }
    return status;
}

static apmw_status check_setup(const apmw_tiers_setup *setup, apmw_error *err)
{
    if (setup->n_tiers < 1 || setup->n_tiers > APMW_KV_MAX_TIERS) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%zu tiers of KV, where 1 to %d can be", setup->n_tiers,
                              APMW_KV_MAX_TIERS);
    }
    if (setup->write_back && setup->found_when_released) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "what HBM evicts can be found at once: only what requests write as they run can be found "
                              "when they end");
    }
    for (size_t t = 0; t < setup->n_tiers; t++) {
        const apmw_tier_setup *s = &setup->tiers[t];
        if (!(s->load_bytes_per_s > 0.0) || !(s->store_bytes_per_s > 0.0) || s->latency_ns < 0) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s: rates must be above 0 and the latency not below", s->kv.name);
        }
        if (s->shared && t + 1 < setup->n_tiers) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s: only the last tier can be shared", s->kv.name);
        }
    }
    return APMW_OK;
}

apmw_status apmw_tiers_create(apmw_des *des, const apmw_streams *streams, const apmw_tiers_setup *setup,
                              const apmw_engine_config *engines, size_t n_engines, void (*fail)(void *self), void *self,
                              apmw_tiers **out, apmw_error *err)
{
    *out = NULL;
    apmw_status status = check_setup(setup, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_tiers *tiers = calloc(1, sizeof *tiers);
    engine_tiers *all = calloc(n_engines, sizeof *all);
    if (tiers == NULL || all == NULL) {
        free(tiers);
        free(all);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for tiers of KV");
    }
    tiers->des = des;
    tiers->setup = *setup;
    tiers->engines = all;
    tiers->fail = fail;
    tiers->self = self;
    apmw_kv_tier_config configs[APMW_KV_MAX_TIERS];
    for (size_t t = 0; t < setup->n_tiers; t++) {
        configs[t] = setup->tiers[t].kv;
        configs[t].cascade = configs[t].cascade && t + 1 < setup->n_tiers;
        configs[t].shared = NULL;
    }
    const size_t last = setup->n_tiers - 1;
    if (setup->tiers[last].shared) {
        status = apmw_kv_tiers_create(streams, &configs[last], 1, &tiers->shared, err);
        configs[last].shared = tiers->shared;
    }
    for (size_t i = 0; i < n_engines && status == APMW_OK; i++) {
        tiers->n_engines = i + 1;
        status = make_engine(tiers, &all[i], &engines[i], configs, streams, err);
    }
    if (status != APMW_OK) {
        apmw_tiers_free(tiers);
        return status;
    }
    *out = tiers;
    return APMW_OK;
}

static void free_jobs(job *j)
{
    while (j != NULL) {
        job *next = j->next;
        free(j);
        j = next;
    }
}

void apmw_tiers_free(apmw_tiers *tiers)
{
    if (tiers == NULL) {
        return;
    }
    for (size_t i = 0; i < tiers->n_engines; i++) {
        engine_tiers *e = &tiers->engines[i];
        for (int r = 0; e->ranks != NULL && r < e->config->n_ranks; r++) {
            apmw_kv_tiers_free(e->ranks[r].stack);
        }
        free(e->ranks);
    }
    apmw_kv_tiers_free(tiers->shared);
    for (writer *w = tiers->writers, *next; w != NULL; w = next) {
        next = w->next;
        free(w);
    }
    free_jobs(tiers->open);
    free_jobs(tiers->spare);
    free(tiers->engines);
    free(tiers);
}

const apmw_connector *apmw_tiers_connector(const apmw_tiers *tiers, size_t i)
{
    APMW_CHECK(i < tiers->n_engines);
    return &tiers->engines[i].connector;
}

size_t apmw_tiers_count(const apmw_tiers *tiers)
{
    return tiers->setup.n_tiers;
}

static void add_tier(const apmw_kv_tiers *stack, size_t t, apmw_tier_stats *out)
{
    apmw_kv_stats s;
    apmw_kv_tiers_stats(stack, t, &s);
    const int64_t block = apmw_kv_tiers_block_tokens(stack, t);
    out->capacity_tokens += s.capacity_blocks * block;
    out->cached_tokens += (s.cached_blocks + s.held_blocks) * block;
    out->evicted_tokens += s.evicted_blocks * block;
}

void apmw_tiers_stats(const apmw_tiers *tiers, size_t t, apmw_tier_stats *out)
{
    APMW_CHECK(t < tiers->setup.n_tiers);
    *out = tiers->stats[t];
    const bool shared = tiers->setup.tiers[t].shared;
    if (shared) {
        add_tier(tiers->shared, 0, out);
    }
    for (size_t i = 0; i < tiers->n_engines; i++) {
        for (int r = 0; r < tiers->engines[i].config->n_ranks; r++) {
            const rank_tiers *rank = &tiers->engines[i].ranks[r];
            if (!shared) {
                add_tier(rank->stack, t, out);
            }
            const apmw_tier_link *load = &rank->load[t], *posted = &rank->store[t];
            out->loaded_bytes += load->bytes;
            out->load_wait_s += 1e-9 * load->waited_ns;
            out->load_busy_s += 1e-9 * load->busy_ns;
            out->stored_bytes += posted->bytes;
            out->store_busy_s += 1e-9 * posted->busy_ns;
            out->store_backlog_s = fmax(out->store_backlog_s, apmw_time_to_s(posted->longest_wait));
        }
    }
}

apmw_status apmw_tiers_check(const apmw_tiers *tiers, apmw_error *err)
{
    for (size_t i = 0; i < tiers->n_engines; i++) {
        for (int r = 0; r < tiers->engines[i].config->n_ranks; r++) {
            if (apmw_kv_tiers_check(tiers->engines[i].ranks[r].stack, err) != APMW_OK) {
                return apmw_error_wrap(err, "engine %zu, rank %d", i, r);
            }
        }
    }
    return APMW_OK;
}
