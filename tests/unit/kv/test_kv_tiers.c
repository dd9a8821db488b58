/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers below HBM by hand: what fits, what goes, what comes to the next tier, and what a load is worth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "apmw/kv_tiers.h"

static apmw_kv_tier_config host(double capacity_bytes)
{
    return (apmw_kv_tier_config){
        .name = "host", .capacity_bytes = capacity_bytes, .bytes_per_token = 10.0, .block_tokens = 4};
}

static apmw_kv_tiers *make(const apmw_streams *streams, const apmw_kv_tier_config *config, size_t n)
{
    apmw_kv_tiers *tiers = NULL;
    apmw_error err = {APMW_OK, ""};
    if (apmw_kv_tiers_create(streams, config, n, &tiers, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    return tiers;
}

static void test_leading_blocks_are_kept(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0);
    const apmw_stream b = apmw_streams_new(streams, a, 10); /* shares 2 whole blocks and half of one */
    const apmw_kv_tier_config config = host(1000.0);        /* 25 blocks of 4 tokens */
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, a, 39), 36); /* the last 3 tokens fill no block */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 39), 36);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 20), 20);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 0), 0);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, b, 39), 8);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, 0, 39), 0);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 40), 32); /* 8 of the 40 are there */
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, a, 39), 0);
    assert_true(fabs(apmw_kv_tiers_bytes_of(tiers, 0, 7) - 70.0) < 1e-9);
    apmw_kv_stats s;
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.capacity_blocks, 25);
    assert_int_equal(s.cached_blocks, 17);
    assert_int_equal(s.query_tokens, 0); /* stores are no queries */
    apmw_kv_tiers_touch(tiers, 0, a, 39);
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.hit_tokens, 36);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

static void test_what_goes_comes_to_the_next_tier(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    apmw_kv_tier_config config[2] = {host(400.0), host(4000.0)}; /* 10 and 100 blocks */
    for (int cascade = 0; cascade < 2; cascade++) {
        config[0].cascade = cascade == 1;
        apmw_kv_tiers *tiers = make(streams, config, 2);
        assert_int_equal(apmw_kv_tiers_store(tiers, 0, a, 32), 32);
        assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 16),
                         16); /* 12 blocks into 10: a loses its last 2 */
        assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 24);
        assert_int_equal(apmw_kv_tiers_match(tiers, 0, b, 32), 16);
        /* The far tier has the tail, hence all before it. */
        assert_int_equal(apmw_kv_tiers_match(tiers, 1, a, 32), cascade == 1 ? 32 : 0);
        assert_int_equal(apmw_kv_tiers_match(tiers, 1, b, 32), 0);
        apmw_kv_tiers_free(tiers);
    }
    apmw_streams_free(streams);
}

static void test_a_load_pins_what_it_reads(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    const apmw_kv_tier_config config = host(400.0);
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    (void)apmw_kv_tiers_store(tiers, 0, a, 32);
    apmw_kv_lease load;
    apmw_kv_tiers_begin(tiers, 0, a, 100, &load);
    assert_int_equal(load.matched_tokens, 32);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 40), 8); /* only 2 blocks are not being read */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 32);
    apmw_kv_tiers_end(tiers, 0, &load);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 40), 32);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 0);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

/* Ten blocks. What is being written is neither found nor evicted, and what was there of it stays; in the end it is
 * found, and what was generated lies there as the first to go. */
static void test_a_write_is_found_when_it_has_ended(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    const apmw_kv_tier_config config = host(400.0);
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    (void)apmw_kv_tiers_store(tiers, 0, a, 8);
    apmw_kv_write write;
    assert_int_equal(apmw_kv_tiers_write(tiers, 0, a, 24, &write), 16);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 24), 8);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 40), 16); /* 4 blocks are left */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 24), 8);
    assert_int_equal(apmw_kv_tiers_written(tiers, 0, &write, 24, 32), 16); /* 2 blocks of b make room for the rest */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 24), 24);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, b, 40), 8);
    apmw_kv_stats s;
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.cached_blocks, 10);
    assert_int_equal(s.held_blocks, 0);
    apmw_kv_tiers_touch(tiers, 0, b, 40);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 16), 8); /* in the place of what was generated */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 24), 24);
    /* No room at all, then some: the write takes the rest when it ends. */
    apmw_kv_lease load;
    apmw_kv_tiers_begin(tiers, 0, a, 24, &load);
    apmw_kv_lease other;
    apmw_kv_tiers_begin(tiers, 0, b, 16, &other);
    const apmw_stream c = apmw_streams_new(streams, 0, 0);
    assert_int_equal(apmw_kv_tiers_write(tiers, 0, c, 12, &write), 0);
    apmw_kv_tiers_end(tiers, 0, &load);
    assert_int_equal(apmw_kv_tiers_written(tiers, 0, &write, 12, 12), 12);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, c, 12), 12);
    apmw_kv_tiers_end(tiers, 0, &other);
    /* Content without identity takes nothing. */
    assert_int_equal(apmw_kv_tiers_write(tiers, 0, 0, 12, &write), 0);
    assert_int_equal(apmw_kv_tiers_written(tiers, 0, &write, 12, 40), 0);
    apmw_error err;
    assert_int_equal(apmw_kv_tiers_check(tiers, &err), APMW_OK);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

