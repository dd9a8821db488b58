/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_CLI_STEPS_H
#define APMW_CLI_STEPS_H
#include "cli.h"
#include "apmw/measured_steps.h"

/* Predicts the steps of a file and prints them by point, or each (rows). Returns the exit code. */
int apmw_cli_validate_steps(apmw_cli *cli, apmw_catalog *catalog, const char *path, bool no_fit, bool rows);

#endif
