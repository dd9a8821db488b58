/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the next step does: the rules of the three schedulers. Each rank plans for itself; only the waiting
 * rules of TensorRT-LLM look at all ranks. */
#include <stdlib.h>
#include "engine_fast.h"

/* What starting a waiting sequence would need. */
typedef struct offer {
    int64_t matched;
    int64_t new_tokens;
    int64_t blocks; /* that would leave "available": newly pinned and taken, now or later */
} offer;

/* Blocks that running sequences have been promised and not yet taken. */
static int64_t outstanding(const apmw_rank *rank)
{
    return rank->reserved_blocks > rank->lease_blocks ? rank->reserved_blocks - rank->lease_blocks : 0;
}

/* False if its KV does not fit beside `pledged` further blocks. */
static bool make_offer(const apmw_engine *engine, const apmw_rank *rank, const apmw_seq *seq, int64_t pledged,
                       offer *out)
{
    const int64_t lookup = apmw_seq_lookup_tokens(seq);
    const apmw_stream stream = seq->request->stream;
    out->matched = apmw_prefix_cache_match(rank->cache, stream, lookup);
    out->new_tokens = seq->request->record.n_prompt + seq->produced - out->matched;
    out->blocks = apmw_seq_wanted_blocks(engine, seq) - out->matched / engine->config.block_tokens;
    if (out->matched > 0)
        out->blocks += apmw_prefix_cache_unpinned_match(rank->cache, stream, lookup);
    return out->blocks + pledged + outstanding(rank) <= apmw_prefix_cache_available(rank->cache);
}

static bool add_chunk(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq, int64_t tokens)
{
    if (rank->n_chunks == rank->chunk_capacity) {
        const size_t capacity = rank->chunk_capacity ? 2 * rank->chunk_capacity : 8;
        apmw_chunk *chunks = realloc(rank->chunks, capacity * sizeof *chunks);
        if (chunks)
            rank->chunks = chunks;
        apmw_seq **seqs = realloc(rank->chunk_seqs, capacity * sizeof *seqs);
        if (seqs)
            rank->chunk_seqs = seqs;
        if (!chunks || !seqs) {
            apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
            return false;
        }
        rank->chunk_capacity = capacity;
    }
    const int64_t held = seq->lease.pinned_blocks + seq->lease.taken_blocks;
    const int64_t blocks = apmw_engine_blocks(engine, seq->done + tokens) - held;
    if (blocks > 0) {
        APMW_CHECK(apmw_prefix_cache_take(rank->cache, &seq->lease, blocks));
        rank->lease_blocks += blocks;
    }
    rank->chunk_seqs[rank->n_chunks] = seq;
    rank->chunks[rank->n_chunks++] = (apmw_chunk){
        .new_tokens = tokens, .past_tokens = seq->done, .is_last = seq->done + tokens == seq->total};
    rank->chunk_tokens += tokens;
    return true;
}

static void admit(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq)
{
    apmw_seq_list_remove(&rank->waiting, seq);
    apmw_seq_admit(engine, seq, apmw_des_now(engine->des));
    apmw_seq_list_append(&rank->running, seq);
    rank->lease_blocks += seq->lease.pinned_blocks;
    rank->reserved_blocks += seq->promised_blocks;
}

/* Waiting ones whose KV comes from outside, as long as the head is such a one and its blocks fit. They need no
 * place in the batch yet. True if the head waits for blocks: nobody overtakes it. */
static bool start_fetches(apmw_engine *engine, apmw_rank *rank)
{
    while (rank->waiting.head) {
        apmw_seq *seq = rank->waiting.head;
        offer o;
        if (!apmw_seq_asks(engine, seq))
            return false;
        const bool fits = make_offer(engine, rank, seq, 0, &o);
        const int64_t to = apmw_seq_wants_fetch(engine, seq, o.matched, fits && rank->running.n < engine->seq_limit);
        if (to == 0)
            return false;
        if (!fits)
            return true;
        apmw_seq_list_remove(&rank->waiting, seq);
        apmw_seq_list_append(&rank->loading, seq);
        apmw_seq_begin_fetch(engine, seq, to, apmw_des_now(engine->des));
        rank->lease_blocks += seq->lease.pinned_blocks + seq->lease.taken_blocks;
        rank->reserved_blocks += seq->promised_blocks;
    }
    return false;
}

