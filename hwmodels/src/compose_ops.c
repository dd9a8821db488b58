/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The operations of one pass, derived from the model's architecture and the layout. Which measured row prices each is
 * the rules' affair (rows.json). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

compose_op *apmw_compose_ops_add(compose_ops *ops, const char *role, double count, arg_kind arg)
{
    if (ops->n == ops->capacity) {
        size_t capacity = ops->capacity ? 2 * ops->capacity : 32;
        compose_op *grown = realloc(ops->op, capacity * sizeof *grown);
        if (!grown) {
            return NULL;
        }
        ops->op = grown;
        ops->capacity = capacity;
    }
    compose_op *op = &ops->op[ops->n++];
    *op = (compose_op){.count = count, .arg = arg, .draft = true};
    apmw_copy(op->role, sizeof op->role, role);
    return op;
}

void apmw_compose_ops_free(compose_ops *ops)
{
    free(ops->op);
    *ops = (compose_ops){0};
}

/* Adds an operation whose row is chosen now; nothing is added for a count of 0. */
static apmw_status add_op(const compose_context *ctx, compose_ops *ops, const char *role, const char *table,
                          const char *dtype, double count, arg_kind arg, const query *q, apmw_error *err)
{
    if (count <= 0) {
        return APMW_OK;
    }
    compose_op *op = apmw_compose_ops_add(ops, role, count, arg);
    if (!op) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    return apmw_row_choose(ctx, role, table, dtype, q, &op->row, err);
}

apmw_status apmw_compose_add_gemm(const compose_context *ctx, compose_ops *ops, const char *role, const char *dtype,
                             double count, arg_kind arg, double n, double k, apmw_error *err)
{
    query q = {.n = 0};
    apmw_query_text(&q, "gemm_dtype", dtype);
    apmw_query_number(&q, "n", n);
    apmw_query_number(&q, "k", k);
    apmw_query_var(&q, "m", 0, 1);
    apmw_status st = add_op(ctx, ops, role, "gemm", dtype, count, arg, &q, err);
    if (!st && count > 0) {
        char note[64];
        snprintf(note, sizeof note, "(%g x %g) ", n, k);
        compose_op *op = &ops->op[ops->n - 1];
        char line[sizeof op->row.line];
        snprintf(line, sizeof line, "%s%.500s", note, op->row.line);
        apmw_copy(op->row.line, sizeof op->row.line, line);
    }
    return st;
}

static apmw_status add_mlp(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp;
    apmw_status st = APMW_OK;
    if (m->dense_layers > 0 && m->dense_ffn > 0) {
        st = apmw_compose_add_gemm(ctx, ops, "mlp", ctx->mlp, m->dense_layers, ARG_RANK_TOKENS, 2.0 * m->dense_ffn / t,
                              m->hidden, err);
        if (!st) {
            st = apmw_compose_add_gemm(ctx, ops, "mlp", ctx->mlp, m->dense_layers, ARG_RANK_TOKENS, m->hidden,
                                  m->dense_ffn / t, err);
        }
    }
    return st;
}

/* Expert splits are measured at powers of two: the ones below and above, their geometric mean. */
static apmw_status between_splits(const compose_context *ctx, const query *exact, row_source *out, apmw_error *err)
{
    int below = 1;
    while (2 * below < ctx->layout.moe_ep) {
        below *= 2;
    }
    query q = *exact;
    row_source above;
    apmw_query_number(&q, "moe_ep_size", below);
    apmw_status st = apmw_row_choose(ctx, "moe", "moe", ctx->moe, &q, out, err);
    apmw_query_number(&q, "moe_ep_size", 2 * below);
    if (st || (st = apmw_row_choose(ctx, "moe", "moe", ctx->moe, &q, &above, err))) {
        return st;
    }
    out->transform = ROW_MEAN;
    out->with = above.main;
    out->borrowed = true;
    char line[sizeof out->line];
    snprintf(line, sizeof line, "%.560s: between ep %d and %d", out->line, below, 2 * below);
    apmw_copy(out->line, sizeof out->line, line);
    return APMW_OK;
}

