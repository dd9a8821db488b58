/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The interval cache against a naive one that keeps every block: (owner stream, block index, pins, last use),
 * and finds everything by scanning. Random forests of streams, prompts, growth, concurrent leases, a pool
 * that is far too small, preemption and resumption, dead output, blocks taken for the batch. After every
 * operation hits, evictions and all counts must be equal, and the cache's own laws must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/kv.h"
#include "apmw/rng.h"

enum { MAX_BLOCKS = 512, MAX_STREAMS = 64, MAX_LEASES = 12, N_SEQUENCES = 3000, N_OPERATIONS = 250 };

typedef struct naive_block {
    apmw_stream owner; /* 0 = dead content */
    int64_t index;
    int64_t pins;
    uint64_t use;
} naive_block;

typedef struct naive_cache {
    const apmw_streams *streams;
    int64_t block_tokens, capacity, private_blocks, hit_tokens, query_tokens, evicted, inserted, peak;
    bool caching;
    uint64_t clock;
    naive_block blocks[MAX_BLOCKS];
    int64_t n;
} naive_cache;

typedef struct naive_lease {
    apmw_stream stream;
    int64_t matched, taken, committed, inserted;
} naive_lease;

/* The stream whose own content block b of this stream is; a block that straddles a fork is the child's. */
static apmw_stream owner_of(const naive_cache *c, apmw_stream stream, int64_t b)
{
    while (stream != 0 && b < apmw_streams_fork(c->streams, stream) / c->block_tokens) {
        stream = apmw_streams_parent(c->streams, stream);
    }
    return stream;
}

static naive_block *find(naive_cache *c, apmw_stream stream, int64_t b)
{
    const apmw_stream owner = owner_of(c, stream, b);
    for (int64_t i = 0; owner != 0 && i < c->n; i++) {
        if (c->blocks[i].owner == owner && c->blocks[i].index == b) {
            return &c->blocks[i];
        }
    }
    return NULL;
}

static int64_t naive_cached(const naive_cache *c)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        n += c->blocks[i].pins == 0;
    }
    return n;
}

static int64_t naive_free(const naive_cache *c)
{
    return c->capacity - c->n - c->private_blocks;
}

static int64_t naive_match(naive_cache *c, apmw_stream stream, int64_t n_prompt, int64_t *unpinned)
{
    int64_t m = 0;
    *unpinned = 0;
    while ((m + 1) * c->block_tokens < n_prompt) {
        const naive_block *block = find(c, stream, m);
        if (block == NULL) {
            break;
        }
        *unpinned += block->pins == 0;
        m++;
    }
    return m;
}

static void naive_begin(naive_cache *c, apmw_stream stream, int64_t n_prompt, bool count, naive_lease *lease)
{
    int64_t unpinned;
    memset(lease, 0, sizeof *lease);
    lease->stream = stream;
    lease->matched = naive_match(c, stream, n_prompt, &unpinned);
    lease->committed = lease->matched;
    for (int64_t b = 0; b < lease->matched; b++) {
        find(c, stream, b)->pins++;
    }
    if (count) {
        c->query_tokens += n_prompt;
        c->hit_tokens += lease->matched * c->block_tokens;
    }
}

static void naive_evict_one(naive_cache *c)
{
    int64_t victim = -1;
    for (int64_t i = 0; i < c->n; i++) {
        if (c->blocks[i].pins == 0 && (victim < 0 || c->blocks[i].use < c->blocks[victim].use)) {
            victim = i;
        }
    }
    assert_true(victim >= 0);
    c->blocks[victim] = c->blocks[--c->n];
    c->evicted++;
}

static bool naive_take(naive_cache *c, int64_t n)
{
    if (naive_free(c) + naive_cached(c) < n) {
        return false;
    }
    while (naive_free(c) < n) {
        naive_evict_one(c);
    }
    c->private_blocks += n;
    if (c->capacity - naive_free(c) > c->peak) {
        c->peak = c->capacity - naive_free(c);
    }
    return true;
}

static void naive_insert(naive_cache *c, apmw_stream owner, int64_t index, int64_t pins, uint64_t use)
{
    assert_true(c->n < MAX_BLOCKS);
    const naive_block block = {owner, index, pins, use};
    c->blocks[c->n++] = block;
    c->inserted++;
    c->private_blocks--;
}

static void naive_commit(naive_cache *c, naive_lease *lease, int64_t n_tokens)
{
    while (c->caching && lease->stream != 0 && (lease->committed + 1) * c->block_tokens <= n_tokens) {
        naive_block *block = find(c, lease->stream, lease->committed);
        if (block != NULL) {
            block->pins++;
        } else {
            naive_insert(c, owner_of(c, lease->stream, lease->committed), lease->committed, 1, 0);
            lease->inserted++;
        }
        lease->committed++;
    }
}

