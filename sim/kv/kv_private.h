/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Inside of the prefix cache.
 *
 * An entry is the cached part of one stream's own interval: blocks [first, end), of which [first, pin_end)
 * are pinned by running leases and [pin_end, end) are evictable. An entry exists exactly while end > first.
 * Because every lease covers the whole path from the root of its stream, what is cached (and what is pinned)
 * of a path is always a prefix of it: a match is found at the deepest entry of the path and needs no look at
 * its ancestors.
 *
 * The evictable part is cut into segments, each the blocks that one lease's end released: a staircase of
 * recency, newest at the head. All segments of the cache lie in one list, oldest first, in exactly the order
 * of vLLM's free queue; a segment is evicted from its tail. Pinned blocks are in no segment: they get their
 * place when the last lease that pins them ends.
 *
 * That is LRU, and idle TTL, which only adds a time to each segment (kv_segments.c). Under the other policies
 * (kv_order.c) order may grow along a path, so that the list cannot serve: there the segments of an entry
 * cover all of [first, end), pinned or not, each a run of blocks that came and were used together; an entry
 * also knows where cached children hang on it, and a heap holds the entries whose last block has no cached
 * successor and no pin. What is cached of a path stays a prefix by that rule.
 *
 * Entries and segments are indexes into growing arrays with free lists; index 0 means none. */
#ifndef APMW_KV_PRIVATE_H
#define APMW_KV_PRIVATE_H
#include <stddef.h>

#include "apmw/kv.h"

typedef struct apmw_kv_stream {
    int64_t fork_tokens;
    apmw_stream parent;
    apmw_stream base; /* nearest ancestor that owns content of ours: its fork lies before our fork */
    uint32_t depth;   /* streams that own content of ours, with ourselves */
} apmw_kv_stream;

struct apmw_streams {
    apmw_kv_stream *items; /* item 0 is the none stream */
    uint32_t n, capacity;
};

/* Positions in [first, ...) of an entry, counted: what leases pin of it, or where children hang on it. */
typedef struct apmw_kv_pin {
    int64_t end;
    int64_t count;
} apmw_kv_pin;

enum { APMW_KV_FEW_PINS = 2, APMW_KV_MOST_USES = 3 };

/* Sorted by end, so the last one is the furthest. It holds one item for each distinct end among the leases
 * that run on a stream: mostly one or two, at most the sequences of a batch, so shifting it costs less than a
 * tree would. */
typedef struct apmw_kv_pins {
    uint32_t n, capacity;
    apmw_kv_pin *many; /* NULL: in few */
    apmw_kv_pin few[APMW_KV_FEW_PINS];
} apmw_kv_pins;

/* Stream of an entry that is dead content under the policies of kv_order.c; it is in no map. */
#define APMW_KV_DEAD UINT32_MAX

typedef struct apmw_kv_entry {
    apmw_stream stream; /* 0 = on the free list */
    uint32_t head;      /* newest segment, or next free entry */
    int64_t first, pin_end, end;
    apmw_kv_pins pins;
} apmw_kv_entry;

typedef struct apmw_kv_segment {
    uint32_t entry;        /* 0 = dead content (LRU), or the list's own node */
    uint32_t older, newer; /* in the list of the whole cache; older is the next free segment when free */
    uint32_t toward_head, toward_tail; /* in the entry */
    int64_t from, to;
    uint64_t stamp; /* LRU, LFU: of the end that used it last; FIFO, S3-FIFO: of its arrival in the queue */
    union {
        int64_t used_ns; /* idle TTL */
        double score;    /* LFU */
    };
    uint8_t queue; /* S3-FIFO: 0 small, 1 main */
    uint8_t uses;  /* S3-FIFO: since it came into its queue, at most APMW_KV_MOST_USES */
    bool fresh;    /* made findable, and no lease on it has ended yet */
} apmw_kv_segment;

/* What kv_order.c keeps beside an entry. */
typedef struct apmw_kv_order {
    uint32_t tail;  /* last segment */
    uint32_t place; /* in its heap, from 1; 0 = not evictable now */
    uint8_t heap;
    apmw_kv_pins children; /* first blocks of cached streams whose block before is ours */
} apmw_kv_order;

typedef struct apmw_kv_node {
    double score;
    uint64_t stamp;
    uint32_t entry;
} apmw_kv_node;