static apmw_status add_moe(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    const apmw_layout *l = &ctx->layout;
    if (m->experts <= 0) {
        return APMW_OK;
    }
    double shared = (double)m->expert_dim * m->shared_experts / l->tp;
    apmw_status st = apmw_compose_add_gemm(ctx, ops, "router", ctx->router, m->moe_layers, ARG_RANK_TOKENS, m->experts,
                                      m->hidden, err);
    if (!st && m->shared_experts > 0) {
        st = apmw_compose_add_gemm(ctx, ops, "shared", ctx->shared, m->moe_layers, ARG_RANK_TOKENS, 2 * shared, m->hidden,
                              err);
    }
    if (!st && m->shared_experts > 0) {
        st = apmw_compose_add_gemm(ctx, ops, "shared", ctx->shared, m->moe_layers, ARG_RANK_TOKENS, m->hidden, shared, err);
    }
    if (st) {
        return st;
    }
    query q = {.n = 0};
    apmw_query_text(&q, "moe_dtype", ctx->moe);
    apmw_query_text(&q, "distribution", "power_law_1.2");
    apmw_query_number(&q, "hidden_size", m->hidden);
    apmw_query_number(&q, "inter_size", m->expert_dim);
    apmw_query_number(&q, "topk", m->topk);
    apmw_query_number(&q, "num_experts", m->experts);
    apmw_query_number(&q, "moe_tp_size", l->moe_tp);
    apmw_query_number(&q, "moe_ep_size", l->moe_ep);
    apmw_query_var(&q, "num_tokens", 0, 1);
    st = add_op(ctx, ops, "moe", "moe", ctx->moe, m->moe_layers, ARG_TOTAL_TOKENS, &q, err);
    if (st == APMW_E_SCENARIO && (l->moe_ep & (l->moe_ep - 1))) {
        st = between_splits(ctx, &q, &ops->op[ops->n - 1].row, err);
    }
    if (st) {
        return st;
    }
    compose_op *op = &ops->op[ops->n - 1];
    if (op->row.per_rank_tokens) {
        op->arg = ARG_RANK_TOKENS;
    }
    if (op->row.weights_from_bits > 0) {
        /* Narrower weights save bytes at memory bandwidth, wider ones cost them, at most in the ratio of the widths; 16-bit
         * products reach 55 % of the bf16 rate (large GEMM rows of the same platforms). */
        double bits = apmw_compose_bits(ctx->moe), from = op->row.weights_from_bits;
        op->saved_per_expert_s = m->expert_params / l->moe_tp * (from - bits) / 8 / ctx->accelerator->hbm_bytes_per_s;
        op->saved_limit = bits / from;
        op->experts_per_rank = (double)m->experts / l->moe_ep;
        op->hit_share = (double)m->topk / m->experts;
        if (bits > from) {
            op->floor_per_arg_s = 2.0 * m->topk * m->expert_params / ctx->gpus / (0.55 * ctx->accelerator->bf16_flop_per_s);
        }
    }
    return APMW_OK;
}

static apmw_status add_allreduce(const compose_context *ctx, compose_ops *ops, const char *role, double count,
                                 arg_kind arg, int gpus, double elements_per_token, apmw_error *err)
{
    query q = {.n = 0};
    apmw_query_text(&q, "allreduce_dtype", "bfloat16");
    apmw_query_text(&q, "op_name", "all_reduce");
    apmw_query_number(&q, "num_gpus", gpus);
    apmw_query_var(&q, "message_size", 0, elements_per_token);
    return add_op(ctx, ops, role, "comm_custom_allreduce", "bfloat16", count, arg, &q, err);
}

