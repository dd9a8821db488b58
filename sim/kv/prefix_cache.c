/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Leases on the prefix cache. The order of every operation here is checked block by block against
 * tests/property/kv/test_kv_oracle.c. */
#include <string.h>

#include "kv_private.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t apmw_prefix_cache_block_tokens(const apmw_prefix_cache *cache)
{
    return cache->block_tokens;
}

static const apmw_kv_stream *stream_of(const apmw_prefix_cache *cache, apmw_stream stream)
{
    APMW_CHECK(stream < cache->streams->n);
    return &cache->streams->items[stream];
}

/* Blocks of the longest cached prefix. The path is walked upward; the deepest stream with anything cached
 * decides, because what is cached of a path is a prefix of it. */
static int64_t match_blocks(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt)
{
    APMW_CHECK(n_prompt >= 1);
    int64_t limit = (n_prompt - 1) / cache->block_tokens; /* law L13: one token is always computed */
    if (!cache->caching) {
        return 0;
    }
    while (stream != 0 && limit > 0) {
        const apmw_kv_stream *item = stream_of(cache, stream);
        const int64_t first = item->fork_tokens / cache->block_tokens;
        if (first < limit) {
            const uint32_t entry = apmw_kv_entry_find(cache, stream);
            if (entry != 0) {
                return min64(limit, cache->entries[entry].end);
            }
            limit = first;
        }
        stream = item->base;
    }
    return 0;
}

int64_t apmw_prefix_cache_match(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt)
{
    return match_blocks(cache, stream, n_prompt) * cache->block_tokens;
}

int64_t apmw_prefix_cache_available(const apmw_prefix_cache *cache)
{
    return cache->free + cache->cached + cache->stream_blocks * cache->idle_entries;
}

int64_t apmw_prefix_cache_unpinned_match(const apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt)
{
    int64_t limit = match_blocks(cache, stream, n_prompt);
    int64_t unpinned = 0;
    while (stream != 0 && limit > 0) {
        const apmw_kv_stream *item = stream_of(cache, stream);
        const int64_t first = item->fork_tokens / cache->block_tokens;
        if (first < limit) {
            const int64_t pin_end = cache->entries[apmw_kv_entry_find(cache, stream)].pin_end;
            if (pin_end > first && pin_end < limit) {
                /* What is pinned of a path is a prefix: all ancestors are pinned here. */
                return unpinned + (limit - pin_end);
            }
            if (pin_end >= limit) {
                return unpinned;
            }
            unpinned += limit - first;
            limit = first;
        }
        stream = item->base;
    }
    return unpinned;
}

/* Lists the parts of blocks [from, to) of the path, deepest first, each with its whole range below `to`.
 * Returns their number. The scratch has room: begin made it. */
static uint32_t list_path(apmw_prefix_cache *cache, apmw_stream stream, int64_t from, int64_t to)
{
    uint32_t n = 0;
    while (stream != 0 && to > from) {
        const apmw_kv_stream *item = stream_of(cache, stream);
        const int64_t first = item->fork_tokens / cache->block_tokens;
        if (first < to) {
            APMW_CHECK(n < cache->capacity_path);
            apmw_kv_part *part = &cache->path[n++];
            part->stream = stream;
            part->entry = apmw_kv_entry_find(cache, stream);
            part->first = first;
            part->limit = to;
            to = first;
        }
        stream = item->base;
    }
    return n;
}

/* Room for all that a lease on this stream may need until its end, so that only begin and commit can run out
 * of memory: a segment for each stream of its path, and the scratch. */
static bool reserve_lease(apmw_prefix_cache *cache, apmw_stream stream)
{
    const uint32_t depth = stream_of(cache, stream)->depth;
    if (depth > cache->capacity_path) {
        apmw_kv_part *larger = apmw_kv_grow(cache->path, &cache->capacity_path, depth, sizeof *larger);
        if (larger == NULL) {
            return false;
        }
        cache->path = larger;
    }
    if (!apmw_kv_segment_reserve(cache, (int64_t)cache->used_segments + cache->reserved_segments + depth)) {
        return false;
    }
    cache->reserved_segments += depth;
    return true;
}

static bool reserve_pins(apmw_prefix_cache *cache, uint32_t n_parts)
{
    uint32_t missing = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        if (cache->path[i].entry == 0) {
            missing++;
        } else if (!apmw_kv_pins_reserve(&cache->entries[cache->path[i].entry].pins)) {
            return false;
        }
    }
    return missing == 0 || apmw_kv_entry_reserve(cache, missing);
}

static void pin(apmw_prefix_cache *cache, uint32_t entry, int64_t end)
{
    apmw_kv_pins *pins = &cache->entries[entry].pins;
    cache->idle_entries -= pins->n == 0;
    apmw_kv_pins_add(pins, end);
}

