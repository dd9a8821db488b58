/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the next step does, in the plain mode. */
#include <stdlib.h>
#include "engine_plain.h"

void apmw_plain_insert(apmw_engine *engine, pile *p, int64_t at, apmw_seq *seq)
{
    if (p->n == p->capacity) {
        const int64_t capacity = p->capacity ? 2 * p->capacity : 16;
        apmw_seq **v = realloc(p->v, (size_t)capacity * sizeof(*v));
        if (!v) {
            apmw_seq_drop(engine, seq);
            apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
            return;
        }
        p->v = v;
        p->capacity = capacity;
    }
    for (int64_t i = p->n++; i > at; i--)
        p->v[i] = p->v[i - 1];
    p->v[at] = seq;
}

void apmw_plain_take_out(pile *p, const apmw_seq *seq)
{
    int64_t at = 0;
    while (p->v[at] != seq)
        at++;
    p->n--;
    for (; at < p->n; at++)
        p->v[at] = p->v[at + 1];
}

bool apmw_plain_decoding(const apmw_seq *seq)
{
    return seq->request->record.state == APMW_REQUEST_DECODE;
}

static int64_t count(const apmw_engine *engine, int rank, bool only_decoding)
{
    const plain *p = engine->state;
    int64_t n = 0;
    for (int64_t i = 0; i < p->running.n; i++)
        n += p->running.v[i]->rank == rank && (!only_decoding || apmw_plain_decoding(p->running.v[i]));
    return n;
}

static int64_t tokens_in_kv(const apmw_seq *seq)
{
    /* join counts the decode steps made. */
    return apmw_plain_decoding(seq) ? seq->total + seq->join : seq->done;
}

static int64_t grown_blocks(const apmw_engine *engine, int rank, const apmw_seq *without, int64_t more_steps)
{
    const plain *p = engine->state;
    int64_t grown = 0;
    for (int64_t i = 0; i < p->running.n; i++) {
        const apmw_seq *seq = p->running.v[i];
        if (seq->rank == rank && apmw_plain_decoding(seq) && seq != without)
            grown += (seq->join + more_steps) * seq->rate;
    }
    const int64_t size = engine->config.block_tokens * APMW_FIX_ONE;
    return grown / size + (grown % size != 0);
}

/* Blocks that a decode step of the rank needs. */
static int64_t step_blocks(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    if (engine->config.draft_tokens > 0)
        return grown_blocks(engine, rank, NULL, 1) - p->ranks[rank].grown_blocks;
    int64_t blocks = 0;
    for (int64_t i = 0; i < p->running.n; i++) {
        const apmw_seq *seq = p->running.v[i];
        blocks += seq->rank == rank && apmw_plain_decoding(seq) &&
                  tokens_in_kv(seq) % engine->config.block_tokens == 0;
    }
    return blocks;
}

void apmw_plain_leave(apmw_engine *engine, apmw_seq *seq, int64_t kv_tokens)
{
    plain *p = engine->state;
    if (engine->config.draft_tokens > 0 && apmw_plain_decoding(seq)) {
        plain_rank *rank = &p->ranks[seq->rank];
        const int64_t others = grown_blocks(engine, seq->rank, seq, 0);
        seq->lease.taken_blocks += rank->grown_blocks - others;
        rank->grown_blocks = others;
    }
    apmw_plain_take_out(&p->running, seq);
    if (seq->held)
        apmw_seq_commit(engine, seq);
    else
        apmw_seq_release(engine, seq, kv_tokens);
}

static apmw_seq *last_of(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    int64_t at = p->running.n - 1;
    while (p->running.v[at]->rank != rank)
        at--;
    return p->running.v[at];
}

static void preempt(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    const int rank = seq->rank;
    const apmw_request_record record = seq->request->record;
    const int64_t steps = apmw_plain_decoding(seq) ? seq->join : 0;
    /* The lease ends with what decoding has written; the state changes after that. */
    const int64_t kv_tokens =
        record.state == APMW_REQUEST_DECODE ? seq->total + apmw_seq_emitted(seq, steps) : seq->done;
    apmw_plain_leave(engine, seq, kv_tokens);
    apmw_seq_preempt(engine, seq, steps);
    apmw_plain_insert(engine, &p->ranks[rank].waiting, 0, seq);
    p->ranks[rank].preempted = true;
}

