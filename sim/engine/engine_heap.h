/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences ordered by (progress, order of admission), with removal of any of them: the next completion and
 * the next breakpoint of a batch. */
#ifndef APMW_ENGINE_HEAP_H
#define APMW_ENGINE_HEAP_H
#include "engine_internal.h"

typedef struct apmw_seq_heap {
    struct apmw_seq_heap_entry {
        int64_t progress;
        uint64_t order;
        apmw_seq *seq;
    } * entries;
    uint32_t n, capacity;
    int which; /* index in apmw_seq.slot */
} apmw_seq_heap;

/* seq->slot[which] of a sequence that is in no heap. */
#define APMW_NO_SLOT UINT32_MAX

/* false: out of memory. */
bool apmw_seq_heap_push(apmw_seq_heap *heap, int64_t progress, apmw_seq *seq);
/* Does nothing if the sequence is not in the heap. */
void apmw_seq_heap_remove(apmw_seq_heap *heap, apmw_seq *seq);
/* INT64_MAX when empty. */
static inline int64_t apmw_seq_heap_next(const apmw_seq_heap *heap)
{
    return heap->n > 0 ? heap->entries[0].progress : INT64_MAX;
}

#endif
