/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Eviction in another order than recency: FIFO, LFU and S3-FIFO over the blocks whose successors are all
 * gone.
 *
 * FIFO takes the block that arrived first. LFU takes the one with the least score, a count of uses that
 * halves every half-life (LRFU: Lee et al., IEEE Trans. Computers 50(12), 2001); scores are kept as
 * logarithms to base 2 with time as the offset, so that ageing changes no order and needs no work. S3-FIFO
 * (Yang et al., SOSP 2023): new blocks go into a small queue of a tenth of the pool; its oldest goes to the
 * main queue if it was used more than once since, with its uses forgotten, else out, and is remembered as a
 * ghost; what comes back as a ghost goes to the main queue at once; the oldest of the main queue goes round
 * again if it was used, with one use less. The object that moves is the run: blocks of one stream that
 * arrived and were used together, as far as nothing cached or pinned hangs on them. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kv_private.h"

enum { SMALL, MAIN };

static bool s3(const apmw_prefix_cache *cache)
{
    return cache->policy == APMW_KV_S3_FIFO;
}

/* Blocks below this must stay for the sake of leases or cached children. */
static int64_t floor_of(const apmw_prefix_cache *cache, uint32_t index)
{
    const apmw_kv_entry *entry = &cache->entries[index];
    const int64_t child = apmw_kv_pins_max(&cache->orders[index].children, entry->first);
    return child > entry->pin_end ? child : entry->pin_end;
}

static bool before(const apmw_kv_node *a, const apmw_kv_node *b)
{
    return a->score < b->score || (a->score <= b->score && a->stamp < b->stamp);
}

static void place(apmw_prefix_cache *cache, int q, uint32_t at, apmw_kv_node node)
{
    cache->heaps[q][at] = node;
    cache->orders[node.entry].place = at;
    cache->orders[node.entry].heap = (uint8_t)q;
}

/* Puts the node where it belongs, beginning from a hole at `at`. */
static void sift(apmw_prefix_cache *cache, int q, uint32_t at, apmw_kv_node node)
{
    apmw_kv_node *heap = cache->heaps[q];
    while (at > 1 && before(&node, &heap[at / 2])) {
        place(cache, q, at, heap[at / 2]);
        at /= 2;
    }
    for (;;) {
        uint32_t child = at * 2;
        if (child > cache->n_heap[q]) {
            break;
        }
        if (child < cache->n_heap[q] && before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!before(&heap[child], &node)) {
            break;
        }
        place(cache, q, at, heap[child]);
        at = child;
    }
    place(cache, q, at, node);
}

static void heap_remove(apmw_prefix_cache *cache, uint32_t index)
{
    const int q = cache->orders[index].heap;
    const uint32_t at = cache->orders[index].place;
    const apmw_kv_node last = cache->heaps[q][cache->n_heap[q]--];
    cache->orders[index].place = 0;
    if (last.entry != index) {
        sift(cache, q, at, last);
    }
}

void apmw_kv_order_update(apmw_prefix_cache *cache, uint32_t index)
{
    apmw_kv_order *order = &cache->orders[index];
    const bool due = cache->entries[index].end > floor_of(cache, index);
    const apmw_kv_segment *tail = &cache->segments[order->tail];
    if (order->place != 0 && (!due || order->heap != tail->queue)) {
        heap_remove(cache, index);
    }
    if (due) {
        const apmw_kv_node node = {cache->policy == APMW_KV_LFU ? tail->score : 0.0, tail->stamp, index};
        if (order->place == 0) {
            sift(cache, tail->queue, ++cache->n_heap[tail->queue], node);
        } else {
            sift(cache, order->heap, order->place, node);
        }
    }
}

static void unlink_segment(apmw_prefix_cache *cache, uint32_t i)
{
    const apmw_kv_segment *segment = &cache->segments[i];
    if (segment->toward_head != 0) {
        cache->segments[segment->toward_head].toward_tail = segment->toward_tail;
    } else {
        cache->entries[segment->entry].head = segment->toward_tail;
    }
    if (segment->toward_tail != 0) {
        cache->segments[segment->toward_tail].toward_head = segment->toward_head;
    } else {
        cache->orders[segment->entry].tail = segment->toward_head;
    }
    apmw_kv_segment_put(cache, i);
}

