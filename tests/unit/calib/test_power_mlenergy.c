/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a step of the power benchmark costs beside its composed kernels: rows of padded experts, the host's floor of prompt
 * steps where no captured graph replaces it, and which models are composed at all. Expected values are sums made here. */
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/compose.h"
#include "apmw/fit_power.h"

static const char header[] = "model,task,weight_precision,arch,total_B,active_B,gpu,num_gpus,dp,ep,avg_batch,"
                             "avg_output_len,avg_power_W_total,out_tok_per_s\n";
enum { PROMPT = 250 }; /* hwmodels/rules/power.json */
static const double host_s_per_seq = 50e-6;

static apmw_catalog *catalog;

static int open_catalog(void **state)
{
    (void)state;
    apmw_error err = {0};
    assert_ok(apmw_catalog_open(APMW_SOURCE_DIR, &catalog, &err), &err);
    return 0;
}

static int close_catalog(void **state)
{
    (void)state;
    apmw_catalog_free(catalog);
    return 0;
}

/* One row of the table; `batch` tokens are put out in a second, so a measured step lasts one. */
static apmw_power_row read_row(const char *model, const char *precision, const char *gpu, int gpus, int ep, double batch,
                               double out_len, char *notes, size_t size)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s,chat,%s,x,109,17,%s,%d,1,%d,%g,%g,%d,%g\n", header, model, precision, gpu, gpus, ep,
             batch, out_len, 500 * gpus, batch);
    const char *path = test_path(test_directory(), "rows.csv");
    test_write(path, text, strlen(text));
    apmw_power_row *rows = NULL;
    size_t n = 0;
    apmw_buf said = {0};
    apmw_error err = {0};
    assert_ok(apmw_power_rows_mlenergy(catalog, path, &rows, &n, &said, &err), &err);
    assert_int_equal(n, 1);
    apmw_power_row row = rows[0];
    apmw_copy(notes, size, said.data ? said.data : "");
    apmw_buf_free(&said);
    free(rows);
    return row;
}

/* A pass of `batch` decoding sequences, with one prompt or without, under the fitted overhead with its floor or without. */
static apmw_step_work pass(const char *llm, const char *precision, const char *platform, int gpus, int ep, double batch,
                           double context, int prompts, int with_floor)
{
    apmw_serving_spec spec = {.layout = {.tp = gpus, .pp = 1, .attention_dp = 1, .moe_ep = ep, .moe_tp = gpus / ep}};
    apmw_overhead overhead;
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    apmw_copy(spec.platform, sizeof spec.platform, platform);
    apmw_copy(spec.model, sizeof spec.model, llm);
    apmw_copy(spec.engine, sizeof spec.engine, "vllm");
    apmw_copy(spec.precision, sizeof spec.precision, precision);
    apmw_copy(spec.kv_dtype, sizeof spec.kv_dtype, "bf16");
    assert_ok(apmw_overhead_lookup(catalog, &spec, &overhead, &err), &err);
    if (!with_floor)
        overhead.prefill_floor_layer_s = 0;
    assert_ok(apmw_compose(catalog, &spec, &overhead, &cost, NULL, &err), &err);
    apmw_chunk chunk = {.new_tokens = PROMPT, .is_last = 1};
    apmw_step_load load = {.n_seqs = llround(batch), .total_seqs = llround(batch)};
    load.rank_tokens = load.total_tokens = llround(batch) + (prompts ? PROMPT : 0);
    load.chunks = prompts ? &chunk : NULL;
    load.n_chunks = prompts ? 1 : 0;
    for (int k = 0; k < cost->n_kinds; k++)
        load.kv[k] = batch * context;
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    apmw_step_cost_free(cost);
    return work;
}

/* Every expert that an accelerator holds adds 127 rows in each of the 94 layers: gate and up product, activation and its
 * quantised copy of width 1,536 (14 bytes), input and output of width 4,096 (3 bytes), at 19 % of 8 TB/s. */
