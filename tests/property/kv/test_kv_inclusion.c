/* SPDX-License-Identifier: GPL-3.0-or-later */
/* LRU inclusion: on the same sequence of accesses a larger pool never loses a hit (Mattson et al. 1970, stack
 * algorithms). Requests run one after the other here: with overlapping ones a larger pool may hold duplicates
 * that the smaller does not, and the law need not hold request by request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>

#include "apmw/kv.h"
#include "apmw/rng.h"

enum { N_POOLS = 5, N_STREAMS = 60, N_REQUESTS = 300, N_SEQUENCES = 200 };

static int64_t serve(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt, int64_t n_kv, bool kept,
                     int64_t chunk)
{
    const int64_t block = apmw_prefix_cache_block_tokens(cache);
    const int64_t n_kept = kept ? n_kv : n_prompt;
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(cache, stream, n_prompt, &lease);
    for (int64_t at = lease.matched_tokens; at < n_kv;) {
        at = at + chunk < n_kv ? at + chunk : n_kv;
        const int64_t need = (at + block - 1) / block - lease.pinned_blocks - lease.taken_blocks;
        assert_true(apmw_prefix_cache_take(cache, &lease, need));
        apmw_prefix_cache_commit(cache, &lease, at < n_kept ? at : n_kept);
    }
    apmw_prefix_cache_end(cache, &lease, (n_kv / block - n_kept / block) * block);
    return lease.matched_tokens;
}

static void run_sequence(uint64_t seed, int64_t hits[N_POOLS])
{
    apmw_rng rng = apmw_rng_make(seed, "test.kv.inclusion", 0, 0);
    const int64_t block = 1 + (int64_t)apmw_rng_below(&rng, 16);
    const int64_t longest = block * 40;
    apmw_streams *streams = apmw_streams_create();
    apmw_stream known[N_STREAMS];
    for (uint64_t i = 0; i < N_STREAMS; i++) {
        const apmw_stream parent =
            i == 0 || apmw_rng_below(&rng, 5) == 0 ? 0 : known[apmw_rng_below(&rng, i)];
        known[i] = apmw_streams_new(streams, parent,
                                    parent == 0 ? 0 : (int64_t)apmw_rng_below(&rng, (uint64_t)longest / 2));
    }
    apmw_prefix_cache *pools[N_POOLS];
    int64_t capacity = 60; /* the longest request needs 40 + 15 blocks */
    for (int p = 0; p < N_POOLS; p++) {
        pools[p] = apmw_prefix_cache_create(streams, capacity, block, true);
        assert_non_null(pools[p]);
        capacity += 1 + (int64_t)apmw_rng_below(&rng, 200);
    }
    for (int r = 0; r < N_REQUESTS; r++) {
        const uint64_t pick = apmw_rng_below(&rng, N_STREAMS);
        const apmw_stream stream = known[apmw_rng_below(&rng, pick + 1)]; /* some are asked for often */
        const int64_t n_prompt = 1 + (int64_t)apmw_rng_below(&rng, (uint64_t)longest);
        const int64_t n_kv = n_prompt + (int64_t)apmw_rng_below(&rng, (uint64_t)block * 15);
        const bool kept = apmw_rng_below(&rng, 2) == 0;
        const int64_t chunk = 1 + (int64_t)apmw_rng_below(&rng, (uint64_t)longest);
        int64_t before = 0;
        for (int p = 0; p < N_POOLS; p++) {
            const int64_t hit = serve(pools[p], stream, n_prompt, n_kv, kept, chunk);
            if (hit < before) {
                fail_msg("sequence %" PRIu64 ", request %d: pool %d hits %" PRId64
                         " tokens, a smaller one %" PRId64,
                         seed, r, p, hit, before);
            }
            before = hit;
            hits[p] += hit;
        }
    }
    for (int p = 0; p < N_POOLS; p++) {
        apmw_error err = {APMW_OK, ""};
        assert_int_equal(apmw_prefix_cache_check(pools[p], &err), APMW_OK);
        apmw_prefix_cache_free(pools[p]);
    }
    apmw_streams_free(streams);
}

static void test_a_larger_pool_never_loses_a_hit(void **state)
{
    (void)state;
    int64_t hits[N_POOLS] = {0};
    for (uint64_t seed = 0; seed < N_SEQUENCES; seed++) {
        run_sequence(seed, hits);
    }
    assert_true(hits[0] > 0);
    for (int p = 1; p < N_POOLS; p++) {
        assert_true(hits[p] > hits[p - 1]); /* the pools differ enough to matter */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_larger_pool_never_loses_a_hit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
