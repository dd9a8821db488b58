/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How KV that an engine has not computed comes into its pool: from a prefill engine (disaggregation) or from a
 * tier below HBM. After vLLM's KV connectors with asynchronous loading: the scheduler takes the blocks first,
 * the fetch runs beside the steps, and the request joins the batch at the first step boundary after it. */
#ifndef APMW_CONNECTOR_H
#define APMW_CONNECTOR_H
#include <stdint.h>
#include "apmw/kv.h"

struct apmw_engine;
struct apmw_request;

typedef struct apmw_connector {
    void *self;
    /* Tokens of the prompt, counted from the first, that can be brought and are worth it, when the pool of this rank
     * has the first `matched`; `matched` or less: none. Asked when the request is at the head of its queue, again
     * when it could be admitted, and after a preemption: the last answer holds. Not asked for a request whose prompt
     * was computed elsewhere (apmw_request.remote_prefill): all of that comes. */
    int64_t (*available)(void *self, struct apmw_engine *engine, const struct apmw_request *request, int rank,
                         int64_t matched);
    /* The blocks of tokens [from, to) have been taken. The connector calls apmw_engine_fetched later, from an
     * event of its own. */
    void (*fetch)(void *self, struct apmw_engine *engine, struct apmw_request *request, int rank, int64_t from,
                  int64_t to);
    /* The prompt of a request has been computed here, or more of its stream by the time it ends (or its held KV is released):
     * the first n_tokens are in the pool and findable. Also at the end of a request that never got so far. May be NULL. */
    void (*computed)(void *self, struct apmw_engine *engine, const struct apmw_request *request, int rank,
                     int64_t n_tokens);
    /* A request lets go of its blocks, at its end (or when its held KV is released) or preempted: n_all tokens of it
     * were in KV, of which the first n_tokens are findable in the pool. May be NULL. */
    void (*released)(void *self, struct apmw_engine *engine, const struct apmw_request *request, int rank,
                     int64_t n_tokens, int64_t n_all);
    /* The pool of this rank has evicted tokens [from, to) of the stream's own content; what comes before them on
     * its path is still there. Called amid the engine's work: it must not be called back. May be NULL. */
    void (*evicted)(void *self, struct apmw_engine *engine, int rank, apmw_stream stream, int64_t from, int64_t to);
    /* A request was submitted: it will be admitted later. Its rank is known if rank_hint tells. May be NULL. */
    void (*submitted)(void *self, struct apmw_engine *engine, const struct apmw_request *request);
} apmw_connector;

#endif
