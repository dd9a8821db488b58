/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message that does not fit ends in "..." so that nobody takes it for the whole one. */
static void format_message(char *out, size_t size, const char *format, va_list args)
{
    int n = vsnprintf(out, size, format, args);
    if (n < 0)
        out[0] = '\0';
    else if ((size_t)n >= size)
        memcpy(out + size - 4, "...", 4);
}

apmw_status apmw_error_set(apmw_error *err, apmw_status status, const char *format, ...)
{
    if (!err)
        return status;
    /* The arguments may point into the old message (a wrapped cause), so it is replaced only when the new one
     * is complete. */
    char message[sizeof err->message];
    va_list args;
    va_start(args, format);
    format_message(message, sizeof message, format, args);
    va_end(args);
    memcpy(err->message, message, sizeof message);
    err->status = status;
    return status;
}

apmw_status apmw_error_wrap(apmw_error *err, const char *format, ...)
{
    /* Without an error object the caller's own status is the only one; any failure is as good as another. */
    if (!err)
        return APMW_E_INTERNAL;
    char message[sizeof err->message];
    va_list args;
    va_start(args, format);
    format_message(message, sizeof message, format, args);
    va_end(args);
    return apmw_error_set(err, err->status, "%s: %s", message, err->message);
}

const char *apmw_status_name(apmw_status status)
{
    switch (status) {
    case APMW_OK:
        return "ok";
    case APMW_NO:
        return "no";
    case APMW_E_USAGE:
        return "usage";
    case APMW_E_DATA:
        return "data";
    case APMW_E_NOINPUT:
        return "no input";
    case APMW_E_UNAVAILABLE:
        return "unavailable";
    case APMW_E_INTERNAL:
        return "internal";
    case APMW_E_NOMEM:
        return "out of memory";
    case APMW_E_CANTCREAT:
        return "cannot create";
    case APMW_E_IO:
        return "input/output";
    case APMW_E_INTERRUPTED:
        return "interrupted";
    case APMW_E_SCENARIO:
        return "scenario";
    }
    return "unknown";
}

void apmw_check_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "apmw: internal error: %s does not hold (%s:%d)\n", condition, file, line);
    abort();
}
