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
    compose_weights_of(ctx, &w);
    c->dense_flops_per_token = m->dense_flops_per_token + m->recurrent_flops_per_token;
    c->dense_bytes = w.attention_bytes + w.dense_mlp_bytes + w.shared_bytes + w.router_bytes + w.head_bytes;
    c->head_bytes_draft = w.head_bytes;
    c->moe_layers = m->experts > 0 ? m->moe_layers : 0;
    c->expert_bytes = w.expert_rank_bytes;
    c->experts_per_rank = w.experts_per_rank;
    c->hit_share = m->experts > 0 ? (double)m->topk / m->experts : 0;
    c->flops_share = 1.0 / ctx->gpus;
    for (int i = 0; i < c->n_ctx; i++) {
        c->seq_bytes[i] = compose_kv_read_bytes(ctx, c->ctx[i]);
        c->seq_flops[i] = compose_decode_flops(ctx, c->ctx[i]) * c->flops_share;
    }
    memcpy(c->prefill_flops, m->prefill_flops, sizeof c->prefill_flops);
    c->n_prefill_flops = m->n_prefill_flops;
}

static void fill_report(apmw_compose_report *report, const compose_context *ctx, const compose_ops *ops)
{
    if (!report) {
        return;
    }
    *report = (apmw_compose_report){.n_borrowed = 0};
    apmw_buf_printf(&report->rows, "# %s on %s, %s %s, tp %d dp %d moe_tp %d moe_ep %d, kv %s, moe %s\n", ctx->llm->id,
                    ctx->spec->platform, ctx->engine, ctx->spec->precision, ctx->layout.tp, ctx->layout.attention_dp,
                    ctx->layout.moe_tp, ctx->layout.moe_ep, ctx->kv, ctx->moe);
    for (size_t i = 0; i < ops->n; i++) {
        const compose_op *op = &ops->op[i];
        apmw_buf_printf(&report->rows, "%-16s x%-4g %s\n", op->role, op->count, op->row.line);
        report->n_borrowed += op->row.borrowed ? 1 : 0;
    }
}

void apmw_compose_report_free(apmw_compose_report *report)
{
    if (report) {
        apmw_buf_free(&report->rows);
    }
}

apmw_status apmw_compose(apmw_catalog *catalog, const apmw_serving_spec *spec, const apmw_overhead *overhead,
                         apmw_step_cost **out, apmw_compose_report *report, apmw_error *err)
{
    compose_context ctx;
    compose_ops ops;
    *out = NULL;
    apmw_status st = compose_context_open(catalog, spec, &ctx, err);
    if (st) {
        return st;
    }
    if ((st = compose_ops_build(&ctx, &ops, err))) {
        compose_context_close(&ctx);
        return st;
    }
    composed_cost *c = calloc(1, sizeof *c);
    if (!c) {
        compose_ops_free(&ops);
        compose_context_close(&ctx);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    c->base.ops = &composed_cost_ops;
    c->base.n_kinds = ops.n_kinds;
    memcpy(c->base.kv_cap, ops.kv_cap, sizeof c->base.kv_cap);
    c->base.n_accelerators = ctx.gpus;
    c->layers = ctx.llm->layers;
    c->draft = spec->draft_tokens;
    c->overhead = overhead ? *overhead : (apmw_overhead){.prefill_scale = 1};
    composed_cost_knots(c);
    composed_cost_sample(c, &ops);
    fill_work(c, &ctx);
    fill_report(report, &ctx, &ops);
    compose_ops_free(&ops);
    compose_context_close(&ctx);
    *out = &c->base;
    return APMW_OK;
}
