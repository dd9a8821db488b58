/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reading of hwmodels/rules/power.json, shared by the power sources of this layer. */
#ifndef APMW_POWER_RULES_H
#define APMW_POWER_RULES_H
#include "apmw/hwmodel.h"
#include "apmw/json.h"
#include "apmw/status.h"

apmw_status apmw_power_rules_load(const apmw_catalog *catalog, apmw_json **out, apmw_error *err);

#endif