static uint32_t append(apmw_prefix_cache *cache, uint32_t index, int64_t from, int64_t to, int queue)
{
    const uint32_t i = apmw_kv_segment_get(cache);
    apmw_kv_segment *segment = &cache->segments[i];
    memset(segment, 0, sizeof *segment);
    segment->entry = index;
    segment->from = from;
    segment->to = to;
    segment->queue = (uint8_t)queue;
    segment->fresh = true;
    segment->toward_head = cache->orders[index].tail;
    if (segment->toward_head != 0) {
        cache->segments[segment->toward_head].toward_tail = i;
    } else {
        cache->entries[index].head = i;
    }
    cache->orders[index].tail = i;
    return i;
}

/* Cuts a segment; blocks from `at` on become one of their own, toward the tail. */
static uint32_t split(apmw_prefix_cache *cache, uint32_t i, int64_t at)
{
    const uint32_t j = apmw_kv_segment_get(cache);
    apmw_kv_segment *lower = &cache->segments[i], *upper = &cache->segments[j];
    *upper = *lower;
    lower->to = at;
    upper->from = at;
    upper->toward_head = i;
    lower->toward_tail = j;
    if (upper->toward_tail != 0) {
        cache->segments[upper->toward_tail].toward_head = j;
    } else {
        cache->orders[lower->entry].tail = j;
    }
    return j;
}

static bool alike(const apmw_kv_segment *a, const apmw_kv_segment *b)
{
    return a->fresh == b->fresh && a->queue == b->queue && a->uses == b->uses && a->stamp == b->stamp &&
           !(a->score < b->score) && !(a->score > b->score);
}

/* Joins a run with the one before it where nothing tells them apart. */
static void merge(apmw_prefix_cache *cache, uint32_t i)
{
    const uint32_t previous = cache->segments[i].toward_head;
    if (previous != 0 && alike(&cache->segments[previous], &cache->segments[i])) {
        cache->segments[previous].to = cache->segments[i].to;
        unlink_segment(cache, i);
    }
}

bool apmw_kv_order_reserve_insert(apmw_prefix_cache *cache, const apmw_kv_part *parts, uint32_t n_parts)
{
    int64_t n = n_parts;
    for (uint32_t p = 0; p < n_parts; p++) {
        const apmw_kv_part *part = &parts[p];
        if (s3(cache)) { /* each ghost may cut what arrives twice */
            n += 2 * (int64_t)apmw_kv_ghost_pieces(cache, part->stream, part->limit);
        }
        if (part->entry == 0) {
            const apmw_stream owner = apmw_kv_owner_before(cache, part->stream, part->first);
            const uint32_t entry = owner == 0 ? 0 : apmw_kv_entry_find(cache, owner);
            if (entry != 0 && !apmw_kv_pins_reserve(&cache->orders[entry].children)) {
                return false;
            }
        }
    }
    return apmw_kv_segment_reserve(cache, (int64_t)cache->used_segments + cache->reserved_segments + n);
}

static void insert_piece(apmw_prefix_cache *cache, uint32_t index, int64_t from, int64_t to, int queue)
{
    const uint32_t tail = cache->orders[index].tail;
    if (tail != 0 && cache->segments[tail].fresh && cache->segments[tail].queue == queue) {
        cache->segments[tail].to = to;
    } else {
        (void)append(cache, index, from, to, queue);
    }
    if (s3(cache) && queue == SMALL) {
        cache->small_blocks += to - from;
    }
}

void apmw_kv_order_insert(apmw_prefix_cache *cache, uint32_t index, int64_t to)
{
    const apmw_kv_entry *entry = &cache->entries[index];
    int64_t at = entry->end;
    if (at == entry->first && entry->head == 0) { /* new: it hangs on its parent from now on */
        const apmw_stream owner = apmw_kv_owner_before(cache, entry->stream, entry->first);
        if (owner != 0) {
            const uint32_t parent = apmw_kv_entry_find(cache, owner);
            APMW_CHECK(parent != 0);
            apmw_kv_pins_add(&cache->orders[parent].children, entry->first);
            apmw_kv_order_update(cache, parent);
        }
    }
    while (at < to) {
        const uint32_t ghost = s3(cache) ? apmw_kv_ghost_lowest(cache, entry->stream) : 0;
        int64_t next = to;
        if (ghost != 0 && cache->ghosts[ghost].from < to) {
            const int64_t from = cache->ghosts[ghost].from;
            next = from > at ? from : cache->ghosts[ghost].to;
            next = next < to ? next : to;
            if (from <= at) {
                insert_piece(cache, index, at, next, MAIN);
                apmw_kv_ghost_take(cache, entry->stream, next);
                at = next;
                continue;
            }
        }
        insert_piece(cache, index, at, next, SMALL);
        at = next;
    }
}

