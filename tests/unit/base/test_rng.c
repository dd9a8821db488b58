/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <string.h>

#include "apmw/rng.h"
#include "apmw/time.h"
#include "test_support.h"

/* numpy.random.RandomState(seed).randint(low, high + 1, n), then .randint(10, 30, 4): numpy 2.4.6. */
static const struct {
    uint32_t seed;
    int64_t low, high;
    int n;
    int64_t first[8], then[4];
} numpy_cases[] = {
    {0, 800, 1024, 8, {972, 847, 917, 992, 867, 995, 903, 809}, {29, 28, 14, 16}},
    {0, 0, 1, 8, {0, 1, 1, 0, 1, 1, 1, 1}, {19, 29, 28, 14}},
    {42, 1638, 8192, 8, {2498, 7028, 6864, 6829, 5410, 4730, 7372, 7903}, {28, 20, 20, 13}},
    {12345, 0, 4294967294, 4, {3992670690, 3823185381, 1358822685, 561383553}, {14, 19, 15, 12}},
    {12345, 0, 4294967295, 4, {3992670690, 3823185381, 1358822685, 561383553}, {14, 19, 15, 12}},
    {7, -5, 5, 8, {-1, 4, 1, -2, -2, 2, 2, 4}, {24, 18, 24, 20}},
    {0, 1024, 1024, 3, {1024, 1024, 1024}, {22, 25, 10, 13}},
};

static void numpy_randint(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof numpy_cases / sizeof numpy_cases[0]; c++) {
        apmw_mt19937 mt;
        int64_t out[8];
        apmw_mt19937_seed(&mt, numpy_cases[c].seed);
        apmw_mt19937_randint(&mt, numpy_cases[c].low, numpy_cases[c].high, numpy_cases[c].n, out);
        for (int i = 0; i < numpy_cases[c].n; i++)
            assert_int_equal(out[i], numpy_cases[c].first[i]);
        apmw_mt19937_randint(&mt, 10, 29, 4, out);
        for (int i = 0; i < 4; i++)
            assert_int_equal(out[i], numpy_cases[c].then[i]);
    }
}

/* Long enough to pass many reloads of the 624 words. Same source. */
static void numpy_randint_long(void **state)
{
    (void)state;
    static int64_t out[100000];
    apmw_mt19937 mt;
    apmw_mt19937_seed(&mt, 3);
    apmw_mt19937_randint(&mt, 819, 1024, 100000, out);
    int64_t sum = 0;
    for (int i = 0; i < 100000; i++)
        sum += out[i];
    assert_int_equal(sum, 92149418);
    assert_int_equal(out[99997], 907);
    assert_int_equal(out[99999], 919);
    apmw_mt19937_randint(&mt, 0, 2147483647, 2, out);
    assert_int_equal(out[0], 732247874);
    assert_int_equal(out[1], 1543604854);
}

static void keys_separate_streams(void **state)
{
    (void)state;
    uint64_t key = apmw_rng_key(1, "arrival", 2, 3);
    assert_true(key == apmw_rng_key(1, "arrival", 2, 3));
    assert_true(key != apmw_rng_key(2, "arrival", 2, 3));
    assert_true(key != apmw_rng_key(1, "arrivals", 2, 3));
    assert_true(key != apmw_rng_key(1, "arrival", 3, 2));
    assert_true(key != apmw_rng_key(2, "arrival", 1, 3));
    /* The stream is the sequence of its counters, in whatever order they are asked for. */
    apmw_rng rng = apmw_rng_make(1, "arrival", 2, 3);
    double fifth = apmw_rng_uniform_at(key, 4);
    for (int i = 0; i < 4; i++)
        assert_true(apmw_rng_uniform(&rng) != fifth);
    assert_same_double(apmw_rng_uniform(&rng), fifth);
}

/* A change of the generator changes every result of the program: it must be seen. Values of this
 * implementation. */
static void values_stay(void **state)
{
    (void)state;
    apmw_rng rng = apmw_rng_make(42, "test", 7, 9);
    assert_true(rng.key == apmw_rng_key(42, "test", 7, 9));
    assert_int_equal(apmw_rng_u64(&rng), UINT64_C(0xd6019bb3dfed5727));
    assert_int_equal(apmw_rng_u64(&rng), UINT64_C(0x5e176f25b190626a));
}

enum { MANY = 200000 };

