/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Puts a query to a table: named values become axes or parts of the group's key. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "compose_internal.h"

static query_field *query_add(query *q, const char *name)
{
    for (int i = 0; i < q->n; i++) {
        if (!strcmp(q->field[i].name, name)) {
            return &q->field[i];
        }
    }
    APMW_CHECK(q->n < QUERY_FIELDS);
    q->field[q->n] = (query_field){.name = name, .var = -1};
    return &q->field[q->n++];
}

void apmw_query_text(query *q, const char *name, const char *text)
{
    *query_add(q, name) = (query_field){.name = name, .text = text, .var = -1};
}

void apmw_query_number(query *q, const char *name, double number)
{
    *query_add(q, name) = (query_field){.name = name, .number = number, .var = -1};
}

void apmw_query_var(query *q, const char *name, int var, double scale)
{
    *query_add(q, name) = (query_field){.name = name, .var = var, .var_scale = scale};
}

double apmw_row_bound_time(const row_bound *b, const double *var, bool *outside)
{
    double x[APMW_OP_AXES];
    for (int i = 0; i < b->n_axes; i++) {
        x[i] = b->var[i] < 0 ? b->x[i] : var[b->var[i]] * b->scale[i];
    }
    return apmw_op_group_time(b->group, x, outside);
}

double apmw_row_time(const row_source *row, const double *var, bool *outside)
{
    double t = apmw_row_bound_time(&row->main, var, outside);
    bool dropped = false; /* a correction that leaves its grid does not make the row itself a guess */
    switch (row->transform) {
    case ROW_MIN: {
        double u = apmw_row_bound_time(&row->with, var, &dropped);
        t = u < t ? u : t;
        break;
    }
    case ROW_MAX: {
        double u = apmw_row_bound_time(&row->with, var, &dropped);
        t = u > t ? u : t;
        break;
    }
    case ROW_MEAN: /* geometric: two measurements that bracket the truth */
        t = sqrt(t * apmw_row_bound_time(&row->with, var, &dropped));
        break;
    case ROW_MINUS: {
        /* What is taken off is a part of the row: never more than 90 % of it. */
        double u = t - apmw_row_bound_time(&row->with, var, &dropped);
        t = u > 0.1 * t ? u : 0.1 * t;
        break;
    }
    case ROW_NONE:
        break;
    }
    return t * row->factor;
}

/* True when the column is among the key columns of this operation's schema. */
static bool is_key_column(const apmw_op_schema *schema, const char *name)
{
    for (int i = 0; schema && schema->key_columns[i]; i++) {
        if (!strcmp(schema->key_columns[i], name)) {
            return true;
        }
    }
    return false;
}

static int axis_of(const apmw_op_table *table, const char *name)
{
    for (int i = 0; i < table->n_axes; i++) {
        if (!strcmp(table->axis[i], name)) {
            return i;
        }
    }
    return -1;
}

bool apmw_query_bind(const query *q, const apmw_op_table *table, const char *extra, row_bound *out)
{
    const apmw_op_schema *schema = apmw_op_schema_find(table->op);
    char pattern[512];
    size_t used = 0;
    pattern[0] = 0;
    *out = (row_bound){.table = table, .n_axes = table->n_axes};
    bool bound[APMW_OP_AXES] = {false};
    char copy[256];
    snprintf(copy, sizeof copy, "%s", extra ? extra : "");
    const char *override[16];
    int n_override = 0;
    for (char *save = NULL, *part = strtok_r(copy, ";", &save); part && n_override < 16;
         part = strtok_r(NULL, ";", &save)) {
        char *eq = strchr(part, '=');
        if (!eq) {
            continue;
        }
        *eq = 0;
        override[n_override++] = part;
        int axis = axis_of(table, part);
        if (axis >= 0) {
            char *end;
            out->x[axis] = strtod(eq + 1, &end);
            out->var[axis] = -1;
            bound[axis] = true;
        } else {
            used += (size_t)snprintf(pattern + used, sizeof pattern - used, "%s%s=%s", used ? ";" : "", part, eq + 1);
        }
    }
    for (int i = 0; i < q->n; i++) {
        const query_field *f = &q->field[i];
        bool skip = false;
        for (int j = 0; j < n_override; j++) {
            skip = skip || !strcmp(override[j], f->name);
        }
        if (skip) {
            continue;
        }
        int axis = axis_of(table, f->name);
        if (axis >= 0) {
            out->x[axis] = f->number;
            out->var[axis] = f->var;
            out->scale[axis] = f->var_scale;
            bound[axis] = true;
            continue;
        }
        if (!is_key_column(schema, f->name) || f->var >= 0) {
            continue;
        }
        char part[96];
        if (f->text) {
            snprintf(part, sizeof part, "%s=%s", f->name, f->text);
        } else {
            snprintf(part, sizeof part, "%s=%.15g", f->name, f->number);
        }
        /* A column that this file does not have reads as empty and says nothing. */
        char empty[64];
        snprintf(empty, sizeof empty, "%s=", f->name);
        if (apmw_op_table_find(table, empty) && !apmw_op_table_find(table, part)) {
            continue;
        }
        used += (size_t)snprintf(pattern + used, sizeof pattern - used, "%s%s", used ? ";" : "", part);
        if (used >= sizeof pattern) {
            return false;
        }
    }
    for (int i = 0; i < table->n_axes; i++) {
        if (!bound[i]) {
            return false;
        }
    }
    out->group = apmw_op_table_find(table, pattern);
    return out->group != NULL;
}
