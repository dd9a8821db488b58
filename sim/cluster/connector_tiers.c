/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>

#include "apmw/kv_connector.h"
#include "tier_link.h"

typedef struct rank_tiers {
    apmw_kv_tiers *stack;
    apmw_tier_link load[APMW_KV_MAX_TIERS], store[APMW_KV_MAX_TIERS];
    int64_t inserted[APMW_KV_MAX_TIERS]; /* blocks whose writes are booked */
} rank_tiers;

typedef struct engine_tiers {
    apmw_tiers *owner;
    apmw_connector connector;
    const apmw_engine_config *config;
    rank_tiers *ranks;
} engine_tiers;

typedef struct job job;

/* What one tier gives to a fetch. */
typedef struct part {
    job *job;
    bool pinned;
    apmw_kv_lease lease;
    apmw_transfer transfer;
} part;

/* A load from its decision on: what was promised stays pinned until it has come. */
struct job {
    engine_tiers *owner;
    rank_tiers *rank;
    apmw_engine *engine;
    const apmw_request *asker; /* decided, and its blocks are not taken yet; else NULL */
    apmw_request *request;     /* on its way; NULL: a prefetch of this stream */
    apmw_stream stream;
    int64_t to;
    size_t n_coming;
    part parts[APMW_KV_MAX_TIERS]; /* by tier */
    job *prev, *next;
};

struct apmw_tiers {
    apmw_des *des;
    apmw_tiers_setup setup;
    apmw_kv_tiers *shared; /* the last tier, if it is one store for all */
    int64_t shared_inserted;
    engine_tiers *engines;
    size_t n_engines;
    job *open, *spare;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
    void (*fail)(void *self);
    void *self;
};

static job *take_job(apmw_tiers *tiers)
{
    job *j = tiers->spare;
    if (j != NULL) {
        tiers->spare = j->next;
    } else {
        j = malloc(sizeof *j);
        if (j == NULL) {
            tiers->fail(tiers->self);
            return NULL;
        }
    }
    *j = (job){.next = tiers->open};
    if (tiers->open != NULL) {
        tiers->open->prev = j;
    }
    tiers->open = j;
    return j;
}

static void drop_job(apmw_tiers *tiers, job *j)
{
    if (j->prev != NULL) {
        j->prev->next = j->next;
    } else {
        tiers->open = j->next;
    }
    if (j->next != NULL) {
        j->next->prev = j->prev;
    }
    j->next = tiers->spare;
    tiers->spare = j;
}

static void set_time(apmw_tiers *tiers, rank_tiers *rank)
{
    apmw_kv_tiers_at(rank->stack, apmw_des_now(tiers->des));
}

double apmw_recompute_s(const apmw_step_cost *cost, int64_t from, int64_t to, int64_t chunk_tokens)
{
    double seconds = 0.0;
    while (from < to) {
        const int64_t n = to - from < chunk_tokens ? to - from : chunk_tokens;
        const apmw_chunk chunk = {.new_tokens = n, .past_tokens = from, .is_last = n == to - from};
        const apmw_step_load load = {.rank_tokens = n, .total_tokens = n, .chunks = &chunk, .n_chunks = 1};
        apmw_step_work work;
        apmw_step_cost_eval(cost, &load, &work);
        seconds += work.time_s;
        from += n;
    }
    return seconds;
}

/* Tokens of the stream that tier t can bring a prompt to, whose last token must be computed. */
static int64_t has(const rank_tiers *rank, size_t t, const apmw_request *request)
{
    const int64_t n = apmw_kv_tiers_match(rank->stack, t, request->stream, request->record.n_prompt);
    return n < request->record.n_prompt ? n : request->record.n_prompt - 1;
}

/* Is bringing [from, to) of the prompt from this tier worth it? What is left after it must be computed either way. */
static bool worth(const engine_tiers *e, const rank_tiers *rank, size_t t, int64_t from, int64_t to, int64_t n_prompt)
{
    const double load_ns = apmw_tier_link_ns(&rank->load[t], apmw_kv_tiers_bytes_of(rank->stack, t, to - from));
    const apmw_kv_load how = e->owner->setup.load;
    double saved_s = 0.0;
    if (how == APMW_KV_LOAD_FASTER) {
        const int64_t chunk = e->config->max_num_batched_tokens;
        saved_s = apmw_recompute_s(e->config->cost, from, n_prompt, chunk) -
                  apmw_recompute_s(e->config->cost, to, n_prompt, chunk);
    }
    return apmw_kv_load_worth(how, load_ns, 1e9 * saved_s);
}

static void pin(job *j, size_t t, int64_t n_prompt)
{
    part *p = &j->parts[t];
    p->job = j;
    p->pinned = true;
    apmw_kv_tiers_begin(j->rank->stack, t, j->stream, n_prompt, &p->lease);
}

