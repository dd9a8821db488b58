/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Status codes and error messages. A function that can fail returns an apmw_status and fills the
 * apmw_error that the caller passed (NULL is allowed: the message is dropped). Libraries never print,
 * exit or abort on bad input. The values are the program's exit codes (sysexits.h). */
#ifndef APMW_STATUS_H
#define APMW_STATUS_H

typedef enum apmw_status {
    APMW_OK = 0,
    APMW_NO = 1,             /* done, and the answer is no */
    APMW_E_USAGE = 64,       /* unknown command, option, platform, model, tier */
    APMW_E_DATA = 65,        /* a file's content is wrong: malformed, truncated, columns missing */
    APMW_E_NOINPUT = 66,     /* a file cannot be opened */
    APMW_E_UNAVAILABLE = 69, /* an endpoint or device is not there */
    APMW_E_INTERNAL = 70,    /* a law broke: a bug of ours */
    APMW_E_NOMEM = 71,
    APMW_E_CANTCREAT = 73,
    APMW_E_IO = 74,
    APMW_E_INTERRUPTED = 75,
    APMW_E_SCENARIO = 78     /* a scenario that cannot be: weights do not fit, unsupported combination */
} apmw_status;

typedef struct apmw_error {
    apmw_status status;
    char message[1024];
} apmw_error;

/* Sets the message (printf style) and returns `status`, so that `return apmw_error_set(...)` reads well. */
__attribute__((format(printf, 3, 4))) apmw_status apmw_error_set(apmw_error *err, apmw_status status,
                                                                 const char *format, ...);
/* Puts a context and ": " before the message that is there; returns the status that is there. */
__attribute__((format(printf, 2, 3))) apmw_status apmw_error_wrap(apmw_error *err, const char *format, ...);
/* Stable name, e.g. "data". */
const char *apmw_status_name(apmw_status status);

/* Kept in release builds: a broken invariant of our own. Never for bad input. */
#define APMW_CHECK(condition) ((condition) ? (void)0 : apmw_check_failed(#condition, __FILE__, __LINE__))
_Noreturn void apmw_check_failed(const char *condition, const char *file, int line);

#endif
