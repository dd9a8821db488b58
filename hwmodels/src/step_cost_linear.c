/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A step cost with few numbers: every law of the engine can be checked by hand against it. */
#include <stdlib.h>
#include "apmw/step_cost.h"

typedef struct linear_cost {
    apmw_step_cost base;
    apmw_linear_cost n;
} linear_cost;

/* Flops and bytes of the chunks' attention are not among the few numbers: the tokens carry them. */
static void linear_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const apmw_linear_cost *n = &((const linear_cost *)(const void *)cost)->n;
    double tokens = (double)load->rank_tokens;
    double time = n->fixed_s + n->per_token_s * tokens + n->per_seq_s * (double)load->n_seqs;
    double bytes = n->bytes_per_step;
    for (int k = 0; k < n->n_kinds; k++) {
        time += n->per_kv_s[k] * load->kv[k];
        bytes += n->bytes_per_kv[k] * load->kv[k];
    }
    for (size_t i = 0; i < load->n_chunks; i++) {
        double fresh = (double)load->chunks[i].new_tokens;
        time += n->per_pair_s * fresh * ((double)load->chunks[i].past_tokens + (fresh + 1.0) / 2.0);
    }
    *out = (apmw_step_work){time, time, n->flops_per_token * tokens, bytes, 0.0};
}

/* kv grows by a constant a step, so the sum over n steps is n * (value at the mean growth (n - 1) / 2). */
static void linear_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                       int64_t n_steps, apmw_step_work *out)
{
    double n = (double)n_steps;
    apmw_step_load middle = *load;
    for (int k = 0; k < cost->n_kinds; k++) {
        middle.kv[k] += growth[k] * (n - 1.0) / 2.0;
    }
    linear_eval(cost, &middle, out);
    out->time_s *= n;
    out->kernel_s *= n;
    out->flops *= n;
    out->bytes *= n;
}

static void linear_free(apmw_step_cost *cost)
{
    free(cost);
}

static const apmw_step_cost_ops linear_ops = {"linear", linear_eval, linear_sum, linear_free};

apmw_step_cost *apmw_step_cost_linear(const apmw_linear_cost *numbers)
{
    linear_cost *cost = calloc(1, sizeof *cost);
    if (!cost) {
        return NULL;
    }
    cost->n = *numbers;
    cost->base.ops = &linear_ops;
    cost->base.n_kinds = numbers->n_kinds;
    for (int k = 0; k < APMW_KV_KINDS; k++) {
        cost->base.kv_cap[k] = numbers->kv_cap[k];
    }
    cost->base.n_accelerators = numbers->n_accelerators;
    return &cost->base;
}
