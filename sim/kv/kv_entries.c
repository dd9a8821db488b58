/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Entries of the prefix cache, and counted positions on them. */
#include <stdlib.h>
#include <string.h>

#include "kv_private.h"

bool apmw_kv_entry_reserve(apmw_prefix_cache *cache, uint32_t more)
{
    const uint64_t needed = (uint64_t)cache->used_entries + more + 1;
    if (needed > UINT32_MAX / 4) {
        return false;
    }
    if (needed > cache->capacity_entries) {
        uint32_t capacity = cache->capacity_entries;
        if (apmw_kv_ordered(cache)) {
            /* The sizes agree again once all have grown: until then the entries' own capacity is the least.
             */
            apmw_kv_order *orders = apmw_kv_grow(cache->orders, &capacity, (uint32_t)needed, sizeof *orders);
            if (orders == NULL) {
                return false;
            }
            cache->orders = orders;
            for (int q = 0; q < (cache->policy == APMW_KV_S3_FIFO ? 2 : 1); q++) {
                apmw_kv_node *nodes = realloc(cache->heaps[q], ((size_t)capacity + 1) * sizeof *nodes);
                if (nodes == NULL) {
                    return false;
                }
                cache->heaps[q] = nodes;
            }
        }
        apmw_kv_entry *larger =
            apmw_kv_grow(cache->entries, &cache->capacity_entries, (uint32_t)needed, sizeof *larger);
        if (larger == NULL) {
            return false;
        }
        cache->entries = larger;
    }
    return apmw_kv_map_reserve(&cache->map, needed);
}

static void pins_make(apmw_kv_pins *pins)
{
    memset(pins, 0, sizeof *pins);
    pins->capacity = APMW_KV_FEW_PINS;
}

uint32_t apmw_kv_entry_new(apmw_prefix_cache *cache, apmw_stream stream, int64_t first)
{
    uint32_t index = cache->free_entry;
    if (index != 0) {
        cache->free_entry = cache->entries[index].head;
    } else {
        APMW_CHECK(cache->n_entries < cache->capacity_entries);
        index = cache->n_entries++;
    }
    apmw_kv_entry *entry = &cache->entries[index];
    pins_make(&entry->pins);
    entry->stream = stream;
    entry->head = 0;
    entry->first = first;
    entry->pin_end = first;
    entry->end = first;
    cache->used_entries++;
    if (apmw_kv_ordered(cache)) {
        apmw_kv_order *order = &cache->orders[index];
        memset(order, 0, sizeof *order);
        pins_make(&order->children);
    }
    if (stream != APMW_KV_DEAD) {
        apmw_kv_map_put(&cache->map, stream, index);
        cache->idle_entries++;
    }
    return index;
}

void apmw_kv_entry_drop(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_entry *entry = &cache->entries[index];
    APMW_CHECK(entry->pins.n == 0 && entry->head == 0);
    if (entry->stream != APMW_KV_DEAD) {
        apmw_kv_map_remove(&cache->map, entry->stream);
        cache->idle_entries--;
    }
    if (apmw_kv_ordered(cache)) {
        APMW_CHECK(cache->orders[index].children.n == 0 && cache->orders[index].place == 0);
        apmw_kv_pins_clear(&cache->orders[index].children);
    }
    apmw_kv_pins_clear(&entry->pins);
    entry->stream = 0;
    entry->head = cache->free_entry;
    cache->free_entry = index;
    cache->used_entries--;
}

apmw_stream apmw_kv_owner_before(const apmw_prefix_cache *cache, apmw_stream stream, int64_t first)
{
    const apmw_kv_stream *items = cache->streams->items;
    if (first == 0) {
        return 0;
    }
    apmw_stream owner = items[stream].base;
    while (items[owner].fork_tokens / cache->block_tokens >= first) {
        owner = items[owner].base;
    }
    return owner;
}

static apmw_kv_pin *pins_of(apmw_kv_pins *pins)
{
    return pins->many != NULL ? pins->many : pins->few;
}

const apmw_kv_pin *apmw_kv_pins_at(const apmw_kv_pins *pins)
{
    return pins->many != NULL ? pins->many : pins->few;
}

void apmw_kv_pins_clear(apmw_kv_pins *pins)
{
    free(pins->many);
    pins_make(pins);
}

bool apmw_kv_pins_reserve(apmw_kv_pins *pins)
{
    if (pins->n < pins->capacity) {
        return true;
    }
    uint32_t capacity = pins->capacity;
    apmw_kv_pin *larger = apmw_kv_grow(pins->many, &capacity, 8, sizeof *larger);
    if (larger == NULL) {
        return false;
    }
    if (pins->many == NULL) {
        memcpy(larger, pins->few, pins->n * sizeof *larger);
    }
    pins->many = larger;
    pins->capacity = capacity;
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

void apmw_kv_pins_add(apmw_kv_pins *pins, int64_t end)
{
    apmw_kv_pin *all = pins_of(pins);
    const uint32_t i = pin_search(all, pins->n, end);
    if (i < pins->n && all[i].end == end) {
        all[i].count++;
        return;
    }
    APMW_CHECK(pins->n < pins->capacity);
    memmove(&all[i + 1], &all[i], (pins->n - i) * sizeof *all);
    all[i].end = end;
    all[i].count = 1;
    pins->n++;
}

void apmw_kv_pins_remove(apmw_kv_pins *pins, int64_t end)
{
    apmw_kv_pin *all = pins_of(pins);
    const uint32_t i = pin_search(all, pins->n, end);
    APMW_CHECK(i < pins->n && all[i].end == end);
    all[i].count--;
    if (all[i].count == 0) {
        pins->n--;
        memmove(&all[i], &all[i + 1], (pins->n - i) * sizeof *all);
    }
}

int64_t apmw_kv_pins_max(const apmw_kv_pins *pins, int64_t none)
{
    return pins->n > 0 ? apmw_kv_pins_at(pins)[pins->n - 1].end : none;
}
