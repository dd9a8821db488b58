/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The compressed-sparse attention blocks of DeepSeek-V4 were timed with random inputs, on which the indexer's scores are
 * flat. The radix top-k of SGLang then costs 2 to 20 times what it costs on scores that single out a few entries. The
 * collection has both times of that kernel (dsv4_csa_topk_calib: score modes flat and top_last), and its authors use
 *     max(0, block - (flat - top_last))
 * at the same batch, prefix and new tokens (ai-dynamo/aiconfigurator, see hwmodels/evidence/README.md). Two facts of
 * the rows decide how: prompt rows contain the first kernel (v1), decode rows the second (v2): decode of Pro on B200
 * goes from 80 us at 4,096 tokens of context to 144 us at 6,144, falls back to 92 us at 131,072, and the v2 difference is
 * 62 us between 8,192 and 65,536 and 0.5 us from there on. And the stage runs only when there are more compressed
 * entries than the top-k keeps. Blocks of other engines contain other kernels, show no such step and stay raw. */
#include "topk_correction.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char calibration[] = "dsv4_csa_topk_calib", engine[] = "sglang";
/* A correction never takes more than this part of a row: interpolated differences must not eat a block. */
static const double largest_part = 0.8;
enum { RATIO = 4, TOPK_PRO = 1024, TOPK_FLASH = 512 }; /* config.json of V4: compress_ratio, index_topk */

static const apmw_op_group *calibration_of(const apmw_op_table *table, const char *key, const char *mode)
{
    const char *model = strstr(key, "model=");
    const char *flash = model != NULL ? strstr(model, "Flash") : NULL;
    char start[48];
    snprintf(start, sizeof start, "score_mode=%s;", mode);
    for (size_t i = 0; model != NULL && i < table->n_groups; i++) {
        const apmw_op_group *g = apmw_op_table_group_at(table, i);
        const char *name = apmw_op_group_key(g);
        if (strncmp(name, start, strlen(start)) == 0 && (strstr(name, "Flash") != NULL) == (flash != NULL))
            return g;
    }
    return NULL;
}

/* Rows of one grid of a block, corrected in place. x has n_axes columns: batch, step and, in prompt tables, isl. */
static void correct_rows(const apmw_op_group *flat, const apmw_op_group *real, int keeps, int n_axes, size_t n,
                         const double *x, double *time_s)
{
    for (size_t i = 0; i < n; i++) {
        const double *row = x + i * (size_t)n_axes;
        double point[3] = {row[0], row[1], n_axes > 2 ? row[2] : 1.0};
        if (floor((point[1] + point[2]) / RATIO) <= keeps)
            continue;
        double excess = apmw_op_group_time(flat, point, NULL) - apmw_op_group_time(real, point, NULL);
        if (excess > 0.0)
            time_s[i] -= fmin(excess, largest_part * time_s[i]);
    }
}

static apmw_status correct_table(const apmw_op_table *t, const apmw_op_table *calib, apmw_op_table **out, apmw_error *err)
{
    const char *axes[APMW_OP_AXES];
    for (int a = 0; a < t->n_axes; a++)
        axes[a] = t->axis[a];
    bool decode = strstr(t->op, "generation") != NULL;
    apmw_op_table *fresh = apmw_op_table_create(t->op, t->engine, t->version, t->n_axes, axes);
    apmw_status status = fresh != NULL ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; status == APMW_OK && i < t->n_groups; i++) {
        const apmw_op_group *g = apmw_op_table_group_at(t, i);
        const char *key = apmw_op_group_key(g);
        size_t n = apmw_op_group_rows(g);
        double *x = malloc(n * (size_t)t->n_axes * sizeof *x), *time_s = malloc(n * sizeof *time_s);
        if (x == NULL || time_s == NULL) {
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        } else {
            for (size_t r = 0; r < n; r++)
                apmw_op_group_row(g, r, x + r * (size_t)t->n_axes, &time_s[r]);
            const apmw_op_group *flat = calibration_of(calib, key, decode ? "v2_flat" : "v1_flat");
            const apmw_op_group *real = calibration_of(calib, key, decode ? "v2_top_last" : "v1_top_last");
            int keeps = strstr(key, "Flash") != NULL ? TOPK_FLASH : TOPK_PRO;
            if (flat != NULL && real != NULL)
                correct_rows(flat, real, keeps, t->n_axes, n, x, time_s);
            status = apmw_op_table_add_group(fresh, key, n, x, time_s, false, err);
        }
        free(x);
        free(time_s);
    }
    if (status != APMW_OK) {
        apmw_op_table_free(fresh);
        return status;
    }
    memcpy(fresh->source, t->source, sizeof fresh->source);
    memcpy(fresh->source_hash, t->source_hash, sizeof fresh->source_hash);
    *out = fresh;
    return APMW_OK;
}

apmw_status apmw_topk_correct(apmw_hwmodel *model, apmw_error *err)
{
    size_t at = 0;
    while (at < model->n_tables &&
           (strcmp(model->tables[at]->op, calibration) != 0 || strcmp(model->tables[at]->engine, engine) != 0))
        at++;
    if (at == model->n_tables)
        return APMW_OK;
    apmw_op_table *calib = model->tables[at];
    for (size_t i = 0; i < model->n_tables; i++) {
        apmw_op_table *t = model->tables[i], *fresh = NULL;
        if (i == at || strncmp(t->op, "dsv4_csa_", 9) != 0 || strcmp(t->engine, engine) != 0)
            continue;
        apmw_status status = correct_table(t, calib, &fresh, err);
        if (status != APMW_OK)
            return status;
        apmw_op_table_free(t);
        model->tables[i] = fresh;
    }
    apmw_op_table_free(calib);
    memmove(model->tables + at, model->tables + at + 1, (model->n_tables - at - 1) * sizeof *model->tables);
    model->n_tables--;
    return APMW_OK;
}
