/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Private to base: decimal text to numbers, strict and fast. */
#ifndef APMW_BASE_NUMBER_H
#define APMW_BASE_NUMBER_H
#include <stdbool.h>
#include <stdint.h>

/* The whole text must be one decimal number ([+-]digits[.digits][e[+-]digits]); correctly rounded.
 * Hexadecimal, "nan" and "inf" are no numbers; a value that overflows is none either. */
bool apmw_parse_double(const char *text, double *out);
/* The whole text must be an integer that fits; a decimal form of an integer ("4096.0", "1e6") is accepted too
 * as long as a double holds it exactly, because tables exported from data frames write integers so. */
bool apmw_parse_int(const char *text, int64_t *out);

#endif
