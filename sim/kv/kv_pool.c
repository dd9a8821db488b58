/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Making, ending, asking and telling a prefix cache; what its leases do is in prefix_cache.c. */
#include <stdlib.h>
#include <string.h>

#include "kv_private.h"

static const char *const POLICIES[] = {"lru", "fifo", "lfu", "s3-fifo", "idle-ttl"};

const char *apmw_kv_policy_name(apmw_kv_policy policy)
{
    return POLICIES[policy];
}

bool apmw_kv_policy_parse(const char *name, apmw_kv_policy *out)
{
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES; i++) {
        if (strcmp(name, POLICIES[i]) == 0) {
            *out = (apmw_kv_policy)i;
            return true;
        }
    }
    return false;
}

apmw_prefix_cache *apmw_prefix_cache_create(const apmw_streams *streams, int64_t capacity_blocks,
                                            int64_t block_tokens, bool caching)
{
    const apmw_kv_options options = {
        .capacity_blocks = capacity_blocks, .block_tokens = block_tokens, .caching = caching};
    return apmw_prefix_cache_create_with(streams, &options);
}

static bool make_order(apmw_prefix_cache *cache)
{
    if (apmw_kv_ordered(cache)) {
        cache->orders = malloc(cache->capacity_entries * sizeof *cache->orders);
        cache->heaps[0] = malloc(((size_t)cache->capacity_entries + 1) * sizeof *cache->heaps[0]);
        if (cache->orders == NULL || cache->heaps[0] == NULL) {
            return false;
        }
    }
    if (cache->policy == APMW_KV_S3_FIFO) {
        cache->heaps[1] = malloc(((size_t)cache->capacity_entries + 1) * sizeof *cache->heaps[1]);
        cache->ghosts = apmw_kv_grow(NULL, &cache->capacity_ghosts, 64, sizeof *cache->ghosts);
        if (cache->heaps[1] == NULL || cache->ghosts == NULL) {
            return false;
        }
        memset(&cache->ghosts[0], 0, sizeof cache->ghosts[0]);
        cache->n_ghosts = 1;
    }
    return true;
}

apmw_prefix_cache *apmw_prefix_cache_create_with(const apmw_streams *streams, const apmw_kv_options *options)
{
    const int64_t capacity_blocks = options->capacity_blocks, block_tokens = options->block_tokens;
    APMW_CHECK(capacity_blocks >= 1 && block_tokens >= 1);
    APMW_CHECK(options->stream_blocks >= 0 && options->half_life_ns >= 0);
    APMW_CHECK(options->policy != APMW_KV_IDLE_TTL || options->ttl_ns >= 1);
    apmw_prefix_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        return NULL;
    }
    cache->streams = streams;
    cache->block_tokens = block_tokens;
    cache->caching = options->caching;
    cache->policy = options->policy;
    cache->ttl_ns = options->ttl_ns;
    cache->half_life_ns = options->half_life_ns;
    cache->stream_blocks = options->stream_blocks;
    cache->capacity = capacity_blocks;
    cache->free = capacity_blocks;
    cache->n_entries = 1;
    cache->n_segments = 1;
    cache->entries = apmw_kv_grow(NULL, &cache->capacity_entries, 64, sizeof *cache->entries);
    cache->segments = apmw_kv_grow(NULL, &cache->capacity_segments, 128, sizeof *cache->segments);
    cache->path = apmw_kv_grow(NULL, &cache->capacity_path, 16, sizeof *cache->path);
    if (cache->entries == NULL || cache->segments == NULL || cache->path == NULL ||
        !apmw_kv_map_reserve(&cache->map, 1) || !make_order(cache)) {
        apmw_prefix_cache_free(cache);
        return NULL;
    }
    memset(&cache->entries[0], 0, sizeof cache->entries[0]);
    memset(&cache->segments[0], 0, sizeof cache->segments[0]);
    return cache;
}

void apmw_prefix_cache_free(apmw_prefix_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (uint32_t i = 1; cache->entries != NULL && i < cache->n_entries; i++) {
        free(cache->entries[i].pins.many);
        if (cache->orders != NULL) {
            free(cache->orders[i].children.many);
        }
    }
    free(cache->entries);
    free(cache->segments);
    free(cache->map.slots);
    free(cache->path);
    free(cache->orders);
    free(cache->heaps[0]);
    free(cache->heaps[1]);
    free(cache->ghosts);
    free(cache->ghost_map.slots);
    free(cache);
}

void apmw_prefix_cache_observe(apmw_prefix_cache *cache, apmw_kv_evicted_fn *on_evict, void *self)
{
    cache->on_evict = on_evict;
    cache->on_evict_self = self;
}

void apmw_prefix_cache_at(apmw_prefix_cache *cache, int64_t now_ns)
{
    APMW_CHECK(now_ns >= cache->now_ns);
    cache->now_ns = now_ns;
    if (cache->policy == APMW_KV_IDLE_TTL) {
        for (;;) {
            const apmw_kv_segment *oldest = &cache->segments[cache->segments[0].newer];
            if (cache->segments[0].newer == 0 || oldest->used_ns > now_ns - cache->ttl_ns) {
                return;
            }
            (void)apmw_kv_segment_evict(cache, oldest->to - oldest->from);
        }
    }
}

static size_t map_bytes(const apmw_kv_map *map)
{
    return map->slots == NULL ? 0 : ((size_t)map->mask + 1) * sizeof *map->slots;
}

size_t apmw_prefix_cache_bytes(const apmw_prefix_cache *cache)
{
    size_t n = sizeof *cache + cache->capacity_entries * sizeof *cache->entries +
               cache->capacity_segments * sizeof *cache->segments + map_bytes(&cache->map) +
               cache->capacity_path * sizeof *cache->path + map_bytes(&cache->ghost_map) +
               cache->capacity_ghosts * sizeof *cache->ghosts;
    if (cache->orders != NULL) {
        n += cache->capacity_entries * sizeof *cache->orders;
    }
    for (int q = 0; q < 2; q++) {
        n += cache->heaps[q] == NULL ? 0 : ((size_t)cache->capacity_entries + 1) * sizeof *cache->heaps[q];
    }
    for (uint32_t i = 1; i < cache->n_entries; i++) {
        const apmw_kv_pins *pins = &cache->entries[i].pins;
        n += pins->many == NULL ? 0 : pins->capacity * sizeof *pins->many;
        if (cache->orders != NULL) {
            pins = &cache->orders[i].children;
            n += pins->many == NULL ? 0 : pins->capacity * sizeof *pins->many;
        }
    }
    return n;
}

void apmw_prefix_cache_stats(const apmw_prefix_cache *cache, apmw_kv_stats *out)
{
    out->capacity_blocks = cache->capacity;
    out->free_blocks = cache->free;
    out->held_blocks = cache->pinned + cache->taken;
    out->cached_blocks = cache->cached;
    out->peak_used_blocks = cache->peak_used;
    out->hit_tokens = cache->hit_tokens;
    out->query_tokens = cache->query_tokens;
    out->evicted_blocks = cache->evicted;
    out->inserted_blocks = cache->inserted;
    out->overhead_blocks = cache->overhead;
}
