/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The power form: values worked by hand, limits, and what must never happen. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "apmw/power_form.h"

static apmw_power_params sample(void)
{
    apmw_power_params p = {.tdp_w = 1000, .p0 = 0.2, .pt = 0.97, .a_duty = 0.87, .a_bw = 0.48, .b = 0.082};
    p.p_idle_w = (double)NAN;
    return p;
}

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.12g is not %.12g", a, b);
}

/* duty 0.5, f 0.1: z = 0.5/0.87 + 0.1/0.082 = 1.794224...; 1 - exp(-z) = 0.8337434...; 0.2 + 0.77 x that = 0.8419824... */
static void worked_value(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    near(apmw_power_step_w(&p, 0.5, 0.9, 0.1), 1000 * (0.2 + 0.77 * (1 - exp(-(0.5 / 0.87 + 0.1 / 0.082)))), 1e-9);
    near(apmw_power_step_w(&p, 0.5, 0.9, 0.1), 841.98, 0.05);
}

static void limits(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    near(apmw_power_step_w(&p, 0, 0, 0), 200, 1e-9);
    near(apmw_power_step_w(&p, 1, 0, 1e9), 970, 1e-9);
    p.pt = 1.1;
    near(apmw_power_step_w(&p, 1, 0, 1e9), 1000, 1e-9); /* never above TDP */
}

static void duty_is_capped(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    near(apmw_power_step_w(&p, 1.7, 0, 0.01), apmw_power_step_w(&p, 1.0, 0, 0.01), 0);
    assert_true(apmw_power_step_w(&p, 0.9, 0, 0.01) < apmw_power_step_w(&p, 1.0, 0, 0.01));
}

static void bandwidth_replaces_duty(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    p.use_bandwidth = 1;
    near(apmw_power_step_w(&p, 0.1, 0.6, 0.02), apmw_power_step_w(&p, 0.9, 0.6, 0.02), 0);
    near(apmw_power_step_w(&p, 0, 0.6, 0.02), 1000 * (0.2 + 0.77 * (1 - exp(-(0.6 / 0.48 + 0.02 / 0.082)))), 1e-9);
}

static void rises_with_every_use(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    double last = 0;
    for (int i = 0; i <= 20; i++) {
        double now = apmw_power_step_w(&p, i / 20.0, 0, i / 40.0);
        assert_true(now > last && now <= p.tdp_w);
        last = now;
    }
}

static void unknown_stays_unknown(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    assert_true(isnan(apmw_power_step_w(&p, (double)NAN, 0.5, 0.1)));
    assert_true(isnan(apmw_power_step_w(&p, 0.5, 0.5, (double)NAN)));
    assert_true(!isnan(apmw_power_step_w(&p, 0.5, (double)NAN, 0.1))); /* bandwidth is not asked for */
    p.use_bandwidth = 1;
    assert_true(isnan(apmw_power_step_w(&p, 0.5, (double)NAN, 0.1)));
}

static void idle(void **state)
{
    (void)state;
    apmw_power_params p = sample();
    near(apmw_power_idle_w(&p), 200, 1e-9); /* not measured: the floor of steps stands in */
    p.p_idle_w = 115;
    near(apmw_power_idle_w(&p), 115, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_value),         cmocka_unit_test(limits), cmocka_unit_test(duty_is_capped),
        cmocka_unit_test(bandwidth_replaces_duty), cmocka_unit_test(rises_with_every_use), cmocka_unit_test(idle),
        cmocka_unit_test(unknown_stays_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
