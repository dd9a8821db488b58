/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Parts without tables for everything: AMD's have measured GEMM and fused MoE (aiter), those projected from
 * specifications nothing. Attention reads the KV at an achieved bandwidth, collectives are latency + bytes at link
 * bandwidth (hwmodels/ACCURACY.md). */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

static apmw_status form_op(compose_ops *ops, const char *role, arg_kind arg, compose_op **out, apmw_error *err)
{
    *out = apmw_compose_ops_add(ops, role, 1, arg);
    return *out ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
}

/* Decode attention is one pass over the KV, or, where many heads share one latent (attention-DP, drafts), the products
 * with it: the slower of the two at a middle context, since both grow alike. */
static void decode_form(const compose_context *ctx, double share, double efficiency, compose_op *op)
{
    const double middle = 8192;
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp, bandwidth = share * ctx->accelerator->hbm_bytes_per_s;
    double per_byte = apmw_compose_kv_scale(ctx) / apmw_compose_kv_split(ctx) / bandwidth;
    double per_flop = (1.0 + ctx->spec->draft_tokens) / (t * efficiency * ctx->accelerator->bf16_flop_per_s);
    double read_s = apmw_terms_at(m->kv_read, m->n_kv_read, middle) * per_byte;
    double product_s = apmw_terms_at(m->decode_flops, m->n_decode_flops, middle) * per_flop;
    bool products = product_s > read_s;
    op->form_per_unit_s = products ? per_flop : per_byte;
    op->n_terms = products ? m->n_decode_flops : m->n_kv_read;
    memcpy(op->term, products ? m->decode_flops : m->kv_read, sizeof op->term);
    op->form_per_arg_s = m->linear_layers > 0 ? 2 * m->kv_state_bytes / t / bandwidth : 0;
    if (products) {
        snprintf(op->row.line, sizeof op->row.line, "form: products with the KV at %.0f %% of the bf16 rate", 100 * efficiency);
    } else {
        snprintf(op->row.line, sizeof op->row.line,
                 "form: KV bytes at %.0f %% of memory bandwidth (no attention kernel of this part was measured)",
                 100 * share);
    }
    op->row.borrowed = true;
}

static apmw_status add_attention(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double share = 0, efficiency = 0, decode_efficiency = 0, indexer = 0;
    apmw_status st;
    if ((st = apmw_rule_number(ctx, "models", "kv_bandwidth_share", 0.85, &share, err)) ||
        (st = apmw_rule_number(ctx, "models", "decode_attention_efficiency", 0.35, &decode_efficiency, err)) ||
        (st = apmw_rule_number(ctx, "models", "prefill_attention_efficiency", 0.35, &efficiency, err)) ||
        (st = apmw_rule_number(ctx, "models", "indexer_efficiency", efficiency, &indexer, err))) {
        return st;
    }
    compose_op *op;
    if ((st = form_op(ops, "attn_decode", ARG_KINDS, &op, err))) {
        return st;
    }
    op->is_attention = true;
    op->attn = ATTN_DECODE;
    decode_form(ctx, share, decode_efficiency, op);
    if ((st = form_op(ops, "attn_prefill", ARG_KINDS, &op, err))) {
        return st;
    }
    op->is_attention = true;
    op->attn = ATTN_PREFILL;
    memcpy(op->term, m->prefill_flops, sizeof op->term);
    op->n_terms = m->n_prefill_flops;
    for (int i = 0; i < op->n_terms && m->index_topk > 0; i++) { /* scores of all entries, not of the chosen ones */
        op->term[i].per_entry *= isinf(op->term[i].cap) ? efficiency / indexer : 1;
    }
    op->form_per_unit_s = 1 / (ctx->layout.tp * efficiency * ctx->accelerator->bf16_flop_per_s);
    op->row.borrowed = true;
    snprintf(op->row.line, sizeof op->row.line, "form: attention flops at %.0f %% of the bf16 rate",
             100 * efficiency);
    return APMW_OK;
}

/* Norms, residuals, rotations, quantising and KV writes: passes over T x hidden bf16 at 70 % of memory bandwidth. A layer
 * passes residual and activation eight times (two norms that read and write both), and as often again unfused casts to
 * the products' type. They vanish in decode and are a fifth of a prompt's time. */
