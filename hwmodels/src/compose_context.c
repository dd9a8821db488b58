/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the rules may look at: defaults of layout, engine, KV and the number format of each part of a model. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

static apmw_status find_family(compose_context *ctx, apmw_error *err)
{
    apmw_json_cur families, list, item;
    apmw_status st = apmw_json_child(&ctx->root, "families", &families, err);
    int n = st ? 0 : apmw_json_length(&families);
    for (int i = 0; i < n; i++) {
        const char *name, *id;
        if ((st = apmw_json_member(&families, i, &name, &list, err))) {
            return st;
        }
        for (int j = 0; j < apmw_json_length(&list); j++) {
            if ((st = apmw_json_at(&list, j, &item, err)) || (st = apmw_json_as_string(&item, &id, err))) {
                return st;
            }
            if (!strcmp(id, ctx->spec->platform)) {
                apmw_copy(ctx->family, sizeof ctx->family, name);
                return APMW_OK;
            }
        }
    }
    return st;
}

/* Layout with the defaults of a bare "tp": experts split by tensor parallelism, or over the ranks with attention-DP. */
static apmw_status fill_layout(compose_context *ctx, apmw_error *err)
{
    apmw_layout *l = &ctx->layout;
    const apmw_llm_spec *m = ctx->llm;
    l->tp = l->tp > 0 ? l->tp : 1;
    l->pp = l->pp > 0 ? l->pp : 1;
    l->attention_dp = l->attention_dp > 0 ? l->attention_dp : 1;
    ctx->gpus = l->tp * l->attention_dp;
    if (m->experts > 0) {
        if (l->moe_ep <= 0 && l->moe_tp <= 0) {
            l->moe_ep = l->attention_dp > 1 ? ctx->gpus : 1;
        }
        if (l->moe_ep <= 0) {
            l->moe_ep = ctx->gpus / l->moe_tp;
        }
        if (l->moe_tp <= 0) {
            l->moe_tp = ctx->gpus / l->moe_ep;
        }
        if (l->moe_tp * l->moe_ep != ctx->gpus) {
            return apmw_error_set(err, APMW_E_SCENARIO,
                                  "impossible split: tp %d x attention_dp %d = %d accelerators, but moe_tp %d x moe_ep %d = %d",
                                  l->tp, l->attention_dp, ctx->gpus, l->moe_tp, l->moe_ep, l->moe_tp * l->moe_ep);
        }
        if (l->moe_ep > m->experts) {
            return apmw_error_set(err, APMW_E_SCENARIO, "impossible split: moe_ep %d exceeds the %d experts of %s",
                                  l->moe_ep, m->experts, m->id);
        }
    } else {
        l->moe_tp = l->moe_ep = 1;
    }
    if (l->pp > 1) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "pipeline parallelism (pp %d): no measured point or table covers it", l->pp);
    }
    if (m->heads % l->tp) {
        return apmw_error_set(err, APMW_E_SCENARIO, "impossible split: tp %d does not divide the %d heads of %s",
                              l->tp, m->heads, m->id);
    }
    return APMW_OK;
}

static apmw_status fill_dtypes(compose_context *ctx, apmw_error *err)
{
    const struct {
        const char *role;
        char *out;
        size_t size;
    } roles[] = {{"attn", ctx->attn, sizeof ctx->attn},       {"bmm", ctx->bmm, sizeof ctx->bmm},
                 {"mlp", ctx->mlp, sizeof ctx->mlp},          {"shared", ctx->shared, sizeof ctx->shared},
                 {"moe", ctx->moe, sizeof ctx->moe},          {"router", ctx->router, sizeof ctx->router},
                 {"head", ctx->head, sizeof ctx->head}};
    apmw_status st;
    const char *kv = ctx->spec->kv_dtype;
    if (*kv && strcmp(kv, "auto")) {
        apmw_copy(ctx->kv, sizeof ctx->kv,
                  !strncmp(kv, "fp8", 3) ? "fp8" : !strncmp(kv, "bf", 2) || !strncmp(kv, "float16", 7) ? "bfloat16" : kv);
    } else if ((st = apmw_rule_text(ctx, "dtypes", "kv", "bfloat16", ctx->kv, sizeof ctx->kv, err))) {
        return st;
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if ((st = apmw_rule_text(ctx, "dtypes", roles[i].role, "", roles[i].out, roles[i].size, err))) {
            return st;
        }
        if (!roles[i].out[0]) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s at precision \"%s\" on %s: no number format known for %s",
                                  ctx->spec->model, ctx->spec->precision, ctx->spec->platform, roles[i].role);
        }
    }
    return APMW_OK;
}

apmw_status apmw_compose_context_open(apmw_catalog *catalog, const apmw_serving_spec *spec, compose_context *ctx,
                                 apmw_error *err)
{
    *ctx = (compose_context){.catalog = catalog, .spec = spec, .layout = spec->layout};
    char path[1024];
    snprintf(path, sizeof path, "%s/hwmodels/rules/rows.json", apmw_catalog_dir(catalog));
    apmw_status st = apmw_catalog_accelerator(catalog, spec->platform, &ctx->accelerator, err);
    if (st || (st = apmw_catalog_llm(catalog, spec->model, &ctx->llm, err)) ||
        (st = apmw_json_load(path, &ctx->rules, err))) {
        return st;
    }
    ctx->root = apmw_json_root(ctx->rules);
    if ((st = find_family(ctx, err)) || (st = fill_layout(ctx, err))) {
        apmw_compose_context_close(ctx);
        return st;
    }
    apmw_copy(ctx->engine, sizeof ctx->engine, spec->engine);
    if (!ctx->engine[0] && (st = apmw_rule_text(ctx, "defaults", "engine", "vllm", ctx->engine, sizeof ctx->engine, err))) {
        apmw_compose_context_close(ctx);
        return st;
    }
    if ((st = fill_dtypes(ctx, err))) {
        apmw_compose_context_close(ctx);
    }
    return st;
}

void apmw_compose_context_close(compose_context *ctx)
{
    apmw_json_free(ctx->rules);
    ctx->rules = NULL;
}
