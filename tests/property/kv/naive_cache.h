/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A prefix cache that keeps every block and finds everything by scanning: the oracle of the interval cache.
 */
#ifndef NAIVE_CACHE_H
#define NAIVE_CACHE_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "apmw/kv.h"

enum { MAX_BLOCKS = 512, MAX_STREAMS = 64, MAX_PATH = 2048 };

typedef struct naive_block {
    apmw_stream owner; /* 0 = dead content */
    int64_t index;
    int64_t pins;
    uint64_t use; /* when it was used last, or arrived in its queue: by policy */
    uint64_t run; /* blocks with the same number got their place together */
    double score;
    int64_t used_ns;
    int queue, uses;
    bool fresh;
} naive_block;

typedef struct naive_cache {
    const apmw_streams *streams;
    apmw_kv_options options;
    int64_t private_blocks, hit_tokens, query_tokens, evicted, inserted, peak, now;
    int64_t told;  /* sum over findable blocks evicted, for comparison with what an observer heard */
    int64_t moves; /* between and within S3-FIFO's queues */
    int64_t ghost_hits;
    uint64_t clock, runs;
    naive_block blocks[MAX_BLOCKS];
    int64_t n;
    naive_block ghosts[MAX_BLOCKS]; /* oldest first; owner and index only */
    int64_t n_ghosts;
    void (*on_drop)(void *self, apmw_stream owner, int64_t index);
    void *on_drop_self;
    int16_t at[MAX_STREAMS + 1][MAX_PATH]; /* block + 1 by owner and index */
} naive_cache;

typedef struct naive_lease {
    apmw_stream stream;
    int64_t matched, taken, committed, inserted;
} naive_lease;

static inline bool naive_recency(const naive_cache *c)
{
    return c->options.policy == APMW_KV_LRU || c->options.policy == APMW_KV_IDLE_TTL;
}

static inline int64_t naive_sum(apmw_stream owner, int64_t index)
{
    return (int64_t)owner * 1000003 + index * index + 1;
}

/* The stream whose own content block b of this stream is; a block that straddles a fork is the child's. */
static inline apmw_stream owner_of(const naive_cache *c, apmw_stream stream, int64_t b)
{
    while (stream != 0 && b < apmw_streams_fork(c->streams, stream) / c->options.block_tokens) {
        stream = apmw_streams_parent(c->streams, stream);
    }
    return stream;
}

static inline naive_block *find(naive_cache *c, apmw_stream stream, int64_t b)
{
    const apmw_stream owner = owner_of(c, stream, b);
    assert_true(owner <= MAX_STREAMS && b < MAX_PATH);
    return owner == 0 || c->at[owner][b] == 0 ? NULL : &c->blocks[c->at[owner][b] - 1];
}

static inline int64_t naive_cached(const naive_cache *c)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        n += c->blocks[i].pins == 0;
    }
    return n;
}

/* Blocks charged for streams: for all of which something is findable, or only for those without a pin. */
static inline int64_t naive_overhead(const naive_cache *c, bool unpinned)
{
    int64_t n = 0;
    for (apmw_stream stream = 1; c->options.stream_blocks > 0 && stream <= MAX_STREAMS; stream++) {
        bool any = false, pinned = false;
        for (int64_t i = 0; i < c->n; i++) {
            any = any || c->blocks[i].owner == stream;
            pinned = pinned || (c->blocks[i].owner == stream && c->blocks[i].pins > 0);
        }
        n += any && !(unpinned && pinned);
    }
    return n * c->options.stream_blocks;
}

static inline int64_t naive_free(const naive_cache *c)
{
    return c->options.capacity_blocks - c->n - c->private_blocks - naive_overhead(c, false);
}

static inline int64_t naive_available(const naive_cache *c)
{
    return naive_free(c) + naive_cached(c) + naive_overhead(c, true);
}

static inline int64_t naive_match(naive_cache *c, apmw_stream stream, int64_t n_prompt, int64_t *unpinned)
{
    int64_t m = 0;
    *unpinned = 0;
    while ((m + 1) * c->options.block_tokens < n_prompt) {
        const naive_block *block = find(c, stream, m);
        if (block == NULL) {
            break;
        }
        *unpinned += block->pins == 0;
        m++;
    }
    return m;
}