static apmw_status add_elementwise(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    double passes = 0;
    compose_op *op;
    apmw_status st = apmw_rule_number(ctx, "models", "elementwise_passes", 16, &passes, err);
    if (st || (st = form_op(ops, "norm", ARG_RANK_TOKENS, &op, err))) {
        return st;
    }
    op->form_per_arg_s = ctx->llm->layers * passes * ctx->llm->hidden * 2.0 / (0.7 * ctx->accelerator->hbm_bytes_per_s);
    op->row.borrowed = true;
    snprintf(op->row.line, sizeof op->row.line, "form: %g passes over T x hidden bf16 a layer at 70 %% of memory bandwidth",
             passes);
    return APMW_OK;
}

/* Products without a measured row (bf16 on gfx942 has none): weights at 70 % of memory bandwidth, a start of 4 us, and
 * 45 % of the arithmetic rate. */
static apmw_status add_gemm(const compose_context *ctx, compose_ops *ops, const char *role, const char *dtype,
                            double count, arg_kind arg, double n, double k, apmw_error *err)
{
    apmw_status st = apmw_compose_add_gemm(ctx, ops, role, dtype, count, arg, n, k, err);
    if (st != APMW_E_SCENARIO) {
        return st;
    }
    compose_op *op = &ops->op[ops->n - 1];
    double bits = apmw_compose_bits(dtype), rate = 0;
    apmw_compose_product(ctx, dtype, &rate);
    op->form_fixed_s = 4e-6 + n * k * bits / 8 / (0.7 * ctx->accelerator->hbm_bytes_per_s);
    op->form_per_arg_s = 2 * n * k / (0.45 * rate);
    op->row.borrowed = true;
    snprintf(op->row.line, sizeof op->row.line, "form: (%g x %g) %s at 70 %% of bandwidth, no measured row", n, k, dtype);
    return APMW_OK;
}

/* In a mesh every two parts of a node have a link of their own, so a group of n uses n - 1 of a part's links: half of
 * the node's parts share less than half of its bandwidth. Through a switch any group has all of it. */
static apmw_status group_bytes_per_s(const compose_context *ctx, double gpus, double *out, apmw_error *err)
{
    double mesh = 0, peers = ctx->accelerator->scaleup_domain - 1.0;
    apmw_status st = apmw_rule_number(ctx, "models", "scaleup_mesh", 0, &mesh, err);
    *out = ctx->accelerator->scaleup_bytes_per_s * (mesh > 0 ? fmin((gpus - 1) / fmax(peers, 1), 1) : 1);
    return st;
}

/* All-reduce: 2 (n - 1) / n of the message over the links, after a start-up time. An exchange of expert ranks on several nodes
 * sends a token to each other node's ranks that have one of its experts, one byte an element out and two back. */
static apmw_status add_collective(const compose_context *ctx, compose_ops *ops, const char *role, arg_kind arg, double count,
                                  double gpus, apmw_error *err)
{
    if (gpus < 2 || count <= 0) {
        return APMW_OK;
    }
    double start = 0, share = 0, hidden = ctx->llm->hidden, domain = fmax(ctx->accelerator->scaleup_domain, 1);
    compose_op *op;
    apmw_status st = apmw_rule_number(ctx, "models", "allreduce_start_s", 10e-6, &start, err);
    if (st || (st = apmw_rule_number(ctx, "models", "collective_bandwidth_share", 0.65, &share, err)) ||
        (st = form_op(ops, role, arg, &op, err))) {
        return st;
    }
    double inside = fmin(gpus, domain), links = 0;
    if ((st = group_bytes_per_s(ctx, inside, &links, err))) {
        return st;
    }
    op->form_fixed_s = count * start;
    op->form_per_arg_s = count * 2 * (inside - 1) / inside * hidden * 2 / (share * links);
    op->row.borrowed = true;
    if (gpus > domain) {
        /* Counted a token of all ranks: on the average rank 1 / gpus of them. */
        double away = (gpus - domain) * -expm1(ctx->llm->topk * log1p(-1 / gpus));
        op->form_per_arg_s *= domain / gpus;
        op->form_per_arg_s += count * away * hidden * 3 / gpus / (share * ctx->accelerator->scaleout_bytes_per_s);
    }
    snprintf(op->row.line, sizeof op->row.line, "form: %g x (%.0f us + bytes at %.0f %% of the %s)", count, start * 1e6,
             100 * share, gpus > domain ? "links in and between nodes" : "links among the group");
    return APMW_OK;
}