/* log2(2^a + 2^b) */
static double log2_sum(double a, double b)
{
    const double high = a > b ? a : b;
    return high + log2(1.0 + exp2(a > b ? b - a : a - b));
}

static void use(const apmw_prefix_cache *cache, apmw_kv_segment *segment, uint64_t stamp)
{
    if (segment->fresh) {
        segment->stamp = stamp;
    }
    if (cache->policy == APMW_KV_LFU) {
        const bool ages = cache->half_life_ns > 0;
        const double weight = ages ? (double)cache->now_ns / (double)cache->half_life_ns : 1.0;
        segment->stamp = stamp;
        segment->score = segment->fresh ? weight
                         : ages         ? log2_sum(segment->score, weight)
                                        : segment->score + weight;
    } else if (s3(cache) && !segment->fresh && segment->uses < APMW_KV_MOST_USES) {
        segment->uses++;
    }
    segment->fresh = false;
}

void apmw_kv_order_use(apmw_prefix_cache *cache, uint32_t index, int64_t to)
{
    const uint64_t stamp = ++cache->stamp;
    uint32_t i = cache->entries[index].head;
    if (cache->policy == APMW_KV_FIFO) { /* only arrivals matter, and those are at the tail */
        i = cache->orders[index].tail;
        while (cache->segments[i].toward_head != 0 && cache->segments[cache->segments[i].toward_head].fresh) {
            i = cache->segments[i].toward_head;
        }
        if (!cache->segments[i].fresh) {
            i = 0;
        }
    }
    while (i != 0 && cache->segments[i].from < to) {
        if (cache->segments[i].to > to) {
            (void)split(cache, i, to);
        }
        use(cache, &cache->segments[i], stamp);
        const uint32_t next = cache->segments[i].toward_tail;
        merge(cache, i);
        i = next;
    }
    if (i != 0) { /* a run that has its most uses may be like one that was used less now */
        merge(cache, i);
    }
}

void apmw_kv_order_dead(apmw_prefix_cache *cache, int64_t n)
{
    const uint32_t index = apmw_kv_entry_new(cache, APMW_KV_DEAD, 0);
    const uint32_t i = append(cache, index, 0, n, SMALL);
    if (s3(cache)) {
        cache->small_blocks += n;
    }
    cache->entries[index].end = n;
    use(cache, &cache->segments[i], ++cache->stamp);
    apmw_kv_order_update(cache, index);
}

/* The next victim under S3-FIFO; runs that were used go to the main queue's young end first. *most: blocks
 * that may go before the choice of the queue must be made again. */
static uint32_t s3_victim(apmw_prefix_cache *cache, int64_t *most)
{
    for (;;) {
        const int64_t over = cache->small_blocks - cache->capacity / 10;
        const int q = cache->n_heap[SMALL] > 0 && (over > 0 || cache->n_heap[MAIN] == 0) ? SMALL : MAIN;
        *most = q == SMALL && cache->n_heap[MAIN] > 0 ? over : INT64_MAX;
        APMW_CHECK(cache->n_heap[q] > 0);
        const uint32_t index = cache->heaps[q][1].entry;
        uint32_t i = cache->orders[index].tail;
        if (cache->segments[i].uses <= (q == SMALL ? 1 : 0)) {
            return index;
        }
        const int64_t low = floor_of(cache, index);
        if (cache->segments[i].from < low) {
            if (!apmw_kv_segment_reserve(cache,
                                         (int64_t)cache->used_segments + cache->reserved_segments + 1)) {
                cache->out_of_memory = true;
                return index;
            }
            i = split(cache, i, low);
        }
        apmw_kv_segment *run = &cache->segments[i];
        if (q == SMALL) {
            cache->small_blocks -= run->to - run->from;
            run->queue = MAIN;
            run->uses = 0;
        } else {
            run->uses--;
        }
        run->stamp = ++cache->stamp;
        apmw_kv_order_update(cache, index);
    }
}

