/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The step loop of the fast mode: a planned step, or a stretch of equal decode steps, ends in one event. */
#include <math.h>
#include <stdlib.h>
#include "engine_fast.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Loads of the critical rank. growth[] is what each following step adds to kv[]. */
static void build_load(apmw_engine *engine, apmw_fast *fast)
{
    apmw_step_load *load = &fast->load;
    *load = (apmw_step_load){0};
    int64_t kv[APMW_KV_KINDS] = {0}, growth[APMW_KV_KINDS] = {0};
    const apmw_rank *busiest = NULL;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        const int64_t seqs = rank->decodes ? rank->n_decode : 0;
        const int64_t tokens = seqs * engine->tokens_per_seq + rank->chunk_tokens;
        load->total_seqs += seqs;
        load->total_tokens += tokens;
        if (seqs > load->n_seqs)
            load->n_seqs = seqs;
        if (!busiest || tokens > load->rank_tokens) {
            busiest = rank;
            load->rank_tokens = tokens;
        }
        if (!rank->decodes)
            continue;
        for (int k = 0; k < engine->n_kinds; k++)
            if (rank->kv[k] > kv[k] || (rank->kv[k] == kv[k] && rank->growth[k] > growth[k])) {
                kv[k] = rank->kv[k];
                growth[k] = rank->growth[k];
            }
    }
    load->chunks = busiest->chunks;
    load->n_chunks = busiest->n_chunks;
    for (int k = 0; k < APMW_KV_KINDS; k++) {
        load->kv[k] = (double)kv[k] / (double)APMW_FIX_ONE;
        fast->growth[k] = (double)growth[k] / (double)APMW_FIX_ONE;
    }
    /* Another rank may become the largest of a kind: steps until then. */
    fast->n_steps = INT64_MAX;
    for (int i = 0; i < engine->config.n_ranks && engine->config.n_ranks > 1; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        for (int k = 0; rank->decodes && k < engine->n_kinds; k++)
            if (rank->growth[k] > growth[k])
                fast->n_steps =
                    min64(fast->n_steps, (kv[k] - rank->kv[k]) / (rank->growth[k] - growth[k]) + 1);
    }
}

/* Steps after which the plan may change, from what is known at the start. */
static void limit_steps(apmw_engine *engine, apmw_fast *fast)
{
    const apmw_engine_config *c = &engine->config;
    int64_t n = fast->delays ? 1 : fast->n_steps;
    bool candidates = false;
    for (int i = 0; i < c->n_ranks; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        /* What has given way leaves room that the next step may use. */
        if (rank->n_chunks > 0 || rank->preempted)
            n = 1;
        if (!rank->decodes)
            continue;
        n = min64(n, apmw_seq_heap_next(&rank->ends) - rank->progress);
        n = min64(n, apmw_seq_heap_next(&rank->caps) - rank->progress);
        if (rank->unreceived.head)
            n = min64(n, c->recv_interval - rank->recv_count);
        candidates = candidates || rank->candidates > 0;
    }
    if (fast->batch_holds)
        n = min64(n, c->batch_wait_iters - fast->batch_waits + 1);
    if (fast->adp_counts && candidates)
        n = min64(n, c->adp_wait_iters - fast->adp_waits);
    for (int i = 0; i < c->n_ranks && n > 1; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        if (!rank->decodes)
            continue;
        int64_t blocks = apmw_prefix_cache_available(rank->cache);
        if (rank->candidates > 0) {
            /* What is held back must still be able to start, with the same hits, in every step of the
             * stretch. */
            apmw_kv_stats stats;
            apmw_prefix_cache_stats(rank->cache, &stats);
            const int64_t promised =
                rank->reserved_blocks > rank->lease_blocks ? rank->reserved_blocks - rank->lease_blocks : 0;
            blocks = min64(stats.free_blocks, blocks - promised - rank->candidate_blocks);
            if (blocks < 0)
                blocks = 0;
        }
        n = apmw_rank_steps_within(engine, rank, blocks, n);
    }
    fast->n_steps = n > 1 ? n : 1;
}

