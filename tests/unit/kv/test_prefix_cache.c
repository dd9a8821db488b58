/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The prefix cache by hand-worked cases. Blocks have 4 tokens unless said otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "apmw/kv.h"

typedef struct fixture {
    apmw_streams *streams;
    apmw_prefix_cache *cache;
} fixture;

static fixture make(int64_t capacity, int64_t block_tokens, bool caching)
{
    fixture f;
    f.streams = apmw_streams_create();
    f.cache = apmw_prefix_cache_create(f.streams, capacity, block_tokens, caching);
    assert_non_null(f.cache);
    return f;
}

static void drop(fixture *f)
{
    apmw_prefix_cache_free(f->cache);
    apmw_streams_free(f->streams);
}

static void expect(const fixture *f, int64_t free_blocks, int64_t held, int64_t cached)
{
    apmw_kv_stats s;
    apmw_prefix_cache_stats(f->cache, &s);
    assert_int_equal(s.free_blocks, free_blocks);
    assert_int_equal(s.held_blocks, held);
    assert_int_equal(s.cached_blocks, cached);
    apmw_error err = {APMW_OK, ""};
    if (apmw_prefix_cache_check(f->cache, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
}

/* A whole request: n_prompt tokens of prompt, n_out of output of which the last is in no KV; output_kept as
 * the engine has it. Returns the hit. */
static int64_t serve(const fixture *f, apmw_stream stream, int64_t n_prompt, int64_t n_out, bool output_kept)
{
    const int64_t block = apmw_prefix_cache_block_tokens(f->cache);
    const int64_t n_kv = n_prompt + n_out - 1;
    const int64_t n_kept = output_kept ? n_kv : n_prompt;
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f->cache, stream, n_prompt, &lease);
    assert_true(apmw_prefix_cache_take(f->cache, &lease, (n_kv + block - 1) / block - lease.pinned_blocks));
    apmw_prefix_cache_commit(f->cache, &lease, n_prompt);
    apmw_prefix_cache_commit(f->cache, &lease, n_kept);
    apmw_prefix_cache_end(f->cache, &lease, (n_kv / block - n_kept / block) * block);
    return lease.matched_tokens;
}

static void test_a_conversation_hits_its_past(void **state)
{
    (void)state;
    fixture f = make(100, 4, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    /* 10 tokens of prompt and 5 of output are 14 tokens in KV: 3 whole blocks. */
    assert_int_equal(serve(&f, s, 10, 5, true), 0);
    expect(&f, 97, 0, 3);
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 20), 12);
    assert_int_equal(serve(&f, s, 20, 1, true), 12);
    expect(&f, 95, 0, 5);
    apmw_kv_stats stats;
    apmw_prefix_cache_stats(f.cache, &stats);
    assert_int_equal(stats.query_tokens, 30);
    assert_int_equal(stats.hit_tokens, 12);
    assert_int_equal(stats.peak_used_blocks, 5);
    assert_int_equal(stats.inserted_blocks, 5);
    assert_int_equal(stats.evicted_blocks, 0);
    drop(&f);
}

static void test_one_prompt_token_is_always_computed(void **state)
{
    (void)state;
    fixture f = make(100, 4, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    serve(&f, s, 12, 1, true);
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 12), 8); /* 11 tokens at most, whole blocks */
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 13), 12);
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 1), 0);
    /* The last block is computed again: a duplicate while the lease runs, gone at its end. */
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f.cache, s, 12, &lease);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 1));
    expect(&f, 96, 3, 1);
    apmw_prefix_cache_commit(f.cache, &lease, 12);
    assert_int_equal(lease.committed_blocks, 3);
    assert_int_equal(lease.inserted_blocks, 0);
    expect(&f, 96, 4, 0);
    apmw_prefix_cache_end(f.cache, &lease, 0);
    expect(&f, 97, 0, 3);
    drop(&f);
}

