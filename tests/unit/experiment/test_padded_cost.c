/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Captured batch sizes: which ones there are, what a padded pass costs, and a stretch as the sum of its passes. */
#include "apmw/padded_cost.h"
#include "apmw/points.h"

#include <math.h>
#include <string.h>

#include "test_support.h"

static apmw_step_cost *linear(void)
{
    const apmw_linear_cost numbers = {.fixed_s = 1e-3, .per_token_s = 1e-5, .per_seq_s = 1e-4, .per_kv_s = {1e-8}, .per_pair_s = 1e-12,
                                      .flops_per_token = 1e9, .bytes_per_step = 1e9, .n_kinds = 1, .kv_cap = {INT64_MAX},
                                      .n_accelerators = 1};
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    assert_non_null(cost);
    return cost;
}

static apmw_step_load decode(int64_t n, double kv)
{
    return (apmw_step_load){.n_seqs = n, .rank_tokens = n, .total_seqs = n, .total_tokens = n, .kv = {kv}};
}

static const apmw_graphs vllm_rows = {APMW_GRAPHS_VLLM, 0, APMW_PADDING_ROWS},
                         vllm_sequences = {APMW_GRAPHS_VLLM, 0, APMW_PADDING_SEQUENCES},
                         vllm_none = {APMW_GRAPHS_VLLM, 0, APMW_PADDING_NONE};

/* Capture sizes of vLLM's configuration. */
static void sizes(void **state)
{
    (void)state;
    static const int64_t pairs[][2] = {{1, 1},     {2, 2},     {3, 4},     {4, 4},     {5, 8},     {8, 8},     {9, 16},
                                       {17, 24},   {24, 24},   {249, 256}, {256, 256}, {257, 272}, {497, 512}, {512, 512},
                                       {513, 513}, {900, 900}, {0, 0}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_int_equal(apmw_graph_batch(&vllm_rows, pairs[i][0]), pairs[i][1]);
    }
}

/* Other engines capture other sizes; the largest one is the server's own, and beyond it no graph runs. */
static void sizes_of_engines_and_servers(void **state)
{
    (void)state;
    static const struct {
        apmw_graph_sizes sizes;
        int64_t max, n, want;
    } cases[] = {{APMW_GRAPHS_SGLANG, 0, 9, 12},     {APMW_GRAPHS_SGLANG, 0, 13, 16},     {APMW_GRAPHS_SGLANG, 0, 241, 248},
                 {APMW_GRAPHS_SGLANG, 128, 129, 129}, {APMW_GRAPHS_TRTLLM, 0, 9, 16},      {APMW_GRAPHS_TRTLLM, 0, 121, 128},
                 {APMW_GRAPHS_TRTLLM, 0, 129, 256},   {APMW_GRAPHS_TRTLLM, 0, 257, 512},   {APMW_GRAPHS_TRTLLM, 0, 2049, 2049},
                 {APMW_GRAPHS_TRTLLM, 160, 129, 160}, {APMW_GRAPHS_TRTLLM, 160, 161, 161}, {APMW_GRAPHS_VLLM, 2048, 520, 528},
                 {APMW_GRAPHS_VLLM, 20, 18, 20},      {APMW_GRAPHS_NONE, 0, 9, 9}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const apmw_graphs graphs = {cases[i].sizes, cases[i].max, APMW_PADDING_ROWS};
        assert_int_equal(apmw_graph_batch(&graphs, cases[i].n), cases[i].want);
    }
}

/* A cost that is shared stays its owner's. */
static void borrowed(void **state)
{
    (void)state;
    apmw_step_cost *plain = linear(), *padded = apmw_step_cost_padded(plain, false, &vllm_rows);
    const apmw_step_load load = decode(8, 5e5);
    apmw_step_work before, after;
    apmw_step_cost_eval(padded, &load, &before);
    apmw_step_cost_free(padded);
    apmw_step_cost_eval(plain, &load, &after);
    assert_same_double(before.time_s, after.time_s);
    apmw_step_cost_free(plain);
}

