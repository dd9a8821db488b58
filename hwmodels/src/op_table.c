/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/op_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* A group is a tree: level l holds the distinct values of axis l under each value of axis l-1. begin[l][i] is the first
 * child of node i in level l+1; the nodes of the last level are the rows. */
struct apmw_op_group {
    char key[APMW_OP_KEY];
    int n_axes;
    size_t n_rows;
    double *value[APMW_OP_AXES]; /* as measured */
    double *log_value[APMW_OP_AXES];
    size_t *begin[APMW_OP_AXES]; /* n_nodes[l] + 1 entries; NULL in the last level */
    size_t n_nodes[APMW_OP_AXES];
    double shift[APMW_OP_AXES];
    double *log_time;
    double lo[APMW_OP_AXES], hi[APMW_OP_AXES];
};

static void group_clear(apmw_op_group *g)
{
    for (int a = 0; a < APMW_OP_AXES; a++) {
        free(g->value[a]);
        free(g->log_value[a]);
        free(g->begin[a]);
    }
    free(g->log_time);
}

apmw_op_table *apmw_op_table_create(const char *op, const char *engine, const char *version, int n_axes,
                                    const char *const *axes)
{
    apmw_op_table *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    apmw_copy(t->op, sizeof t->op, op);
    apmw_copy(t->engine, sizeof t->engine, engine);
    apmw_copy(t->version, sizeof t->version, version);
    t->n_axes = n_axes;
    for (int a = 0; a < n_axes; a++)
        apmw_copy(t->axis[a], sizeof t->axis[a], axes[a]);
    return t;
}

void apmw_op_table_free(apmw_op_table *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < table->n_groups; i++)
        group_clear(&table->groups[i]);
    free(table->groups);
    free(table);
}

typedef struct point {
    double x[APMW_OP_AXES], time_s;
    size_t order;
} point;

static int by_axes(const void *a, const void *b)
{
    const point *p = a, *q = b;
    for (int i = 0; i < APMW_OP_AXES; i++) {
        if (p->x[i] != q->x[i])
            return p->x[i] < q->x[i] ? -1 : 1;
    }
    return p->order < q->order ? -1 : 1;
}

static bool same_prefix(const point *a, const point *b, int n_axes)
{
    for (int i = 0; i < n_axes; i++) {
        if (a->x[i] != b->x[i])
            return false;
    }
    return true;
}

/* Pool adjacent violators on log times of rows [from, to): the closest non-decreasing sequence in least squares. */
static void make_monotone(double *log_time, size_t from, size_t to, double *level, size_t *weight)
{
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        level[n] = log_time[i];
        weight[n] = 1;
        n++;
        while (n > 1 && level[n - 2] > level[n - 1]) {
            size_t w = weight[n - 2] + weight[n - 1];
            level[n - 2] = (level[n - 2] * (double)weight[n - 2] + level[n - 1] * (double)weight[n - 1]) / (double)w;
            weight[n - 2] = w;
            n--;
        }
    }
    size_t row = from;
    for (size_t b = 0; b < n; b++) {
        for (size_t k = 0; k < weight[b]; k++)
            log_time[row++] = level[b];
    }
}

static bool build_levels(apmw_op_group *g, const point *points, size_t n)
{
    for (int a = 0; a < g->n_axes; a++) {
        size_t nodes = 0;
        for (size_t i = 0; i < n; i++)
            nodes += i == 0 || !same_prefix(&points[i - 1], &points[i], a + 1);
        g->n_nodes[a] = nodes;
        g->value[a] = malloc(nodes * sizeof(double));
        g->log_value[a] = malloc(nodes * sizeof(double));
        g->begin[a] = a + 1 < g->n_axes ? malloc((nodes + 1) * sizeof(size_t)) : NULL;
        if (g->value[a] == NULL || g->log_value[a] == NULL || (a + 1 < g->n_axes && g->begin[a] == NULL))
            return false;
        g->lo[a] = (double)INFINITY;
        g->hi[a] = -(double)INFINITY;
        for (size_t i = 0; i < n; i++) {
            g->lo[a] = fmin(g->lo[a], points[i].x[a]);
            g->hi[a] = fmax(g->hi[a], points[i].x[a]);
        }
        g->shift[a] = g->lo[a] <= 0.0 ? 1.0 : 0.0;
        size_t node = 0, child = 0;
        for (size_t i = 0; i < n; i++) {
            bool fresh_child = i == 0 || !same_prefix(&points[i - 1], &points[i], a + 2);
            if (i == 0 || !same_prefix(&points[i - 1], &points[i], a + 1)) {
                g->value[a][node] = points[i].x[a];
                g->log_value[a][node] = log(points[i].x[a] + g->shift[a]);
                if (g->begin[a] != NULL)
                    g->begin[a][node] = child;
                node++;
            }
            child += fresh_child;
        }
        if (g->begin[a] != NULL)
            g->begin[a][node] = child;
    }
    return true;
}