/* Two a layer; with attention-DP the one after the experts is an exchange among all ranks. */
static apmw_status add_collectives(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    double exchanges = ctx->layout.attention_dp > 1 ? ctx->llm->moe_layers : 0;
    apmw_status st = add_collective(ctx, ops, "allreduce", ARG_RANK_TOKENS, 2.0 * ctx->llm->layers - exchanges,
                                    ctx->layout.tp, err);
    return st ? st : add_collective(ctx, ops, "exchange", ARG_TOTAL_TOKENS, exchanges, ctx->gpus, err);
}

static apmw_status add_moe(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    apmw_status st = add_gemm(ctx, ops, "router", ctx->router, m->moe_layers, ARG_RANK_TOKENS, m->experts,
                                      m->hidden, err);
    if (st || m->moe_layers == 0) {
        return st;
    }
    compose_op *op = apmw_compose_ops_add(ops, "moe", m->moe_layers, ARG_TOTAL_TOKENS);
    if (!op) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    /* aiter's rows count the shared expert as one more routed one. */
    query q = {.n = 0};
    apmw_query_text(&q, "moe_dtype", ctx->moe);
    apmw_query_number(&q, "hidden_size", m->hidden);
    apmw_query_number(&q, "inter_size", (double)m->expert_dim / ctx->layout.moe_tp);
    apmw_query_number(&q, "topk", m->topk + m->shared_experts);
    apmw_query_number(&q, "num_experts", m->experts + m->shared_experts);
    /* A rank of an expert split gets its share of all tokens' choices: as many as that many tokens would make there. */
    apmw_query_var(&q, "num_tokens", 0, 1.0 / ctx->layout.moe_ep);
    if (ctx->layout.moe_ep > 1) {
        /* Local experts of one rank; shared ones are on every rank. */
        apmw_query_number(&q, "num_experts", (double)m->experts / ctx->layout.moe_ep + m->shared_experts);
    }
    apmw_status row = apmw_row_choose(ctx, "moe", "moe", ctx->moe, &q, &op->row, err);
    if (row && row != APMW_E_SCENARIO) {
        return row;
    }
    /* The rows of 257 experts stay at one value from 1,024 to 8,192 tokens: above the rate of the part's arithmetic
     * they cannot be true. 45 % of the peak is what the large plain products of the same source reach. */
    double rate = 0, reached = 0;
    apmw_compose_product(ctx, ctx->moe, &rate);
    if ((st = apmw_rule_number(ctx, "models", "moe_flop_share", 0.45, &reached, err))) {
        return st;
    }
    double per_token = 2.0 * (m->topk + m->shared_experts) * m->expert_params / ctx->gpus / (reached * rate);
    op->floor_per_arg_s = per_token;
    if (row) { /* 70 % of bandwidth for the experts read, as the measured rows of gfx950 show at 64 to 256 tokens */
        double bytes = m->expert_params / ctx->layout.moe_tp * apmw_compose_bits(ctx->moe) / 8;
        op->experts_per_rank = (double)m->experts / ctx->layout.moe_ep + m->shared_experts;
        op->hit_share = (double)(m->topk + m->shared_experts) / (m->experts + m->shared_experts);
        op->form_per_expert_s = bytes / (0.7 * ctx->accelerator->hbm_bytes_per_s);
        op->form_fixed_s = 10e-6;
        op->form_per_arg_s = per_token;
        op->row.borrowed = true;
        snprintf(op->row.line, sizeof op->row.line, "form: experts read at 70 %% of bandwidth, no measured row of %s %g x %d",
                 ctx->moe, (double)m->expert_dim / ctx->layout.moe_tp, m->experts);
    }
    return APMW_OK;
}

static apmw_status add_gemms(const compose_context *ctx, compose_ops *ops, double layers, const double shape[][2],
                             int n, apmw_error *err)
{
    apmw_status st = APMW_OK;
    for (int i = 0; i < n && !st; i++) {
        st = add_gemm(ctx, ops, "attn_gemm", ctx->attn, layers, ARG_RANK_TOKENS, shape[i][0], shape[i][1], err);
    }
    return st;
}