/* The end of step n of the stretch, and the work until then. */
static apmw_time end_of(apmw_engine *engine, const apmw_fast *fast, int64_t n, apmw_step_work *work)
{
    if (n == 1)
        apmw_step_cost_eval(engine->config.cost, &fast->load, work);
    else
        apmw_step_cost_sum(engine->config.cost, &fast->load, fast->growth, n, work);
    if (!(work->time_s > 0.0) || !(work->time_s < 9.0e9)) {
        apmw_engine_fault(engine, APMW_E_INTERNAL, "the cost of a step is not a positive time");
        return engine->step_begin + n;
    }
    const int64_t ns = llround(work->time_s * 1e9 + fast->carry_ns);
    return engine->step_begin + (ns < n ? n : ns);
}

static void on_step_end(apmw_des *des, void *subject, uint64_t argument);

static void schedule_end(apmw_engine *engine, apmw_fast *fast)
{
    fast->step_until = end_of(engine, fast, fast->n_steps, &fast->work);
    fast->step_end =
        apmw_des_schedule(engine->des, fast->step_until, APMW_EVENT_STEP_END, on_step_end, engine, 0);
}

static void on_plan(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_engine *engine = subject;
    apmw_fast *fast = engine->state;
    fast->planning = false;
    if (engine->stepping || engine->fault.status != APMW_OK)
        return;
    if (!apmw_fast_plan(engine) || engine->fault.status != APMW_OK) {
        fast->idle = true;
        engine->carry_ns = 0.0;
        return;
    }
    fast->idle = false;
    engine->stepping = true;
    engine->step_begin = apmw_des_now(des);
    fast->carry_ns = engine->carry_ns;
    fast->n_waiting = 0;
    fast->mixed = false;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        fast->n_waiting += fast->ranks[i].waiting.n + fast->ranks[i].unreceived.n;
        fast->mixed = fast->mixed || fast->ranks[i].n_chunks > 0;
    }
    build_load(engine, fast);
    limit_steps(engine, fast);
    schedule_end(engine, fast);
}

static void wake(apmw_engine *engine)
{
    apmw_fast *fast = engine->state;
    if (fast->planning || engine->stepping)
        return;
    fast->planning = true;
    apmw_des_schedule(engine->des, apmw_des_now(engine->des), APMW_EVENT_ENGINE, on_plan, engine, 0);
}

/* The first step of the stretch that ends at `when` or later: the number of steps that have begun before
 * `when`. Step times change slowly, so proportional guesses are close; a bracket keeps the search safe. */
static int64_t begun_before(apmw_engine *engine, const apmw_fast *fast, apmw_time when)
{
    int64_t low = 0, high = fast->n_steps; /* end(low) < when <= end(high) */
    apmw_time low_end = engine->step_begin, high_end = fast->step_until;
    for (int round = 0; high - low > 1; round++) {
        int64_t guess = low + (high - low) / 2;
        if (round < 4 && high_end > low_end) {
            const double part = (double)(when - low_end) / (double)(high_end - low_end);
            /* Alternate a little above and a little below, so that two guesses close the bracket. */
            guess = low + (int64_t)(part * (double)(high - low)) + (round & 1 ? 0 : 1);
            guess = guess <= low ? low + 1 : guess >= high ? high - 1 : guess;
        }
        apmw_step_work work;
        const apmw_time end = end_of(engine, fast, guess, &work);
        if (end < when) {
            low = guess;
            low_end = end;
        } else {
            high = guess;
            high_end = end;
        }
    }
    return high;
}

static void cut_at(apmw_engine *engine, apmw_fast *fast, int64_t n)
{
    if (n >= fast->n_steps)
        return;
    apmw_des_cancel(engine->des, &fast->step_end);
    fast->n_steps = n;
    schedule_end(engine, fast);
}

/* An arrival at a rank while a stretch runs: it ends at the first step boundary at which the arrival counts.
 */
static void cut_stretch(apmw_engine *engine, apmw_fast *fast, const apmw_rank *rank)
{
    const apmw_engine_config *c = &engine->config;
    const bool counted = c->batching == APMW_BATCHING_SGLANG && c->recv_interval > 1;
    const bool gathers =
        c->batching == APMW_BATCHING_TRTLLM && (c->batch_wait_iters > 0 || c->adp_wait_iters > 0);
    if (!engine->stepping || fast->n_steps == 1)
        return;
    /* Behind others that wait, or with no place to run, nothing changes before a completion. */
    if (!counted && ((rank->running.n >= engine->seq_limit && !c->connector) || (rank->waiting.n > 1 && !gathers)))
        return;
    int64_t n = begun_before(engine, fast, apmw_des_now(engine->des));
    if (counted && rank->decodes) {
        const int64_t over = (rank->recv_count + n) % c->recv_interval;
        n += over ? c->recv_interval - over : 0;
    }
    cut_at(engine, fast, n);
}

