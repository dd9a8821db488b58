/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Platform files: what goes in comes out, the same model gives the same bytes, damage is refused. */
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apmw/hwmodel.h"

static apmw_hwmodel *sample(void)
{
    static const char *const axes[] = {"n", "k", "m"};
    static const double x[] = {128, 256, 1, 128, 256, 2, 128, 512, 1, 4096, 256, 65536};
    static const double times[] = {1e-6, 2.5e-6, 3.3333333e-6, 0.125};
    apmw_error err = {0};
    apmw_hwmodel *m = calloc(1, sizeof *m);
    snprintf(m->platform, sizeof m->platform, "b200");
    snprintf(m->provenance, sizeof m->provenance, "made by a test");
    m->tables = calloc(2, sizeof *m->tables);
    m->n_tables = 2;
    m->tables[0] = apmw_op_table_create("gemm", "sglang", "0.5.14", 3, axes);
    m->tables[1] = apmw_op_table_create("moe", "vllm", "0.24.0", 1, &axes[2]);
    assert_ok(apmw_op_table_add_group(m->tables[0], "gemm_dtype=bfloat16", 4, x, times, false, &err), &err);
    assert_ok(apmw_op_table_add_group(m->tables[0], "gemm_dtype=fp8", 1, x, times, false, &err), &err);
    assert_ok(apmw_op_table_add_group(m->tables[1], "moe_dtype=nvfp4", 2, (const double[]){1, 8}, times, true, &err), &err);
    snprintf(m->tables[0]->source, sizeof m->tables[0]->source, "b200/gemm.sglang0.5.14.csv.zst");
    snprintf(m->tables[0]->source_hash, sizeof m->tables[0]->source_hash, "0123456789abcdef");
    m->fits = calloc(2, sizeof *m->fits);
    m->fit_table = calloc(2, sizeof *m->fit_table);
    m->n_fits = 2;
    m->fit_table[0] = 1;
    m->fits[0] = (apmw_op_fit){.family = "moe_dtype=nvfp4", .n_points = 2, .t0_s = 1e-6, .eff_flop = 0.5, .eff_byte = 0.75,
                               .cv_form = 0.2, .cv_table = 0.05, .chosen = "table"};
    for (int i = 0; i < 9; i++)
        m->fits[0].covariance[i / 3][i % 3] = 0.125 * i;
    m->fits[1] = (apmw_op_fit){.family = "all", .t0_s = (double)NAN, .eff_flop = (double)NAN, .eff_byte = (double)NAN,
                               .cv_form = (double)NAN, .cv_table = 0.1, .chosen = "table"};
    m->watts = calloc(1, sizeof *m->watts);
    m->n_watts = 1;
    m->watts[0] = (apmw_op_watts){.op = "gemm", .engine = "sglang", .version = "0.5.14", .family = "fp8_block", .n = 1922,
                                  .p10_w = 750, .median_w = 896.5, .p90_w = 983};
    m->power = (apmw_power_params){.tdp_w = 1000, .p0 = 0.2, .pt = 0.97, .a_duty = 0.87, .a_bw = 0.48, .b = 0.082,
                                   .p_idle_w = (double)NAN, .sd_config = 0.1, .sd_platform = 0.2, .use_bandwidth = 1,
                                   .covariance = {{1, 2}, {3, 4}}, .heldout_median_abs = 0.07, .basis = "a test"};
    return m;
}