static void test_a_fork_shares_whole_blocks_before_it(void **state)
{
    (void)state;
    fixture f = make(100, 4, true);
    const apmw_stream root = apmw_streams_new(f.streams, 0, 0);
    const apmw_stream at_8 = apmw_streams_new(f.streams, root, 8);
    const apmw_stream at_10 = apmw_streams_new(f.streams, root, 10);
    const apmw_stream other = apmw_streams_new(f.streams, 0, 0);
    assert_int_equal(apmw_streams_parent(f.streams, at_10), root);
    assert_int_equal(apmw_streams_fork(f.streams, at_10), 10);
    serve(&f, root, 17, 1, true); /* 4 blocks */
    assert_int_equal(apmw_prefix_cache_match(f.cache, at_8, 100), 8);
    /* Tokens 8 and 9 are shared, but the block of 8..11 is not: it belongs to the child. */
    assert_int_equal(apmw_prefix_cache_match(f.cache, at_10, 100), 8);
    assert_int_equal(apmw_prefix_cache_match(f.cache, other, 100), 0); /* another salt */
    assert_int_equal(serve(&f, at_10, 20, 1, true), 8);
    expect(&f, 93, 0, 7); /* 4 of the root, 3 of the child */
    assert_int_equal(apmw_prefix_cache_match(f.cache, at_10, 100), 20);
    assert_int_equal(apmw_prefix_cache_match(f.cache, root, 100), 16);
    /* A fork before the parent's own fork shares with the grandparent only. */
    const apmw_stream early = apmw_streams_new(f.streams, at_10, 5);
    assert_int_equal(apmw_prefix_cache_match(f.cache, early, 100), 4);
    drop(&f);
}

static void test_a_shared_prefix_computed_by_one_is_hit_by_the_next_while_it_runs(void **state)
{
    (void)state;
    fixture f = make(100, 4, true);
    const apmw_stream root = apmw_streams_new(f.streams, 0, 0);
    const apmw_stream a = apmw_streams_new(f.streams, root, 16), b = apmw_streams_new(f.streams, root, 16);
    apmw_kv_lease la, lb;
    apmw_prefix_cache_begin(f.cache, a, 30, &la);
    assert_true(apmw_prefix_cache_take(f.cache, &la, 5));
    apmw_prefix_cache_commit(f.cache, &la, 20); /* 4 blocks of the root, 1 of a */
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 30), 16);
    assert_int_equal(apmw_prefix_cache_unpinned_match(f.cache, b, 30), 0);
    expect(&f, 95, 5, 0);
    apmw_prefix_cache_begin(f.cache, b, 30, &lb);
    assert_int_equal(lb.matched_tokens, 16);
    expect(&f, 95, 5, 0); /* pinned twice, held once */
    apmw_prefix_cache_end(f.cache, &la, 0);
    expect(&f, 95, 4, 1);
    apmw_prefix_cache_end(f.cache, &lb, 0);
    expect(&f, 95, 0, 5);
    drop(&f);
}

static void test_two_that_compute_the_same_at_once_hold_duplicates(void **state)
{
    (void)state;
    fixture f = make(100, 4, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    apmw_kv_lease a, b;
    apmw_prefix_cache_begin(f.cache, s, 20, &a);
    apmw_prefix_cache_begin(f.cache, s, 20, &b);
    assert_true(apmw_prefix_cache_take(f.cache, &a, 5) && apmw_prefix_cache_take(f.cache, &b, 5));
    apmw_prefix_cache_commit(f.cache, &a, 12);
    apmw_prefix_cache_commit(f.cache, &b, 20); /* 3 duplicates, 2 new */
    assert_int_equal(a.inserted_blocks, 3);
    assert_int_equal(b.inserted_blocks, 2);
    expect(&f, 90, 10, 0);
    apmw_prefix_cache_commit(f.cache, &a, 20); /* 2 duplicates */
    assert_int_equal(a.inserted_blocks, 3);
    apmw_prefix_cache_end(f.cache, &a, 0);
    expect(&f, 92, 8, 0); /* a's own two go; its three stay, pinned by b */
    apmw_prefix_cache_end(f.cache, &b, 0);
    expect(&f, 95, 0, 5);
    drop(&f);
}

static void test_eviction_takes_the_tail_of_the_oldest(void **state)
{
    (void)state;
    fixture f = make(10, 4, true);
    const apmw_stream a = apmw_streams_new(f.streams, 0, 0), b = apmw_streams_new(f.streams, 0, 0);
    serve(&f, a, 16, 1, true);
    serve(&f, b, 16, 1, true);
    expect(&f, 2, 0, 8);
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f.cache, 0, 100, &lease);        /* no identity: nothing found */
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 3)); /* 2 free, then one of a's */
    expect(&f, 0, 3, 7);
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 12);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 16);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 4)); /* the rest of a, and b's tail */
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 0);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 12);
    assert_false(apmw_prefix_cache_take(f.cache, &lease, 4)); /* only 3 could be had: nothing changes */
    expect(&f, 0, 7, 3);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 3));
    apmw_prefix_cache_commit(f.cache, &lease, 40); /* without identity nothing becomes findable */
    apmw_prefix_cache_end(f.cache, &lease, 0);
    expect(&f, 10, 0, 0);
    drop(&f);
}

