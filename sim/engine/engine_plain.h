/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The plain mode: one step an event, every sum made anew by a loop over the batch. It states the rules of the
 * schedulers a second time, as simply as possible, and is the oracle of the fast mode. */
#ifndef APMW_ENGINE_PLAIN_H
#define APMW_ENGINE_PLAIN_H
#include "engine_internal.h"

typedef struct pile {
    apmw_seq **v;
    int64_t n, capacity;
} pile;

typedef struct plain_rank {
    pile unreceived, waiting, loading, loaded, held;
    bool decodes, preempted, held_back;
    int64_t recv_count;
    int64_t grown_blocks; /* with drafts: blocks that the growth of the whole batch has taken */
} plain_rank;

/* A chunk of the running step. */
typedef struct piece {
    apmw_seq *seq;
    int64_t tokens;
} piece;

typedef struct plain {
    plain_rank *ranks;
    pile running; /* of all ranks, in order of admission */
    pile done;
    piece *pieces;
    int64_t n_pieces, piece_capacity;
    apmw_chunk *chunks;
    apmw_step_record record;
    double time_ns;
    bool planning, idle;
    apmw_prefill_delay delay;
    int64_t batch_waits, adp_waits;
} plain;

/* engine_plain_plan.c */
void apmw_plain_insert(apmw_engine *engine, pile *p, int64_t at, apmw_seq *seq);
/* Ends the lease of a running sequence and removes it. kv_tokens is what its KV holds. */
void apmw_plain_leave(apmw_engine *engine, apmw_seq *seq, int64_t kv_tokens);
void apmw_plain_take_out(pile *p, const apmw_seq *seq);
bool apmw_plain_decoding(const apmw_seq *seq);
/* SGLang: called once a step, or when the engine wakes. */
void apmw_plain_receive(apmw_engine *engine, int rank);
/* Plans the next step; false if there is nothing to do. */
bool apmw_plain_plan(apmw_engine *engine);

#endif
