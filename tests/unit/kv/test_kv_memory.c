/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Each allocation of a small run of the prefix cache fails once: counts stay right, all laws hold, nothing
 * leaks or is used uncached without a word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/kv.h"
#include "failing_alloc.h"

enum { DEPTH = 40, LEASES = 100 };

static void laws(const apmw_prefix_cache *cache)
{
    apmw_error err = {APMW_OK, ""};
    const apmw_status status = apmw_prefix_cache_check(cache, &err);
    if (status != (apmw_prefix_cache_out_of_memory(cache) ? APMW_E_NOMEM : APMW_OK)) {
        fail_msg("%s", err.message);
    }
}

/* Grows every array: deep paths, many streams, many pins on one stream, many segments, dead output. */
static bool run(apmw_kv_policy policy)
{
    apmw_streams *streams = apmw_streams_create();
    if (streams == NULL) {
        return false;
    }
    const apmw_kv_options options = {
        .capacity_blocks = 2500, .block_tokens = 4, .caching = true, .policy = policy, .ttl_ns = 1000};
    apmw_prefix_cache *cache = apmw_prefix_cache_create_with(streams, &options);
    if (cache == NULL) {
        apmw_streams_free(streams);
        return false;
    }
    bool whole = true;
    apmw_stream deep = apmw_streams_new(streams, 0, 0);
    for (int64_t d = 1; d < DEPTH && deep != 0; d++) {
        deep = apmw_streams_new(streams, deep, 8 * d);
    }
    whole = whole && deep != 0;
    apmw_kv_lease leases[LEASES];
    for (int i = 0; i < LEASES; i++) {
        const apmw_stream own = i % 2 == 0 ? deep : apmw_streams_new(streams, 0, 0);
        whole = whole && own != 0;
        const int64_t n_prompt = 100 + 4 * i;
        apmw_prefix_cache_begin(cache, own, n_prompt, &leases[i]);
        assert_true(apmw_prefix_cache_take(cache, &leases[i], n_prompt / 4 + 8 - leases[i].pinned_blocks));
        if (i % 10 != 9) {
            apmw_prefix_cache_commit(cache, &leases[i], n_prompt / 2);
            apmw_prefix_cache_commit(cache, &leases[i], n_prompt);
        }
        laws(cache);
        if (i >= 30) {
            apmw_prefix_cache_end(cache, &leases[i - 30], i % 3 == 0 ? 16 : 0);
            laws(cache);
        }
    }
    for (int i = LEASES - 30; i < LEASES; i++) {
        apmw_prefix_cache_end(cache, &leases[i], 4);
        laws(cache);
    }
    apmw_kv_stats s;
    apmw_prefix_cache_stats(cache, &s);
    assert_int_equal(s.held_blocks, 0);
    assert_true(s.evicted_blocks > 0 || !whole);
    whole = whole && !apmw_prefix_cache_out_of_memory(cache);
    apmw_prefix_cache_free(cache);
    apmw_streams_free(streams);
    return whole;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    if (!FAILING_ALLOC) {
        skip();
    }
    for (int policy = APMW_KV_LRU; policy <= APMW_KV_IDLE_TTL; policy++) {
        long n = 1;
        for (;; n++) {
            const long live = failing_alloc_live;
            failing_alloc_countdown = n;
            const bool whole = run((apmw_kv_policy)policy);
            const bool reached = failing_alloc_countdown == 0;
            failing_alloc_countdown = 0;
            assert_true(failing_alloc_live == live);
            assert_true(whole != reached); /* a failure is always told, and only a failure */
            if (!reached) {
                break;
            }
        }
        assert_true(n > 12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
