/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Step and energy books by hand: windows that cut stretches, short and long gaps, limits. */
#include <math.h>

#include "apmw/metrics.h"
#include "test_support.h"

static apmw_step_record stretch(int32_t engine, double begin, double end, int64_t n_steps)
{
    return (apmw_step_record){.engine = engine,
                              .begin = apmw_time_from_s(begin),
                              .end = apmw_time_from_s(end),
                              .n_steps = n_steps,
                              .n_seqs = 10,
                              .decode_tokens = 10 * n_steps,
                              .kernel_s = 0.5 * (end - begin),
                              .flops = 100.0 * (end - begin),
                              .bytes = 10.0 * (end - begin),
                              .kv_used_blocks = 30,
                              .kv_capacity_blocks = 100};
}

static void steps_are_cut_at_the_window(void **state)
{
    (void)state;
    apmw_window window = {.from = APMW_TIME_NEVER, .to = APMW_TIME_NEVER};
    apmw_step_meter *meter = apmw_step_meter_create(&window, 1);
    const apmw_probe *probe = apmw_step_meter_probe(meter);
    apmw_step_record r = stretch(0, 0, 1, 10);
    probe->on_step(probe->self, &r); /* before the window is known: outside */
    window.from = apmw_time_from_s(2);
    r = stretch(0, 1, 3, 20); /* half of it inside */
    probe->on_step(probe->self, &r);
    r = stretch(0, 3, 4, 5);
    r.prefill_tokens = 400;
    r.outside_steps = 5;
    r.kv_used_blocks = 90;
    probe->on_step(probe->self, &r);
    window.to = apmw_time_from_s(6);
    r = stretch(0, 5, 9, 40); /* a quarter inside */
    probe->on_step(probe->self, &r);
    r = stretch(0, 9, 10, 40); /* after the window */
    probe->on_step(probe->self, &r);
    apmw_step_summary s;
    apmw_step_meter_summary(meter, apmw_time_from_s(10), &s);
    assert_near(s.window_s, 4.0, 1e-12);
    assert_near(s.n_steps, 10 + 5 + 10, 1e-9);
    assert_near(s.busy_share, 3.0 / 4.0, 1e-12);
    assert_near(s.mean_step_s, 3.0 / 25.0, 1e-12);
    assert_near(s.prefill_tok_s, 100.0, 1e-9);
    assert_near(s.decode_tok_s, (100 + 50 + 100) / 4.0, 1e-9);
    assert_near(s.prefill_step_share, 1.0 / 3.0, 1e-12);
    assert_near(s.outside_share, 5.0 / 25.0, 1e-12);
    assert_near(s.mean_batch, 10.0, 1e-12);
    assert_near(s.kv_mean_share, (0.3 + 0.9 + 0.3) / 3.0, 1e-12);
    assert_near(s.kv_peak_share, 0.9, 1e-12);
    assert_near(s.duty, 0.5, 1e-12);
    apmw_step_meter_free(meter);
}

/* 100 W of floor, 400 W at duty 0.5 or more, linear between. */
static double watts(void *self, double duty, double bw_util, double flop_util)
{
    (void)self;
    assert_near(bw_util, duty > 0 ? 0.1 : 0.0, 1e-9);
    assert_near(flop_util, duty > 0 ? 0.5 : 0.0, 1e-9);
    return 100.0 + 600.0 * fmin(duty, 0.5);
}

static apmw_energy_config config(void)
{
    return (apmw_energy_config){.n_engines = 2, .accelerators = 8, .step_w = watts, .idle_w = 40.0, .limit_w = 700.0,
                                .peak_flop_per_s = 200.0, .hbm_bytes_per_s = 100.0, .long_gap_s = 1.0};
}

static void energy_by_hand(void **state)
{
    (void)state;
    const apmw_window window = {.from = apmw_time_from_s(1), .to = apmw_time_from_s(11)};
    const apmw_energy_config c = config();
    apmw_energy_meter *meter = apmw_energy_meter_create(&window, &c);
    const apmw_probe *probe = apmw_energy_meter_probe(meter);
    /* Engine 0: steps 0-3, gap of 0.5 s at the floor, steps 3.5-5, long gap 5-12 (6 s of it inside) at idle power.
     * Engine 1: nothing at all: idle for the whole window. */
    apmw_step_record r = stretch(0, 0, 3, 3);
    probe->on_step(probe->self, &r);
    r = stretch(0, 3.5, 5, 3);
    probe->on_step(probe->self, &r);
    r = stretch(0, 12, 13, 3);
    probe->on_step(probe->self, &r);
    apmw_energy_summary s;
    apmw_error err = {0};
    assert_ok(apmw_energy_meter_finish(meter, apmw_time_from_s(13), &s, &err), &err);
    assert_near(s.window_s, 10.0, 1e-12);
    assert_near(s.busy_j, 8 * 400.0 * 3.5, 1e-6);
    assert_near(s.gap_j, 8 * 100.0 * 0.5, 1e-6);
    assert_near(s.idle_j, 8 * 40.0 * (6.0 + 10.0), 1e-6);
    assert_near(s.energy_j, s.busy_j + s.gap_j + s.idle_j, 1e-6);
    assert_near(s.mean_w, s.energy_j / (2 * 8 * 10.0), 1e-9);
    assert_near(s.busy_share + s.gap_share + s.idle_share, 1.0, 1e-12);
    assert_near(s.bw_util, 0.1, 1e-12);
    assert_near(s.flop_util, 0.5, 1e-12);
    apmw_energy_meter_free(meter);
}