static void run_loaded(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq)
{
    apmw_seq_list_remove(&rank->loaded, seq);
    apmw_seq_list_append(&rank->running, seq);
    apmw_seq_end_fetch(engine, seq, apmw_des_now(engine->des));
}

/* Prompts that came whole decode from this step on. */
static void join_loaded(apmw_engine *engine, apmw_rank *rank)
{
    while (rank->loaded.head && rank->loaded.head->request->remote_prefill &&
           rank->running.n < engine->seq_limit) {
        apmw_seq *seq = rank->loaded.head;
        run_loaded(engine, rank, seq);
        apmw_seq_commit(engine, seq);
        apmw_rank_join(engine, rank, seq);
    }
}

static void preempt(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq)
{
    int64_t steps = 0;
    if (seq == rank->partial)
        rank->partial = NULL;
    else
        steps = apmw_rank_leave(engine, rank, seq);
    rank->lease_blocks -= seq->lease.pinned_blocks + seq->lease.taken_blocks;
    rank->reserved_blocks -= seq->promised_blocks;
    apmw_seq_list_remove(&rank->running, seq);
    const int64_t kv_tokens = apmw_seq_preempt(engine, seq, steps);
    apmw_seq_release(engine, seq, kv_tokens);
    apmw_seq_list_prepend(&rank->waiting, seq);
    rank->preempted = true;
}

/* Decoding sequences take one step; the last admitted ones give way until its blocks fit. */
static void plan_decodes(apmw_engine *engine, apmw_rank *rank)
{
    while (rank->n_decode > 0 && apmw_rank_demand(engine, rank, 1) > apmw_prefix_cache_available(rank->cache))
        preempt(engine, rank, rank->running.tail);
    rank->decodes = rank->n_decode > 0;
    apmw_rank_take_to(engine, rank, 1);
}

static int64_t budget_left(const apmw_engine *engine, const apmw_rank *rank)
{
    const int64_t decode = rank->decodes ? rank->n_decode * engine->tokens_per_seq : 0;
    return engine->config.max_num_batched_tokens - decode - rank->chunk_tokens;
}

/* The sequence that stands between two chunks goes on with what the budget leaves. Nobody was admitted after
 * it, so when blocks run out it is the one that gives way. */
static void plan_partial(apmw_engine *engine, apmw_rank *rank)
{
    apmw_seq *seq = rank->partial;
    if (!seq)
        return;
    int64_t tokens = seq->total - seq->done;
    const int64_t budget = budget_left(engine, rank);
    if (tokens > budget)
        tokens = budget;
    if (tokens <= 0)
        return;
    const int64_t held = seq->lease.pinned_blocks + seq->lease.taken_blocks;
    if (apmw_engine_blocks(engine, seq->done + tokens) - held > apmw_prefix_cache_available(rank->cache)) {
        preempt(engine, rank, seq);
        return;
    }
    if (add_chunk(engine, rank, seq, tokens) && seq->done + tokens == seq->total)
        rank->partial = NULL;
}

/* TensorRT-LLM without chunking starts a prompt only whole. What a preempted sequence recomputes may exceed
 * any budget; it is cut, since otherwise it could never go on. */
static bool starts_whole(const apmw_engine *engine, int64_t new_tokens)
{
    return engine->config.batching == APMW_BATCHING_TRTLLM && !engine->config.chunked_prefill &&
           new_tokens <= engine->config.max_num_batched_tokens;
}

