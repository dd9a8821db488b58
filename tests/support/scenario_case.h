/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Scenarios from text, and that what is written of one reads back to the same. */
#ifndef APMW_SCENARIO_CASE_H
#define APMW_SCENARIO_CASE_H
#include <string.h>

#include "apmw/experiment.h"
#include "test_support.h"

static inline apmw_status case_parse(const char *text, apmw_scenario *s, apmw_error *err)
{
    apmw_scenario_init(s);
    return apmw_scenario_parse("case.json", text, strlen(text), s, err);
}

/* Writes, reads into `again`, writes that: both texts are the same. */
static inline void case_round_trip(const apmw_scenario *s, apmw_scenario *again)
{
    apmw_error err = {0};
    apmw_buf first = {0}, second = {0};
    apmw_scenario_write(s, &first);
    assert_ok(case_parse(first.data, again, &err), &err);
    apmw_scenario_write(again, &second);
    assert_string_equal(first.data, second.data);
    apmw_buf_free(&first);
    apmw_buf_free(&second);
}

#endif
