/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Why this form: on rows of serving power (ML.ENERGY, B200 and H100), lines in duty or in bandwidth and FLOP rate miss
 * left-out models by 14 to 19 % in the median. Power saturates: a memory-bound step already draws most of the limit,
 * a step that also computes draws the rest. One exponential over the sum of both utilisations says that with two fitted
 * numbers; more numbers do not predict left-out models better. */
#include "apmw/power_form.h"
#include <math.h>

double apmw_power_step_w(const apmw_power_params *params, double duty, double bw_util, double flop_util)
{
    /* Composed kernel time can exceed a measured step (tables are a little slow at some shapes); a step is never
     * more than fully busy. */
    double busy = duty > 1 ? 1 : duty; /* not fmin, which would turn "not known" into a number */
    double first = params->use_bandwidth ? bw_util / params->a_bw : busy / params->a_duty;
    double z = first + flop_util / params->b;
    double share = params->p0 + (params->pt - params->p0) * -expm1(-z);
    return params->tdp_w * (share > 1 ? 1 : share);
}

double apmw_power_idle_w(const apmw_power_params *params)
{
    /* An unmeasured idle is replaced by the floor of running steps, an upper bound: agents per megawatt then errs low. */
    return isnan(params->p_idle_w) ? params->p0 * params->tdp_w : params->p_idle_w;
}
