/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured watts of kernels by kind. Sources and limits of the readings: hwmodels/evidence/README.md. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/hwmodel.h"
#include "apmw/text.h"
#include "evidence_files.h"

static const double shortest_ms = 0.1; /* shorter rows are diluted by launch gaps */
enum { FEWEST_ROWS = 20 };

typedef struct reading {
    const char *family;
    double watts;
    size_t order;
} reading;

static int by_family(const void *a, const void *b)
{
    const reading *p = a, *q = b;
    int c = strcmp(p->family, q->family);
    return c != 0 ? c : (p->order < q->order ? -1 : 1);
}

static apmw_status add_families(apmw_hwmodel *model, const char *op, const char *engine, const char *version,
                                reading *rows, size_t n, apmw_error *err)
{
    double *watts = malloc((n + 1) * sizeof *watts);
    if (watts == NULL)
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    apmw_status status = APMW_OK;
    qsort(rows, n, sizeof *rows, by_family);
    for (size_t from = 0, to; status == APMW_OK && from < n; from = to) {
        for (to = from; to < n && strcmp(rows[to].family, rows[from].family) == 0; to++)
            watts[to - from] = rows[to].watts;
        if (to - from < FEWEST_ROWS)
            continue;
        apmw_op_watts *list = realloc(model->watts, (model->n_watts + 1) * sizeof *list);
        if (list == NULL) {
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
            continue;
        }
        model->watts = list;
        apmw_op_watts *w = &list[model->n_watts++];
        memset(w, 0, sizeof *w);
        apmw_copy(w->op, sizeof w->op, op);
        apmw_copy(w->engine, sizeof w->engine, engine);
        apmw_copy(w->version, sizeof w->version, version);
        apmw_copy(w->family, sizeof w->family, rows[from].family);
        w->n = (int)(to - from);
        w->p10_w = apmw_quantile(watts, to - from, 0.1);
        w->median_w = apmw_quantile(watts, to - from, 0.5);
        w->p90_w = apmw_quantile(watts, to - from, 0.9);
    }
    free(watts);
    return status;
}

static apmw_status add_file(apmw_hwmodel *model, const char *path, const char *op, const char *engine, const char *version,
                            apmw_error *err)
{
    static const char *const dtypes[] = {"gemm_dtype", "moe_dtype", "gemm_type", "kv_cache_dtype", "bmm_dtype"};
    apmw_csv *csv = NULL;
    apmw_status status = apmw_csv_load(path, &csv, err);
    if (status != APMW_OK)
        return status;
    int power = apmw_csv_col(csv, "power"), latency = apmw_csv_col(csv, "latency"), dtype = -1;
    for (size_t i = 0; dtype < 0 && i < sizeof dtypes / sizeof dtypes[0]; i++)
        dtype = apmw_csv_col(csv, dtypes[i]);
    size_t n = power >= 0 && latency >= 0 ? apmw_csv_rows(csv) : 0, kept = 0;
    reading *rows = calloc(n + 1, sizeof *rows);
    if (rows == NULL)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    for (size_t row = 0; status == APMW_OK && row < n; row++) {
        double ms = 0.0;
        status = apmw_csv_double(csv, row, latency, &ms, err);
        if (status == APMW_OK)
            status = apmw_csv_double(csv, row, power, &rows[kept].watts, err);
        if (status == APMW_OK && ms > shortest_ms && rows[kept].watts > 0.0) {
            rows[kept].family = dtype >= 0 ? apmw_csv_cell(csv, row, dtype) : "all";
            rows[kept].order = kept;
            kept++;
        }
    }
    if (status == APMW_OK)
        status = add_families(model, op, engine, version, rows, kept, err);
    free(rows);
    apmw_csv_free(csv);
    return status;
}

apmw_status apmw_hwmodel_add_watts(apmw_hwmodel *model, const char *evidence_dir, apmw_error *err)
{
    static const char *const folders[] = {"", "watts/"};
    apmw_status status = APMW_OK;
    for (size_t f = 0; status == APMW_OK && f < 2; f++) {
        char folder[1024], path[1536];
        struct dirent **entries = NULL;
        snprintf(folder, sizeof folder, "%s/%s%s", evidence_dir, folders[f], model->platform);
        int count = scandir(folder, &entries, apmw_evidence_is_table, apmw_evidence_by_name);
        if (count < 0 && errno == ENOENT)
            continue;
        if (count < 0)
            return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", folder, strerror(errno));
        for (int i = 0; i < count; i++) {
            char op[48], engine[16], version[24];
            snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
            if (status == APMW_OK && apmw_evidence_name(entries[i]->d_name, op, engine, version))
                status = add_file(model, path, op, engine, version, err);
            free(entries[i]);
        }
        free(entries);
    }
    return status;
}
