/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Options that describe what is simulated, shared by `simulate` and `capacity`, and the inputs that they name. */
#ifndef APMW_CLI_SCENARIO_H
#define APMW_CLI_SCENARIO_H
#include "apmw/experiment.h"
#include "cli.h"

/* A child parser of a command's own; its input is an apmw_scenario. Options overwrite what a scenario file said before. */
extern const struct argp apmw_cli_scenario_argp;

/* A whole number in [lo, hi] or argp's usage error that names the option. */
long long apmw_cli_whole(struct argp_state *state, const char *option, const char *text, long long lo, long long hi);
double apmw_cli_number(struct argp_state *state, const char *option, const char *text, double lo, double hi);

/* A known node or accelerator, or APMW_E_USAGE with the nearest of both. */
apmw_status apmw_cli_platform(const apmw_catalog *catalog, const char *name, apmw_error *err);
/* The accelerator of that name or of the node of that name, of which a note says so; else as apmw_cli_platform. */
apmw_status apmw_cli_accelerator(const apmw_cli *cli, const apmw_catalog *catalog, const char *name,
                                 const apmw_accelerator_spec **out, apmw_error *err);
/* The scenario's trace: its file, or the generated AgentPerf-like set. */
apmw_status apmw_cli_trace(apmw_cli *cli, const apmw_scenario *scenario, apmw_trace *out, apmw_error *err);
/* The same where the scenario may name users that begin inside sessions: then the trace has one trajectory for each, as their
 * client sends it. *starts is NULL where it names none; the caller frees it. */
apmw_status apmw_cli_load(apmw_cli *cli, const apmw_scenario *scenario, apmw_trace *out, apmw_start **starts,
                          size_t *n_starts, apmw_error *err);
/* Rules of the scenario's protocol and its tiers: one, or all of the model (at most APMW_MAX_TIERS). */
apmw_status apmw_cli_tiers(apmw_cli *cli, const apmw_scenario *scenario, apmw_phase_rules *rules, apmw_tier *tiers,
                           size_t *n_tiers, apmw_error *err);

/* Notes of a deployment, a line each, on standard error; and as an array under "notes". */
void apmw_cli_notes(const apmw_cli *cli, const apmw_buf *notes);
void apmw_cli_notes_json(apmw_json_writer *w, const apmw_buf *notes);

/* The limits of a tier in words, under `key`. */
void apmw_cli_limits(apmw_json_writer *w, const char *key, const apmw_tier *tier);

/* Parses a command's options into `input`, whose scenario is `scenario` and whose scenario file, when one was named, ends
 * up in *file. The file is read first and the options go over it, wherever they stand. Returns what apmw_cli_parse returns;
 * *status tells of the file. */
int apmw_cli_parse_scenario(apmw_cli *cli, const struct argp *parser, int argc, char **argv, void *input,
                            apmw_scenario *scenario, const char *const *file, apmw_status *status, apmw_error *err);

#endif
