/* SPDX-License-Identifier: GPL-3.0-or-later */
/* KV contents as intervals of token streams, and a block-accounted LRU prefix cache over them.
 *
 * A stream is the content of a conversation: positions [0, fork) are those of its parent, later positions are
 * its own. Two requests share content exactly when their streams share an ancestor chain that far. Streams
 * are global to a simulation (apmw_streams); each pool (rank) has its own apmw_prefix_cache.
 *
 * Blocks are arithmetic: block b of a stream covers [b*B, (b+1)*B). A block that straddles a fork belongs to
 * the child. Only whole blocks are cached, so the last partial block is never hit.
 *
 * A running request holds a lease: the blocks that it matched are pinned, further blocks are taken from the
 * pool. In the pool free + held + cached = capacity at all times: held counts pinned cached blocks once
 * and blocks that running requests have taken and not made findable; cached counts unpinned, evictable blocks
 * (dead content among them).
 *
 * Recency is that of vLLM v1's free queue: a block gets its place when the last lease that pins it ends.
 * Within one end dead content is oldest, then the tail of the stream, its head, its parent's tail, and so on
 * up (vLLM frees a request's blocks in reverse order). Hence the last-use time never grows along a path, what
 * is cached of a path is always a prefix of it, and eviction takes the tail of the oldest unpinned segment
 * first. Free blocks are always used before anything is evicted.
 *
 * All operations cost O(depth of the stream + log n), whatever the context length; only the distinct pin
 * positions on one stream, at most its running leases, are kept in an array that is shifted. Streams of which
 * nothing is cached cost the cache nothing.
 *
 * begin and commit may need memory. If there is none the lease goes on uncached (begin) or the blocks stay
 * unfindable (commit), counts stay right, and apmw_prefix_cache_out_of_memory tells: the run's result is
 * void. */
#ifndef APMW_KV_H
#define APMW_KV_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/status.h"

typedef uint32_t apmw_stream; /* 0 = none */
typedef struct apmw_streams apmw_streams;
apmw_streams *apmw_streams_create(void);
void apmw_streams_free(apmw_streams *streams);
/* A new stream; parent 0 and fork 0 for a fresh (salted) conversation, else 0 <= fork (checked). A fork may
 * lie before the parent's own fork: it then shares the grandparent's content only. Returns 0 when out of
 * memory. */
apmw_stream apmw_streams_new(apmw_streams *streams, apmw_stream parent, int64_t fork_tokens);
apmw_stream apmw_streams_parent(const apmw_streams *streams, apmw_stream stream);
int64_t apmw_streams_fork(const apmw_streams *streams, apmw_stream stream);

typedef struct apmw_prefix_cache apmw_prefix_cache;

/* What goes first when the pool is full. Whatever the policy, only a block without a cached successor can go,
 * so what is cached of a path is always a prefix of it. A use is the end of a lease; a block arrives with the
 * end of the first lease on it, which is no use. LRU as told above; idle TTL is LRU that also lets go what
 * was not used for so long. FIFO: the oldest arrival. LFU: the fewest uses (arrival counted), the least
 * recently used among equals; with a half-life uses count half as much every so often. S3-FIFO: kv_order.c.
 * LRU and idle TTL cost O(depth) an operation, FIFO O(depth log n); LFU and S3-FIFO also walk over the runs
 * of blocks of the path that came and were used together, in a conversation at most one a turn. */
typedef enum apmw_kv_policy {
    APMW_KV_LRU,
    APMW_KV_FIFO,
    APMW_KV_LFU,
    APMW_KV_S3_FIFO,
    APMW_KV_IDLE_TTL
} apmw_kv_policy;
/* "lru", "fifo", "lfu", "s3-fifo", "idle-ttl". */
const char *apmw_kv_policy_name(apmw_kv_policy policy);
bool apmw_kv_policy_parse(const char *name, apmw_kv_policy *out);

typedef struct apmw_kv_options {
    int64_t capacity_blocks; /* >= 1 */
    int64_t block_tokens;    /* >= 1 */
    bool caching;            /* false: nothing is ever kept or hit */
    apmw_kv_policy policy;
    int64_t ttl_ns;        /* idle TTL, >= 1 */
    int64_t half_life_ns;  /* LFU; 0 = uses count for ever */
    int64_t stream_blocks; /* blocks that each stream with anything findable costs beside its own, such as the
                              windows of sliding-window layers; a lease must have taken them too (it gives
                              them to the stream at commit) */
} apmw_kv_options;

typedef struct apmw_kv_stats {
    int64_t capacity_blocks, free_blocks, held_blocks, cached_blocks;
    int64_t peak_used_blocks;                /* of held + cached */
    int64_t hit_tokens, query_tokens;        /* counted once a request, when its lease begins */
    int64_t evicted_blocks, inserted_blocks; /* dead content included in both */
    int64_t overhead_blocks; /* charged for streams: free + held + cached + overhead = capacity */
} apmw_kv_stats;