static void unpin(part *p, size_t t)
{
    if (p->pinned) {
        p->pinned = false;
        apmw_kv_tiers_end(p->job->rank->stack, t, &p->lease);
    }
}

static job *find_asker(const engine_tiers *e, const apmw_request *request)
{
    job *j = e->owner->open; /* the newest first */
    while (j != NULL && j->asker != request) {
        j = j->next;
    }
    return j;
}

static void forget(engine_tiers *e, job *j)
{
    for (size_t t = 0; j != NULL && t < e->owner->setup.n_tiers; t++) {
        unpin(&j->parts[t], t);
    }
    if (j != NULL) {
        drop_job(e->owner, j);
    }
}

/* What the tiers from `first` on add to a prompt of which there are `matched` tokens, pinned; NULL = nothing. */
static job *decide(engine_tiers *e, rank_tiers *rank, const apmw_request *request, size_t first, int64_t matched)
{
    job *j = NULL;
    int64_t to = matched;
    for (size_t t = first; t < e->owner->setup.n_tiers; t++) {
        const int64_t n = has(rank, t, request);
        if (n <= to) {
            continue;
        }
        if (!worth(e, rank, t, to, n, request->record.n_prompt)) {
            e->owner->stats[t].declined_tokens += first == 0 ? n - to : 0;
            continue;
        }
        if (j == NULL && (j = take_job(e->owner)) == NULL) {
            return NULL;
        }
        j->owner = e;
        j->rank = rank;
        j->stream = request->stream;
        j->to = to = n;
        pin(j, t, request->record.n_prompt);
    }
    return j;
}

static int64_t available(void *self, apmw_engine *engine, const apmw_request *request, int rank_index, int64_t matched)
{
    (void)engine;
    engine_tiers *e = self;
    rank_tiers *rank = &e->ranks[rank_index];
    set_time(e->owner, rank);
    job *old = find_asker(e, request);
    job *j = decide(e, rank, request, 0, matched);
    forget(e, old); /* asked again */
    if (j == NULL) {
        return matched;
    }
    j->asker = request;
    return j->to;
}

/* Writes of what has newly come to a tier, from above or by cascade. */
static void book_stores(engine_tiers *e, rank_tiers *rank)
{
    apmw_tiers *tiers = e->owner;
    for (size_t t = 0; t < tiers->setup.n_tiers; t++) {
        apmw_kv_stats s;
        apmw_kv_tiers_stats(rank->stack, t, &s);
        int64_t *booked = tiers->setup.tiers[t].shared ? &tiers->shared_inserted : &rank->inserted[t];
        const int64_t tokens = (s.inserted_blocks - *booked) * apmw_kv_tiers_block_tokens(rank->stack, t);
        *booked = s.inserted_blocks;
        if (tokens > 0) {
            const double bytes = apmw_kv_tiers_bytes_of(rank->stack, t, tokens);
            tiers->stats[t].stored_tokens += tokens;
            apmw_tier_link_post(&rank->store[t], bytes);
        }
    }
}

static void store(engine_tiers *e, rank_tiers *rank, apmw_stream stream, int64_t n_tokens)
{
    set_time(e->owner, rank);
    (void)apmw_kv_tiers_store(rank->stack, 0, stream, n_tokens);
    book_stores(e, rank);
}

static void on_part(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    part *p = subject;
    job *j = p->job;
    engine_tiers *e = j->owner;
    set_time(e->owner, j->rank);
    unpin(p, argument);
    if (--j->n_coming > 0) {
        return;
    }
    apmw_engine *engine = j->engine;
    apmw_request *request = j->request;
    if (request == NULL) {
        store(e, j->rank, j->stream, j->to);
    }
    drop_job(e->owner, j);
    if (request != NULL) {
        apmw_engine_fetched(engine, request);
    }
}

/* Tokens [from, to) come, from each tier what the nearer ones have not. `to` may lie within a tier's block: all of that
 * is read, the bytes are those of the tokens. */
static void load(job *j, int64_t from, bool prefetch)
{
    apmw_tiers *tiers = j->owner->owner;
    for (size_t t = 0; t < tiers->setup.n_tiers; t++) {
        part *p = &j->parts[t];
        const int64_t n = p->pinned && p->lease.matched_tokens < j->to ? p->lease.matched_tokens : j->to;
        if (!p->pinned || n <= from) {
            unpin(p, t);
            continue;
        }
        apmw_tier_stats *s = &tiers->stats[t];
        s->loads += prefetch ? 0 : 1;
        *(prefetch ? &s->prefetched_tokens : &s->loaded_tokens) += n - from;
        p->transfer.done = on_part;
        p->transfer.subject = p;
        p->transfer.argument = t;
        j->n_coming++;
        apmw_tier_link_load(&j->rank->load[t], apmw_kv_tiers_bytes_of(j->rank->stack, t, n - from), &p->transfer);
        from = n;
    }
    APMW_CHECK(j->n_coming > 0 && from == j->to);
}

