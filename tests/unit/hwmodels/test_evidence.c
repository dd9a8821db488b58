/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A platform straight from measured files: what is picked up, what is borrowed, and the top-k correction of V4. */
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "apmw/hwmodel.h"

static void put(const char *dir, const char *platform, const char *name, const char *text)
{
    char folder[512], path[768];
    snprintf(folder, sizeof folder, "%s/%s", dir, platform);
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write(path, text, strlen(text));
}

static apmw_hwmodel *build(const char *dir, const char *platform)
{
    apmw_error err = {0};
    apmw_hwmodel *m = NULL;
    assert_ok(apmw_hwmodel_from_evidence(dir, platform, &m, &err), &err);
    return m;
}

static double one(const apmw_op_table *t, const char *pattern, double a, double b, double c)
{
    assert_non_null(t);
    const apmw_op_group *g = apmw_op_table_find(t, pattern);
    const double x[APMW_OP_AXES] = {a, b, c};
    bool outside = false;
    assert_non_null(g);
    double seconds = apmw_op_group_time(g, x, &outside);
    assert_false(outside);
    return seconds;
}

static void manifest(const char *dir, const char *rows)
{
    apmw_buf text = {0};
    apmw_buf_puts(&text, "file,rows,source,licence,constants\n");
    apmw_buf_puts(&text, rows);
    test_write(test_path(dir, "MANIFEST.csv"), text.data, text.length);
    apmw_buf_free(&text);
}

static void tables_and_constants(void **state)
{
    (void)state;
    const char *dir = test_directory();
    manifest(dir, "b200/gemm.vllm0.24.0.csv.zst,1,s,l,gemm_dtype=bfloat16; device=NVIDIA B200\n");
    put(dir, "b200", "gemm.vllm0.24.0.csv.zst", "n,k,m,latency\n128,256,1,0.5\n");
    put(dir, "b200", "gemm.trtllm1.3.0rc9.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,128,256,1,2\n");
    put(dir, "b200", "gemm.trtllm1.3.0rc20.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,128,256,1,1\n");
    put(dir, "b200", "kda.vllm0.1.csv.zst", "whatever\n1\n"); /* no schema: not a table of this program */
    put(dir, "b200", "notes.txt", "no table");
    apmw_hwmodel *m = build(dir, "b200");
    assert_int_equal(m->n_tables, 3);
    assert_string_equal(m->platform, "b200");
    assert_near_relative(one(apmw_hwmodel_table(m, "gemm", "vllm", NULL), "gemm_dtype=bfloat16", 128, 256, 1), 0.5e-3, 1e-12);
    const apmw_op_table *newest = apmw_hwmodel_table(m, "gemm", "trtllm", NULL);
    assert_string_equal(newest->version, "1.3.0rc20");
    assert_string_equal(newest->source, "b200/gemm.trtllm1.3.0rc20.csv.zst");
    assert_int_equal(strlen(newest->source_hash), 16);
    assert_string_equal(apmw_hwmodel_table(m, "gemm", "trtllm", "1.3.0rc9")->version, "1.3.0rc9");
    assert_null(apmw_hwmodel_table(m, "gemm", "trtllm", "1.3.0rc10"));
    assert_null(apmw_hwmodel_table(m, "moe", "trtllm", NULL));
    assert_contains(m->provenance, "not fitted");
    apmw_hwmodel_free(m);
}

static void borrowed_tables(void **state)
{
    (void)state;
    const char *dir = test_directory();
    manifest(dir, "");
    put(dir, "gb300", "gemm.sglang0.5.14.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,128,256,1,1\n");
    put(dir, "gb300", "gemm.vllm0.24.0.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,128,256,1,1\n");
    put(dir, "mi300x", "gemm.aiter2026.08.22.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,128,256,1,3\n");
    apmw_hwmodel *m = build(dir, "b300");
    assert_int_equal(m->n_tables, 1);
    assert_string_equal(m->tables[0]->source, "gb300/gemm.sglang0.5.14.csv.zst");
    apmw_hwmodel_free(m);
    m = build(dir, "mi325x");
    assert_int_equal(m->n_tables, 1);
    assert_string_equal(m->tables[0]->source, "mi300x/gemm.aiter2026.08.22.csv.zst");
    apmw_hwmodel_free(m);
    m = build(dir, "vr200"); /* nothing measured is no error */
    assert_int_equal(m->n_tables, 0);
    apmw_hwmodel_free(m);
}