/* By the engine's name and what is said; nothing said is no padding, and an engine without a list cannot pad. */
static void graphs_of_settings(void **state)
{
    (void)state;
    apmw_engine_settings settings = {.graph_max_batch = (double)NAN};
    apmw_graphs graphs;
    apmw_error err = {0};
    assert_ok(apmw_settings_graphs(&settings, "atom", &graphs, &err), &err);
    assert_int_equal(graphs.padding, APMW_PADDING_NONE);
    strcpy(settings.graph_padding, "rows");
    settings.graph_max_batch = 256;
    assert_ok(apmw_settings_graphs(&settings, "trtllm", &graphs, &err), &err);
    assert_int_equal(graphs.sizes, APMW_GRAPHS_TRTLLM);
    assert_int_equal(graphs.padding, APMW_PADDING_ROWS);
    assert_int_equal(graphs.max_batch, 256);
    assert_error(apmw_settings_graphs(&settings, "atom", &graphs, &err), APMW_E_SCENARIO, &err, "atom");
    strcpy(settings.graph_padding, "row");
    assert_error(apmw_settings_graphs(&settings, "vllm", &graphs, &err), APMW_E_SCENARIO, &err, "\"row\"");
}

static void passes(void **state)
{
    (void)state;
    apmw_step_cost *plain = linear(), *rows = apmw_step_cost_padded(linear(), true, &vllm_rows),
                   *sequences = apmw_step_cost_padded(linear(), true, &vllm_sequences),
                   *none = apmw_step_cost_padded(linear(), true, &vllm_none);
    const apmw_step_load load = decode(10, 5e5);
    apmw_step_work work;
    /* 1 ms + 16 * 0.11 ms + 5 ms of KV, or 8 ms for 16 rows of the mean 50,000. */
    apmw_step_cost_eval(rows, &load, &work);
    assert_near(work.time_s, 1e-3 + 16 * 1.1e-4 + 5e-3, 1e-15);
    apmw_step_cost_eval(sequences, &load, &work);
    assert_near(work.time_s, 1e-3 + 16 * 1.1e-4 + 8e-3, 1e-15);
    apmw_step_cost_eval(none, &load, &work);
    assert_near(work.time_s, 1e-3 + 10 * 1.1e-4 + 5e-3, 1e-15);
    /* With a chunk the pass is no captured one. */
    const apmw_chunk chunk = {.new_tokens = 100, .past_tokens = 1000, .is_last = 1};
    apmw_step_load mixed = load;
    mixed.rank_tokens = mixed.total_tokens = 110;
    mixed.chunks = &chunk;
    mixed.n_chunks = 1;
    apmw_step_work expected;
    apmw_step_cost_eval(plain, &mixed, &expected);
    apmw_step_cost_eval(sequences, &mixed, &work);
    assert_same_double(work.time_s, expected.time_s);
    apmw_step_cost_free(plain);
    apmw_step_cost_free(rows);
    apmw_step_cost_free(sequences);
    apmw_step_cost_free(none);
}

static void stretches(void **state)
{
    (void)state;
    for (int padding = APMW_PADDING_NONE; padding <= APMW_PADDING_SEQUENCES; padding++) {
        const apmw_graphs graphs = {APMW_GRAPHS_VLLM, 0, (apmw_graph_padding)padding};
        apmw_step_cost *cost = apmw_step_cost_padded(linear(), true, &graphs);
        apmw_step_load load = decode(11, 7e5);
        const double growth[APMW_KV_KINDS] = {11.0};
        apmw_step_work whole, one;
        apmw_step_cost_sum(cost, &load, growth, 500, &whole);
        double time_s = 0.0;
        for (int i = 0; i < 500; i++) {
            apmw_step_cost_eval(cost, &load, &one);
            time_s += one.time_s;
            load.kv[0] += growth[0];
        }
        assert_near_relative(whole.time_s, time_s, 1e-9);
        apmw_step_cost_free(cost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(sizes_of_engines_and_servers), cmocka_unit_test(borrowed),
                                       cmocka_unit_test(graphs_of_settings), cmocka_unit_test(passes), cmocka_unit_test(stretches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
