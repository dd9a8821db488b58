/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Laws of every composed cost: a sum is the sum of its steps, time never falls when work is added. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "apmw/compose.h"
#include "apmw/rng.h"

static const struct {
    const char *platform, *model, *engine, *precision;
    apmw_layout layout;
    int draft;
} deployments[] = {{"b200", "gpt-oss-120b", "vllm", "fp4", {.tp = 2}, 0},
                   {"h200", "deepseek-v3-r1", "sglang", "fp8", {.tp = 8}, 0},
                   {"b200", "deepseek-v3-r1", "trtllm", "fp4", {.tp = 1, .attention_dp = 4, .moe_ep = 4}, 3},
                   {"gb300", "deepseek-v4-pro", "sglang", "fp4", {.tp = 8}, 1},
                   {"b200", "qwen3.5-397b", "sglang", "fp8", {.tp = 8}, 0},
                   {"h100", "qwen3-8b", "vllm", "bf16", {.tp = 1}, 0},
                   {"mi355x", "deepseek-v3-r1", "sglang", "fp4", {.tp = 8}, 0}};
enum { N_DEPLOYMENTS = sizeof deployments / sizeof *deployments };
static apmw_step_cost *cost[N_DEPLOYMENTS];

static int compose_all(void **state)
{
    (void)state;
    apmw_catalog *catalog = NULL;
    apmw_error err = {0};
    if (apmw_catalog_open(APMW_SOURCE_DIR, &catalog, &err)) {
        return 1;
    }
    apmw_overhead o = {.layer_s = 12e-6, .seq_s = 9e-6, .prefill_scale = 1.1};
    for (int i = 0; i < N_DEPLOYMENTS; i++) {
        apmw_serving_spec s = {.layout = deployments[i].layout, .draft_tokens = deployments[i].draft};
        strcpy(s.platform, deployments[i].platform);
        strcpy(s.model, deployments[i].model);
        strcpy(s.engine, deployments[i].engine);
        strcpy(s.precision, deployments[i].precision);
        if (apmw_compose(catalog, &s, &o, &cost[i], NULL, &err)) {
            print_error("%s\n", err.message);
            return 1;
        }
    }
    apmw_catalog_free(catalog); /* a cost owns what it needs */
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    for (int i = 0; i < N_DEPLOYMENTS; i++) {
        apmw_step_cost_free(cost[i]);
    }
    return 0;
}

static apmw_step_load random_load(apmw_rng *rng, int i)
{
    int draft = deployments[i].draft, dp = deployments[i].layout.attention_dp > 1 ? deployments[i].layout.attention_dp : 1;
    int64_t seqs = (int64_t)apmw_rng_lognormal(rng, 20, 1.5) + 1;
    apmw_step_load load = {.n_seqs = seqs, .rank_tokens = seqs * (1 + draft), .total_seqs = seqs * dp,
                           .total_tokens = seqs * dp * (1 + draft)};
    double context = apmw_rng_lognormal(rng, 6000, 2);
    load.kv[0] = floor((double)seqs * context);
    load.kv[1] = floor((double)seqs * fmin(context, 100));
    return load;
}

static void near_rel(double a, double b, double tolerance)
{
    if (fabs(a - b) > tolerance * fabs(b) + 1e-300) {
        fail_msg("%.17g is not %.17g", a, b);
    }
}

static void sum_is_the_sum_of_steps(void **state)
{
    (void)state;
    apmw_rng rng = apmw_rng_make(7, "composed-sum", 0, 0);
    for (int round = 0; round < 300; round++) {
        int i = (int)apmw_rng_below(&rng, N_DEPLOYMENTS);
        apmw_step_load load = random_load(&rng, i);
        double growth[APMW_KV_KINDS] = {(double)load.n_seqs * (1 + apmw_rng_uniform(&rng)),
                                        round % 3 ? 0 : (double)load.n_seqs * 0.3};
        int64_t n = 1 + (int64_t)apmw_rng_below(&rng, round % 5 ? 300 : 5000);
        apmw_step_work total = {0}, one, sum;
        apmw_step_load at = load;
        for (int64_t s = 0; s < n; s++) {
            apmw_step_cost_eval(cost[i], &at, &one);
            total.time_s += one.time_s;
            total.kernel_s += one.kernel_s;
            total.flops += one.flops;
            total.bytes += one.bytes;
            total.outside += one.outside;
            for (int k = 0; k < APMW_KV_KINDS; k++) {
                at.kv[k] += growth[k];
            }
        }
        apmw_step_cost_sum(cost[i], &load, growth, n, &sum);
        near_rel(sum.time_s, total.time_s, 1e-9);
        near_rel(sum.kernel_s, total.kernel_s, 1e-9);
        near_rel(sum.flops, total.flops, 1e-9);
        near_rel(sum.bytes, total.bytes, 1e-9);
        near_rel(sum.outside, total.outside, 1e-9);
    }
}

static double time_of(int i, const apmw_step_load *load)
{
    apmw_step_work work;
    apmw_step_cost_eval(cost[i], load, &work);
    assert_true(isfinite(work.time_s) && work.time_s > 0);
    assert_true(isfinite(work.flops) && isfinite(work.bytes) && work.bytes > 0);
    assert_true(work.kernel_s <= work.time_s * (1 + 1e-12));
    return work.time_s;
}

/* Attention rows at one batch have small dips in measured time: 3 % is allowed there, none for the rest. */
static void more_work_never_takes_less(void **state)
{
    (void)state;
    apmw_rng rng = apmw_rng_make(8, "composed-monotone", 0, 0);
    for (int round = 0; round < 2000; round++) {
        int i = (int)apmw_rng_below(&rng, N_DEPLOYMENTS);
        apmw_step_load load = random_load(&rng, i), longer = load, mixed = load;
        longer.kv[0] *= 2;
        assert_true(time_of(i, &longer) > 0.97 * time_of(i, &load));
        apmw_chunk chunk = {1 + (int64_t)apmw_rng_below(&rng, 8000), (int64_t)apmw_rng_below(&rng, 200000), 1};
        mixed.chunks = &chunk;
        mixed.n_chunks = 1;
        mixed.rank_tokens += chunk.new_tokens;
        mixed.total_tokens += chunk.new_tokens;
        double t = time_of(i, &mixed);
        assert_true(t >= time_of(i, &load));
        chunk.new_tokens *= 2;
        mixed.rank_tokens += chunk.new_tokens / 2;
        mixed.total_tokens += chunk.new_tokens / 2;
        assert_true(time_of(i, &mixed) > 0.97 * t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sum_is_the_sum_of_steps),
                                       cmocka_unit_test(more_work_never_takes_less)};
    return cmocka_run_group_tests(tests, compose_all, free_all);
}
