/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/hwmodel.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void apmw_hwmodel_free(apmw_hwmodel *model)
{
    if (model == NULL)
        return;
    for (size_t i = 0; i < model->n_tables; i++)
        apmw_op_table_free(model->tables[i]);
    free(model->tables);
    free(model->fits);
    free(model->fit_table);
    free(model->watts);
    free(model);
}

/* Versions compare field by field: numbers as numbers, letters as letters; "1.3.0rc20" < "1.3.0rc23". */
static int compare_versions(const char *a, const char *b)
{
    while (*a != 0 || *b != 0) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *end_a, *end_b;
            long x = strtol(a, &end_a, 10), y = strtol(b, &end_b, 10);
            if (x != y)
                return x < y ? -1 : 1;
            a = end_a;
            b = end_b;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return 0;
}

const apmw_op_table *apmw_hwmodel_table(const apmw_hwmodel *model, const char *op, const char *engine,
                                        const char *version)
{
    const apmw_op_table *best = NULL;
    for (size_t i = 0; i < model->n_tables; i++) {
        const apmw_op_table *t = model->tables[i];
        if (strcmp(t->op, op) != 0 || strcmp(t->engine, engine) != 0)
            continue;
        if (version != NULL && version[0] != 0) {
            if (strcmp(t->version, version) == 0)
                return t;
        } else if (best == NULL || compare_versions(best->version, t->version) < 0) {
            best = t;
        }
    }
    return best;
}
