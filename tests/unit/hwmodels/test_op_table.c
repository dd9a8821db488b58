/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Operation tables: interpolation worked by hand, grids with holes, what is read from CSV and what is refused. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/op_table.h"

static apmw_op_table *from_text(const char *op, const char *text, const char *const *constants, size_t n)
{
    apmw_error err = {0};
    apmw_csv *csv = NULL;
    apmw_op_table *table = NULL;
    assert_ok(apmw_csv_parse("rows.csv", text, strlen(text), &csv, &err), &err);
    assert_ok(apmw_op_table_from_csv(csv, op, "sglang", "0.5.14", constants, n, &table, &err), &err);
    apmw_csv_free(csv);
    return table;
}

static double at(const apmw_op_group *g, double a, double b, double c, bool *outside)
{
    const double x[APMW_OP_AXES] = {a, b, c};
    *outside = false;
    return apmw_op_group_time(g, x, outside);
}

/* 1 -> 10 us, 4 -> 40 us, 16 -> 80 us on log-log axes. */
static void one_axis(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("mla_bmm",
                                 "op_name,bmm_dtype,num_heads,num_tokens,latency\n"
                                 "mla_gen_pre,fp8,16,4,0.04\nmla_gen_pre,fp8,16,1,0.01\nmla_gen_pre,fp8,16,16,0.08\n",
                                 NULL, 0);
    const apmw_op_group *g = apmw_op_table_find(t, "bmm_dtype=fp8");
    bool outside;
    assert_non_null(g);
    assert_int_equal(apmw_op_group_rows(g), 3);
    assert_near_relative(at(g, 1, 0, 0, &outside), 10e-6, 1e-12);
    assert_near_relative(at(g, 2, 0, 0, &outside), 20e-6, 1e-12);
    assert_near_relative(at(g, 8, 0, 0, &outside), 40e-6 * sqrt(2.0), 1e-12);
    assert_near_relative(at(g, 16, 0, 0, &outside), 80e-6, 1e-12);
    assert_false(outside);
    /* Beyond: the line of the last two points, slope 1/2. Below: the first value. Both are told. */
    assert_near_relative(at(g, 64, 0, 0, &outside), 160e-6, 1e-12);
    assert_true(outside);
    assert_near_relative(at(g, 0.5, 0, 0, &outside), 10e-6, 1e-12);
    assert_true(outside);
    double lo, hi;
    apmw_op_group_range(g, 0, &lo, &hi);
    assert_same_double(lo, 1.0);
    assert_same_double(hi, 16.0);
    apmw_op_table_free(t);
}

/* `outside` is set, never cleared, and may be NULL. */
static void outside_is_sticky(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("mla_bmm", "op_name,bmm_dtype,num_heads,num_tokens,latency\nx,y,1,1,1\nx,y,1,2,2\n", NULL, 0);
    const double x[APMW_OP_AXES] = {1.5};
    bool outside = true;
    (void)apmw_op_group_time(apmw_op_table_group_at(t, 0), x, &outside);
    assert_true(outside);
    assert_true(isfinite(apmw_op_group_time(apmw_op_table_group_at(t, 0), x, NULL)));
    apmw_op_table_free(t);
}

/* Batch 1 has steps 1 and 4, batch 4 has 1 and 16 (16 at batch 1 and 4 at batch 4 were never measured). */
static void ragged_grid(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("generation_mla",
                                 "kv_cache_dtype,num_heads,batch_size,step,latency\n"
                                 "fp8,16,1,1,1\nfp8,16,1,4,4\nfp8,16,4,1,2\nfp8,16,4,16,8\n",
                                 NULL, 0);
    const apmw_op_group *g = apmw_op_table_find(t, "num_heads=16");
    bool outside;
    /* Step 2: 2 ms at batch 1; at batch 4 slope ln4/ln16 = 1/2, 2 sqrt(2) ms. Batch 2 lies half way in log. */
    assert_near_relative(at(g, 2, 2, 0, &outside), 1e-3 * sqrt(2.0 * 2.0 * sqrt(2.0)), 1e-12);
    assert_false(outside);
    assert_near_relative(at(g, 4, 4, 0, &outside), 4e-3, 1e-12);
    assert_false(outside);
    /* Step 16 was measured at batch 4 only: batch 1 goes on along its line (16 ms) and says so. */
    assert_near_relative(at(g, 2, 16, 0, &outside), 1e-3 * sqrt(16.0 * 8.0), 1e-12);
    assert_true(outside);
    /* On a measured batch only that batch's list is asked. */
    assert_near_relative(at(g, 4, 16, 0, &outside), 8e-3, 1e-12);
    assert_false(outside);
    apmw_op_table_free(t);
}

