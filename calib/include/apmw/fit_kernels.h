/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fits of measured operation times, and the held-out error of a fitted form beside that of the table itself. */
#ifndef APMW_FIT_KERNELS_H
#define APMW_FIT_KERNELS_H
#include "apmw/hwmodel.h"

/* Fills model->fits for every table of the model, family by family (rows that share dtype and kind):
 *   time = t0 + max(flops / (e_f * peak), bytes / (e_b * bandwidth)),
 * three numbers by GSL Levenberg-Marquardt on ln(predicted / measured), with the covariance of their logarithms. Work
 * counts come from the shape of the operation; families of whole blocks, whose work the row does not tell, have a table
 * only (numbers NaN); an efficiency whose side of the roofline no row lies on is NaN too. Peak is the accelerator's dense
 * rate of the dtype, bandwidth its HBM or, for collectives, its scale-up rate.
 * Held-out error: the last varying axis of each grid is cut into four bands of equal width in log; each band is left out
 * whole and predicted by the form fitted on the others and by interpolation in the table without it (at the ends this is
 * extrapolation). At most 48 grids and 6,000 rows a family, taken at equal strides. `chosen` is the lower of the two.
 * Rows of experts and collectives are judged after their isotonic regression. */
apmw_status apmw_fit_kernels(apmw_hwmodel *model, const apmw_accelerator_spec *accelerator, apmw_error *err);

#endif
