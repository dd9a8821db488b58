/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a scenario's tiers of KV are on a platform. All numbers are of one accelerator: those of a rank work side by side,
 * each with what it keeps of a token's KV (MLA's latents are on each, grouped-query heads are split), as the offloading
 * workers of vLLM and SGLang do. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apmw/text.h"
#include "deployment_private.h"

/* Secondary pages: 7 to 14 GB/s and about 100 us a drive; the low end, for a drive an accelerator. A sustained write rate
 * has no source: as fast as it reads. */
static const double NVME_BYTES_PER_S = 7e9;
/* Of nominal: 87 of 100 GB/s over four NICs of 200G (Mooncake transfer engine, measured). */
static const double REMOTE_SHARE = 0.87;
/* The floor of a load: a few us and about 10 us to launch it over PCIe; of a drive; of RDMA (secondary pages). */
static const double LATENCY_US[] = {[APMW_TIER_HOST] = 15.0, [APMW_TIER_NVME] = 100.0, [APMW_TIER_REMOTE] = 5.0};

static double or_else(double stated, double otherwise)
{
    return isnan(stated) ? otherwise : stated;
}

/* KV of one accelerator of a rank: bytes a token around `context`, and the rest whatever the length. */
void apmw_deployment_kv_bytes(const apmw_deployment *d, const apmw_llm_spec *llm, double context, int tp, double *per_token,
                              double *per_stream)
{
    const bool wide = strcmp(d->spec.kv_dtype, "bf16") == 0;
    const double element = wide ? 2.0 : 1.0;
    /* Latents of dense MLA are stated at one byte an element, and apmw_llm_kv_bytes does not widen them. */
    const bool dense_mla = llm->kv_lora > 0 && llm->index_topk == 0 && llm->csa_layers == 0;
    const double scale = dense_mla && wide ? 2.0 : 1.0;
    const double at = scale * apmw_llm_kv_bytes(llm, context, tp, element);
    const double twice = scale * apmw_llm_kv_bytes(llm, 2.0 * context, tp, element);
    *per_token = (twice - at) / context;
    *per_stream = fmax(0.0, at - *per_token * context);
}

static apmw_status make_tier(const apmw_tier_scenario *s, const apmw_accelerator_spec *a, const apmw_deployment *d,
                             double per_token, double per_stream, double whole_token, apmw_tier_setup *out, apmw_error *err)
{
    const char *name = apmw_tier_kind_name(s->kind);
    const bool host = s->kind == APMW_TIER_HOST, remote = s->kind == APMW_TIER_REMOTE;
    const double load = host ? a->host_load_bytes_per_s : remote ? REMOTE_SHARE * a->scaleout_bytes_per_s : NVME_BYTES_PER_S;
    const double store = host ? a->host_store_bytes_per_s : load;
    const double bytes = or_else(1e9 * s->gbyte, host ? a->host_dram_bytes : (double)NAN);
    memset(out, 0, sizeof *out);
    apmw_copy(out->kv.name, sizeof out->kv.name, name);
    /* A store for all keeps a token once, whole; the ranks still move what each of their accelerators needs. */
    const double accelerators = (double)d->choice.size * d->choice.replicas;
    out->kv.capacity_bytes = remote ? bytes * accelerators * per_token / whole_token : bytes;
    out->kv.bytes_per_token = per_token;
    out->kv.bytes_per_stream = per_stream;
    out->kv.block_tokens = s->block_tokens > 0 ? s->block_tokens : d->engine.block_tokens;
    out->kv.policy = s->policy;
    out->kv.ttl_ns = apmw_time_from_s(s->idle_ttl_s);
    out->kv.half_life_ns = apmw_time_from_s(s->half_life_s);
    out->kv.cascade = s->cascade;
    out->shared = remote;
    out->load_bytes_per_s = or_else(1e9 * s->load_gbyte_per_s, load);
    out->store_bytes_per_s = or_else(1e9 * s->store_gbyte_per_s, store);
    out->latency_ns = apmw_time_from_s(1e-6 * or_else(s->latency_us, LATENCY_US[s->kind]));
    if (isnan(bytes)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "kv_tiers: state gbyte of the %s tier: the capacity of %s is not known",
                              name, host ? a->id : "drives and stores");
    }
    if (isnan(out->load_bytes_per_s) || isnan(out->store_bytes_per_s)) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "kv_tiers: state load_gbyte_per_s and store_gbyte_per_s of the %s tier: %s's are not known", name,
                              a->id);
    }
    return APMW_OK;
}

apmw_status apmw_deployment_make_tiers(apmw_catalog *catalog, const apmw_scenario *scenario, double context,
                                       apmw_deployment *out, apmw_error *err)
{
    const apmw_kv_scenario *kv = &scenario->kv;
    const apmw_accelerator_spec *accelerator = NULL;
    const apmw_llm_spec *llm = NULL;
    out->engine.kv_policy = kv->hbm_policy;
    if (kv->n_tiers == 0) {
        return APMW_OK;
    }
    apmw_status status = apmw_catalog_accelerator(catalog, out->spec.platform, &accelerator, err);
    if (status == APMW_OK) {
        status = apmw_catalog_llm(catalog, scenario->model, &llm, err);
    }
    if (status == APMW_OK && !out->engine.prefix_caching) {
        return apmw_error_set(err, APMW_E_SCENARIO, "kv_tiers need prefix_caching: what cannot be found is not kept");
    }
    if (status != APMW_OK) {
        return status;
    }
    double per_token, per_stream, whole_token, whole_stream;
    context = context > 1.0 ? context : 1.0;
    apmw_deployment_kv_bytes(out, llm, context, out->choice.size / out->engine.n_ranks, &per_token, &per_stream);
    apmw_deployment_kv_bytes(out, llm, context, 1, &whole_token, &whole_stream);
    out->tiers.load = kv->load;
    out->tiers.write_back = kv->write_back;
    out->tiers.found_when_released = kv->found_when_released;
    out->tiers.prefetch = kv->prefetch;
    out->tiers.fair_links = kv->fair_links;
    for (int i = 0; i < kv->n_tiers && status == APMW_OK; i++) {
        status = make_tier(&kv->tiers[i], accelerator, out, per_token, per_stream, whole_token, &out->tiers.tiers[i], err);
        out->tiers.n_tiers = (size_t)i + 1;
    }
    return status;
}
