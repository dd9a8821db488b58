/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Attention blocks by family: grouped-query (with windows and gated-delta-net layers), latent (parts or whole module),
 * sparse latent (DSA), compressed (DeepSeek-V4). Shapes after hwmodels/ACCURACY.md */
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

static apmw_status add_attn(const compose_context *ctx, compose_ops *ops, const char *role, const char *table,
                            double count, attn_kind kind, int kv_kind, query *q, apmw_error *err)
{
    if (count <= 0) {
        return APMW_OK;
    }
    compose_op *op = apmw_compose_ops_add(ops, role, count, ARG_KINDS);
    if (!op) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    op->is_attention = true;
    op->attn = kind;
    op->kv_kind = kv_kind;
    apmw_query_var(q, "batch_size", 0, 1);
    if (kind == ATTN_DECODE) {
        apmw_query_number(q, "isl", 1);
        apmw_query_var(q, "step", 1, 1);
    } else {
        apmw_query_var(q, "isl", 1, 1);
        if (kind == ATTN_PREFILL_PREFIX) {
            apmw_query_var(q, "step", 2, 1);
        } else {
            apmw_query_number(q, "step", 0);
        }
    }
    return apmw_row_choose(ctx, role, table, ctx->attn, q, &op->row, err);
}

/* Decode and prefill attention kernels of `layers` grouped-query layers with one window (0 = full). */
static apmw_status add_gqa_kernels(const compose_context *ctx, compose_ops *ops, double layers, int window,
                                   int kv_kind, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    int t = ctx->layout.tp;
    query q = {.n = 0};
    apmw_query_text(&q, "attn_dtype", "bfloat16");
    apmw_query_text(&q, "kv_cache_dtype", ctx->kv);
    apmw_query_number(&q, "num_heads", m->heads / t);
    apmw_query_number(&q, "num_key_value_heads", m->kv_heads / t > 0 ? m->kv_heads / t : 1);
    apmw_query_number(&q, "head_dim", m->head_dim);
    apmw_query_number(&q, "window_size", window);
    query prefill = q;
    apmw_status st =
        add_attn(ctx, ops, "attn_decode", "generation_attention", layers, ATTN_DECODE, kv_kind, &q, err);
    return st ? st : add_attn(ctx, ops, "attn_prefill", "context_attention", layers, ATTN_PREFILL, kv_kind, &prefill, err);
}

/* Gated-delta-net layers: projections, then a convolution and a recurrent kernel whose time does not depend on the
 * context. */
static apmw_status add_gdn(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    static const struct {
        const char *role, *phase, *source;
        attn_kind kind;
    } kernels[] = {{"gdn_conv_decode", "generation", "causal_conv1d_update", ATTN_DECODE},
                   {"gdn_decode", "generation", "fused_recurrent_gated_delta_rule_packed_decode", ATTN_DECODE},
                   {"gdn_conv_prefill", "context", "causal_conv1d_fn", ATTN_PREFILL_LINEAR},
                   {"gdn_prefill", "context", "chunk_gated_delta_rule", ATTN_PREFILL_LINEAR}};
    const apmw_llm_spec *m = ctx->llm;
    const double dim = 128; /* of a linear head, all published GDN models */
    double t = ctx->layout.tp, layers = m->linear_layers, v = m->linear_v_heads / t, k = m->linear_k_heads / t;
    apmw_status st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, layers, ARG_RANK_TOKENS, 2 * dim * (k + v),
                                      m->hidden, err);
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "router", "bfloat16", layers, ARG_RANK_TOKENS, 2 * v, m->hidden, err);
    }
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, layers, ARG_RANK_TOKENS, m->hidden, dim * v, err);
    }
    for (int i = 0; i < 4 && !st; i++) {
        query q = {.n = 0};
        apmw_query_text(&q, "kernel_source", kernels[i].source);
        apmw_query_text(&q, "phase", kernels[i].phase);
        apmw_query_number(&q, "num_k_heads", k > 1 ? k : 1);
        apmw_query_number(&q, "num_v_heads", v);
        if (kernels[i].kind == ATTN_DECODE) {
            apmw_query_number(&q, "seq_len", 1);
        } else {
            apmw_query_var(&q, "seq_len", 1, 1);
        }
        st = add_attn(ctx, ops, kernels[i].role, "gdn", layers, kernels[i].kind, 0, &q, err);
    }
    return st;
}

