/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Costs laid over composed costs. An overhead does not change which kernels run, so a fit that tries many overheads
 * composes once; a decode worker runs the same decode steps as an engine, without the prompts. */
#include <math.h>
#include <stdlib.h>
#include "apmw/validate.h"

typedef struct overhead_cost {
    apmw_step_cost base;
    const apmw_step_cost *inner;
    apmw_overhead overhead;
    double layers;
} overhead_cost;

static const overhead_cost *self_of(const apmw_step_cost *cost)
{
    return (const overhead_cost *)(const void *)cost;
}

static double engine_time(const overhead_cost *c, double n_seqs)
{
    return c->overhead.layer_s * c->layers + c->overhead.seq_s * n_seqs;
}

static void overhead_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                         int64_t n_steps, apmw_step_work *out)
{
    const overhead_cost *c = self_of(cost);
    apmw_step_cost_sum(c->inner, load, growth, n_steps, out);
    if (n_steps <= 0 || load->n_seqs <= 0)
        return;
    out->kernel_s *= 1 + c->overhead.kernel_extra;
    out->time_s = out->kernel_s + (double)n_steps * engine_time(c, (double)load->n_seqs);
}

static void overhead_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const overhead_cost *c = self_of(cost);
    apmw_step_cost_eval(c->inner, load, out);
    if (load->n_chunks == 0) {
        if (load->n_seqs <= 0)
            return;
        out->kernel_s *= 1 + c->overhead.kernel_extra;
        out->time_s = out->kernel_s + engine_time(c, (double)load->n_seqs);
        return;
    }
    double alone_s = 0;
    if (load->n_seqs > 0 && (c->overhead.prefill_scale != 1 || c->overhead.kernel_extra != 0)) {
        int64_t fresh = 0;
        for (size_t i = 0; i < load->n_chunks; i++)
            fresh += load->chunks[i].new_tokens;
        apmw_step_load decode = *load;
        decode.chunks = NULL;
        decode.n_chunks = 0;
        decode.rank_tokens = load->rank_tokens - fresh;
        decode.total_tokens = load->total_seqs * (load->n_seqs > 0 ? decode.rank_tokens / load->n_seqs : 1);
        apmw_step_work alone;
        apmw_step_cost_eval(c->inner, &decode, &alone);
        alone_s = alone.kernel_s;
    }
    out->kernel_s = (1 + c->overhead.kernel_extra) * alone_s +
                    c->overhead.prefill_scale * fmax(out->kernel_s - alone_s, 0);
    out->time_s = fmax(out->kernel_s, c->overhead.prefill_floor_layer_s * c->layers) +
                  engine_time(c, (double)load->n_seqs);
}

static void free_cost(apmw_step_cost *cost)
{
    free(cost);
}

static const apmw_step_cost_ops overhead_ops = {"overhead", overhead_eval, overhead_sum, free_cost};

apmw_step_cost *apmw_overhead_cost(const apmw_step_cost *inner, const apmw_overhead *overhead, double layers)
{
    overhead_cost *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->base = *inner;
    c->base.ops = &overhead_ops;
    c->inner = inner;
    c->overhead = *overhead;
    c->layers = layers;
    return &c->base;
}

typedef struct decode_cost {
    apmw_step_cost base;
    const apmw_step_cost *inner;
} decode_cost;

static void decode_only_sum(const apmw_step_cost *cost, const apmw_step_load *load,
                            const double growth[APMW_KV_KINDS], int64_t n_steps, apmw_step_work *out)
{
    apmw_step_cost_sum(((const decode_cost *)(const void *)cost)->inner, load, growth, n_steps, out);
}

static void decode_only_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const decode_cost *c = (const decode_cost *)(const void *)cost;
    apmw_step_load decode = *load;
    int64_t fresh = 0, total_fresh;
    for (size_t i = 0; i < load->n_chunks; i++)
        fresh += load->chunks[i].new_tokens;
    decode.chunks = NULL;
    decode.n_chunks = 0;
    decode.rank_tokens -= fresh;
    total_fresh = load->n_seqs > 0 ? load->total_tokens - load->total_seqs * (decode.rank_tokens / load->n_seqs)
                                   : load->total_tokens;
    decode.total_tokens -= total_fresh;
    if (decode.n_seqs > 0) {
        apmw_step_cost_eval(c->inner, &decode, out);
        return;
    }
    /* A step that only takes over prompts: a nanosecond, so that the clock goes on. */
    *out = (apmw_step_work){.time_s = 1e-9};
}

static const apmw_step_cost_ops decode_only_ops = {"decode only", decode_only_eval, decode_only_sum, free_cost};

apmw_step_cost *apmw_decode_only_cost(const apmw_step_cost *inner)
{
    decode_cost *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->base = *inner;
    c->base.ops = &decode_only_ops;
    c->inner = inner;
    return &c->base;
}