static void fetch(void *self, apmw_engine *engine, apmw_request *request, int rank_index, int64_t from, int64_t to)
{
    (void)rank_index;
    engine_tiers *e = self;
    job *j = find_asker(e, request);
    if (j == NULL) { /* memory was short, and the run is over */
        return;
    }
    j->asker = NULL;
    j->engine = engine;
    j->request = request;
    j->to = to;
    set_time(e->owner, j->rank);
    load(j, from, false);
}

/* Also the end of a request whose promise was not called in, since HBM came to have it. */
static void computed(void *self, apmw_engine *engine, const apmw_request *request, int rank_index, int64_t n_tokens)
{
    (void)engine;
    engine_tiers *e = self;
    set_time(e->owner, &e->ranks[rank_index]);
    forget(e, find_asker(e, request));
    if (!e->owner->setup.write_back) {
        store(e, &e->ranks[rank_index], request->stream, n_tokens);
    }
}

static void evicted(void *self, apmw_engine *engine, int rank_index, apmw_stream stream, int64_t from, int64_t to)
{
    (void)engine;
    (void)from;
    engine_tiers *e = self;
    store(e, &e->ranks[rank_index], stream, to);
}

static void submitted(void *self, apmw_engine *engine, const apmw_request *request)
{
    engine_tiers *e = self;
    apmw_tiers *tiers = e->owner;
    if (request->rank_hint < 0 && e->config->n_ranks > 1) {
        return;
    }
    rank_tiers *rank = &e->ranks[request->rank_hint < 0 ? 0 : request->rank_hint];
    set_time(tiers, rank);
    const int64_t near = has(rank, 0, request);
    job *j = decide(e, rank, request, 1, near);
    if (j != NULL) {
        j->engine = engine;
        load(j, near, true);
    }
}

static void make_link(apmw_tiers *tiers, double bytes_per_s, apmw_time latency_ns, bool fair, apmw_tier_link *out)
{
    *out = (apmw_tier_link){.des = tiers->des, .bytes_per_s = bytes_per_s, .latency_ns = latency_ns, .fair = fair};
}

static apmw_status make_rank(apmw_tiers *tiers, rank_tiers *rank, apmw_kv_tier_config *configs,
                             const apmw_streams *streams, apmw_error *err)
{
    for (size_t t = 0; t < tiers->setup.n_tiers; t++) {
        const apmw_tier_setup *s = &tiers->setup.tiers[t];
        make_link(tiers, s->load_bytes_per_s, s->latency_ns, tiers->setup.fair_links, &rank->load[t]);
        make_link(tiers, s->store_bytes_per_s, 0, false, &rank->store[t]);
    }
    return apmw_kv_tiers_create(streams, configs, tiers->setup.n_tiers, &rank->stack, err);
}

static apmw_status make_engine(apmw_tiers *tiers, engine_tiers *e, const apmw_engine_config *config,
                               apmw_kv_tier_config *configs, const apmw_streams *streams, apmw_error *err)
{
    const apmw_tiers_setup *setup = &tiers->setup;
    e->owner = tiers;
    e->config = config;
    e->connector = (apmw_connector){.self = e,
                                    .available = available,
                                    .fetch = fetch,
                                    .computed = computed,
                                    .evicted = setup->write_back ? evicted : NULL,
                                    .submitted = setup->prefetch && setup->n_tiers > 1 ? submitted : NULL};
    e->ranks = calloc((size_t)config->n_ranks, sizeof *e->ranks);
    if (e->ranks == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for tiers of KV");
    }
    apmw_status status = APMW_OK;
    for (int r = 0; r < config->n_ranks && status == APMW_OK; r++) {
        status = make_rank(tiers, &e->ranks[r], configs, streams, err);
    }
    return status;
}

static apmw_status check_setup(const apmw_tiers_setup *setup, apmw_error *err)
{
    if (setup->n_tiers < 1 || setup->n_tiers > APMW_KV_MAX_TIERS) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%zu tiers of KV, where 1 to %d can be", setup->n_tiers,
                              APMW_KV_MAX_TIERS);
    }
    for (size_t t = 0; t < setup->n_tiers; t++) {
        const apmw_tier_setup *s = &setup->tiers[t];
        if (!(s->load_bytes_per_s > 0.0) || !(s->store_bytes_per_s > 0.0) || s->latency_ns < 0) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s: rates must be above 0 and the latency not below", s->kv.name);
        }
        if (s->shared && t + 1 < setup->n_tiers) {
            return apmw_error_set(err, APMW_E_SCENARIO, "%s: only the last tier can be shared", s->kv.name);
        }
    }
    return APMW_OK;
}

