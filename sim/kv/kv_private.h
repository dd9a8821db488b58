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

/* Leases that pin [first, end) of an entry; sorted by end, so the last one is the furthest. */
typedef struct apmw_kv_pin {
    int64_t end;
    int64_t count;
} apmw_kv_pin;

enum { APMW_KV_INLINE_PINS = 2 };

typedef struct apmw_kv_entry {
    apmw_stream stream; /* 0 = on the free list */
    uint32_t head;      /* newest segment, or next free entry */
    int64_t first, pin_end, end;
    uint32_t n_pins, capacity_pins;
    apmw_kv_pin *pins; /* NULL: in inline_pins */
    apmw_kv_pin inline_pins[APMW_KV_INLINE_PINS];
} apmw_kv_entry;

typedef struct apmw_kv_segment {
    uint32_t entry;        /* 0 = dead content, or the list's own node */
    uint32_t older, newer; /* in the list of the whole cache; older is the next free segment when free */
    uint32_t toward_head, toward_tail; /* in the entry */
    int64_t from, to;
    uint64_t stamp; /* of the end that released it; for the self-check */
} apmw_kv_segment;

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

    apmw_kv_entry *entries;
    uint32_t n_entries, capacity_entries, free_entry, used_entries;
    apmw_kv_segment
        *segments; /* segment 0 closes the recency list: its newer is the oldest, its older the newest */
    uint32_t n_segments, capacity_segments, free_segment, used_segments;
    int64_t reserved_segments; /* room that the ends of running leases may need */
    uint32_t *map;             /* open addressing, linear probing: entry index by stream */
    uint32_t map_mask;
    apmw_kv_part *path; /* scratch, deepest stream first */
    uint32_t capacity_path;
};

/* Twice the room (or `least`, where that is more) for items, or NULL with the array as it was. */
void *apmw_kv_grow(void *array, uint32_t *capacity, uint32_t least, size_t item_bytes);

/* kv_entries.c */
uint32_t apmw_kv_entry_find(const apmw_prefix_cache *cache, apmw_stream stream);
/* Makes room for `more` entries; false when out of memory. */
bool apmw_kv_entry_reserve(apmw_prefix_cache *cache, uint32_t more);
/* An empty entry; room was made before. */
uint32_t apmw_kv_entry_new(apmw_prefix_cache *cache, apmw_stream stream, int64_t first);
void apmw_kv_entry_drop(apmw_prefix_cache *cache, uint32_t index);
const apmw_kv_pin *apmw_kv_pins(const apmw_kv_entry *entry);
/* Room for one more distinct pin; false when out of memory. */
bool apmw_kv_pin_reserve(apmw_kv_entry *entry);
void apmw_kv_pin_add(apmw_kv_entry *entry, int64_t end);
void apmw_kv_pin_remove(apmw_kv_entry *entry, int64_t end);
/* End of the furthest pin, entry->first if there is none. */
int64_t apmw_kv_pin_max(const apmw_kv_entry *entry);

/* kv_segments.c: these keep the lists only; the block counts are the caller's. */
bool apmw_kv_segment_reserve(apmw_prefix_cache *cache, int64_t total);
/* The newest segment, at the head of the entry (0: dead content). */
void apmw_kv_segment_append(apmw_prefix_cache *cache, uint32_t entry, int64_t from, int64_t to);
/* Takes blocks below `to` out of the entry's segments, from the head; returns how many there were. */
int64_t apmw_kv_segment_trim(apmw_prefix_cache *cache, uint32_t entry, int64_t to);
/* Evicts n blocks, oldest first; there must be so many. Entries left empty are dropped. */
void apmw_kv_segment_evict(apmw_prefix_cache *cache, int64_t n);

#endif
