/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The recency list of LRU and idle TTL: evictable segments of all entries, and dead content, oldest first. */
#include "kv_private.h"

bool apmw_kv_segment_reserve(apmw_prefix_cache *cache, int64_t total)
{
    if (total < (int64_t)cache->capacity_segments) { /* one is the list's own node */
        return true;
    }
    if (total >= UINT32_MAX) {
        return false;
    }
    apmw_kv_segment *larger =
        apmw_kv_grow(cache->segments, &cache->capacity_segments, (uint32_t)total + 1, sizeof *larger);
    if (larger == NULL) {
        return false;
    }
    cache->segments = larger;
    return true;
}

uint32_t apmw_kv_segment_get(apmw_prefix_cache *cache)
{
    uint32_t index = cache->free_segment;
    if (index != 0) {
        cache->free_segment = cache->segments[index].older;
    } else {
        APMW_CHECK(cache->n_segments < cache->capacity_segments);
        index = cache->n_segments++;
    }
    cache->used_segments++;
    return index;
}

void apmw_kv_segment_put(apmw_prefix_cache *cache, uint32_t index)
{
    cache->segments[index].older = cache->free_segment;
    cache->free_segment = index;
    cache->used_segments--;
}

void apmw_kv_segment_append(apmw_prefix_cache *cache, uint32_t entry, int64_t from, int64_t to)
{
    const uint32_t index = apmw_kv_segment_get(cache);
    apmw_kv_segment *segment = &cache->segments[index];
    segment->entry = entry;
    segment->from = from;
    segment->to = to;
    segment->stamp = ++cache->stamp;
    segment->used_ns = cache->now_ns;
    segment->newer = 0;
    segment->older = cache->segments[0].older;
    cache->segments[segment->older].newer = index;
    cache->segments[0].older = index;
    segment->toward_head = 0;
    segment->toward_tail = 0;
    if (entry != 0) {
        const uint32_t second = cache->entries[entry].head;
        segment->toward_tail = second;
        if (second != 0) {
            cache->segments[second].toward_head = index;
        }
        cache->entries[entry].head = index;
    }
}

static void segment_remove(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_segment *segment = &cache->segments[index];
    cache->segments[segment->older].newer = segment->newer;
    cache->segments[segment->newer].older = segment->older;
    if (segment->entry != 0) {
        if (segment->toward_head != 0) {
            cache->segments[segment->toward_head].toward_tail = segment->toward_tail;
        } else {
            cache->entries[segment->entry].head = segment->toward_tail;
        }
        if (segment->toward_tail != 0) {
            cache->segments[segment->toward_tail].toward_head = segment->toward_head;
        }
    }
    apmw_kv_segment_put(cache, index);
}

int64_t apmw_kv_segment_trim(apmw_prefix_cache *cache, uint32_t entry, int64_t to)
{
    int64_t n = 0;
    for (;;) {
        const uint32_t index = cache->entries[entry].head;
        if (index == 0 || cache->segments[index].from >= to) {
            return n;
        }
        apmw_kv_segment *segment = &cache->segments[index];
        if (segment->to > to) {
            n += to - segment->from;
            segment->from = to;
            return n;
        }
        n += segment->to - segment->from;
        segment_remove(cache, index);
    }
}

int64_t apmw_kv_segment_evict(apmw_prefix_cache *cache, int64_t n)
{
    const uint32_t oldest = cache->segments[0].newer;
    APMW_CHECK(oldest != 0);
    apmw_kv_segment *segment = &cache->segments[oldest];
    const int64_t length = segment->to - segment->from;
    const int64_t k = n < length ? n : length;
    const uint32_t owner = segment->entry;
    segment->to -= k;
    if (owner != 0) {
        /* The oldest segment of the cache is the last of its entry: recency never grows along a stream. */
        APMW_CHECK(segment->toward_tail == 0 && cache->entries[owner].end == segment->to + k);
    }
    if (k == length) {
        segment_remove(cache, oldest);
    }
    return apmw_kv_evicted(cache, owner, k);
}
