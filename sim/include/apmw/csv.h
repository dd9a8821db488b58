/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A CSV file in memory: first line = column names, comma-separated, quotes doubled, plain or zstd.
 * Cells are strings owned by the table. An empty cell is "unknown", never zero. */
#ifndef APMW_CSV_H
#define APMW_CSV_H
#include <stddef.h>
#include <stdint.h>
#include "apmw/status.h"

typedef struct apmw_csv apmw_csv;
apmw_status apmw_csv_load(const char *path, apmw_csv **out, apmw_error *err);
apmw_status apmw_csv_parse(const char *name, const char *text, size_t n, apmw_csv **out, apmw_error *err);
void apmw_csv_free(apmw_csv *csv);
size_t apmw_csv_rows(const apmw_csv *csv);
size_t apmw_csv_cols(const apmw_csv *csv);
const char *apmw_csv_name(const apmw_csv *csv, size_t col);
/* Column of that name, or -1. */
int apmw_csv_col(const apmw_csv *csv, const char *name);
/* The same, but a missing column is APMW_E_DATA with file, column and nearest name. */
apmw_status apmw_csv_need(const apmw_csv *csv, const char *name, int *col, apmw_error *err);
/* Cell text ("" when empty or when col is -1). */
const char *apmw_csv_cell(const apmw_csv *csv, size_t row, int col);
/* NaN when empty or col = -1; text that is no number is APMW_E_DATA "file:line: column: ...". */
apmw_status apmw_csv_double(const apmw_csv *csv, size_t row, int col, double *out, apmw_error *err);
/* `missing` when empty or col = -1. */
apmw_status apmw_csv_int(const apmw_csv *csv, size_t row, int col, int64_t missing, int64_t *out, apmw_error *err);

#endif
