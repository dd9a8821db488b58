/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Configuration, the way in (front end, rank, rejection) and the router's view. */
#include <math.h>
#include <stdlib.h>
#include "engine_internal.h"

static apmw_status refuse(apmw_error *err, const char *what)
{
    return apmw_error_set(err, APMW_E_SCENARIO, "engine configuration: %s", what);
}

static apmw_status validate(const apmw_engine_config *c, apmw_error *err)
{
    if (!c->cost || !c->streams)
        return refuse(err, "cost and streams are needed");
    if (c->batching != APMW_BATCHING_VLLM && c->batching != APMW_BATCHING_SGLANG &&
        c->batching != APMW_BATCHING_TRTLLM)
        return refuse(err, "unknown batching policy");
    if (c->n_ranks < 1)
        return refuse(err, "n_ranks must be at least 1");
    if (c->max_num_seqs < 1 || c->max_num_batched_tokens < 1)
        return refuse(err, "max_num_seqs and max_num_batched_tokens must be at least 1");
    if (c->block_tokens < 1 || c->kv_blocks < 1)
        return refuse(err, "block_tokens and kv_blocks must be at least 1: is there room for KV at all?");
    if (c->max_prefill_tokens < 0 || c->max_model_len < 0 || c->reserve_output_tokens < 0)
        return refuse(err,
                      "max_prefill_tokens, max_model_len and reserve_output_tokens must not be negative");
    if (c->recv_interval < 0 || c->recv_interval > 1000)
        return refuse(err, "recv_interval must lie in 0..1000 (a prefill step counts 1000)");
    if (c->prefill_delay_passes < 0 || c->prefill_delay_ns < 0)
        return refuse(err, "the prefill delay must not be negative");
    if (c->batch_wait_tokens < 0 || c->batch_wait_iters < 0 || c->adp_wait_iters < 0)
        return refuse(err, "waiting limits must not be negative");
    if (c->kv_policy == APMW_KV_IDLE_TTL)
        return refuse(err, "blocks of HBM do not expire: kv_policy must be lru, fifo, lfu or s3-fifo");
    if (c->request_overhead_ns < 0 || !(c->frontend_ns_per_token >= 0.0) ||
        !isfinite(c->frontend_ns_per_token))
        return refuse(err, "request_overhead_ns and frontend_ns_per_token must be finite and not negative");
    if (c->draft_tokens < 0 || c->draft_tokens > 1000)
        return refuse(err, "draft_tokens must lie in 0..1000");
    if (c->draft_tokens > 0 &&
        !(c->acceptance_length >= 1.0 && c->acceptance_length <= 1.0 + c->draft_tokens))
        return refuse(err, "acceptance_length must lie in 1..1 + draft_tokens");
    if (!(c->acceptance_variance >= 0.0) || !isfinite(c->acceptance_variance))
        return refuse(err, "acceptance_variance must be finite and not negative");
    if (!(c->acceptance_spread >= 0.0) || !isfinite(c->acceptance_spread))
        return refuse(err, "acceptance_spread must be finite and not negative");
    if (c->batching != APMW_BATCHING_SGLANG && c->max_num_batched_tokens < 1 + c->draft_tokens)
        return refuse(err, "max_num_batched_tokens must hold one decoding sequence (1 + draft_tokens)");
    if (c->cost->n_kinds < 1 || c->cost->n_kinds > APMW_KV_KINDS)
        return refuse(err, "the step cost must have 1 to 4 attention kinds");
    for (int k = 0; k < c->cost->n_kinds; k++)
        if (c->cost->kv_cap[k] < 1)
            return refuse(err, "the context caps of the step cost must be at least 1");
    return APMW_OK;
}

/* Variance of the tokens that a step emits when each of the k draft tokens is accepted with the same
 * probability a as long as all before it were: P(accepted >= i) = a^i, so the mean is 1 + a + ... + a^k
 * (Leviathan, Kalman, Matias, arXiv:2211.17192, eq. 1) and E[accepted^2] = sum of (2i - 1) a^i. a is found by
 * bisection. */