apmw_status apmw_op_table_add_group(apmw_op_table *table, const char *key, size_t n, const double *x,
                                    const double *time_s, bool monotone, apmw_error *err)
{
    if (n == 0)
        return APMW_OK;
    apmw_op_group *groups = realloc(table->groups, (table->n_groups + 1) * sizeof *groups);
    point *points = calloc(n, sizeof *points);
    double *level = malloc(n * sizeof *level);
    size_t *weight = malloc(n * sizeof *weight);
    bool ok = groups != NULL && points != NULL && level != NULL && weight != NULL;
    if (groups != NULL)
        table->groups = groups;
    if (ok) {
        apmw_op_group *g = &groups[table->n_groups];
        memset(g, 0, sizeof *g);
        g->n_axes = table->n_axes;
        apmw_copy(g->key, sizeof g->key, key);
        for (size_t i = 0; i < n; i++) {
            for (int a = 0; a < table->n_axes; a++)
                points[i].x[a] = x[i * (size_t)table->n_axes + (size_t)a];
            points[i].time_s = time_s[i];
            points[i].order = i;
        }
        qsort(points, n, sizeof *points, by_axes);
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) {
            if (kept == 0 || !same_prefix(&points[kept - 1], &points[i], table->n_axes))
                points[kept++] = points[i];
        }
        g->n_rows = kept;
        g->log_time = malloc(kept * sizeof(double));
        ok = g->log_time != NULL && build_levels(g, points, kept);
        for (size_t i = 0; ok && i < kept; i++)
            g->log_time[i] = log(points[i].time_s);
        for (size_t from = 0; ok && monotone && from < kept;) {
            size_t to = from + 1;
            while (to < kept && same_prefix(&points[from], &points[to], table->n_axes - 1))
                to++;
            make_monotone(g->log_time, from, to, level, weight);
            from = to;
        }
        if (ok)
            table->n_groups++;
        else
            group_clear(g);
    }
    free(points);
    free(level);
    free(weight);
    return ok ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
}

/* --- from CSV --- */

typedef struct csv_row {
    char key[APMW_OP_KEY];
    double x[APMW_OP_AXES], time_s;
    size_t order;
} csv_row;

static int by_key(const void *a, const void *b)
{
    const csv_row *p = a, *q = b;
    int c = strcmp(p->key, q->key);
    return c != 0 ? c : (p->order < q->order ? -1 : 1);
}

static const char *constant_of(const char *const *constants, size_t n, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < n; i++) {
        if (strncmp(constants[i], name, length) == 0 && constants[i][length] == '=')
            return constants[i] + length + 1;
    }
    return NULL;
}

/* Sum of the columns named "a+b"; a missing one is an error. */
static apmw_status read_time(const apmw_csv *csv, size_t row, const int *cols, int n_cols, double unit, double *out,
                             apmw_error *err)
{
    *out = 0.0;
    for (int i = 0; i < n_cols; i++) {
        double part = 0.0;
        apmw_status status = apmw_csv_double(csv, row, cols[i], &part, err);
        if (status != APMW_OK)
            return status;
        *out += part * unit;
    }
    return APMW_OK;
}

static apmw_status time_columns(const apmw_csv *csv, const apmw_op_schema *schema, int cols[4], int *n, apmw_error *err)
{
    char names[128];
    apmw_copy(names, sizeof names, schema->time_column);
    *n = 0;
    for (char *save = NULL, *part = strtok_r(names, "+", &save); part != NULL && *n < 4;
         part = strtok_r(NULL, "+", &save)) {
        apmw_status status = apmw_csv_need(csv, part, &cols[*n], err);
        if (status != APMW_OK)
            return status;
        (*n)++;
    }
    return APMW_OK;
}