static void unknown_idle_takes_the_floor(void **state)
{
    (void)state;
    apmw_energy_config c = config();
    c.idle_w = (double)NAN;
    c.n_engines = 1;
    apmw_energy_meter *meter = apmw_energy_meter_create(NULL, &c);
    apmw_energy_summary s;
    apmw_error err = {0};
    assert_ok(apmw_energy_meter_finish(meter, apmw_time_from_s(20), &s, &err), &err);
    assert_near(s.mean_w, 100.0, 1e-9);
    apmw_energy_meter_free(meter);
}

static double too_much(void *self, double duty, double bw_util, double flop_util)
{
    (void)self;
    (void)bw_util;
    (void)flop_util;
    return duty > 0 ? 701.0 : 100.0;
}

static void laws_of_energy(void **state)
{
    (void)state;
    apmw_energy_config c = config();
    c.step_w = too_much;
    c.n_engines = 1;
    apmw_energy_meter *meter = apmw_energy_meter_create(NULL, &c);
    const apmw_probe *probe = apmw_energy_meter_probe(meter);
    apmw_step_record r = stretch(0, 0, 3, 3);
    probe->on_step(probe->self, &r);
    apmw_energy_summary s;
    apmw_error err = {0};
    assert_error(apmw_energy_meter_finish(meter, apmw_time_from_s(3), &s, &err), APMW_E_INTERNAL, &err, "law L19");
    apmw_energy_meter_free(meter);
    c.step_w = watts;
    meter = apmw_energy_meter_create(NULL, &c);
    probe = apmw_energy_meter_probe(meter);
    probe->on_step(probe->self, &r);
    r = stretch(0, 2, 4, 3); /* begins inside the one before */
    probe->on_step(probe->self, &r);
    assert_error(apmw_energy_meter_finish(meter, apmw_time_from_s(4), &s, &err), APMW_E_INTERNAL, &err, "law L18");
    apmw_energy_meter_free(meter);
}

/* Two accelerators at 300 W that step half of the time, six at 700 W that always do. */
static void two_groups_as_one(void **state)
{
    (void)state;
    const apmw_energy_summary a = {.window_s = 10, .energy_j = 6000, .busy_j = 4000, .idle_j = 2000, .busy_share = 0.5,
                                   .idle_share = 0.5, .mean_w = 300, .bw_util = 0.2, .flop_util = 0.8};
    const apmw_energy_summary b = {.window_s = 10, .energy_j = 42000, .busy_j = 42000, .busy_share = 1.0, .mean_w = 700,
                                   .bw_util = 0.6, .flop_util = 0.1};
    apmw_energy_summary s;
    apmw_energy_join(&a, 2, &b, 6, &s);
    assert_near(s.energy_j, 48000, 1e-9);
    assert_near(s.mean_w, 600, 1e-9);
    assert_near(s.mean_w * 8 * s.window_s, s.energy_j, 1e-9);
    assert_near(s.busy_share, 7.0 / 8, 1e-12);
    assert_near(s.idle_share, 1.0 / 8, 1e-12);
    assert_near(s.bw_util, (1 * 0.2 + 6 * 0.6) / 7, 1e-12); /* 1 and 6 accelerators' time of stepping */
    assert_near(s.flop_util, (1 * 0.8 + 6 * 0.1) / 7, 1e-12);
    /* A group that never steps has no rates to add. */
    apmw_energy_summary idle = {.window_s = 10, .energy_j = 1000, .idle_j = 1000, .idle_share = 1.0, .mean_w = 50,
                                .bw_util = (double)NAN, .flop_util = (double)NAN};
    apmw_energy_join(&idle, 2, &b, 6, &s);
    assert_near(s.bw_util, 0.6, 1e-12);
    assert_near(s.mean_w, (2 * 50 + 6 * 700) / 8.0, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_groups_as_one), 
        cmocka_unit_test(steps_are_cut_at_the_window), cmocka_unit_test(energy_by_hand),
        cmocka_unit_test(unknown_idle_takes_the_floor), cmocka_unit_test(laws_of_energy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
