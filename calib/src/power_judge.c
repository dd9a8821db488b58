/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The judgement of the power form: errors by platform and by model on the half that was fitted and on the half that was
 * not, once with the measured step rate (the form alone) and once with the simulated one (the form and the step). */
#include "apmw/fit_power.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct judged {
    const apmw_power_row *row;
    double error[2]; /* measured, simulated step rate; % of the measured watts */
} judged;

static void add_line(apmw_table *table, const char *platform, const char *group, const char *half,
                     const judged *items, size_t n, bool judge_half, const char *only_group, double *scratch)
{
    for (int rate = 0; rate < 2; rate++) {
        size_t used = 0;
        for (size_t i = 0; i < n; i++)
            if (items[i].row->judge == judge_half && strcmp(items[i].row->platform, platform) == 0 &&
                (!only_group || strcmp(items[i].row->group, only_group) == 0) && isfinite(items[i].error[rate]))
                scratch[used++] = items[i].error[rate];
        if (used == 0)
            continue;
        apmw_table_text(table, platform);
        apmw_table_text(table, group);
        apmw_table_text(table, half);
        apmw_table_text(table, rate == 0 ? "measured" : "simulated");
        apmw_table_int(table, (long long)used);
        double signed_median = apmw_quantile(scratch, used, 0.5), mean = 0;
        for (size_t i = 0; i < used; i++) {
            scratch[i] = fabs(scratch[i]);
            mean += scratch[i] / (double)used;
        }
        apmw_table_number(table, apmw_quantile(scratch, used, 0.5), 3);
        apmw_table_number(table, mean, 3);
        apmw_table_number(table, apmw_quantile(scratch, used, 0.9), 3);
        apmw_table_number(table, signed_median, 3);
    }
}

static bool seen_before(const judged *items, size_t i, bool by_group)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(by_group ? items[j].row->group : items[j].row->platform,
                   by_group ? items[i].row->group : items[i].row->platform) == 0)
            return true;
    return false;
}

apmw_status apmw_power_judge_table(const apmw_catalog *catalog, const apmw_power_row *rows, size_t n_rows,
                                   apmw_table **out, apmw_error *err)
{
    static const char *const names[] = {"platform", "group", "half", "step_rate", "n", "median_abs_percent",
                                        "mean_abs_percent", "p90_abs_percent", "median_signed_percent"};
    apmw_status status = APMW_OK;
    judged *items = calloc(n_rows + 1, sizeof *items);
    double *scratch = calloc(n_rows + 1, sizeof *scratch);
    *out = apmw_table_create(sizeof names / sizeof names[0], names);
    if (!items || !scratch || !*out)
        status = apmw_error_set(err, APMW_E_NOMEM, "power judgement: out of memory");
    for (size_t i = 0; status == APMW_OK && i < n_rows; i++)
        items[i].row = &rows[i];
    for (size_t i = 0; status == APMW_OK && i < n_rows; i++) {
        if (seen_before(items, i, false))
            continue;
        apmw_power_params params;
        status = apmw_power_params_for(catalog, rows[i].platform, rows, n_rows, &params, NULL, err);
        for (size_t j = i; status == APMW_OK && j < n_rows; j++) {
            if (strcmp(rows[j].platform, rows[i].platform) != 0)
                continue;
            const apmw_power_use *uses[2] = {&rows[j].measured, &rows[j].simulated};
            for (int rate = 0; rate < 2; rate++)
                items[j].error[rate] = 100 * (apmw_power_step_w(&params, uses[rate]->duty, uses[rate]->bw_util,
                                                                uses[rate]->flop_util) / rows[j].watts - 1);
        }
    }
    for (int judge = 0; status == APMW_OK && judge < 2; judge++)
        for (size_t i = 0; i < n_rows; i++)
            if (!seen_before(items, i, false))
                add_line(*out, rows[i].platform, "all", judge ? "judge" : "fit", items, n_rows, judge != 0, NULL,
                         scratch);
    for (size_t i = 0; status == APMW_OK && i < n_rows; i++)
        if (!seen_before(items, i, true))
            add_line(*out, rows[i].platform, rows[i].group, rows[i].judge ? "judge" : "fit", items, n_rows,
                     rows[i].judge, rows[i].group, scratch);
    if (status != APMW_OK) {
        apmw_table_free(*out);
        *out = NULL;
    }
    free(items);
    free(scratch);
    return status;
}
