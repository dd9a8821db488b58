/* SPDX-License-Identifier: GPL-3.0-or-later */
/* KV contents as intervals of token streams, and a block-accounted LRU prefix cache over them.
 *
 * A stream is the content of a conversation: positions [0, fork) are those of its parent, later positions are
 * its own. Two requests share content exactly when their streams share an ancestor chain that far. Streams are
 * global to a simulation (apmw_streams); each pool (rank) has its own apmw_prefix_cache.
 *
 * Blocks are arithmetic: block b of a stream covers [b*B, (b+1)*B). A block that straddles a fork belongs to
 * the child. Only whole blocks are cached, so the last partial block is never hit.
 *
 * A running request holds a lease: the blocks that it matched are pinned, further blocks are taken from the
 * pool. In the pool free + held + cached = capacity at all times: held counts pinned cached blocks once
 * and blocks that running requests have taken; cached counts unpinned, evictable blocks.
 *
 * Recency: ending a lease touches all its blocks at that instant; inside a stream the last-use time never
 * grows with the position, so the cached part of a stream is always a prefix of its own interval and
 * eviction takes the tail first (vLLM v1 frees a request's blocks in reverse order). All operations cost
 * O(depth of the stream + log n), whatever the context length. */
#ifndef APMW_KV_H
#define APMW_KV_H
#include <stdbool.h>
#include <stdint.h>
#include "apmw/status.h"

typedef uint32_t apmw_stream; /* 0 = none */
typedef struct apmw_streams apmw_streams;
apmw_streams *apmw_streams_create(void);
void apmw_streams_free(apmw_streams *streams);
/* A new stream; parent 0 and fork 0 for a fresh (salted) conversation. Returns 0 when out of memory. */
apmw_stream apmw_streams_new(apmw_streams *streams, apmw_stream parent, int64_t fork_tokens);
apmw_stream apmw_streams_parent(const apmw_streams *streams, apmw_stream stream);
int64_t apmw_streams_fork(const apmw_streams *streams, apmw_stream stream);

typedef struct apmw_prefix_cache apmw_prefix_cache;
typedef struct apmw_kv_stats {
    int64_t capacity_blocks, free_blocks, held_blocks, cached_blocks;
    int64_t peak_used_blocks;             /* of held + cached */
    int64_t hit_tokens, query_tokens;     /* counted once a request, when its lease begins */
    int64_t evicted_blocks, inserted_blocks;
} apmw_kv_stats;

typedef struct apmw_kv_lease {
    apmw_stream stream;
    int64_t matched_tokens;   /* hit: a multiple of the block size, <= prompt - 1 */
    int64_t pinned_blocks;    /* matched blocks, pinned */
    int64_t taken_blocks;     /* further blocks taken from the pool by this lease */
    int64_t committed_blocks; /* leading blocks of the stream that this lease has made findable (>= pinned) */
    bool active;
} apmw_kv_lease;

/* streams is borrowed. capacity_blocks >= 1, block_tokens >= 1. caching = false: nothing is ever kept or hit.
 * NULL when out of memory. */
apmw_prefix_cache *apmw_prefix_cache_create(const apmw_streams *streams, int64_t capacity_blocks,
                                            int64_t block_tokens, bool caching);
void apmw_prefix_cache_free(apmw_prefix_cache *cache);
/* Tokens that a request with this prompt would find now: no side effect (routers use it too). */
int64_t apmw_prefix_cache_match(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt);
/* Blocks that could be taken now: free + cached, less `pinning` blocks of this match that are cached now. */
int64_t apmw_prefix_cache_available(const apmw_prefix_cache *cache);
/* Matched blocks of this prompt that are at present unpinned (they leave "available" when pinned). */
int64_t apmw_prefix_cache_unpinned_match(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt);
/* Matches, counts the hit once, pins the matched blocks. n_prompt >= 1. */
void apmw_prefix_cache_begin(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt, apmw_kv_lease *lease);
/* The same for a request that was preempted: matches and pins, but counts nothing (law L16). */
void apmw_prefix_cache_resume(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt, apmw_kv_lease *lease);
/* Takes n more blocks for the lease, evicting least recently used ones if needed; false (nothing changed) if
 * fewer than n are available. lease may be NULL: blocks taken for the whole batch, which the engine assigns to
 * leases when they end (apmw_kv_lease.taken_blocks is then raised by the engine). */
bool apmw_prefix_cache_take(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_blocks);
/* The first n_tokens of the stream are now computed by this lease: their whole blocks become findable by
 * others (and stay pinned by the lease). Blocks that another lease made findable in the meantime under the
 * same content are duplicates: ours stay held and become free at the end. */
void apmw_prefix_cache_commit(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_tokens);
/* Ends the lease: unpins and touches. Blocks of [0, keep_tokens) that are whole and committed stay cached under
 * the stream (call commit first). `dead_tokens` further whole-block tokens (output that no later prompt
 * re-uses) stay as unreachable content until evicted, as in an engine that caches all it generates.
 * Everything else taken returns to free. */
void apmw_prefix_cache_end(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t dead_tokens);
void apmw_prefix_cache_stats(const apmw_prefix_cache *cache, apmw_kv_stats *out);
int64_t apmw_prefix_cache_block_tokens(const apmw_prefix_cache *cache);
/* Self-check of all invariants (laws L6, L14, L17), O(size). APMW_E_INTERNAL with the broken one named. */
apmw_status apmw_prefix_cache_check(const apmw_prefix_cache *cache, apmw_error *err);

#endif