static void naive_end(naive_cache *c, naive_lease *lease, int64_t dead_tokens)
{
    int64_t own = lease->taken - lease->inserted;
    for (int64_t i = 0; c->caching && i < dead_tokens / c->block_tokens; i++) {
        naive_insert(c, 0, 0, 0, ++c->clock);
        own--;
    }
    c->private_blocks -= own;
    for (int64_t b = lease->committed; b-- > 0;) {
        naive_block *block = find(c, lease->stream, b);
        block->pins--;
        block->use = ++c->clock;
    }
}

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
    SAME(w, s.capacity_blocks, w->naive.capacity);
    SAME(w, s.evicted_blocks, w->naive.evicted);
    SAME(w, s.inserted_blocks, w->naive.inserted);
    SAME(w, s.hit_tokens, w->naive.hit_tokens);
    SAME(w, s.query_tokens, w->naive.query_tokens);
    SAME(w, s.peak_used_blocks, w->naive.peak);
    SAME(w, apmw_prefix_cache_available(w->cache), naive_free(&w->naive) + cached);
    for (int i = 0; i < 3; i++) {
        const apmw_stream stream = w->known[below(w, w->n_streams)];
        const int64_t n_prompt = 1 + below(w, w->max_tokens);
        int64_t unpinned;
        const int64_t m = naive_match(&w->naive, stream, n_prompt, &unpinned);
        SAME(w, apmw_prefix_cache_match(w->cache, stream, n_prompt), m * w->naive.block_tokens);
        SAME(w, apmw_prefix_cache_unpinned_match(w->cache, stream, n_prompt), unpinned);
    }
    apmw_error err = {APMW_OK, ""};
    if (apmw_prefix_cache_check(w->cache, &err) != APMW_OK) {
        fail_msg("sequence %" PRIu64 ", operation %d: %s", w->seed, w->operation, err.message);
    }
}

static void compare_lease(world *w, const job *j)
{
    SAME(w, j->lease.matched_tokens, j->naive.matched * w->naive.block_tokens);
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
            fork -= fork % w->naive.block_tokens; /* forks at block boundaries too */
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
    j->total = j->n_prompt + below(w, 8 * w->naive.block_tokens);
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
            below(w, (j->lease.taken_blocks - j->lease.inserted_blocks + 1) * w->naive.block_tokens);
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
    const int64_t blocks = (goal + w->naive.block_tokens - 1) / w->naive.block_tokens;
    int64_t need = blocks - j->lease.pinned_blocks - j->lease.taken_blocks;
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

static void run_sequence(world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->rng = apmw_rng_make(seed, "test.kv", 0, 0);
    static const int64_t sizes[] = {1, 3, 4, 16};
    naive_cache *c = &w->naive;
    c->block_tokens = sizes[below(w, 4)];
    c->capacity = 1 + below(w, seed % 4 == 0 ? 20 : 160);
    c->caching = below(w, 20) != 0;
    /* Mostly a pool that holds a few contexts, sometimes one that holds none of the longest. */
    w->max_tokens = c->block_tokens * (1 + below(w, 2 + c->capacity / (seed % 5 == 0 ? 1 : 3))) + 1;
    w->streams = apmw_streams_create();
    c->streams = w->streams;
    w->cache = apmw_prefix_cache_create(w->streams, c->capacity, c->block_tokens, c->caching);
    assert_non_null(w->cache);
    assert_int_equal(apmw_prefix_cache_block_tokens(w->cache), c->block_tokens);
    const int64_t at_first = 1 + below(w, 12);
    for (int64_t i = 0; i < at_first; i++) {
        new_stream(w);
    }
    const int64_t n_jobs = 1 + below(w, MAX_LEASES);
    for (w->operation = 0; w->operation < N_OPERATIONS; w->operation++) {
        job *j = &w->jobs[below(w, n_jobs)];
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
    int64_t hits = 0, evicted = 0, duplicates = 0;
    for (uint64_t seed = 0; seed < N_SEQUENCES; seed++) {
        run_sequence(w, seed);
        hits += w->naive.hit_tokens;
        evicted += w->naive.evicted;
        duplicates += w->duplicates;
    }
    print_message("%" PRId64 " tokens hit, %" PRId64 " blocks evicted, %" PRId64 " computed twice\n", hits,
                  evicted, duplicates);
    /* The sequences must reach what they are for. */
    assert_true(hits > 100 * N_SEQUENCES);
    assert_true(evicted > 100 * N_SEQUENCES);
    assert_true(duplicates > 10 * N_SEQUENCES);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal_to_the_naive_cache)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