/* An axis that begins at 0 is shifted by one: 0 -> 1 ms and 3 -> 4 ms give 2 ms at 1. */
static void axis_with_zero(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("dsa_context_module",
                                 "op_name,model,gemm_type,kv_cache_dtype,num_heads,batch_size,step,isl,latency\n"
                                 "o,m,g,fp8,8,1,0,64,1\no,m,g,fp8,8,1,3,64,4\n",
                                 NULL, 0);
    bool outside;
    assert_near_relative(at(apmw_op_table_group_at(t, 0), 1, 1, 64, &outside), 2e-3, 1e-12);
    assert_false(outside);
    apmw_op_table_free(t);
}

static void three_axes(void **state)
{
    (void)state;
    /* time = m * n * k * 1e-9 ms is linear in log space, so that interpolation is exact everywhere inside. */
    apmw_buf text = {0};
    apmw_buf_puts(&text, "gemm_dtype,n,k,m,latency\n");
    for (int n = 128; n <= 8192; n *= 8)
        for (int k = 128; k <= 8192; k *= 4)
            for (int m = 1; m <= 1024; m *= 16)
                apmw_buf_printf(&text, "bfloat16,%d,%d,%d,%.17g\n", n, k, m, 1e-9 * m * n * k);
    apmw_op_table *t = from_text("gemm", text.data, NULL, 0);
    bool outside;
    assert_int_equal(t->n_axes, 3);
    assert_string_equal(t->axis[0], "n");
    assert_string_equal(t->axis[2], "m");
    assert_near_relative(at(apmw_op_table_group_at(t, 0), 300, 700, 33, &outside), 1e-12 * 300 * 700 * 33, 1e-9);
    assert_false(outside);
    apmw_op_table_free(t);
    apmw_buf_free(&text);
}

/* Rows of a stage that did not run are left out; of two rows at one point the first counts. */
static void skipped_and_repeated_rows(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("mla_bmm",
                                 "op_name,bmm_dtype,num_heads,num_tokens,latency\n"
                                 "a,fp8,1,1,1\na,fp8,1,1,9\na,fp8,1,2,\na,fp8,1,4,0\na,fp8,1,8,8\n",
                                 NULL, 0);
    const apmw_op_group *g = apmw_op_table_group_at(t, 0);
    double x[APMW_OP_AXES], seconds;
    assert_int_equal(apmw_op_group_rows(g), 2);
    apmw_op_group_row(g, 0, x, &seconds);
    assert_same_double(x[0], 1.0);
    assert_near_relative(seconds, 1e-3, 1e-12);
    apmw_op_group_row(g, 1, x, &seconds);
    assert_same_double(x[0], 8.0);
    assert_near_relative(seconds, 8e-3, 1e-12);
    apmw_op_table_free(t);
}

/* Every row that went in comes out with its own coordinates. */
static void rows_come_back(void **state)
{
    (void)state;
    const char *const axes[] = {"batch_size", "step", "isl"};
    double x[60], times[20], back[APMW_OP_AXES], seconds;
    size_t n = 0;
    for (int b = 1; b <= 4; b *= 2) {
        for (int s = 0; s < 1 + b; s++) {
            for (int i = 1; i <= (s % 2) + 1; i++, n++) {
                x[3 * n] = b;
                x[3 * n + 1] = 100 * s;
                x[3 * n + 2] = i;
                times[n] = 1e-3 * (double)(n + 1);
            }
        }
    }
    apmw_error err = {0};
    apmw_op_table *t = apmw_op_table_create("dsa_context_module", "vllm", "1", 3, axes);
    assert_ok(apmw_op_table_add_group(t, "k=v", n, x, times, false, &err), &err);
    assert_int_equal(apmw_op_group_rows(apmw_op_table_group_at(t, 0)), n);
    for (size_t r = 0; r < n; r++) {
        apmw_op_group_row(apmw_op_table_group_at(t, 0), r, back, &seconds);
        for (int a = 0; a < 3; a++)
            assert_same_double(back[a], x[3 * r + (size_t)a]);
        assert_near_relative(seconds, times[r], 1e-12);
        bool outside = false;
        assert_near_relative(apmw_op_group_time(apmw_op_table_group_at(t, 0), back, &outside), times[r], 1e-12);
        assert_false(outside);
    }
    apmw_op_table_free(t);
}

/* Experts: 1, 4, 1, 8 ms. The fall from 4 to 1 pools to their geometric mean, 2 ms, whichever of the two is the outlier;
 * a running maximum would have kept 4. */
