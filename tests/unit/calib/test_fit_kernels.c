/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Kernel fits on tables made from a known roofline: what went in comes out, the honest choice between form and table is
 * made, and a side that no row lies on is not invented. */
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/fit_kernels.h"

static const double peak = 2e15, bandwidth = 8e12, link = 9e11;

static apmw_accelerator_spec accelerator(void)
{
    apmw_accelerator_spec a = {.id = "b200", .hbm_bytes_per_s = bandwidth, .bf16_flop_per_s = peak, .fp8_flop_per_s = 2 * peak,
                               .fp4_flop_per_s = 4 * peak, .scaleup_bytes_per_s = link};
    return a;
}

/* A deterministic factor around 1: exp(sd * u) with u from a multiplicative hash, roughly uniform in [-1.7, 1.7]. */
static double scatter(size_t i, double sd)
{
    double u = (double)((i * 2654435761u) % 1000) / 1000.0;
    return exp(sd * (u - 0.5) * 3.4641);
}

static double gemm_time(double n, double k, double m, double t0, double ef, double eb)
{
    double compute = 2.0 * m * n * k / (ef * peak), stream = (n * k + m * k + m * n) * 2.0 / (eb * bandwidth);
    return t0 + fmax(compute, stream);
}

static apmw_hwmodel *with_table(apmw_op_table *t)
{
    apmw_hwmodel *m = calloc(1, sizeof *m);
    m->tables = calloc(1, sizeof *m->tables);
    m->tables[0] = t;
    m->n_tables = 1;
    return m;
}

static apmw_op_table *gemm_table(double t0, double ef, double eb, double sd, double m_last)
{
    static const char *const axes[] = {"n", "k", "m"};
    apmw_error err = {0};
    apmw_op_table *t = apmw_op_table_create("gemm", "sglang", "1", 3, axes);
    double *x = malloc(6 * 6 * 20 * 3 * sizeof *x), *times = malloc(6 * 6 * 20 * sizeof *times);
    size_t n = 0;
    for (double a = 512; a <= 16384; a *= 2) {
        for (double b = 512; b <= 16384; b *= 2) {
            for (double m = 1; m <= m_last; m *= 4, n++) {
                x[3 * n] = a;
                x[3 * n + 1] = b;
                x[3 * n + 2] = m;
                times[n] = gemm_time(a, b, m, t0, ef, eb) * scatter(n, sd);
            }
        }
    }
    assert_ok(apmw_op_table_add_group(t, "gemm_dtype=bfloat16", n, x, times, false, &err), &err);
    free(x);
    free(times);
    return t;
}

static void known_roofline_comes_back(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_hwmodel *m = with_table(gemm_table(4e-6, 0.65, 0.8, 0.0, 65536));
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_int_equal(m->n_fits, 1);
    const apmw_op_fit *f = &m->fits[0];
    assert_string_equal(f->family, "gemm_dtype=bfloat16");
    assert_int_equal(f->n_points, 6 * 6 * 9);
    assert_near_relative(f->t0_s, 4e-6, 1e-4);
    assert_near_relative(f->eff_flop, 0.65, 1e-4);
    assert_near_relative(f->eff_byte, 0.8, 1e-4);
    assert_true(f->cv_form < 1e-4);
    assert_true(f->cv_table > f->cv_form);
    assert_string_equal(f->chosen, "form");
    apmw_hwmodel_free(m);
}

/* With 5 % of scatter the numbers come back within a few of their own standard errors, and those are small. */
static void covariance_covers(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_hwmodel *m = with_table(gemm_table(4e-6, 0.65, 0.8, 0.05, 65536));
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    const apmw_op_fit *f = &m->fits[0];
    const double ln[] = {log(f->t0_s / 4e-6), log(f->eff_flop / 0.65), log(f->eff_byte / 0.8)};
    for (int i = 0; i < 3; i++) {
        double sd = sqrt(f->covariance[i][i]);
        assert_true(sd > 0.0005 && sd < 0.02);
        assert_true(fabs(ln[i]) < 4.0 * sd);
        for (int j = 0; j < 3; j++) {
            assert_near(f->covariance[i][j], f->covariance[j][i], 1e-12);
            assert_true(fabs(f->covariance[i][j]) <= sd * sqrt(f->covariance[j][j]) * (1.0 + 1e-9));
        }
    }
    /* The median of |x| for the scatter above is 0.05 * 0.866 = 4.3 %. */
    assert_near(f->cv_form, 0.043, 0.012);
    apmw_hwmodel_free(m);
}

