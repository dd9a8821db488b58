/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Splits of so many accelerators between engines, and which of them are worth simulating. Pure: it composes nothing. */
#ifndef APMW_SPLITS_H
#define APMW_SPLITS_H
#include <stdbool.h>
#include <stddef.h>

#include "apmw/experiment.h"

/* One engine of a pool: the agents that it is guessed to carry at each tier asked for. */
typedef struct split_engine {
    apmw_layout_choice choice; /* replicas 1 */
    int draft;
    double agents[APMW_MAX_TIERS];
} split_engine;

typedef struct split {
    apmw_layout_choice choice[APMW_POOLS]; /* [0] alone where it is aggregated */
    bool apart;
    int draft;
    double agents[APMW_MAX_TIERS];
} split;

/* Of each tier the most promising layouts, each with its best draft length, in descending order; the earlier of equals
 * first. */
typedef struct split_list {
    split *best[APMW_MAX_TIERS]; /* owned; `keep` + 1 each */
    size_t n[APMW_MAX_TIERS];
    size_t n_tiers, keep;
    long considered;
} split_list;

/* False = out of memory; free it in any case. */
bool apmw_split_list_init(split_list *list, size_t n_tiers, size_t keep);
void apmw_split_list_free(split_list *list);
void apmw_split_offer(split_list *list, const split *candidate);
/* Offers every way to spend all accelerators on some prefill engines of one kind and some decode engines of one kind; a
 * pair carries what the weaker pool carries. */
void apmw_split_pairs(split_list *list, const split_engine *prefill, size_t n_prefill, const split_engine *decode,
                      size_t n_decode, int accelerators);
/* The lists of all tiers joined, each split (with its draft length) once, the best of each tier before the second ones. `out` holds
 * n_tiers * keep; returns how many. */
size_t apmw_split_join(const split_list *list, split *out);

#endif
