/* SPDX-License-Identifier: GPL-3.0-or-later */
/* KV pool of one rank. Rule (hwmodels/ACCURACY.md): (memory as the device reports it x share - weights - about 4 GB of
 * activations, graphs and communication buffers) / bytes a token. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

apmw_status apmw_kv_pool_tokens(apmw_catalog *catalog, const apmw_serving_spec *spec, double memory_fraction,
                                double context, double *tokens, double *weight_bytes, apmw_error *err)
{
    compose_context ctx;
    apmw_status st = apmw_compose_context_open(catalog, spec, &ctx, err);
    if (st) {
        return st;
    }
    compose_weights w;
    apmw_compose_weights_of(&ctx, &w);
    double weights = apmw_compose_weight_total(&w), reserve = 4e9, share = 0.9;
    char meaning[16] = "all";
    if ((st = apmw_rule_number(&ctx, "memory", "reserve_bytes", 4e9, &reserve, err)) ||
        (st = apmw_rule_number(&ctx, "memory", "fraction", 0.9, &share, err)) ||
        (st = apmw_rule_text(&ctx, "memory", "fraction_of", "all", meaning, sizeof meaning, err))) {
        apmw_compose_context_close(&ctx);
        return st;
    }
    share = isnan(memory_fraction) ? share : memory_fraction;
    double memory = ctx.accelerator->hbm_reported_bytes;
    memory = isnan(memory) ? ctx.accelerator->hbm_bytes : memory;
    double pool = !strcmp(meaning, "rest") ? (memory - weights - reserve) * share : memory * share - weights - reserve;
    double element = strcmp(ctx.kv, "fp8") ? 2 : 1;
    context = context > 0 ? context : 1;
    const double bytes = spec->kv_all_windows ? apmw_llm_kv_bytes_all_windows(ctx.llm, context, ctx.layout.tp, element)
                                              : apmw_llm_kv_bytes(ctx.llm, context, ctx.layout.tp, element);
    double per_token = bytes * apmw_compose_latent_scale(&ctx) / context;
    *weight_bytes = weights;
    *tokens = pool > 0 ? floor(pool / per_token) : 0;
    if (pool <= 0) {
        st = apmw_error_set(err, APMW_E_SCENARIO,
                            "%s at %s does not fit %s with tp %d, attention_dp %d, moe_ep %d: %.1f GB of weights an accelerator"
                            " + %.1f GB reserve exceed the engine's share (%.0f %% %s) of %.1f GB",
                            ctx.llm->id, spec->precision, spec->platform, ctx.layout.tp, ctx.layout.attention_dp,
                            ctx.layout.moe_ep, weights / 1e9, reserve / 1e9, 100 * share,
                            !strcmp(meaning, "rest") ? "of the rest after weights" : "of all", memory / 1e9);
    }
    apmw_compose_context_close(&ctx);
    return st;
}