static apmw_status row_from_csv(const apmw_csv *csv, size_t row, const apmw_op_schema *schema, const int *key_cols,
                                const char *const *key_constants, const int *axis_cols, const double *axis_constants,
                                const int *t_cols, int n_t, csv_row *out, apmw_error *err)
{
    size_t used = 0;
    out->order = row;
    out->key[0] = 0;
    for (int i = 0; schema->key_columns[i] != NULL; i++) {
        const char *cell = key_cols[i] >= 0 ? apmw_csv_cell(csv, row, key_cols[i])
                                            : (key_constants[i] != NULL ? key_constants[i] : "");
        int written = snprintf(out->key + used, sizeof out->key - used, "%s%s=%s", i > 0 ? ";" : "",
                               schema->key_columns[i], cell);
        used += (size_t)written;
        if (used >= sizeof out->key)
            return apmw_error_set(err, APMW_E_DATA, "row %zu: the key is longer than %d bytes", row + 2, APMW_OP_KEY);
    }
    for (int a = 0; schema->axis_columns[a] != NULL; a++) {
        out->x[a] = axis_constants[a];
        if (axis_cols[a] >= 0) {
            apmw_status status = apmw_csv_double(csv, row, axis_cols[a], &out->x[a], err);
            if (status != APMW_OK)
                return status;
        }
    }
    return read_time(csv, row, t_cols, n_t, schema->time_unit_s, &out->time_s, err);
}

apmw_status apmw_op_table_from_csv(const apmw_csv *csv, const char *op, const char *engine, const char *version,
                                   const char *const *constants, size_t n_constants, apmw_op_table **out,
                                   apmw_error *err)
{
    const apmw_op_schema *schema = apmw_op_schema_find(op);
    if (schema == NULL)
        return apmw_error_set(err, APMW_E_DATA, "no schema for operation \"%s\"", op);
    int key_cols[16], axis_cols[APMW_OP_AXES], t_cols[4], n_t = 0, n_axes = 0;
    const char *key_constants[16];
    double axis_constants[APMW_OP_AXES] = {0};
    for (int i = 0; schema->key_columns[i] != NULL; i++) {
        key_cols[i] = apmw_csv_col(csv, schema->key_columns[i]);
        key_constants[i] = constant_of(constants, n_constants, schema->key_columns[i]);
    }
    apmw_status status = APMW_OK;
    for (; schema->axis_columns[n_axes] != NULL && status == APMW_OK; n_axes++) {
        const char *fixed = constant_of(constants, n_constants, schema->axis_columns[n_axes]);
        axis_cols[n_axes] = apmw_csv_col(csv, schema->axis_columns[n_axes]);
        if (axis_cols[n_axes] < 0 && fixed != NULL)
            axis_constants[n_axes] = strtod(fixed, NULL);
        else if (axis_cols[n_axes] < 0)
            status = apmw_csv_need(csv, schema->axis_columns[n_axes], &axis_cols[n_axes], err);
    }
    if (status == APMW_OK)
        status = time_columns(csv, schema, t_cols, &n_t, err);
    size_t n = apmw_csv_rows(csv), kept = 0;
    csv_row *rows = status == APMW_OK ? calloc(n + 1, sizeof *rows) : NULL;
    double *x = status == APMW_OK ? malloc((n + 1) * sizeof *x * APMW_OP_AXES) : NULL;
    double *t = status == APMW_OK ? malloc((n + 1) * sizeof *t) : NULL;
    apmw_op_table *table =
        status == APMW_OK ? apmw_op_table_create(op, engine, version, n_axes, schema->axis_columns) : NULL;
    if (status == APMW_OK && (rows == NULL || x == NULL || t == NULL || table == NULL))
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    for (size_t row = 0; status == APMW_OK && row < n; row++) {
        status = row_from_csv(csv, row, schema, key_cols, key_constants, axis_cols, axis_constants, t_cols, n_t,
                              &rows[kept], err);
        if (status == APMW_OK && rows[kept].time_s > 0.0)
            kept++; /* empty or zero: the stage did not run */
    }
    if (status == APMW_OK)
        qsort(rows, kept, sizeof *rows, by_key);
    for (size_t from = 0; status == APMW_OK && from < kept;) {
        size_t to = from;
        for (; to < kept && strcmp(rows[from].key, rows[to].key) == 0; to++) {
            memcpy(x + (to - from) * (size_t)n_axes, rows[to].x, (size_t)n_axes * sizeof *x);
            t[to - from] = rows[to].time_s;
        }
        status = apmw_op_table_add_group(table, rows[from].key, to - from, x, t, apmw_op_schema_monotone(schema), err);
        from = to;
    }
    free(rows);
    free(x);
    free(t);
    if (status != APMW_OK) {
        apmw_op_table_free(table);
        return status;
    }
    *out = table;
    return APMW_OK;
}

/* --- look-up --- */

