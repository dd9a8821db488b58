/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The step loop of the plain mode. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "engine_plain.h"

static double effective_context(const apmw_seq *seq, int64_t cap)
{
    const double context =
        (double)((seq->total + 1) * APMW_FIX_ONE + seq->join * seq->rate) / (double)APMW_FIX_ONE;
    return context < (double)cap ? context : (double)cap;
}

/* The load of the critical rank, by loops over ranks and sequences. */
static apmw_step_load load_now(apmw_engine *engine)
{
    plain *p = engine->state;
    apmw_step_load load = {0};
    int busiest = -1;
    for (int rank = 0; rank < engine->config.n_ranks; rank++) {
        int64_t seqs = 0, tokens = 0;
        double kv[APMW_KV_KINDS] = {0};
        for (int64_t i = 0; i < p->running.n && p->ranks[rank].decodes; i++) {
            const apmw_seq *seq = p->running.v[i];
            if (seq->rank != rank || !apmw_plain_decoding(seq))
                continue;
            seqs++;
            for (int k = 0; k < engine->n_kinds; k++)
                kv[k] += effective_context(seq, engine->config.cost->kv_cap[k]);
        }
        for (int64_t i = 0; i < p->n_pieces; i++)
            tokens += p->pieces[i].seq->rank == rank ? p->pieces[i].tokens : 0;
        tokens += seqs * engine->tokens_per_seq;
        load.total_seqs += seqs;
        load.total_tokens += tokens;
        load.n_seqs = seqs > load.n_seqs ? seqs : load.n_seqs;
        for (int k = 0; k < engine->n_kinds; k++)
            load.kv[k] = fmax(load.kv[k], kv[k]);
        if (busiest < 0 || tokens > load.rank_tokens) {
            busiest = rank;
            load.rank_tokens = tokens;
        }
    }
    for (int64_t i = 0; i < p->n_pieces; i++) {
        const apmw_seq *seq = p->pieces[i].seq;
        if (seq->rank == busiest)
            p->chunks[load.n_chunks++] =
                (apmw_chunk){.new_tokens = p->pieces[i].tokens,
                             .past_tokens = seq->done,
                             .is_last = seq->done + p->pieces[i].tokens == seq->total};
    }
    load.chunks = p->chunks;
    return load;
}

static void on_step_end(apmw_des *des, void *subject, uint64_t argument);

static void on_plan(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_engine *engine = subject;
    plain *p = engine->state;
    p->planning = false;
    if (engine->stepping || engine->fault.status != APMW_OK)
        return;
    if (engine->config.batching == APMW_BATCHING_SGLANG && engine->config.recv_interval > 1)
        for (int rank = 0; rank < engine->config.n_ranks; rank++)
            apmw_plain_receive(engine, rank);
    if (!apmw_plain_plan(engine) || engine->fault.status != APMW_OK) {
        p->idle = true;
        engine->carry_ns = 0.0;
        return;
    }
    const apmw_step_load load = load_now(engine);
    apmw_step_work work;
    apmw_step_cost_eval(engine->config.cost, &load, &work);
    if (!(work.time_s > 0.0) || !(work.time_s < 9.0e9)) {
        apmw_engine_fault(engine, APMW_E_INTERNAL, "the cost of a step is not a positive time");
        return;
    }
    p->idle = false;
    engine->stepping = true;
    engine->step_begin = apmw_des_now(des);
    p->time_ns = work.time_s * 1e9 + engine->carry_ns;
    apmw_time ns = llround(p->time_ns);
    if (ns < 1)
        ns = 1;
    p->record =
        (apmw_step_record){.engine = engine->index,
                           .begin = engine->step_begin,
                           .end = engine->step_begin + ns,
                           .n_steps = 1,
                           .n_seqs = load.total_seqs,
                           .prefill_tokens = load.total_tokens - load.total_seqs * engine->tokens_per_seq,
                           .kernel_s = work.kernel_s,
                           .flops = work.flops,
                           .bytes = work.bytes,
                           .outside_steps = work.outside};
    for (int rank = 0; rank < engine->config.n_ranks; rank++)
        p->record.n_waiting += p->ranks[rank].waiting.n + p->ranks[rank].unreceived.n;
    apmw_des_schedule(des, p->record.end, APMW_EVENT_STEP_END, on_step_end, engine, 0);
}

static void wake(apmw_engine *engine)
{
    plain *p = engine->state;
    if (p->planning || engine->stepping)
        return;
    p->planning = true;
    apmw_des_schedule(engine->des, apmw_des_now(engine->des), APMW_EVENT_ENGINE, on_plan, engine, 0);
}

static void end_sequence(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    seq->computed = seq->request->record.n_prompt + seq->request->record.n_out - 1;
    seq->held = seq->request->hold_kv;
    apmw_plain_leave(engine, seq, seq->computed);
    if (seq->held) {
        pile *held = &p->ranks[seq->rank].held;
        apmw_plain_insert(engine, held, held->n, seq);
    }
    apmw_plain_insert(engine, &p->done, p->done.n, seq);
}

