/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any bytes as a trace file, whatever format they are taken for; a trace that is accepted keeps the rules. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apmw/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("trace", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    apmw_trace trace = {0};
    apmw_error err = {0};
    if (apmw_trace_load(path, NULL, &trace, &err) == APMW_OK) {
        for (size_t i = 0; i < trace.n; i++) {
            if (apmw_trajectory_check(&trace.items[i], &err) != APMW_OK)
                abort();
        }
    }
    apmw_trace_free(&trace);
    close(fd);
    return 0;
}