static inline void naive_begin(naive_cache *c, apmw_stream stream, int64_t n_prompt, bool count,
                               naive_lease *lease)
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
        c->hit_tokens += lease->matched * c->options.block_tokens;
    }
}

static inline void naive_drop(naive_cache *c, int64_t i)
{
    naive_block *block = &c->blocks[i];
    const naive_block gone = *block;
    if (block->owner != 0) {
        c->told += naive_sum(block->owner, block->index);
        c->at[block->owner][block->index] = 0;
    }
    *block = c->blocks[--c->n];
    if (i < c->n && block->owner != 0) {
        c->at[block->owner][block->index] = (int16_t)(i + 1);
    }
    c->evicted++;
    if (gone.owner != 0 && c->on_drop != NULL) {
        c->on_drop(c->on_drop_self, gone.owner, gone.index);
    }
}

/* Blocks that come directly after this one and are cached. */
static inline void naive_children(naive_cache *c, int64_t children[MAX_BLOCKS])
{
    memset(children, 0, MAX_BLOCKS * sizeof *children);
    for (int64_t i = 0; i < c->n; i++) {
        const naive_block *block = &c->blocks[i];
        if (block->owner != 0 && block->index > 0) {
            const naive_block *before = find(c, block->owner, block->index - 1);
            assert_non_null(before);
            children[before - c->blocks]++;
        }
    }
}

static inline bool naive_precedes(const naive_block *a, const naive_block *b)
{
    return a->score < b->score || (!(a->score > b->score) && a->use < b->use);
}

static inline int64_t naive_first(const naive_cache *c, const int64_t children[MAX_BLOCKS], int queue)
{
    int64_t first = -1;
    for (int64_t i = 0; i < c->n; i++) {
        const naive_block *block = &c->blocks[i];
        if (block->pins == 0 && children[i] == 0 && (queue < 0 || block->queue == queue) &&
            (first < 0 || naive_precedes(block, &c->blocks[first]))) {
            first = i;
        }
    }
    return first;
}

/* The block and those below it that got their place with it go to the main queue's young end. */
static inline void naive_move(naive_cache *c, int64_t children[MAX_BLOCKS], int64_t i)
{
    const naive_block old = c->blocks[i];
    const uint64_t run = ++c->runs, use = ++c->clock;
    for (naive_block *block = &c->blocks[i];;) {
        block->queue = 1;
        block->uses = old.queue == 0 ? 0 : old.uses - 1;
        block->run = run;
        block->use = use;
        c->moves++;
        block = block->owner == 0 || block->index == 0 ? NULL : find(c, block->owner, block->index - 1);
        if (block == NULL || block->owner != old.owner || block->pins != 0 ||
            children[block - c->blocks] != 1 || block->run != old.run || block->queue != old.queue ||
            block->uses != old.uses) {
            return;
        }
    }
}

static inline void naive_s3_evict(naive_cache *c)
{
    const int64_t tenth = c->options.capacity_blocks / 10;
    for (;;) {
        int64_t children[MAX_BLOCKS], small = 0;
        naive_children(c, children);
        for (int64_t i = 0; i < c->n; i++) {
            small += c->blocks[i].queue == 0;
        }
        const int64_t in_small = naive_first(c, children, 0), in_main = naive_first(c, children, 1);
        const bool from_small = in_small >= 0 && (small > tenth || in_main < 0);
        const int64_t i = from_small ? in_small : in_main;
        assert_true(i >= 0);
        if (c->blocks[i].uses > (from_small ? 1 : 0)) {
            naive_move(c, children, i);
            continue;
        }
        if (from_small && c->blocks[i].owner != 0) {
            if (c->n_ghosts == c->options.capacity_blocks - tenth) {
                memmove(&c->ghosts[0], &c->ghosts[1], (size_t)--c->n_ghosts * sizeof *c->ghosts);
            }
            c->ghosts[c->n_ghosts++] = c->blocks[i];
        }
        naive_drop(c, i);
        return;
    }
}