static void decode_step(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    while (count(engine, rank, true) > 0 &&
           step_blocks(engine, rank) > apmw_prefix_cache_available(engine->caches[rank]))
        preempt(engine, last_of(engine, rank));
    p->ranks[rank].decodes = count(engine, rank, true) > 0;
    if (!p->ranks[rank].decodes)
        return;
    if (engine->config.draft_tokens > 0) {
        const int64_t blocks = step_blocks(engine, rank);
        APMW_CHECK(apmw_prefix_cache_take(engine->caches[rank], NULL, blocks));
        p->ranks[rank].grown_blocks += blocks;
        return;
    }
    for (int64_t i = 0; i < p->running.n; i++) {
        apmw_seq *seq = p->running.v[i];
        if (seq->rank == rank && apmw_plain_decoding(seq) &&
            tokens_in_kv(seq) % engine->config.block_tokens == 0)
            APMW_CHECK(apmw_prefix_cache_take(engine->caches[rank], &seq->lease, 1));
    }
}

static int64_t piece_tokens(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    int64_t tokens = 0;
    for (int64_t i = 0; i < p->n_pieces; i++)
        tokens += p->pieces[i].seq->rank == rank ? p->pieces[i].tokens : 0;
    return tokens;
}

static int64_t budget(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    const int64_t decode = p->ranks[rank].decodes ? count(engine, rank, true) : 0;
    return engine->config.max_num_batched_tokens - decode * engine->tokens_per_seq -
           piece_tokens(engine, rank);
}

/* Computes `tokens` more of the prompt in this step; if the blocks are not there the sequence gives way. */
static void prefill(apmw_engine *engine, apmw_seq *seq, int64_t tokens)
{
    plain *p = engine->state;
    /* What was fetched in part has the blocks of its whole prompt. */
    const int64_t blocks = seq->fetch == APMW_FETCH_LOADED && seq->lease.pinned_blocks + seq->lease.taken_blocks >=
                                                                  apmw_engine_blocks(engine, seq->total)
                               ? 0
                               : apmw_engine_blocks(engine, seq->done + tokens) - apmw_engine_blocks(engine, seq->done);
    if (!apmw_prefix_cache_take(engine->caches[seq->rank], &seq->lease, blocks)) {
        preempt(engine, seq);
        return;
    }
    if (p->n_pieces == p->piece_capacity) {
        const int64_t capacity = p->piece_capacity ? 2 * p->piece_capacity : 16;
        piece *pieces = realloc(p->pieces, (size_t)capacity * sizeof *pieces);
        apmw_chunk *chunks = realloc(p->chunks, (size_t)capacity * sizeof *chunks);
        p->pieces = pieces ? pieces : p->pieces;
        p->chunks = chunks ? chunks : p->chunks;
        if (!pieces || !chunks) {
            apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
            return;
        }
        p->piece_capacity = capacity;
    }
    p->pieces[p->n_pieces++] = (piece){seq, tokens};
}

/* Prompts that were begun in an earlier step. */
static void continue_prompts(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    for (int64_t i = 0; i < p->running.n; i++) {
        apmw_seq *seq = p->running.v[i];
        if (seq->rank != rank || apmw_plain_decoding(seq))
            continue;
        const int64_t room = budget(engine, rank), left = seq->total - seq->done;
        if (room > 0 && left > 0)
            prefill(engine, seq, left < room ? left : room);
    }
}

/* Is a prompt of this rank between two chunks, with what this step computes? */
static bool prompt_open(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    for (int64_t i = 0; i < p->running.n; i++) {
        const apmw_seq *seq = p->running.v[i];
        int64_t done = seq->done;
        for (int64_t j = 0; j < p->n_pieces; j++)
            done += p->pieces[j].seq == seq ? p->pieces[j].tokens : 0;
        if (seq->rank == rank && !apmw_plain_decoding(seq) && done < seq->total)
            return true;
    }
    return false;
}