/* Only small m: nothing is bound by arithmetic, so nothing is said about it. */
static void unseen_side_is_nan(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_hwmodel *m = with_table(gemm_table(4e-6, 0.65, 0.8, 0.01, 64));
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_true(isnan(m->fits[0].eff_flop));
    assert_true(isnan(m->fits[0].covariance[1][1]) && isnan(m->fits[0].covariance[0][1]));
    assert_near_relative(m->fits[0].eff_byte, 0.8, 0.02);
    apmw_hwmodel_free(m);
}

/* Times that grow with the 0.3rd power of m follow no roofline, but a straight line in logarithms: interpolation finds
 * the left-out bands exactly, the lowest one excepted, and is chosen. */
static void table_wins_where_the_form_is_wrong(void **state)
{
    (void)state;
    static const char *const axes[] = {"n", "k", "m"};
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    double x[3 * 200], times[200];
    size_t n = 0;
    apmw_op_table *t = apmw_op_table_create("gemm", "sglang", "1", 3, axes);
    for (double k = 512; k <= 4096; k *= 2) {
        for (double m = 1; m < 1e5; m *= 2, n++) {
            x[3 * n] = 1024;
            x[3 * n + 1] = k;
            x[3 * n + 2] = m;
            times[n] = 1e-5 * pow(m, 0.3);
        }
    }
    assert_ok(apmw_op_table_add_group(t, "gemm_dtype=fp8", n, x, times, false, &err), &err);
    apmw_hwmodel *m = with_table(t);
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_near(m->fits[0].cv_table, 0.0, 1e-9);
    assert_true(m->fits[0].cv_form > 0.05);
    assert_string_equal(m->fits[0].chosen, "table");
    apmw_hwmodel_free(m);
}

/* Held-out interpolation by hand: time = x at 1, 2.2, 4, 8, one point a band. Without 1 the first value holds, 2.2 for 1,
 * error 1.2. Inner points lie on the line, and beyond the line of the last two goes on: 0. The median of (1.2, 0, 0, 0)
 * is 0. With times 1, 1, 1, 8 the errors are 0, 0, one of more than 1 (the line from 1 to 8 at 4), and 7/8 (1 for 8):
 * the median is (0 + 0.875) / 2. */
static void held_out_by_hand(void **state)
{
    (void)state;
    static const char *const axes[] = {"num_tokens"};
    const double x[] = {1, 2.2, 4, 8}, line[] = {1, 2.2, 4, 8};
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_op_table *t = apmw_op_table_create("mla_bmm", "sglang", "1", 1, axes);
    assert_ok(apmw_op_table_add_group(t, "op_name=mla_gen_pre;bmm_dtype=fp8;num_heads=16", 4, x, line, false, &err), &err);
    apmw_hwmodel *m = with_table(t);
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_string_equal(m->fits[0].family, "bmm_dtype=fp8;op_name=mla_gen_pre");
    assert_near(m->fits[0].cv_table, 0.0, 1e-9);
    assert_true(isnan(m->fits[0].t0_s) && isnan(m->fits[0].cv_form)); /* the row does not tell its work */
    assert_string_equal(m->fits[0].chosen, "table");
    apmw_hwmodel_free(m);
    const double bent[] = {1, 1, 1, 8};
    t = apmw_op_table_create("mla_bmm", "sglang", "1", 1, axes);
    assert_ok(apmw_op_table_add_group(t, "op_name=mla_gen_pre;bmm_dtype=fp8;num_heads=16", 4, x, bent, false, &err), &err);
    m = with_table(t);
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_near(m->fits[0].cv_table, 0.5 * 0.875, 1e-9);
    apmw_hwmodel_free(m);
}