static void test_asking_again_counts_nothing(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    const apmw_kv_tier_config config = host(400.0);
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    (void)apmw_kv_tiers_store(tiers, 0, a, 32);
    apmw_kv_lease first, again;
    apmw_kv_tiers_begin(tiers, 0, a, 32, &first);
    apmw_kv_tiers_again(tiers, 0, a, 32, &again);
    apmw_kv_tiers_end(tiers, 0, &first);
    assert_int_equal(again.matched_tokens, 32);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 40), 8);
    apmw_kv_tiers_end(tiers, 0, &again);
    apmw_kv_stats s;
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.hit_tokens, 32);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

/* Windows: 85 bytes a stream are 3 blocks of 40. */
static void test_streams_have_a_footprint_of_their_own(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    apmw_kv_tier_config config = host(400.0);
    config.bytes_per_stream = 85.0;
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    assert_true(fabs(apmw_kv_tiers_bytes_of(tiers, 0, 7) - 155.0) < 1e-9);
    assert_true(fabs(apmw_kv_tiers_bytes_of(tiers, 0, 0)) < 1e-9);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, a, 100), 28); /* 7 of 10 blocks */
    apmw_kv_stats s;
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.overhead_blocks, 3);
    assert_int_equal(s.free_blocks, 0);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 8), 8); /* 2 blocks and 3: a loses 5 */
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 100), 8);
    assert_int_equal(apmw_kv_tiers_store(tiers, 0, b, 28), 20); /* a goes whole, its window with it */
    apmw_kv_tiers_stats(tiers, 0, &s);
    assert_int_equal(s.overhead_blocks, 3);
    assert_int_equal(s.cached_blocks, 7);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

static void test_idle_content_expires(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
    apmw_kv_tier_config config = host(4000.0);
    config.policy = APMW_KV_IDLE_TTL;
    config.ttl_ns = 100;
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    (void)apmw_kv_tiers_store(tiers, 0, a, 32);
    apmw_kv_tiers_at(tiers, 50);
    (void)apmw_kv_tiers_store(tiers, 0, b, 32);
    apmw_kv_tiers_touch(tiers, 0, a, 16);
    apmw_kv_tiers_at(tiers, 99);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 32);
    apmw_kv_tiers_at(tiers, 100);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 16); /* what was not used since */
    apmw_kv_tiers_at(tiers, 150);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 32), 0);
    assert_int_equal(apmw_kv_tiers_match(tiers, 0, b, 32), 0);
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
}

/* Three conversations of 4 blocks in a tier of 12, then one of 4 more: who goes first? a came first and was
 * used twice, then b was used once, c never. */
static apmw_stream first_to_go(apmw_kv_policy policy)
{
    apmw_streams *streams = apmw_streams_create();
    apmw_kv_tier_config config = host(480.0);
    config.policy = policy;
    config.ttl_ns = 1000;
    apmw_kv_tiers *tiers = make(streams, &config, 1);
    apmw_stream s[4];
    for (int i = 0; i < 4; i++) {
        s[i] = apmw_streams_new(streams, 0, 0);
    }
    (void)apmw_kv_tiers_store(tiers, 0, s[0], 16);
    (void)apmw_kv_tiers_store(tiers, 0, s[1], 16);
    apmw_kv_tiers_touch(tiers, 0, s[0], 16);
    apmw_kv_tiers_touch(tiers, 0, s[0], 16);
    (void)apmw_kv_tiers_store(tiers, 0, s[2], 16);
    apmw_kv_tiers_touch(tiers, 0, s[1], 16);
    apmw_stream gone = 0;
    (void)apmw_kv_tiers_store(tiers, 0, s[3], 16);
    for (int i = 0; i < 3; i++) {
        if (apmw_kv_tiers_match(tiers, 0, s[i], 16) == 0) {
            assert_int_equal(gone, 0);
            gone = (apmw_stream)(i + 1);
        }
    }
    apmw_kv_tiers_free(tiers);
    apmw_streams_free(streams);
    return gone;
}

