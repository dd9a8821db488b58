/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "apmw/compose.h"

static apmw_catalog *catalog;

static int open_catalog(void **state)
{
    (void)state;
    return (int)apmw_catalog_open(APMW_SOURCE_DIR, &catalog, NULL);
}

static int close_catalog(void **state)
{
    (void)state;
    apmw_catalog_free(catalog);
    return 0;
}

static apmw_serving_spec spec_of(const char *platform, const char *model, const char *engine, const char *precision,
                                 apmw_layout layout)
{
    apmw_serving_spec s = {.layout = layout};
    strcpy(s.platform, platform);
    strcpy(s.model, model);
    strcpy(s.engine, engine);
    strcpy(s.precision, precision);
    strcpy(s.kv_dtype, "fp8");
    return s;
}

/* Pools that server logs print (hwmodels/evidence/serving/kv_reuse_facts.csv); 3 % is the rule's stated margin. */
static void pools_match_server_logs(void **state)
{
    (void)state;
    const struct {
        const char *model;
        int tp, ep;
        double tokens;
    } facts[] = {{"deepseek-v3-r1", 4, 4, 1901888}, {"llama-3.1-70b", 1, 1, 780992}, {"llama-3.1-70b", 2, 1, 1809120}};
    for (size_t i = 0; i < 3; i++) {
        apmw_serving_spec s = spec_of("b200", facts[i].model, "vllm", "fp4",
                                      (apmw_layout){.tp = facts[i].tp, .moe_ep = facts[i].ep});
        double tokens, weights;
        assert_int_equal(apmw_kv_pool_tokens(catalog, &s, 0.9, 8192, &tokens, &weights, NULL), APMW_OK);
        assert_true(fabs(tokens / facts[i].tokens - 1) < 0.03);
    }
}

/* The same share means less to TRT-LLM (of the rest) than to vLLM (of all). */
static void fraction_means_what_the_engine_means(void **state)
{
    (void)state;
    apmw_serving_spec v = spec_of("h200", "llama-3.1-70b", "vllm", "fp8", (apmw_layout){.tp = 4});
    apmw_serving_spec t = spec_of("h200", "llama-3.1-70b", "trtllm", "fp8", (apmw_layout){.tp = 4});
    double all, rest, w;
    assert_int_equal(apmw_kv_pool_tokens(catalog, &v, 0.5, 4096, &all, &w, NULL), APMW_OK);
    assert_int_equal(apmw_kv_pool_tokens(catalog, &t, 0.5, 4096, &rest, &w, NULL), APMW_OK);
    assert_true(rest > all); /* half of (memory - weights) exceeds half of memory - weights */
}

/* Latents are on every rank: four ranks hold no more tokens than the weights they free. Attention-DP replicates the
 * attention weights. */
static void latents_replicate_and_attention_dp_costs_weights(void **state)
{
    (void)state;
    apmw_serving_spec tp = spec_of("b200", "deepseek-v3-r1", "sglang", "fp8", (apmw_layout){.tp = 8, .moe_ep = 8});
    apmw_serving_spec dp = spec_of("b200", "deepseek-v3-r1", "sglang", "fp8",
                                   (apmw_layout){.tp = 1, .attention_dp = 8, .moe_ep = 8});
    double tokens_tp, tokens_dp, w_tp, w_dp;
    assert_int_equal(apmw_kv_pool_tokens(catalog, &tp, 0.85, 8192, &tokens_tp, &w_tp, NULL), APMW_OK);
    assert_int_equal(apmw_kv_pool_tokens(catalog, &dp, 0.85, 8192, &tokens_dp, &w_dp, NULL), APMW_OK);
    assert_true(w_dp > w_tp + 5e9);  /* 11.4 GB of attention instead of an eighth of it */
    assert_true(tokens_dp < tokens_tp);
}

static void too_large_weights_are_refused_with_sums(void **state)
{
    (void)state;
    apmw_serving_spec s = spec_of("h100", "deepseek-v3-r1", "sglang", "fp8", (apmw_layout){.tp = 4});
    apmw_error err = {0};
    double tokens = -1, w = 0;
    assert_int_equal(apmw_kv_pool_tokens(catalog, &s, NAN, 4096, &tokens, &w, &err), APMW_E_SCENARIO);
    assert_non_null(strstr(err.message, "does not fit"));
    assert_non_null(strstr(err.message, "GB"));
    assert_true(w > 150e9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pools_match_server_logs),
                                       cmocka_unit_test(fraction_means_what_the_engine_means),
                                       cmocka_unit_test(latents_replicate_and_attention_dp_costs_weights),
                                       cmocka_unit_test(too_large_weights_are_refused_with_sums)};
    return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