/* Families split by what distinguishes the rows, and every table of the model is gone through. */
static void families(void **state)
{
    (void)state;
    static const char *const axes[] = {"batch_size", "step"};
    static const char *const keys[] = {"op_name=dsa_generation_module;model=a;gemm_type=fp8_block;kv_cache_dtype=fp8;num_heads=8",
                                       "op_name=dsa_generation_module;model=b;gemm_type=fp8_block;kv_cache_dtype=fp8;num_heads=16",
                                       "op_name=dsa_generation_module_skip_indexer;model=a;gemm_type=fp8_block;kv_cache_dtype=fp8;num_heads=8"};
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_op_table *t = apmw_op_table_create("dsa_generation_module", "sglang", "1", 2, axes);
    for (size_t i = 0; i < 3; i++) {
        const double x[] = {1, 1, 1, 100, 1, 1000, 1, 9999}, times[] = {1, 1, 2, 3};
        assert_ok(apmw_op_table_add_group(t, keys[i], 4, x, times, false, &err), &err);
    }
    apmw_hwmodel *m = with_table(t);
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_int_equal(m->n_fits, 2);
    assert_string_equal(m->fits[0].family, "gemm_type=fp8_block;kv_cache_dtype=fp8");
    assert_int_equal(m->fits[0].n_points, 8);
    assert_string_equal(m->fits[1].family, "gemm_type=fp8_block;kv_cache_dtype=fp8;op_name=skip_indexer");
    assert_int_equal(m->fits[1].n_points, 4);
    apmw_hwmodel_free(m);
}

/* An all-reduce of n elements moves 2 (g - 1) / g of its bytes over the link. */
static void collective(void **state)
{
    (void)state;
    static const char *const axes[] = {"message_size"};
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_op_table *t = apmw_op_table_create("comm_custom_allreduce", "trtllm", "1", 1, axes);
    for (int gpus = 2; gpus <= 8; gpus *= 2) {
        double x[23], times[23];
        char key[64];
        for (int i = 0; i < 23; i++) {
            x[i] = 128.0 * pow(2.0, i);
            times[i] = 5e-6 + x[i] * 2.0 * 2.0 * (gpus - 1.0) / gpus / (0.7 * link);
        }
        snprintf(key, sizeof key, "kernel_source=TRTLLM;num_gpus=%d", gpus);
        assert_ok(apmw_op_table_add_group(t, key, 23, x, times, true, &err), &err);
    }
    apmw_hwmodel *m = with_table(t);
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_int_equal(m->n_fits, 1);
    assert_near_relative(m->fits[0].t0_s, 5e-6, 1e-4);
    assert_near_relative(m->fits[0].eff_byte, 0.7, 1e-4);
    assert_true(isnan(m->fits[0].eff_flop));
    apmw_hwmodel_free(m);
}

/* The same numbers twice: fits must not depend on anything else. */
static void repeatable(void **state)
{
    (void)state;
    apmw_error err = {0};
    apmw_accelerator_spec a = accelerator();
    apmw_hwmodel *m = with_table(gemm_table(4e-6, 0.6, 0.7, 0.2, 65536)), *again = with_table(gemm_table(4e-6, 0.6, 0.7, 0.2, 65536));
    assert_ok(apmw_fit_kernels(m, &a, &err), &err);
    assert_ok(apmw_fit_kernels(again, &a, &err), &err);
    assert_memory_equal(m->fits, again->fits, sizeof *m->fits);
    apmw_hwmodel_free(m);
    apmw_hwmodel_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_roofline_comes_back), cmocka_unit_test(covariance_covers), cmocka_unit_test(unseen_side_is_nan),
        cmocka_unit_test(table_wins_where_the_form_is_wrong), cmocka_unit_test(held_out_by_hand), cmocka_unit_test(families),
        cmocka_unit_test(collective), cmocka_unit_test(repeatable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
