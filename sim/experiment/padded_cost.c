/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Decode steps as captured graphs run them: at the next captured batch size. */
#include "apmw/padded_cost.h"

#include <math.h>
#include <stdlib.h>

typedef struct padded_cost {
    apmw_step_cost base;
    apmw_step_cost *inner;
    bool own;
    apmw_graphs graphs;
} padded_cost;

const char *apmw_graph_padding_name(apmw_graph_padding padding)
{
    static const char *const names[] = {[APMW_PADDING_NONE] = "none",
                                        [APMW_PADDING_ROWS] = "rows",
                                        [APMW_PADDING_SEQUENCES] = "sequences",
                                        [APMW_PADDING_ENGINE] = "engine"};
    return names[padding];
}

static int64_t up_to_multiple(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

int64_t apmw_graph_batch(const apmw_graphs *graphs, int64_t n)
{
    static const int64_t limits[] = {[APMW_GRAPHS_VLLM] = 512, [APMW_GRAPHS_SGLANG] = 512, [APMW_GRAPHS_TRTLLM] = 2048};
    const int64_t limit = graphs->max_batch > 0 ? graphs->max_batch : limits[graphs->sizes];
    if (graphs->sizes == APMW_GRAPHS_NONE || n <= 2 || n > limit) {
        return n;
    }
    int64_t size;
    if (n <= 4) {
        size = 4;
    } else if (graphs->sizes == APMW_GRAPHS_TRTLLM && n > 128) {
        for (size = 256; size < n;) {
            size *= 2;
        }
    } else if (graphs->sizes == APMW_GRAPHS_SGLANG && n > 8 && n <= 12) {
        size = 12;
    } else {
        size = up_to_multiple(n, n <= 256 ? 8 : 16);
    }
    return size < limit ? size : limit;
}

/* The load as it runs; *scale is what the KV sums were multiplied with. False: the pass is no captured one. */
static bool pad(const padded_cost *c, const apmw_step_load *load, apmw_step_load *out, double *scale)
{
    *out = *load;
    *scale = 1.0;
    if (c->graphs.padding == APMW_PADDING_NONE || load->n_chunks > 0 || load->n_seqs < 1) {
        return false;
    }
    const int64_t n = apmw_graph_batch(&c->graphs, load->n_seqs);
    const double ratio = (double)n / (double)load->n_seqs;
    out->n_seqs = n;
    out->rank_tokens = llround((double)load->rank_tokens * ratio);
    out->total_seqs = llround((double)load->total_seqs * ratio);
    out->total_tokens = llround((double)load->total_tokens * ratio);
    *scale = c->graphs.padding == APMW_PADDING_SEQUENCES ? ratio : 1.0;
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
    if (c->own) {
        apmw_step_cost_free(c->inner);
    }
    free(c);
}

apmw_step_cost *apmw_step_cost_padded(apmw_step_cost *inner, bool own, const apmw_graphs *graphs)
{
    static const apmw_step_cost_ops OPS = {.name = "padded", .eval = eval, .sum = sum, .free = release};
    padded_cost *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->base = *inner;
    c->base.ops = &OPS;
    c->inner = inner;
    c->own = own;
    c->graphs = *graphs;
    return &c->base;
}