const apmw_op_group *apmw_op_table_group(const apmw_op_table *table, const char *key)
{
    for (size_t i = 0; i < table->n_groups; i++) {
        if (strcmp(table->groups[i].key, key) == 0)
            return &table->groups[i];
    }
    return NULL;
}

/* True when `part` (n bytes) is one of the semicolon-separated elements of key. */
static bool has_element(const char *key, const char *part, size_t n)
{
    for (const char *p = key; p != NULL && *p != 0;) {
        const char *end = strchr(p, ';');
        size_t length = end != NULL ? (size_t)(end - p) : strlen(p);
        if (length == n && memcmp(p, part, n) == 0)
            return true;
        p = end != NULL ? end + 1 : NULL;
    }
    return false;
}

const apmw_op_group *apmw_op_table_find(const apmw_op_table *table, const char *pattern)
{
    for (size_t i = 0; i < table->n_groups; i++) {
        bool all = true;
        for (const char *p = pattern; all && p != NULL && *p != 0;) {
            const char *end = strchr(p, ';');
            size_t length = end != NULL ? (size_t)(end - p) : strlen(p);
            all = length == 0 || has_element(table->groups[i].key, p, length);
            p = end != NULL ? end + 1 : NULL;
        }
        if (all)
            return &table->groups[i];
    }
    return NULL;
}

const char *apmw_op_group_key(const apmw_op_group *group)
{
    return group->key;
}

size_t apmw_op_group_rows(const apmw_op_group *group)
{
    return group->n_rows;
}

const apmw_op_group *apmw_op_table_group_at(const apmw_op_table *table, size_t i)
{
    return &table->groups[i];
}

void apmw_op_group_row(const apmw_op_group *group, size_t row, double *x, double *time_s)
{
    size_t node = row;
    for (int a = group->n_axes - 1; a >= 0; a--) {
        x[a] = group->value[a][node];
        if (a > 0) {
            /* The parent is the last node of the level above whose first child is not after this one. */
            size_t lo = 0, hi = group->n_nodes[a - 1] - 1;
            while (lo < hi) {
                size_t mid = (lo + hi + 1) / 2;
                if (group->begin[a - 1][mid] <= node)
                    lo = mid;
                else
                    hi = mid - 1;
            }
            node = lo;
        }
    }
    *time_s = exp(group->log_time[row]);
}

void apmw_op_group_range(const apmw_op_group *group, int axis, double *lo, double *hi)
{
    *lo = group->lo[axis];
    *hi = group->hi[axis];
}

/* log time under the nodes [from, to) of a level. Below the grid the first value holds: an operation does not get cheaper
 * without end. Above it the line of the last two points goes on. */
static double eval_level(const apmw_op_group *g, int level, size_t from, size_t to, const double *x, const double *log_x,
                         bool *outside)
{
    const double *v = g->value[level];
    size_t a = from, b = to - 1; /* the last node whose value is <= x, by bisection */
    if (x[level] < v[from] || x[level] > v[b])
        *outside = true;
    if (x[level] <= v[from])
        b = from;
    else if (x[level] >= v[b])
        a = b;
    while (b > a + 1) {
        size_t mid = (a + b) / 2;
        if (v[mid] <= x[level])
            a = mid;
        else
            b = mid;
    }
    if (a == b && x[level] > v[a] && a > from)
        a--; /* beyond the grid: extrapolate */
    else if (a != b && v[b] == x[level])
        a = b;
    else if (a != b && v[a] == x[level])
        b = a;
    double ya, yb;
    if (level + 1 < g->n_axes) {
        ya = eval_level(g, level + 1, g->begin[level][a], g->begin[level][a + 1], x, log_x, outside);
        yb = a == b ? ya : eval_level(g, level + 1, g->begin[level][b], g->begin[level][b + 1], x, log_x, outside);
    } else {
        ya = g->log_time[a];
        yb = g->log_time[b];
    }
    if (a == b)
        return ya;
    double xa = g->log_value[level][a], xb = g->log_value[level][b];
    return ya + (yb - ya) * (log_x[level] - xa) / (xb - xa);
}

double apmw_op_group_time(const apmw_op_group *group, const double *x, bool *outside)
{
    double log_x[APMW_OP_AXES];
    bool left = false;
    for (int a = 0; a < group->n_axes; a++)
        log_x[a] = log(fmax(x[a], group->lo[a]) + group->shift[a]);
    double y = eval_level(group, 0, 0, group->n_nodes[0], x, log_x, &left);
    if (left && outside != NULL)
        *outside = true;
    return exp(y);
}
