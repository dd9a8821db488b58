/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A serving engine: one scheduler, one KV pool a rank, and a step loop on a group of accelerators. With
 * attention data parallelism the ranks step in lock-step, each with its own batch and KV.
 *
 * Cost of simulation: nothing per step loops over the batch. Completions are ordered by a progress counter
 * (decode steps since the engine started) in a heap; the batch keeps running sums (sequences, effective KV by
 * attention kind); KV growth is counted by residue class of the context modulo the block size; and between
 * two changes of the batch one event ends a stretch of steps whose times are summed in closed form. The plain
 * mode (apmw_engine_config.plain) does one step at a time with loops over the batch: it is the oracle.
 *
 * KV of drafting sequences grows by fractions of a token a step, each at the mean rate of its own drawn
 * length; their blocks are counted for the whole rank. Ranks decide for themselves whether they prefill or
 * decode, and end their steps together. A server that divides a token budget among its ranks (SGLang with
 * attention-DP) is given the divided budget.
 *
 * Policies never see a request's true output length, with one exception: a request that cannot end inside the
 * pool or the context limit is rejected when it reaches the scheduler. */
#ifndef APMW_ENGINE_H
#define APMW_ENGINE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/connector.h"
#include "apmw/des.h"
#include "apmw/kv.h"
#include "apmw/records.h"
#include "apmw/status.h"
#include "apmw/step_cost.h"

/* How a batch is formed. Sources: vLLM v1 scheduler, SGLang scheduler, TensorRT-LLM PyTorch executor. */
typedef enum apmw_batching {
    APMW_BATCHING_VLLM,   /* decode tokens first, prompt chunks fill the rest of the token budget */
    APMW_BATCHING_SGLANG, /* a prefill batch is a step of its own, prefill first, chunked */
    APMW_BATCHING_TRTLLM  /* whole prompts beside the running decodes, within the token budget */
} apmw_batching;

typedef struct apmw_engine_config {
    const apmw_step_cost *cost;  /* borrowed */
    const apmw_streams *streams; /* borrowed */
    apmw_batching batching;
    int n_ranks;                    /* attention-DP ranks, >= 1 */
    int64_t max_num_seqs;           /* a rank: running sequences */
    int64_t max_num_batched_tokens; /* a rank: tokens in a pass (vLLM), of a chunk (SGLang), of an iteration
                                       (TRT) */
    int64_t max_prefill_tokens; /* SGLang: sum of new tokens of a prefill batch; 0 = max_num_batched_tokens */
    bool chunked_prefill;       /* TRT-LLM: false = a prompt is scheduled whole */
    int64_t max_model_len;      /* prompt + output; longer requests are rejected; 0 = no limit */
    int64_t block_tokens;
    int64_t kv_blocks; /* a rank */
    bool prefix_caching;
    /* SGLang: steps between looks for new requests; 0 or 1 = every step (a prefill step resets to "look"). */
    int recv_interval;
    /* TRT-LLM: prompts wait until this many tokens have gathered or so many iterations have passed; 0 = off.
     */
    int64_t batch_wait_tokens;
    int batch_wait_iters;
    /* TRT-LLM with attention-DP: while all ranks decode, prompts wait until every rank can get one, at most
     * so many iterations; 0 = off. The count of iterations runs on whether or not a prompt waits, so one that
     * comes alone waits half the limit on average. */
    int adp_wait_iters;
    /* SGLang with attention-DP (prefill delayer): while some ranks could prefill and others could not, prompts wait for so
     * many passes and no longer than so long, as long as a rank decodes; 0 passes = off. */
    int prefill_delay_passes;
    apmw_time prefill_delay_ns;
    /* Request handling outside the step loop: fixed latency before a request is seen by the scheduler, and a
     * serial front end (tokenizer and API server: one request after another). */
    apmw_time request_overhead_ns;
    double frontend_ns_per_token;
    /* Speculative decoding: draft tokens verified a step (0 = off) and mean tokens emitted a step (>= 1). The
     * steps of a sequence's output are drawn once, when it starts to decode. */
    int draft_tokens;
    double acceptance_length;
    /* Of the tokens emitted a step; 0: as if every drafted token had the same chance once those before it are accepted. */
    double acceptance_variance;
    bool acceptance_fixed; /* no spread: every sequence emits at the mean rate */
    /* Relative sd of the mean rate between sequences, beside what the draws of their steps give: some texts are easier to
     * draft than others. 0 = all alike. */
    double acceptance_spread;
    uint64_t seed;
    bool plain; /* the step-by-step oracle */
    /* TRT-LLM (GUARANTEED_NO_EVICT): output tokens for which KV is reserved at admission when the request
     * declares no max_tokens; 0 = no reservation (then KV may run out, and the last admitted sequence is
     * preempted). */
    int64_t reserve_output_tokens;
    const apmw_connector *connector; /* borrowed; NULL: all KV is computed here */
    apmw_kv_policy kv_policy; /* what goes first when the pool is full: all but idle TTL; LFU does not age */
} apmw_engine_config;