static void test_a_pinned_prefix_outlives_pressure(void **state)
{
    (void)state;
    fixture f = make(6, 4, true);
    const apmw_stream a = apmw_streams_new(f.streams, 0, 0), b = apmw_streams_new(f.streams, 0, 0);
    serve(&f, a, 16, 1, true);
    serve(&f, b, 8, 1, true);
    expect(&f, 0, 0, 6);
    apmw_kv_lease reader, eater;
    assert_int_equal(apmw_prefix_cache_unpinned_match(f.cache, a, 10), 2);
    apmw_prefix_cache_begin(f.cache, a, 10, &reader); /* pins 2 of a's 4; they leave what is available */
    expect(&f, 0, 2, 4);
    assert_int_equal(apmw_prefix_cache_available(f.cache), 4);
    assert_int_equal(apmw_prefix_cache_unpinned_match(f.cache, a, 17), 2);
    apmw_prefix_cache_begin(f.cache, 0, 4, &eater);
    assert_true(apmw_prefix_cache_take(f.cache, &eater, 2)); /* the rest of a is older than b */
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 8);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 8);
    assert_true(apmw_prefix_cache_take(f.cache, &eater, 2));
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 8);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 0);
    assert_false(apmw_prefix_cache_take(f.cache, &eater, 1));
    apmw_prefix_cache_end(f.cache, &eater, 0);
    apmw_prefix_cache_end(f.cache, &reader, 0);
    expect(&f, 4, 0, 2);
    drop(&f);
}

static void test_dead_output_goes_first_but_needs_its_turn(void **state)
{
    (void)state;
    fixture f = make(12, 4, true);
    const apmw_stream a = apmw_streams_new(f.streams, 0, 0), b = apmw_streams_new(f.streams, 0, 0);
    serve(&f, a, 8, 1, true);
    /* 8 of prompt and 12 of output in KV: 2 blocks findable, 3 dead. */
    serve(&f, b, 8, 13, false);
    expect(&f, 5, 0, 7);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 8);
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f.cache, 0, 4, &lease);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 6)); /* one of a: older than b's dead output */
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 4);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 4)); /* the other, then the three dead ones */
    assert_int_equal(apmw_prefix_cache_match(f.cache, a, 100), 0);
    assert_int_equal(apmw_prefix_cache_match(f.cache, b, 100), 8);
    expect(&f, 0, 10, 2);
    apmw_prefix_cache_end(f.cache, &lease, 0);
    apmw_kv_stats s;
    apmw_prefix_cache_stats(f.cache, &s);
    assert_int_equal(s.inserted_blocks, 7);
    assert_int_equal(s.evicted_blocks, 5);
    drop(&f);
}

static void test_a_child_goes_before_its_parent(void **state)
{
    (void)state;
    fixture f = make(6, 4, true);
    const apmw_stream root = apmw_streams_new(f.streams, 0, 0);
    const apmw_stream child = apmw_streams_new(f.streams, root, 12);
    serve(&f, child, 24, 1, true);
    expect(&f, 0, 0, 6);
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f.cache, 0, 4, &lease);
    for (int64_t n = 1; n <= 6; n++) {
        assert_true(apmw_prefix_cache_take(f.cache, &lease, 1));
        assert_int_equal(apmw_prefix_cache_match(f.cache, child, 100), 24 - 4 * n);
        assert_int_equal(apmw_prefix_cache_match(f.cache, root, 100), n < 3 ? 12 : 24 - 4 * n);
    }
    apmw_prefix_cache_end(f.cache, &lease, 0);
    drop(&f);
}