static apmw_status add_gqa(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp, gate = 1;
    double kv = m->kv_heads / t > 1 ? m->kv_heads / t : 1;
    double full = m->layers - m->linear_layers;
    apmw_status st = apmw_rule_number(ctx, "models", "attn_gate", 1, &gate, err);
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, full, ARG_RANK_TOKENS,
                              m->head_dim * (gate * m->heads / t + 2 * kv), m->hidden, err);
    }
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, full, ARG_RANK_TOKENS, m->hidden,
                              (double)m->heads * m->head_dim / t, err);
    }
    if (!st) {
        st = add_gqa_kernels(ctx, ops, full - m->sliding_layers, 0, 0, err);
    }
    if (!st && m->sliding_layers > 0) {
        ops->n_kinds = 2;
        ops->kv_cap[1] = m->sliding_window;
        st = add_gqa_kernels(ctx, ops, m->sliding_layers, m->sliding_window, 1, err);
    }
    return st || m->linear_layers == 0 ? st : add_gdn(ctx, ops, err);
}

/* Queries of whole attention blocks share these names. */
static query module_query(const compose_context *ctx)
{
    query q = {.n = 0};
    apmw_query_text(&q, "gemm_type", ctx->attn);
    apmw_query_text(&q, "kv_cache_dtype", ctx->kv);
    apmw_query_number(&q, "num_heads", ctx->llm->heads / ctx->layout.tp);
    apmw_query_number(&q, "tp_size", ctx->layout.tp);
    return q;
}

/* Cached latents that a prompt chunk attends to are up-projected again in every chunk: (nope + v) x heads from
 * kv_lora, at the tokens of the prefix. The same product for the new tokens is a part of prefill. */
static apmw_status add_kv_up(const compose_context *ctx, compose_ops *ops, arg_kind arg, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    return apmw_compose_add_gemm(ctx, ops, arg == ARG_PREFIX_TOKENS ? "kv_up_prefix" : "attn_gemm", ctx->attn, m->layers,
                            arg, (double)(m->nope + m->v_dim) * m->heads / ctx->layout.tp, m->kv_lora, err);
}

static apmw_status add_mla_parts(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp, heads = m->heads / t;
    static const char *const bmm[] = {"mla_gen_pre", "mla_gen_post"};
    apmw_status st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, m->layers, ARG_RANK_TOKENS,
                                      m->q_lora + m->kv_lora + m->rope_dim, m->hidden, err);
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, m->layers, ARG_RANK_TOKENS,
                              (m->nope + m->rope_dim) * heads, m->q_lora, err);
    }
    if (!st) {
        st = apmw_compose_add_gemm(ctx, ops, "attn_gemm", ctx->attn, m->layers, ARG_RANK_TOKENS, m->hidden,
                              m->v_dim * heads, err);
    }
    for (int i = 0; i < 2 && !st; i++) {
        query q = {.n = 0};
        apmw_query_text(&q, "op_name", bmm[i]);
        apmw_query_text(&q, "bmm_dtype", ctx->bmm);
        apmw_query_number(&q, "num_heads", heads);
        apmw_query_var(&q, "num_tokens", 0, 1);
        compose_op *op = apmw_compose_ops_add(ops, "mla_bmm", m->layers, ARG_DECODE_TOKENS);
        st = op ? apmw_row_choose(ctx, "mla_bmm", "mla_bmm", ctx->bmm, &q, &op->row, err)
                : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    if (!st) {
        st = add_kv_up(ctx, ops, ARG_CHUNK_TOKENS, err);
    }
    if (!st) {
        st = add_kv_up(ctx, ops, ARG_PREFIX_TOKENS, err);
    }
    query q = {.n = 0};
    apmw_query_text(&q, "kv_cache_dtype", ctx->kv);
    apmw_query_number(&q, "num_heads", heads);
    query prefill = q;
    if (!st) {
        st = add_attn(ctx, ops, "attn_decode", "generation_mla", m->layers, ATTN_DECODE, 0, &q, err);
    }
    return st ? st : add_attn(ctx, ops, "attn_prefill", "context_mla", m->layers, ATTN_PREFILL, 0, &prefill, err);
}