/* Products with the latent's up-projections, which decode absorbs into query and output (two of them a layer) and dense prompts
 * expand; weights at 70 % of memory bandwidth, 4 us each, as other products without a row. Sparse attention absorbs them for
 * prompts too. */
static apmw_status add_latent_products(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double heads = m->heads / (double)ctx->layout.tp, weights = heads * m->kv_lora * (m->nope + m->v_dim);
    compose_op *op;
    apmw_status st = form_op(ops, "bmm", m->index_topk > 0 ? ARG_RANK_TOKENS : ARG_DECODE_TOKENS, &op, err);
    if (st) {
        return st;
    }
    op->count = m->layers;
    op->form_fixed_s = 2 * 4e-6 + weights * apmw_compose_bits(ctx->bmm) / 8 / (0.7 * ctx->accelerator->hbm_bytes_per_s);
    op->form_per_arg_s = 2 * weights / (0.45 * ctx->accelerator->bf16_flop_per_s);
    op->row.borrowed = true;
    snprintf(op->row.line, sizeof op->row.line, "form: two products of %g heads with %d x %d and %d at 70 %% of bandwidth", heads,
             m->kv_lora, m->nope, m->v_dim);
    return m->index_topk > 0 ? APMW_OK
                             : add_gemm(ctx, ops, "kv_up", ctx->attn, m->layers, ARG_CHUNK_TOKENS,
                                        heads * (m->nope + m->v_dim), m->kv_lora, err);
}

/* Layers that choose their own entries score them first (GLM-5.2: 21 of 78), and every sparse layer pays for the kernels around
 * its gather: scores, top-k, index translation. */
static apmw_status add_indexer(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double layers = 0, start = 0;
    compose_op *op;
    apmw_status st = apmw_rule_number(ctx, "models", "indexer_layers", m->layers, &layers, err);
    if (st || (st = apmw_rule_number(ctx, "models", "sparse_start_s", 0, &start, err)) ||
        (st = add_gemm(ctx, ops, "indexer", ctx->attn, layers, ARG_RANK_TOKENS, (double)m->index_heads * m->index_dim, m->q_lora,
                       err)) ||
        (st = add_gemm(ctx, ops, "indexer", ctx->attn, layers, ARG_RANK_TOKENS, m->index_dim + m->index_heads, m->hidden, err)) ||
        start <= 0 || (st = form_op(ops, "sparse", ARG_RANK_TOKENS, &op, err))) {
        return st;
    }
    op->count = m->layers;
    op->form_fixed_s = start;
    op->row.borrowed = true;
    snprintf(op->row.line, sizeof op->row.line, "form: %.0f us for the kernels around a sparse block", start * 1e6);
    return APMW_OK;
}

/* Mixing of the residual streams of hyper-connections, before and after each half of a layer. The tables of H200, B200 and
 * GB300 (dsv4_mhc) start at 18 and 8 us on each of them, and from 1,024 to 8,192 tokens take their bandwidth's time for
 * 44 times the hidden width in bf16, 11 passes over the four streams. */
static apmw_status add_mixing(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    compose_op *op;
    apmw_status st = form_op(ops, "mhc", ARG_RANK_TOKENS, &op, err);
    if (!st) {
        op->count = 2.0 * ctx->llm->layers;
        op->form_fixed_s = 26e-6;
        op->form_per_arg_s = 44.0 * ctx->llm->hidden * 2.0 / ctx->accelerator->hbm_bytes_per_s;
        op->row.borrowed = true;
        snprintf(op->row.line, sizeof op->row.line, "form: 26 us and 11 passes over four streams at memory bandwidth");
    }
    return st;
}