/* Prompts that came in part compute the rest; their blocks are taken. Returns false if one has no room. */
static bool continue_loaded(apmw_engine *engine, apmw_rank *rank, int64_t *budget, bool whole_rule)
{
    while (rank->loaded.head && !rank->loaded.head->request->remote_prefill) {
        apmw_seq *seq = rank->loaded.head;
        const int64_t left = seq->total - seq->done;
        if (rank->preempted || rank->partial || rank->running.n >= engine->seq_limit || *budget <= 0 ||
            (whole_rule && starts_whole(engine, left) && left > *budget))
            return false;
        const int64_t tokens = left < *budget ? left : *budget;
        run_loaded(engine, rank, seq);
        apmw_seq_commit(engine, seq);
        if (!add_chunk(engine, rank, seq, tokens))
            return false;
        if (tokens < left)
            rank->partial = seq;
        *budget -= tokens;
    }
    return true;
}

/* vLLM v1 and TensorRT-LLM: waiting ones in order while tokens, sequences and KV allow. */
static void admit_beside_decodes(apmw_engine *engine, apmw_rank *rank)
{
    if (rank->held_back || rank->preempted || rank->partial)
        return;
    while (rank->waiting.head && rank->running.n < engine->seq_limit) {
        apmw_seq *seq = rank->waiting.head;
        const int64_t budget = budget_left(engine, rank);
        offer o;
        if (budget <= 0 || !make_offer(engine, rank, seq, 0, &o) ||
            apmw_seq_wants_fetch(engine, seq, o.matched, true) > 0)
            return;
        if (starts_whole(engine, o.new_tokens) && o.new_tokens > budget)
            return;
        const int64_t tokens = o.new_tokens < budget ? o.new_tokens : budget;
        admit(engine, rank, seq);
        if (!add_chunk(engine, rank, seq, tokens))
            return;
        if (tokens < o.new_tokens)
            rank->partial = seq;
    }
}

/* SGLang: a prefill batch, if there is anything to prefill; else a decode step. The chunk size bounds the
 * tokens of the batch (its last prompt is cut there); max_prefill_tokens bounds them too, but the first
 * prompt always goes. The server estimates memory by a ratio of the output caps; here a prompt is admitted
 * when it and the blocks of one decode step fit. A prompt that has begun goes on while others are held back
 * (add_chunked_req does not ask the delayer). */
static void plan_sglang(apmw_engine *engine, apmw_rank *rank, bool delays)
{
    if (delays && rank->partial == NULL) {
        start_fetches(engine, rank);
        plan_decodes(engine, rank);
        return;
    }
    int64_t chunk_left = engine->config.max_num_batched_tokens;
    int64_t prefill_left = engine->config.max_prefill_tokens;
    apmw_seq *seq = rank->partial;
    if (seq) {
        int64_t tokens = seq->total - seq->done;
        if (tokens > chunk_left)
            tokens = chunk_left;
        const int64_t held = seq->lease.pinned_blocks + seq->lease.taken_blocks;
        if (apmw_engine_blocks(engine, seq->done + tokens) - held >
            apmw_prefix_cache_available(rank->cache)) {
            preempt(engine, rank, seq);
        } else {
            if (!add_chunk(engine, rank, seq, tokens))
                return;
            if (seq->done + tokens == seq->total)
                rank->partial = NULL;
            chunk_left -= tokens;
            prefill_left -= tokens;
        }
    }
    const bool blocked = start_fetches(engine, rank);
    int64_t room = chunk_left < prefill_left ? chunk_left : prefill_left;
    const int64_t room_before = room;
    const bool all_in = !delays && continue_loaded(engine, rank, &room, false);
    chunk_left -= room_before - room;
    prefill_left -= room_before - room;
    while (all_in && !blocked && !rank->preempted && !rank->partial && rank->waiting.head &&
           rank->running.n < engine->seq_limit && chunk_left > 0 && prefill_left > 0) {
        offer o;
        seq = rank->waiting.head;
        if (!make_offer(engine, rank, seq, 0, &o) || (rank->n_chunks > 0 && o.new_tokens > prefill_left) ||
            apmw_seq_wants_fetch(engine, seq, o.matched, true) > 0)
            break;
        const int64_t tokens = o.new_tokens < chunk_left ? o.new_tokens : chunk_left;
        admit(engine, rank, seq);
        if (!add_chunk(engine, rank, seq, tokens))
            return;
        if (tokens < o.new_tokens)
            rank->partial = seq;
        chunk_left -= tokens;
        prefill_left -= tokens;
    }
    if (rank->n_chunks == 0)
        plan_decodes(engine, rank);
}

