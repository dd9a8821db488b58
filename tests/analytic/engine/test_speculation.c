/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Speculative decoding against what theory gives. */
#include <math.h>

#include "engine_rig.h"

/* Seconds from first to last token of n requests that decode alone, one after another, at 10 ms a step. */
static void decode_steps(apmw_engine_config config, double *steps, int n, int64_t n_out)
{
    const apmw_linear_cost cost = rig_cost(0.01, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    for (int i = 0; i < n; i++) {
        rig_add(rig, (apmw_time)i * 100 * 1000000000LL, 10, n_out);
    }
    rig_run(rig);
    for (int i = 0; i < n; i++) {
        const apmw_request_record *r = &rig->requests[i]->record;
        steps[i] = (double)(r->last_token - r->first_token) / 1e7;
    }
    rig_close(rig);
}

static void moments(const double *x, int n, double *mean, double *variance)
{
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < n; i++) {
        sum += x[i];
    }
    *mean = sum / n;
    for (int i = 0; i < n; i++) {
        squares += (x[i] - *mean) * (x[i] - *mean);
    }
    *variance = squares / (n - 1);
}

/* Steps for 400 tokens: mean 400 / m, variance 400 s^2 / m^3 and what random rounding adds (1/12 to 1/4). */
static void spread_follows_the_positions(void **state)
{
    (void)state;
    enum { N = 2000 };
    static double steps[N];
    const struct {
        double variance;
        bool fixed;
        double expected; /* variance of a step's tokens */
        double spread;   /* relative sd between sequences */
    } cases[] = {
        {0.72, false, 0.72, 0.0}, /* 2 drafts with chances 0.8 and 0.5: S = 0.8, 0.4; 0.8 + 3 x 0.4 - 1.2^2 = 0.56; any value is taken */
        {0.56, false, 0.56, 0.0},
        {0.56, true, 0.0, 0.0},
        {0.56, false, 0.56, 0.1}, /* steps of sequences differ by 10 % of 400 / 2.2 as well */
        {0.56, true, 0.0, 0.1},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        apmw_engine_config config = rig_config();
        config.draft_tokens = 2;
        config.acceptance_length = 2.2;
        config.acceptance_variance = cases[c].variance;
        config.acceptance_fixed = cases[c].fixed;
        config.acceptance_spread = cases[c].spread;
        config.seed = 5;
        double mean, variance;
        decode_steps(config, steps, N, 401);
        moments(steps, N, &mean, &variance);
        const double between = cases[c].fixed ? 0.0 : cases[c].spread * 400.0 / 2.2;
        const double theory = 400.0 * cases[c].expected / (2.2 * 2.2 * 2.2) + between * between;
        assert_true(fabs(mean - 400.0 / 2.2) < 4.0 * sqrt((theory + 0.25) / N));
        assert_true(variance > 0.9 * theory && variance < 1.1 * theory + 0.3);
    }
}

/* Nothing accepted and drafts that cost nothing: as without them. */
static void acceptance_of_one_is_no_speculation(void **state)
{
    (void)state;
    double with[5], without[5];
    apmw_engine_config config = rig_config();
    decode_steps(config, without, 5, 57);
    config.draft_tokens = 3;
    config.acceptance_length = 1.0;
    decode_steps(config, with, 5, 57);
    for (int i = 0; i < 5; i++) {
        assert_true(with[i] == without[i]);
    }
}

/* All accepted: k + 1 tokens a step. */
static void all_accepted(void **state)
{
    (void)state;
    double steps[3];
    apmw_engine_config config = rig_config();
    config.draft_tokens = 3;
    config.acceptance_length = 4.0;
    decode_steps(config, steps, 3, 41);
    for (int i = 0; i < 3; i++) {
        assert_true(steps[i] == 10.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spread_follows_the_positions),
                                       cmocka_unit_test(acceptance_of_one_is_no_speculation),
                                       cmocka_unit_test(all_accepted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
