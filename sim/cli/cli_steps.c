/* SPDX-License-Identifier: GPL-3.0-or-later */
/* `apmw validate` of single passes. */
#include "cli_steps.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"

static double error_of(const apmw_measured_step *s)
{
    return s->predicted_ms / s->measured_ms - 1;
}

static apmw_table *each(const apmw_measured_step *steps, size_t n)
{
    static const char *const columns[] = {"point",      "kind",        "rank_seqs", "total_seqs",   "rank_kv_tokens", "new_tokens",
                                          "past_tokens", "samples",    "ms",        "predicted_ms", "error_percent", "reason"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (size_t i = 0; table != NULL && i < n; i++) {
        const apmw_measured_step *s = &steps[i];
        apmw_table_text(table, s->point);
        apmw_table_text(table, s->prompt ? "prompt" : "decode");
        apmw_table_int(table, (long long)s->rank_seqs);
        apmw_table_int(table, (long long)s->total_seqs);
        apmw_table_number(table, s->rank_kv_tokens, 7);
        apmw_table_int(table, (long long)s->new_tokens);
        apmw_table_int(table, (long long)s->past_tokens);
        apmw_table_int(table, (long long)s->samples);
        apmw_table_number(table, s->measured_ms, 4);
        apmw_table_number(table, s->predicted_ms, 4);
        apmw_table_number(table, 100.0 * error_of(s), 3);
        apmw_table_text(table, s->reason[0] != '\0' ? s->reason : NULL);
    }
    return table;
}

/* A line of medians over rows of one kind and point (NULL: all). */
static void group(apmw_table *table, const apmw_measured_step *steps, size_t n, bool prompt, const char *point, double *scratch)
{
    size_t used = 0;
    long long samples = 0;
    for (size_t i = 0; i < n; i++)
        if (steps[i].prompt == prompt && (point == NULL || strcmp(steps[i].point, point) == 0) && !isnan(steps[i].predicted_ms)) {
            scratch[used++] = error_of(&steps[i]);
            samples += (long long)steps[i].samples;
        }
    if (used == 0)
        return;
    apmw_table_text(table, prompt ? "prompt" : "decode");
    apmw_table_text(table, point != NULL ? point : "all");
    apmw_table_int(table, (long long)used);
    apmw_table_int(table, samples);
    apmw_table_number(table, 100.0 * apmw_quantile(scratch, used, 0.5), 3);
    for (size_t i = 0; i < used; i++)
        scratch[i] = fabs(scratch[i]);
    apmw_table_number(table, 100.0 * apmw_quantile(scratch, used, 0.5), 3);
    apmw_table_number(table, 100.0 * apmw_quantile(scratch, used, 1), 3);
}

static apmw_table *by_point(const apmw_measured_step *steps, size_t n, double *scratch)
{
    static const char *const columns[] = {"kind", "point", "rows", "samples", "median_signed_percent", "median_abs_percent",
                                          "largest_abs_percent"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (int prompt = 0; table != NULL && prompt < 2; prompt++) {
        for (size_t i = 0; i < n; i++) {
            bool seen = false;
            for (size_t j = 0; j < i && !seen; j++)
                seen = steps[j].prompt == steps[i].prompt && strcmp(steps[j].point, steps[i].point) == 0;
            if (!seen && steps[i].prompt == (prompt == 1))
                group(table, steps, n, prompt == 1, steps[i].point, scratch);
        }
        group(table, steps, n, prompt == 1, NULL, scratch);
    }
    return table;
}

int apmw_cli_validate_steps(apmw_cli *cli, apmw_catalog *catalog, const char *path, bool no_fit, bool rows)
{
    apmw_error err = {0};
    apmw_csv *csv = NULL;
    apmw_measured_step *steps = NULL;
    size_t n = 0, known = 0;
    apmw_status status = apmw_csv_load(path, &csv, &err);
    if (status == APMW_OK)
        status = apmw_measured_steps_load(csv, path, &steps, &n, &err);
    apmw_csv_free(csv);
    if (status == APMW_OK)
        status = apmw_measured_steps_predict(catalog, no_fit, steps, n, &err);
    double *scratch = status == APMW_OK ? calloc(n + 1, sizeof *scratch) : NULL;
    apmw_table *table = scratch == NULL ? NULL : rows ? each(steps, n) : by_point(steps, n, scratch);
    for (size_t i = 0; table != NULL && i < n; i++)
        known += isnan(steps[i].predicted_ms) ? 0 : 1;
    free(scratch);
    free(steps);
    if (status != APMW_OK)
        return apmw_cli_fail(cli, &err);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    apmw_cli_log(cli, APMW_LOG_WARN, "%zu of %zu rows supported", known, n);
    return apmw_cli_emit_table(cli, table);
}
