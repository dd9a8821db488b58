/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/time.h"

#include <math.h>

#include "apmw/status.h"

apmw_time apmw_time_from_s(double s)
{
    APMW_CHECK(fabs(s) < 9.2e9); /* false for NaN too */
    return (apmw_time)llround(s * 1e9);
}

double apmw_time_to_s(apmw_time t)
{
    return (double)t / 1e9;
}
