/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the readers of public facts share. */
#ifndef APMW_SPEC_PRIVATE_H
#define APMW_SPEC_PRIVATE_H
#include <stddef.h>
#include "apmw/json.h"
#include "apmw/status.h"

typedef apmw_status (*apmw_spec_reader)(const apmw_json_cur *root, void *out, apmw_error *err);
/* Clears `size` bytes of out and reads the JSON file into it. */
apmw_status apmw_spec_load_file(const char *path, apmw_spec_reader read, void *out, size_t size, apmw_error *err);
/* APMW_E_DATA unless "schema" is exactly `want`. */
apmw_status apmw_spec_check_schema(const apmw_json_cur *root, const char *want, apmw_error *err);

#endif
