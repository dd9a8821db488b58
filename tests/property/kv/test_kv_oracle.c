/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The interval cache against a naive one that keeps every block and finds everything by scanning, under every
 * eviction policy: half of the sequences under LRU. Random forests of streams, prompts, growth, concurrent
 * leases, a pool that is far too small, preemption and resumption, dead output, blocks taken for the batch.
 * After every operation hits, evictions and all counts must be equal, and the cache's own laws must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/kv.h"
#include "apmw/rng.h"
#include "naive_cache.h"

enum { MAX_LEASES = 12, N_SEQUENCES = 6000, N_OPERATIONS = 250 };

typedef struct job {
    bool active;
    int64_t n_prompt, computed, total; /* tokens */
    apmw_kv_lease lease;
    naive_lease naive;
} job;

typedef struct world {
    apmw_rng rng;
    apmw_streams *streams;
    apmw_stream known[MAX_STREAMS];
    int64_t n_streams, max_tokens;
    apmw_prefix_cache *cache;
    naive_cache naive;
    job jobs[MAX_LEASES];
    int64_t duplicates;  /* blocks that were committed though another lease had made them findable */
    int64_t told;        /* what the observer heard: naive_sum over evicted blocks */
    int64_t batch_taken; /* taken with lease NULL and not assigned yet */
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
            fail_msg("sequence %" PRIu64 ", operation %d: %s is %" PRId64 ", the naive cache has %" PRId64,  \
                     (w)->seed, (w)->operation, #a, a_, b_);                                                 \
        }                                                                                                    \
    } while (0)

static void compare(world *w)
{
    apmw_kv_stats s;
    apmw_prefix_cache_stats(w->cache, &s);
    const int64_t cached = naive_cached(&w->naive);
    SAME(w, s.free_blocks, naive_free(&w->naive));
    SAME(w, s.cached_blocks, cached);
    SAME(w, s.held_blocks, w->naive.n - cached + w->naive.private_blocks);
    SAME(w, s.capacity_blocks, w->naive.options.capacity_blocks);
    SAME(w, s.evicted_blocks, w->naive.evicted);
    SAME(w, s.inserted_blocks, w->naive.inserted);
    SAME(w, s.hit_tokens, w->naive.hit_tokens);
    SAME(w, s.query_tokens, w->naive.query_tokens);
    SAME(w, s.peak_used_blocks, w->naive.peak);
    SAME(w, s.overhead_blocks, naive_overhead(&w->naive, false));
    SAME(w, apmw_prefix_cache_available(w->cache), naive_available(&w->naive));
    SAME(w, w->told, w->naive.told);
    for (int i = 0; i < 3; i++) {
        const apmw_stream stream = w->known[below(w, w->n_streams)];
        const int64_t n_prompt = 1 + below(w, w->max_tokens);
        int64_t unpinned;
        const int64_t m = naive_match(&w->naive, stream, n_prompt, &unpinned);
        SAME(w, apmw_prefix_cache_match(w->cache, stream, n_prompt), m * w->naive.options.block_tokens);
        SAME(w, apmw_prefix_cache_unpinned_match(w->cache, stream, n_prompt), unpinned);
    }
    apmw_error err = {APMW_OK, ""};
    if (apmw_prefix_cache_check(w->cache, &err) != APMW_OK) {
        fail_msg("sequence %" PRIu64 ", operation %d: %s", w->seed, w->operation, err.message);
    }
}

static void compare_lease(world *w, const job *j)
{
    SAME(w, j->lease.matched_tokens, j->naive.matched * w->naive.options.block_tokens);
    SAME(w, j->lease.pinned_blocks, j->naive.matched);
    SAME(w, j->lease.committed_blocks, j->naive.committed);
    SAME(w, j->lease.taken_blocks, j->naive.taken);
    SAME(w, j->lease.inserted_blocks, j->naive.inserted);
}

static void new_stream(world *w)
{
    if (w->n_streams == MAX_STREAMS) {
        return;
    }
    apmw_stream parent = 0;
    int64_t fork = 0;
    if (w->n_streams > 0 && below(w, 6) != 0) {
        parent = w->known[below(w, w->n_streams)];
        fork = below(w, w->max_tokens);
        if (below(w, 3) == 0) {
            fork -= fork % w->naive.options.block_tokens; /* forks at block boundaries too */
        }
    }
    const apmw_stream stream = apmw_streams_new(w->streams, parent, fork);
    assert_int_not_equal(stream, 0);
    w->known[w->n_streams++] = stream;
}

