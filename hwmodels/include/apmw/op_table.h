/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured operation times: one table per (operation, engine, version) of a platform, e.g. "gemm" of "sglang"
 * "0.5.14" on b200. Rows are grouped by the categorical columns; a group is a ragged grid over the numeric axes.
 *
 * Interpolation is log-log on every axis (an axis value v enters as log(v + shift), shift 1 for axes that may
 * be 0) and holes are skipped. Above the grid the line of the last two points goes on, below it the first value holds
 * (an operation does not get cheaper without end); the caller is told of both. */
#ifndef APMW_OP_TABLE_H
#define APMW_OP_TABLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/csv.h"
#include "apmw/status.h"

enum { APMW_OP_AXES = 4, APMW_OP_KEY = 256 };

typedef struct apmw_op_group apmw_op_group; /* one grid */
typedef struct apmw_op_table {
    char op[48];       /* gemm, moe, generation_attention, ... (evidence file name up to the first dot) */
    char engine[16];   /* sglang, trtllm, vllm, nccl, aiter */
    char version[24];
    char source[96];   /* evidence file */
    char source_hash[17];
    int n_axes;
    char axis[APMW_OP_AXES][24]; /* column names in order of nesting */
    apmw_op_group *groups;
    size_t n_groups;
} apmw_op_table;

/* How a CSV of a given operation is read: which columns are categorical, which are axes, which column holds the
 * time and in which unit. One list for all operations, in op_schema.c; NULL for an unknown operation. */
typedef struct apmw_op_schema {
    const char *op;
    const char *const *key_columns; /* NULL-terminated, in key order; a column missing in a file reads as "" */
    const char *const *axis_columns;/* NULL-terminated */
    const char *time_column;
    double time_unit_s;
} apmw_op_schema;
const apmw_op_schema *apmw_op_schema_find(const char *op);
/* True when the time must not fall along the last axis (experts, collectives): rows are then made monotone by isotonic
 * regression of log time, which moves an outlier of either sign. */
bool apmw_op_schema_monotone(const apmw_op_schema *schema);

/* Building a table group by group, for readers of stored tables. x has n_axes columns of n rows, row-major. */
apmw_op_table *apmw_op_table_create(const char *op, const char *engine, const char *version, int n_axes,
                                    const char *const *axes);
apmw_status apmw_op_table_add_group(apmw_op_table *table, const char *key, size_t n, const double *x,
                                    const double *time_s, bool monotone, apmw_error *err);
/* The rows as stored: sorted by axes, duplicates of a point dropped (first kept), hull applied. */
void apmw_op_group_row(const apmw_op_group *group, size_t row, double *x, double *time_s);
const apmw_op_group *apmw_op_table_group_at(const apmw_op_table *table, size_t i);

/* From a measured CSV. Rows with empty or non-positive time are skipped and counted. Constants of the file that
 * are no column (MANIFEST "constants") are given as "name=value" strings. */
apmw_status apmw_op_table_from_csv(const apmw_csv *csv, const char *op, const char *engine, const char *version,
                                   const char *const *constants, size_t n_constants, apmw_op_table **out,
                                   apmw_error *err);
void apmw_op_table_free(apmw_op_table *table);

/* Group whose key is exactly `key` ("name=value;name=value;..." in schema order), or NULL. */
const apmw_op_group *apmw_op_table_group(const apmw_op_table *table, const char *key);
/* First group whose key contains every "name=value" of the semicolon-separated `pattern`, or NULL. */
const apmw_op_group *apmw_op_table_find(const apmw_op_table *table, const char *pattern);
const char *apmw_op_group_key(const apmw_op_group *group);
size_t apmw_op_group_rows(const apmw_op_group *group);
/* Measured range of axis i over the whole group. */
void apmw_op_group_range(const apmw_op_group *group, int axis, double *lo, double *hi);

/* Seconds at the point x[n_axes]. *outside is set (never cleared) when an axis lies outside its grid. */
double apmw_op_group_time(const apmw_op_group *group, const double *x, bool *outside);

#endif
