/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "engine_fast.h"

static int64_t fixed_blocks(const apmw_engine *engine, int64_t grown)
{
    const int64_t size = engine->config.block_tokens * APMW_FIX_ONE;
    return grown / size + (grown % size != 0);
}

int64_t apmw_rank_demand(const apmw_engine *engine, const apmw_rank *rank, int64_t n_steps)
{
    if (engine->config.draft_tokens > 0)
        return fixed_blocks(engine, rank->grown + n_steps * rank->rate) - rank->grown_blocks;
    const int64_t size = engine->config.block_tokens;
    const int64_t steps = n_steps - rank->ahead;
    int64_t demand = steps / size * rank->n_decode;
    int64_t at = (rank->progress + rank->ahead) % size;
    for (int64_t left = steps % size; left > 0; left--) {
        demand += rank->crossing[at];
        if (++at == size)
            at = 0;
    }
    return demand;
}

int64_t apmw_rank_steps_within(const apmw_engine *engine, const apmw_rank *rank, int64_t blocks,
                               int64_t limit)
{
    const int64_t size = engine->config.block_tokens;
    if (rank->n_decode == 0 || limit <= rank->ahead || apmw_rank_demand(engine, rank, limit) <= blocks)
        return limit;
    if (engine->config.draft_tokens > 0) {
        /* ceil((grown + n * rate) / size) <= grown_blocks + blocks */
        const int64_t room = (rank->grown_blocks + blocks) * size * APMW_FIX_ONE - rank->grown;
        const int64_t steps = room / rank->rate;
        return steps < limit ? steps : limit;
    }
    int64_t steps = rank->ahead + blocks / rank->n_decode * size;
    int64_t left = blocks % rank->n_decode;
    int64_t at = (rank->progress + steps) % size;
    /* Ends within one cycle: a full cycle takes n_decode > left. */
    while (rank->crossing[at] <= left) {
        left -= rank->crossing[at];
        steps++;
        if (++at == size)
            at = 0;
    }
    return steps < limit ? steps : limit;
}

void apmw_rank_take_to(apmw_engine *engine, apmw_rank *rank, int64_t n_steps)
{
    if (n_steps <= rank->ahead || rank->n_decode == 0)
        return;
    const int64_t blocks = apmw_rank_demand(engine, rank, n_steps);
    if (blocks > 0) {
        APMW_CHECK(apmw_prefix_cache_take(rank->cache, NULL, blocks));
        rank->lease_blocks += blocks;
        if (engine->config.draft_tokens > 0)
            rank->grown_blocks += blocks;
    }
    rank->ahead = n_steps;
}

/* Context of the step that begins at the rank's progress: what is in KV and the token being computed. */
static int64_t context_now(const apmw_rank *rank, const apmw_seq *seq)
{
    return (seq->total + 1) * APMW_FIX_ONE + (rank->progress - seq->join) * seq->rate;
}

static int64_t fixed_cap(int64_t cap)
{
    return cap > INT64_MAX / APMW_FIX_ONE ? INT64_MAX : cap * APMW_FIX_ONE;
}

/* Puts kinds that the context has reached among the constants and queues the next breakpoint. */
static void settle_caps(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq, bool counted)
{
    const int64_t context = context_now(rank, seq);
    for (; seq->n_capped < engine->n_kinds; seq->n_capped++) {
        const int kind = engine->cap_order[seq->n_capped];
        const int64_t cap = fixed_cap(engine->config.cost->kv_cap[kind]);
        if (context < cap) {
            if (cap == INT64_MAX)
                return;
            const int64_t steps = (cap - context + seq->rate - 1) / seq->rate;
            if (!apmw_seq_heap_push(&rank->caps, rank->progress + steps, seq))
                apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
            return;
        }
        if (counted) {
            rank->kv[kind] -= context;
            rank->growth[kind] -= seq->rate;
        }
        rank->kv[kind] += cap;
    }
}

void apmw_rank_join(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq)
{
    const int64_t size = engine->config.block_tokens;
    apmw_seq_begin_decode(engine, seq);
    seq->join = rank->progress;
    seq->n_capped = 0;
    seq->slot[0] = seq->slot[1] = APMW_NO_SLOT;
    if (engine->config.draft_tokens == 0)
        rank->crossing[((rank->progress - seq->total) % size + size) % size]++;
    rank->n_decode++;
    rank->rate += seq->rate;
    settle_caps(engine, rank, seq, false);
    for (int i = seq->n_capped; i < engine->n_kinds; i++) {
        rank->kv[engine->cap_order[i]] += context_now(rank, seq);
        rank->growth[engine->cap_order[i]] += seq->rate;
    }
    if (!apmw_seq_heap_push(&rank->ends, rank->progress + seq->n_steps, seq))
        apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
}

int64_t apmw_rank_leave(apmw_engine *engine, apmw_rank *rank, apmw_seq *seq)
{
    const int64_t size = engine->config.block_tokens;
    const int64_t steps = rank->progress - seq->join;
    for (int i = 0; i < engine->n_kinds; i++) {
        const int kind = engine->cap_order[i];
        if (i < seq->n_capped) {
            rank->kv[kind] -= fixed_cap(engine->config.cost->kv_cap[kind]);
        } else {
            rank->kv[kind] -= context_now(rank, seq);
            rank->growth[kind] -= seq->rate;
        }
    }
    rank->n_decode--;
    rank->rate -= seq->rate;
    apmw_seq_heap_remove(&rank->ends, seq);
    apmw_seq_heap_remove(&rank->caps, seq);
    if (engine->config.draft_tokens == 0) {
        rank->crossing[((seq->join - seq->total) % size + size) % size]--;
        seq->lease.taken_blocks = apmw_engine_blocks(engine, seq->total + steps) - seq->lease.pinned_blocks;
    } else {
        rank->grown -= steps * seq->rate;
        const int64_t share = rank->grown_blocks - fixed_blocks(engine, rank->grown);
        rank->grown_blocks -= share;
        seq->lease.taken_blocks += share;
    }
    return steps;
}

void apmw_rank_advance(apmw_engine *engine, apmw_rank *rank, int64_t n_steps)
{
    apmw_rank_take_to(engine, rank, n_steps);
    rank->progress += n_steps;
    rank->ahead = 0;
    if (engine->config.draft_tokens > 0)
        rank->grown += n_steps * rank->rate;
    for (int k = 0; k < engine->n_kinds; k++)
        rank->kv[k] += n_steps * rank->growth[k];
}

void apmw_rank_cross_caps(apmw_engine *engine, apmw_rank *rank)
{
    while (apmw_seq_heap_next(&rank->caps) <= rank->progress) {
        apmw_seq *seq = rank->caps.entries[0].seq;
        apmw_seq_heap_remove(&rank->caps, seq);
        settle_caps(engine, rank, seq, true);
    }
}