typedef struct apmw_kv_slot {
    apmw_stream stream; /* 0 = empty */
    uint32_t index;
} apmw_kv_slot;

/* Open addressing with linear probing: an index by stream. */
typedef struct apmw_kv_map {
    apmw_kv_slot *slots;
    uint32_t mask;
} apmw_kv_map;

/* S3-FIFO remembers blocks that went out of the small queue: ranges of streams, in the order of eviction. Of
 * one stream the newer range lies below the older, because eviction goes from the tail. */
typedef struct apmw_kv_ghost {
    apmw_stream stream;
    uint32_t older, newer; /* of all; older is the next free one when free */
    uint32_t above;        /* the next older range of the stream */
    int64_t from, to;
} apmw_kv_ghost;

/* A part of a lease's path: blocks [first, limit) belong to `stream`. */
typedef struct apmw_kv_part {
    apmw_stream stream;
    uint32_t entry; /* 0 = none (yet) */
    int64_t first, limit;
} apmw_kv_part;

struct apmw_prefix_cache {
    const apmw_streams *streams;
    int64_t block_tokens;
    bool caching;
    bool out_of_memory;
    int64_t capacity, free, pinned, taken, cached; /* blocks; held = pinned + taken */
    int64_t peak_used, hit_tokens, query_tokens, evicted, inserted;
    uint64_t stamp;
    int64_t now_ns;
    apmw_kv_policy policy;
    int64_t ttl_ns, half_life_ns;
    int64_t stream_blocks; /* charged for each entry */
    int64_t overhead;      /* blocks charged so */
    int64_t idle_entries;  /* entries that no lease pins; dead content not counted */
    apmw_kv_evicted_fn *on_evict;
    void *on_evict_self;

    apmw_kv_entry *entries;
    uint32_t n_entries, capacity_entries, free_entry, used_entries;
    apmw_kv_segment
        *segments; /* segment 0 closes the recency list: its newer is the oldest, its older the newest */
    uint32_t n_segments, capacity_segments, free_segment, used_segments;
    int64_t reserved_segments; /* room that the ends of running leases may need */
    apmw_kv_map map;           /* entry by stream */
    apmw_kv_part *path;        /* scratch, deepest stream first */
    uint32_t capacity_path;

    /* kv_order.c; NULL and 0 under LRU and idle TTL. */
    apmw_kv_order *orders;  /* of the entries, as many */
    apmw_kv_node *heaps[2]; /* of as many nodes, from 1: next victim first; [1] only under S3-FIFO */
    uint32_t n_heap[2];
    int64_t small_blocks;  /* S3-FIFO: blocks in the small queue, pinned ones and dead content too */
    apmw_kv_map ghost_map; /* lowest and newest range by stream */
    apmw_kv_ghost *ghosts; /* ghost 0 closes the list, as segment 0 does */
    uint32_t n_ghosts, capacity_ghosts, free_ghost, used_ghosts;
    int64_t ghost_blocks;
};

/* Twice the room (or `least`, where that is more) for items, or NULL with the array as it was. */
void *apmw_kv_grow(void *array, uint32_t *capacity, uint32_t least, size_t item_bytes);

/* kv_map.c */
bool apmw_kv_map_reserve(apmw_kv_map *map, uint64_t n_items);
uint32_t apmw_kv_map_find(const apmw_kv_map *map, apmw_stream stream);
/* The stream is not in the map, and room was made. */
void apmw_kv_map_put(apmw_kv_map *map, apmw_stream stream, uint32_t index);
void apmw_kv_map_set(apmw_kv_map *map, apmw_stream stream, uint32_t index);
void apmw_kv_map_remove(apmw_kv_map *map, apmw_stream stream);