/* SGLang looks for new requests when a counter reaches the interval: a decode step adds 1, any other step
 * 1000 (SchedulerRecvSkipper). An idle rank looks at once. */
static void receive(apmw_engine *engine, apmw_fast *fast, apmw_rank *rank)
{
    const int64_t interval = engine->config.recv_interval;
    if (rank->decodes && rank->running.n > 0 && !fast->idle)
        rank->recv_count = (rank->recv_count + fast->n_steps) % interval;
    else
        rank->recv_count = 0;
    while (rank->recv_count == 0 && rank->unreceived.head) {
        apmw_seq *seq = rank->unreceived.head;
        apmw_seq_list_remove(&rank->unreceived, seq);
        apmw_seq_list_append(&rank->waiting, seq);
    }
}

/* Prompts that could start in this step: their number, tokens and blocks. */
static int64_t count_candidates(apmw_engine *engine, apmw_rank *rank)
{
    rank->candidates = rank->candidate_blocks = 0;
    int64_t tokens = 0, prompt_tokens = 0;
    if (rank->held_back || rank->preempted || rank->partial)
        return 0;
    const int64_t budget = budget_left(engine, rank);
    for (const apmw_seq *seq = rank->waiting.head;
         seq && rank->running.n + rank->candidates < engine->seq_limit && tokens < budget; seq = seq->next) {
        offer o;
        if (apmw_seq_fetch_open(engine, seq) || !make_offer(engine, rank, seq, rank->candidate_blocks, &o))
            break;
        if (starts_whole(engine, o.new_tokens) && tokens + o.new_tokens > budget)
            break;
        tokens += o.new_tokens;
        prompt_tokens += o.new_tokens + o.matched;
        rank->candidates++;
        rank->candidate_blocks += o.blocks;
    }
    return prompt_tokens;
}

/* TensorRT-LLM, without attention-DP (_waiting_requests of the PyTorch executor): beside running decodes,
 * prompts wait until the tokens of the iteration reach the limit or enough iterations have waited. */
static bool holds_for_tokens(apmw_engine *engine, apmw_fast *fast)
{
    const apmw_engine_config *c = &engine->config;
    apmw_rank *rank = &fast->ranks[0];
    if (c->batch_wait_tokens == 0 || c->batch_wait_iters == 0 || c->n_ranks > 1)
        return false;
    const int64_t prompt_tokens = count_candidates(engine, rank);
    if (rank->candidates == 0 || rank->n_decode == 0)
        return false;
    if (fast->batch_waits < c->batch_wait_iters &&
        prompt_tokens + rank->n_decode * engine->tokens_per_seq < c->batch_wait_tokens) {
        fast->batch_waits++;
        fast->batch_holds = true;
        return true;
    }
    fast->batch_waits = 0;
    return false;
}

/* TensorRT-LLM, attention-DP balance (_balance_adp_requests): while all ranks decode, prompts wait until all
 * have one. The count of waiting iterations runs on, and starts again at the limit, whether or not a prompt
 * waits. */
