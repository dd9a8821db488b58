/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Evidence of power from both sources: ML.ENERGY rows and serving points with measured watts. */
#ifndef APMW_CLI_POWER_H
#define APMW_CLI_POWER_H
#include "apmw/fit_power.h"
#include "cli.h"

/* mlenergy: path, or NULL for the one that the rules name; points: path of measured serving points, or NULL for those of
 * the repository. *rows is the caller's. */
apmw_status apmw_cli_power_rows(const apmw_cli *cli, apmw_catalog *catalog, const char *mlenergy, const char *points,
                                apmw_power_row **rows, size_t *n, apmw_error *err);

#endif