/* Wide expert parallelism: prepare + dispatch + combine at the tokens of one rank. */
static apmw_status add_alltoall(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    static const char *const stages[] = {"alltoall_prepare", "alltoall_dispatch", "alltoall_combine"};
    const apmw_llm_spec *m = ctx->llm;
    double prepare = 1; /* one-sided transfers need no preparing exchange */
    apmw_status st = apmw_rule_number(ctx, "models", "alltoall_prepare", 1, &prepare, err);
    double ep = exp2(floor(log2(ctx->layout.moe_ep) + 0.5)); /* measured at powers of two: the nearest in ratio */
    for (int i = prepare > 0 ? 0 : 1; i < 3 && !st; i++) {
        query q = {.n = 0};
        apmw_query_text(&q, "op_name", stages[i]);
        apmw_query_text(&q, "moe_dtype", ctx->moe);
        apmw_query_number(&q, "hidden_size", m->hidden);
        apmw_query_number(&q, "topk", m->topk);
        apmw_query_number(&q, "num_experts", m->experts);
        apmw_query_number(&q, "moe_ep_size", ep);
        apmw_query_text(&q, "distribution", "balanced");
        apmw_query_var(&q, "num_tokens", 0, 1);
        st = add_op(ctx, ops, i == 2 ? "combine" : "alltoall", "comm_trtllm_alltoall", ctx->moe, m->moe_layers,
                    ARG_RANK_TOKENS, &q, err);
    }
    return st;
}

/* DeepEP: dispatch and combine in one row, at the tokens of one rank; the rules name the mode. The tables were measured
 * inside one node: the bytes of a rank are those of any width, 7/8 or more of them remote. */
static apmw_status add_deepep(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    query q = {.n = 0};
    apmw_query_number(&q, "hidden_size", m->hidden);
    apmw_query_number(&q, "num_topk", m->topk);
    apmw_query_number(&q, "num_experts", m->experts);
    apmw_query_var(&q, "num_token", 0, 1);
    return add_op(ctx, ops, "deepep", "comm_wideep_deepep_ll", ctx->moe, m->moe_layers, ARG_RANK_TOKENS, &q, err);
}

/* All ranks' tokens gathered before the experts, their sums scattered after. Ranks of unequal length (prompts) do both by
 * sums over buffers of all tokens, as SGLang does (dp_attention.py, DpPaddingMode.SUM_LEN; communicator.py: reduce-scatter only
 * where ranks are padded to one length), unless the tokens are gathered as FP4 (standard.py, flashinfer_cutlass): half a byte a
 * number and one of scale for sixteen. */
static apmw_status add_gather_scatter(const compose_context *ctx, compose_ops *ops, double count, int how, apmw_error *err)
{
    enum { EQUAL = 1, SUMS = 2, FP4_GATHER = 3 };
    const char *const halves[] = {how == SUMS ? "all_reduce" : "all_gather", how == SUMS ? "all_reduce" : "reduce_scatter"};
    apmw_status st = APMW_OK;
    for (int i = 0; i < 2 && !st; i++) {
        query q = {.n = 0};
        double share = how == FP4_GATHER && i == 0 ? (0.5 + 1.0 / 16) / 2 : 1;
        apmw_query_text(&q, "op_name", halves[i]);
        apmw_query_text(&q, "nccl_dtype", "half");
        apmw_query_number(&q, "num_gpus", ctx->gpus);
        apmw_query_var(&q, "message_size", 0, share * ctx->llm->hidden);
        st = add_op(ctx, ops, "gather_scatter", "comm_nccl", "half", count, ARG_TOTAL_TOKENS, &q, err);
    }
    return st;
}

