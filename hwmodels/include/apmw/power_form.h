/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Power of one accelerator while an engine steps:
 *   z = duty / a_duty + flop_util / b   (or bw_util / a_bw in place of the first term),
 *   P = TDP * [p0 + (pt - p0) (1 - exp(-z))], at most TDP.
 * duty = composed kernel time / step time (capped at 1), flop_util = FLOP/s / dense bf16 peak whatever the dtype,
 * bw_util = HBM bytes/s / specified bandwidth. Idle stretches (no work for more than 1 s) draw p_idle. The form
 * and the evidence for it: hwmodels/ACCURACY.md. */
#ifndef APMW_POWER_FORM_H
#define APMW_POWER_FORM_H
#include "apmw/hwmodel.h"

/* Watts of one accelerator. */
double apmw_power_step_w(const apmw_power_params *params, double duty, double bw_util, double flop_util);
double apmw_power_idle_w(const apmw_power_params *params);

#endif
