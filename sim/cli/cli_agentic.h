/* SPDX-License-Identifier: GPL-3.0-or-later */
/* `apmw validate --agentic`: measured runs of agents beside the same runs simulated. */
#ifndef APMW_CLI_AGENTIC_H
#define APMW_CLI_AGENTIC_H
#include "apmw/agentic.h"
#include "cli.h"

/* only: name of a run, or NULL. Returns the exit code. */
int apmw_cli_agentic(apmw_cli *cli, apmw_catalog *catalog, const char *dir, const char *only);

#endif
