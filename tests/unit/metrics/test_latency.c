/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Latency of requests: definitions, quantiles, and what is left out. */
#include <math.h>

#include "apmw/metrics.h"
#include "test_support.h"

static apmw_request_record request(double submitted, double first, double last, int64_t n_out)
{
    return (apmw_request_record){.state = APMW_REQUEST_DONE,
                                 .n_prompt = 100,
                                 .n_cached = 64,
                                 .n_out = n_out,
                                 .submitted = apmw_time_from_s(submitted),
                                 .admitted = apmw_time_from_s(submitted),
                                 .first_scheduled = apmw_time_from_s(submitted + 0.25),
                                 .first_token = apmw_time_from_s(first),
                                 .last_token = apmw_time_from_s(last),
                                 .done = apmw_time_from_s(last)};
}

static void definitions(void **state)
{
    (void)state;
    const apmw_request_record r = request(10, 11, 15, 101);
    assert_near(apmw_record_ttft_s(&r), 1.0, 1e-12);
    assert_near(apmw_record_tpot_s(&r), 0.04, 1e-12);
    assert_near(apmw_record_output_speed(&r), 25.0, 1e-9);
    assert_near(apmw_record_e2e_s(&r), 5.0, 1e-12);
    /* Law L23: end to end = TTFT + (n_out - 1) TPOT. */
    assert_near(apmw_record_e2e_s(&r), apmw_record_ttft_s(&r) + 100 * apmw_record_tpot_s(&r), 1e-9);
    const apmw_request_record one = request(10, 11, 11, 1);
    assert_true(isnan(apmw_record_tpot_s(&one)));
    assert_true(isnan(apmw_record_output_speed(&one)));
    apmw_request_record rejected = r;
    rejected.state = APMW_REQUEST_REJECTED;
    assert_true(isnan(apmw_record_ttft_s(&rejected)));
    assert_true(isnan(apmw_record_e2e_s(&rejected)));
}

static void summary(void **state)
{
    (void)state;
    apmw_request_record r[6];
    for (int i = 0; i < 5; i++) {
        r[i] = request(0, 1 + i, 1 + i + 10, i == 4 ? 1 : 11); /* TTFT 1..5 s; the last has one token */
    }
    r[4].last_token = r[4].done = r[4].first_token;
    r[3].n_preemptions = 1;
    r[3].n_recomputed = 7;
    r[2].n_fetched = 25; /* of the 36 of a prompt that are not cached */
    r[5] = request(0, 1, 2, 3);
    r[5].state = APMW_REQUEST_REJECTED;
    apmw_latency_summary s;
    apmw_error err = {0};
    assert_ok(apmw_latency_summarize(r, 6, &s, &err), &err);
    assert_int_equal(s.n_requests, 6);
    assert_int_equal(s.n_done, 5);
    assert_int_equal(s.n_rejected, 1);
    assert_int_equal(s.n_one_token, 1);
    assert_int_equal(s.n_preempted, 1);
    assert_int_equal(s.prompt_tokens, 500);
    assert_int_equal(s.cached_tokens, 320);
    assert_int_equal(s.output_tokens, 45);
    assert_int_equal(s.recomputed_tokens, 7);
    assert_near(s.hit_share, 0.64, 1e-12);
    assert_int_equal(s.fetched_tokens, 25);
    assert_near(s.loaded_share, 0.05, 1e-12);
    assert_int_equal(s.ttft_s.n, 5);
    assert_near(s.ttft_s.mean, 3.0, 1e-12);
    assert_near(s.ttft_s.p25, 2.0, 1e-12);  /* type 7: position 0.25 x 4 */
    assert_near(s.ttft_s.p95, 4.8, 1e-12);
    assert_near(s.queue_s.p50, 0.25, 1e-12);
    assert_int_equal(s.tpot_s.n, 4);
    assert_near(s.tpot_s.p50, 1.0, 1e-12);
    assert_int_equal(s.output_speed.n, 4);
    assert_near(s.e2e_speed.max, 1.0, 1e-12); /* 11 tokens in 11 s */
}

static void nothing(void **state)
{
    (void)state;
    apmw_latency_summary s;
    apmw_error err = {0};
    assert_ok(apmw_latency_summarize(NULL, 0, &s, &err), &err);
    assert_int_equal(s.ttft_s.n, 0);
    assert_true(isnan(s.ttft_s.mean) && isnan(s.ttft_s.p95) && isnan(s.hit_share));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(definitions), cmocka_unit_test(summary),
                                       cmocka_unit_test(nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
