/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include "apmw/rng.h"
#include "engine_internal.h"

void apmw_engine_fault(apmw_engine *engine, apmw_status status, const char *what)
{
    if (engine->fault.status == APMW_OK)
        apmw_error_set(&engine->fault, status, "engine %d: %s", (int)engine->index, what);
    apmw_des_stop(engine->des);
}

int64_t apmw_engine_blocks(const apmw_engine *engine, int64_t tokens)
{
    const int64_t size = engine->config.block_tokens;
    return tokens / size + (tokens % size != 0);
}

/* Generated tokens of a stream that keeps them can be matched again. Otherwise the positions after the prompt
 * may belong to other content, so only the prompt is looked up: one token more than the prompt asks the cache
 * for all of its whole blocks, since a resumed sequence has a later token to compute anyway. */
int64_t apmw_seq_lookup_tokens(const apmw_seq *seq)
{
    const apmw_request *request = seq->request;
    if (request->output_kept || seq->produced == 0)
        return request->record.n_prompt + seq->produced;
    return request->record.n_prompt + 1;
}

int64_t apmw_seq_wanted_blocks(const apmw_engine *engine, const apmw_seq *seq)
{
    int64_t blocks = apmw_engine_blocks(engine, seq->request->record.n_prompt + seq->produced);
    if (engine->config.batching == APMW_BATCHING_SGLANG)
        blocks += apmw_engine_blocks(engine, engine->tokens_per_seq);
    if (blocks < seq->reserved_blocks)
        blocks = seq->reserved_blocks;
    return blocks < engine->config.kv_blocks ? blocks : engine->config.kv_blocks;
}

/* `brought`: tokens of its prompt that will be in KV once a fetch has ended, 0 = none is made. */
static void begin_lease(apmw_engine *engine, apmw_seq *seq, int64_t brought, apmw_time now)
{
    apmw_request_record *record = &seq->request->record;
    apmw_prefix_cache *cache = engine->caches[seq->rank];
    seq->total = record->n_prompt + seq->produced;
    seq->promised_blocks = seq->reserved_blocks > 0 ? apmw_seq_wanted_blocks(engine, seq) : 0;
    if (!seq->scheduled) {
        seq->scheduled = true;
        apmw_prefix_cache_begin(cache, seq->request->stream, apmw_seq_lookup_tokens(seq), &seq->lease);
        record->n_cached = seq->lease.matched_tokens;
        record->admitted = record->first_scheduled = now;
    } else {
        apmw_prefix_cache_resume(cache, seq->request->stream, apmw_seq_lookup_tokens(seq), &seq->lease);
        const int64_t there = brought > seq->lease.matched_tokens ? brought : seq->lease.matched_tokens;
        if (seq->computed > there)
            record->n_recomputed += seq->computed - there;
        else if (brought > seq->computed) /* it had not come that far */
            record->n_fetched += brought - (seq->computed > seq->lease.matched_tokens ? seq->computed
                                                                                      : seq->lease.matched_tokens);
    }
    seq->done = seq->lease.matched_tokens;
    seq->told_blocks = 0;
    seq->order = engine->next_order++;
    record->state = APMW_REQUEST_PREFILL;
}

void apmw_seq_admit(apmw_engine *engine, apmw_seq *seq, apmw_time now)
{
    begin_lease(engine, seq, 0, now);
}

bool apmw_seq_asks(const apmw_engine *engine, const apmw_seq *seq)
{
    const bool settled = seq->request->remote_prefill && seq->fetch == APMW_FETCH_DECLINED;
    return engine->config.connector && seq->fetch <= APMW_FETCH_WANTED && !settled;
}

int64_t apmw_seq_wants_fetch(apmw_engine *engine, apmw_seq *seq, int64_t matched, bool fits)
{
    const apmw_connector *connector = engine->config.connector;
    const apmw_request *request = seq->request;
    if (!apmw_seq_asks(engine, seq))
        return 0;
    if (seq->fetch == APMW_FETCH_OPEN || (fits && !request->remote_prefill)) {
        seq->fetch_to = request->remote_prefill
                            ? request->record.n_prompt
                            : connector->available(connector->self, engine, request, seq->rank, matched);
        /* The last token of a prompt is computed here unless its output came too: it gives the first output. */
        if (!request->remote_prefill && seq->fetch_to > request->record.n_prompt - 1)
            seq->fetch_to = request->record.n_prompt - 1;
        seq->fetch = APMW_FETCH_WANTED;
    }
    if (seq->fetch == APMW_FETCH_WANTED && seq->fetch_to <= matched)
        seq->fetch = APMW_FETCH_DECLINED;
    return seq->fetch == APMW_FETCH_WANTED ? seq->fetch_to : 0;
}

