/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Statistics of a trace as the program prints them. */
#ifndef APMW_CLI_TRACE_H
#define APMW_CLI_TRACE_H
#include "apmw/trace.h"
#include "cli.h"

/* One row a quantity; numbers that are no distribution have n = 1 and only a mean. Returns the exit code. */
int apmw_cli_trace_stats(apmw_cli *cli, const apmw_trace *trace, int64_t block_tokens, bool output_cached);

#endif