apmw_status apmw_tiers_create(apmw_des *des, const apmw_streams *streams, const apmw_tiers_setup *setup,
                              const apmw_engine_config *engines, size_t n_engines, void (*fail)(void *self), void *self,
                              apmw_tiers **out, apmw_error *err)
{
    *out = NULL;
    apmw_status status = check_setup(setup, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_tiers *tiers = calloc(1, sizeof *tiers);
    engine_tiers *all = calloc(n_engines, sizeof *all);
    if (tiers == NULL || all == NULL) {
        free(tiers);
        free(all);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for tiers of KV");
    }
    tiers->des = des;
    tiers->setup = *setup;
    tiers->engines = all;
    tiers->fail = fail;
    tiers->self = self;
    apmw_kv_tier_config configs[APMW_KV_MAX_TIERS];
    for (size_t t = 0; t < setup->n_tiers; t++) {
        configs[t] = setup->tiers[t].kv;
        configs[t].cascade = configs[t].cascade && t + 1 < setup->n_tiers;
        configs[t].shared = NULL;
    }
    const size_t last = setup->n_tiers - 1;
    if (setup->tiers[last].shared) {
        status = apmw_kv_tiers_create(streams, &configs[last], 1, &tiers->shared, err);
        configs[last].shared = tiers->shared;
    }
    for (size_t i = 0; i < n_engines && status == APMW_OK; i++) {
        tiers->n_engines = i + 1;
        status = make_engine(tiers, &all[i], &engines[i], configs, streams, err);
    }
    if (status != APMW_OK) {
        apmw_tiers_free(tiers);
        return status;
    }
    *out = tiers;
    return APMW_OK;
}

static void free_jobs(job *j)
{
    while (j != NULL) {
        job *next = j->next;
        free(j);
        j = next;
    }
}

void apmw_tiers_free(apmw_tiers *tiers)
{
    if (tiers == NULL) {
        return;
    }
    for (size_t i = 0; i < tiers->n_engines; i++) {
        engine_tiers *e = &tiers->engines[i];
        for (int r = 0; e->ranks != NULL && r < e->config->n_ranks; r++) {
            apmw_kv_tiers_free(e->ranks[r].stack);
        }
        free(e->ranks);
    }
    apmw_kv_tiers_free(tiers->shared);
    free_jobs(tiers->open);
    free_jobs(tiers->spare);
    free(tiers->engines);
    free(tiers);
}

const apmw_connector *apmw_tiers_connector(const apmw_tiers *tiers, size_t i)
{
    APMW_CHECK(i < tiers->n_engines);
    return &tiers->engines[i].connector;
}

size_t apmw_tiers_count(const apmw_tiers *tiers)
{
    return tiers->setup.n_tiers;
}

static void add_tier(const apmw_kv_tiers *stack, size_t t, apmw_tier_stats *out)
{
    apmw_kv_stats s;
    apmw_kv_tiers_stats(stack, t, &s);
    const int64_t block = apmw_kv_tiers_block_tokens(stack, t);
    out->capacity_tokens += s.capacity_blocks * block;
    out->cached_tokens += (s.cached_blocks + s.held_blocks) * block;
    out->evicted_tokens += s.evicted_blocks * block;
}

void apmw_tiers_stats(const apmw_tiers *tiers, size_t t, apmw_tier_stats *out)
{
    APMW_CHECK(t < tiers->setup.n_tiers);
    *out = tiers->stats[t];
    const bool shared = tiers->setup.tiers[t].shared;
    if (shared) {
        add_tier(tiers->shared, 0, out);
    }
    for (size_t i = 0; i < tiers->n_engines; i++) {
        for (int r = 0; r < tiers->engines[i].config->n_ranks; r++) {
            const rank_tiers *rank = &tiers->engines[i].ranks[r];
            if (!shared) {
                add_tier(rank->stack, t, out);
            }
            const apmw_tier_link *load = &rank->load[t], *posted = &rank->store[t];
            out->loaded_bytes += load->bytes;
            out->load_wait_s += 1e-9 * load->waited_ns;
            out->load_busy_s += 1e-9 * load->busy_ns;
            out->stored_bytes += posted->bytes;
            out->store_busy_s += 1e-9 * posted->busy_ns;
            out->store_backlog_s = fmax(out->store_backlog_s, apmw_time_to_s(posted->longest_wait));
        }
    }
}

apmw_status apmw_tiers_check(const apmw_tiers *tiers, apmw_error *err)
{
    for (size_t i = 0; i < tiers->n_engines; i++) {
        for (int r = 0; r < tiers->engines[i].config->n_ranks; r++) {
            if (apmw_kv_tiers_check(tiers->engines[i].ranks[r].stack, err) != APMW_OK) {
                return apmw_error_wrap(err, "engine %zu, rank %d", i, r);
            }
        }
    }
    return APMW_OK;
}
