/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Small helpers on text, numbers and result tables. */
#ifndef APMW_TEXT_H
#define APMW_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include "apmw/buf.h"

/* Nearest of n names by edit distance, or NULL when none is near (distance > max(2, length / 3)). */
const char *apmw_near(const char *name, const char *const *names, size_t n);
/* Copies at most size-1 bytes and terminates. Returns false when it was cut. */
bool apmw_copy(char *out, size_t size, const char *text);
/* Quantile by linear interpolation between order statistics (numpy's default, Hyndman & Fan type 7).
 * Sorts `values` in place. NaN for n = 0. q in [0, 1]. */
double apmw_quantile(double *values, size_t n, double q);
/* The same value in linear time, for many values of which one quantile is asked: `values` end in some other order. */
double apmw_quantile_unsorted(double *values, size_t n, double q);
/* The same on values that are already sorted ascending. */
double apmw_quantile_sorted(const double *values, size_t n, double q);

/* A result table that renders as aligned text, JSON rows or CSV. */
typedef enum apmw_format { APMW_FORMAT_TABLE, APMW_FORMAT_JSON, APMW_FORMAT_CSV } apmw_format;
typedef struct apmw_table apmw_table;
apmw_table *apmw_table_create(size_t n_cols, const char *const *names); /* NULL when out of memory */
void apmw_table_free(apmw_table *table);
void apmw_table_text(apmw_table *table, const char *value); /* next cell; NULL = missing ("-", null, "") */
/* next cell; NaN = missing; `digits` = significant digits in the text form, exact in JSON and CSV */
void apmw_table_number(apmw_table *table, double value, int digits);
void apmw_table_int(apmw_table *table, long long value);
/* Appends the rendering: JSON form is an array of objects. */
void apmw_table_render(const apmw_table *table, apmw_format format, apmw_buf *out);

#endif