static void monotone_hull(void **state)
{
    (void)state;
    const char *rows = "moe_dtype,hidden_size,inter_size,topk,num_experts,num_tokens,latency\n"
                       "fp8,1,1,1,8,1,1\nfp8,1,1,1,8,2,4\nfp8,1,1,1,8,4,1\nfp8,1,1,1,8,8,8\n";
    apmw_op_table *t = from_text("moe", rows, NULL, 0);
    const apmw_op_group *g = apmw_op_table_group_at(t, 0);
    bool outside;
    assert_near_relative(at(g, 1, 0, 0, &outside), 1e-3, 1e-12);
    assert_near_relative(at(g, 2, 0, 0, &outside), 2e-3, 1e-12);
    assert_near_relative(at(g, 4, 0, 0, &outside), 2e-3, 1e-12);
    assert_near_relative(at(g, 8, 0, 0, &outside), 8e-3, 1e-12);
    apmw_op_table_free(t);
    /* Attention rows stay as measured. */
    t = from_text("mla_bmm", "op_name,bmm_dtype,num_heads,num_tokens,latency\na,b,1,1,4\na,b,1,2,1\n", NULL, 0);
    assert_near_relative(at(apmw_op_table_group_at(t, 0), 1, 0, 0, &outside), 4e-3, 1e-12);
    assert_near_relative(at(apmw_op_table_group_at(t, 0), 2, 0, 0, &outside), 1e-3, 1e-12);
    apmw_op_table_free(t);
}

/* Blocks of three and more values, each axis list on its own. */
static void monotone_hull_per_list(void **state)
{
    (void)state;
    const char *const axes[] = {"a", "b"};
    const double x[] = {1, 1, 1, 2, 1, 3, 2, 1, 2, 2, 2, 3}, times[] = {8, 4, 2, 1, 2, 4};
    apmw_error err = {0};
    apmw_op_table *t = apmw_op_table_create("moe", "vllm", "1", 2, axes);
    assert_ok(apmw_op_table_add_group(t, "", 6, x, times, true, &err), &err);
    double back[APMW_OP_AXES], seconds;
    for (size_t r = 0; r < 3; r++) {
        apmw_op_group_row(apmw_op_table_group_at(t, 0), r, back, &seconds);
        assert_near_relative(seconds, 4.0, 1e-12); /* (8 * 4 * 2)^(1/3) */
        apmw_op_group_row(apmw_op_table_group_at(t, 0), r + 3, back, &seconds);
        assert_near_relative(seconds, times[r + 3], 1e-12);
    }
    apmw_op_table_free(t);
}

static void constants_fill_columns(void **state)
{
    (void)state;
    const char *const constants[] = {"kv_cache_dtype=fp8", "batch_size=2"};
    apmw_op_table *t = from_text("generation_mla", "num_heads,step,latency\n16,1,1\n16,2,2\n", constants, 2);
    const apmw_op_group *g = apmw_op_table_group(t, "kv_cache_dtype=fp8;num_heads=16");
    bool outside;
    assert_non_null(g);
    assert_near_relative(at(g, 2, 1, 0, &outside), 1e-3, 1e-12);
    assert_false(outside);
    (void)at(g, 3, 1, 0, &outside);
    assert_true(outside);
    apmw_op_table_free(t);
}

/* DeepEP: dispatch and combine in microseconds, one exchange is both. */
static void summed_columns(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("comm_wideep_deepep_ll",
                                 "hidden_size,num_topk,num_experts,num_token,combine_avg_t_us,dispatch_avg_t_us\n"
                                 "7168,8,256,1,16.836,16.485\n",
                                 NULL, 0);
    bool outside;
    assert_near_relative(at(apmw_op_table_group_at(t, 0), 1, 0, 0, &outside), 33.321e-6, 1e-12);
    apmw_op_table_free(t);
}

static void patterns(void **state)
{
    (void)state;
    apmw_op_table *t = from_text("mla_bmm",
                                 "op_name,bmm_dtype,num_heads,num_tokens,latency\n"
                                 "pre,fp8,16,1,1\npre,fp8,1,1,2\npost,fp8,16,1,3\n",
                                 NULL, 0);
    assert_int_equal(t->n_groups, 3);
    assert_string_equal(apmw_op_group_key(apmw_op_table_find(t, "num_heads=16;op_name=pre")),
                        "op_name=pre;bmm_dtype=fp8;num_heads=16");
    /* Whole elements only: num_heads=1 is not a part of num_heads=16. */
    assert_string_equal(apmw_op_group_key(apmw_op_table_find(t, "num_heads=1")), "op_name=pre;bmm_dtype=fp8;num_heads=1");
    assert_string_equal(apmw_op_group_key(apmw_op_table_find(t, "")), "op_name=post;bmm_dtype=fp8;num_heads=16");
    assert_null(apmw_op_table_find(t, "num_heads=2"));
    assert_null(apmw_op_table_find(t, "heads=16"));
    assert_null(apmw_op_table_group(t, "op_name=pre"));
    apmw_op_table_free(t);
}

