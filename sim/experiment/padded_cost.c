/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Decode steps as captured graphs run them: at the next captured batch size. */
#include "apmw/padded_cost.h"

#include <math.h>
#include <stdlib.h>

typedef struct padded_cost {
    apmw_step_cost base;
    apmw_step_cost *inner; /* owned */
    apmw_graph_padding padding;
} padded_cost;

int64_t apmw_graph_batch(int64_t n)
{
    if (n <= 2 || n > 512) {
        return n;
    }
    const int64_t step = n <= 4 ? 4 : n <= 256 ? 8 : 16;
    return (n + step - 1) / step * step;
}

/* The load as it runs; *scale is what the KV sums were multiplied with. False: the pass is no captured one. */
static bool pad(const padded_cost *c, const apmw_step_load *load, apmw_step_load *out, double *scale)
{
    *out = *load;
    *scale = 1.0;
    if (c->padding == APMW_PADDING_NONE || load->n_chunks > 0 || load->n_seqs < 1) {
        return false;
    }
    const int64_t n = apmw_graph_batch(load->n_seqs);
    const double ratio = (double)n / (double)load->n_seqs;
    out->n_seqs = n;
    out->rank_tokens = llround((double)load->rank_tokens * ratio);
    out->total_seqs = llround((double)load->total_seqs * ratio);
    out->total_tokens = llround((double)load->total_tokens * ratio);
    *scale = c->padding == APMW_PADDING_SEQUENCES ? ratio : 1.0;
    for (int k = 0; k < APMW_KV_KINDS; k++) {
        out->kv[k] = load->kv[k] * *scale;
    }
    return true;
}

static void eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const padded_cost *c = (const padded_cost *)(const void *)cost;
    apmw_step_load padded;
    double scale;
    pad(c, load, &padded, &scale);
    apmw_step_cost_eval(c->inner, &padded, out);
}

static void sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                int64_t n_steps, apmw_step_work *out)
{
    const padded_cost *c = (const padded_cost *)(const void *)cost;
    apmw_step_load padded;
    double scale, scaled[APMW_KV_KINDS];
    pad(c, load, &padded, &scale);
    for (int k = 0; k < APMW_KV_KINDS; k++) {
        scaled[k] = growth[k] * scale;
    }
    apmw_step_cost_sum(c->inner, &padded, scaled, n_steps, out);
}

static void release(apmw_step_cost *cost)
{
    padded_cost *c = (padded_cost *)(void *)cost;
    apmw_step_cost_free(c->inner);
    free(c);
}

apmw_step_cost *apmw_step_cost_padded(apmw_step_cost *inner, apmw_graph_padding padding)
{
    static const apmw_step_cost_ops OPS = {.name = "padded", .eval = eval, .sum = sum, .free = release};
    padded_cost *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->base = *inner;
    c->base.ops = &OPS;
    c->inner = inner;
    c->padding = padding;
    return &c->base;
}