static void unpin(apmw_prefix_cache *cache, uint32_t entry, int64_t end)
{
    apmw_kv_pins *pins = &cache->entries[entry].pins;
    apmw_kv_pins_remove(pins, end);
    cache->idle_entries += pins->n == 0;
}

/* After the pins of an entry have grown: what they newly cover is no longer evictable. */
static void settle_pinned(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_entry *entry = &cache->entries[index];
    const int64_t pin_end = apmw_kv_pins_max(&entry->pins, entry->first);
    if (pin_end > entry->pin_end) {
        int64_t n;
        if (apmw_kv_ordered(cache)) {
            const int64_t to = min64(pin_end, entry->end);
            n = to > entry->pin_end ? to - entry->pin_end : 0;
        } else {
            n = apmw_kv_segment_trim(cache, index, pin_end);
        }
        cache->cached -= n;
        cache->pinned += n;
        entry->pin_end = pin_end;
        if (apmw_kv_ordered(cache)) {
            apmw_kv_order_update(cache, index);
        }
    }
}

static void begin(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt, apmw_kv_lease *lease)
{
    memset(lease, 0, sizeof *lease);
    lease->active = true;
    if (stream == 0 || !cache->caching) {
        APMW_CHECK(n_prompt >= 1);
        return;
    }
    if (!reserve_lease(cache, stream)) {
        cache->out_of_memory = true;
        return;
    }
    const int64_t matched = match_blocks(cache, stream, n_prompt);
    const uint32_t n_parts = list_path(cache, stream, 0, matched);
    if (!reserve_pins(cache, n_parts)) {
        cache->reserved_segments -= stream_of(cache, stream)->depth;
        cache->out_of_memory = true;
        return;
    }
    lease->stream = stream;
    lease->matched_tokens = matched * cache->block_tokens;
    lease->pinned_blocks = matched;
    lease->committed_blocks = matched;
    for (uint32_t i = n_parts; i-- > 0;) {
        const apmw_kv_part *part = &cache->path[i];
        APMW_CHECK(part->entry != 0 && cache->entries[part->entry].end >= part->limit);
        pin(cache, part->entry, part->limit);
        settle_pinned(cache, part->entry);
    }
}

void apmw_prefix_cache_begin(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt,
                             apmw_kv_lease *lease)
{
    begin(cache, stream, n_prompt, lease);
    cache->query_tokens += n_prompt;
    cache->hit_tokens += lease->matched_tokens;
}

void apmw_prefix_cache_resume(apmw_prefix_cache *cache, apmw_stream stream, int64_t n_prompt,
                              apmw_kv_lease *lease)
{
    begin(cache, stream, n_prompt, lease);
}

int64_t apmw_kv_evicted(apmw_prefix_cache *cache, uint32_t index, int64_t k)
{
    int64_t freed = k;
    cache->evicted += k;
    cache->cached -= k;
    apmw_stream stream = 0;
    int64_t end = 0;
    if (index != 0) {
        apmw_kv_entry *entry = &cache->entries[index];
        entry->end -= k;
        stream = entry->stream;
        end = entry->end;
        if (end > entry->first) {
            if (apmw_kv_ordered(cache)) {
                apmw_kv_order_update(cache, index);
            }
        } else {
            if (stream != APMW_KV_DEAD) {
                freed += cache->stream_blocks;
                cache->overhead -= cache->stream_blocks;
            }
            if (apmw_kv_ordered(cache)) {
                apmw_kv_order_update(cache, index);
                const apmw_stream owner =
                    stream == APMW_KV_DEAD ? 0 : apmw_kv_owner_before(cache, stream, entry->first);
                if (owner != 0) { /* what it hung on may be evictable now */
                    const uint32_t parent = apmw_kv_entry_find(cache, owner);
                    apmw_kv_pins_remove(&cache->orders[parent].children, entry->first);
                    apmw_kv_order_update(cache, parent);
                }
            }
            apmw_kv_entry_drop(cache, index);
        }
    }
    cache->free += freed;
    if (stream != 0 && stream != APMW_KV_DEAD && cache->on_evict != NULL) {
        cache->on_evict(cache->on_evict_self, stream, end * cache->block_tokens,
                        (end + k) * cache->block_tokens);
    }
    return freed;
}

bool apmw_prefix_cache_take(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_blocks)
{
    APMW_CHECK(n_blocks >= 0);
    APMW_CHECK(lease == NULL || lease->active);
    if (n_blocks > apmw_prefix_cache_available(cache)) {
        return false;
    }
    while (n_blocks > cache->free) { /* law L17: nothing is evicted while a free block would do */
        const int64_t lack = n_blocks - cache->free;
        (void)(apmw_kv_ordered(cache) ? apmw_kv_order_evict(cache, lack)
                                      : apmw_kv_segment_evict(cache, lack));
    }
    cache->free -= n_blocks;
    cache->taken += n_blocks;
    if (lease != NULL) {
        lease->taken_blocks += n_blocks;
    }
    if (cache->capacity - cache->free > cache->peak_used) {
        cache->peak_used = cache->capacity - cache->free;
    }
    return true;
}

