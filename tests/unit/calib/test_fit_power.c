/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The power fit on rows that were made from known parameters: what went in must come out, one wild row must not move
 * it, and a model that draws more than the others must show in the left-out error and nowhere in the parameters' sign. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "apmw/fit_power.h"
#include "apmw/rng.h"

enum { GROUPS = 8, PER_GROUP = 12, N = GROUPS * PER_GROUP };

static apmw_power_params truth(bool bandwidth)
{
    apmw_power_params p = {.tdp_w = 1000, .p0 = 0.2, .pt = 0.97, .a_duty = 0.9, .a_bw = 0.5, .b = 0.08};
    p.use_bandwidth = bandwidth;
    p.p_idle_w = (double)NAN;
    return p;
}

/* noise: sd of ln watts of a group's common factor */
static void make_rows(apmw_power_row *rows, size_t *use, const apmw_power_params *p, double noise)
{
    apmw_rng rng = apmw_rng_make(7, "power rows", 0, 0);
    memset(rows, 0, N * sizeof *rows);
    for (size_t g = 0; g < GROUPS; g++) {
        double factor = exp(noise * apmw_rng_normal(&rng));
        for (size_t i = 0; i < PER_GROUP; i++) {
            apmw_power_row *row = &rows[g * PER_GROUP + i];
            snprintf(row->group, sizeof row->group, "model %zu|b200", g);
            snprintf(row->config, sizeof row->config, "model %zu|chat", g);
            snprintf(row->platform, sizeof row->platform, "b200");
            row->measured.duty = 0.1 + 0.9 * apmw_rng_uniform(&rng);
            row->measured.bw_util = 0.05 + 0.7 * apmw_rng_uniform(&rng);
            row->measured.flop_util = 0.3 * apmw_rng_uniform(&rng);
            row->watts = factor * apmw_power_step_w(p, row->measured.duty, row->measured.bw_util,
                                                    row->measured.flop_util);
            use[g * PER_GROUP + i] = g * PER_GROUP + i;
        }
    }
}

static void near(double a, double b, double relative)
{
    if (!(fabs(a - b) <= relative * fabs(b)))
        fail_msg("%.9g is not %.9g within %g", a, b, relative);
}

static void recovers_both_scales(void **state)
{
    (void)state;
    static apmw_power_row rows[N];
    size_t use[N];
    for (int bandwidth = 0; bandwidth < 2; bandwidth++) {
        apmw_power_params p = truth(bandwidth), start = p;
        make_rows(rows, use, &p, 0);
        start.a_duty = 2;
        start.a_bw = 1.5;
        start.b = 0.3;
        apmw_power_fit fit;
        apmw_error err = {0};
        assert_int_equal(apmw_fit_power(rows, use, N, &start, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, &err), 0);
        near(bandwidth ? fit.params.a_bw : fit.params.a_duty, bandwidth ? 0.5 : 0.9, 1e-5);
        near(fit.params.b, 0.08, 1e-5);
        assert_int_equal(fit.n_groups, GROUPS);
        assert_true(fit.left_out_median_abs < 1e-6);
    }
}

static void recovers_the_top(void **state)
{
    (void)state;
    static apmw_power_row rows[N];
    size_t use[N];
    apmw_power_params p = truth(true), start = p;
    p.pt = 0.77;
    make_rows(rows, use, &p, 0);
    apmw_power_fit fit;
    apmw_error err = {0};
    assert_int_equal(apmw_fit_power(rows, use, N, &start, APMW_POWER_FREE_TOP, &fit, &err), 0);
    near(fit.params.pt, 0.77, 1e-6);
    near(fit.params.b, 0.08, 0);
}

static void one_wild_row_does_not_move_it(void **state)
{
    (void)state;
    static apmw_power_row rows[N];
    size_t use[N];
    apmw_power_params p = truth(false);
    make_rows(rows, use, &p, 0);
    rows[5].watts *= 2.5;
    apmw_power_fit fit;
    apmw_error err = {0};
    assert_int_equal(apmw_fit_power(rows, use, N, &p, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, &err), 0);
    near(fit.params.a_duty, 0.9, 1e-3);
    near(fit.params.b, 0.08, 1e-3);
}

static void groups_give_the_uncertainty(void **state)
{
    (void)state;
    static apmw_power_row rows[N];
    size_t use[N];
    apmw_power_params p = truth(false);
    make_rows(rows, use, &p, 0.1);
    apmw_power_fit fit;
    apmw_error err = {0};
    assert_int_equal(apmw_fit_power(rows, use, N, &p, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, &err), 0);
    /* the sample of 8 common factors of sd 0.1 */
    assert_true(fit.sd_config > 0.05 && fit.sd_config < 0.2);
    assert_true(fit.sd_within < 0.05);
    assert_true(fit.params.covariance[0][0] > 0 && fit.params.covariance[1][1] > 0);
    double r = fit.params.covariance[0][1] / sqrt(fit.params.covariance[0][0] * fit.params.covariance[1][1]);
    assert_true(fabs(r) <= 1);
    assert_true(fabs(log(fit.params.a_duty / 0.9)) < 4 * sqrt(fit.params.covariance[0][0]));
    assert_true(fabs(log(fit.params.b / 0.08)) < 4 * sqrt(fit.params.covariance[1][1]));
}

static void too_few_rows_is_an_error(void **state)
{
    (void)state;
    static apmw_power_row rows[N];
    size_t use[N];
    apmw_power_params p = truth(false);
    make_rows(rows, use, &p, 0);
    apmw_power_fit fit;
    apmw_error err = {0};
    assert_int_equal(apmw_fit_power(rows, use, 1, &p, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, &err),
                     APMW_E_DATA);
    assert_non_null(strstr(err.message, "1 usable row"));
    rows[0].measured.duty = (double)NAN;
    rows[1].watts = 0;
    assert_int_equal(apmw_fit_power(rows, use, 3, &p, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, &err),
                     APMW_E_DATA);
}

/* The rule of the split. */
static void split_is_by_hash(void **state)
{
    (void)state;
    size_t odd = 0;
    for (int i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "m%d|b200", i);
        odd += apmw_power_is_judge(name);
        assert_int_equal(apmw_power_is_judge(name), apmw_hash64(name, strlen(name), 0) % 2);
    }
    assert_in_range(odd, 420, 580);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recovers_both_scales),       cmocka_unit_test(recovers_the_top),
        cmocka_unit_test(one_wild_row_does_not_move_it), cmocka_unit_test(groups_give_the_uncertainty),
        cmocka_unit_test(too_few_rows_is_an_error),   cmocka_unit_test(split_is_by_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