static void round_trip(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "b200.h5");
    apmw_error err = {0};
    apmw_hwmodel *m = sample(), *r = NULL;
    assert_ok(apmw_hwmodel_save(m, path, &err), &err);
    assert_ok(apmw_hwmodel_load(path, &r, &err), &err);
    assert_string_equal(r->platform, "b200");
    assert_string_equal(r->provenance, "made by a test");
    assert_int_equal(strlen(r->hash), 16);
    assert_int_equal(r->n_tables, 2);
    for (size_t t = 0; t < 2; t++) {
        assert_string_equal(r->tables[t]->op, m->tables[t]->op);
        assert_string_equal(r->tables[t]->engine, m->tables[t]->engine);
        assert_string_equal(r->tables[t]->version, m->tables[t]->version);
        assert_string_equal(r->tables[t]->source, m->tables[t]->source);
        assert_string_equal(r->tables[t]->source_hash, m->tables[t]->source_hash);
        assert_int_equal(r->tables[t]->n_axes, m->tables[t]->n_axes);
        assert_int_equal(r->tables[t]->n_groups, m->tables[t]->n_groups);
        for (size_t g = 0; g < r->tables[t]->n_groups; g++) {
            const apmw_op_group *a = apmw_op_table_group_at(m->tables[t], g), *b = apmw_op_table_group_at(r->tables[t], g);
            assert_string_equal(apmw_op_group_key(a), apmw_op_group_key(b));
            assert_int_equal(apmw_op_group_rows(a), apmw_op_group_rows(b));
            for (size_t row = 0; row < apmw_op_group_rows(a); row++) {
                double xa[APMW_OP_AXES], xb[APMW_OP_AXES], ta, tb;
                apmw_op_group_row(a, row, xa, &ta);
                apmw_op_group_row(b, row, xb, &tb);
                for (int axis = 0; axis < m->tables[t]->n_axes; axis++)
                    assert_same_double(xa[axis], xb[axis]);
                assert_near_relative(tb, ta, 1.0 / 8192); /* times keep 13 binary digits */
            }
        }
    }
    assert_int_equal(r->n_fits, 2);
    assert_int_equal(r->fit_table[0], 1);
    assert_int_equal(r->fit_table[1], 0);
    assert_string_equal(r->fits[0].family, "moe_dtype=nvfp4");
    assert_string_equal(r->fits[0].chosen, "table");
    assert_int_equal(r->fits[0].n_points, 2);
    assert_same_double(r->fits[0].t0_s, 1e-6);
    assert_same_double(r->fits[0].eff_flop, 0.5);
    assert_same_double(r->fits[0].eff_byte, 0.75);
    assert_same_double(r->fits[0].cv_form, 0.2);
    assert_same_double(r->fits[0].cv_table, 0.05);
    for (int i = 0; i < 9; i++)
        assert_same_double(r->fits[0].covariance[i / 3][i % 3], 0.125 * i);
    assert_int_equal(r->n_watts, 1);
    assert_string_equal(r->watts[0].op, "gemm");
    assert_string_equal(r->watts[0].engine, "sglang");
    assert_string_equal(r->watts[0].version, "0.5.14");
    assert_string_equal(r->watts[0].family, "fp8_block");
    assert_int_equal(r->watts[0].n, 1922);
    assert_same_double(r->watts[0].p10_w, 750);
    assert_same_double(r->watts[0].median_w, 896.5);
    assert_same_double(r->watts[0].p90_w, 983);
    assert_true(isnan(r->fits[1].t0_s) && isnan(r->fits[1].cv_form));
    assert_same_double(r->power.tdp_w, 1000);
    assert_same_double(r->power.b, 0.082);
    assert_same_double(r->power.a_bw, 0.48);
    assert_true(isnan(r->power.p_idle_w));
    assert_same_double(r->power.covariance[1][0], 3);
    assert_same_double(r->power.heldout_median_abs, 0.07);
    assert_int_equal(r->power.use_bandwidth, 1);
    assert_string_equal(r->power.basis, "a test");
    apmw_hwmodel_free(r);
    apmw_hwmodel_free(m);
}

static void same_model_same_bytes(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_error err = {0};
    apmw_hwmodel *m = sample(), *r = NULL;
    assert_ok(apmw_hwmodel_save(m, test_path(dir, "a.h5"), &err), &err);
    sleep(1); /* a file with times in it would differ now */
    assert_ok(apmw_hwmodel_save(m, test_path(dir, "b.h5"), &err), &err);
    assert_ok(apmw_hwmodel_load(test_path(dir, "a.h5"), &r, &err), &err);
    assert_ok(apmw_hwmodel_save(r, test_path(dir, "c.h5"), &err), &err);
    apmw_buf a = test_read(test_path(dir, "a.h5")), b = test_read(test_path(dir, "b.h5")), c = test_read(test_path(dir, "c.h5"));
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.data, b.data, a.length);
    assert_int_equal(a.length, c.length);
    assert_memory_equal(a.data, c.data, a.length);
    apmw_buf_free(&a);
    apmw_buf_free(&b);
    apmw_buf_free(&c);
    apmw_hwmodel_free(r);
    apmw_hwmodel_free(m);
}