static void begin(world *w, job *j)
{
    j->active = true;
    j->n_prompt = 1 + below(w, w->max_tokens);
    j->total = j->n_prompt + below(w, 8 * w->naive.options.block_tokens);
    const apmw_stream stream = below(w, 20) == 0 ? 0 : w->known[below(w, w->n_streams)];
    apmw_prefix_cache_begin(w->cache, stream, j->n_prompt, &j->lease);
    naive_begin(&w->naive, stream, j->n_prompt, true, &j->naive);
    j->computed = j->lease.matched_tokens;
    compare_lease(w, j);
}

static void end(world *w, job *j, bool dead)
{
    w->duplicates += j->naive.committed - j->naive.matched - j->naive.inserted;
    int64_t dead_tokens = 0;
    if (dead) {
        dead_tokens =
            below(w, (j->lease.taken_blocks - j->lease.inserted_blocks + 1) * w->naive.options.block_tokens);
    }
    apmw_prefix_cache_end(w->cache, &j->lease, dead_tokens);
    naive_end(&w->naive, &j->naive, dead_tokens);
    assert_false(j->lease.active);
    j->active = false;
}

/* A chunk of prompt or some decode steps: the blocks are taken by the lease or for the batch, then committed
 * or not. */
static void compute(world *w, job *j)
{
    const int64_t most = j->total - j->computed;
    if (most == 0) {
        end(w, j, below(w, 3) == 0);
        return;
    }
    const int64_t goal = j->computed + 1 + below(w, most);
    const int64_t blocks = (goal + w->naive.options.block_tokens - 1) / w->naive.options.block_tokens;
    int64_t need = blocks - j->lease.pinned_blocks - j->lease.taken_blocks;
    /* Each stream of the path that gets content may have to be paid for. */
    for (int64_t b = j->lease.committed_blocks; b < blocks; b++) {
        const apmw_stream owner = owner_of(&w->naive, j->naive.stream, b);
        if (owner != 0 &&
            (b == j->lease.committed_blocks || owner != owner_of(&w->naive, j->naive.stream, b - 1))) {
            need += w->naive.options.stream_blocks;
        }
    }
    need = need > 0 ? need : 0;
    const bool for_batch = below(w, 3) == 0;
    const bool ours = apmw_prefix_cache_take(w->cache, for_batch ? NULL : &j->lease, need);
    const bool theirs = naive_take(&w->naive, need);
    SAME(w, ours, theirs);
    if (!ours) {
        end(w, j, false); /* preempted for want of blocks */
        return;
    }
    if (for_batch) {
        w->batch_taken += need;
        compare(w);
        j->lease.taken_blocks += need;
        w->batch_taken -= need;
    }
    j->naive.taken += need;
    j->computed = goal;
    if (below(w, 4) != 0) {
        const int64_t reach = below(w, 8) == 0 ? below(w, goal + 1) : goal;
        apmw_prefix_cache_commit(w->cache, &j->lease, reach);
        naive_commit(&w->naive, &j->naive, reach);
    }
    compare_lease(w, j);
}

static void preempt_and_resume(world *w, job *j)
{
    end(w, j, false);
    compare(w);
    if (below(w, 2) == 0) {
        const int64_t n = j->computed > 0 ? j->computed : 1;
        const apmw_stream stream = j->naive.stream;
        j->active = true;
        apmw_prefix_cache_resume(w->cache, stream, n, &j->lease);
        naive_begin(&w->naive, stream, n, false, &j->naive);
        j->computed = j->lease.matched_tokens;
        compare_lease(w, j);
    }
}

static void hear(void *self, apmw_stream stream, int64_t from_tokens, int64_t to_tokens)
{
    world *w = self;
    const int64_t block = w->naive.options.block_tokens;
    assert_true(from_tokens % block == 0 && to_tokens % block == 0 && to_tokens > from_tokens);
    assert_true(apmw_prefix_cache_match(w->cache, stream, to_tokens + 1) == from_tokens);
    for (int64_t b = from_tokens / block; b < to_tokens / block; b++) {
        assert_true(owner_of(&w->naive, stream, b) == stream);
        w->told += naive_sum(stream, b);
    }
}

