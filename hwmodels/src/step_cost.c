/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/step_cost.h"

void apmw_step_cost_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    cost->ops->eval(cost, load, out);
}

void apmw_step_cost_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                        int64_t n_steps, apmw_step_work *out)
{
    cost->ops->sum(cost, load, growth, n_steps, out);
}

void apmw_step_cost_free(apmw_step_cost *cost)
{
    if (cost) {
        cost->ops->free(cost);
    }
}
