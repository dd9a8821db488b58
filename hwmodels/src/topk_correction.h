/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Private to hwmodels: measured V4 blocks without the excess time of their degenerate top-k inputs. */
#ifndef APMW_TOPK_CORRECTION_H
#define APMW_TOPK_CORRECTION_H
#include "apmw/hwmodel.h"

/* Rebuilds SGLang's dsv4_csa_* tables of the model corrected, and takes the calibration table out of the model so that
 * nothing corrects twice. A model without either is left as it is. */
apmw_status apmw_topk_correct(apmw_hwmodel *model, apmw_error *err);

#endif