static inline void naive_evict_one(naive_cache *c)
{
    if (c->options.policy == APMW_KV_S3_FIFO) {
        naive_s3_evict(c);
        return;
    }
    int64_t children[MAX_BLOCKS];
    if (naive_recency(c)) { /* by recency alone: that what has a successor never goes must follow */
        memset(children, 0, sizeof children);
    } else {
        naive_children(c, children);
    }
    const int64_t victim = naive_first(c, children, -1);
    assert_true(victim >= 0);
    naive_drop(c, victim);
}

static inline void naive_at(naive_cache *c, int64_t now)
{
    c->now = now;
    while (c->options.policy == APMW_KV_IDLE_TTL) { /* in the order of use */
        static const int64_t none[MAX_BLOCKS];
        const int64_t i = naive_first(c, none, -1);
        if (i < 0 || c->blocks[i].used_ns + c->options.ttl_ns > now) {
            return;
        }
        naive_drop(c, i);
    }
}

static inline bool naive_take(naive_cache *c, int64_t n)
{
    if (naive_available(c) < n) {
        return false;
    }
    while (naive_free(c) < n) {
        naive_evict_one(c);
    }
    c->private_blocks += n;
    if (c->options.capacity_blocks - naive_free(c) > c->peak) {
        c->peak = c->options.capacity_blocks - naive_free(c);
    }
    return true;
}

static inline naive_block *naive_insert(naive_cache *c, apmw_stream owner, int64_t index, int64_t pins)
{
    assert_true(c->n < MAX_BLOCKS);
    naive_block *block = &c->blocks[c->n++];
    memset(block, 0, sizeof *block);
    block->owner = owner;
    block->index = index;
    block->pins = pins;
    block->fresh = true;
    if (owner != 0) {
        c->at[owner][index] = (int16_t)c->n;
    }
    for (int64_t i = 0; owner != 0 && i < c->n_ghosts; i++) {
        if (c->ghosts[i].owner == owner && c->ghosts[i].index == index) {
            block->queue = 1;
            c->ghost_hits++;
            c->n_ghosts--;
            memmove(&c->ghosts[i], &c->ghosts[i + 1], (size_t)(c->n_ghosts - i) * sizeof *c->ghosts);
        }
    }
    c->inserted++;
    c->private_blocks--;
    return block;
}

static inline void naive_commit(naive_cache *c, naive_lease *lease, int64_t n_tokens)
{
    while (c->options.caching && lease->stream != 0 &&
           (lease->committed + 1) * c->options.block_tokens <= n_tokens) {
        naive_block *block = find(c, lease->stream, lease->committed);
        if (block != NULL) {
            block->pins++;
        } else {
            const int64_t charged = naive_overhead(c, false);
            naive_insert(c, owner_of(c, lease->stream, lease->committed), lease->committed, 1);
            lease->inserted++;
            const int64_t charge = naive_overhead(c, false) - charged;
            c->private_blocks -= charge;
            lease->taken -= charge;
        }
        lease->committed++;
    }
}

static inline void naive_use(naive_cache *c, naive_block *block)
{
    block->used_ns = c->now;
    if (naive_recency(c) || c->options.policy == APMW_KV_LFU || block->fresh) {
        block->use = ++c->clock;
        block->run = c->runs;
    }
    if (c->options.policy == APMW_KV_LFU) {
        const int64_t half = c->options.half_life_ns;
        const double weight = half > 0 ? (double)c->now / (double)half : 1.0;
        const double high = block->score > weight ? block->score : weight;
        const double low = block->score > weight ? weight : block->score;
        block->score = block->fresh ? weight
                       : half > 0   ? high + log2(1.0 + exp2(low - high))
                                    : block->score + weight;
    } else if (c->options.policy == APMW_KV_S3_FIFO && !block->fresh && block->uses < 3) {
        block->uses++;
    }
    block->fresh = false;
}

static inline void naive_end(naive_cache *c, naive_lease *lease, int64_t dead_tokens)
{
    int64_t own = lease->taken - lease->inserted;
    c->runs++;
    for (int64_t i = 0; c->options.caching && i < dead_tokens / c->options.block_tokens; i++) {
        naive_use(c, naive_insert(c, 0, 0, 0));
        own--;
    }
    c->private_blocks -= own;
    for (int64_t b = lease->committed; b-- > 0;) {
        naive_block *block = find(c, lease->stream, b);
        block->pins--;
        naive_use(c, block);
    }
}

#endif