/* kv_entries.c */
static inline uint32_t apmw_kv_entry_find(const apmw_prefix_cache *cache, apmw_stream stream)
{
    return apmw_kv_map_find(&cache->map, stream);
}
/* Makes room for `more` entries; false when out of memory. */
bool apmw_kv_entry_reserve(apmw_prefix_cache *cache, uint32_t more);
/* An empty entry; room was made before. */
uint32_t apmw_kv_entry_new(apmw_prefix_cache *cache, apmw_stream stream, int64_t first);
void apmw_kv_entry_drop(apmw_prefix_cache *cache, uint32_t index);
/* The stream of whose own content the block before `first` of this stream's path is; 0 if first is 0. */
apmw_stream apmw_kv_owner_before(const apmw_prefix_cache *cache, apmw_stream stream, int64_t first);
const apmw_kv_pin *apmw_kv_pins_at(const apmw_kv_pins *pins);
/* Room for one more distinct pin; false when out of memory. */
bool apmw_kv_pins_reserve(apmw_kv_pins *pins);
void apmw_kv_pins_add(apmw_kv_pins *pins, int64_t end);
void apmw_kv_pins_remove(apmw_kv_pins *pins, int64_t end);
void apmw_kv_pins_clear(apmw_kv_pins *pins);
/* End of the furthest pin, or `none`. */
int64_t apmw_kv_pins_max(const apmw_kv_pins *pins, int64_t none);

/* kv_segments.c: these keep the lists only; the block counts are the caller's. */
bool apmw_kv_segment_reserve(apmw_prefix_cache *cache, int64_t total);
/* From the free list or the room made before; its links and contents are the caller's to fill. */
uint32_t apmw_kv_segment_get(apmw_prefix_cache *cache);
void apmw_kv_segment_put(apmw_prefix_cache *cache, uint32_t index);
/* The newest segment, at the head of the entry (0: dead content). */
void apmw_kv_segment_append(apmw_prefix_cache *cache, uint32_t entry, int64_t from, int64_t to);
/* Takes blocks below `to` out of the entry's segments, from the head; returns how many there were. */
int64_t apmw_kv_segment_trim(apmw_prefix_cache *cache, uint32_t entry, int64_t to);
/* Evicts up to n >= 1 blocks of the oldest segment, with all counts; returns the blocks that became free. */
int64_t apmw_kv_segment_evict(apmw_prefix_cache *cache, int64_t n);

/* kv_order.c: FIFO, LFU and S3-FIFO. */
static inline bool apmw_kv_ordered(const apmw_prefix_cache *cache)
{
    return cache->policy != APMW_KV_LRU && cache->policy != APMW_KV_IDLE_TTL;
}
/* Room for the segments that making [from, to) of a stream findable may need. */
bool apmw_kv_order_reserve_insert(apmw_prefix_cache *cache, const apmw_kv_part *parts, uint32_t n_parts);
/* Blocks [entry->end, to) became findable, pinned. */
void apmw_kv_order_insert(apmw_prefix_cache *cache, uint32_t entry, int64_t to);
/* A lease on blocks [first, to) ended. */
void apmw_kv_order_use(apmw_prefix_cache *cache, uint32_t entry, int64_t to);
/* Dead content arrives; room for an entry and a segment was made. */
void apmw_kv_order_dead(apmw_prefix_cache *cache, int64_t n);
/* After a change of pins, children, tail or end: is the entry's tail evictable, and when? */
void apmw_kv_order_update(apmw_prefix_cache *cache, uint32_t entry);
/* Evicts up to n >= 1 blocks, as apmw_kv_segment_evict does. */
int64_t apmw_kv_order_evict(apmw_prefix_cache *cache, int64_t n);
/* Self-check of what is kept here; adds up unpinned blocks and segments. */
apmw_status apmw_kv_order_check(const apmw_prefix_cache *cache, int64_t *cached, uint32_t *segments,
                                apmw_error *err);

/* kv_ghosts.c */
uint32_t apmw_kv_ghost_lowest(const apmw_prefix_cache *cache, apmw_stream stream);
/* [from, to) of the stream left the small queue; all that is remembered of the stream lies above. */
void apmw_kv_ghost_push(apmw_prefix_cache *cache, apmw_stream stream, int64_t from, int64_t to);
/* The blocks below `to` of the stream's lowest range are back. */
void apmw_kv_ghost_take(apmw_prefix_cache *cache, apmw_stream stream, int64_t to);
/* Ranges of the stream that reach below `to`. */
uint32_t apmw_kv_ghost_pieces(const apmw_prefix_cache *cache, apmw_stream stream, int64_t to);
apmw_status apmw_kv_ghost_check(const apmw_prefix_cache *cache, apmw_error *err);

/* prefix_cache.c: k blocks at the end of an entry (0: LRU's dead content) were evicted: counts, drops an
 * entry that is empty, tells. Returns the blocks that became free. */
int64_t apmw_kv_evicted(apmw_prefix_cache *cache, uint32_t entry, int64_t k);

#endif