static double geometric_variance(int draft_tokens, double mean)
{
    double low = 0.0, high = 1.0;
    for (int i = 0; i < 100; i++) {
        const double a = 0.5 * (low + high);
        double sum = 1.0, power = 1.0;
        for (int k = 1; k <= draft_tokens; k++)
            sum += power *= a;
        if (sum < mean)
            low = a;
        else
            high = a;
    }
    double first = 0.0, second = 0.0, power = 1.0;
    for (int k = 1; k <= draft_tokens; k++) {
        power *= low;
        first += power;
        second += (2.0 * k - 1.0) * power;
    }
    return fmax(0.0, second - first * first);
}

static void order_caps(apmw_engine *engine)
{
    const apmw_step_cost *cost = engine->config.cost;
    engine->n_kinds = cost->n_kinds;
    for (int i = 0; i < engine->n_kinds; i++) {
        int j = i;
        for (; j > 0 && cost->kv_cap[engine->cap_order[j - 1]] > cost->kv_cap[i]; j--)
            engine->cap_order[j] = engine->cap_order[j - 1];
        engine->cap_order[j] = i;
    }
}

static void on_evict(void *self, apmw_stream stream, int64_t from_tokens, int64_t to_tokens)
{
    const apmw_engine_ear *ear = self;
    const apmw_connector *connector = ear->engine->config.connector;
    connector->evicted(connector->self, ear->engine, ear->rank, stream, from_tokens, to_tokens);
}

apmw_status apmw_engine_create(apmw_des *des, const apmw_engine_config *config, int32_t index,
                               const apmw_probe *const *probes, size_t n_probes, apmw_engine **out,
                               apmw_error *err)
{
    *out = NULL;
    apmw_status status = validate(config, err);
    if (status != APMW_OK)
        return status;
    apmw_engine *engine = calloc(1, sizeof *engine);
    if (!engine)
        return apmw_error_set(err, APMW_E_NOMEM, "engine %d: out of memory", (int)index);
    const size_t n_ranks = (size_t)config->n_ranks;
    engine->config = *config;
    if (engine->config.max_prefill_tokens == 0)
        engine->config.max_prefill_tokens = config->max_num_batched_tokens;
    engine->des = des;
    engine->index = index;
    engine->mode = config->plain ? &apmw_engine_plain : &apmw_engine_fast;
    engine->tokens_per_seq = 1 + config->draft_tokens;
    /* Every running sequence may decode at once, and each then takes its share of the token budget. */
    engine->seq_limit = config->max_num_seqs;
    if (config->batching != APMW_BATCHING_SGLANG &&
        engine->seq_limit > config->max_num_batched_tokens / engine->tokens_per_seq)
        engine->seq_limit = config->max_num_batched_tokens / engine->tokens_per_seq;
    if (config->draft_tokens > 0)
        engine->acceptance_variance = config->acceptance_fixed          ? 0.0
                                      : config->acceptance_variance > 0.0 ? config->acceptance_variance
                                                                          : geometric_variance(config->draft_tokens,
                                                                                               config->acceptance_length);
    order_caps(engine);
    engine->caches = calloc(n_ranks, sizeof *engine->caches);
    engine->ranks = calloc(n_ranks, sizeof *engine->ranks);
    engine->ears = calloc(n_ranks, sizeof *engine->ears);
    engine->probes = calloc(n_probes ? n_probes : 1, sizeof *engine->probes);
    bool ok = engine->caches && engine->ranks && engine->ears && engine->probes;
    for (size_t i = 0; ok && i < n_ranks; i++) {
        const apmw_kv_options options = {.capacity_blocks = config->kv_blocks,
                                         .block_tokens = config->block_tokens,
                                         .caching = config->prefix_caching,
                                         .policy = config->kv_policy};
        engine->caches[i] = apmw_prefix_cache_create_with(config->streams, &options);
        ok = engine->caches[i] != NULL;
        if (ok && config->connector && config->connector->evicted) {
            engine->ears[i] = (apmw_engine_ear){engine, (int)i};
            apmw_prefix_cache_observe(engine->caches[i], on_evict, &engine->ears[i]);
        }
    }
    if (!ok) {
        apmw_engine_free(engine);
        return apmw_error_set(err, APMW_E_NOMEM, "engine %d: out of memory", (int)index);
    }
    for (size_t i = 0; i < n_probes; i++)
        engine->probes[engine->n_probes++] = probes[i];
    status = engine->mode->open(engine, err);
    if (status != APMW_OK) {
        apmw_engine_free(engine);
        return status;
    }
    *out = engine;
    return APMW_OK;
}

