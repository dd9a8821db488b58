/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Compiles a deployment: operations, their rows, then the sampled cost. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "compose_cost.h"

static void fill_work(composed_cost *c, const compose_context *ctx)
{
    const apmw_llm_spec *m = ctx->llm;
    compose_weights w;
    apmw_compose_weights_of(ctx, &w);
    c->dense_flops_per_token = m->dense_flops_per_token + m->recurrent_flops_per_token;
    c->dense_bytes = w.attention_bytes + w.dense_mlp_bytes + w.shared_bytes + w.router_bytes + w.head_bytes;
    c->head_bytes_draft = w.head_bytes;
    c->moe_layers = m->experts > 0 ? m->moe_layers : 0;
    c->expert_bytes = w.expert_rank_bytes;
    c->experts_per_rank = w.experts_per_rank;
    c->hit_share = m->experts > 0 ? (double)m->topk / m->experts : 0;
    c->flops_share = 1.0 / ctx->gpus;
    for (int i = 0; i < c->n_ctx; i++) {
        c->seq_bytes[i] = apmw_compose_kv_read_bytes(ctx, c->ctx[i]);
        c->seq_flops[i] = apmw_compose_decode_flops(ctx, c->ctx[i]) * c->flops_share;
    }
    memcpy(c->prefill_flops, m->prefill_flops, sizeof c->prefill_flops);
    c->n_prefill_flops = m->n_prefill_flops;
}

/* Seconds of one call in the reference decode pass (64 sequences a rank at 4,608 tokens) or prompt pass (1,024). */
static double reference_time(const compose_op *op, int prompt, double dp)
{
    double tokens = prompt ? 1024 : 64;
    double var[QUERY_VARS] = {tokens, 0, 0};
    bool outside = false;
    if (op->is_attention) {
        if ((op->attn == ATTN_DECODE) == (prompt != 0)) {
            return 0;
        }
        var[0] = prompt ? 1 : tokens;
        var[1] = prompt ? tokens : 4608;
        return apmw_compose_op_time(op, var, &outside);
    }
    if ((op->arg == ARG_DECODE_TOKENS && prompt) || (op->arg == ARG_CHUNK_TOKENS && !prompt) ||
        op->arg == ARG_PREFIX_TOKENS) {
        return 0;
    }
    var[0] *= op->arg == ARG_TOTAL_TOKENS ? dp : 1;
    var[0] = op->arg == ARG_SAMPLED && prompt ? 1 : var[0];
    return apmw_compose_op_time(op, var, &outside);
}

/* Beyond the measured contexts a table goes on along its last two points, which at large batches are often flat: the
 * bytes read must still pass the memory. 80 % of its bandwidth is what the largest measured decode rows reach. */
static void floor_extrapolation(composed_cost *c, double bytes_per_s)
{
    decode_grid *g = &c->decode[0];
    for (int b = 0; b < c->n_batch; b++) {
        for (int i = 1; i < c->n_ctx; i++) {
            double least = c->batch[b] * (c->seq_bytes[i] - c->seq_bytes[i - 1]) / (0.8 * bytes_per_s);
            if (c->ctx[i] > g->ctx_hi[b] && g->t[b][i] < g->t[b][i - 1] + least) {
                g->t[b][i] = g->t[b][i - 1] + least;
            }
        }
    }
}

static void fill_report(apmw_compose_report *report, const compose_context *ctx, const compose_ops *ops)
{
    if (!report) {
        return;
    }
    *report = (apmw_compose_report){.n_borrowed = 0};
    apmw_compose_notes(ctx, ops, &report->notes);
    apmw_buf_printf(&report->rows, "# %s on %s, %s %s, tp %d dp %d moe_tp %d moe_ep %d, kv %s, moe %s\n", ctx->llm->id,
                    ctx->spec->platform, ctx->engine, ctx->spec->precision, ctx->layout.tp, ctx->layout.attention_dp,
                    ctx->layout.moe_tp, ctx->layout.moe_ep, ctx->kv, ctx->moe);
    apmw_buf_puts(&report->rows, "# ms: a decode pass of 64 sequences at 4,608 tokens, or one prompt of 1,024 tokens\n"
                                 "# operation      times  ms decode  ms prompt  row\n");
    double total[2] = {0, 0}, dp = ctx->layout.attention_dp;
    for (size_t i = 0; i < ops->n; i++) {
        const compose_op *op = &ops->op[i];
        double ms[2];
        for (int j = 0; j < 2; j++) {
            ms[j] = 1e3 * op->count * reference_time(op, j, dp);
            total[j] += ms[j];
        }
        apmw_buf_printf(&report->rows, "%-16s %5g %10.4f %10.4f  %s\n", op->role, op->count, ms[0], ms[1], op->row.line);
        report->n_borrowed += op->row.borrowed ? 1 : 0;
    }
    apmw_buf_printf(&report->rows, "%-16s %5s %10.4f %10.4f\n", "sum", "", total[0], total[1]);
}

