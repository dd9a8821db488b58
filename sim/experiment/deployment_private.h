/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_DEPLOYMENT_PRIVATE_H
#define APMW_DEPLOYMENT_PRIVATE_H
#include "apmw/experiment.h"
#include "apmw/points.h"

/* One pool of engines in this role. */
apmw_status apmw_deployment_build_role(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                       apmw_role role, const apmw_layout_choice *choice, double context,
                                       apmw_deployment *out, apmw_error *err);

/* KV bytes that a token around `context` adds to a sequence on one of tp accelerators, and those it has whatever its length. */
void apmw_deployment_kv_bytes(const apmw_deployment *d, const apmw_llm_spec *llm, double context, int tp, double *per_token,
                              double *per_stream);

/* Tiers of KV below its engines. */
apmw_status apmw_deployment_make_tiers(apmw_catalog *catalog, const apmw_scenario *scenario, double context,
                                       apmw_deployment *out, apmw_error *err);

#endif
