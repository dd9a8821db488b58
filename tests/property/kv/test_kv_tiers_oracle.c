/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers below HBM against naive ones that keep every block: a near tier under any policy and a far one under
 * LRU that gets what the near one evicts; stores, loads that last, uses, time. And the law of stack
 * algorithms: on the same sequence a larger LRU tier never has less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/kv_tiers.h"
#include "apmw/rng.h"
#include "naive_cache.h"

enum { N_TIERS = 2, MAX_LOADS = 6, N_SEQUENCES = 1200, N_OPERATIONS = 200, N_SIZES = 4, N_INCLUSIONS = 300 };

typedef struct load {
    bool active, writes;
    int64_t n_tokens;
    apmw_kv_write write;
    size_t tier;
    apmw_kv_lease lease;
    naive_lease naive;
} load;

typedef struct world {
    apmw_rng rng;
    apmw_streams *streams;
    apmw_stream known[MAX_STREAMS];
    int64_t n_streams, max_tokens;
    apmw_kv_tiers *tiers;
    naive_cache naive[N_TIERS];
    load loads[MAX_LOADS];
    bool cascade;
    int64_t cascaded, cut, written;
    uint64_t seed;
    int operation;
} world;

static int64_t below(world *w, int64_t n)
{
    return (int64_t)apmw_rng_below(&w->rng, (uint64_t)n);
}

