/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What tests share: cmocka with its preliminaries, comparisons that print what they saw, temporary
 * directories, and loops over seeds that name the seed that failed. */
#ifndef APMW_TEST_SUPPORT_H
#define APMW_TEST_SUPPORT_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apmw/buf.h"
#include "apmw/status.h"

/* |actual - expected| <= tolerance; NaN is near nothing. */
#define assert_near(actual, expected, tolerance)                                                             \
    test_near((actual), (expected), (tolerance), #actual, __FILE__, __LINE__)
/* |actual - expected| <= relative * |expected| */
#define assert_near_relative(actual, expected, relative)                                                     \
    test_near_relative((actual), (expected), (relative), #actual, __FILE__, __LINE__)
/* The same bits (so -0 differs from 0), or both NaN. */
#define assert_same_double(actual, expected)                                                                 \
    test_same_double((actual), (expected), #actual, __FILE__, __LINE__)
/* The call returned APMW_OK; prints the error's message if not. */
#define assert_ok(call, err) test_status((call), APMW_OK, (err), #call, __FILE__, __LINE__)
/* The call returned that status and the message contains `text`. */
#define assert_error(call, expected, err, text)                                                              \
    do {                                                                                                     \
        test_status((call), (expected), (err), #call, __FILE__, __LINE__);                                   \
        test_contains((err)->message, (text), __FILE__, __LINE__);                                           \
    } while (0)
#define assert_contains(haystack, needle) test_contains((haystack), (needle), __FILE__, __LINE__)

void test_near(double actual, double expected, double tolerance, const char *what, const char *file,
               int line);
void test_near_relative(double actual, double expected, double relative, const char *what, const char *file,
                        int line);
void test_same_double(double actual, double expected, const char *what, const char *file, int line);
void test_status(apmw_status actual, apmw_status expected, const apmw_error *err, const char *what,
                 const char *file, int line);
void test_contains(const char *haystack, const char *needle, const char *file, int line);

/* A new empty directory, removed with all its content when the program ends. Paths stay valid until then. */
const char *test_directory(void);
/* <directory>/<name> as a string that lives until the program ends. */
const char *test_path(const char *directory, const char *name);
void test_write(const char *path, const void *bytes, size_t n);
/* Whole content; the caller frees with apmw_buf_free. */
apmw_buf test_read(const char *path);

/* for_each_seed(seed, 200) { ... }: seeds 1, 2, ... A case that fails leaves the loop by cmocka's longjmp;
 * its seed is then printed before the next loop or at the end. APMW_TEST_SEED=n runs that seed only,
 * APMW_TEST_CASES=k multiplies the number of cases. Leave the loop with `continue` only. */
#define for_each_seed(seed, n)                                                                               \
    for (uint64_t seed = test_first_seed(__FILE__, __LINE__, (n)); seed != 0; seed = test_next_seed())
uint64_t test_first_seed(const char *file, int line, uint64_t n);
uint64_t test_next_seed(void);

#endif
