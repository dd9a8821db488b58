/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fits of measured operation times, and the held-out error of a fitted form beside that of the table itself. */
#ifndef APMW_FIT_KERNELS_H
#define APMW_FIT_KERNELS_H
#include "apmw/hwmodel.h"

/* Fills model->fits for every table of the model, family by family (rows that share dtype and kind):
 *   time = t0 + max(flops / (e_f * peak), bytes / (e_b * bandwidth)),
 * three numbers by GSL Levenberg-Marquardt on ln(predicted / measured), with the covariance of their logarithms. Work
 * counts come from the shape of the operation; families of whole blocks, whose work the row does not tell, have a table
 * only (numbers NaN). Peak is the accelerator's dense rate of the dtype, bandwidth its HBM or, for collectives, its
 * scale-up rate.
 * Held-out error: the last axis of each grid is cut into four bands of equal count; each band is left out whole and
 * predicted by the form fitted on the others and by interpolation in the table without it (at the ends this is
 * extrapolation). At most 48 grids a family, taken at equal strides. `chosen` is the lower of the two. */
apmw_status apmw_fit_kernels(apmw_hwmodel *model, const apmw_accelerator_spec *accelerator, apmw_error *err);

#endif