static void run_sequence(world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->rng = apmw_rng_make(seed, "test.kv", 0, 0);
    static const int64_t sizes[] = {1, 3, 4, 16};
    naive_cache *c = &w->naive;
    apmw_kv_options *o = &c->options;
    o->block_tokens = sizes[below(w, 4)];
    o->capacity_blocks = 1 + below(w, seed % 4 == 0 ? 20 : 160);
    o->caching = below(w, 20) != 0;
    o->policy = seed % 2 == 0 ? APMW_KV_LRU : (apmw_kv_policy)below(w, 5);
    o->ttl_ns = 1 + below(w, 100);
    o->half_life_ns = below(w, 2) == 0 ? 0 : 1 + below(w, 200);
    o->stream_blocks = seed % 2 == 0 || below(w, 2) == 0 ? 0 : below(w, 4);
    /* Mostly a pool that holds a few contexts, sometimes one that holds none of the longest. */
    w->max_tokens = o->block_tokens * (1 + below(w, 2 + o->capacity_blocks / (seed % 5 == 0 ? 1 : 3))) + 1;
    w->streams = apmw_streams_create();
    c->streams = w->streams;
    w->cache = apmw_prefix_cache_create_with(w->streams, o);
    assert_non_null(w->cache);
    apmw_prefix_cache_observe(w->cache, hear, w);
    assert_int_equal(apmw_prefix_cache_block_tokens(w->cache), o->block_tokens);
    const int64_t at_first = 1 + below(w, 12);
    for (int64_t i = 0; i < at_first; i++) {
        new_stream(w);
    }
    const int64_t n_jobs = 1 + below(w, MAX_LEASES);
    for (w->operation = 0; w->operation < N_OPERATIONS; w->operation++) {
        job *j = &w->jobs[below(w, n_jobs)];
        const int64_t now = c->now + below(w, 10);
        apmw_prefix_cache_at(w->cache, now);
        naive_at(c, now);
        if (below(w, 12) == 0) {
            new_stream(w);
        }
        if (!j->active) {
            begin(w, j);
        } else if (below(w, 10) == 0) {
            preempt_and_resume(w, j);
        } else if (below(w, 8) == 0) {
            end(w, j, below(w, 2) == 0);
        } else {
            compute(w, j);
        }
        compare(w);
    }
    for (int64_t i = 0; i < n_jobs; i++) {
        if (w->jobs[i].active) {
            end(w, &w->jobs[i], false);
            compare(w);
        }
    }
    apmw_kv_stats s;
    apmw_prefix_cache_stats(w->cache, &s);
    SAME(w, s.held_blocks, 0);
    apmw_prefix_cache_free(w->cache);
    apmw_streams_free(w->streams);
}

static void test_equal_to_the_naive_cache(void **state)
{
    (void)state;
    world *w = malloc(sizeof *w);
    assert_non_null(w);
    int64_t duplicates = 0, moves = 0, ghost_hits = 0;
    int64_t n[5] = {0}, hits[5] = {0}, evicted[5] = {0};
    for (uint64_t seed = 0; seed < N_SEQUENCES; seed++) {
        run_sequence(w, seed);
        const apmw_kv_policy policy = w->naive.options.policy;
        n[policy]++;
        hits[policy] += w->naive.hit_tokens;
        evicted[policy] += w->naive.evicted;
        duplicates += w->duplicates;
        moves += w->naive.moves;
        ghost_hits += w->naive.ghost_hits;
    }
    /* The sequences must reach what they are for. */
    for (int p = 0; p < 5; p++) {
        print_message("%s: %" PRId64 " sequences, %" PRId64 " tokens hit, %" PRId64 " blocks evicted\n",
                      apmw_kv_policy_name((apmw_kv_policy)p), n[p], hits[p], evicted[p]);
        assert_true(hits[p] > 100 * n[p]);
        assert_true(evicted[p] > 100 * n[p]);
    }
    print_message("%" PRId64 " computed twice, %" PRId64 " moved in S3-FIFO's queues, %" PRId64
                  " ghosts came back\n",
                  duplicates, moves, ghost_hits);
    assert_true(duplicates > 10 * N_SEQUENCES);
    assert_true(moves > 1000 && ghost_hits > 1000);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal_to_the_naive_cache)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
