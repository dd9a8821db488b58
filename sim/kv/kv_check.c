/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The prefix cache looks through itself. Block counts are summed again from the entries; order is read from
 * the stamps, which nothing else uses. */
#include <inttypes.h>

#include "kv_private.h"

typedef struct sums {
    int64_t pinned, cached, streams, idle;
    uint32_t entries, segments;
} sums;

static apmw_status check_pins(const apmw_kv_entry *entry, apmw_error *err)
{
    const apmw_kv_pin *pins = apmw_kv_pins_at(&entry->pins);
    for (uint32_t i = 0; i < entry->pins.n; i++) {
        if (pins[i].count < 1) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L6: stream %" PRIu32 " has a pin with count %" PRId64, entry->stream,
                                  pins[i].count);
        }
        if (pins[i].end <= (i == 0 ? entry->first : pins[i - 1].end)) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L6: pins of stream %" PRIu32 " are out of order at %" PRId64,
                                  entry->stream, pins[i].end);
        }
    }
    if (entry->pin_end != apmw_kv_pins_max(&entry->pins, entry->first)) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L17: stream %" PRIu32 " is pinned to block %" PRId64
                              " but its leases reach %" PRId64,
                              entry->stream, entry->pin_end, apmw_kv_pins_max(&entry->pins, entry->first));
    }
    return APMW_OK;
}

static apmw_status check_segments(const apmw_prefix_cache *cache, uint32_t index, sums *sum, apmw_error *err)
{
    const apmw_kv_entry *entry = &cache->entries[index];
    int64_t at = entry->pin_end;
    uint64_t stamp = UINT64_MAX;
    uint32_t previous = 0;
    for (uint32_t i = entry->head; i != 0; i = cache->segments[i].toward_tail) {
        const apmw_kv_segment *segment = &cache->segments[i];
        if (segment->entry != index || segment->toward_head != previous || segment->from != at ||
            segment->to <= segment->from) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L6: stream %" PRIu32 " has a segment [%" PRId64 ", %" PRId64
                                  ") where one from %" PRId64 " is due",
                                  entry->stream, segment->from, segment->to, at);
        }
        if (segment->stamp >= stamp) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L17: recency grows along stream %" PRIu32 " at block %" PRId64,
                                  entry->stream, segment->from);
        }
        stamp = segment->stamp;
        at = segment->to;
        previous = i;
    }
    if (at != entry->end) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: segments of stream %" PRIu32 " end at %" PRId64
                              ", its cached part at %" PRId64,
                              entry->stream, at, entry->end);
    }
    sum->cached += entry->end - entry->pin_end;
    return APMW_OK;
}

/* The block before an entry's first must be cached, pinned if the entry has pins, and not older. */
static apmw_status check_ancestor(const apmw_prefix_cache *cache, const apmw_kv_entry *entry, apmw_error *err)
{
    if (entry->first == 0) {
        return APMW_OK;
    }
    const apmw_stream owner = apmw_kv_owner_before(cache, entry->stream, entry->first);
    const apmw_kv_entry *parent = &cache->entries[apmw_kv_entry_find(cache, owner)];
    if (parent->stream != owner || parent->end < entry->first) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L15: stream %" PRIu32 " is cached from block %" PRId64 " but stream %" PRIu32
                              " is not cached up to there",
                              entry->stream, entry->first, owner);
    }
    if (parent->pin_end >= entry->first) {
        return APMW_OK;
    }
    if (entry->pin_end > entry->first) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L17: stream %" PRIu32 " is pinned but stream %" PRIu32 " before it is not",
                              entry->stream, owner);
    }
    if (apmw_kv_ordered(cache)) {
        return APMW_OK;
    }
    uint32_t i = parent->head;
    while (cache->segments[i].to < entry->first) {
        i = cache->segments[i].toward_tail;
    }
    if (cache->segments[i].stamp <= cache->segments[entry->head].stamp) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L17: stream %" PRIu32 " is newer than stream %" PRIu32 " before it",
                              entry->stream, owner);
    }
    return APMW_OK;
}

