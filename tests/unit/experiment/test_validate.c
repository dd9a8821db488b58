/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Predictions of measured points: costs laid over costs, errors and groups by hand, reasons, the fixed JSON shape, the
 * same bytes with any number of threads, and how near sums of measured kernels come without a fitted number. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "apmw/validate.h"

static const char *const header =
    "id,platform,model,engine,precision,mode,isl,osl,concurrency,accelerators,tp,pp,attention_dp,moe_tp,moe_ep,"
    "prefill_workers,prefill_tp,prefill_attention_dp,prefill_moe_ep,decode_workers,decode_tp,decode_attention_dp,"
    "decode_moe_ep,spec_method,length_range_ratio,statistic,ttft_ms,tpot_ms,measured,server_certainty,token_budget,"
    "max_seqs,kv_memory_fraction\n";

static apmw_catalog *catalog;

static int open_catalog(void **state)
{
    (void)state;
    apmw_error err = {0};
    return apmw_catalog_open(APMW_SOURCE_DIR, &catalog, &err) == APMW_OK ? 0 : -1;
}

static int close_catalog(void **state)
{
    (void)state;
    apmw_catalog_free(catalog);
    return 0;
}

static void near(double a, double b, double relative)
{
    if (!(fabs(a - b) <= relative * fabs(b)))
        fail_msg("%.12g is not %.12g", a, b);
}

static void parse(const char *rows, apmw_points *out)
{
    char text[8192];
    apmw_csv *csv = NULL;
    apmw_error err = {0};
    int n = snprintf(text, sizeof text, "%s%s", header, rows);
    assert_int_equal(apmw_csv_parse("rows.csv", text, (size_t)n, &csv, &err), APMW_OK);
    if (apmw_points_from_csv(csv, "rows.csv", APMW_SOURCE_DIR, out, &err) != APMW_OK)
        fail_msg("%s", err.message);
    apmw_csv_free(csv);
}

static void run(const apmw_points *points, bool no_fit, apmw_validation *out)
{
    apmw_error err = {0};
    const apmw_validate_options options = {.no_fit = no_fit};
    if (apmw_validate_run(catalog, points, NULL, &options, out, &err) != APMW_OK)
        fail_msg("%s", err.message);
}

/* Laying an overhead over a composed cost is the same as composing with it. */
static void laid_overhead_is_composed_overhead(void **state)
{
    (void)state;
    apmw_serving_spec spec = {.platform = "h200", .model = "llama-3.1-70b", .engine = "vllm", .precision = "fp8",
                              .layout = {.tp = 4, .pp = 1, .attention_dp = 1, .moe_tp = 1, .moe_ep = 1}};
    const apmw_overhead overhead = {.layer_s = 17e-6, .seq_s = 11e-6, .prefill_floor_layer_s = 2e-4, .prefill_scale = 1.3,
                                    .kernel_extra = 0.07};
    apmw_error err = {0};
    apmw_step_cost *with = NULL, *without = NULL;
    assert_int_equal(apmw_compose(catalog, &spec, &overhead, &with, NULL, &err), APMW_OK);
    assert_int_equal(apmw_compose(catalog, &spec, NULL, &without, NULL, &err), APMW_OK);
    apmw_step_cost *laid = apmw_overhead_cost(without, &overhead, 80);
    const apmw_chunk chunks[2] = {{.new_tokens = 900, .is_last = 1}, {.new_tokens = 300, .past_tokens = 4000}};
    const apmw_chunk small = {.new_tokens = 8, .is_last = 1};
    apmw_step_load loads[] = {
        {.n_seqs = 32, .rank_tokens = 32, .total_seqs = 32, .total_tokens = 32, .kv = {32 * 3000.0}},
        {.n_seqs = 32, .rank_tokens = 1232, .total_seqs = 32, .total_tokens = 1232, .kv = {32 * 3000.0}, .chunks = chunks,
         .n_chunks = 2},
        {.rank_tokens = 1200, .total_tokens = 1200, .chunks = chunks, .n_chunks = 2},
        {.rank_tokens = 8, .total_tokens = 8, .chunks = &small, .n_chunks = 1}}; /* the floor acts */
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        apmw_step_work a, b;
        apmw_step_cost_eval(with, &loads[i], &a);
        apmw_step_cost_eval(laid, &loads[i], &b);
        near(b.time_s, a.time_s, 1e-9);
        near(b.kernel_s, a.kernel_s, 1e-9);
    }
    apmw_step_work a, b, floor;
    const double growth[APMW_KV_KINDS] = {32};
    apmw_step_cost_sum(with, &loads[0], growth, 100, &a);
    apmw_step_cost_sum(laid, &loads[0], growth, 100, &b);
    near(b.time_s, a.time_s, 1e-9);
    apmw_step_cost_eval(laid, &loads[3], &floor);
    near(floor.time_s, 80 * (2e-4 + 17e-6), 1e-9);
    apmw_step_cost_free(laid);
    apmw_step_cost_free(with);
    apmw_step_cost_free(without);
}

