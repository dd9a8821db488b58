/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Disaggregated deployments: two pools and the link between them; and the one deployment that a scenario names. */
#include "deployment_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* The scenario as one pool sees it. */
static void pool_scenario(const apmw_scenario *scenario, int index, apmw_scenario *out)
{
    const apmw_pool_scenario *pool = &scenario->pools[index];
    *out = *scenario;
    if (pool->platform[0] != '\0') {
        apmw_copy(out->platform, sizeof out->platform, pool->platform);
    }
    if (!isnan(pool->memory_fraction)) {
        out->memory_fraction = pool->memory_fraction;
    }
    out->max_num_seqs = pool->max_num_seqs > 0 ? pool->max_num_seqs : scenario->max_num_seqs;
    out->max_num_batched_tokens =
        pool->max_num_batched_tokens > 0 ? pool->max_num_batched_tokens : scenario->max_num_batched_tokens;
    if (index == APMW_POOL_PREFILL) {
        out->draft_tokens = 0; /* a prefill engine emits one token a request */
    }
}

/* Prompts are tokenized for pools as they are for engines that do everything: by the front end that was fitted on those, one
 * to each prefill engine. */
static apmw_status add_frontend(apmw_catalog *catalog, const apmw_scenario *scenario, apmw_deployment *prefill, apmw_error *err)
{
    apmw_serving_spec whole = prefill->spec;
    whole.role[0] = '\0';
    apmw_overhead overhead;
    const apmw_status status = apmw_overhead_lookup(catalog, &whole, &overhead, err);
    if (status == APMW_OK) {
        prefill->engine.frontend_ns_per_token = 1e9 * overhead.frontend_s_per_token * scenario->frontend_scale;
    }
    return status;
}

static bool one_domain(const apmw_accelerator_spec *a, const apmw_accelerator_spec *b, int accelerators)
{
    return strcmp(a->id, b->id) == 0 && a->scaleup_domain >= accelerators;
}

void apmw_decode_worker(apmw_engine_config *engine)
{
    if (engine->batching == APMW_BATCHING_SGLANG) {
        engine->batching = APMW_BATCHING_TRTLLM;
        engine->max_prefill_tokens = 0;
        engine->recv_interval = 0;
        engine->prefill_delay_passes = 0;
    }
    engine->max_num_batched_tokens = (int64_t)1 << 40; /* prompts pass through no step */
    engine->request_overhead_ns = 0;
    engine->frontend_ns_per_token = 0.0;
    engine->adp_wait_iters = engine->batch_wait_iters = 0;
    engine->batch_wait_tokens = 0;
}

apmw_status apmw_link_make(const apmw_link_ends *ends, apmw_kv_link *out, apmw_error *err)
{
    const bool inside = one_domain(ends->from, ends->to, ends->accelerators);
    double out_rate = inside ? ends->from->scaleup_bytes_per_s : ends->from->scaleout_bytes_per_s;
    double in_rate = inside ? ends->to->scaleup_bytes_per_s : ends->to->scaleout_bytes_per_s;
    if (!isnan(ends->gbyte_per_s)) {
        out_rate = in_rate = 1e9 * ends->gbyte_per_s;
    }
    if (isnan(out_rate) || isnan(in_rate)) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "no rate is known for KV from %s to %s: state disaggregation.link.gbyte_per_s", ends->from->id,
                              ends->to->id);
    }
    *out = (apmw_kv_link){
        .out_bytes_per_s = out_rate * ends->from_size / ends->from_ranks,
        .in_bytes_per_s = in_rate * ends->to_size / ends->to_ranks,
        .bytes_per_token = ends->bytes_per_token,
        .bytes_per_request = ends->bytes_per_request,
        .latency_ns = isnan(ends->latency_us) ? 0 : apmw_time_from_s(1e-6 * ends->latency_us),
        /* Fitted: what a prompt token costs a prefill worker beside its kernels is the handing over of its KV. */
        .handover_ns_per_token = 1e9 * ends->handover_s_per_token,
        .decode_first = ends->decode_first,
        .last_chunk_tokens = ends->decode_first ? ends->chunk_tokens : 0,
    };
    return APMW_OK;
}

