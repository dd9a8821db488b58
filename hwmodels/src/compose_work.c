/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Weights, KV bytes and flops of a deployment at its own precision, from the architecture (formulas of
 * hwmodels/ACCURACY.md; parameter counts per layer of 1.2 for DeepSeek-V4). */
#include <math.h>
#include <string.h>
#include "compose_internal.h"

/* Bits a weight with its scales: 128x128 blocks fp32, NVFP4 16-blocks e4m3, MXFP4 32-blocks ue8m0, INT4 groups of 32
 * with a bf16 scale. */
double apmw_compose_bits(const char *dtype)
{
    if (!strcmp(dtype, "fp8")) {
        return 8;
    }
    if (!strncmp(dtype, "fp8", 3)) {
        return 8.002;
    }
    if (!strcmp(dtype, "nvfp4") || !strncmp(dtype, "int4", 4)) {
        return 4.5;
    }
    return !strncmp(dtype, "w4", 2) || !strncmp(dtype, "mxfp4", 5) ? 4.25 : 16;
}

const char *apmw_compose_product(const compose_context *ctx, const char *dtype, double *flop_per_s)
{
    const apmw_accelerator_spec *a = ctx->accelerator;
    /* w4a8: activations are 8 bits, so the weights are widened to them; w4a16 and int4_wo likewise to 16. */
    bool fp4 = !strncmp(dtype, "w4a4", 4) || !strcmp(dtype, "nvfp4") || !strncmp(dtype, "mxfp4", 5);
    bool fp8 = !strncmp(dtype, "w4a8", 4) || !strncmp(dtype, "fp8", 3);
    double rate = fp4 && !isnan(a->fp4_flop_per_s) ? a->fp4_flop_per_s
                  : fp8 && !isnan(a->fp8_flop_per_s) ? a->fp8_flop_per_s
                                                     : a->bf16_flop_per_s;
    if (flop_per_s) {
        *flop_per_s = rate;
    }
    return fp4 && !isnan(a->fp4_flop_per_s) ? "fp4" : fp8 && !isnan(a->fp8_flop_per_s) ? "fp8" : "bf16";
}

/* Attention parameters of one rank, all layers, in bytes. */
static double attention_bytes(const compose_context *ctx)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp, h = m->hidden, bits = apmw_compose_bits(ctx->attn), heads = m->heads / t;
    if (m->csa_layers > 0) {
        const double latent = m->head_dim;
        double all = h * m->q_lora + m->q_lora * heads * latent + h * latent + heads * latent * m->o_lora +
                     (double)m->o_groups * m->o_lora * h / t;
        double indexer_q = (double)m->index_heads * m->index_dim * m->q_lora;
        double csa = h * 4 * latent + h * (4.0 * m->index_dim + m->index_heads), hca = h * 2 * latent;
        return (m->layers * all * bits + m->csa_layers * (indexer_q * bits + csa * 16) +
                m->hca_layers * hca * 16) / 8;
    }
    if (m->kv_lora > 0) {
        double q_in = m->q_lora > 0 ? h * m->q_lora : 0, q_from = m->q_lora > 0 ? m->q_lora : h;
        double layer = q_in + h * (m->kv_lora + m->rope_dim) + q_from * heads * (m->nope + m->rope_dim) +
                       (double)m->kv_lora * heads * (m->nope + m->v_dim) + heads * m->v_dim * h;
        if (m->index_topk > 0) {
            layer += (double)m->index_heads * m->index_dim * m->q_lora + h * (m->index_dim + m->index_heads);
        }
        return m->layers * layer * bits / 8;
    }
    double kv = m->kv_heads / t > 1 ? m->kv_heads / t : 1, gate = 1;
    (void)apmw_rule_number(ctx, "models", "attn_gate", 1, &gate, NULL);
    double full = m->head_dim * h * ((gate + 1) * heads + 2 * kv);
    double gdn = h * 128 * (2.0 * m->linear_k_heads + 3.0 * m->linear_v_heads) / t;
    return ((m->layers - m->linear_layers) * full + m->linear_layers * gdn) * bits / 8;
}

