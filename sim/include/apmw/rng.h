/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Counter-based random numbers keyed by purpose: a draw depends on (seed, purpose, a, b, counter) only, so
 * adding a draw somewhere never shifts another stream. The hash is XXH3-64 (xxHash, BSD-2). */
#ifndef APMW_RNG_H
#define APMW_RNG_H
#include <stdint.h>

typedef struct apmw_rng {
    uint64_t key;
    uint64_t counter;
} apmw_rng;

uint64_t apmw_rng_key(uint64_t seed, const char *purpose, uint64_t a, uint64_t b);
apmw_rng apmw_rng_make(uint64_t seed, const char *purpose, uint64_t a, uint64_t b);
/* Uniform in (0, 1), never 0 or 1. */
double apmw_rng_uniform_at(uint64_t key, uint64_t counter);
uint64_t apmw_rng_u64(apmw_rng *rng);
double apmw_rng_uniform(apmw_rng *rng);
/* Integer uniform on [0, n), unbiased; n >= 1. */
uint64_t apmw_rng_below(apmw_rng *rng, uint64_t n);
/* Standard normal by the inverse distribution function (one uniform a draw). */
double apmw_rng_normal(apmw_rng *rng);
/* exp(log(median) + sigma * normal). */
double apmw_rng_lognormal(apmw_rng *rng, double median, double sigma);
double apmw_rng_exponential(apmw_rng *rng, double mean);

/* Legacy numpy generator: RandomState(seed).randint(low, high+1, n) for 0 <= high-low < 2^32 (MT19937 with
 * masked rejection), which the InferenceX client uses to draw lengths. Fills out[n] with values in [low, high].
 * `state` carries on between calls so that inputs and outputs can be drawn one after the other. */
typedef struct apmw_mt19937 {
    uint32_t mt[624];
    int index;
} apmw_mt19937;
void apmw_mt19937_seed(apmw_mt19937 *state, uint32_t seed);
void apmw_mt19937_randint(apmw_mt19937 *state, int64_t low, int64_t high, int64_t n, int64_t *out);

#endif
