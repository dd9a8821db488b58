/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Content identity: a forest of streams. Beside its parent each stream knows its base, the nearest ancestor
 * that still owns some of its content; forks that add nothing in between are skipped, which keeps walks
 * short. */
#include <stdlib.h>
#include <string.h>

#include "kv_private.h"

void *apmw_kv_grow(void *array, uint32_t *capacity, uint32_t least, size_t item_bytes)
{
    if (*capacity > UINT32_MAX / 2) {
        return NULL;
    }
    const uint32_t wanted = *capacity * 2 > least ? *capacity * 2 : least;
    void *larger = realloc(array, (size_t)wanted * item_bytes);
    if (larger != NULL) {
        *capacity = wanted;
    }
    return larger;
}

apmw_streams *apmw_streams_create(void)
{
    apmw_streams *streams = calloc(1, sizeof *streams);
    if (streams == NULL) {
        return NULL;
    }
    streams->items = apmw_kv_grow(NULL, &streams->capacity, 64, sizeof *streams->items);
    if (streams->items == NULL) {
        free(streams);
        return NULL;
    }
    memset(&streams->items[0], 0, sizeof streams->items[0]);
    streams->n = 1;
    return streams;
}

void apmw_streams_free(apmw_streams *streams)
{
    if (streams != NULL) {
        free(streams->items);
        free(streams);
    }
}

apmw_stream apmw_streams_new(apmw_streams *streams, apmw_stream parent, int64_t fork_tokens)
{
    APMW_CHECK(parent < streams->n);
    APMW_CHECK(fork_tokens >= 0 && (parent != 0 || fork_tokens == 0));
    if (streams->n == streams->capacity) {
        apmw_kv_stream *larger = streams->n == UINT32_MAX ? NULL
                                                          : apmw_kv_grow(streams->items, &streams->capacity,
                                                                         0, sizeof *streams->items);
        if (larger == NULL) {
            return 0;
        }
        streams->items = larger;
    }
    apmw_stream base = parent;
    while (base != 0 && streams->items[base].fork_tokens >= fork_tokens) {
        base = streams->items[base].base;
    }
    apmw_kv_stream *item = &streams->items[streams->n];
    item->fork_tokens = fork_tokens;
    item->parent = parent;
    item->base = base;
    item->depth = streams->items[base].depth + 1;
    return streams->n++;
}

apmw_stream apmw_streams_parent(const apmw_streams *streams, apmw_stream stream)
{
    APMW_CHECK(stream < streams->n);
    return streams->items[stream].parent;
}

int64_t apmw_streams_fork(const apmw_streams *streams, apmw_stream stream)
{
    APMW_CHECK(stream < streams->n);
    return streams->items[stream].fork_tokens;
}