void apmw_compose_weights_of(const compose_context *ctx, compose_weights *out)
{
    const apmw_llm_spec *m = ctx->llm;
    const apmw_layout *l = &ctx->layout;
    double t = l->tp, h = m->hidden;
    *out = (compose_weights){0};
    out->attention_bytes = attention_bytes(ctx);
    out->dense_mlp_bytes = m->dense_layers * 3.0 * h * m->dense_ffn / t * apmw_compose_bits(ctx->mlp) / 8;
    if (m->experts > 0) {
        double expert = m->expert_params > 0 ? m->expert_params : 3.0 * h * m->expert_dim;
        out->shared_bytes = m->moe_layers * 3.0 * h * m->expert_dim * m->shared_experts / t *
                            apmw_compose_bits(ctx->shared) / 8;
        out->router_bytes = m->moe_layers * h * m->experts * apmw_compose_bits(ctx->router) / 8;
        out->experts_per_rank = (double)m->experts / l->moe_ep;
        out->expert_rank_bytes = expert / l->moe_tp * apmw_compose_bits(ctx->moe) / 8;
        out->routed_bytes = m->moe_layers * out->experts_per_rank * out->expert_rank_bytes;
    }
    out->head_bytes = m->vocab * h / t * apmw_compose_bits(ctx->head) / 8;
    out->embed_bytes = m->vocab * h / t * 2;
    if (ctx->spec->draft_tokens > 0) {
        double moe_layers = m->moe_layers > 0 ? m->moe_layers : 1;
        out->mtp_bytes = out->attention_bytes / m->layers + (out->shared_bytes + out->routed_bytes) / moe_layers;
    }
}

double apmw_compose_weight_total(const compose_weights *w)
{
    return w->attention_bytes + w->dense_mlp_bytes + w->shared_bytes + w->router_bytes + w->head_bytes +
           w->embed_bytes + w->routed_bytes + w->mtp_bytes;
}

/* Latents of dense MLA are stated at one byte an element (576 B), bf16 doubles them; the layouts of V4 and DSA have
 * their own formats and stay. */
double apmw_compose_latent_scale(const compose_context *ctx)
{
    const apmw_llm_spec *m = ctx->llm;
    bool dense_mla = m->kv_lora > 0 && m->index_topk == 0 && m->csa_layers == 0;
    return dense_mla && strcmp(ctx->kv, "fp8") ? 2 : 1;
}

double apmw_compose_kv_scale(const compose_context *ctx)
{
    double stated = ctx->llm->kv_bytes_per_element_stated;
    return stated > 0 ? (strcmp(ctx->kv, "fp8") ? 2 : 1) / stated : apmw_compose_latent_scale(ctx);
}

/* Latents are on every rank of a tensor-parallel group, grouped-query heads are split. */
double apmw_compose_kv_split(const compose_context *ctx)
{
    const apmw_llm_spec *m = ctx->llm;
    return m->kv_lora > 0 || m->csa_layers > 0 ? 1 : fmin(ctx->layout.tp, m->kv_heads > 0 ? m->kv_heads : 1);
}

double apmw_compose_kv_read_bytes(const compose_context *ctx, double context)
{
    const apmw_llm_spec *m = ctx->llm;
    double state = m->linear_layers > 0 ? 2 * m->kv_state_bytes / ctx->layout.tp : 0; /* read and written */
    return apmw_terms_at(m->kv_read, m->n_kv_read, context) * apmw_compose_kv_scale(ctx) / apmw_compose_kv_split(ctx) + state;
}

double apmw_compose_terms_integral(const apmw_term *terms, int n, double past, double fresh)
{
    double total = 0, lo = past, hi = past + fresh;
    for (int i = 0; i < n; i++) {
        const apmw_term *t = &terms[i];
        double knee = t->cap * t->div; /* of min(L / div, cap) */
        double a = fmin(lo, knee), b = fmin(hi, knee);
        double area = (b * b - a * a) / (2 * t->div);
        area += hi > knee ? t->cap * (hi - fmax(lo, knee)) : 0;
        total += t->layers * t->per_entry * area;
    }
    return total;
}

double apmw_compose_decode_flops(const compose_context *ctx, double context)
{
    return apmw_terms_at(ctx->llm->decode_flops, ctx->llm->n_decode_flops, context);
}
