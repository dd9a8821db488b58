/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shared by the two modes of the engine. The common part (engine.c, engine_seq.c) owns requests, records and
 * books; a mode owns queues, batch and steps. */
#ifndef APMW_ENGINE_INTERNAL_H
#define APMW_ENGINE_INTERNAL_H
#include "apmw/engine.h"

/* Contexts and growth are fixed point with this many fraction bits: a drafting sequence grows by a fraction
 * of a token more or less a step, and integer sums do not depend on the order of adding, so that both modes
 * agree. */
enum { APMW_FIX_SHIFT = 20 };
#define APMW_FIX_ONE ((int64_t)1 << APMW_FIX_SHIFT)

/* KV from outside. Whether it is wanted is asked when the request is first looked at as the head of its queue and
 * once more when it could start; then its blocks are taken and it is loading; loaded, it may run. Preempted, it is
 * asked anew. */
typedef enum apmw_seq_fetch {
    APMW_FETCH_OPEN,
    APMW_FETCH_DECLINED,
    APMW_FETCH_WANTED,
    APMW_FETCH_LOADING,
    APMW_FETCH_LOADED
} apmw_seq_fetch;

/* A request inside the engine. */
typedef struct apmw_seq apmw_seq;
struct apmw_seq {
    apmw_engine *engine;
    apmw_request *request;
    apmw_seq *prev, *next;   /* in one queue at a time */
    int32_t rank;            /* -1 until chosen */
    bool scheduled;          /* its cache query has been counted */
    uint64_t order;          /* of its latest admission, over the whole engine */
    int64_t produced;        /* tokens emitted, up to date at admission, preemption and the end */
    int64_t total;           /* tokens that its prefill computes or matches: prompt + produced */
    int64_t done;            /* of these, in KV */
    int64_t computed;        /* tokens in KV when it was preempted */
    int64_t booked;          /* tokens that the load books count for it */
    int64_t reserved_blocks; /* TRT-LLM: for prompt and declared output, 0 = no reservation */
    int64_t promised_blocks; /* what its admission counted on, if it has a reservation */
    apmw_kv_lease lease;
    int64_t told_blocks; /* findable ones that the connector knows of since the prompt was computed */
    apmw_seq_fetch fetch;
    int64_t fetch_to; /* tokens in KV after it */
    bool held;        /* ended, with its lease */
    int64_t n_steps;  /* decode steps that its remaining output takes, drawn when it starts to decode */
    int64_t n_tokens; /* tokens emitted in these */
    int64_t rate;     /* mean tokens a step, fixed point, rounded up */
    int64_t join;     /* progress of its rank when it started to decode (fast); steps made (plain) */
    int n_capped;     /* attention kinds whose cap its context has reached, in order of cap */
    uint32_t slot[2]; /* its places in the heaps */
};

typedef struct apmw_engine_mode {
    apmw_status (*open)(apmw_engine *engine, apmw_error *err);
    void (*close)(apmw_engine *engine);
    /* The sequence, of a known rank, joins the queue of its rank now. */
    void (*arrive)(apmw_engine *engine, apmw_seq *seq);
    /* What a loading sequence waited for is there. */
    void (*fetched)(apmw_engine *engine, apmw_seq *seq);
    /* Takes a sequence out of the queue of its rank; false: it is in none. */
    bool (*withdraw)(apmw_engine *engine, apmw_seq *seq);
    /* Gives back what an ended sequence holds, or one that was loading. */
    void (*release)(apmw_engine *engine, apmw_seq *seq);
    /* Brings the pools to the step that runs now, before somebody looks. May be NULL. */
    void (*settle)(const apmw_engine *engine);
    apmw_status (*check)(const apmw_engine *engine, apmw_error *err);
    /* Every sequence that is queued or running, in no promised order; used to free what a run left. */
    void (*each)(const apmw_engine *engine, void (*fn)(void *self, apmw_seq *seq), void *self);
} apmw_engine_mode;
extern const apmw_engine_mode apmw_engine_fast, apmw_engine_plain;

typedef struct apmw_rank_books {
    int64_t requests, tokens;
} apmw_rank_books;

/* Who is told of what a rank's pool evicts. */
typedef struct apmw_engine_ear {
    apmw_engine *engine;
    int rank;
} apmw_engine_ear;