static int64_t promised(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    int64_t reserved = 0, held = 0;
    for (int64_t i = 0; i < p->running.n; i++) {
        const apmw_seq *seq = p->running.v[i];
        if (seq->rank != rank)
            continue;
        reserved += seq->promised_blocks;
        held += seq->lease.pinned_blocks + seq->lease.taken_blocks;
    }
    const pile *aside[] = {&p->ranks[rank].loading, &p->ranks[rank].loaded, &p->ranks[rank].held};
    for (size_t k = 0; k < sizeof aside / sizeof aside[0]; k++)
        for (int64_t i = 0; i < aside[k]->n; i++) {
            const apmw_seq *seq = aside[k]->v[i];
            reserved += seq->held ? 0 : seq->promised_blocks;
            held += seq->lease.pinned_blocks + seq->lease.taken_blocks;
        }
    held += p->ranks[rank].grown_blocks;
    return reserved > held ? reserved - held : 0;
}

/* Tokens to compute if the sequence may start beside `pledged` blocks, else 0. *blocks: what it would use. */
static int64_t startable(const apmw_engine *engine, const apmw_seq *seq, int64_t pledged, int64_t *blocks)
{
    const apmw_prefix_cache *cache = engine->caches[seq->rank];
    const int64_t lookup = apmw_seq_lookup_tokens(seq);
    const int64_t matched = apmw_prefix_cache_match(cache, seq->request->stream, lookup);
    *blocks = apmw_seq_wanted_blocks(engine, seq) - matched / engine->config.block_tokens +
              apmw_prefix_cache_unpinned_match(cache, seq->request->stream, lookup);
    if (*blocks + pledged + promised(engine, seq->rank) > apmw_prefix_cache_available(cache))
        return 0;
    return seq->request->record.n_prompt + seq->produced - matched;
}

static void start(apmw_engine *engine, apmw_seq *seq, int64_t tokens)
{
    plain *p = engine->state;
    apmw_plain_take_out(&p->ranks[seq->rank].waiting, seq);
    apmw_seq_admit(engine, seq, apmw_des_now(engine->des));
    apmw_plain_insert(engine, &p->running, p->running.n, seq);
    prefill(engine, seq, tokens);
}

static bool only_whole(const apmw_engine *engine, int64_t tokens)
{
    return engine->config.batching == APMW_BATCHING_TRTLLM && !engine->config.chunked_prefill &&
           tokens <= engine->config.max_num_batched_tokens;
}

/* The tokens that the head of the queue would fetch, 0 = none. */
static int64_t head_fetches(apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    const pile *waiting = &p->ranks[rank].waiting;
    if (waiting->n == 0)
        return 0;
    apmw_seq *seq = waiting->v[0];
    int64_t blocks;
    const bool fits = startable(engine, seq, 0, &blocks) > 0 && count(engine, rank, false) < engine->seq_limit;
    return apmw_seq_wants_fetch(
        engine, seq,
        apmw_prefix_cache_match(engine->caches[rank], seq->request->stream, apmw_seq_lookup_tokens(seq)), fits);
}

/* Takes the blocks of those at the head whose KV comes from outside. */
static void fetch_waiting(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    pile *waiting = &p->ranks[rank].waiting, *loading = &p->ranks[rank].loading;
    for (int64_t to = head_fetches(engine, rank), blocks; to > 0; to = head_fetches(engine, rank)) {
        apmw_seq *seq = waiting->v[0];
        if (startable(engine, seq, 0, &blocks) == 0)
            return;
        apmw_plain_take_out(waiting, seq);
        apmw_plain_insert(engine, loading, loading->n, seq);
        apmw_seq_begin_fetch(engine, seq, to, apmw_des_now(engine->des));
    }
}

static void run_loaded(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    apmw_seq *seq = p->ranks[rank].loaded.v[0];
    apmw_plain_take_out(&p->ranks[rank].loaded, seq);
    apmw_plain_insert(engine, &p->running, p->running.n, seq);
    apmw_seq_end_fetch(engine, seq, apmw_des_now(engine->des));
    apmw_seq_commit(engine, seq);
}

/* Whole prompts from outside decode from now on. */
static void join_loaded(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    const pile *loaded = &p->ranks[rank].loaded;
    while (loaded->n > 0 && loaded->v[0]->request->remote_prefill &&
           count(engine, rank, false) < engine->seq_limit) {
        apmw_seq *seq = loaded->v[0];
        run_loaded(engine, rank);
        apmw_seq_begin_decode(engine, seq);
        seq->join = 0;
    }
}

