/* SPDX-License-Identifier: GPL-3.0-or-later */
/* For benches: a monotonic clock and the head of their JSON result. Header only, since benches link no test
 * code. */
#ifndef APMW_BENCH_H
#define APMW_BENCH_H
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static inline double bench_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Opens the object and leaves it open: {"schema":..., "bench":..., "argv":[...], "host":..., */
static inline void bench_head(const char *name, int argc, char **argv)
{
    char host[256] = "unknown";
    gethostname(host, sizeof host - 1);
    printf("{\"schema\":\"apmw.bench/1\",\"bench\":\"%s\",\"argv\":[", name);
    for (int i = 0; i < argc; i++) {
        printf("%s\"%s\"", i == 0 ? "" : ",", argv[i]);
    }
    printf("],\"host\":\"%s\",", host);
}

#endif
