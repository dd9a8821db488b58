/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "engine_heap.h"
#include <stdlib.h>

typedef struct apmw_seq_heap_entry entry;

static bool before(const entry *a, const entry *b)
{
    return a->progress != b->progress ? a->progress < b->progress : a->order < b->order;
}

static void place(apmw_seq_heap *heap, uint32_t at, entry e)
{
    heap->entries[at] = e;
    e.seq->slot[heap->which] = at;
}

static void sift(apmw_seq_heap *heap, uint32_t at, entry e)
{
    while (at > 0) {
        const uint32_t parent = (at - 1) / 2;
        if (!before(&e, &heap->entries[parent]))
            break;
        place(heap, at, heap->entries[parent]);
        at = parent;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= heap->n)
            break;
        if (child + 1 < heap->n && before(&heap->entries[child + 1], &heap->entries[child]))
            child++;
        if (!before(&heap->entries[child], &e))
            break;
        place(heap, at, heap->entries[child]);
        at = child;
    }
    place(heap, at, e);
}

bool apmw_seq_heap_push(apmw_seq_heap *heap, int64_t progress, apmw_seq *seq)
{
    if (heap->n == heap->capacity) {
        const uint32_t capacity = heap->capacity ? 2 * heap->capacity : 16;
        entry *entries = realloc(heap->entries, capacity * sizeof *entries);
        if (!entries)
            return false;
        heap->entries = entries;
        heap->capacity = capacity;
    }
    heap->n++;
    sift(heap, heap->n - 1, (entry){progress, seq->order, seq});
    return true;
}

void apmw_seq_heap_remove(apmw_seq_heap *heap, apmw_seq *seq)
{
    const uint32_t at = seq->slot[heap->which];
    if (at == APMW_NO_SLOT)
        return;
    seq->slot[heap->which] = APMW_NO_SLOT;
    heap->n--;
    if (at < heap->n)
        sift(heap, at, heap->entries[heap->n]);
}