static void experts_of_fp8_are_padded(void **state)
{
    (void)state;
    static const char model[] = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8";
    char notes[512];
    for (int gpus = 2; gpus <= 4; gpus *= 2) {
        apmw_power_row row = read_row(model, "fp8", "B200", gpus, gpus, 8, 1e6, notes, sizeof notes);
        apmw_step_work plain = pass("qwen3-235b-a22b", "fp8", "b200", gpus, gpus, 8, PROMPT + 5e5, 0, 1);
        double bytes = 94.0 * (128.0 / gpus) * 127.0 * (14 * 1536 + 3 * 4096);
        double padded_s = bytes / (0.19 * 8e12);
        assert_string_equal(notes, "");
        assert_true(padded_s > 0.01 / gpus);
        assert_near_relative(row.kernel_s, plain.kernel_s + padded_s, 1e-3);
        assert_near_relative(row.simulated_step_s, plain.time_s + padded_s + 8 * host_s_per_seq, 1e-3);
        assert_near_relative(row.measured.bw_util, (plain.bytes + bytes) / 8e12, 1e-3);
    }
}

static void bf16_experts_are_not(void **state)
{
    (void)state;
    char notes[512];
    apmw_power_row row = read_row("Qwen/Qwen3-235B-A22B-Thinking-2507", "bfloat16", "B200", 4, 4, 8, 1e6, notes, sizeof notes);
    apmw_step_work plain = pass("qwen3-235b-a22b", "bf16", "b200", 4, 4, 8, PROMPT + 5e5, 0, 1);
    assert_near_relative(row.kernel_s, plain.kernel_s, 1e-3);
}

/* As many sequences as output tokens: every step takes a prompt. 128 + 250 tokens fit a captured graph, 384 + 250 do not. */
static void a_captured_graph_has_no_floor(void **state)
{
    (void)state;
    static const char model[] = "meta-llama/Llama-3.1-70B-Instruct";
    char notes[512];
    for (double batch = 128; batch < 400; batch += 256) {
        apmw_power_row row = read_row(model, "bfloat16", "B200", 2, 1, batch, batch, notes, sizeof notes);
        apmw_step_work bare = pass("llama-3.1-70b", "bf16", "b200", 2, 1, batch, PROMPT + batch / 2, 1, 0);
        apmw_step_work floored = pass("llama-3.1-70b", "bf16", "b200", 2, 1, batch, PROMPT + batch / 2, 1, 1);
        assert_true(floored.time_s > 1.2 * bare.time_s); /* else the two cannot be told apart */
        const apmw_step_work *expected = batch < 200 ? &bare : &floored;
        assert_near_relative(row.simulated_step_s, expected->time_s + batch * host_s_per_seq, 1e-6);
    }
}

/* Its expert shape is in the kernel tables; a roofline would leave out its all-reduces and its shared products. */
static void scout_is_composed(void **state)
{
    (void)state;
    char notes[512];
    apmw_power_row row = read_row("meta-llama/Llama-4-Scout-17B-16E-Instruct", "bfloat16", "H100", 4, 4, 1, 1e5, notes, sizeof notes);
    assert_string_equal(notes, "");
    assert_true(row.composed);
    /* one sequence reads 16.1 B parameters in bf16, 50,250 tokens of KV and one of 16 experts a layer on one rank of four:
     * always read 20.2 GB / 4, an expert of 251.7 MB on a rank that one token hits in 1 of 4 cases, KV 196,608 bytes / 4 */
    double bytes = 20.196e9 / 4 + 48 * 251.658e6 / 4 + 50250 * 196608.0 / 4;
    assert_near_relative(row.measured.bw_util * 3.35e12, bytes, 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_of_fp8_are_padded),
        cmocka_unit_test(bf16_experts_are_not),
        cmocka_unit_test(a_captured_graph_has_no_floor),
        cmocka_unit_test(scout_is_composed),
    };
    return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
