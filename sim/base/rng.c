/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/rng.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "apmw/status.h"

__extension__ typedef unsigned __int128 uint128;

uint64_t apmw_rng_key(uint64_t seed, const char *purpose, uint64_t a, uint64_t b)
{
    uint64_t words[3] = {seed, a, b};
    return XXH3_64bits_withSeed(words, sizeof words, XXH3_64bits(purpose, strlen(purpose)));
}

apmw_rng apmw_rng_make(uint64_t seed, const char *purpose, uint64_t a, uint64_t b)
{
    return (apmw_rng){.key = apmw_rng_key(seed, purpose, a, b), .counter = 0};
}

static uint64_t draw(uint64_t key, uint64_t counter)
{
    uint64_t words[2] = {key, counter};
    return XXH3_64bits(words, sizeof words);
}

/* 52 bits and a half: the largest value is 1 - 2^-53, which a double holds; with 53 bits it would round to 1.
 */
static double to_uniform(uint64_t bits)
{
    return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

double apmw_rng_uniform_at(uint64_t key, uint64_t counter)
{
    return to_uniform(draw(key, counter));
}

uint64_t apmw_rng_u64(apmw_rng *rng)
{
    return draw(rng->key, rng->counter++);
}

double apmw_rng_uniform(apmw_rng *rng)
{
    return to_uniform(apmw_rng_u64(rng));
}

/* D. Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1), 2019: the high word of
 * bits * n is the answer, and the low word tells the few draws that would favour small values. */
uint64_t apmw_rng_below(apmw_rng *rng, uint64_t n)
{
    APMW_CHECK(n >= 1);
    uint128 product = (uint128)apmw_rng_u64(rng) * n;
    if ((uint64_t)product < n) {
        uint64_t threshold = (0 - n) % n;
        while ((uint64_t)product < threshold)
            product = (uint128)apmw_rng_u64(rng) * n;
    }
    return (uint64_t)(product >> 64);
}

double apmw_rng_normal(apmw_rng *rng)
{
    return gsl_cdf_ugaussian_Pinv(apmw_rng_uniform(rng));
}

double apmw_rng_lognormal(apmw_rng *rng, double median, double sigma)
{
    return exp(log(median) + sigma * apmw_rng_normal(rng));
}

double apmw_rng_exponential(apmw_rng *rng, double mean)
{
    return -mean * log(apmw_rng_uniform(rng));
}

/* M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; seeding of 2002 as in numpy's
 * RandomState(seed) for an integer seed. */
enum { MT_N = 624, MT_M = 397 };

void apmw_mt19937_seed(apmw_mt19937 *state, uint32_t seed)
{
    state->mt[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t before = state->mt[i - 1];
        state->mt[i] = 1812433253U * (before ^ (before >> 30)) + i;
    }
    state->index = MT_N;
}

static uint32_t mt_mix(uint32_t high, uint32_t low)
{
    uint32_t y = (high & 0x80000000U) | (low & 0x7fffffffU);
    return (y >> 1) ^ ((y & 1U) ? 0x9908b0dfU : 0U);
}

static uint32_t mt_next(apmw_mt19937 *state)
{
    uint32_t *mt = state->mt;
    if (state->index >= MT_N) {
        for (int i = 0; i < MT_N; i++)
            mt[i] = mt[(i + MT_M) % MT_N] ^ mt_mix(mt[i], mt[(i + 1) % MT_N]);
        state->index = 0;
    }
    uint32_t y = mt[state->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

void apmw_mt19937_randint(apmw_mt19937 *state, int64_t low, int64_t high, int64_t n, int64_t *out)
{
    APMW_CHECK(low <= high);
    uint64_t range = (uint64_t)high - (uint64_t)low;
    APMW_CHECK(range <= UINT32_MAX);
    uint32_t mask = (uint32_t)range;
    for (int shift = 1; shift < 32; shift *= 2)
        mask |= mask >> shift;
    for (int64_t i = 0; i < n; i++) {
        uint32_t value = 0; /* a range of one value draws nothing, as in numpy */
        if (range > 0) {
            do
                value = mt_next(state) & mask;
            while (value > range);
        }
        out[i] = low + (int64_t)value;
    }
}