static void decode_workers_run_no_prompts(void **state)
{
    (void)state;
    const apmw_linear_cost numbers = {.fixed_s = 1e-3, .per_token_s = 1e-5, .per_seq_s = 1e-5, .per_kv_s = {1e-9},
                                      .per_pair_s = 1e-9, .n_kinds = 1, .kv_cap = {INT64_MAX}, .n_accelerators = 8};
    apmw_step_cost *inner = apmw_step_cost_linear(&numbers), *decode = apmw_decode_only_cost(inner);
    const apmw_chunk chunk = {.new_tokens = 5000, .is_last = 1};
    apmw_step_load mixed = {.n_seqs = 10, .rank_tokens = 5010, .total_seqs = 10, .total_tokens = 5010, .kv = {1e4},
                            .chunks = &chunk, .n_chunks = 1};
    apmw_step_load plain = {.n_seqs = 10, .rank_tokens = 10, .total_seqs = 10, .total_tokens = 10, .kv = {1e4}};
    apmw_step_load arrival = {.rank_tokens = 5000, .total_tokens = 5000, .chunks = &chunk, .n_chunks = 1};
    apmw_step_work a, b;
    apmw_step_cost_eval(decode, &mixed, &a);
    apmw_step_cost_eval(inner, &plain, &b);
    near(a.time_s, b.time_s, 1e-12);
    apmw_step_cost_eval(decode, &arrival, &a);
    assert_true(a.time_s > 0 && a.time_s < 1e-8 && a.flops == 0);
    apmw_step_cost_free(decode);
    apmw_step_cost_free(inner);
}

/* Errors of hand-made predictions: +10 %, -20 %, +40 % of one group; the excluded and the unsupported row stay out. */
static void groups_by_hand(void **state)
{
    (void)state;
    apmw_points points;
    parse("a,h200,m,vllm,fp8,agg,1024,1024,4,2,2,,,,,,,,,,,,,none,,,100,10,,,,,\n"
          "b,h200,m,vllm,fp8,agg,1024,1024,8,2,2,,,,,,,,,,,,,none,,,100,10,,,,,\n"
          "c,h200,m,vllm,fp8,agg,1024,1024,16,2,2,,,,,,,,,,,,,none,,,100,10,,,,,\n"
          "d,h200,m,vllm,fp8,agg,1024,1024,32,2,2,,,,,,,,,,,,,none,,,100,10,,,,,\n"
          "e,b300,deepseek-v3-r1,sglang,fp4,agg,1024,1024,4,8,8,,,,,,,,,,,,,none,,,100,10,2026-04-17,,,,\n", &points);
    assert_string_not_equal(points.items[4].excluded, "");
    const double tpot[5] = {11, 8, 14, 10, 10};
    apmw_prediction predictions[5];
    bool selected[5] = {true, true, true, true, true};
    for (int i = 0; i < 5; i++)
        predictions[i] = (apmw_prediction){.supported = i != 3, .tpot_ms = tpot[i], .ttft_ms = 100, .power_w = (double)NAN,
                                             .tpot_ln_sd = 0.15, .ttft_ln_sd = (double)NAN};
    const apmw_validation v = {.points = &points, .predictions = predictions, .selected = selected};
    near(apmw_validation_error(&v, 1, APMW_METRIC_TPOT), -0.2, 1e-12);
    /* 1.645 x 0.15 = 0.247: ln 1.1 = 0.095 and ln 0.8 = -0.223 lie inside, ln 1.4 = 0.336 does not. */
    assert_true(apmw_validation_within90(&v, 0, APMW_METRIC_TPOT) > 0.5);
    assert_true(apmw_validation_within90(&v, 1, APMW_METRIC_TPOT) > 0.5);
    assert_true(apmw_validation_within90(&v, 2, APMW_METRIC_TPOT) < 0.5);
    assert_true(isnan(apmw_validation_within90(&v, 3, APMW_METRIC_TPOT)));
    assert_true(isnan(apmw_validation_within90(&v, 0, APMW_METRIC_TTFT)));
    assert_true(isnan(apmw_validation_error(&v, 3, APMW_METRIC_TPOT)));
    assert_true(isnan(apmw_validation_error(&v, 0, APMW_METRIC_POWER)));
    apmw_validation_group *groups;
    size_t n;
    apmw_error err = {0};
    assert_int_equal(apmw_validation_groups(&v, APMW_HALF_ALL, false, &groups, &n, &err), APMW_OK);
    assert_int_equal(n, 4); /* two groups, two metrics */
    for (size_t i = 0; i < n; i++) {
        if (groups[i].metric == APMW_METRIC_TTFT)
            assert_true(isnan(groups[i].within90));
        if (groups[i].metric != APMW_METRIC_TPOT || groups[i].excluded)
            continue;
        near(groups[i].within90, 2.0 / 3, 1e-12);
        assert_int_equal(groups[i].n, 3);
        near(groups[i].median_signed, 0.1, 1e-9);
        near(groups[i].median_abs, 0.2, 1e-9);
        near(groups[i].mean_abs, 0.7 / 3, 1e-9);
        near(groups[i].p90_abs, 0.36, 1e-9); /* 0.2 + 0.8 x (0.4 - 0.2) */
    }
    free(groups);
    apmw_points_free(&points);
}