void apmw_prefix_cache_commit(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_tokens)
{
    APMW_CHECK(lease->active && n_tokens >= 0);
    const int64_t before = lease->committed_blocks;
    const int64_t target = n_tokens / cache->block_tokens;
    if (lease->stream == 0 || target <= before) {
        return;
    }
    const uint32_t n_parts = list_path(cache, lease->stream, before, target);
    if (!reserve_pins(cache, n_parts) ||
        (apmw_kv_ordered(cache) && !apmw_kv_order_reserve_insert(cache, cache->path, n_parts))) {
        cache->out_of_memory = true;
        return;
    }
    for (uint32_t i = n_parts;
         i-- > 0;) { /* from the root, so that the path is cached up to its parts' first */
        apmw_kv_part *part = &cache->path[i];
        if (part->entry == 0) {
            APMW_CHECK(cache->stream_blocks <= lease->taken_blocks - lease->inserted_blocks);
            part->entry = apmw_kv_entry_new(cache, part->stream, part->first);
            lease->taken_blocks -= cache->stream_blocks;
            cache->taken -= cache->stream_blocks;
            cache->overhead += cache->stream_blocks;
        }
        apmw_kv_entry *entry = &cache->entries[part->entry];
        pin(cache, part->entry, part->limit);
        if (before > part->first) {
            unpin(cache, part->entry, before);
        }
        settle_pinned(cache, part->entry); /* blocks that were there already: ours are duplicates */
        if (part->limit > entry->end) {
            const int64_t n = part->limit - entry->end;
            APMW_CHECK(n <= lease->taken_blocks - lease->inserted_blocks && n <= cache->taken);
            if (apmw_kv_ordered(cache)) {
                apmw_kv_order_insert(cache, part->entry, part->limit);
            }
            entry->end = part->limit;
            lease->inserted_blocks += n;
            cache->inserted += n;
            cache->taken -= n;
            cache->pinned += n;
        }
    }
    lease->committed_blocks = target;
}

/* Blocks of an entry that no lease pins any more become evictable, as its newest segment. */
static void settle_unpinned(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_entry *entry = &cache->entries[index];
    const int64_t pin_end = apmw_kv_pins_max(&entry->pins, entry->first);
    if (pin_end < entry->pin_end) {
        const int64_t n = entry->pin_end - pin_end;
        if (!apmw_kv_ordered(cache)) {
            apmw_kv_segment_append(cache, index, pin_end, entry->pin_end);
        }
        entry->pin_end = pin_end;
        cache->pinned -= n;
        cache->cached += n;
    }
}

void apmw_prefix_cache_end(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t dead_tokens)
{
    APMW_CHECK(lease->active && dead_tokens >= 0);
    const int64_t own = lease->taken_blocks - lease->inserted_blocks;
    APMW_CHECK(own >= 0 && own <= cache->taken);
    cache->taken -= own;
    cache->free += own;
    if (lease->stream != 0) {
        /* The room was made by begin; giving it back first lets the segments below use it. */
        cache->reserved_segments -= stream_of(cache, lease->stream)->depth;
    }
    const int64_t dead = cache->caching ? dead_tokens / cache->block_tokens : 0;
    APMW_CHECK(dead <= own);
    const uint32_t n_parts = list_path(cache, lease->stream, 0, lease->committed_blocks);
    if (dead > 0) { /* the end of the sequence: the first to go */
        if (apmw_kv_segment_reserve(cache,
                                    (int64_t)cache->used_segments + cache->reserved_segments + n_parts + 1) &&
            (!apmw_kv_ordered(cache) || apmw_kv_entry_reserve(cache, 1))) {
            if (apmw_kv_ordered(cache)) {
                apmw_kv_order_dead(cache, dead);
            } else {
                apmw_kv_segment_append(cache, 0, 0, dead);
            }
            cache->free -= dead;
            cache->cached += dead;
            cache->inserted += dead;
        } else {
            cache->out_of_memory = true;
        }
    }
    for (uint32_t i = 0; i < n_parts; i++) { /* deepest first, so that a parent is newer than its child */
        const apmw_kv_part *part = &cache->path[i];
        APMW_CHECK(part->entry != 0);
        unpin(cache, part->entry, part->limit);
        settle_unpinned(cache, part->entry);
        if (apmw_kv_ordered(cache)) {
            apmw_kv_order_use(cache, part->entry, part->limit);
            apmw_kv_order_update(cache, part->entry);
        }
    }
    lease->active = false;
}

bool apmw_prefix_cache_out_of_memory(const apmw_prefix_cache *cache)
{
    return cache->out_of_memory;
}