static void bad_input(void **state)
{
    (void)state;
    const struct {
        const char *op, *text, *message;
    } cases[] = {{"no_such_op", "a\n1\n", "no schema for operation \"no_such_op\""},
                 {"mla_bmm", "op_name,bmm_dtype,num_heads,num_token,latency\na,b,1,1,1\n", "num_tokens"},
                 {"mla_bmm", "op_name,bmm_dtype,num_heads,num_tokens,latency_ms\na,b,1,1,1\n", "latency"},
                 {"mla_bmm", "op_name,bmm_dtype,num_heads,num_tokens,latency\na,b,1,1,fast\n", "rows.csv:2: latency"},
                 {"mla_bmm", "op_name,bmm_dtype,num_heads,num_tokens,latency\na,b,1,many,1\n", "rows.csv:2: num_tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apmw_error err = {0};
        apmw_csv *csv = NULL;
        apmw_op_table *table = NULL;
        assert_ok(apmw_csv_parse("rows.csv", cases[i].text, strlen(cases[i].text), &csv, &err), &err);
        assert_error(apmw_op_table_from_csv(csv, cases[i].op, "vllm", "1", NULL, 0, &table, &err), APMW_E_DATA, &err,
                     cases[i].message);
        assert_null(table);
        apmw_csv_free(csv);
    }
}

/* A key that does not fit is refused, not cut: two cut keys could be one. */
static void long_key(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_csv *csv = NULL;
    apmw_op_table *table = NULL;
    apmw_buf text = {0};
    apmw_buf_puts(&text, "op_name,bmm_dtype,num_heads,num_tokens,latency\n");
    for (int i = 0; i < APMW_OP_KEY; i++)
        apmw_buf_puts(&text, "x");
    apmw_buf_puts(&text, ",b,1,1,1\n");
    assert_ok(apmw_csv_parse("rows.csv", text.data, text.length, &csv, &err), &err);
    assert_error(apmw_op_table_from_csv(csv, "mla_bmm", "vllm", "1", NULL, 0, &table, &err), APMW_E_DATA, &err, "row 2");
    apmw_csv_free(csv);
    apmw_buf_free(&text);
}

/* Every schema can be found by its name, has axes that fit, and a unit of time. */
static void schemas(void **state)
{
    (void)state;
    static const char *const ops[] = {"gemm", "moe", "context_attention", "generation_attention", "context_mla",
                                      "generation_mla", "mla_bmm", "mla_context_module", "mla_generation_module",
                                      "wideep_context_mla", "wideep_generation_mla", "dsa_context_module",
                                      "dsa_generation_module", "dsv4_csa_context_module", "dsv4_csa_generation_module",
                                      "dsv4_hca_context_module", "dsv4_hca_generation_module", "dsv4_csa_topk_calib",
                                      "dsv4_mhc", "dsv4_megamoe", "gdn", "wideep_moe", "wideep_context_moe",
                                      "wideep_generation_moe", "comm_nccl", "comm_custom_allreduce",
                                      "comm_trtllm_alltoall", "comm_wideep_deepep_ll", "comm_wideep_deepep_normal",
                                      "quantize_computescale"};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        const apmw_op_schema *s = apmw_op_schema_find(ops[i]);
        assert_non_null(s);
        int axes = 0;
        while (s->axis_columns[axes] != NULL)
            axes++;
        assert_true(axes >= 1 && axes <= APMW_OP_AXES);
        assert_true(s->time_unit_s == 1e-3 || s->time_unit_s == 1e-6);
        assert_int_equal(s->time_unit_s < 1e-4, strstr(ops[i], "deepep") != NULL);
        assert_int_equal(apmw_op_schema_monotone(s), strstr(ops[i], "moe") != NULL || strncmp(ops[i], "comm_", 5) == 0);
    }
    assert_null(apmw_op_schema_find("kda"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_axis),       cmocka_unit_test(outside_is_sticky),         cmocka_unit_test(ragged_grid),
        cmocka_unit_test(axis_with_zero), cmocka_unit_test(three_axes),                cmocka_unit_test(skipped_and_repeated_rows),
        cmocka_unit_test(rows_come_back), cmocka_unit_test(monotone_hull),             cmocka_unit_test(monotone_hull_per_list),
        cmocka_unit_test(patterns),       cmocka_unit_test(constants_fill_columns),    cmocka_unit_test(summed_columns),
        cmocka_unit_test(bad_input),      cmocka_unit_test(long_key),                  cmocka_unit_test(schemas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