static void reasons_for_rows_that_cannot_be(void **state)
{
    (void)state;
    static const struct {
        const char *row, *reason;
    } cases[] = {
        {"a,h200,llama-3.1-70b,vllm,fp8,agg,1024,1024,,4,4,,,,,,,,,,,,,none,,,1,1,,,,,\n", "no concurrency"},
        {"a,h200,llama-3.1-70b,vllm,fp8,agg,,1024,4,4,4,,,,,,,,,,,,,none,,,1,1,,,,,\n", "length"},
        {"a,h201,llama-3.1-70b,vllm,fp8,agg,1024,1024,4,4,4,,,,,,,,,,,,,none,,,1,1,,,,,\n", "h20"},
        {"a,h200,llama-3.1-71b,vllm,fp8,agg,1024,1024,4,4,4,,,,,,,,,,,,,none,,,1,1,,,,,\n", "llama-3.1-70b"},
        {"a,h200,llama-3.1-70b,tgi,fp8,agg,1024,1024,4,4,4,,,,,,,,,,,,,none,,,1,1,,,,,\n", "tgi"},
        {"a,h200,llama-3.1-70b,vllm,fp8,agg,1024,1024,4,4,4,2,,,,,,,,,,,,none,,,1,1,,,,,\n", "pipeline"},
        {"a,h100,deepseek-v3-r1,vllm,fp8,agg,1024,1024,4,2,2,,,,,,,,,,,,,none,,,1,1,,,,,\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apmw_points points;
        apmw_validation v;
        parse(cases[i].row, &points);
        run(&points, true, &v);
        assert_false(v.predictions[0].supported);
        assert_true(isnan(v.predictions[0].tpot_ms));
        assert_true(v.predictions[0].reason[0] != '\0');
        if (!strstr(v.predictions[0].reason, cases[i].reason))
            fail_msg("\"%s\" does not speak of \"%s\"", v.predictions[0].reason, cases[i].reason);
        assert_int_equal(v.n_supported, 0);
        apmw_validation_free(&v);
        apmw_points_free(&points);
    }
}

/* Rows of the fit half, predicted by sums of measured kernels and scheduler rules alone. The bands are what the
 * composition came to on them; a row rule or a scheduler rule that breaks shows here. Llama-70B FP8 B200 TensorRT-LLM TP 1,
 * gpt-oss H200 TensorRT-LLM TP 4 (1k/1k, 64 in flight), Kimi-K2.5 FP4 B300 vLLM TP 4. */
static const char *const measured_rows =
    "llama,b200,llama-3.1-70b,trtllm,fp8,agg,1024,1024,16,1,1,1,1,1,1,,,,,,,,,none,0.8,mean,,,2025-10-29,known,16384,,\n"
    "gptoss,h200,gpt-oss-120b,trtllm,fp4,agg,1024,1024,64,4,4,1,1,4,1,,,,,,,,,none,0.8,mean,,,2025-11-20,known,20000,64,0.85\n"
    "kimi,b300,kimi-k2.5,vllm,fp4,agg,1024,1024,16,4,4,1,1,4,1,,,,,,,,,none,0.8,mean,,,2026-04-20,known,,16,0.90\n";

static void same_bytes_with_any_number_of_threads(void **state)
{
    (void)state;
    apmw_points points;
    apmw_buf text[2] = {{0}, {0}};
    parse(measured_rows, &points);
    for (int i = 0; i < 2; i++) {
        apmw_validation v;
        apmw_error err = {0};
        omp_set_num_threads(1 + 2 * i);
        run(&points, false, &v);
        apmw_json_writer w = apmw_json_writer_make(&text[i]);
        apmw_json_begin_object(&w, NULL);
        assert_int_equal(apmw_validation_write(&v, &w, &err), APMW_OK);
        apmw_json_end_object(&w);
        apmw_validation_free(&v);
    }
    assert_string_equal(text[0].data, text[1].data);
    static const char *const keys[] = {"\"rows\"", "\"id\"", "\"platform\"", "\"model\"", "\"engine\"", "\"mode\"",
                                       "\"supported\": true", "\"reason\": null", "\"measured\"", "\"predicted\"",
                                       "\"ttft_ms\"", "\"tpot_ms\"", "\"power_w_per_gpu\"", "\"groups\""};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_non_null(strstr(text[0].data, keys[i]));
    for (int i = 0; i < 2; i++)
        apmw_buf_free(&text[i]);
    apmw_points_free(&points);
}

/* A whole file of real points: the fit half without any fitted number, and never less supported than now. */
static void no_fit_stays_as_near_as_it_was(void **state)
{
    (void)state;
    apmw_points points;
    apmw_validation v;
    apmw_error err = {0};
    assert_int_equal(apmw_points_load(APMW_SOURCE_DIR "/hwmodels/evidence/serving/points.csv.zst", APMW_SOURCE_DIR, &points, &err),
                     APMW_OK);
    bool *keep = calloc(points.n, sizeof *keep);
    static const struct {
        const char *platform, *model, *engine;
        double tpot, ttft; /* median absolute errors that must not be exceeded */
    } bands[] = {{"h200", "gpt-oss-120b", "trtllm", 0.07, 0.45}, {"b200", "gpt-oss-120b", "trtllm", 0.06, 0.60},
                 {"b200", "llama-3.1-70b", "trtllm", 0.05, 0.20}, {"h200", "llama-3.1-70b", "vllm", 0.13, 0.25},
                 {"h200", "deepseek-v3-r1", "trtllm", 0.15, 0.40}, {"h200", "deepseek-v3-r1", "sglang", 0.10, 0.55}};
    for (size_t i = 0; i < points.n; i++)
        for (size_t b = 0; b < sizeof bands / sizeof bands[0]; b++)
            keep[i] = keep[i] || (!points.items[i].disagg && !points.items[i].speculative &&
                                  strcmp(points.items[i].platform, bands[b].platform) == 0 &&
                                  strcmp(points.items[i].model, bands[b].model) == 0 &&
                                  strcmp(points.items[i].engine, bands[b].engine) == 0);
    const apmw_validate_options options = {.no_fit = true, .half = APMW_HALF_FIT};
    assert_int_equal(apmw_validate_run(catalog, &points, keep, &options, &v, &err), APMW_OK);
    assert_int_equal(v.n_supported, v.n_selected);
    apmw_validation_group *groups;
    size_t n, seen = 0;
    assert_int_equal(apmw_validation_groups(&v, APMW_HALF_FIT, false, &groups, &n, &err), APMW_OK);
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < sizeof bands / sizeof bands[0]; b++) {
            if (strcmp(groups[i].platform, bands[b].platform) != 0 || strcmp(groups[i].model, bands[b].model) != 0 ||
                strcmp(groups[i].engine, bands[b].engine) != 0 || groups[i].metric == APMW_METRIC_POWER)
                continue;
            double limit = groups[i].metric == APMW_METRIC_TPOT ? bands[b].tpot : bands[b].ttft;
            if (!(groups[i].median_abs <= limit))
                fail_msg("%s %s %s %s: %.3f above %.3f", groups[i].platform, groups[i].model, groups[i].engine,
                         apmw_metric_name(groups[i].metric), groups[i].median_abs, limit);
            seen++;
        }
    assert_int_equal(seen, 2 * sizeof bands / sizeof bands[0]);
    free(groups);
    free(keep);
    apmw_validation_free(&v);
    apmw_points_free(&points);
}