typedef struct apmw_kv_lease {
    apmw_stream stream;
    int64_t matched_tokens;   /* hit: a multiple of the block size, <= prompt - 1 */
    int64_t pinned_blocks;    /* matched blocks, pinned */
    int64_t taken_blocks;     /* all further blocks taken from the pool by this lease since it began: what it
                                 holds of the pool is pinned + taken, duplicates included */
    int64_t committed_blocks; /* leading blocks of the stream that are findable and pinned by this lease
                                 (>= pinned; includes those that others had made findable) */
    int64_t inserted_blocks;  /* of the taken: those that this lease itself made findable */
    bool active;
} apmw_kv_lease;

/* streams is borrowed and may grow meanwhile. capacity_blocks >= 1, block_tokens >= 1. caching = false:
 * nothing is ever kept or hit. NULL when out of memory. */
apmw_prefix_cache *apmw_prefix_cache_create(const apmw_streams *streams, int64_t capacity_blocks,
                                            int64_t block_tokens, bool caching);
apmw_prefix_cache *apmw_prefix_cache_create_with(const apmw_streams *streams, const apmw_kv_options *options);
void apmw_prefix_cache_free(apmw_prefix_cache *cache);
/* Told of every eviction of findable content, once the counts are right again: blocks [from, to) of the
 * stream's own content went, and [0, from) of its path is still cached. The observer must not change this
 * cache. */
typedef void apmw_kv_evicted_fn(void *self, apmw_stream stream, int64_t from_tokens, int64_t to_tokens);
void apmw_prefix_cache_observe(apmw_prefix_cache *cache, apmw_kv_evicted_fn *on_evict, void *self);
/* The time of the operations that follow; never goes back (checked). Only idle TTL and LFU with a half-life
 * look at it; idle TTL evicts here what has expired. */
void apmw_prefix_cache_at(apmw_prefix_cache *cache, int64_t now_ns);
/* Tokens that a request with this prompt would find now, at most floor((n_prompt - 1) / B) * B: no side
 * effect (routers use it too). Stream 0 is content without identity: it never matches and is never made
 * findable. */
int64_t apmw_prefix_cache_match(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt);
/* Blocks that could be taken now: free + cached (unpinned) + what is charged for unpinned streams. A request
 * that is about to begin can take that less apmw_prefix_cache_unpinned_match, since beginning pins its match.
 */
int64_t apmw_prefix_cache_available(const apmw_prefix_cache *cache);
/* Matched blocks of this prompt that are at present unpinned (they leave "available" when pinned). */
int64_t apmw_prefix_cache_unpinned_match(const apmw_prefix_cache *cache, apmw_stream stream,
                                         int64_t n_prompt);
/* Matches, counts the hit once, pins the matched blocks. n_prompt >= 1. What *lease held before is
 * overwritten. Begin only when the request is admitted: a waiting request asks apmw_prefix_cache_match, which
 * counts nothing. */
void apmw_prefix_cache_begin(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt,
                             apmw_kv_lease *lease);
/* The same for a request that was preempted (its first lease was ended): matches and pins, but counts nothing
 * (law L16). n_prompt is then what must be computed again: prompt and, where output_kept, the tokens
 * generated so far. Positions beyond the prompt must not be passed for output that is not the stream's
 * content. */
void apmw_prefix_cache_resume(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt,
                              apmw_kv_lease *lease);
/* Takes n >= 0 more blocks for the lease, evicting least recently used ones if needed; false (nothing
 * changed) if fewer than n are available. lease may be NULL: blocks taken for the whole batch, which the
 * engine assigns to leases afterwards by raising apmw_kv_lease.taken_blocks, at the latest before the commit
 * or end that needs them (checked). */
bool apmw_prefix_cache_take(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_blocks);
/* The first n_tokens of the stream are now computed by this lease: their whole blocks become findable by
 * others (and stay pinned by the lease), those of parent streams under the parent. n_tokens below what is
 * committed already does nothing. Blocks that another lease made findable in the meantime under the same
 * content are duplicates: theirs are pinned by us too, ours stay held and become free at the end. The same
 * happens to a last whole block of a prompt that was cached but had to be computed for its last token. */
void apmw_prefix_cache_commit(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_tokens);
/* Ends the lease: unpins and touches. Committed blocks stay cached (call commit first). floor(dead_tokens /
 * B) of the blocks that were taken and not made findable stay as unreachable content until evicted (output
 * that no later prompt re-uses, in an engine that caches all it generates); there must be so many (checked).
 * Everything else taken returns to free. Without caching all returns to free. The lease's counts stay
 * readable; active becomes false. */
void apmw_prefix_cache_end(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t dead_tokens);
void apmw_prefix_cache_stats(const apmw_prefix_cache *cache, apmw_kv_stats *out);
int64_t apmw_prefix_cache_block_tokens(const apmw_prefix_cache *cache);
/* Memory of the cache now: grows with what is cached at the same time, not with the streams that ever were.
 * O(size). */
size_t apmw_prefix_cache_bytes(const apmw_prefix_cache *cache);
/* True once memory was short: what was found since then is not what would have been found. */
bool apmw_prefix_cache_out_of_memory(const apmw_prefix_cache *cache);
/* Self-check of all invariants (laws L6, L14, L17), O(size). APMW_E_INTERNAL with the broken one named,
 * APMW_E_NOMEM if all hold but memory was short. */
apmw_status apmw_prefix_cache_check(const apmw_prefix_cache *cache, apmw_error *err);

#endif
