/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_METRICS_PRIVATE_H
#define APMW_METRICS_PRIVATE_H
#include "apmw/metrics.h"

/* Share of [begin, end) that lies in the window (NULL = all of time from 0), and the common part [*from, *to). Steps are
 * reported at their end, when the window's ends that lie before that are known: pro-rating needs no second look. */
double apmw_window_overlap(const apmw_window *window, apmw_time begin, apmw_time end, apmw_time *from, apmw_time *to);

#endif