bool apmw_seq_fetch_open(const apmw_engine *engine, const apmw_seq *seq)
{
    return engine->config.connector && (seq->fetch == APMW_FETCH_OPEN || seq->fetch == APMW_FETCH_WANTED);
}

void apmw_seq_begin_fetch(apmw_engine *engine, apmw_seq *seq, int64_t to, apmw_time now)
{
    const apmw_connector *connector = engine->config.connector;
    begin_lease(engine, seq, to, now);
    const int64_t blocks = apmw_engine_blocks(engine, seq->total) - seq->lease.pinned_blocks;
    APMW_CHECK(apmw_prefix_cache_take(engine->caches[seq->rank], &seq->lease, blocks));
    seq->fetch = APMW_FETCH_LOADING;
    connector->fetch(connector->self, engine, seq->request, seq->rank, seq->done, to);
}

void apmw_seq_end_fetch(apmw_engine *engine, apmw_seq *seq, apmw_time now)
{
    apmw_request_record *record = &seq->request->record;
    seq->order = engine->next_order++;
    if (!seq->request->remote_prefill)
        return;
    seq->produced = 1;
    record->first_token = now;
}

bool apmw_seq_emit_first(apmw_engine *engine, apmw_seq *seq, apmw_time now)
{
    (void)engine;
    apmw_request_record *record = &seq->request->record;
    if (record->first_token == APMW_TIME_NEVER)
        record->first_token = now;
    seq->produced++;
    return seq->produced == record->n_out;
}

/* The connector hears of what is findable when the prompt is computed, and at the end if that is more by then: engines write
 * blocks down as they are filled, and what is written is used then, not when the request ends. */
static void tell_computed(apmw_engine *engine, apmw_seq *seq)
{
    const apmw_connector *connector = engine->config.connector;
    if (connector && connector->computed && (seq->told_blocks == 0 || seq->lease.committed_blocks > seq->told_blocks)) {
        seq->told_blocks = seq->lease.committed_blocks;
        connector->computed(connector->self, engine, seq->request, seq->rank,
                            seq->lease.committed_blocks * engine->config.block_tokens);
    }
}

void apmw_seq_commit(apmw_engine *engine, apmw_seq *seq)
{
    const int64_t n_prompt = seq->request->record.n_prompt;
    const int64_t tokens = seq->request->output_kept || seq->done < n_prompt ? seq->done : n_prompt;
    apmw_prefix_cache_commit(engine->caches[seq->rank], &seq->lease, tokens);
    if (seq->done >= n_prompt)
        tell_computed(engine, seq);
}

/* Steps that emit `tokens` tokens in all, when a step emits `mean` on average with this variance. By the
 * central limit of a renewal process the count has mean tokens / mean and variance tokens * variance / mean^3
 * (W. Feller, An Introduction to Probability Theory and Its Applications II, XI.5). The deviation is cut
 * symmetrically at the bounds, and rounding is random, so that the mean is exact where the bounds allow it.
 */
static int64_t draw_steps(const apmw_engine *engine, const apmw_request_record *record, int64_t tokens)
{
    const double mean = engine->config.acceptance_length;
    const int64_t low = (tokens + engine->tokens_per_seq - 1) / engine->tokens_per_seq;
    const double centre = (double)tokens / mean;
    if (centre <= (double)low)
        return low;
    apmw_rng rng =
        apmw_rng_make(engine->config.seed, "acceptance", record->id, (uint64_t)record->n_preemptions);
    double room = centre - (double)low;
    if ((double)tokens - centre < room)
        room = (double)tokens - centre;
    const double between = engine->config.acceptance_fixed ? 0.0 : centre * engine->config.acceptance_spread;
    double deviation = sqrt((double)tokens * engine->acceptance_variance / (mean * mean * mean) + between * between) *
                       apmw_rng_normal(&rng);
    deviation = fmax(-room, fmin(room, deviation));
    const int64_t steps = (int64_t)floor(centre + deviation + apmw_rng_uniform(&rng));
    return steps < low ? low : steps > tokens ? tokens : steps;
}

void apmw_seq_begin_decode(apmw_engine *engine, apmw_seq *seq)
{
    apmw_request_record *record = &seq->request->record;
    record->state = APMW_REQUEST_DECODE;
    seq->n_tokens = record->n_out - seq->produced;
    if (engine->config.draft_tokens == 0) {
        seq->n_steps = seq->n_tokens;
        seq->rate = APMW_FIX_ONE;
        return;
    }
    seq->n_steps = draw_steps(engine, record, seq->n_tokens);
    seq->rate = (seq->n_tokens * APMW_FIX_ONE + seq->n_steps - 1) / seq->n_steps;
}

int64_t apmw_seq_emitted(const apmw_seq *seq, int64_t steps)
{
    return steps * seq->n_tokens / seq->n_steps;
}

