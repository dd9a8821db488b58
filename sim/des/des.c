/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The event queue is a binary heap of small entries (time, class and sequence, slot); what an event does lies
 * in a slot array with a free list. A handle is a slot and its generation, so that a handle kept too long is
 * harmless. Cancelling frees the slot at once and leaves the heap entry behind: the entry is stale because
 * its sequence number, which is never used twice, is no longer the slot's. Stale entries are skipped when
 * they come up and swept out when they are more than half of the heap, so cancelling costs O(1) amortized.
 * Arrays only grow: a simulation that has reached its largest queue allocates nothing. */
#include "apmw/des.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256, SEQUENCE_BITS = 56, SWEEP_FLOOR = 64 };

typedef struct heap_entry {
    apmw_time when;
    uint64_t order; /* class in the top 8 bits, sequence below: one comparison decides ties */
    uint32_t slot;
} heap_entry;

typedef struct event_slot {
    apmw_event_fn fn;
    void *subject;
    uint64_t argument;
    uint64_t order; /* of the event that lives here; 0 when free (sequences begin at 1) */
    uint32_t generation;
    uint32_t next_free;
} event_slot;

struct apmw_des {
    heap_entry *heap;
    event_slot *slots; /* slot 0 is never used: it ends the free list */
    uint32_t n_heap, n_stale, capacity_heap;
    uint32_t n_slots, capacity_slots, first_free;
    apmw_time now;
    uint64_t sequence;
    uint64_t handled;
    apmw_status status;
    bool running, stopped;
};

apmw_des *apmw_des_create(void)
{
    apmw_des *des = calloc(1, sizeof *des);
    if (des == NULL) {
        return NULL;
    }
    des->heap = malloc(FIRST_CAPACITY * sizeof *des->heap);
    des->slots = malloc(FIRST_CAPACITY * sizeof *des->slots);
    if (des->heap == NULL || des->slots == NULL) {
        apmw_des_free(des);
        return NULL;
    }
    des->capacity_heap = FIRST_CAPACITY;
    des->capacity_slots = FIRST_CAPACITY;
    des->n_slots = 1;
    memset(&des->slots[0], 0, sizeof des->slots[0]);
    return des;
}

void apmw_des_free(apmw_des *des)
{
    if (des != NULL) {
        free(des->heap);
        free(des->slots);
        free(des);
    }
}

apmw_time apmw_des_now(const apmw_des *des)
{
    return des->now;
}

uint64_t apmw_des_handled(const apmw_des *des)
{
    return des->handled;
}

static inline bool before(const heap_entry *a, const heap_entry *b)
{
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static inline bool stale(const apmw_des *des, const heap_entry *entry)
{
    return des->slots[entry->slot].order != entry->order;
}

static void sift_up(heap_entry *heap, uint32_t i)
{
    const heap_entry moving = heap[i];
    while (i > 0) {
        const uint32_t parent = (i - 1) / 2;
        if (!before(&moving, &heap[parent])) {
            break;
        }
        heap[i] = heap[parent];
        i = parent;
    }
    heap[i] = moving;
}

static void sift_down(heap_entry *heap, uint32_t n, uint32_t i)
{
    const heap_entry moving = heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!before(&heap[child], &moving)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static void remove_top(apmw_des *des)
{
    des->n_heap--;
    if (des->n_heap > 0) {
        des->heap[0] = des->heap[des->n_heap];
        sift_down(des->heap, des->n_heap, 0);
    }
}

/* Rebuilds the heap from its live entries. The order of handling does not change: it is total. */
static void sweep(apmw_des *des)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < des->n_heap; i++) {
        if (!stale(des, &des->heap[i])) {
            des->heap[n++] = des->heap[i];
        }
    }
    des->n_heap = n;
    des->n_stale = 0;
    for (uint32_t i = n / 2; i-- > 0;) {
        sift_down(des->heap, n, i);
    }
}

