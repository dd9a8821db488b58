/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Keys of a scenario for users that begin inside sessions and for captured batches: read, written, read back, refused. */
#include <string.h>

#include "apmw/experiment.h"
#include "test_support.h"

static apmw_status parse(const char *text, apmw_scenario *s, apmw_error *err)
{
    apmw_scenario_init(s);
    return apmw_scenario_parse("case.json", text, strlen(text), s, err);
}

static void expect(const apmw_scenario *s)
{
    assert_string_equal(s->starts, "users.csv");
    assert_near(s->sent.first_prompt_scale, 1.25, 0);
    assert_near(s->sent.growth_scale, 0.5, 0);
    assert_near(s->sent.answer_tokens, 1500, 0);
    assert_near(s->sent.output_tokens, 3000, 0);
    assert_near(s->sent.output_spread, 0.25, 0);
    assert_near(s->sent.max_delay_s, 60, 0);
    assert_int_equal(s->sent.max_recorded_tokens, 128000);
    assert_int_equal(s->graph_padding, APMW_PADDING_SEQUENCES);
}

static void there_and_back(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(parse("{\"engine_settings\":{\"graph_padding\":\"sequences\"},\"workload\":{\"starts\":\"users.csv\",\"sent\":"
                    "{\"first_prompt_scale\":1.25,\"growth_scale\":0.5,\"answer_tokens\":1500,\"output_tokens\":3000,"
                    "\"output_spread\":0.25,"
                    "\"max_delay_s\":60,\"max_recorded_tokens\":128000}}}", &s, &err), &err);
    expect(&s);
    apmw_buf out = {0};
    apmw_scenario_write(&s, &out);
    apmw_scenario again;
    assert_ok(parse(out.data, &again, &err), &err);
    expect(&again);
    apmw_buf_free(&out);
    /* Nothing said: as recorded, drawn, batches as the engine runs them. */
    assert_ok(parse("{}", &s, &err), &err);
    assert_string_equal(s.starts, "");
    assert_near(s.sent.first_prompt_scale, 1, 0);
    assert_near(s.sent.growth_scale, 1, 0);
    assert_near(s.sent.answer_tokens + s.sent.output_tokens + s.sent.output_spread + s.sent.max_delay_s, 0, 0);
    assert_int_equal(s.graph_padding, APMW_PADDING_ENGINE);
    /* To run batches as they are is something else than to say nothing. */
    assert_ok(parse("{\"engine_settings\":{\"graph_padding\":\"none\"}}", &s, &err), &err);
    assert_int_equal(s.graph_padding, APMW_PADDING_NONE);
    out = (apmw_buf){0};
    apmw_scenario_write(&s, &out);
    assert_ok(parse(out.data, &again, &err), &err);
    assert_int_equal(again.graph_padding, APMW_PADDING_NONE);
    apmw_buf_free(&out);
}

static void refused(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_error(parse("{\"engine_settings\":{\"graph_padding\":\"row\"}}", &s, &err), APMW_E_DATA, &err, "did you mean \"rows\"");
    assert_error(parse("{\"workload\":{\"sent\":{\"answer_token\":1}}}", &s, &err), APMW_E_DATA, &err, "answer_tokens");
    assert_error(parse("{\"workload\":{\"sent\":{\"growth_scale\":-1}}}", &s, &err), APMW_E_DATA, &err, "growth_scale");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