static void without_power_and_fits(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "b200.h5");
    apmw_error err = {0};
    apmw_hwmodel *m = sample(), *r = NULL;
    m->power.tdp_w = 0.0;
    m->n_fits = 0;
    m->n_watts = 0;
    assert_ok(apmw_hwmodel_save(m, path, &err), &err);
    assert_ok(apmw_hwmodel_load(path, &r, &err), &err);
    assert_int_equal(r->n_fits, 0);
    assert_int_equal(r->n_watts, 0);
    assert_same_double(r->power.tdp_w, 0.0);
    apmw_hwmodel_free(r);
    apmw_hwmodel_free(m);
}

/* A file cut anywhere is refused with its name, and never read as something smaller. */
static void damaged_files(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_error err = {0};
    apmw_hwmodel *m = sample(), *r = NULL;
    assert_error(apmw_hwmodel_load(test_path(dir, "none.h5"), &r, &err), APMW_E_NOINPUT, &err, "none.h5");
    test_write(test_path(dir, "text.h5"), "platform\n", 9);
    assert_error(apmw_hwmodel_load(test_path(dir, "text.h5"), &r, &err), APMW_E_DATA, &err, "text.h5");
    assert_ok(apmw_hwmodel_save(m, test_path(dir, "whole.h5"), &err), &err);
    apmw_buf whole = test_read(test_path(dir, "whole.h5"));
    for (size_t n = 0; n < whole.length; n += whole.length / 23) {
        test_write(test_path(dir, "cut.h5"), whole.data, n);
        assert_error(apmw_hwmodel_load(test_path(dir, "cut.h5"), &r, &err), APMW_E_DATA, &err, "cut.h5");
        assert_null(r);
    }
    apmw_buf_free(&whole);
    /* A fit that points at no table. */
    m->fit_table[0] = 7;
    assert_ok(apmw_hwmodel_save(m, test_path(dir, "fit.h5"), &err), &err);
    assert_error(apmw_hwmodel_load(test_path(dir, "fit.h5"), &r, &err), APMW_E_DATA, &err, "damaged");
    apmw_hwmodel_free(m);
}

static void nothing_is_left_on_failure(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_hwmodel *m = sample();
    const char *dir = test_directory();
    assert_error(apmw_hwmodel_save(m, test_path(dir, "no/such/folder.h5"), &err), APMW_E_CANTCREAT, &err, "folder.h5");
    /* A folder stands where the file should go. */
    const char *taken = test_path(dir, "taken.h5");
    assert_int_equal(mkdir(taken, 0777), 0);
    assert_error(apmw_hwmodel_save(m, taken, &err), APMW_E_IO, &err, "taken.h5");
    assert_int_equal(access(test_path(dir, "taken.h5.tmp"), F_OK), -1);
    apmw_hwmodel_free(m);
}

/* "1.3.0rc9" is older than "1.3.0rc20"; text order would say the opposite. */
static void newest_version(void **state)
{
    (void)state;
    static const char *const axes[] = {"m"};
    static const char *const versions[] = {"0.9", "1.3.0rc9", "1.3.0rc20", "1.3.0rc3", "0.14.0"};
    apmw_op_table *tables[5];
    apmw_hwmodel m = {.tables = tables, .n_tables = 5};
    for (size_t i = 0; i < 5; i++)
        tables[i] = apmw_op_table_create("gemm", "trtllm", versions[i], 1, axes);
    assert_string_equal(apmw_hwmodel_table(&m, "gemm", "trtllm", NULL)->version, "1.3.0rc20");
    assert_string_equal(apmw_hwmodel_table(&m, "gemm", "trtllm", "")->version, "1.3.0rc20");
    m.n_tables = 1;
    assert_string_equal(apmw_hwmodel_table(&m, "gemm", "trtllm", NULL)->version, "0.9");
    assert_null(apmw_hwmodel_table(&m, "gemm", "vllm", NULL));
    for (size_t i = 0; i < 5; i++)
        apmw_op_table_free(tables[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),    cmocka_unit_test(same_model_same_bytes),      cmocka_unit_test(without_power_and_fits),
        cmocka_unit_test(damaged_files), cmocka_unit_test(nothing_is_left_on_failure), cmocka_unit_test(newest_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
