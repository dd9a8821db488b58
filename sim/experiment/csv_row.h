/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One row of a CSV file, read cell by cell: after the first error nothing more is read and `status` says it. */
#ifndef APMW_CSV_ROW_H
#define APMW_CSV_ROW_H
#include "apmw/csv.h"

typedef struct csv_row {
    const apmw_csv *csv;
    const char *path; /* for messages of the caller */
    size_t row; /* from 0, without the header */
    apmw_status status;
    apmw_error *err;
} csv_row;

/* NaN = an empty cell. A missing column is an error. */
double apmw_csv_row_number(csv_row *r, const char *column);
/* `missing` = an empty cell. */
int64_t apmw_csv_row_int(csv_row *r, const char *column, int64_t missing);
/* "" = an empty cell, or after an error. Owned by the table. */
const char *apmw_csv_row_text(csv_row *r, const char *column);

#endif
