/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_CLI_RUNS_H
#define APMW_CLI_RUNS_H
#include "cli.h"
#include "apmw/measured_runs.h"

/* Simulates the runs of a file of listed requests and prints them by run and kind, or each request (rows). Returns the exit
 * code. */
int apmw_cli_validate_runs(apmw_cli *cli, apmw_catalog *catalog, const char *path, bool rows);

#endif