/* Prompts that came in part go first; false if one of them waits. */
static bool start_loaded(apmw_engine *engine, int rank, int64_t room)
{
    plain *p = engine->state;
    const pile *loaded = &p->ranks[rank].loaded;
    while (loaded->n > 0 && !loaded->v[0]->request->remote_prefill) {
        apmw_seq *seq = loaded->v[0];
        const int64_t left = seq->total - seq->done;
        if (p->ranks[rank].preempted || prompt_open(engine, rank) ||
            count(engine, rank, false) >= engine->seq_limit || room <= 0 ||
            (only_whole(engine, left) && left > room))
            return false;
        run_loaded(engine, rank);
        prefill(engine, seq, left < room ? left : room);
        room -= left < room ? left : room;
    }
    return true;
}

static void start_waiting(apmw_engine *engine, int rank)
{
    plain *p = engine->state;
    pile *waiting = &p->ranks[rank].waiting;
    while (!p->ranks[rank].held_back && !p->ranks[rank].preempted && !prompt_open(engine, rank) && waiting->n > 0 &&
           count(engine, rank, false) < engine->seq_limit) {
        int64_t blocks;
        const int64_t room = budget(engine, rank), tokens = startable(engine, waiting->v[0], 0, &blocks);
        if (room <= 0 || tokens == 0 || head_fetches(engine, rank) > 0 ||
            (only_whole(engine, tokens) && tokens > room))
            return;
        start(engine, waiting->v[0], tokens < room ? tokens : room);
    }
}

/* Could this rank compute a prompt now? */
static bool prefillable(const apmw_engine *engine, int rank)
{
    const plain *p = engine->state;
    const plain_rank *r = &p->ranks[rank];
    int64_t blocks;
    if (prompt_open(engine, rank))
        return true;
    if (count(engine, rank, false) >= engine->seq_limit)
        return false;
    return (r->loaded.n > 0 && !r->loaded.v[0]->request->remote_prefill) ||
           (r->waiting.n > 0 && startable(engine, r->waiting.v[0], 0, &blocks) > 0);
}

static bool sglang_delays(apmw_engine *engine)
{
    plain *p = engine->state;
    int n = 0;
    int64_t decoding = 0;
    if (engine->config.n_ranks < 2 || engine->config.prefill_delay_passes == 0)
        return false;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        n += prefillable(engine, i);
        decoding += count(engine, i, true);
    }
    return apmw_engine_delays_prefill(engine, &p->delay, n, decoding > 0);
}

static void plan_sglang(apmw_engine *engine, int rank, bool delays)
{
    plain *p = engine->state;
    if (delays && !prompt_open(engine, rank)) {
        fetch_waiting(engine, rank);
        decode_step(engine, rank);
        return;
    }
    pile *waiting = &p->ranks[rank].waiting;
    const int64_t chunk = engine->config.max_num_batched_tokens, limit = engine->config.max_prefill_tokens;
    for (int64_t i = 0; i < p->running.n; i++) {
        apmw_seq *seq = p->running.v[i];
        if (seq->rank == rank && !apmw_plain_decoding(seq)) {
            const int64_t left = seq->total - seq->done;
            prefill(engine, seq, left < chunk ? left : chunk);
            break;
        }
    }
    fetch_waiting(engine, rank);
    const int64_t least = chunk < limit ? chunk : limit;
    const bool blocked = head_fetches(engine, rank) > 0;
    const bool all_in = !delays && start_loaded(engine, rank, least - piece_tokens(engine, rank)) && !blocked;
    while (all_in && !p->ranks[rank].preempted && !prompt_open(engine, rank) &&
           waiting->n > 0 && count(engine, rank, false) < engine->seq_limit) {
        int64_t blocks;
        const int64_t used = piece_tokens(engine, rank),
                      tokens = startable(engine, waiting->v[0], 0, &blocks);
        if (used >= chunk || used >= limit || tokens == 0 || (used > 0 && used + tokens > limit) ||
            head_fetches(engine, rank) > 0)
            break;
        start(engine, waiting->v[0], tokens < chunk - used ? tokens : chunk - used);
    }
    if (piece_tokens(engine, rank) == 0)
        decode_step(engine, rank);
}

