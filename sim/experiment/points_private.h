/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shared by the readers of measured points and of engine defaults. */
#ifndef APMW_POINTS_PRIVATE_H
#define APMW_POINTS_PRIVATE_H
#include "apmw/json.h"
#include "apmw/points.h"

struct apmw_engine_defaults {
    apmw_json *doc;
};

void apmw_points_settings_clear(apmw_engine_settings *settings);
void apmw_points_formula_vars(const apmw_point *point, apmw_role role, double k, apmw_formula_vars *out);
/* Index of a role in the arrays of a point. */
int apmw_points_role_index(apmw_role role);
/* What the client of a row did, by the entries of "clients" that fit: the spread of lengths of a row that is silent on it
 * (else 1, exact lengths) and the scale of its prompts. */
apmw_status apmw_points_client(const apmw_engine_defaults *defaults, apmw_point *point, apmw_error *err);
/* The first entry of "excluded" that fits, or "". */
apmw_status apmw_points_excluded(const apmw_engine_defaults *defaults, const apmw_point *point, char *out, size_t size,
                            apmw_error *err);
/* Layouts that labels state wrongly, by the first entry of "layouts" that fits a role. After the split, which goes by labels. */
apmw_status apmw_points_relabel(const apmw_engine_defaults *defaults, apmw_point *point, apmw_error *err);

#endif
