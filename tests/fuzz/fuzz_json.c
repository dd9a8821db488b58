/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any bytes as JSON: parse, then walk every value through the accessors. */
#include <stdlib.h>

#include "apmw/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const apmw_json_cur *cur)
{
    apmw_error err;
    apmw_json_cur child;
    double number;
    int64_t integer;
    const char *text, *key;
    static const char *const known[] = {"tp", "platform", NULL};
    apmw_json_as_double(cur, &number, &err);
    apmw_json_as_string(cur, &text, &err);
    apmw_json_only_keys(cur, known, &err);
    apmw_json_opt_int(cur, "tp", 1, 8, &integer, &err);
    apmw_json_get_double(cur, "ratio", 0, 1, &number, &err);
    for (int i = 0; i < apmw_json_length(cur); i++) {
        if (apmw_json_at(cur, i, &child, &err) == APMW_OK ||
            apmw_json_member(cur, i, &key, &child, &err) == APMW_OK)
            walk(&child);
        else
            abort(); /* a container has as many children as it says */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apmw_json *doc = NULL;
    apmw_error err;
    apmw_status status = apmw_json_parse("fuzz", (const char *)data, size, &doc, &err);
    if ((status == APMW_OK) != (doc != NULL))
        abort();
    if (doc) {
        apmw_json_cur root = apmw_json_root(doc);
        walk(&root);
    }
    apmw_json_free(doc);
    return 0;
}
