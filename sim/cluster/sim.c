/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/cluster.h"

#include <math.h>
#include <stdlib.h>

#include "handover.h"

struct apmw_sim {
    apmw_des *des;
    apmw_streams *streams;
    apmw_engine **engines;
    size_t n_engines, n_made;
    apmw_router *router, *decode_router; /* the second only where prefill and decode are apart */
    apmw_handover *handover;
    apmw_tiers *tiers;
    apmw_engine_config *configs; /* of the engines, as they were made */
    apmw_workload workload;
    const apmw_probe **probes;
    size_t n_probes;
    bool started, out_of_memory;
};

static apmw_status make_engines(apmw_sim *sim, const apmw_sim_config *config, apmw_error *err)
{
    for (size_t i = 0; i < sim->n_engines; i++) {
        apmw_engine_config engine = sim->configs[i];
        if (i >= config->n_prefill && sim->handover != NULL) {
            engine.connector = apmw_handover_connector(sim->handover);
        } else if (sim->tiers != NULL) {
            engine.connector = apmw_tiers_connector(sim->tiers, i);
        }
        /* Replicas draw their own numbers, whatever their count. */
        engine.seed = config->seed ^ (engine.seed + 0x9E3779B97F4A7C15ULL * (uint64_t)(i + 1));
        const apmw_status status = apmw_engine_create(sim->des, &engine, (int32_t)i, sim->probes, sim->n_probes,
                                                      &sim->engines[i], err);
        if (status != APMW_OK) {
            return apmw_error_wrap(err, "replica %zu", i);
        }
        sim->n_made = i + 1;
    }
    return APMW_OK;
}

static void fail(void *self)
{
    apmw_sim *sim = self;
    sim->out_of_memory = true;
    apmw_des_stop(sim->des);
}

static bool make_routers(apmw_sim *sim, const apmw_sim_config *config)
{
    const size_t n_prefill = config->n_prefill;
    if (n_prefill == 0) {
        sim->router = apmw_router_create(config->routing, &config->knowledge, sim->engines, config->n_engines, sim->des, sim->streams);
        return sim->router != NULL;
    }
    sim->router = apmw_router_create(config->routing, &config->knowledge, sim->engines, n_prefill, sim->des, sim->streams);
    sim->decode_router =
        apmw_router_create(config->decode_routing, &config->knowledge, sim->engines + n_prefill,
                           config->n_engines - n_prefill, sim->des, sim->streams);
    if (sim->router == NULL || sim->decode_router == NULL) {
        return false;
    }
    const apmw_handover_config handover = {
        .des = sim->des,
        .engines = sim->engines,
        .n_prefill = n_prefill,
        .n_decode = config->n_engines - n_prefill,
        .link = config->link,
        .prefill = sim->router,
        .decode = sim->decode_router,
        .probes = sim->probes,
        .n_probes = sim->n_probes,
        .fail = fail,
        .self = sim,
    };
    sim->handover = apmw_handover_create(&handover);
    return sim->handover != NULL;
}

/* Engines that compute prompts have tiers of KV below them; decode engines get theirs from prefill engines. */
static apmw_status make_tiers(apmw_sim *sim, const apmw_sim_config *config, apmw_error *err)
{
    for (size_t i = 0; i < sim->n_engines; i++) {
        sim->configs[i] = config->engines[i];
        sim->configs[i].streams = sim->streams;
    }
    if (config->tiers == NULL) {
        return APMW_OK;
    }
    const size_t n = config->n_prefill > 0 ? config->n_prefill : config->n_engines;
    return apmw_tiers_create(sim->des, sim->streams, config->tiers, sim->configs, n, fail, sim, &sim->tiers, err);
}

static bool good_link(const apmw_kv_link *link)
{
    return link->out_bytes_per_s > 0.0 && link->in_bytes_per_s > 0.0 && isfinite(link->bytes_per_token) &&
           link->bytes_per_token >= 0.0 && isfinite(link->bytes_per_request) && link->bytes_per_request >= 0.0 &&
           link->latency_ns >= 0 && link->last_chunk_tokens >= 0;
}