static apmw_status add_mla(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    char form[16];
    apmw_status st = apmw_rule_text(ctx, "models", "mla_form", "module", form, sizeof form, err);
    if (st) {
        return st;
    }
    if (!strcmp(form, "parts")) {
        return add_mla_parts(ctx, ops, err);
    }
    query q = module_query(ctx), prefill = module_query(ctx);
    if (!(st = add_attn(ctx, ops, "attn_decode", "mla_generation_module", ctx->llm->layers, ATTN_DECODE, 0, &q, err)) &&
        !(st = add_attn(ctx, ops, "attn_prefill", "mla_context_module", ctx->llm->layers, ATTN_PREFILL, 0, &prefill,
                        err))) {
        st = add_kv_up(ctx, ops, ARG_PREFIX_TOKENS, err);
    }
    return st;
}

/* Layers that reuse the top-k of an earlier one (GLM-5.2) skip the indexer. */
static apmw_status add_dsa(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    double indexer = 0;
    apmw_status st = apmw_rule_number(ctx, "models", "indexer_layers", ctx->llm->layers, &indexer, err);
    const struct {
        const char *role_d, *role_p, *name_d, *name_p;
        double layers;
    } parts[] = {{"attn_decode", "attn_prefill", "dsa_generation_module", "dsa_context_module", indexer},
                 {"attn_decode", "attn_prefill", "dsa_generation_module_skip_indexer", "dsa_context_module_skip_indexer",
                  ctx->llm->layers - indexer}};
    for (int i = 0; i < 2 && !st; i++) {
        query q = module_query(ctx), prefill = module_query(ctx);
        apmw_query_text(&q, "op_name", parts[i].name_d);
        apmw_query_text(&prefill, "op_name", parts[i].name_p);
        st = add_attn(ctx, ops, parts[i].role_d, "dsa_generation_module", parts[i].layers, ATTN_DECODE, 0, &q, err);
        if (!st) {
            st = add_attn(ctx, ops, parts[i].role_p, "dsa_context_module", parts[i].layers, ATTN_PREFILL_PREFIX, 0,
                          &prefill, err);
        }
    }
    return st;
}

/* DeepSeek-V4: compressed-sparse (CSA) and heavily compressed (HCA) blocks; the few window-only layers of Flash are
 * priced as HCA, which has a window of the same size. Hyper-connection mixing twice a layer. */
static apmw_status add_v4(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    const struct {
        const char *role_d, *role_p, *decode, *prefill;
        double layers;
    } parts[] = {{"csa_decode", "csa_prefill", "dsv4_csa_generation_module", "dsv4_csa_context_module", m->csa_layers},
                 {"hca_decode", "hca_prefill", "dsv4_hca_generation_module", "dsv4_hca_context_module",
                  m->layers - m->csa_layers}};
    apmw_status st = APMW_OK;
    for (int i = 0; i < 2 && !st; i++) {
        query q = module_query(ctx), prefill = module_query(ctx);
        apmw_query_number(&q, "compress_ratio", i ? 128 : 4);
        apmw_query_number(&prefill, "compress_ratio", i ? 128 : 4);
        st = add_attn(ctx, ops, parts[i].role_d, parts[i].decode, parts[i].layers, ATTN_DECODE, 0, &q, err);
        if (!st) {
            st = add_attn(ctx, ops, parts[i].role_p, parts[i].prefill, parts[i].layers, ATTN_PREFILL_PREFIX, 0,
                          &prefill, err);
        }
    }
    static const char *const mixing[] = {"pre", "post"};
    for (int i = 0; i < 2 && !st; i++) {
        query q = {.n = 0};
        apmw_query_text(&q, "op_name", mixing[i]);
        apmw_query_number(&q, "hidden_size", m->hidden);
        apmw_query_var(&q, "num_tokens", 0, 1);
        compose_op *op = apmw_compose_ops_add(ops, "mhc", 2.0 * m->layers, ARG_RANK_TOKENS);
        st = op ? apmw_row_choose(ctx, "mhc", "dsv4_mhc", "bfloat16", &q, &op->row, err)
                : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    return st;
}

apmw_status apmw_compose_ops_attention(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    if (m->csa_layers > 0) {
        return add_v4(ctx, ops, err);
    }
    if (m->kv_lora > 0 && m->index_topk > 0) {
        return add_dsa(ctx, ops, err);
    }
    if (m->kv_lora > 0 && m->linear_layers == 0) {
        return add_mla(ctx, ops, err);
    }
    if (m->kv_heads > 0 && m->head_dim > 0 && m->index_topk == 0) {
        return add_gqa(ctx, ops, err);
    }
    return apmw_error_set(err, APMW_E_SCENARIO, "%s: no measured attention block of this architecture", m->id);
}