static void bad_files(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_error err = {0};
    apmw_hwmodel *m = NULL;
    assert_error(apmw_hwmodel_from_evidence(dir, "b200", &m, &err), APMW_E_NOINPUT, &err, "MANIFEST.csv");
    test_write(test_path(dir, "MANIFEST.csv"), "file,rows\n", 10);
    assert_error(apmw_hwmodel_from_evidence(dir, "b200", &m, &err), APMW_E_DATA, &err, "constants");
    manifest(dir, "");
    put(dir, "b200", "gemm.vllm0.24.0.csv.zst", "gemm_dtype,n,k,m,latency\nfp8,1,1,1,1\nfp8,1,1,x,1\n");
    assert_error(apmw_hwmodel_from_evidence(dir, "b200", &m, &err), APMW_E_DATA, &err, "gemm.vllm0.24.0.csv.zst:3: m");
    assert_null(m);
}

/* Pro keeps 1,024 compressed entries of 4 tokens. Decode at 4,096 tokens: nothing to select, untouched. At 6,144 (below
 * the calibrated 8,192: its value holds) 144.4 - (65.1 - 3.1) = 82.4 us. At 131,072 91.6 - (9.3 - 8.8) = 91.1 us.
 * Prompt rows use the v1 kernel: 3,000 - (900 - 400) = 2,500 us. Other engines' blocks stay raw. */
static void topk_correction(void **state)
{
    (void)state;
    static const char calib[] = "score_mode,model,num_heads,batch_size,step,isl,latency\n"
                                "v1_flat,org/DeepSeek-V4-Pro,128,1,16384,1024,0.9\n"
                                "v1_top_last,org/DeepSeek-V4-Pro,128,1,16384,1024,0.4\n"
                                "v1_flat,org/DeepSeek-V4-Pro,128,1,4096,1,0\n"
                                "v2_flat,org/DeepSeek-V4-Pro,128,1,8192,1,0.0651\n"
                                "v2_top_last,org/DeepSeek-V4-Pro,128,1,8192,1,0.0031\n"
                                "v2_flat,org/DeepSeek-V4-Pro,128,1,131072,1,0.0093\n"
                                "v2_top_last,org/DeepSeek-V4-Pro,128,1,131072,1,0.0088\n";
    static const char decode[] = "model,gemm_type,num_heads,batch_size,step,latency\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,4095,0.0801\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,6144,0.1444\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,8192,0.01\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,131072,0.0916\n"
                                 "org/DeepSeek-V4-Flash,fp8_block,8,1,6144,0.12\n";
    static const char prompt[] = "model,gemm_type,num_heads,batch_size,step,isl,latency\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,0,1024,0.4\n"
                                 "org/DeepSeek-V4-Pro,fp8_block,16,1,16384,1024,3\n";
    const char *dir = test_directory();
    manifest(dir, "");
    put(dir, "b200", "dsv4_csa_topk_calib.sglang0.5.14.csv.zst", calib);
    put(dir, "b200", "dsv4_csa_generation_module.sglang0.5.14.csv.zst", decode);
    put(dir, "b200", "dsv4_csa_generation_module.vllm0.24.0.csv.zst", decode);
    put(dir, "b200", "dsv4_csa_context_module.sglang0.5.14.csv.zst", prompt);
    put(dir, "b200", "dsv4_hca_context_module.sglang0.5.14.csv.zst", prompt);
    apmw_hwmodel *m = build(dir, "b200");
    assert_int_equal(m->n_tables, 4); /* the calibration has done its work and is gone */
    assert_null(apmw_hwmodel_table(m, "dsv4_csa_topk_calib", "sglang", NULL));
    const apmw_op_table *t = apmw_hwmodel_table(m, "dsv4_csa_generation_module", "sglang", NULL);
    assert_near_relative(one(t, "num_heads=16", 1, 4095, 0), 80.1e-6, 1e-9);
    assert_near_relative(one(t, "num_heads=16", 1, 6144, 0), 82.4e-6, 1e-9);
    assert_near_relative(one(t, "num_heads=16", 1, 131072, 0), 91.1e-6, 1e-9);
    /* Never more than four fifths of a row. */
    assert_near_relative(one(t, "num_heads=16", 1, 8192, 0), 2e-6, 1e-9);
    /* Flash has no calibration here: raw. */
    assert_near_relative(one(t, "num_heads=8", 1, 6144, 0), 120e-6, 1e-9);
    assert_string_equal(t->source, "b200/dsv4_csa_generation_module.sglang0.5.14.csv.zst");
    assert_int_equal(strlen(t->source_hash), 16);
    t = apmw_hwmodel_table(m, "dsv4_csa_context_module", "sglang", NULL);
    assert_near_relative(one(t, "num_heads=16", 1, 0, 1024), 400e-6, 1e-9);
    assert_near_relative(one(t, "num_heads=16", 1, 16384, 1024), 2500e-6, 1e-9);
    t = apmw_hwmodel_table(m, "dsv4_hca_context_module", "sglang", NULL);
    assert_near_relative(one(t, "num_heads=16", 1, 16384, 1024), 3000e-6, 1e-9);
    t = apmw_hwmodel_table(m, "dsv4_csa_generation_module", "vllm", NULL);
    assert_near_relative(one(t, "num_heads=16", 1, 6144, 0), 144.4e-6, 1e-9);
    apmw_hwmodel_free(m);
}