apmw_status apmw_sim_create(const apmw_sim_config *config, apmw_workload workload, const apmw_probe *const *probes,
                            size_t n_probes, apmw_sim **out, apmw_error *err)
{
    *out = NULL;
    apmw_sim *sim = calloc(1, sizeof *sim);
    const bool good = config->n_engines > 0 && config->n_prefill < config->n_engines &&
                      (config->n_prefill == 0 || good_link(&config->link));
    if (sim == NULL || !good) {
        if (workload.free != NULL) {
            workload.free(workload.self);
        }
        free(sim);
        return sim == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory")
                           : apmw_error_set(err, APMW_E_SCENARIO, "a deployment needs at least one replica, one that decodes, and a link with a "
                                                               "positive bandwidth where prefill is apart");
    }
    sim->workload = workload;
    sim->n_engines = config->n_engines;
    sim->n_probes = n_probes;
    sim->des = apmw_des_create();
    sim->streams = apmw_streams_create();
    sim->engines = calloc(config->n_engines, sizeof *sim->engines);
    sim->configs = calloc(config->n_engines, sizeof *sim->configs);
    sim->probes = calloc(n_probes > 0 ? n_probes : 1, sizeof *sim->probes);
    if (sim->des == NULL || sim->streams == NULL || sim->engines == NULL || sim->configs == NULL || sim->probes == NULL ||
        !make_routers(sim, config)) {
        apmw_sim_free(sim);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for a deployment");
    }
    for (size_t i = 0; i < n_probes; i++) {
        sim->probes[i] = probes[i];
    }
    apmw_status status = make_tiers(sim, config, err);
    if (status == APMW_OK) {
        status = make_engines(sim, config, err);
    }
    if (status != APMW_OK) {
        apmw_sim_free(sim);
        return status;
    }
    *out = sim;
    return APMW_OK;
}

void apmw_sim_free(apmw_sim *sim)
{
    if (sim == NULL) {
        return;
    }
    /* Engines first: they may hold requests that the workload owns. */
    for (size_t i = 0; i < sim->n_made; i++) {
        apmw_engine_free(sim->engines[i]);
    }
    if (sim->workload.free != NULL) {
        sim->workload.free(sim->workload.self);
    }
    apmw_handover_free(sim->handover);
    apmw_tiers_free(sim->tiers);
    apmw_router_free(sim->router);
    apmw_router_free(sim->decode_router);
    apmw_streams_free(sim->streams);
    apmw_des_free(sim->des);
    free(sim->engines);
    free(sim->configs);
    free(sim->probes);
    free(sim);
}

apmw_status apmw_sim_run(apmw_sim *sim, apmw_time until, apmw_error *err)
{
    if (!sim->started) {
        sim->started = true;
        const apmw_status status = sim->workload.start(sim->workload.self, sim, err);
        if (status != APMW_OK) {
            return status;
        }
    }
    const apmw_status status = apmw_des_run(sim->des, until);
    if (status != APMW_OK || sim->out_of_memory) {
        return apmw_error_set(err, status != APMW_OK ? status : APMW_E_NOMEM, "the simulation ended early: %s",
                              sim->out_of_memory ? "out of memory" : apmw_status_name(status));
    }
    const apmw_time now = apmw_des_now(sim->des);
    for (size_t i = 0; i < sim->n_probes; i++) {
        if (sim->probes[i]->on_end != NULL) {
            sim->probes[i]->on_end(sim->probes[i]->self, now);
        }
    }
    for (size_t i = 0; i < sim->n_engines; i++) {
        const apmw_status checked = apmw_engine_check(sim->engines[i], err);
        if (checked != APMW_OK) {
            return apmw_error_wrap(err, "replica %zu", i);
        }
    }
    return sim->tiers == NULL ? APMW_OK : apmw_tiers_check(sim->tiers, err);
}

void apmw_sim_stop(apmw_sim *sim)
{
    apmw_des_stop(sim->des);
}

apmw_des *apmw_sim_des(apmw_sim *sim)
{
    return sim->des;
}

apmw_streams *apmw_sim_streams(apmw_sim *sim)
{
    return sim->streams;
}

void apmw_sim_submit(apmw_sim *sim, apmw_request *request)
{
    if (sim->handover != NULL) {
        apmw_handover_submit(sim->handover, request);
        return;
    }
    apmw_route route;
    if (!apmw_router_choose(sim->router, request, &route)) {
        sim->out_of_memory = true;
        apmw_des_stop(sim->des);
    }
    request->record.engine = (int32_t)route.engine;
    request->rank_hint = route.rank;
    apmw_engine_submit(sim->engines[route.engine], request);
}

void apmw_sim_transfers(const apmw_sim *sim, double *bytes, apmw_time *waited_ns)
{
    *bytes = 0.0;
    *waited_ns = 0;
    if (sim->handover != NULL) {
        apmw_handover_transfers(sim->handover, bytes, waited_ns);
    }
}

const apmw_tiers *apmw_sim_tiers(const apmw_sim *sim)
{
    return sim->tiers;
}

size_t apmw_sim_engines(const apmw_sim *sim)
{
    return sim->n_engines;
}

apmw_engine *apmw_sim_engine(apmw_sim *sim, size_t i)
{
    return sim->engines[i];
}
