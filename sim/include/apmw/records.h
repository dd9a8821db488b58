/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the simulator tells observers. Plain data; metrics, protocol and the laws see only this. */
#ifndef APMW_RECORDS_H
#define APMW_RECORDS_H
#include <stdbool.h>
#include <stdint.h>
#include "apmw/time.h"

typedef enum apmw_request_state {
    APMW_REQUEST_WAITING,
    APMW_REQUEST_PREFILL,
    APMW_REQUEST_DECODE,
    APMW_REQUEST_PREEMPTED,
    APMW_REQUEST_DONE,
    APMW_REQUEST_CANCELLED,
    APMW_REQUEST_REJECTED /* can never fit: longer than the pool or the context limit */
} apmw_request_state;

/* One request when it has reached a terminal state (or the run has ended: state then is not terminal). */
typedef struct apmw_request_record {
    uint64_t id;
    int32_t agent;      /* slot or agent index of the load driver */
    int32_t trajectory; /* index in the trace set, -1 if none */
    int32_t play;       /* how many trajectories this agent had begun before this one */
    int32_t turn;       /* in the trajectory */
    int32_t engine;     /* replica that served it */
    int32_t rank;       /* attention-DP rank */
    apmw_request_state state;
    int64_t n_prompt, n_cached, n_out; /* tokens; cached = hit at first admission */
    int64_t n_fetched;                 /* prompt tokens beyond n_cached that came from a lower tier of KV */
    int64_t n_transferred;             /* prompt tokens that came from a prefill engine */
    int64_t n_recomputed;              /* tokens computed again after preemption */
    int32_t n_preemptions;
    apmw_time submitted, admitted, first_scheduled, first_token, last_token, done; /* APMW_TIME_NEVER = not */
    bool last_of_trajectory;
} apmw_request_record;

/* One stretch of equal steps of an engine (n_steps = 1 for mixed steps). Sums over the stretch. */
typedef struct apmw_step_record {
    int32_t engine;
    apmw_time begin, end;
    int64_t n_steps;
    int64_t n_seqs;         /* decoding sequences, all ranks, in each step */
    int64_t prefill_tokens; /* all ranks */
    int64_t decode_tokens;  /* emitted over the stretch, all ranks */
    int64_t n_waiting;      /* requests waiting when it began */
    double kernel_s;        /* composed kernel time, summed over the steps, critical rank */
    double flops;           /* per accelerator, summed */
    double bytes;           /* HBM bytes per accelerator, summed */
    double outside_steps;   /* steps priced outside the measured domain */
    int64_t kv_used_blocks, kv_capacity_blocks; /* over ranks, at the end */
} apmw_step_record;

/* An observer. Any hook may be NULL. Records are valid during the call only. */
typedef struct apmw_probe {
    void *self;
    void (*on_submit)(void *self, apmw_time now, const apmw_request_record *record);
    void (*on_request)(void *self, apmw_time now, const apmw_request_record *record); /* terminal state */
    void (*on_step)(void *self, const apmw_step_record *record);
    void (*on_end)(void *self, apmw_time now);
} apmw_probe;

#endif