typedef struct apmw_request apmw_request;
struct apmw_request {
    apmw_request_record record; /* id, agent, trajectory, play, turn, n_prompt, n_out, last_of_trajectory by
                                   the load driver; the rest by router and engine */
    apmw_stream stream;         /* content of the prompt: positions [0, n_prompt) of this stream */
    bool output_kept;           /* generated tokens continue the stream (a later prompt may hit them) */
    int rank_hint;              /* router's choice of rank, -1 = engine chooses (fewest tokens held) */
    int64_t max_tokens; /* output cap that the client declares; policies may see it; 0 = none declared */
    /* The prompt was computed elsewhere and its first token with it: the connector brings all of its KV, and
     * decoding starts with the second token (n_out >= 2). The first counts as delivered when the sequence joins
     * the batch. */
    bool remote_prefill;
    bool hold_kv; /* its KV stays held after the end, until apmw_engine_release_kv */
    bool silent;  /* probes hear of its steps, not of its submission and end */
    /* called once, in a terminal state, at the client's time of the last token */
    void (*on_done)(apmw_request *request, void *self, apmw_time now);
    void *self;
    void *private_; /* engine's */
};

typedef struct apmw_engine apmw_engine;
/* Probes are borrowed and called in order. NULL + err on bad configuration or out of memory. */
apmw_status apmw_engine_create(apmw_des *des, const apmw_engine_config *config, int32_t index,
                               const apmw_probe *const *probes, size_t n_probes, apmw_engine **out,
                               apmw_error *err);
void apmw_engine_free(apmw_engine *engine);
/* At des time `now` the request is submitted. The request stays owned by the caller and must live until
 * on_done. record.submitted is set to now. */
void apmw_engine_submit(apmw_engine *engine, apmw_request *request);
/* What the connector was asked to fetch for this request is there. Call it from an event. */
void apmw_engine_fetched(apmw_engine *engine, apmw_request *request);
/* What was to be fetched never comes: the request ends here as rejected and its blocks are free. Call it from an event,
 * while the fetch is under way. */
void apmw_engine_abandon(apmw_engine *engine, apmw_request *request);
/* The client gives a request up: if it still waits for admission it ends here, cancelled. False: it does not wait (any more).
 * Call it from an event. */
bool apmw_engine_cancel(apmw_engine *engine, apmw_request *request);
/* Releases what a request with hold_kv, which has ended here, still holds. Call it from an event, once. */
void apmw_engine_release_kv(apmw_engine *engine, apmw_request *request);
/* Router's view: requests submitted and not ended, and the sum of their prompt tokens (with the tokens that a
 * preempted one had produced); rank -1 = whole engine. A rank counts a request from the moment its rank is
 * known: at submission with a rank hint, else when it reaches the scheduler. */
int64_t apmw_engine_load(const apmw_engine *engine, int rank);
int64_t apmw_engine_tokens(const apmw_engine *engine, int rank);
int64_t apmw_engine_match(const apmw_engine *engine, int rank, apmw_stream stream, int64_t n_prompt);
int apmw_engine_ranks(const apmw_engine *engine);
/* KV counters of one rank. */
void apmw_engine_kv_stats(const apmw_engine *engine, int rank, apmw_kv_stats *out);
/* Ends the busy/idle books at `now` and reports busy time (sum of step times). */
apmw_time apmw_engine_busy(const apmw_engine *engine);
uint64_t apmw_engine_steps(const apmw_engine *engine);
/* Invariants (laws L6, L8, L9). */
/* Also reports what has stopped the engine: APMW_E_NOMEM, or APMW_E_INTERNAL for a cost that gave no positive
 * time. The clock is then stopped; requests in flight never end. */
apmw_status apmw_engine_check(const apmw_engine *engine, apmw_error *err);

#endif