/* Bounds are 5 standard errors: sd of the sample mean of n draws is sd / sqrt(n). */
static void moments(void **state)
{
    (void)state;
    apmw_rng rng = apmw_rng_make(5, "moments", 0, 0);
    double sum = 0, squares = 0, lag = 0, before = 0.5, normal = 0, normal2 = 0, expo = 0;
    int inside = 0, below_median = 0;
    for (int i = 0; i < MANY; i++) {
        double u = apmw_rng_uniform(&rng);
        assert_true(u > 0 && u < 1);
        sum += u - 0.5;
        squares += (u - 0.5) * (u - 0.5);
        lag += (u - 0.5) * (before - 0.5);
        before = u;
        double z = apmw_rng_normal(&rng);
        normal += z;
        normal2 += z * z;
        inside += fabs(z) < 1.959963984540054;
        expo += apmw_rng_exponential(&rng, 3.0);
        below_median += apmw_rng_lognormal(&rng, 20.0, 0.7) < 20.0;
    }
    double root = sqrt((double)MANY);
    assert_near(sum / MANY, 0, 5 * 0.2887 / root);
    assert_near(squares / MANY, 1.0 / 12, 5 * 0.0745 / root);
    assert_near(lag / MANY, 0, 5 * (1.0 / 12) / root);
    assert_near(normal / MANY, 0, 5 / root);
    assert_near(normal2 / MANY, 1, 5 * sqrt(2) / root);
    assert_near((double)inside / MANY, 0.95, 5 * 0.218 / root);
    assert_near(expo / MANY, 3, 5 * 3 / root);
    assert_near((double)below_median / MANY, 0.5, 5 * 0.5 / root);
}

/* Adjacent keys and adjacent counters must look independent too: chi-square on 64 x 64 cells. */
static void neighbours_are_independent(void **state)
{
    (void)state;
    static int cells[64][64];
    memset(cells, 0, sizeof cells);
    const int n = 400000;
    for (int i = 0; i < n; i++) {
        uint64_t a = apmw_rng_key(1, "agent", (uint64_t)i, 0),
                 b = apmw_rng_key(1, "agent", (uint64_t)i + 1, 0);
        cells[(int)(64 * apmw_rng_uniform_at(a, 0))][(int)(64 * apmw_rng_uniform_at(b, 1))]++;
    }
    double chi = 0, expected = (double)n / 4096;
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < 64; j++)
            chi += (cells[i][j] - expected) * (cells[i][j] - expected) / expected;
    }
    /* 4095 degrees of freedom: mean 4095, sd sqrt(2 * 4095) = 90.5. */
    assert_near(chi, 4095, 5 * 90.5);
}

static void below_is_even_and_bounded(void **state)
{
    (void)state;
    apmw_rng rng = apmw_rng_make(9, "below", 0, 0);
    int count[6] = {0};
    for (int i = 0; i < 60000; i++)
        count[apmw_rng_below(&rng, 6)]++;
    for (int i = 0; i < 6; i++)
        assert_near(count[i], 10000, 5 * sqrt(60000 * (1.0 / 6) * (5.0 / 6)));
    for (int i = 0; i < 100; i++)
        assert_int_equal(apmw_rng_below(&rng, 1), 0);
    /* A range of 3/4 of 2^64 would favour small values without rejection: a third of it would get half the
     * draws. */
    uint64_t n = UINT64_C(0xc000000000000000);
    int low = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t x = apmw_rng_below(&rng, n);
        assert_true(x < n);
        low += x < n / 3;
    }
    assert_near(low, 10000, 5 * sqrt(30000 * (1.0 / 3) * (2.0 / 3)));
}

static void time_rounds_to_nearest(void **state)
{
    (void)state;
    assert_int_equal(apmw_time_from_s(0.1), 100000000);
    assert_int_equal(apmw_time_from_s(1.4999999996), 1500000000);
    assert_int_equal(apmw_time_from_s(-0.25), -250000000);
    assert_int_equal(apmw_time_from_s(3e-10), 0);
    assert_near(apmw_time_to_s(apmw_time_from_s(12345.678901234)), 12345.678901234, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpy_randint),
        cmocka_unit_test(numpy_randint_long),
        cmocka_unit_test(keys_separate_streams),
        cmocka_unit_test(values_stay),
        cmocka_unit_test(moments),
        cmocka_unit_test(neighbours_are_independent),
        cmocka_unit_test(below_is_even_and_bounded),
        cmocka_unit_test(time_rounds_to_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
