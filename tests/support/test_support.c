/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "test_support.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void test_near(double actual, double expected, double tolerance, const char *what, const char *file, int line)
{
    if (fabs(actual - expected) <= tolerance || (isinf(expected) && actual == expected))
        return;
    print_error("%s is %.17g, expected %.17g +- %g (off by %g)\n", what, actual, expected, tolerance,
                actual - expected);
    _fail(file, line);
}

void test_near_relative(double actual, double expected, double relative, const char *what, const char *file,
                        int line)
{
    test_near(actual, expected, relative * fabs(expected), what, file, line);
}

void test_same_double(double actual, double expected, const char *what, const char *file, int line)
{
    if ((isnan(actual) && isnan(expected)) || memcmp(&actual, &expected, sizeof actual) == 0)
        return;
    print_error("%s is %.17g (%a), expected %.17g (%a)\n", what, actual, actual, expected, expected);
    _fail(file, line);
}

void test_status(apmw_status actual, apmw_status expected, const apmw_error *err, const char *what,
                 const char *file, int line)
{
    if (actual == expected)
        return;
    print_error("%s returned %s, expected %s; message: %s\n", what, apmw_status_name(actual),
                apmw_status_name(expected), err && actual != APMW_OK ? err->message : "(none)");
    _fail(file, line);
}

void test_contains(const char *haystack, const char *needle, const char *file, int line)
{
    if (haystack && strstr(haystack, needle))
        return;
    print_error("\"%s\" does not contain \"%s\"\n", haystack ? haystack : "(null)", needle);
    _fail(file, line);
}

/* --- files --- */

typedef struct kept {
    struct kept *next;
    bool directory;
    char text[];
} kept;

static kept *all_kept;

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

static void remove_directories(void)
{
    while (all_kept) {
        kept *one = all_kept;
        all_kept = one->next;
        if (one->directory)
            nftw(one->text, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(one);
    }
}

static kept *keep(const char *text, bool directory)
{
    if (!all_kept)
        atexit(remove_directories);
    size_t n = strlen(text) + 1;
    kept *one = malloc(sizeof *one + n);
    assert_non_null(one);
    memcpy(one->text, text, n);
    one->directory = directory;
    one->next = all_kept;
    all_kept = one;
    return one;
}

const char *test_directory(void)
{
    const char *base = getenv("TMPDIR");
    char name[512];
    snprintf(name, sizeof name, "%s/apmw-test-XXXXXX", base && base[0] ? base : "/tmp");
    assert_non_null(mkdtemp(name));
    return keep(name, true)->text;
}

const char *test_path(const char *directory, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return keep(path, false)->text;
}

void test_write(const char *path, const void *bytes, size_t n)
{
    apmw_error err = {0};
    assert_ok(apmw_file_write(path, bytes, n, -1, &err), &err);
}

apmw_buf test_read(const char *path)
{
    apmw_buf out = {0};
    apmw_error err = {0};
    assert_ok(apmw_file_read(path, &out, &err), &err);
    return out;
}

/* --- seeds --- */

static struct {
    const char *file;
    int line;
    uint64_t seed, last; /* seed 0 = no loop is running */
    bool registered;
} loop;

static void report_unfinished(void)
{
    if (loop.seed != 0)
        print_error("%s:%d: the case that failed has seed %llu (APMW_TEST_SEED=%llu runs it alone)\n",
                    loop.file, loop.line, (unsigned long long)loop.seed, (unsigned long long)loop.seed);
    loop.seed = 0;
}

static uint64_t from_environment(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

uint64_t test_first_seed(const char *file, int line, uint64_t n)
{
    report_unfinished();
    if (!loop.registered)
        atexit(report_unfinished);
    loop.registered = true;
    loop.file = file;
    loop.line = line;
    uint64_t only = from_environment("APMW_TEST_SEED"), times = from_environment("APMW_TEST_CASES");
    loop.seed = only ? only : 1;
    loop.last = only ? only : n * (times ? times : 1);
    return loop.seed;
}

uint64_t test_next_seed(void)
{
    loop.seed = loop.seed < loop.last ? loop.seed + 1 : 0;
    return loop.seed;
}
