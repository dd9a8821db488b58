/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The running sums of the fast mode against sums made anew, and the scheduler laws L8 and L9. */
#include "engine_fast.h"

static apmw_status broken(const apmw_engine *engine, int rank, const char *what, int64_t have, int64_t want,
                          apmw_error *err)
{
    return apmw_error_set(err, APMW_E_INTERNAL, "engine %d rank %d at %lld ns: %s: %lld, expected %lld",
                          (int)engine->index, rank, (long long)apmw_des_now(engine->des), what,
                          (long long)have, (long long)want);
}

typedef struct sums {
    int64_t n_decode, rate, lease_blocks, reserved_blocks, kv[APMW_KV_KINDS], growth[APMW_KV_KINDS];
    int64_t grown;
    int64_t duplicates; /* blocks of other leases that a commit has pinned beside the own ones */
} sums;

static void add_decoding(const apmw_engine *engine, const apmw_rank *rank, const apmw_seq *seq, sums *s)
{
    const int64_t steps = rank->progress - seq->join;
    s->n_decode++;
    s->rate += seq->rate;
    s->grown += steps * seq->rate;
    if (engine->config.draft_tokens == 0)
        s->lease_blocks += apmw_engine_blocks(engine, seq->total + steps);
    else
        s->lease_blocks += seq->lease.pinned_blocks + seq->lease.taken_blocks;
    for (int k = 0; k < engine->n_kinds; k++) {
        const int64_t context = (seq->total + 1) * APMW_FIX_ONE + steps * seq->rate;
        const int64_t cap = engine->config.cost->kv_cap[k];
        if (cap > INT64_MAX / APMW_FIX_ONE || context < cap * APMW_FIX_ONE) {
            s->kv[k] += context;
            s->growth[k] += seq->rate;
        } else {
            s->kv[k] += cap * APMW_FIX_ONE;
        }
    }
}

static apmw_status check_rank(const apmw_engine *engine, const apmw_fast *fast, int index, apmw_error *err)
{
    const apmw_rank *rank = &fast->ranks[index];
    sums s = {0};
    int64_t n_partial = 0, chunk_tokens = 0;
    for (const apmw_seq *seq = rank->running.head; seq; seq = seq->next) {
        if (seq->next && seq->next->order <= seq->order)
            return broken(engine, index, "order of admission", (int64_t)seq->order, (int64_t)seq->next->order,
                          err);
        if (!seq->lease.active)
            return broken(engine, index, "running sequences without a lease", 1, 0, err);
        s.reserved_blocks += seq->promised_blocks;
        s.duplicates += seq->lease.committed_blocks - seq->lease.pinned_blocks - seq->lease.inserted_blocks;
        if (seq->request->record.state == APMW_REQUEST_DECODE) {
            add_decoding(engine, rank, seq, &s);
        } else {
            n_partial++;
            s.lease_blocks += seq->lease.pinned_blocks + seq->lease.taken_blocks;
        }
    }
    const apmw_seq_list *aside[] = {&rank->loading, &rank->loaded, &rank->held};
    for (size_t i = 0; i < sizeof aside / sizeof aside[0]; i++)
        for (const apmw_seq *seq = aside[i]->head; seq; seq = seq->next) {
            if (!seq->lease.active)
                return broken(engine, index, "loading or ended sequences without a lease", 1, 0, err);
            s.reserved_blocks += seq->held ? 0 : seq->promised_blocks;
            s.lease_blocks += seq->lease.pinned_blocks + seq->lease.taken_blocks;
            s.duplicates += seq->lease.committed_blocks - seq->lease.pinned_blocks - seq->lease.inserted_blocks;
        }
    for (size_t i = 0; i < rank->n_chunks; i++)
        chunk_tokens += rank->chunks[i].new_tokens;
    /* Blocks of steps that have begun and whose progress is not yet counted. */
    s.lease_blocks += engine->config.draft_tokens > 0 ? rank->grown_blocks : 0;
    if (rank->ahead > 0 && engine->config.draft_tokens == 0) {
        apmw_rank fresh = *rank;
        fresh.ahead = 0;
        s.lease_blocks += apmw_rank_demand(engine, &fresh, rank->ahead);
    }
#define SAME(what, have, want)                                                                               \
    if ((have) != (want))                                                                                    \
    return broken(engine, index, what, (have), (want), err)
    SAME("decoding sequences", rank->n_decode, s.n_decode);
    SAME("tokens a step (fixed point)", rank->rate, s.rate);
    SAME("growth since the join (fixed point)", rank->grown, engine->config.draft_tokens > 0 ? s.grown : 0);
    SAME("blocks of running sequences", rank->lease_blocks, s.lease_blocks);
    SAME("reserved blocks", rank->reserved_blocks, s.reserved_blocks);
    for (int k = 0; k < engine->n_kinds; k++) {
        SAME("effective KV (fixed point)", rank->kv[k], s.kv[k]);
        SAME("growth of effective KV (fixed point)", rank->growth[k], s.growth[k]);
    }
    SAME("chunk tokens", rank->chunk_tokens * (rank->n_chunks > 0), chunk_tokens);
    SAME("queued completions", (int64_t)rank->ends.n, s.n_decode);
#undef SAME
    /* L6: blocks are held once although several leases may pin them, and only by running sequences. */
    apmw_kv_stats stats;
    apmw_prefix_cache_stats(rank->cache, &stats);
    if (stats.held_blocks > rank->lease_blocks + s.duplicates ||
        (rank->lease_blocks > 0 && stats.held_blocks == 0))
        return broken(engine, index, "L6: held blocks against blocks of running sequences", stats.held_blocks,
                      rank->lease_blocks, err);
    /* L8 */
    const int64_t tokens = rank->chunk_tokens + (rank->decodes ? rank->n_decode * engine->tokens_per_seq : 0);
    if (engine->stepping && engine->config.batching != APMW_BATCHING_SGLANG &&
        tokens > engine->config.max_num_batched_tokens)
        return broken(engine, index, "L8: tokens in the pass", tokens, engine->config.max_num_batched_tokens,
                      err);
    if (engine->stepping && rank->chunk_tokens > engine->config.max_num_batched_tokens)
        return broken(engine, index, "L8: tokens of the chunks", rank->chunk_tokens,
                      engine->config.max_num_batched_tokens, err);
    if (rank->running.n > engine->seq_limit)
        return broken(engine, index, "L8: running sequences", rank->running.n, engine->seq_limit, err);
    if (!engine->stepping && n_partial > 1)
        return broken(engine, index, "sequences between two chunks", n_partial, 1, err);
    /* L9 */
    const int64_t work = rank->waiting.n + rank->unreceived.n + rank->running.n + rank->loaded.n;
    const bool may_wait = rank->loading.n + rank->held.n > 0; /* for KV or blocks from outside */
    if (!engine->stepping && !fast->planning && work > 0 && !may_wait)
        return broken(engine, index, "L9: requests held by an engine that stands still", work, 0, err);
    return APMW_OK;
}

apmw_status apmw_fast_check(const apmw_engine *engine, apmw_error *err)
{
    const apmw_fast *fast = engine->state;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        const apmw_status status = check_rank(engine, fast, i, err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}
