/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The fast mode: a batch as running sums, and stretches of decode steps summed in closed form. */
#ifndef APMW_ENGINE_FAST_H
#define APMW_ENGINE_FAST_H
#include "engine_heap.h"

typedef struct apmw_seq_list {
    apmw_seq *head, *tail;
    int64_t n;
} apmw_seq_list;

static inline void apmw_seq_list_append(apmw_seq_list *list, apmw_seq *seq)
{
    seq->prev = list->tail;
    seq->next = NULL;
    if (list->tail)
        list->tail->next = seq;
    else
        list->head = seq;
    list->tail = seq;
    list->n++;
}

static inline void apmw_seq_list_prepend(apmw_seq_list *list, apmw_seq *seq)
{
    seq->next = list->head;
    seq->prev = NULL;
    if (list->head)
        list->head->prev = seq;
    else
        list->tail = seq;
    list->head = seq;
    list->n++;
}

static inline void apmw_seq_list_remove(apmw_seq_list *list, apmw_seq *seq)
{
    if (seq->prev)
        seq->prev->next = seq->next;
    else
        list->head = seq->next;
    if (seq->next)
        seq->next->prev = seq->prev;
    else
        list->tail = seq->prev;
    seq->prev = seq->next = NULL;
    list->n--;
}

typedef struct apmw_rank {
    apmw_prefix_cache *cache;
    apmw_seq_list unreceived; /* SGLang: arrived, not yet looked at */
    apmw_seq_list waiting;    /* first come first served; preempted ones return to its head */
    apmw_seq_list running;    /* in order of admission */
    apmw_seq_list loading;    /* admitted, KV on its way */
    apmw_seq_list loaded;     /* it has come: they run at the next step boundary with a place for them */
    apmw_seq_list held;       /* ended, their KV still needed elsewhere */
    apmw_seq *partial; /* admitted, prompt not complete after the last step: at most one, the last admitted */

    /* The decoding sequences as sums. */
    int64_t n_decode;
    int64_t progress;              /* decode steps since the start */
    int64_t kv[APMW_KV_KINDS];     /* fixed point: sum of min(context of the next step, cap) */
    int64_t growth[APMW_KV_KINDS]; /* of it, a step */
    int64_t rate;                  /* fixed point: tokens emitted a step, all decoding sequences */
    apmw_seq_heap ends, caps;

    /* KV blocks of the growing contexts. Without drafts sequence i takes a block in the step that begins at
     * progress p when its context is a multiple of the block size, that is when p mod block size = a constant
     * of the sequence: crossing[] counts them. With drafts contexts grow by fractions, and blocks are counted
     * for the rank: ceil(sum of growth / block size). */
    int64_t *crossing;
    int64_t grown, grown_blocks;
    int64_t ahead;                         /* steps of the running stretch whose blocks are taken */
    int64_t lease_blocks, reserved_blocks; /* of admitted sequences: pinned + taken, and promised */

    /* The step that is planned or runs. */
    bool decodes, preempted;
    bool held_back; /* a fetch without blocks or a fetched prompt without room is first in line */
    apmw_chunk *chunks;
    apmw_seq **chunk_seqs;
    size_t n_chunks, chunk_capacity;
    int64_t chunk_tokens;
    int64_t candidates;       /* TRT-LLM: prompts that could start now but are held back */
    int64_t candidate_blocks; /* blocks that they would take or pin */

    int64_t recv_count; /* SGLang */
} apmw_rank;

typedef struct apmw_fast {
    apmw_engine *engine;
    apmw_rank *ranks;
    bool planning; /* an event to plan is queued */
    apmw_event_handle step_end;
    bool idle;       /* no step ended at this instant */
    int64_t n_steps; /* of the running stretch, or of the last one */
    bool mixed;      /* it has chunks: one step */
    double carry_ns; /* engine->carry_ns when it began */
    apmw_step_load load;
    double growth[APMW_KV_KINDS];
    apmw_step_work work;
    apmw_time step_until;
    int64_t n_waiting; /* when it began */
    int64_t batch_waits, adp_waits;
    apmw_prefill_delay delay;
    bool delays;                  /* prompts wait for other ranks in this pass */
    bool batch_holds, adp_counts; /* each step of the stretch adds one */
    apmw_seq **done;
    size_t n_done, done_capacity;
} apmw_fast;

/* engine_rank.c: the batch of a rank. */
/* Blocks that decode steps [ahead, n_steps) of the stretch will take. */
int64_t apmw_rank_demand(const apmw_engine *engine, const apmw_rank *rank, int64_t n_steps);
/* The largest n <= limit whose demand is at most `blocks`. */
int64_t apmw_rank_steps_within(const apmw_engine *engine, const apmw_rank *rank, int64_t blocks,
                               int64_t limit);
/* Takes the blocks of all steps before n_steps. */
void apmw_rank_take_to(apmw_engine *engine, apmw_rank *rank, int64_t n_steps);
void apmw_rank_join(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq);
/* Takes the sequence out of the sums and completes its lease; returns the decode steps it has made. */
int64_t apmw_rank_leave(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq);
void apmw_rank_advance(apmw_engine *engine, apmw_rank *rank, int64_t n_steps);
/* Moves to constants what has reached a cap by now. */
void apmw_rank_cross_caps(apmw_engine *engine, apmw_rank *rank);

/* engine_plan.c: what the next step does. Returns true if there is something to do. */
bool apmw_fast_plan(apmw_engine *engine);
/* engine_step.c: of apmw_engine_mode. */
void apmw_fast_arrive(apmw_engine *engine, apmw_seq *seq);
void apmw_fast_settle(const apmw_engine *engine);
void apmw_fast_fetched(apmw_engine *engine, apmw_seq *seq);
bool apmw_fast_withdraw(apmw_engine *engine, apmw_seq *seq);
void apmw_fast_release(apmw_engine *engine, apmw_seq *seq);
/* engine_check.c */
apmw_status apmw_fast_check(const apmw_engine *engine, apmw_error *err);

#endif
