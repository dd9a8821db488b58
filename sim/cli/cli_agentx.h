/* SPDX-License-Identifier: GPL-3.0-or-later */
/* AgentX's own figures of a simulated run. */
#ifndef APMW_CLI_AGENTX_H
#define APMW_CLI_AGENTX_H
#include "apmw/agentx.h"
#include "apmw/experiment.h"
#include "cli.h"

/* From all requests of the run; constants of the platform from sim/protocol/agentx.json. */
apmw_status apmw_cli_agentx(apmw_cli *cli, const apmw_deployment *deployment, const apmw_collector *collector,
                            const apmw_window *profile, apmw_agentx_summary *out, apmw_error *err);
void apmw_cli_agentx_json(const apmw_agentx_summary *summary, apmw_json_writer *w);
void apmw_cli_agentx_text(const apmw_agentx_summary *summary, apmw_buf *out);

#endif