/* On the shipped rows the correction must remove the step that the flat scores made: raw decode jumps by four fifths
 * between 4,096 and 6,144 tokens of context and falls again at 131,072. */
static void shipped_rows_lose_the_step(void **state)
{
    (void)state;
    static const char *const platforms[] = {"h100", "h200", "b200", "b300", "gb200", "gb300"};
    for (size_t p = 0; p < sizeof platforms / sizeof platforms[0]; p++) {
        apmw_hwmodel *m = build(APMW_SOURCE_DIR "/hwmodels/evidence", platforms[p]);
        const apmw_op_table *t = apmw_hwmodel_table(m, "dsv4_csa_generation_module", "sglang", NULL);
        int grids = 0;
        assert_non_null(t);
        for (size_t i = 0; i < t->n_groups; i++) {
            const apmw_op_group *g = apmw_op_table_group_at(t, i);
            const double before[] = {1, 2048}, after[] = {1, 8192}, far[] = {1, 131072};
            double a = apmw_op_group_time(g, before, NULL), b = apmw_op_group_time(g, after, NULL);
            double c = apmw_op_group_time(g, far, NULL);
            if (!(b > 0.9 * a && b < 1.25 * a && c > 0.9 * b && c < 1.35 * b))
                fail_msg("%s %s: %.1f, %.1f, %.1f us", platforms[p], apmw_op_group_key(g), 1e6 * a, 1e6 * b, 1e6 * c);
            grids++;
        }
        assert_true(grids >= 8);
        apmw_hwmodel_free(m);
    }
}

/* Rows of 100 us and less and rows without a reading do not count, nor families of fewer than 20 rows; old tables under
 * watts/ do. */