static bool holds_for_ranks(apmw_engine *engine, apmw_fast *fast)
{
    const apmw_engine_config *c = &engine->config;
    if (c->adp_wait_iters == 0 || c->n_ranks < 2)
        return false;
    bool all_prompt = true, all_decode = true, all_free = true;
    for (int i = 0; i < c->n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        count_candidates(engine, rank);
        all_prompt = all_prompt && rank->candidates > 0;
        all_decode = all_decode && rank->n_decode > 0;
        all_free = all_free && rank->n_decode < engine->seq_limit;
    }
    if (all_prompt && all_free) {
        fast->adp_waits = 0;
        return false;
    }
    fast->adp_waits++;
    if (fast->adp_waits >= c->adp_wait_iters || !all_decode) {
        fast->adp_waits = 0;
        fast->adp_counts = all_decode;
        return false;
    }
    fast->adp_counts = true;
    return true;
}

/* SGLang with attention-DP: prompts wait until all ranks have one. */
static bool delays_prefill(apmw_engine *engine, apmw_fast *fast)
{
    if (engine->config.prefill_delay_passes == 0 || engine->config.n_ranks < 2)
        return false;
    int prefillable = 0;
    bool decodes = false;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        offer o;
        const bool places = rank->running.n < engine->seq_limit;
        prefillable += rank->partial || (places && rank->loaded.head && !rank->loaded.head->request->remote_prefill) ||
                       (places && rank->waiting.head && make_offer(engine, rank, rank->waiting.head, 0, &o));
        decodes = decodes || rank->n_decode > 0;
    }
    return apmw_engine_delays_prefill(engine, &fast->delay, prefillable, decodes);
}

static bool plan_once(apmw_engine *engine, apmw_fast *fast)
{
    const apmw_batching batching = engine->config.batching;
    fast->delays = batching == APMW_BATCHING_SGLANG && delays_prefill(engine, fast);
    for (int i = 0; i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        rank->preempted = rank->decodes = false;
        rank->n_chunks = 0;
        rank->chunk_tokens = rank->candidates = rank->candidate_blocks = 0;
        join_loaded(engine, rank);
        if (batching == APMW_BATCHING_SGLANG) {
            plan_sglang(engine, rank, fast->delays);
        } else {
            plan_decodes(engine, rank);
            plan_partial(engine, rank);
        }
    }
    fast->batch_holds = fast->adp_counts = false;
    /* The waiting rules are about prompts to compute: what was fetched goes on at once. */
    for (int i = 0; batching != APMW_BATCHING_SGLANG && i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        rank->held_back = start_fetches(engine, rank);
        int64_t left = budget_left(engine, rank);
        rank->held_back = !continue_loaded(engine, rank, &left, true) || rank->held_back;
    }
    if (batching == APMW_BATCHING_VLLM || (batching == APMW_BATCHING_TRTLLM &&
                                           !holds_for_tokens(engine, fast) && !holds_for_ranks(engine, fast)))
        for (int i = 0; i < engine->config.n_ranks; i++) {
            fast->ranks[i].candidates = 0;
            admit_beside_decodes(engine, &fast->ranks[i]);
        }
    bool work = false;
    for (int i = 0; i < engine->config.n_ranks; i++)
        work = work || fast->ranks[i].decodes || fast->ranks[i].n_chunks > 0;
    return work;
}

bool apmw_fast_plan(apmw_engine *engine)
{
    apmw_fast *fast = engine->state;
    if (engine->config.batching == APMW_BATCHING_SGLANG && engine->config.recv_interval > 1)
        for (int i = 0; i < engine->config.n_ranks; i++)
            receive(engine, fast, &fast->ranks[i]);
    /* If all that ran has given way, its place is free at once. */
    for (;;) {
        if (plan_once(engine, fast))
            return true;
        bool again = false;
        for (int i = 0; i < engine->config.n_ranks; i++)
            again = again || fast->ranks[i].preempted;
        if (!again || engine->fault.status != APMW_OK)
            return false;
    }
}
