/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "csv_row.h"

#include <math.h>

/* -1 where there is no such column, or after an error. */
static int column_of(csv_row *r, const char *column)
{
    int col = -1;
    if (r->status == APMW_OK) {
        r->status = apmw_csv_need(r->csv, column, &col, r->err);
    }
    return col;
}

double apmw_csv_row_number(csv_row *r, const char *column)
{
    double value = (double)NAN;
    const int col = column_of(r, column);
    if (r->status == APMW_OK) {
        r->status = apmw_csv_double(r->csv, r->row, col, &value, r->err);
    }
    return value;
}

int64_t apmw_csv_row_int(csv_row *r, const char *column, int64_t missing)
{
    int64_t value = missing;
    const int col = column_of(r, column);
    if (r->status == APMW_OK) {
        r->status = apmw_csv_int(r->csv, r->row, col, missing, &value, r->err);
    }
    return value;
}

const char *apmw_csv_row_text(csv_row *r, const char *column)
{
    const int col = column_of(r, column);
    return r->status == APMW_OK ? apmw_csv_cell(r->csv, r->row, col) : "";
}
