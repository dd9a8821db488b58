/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Makes the N-th allocation of the program fail, and counts what is allocated now, so that a test sees leaks.
 * Include it in one file of a test program: its definitions take the place of the C library's (glibc names
 * its own __libc_malloc and so on). Under AddressSanitizer, which has its own, FAILING_ALLOC is 0 and the
 * tests that need it are to be skipped. */
#ifndef APMW_TEST_FAILING_ALLOC_H
#define APMW_TEST_FAILING_ALLOC_H
#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define FAILING_ALLOC 0
static long failing_alloc_countdown;
static long failing_alloc_live;
#else
#define FAILING_ALLOC 1
/* 0 = off; N > 0: the N-th allocation from now on fails, once; it is back at 0 then. */
static long failing_alloc_countdown;

static long failing_alloc_live; /* allocations not freed, since the program began */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t n);
void __libc_free(void *p);

static int failing_alloc_now(void)
{
    return failing_alloc_countdown > 0 && --failing_alloc_countdown == 0;
}

void *malloc(size_t n)
{
    void *p = failing_alloc_now() ? NULL : __libc_malloc(n);
    failing_alloc_live += p != NULL;
    return p;
}

void *calloc(size_t n, size_t size)
{
    void *p = failing_alloc_now() ? NULL : __libc_calloc(n, size);
    failing_alloc_live += p != NULL;
    return p;
}

void *realloc(void *old, size_t n)
{
    void *p = failing_alloc_now() ? NULL : __libc_realloc(old, n);
    failing_alloc_live += old == NULL && p != NULL;
    return p;
}

void free(void *p)
{
    failing_alloc_live -= p != NULL;
    __libc_free(p);
}
#endif

#endif