/* The KV of a prompt as the decode pool keeps it: so much a token around `context`, and the rest of it whatever the length. */
static apmw_status make_link(apmw_catalog *catalog, const apmw_scenario *scenario, double context, apmw_deployment *out,
                             apmw_error *err)
{
    const apmw_accelerator_spec *from = NULL, *to = NULL;
    const apmw_llm_spec *llm = NULL;
    apmw_status status = apmw_catalog_accelerator(catalog, out->prefill->spec.platform, &from, err);
    if (status == APMW_OK) {
        status = apmw_catalog_accelerator(catalog, out->spec.platform, &to, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_llm(catalog, scenario->model, &llm, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    apmw_link_ends ends = {.from = from,
                           .to = to,
                           .accelerators = out->accelerators,
                           .from_size = out->prefill->choice.size,
                           .from_ranks = out->prefill->engine.n_ranks,
                           .to_size = out->choice.size,
                           .to_ranks = out->engine.n_ranks,
                           .gbyte_per_s = scenario->link.gbyte_per_s,
                           .latency_us = scenario->link.latency_us,
                           .handover_s_per_token = out->prefill->overhead.frontend_s_per_token,
                           .decode_first = scenario->link.decode_first,
                           .chunk_tokens = out->prefill->engine.max_num_batched_tokens};
    apmw_deployment_kv_bytes(out, llm, context, 1, &ends.bytes_per_token, &ends.bytes_per_request);
    return apmw_link_make(&ends, &out->link, err);
}

/* What the prompts' times stand on, before what the rest does. */
static void join_basis(apmw_deployment *d)
{
    char both[sizeof d->basis];
    const char *end = strchr(d->prefill->basis, '\n');
    const int n = end == NULL ? (int)strlen(d->prefill->basis) : (int)(end - d->prefill->basis);
    snprintf(both, sizeof both, "prefill %.*s\n%.560s", n < 180 ? n : 180, d->prefill->basis, d->basis);
    apmw_copy(d->basis, sizeof d->basis, both);
}

apmw_status apmw_deployment_build_pools(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                        const apmw_layout_choice choices[APMW_POOLS], double context,
                                        apmw_deployment *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    apmw_deployment *prefill = calloc(1, sizeof *prefill);
    if (prefill == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    const char *engines[APMW_POOLS];
    apmw_scenario of[APMW_POOLS];
    for (int i = 0; i < APMW_POOLS; i++) {
        pool_scenario(scenario, i, &of[i]);
        engines[i] = scenario->pools[i].engine[0] != '\0' ? scenario->pools[i].engine : engine;
    }
    apmw_status status = apmw_deployment_build_role(catalog, &of[APMW_POOL_PREFILL], engines[APMW_POOL_PREFILL],
                                                    APMW_ROLE_PREFILL, &choices[APMW_POOL_PREFILL], context, prefill, err);
    if (status != APMW_OK) {
        free(prefill);
        return apmw_error_wrap(err, "prefill pool");
    }
    status = apmw_deployment_build_role(catalog, &of[APMW_POOL_DECODE], engines[APMW_POOL_DECODE], APMW_ROLE_DECODE,
                                        &choices[APMW_POOL_DECODE], context, out, err);
    if (status != APMW_OK) {
        apmw_error_wrap(err, "decode pool");
    }
    out->prefill = prefill;
    if (status == APMW_OK) {
        out->accelerators += prefill->accelerators;
        status = add_frontend(catalog, scenario, prefill, err);
    }
    if (status == APMW_OK) {
        status = make_link(catalog, scenario, context, out, err);
    }
    if (status != APMW_OK) {
        apmw_deployment_free(out);
        return status;
    }
    apmw_decode_worker(&out->engine);
    snprintf(out->name, sizeof out->name, "%s+%s", prefill->choice.name, out->choice.name);
    if (strcmp(prefill->spec.platform, out->spec.platform) != 0) {
        snprintf(out->platform, sizeof out->platform, "%s+%s", prefill->spec.platform, out->spec.platform);
    }
    join_basis(out);
    if (prefill->notes.length > 0 && (out->notes.length == 0 || strcmp(prefill->notes.data, out->notes.data) != 0)) {
        apmw_buf_append(&out->notes, prefill->notes.data, prefill->notes.length);
    }
    out->n_borrowed += prefill->n_borrowed;
    out->projected = out->projected || prefill->projected;
    return APMW_OK;
}

apmw_status apmw_scenario_pool_choices(const apmw_scenario *scenario, apmw_layout_choice out[APMW_POOLS], apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (int i = 0; i < APMW_POOLS && status == APMW_OK; i++) {
        status = apmw_layout_parse(scenario->pools[i].layout, 0, &out[i], err);
    }
    const int n = out[0].size * out[0].replicas + out[1].size * out[1].replicas;
    if (status == APMW_OK && scenario->accelerators > 0 && n != scenario->accelerators) {
        return apmw_error_set(err, APMW_E_SCENARIO, "the pools %s and %s have %d accelerators, the scenario says %d",
                              scenario->pools[0].layout, scenario->pools[1].layout, n, scenario->accelerators);
    }
    return status;
}

static apmw_status build_any(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                             const apmw_layout_choice choices[APMW_POOLS], double context, apmw_deployment *out,
                             apmw_error *err)
{
    return scenario->disaggregated
               ? apmw_deployment_build_pools(catalog, scenario, engine, choices, context, out, err)
               : apmw_deployment_build(catalog, scenario, engine, &choices[0], context, out, err);
}

apmw_status apmw_deployment_of(apmw_catalog *catalog, const apmw_scenario *scenario, double context, apmw_deployment *out,
                               apmw_error *err)
{
    static const char *const ENGINES[] = {"vllm", "sglang", "trtllm", "atom"};
    const apmw_node_spec *node = NULL;
    apmw_layout_choice choices[APMW_POOLS];
    const bool stated = !isnan(scenario->acceptance_length) || scenario->acceptance_preset[0] != '\0' || scenario->n_acceptance > 0;
    if (stated && scenario->draft_tokens < 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "an acceptance is stated, but not how many tokens are drafted "
                              "(speculation.draft_tokens)");
    }
    if (scenario->layout[0] != '\0' && scenario->disaggregated) {
        return apmw_error_set(err, APMW_E_SCENARIO, "both a layout (%s) and disaggregation are stated: state one",
                              scenario->layout);
    }
    apmw_status status = apmw_catalog_node(catalog, scenario->platform, &node, err);
    if (status == APMW_OK && scenario->disaggregated) {
        status = apmw_scenario_pool_choices(scenario, choices, err);
    } else if (status == APMW_OK) {
        const int whole = node->accelerators > 8 ? 8 : node->accelerators;
        const int accelerators = scenario->accelerators > 0 ? scenario->accelerators : whole;
        char name[32];
        snprintf(name, sizeof name, "tp%d", accelerators);
        status = apmw_layout_parse(scenario->layout[0] != '\0' ? scenario->layout : name, accelerators, &choices[0], err);
    }
    if (status != APMW_OK || scenario->engine[0] != '\0') {
        return status != APMW_OK ? status : build_any(catalog, scenario, scenario->engine, choices, context, out, err);
    }
    for (size_t i = 0; i < sizeof ENGINES / sizeof ENGINES[0]; i++) {
        status = build_any(catalog, scenario, ENGINES[i], choices, context, out, err);
        if (status != APMW_E_SCENARIO) {
            return status;
        }
    }
    return status;
}