static void test_preemption_and_resumption(void **state)
{
    (void)state;
    fixture f = make(8, 4, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    apmw_kv_lease lease;
    apmw_prefix_cache_begin(f.cache, s, 14, &lease);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 4));
    apmw_prefix_cache_commit(f.cache, &lease, 14);
    apmw_prefix_cache_end(f.cache, &lease, 0); /* preempted: the partial block is lost */
    expect(&f, 5, 0, 3);
    apmw_prefix_cache_resume(f.cache, s, 15, &lease); /* one token had been generated */
    assert_int_equal(lease.matched_tokens, 12);
    assert_true(apmw_prefix_cache_take(f.cache, &lease, 1));
    apmw_prefix_cache_commit(f.cache, &lease, 16);
    apmw_prefix_cache_end(f.cache, &lease, 0);
    expect(&f, 4, 0, 4);
    apmw_kv_stats stats;
    apmw_prefix_cache_stats(f.cache, &stats);
    assert_int_equal(stats.query_tokens, 14); /* law L16: asked once */
    assert_int_equal(stats.hit_tokens, 0);
    drop(&f);
}

static void test_blocks_taken_for_the_batch(void **state)
{
    (void)state;
    fixture f = make(8, 4, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0), t = apmw_streams_new(f.streams, 0, 0);
    apmw_kv_lease a, b;
    apmw_prefix_cache_begin(f.cache, s, 4, &a);
    apmw_prefix_cache_begin(f.cache, t, 4, &b);
    assert_true(apmw_prefix_cache_take(f.cache, NULL, 4));
    expect(&f, 4, 4, 0);
    a.taken_blocks += 3;
    b.taken_blocks += 1;
    apmw_prefix_cache_commit(f.cache, &a, 9);
    apmw_prefix_cache_end(f.cache, &a, 0);
    expect(&f, 5, 1, 2);
    apmw_prefix_cache_end(f.cache, &b, 0);
    expect(&f, 6, 0, 2);
    drop(&f);
}

static void test_without_caching_nothing_is_kept(void **state)
{
    (void)state;
    fixture f = make(8, 4, false);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    assert_int_equal(serve(&f, s, 16, 5, true), 0);
    assert_int_equal(serve(&f, s, 16, 9, false), 0);
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 100), 0);
    expect(&f, 8, 0, 0);
    drop(&f);
}

static void test_blocks_of_one_token(void **state)
{
    (void)state;
    fixture f = make(100, 1, true);
    const apmw_stream s = apmw_streams_new(f.streams, 0, 0);
    const apmw_stream t = apmw_streams_new(f.streams, s, 7);
    serve(&f, s, 10, 3, true);
    expect(&f, 88, 0, 12);
    assert_int_equal(apmw_prefix_cache_match(f.cache, s, 10), 9);
    assert_int_equal(apmw_prefix_cache_match(f.cache, t, 10), 7);
    drop(&f);
}

/* A thousand agents that each play a thousand trajectories: memory follows what is cached, not what ever was.
 */
static void test_memory_follows_the_pool(void **state)
{
    (void)state;
    enum { AGENTS = 1000, PLAYS = 1000 };
    fixture f = make(20000, 16, true);
    const apmw_stream root = apmw_streams_new(f.streams, 0, 0);
    size_t early = 0;
    for (int play = 0; play < PLAYS; play++) {
        for (int agent = 0; agent < AGENTS; agent++) {
            const apmw_stream s = apmw_streams_new(f.streams, root, 1000);
            serve(&f, s, 1300, 40, agent % 2 == 0);
        }
        if (play == 10) {
            early = apmw_prefix_cache_bytes(f.cache);
        }
    }
    assert_true(early > 0 && apmw_prefix_cache_bytes(f.cache) <= early);
    expect(&f, 1, 0, 19999); /* the last request's partial block */
    drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_conversation_hits_its_past),
        cmocka_unit_test(test_one_prompt_token_is_always_computed),
        cmocka_unit_test(test_a_fork_shares_whole_blocks_before_it),
        cmocka_unit_test(test_a_shared_prefix_computed_by_one_is_hit_by_the_next_while_it_runs),
        cmocka_unit_test(test_two_that_compute_the_same_at_once_hold_duplicates),
        cmocka_unit_test(test_eviction_takes_the_tail_of_the_oldest),
        cmocka_unit_test(test_a_pinned_prefix_outlives_pressure),
        cmocka_unit_test(test_dead_output_goes_first_but_needs_its_turn),
        cmocka_unit_test(test_a_child_goes_before_its_parent),
        cmocka_unit_test(test_preemption_and_resumption),
        cmocka_unit_test(test_blocks_taken_for_the_batch),
        cmocka_unit_test(test_without_caching_nothing_is_kept),
        cmocka_unit_test(test_blocks_of_one_token),
        cmocka_unit_test(test_memory_follows_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