static void drop(void *self, apmw_seq *seq)
{
    apmw_seq_drop(self, seq);
}

void apmw_engine_free(apmw_engine *engine)
{
    if (!engine)
        return;
    if (engine->state) {
        engine->mode->each(engine, drop, engine);
        engine->mode->close(engine);
    }
    while (engine->coming) {
        apmw_seq *seq = engine->coming;
        engine->coming = seq->next;
        drop(engine, seq);
    }
    while (engine->spare) {
        apmw_seq *seq = engine->spare;
        engine->spare = seq->next;
        free(seq);
    }
    for (int i = 0; engine->caches && i < engine->config.n_ranks; i++)
        apmw_prefix_cache_free(engine->caches[i]);
    free(engine->caches);
    free(engine->ranks);
    free(engine->ears);
    free(engine->probes);
    free(engine);
}

/* The cap that the server may plan with: declared by the client, else configured; 0 = none. */
static int64_t output_cap(const apmw_engine *engine, const apmw_request *request)
{
    return request->max_tokens > 0 ? request->max_tokens : engine->config.reserve_output_tokens;
}

static int64_t whole_life_blocks(const apmw_engine *engine, int64_t n_prompt, int64_t n_out)
{
    if (engine->config.draft_tokens == 0)
        return apmw_engine_blocks(engine, n_prompt + n_out - 1);
    /* Growth by fractions of a token is counted for the whole batch, apart from the prompt's blocks. */
    return apmw_engine_blocks(engine, n_prompt) + apmw_engine_blocks(engine, n_out - 1);
}

/* A request that no state of the engine could ever serve. The check of the output length stands for the
 * server's own limit on it: a request that outgrows the pool or the model would be cut or fail. */
static bool can_never_run(const apmw_engine *engine, apmw_seq *seq)
{
    const apmw_engine_config *c = &engine->config;
    const apmw_request *request = seq->request;
    const int64_t n_prompt = request->record.n_prompt, n_out = request->record.n_out;
    if (n_prompt < 1 || n_out < (request->remote_prefill ? 2 : 1) || (request->remote_prefill && !c->connector))
        return true;
    const int64_t cap = request->max_tokens > n_out ? request->max_tokens : n_out;
    if (c->max_model_len > 0 && n_prompt + cap > c->max_model_len)
        return true;
    if (whole_life_blocks(engine, n_prompt, n_out) > c->kv_blocks)
        return true;
    if (c->batching != APMW_BATCHING_TRTLLM)
        return false;
    if (!c->chunked_prefill && n_prompt > c->max_num_batched_tokens)
        return true;
    const int64_t reserve = output_cap(engine, request);
    if (reserve > 0)
        seq->reserved_blocks = whole_life_blocks(engine, n_prompt, reserve);
    if (seq->reserved_blocks > c->kv_blocks) {
        if (request->max_tokens > 0)
            return true;
        seq->reserved_blocks = c->kv_blocks; /* a default of the server is no promise to the client */
    }
    return false;
}