struct apmw_engine {
    apmw_engine_config config;
    apmw_des *des;
    int32_t index;
    const apmw_probe **probes;
    size_t n_probes;
    const apmw_engine_mode *mode;
    void *state;
    apmw_prefix_cache **caches; /* one a rank */
    apmw_rank_books *ranks, all;
    apmw_engine_ear *ears; /* one a rank */
    int64_t tokens_per_seq; /* in a pass: 1 + draft tokens */
    int64_t seq_limit;      /* sequences that a rank may run */
    int n_kinds;
    int cap_order[APMW_KV_KINDS]; /* kinds by growing cap */
    double acceptance_variance;
    apmw_time frontend_free;
    uint64_t next_order;
    apmw_time busy; /* of ended steps */
    uint64_t steps; /* ended */
    bool stepping;
    apmw_time step_begin;
    double carry_ns;    /* exact end of the last step minus its end in whole ns; 0 after idling */
    int64_t emit_carry; /* fraction of a token emitted and not yet reported */
    apmw_seq *coming;   /* on their way through the front end */
    apmw_seq *spare;
    apmw_error fault; /* status != APMW_OK: the engine stands still */
};

/* engine_seq.c: what one sequence does, in both modes. */
void apmw_engine_fault(apmw_engine *engine, apmw_status status, const char *what);
int64_t apmw_engine_blocks(const apmw_engine *engine, int64_t tokens); /* rounded up */
/* Begins (or resumes) the lease, counts hits or recomputed tokens, stamps the admission. */
void apmw_seq_admit(apmw_engine *engine, apmw_seq *seq, apmw_time now);
/* Could KV still come from outside for a sequence at the head of its queue? */
bool apmw_seq_asks(const apmw_engine *engine, const apmw_seq *seq);
/* Tokens that a fetch brings the KV of the head of a queue to, given its match; 0 = it wants none. The connector is
 * asked when the sequence is first considered and again when its blocks fit: what the pool and the connector have may
 * have changed while it waited. */
int64_t apmw_seq_wants_fetch(apmw_engine *engine, apmw_seq *seq, int64_t matched, bool fits);
/* Might a sequence that is not the head want one? */
bool apmw_seq_fetch_open(const apmw_engine *engine, const apmw_seq *seq);
/* Admits it, takes the blocks of its prompt (their number must be available) and starts the fetch. */
void apmw_seq_begin_fetch(apmw_engine *engine, apmw_seq *seq, int64_t to, apmw_time now);
/* A loaded sequence takes its place in the running order. */
void apmw_seq_end_fetch(apmw_engine *engine, apmw_seq *seq, apmw_time now);
/* Tokens of the stream that a lookup for this sequence covers. */
int64_t apmw_seq_lookup_tokens(const apmw_seq *seq);
/* KV blocks that admission asks for in the end (matched ones included), by the rules of the policy. */
int64_t apmw_seq_wanted_blocks(const apmw_engine *engine, const apmw_seq *seq);
/* The final chunk has been computed: one token is emitted. True if that was the last one. */
bool apmw_seq_emit_first(apmw_engine *engine, apmw_seq *seq, apmw_time now);
/* What the chunks have computed so far becomes findable, generated tokens only where the stream keeps them.
 */
void apmw_seq_commit(apmw_engine *engine, apmw_seq *seq);
/* Draws n_steps, n_tokens and rate for what is left of the output. */
void apmw_seq_begin_decode(apmw_engine *engine, apmw_seq *seq);
/* Tokens emitted after `steps` decode steps. */
int64_t apmw_seq_emitted(const apmw_seq *seq, int64_t steps);
/* Ends the lease with kv_tokens in KV; lease.taken_blocks must be complete. */
void apmw_seq_release(apmw_engine *engine, apmw_seq *seq, int64_t kv_tokens);
/* Books and fields of a preempted sequence: `steps` decode steps made (0 in prefill). Returns tokens in KV.
 */
int64_t apmw_seq_preempt(apmw_engine *engine, apmw_seq *seq, int64_t steps);
/* Terminal: stamps, probes, on_done; the sequence is gone. */
void apmw_seq_finish(apmw_engine *engine, apmw_seq *seq, apmw_request_state state, apmw_time now);
/* Gives back a sequence that is in no queue, without a word to anybody: memory is short or the engine goes.
 */
void apmw_seq_drop(apmw_engine *engine, apmw_seq *seq);
/* Passes that prompts have waited for other ranks, and since when. */
typedef struct apmw_prefill_delay {
    int passes;
    apmw_time since;
} apmw_prefill_delay;
/* SGLang's prefill delayer: does this pass prefill nothing? Of all ranks so many could prefill. */
bool apmw_engine_delays_prefill(const apmw_engine *engine, apmw_prefill_delay *delay, int n_prefillable, bool decodes);
void apmw_engine_emit_step(apmw_engine *engine, const apmw_step_record *record);
/* Whole tokens emitted by n steps of decoding at a summed rate, with the fraction carried on. */
int64_t apmw_engine_emit_tokens(apmw_engine *engine, int64_t rate, int64_t n_steps);
/* KV blocks of all ranks: held + cached, and capacity. */
void apmw_engine_kv_used(const apmw_engine *engine, int64_t *used, int64_t *capacity);

#endif
