/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A hash table from streams to indexes. */
#include <stdlib.h>

#include "kv_private.h"

/* Multiplicative hash (Knuth, TAOCP 3, 6.4): 2^32 / golden ratio, high bits folded down. */
static uint32_t slot_of(const apmw_kv_map *map, apmw_stream stream)
{
    const uint32_t h = stream * 2654435769u;
    return (h ^ (h >> 16)) & map->mask;
}

uint32_t apmw_kv_map_find(const apmw_kv_map *map, apmw_stream stream)
{
    for (uint32_t i = slot_of(map, stream);; i = (i + 1) & map->mask) {
        if (map->slots[i].stream == 0 || map->slots[i].stream == stream) {
            return map->slots[i].index; /* 0 in an empty slot */
        }
    }
}

void apmw_kv_map_put(apmw_kv_map *map, apmw_stream stream, uint32_t index)
{
    uint32_t i = slot_of(map, stream);
    while (map->slots[i].stream != 0) {
        i = (i + 1) & map->mask;
    }
    map->slots[i].stream = stream;
    map->slots[i].index = index;
}

static uint32_t place_of(const apmw_kv_map *map, apmw_stream stream)
{
    uint32_t i = slot_of(map, stream);
    while (map->slots[i].stream != stream) {
        APMW_CHECK(map->slots[i].stream != 0);
        i = (i + 1) & map->mask;
    }
    return i;
}

void apmw_kv_map_set(apmw_kv_map *map, apmw_stream stream, uint32_t index)
{
    map->slots[place_of(map, stream)].index = index;
}

/* Removes and moves later ones of the run back, so that no tombstones gather. */
void apmw_kv_map_remove(apmw_kv_map *map, apmw_stream stream)
{
    uint32_t hole = place_of(map, stream);
    for (uint32_t i = (hole + 1) & map->mask; map->slots[i].stream != 0; i = (i + 1) & map->mask) {
        const uint32_t home = slot_of(map, map->slots[i].stream);
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole].stream = 0;
    map->slots[hole].index = 0;
}

bool apmw_kv_map_reserve(apmw_kv_map *map, uint64_t n_items)
{
    const uint64_t old = map->slots == NULL ? 0 : (uint64_t)map->mask + 1;
    if (n_items * 2 <= old) { /* load below one half keeps probe runs short */
        return true;
    }
    uint64_t size = old == 0 ? 128 : old;
    while (n_items * 2 > size) {
        size *= 2;
    }
    if (size > UINT32_MAX) {
        return false;
    }
    apmw_kv_slot *slots = calloc(size, sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    apmw_kv_map larger = {slots, (uint32_t)(size - 1)};
    for (uint64_t i = 0; i < old; i++) {
        if (map->slots[i].stream != 0) {
            apmw_kv_map_put(&larger, map->slots[i].stream, map->slots[i].index);
        }
    }
    free(map->slots);
    *map = larger;
    return true;
}
