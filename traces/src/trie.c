/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "private.h"

static apmw_status no_memory(apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "out of memory for the prefixes of a trace");
}

static size_t slot_of(const apmw_tr_trie *trie, int32_t node, uint64_t id)
{
    struct {
        uint64_t node, id;
    } key = {(uint64_t)node, id};
    size_t at = (size_t)apmw_hash64(&key, sizeof key, 0) & (trie->n_slots - 1);
    while (trie->slots[at] != 0) {
        uint32_t found = trie->slots[at];
        if (trie->up[found] == node && trie->id[found] == id) {
            break;
        }
        at = (at + 1) & (trie->n_slots - 1);
    }
    return at;
}

static apmw_status grow_nodes(apmw_tr_trie *trie, apmw_error *err)
{
    size_t capacity = trie->capacity * 2;
    if (capacity > INT32_MAX) {
        return apmw_error_set(err, APMW_E_DATA, "more than 2^30 distinct prefix blocks");
    }
    int32_t *owner = realloc(trie->owner, capacity * sizeof *owner);
    trie->owner = owner != NULL ? owner : trie->owner;
    int32_t *up = realloc(trie->up, capacity * sizeof *up);
    trie->up = up != NULL ? up : trie->up;
    uint64_t *id = realloc(trie->id, capacity * sizeof *id);
    trie->id = id != NULL ? id : trie->id;
    if (owner == NULL || up == NULL || id == NULL) {
        return no_memory(err);
    }
    trie->capacity = capacity;
    return APMW_OK;
}

static apmw_status grow_slots(apmw_tr_trie *trie, apmw_error *err)
{
    uint32_t *slots = calloc(trie->n_slots * 2, sizeof *slots);
    if (slots == NULL) {
        return no_memory(err);
    }
    free(trie->slots);
    trie->slots = slots;
    trie->n_slots *= 2;
    for (size_t node = 1; node < trie->n; node++) {
        trie->slots[slot_of(trie, trie->up[node], trie->id[node])] = (uint32_t)node;
    }
    return APMW_OK;
}

apmw_status apmw_tr_trie_init(apmw_tr_trie *trie, apmw_error *err)
{
    memset(trie, 0, sizeof *trie);
    trie->capacity = 1024;
    trie->n_slots = 2048;
    trie->owner = malloc(trie->capacity * sizeof *trie->owner);
    trie->up = malloc(trie->capacity * sizeof *trie->up);
    trie->id = malloc(trie->capacity * sizeof *trie->id);
    trie->slots = calloc(trie->n_slots, sizeof *trie->slots);
    if (trie->owner == NULL || trie->up == NULL || trie->id == NULL || trie->slots == NULL) {
        apmw_tr_trie_free(trie);
        return no_memory(err);
    }
    trie->owner[0] = -1;
    trie->up[0] = -1;
    trie->id[0] = 0;
    trie->n = 1;
    return APMW_OK;
}

void apmw_tr_trie_free(apmw_tr_trie *trie)
{
    free(trie->owner);
    free(trie->up);
    free(trie->id);
    free(trie->slots);
    memset(trie, 0, sizeof *trie);
}

int32_t apmw_tr_trie_find(const apmw_tr_trie *trie, int32_t node, uint64_t id)
{
    uint32_t found = trie->slots[slot_of(trie, node, id)];
    return found == 0 ? -1 : (int32_t)found;
}

apmw_status apmw_tr_trie_step(apmw_tr_trie *trie, int32_t node, uint64_t id, int32_t *child, bool *made,
                              apmw_error *err)
{
    size_t at = slot_of(trie, node, id);
    *made = trie->slots[at] == 0;
    if (!*made) {
        *child = (int32_t)trie->slots[at];
        return APMW_OK;
    }
    apmw_status status = APMW_OK;
    if (trie->n == trie->capacity) {
        status = grow_nodes(trie, err);
    }
    if (status == APMW_OK && trie->n * 2 > trie->n_slots) {
        status = grow_slots(trie, err);
        at = status == APMW_OK ? slot_of(trie, node, id) : 0;
    }
    if (status != APMW_OK) {
        return status;
    }
    *child = (int32_t)trie->n++;
    trie->owner[*child] = -1;
    trie->up[*child] = node;
    trie->id[*child] = id;
    trie->slots[at] = (uint32_t)*child;
    return APMW_OK;
}