static void watts(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_buf text = {0};
    manifest(dir, "");
    apmw_buf_puts(&text, "gemm_dtype,n,k,m,latency,power\n");
    for (int i = 1; i <= 21; i++)
        apmw_buf_printf(&text, "fp8,128,128,%d,0.2,%d\n", i, 500 + i); /* median 511, deciles 503 and 519 */
    for (int i = 1; i <= 30; i++)
        apmw_buf_printf(&text, "fp8,128,256,%d,0.1,900\nfp8,128,512,%d,0.3,\nbfloat16,128,64,%d,%s,700\n", i, i, i,
                        i < 20 ? "0.5" : "0.05");
    put(dir, "b200", "gemm.vllm0.24.0.csv.zst", text.data);
    put(dir, "b200", "mla_bmm.vllm0.24.0.csv.zst", "op_name,bmm_dtype,num_heads,num_tokens,latency\na,b,1,1,1\n");
    char folder[512];
    snprintf(folder, sizeof folder, "%s/watts", dir);
    mkdir(folder, 0777);
    put(folder, "b200", "moe.trtllm1.3.0rc15.csv.zst", text.data); /* whatever the operation: the column counts */
    apmw_buf_free(&text);
    apmw_error err = {0};
    apmw_hwmodel *m = build(dir, "b200");
    assert_int_equal(m->n_watts, 0);
    assert_ok(apmw_hwmodel_add_watts(m, dir, &err), &err);
    assert_int_equal(m->n_watts, 2);
    assert_string_equal(m->watts[0].op, "gemm");
    assert_string_equal(m->watts[0].engine, "vllm");
    assert_string_equal(m->watts[0].version, "0.24.0");
    assert_string_equal(m->watts[0].family, "fp8");
    assert_int_equal(m->watts[0].n, 21);
    assert_near(m->watts[0].p10_w, 503, 1e-9);
    assert_near(m->watts[0].median_w, 511, 1e-9);
    assert_near(m->watts[0].p90_w, 519, 1e-9);
    assert_string_equal(m->watts[1].op, "moe");
    assert_string_equal(m->watts[1].version, "1.3.0rc15");
    apmw_hwmodel_free(m);
    /* A platform without readings has none, and that is no error. */
    m = build(dir, "gb300");
    assert_ok(apmw_hwmodel_add_watts(m, dir, &err), &err);
    assert_int_equal(m->n_watts, 0);
    apmw_hwmodel_free(m);
    put(dir, "b200", "gemm.vllm0.24.0.csv.zst", "gemm_dtype,n,k,m,latency,power\nfp8,1,1,1,1,hot\n");
    m = build(dir, "b200");
    assert_error(apmw_hwmodel_add_watts(m, dir, &err), APMW_E_DATA, &err, "power");
    apmw_hwmodel_free(m);
}

/* Every shipped kernel table is read, and what was read is a time. */
static void shipped_tables_read(void **state)
{
    (void)state;
    static const struct {
        const char *platform;
        size_t at_least;
    } all[] = {{"h100", 40}, {"h200", 40}, {"b200", 50}, {"b300", 50}, {"gb200", 50}, {"gb300", 50}, {"mi300x", 2}, {"mi325x", 2}, {"mi355x", 2}};
    for (size_t p = 0; p < sizeof all / sizeof all[0]; p++) {
        apmw_hwmodel *m = build(APMW_SOURCE_DIR "/hwmodels/evidence", all[p].platform);
        assert_true(m->n_tables >= all[p].at_least);
        for (size_t i = 0; i < m->n_tables; i++) {
            const apmw_op_table *t = m->tables[i];
            assert_true(t->n_groups > 0);
            for (size_t g = 0; g < t->n_groups; g++) {
                const apmw_op_group *group = apmw_op_table_group_at(t, g);
                double x[APMW_OP_AXES], seconds;
                apmw_op_group_row(group, apmw_op_group_rows(group) / 2, x, &seconds);
                if (!(seconds > 1e-7 && seconds < 100.0))
                    fail_msg("%s %s: %g s", t->source, apmw_op_group_key(group), seconds);
            }
        }
        apmw_hwmodel_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_and_constants), cmocka_unit_test(borrowed_tables),
        cmocka_unit_test(bad_files),            cmocka_unit_test(topk_correction),
        cmocka_unit_test(watts), cmocka_unit_test(shipped_rows_lose_the_step), cmocka_unit_test(shipped_tables_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