/* Twice the room, or NULL with the array as it was. */
static void *grow(void *array, uint32_t *capacity, size_t item_bytes)
{
    if (*capacity > UINT32_MAX / 2) {
        return NULL;
    }
    void *larger = realloc(array, (size_t)*capacity * 2 * item_bytes);
    if (larger != NULL) {
        *capacity *= 2;
    }
    return larger;
}

static uint32_t slot_take(apmw_des *des)
{
    if (des->first_free != 0) {
        const uint32_t slot = des->first_free;
        des->first_free = des->slots[slot].next_free;
        return slot;
    }
    if (des->n_slots == des->capacity_slots) {
        event_slot *larger = grow(des->slots, &des->capacity_slots, sizeof *larger);
        if (larger == NULL) {
            return 0;
        }
        des->slots = larger;
    }
    des->slots[des->n_slots].generation = 1;
    return des->n_slots++;
}

static void slot_release(apmw_des *des, uint32_t slot)
{
    event_slot *event = &des->slots[slot];
    event->order = 0;
    event->generation++;
    if (event->generation == 0) {
        event->generation = 1;
    }
    event->next_free = des->first_free;
    des->first_free = slot;
}

apmw_event_handle apmw_des_schedule(apmw_des *des, apmw_time when, apmw_event_class cls, apmw_event_fn fn,
                                    void *subject, uint64_t argument)
{
    APMW_CHECK(when >= des->now);
    APMW_CHECK((unsigned)cls <= (unsigned)APMW_EVENT_CONTROL);
    APMW_CHECK(fn != NULL);
    const apmw_event_handle none = {0, 0};
    if (des->n_heap == des->capacity_heap) {
        heap_entry *larger = grow(des->heap, &des->capacity_heap, sizeof *larger);
        if (larger == NULL) {
            des->status = APMW_E_NOMEM;
            return none;
        }
        des->heap = larger;
    }
    const uint32_t slot = slot_take(des);
    if (slot == 0) {
        des->status = APMW_E_NOMEM;
        return none;
    }
    des->sequence++;
    const uint64_t order = ((uint64_t)cls << SEQUENCE_BITS) | des->sequence;
    event_slot *event = &des->slots[slot];
    event->fn = fn;
    event->subject = subject;
    event->argument = argument;
    event->order = order;
    const uint32_t last = des->n_heap++;
    des->heap[last].when = when;
    des->heap[last].order = order;
    des->heap[last].slot = slot;
    sift_up(des->heap, last);
    const apmw_event_handle handle = {slot, event->generation};
    return handle;
}

bool apmw_des_pending(const apmw_des *des, apmw_event_handle handle)
{
    return handle.generation != 0 && handle.slot < des->n_slots &&
           des->slots[handle.slot].generation == handle.generation;
}

void apmw_des_cancel(apmw_des *des, apmw_event_handle *handle)
{
    if (apmw_des_pending(des, *handle)) {
        slot_release(des, handle->slot);
        des->n_stale++;
        if (des->n_heap >= SWEEP_FLOOR && des->n_stale > des->n_heap / 2) {
            sweep(des);
        }
    }
    handle->slot = 0;
    handle->generation = 0;
}

void apmw_des_stop(apmw_des *des)
{
    des->stopped = true;
}

apmw_status apmw_des_run(apmw_des *des, apmw_time until)
{
    APMW_CHECK(!des->running);
    des->running = true;
    des->stopped = false;
    while (des->status == APMW_OK && !des->stopped && des->n_heap > 0) {
        const heap_entry top = des->heap[0];
        if (stale(des, &top)) {
            remove_top(des);
            des->n_stale--;
            continue;
        }
        if (top.when > until) {
            if (until > des->now) {
                des->now = until;
            }
            break;
        }
        APMW_CHECK(top.when >= des->now);
        remove_top(des);
        const event_slot event = des->slots[top.slot];
        slot_release(des, top.slot);
        des->now = top.when;
        des->handled++;
        event.fn(des, event.subject, event.argument);
    }
    des->running = false;
    return des->status;
}