/* One step after another: a decode step counts 1, any other 1000; an idle rank looks at once. */
void apmw_plain_receive(apmw_engine *engine, int index)
{
    plain *p = engine->state;
    plain_rank *rank = &p->ranks[index];
    rank->recv_count += rank->decodes && !p->idle && count(engine, index, false) > 0 ? 1 : 1000;
    if (rank->recv_count < engine->config.recv_interval)
        return;
    rank->recv_count = 0;
    for (int64_t i = 0; i < rank->unreceived.n; i++)
        apmw_plain_insert(engine, &rank->waiting, rank->waiting.n, rank->unreceived.v[i]);
    rank->unreceived.n = 0;
}

/* Number of prompts that could start in this step; *prompt_tokens: their whole lengths. */
static int64_t candidates(const apmw_engine *engine, int rank, int64_t *prompt_tokens)
{
    const plain *p = engine->state;
    const pile *waiting = &p->ranks[rank].waiting;
    int64_t n = 0, pledged = 0, used = 0;
    *prompt_tokens = 0;
    if (p->ranks[rank].held_back || p->ranks[rank].preempted || prompt_open(engine, rank))
        return 0;
    const int64_t room = budget(engine, rank);
    for (; n < waiting->n && count(engine, rank, false) + n < engine->seq_limit && used < room; n++) {
        const apmw_seq *seq = waiting->v[n];
        int64_t blocks;
        const int64_t tokens = startable(engine, seq, pledged, &blocks);
        if (tokens == 0 || apmw_seq_fetch_open(engine, seq) || (only_whole(engine, tokens) && used + tokens > room))
            break;
        used += tokens;
        pledged += blocks;
        *prompt_tokens += seq->request->record.n_prompt + seq->produced;
    }
    return n;
}

static bool trtllm_holds(apmw_engine *engine)
{
    plain *p = engine->state;
    const apmw_engine_config *c = &engine->config;
    int64_t tokens;
    if (c->n_ranks == 1) {
        if (c->batch_wait_tokens == 0 || c->batch_wait_iters == 0 || candidates(engine, 0, &tokens) == 0 ||
            count(engine, 0, true) == 0)
            return false;
        const bool wait = tokens + count(engine, 0, true) * engine->tokens_per_seq < c->batch_wait_tokens &&
                          p->batch_waits < c->batch_wait_iters;
        p->batch_waits = wait ? p->batch_waits + 1 : 0;
        return wait;
    }
    if (c->adp_wait_iters == 0)
        return false;
    bool prompts = true, decodes = true, room = true;
    for (int i = 0; i < c->n_ranks; i++) {
        prompts = prompts && candidates(engine, i, &tokens) > 0;
        decodes = decodes && count(engine, i, true) > 0;
        room = room && count(engine, i, true) < engine->seq_limit;
    }
    const bool wait = !(prompts && room) && decodes && p->adp_waits + 1 < c->adp_wait_iters;
    p->adp_waits = wait ? p->adp_waits + 1 : 0;
    return wait;
}

bool apmw_plain_plan(apmw_engine *engine)
{
    plain *p = engine->state;
    const apmw_batching batching = engine->config.batching;
    p->n_pieces = 0;
    const bool delays = batching == APMW_BATCHING_SGLANG && sglang_delays(engine);
    for (int i = 0; i < engine->config.n_ranks; i++) {
        p->ranks[i].preempted = p->ranks[i].decodes = false;
        join_loaded(engine, i);
        if (batching == APMW_BATCHING_SGLANG) {
            plan_sglang(engine, i, delays);
        } else {
            decode_step(engine, i);
            continue_prompts(engine, i);
        }
    }
    for (int i = 0; batching != APMW_BATCHING_SGLANG && i < engine->config.n_ranks; i++) {
        fetch_waiting(engine, i);
        const bool blocked = head_fetches(engine, i) > 0;
        p->ranks[i].held_back = !start_loaded(engine, i, budget(engine, i)) || blocked;
    }
    if (batching == APMW_BATCHING_VLLM || (batching == APMW_BATCHING_TRTLLM && !trtllm_holds(engine)))
        for (int i = 0; i < engine->config.n_ranks; i++)
            start_waiting(engine, i);
    bool work = p->n_pieces > 0, preempted = false;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        work = work || p->ranks[i].decodes;
        preempted = preempted || p->ranks[i].preempted;
    }
    return work || (preempted && engine->fault.status == APMW_OK && apmw_plain_plan(engine));
}