static void test_policies_differ(void **state)
{
    (void)state;
    assert_int_equal(first_to_go(APMW_KV_LRU), 1);
    assert_int_equal(first_to_go(APMW_KV_IDLE_TTL), 1);
    assert_int_equal(first_to_go(APMW_KV_FIFO), 1);
    assert_int_equal(first_to_go(APMW_KV_LFU), 3);
    /* a is the oldest of the small queue, was used twice and moves; b, used once, goes. */
    assert_int_equal(first_to_go(APMW_KV_S3_FIFO), 2);
    apmw_kv_policy policy;
    for (int p = 0; p < 5; p++) {
        assert_true(apmw_kv_policy_parse(apmw_kv_policy_name((apmw_kv_policy)p), &policy) &&
                    (int)policy == p);
    }
    assert_false(apmw_kv_policy_parse("arc", &policy));
}

static void test_old_uses_fade(void **state)
{
    (void)state;
    for (int ages = 0; ages < 2; ages++) {
        apmw_streams *streams = apmw_streams_create();
        apmw_kv_tier_config config = host(320.0); /* two conversations */
        config.policy = APMW_KV_LFU;
        config.half_life_ns = ages ? 10 : 0;
        apmw_kv_tiers *tiers = make(streams, &config, 1);
        const apmw_stream a = apmw_streams_new(streams, 0, 0), b = apmw_streams_new(streams, 0, 0);
        const apmw_stream c = apmw_streams_new(streams, 0, 0);
        (void)apmw_kv_tiers_store(tiers, 0, a, 16);
        apmw_kv_tiers_touch(tiers, 0, a, 16);
        apmw_kv_tiers_touch(tiers, 0, a, 16); /* 3 at time 0 */
        apmw_kv_tiers_at(tiers, 20);
        (void)apmw_kv_tiers_store(tiers, 0, b, 16); /* 1 at time 20, where a's are worth 3/4 */
        (void)apmw_kv_tiers_store(tiers, 0, c, 16);
        assert_int_equal(apmw_kv_tiers_match(tiers, 0, a, 16), ages ? 0 : 16);
        assert_int_equal(apmw_kv_tiers_match(tiers, 0, b, 16), ages ? 16 : 0);
        apmw_kv_tiers_free(tiers);
        apmw_streams_free(streams);
    }
}

static void test_what_cannot_be_is_refused(void **state)
{
    (void)state;
    apmw_streams *streams = apmw_streams_create();
    apmw_kv_tiers *tiers = NULL;
    apmw_error err;
    apmw_kv_tier_config config = host(39.0); /* a block is 40 */
    assert_int_equal(apmw_kv_tiers_create(streams, &config, 1, &tiers, &err), APMW_E_SCENARIO);
    assert_non_null(strstr(err.message, "host"));
    assert_null(tiers);
    config = host((double)NAN);
    assert_int_equal(apmw_kv_tiers_create(streams, &config, 1, &tiers, &err), APMW_E_SCENARIO);
    config = host(1000.0);
    config.bytes_per_token = 0.0;
    assert_int_equal(apmw_kv_tiers_create(streams, &config, 1, &tiers, &err), APMW_E_SCENARIO);
    config = host(1000.0);
    config.policy = APMW_KV_IDLE_TTL;
    assert_int_equal(apmw_kv_tiers_create(streams, &config, 1, &tiers, &err), APMW_E_SCENARIO);
    assert_int_equal(apmw_kv_tiers_create(streams, &config, 0, &tiers, &err), APMW_E_SCENARIO);
    apmw_streams_free(streams);
}

static void test_a_load_must_be_worth_it(void **state)
{
    (void)state;
    assert_true(apmw_kv_load_worth(APMW_KV_LOAD_FASTER, 9.0, 10.0));
    assert_false(apmw_kv_load_worth(APMW_KV_LOAD_FASTER, 10.0, 10.0));
    assert_true(apmw_kv_load_worth(APMW_KV_LOAD_ALWAYS, 11.0, 10.0));
    assert_false(apmw_kv_load_worth(APMW_KV_LOAD_NEVER, 9.0, 10.0));
    apmw_kv_load load;
    for (int l = 0; l < 3; l++) {
        assert_true(apmw_kv_load_parse(apmw_kv_load_name((apmw_kv_load)l), &load) && (int)load == l);
    }
    assert_false(apmw_kv_load_parse("sometimes", &load));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leading_blocks_are_kept),
        cmocka_unit_test(test_what_goes_comes_to_the_next_tier),
        cmocka_unit_test(test_a_load_pins_what_it_reads),
        cmocka_unit_test(test_a_write_is_found_when_it_has_ended),
        cmocka_unit_test(test_asking_again_counts_nothing),
        cmocka_unit_test(test_streams_have_a_footprint_of_their_own),
        cmocka_unit_test(test_idle_content_expires),
        cmocka_unit_test(test_policies_differ),
        cmocka_unit_test(test_old_uses_fade),
        cmocka_unit_test(test_what_cannot_be_is_refused),
        cmocka_unit_test(test_a_load_must_be_worth_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