/* A disaggregated point: the client's first token waits for prompt, transfer and decode worker; more prefill workers
 * shorten it and leave the time per token alone. */
static void disaggregated_points(void **state)
{
    (void)state;
    apmw_points points;
    apmw_validation v;
    parse("one,gb200,gpt-oss-120b,trtllm,fp4,disagg,8192,1024,64,8,,,,,,1,2,1,1,1,4,1,1,none,0.8,mean,,,2026-01-07,known,,,\n"
          "two,gb200,gpt-oss-120b,trtllm,fp4,disagg,8192,1024,64,8,,,,,,2,2,1,1,1,4,1,1,none,0.8,mean,,,2026-01-07,known,,,\n",
          &points);
    run(&points, true, &v);
    for (int i = 0; i < 2; i++)
        if (!v.predictions[i].supported)
            fail_msg("%s", v.predictions[i].reason);
    assert_true(v.predictions[1].ttft_ms < v.predictions[0].ttft_ms);
    assert_true(fabs(v.predictions[1].tpot_ms / v.predictions[0].tpot_ms - 1) < 0.3);
    assert_true(v.predictions[0].use[0].busy_share > v.predictions[1].use[0].busy_share);
    apmw_validation_free(&v);
    apmw_points_free(&points);
}

/* What a first burst compiles is in means alone: a prompt of a rank pays for itself and for all before it. */
static void first_bursts_are_in_means(void **state)
{
    (void)state;
    apmw_points points;
    apmw_validation with, without;
    parse("one,gb200,deepseek-v3-r1,trtllm,fp4,disagg,1024,64,64,16,,,,,,2,1,4,4,1,1,8,8,none,0.8,mean,100,10,2025-12-05,known,,,\n"
          "med,gb200,deepseek-v3-r1,trtllm,fp4,disagg,1024,64,64,16,,,,,,2,1,4,4,1,1,8,8,none,0.8,median,100,10,2025-12-05,known,,,\n",
          &points);
    run(&points, true, &with);
    const double cost_s = points.items[0].burst_prompt_s;
    assert_true(cost_s > 0);
    points.items[0].burst_prompt_s = points.items[1].burst_prompt_s = 0;
    run(&points, true, &without);
    if (!with.predictions[0].supported || !with.predictions[1].supported)
        fail_msg("%s", with.predictions[0].reason);
    const apmw_point *p = &points.items[0];
    const double ranks = (double)p->workers[0] * fmax(p->layout[0].attention_dp, 1), share = 0.1;
    near(with.predictions[0].ttft_ms - without.predictions[0].ttft_ms, share * 1e3 * cost_s * (64 / ranks + 1) / 2, 1e-9);
    assert_true(with.predictions[1].ttft_ms == without.predictions[1].ttft_ms);
    apmw_validation_free(&with);
    apmw_validation_free(&without);
    apmw_points_free(&points);
}