#define SAME(w, a, b)                                                                                        \
    do {                                                                                                     \
        const int64_t a_ = (a), b_ = (b);                                                                    \
        if (a_ != b_) {                                                                                      \
            fail_msg("sequence %" PRIu64 ", operation %d: %s is %" PRId64 ", the naive tier has %" PRId64,   \
                     (w)->seed, (w)->operation, #a, a_, b_);                                                 \
        }                                                                                                    \
    } while (0)

static int64_t naive_have(naive_cache *c, apmw_stream stream, int64_t n_tokens)
{
    int64_t unpinned;
    return naive_match(c, stream, n_tokens + 1, &unpinned) * c->options.block_tokens;
}

/* One block after the other, each taken, made findable and, where it begins a stream, paid for. */
static int64_t naive_store(world *w, size_t tier, apmw_stream stream, int64_t n_tokens)
{
    naive_cache *c = &w->naive[tier];
    naive_lease lease;
    naive_begin(c, stream, n_tokens + 1, false, &lease);
    const int64_t blocks = n_tokens / c->options.block_tokens;
    int64_t room = naive_available(c), want = lease.committed;
    for (int64_t b = lease.committed; b < blocks;
         b++) { /* all streams of what is wanted are paid for first */
        const apmw_stream owner = owner_of(c, stream, b);
        bool any = b > lease.committed && owner == owner_of(c, stream, b - 1);
        for (int64_t i = 0; i < c->n; i++) {
            any = any || c->blocks[i].owner == owner;
        }
        room -= any ? 0 : c->options.stream_blocks;
    }
    while (stream != 0 && want < blocks && room > 0) {
        want++;
        room--;
    }
    w->cut += stream != 0 && want < blocks;
    int64_t need = want - lease.committed;
    if (need > 0) {
        apmw_stream paid = 0;
        for (int64_t b = lease.committed; b < blocks; b++) {
            const apmw_stream owner = owner_of(c, stream, b);
            bool any = owner == paid;
            for (int64_t i = 0; i < c->n; i++) {
                any = any || c->blocks[i].owner == owner;
            }
            need += any ? 0 : c->options.stream_blocks;
            paid = owner;
        }
        assert_true(naive_take(c, need));
        lease.taken = need;
        naive_commit(c, &lease, want * c->options.block_tokens);
    }
    const int64_t stored = lease.inserted;
    naive_end(c, &lease, 0);
    return stored * c->options.block_tokens;
}

/* A tier without a charge for streams: blocks are taken one after the other while there are any. */
static void naive_widen(naive_cache *c, naive_lease *lease, int64_t covered, int64_t blocks)
{
    while (covered < blocks && naive_available(c) > 0) {
        assert_true(naive_take(c, 1));
        lease->taken++;
        covered++;
    }
}

static void begin_write(world *w, load *l, apmw_stream stream, int64_t n)
{
    naive_cache *c = &w->naive[l->tier];
    l->writes = true;
    l->n_tokens = n;
    const int64_t fresh = apmw_kv_tiers_write(w->tiers, l->tier, stream, n, &l->write);
    naive_begin(c, stream, n + 1, false, &l->naive);
    if (stream != 0)
        naive_widen(c, &l->naive, l->naive.committed, n / c->options.block_tokens);
    SAME(w, fresh, l->naive.taken * c->options.block_tokens);
}

static void end_write(world *w, load *l, int64_t more, int64_t dead)
{
    naive_cache *c = &w->naive[l->tier];
    const int64_t size = c->options.block_tokens, n = l->n_tokens + more;
    const bool kept = l->write.lease.stream != 0;
    const int64_t stored = apmw_kv_tiers_written(w->tiers, l->tier, &l->write, n, n + dead);
    int64_t left = 0;
    if (kept) {
        const int64_t matched = l->naive.committed;
        naive_widen(c, &l->naive, matched + l->naive.taken, n / size);
        const int64_t covered = matched + l->naive.taken;
        naive_commit(c, &l->naive, (covered < n / size ? covered : n / size) * size);
        const int64_t before = l->naive.taken;
        naive_widen(c, &l->naive, 0, (n + dead) / size - n / size);
        left = l->naive.taken - before;
    }
    SAME(w, stored, l->naive.inserted * size);
    naive_end(c, &l->naive, left * size);
    w->written += stored;
}

/* naive_drop tells of each block that goes. */
static void hear(void *self, apmw_stream stream, int64_t index)
{
    world *w = self;
    const int64_t to = (index + 1) * w->naive[0].options.block_tokens;
    const int64_t far = w->naive[1].options.block_tokens;
    if (naive_have(&w->naive[1], stream, to) < to / far * far) {
        w->cascaded++;
        (void)naive_store(w, 1, stream, to);
    }
}

static void compare(world *w)
{
    for (size_t t = 0; t < N_TIERS; t++) {
        naive_cache *c = &w->naive[t];
        apmw_kv_stats s;
        apmw_kv_tiers_stats(w->tiers, t, &s);
        SAME(w, s.free_blocks, naive_free(c));
        SAME(w, s.cached_blocks, naive_cached(c));
        SAME(w, s.evicted_blocks, c->evicted);
        SAME(w, s.inserted_blocks, c->inserted);
        SAME(w, s.hit_tokens, c->hit_tokens);
        SAME(w, s.overhead_blocks, naive_overhead(c, false));
        for (int i = 0; i < 3; i++) {
            const apmw_stream stream = w->known[below(w, w->n_streams)];
            const int64_t n = below(w, w->max_tokens);
            SAME(w, apmw_kv_tiers_match(w->tiers, t, stream, n), naive_have(c, stream, n));
        }
    }
    apmw_error err = {APMW_OK, ""};
    if (apmw_kv_tiers_check(w->tiers, &err) != APMW_OK) {
        fail_msg("sequence %" PRIu64 ", operation %d: %s", w->seed, w->operation, err.message);
    }
}

static void new_stream(world *w)
{
    if (w->n_streams < MAX_STREAMS) {
        const bool fresh = w->n_streams == 0 || below(w, 5) == 0;
        const apmw_stream parent = fresh ? 0 : w->known[below(w, w->n_streams)];
        w->known[w->n_streams++] = apmw_streams_new(w->streams, parent, fresh ? 0 : below(w, w->max_tokens));
    }
}

static void make(world *w)
{
    apmw_kv_tier_config config[N_TIERS];
    memset(config, 0, sizeof config);
    const int64_t block = 1 + below(w, 8);
    w->cascade = below(w, 3) != 0;
    int64_t most = 0;
    for (size_t t = 0; t < N_TIERS; t++) {
        config[t].block_tokens = t == 0 || below(w, 2) == 0 ? block : block * 2;
        const int64_t blocks = 8 + below(w, 120);
        config[t].bytes_per_token = 10.0;
        /* Where a store is cut, what is kept for the streams of its end may do for a store that is shorter by
         * a block: the naive near tier tells block by block, the other in one piece. */
        /* Where a store is cut, what was set aside for the streams at its end may do for one that is shorter
         * by a block; the naive near tier tells block by block, the other in one piece: no charge there. */
        config[t].bytes_per_stream = below(w, 2) == 0 || (w->cascade && t > 0)
                                         ? 0.0
                                         : 10.0 * (double)(config[t].block_tokens * below(w, 4));
        config[t].capacity_bytes = 10.0 * (double)(blocks * config[t].block_tokens) + 9.0;
        config[t].policy = t == 0 ? (apmw_kv_policy)below(w, 5) : APMW_KV_LRU;
        config[t].ttl_ns = 1 + below(w, 100);
        config[t].half_life_ns = below(w, 2) == 0 ? 0 : 1 + below(w, 100);
        config[t].cascade = w->cascade;
        w->naive[t].streams = w->streams;
        w->naive[t].options = (apmw_kv_options){
            .capacity_blocks = blocks,
            .block_tokens = config[t].block_tokens,
            .caching = true,
            .policy = config[t].policy,
            .ttl_ns = config[t].ttl_ns,
            .half_life_ns = config[t].half_life_ns,
            .stream_blocks = (int64_t)(config[t].bytes_per_stream / 10.0) / config[t].block_tokens};
        most = blocks > most ? blocks : most;
    }
    w->max_tokens = block * (4 + below(w, most));
    if (w->cascade) {
        w->naive[0].on_drop = hear;
        w->naive[0].on_drop_self = w;
    }
    apmw_error err;
    assert_int_equal(apmw_kv_tiers_create(w->streams, config, N_TIERS, &w->tiers, &err), APMW_OK);
}

static void run_sequence(world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->rng = apmw_rng_make(seed, "test.kv.tiers", 0, 0);
    w->streams = apmw_streams_create();
    make(w);
    for (int64_t i = 1 + below(w, 8); i > 0; i--) {
        new_stream(w);
    }
    for (w->operation = 0; w->operation < N_OPERATIONS; w->operation++) {
        const int64_t now = w->naive[0].now + below(w, 8);
        apmw_kv_tiers_at(w->tiers, now);
        for (size_t t = N_TIERS; t-- > 0;) {
            naive_at(&w->naive[t], now);
        }
        if (below(w, 12) == 0) {
            new_stream(w);
        }
        const size_t tier = below(w, 3) == 0;
        const apmw_stream stream = below(w, 20) == 0 ? 0 : w->known[below(w, w->n_streams)];
        const int64_t n = below(w, w->max_tokens);
        load *l = &w->loads[below(w, MAX_LOADS)];
        const int64_t what = below(w, 4);
        if (what < 2) {
            SAME(w, apmw_kv_tiers_store(w->tiers, tier, stream, n), naive_store(w, tier, stream, n));
        } else if (what == 2) {
            apmw_kv_tiers_touch(w->tiers, tier, stream, n);
            naive_lease lease;
            naive_begin(&w->naive[tier], stream, n + 1, true, &lease);
            naive_end(&w->naive[tier], &lease, 0);
        } else if (!l->active) {
            *l = (load){.active = true, .tier = tier};
            if (w->naive[tier].options.stream_blocks == 0 && below(w, 2) == 0) {
                begin_write(w, l, stream, n);
                compare(w);
                continue;
            }
            apmw_kv_tiers_begin(w->tiers, tier, stream, n, &l->lease);
            naive_begin(&w->naive[tier], stream, n + 1, true, &l->naive);
            SAME(w, l->lease.matched_tokens, l->naive.matched * w->naive[tier].options.block_tokens);
        } else if (l->writes) {
            l->active = false;
            end_write(w, l, below(w, 3) == 0 ? below(w, 20) : 0, below(w, 2) == 0 ? below(w, 30) : 0);
        } else {
            l->active = false;
            apmw_kv_tiers_end(w->tiers, l->tier, &l->lease);
            naive_end(&w->naive[l->tier], &l->naive, 0);
        }
        compare(w);
    }
    apmw_kv_tiers_free(w->tiers);
    apmw_streams_free(w->streams);
}

static void test_equal_to_naive_tiers(void **state)
{
    (void)state;
    world *w = malloc(sizeof *w);
    assert_non_null(w);
    int64_t hits = 0, evicted = 0, cascaded = 0, cut = 0, written = 0;
    for (uint64_t seed = 0; seed < N_SEQUENCES; seed++) {
        run_sequence(w, seed);
        for (size_t t = 0; t < N_TIERS; t++) {
            hits += w->naive[t].hit_tokens;
            evicted += w->naive[t].evicted;
        }
        cascaded += w->cascaded;
        cut += w->cut;
        written += w->written;
    }
    print_message("%" PRId64 " tokens hit, %" PRId64 " blocks evicted, %" PRId64 " stores below, %" PRId64
                  " cut for want of room\n",
                  hits, evicted, cascaded, cut);
    assert_true(hits > 100 * N_SEQUENCES && evicted > 100 * N_SEQUENCES);
    assert_true(written > 10 * N_SEQUENCES);
    assert_true(cascaded > 10 * N_SEQUENCES && cut > N_SEQUENCES);
    free(w);
}

static void test_a_larger_tier_never_has_less(void **state)
{
    (void)state;
    int64_t had[N_SIZES] = {0};
    for (uint64_t seed = 0; seed < N_INCLUSIONS; seed++) {
        apmw_rng rng = apmw_rng_make(seed, "test.kv.tiers.inclusion", 0, 0);
        apmw_streams *streams = apmw_streams_create();
        apmw_kv_tiers *tiers[N_SIZES];
        double capacity = 100.0;
        for (int s = 0; s < N_SIZES; s++) {
            const apmw_kv_tier_config config = {
                .name = "host", .capacity_bytes = capacity, .bytes_per_token = 1.0, .block_tokens = 1};
            apmw_error err;
            assert_int_equal(apmw_kv_tiers_create(streams, &config, 1, &tiers[s], &err), APMW_OK);
            capacity += 1.0 + (double)apmw_rng_below(&rng, 150);
        }
        apmw_stream known[40];
        for (uint64_t i = 0; i < 40; i++) {
            const apmw_stream parent =
                i == 0 || apmw_rng_below(&rng, 4) == 0 ? 0 : known[apmw_rng_below(&rng, i)];
            known[i] = apmw_streams_new(streams, parent, parent == 0 ? 0 : (int64_t)apmw_rng_below(&rng, 60));
        }
        for (int r = 0; r < 300; r++) {
            const apmw_stream stream = known[apmw_rng_below(&rng, 1 + apmw_rng_below(&rng, 40))];
            const int64_t n = 1 + (int64_t)apmw_rng_below(&rng, 100);
            int64_t before = 0;
            for (int s = 0; s < N_SIZES; s++) {
                const int64_t have = apmw_kv_tiers_match(tiers[s], 0, stream, n);
                assert_true(have >= before);
                before = have;
                had[s] += have;
                (void)apmw_kv_tiers_store(tiers[s], 0, stream, n);
            }
        }
        for (int s = 0; s < N_SIZES; s++) {
            apmw_kv_tiers_free(tiers[s]);
        }
        apmw_streams_free(streams);
    }
    for (int s = 1; s < N_SIZES; s++) {
        assert_true(had[s] > had[s - 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal_to_naive_tiers),
                                       cmocka_unit_test(test_a_larger_tier_never_has_less)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
