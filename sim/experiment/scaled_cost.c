/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A step cost with all times scaled: how far the fit may be off, for intervals. */
#include "apmw/experiment.h"

#include <stdlib.h>

typedef struct scaled_cost {
    apmw_step_cost base;
    const apmw_step_cost *inner;
    double scale;
} scaled_cost;

static void eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const scaled_cost *c = (const scaled_cost *)(const void *)cost;
    apmw_step_cost_eval(c->inner, load, out);
    out->time_s *= c->scale;
    out->kernel_s *= c->scale;
}

static void sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                int64_t n_steps, apmw_step_work *out)
{
    const scaled_cost *c = (const scaled_cost *)(const void *)cost;
    apmw_step_cost_sum(c->inner, load, growth, n_steps, out);
    out->time_s *= c->scale;
    out->kernel_s *= c->scale;
}

static void release(apmw_step_cost *cost)
{
    free(cost);
}

apmw_step_cost *apmw_step_cost_scaled(const apmw_step_cost *inner, double scale)
{
    static const apmw_step_cost_ops OPS = {.name = "scaled", .eval = eval, .sum = sum, .free = release};
    scaled_cost *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->base = *inner;
    c->base.ops = &OPS;
    c->inner = inner;
    c->scale = scale;
    return &c->base;
}
