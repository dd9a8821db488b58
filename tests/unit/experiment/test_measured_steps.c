/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Single passes: what a file may say, and that a prediction is the composed cost at just those counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/measured_steps.h"

#define HEAD                                                                                                                 \
    "point,platform,model,engine,precision,released,tp,attention_dp,moe_ep,draft_tokens,kind,rank_seqs,total_seqs,"          \
    "rank_kv_tokens,new_tokens,past_tokens,chunk_tokens,samples,ms\n"
#define NODE "mi355x,glm-5.2,sglang,fp4,2026-08-06,1,8,8,3,"

static apmw_status load(const char *text, apmw_measured_step **steps, size_t *n, apmw_error *err)
{
    apmw_csv *csv = NULL;
    apmw_status status = apmw_csv_parse("steps.csv", text, strlen(text), &csv, err);
    if (status == APMW_OK)
        status = apmw_measured_steps_load(csv, "steps.csv", steps, n, err);
    apmw_csv_free(csv);
    return status;
}

static void rows_that_make_no_pass_say_where(void **state)
{
    (void)state;
    const struct {
        const char *text, *says;
    } bad[] = {{HEAD "a," NODE "decode,2,1,100,0,0,0,1,5\n", "steps.csv:2: decode: these counts make no pass"},
               {HEAD "a," NODE "decode,1,1,100,0,0,0,1,5\nb," NODE "prompt,0,0,0,0,10,8192,1,5\n", "steps.csv:3: prompt"},
               {HEAD "a," NODE "prompt,0,0,0,100,0,0,1,5\n", "steps.csv:2: prompt"},
               {HEAD "a," NODE "verify,1,1,100,0,0,0,1,5\n", "\"verify\" is neither decode nor prompt"},
               {HEAD "a," NODE "decode,1,1,100,0,0,0,1,0\n", "steps.csv:2: ms"},
               {HEAD "a," NODE "decode,-1,1,100,0,0,0,1,5\n", "rank_seqs: -1 is out of range"},
               {HEAD "a," NODE "decode,x,1,100,0,0,0,1,5\n", "rank_seqs"},
               {"point,kind\na,decode\n", "platform"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        apmw_measured_step *steps = NULL;
        size_t n = 7;
        apmw_error err = {0};
        assert_int_equal(load(bad[i].text, &steps, &n, &err), APMW_E_DATA);
        if (!strstr(err.message, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", err.message, bad[i].says);
        assert_null(steps);
        assert_int_equal(n, 0);
    }
}

static void predictions_are_the_composed_cost(void **state)
{
    (void)state;
    const char *text = HEAD "a," NODE "decode,2,13,35840,0,0,0,16,31.3\n"
                            "b," NODE "prompt,0,0,0,10000,65856,8192,106,1812\n"
                            "c,mi355x,llama-9b,sglang,fp4,,8,1,1,0,decode,1,1,10,0,0,0,1,5\n"
                            "d,mi355x,glm-5.2,sglang,fp4,2026-08-06,1,8,3,0,decode,1,1,10,0,0,0,1,5\n";
    apmw_measured_step *steps = NULL;
    size_t n = 0;
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_step_cost *cost = NULL;
    assert_int_equal(apmw_catalog_open(APMW_SOURCE_DIR, &catalog, &err), APMW_OK);
    assert_int_equal(load(text, &steps, &n, &err), APMW_OK);
    assert_int_equal(n, 4);
    /* An unknown model is an error of the file, not a gap in coverage. */
    assert_int_not_equal(apmw_measured_steps_predict(catalog, true, steps, n, &err), APMW_OK);
    assert_non_null(strstr(err.message, "llama-9b"));
    steps[2] = steps[3];
    if (apmw_measured_steps_predict(catalog, true, steps, 3, &err) != APMW_OK)
        fail_msg("%s", err.message);
    assert_true(isnan(steps[2].predicted_ms) && strstr(steps[2].reason, "impossible split"));

    assert_int_equal(apmw_compose(catalog, &steps[0].spec, NULL, &cost, NULL, &err), APMW_OK);
    apmw_step_load decode = {.n_seqs = 2, .rank_tokens = 8, .total_seqs = 13, .total_tokens = 52};
    for (int k = 0; k < cost->n_kinds; k++)
        decode.kv[k] = 35840;
    apmw_step_work first, second;
    cost->ops->eval(cost, &decode, &first);
    assert_true(fabs(steps[0].predicted_ms - 1e3 * first.time_s) < 1e-9);
    /* A prompt of 10,000 tokens is a chunk of 8,192 and one of 1,808 on 74,048. */
    const apmw_chunk chunk[2] = {{8192, 65856, 0}, {1808, 74048, 1}};
    cost->ops->eval(cost, &(apmw_step_load){.rank_tokens = 8192, .total_tokens = 8192, .chunks = &chunk[0], .n_chunks = 1}, &first);
    cost->ops->eval(cost, &(apmw_step_load){.rank_tokens = 1808, .total_tokens = 1808, .chunks = &chunk[1], .n_chunks = 1}, &second);
    assert_true(fabs(steps[1].predicted_ms - 1e3 * (first.time_s + second.time_s)) < 1e-9);

    /* With what the fit knows: the same deployment is slower, and a prompt pays for its front end. */
    double bare = steps[0].predicted_ms, prompt = steps[1].predicted_ms;
    assert_int_equal(apmw_measured_steps_predict(catalog, false, steps, 2, &err), APMW_OK);
    apmw_overhead o;
    assert_int_equal(apmw_overhead_lookup(catalog, &steps[0].spec, &o, &err), APMW_OK);
    assert_true(steps[0].predicted_ms >= bare + 1e3 * o.layer_s * 78);
    assert_true(steps[1].predicted_ms >= 1e3 * (o.request_s + o.frontend_s_per_token * 75856) + fmin(o.prefill_scale, 1) * prompt);
    cost->ops->free(cost);
    apmw_catalog_free(catalog);
    free(steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_that_make_no_pass_say_where),
                                       cmocka_unit_test(predictions_are_the_composed_cost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