int64_t apmw_kv_order_evict(apmw_prefix_cache *cache, int64_t n)
{
    int64_t most = INT64_MAX;
    uint32_t index;
    if (s3(cache)) {
        index = s3_victim(cache, &most);
    } else {
        APMW_CHECK(cache->n_heap[0] > 0);
        index = cache->heaps[0][1].entry;
    }
    const uint32_t i = cache->orders[index].tail;
    apmw_kv_segment *run = &cache->segments[i];
    const int64_t low = floor_of(cache, index);
    const int64_t length = run->to - (run->from > low ? run->from : low);
    int64_t k = n < length ? n : length;
    k = k < most ? k : most;
    run->to -= k;
    if (s3(cache) && run->queue == SMALL) {
        cache->small_blocks -= k;
        if (cache->entries[index].stream != APMW_KV_DEAD) {
            apmw_kv_ghost_push(cache, cache->entries[index].stream, run->to, run->to + k);
        }
    }
    if (run->to == run->from) {
        unlink_segment(cache, i);
    }
    return apmw_kv_evicted(cache, index, k);
}

static apmw_status check_entry(const apmw_prefix_cache *cache, uint32_t index, int64_t *small,
                               int64_t *cached, uint32_t *segments, apmw_error *err)
{
    const apmw_kv_entry *entry = &cache->entries[index];
    const apmw_kv_order *order = &cache->orders[index];
    int64_t at = entry->first;
    uint32_t previous = 0;
    for (uint32_t i = entry->head; i != 0; i = cache->segments[i].toward_tail) {
        const apmw_kv_segment *segment = &cache->segments[i];
        if (segment->entry != index || segment->toward_head != previous || segment->from != at ||
            segment->to <= at) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L6: stream %" PRIu32 " has a run [%" PRId64 ", %" PRId64
                                  ") where one from %" PRId64 " is due",
                                  entry->stream, segment->from, segment->to, at);
        }
        if (segment->fresh && segment->to > entry->pin_end) {
            return apmw_error_set(err, APMW_E_INTERNAL,
                                  "L17: blocks of stream %" PRIu32 " have not arrived and no lease pins them",
                                  entry->stream);
        }
        *small += segment->queue == SMALL ? segment->to - segment->from : 0;
        (*segments)++;
        at = segment->to;
        previous = i;
    }
    if (at != entry->end || order->tail != previous) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: runs of stream %" PRIu32 " end at %" PRId64
                              ", its cached part at %" PRId64,
                              entry->stream, at, entry->end);
    }
    const bool due = entry->end > floor_of(cache, index);
    const apmw_kv_segment *tail = &cache->segments[order->tail];
    if (due != (order->place != 0) ||
        (due && (order->heap != tail->queue || cache->heaps[order->heap][order->place].entry != index ||
                 cache->heaps[order->heap][order->place].stamp != tail->stamp))) {
        return apmw_error_set(err, APMW_E_INTERNAL, "L17: stream %" PRIu32 " is not where its tail is due",
                              entry->stream);
    }
    *cached += entry->end - entry->pin_end;
    return APMW_OK;
}

apmw_status apmw_kv_order_check(const apmw_prefix_cache *cache, int64_t *cached, uint32_t *segments,
                                apmw_error *err)
{
    int64_t small = 0;
    for (uint32_t i = 1; i < cache->n_entries; i++) {
        if (cache->entries[i].stream != 0) {
            const apmw_status status = check_entry(cache, i, &small, cached, segments, err);
            if (status != APMW_OK) {
                return status;
            }
        }
    }
    for (int q = 0; q < 2; q++) {
        for (uint32_t at = 2; at <= cache->n_heap[q]; at++) {
            if (before(&cache->heaps[q][at], &cache->heaps[q][at / 2])) {
                return apmw_error_set(err, APMW_E_INTERNAL, "L17: the heap is out of order at %" PRIu32, at);
            }
        }
    }
    if (!s3(cache)) {
        return APMW_OK;
    }
    if (small != cache->small_blocks) {
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "L6: counted %" PRId64 " blocks in the small queue, found %" PRId64,
                              cache->small_blocks, small);
    }
    return apmw_kv_ghost_check(cache, err);
}