void apmw_seq_release(apmw_engine *engine, apmw_seq *seq, int64_t kv_tokens)
{
    apmw_prefix_cache *cache = engine->caches[seq->rank];
    const int64_t size = engine->config.block_tokens;
    const int64_t n_prompt = seq->request->record.n_prompt;
    const int64_t kept = seq->request->output_kept || kv_tokens < n_prompt ? kv_tokens : n_prompt;
    apmw_prefix_cache_commit(cache, &seq->lease, kept);
    tell_computed(engine, seq);
    int64_t dead = 0;
    const apmw_connector *connector = engine->config.connector;
    const int64_t findable = seq->lease.committed_blocks * size;
    if (connector && connector->released)
        connector->released(connector->self, engine, seq->request, seq->rank, findable,
                            kv_tokens > findable ? kv_tokens : findable);
    if (engine->config.prefix_caching && kv_tokens / size > seq->lease.committed_blocks)
        dead = (kv_tokens / size - seq->lease.committed_blocks) * size;
    apmw_prefix_cache_end(cache, &seq->lease, dead);
}

int64_t apmw_seq_preempt(apmw_engine *engine, apmw_seq *seq, int64_t steps)
{
    apmw_request_record *record = &seq->request->record;
    int64_t kv_tokens = seq->done;
    if (record->state == APMW_REQUEST_DECODE) {
        const int64_t emitted = apmw_seq_emitted(seq, steps);
        kv_tokens = seq->total + emitted;
        seq->produced += emitted;
        const int64_t unbooked = record->n_prompt + seq->produced - seq->booked;
        seq->booked += unbooked;
        engine->ranks[seq->rank].tokens += unbooked;
        engine->all.tokens += unbooked;
    }
    seq->computed = kv_tokens;
    if (!seq->request->remote_prefill)
        seq->fetch = APMW_FETCH_OPEN;
    record->n_preemptions++;
    record->state = APMW_REQUEST_PREEMPTED;
    return kv_tokens;
}

void apmw_seq_drop(apmw_engine *engine, apmw_seq *seq)
{
    seq->request->private_ = NULL;
    seq->next = engine->spare;
    engine->spare = seq;
}

void apmw_seq_finish(apmw_engine *engine, apmw_seq *seq, apmw_request_state state, apmw_time now)
{
    apmw_request *request = seq->request;
    apmw_request_record *record = &request->record;
    record->state = state;
    record->done = now;
    if (state == APMW_REQUEST_DONE)
        record->last_token = now;
    engine->all.requests--;
    engine->all.tokens -= seq->booked;
    if (seq->rank >= 0) {
        engine->ranks[seq->rank].requests--;
        engine->ranks[seq->rank].tokens -= seq->booked;
    }
    if (!seq->held)
        apmw_seq_drop(engine, seq);
    for (size_t i = 0; i < engine->n_probes && !request->silent; i++)
        if (engine->probes[i]->on_request)
            engine->probes[i]->on_request(engine->probes[i]->self, now, record);
    if (request->on_done)
        request->on_done(request, request->self, now);
}

bool apmw_engine_delays_prefill(const apmw_engine *engine, apmw_prefill_delay *delay, int n_prefillable, bool decodes)
{
    const apmw_engine_config *c = &engine->config;
    const apmw_time now = apmw_des_now(engine->des);
    const bool mixed = n_prefillable > 0 && n_prefillable < c->n_ranks;
    if (c->prefill_delay_passes == 0 || !mixed || !decodes) {
        delay->passes = 0;
        return false;
    }
    if (delay->passes == 0)
        delay->since = now;
    if (delay->passes < c->prefill_delay_passes && now - delay->since < c->prefill_delay_ns) {
        delay->passes++;
        return true;
    }
    delay->passes = 0;
    return false;
}

void apmw_engine_emit_step(apmw_engine *engine, const apmw_step_record *record)
{
    for (size_t i = 0; i < engine->n_probes; i++)
        if (engine->probes[i]->on_step)
            engine->probes[i]->on_step(engine->probes[i]->self, record);
}

int64_t apmw_engine_emit_tokens(apmw_engine *engine, int64_t rate, int64_t n_steps)
{
    const int64_t sum = engine->emit_carry + rate * n_steps;
    engine->emit_carry = sum & (APMW_FIX_ONE - 1);
    return sum >> APMW_FIX_SHIFT;
}

void apmw_engine_kv_used(const apmw_engine *engine, int64_t *used, int64_t *capacity)
{
    *used = *capacity = 0;
    for (int rank = 0; rank < engine->config.n_ranks; rank++) {
        apmw_kv_stats stats;
        apmw_prefix_cache_stats(engine->caches[rank], &stats);
        *used += stats.held_blocks + stats.cached_blocks;
        *capacity += stats.capacity_blocks;
    }
}
