/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Entries of the prefix cache: found by stream in an open-addressing table, and each with its pins.
 * Pins are a sorted array of (end, count). It holds one item for each distinct end among the leases that run
 * on a stream: mostly one or two, at most the sequences of a batch, so shifting it costs less than a tree
 * would. */
#include <stdlib.h>
#include <string.h>

#include "kv_private.h"

/* Multiplicative hash (Knuth, TAOCP 3, 6.4): 2^32 / golden ratio, high bits folded down. */
static uint32_t slot_of(const apmw_prefix_cache *cache, apmw_stream stream)
{
    const uint32_t h = stream * 2654435769u;
    return (h ^ (h >> 16)) & cache->map_mask;
}

uint32_t apmw_kv_entry_find(const apmw_prefix_cache *cache, apmw_stream stream)
{
    for (uint32_t i = slot_of(cache, stream);; i = (i + 1) & cache->map_mask) {
        const uint32_t index = cache->map[i];
        if (index == 0 || cache->entries[index].stream == stream) {
            return index;
        }
    }
}

static void map_put(apmw_prefix_cache *cache, uint32_t index)
{
    uint32_t i = slot_of(cache, cache->entries[index].stream);
    while (cache->map[i] != 0) {
        i = (i + 1) & cache->map_mask;
    }
    cache->map[i] = index;
}

/* Removes and moves later ones of the run back, so that no tombstones gather. */
static void map_remove(apmw_prefix_cache *cache, apmw_stream stream)
{
    uint32_t hole = slot_of(cache, stream);
    while (cache->entries[cache->map[hole]].stream != stream) {
        hole = (hole + 1) & cache->map_mask;
    }
    for (uint32_t i = (hole + 1) & cache->map_mask; cache->map[i] != 0; i = (i + 1) & cache->map_mask) {
        const uint32_t home = slot_of(cache, cache->entries[cache->map[i]].stream);
        if (((i - home) & cache->map_mask) >= ((i - hole) & cache->map_mask)) {
            cache->map[hole] = cache->map[i];
            hole = i;
        }
    }
    cache->map[hole] = 0;
}

bool apmw_kv_entry_reserve(apmw_prefix_cache *cache, uint32_t more)
{
    const uint64_t needed = (uint64_t)cache->used_entries + more + 1;
    if (needed > UINT32_MAX / 4) {
        return false;
    }
    if (needed > cache->capacity_entries) {
        apmw_kv_entry *larger =
            apmw_kv_grow(cache->entries, &cache->capacity_entries, (uint32_t)needed, sizeof *larger);
        if (larger == NULL) {
            return false;
        }
        cache->entries = larger;
    }
    if (needed * 2 > (uint64_t)cache->map_mask + 1) { /* load below one half keeps probe runs short */
        uint64_t size = (uint64_t)cache->map_mask + 1;
        while (needed * 2 > size) {
            size *= 2;
        }
        uint32_t *map = calloc(size, sizeof *map);
        if (map == NULL) {
            return false;
        }
        free(cache->map);
        cache->map = map;
        cache->map_mask = (uint32_t)(size - 1);
        for (uint32_t i = 1; i < cache->n_entries; i++) {
            if (cache->entries[i].stream != 0) {
                map_put(cache, i);
            }
        }
    }
    return true;
}

uint32_t apmw_kv_entry_new(apmw_prefix_cache *cache, apmw_stream stream, int64_t first)
{
    uint32_t index = cache->free_entry;
    if (index != 0) {
        cache->free_entry = cache->entries[index].head;
    } else {
        APMW_CHECK(cache->n_entries < cache->capacity_entries);
        index = cache->n_entries++;
        memset(&cache->entries[index], 0, sizeof cache->entries[index]);
        cache->entries[index].capacity_pins = APMW_KV_INLINE_PINS;
    }
    apmw_kv_entry *entry = &cache->entries[index];
    entry->stream = stream;
    entry->head = 0;
    entry->first = first;
    entry->pin_end = first;
    entry->end = first;
    cache->used_entries++;
    map_put(cache, index);
    return index;
}

void apmw_kv_entry_drop(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_entry *entry = &cache->entries[index];
    APMW_CHECK(entry->n_pins == 0 && entry->head == 0);
    map_remove(cache, entry->stream);
    free(entry->pins);
    entry->pins = NULL;
    entry->capacity_pins = APMW_KV_INLINE_PINS;
    entry->stream = 0;
    entry->head = cache->free_entry;
    cache->free_entry = index;
    cache->used_entries--;
}

static apmw_kv_pin *pins_of(apmw_kv_entry *entry)
{
    return entry->pins != NULL ? entry->pins : entry->inline_pins;
}

const apmw_kv_pin *apmw_kv_pins(const apmw_kv_entry *entry)
{
    return entry->pins != NULL ? entry->pins : entry->inline_pins;
}

bool apmw_kv_pin_reserve(apmw_kv_entry *entry)
{
    if (entry->n_pins < entry->capacity_pins) {
        return true;
    }
    uint32_t capacity = entry->capacity_pins;
    apmw_kv_pin *larger = apmw_kv_grow(entry->pins, &capacity, 8, sizeof *larger);
    if (larger == NULL) {
        return false;
    }
    if (entry->pins == NULL) {
        memcpy(larger, entry->inline_pins, entry->n_pins * sizeof *larger);
    }
    entry->pins = larger;
    entry->capacity_pins = capacity;
    return true;
}

/* First pin whose end is not below. */
static uint32_t pin_search(const apmw_kv_pin *pins, uint32_t n, int64_t end)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (pins[middle].end < end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void apmw_kv_pin_add(apmw_kv_entry *entry, int64_t end)
{
    apmw_kv_pin *pins = pins_of(entry);
    const uint32_t i = pin_search(pins, entry->n_pins, end);
    if (i < entry->n_pins && pins[i].end == end) {
        pins[i].count++;
        return;
    }
    APMW_CHECK(entry->n_pins < entry->capacity_pins);
    memmove(&pins[i + 1], &pins[i], (entry->n_pins - i) * sizeof *pins);
    pins[i].end = end;
    pins[i].count = 1;
    entry->n_pins++;
}

void apmw_kv_pin_remove(apmw_kv_entry *entry, int64_t end)
{
    apmw_kv_pin *pins = pins_of(entry);
    const uint32_t i = pin_search(pins, entry->n_pins, end);
    APMW_CHECK(i < entry->n_pins && pins[i].end == end);
    pins[i].count--;
    if (pins[i].count == 0) {
        entry->n_pins--;
        memmove(&pins[i], &pins[i + 1], (entry->n_pins - i) * sizeof *pins);
    }
}

int64_t apmw_kv_pin_max(const apmw_kv_entry *entry)
{
    return entry->n_pins > 0 ? apmw_kv_pins(entry)[entry->n_pins - 1].end : entry->first;
}