void apmw_compose_report_free(apmw_compose_report *report)
{
    if (report) {
        apmw_buf_free(&report->rows);
        apmw_buf_free(&report->notes);
    }
}

/* A price that is no number would make the operation free. */
static apmw_status check_prices(const compose_context *ctx, const compose_ops *ops, apmw_error *err)
{
    for (size_t i = 0; i < ops->n; i++) {
        for (int j = 0; j < 2; j++) {
            const double s = reference_time(&ops->op[i], j, ctx->layout.attention_dp);
            if (!isfinite(s) || s < 0) {
                return apmw_error_set(err, APMW_E_SCENARIO, "%s on %s with %s at %s: the price of %s is no number (%.120s)",
                                      ctx->llm->id, ctx->spec->platform, ctx->engine, ctx->spec->precision,
                                      ops->op[i].role, ops->op[i].row.line);
            }
        }
    }
    return APMW_OK;
}

/* Absorbed attention of a token to one before it, all layers: 2 (2 kv_lora + rope) products a head. No table has it at
 * these lengths. FlashInfer's MLA wrapper, which SGLang 0.5.8 falls back to (trtllm_mla_backend.py), runs its FA2 kernel on
 * Blackwell, built on the older matrix instructions. */
static double absorbed_pair(const compose_context *ctx, double efficiency)
{
    const apmw_llm_spec *m = ctx->llm;
    double flops = 2.0 * (2 * m->kv_lora + m->rope_dim) * m->heads / ctx->layout.tp * m->layers;
    return flops / (efficiency * ctx->accelerator->bf16_flop_per_s);
}

apmw_status apmw_compose(apmw_catalog *catalog, const apmw_serving_spec *spec, const apmw_overhead *overhead,
                         apmw_step_cost **out, apmw_compose_report *report, apmw_error *err)
{
    compose_context ctx;
    compose_ops ops;
    *out = NULL;
    apmw_status st = apmw_compose_context_open(catalog, spec, &ctx, err);
    if (st) {
        return st;
    }
    if ((st = apmw_compose_ops_build(&ctx, &ops, err))) {
        apmw_compose_context_close(&ctx);
        return st;
    }
    if ((st = check_prices(&ctx, &ops, err))) {
        apmw_compose_ops_free(&ops);
        apmw_compose_context_close(&ctx);
        return st;
    }
    double efficiency = 0;
    st = apmw_rule_number(&ctx, "models", "absorbed_prompt_efficiency", 0, &efficiency, err);
    composed_cost *c = st ? NULL : calloc(1, sizeof *c);
    if (st) {
        apmw_compose_ops_free(&ops);
        apmw_compose_context_close(&ctx);
        return st;
    }
    if (!c) {
        apmw_compose_ops_free(&ops);
        apmw_compose_context_close(&ctx);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    c->base.ops = &apmw_composed_cost_ops;
    c->base.n_kinds = ops.n_kinds;
    memcpy(c->base.kv_cap, ops.kv_cap, sizeof c->base.kv_cap);
    c->base.n_accelerators = ctx.gpus;
    c->layers = ctx.llm->layers;
    c->draft = spec->draft_tokens;
    c->overhead = overhead ? *overhead : (apmw_overhead){.prefill_scale = 1};
    apmw_composed_cost_knots(c);
    apmw_composed_cost_sample(c, &ops);
    fill_work(c, &ctx);
    if (spec->absorbed_chunks && ctx.llm->kv_lora > 0 && efficiency > 0) {
        c->absorbed_pair_s = absorbed_pair(&ctx, efficiency);
    }
    floor_extrapolation(c, ctx.accelerator->hbm_bytes_per_s);
    fill_report(report, &ctx, &ops);
    apmw_compose_ops_free(&ops);
    apmw_compose_context_close(&ctx);
    *out = &c->base;
    return APMW_OK;
}
