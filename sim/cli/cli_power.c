/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cli_power.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/validate.h"

static apmw_power_use use_of(const apmw_use *use)
{
    return (apmw_power_use){.duty = use->duty, .bw_util = use->bw_util, .flop_util = use->flop_util};
}

static void fill(const apmw_point *p, const apmw_point_power *power, apmw_power_row *out)
{
    memset(out, 0, sizeof *out);
    apmw_copy(out->platform, sizeof out->platform, p->platform);
    snprintf(out->group, sizeof out->group, "%s|%s", p->model, p->platform);
    snprintf(out->config, sizeof out->config, "%s|%s|%s|%s|%d|%s", p->model, p->engine, p->precision, p->platform,
             p->layout[p->disagg].tp * p->layout[p->disagg].attention_dp,
             p->disagg ? "decode worker" : p->speculative ? "speculative" : "plain");
    out->batch = (double)p->concurrency;
    out->measured = use_of(&power->measured);
    out->simulated = use_of(&power->simulated);
    out->measured_step_s = power->measured_step_s;
    out->simulated_step_s = power->simulated_step_s;
    out->kernel_s = power->kernel_s;
    out->watts = power->watts;
    out->composed = true;
    out->judge = p->judge; /* the half of the serving points, so that no fit sees a judged point */
}

apmw_status apmw_cli_power_rows(const apmw_cli *cli, apmw_catalog *catalog, const char *mlenergy, const char *points_path,
                                apmw_power_row **rows, size_t *n, apmw_error *err)
{
    apmw_points points = {0};
    apmw_point_power *power = NULL;
    size_t n_power = 0;
    char *own = points_path ? NULL : apmw_cli_data_path(cli, "hwmodels/evidence/serving/points.csv.zst");
    apmw_status status = points_path || own ? apmw_power_rows_mlenergy(catalog, mlenergy, rows, n, NULL, err)
                                            : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    if (status == APMW_OK)
        status = apmw_points_load(points_path ? points_path : own, cli->data_dir, &points, err);
    if (status == APMW_OK)
        status = apmw_points_power(catalog, &points, &power, &n_power, err);
    apmw_power_row *grown = status == APMW_OK ? realloc(*rows, (*n + n_power + 1) * sizeof **rows) : NULL;
    if (status == APMW_OK && !grown)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    if (grown)
        *rows = grown;
    for (size_t i = 0; status == APMW_OK && i < n_power; i++)
        fill(&points.items[power[i].point], &power[i], &(*rows)[(*n)++]);
    if (status != APMW_OK) {
        free(*rows);
        *rows = NULL;
        *n = 0;
    }
    apmw_points_free(&points);
    free(power);
    free(own);
    return status;
}
