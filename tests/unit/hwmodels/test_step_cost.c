/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include "apmw/step_cost.h"

static const apmw_linear_cost numbers = {.fixed_s = 2e-3,
                                         .per_token_s = 1e-5,
                                         .per_seq_s = 3e-6,
                                         .per_kv_s = {1e-9, 4e-9},
                                         .per_pair_s = 2e-12,
                                         .flops_per_token = 1e9,
                                         .bytes_per_step = 5e9,
                                         .bytes_per_kv = {100, 10},
                                         .n_kinds = 2,
                                         .kv_cap = {INT64_MAX, 128},
                                         .n_accelerators = 4};

static void near_rel(double a, double b, double tolerance)
{
    assert_true(fabs(a - b) <= tolerance * fabs(b));
}

static void eval_is_the_stated_sum(void **state)
{
    (void)state;
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    assert_non_null(cost);
    apmw_chunk chunks[2] = {{100, 900, 1}, {50, 0, 0}};
    apmw_step_load load = {.n_seqs = 8, .rank_tokens = 158, .total_seqs = 8, .total_tokens = 158,
                           .kv = {8000, 1024}, .chunks = chunks, .n_chunks = 2};
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    double pairs = 100 * (900 + 50.5) + 50 * 25.5;
    near_rel(work.time_s, 2e-3 + 158e-5 + 24e-6 + 8e-6 + 4.096e-6 + 2e-12 * pairs, 1e-12);
    near_rel(work.flops, 158e9, 1e-12);
    near_rel(work.bytes, 5e9 + 800000 + 10240, 1e-12);
    assert_int_equal(cost->n_accelerators, 4);
    assert_true(cost->kv_cap[1] == 128);
    apmw_step_cost_free(cost);
}

static void sum_equals_summed_evals(void **state)
{
    (void)state;
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    assert_non_null(cost);
    apmw_step_load load = {.n_seqs = 8, .rank_tokens = 8, .total_seqs = 8, .total_tokens = 8, .kv = {8123, 900}};
    const double growth[APMW_KV_KINDS] = {8, 3, 0, 0};
    apmw_step_work total = {0}, one, sum;
    apmw_step_load at = load;
    for (int i = 0; i < 777; i++) {
        apmw_step_cost_eval(cost, &at, &one);
        total.time_s += one.time_s;
        total.kernel_s += one.kernel_s;
        total.flops += one.flops;
        total.bytes += one.bytes;
        for (int k = 0; k < 2; k++) {
            at.kv[k] += growth[k];
        }
    }
    apmw_step_cost_sum(cost, &load, growth, 777, &sum);
    near_rel(sum.time_s, total.time_s, 1e-9);
    near_rel(sum.kernel_s, total.kernel_s, 1e-9);
    near_rel(sum.flops, total.flops, 1e-9);
    near_rel(sum.bytes, total.bytes, 1e-9);
    apmw_step_cost_free(cost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(eval_is_the_stated_sum),
                                       cmocka_unit_test(sum_equals_summed_evals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