static void on_step_end(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_engine *engine = subject;
    plain *p = engine->state;
    const apmw_time now = apmw_des_now(des);
    int64_t rate = 0;
    for (int64_t i = 0; i < p->running.n; i++) {
        apmw_seq *seq = p->running.v[i];
        if (apmw_plain_decoding(seq) && p->ranks[seq->rank].decodes) {
            seq->join++;
            rate += seq->rate;
        }
    }
    p->record.decode_tokens = apmw_engine_emit_tokens(engine, rate, 1);
    apmw_engine_kv_used(engine, &p->record.kv_used_blocks, &p->record.kv_capacity_blocks);
    apmw_engine_emit_step(engine, &p->record);
    engine->stepping = false;
    engine->busy += now - engine->step_begin;
    engine->steps++;
    engine->carry_ns = p->time_ns - (double)(now - engine->step_begin);

    p->done.n = 0;
    for (int64_t i = 0; i < p->running.n;) {
        apmw_seq *seq = p->running.v[i];
        if (apmw_plain_decoding(seq) && seq->join == seq->n_steps)
            end_sequence(engine, seq);
        else
            i++;
    }
    for (int rank = 0; rank < engine->config.n_ranks; rank++)
        for (int64_t i = 0; i < p->n_pieces; i++) {
            apmw_seq *seq = p->pieces[i].seq;
            if (seq->rank != rank)
                continue;
            seq->done += p->pieces[i].tokens;
            if (seq->done == seq->total && apmw_seq_emit_first(engine, seq, now)) {
                end_sequence(engine, seq);
                continue;
            }
            apmw_seq_commit(engine, seq);
            if (seq->done == seq->total) {
                apmw_seq_begin_decode(engine, seq);
                seq->join = 0;
            }
        }
    p->n_pieces = 0;
    wake(engine);
    for (int64_t i = 0; i < p->done.n; i++)
        apmw_seq_finish(engine, p->done.v[i], APMW_REQUEST_DONE, now);
}

static void arrive(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    plain_rank *rank = &p->ranks[seq->rank];
    const bool later = engine->config.batching == APMW_BATCHING_SGLANG && engine->config.recv_interval > 1;
    pile *queue = later ? &rank->unreceived : &rank->waiting;
    apmw_plain_insert(engine, queue, queue->n, seq);
    wake(engine);
}

static void fetched(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    plain_rank *rank = &p->ranks[seq->rank];
    apmw_plain_take_out(&rank->loading, seq);
    apmw_plain_insert(engine, &rank->loaded, rank->loaded.n, seq);
    wake(engine);
}

static bool withdraw(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    plain_rank *rank = &p->ranks[seq->rank];
    pile *const queues[] = {&rank->waiting, &rank->unreceived};
    for (int q = 0; q < 2; q++)
        for (int64_t i = 0; i < queues[q]->n; i++)
            if (queues[q]->v[i] == seq) {
                apmw_plain_take_out(queues[q], seq);
                wake(engine);
                return true;
            }
    return false;
}

static void release(apmw_engine *engine, apmw_seq *seq)
{
    plain *p = engine->state;
    plain_rank *rank = &p->ranks[seq->rank];
    apmw_plain_take_out(seq->held ? &rank->held : &rank->loading, seq);
    apmw_seq_release(engine, seq, seq->computed);
    wake(engine);
}

static apmw_status check(const apmw_engine *engine, apmw_error *err)
{
    const plain *p = engine->state;
    int64_t held = p->running.n;
    bool may_wait = false; /* for KV or blocks from outside */
    for (int i = 0; i < engine->config.n_ranks; i++) {
        const plain_rank *rank = &p->ranks[i];
        held += rank->waiting.n + rank->unreceived.n + rank->loaded.n;
        may_wait = may_wait || rank->loading.n + rank->held.n > 0;
    }
    if (held > 0 && !may_wait && !engine->stepping && !p->planning)
        return apmw_error_set(err, APMW_E_INTERNAL,
                              "engine %d: L9: %lld requests held by an engine that stands still",
                              (int)engine->index, (long long)held);
    return APMW_OK;
}

static void each(const apmw_engine *engine, void (*fn)(void *self, apmw_seq *seq), void *self)
{
    const plain *p = engine->state;
    for (int64_t i = 0; i < p->running.n; i++)
        fn(self, p->running.v[i]);
    for (int i = 0; p->ranks && i < engine->config.n_ranks; i++) {
        const plain_rank *rank = &p->ranks[i];
        const pile *piles[] = {&rank->waiting, &rank->unreceived, &rank->loading, &rank->loaded, &rank->held};
        for (size_t k = 0; k < sizeof piles / sizeof piles[0]; k++)
            for (int64_t j = 0; j < piles[k]->n; j++)
                fn(self, piles[k]->v[j]);
    }
}

static void close_mode(apmw_engine *engine)
{
    plain *p = engine->state;
    for (int i = 0; p->ranks && i < engine->config.n_ranks; i++) {
        free(p->ranks[i].waiting.v);
        free(p->ranks[i].unreceived.v);
        free(p->ranks[i].loading.v);
        free(p->ranks[i].loaded.v);
        free(p->ranks[i].held.v);
    }
    free(p->ranks);
    free(p->running.v);
    free(p->done.v);
    free(p->pieces);
    free(p->chunks);
    free(p);
    engine->state = NULL;
}

static apmw_status open_mode(apmw_engine *engine, apmw_error *err)
{
    plain *p = calloc(1, sizeof *p);
    engine->state = p;
    if (p) {
        p->idle = true;
        p->ranks = calloc((size_t)engine->config.n_ranks, sizeof *p->ranks);
    }
    if (!p || !p->ranks)
        return apmw_error_set(err, APMW_E_NOMEM, "engine %d: out of memory", (int)engine->index);
    return APMW_OK;
}

const apmw_engine_mode apmw_engine_plain = {open_mode, close_mode, arrive, fetched, withdraw,
                                            release,   NULL,       check,  each};
