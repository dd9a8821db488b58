/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool apmw_parse_double(const char *text, double *out)
{
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *p = text;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0;
    bool exact = true, any = false;
    for (; is_digit(*p); p++) {
        any = true;
        if (digits < 18) {
            mantissa = mantissa * 10 + (uint64_t)(*p - '0');
            digits += mantissa > 0;
        } else {
            exact = false;
        }
    }
    if (*p == '.') {
        for (p++; is_digit(*p); p++) {
            any = true;
            if (digits < 18) {
                mantissa = mantissa * 10 + (uint64_t)(*p - '0');
                digits += mantissa > 0;
                exponent--;
            } else {
                exact = false;
            }
        }
    }
    if (!any)
        return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        bool down = *p == '-';
        if (*p == '-' || *p == '+')
            p++;
        if (!is_digit(*p))
            return false;
        int e = 0;
        for (; is_digit(*p); p++)
            e = e < 10000 ? e * 10 + (*p - '0') : e;
        exponent += down ? -e : e;
    }
    if (*p != '\0')
        return false;
    /* W. D. Clinger, "How to read floating point numbers accurately", PLDI 1990: when mantissa and power of
     * ten are both exact doubles, one rounded operation gives the correctly rounded value. */
    if (exact && mantissa <= (UINT64_C(1) << 53) && exponent >= -22 && exponent <= 22) {
        double value = (double)mantissa;
        value = exponent < 0 ? value / power[-exponent] : value * power[exponent];
        *out = negative ? -value : value;
        return true;
    }
    *out = strtod(text, NULL);
    return isfinite(*out);
}

bool apmw_parse_int(const char *text, int64_t *out)
{
    const char *p = text;
    if (*p == '-' || *p == '+')
        p++;
    if (!is_digit(*p))
        return false;
    size_t n = strspn(p, "0123456789");
    if (p[n] == '\0') {
        errno = 0;
        long long value = strtoll(text, NULL, 10);
        *out = value;
        return errno == 0;
    }
    double value;
    if (!apmw_parse_double(text, &value) || value != trunc(value) || fabs(value) >= 0x1p53)
        return false;
    *out = (int64_t)value;
    return true;
}

/* At a power of two the gap above is twice the gap below, so the decimal of 16 digits that reads back may be
 * the one above the nearest. Counts the last digit up; true when that reads back to `value`. */
static bool next_decimal(double value, char out[32])
{
    char text[32];
    snprintf(text, sizeof text, "%.15e", value);
    char *e = strchr(text, 'e');
    if (!e || e[-1] == '9')
        return false;
    e[-1]++;
    if (strtod(text, NULL) != value)
        return false;
    memcpy(out, text, sizeof text);
    return true;
}

void apmw_double_text(double value, char out[32])
{
    if (!isfinite(value)) {
        snprintf(out, 32, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    if (value == trunc(value) && fabs(value) < 1e15) {
        snprintf(out, 32, signbit(value) && value == 0 ? "-0" : "%lld", (long long)value);
        return;
    }
    /* Every decimal of 15 digits survives the way through a normal double, so %.15g finds it if there is one.
     * Subnormal numbers carry fewer digits. */
    int digits = fabs(value) < 0x1p-1022 ? 1 : 15;
    for (; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            return;
        int exponent;
        if (digits == 16 && frexp(fabs(value), &exponent) == 0.5 && next_decimal(value, out))
            return;
    }
}