static void book_rank(apmw_engine *engine, apmw_seq *seq, int rank)
{
    seq->rank = rank;
    engine->ranks[rank].requests++;
    engine->ranks[rank].tokens += seq->booked;
}

static int least_loaded(const apmw_engine *engine)
{
    int best = 0;
    for (int i = 1; i < engine->config.n_ranks; i++) {
        const apmw_rank_books *a = &engine->ranks[i], *b = &engine->ranks[best];
        if (a->tokens < b->tokens || (a->tokens == b->tokens && a->requests < b->requests))
            best = i;
    }
    return best;
}

static void on_arrival(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_seq *seq = subject;
    apmw_engine *engine = seq->engine;
    if (seq->prev)
        seq->prev->next = seq->next;
    else
        engine->coming = seq->next;
    if (seq->next)
        seq->next->prev = seq->prev;
    seq->prev = seq->next = NULL;
    if (engine->fault.status != APMW_OK) {
        apmw_seq_drop(engine, seq);
        return;
    }
    if (can_never_run(engine, seq)) {
        apmw_seq_finish(engine, seq, APMW_REQUEST_REJECTED, apmw_des_now(des));
        return;
    }
    if (seq->rank < 0)
        book_rank(engine, seq, least_loaded(engine));
    seq->request->record.rank = seq->rank;
    engine->mode->arrive(engine, seq);
}

void apmw_engine_submit(apmw_engine *engine, apmw_request *request)
{
    const apmw_time now = apmw_des_now(engine->des);
    apmw_request_record *record = &request->record;
    record->engine = engine->index;
    record->rank = -1;
    record->state = APMW_REQUEST_WAITING;
    record->n_cached = record->n_fetched = record->n_transferred = record->n_recomputed = 0;
    record->n_preemptions = 0;
    record->submitted = now;
    record->admitted = record->first_scheduled = record->first_token = APMW_TIME_NEVER;
    record->last_token = record->done = APMW_TIME_NEVER;
    apmw_seq *seq = engine->spare;
    if (seq)
        engine->spare = seq->next;
    else
        seq = malloc(sizeof *seq);
    if (!seq) {
        apmw_engine_fault(engine, APMW_E_NOMEM, "out of memory");
        return;
    }
    *seq = (apmw_seq){.engine = engine, .request = request, .rank = -1, .booked = record->n_prompt};
    request->private_ = seq;
    engine->all.requests++;
    engine->all.tokens += seq->booked;
    if (request->rank_hint >= 0 && request->rank_hint < engine->config.n_ranks)
        book_rank(engine, seq, request->rank_hint);
    for (size_t i = 0; i < engine->n_probes && !request->silent; i++)
        if (engine->probes[i]->on_submit)
            engine->probes[i]->on_submit(engine->probes[i]->self, now, record);
    /* The front end takes one request after another. */
    if (engine->frontend_free < now)
        engine->frontend_free = now;
    const double frontend_ns = engine->config.frontend_ns_per_token * (double)record->n_prompt;
    engine->frontend_free += frontend_ns > 0.0 ? (apmw_time)llround(frontend_ns) : 0;
    seq->next = engine->coming;
    if (engine->coming)
        engine->coming->prev = seq;
    engine->coming = seq;
    apmw_des_schedule(engine->des, engine->frontend_free + engine->config.request_overhead_ns,
                      APMW_EVENT_ARRIVAL, on_arrival, seq, 0);
    const apmw_connector *connector = engine->config.connector;
    if (connector && connector->submitted)
        connector->submitted(connector->self, engine, request);
}

void apmw_engine_fetched(apmw_engine *engine, apmw_request *request)
{
    apmw_seq *seq = request->private_;
    if (engine->fault.status != APMW_OK || !seq || seq->fetch != APMW_FETCH_LOADING)
        return;
    const int64_t came = seq->fetch_to - seq->done;
    if (request->remote_prefill)
        request->record.n_transferred = came;
    else if (request->record.n_preemptions == 0) /* later ones are counted as far as they are not loaded again */
        request->record.n_fetched = came;
    seq->fetch = APMW_FETCH_LOADED;
    seq->done = seq->fetch_to;
    engine->mode->fetched(engine, seq);
}