static apmw_status check_entry(const apmw_prefix_cache *cache, uint32_t index, sums *sum, apmw_error *err)
{
    const apmw_kv_entry *entry = &cache->entries[index];
    sum->entries++;
    if (entry->stream == APMW_KV_DEAD) {
        return APMW_OK;
    }
    sum->streams++;
    sum->idle += entry->pins.n == 0;
    sum->pinned += entry->pin_end - entry->first;
    if (apmw_kv_entry_find(cache, entry->stream) != index) {
        return apmw_error_set(err, APMW_E_INTERNAL, "L15: stream %" PRIu32 " is cached but not found",
                              entry->stream);
    }
    const int64_t first = apmw_streams_fork(cache->streams, entry->stream) / cache->block_tokens;
    if (entry->first != first || entry->pin_end < first || entry->end < entry->pin_end ||
        entry->end <= first) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L14: stream %" PRIu32 " has first %" PRId64 " (due %" PRId64
                              "), pinned to %" PRId64 ", end %" PRId64,
                              entry->stream, entry->first, first, entry->pin_end, entry->end);
    }
    apmw_status status = check_pins(entry, err);
    if (status == APMW_OK && !apmw_kv_ordered(cache)) {
        status = check_segments(cache, index, sum, err);
    }
    if (status == APMW_OK) {
        status = check_ancestor(cache, entry, err);
    }
    return status;
}

/* Walks the recency list; dead content is in no entry and is summed here. */
static apmw_status check_list(const apmw_prefix_cache *cache, sums *sum, apmw_error *err)
{
    uint64_t stamp = 0;
    uint32_t previous = 0;
    for (uint32_t i = cache->segments[0].newer; i != 0; i = cache->segments[i].newer) {
        const apmw_kv_segment *segment = &cache->segments[i];
        if (segment->older != previous || segment->stamp <= stamp || segment->to <= segment->from) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L17: the recency list is out of order at stamp %" PRIu64, segment->stamp);
        }
        if (segment->entry == 0) {
            sum->cached += segment->to - segment->from;
        }
        stamp = segment->stamp;
        previous = i;
        sum->segments++;
    }
    if (cache->segments[0].older != previous) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L17: the recency list does not end at its newest segment");
    }
    return APMW_OK;
}

static apmw_status check_sums(const apmw_prefix_cache *cache, const sums *sum, apmw_error *err)
{
    if (sum->pinned != cache->pinned || sum->cached != cache->cached) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: counted %" PRId64 " pinned and %" PRId64 " cached blocks, found %" PRId64
                              " and %" PRId64,
                              cache->pinned, cache->cached, sum->pinned, sum->cached);
    }
    if (sum->idle != cache->idle_entries || sum->streams * cache->stream_blocks != cache->overhead) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: counted %" PRId64 " unpinned streams and %" PRId64
                              " blocks charged for streams, found %" PRId64 " and %" PRId64,
                              cache->idle_entries, cache->overhead, sum->idle,
                              sum->streams * cache->stream_blocks);
    }
    if (cache->free < 0 || cache->taken < 0 ||
        cache->free + cache->pinned + cache->taken + cache->cached + cache->overhead != cache->capacity) {
        return apmw_error_set(
            err, APMW_E_INTERNAL,
            "L6: free %" PRId64 " + held (%" PRId64 " pinned, %" PRId64 " taken) + cached %" PRId64
            " + charged for streams %" PRId64 " is not the capacity %" PRId64,
            cache->free, cache->pinned, cache->taken, cache->cached, cache->overhead, cache->capacity);
    }
    if (cache->inserted - cache->evicted != cache->pinned + cache->cached) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: inserted %" PRId64 " - evicted %" PRId64
                              " is not pinned + cached %" PRId64,
                              cache->inserted, cache->evicted, cache->pinned + cache->cached);
    }
    if (sum->entries != cache->used_entries || sum->segments != cache->used_segments) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: counted %" PRIu32 " streams and %" PRIu32 " segments, found %" PRIu32
                              " and %" PRIu32,
                              cache->used_entries, cache->used_segments, sum->entries, sum->segments);
    }
    return APMW_OK;
}

apmw_status apmw_prefix_cache_check(const apmw_prefix_cache *cache, apmw_error *err)
{
    sums sum = {0, 0, 0, 0, 0, 0};
    for (uint32_t i = 1; i < cache->n_entries; i++) {
        if (cache->entries[i].stream != 0) {
            const apmw_status status = check_entry(cache, i, &sum, err);
            if (status != APMW_OK) {
                return status;
            }
        }
    }
    apmw_status status = apmw_kv_ordered(cache) ? apmw_kv_order_check(cache, &sum.cached, &sum.segments, err)
                                                : check_list(cache, &sum, err);
    if (status == APMW_OK) {
        status = check_sums(cache, &sum, err);
    }
    if (status == APMW_OK && cache->out_of_memory) {
        return apmw_error_set(err, APMW_E_NOMEM, "the prefix cache ran out of memory");
    }
    return status;
}