/* What changes the batch or the pool from outside counts from the next step boundary. */
static void disturb(apmw_engine *engine, apmw_fast *fast)
{
    if (!engine->stepping)
        wake(engine);
    else if (fast->n_steps > 1)
        cut_at(engine, fast, begun_before(engine, fast, apmw_des_now(engine->des)));
}

void apmw_fast_fetched(apmw_engine *engine, apmw_seq *seq)
{
    apmw_fast *fast = engine->state;
    apmw_rank *rank = &fast->ranks[seq->rank];
    apmw_seq_list_remove(&rank->loading, seq);
    apmw_seq_list_append(&rank->loaded, seq);
    if (!engine->stepping || rank->running.n < engine->seq_limit)
        disturb(engine, fast);
}

void apmw_fast_release(apmw_engine *engine, apmw_seq *seq)
{
    apmw_fast *fast = engine->state;
    apmw_rank *rank = &fast->ranks[seq->rank];
    apmw_fast_settle(engine);
    apmw_seq_list_remove(seq->held ? &rank->held : &rank->loading, seq);
    rank->lease_blocks -= seq->lease.pinned_blocks + seq->lease.taken_blocks;
    rank->reserved_blocks -= seq->held ? 0 : seq->promised_blocks;
    apmw_seq_release(engine, seq, seq->computed);
    if (rank->waiting.head || rank->partial)
        disturb(engine, fast);
}

static bool take_out(apmw_seq_list *queue, apmw_seq *seq)
{
    const apmw_seq *at = queue->head;
    while (at && at != seq)
        at = at->next;
    if (!at)
        return false;
    apmw_seq_list_remove(queue, seq);
    return true;
}

bool apmw_fast_withdraw(apmw_engine *engine, apmw_seq *seq)
{
    apmw_fast *fast = engine->state;
    apmw_rank *rank = &fast->ranks[seq->rank];
    if (!take_out(&rank->waiting, seq) && !take_out(&rank->unreceived, seq))
        return false;
    disturb(engine, fast);
    return true;
}

void apmw_fast_arrive(apmw_engine *engine, apmw_seq *seq)
{
    apmw_fast *fast = engine->state;
    apmw_rank *rank = &fast->ranks[seq->rank];
    const bool counted = engine->config.batching == APMW_BATCHING_SGLANG && engine->config.recv_interval > 1;
    apmw_seq_list_append(counted ? &rank->unreceived : &rank->waiting, seq);
    if (engine->stepping)
        cut_stretch(engine, fast, rank);
    else
        wake(engine);
}

static void report_step(apmw_engine *engine, apmw_fast *fast)
{
    apmw_step_record record = {.engine = engine->index,
                               .begin = engine->step_begin,
                               .end = fast->step_until,
                               .n_steps = fast->n_steps,
                               .n_seqs = fast->load.total_seqs,
                               .prefill_tokens =
                                   fast->load.total_tokens - fast->load.total_seqs * engine->tokens_per_seq,
                               .n_waiting = fast->n_waiting,
                               .kernel_s = fast->work.kernel_s,
                               .flops = fast->work.flops,
                               .bytes = fast->work.bytes,
                               .outside_steps = fast->work.outside};
    int64_t rate = 0;
    for (int i = 0; i < engine->config.n_ranks; i++)
        if (fast->ranks[i].decodes)
            rate += fast->ranks[i].rate;
    record.decode_tokens = apmw_engine_emit_tokens(engine, rate, fast->n_steps);
    if (engine->n_probes > 0) {
        apmw_engine_kv_used(engine, &record.kv_used_blocks, &record.kv_capacity_blocks);
        apmw_engine_emit_step(engine, &record);
    }
}