void apmw_engine_release_kv(apmw_engine *engine, apmw_request *request)
{
    apmw_seq *seq = request->private_;
    if (engine->fault.status != APMW_OK || !seq || !seq->held)
        return;
    engine->mode->release(engine, seq);
    apmw_seq_drop(engine, seq);
}

void apmw_engine_abandon(apmw_engine *engine, apmw_request *request)
{
    apmw_seq *seq = request->private_;
    if (engine->fault.status != APMW_OK || !seq || seq->fetch != APMW_FETCH_LOADING)
        return;
    seq->computed = seq->done;
    engine->mode->release(engine, seq);
    apmw_seq_finish(engine, seq, APMW_REQUEST_REJECTED, apmw_des_now(engine->des));
}

bool apmw_engine_cancel(apmw_engine *engine, apmw_request *request)
{
    apmw_seq *seq = request->private_;
    if (engine->fault.status != APMW_OK || !seq || seq->rank < 0 || request->record.state != APMW_REQUEST_WAITING ||
        !engine->mode->withdraw(engine, seq))
        return false;
    const apmw_connector *connector = engine->config.connector;
    if (connector && connector->computed) /* whatever was promised to it is not needed */
        connector->computed(connector->self, engine, request, seq->rank, 0);
    apmw_seq_finish(engine, seq, APMW_REQUEST_CANCELLED, apmw_des_now(engine->des));
    return true;
}

static const apmw_rank_books *books(const apmw_engine *engine, int rank)
{
    return rank < 0 || rank >= engine->config.n_ranks ? &engine->all : &engine->ranks[rank];
}

int64_t apmw_engine_load(const apmw_engine *engine, int rank)
{
    return books(engine, rank)->requests;
}

int64_t apmw_engine_tokens(const apmw_engine *engine, int rank)
{
    return books(engine, rank)->tokens;
}

int64_t apmw_engine_match(const apmw_engine *engine, int rank, apmw_stream stream, int64_t n_prompt)
{
    if (rank < 0 || rank >= engine->config.n_ranks) {
        int64_t best = 0;
        for (int i = 0; i < engine->config.n_ranks; i++) {
            const int64_t match = apmw_engine_match(engine, i, stream, n_prompt);
            if (match > best)
                best = match;
        }
        return best;
    }
    if (engine->mode->settle)
        engine->mode->settle(engine);
    return apmw_prefix_cache_match(engine->caches[rank], stream, n_prompt);
}

int apmw_engine_ranks(const apmw_engine *engine)
{
    return engine->config.n_ranks;
}

void apmw_engine_kv_stats(const apmw_engine *engine, int rank, apmw_kv_stats *out)
{
    if (engine->mode->settle)
        engine->mode->settle(engine);
    apmw_prefix_cache_stats(engine->caches[rank], out);
}

apmw_time apmw_engine_busy(const apmw_engine *engine)
{
    return engine->busy + (engine->stepping ? apmw_des_now(engine->des) - engine->step_begin : 0);
}

uint64_t apmw_engine_steps(const apmw_engine *engine)
{
    return engine->steps;
}

apmw_status apmw_engine_check(const apmw_engine *engine, apmw_error *err)
{
    if (engine->fault.status != APMW_OK)
        return apmw_error_set(err, engine->fault.status, "%s", engine->fault.message);
    if (engine->mode->settle)
        engine->mode->settle(engine);
    for (int i = 0; i < engine->config.n_ranks; i++) {
        const apmw_status status = apmw_prefix_cache_check(engine->caches[i], err);
        if (status != APMW_OK) {
            apmw_error_wrap(err, "engine %d rank %d", (int)engine->index, i);
            return status;
        }
    }
    return engine->mode->check(engine, err);
}