static apmw_status add_collectives(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    const apmw_layout *l = &ctx->layout;
    apmw_status st = APMW_OK;
    double exchanges = l->attention_dp > 1 && m->experts > 0 ? m->moe_layers : 0;
    if (l->tp > 1) {
        /* After the attention and after the feed-forward part, unless the experts' exchange replaces the latter;
         * one more for the vocabulary-split embedding. */
        st = add_allreduce(ctx, ops, "allreduce", 2.0 * m->layers - exchanges + 1, ARG_RANK_TOKENS, l->tp, m->hidden,
                           err);
        double extra = 0;
        if (!st) {
            st = apmw_rule_number(ctx, "models", "extra_allreduce_elements", 0, &extra, err);
        }
        if (!st && extra > 0) {
            st = add_allreduce(ctx, ops, "allreduce_norm", m->layers, ARG_RANK_TOKENS, l->tp, extra, err);
        }
    }
    if (st || exchanges == 0) {
        return st;
    }
    double wide = 9, deepep = 0, gather = 0;
    if ((st = apmw_rule_number(ctx, "models", "alltoall_from_gpus", 9, &wide, err)) ||
        (st = apmw_rule_number(ctx, "models", "deepep", 0, &deepep, err)) ||
        (st = apmw_rule_number(ctx, "models", "gather_scatter", 0, &gather, err))) {
        return st;
    }
    if (deepep > 0 && l->moe_ep >= 2) {
        return add_deepep(ctx, ops, err);
    }
    if (gather > 0) {
        return add_gather_scatter(ctx, ops, exchanges, (int)gather, err);
    }
    /* One exchange a MoE layer, priced as one all-reduce of all ranks' tokens (hwmodels/ACCURACY.md). */
    return ctx->gpus >= (int)wide && l->moe_ep >= 2 ? add_alltoall(ctx, ops, err)
                                  : add_allreduce(ctx, ops, "exchange", exchanges, ARG_TOTAL_TOKENS, ctx->gpus,
                                                  m->hidden, err);
}

static apmw_status add_head(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp;
    apmw_status st = apmw_compose_add_gemm(ctx, ops, "head", ctx->head, 1, ARG_SAMPLED, m->vocab / t, m->hidden, err);
    if (!st) {
        ops->op[ops->n - 1].draft = false;
    }
    if (!st && ctx->layout.tp > 1) {
        query q = {.n = 0};
        apmw_query_text(&q, "op_name", "all_gather");
        apmw_query_text(&q, "nccl_dtype", "half");
        apmw_query_number(&q, "num_gpus", t);
        apmw_query_var(&q, "message_size", 0, m->vocab);
        st = add_op(ctx, ops, "logits_gather", "comm_nccl", "half", 1, ARG_SAMPLED, &q, err);
        if (!st) {
            ops->op[ops->n - 1].draft = false;
        }
    }
    return st;
}

/* Residual additions and norms, two a layer: each reads activation and residual and writes both back, in bf16. No
 * table has them; at memory bandwidth they are below 0.1 ms (hwmodels/ACCURACY.md). */
static apmw_status add_norms(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    compose_op *op = apmw_compose_ops_add(ops, "norm", 1, ARG_RANK_TOKENS);
    if (!op) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    op->form_per_arg_s = ctx->llm->layers * 2.0 * 4.0 * ctx->llm->hidden * 2.0 / ctx->accelerator->hbm_bytes_per_s;
    apmw_copy(op->row.line, sizeof op->row.line, "form: 8 passes over T x hidden bf16 a layer at memory bandwidth");
    return APMW_OK;
}

apmw_status apmw_compose_ops_build(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    *ops = (compose_ops){.n_kinds = 1};
    for (int k = 0; k < APMW_KV_KINDS; k++) {
        ops->kv_cap[k] = INT64_MAX;
    }
    double forms = 0;
    apmw_status st = apmw_rule_number(ctx, "models", "forms", 0, &forms, err);
    if (st) {
        return st;
    }
    if (forms > 0 || ctx->accelerator->projected || ctx->spec->forms) {
        st = apmw_compose_ops_forms(ctx, ops, err);
    } else {
        (void)((st = apmw_compose_ops_attention(ctx, ops, err)) || (st = add_mlp(ctx, ops, err)) ||
               (st = add_moe(ctx, ops, err)) || (st = add_collectives(ctx, ops, err)) ||
               (st = add_head(ctx, ops, err)) || (st = add_norms(ctx, ops, err)));
    }
    if (st) {
        apmw_compose_ops_free(ops);
    }
    return st;
}