/* A form needs the numbers that it scales by. */
static apmw_status check_facts(const compose_context *ctx, apmw_error *err)
{
    const apmw_accelerator_spec *a = ctx->accelerator;
    const struct {
        const char *name;
        double value;
        bool needed;
    } facts[] = {{"hbm_bytes_per_s", a->hbm_bytes_per_s, true},
                 {"bf16_flop_per_s", a->bf16_flop_per_s, true},
                 {"scaleup_bytes_per_s", a->scaleup_bytes_per_s, ctx->gpus > 1},
                 {"scaleout_bytes_per_s", a->scaleout_bytes_per_s, ctx->gpus > a->scaleup_domain}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        if (facts[i].needed && isnan(facts[i].value)) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s is %s, and its specifications do not tell %s "
                                  "(hwmodels/specs/accelerators/%s.json), without which no form prices its steps", a->id,
                                  a->projected ? "projected from specifications only" : "priced by forms",
                                  facts[i].name, a->id);
        }
    }
    return APMW_OK;
}

apmw_status apmw_compose_ops_forms(const compose_context *ctx, compose_ops *ops, apmw_error *err)
{
    const apmw_llm_spec *m = ctx->llm;
    double t = ctx->layout.tp, heads = m->heads / t;
    bool known = m->csa_layers > 0 || m->kv_lora > 0 || (m->kv_heads > 0 && m->head_dim > 0);
    if (!known || m->n_kv_read == 0 || (m->kv_lora > 0 && m->linear_layers > 0) || (m->index_topk > 0 && m->kv_lora == 0 && m->csa_layers == 0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%s: no attention block of this architecture for %s", m->id,
                              ctx->spec->platform);
    }
    apmw_status st = check_facts(ctx, err);
    if (st || (st = add_attention(ctx, ops, err))) {
        return st;
    }
    double full = m->layers - m->linear_layers;
    if (m->csa_layers > 0) { /* the grouped output projection has the weights of one of this size */
        const double shape[4][2] = {{m->q_lora + m->head_dim, m->hidden}, {heads * m->head_dim, m->q_lora},
                                    {(double)m->o_groups * m->o_lora / t, heads * m->head_dim / ((double)m->o_groups / t)},
                                    {m->hidden, (double)m->o_groups * m->o_lora / t}};
        st = add_gemms(ctx, ops, m->layers, shape, 4, err);
        if (!st) {
            st = add_mixing(ctx, ops, err);
        }
    } else if (m->kv_lora > 0) {
        const double shape[3][2] = {{m->q_lora + m->kv_lora + m->rope_dim, m->hidden},
                                    {(m->nope + m->rope_dim) * heads, m->q_lora}, {m->hidden, m->v_dim * heads}};
        st = add_gemms(ctx, ops, m->layers, shape, 3, err);
        if (!st) {
            st = add_latent_products(ctx, ops, err);
        }
        if (!st && m->index_topk > 0) {
            st = add_indexer(ctx, ops, err);
        }
    } else {
        double kv = m->kv_heads / t > 1 ? m->kv_heads / t : 1, gate = 1, v = m->linear_v_heads / t, k = m->linear_k_heads / t;
        const double linear[2][2] = {{256 * (k + v), m->hidden}, {m->hidden, 128 * v}};
        if ((st = apmw_rule_number(ctx, "models", "attn_gate", 1, &gate, err))) {
            return st;
        }
        const double shape[2][2] = {{m->head_dim * (gate * heads + 2 * kv), m->hidden}, {m->hidden, m->head_dim * heads}};
        st = add_gemms(ctx, ops, full, shape, 2, err);
        if (!st && m->linear_layers > 0) {
            st = add_gemms(ctx, ops, m->linear_layers, linear, 2, err);
        }
    }
    if (!st && m->dense_layers > 0) {
        st = add_gemm(ctx, ops, "mlp", ctx->mlp, m->dense_layers, ARG_RANK_TOKENS, 2.0 * m->dense_ffn / t, m->hidden, err);
        if (!st) {
            st = add_gemm(ctx, ops, "mlp", ctx->mlp, m->dense_layers, ARG_RANK_TOKENS, m->hidden, m->dense_ffn / t, err);
        }
    }
    if (!st && m->experts > 0) {
        st = add_moe(ctx, ops, err);
    }
    if (!st) {
        st = add_gemm(ctx, ops, "head", ctx->head, 1, ARG_SAMPLED, m->vocab / t, m->hidden, err);
    }
    if (!st) {
        st = add_elementwise(ctx, ops, err);
    }
    return st ? st : add_collectives(ctx, ops, err);
}
