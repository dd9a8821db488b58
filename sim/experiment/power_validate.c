/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Serving points with measured power, as operating points: what one step did is the simulation's, how long it took is the
 * measurement's. */
#include <math.h>
#include <stdlib.h>
#include "apmw/validate.h"

static double watts_of(const apmw_point *p)
{
    return p->disagg ? p->role_power_w[1] : p->power_w;
}

static apmw_use stretched(apmw_use use, double factor)
{
    use.duty *= factor;
    use.bw_util *= factor;
    use.flop_util *= factor;
    use.duty = use.duty > 1 ? 1 : use.duty;
    return use;
}

apmw_status apmw_points_power(apmw_catalog *catalog, const apmw_points *points, apmw_point_power **out, size_t *n,
                              apmw_error *err)
{
    apmw_predictor *predictor = NULL;
    bool *keep = calloc(points->n + 1, sizeof *keep);
    *n = 0;
    *out = calloc(points->n + 1, sizeof **out);
    apmw_status status = keep && *out ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu points", points->n);
    for (size_t i = 0; status == APMW_OK && i < points->n; i++)
        keep[i] = watts_of(&points->items[i]) > 0 && points->items[i].tpot_ms > 0 && !points->items[i].excluded[0];
    if (status == APMW_OK)
        status = apmw_predictor_create(catalog, points, keep, &predictor, err);
    const apmw_predict_options options = {.acceptance_length = (double)NAN};
    for (size_t i = 0; status == APMW_OK && i < points->n; i++) {
        apmw_prediction p;
        if (!keep[i])
            continue;
        status = apmw_predict(predictor, i, &options, &p, err);
        if (status != APMW_OK || !p.supported)
            continue;
        apmw_point_power *row = &(*out)[(*n)++];
        double factor = p.tpot_ms / points->items[i].tpot_ms;
        apmw_use use = p.use[points->items[i].disagg ? 1 : 0];
        *row = (apmw_point_power){.point = i,
                                  .watts = watts_of(&points->items[i]),
                                  .measured = stretched(use, factor),
                                  .simulated = use,
                                  .simulated_step_s = p.mean_step_ms * 1e-3,
                                  .measured_step_s = p.mean_step_ms * 1e-3 / factor,
                                  .kernel_s = use.duty * p.mean_step_ms * 1e-3};
    }
    apmw_predictor_free(predictor);
    free(keep);
    if (status != APMW_OK) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return status;
}