/* The pool that a server is told to keep to is the one simulated: where it holds one prompt, the next waits until the KV of the
 * one before has been handed over. And a decode worker's limit of tokens a step is none for prompts that come as KV. */
static void pools_as_stated(void **state)
{
    (void)state;
    static const char text[] =
        "id,platform,model,engine,precision,mode,isl,osl,concurrency,prefill_workers,prefill_tp,prefill_attention_dp,"
        "prefill_moe_ep,decode_workers,decode_tp,decode_attention_dp,decode_moe_ep,spec_method,measured,server_certainty,"
        "token_budget,server_other\n"
        "wide,gb200,deepseek-v3-r1,sglang,fp4,disagg,4096,256,64,1,4,1,1,4,4,1,1,none,2026-02-08,known,P:32768 D:-,\n"
        "tight,gb200,deepseek-v3-r1,sglang,fp4,disagg,4096,256,64,1,4,1,1,4,4,1,1,none,2026-02-08,known,P:32768 D:-,"
        "P:max-total-tokens=6144 D:-\n"
        "whole,gb200,gpt-oss-120b,trtllm,fp4,disagg,8192,1024,64,1,2,1,1,1,4,1,1,none,2026-01-07,known,P:- D:64,\n";
    apmw_csv *csv = NULL;
    apmw_points points;
    apmw_validation v;
    assert_int_equal(apmw_csv_parse("test", text, strlen(text), &csv, NULL), APMW_OK);
    assert_int_equal(apmw_points_from_csv(csv, "test", APMW_SOURCE_DIR, &points, NULL), APMW_OK);
    apmw_csv_free(csv);
    run(&points, true, &v);
    for (int i = 0; i < 3; i++)
        if (!v.predictions[i].supported)
            fail_msg("%s", v.predictions[i].reason);
    assert_true(v.predictions[1].ttft_ms > 1.1 * v.predictions[0].ttft_ms);
    apmw_validation_free(&v);
    apmw_points_free(&points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(laid_overhead_is_composed_overhead), cmocka_unit_test(decode_workers_run_no_prompts),
        cmocka_unit_test(groups_by_hand), cmocka_unit_test(reasons_for_rows_that_cannot_be),
        cmocka_unit_test(same_bytes_with_any_number_of_threads), cmocka_unit_test(no_fit_stays_as_near_as_it_was),
        cmocka_unit_test(disaggregated_points), cmocka_unit_test(first_bursts_are_in_means), cmocka_unit_test(pools_as_stated),
    };
    return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
