/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What left S3-FIFO's small queue lately: as many blocks as its main queue has room for, nine tenths of the
 * pool. */
#include <inttypes.h>

#include "kv_private.h"

static int64_t most_ghosts(const apmw_prefix_cache *cache)
{
    return cache->capacity - cache->capacity / 10;
}

uint32_t apmw_kv_ghost_lowest(const apmw_prefix_cache *cache, apmw_stream stream)
{
    return cache->ghost_map.slots == NULL ? 0 : apmw_kv_map_find(&cache->ghost_map, stream);
}

static uint32_t ghost_new(apmw_prefix_cache *cache)
{
    uint32_t index = cache->free_ghost;
    if (!apmw_kv_map_reserve(&cache->ghost_map, (uint64_t)cache->used_ghosts + 1)) {
        return 0;
    }
    if (index != 0) {
        cache->free_ghost = cache->ghosts[index].older;
    } else {
        if (cache->n_ghosts == cache->capacity_ghosts) {
            apmw_kv_ghost *larger = apmw_kv_grow(cache->ghosts, &cache->capacity_ghosts, 0, sizeof *larger);
            if (larger == NULL) {
                return 0;
            }
            cache->ghosts = larger;
        }
        index = cache->n_ghosts++;
    }
    cache->used_ghosts++;
    return index;
}

static void ghost_unlink(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_ghost *ghost = &cache->ghosts[index];
    cache->ghosts[ghost->older].newer = ghost->newer;
    cache->ghosts[ghost->newer].older = ghost->older;
    ghost->stream = 0;
    ghost->older = cache->free_ghost;
    cache->free_ghost = index;
    cache->used_ghosts--;
}

/* The oldest range is the uppermost of its stream, and its upper end is its oldest part. */
static void forget(apmw_prefix_cache *cache)
{
    while (cache->ghost_blocks > most_ghosts(cache)) {
        const uint32_t oldest = cache->ghosts[0].newer;
        apmw_kv_ghost *ghost = &cache->ghosts[oldest];
        const int64_t surplus = cache->ghost_blocks - most_ghosts(cache);
        const int64_t length = ghost->to - ghost->from;
        const int64_t k = surplus < length ? surplus : length;
        ghost->to -= k;
        cache->ghost_blocks -= k;
        if (k < length) {
            continue;
        }
        uint32_t below = apmw_kv_ghost_lowest(cache, ghost->stream);
        if (below == oldest) {
            apmw_kv_map_remove(&cache->ghost_map, ghost->stream);
        } else {
            while (cache->ghosts[below].above != oldest) {
                below = cache->ghosts[below].above;
            }
            cache->ghosts[below].above = 0;
        }
        ghost_unlink(cache, oldest);
    }
}

void apmw_kv_ghost_push(apmw_prefix_cache *cache, apmw_stream stream, int64_t from, int64_t to)
{
    const uint32_t lowest = apmw_kv_ghost_lowest(cache, stream);
    if (lowest != 0 && lowest == cache->ghosts[0].older && cache->ghosts[lowest].from == to) {
        cache->ghosts[lowest].from = from;
    } else {
        const uint32_t index = ghost_new(cache);
        if (index == 0) {
            cache->out_of_memory = true;
            return;
        }
        apmw_kv_ghost *ghost = &cache->ghosts[index];
        ghost->stream = stream;
        ghost->from = from;
        ghost->to = to;
        ghost->above = lowest;
        ghost->newer = 0;
        ghost->older = cache->ghosts[0].older;
        cache->ghosts[ghost->older].newer = index;
        cache->ghosts[0].older = index;
        if (lowest != 0) {
            apmw_kv_map_set(&cache->ghost_map, stream, index);
        } else {
            apmw_kv_map_put(&cache->ghost_map, stream, index);
        }
    }
    cache->ghost_blocks += to - from;
    forget(cache);
}

void apmw_kv_ghost_take(apmw_prefix_cache *cache, apmw_stream stream, int64_t to)
{
    const uint32_t index = apmw_kv_ghost_lowest(cache, stream);
    apmw_kv_ghost *ghost = &cache->ghosts[index];
    APMW_CHECK(index != 0 && ghost->from < to && to <= ghost->to);
    cache->ghost_blocks -= to - ghost->from;
    ghost->from = to;
    if (ghost->from == ghost->to) {
        if (ghost->above != 0) {
            apmw_kv_map_set(&cache->ghost_map, stream, ghost->above);
        } else {
            apmw_kv_map_remove(&cache->ghost_map, stream);
        }
        ghost_unlink(cache, index);
    }
}

uint32_t apmw_kv_ghost_pieces(const apmw_prefix_cache *cache, apmw_stream stream, int64_t to)
{
    uint32_t n = 0;
    for (uint32_t i = apmw_kv_ghost_lowest(cache, stream); i != 0 && cache->ghosts[i].from < to;
         i = cache->ghosts[i].above) {
        n++;
    }
    return n;
}

apmw_status apmw_kv_ghost_check(const apmw_prefix_cache *cache, apmw_error *err)
{
    int64_t blocks = 0;
    uint32_t n = 0;
    for (uint32_t i = cache->ghosts[0].newer; i != 0; i = cache->ghosts[i].newer) {
        const apmw_kv_ghost *ghost = &cache->ghosts[i];
        const uint32_t entry = apmw_kv_entry_find(cache, ghost->stream);
        if (ghost->to <= ghost->from || (entry != 0 && cache->entries[entry].end > ghost->from) ||
            (ghost->above != 0 && cache->ghosts[ghost->above].from < ghost->to)) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L6: stream %" PRIu32 " has a ghost [%" PRId64 ", %" PRId64
                                  ") that is cached, empty or out of order",
                                  ghost->stream, ghost->from, ghost->to);
        }
        blocks += ghost->to - ghost->from;
        n++;
    }
    if (blocks != cache->ghost_blocks || blocks > most_ghosts(cache) || n != cache->used_ghosts) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: counted %" PRId64 " ghosts in %" PRIu32 " ranges, found %" PRId64
                              " in %" PRIu32,
                              cache->ghost_blocks, cache->used_ghosts, blocks, n);
    }
    return APMW_OK;
}
