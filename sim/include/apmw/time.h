/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Simulated time: int64 nanoseconds since the start of the run. */
#ifndef APMW_TIME_H
#define APMW_TIME_H
#include <stdint.h>

typedef int64_t apmw_time;
#define APMW_TIME_NEVER INT64_MAX
#define APMW_NS_PER_S 1000000000LL

/* Rounds to the nearest nanosecond; |s| must stay below 9.2e9. */
apmw_time apmw_time_from_s(double s);
double apmw_time_to_s(apmw_time t);

#endif
