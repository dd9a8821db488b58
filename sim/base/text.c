/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/text.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Levenshtein distance, letters compared without case; names longer than this are never near. */
enum { NEAR_LENGTH = 128 };

static size_t edit_distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t row[NEAR_LENGTH + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            size_t best = diagonal + !same;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

const char *apmw_near(const char *name, const char *const *names, size_t n)
{
    size_t length = strlen(name);
    if (length == 0 || length > NEAR_LENGTH)
        return NULL;
    size_t limit = length / 3 > 2 ? length / 3 : 2;
    const char *best = NULL;
    size_t best_distance = limit + 1;
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(names[i]);
        if (other > NEAR_LENGTH || other + limit < length || length + limit < other)
            continue;
        size_t distance = edit_distance(name, length, names[i], other);
        /* Two short names that share nothing are within two edits; that is no near miss. */
        if (distance < best_distance && distance < (length > other ? length : other)) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}

bool apmw_copy(char *out, size_t size, const char *text)
{
    size_t n = strlen(text);
    bool fits = n < size;
    if (size == 0)
        return false;
    if (!fits)
        n = size - 1;
    memcpy(out, text, n);
    out[n] = '\0';
    return fits;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the order statistics around rank `at`. */
static double between(double low, double high, double t)
{
    if (low == high || t == 0)
        return low; /* also keeps equal infinities from becoming NaN */
    /* numpy interpolates from the nearer end, so that the result is exact at both. */
    return t < 0.5 ? low + (high - low) * t : high - (high - low) * (1 - t);
}

double apmw_quantile_sorted(const double *values, size_t n, double q)
{
    APMW_CHECK(q >= 0 && q <= 1);
    if (n == 0)
        return (double)NAN;
    double at = q * (double)(n - 1);
    size_t below = (size_t)at;
    return below >= n - 1 ? values[n - 1] : between(values[below], values[below + 1], at - (double)below);
}

static bool any_unknown(const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isnan(values[i]))
            return true;
    }
    return false;
}

double apmw_quantile(double *values, size_t n, double q)
{
    if (any_unknown(values, n))
        return (double)NAN; /* a sample with an unknown value has no known quantile */
    if (n > 1)
        qsort(values, n, sizeof *values, by_value);
    return apmw_quantile_sorted(values, n, q);
}

/* Moves the value of rank k to its place, none larger before it and none smaller behind it (Hoare's FIND as Wirth wrote
 * it, with the median of three as the pivot). */
static void select_rank(double *values, ptrdiff_t n, ptrdiff_t k)
{
    ptrdiff_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const double a = values[lo], b = values[lo + (hi - lo) / 2], c = values[hi];
        const double pivot = fmax(fmin(a, b), fmin(fmax(a, b), c));
        ptrdiff_t i = lo, j = hi;
        while (i <= j) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i <= j) {
                const double moved = values[i];
                values[i++] = values[j];
                values[j--] = moved;
            }
        }
        lo = j < k ? i : lo;
        hi = k < i ? j : hi;
    }
}

double apmw_quantile_unsorted(double *values, size_t n, double q)
{
    APMW_CHECK(q >= 0 && q <= 1);
    if (n == 0 || any_unknown(values, n))
        return (double)NAN;
    const double at = q * (double)(n - 1);
    const size_t below = (size_t)at;
    select_rank(values, (ptrdiff_t)n, (ptrdiff_t)below);
    if (below >= n - 1)
        return values[below];
    double next = values[below + 1];
    for (size_t i = below + 2; i < n; i++)
        next = values[i] < next ? values[i] : next;
    return between(values[below], next, at - (double)below);
}