static void push_done(apmw_engine *engine, apmw_fast *fast, apmw_seq *seq)
{
    if (fast->n_done == fast->done_capacity) {
        const size_t capacity = fast->done_capacity ? 2 * fast->done_capacity : 16;
        apmw_seq **done = realloc(fast->done, capacity * sizeof *done);
        if (!done) {
            apmw_seq_drop(engine, seq);
            apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
            return;
        }
        fast->done = done;
        fast->done_capacity = capacity;
    }
    fast->done[fast->n_done++] = seq;
}

static void complete(apmw_engine *engine, apmw_fast *fast, apmw_rank *rank, apmw_seq *seq)
{
    const apmw_request_record *record = &seq->request->record;
    rank->reserved_blocks -= seq->promised_blocks;
    apmw_seq_list_remove(&rank->running, seq);
    seq->computed = record->n_prompt + record->n_out - 1;
    if (seq->request->hold_kv) {
        seq->held = true;
        apmw_seq_commit(engine, seq);
        apmw_seq_list_append(&rank->held, seq);
    } else {
        rank->lease_blocks -= seq->lease.pinned_blocks + seq->lease.taken_blocks;
        apmw_seq_release(engine, seq, seq->computed);
    }
    push_done(engine, fast, seq);
}

static int by_order(const void *a, const void *b)
{
    const apmw_seq *const *x = a, *const *y = b;
    return (*x)->order < (*y)->order ? -1 : 1;
}

/* What ended decoding, in order of admission over all ranks; then prompts by rank. */
static void collect_done(apmw_engine *engine, apmw_fast *fast, apmw_time now)
{
    fast->n_done = 0;
    for (int i = 0; i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        while (apmw_seq_heap_next(&rank->ends) <= rank->progress) {
            apmw_seq *seq = rank->ends.entries[0].seq;
            apmw_rank_leave(engine, rank, seq);
            complete(engine, fast, rank, seq);
        }
        apmw_rank_cross_caps(engine, rank);
    }
    if (engine->config.n_ranks > 1 && fast->n_done > 1)
        qsort(fast->done, fast->n_done, sizeof *fast->done, by_order);
    for (int i = 0; i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        for (size_t j = 0; j < rank->n_chunks; j++) {
            apmw_seq *seq = rank->chunk_seqs[j];
            seq->done += rank->chunks[j].new_tokens;
            if (!rank->chunks[j].is_last) {
                apmw_seq_commit(engine, seq);
                continue;
            }
            if (apmw_seq_emit_first(engine, seq, now)) {
                complete(engine, fast, rank, seq);
            } else {
                apmw_seq_commit(engine, seq);
                apmw_rank_join(engine, rank, seq);
            }
        }
        rank->n_chunks = 0;
    }
}

static void on_step_end(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_engine *engine = subject;
    apmw_fast *fast = engine->state;
    const apmw_time now = apmw_des_now(des);
    fast->step_end = (apmw_event_handle){0};
    for (int i = 0; i < engine->config.n_ranks; i++)
        if (fast->ranks[i].decodes)
            apmw_rank_advance(engine, &fast->ranks[i], fast->n_steps);
    report_step(engine, fast);
    engine->stepping = false;
    engine->busy += now - engine->step_begin;
    engine->steps += (uint64_t)fast->n_steps;
    engine->carry_ns = fast->work.time_s * 1e9 + fast->carry_ns - (double)(now - engine->step_begin);
    if (fast->batch_holds)
        fast->batch_waits += fast->n_steps - 1;
    if (fast->adp_counts)
        fast->adp_waits = (fast->adp_waits + fast->n_steps - 1) % engine->config.adp_wait_iters;
    collect_done(engine, fast, now);
    /* The batch is in order before anybody is called. */
    wake(engine);
    const size_t n_done = fast->n_done;
    for (size_t i = 0; i < n_done; i++)
        apmw_seq_finish(engine, fast->done[i], APMW_REQUEST_DONE, now);
}

void apmw_fast_settle(const apmw_engine *engine)
{
    apmw_fast *fast = engine->state;
    if (!engine->stepping || fast->n_steps == 1)
        return;
    /* The pools change, not what they mean: blocks of steps that have begun are taken now instead of at the
     * end. */
    apmw_engine *owner = fast->engine;
    const int64_t n = begun_before(owner, fast, apmw_des_now(engine->des));
    for (int i = 0; i < engine->config.n_ranks; i++)
        if (fast->ranks[i].decodes)
            apmw_rank_take_to(owner, &fast->ranks[i], n);
}
