/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What engines ask of their tiers, and what follows in time. */
#include <stdlib.h>

#include "connector_tiers.h"

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

/* A tier that this request has pinned before has counted its query. */
static void pin(job *j, size_t t, int64_t n_prompt, const job *before)
{
    part *p = &j->parts[t];
    p->job = j;
    p->pinned = true;
    const bool again = before != NULL && before->parts[t].pinned;
    (again ? apmw_kv_tiers_again : apmw_kv_tiers_begin)(j->rank->stack, t, j->stream, n_prompt, &p->lease);
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

/* What a request was promised or could have had is settled. */
static void settle(engine_tiers *e, const job *j)
{
    for (size_t t = 0; j != NULL && t < e->owner->setup.n_tiers; t++) {
        e->owner->stats[t].declined_tokens += j->declined[t];
    }
}

/* What the tiers from `first` on add to a prompt of which there are `matched` tokens, pinned, and what they could have
 * added; NULL = neither. `before`: what was decided when it asked last, or NULL. */
static job *decide(engine_tiers *e, rank_tiers *rank, const apmw_request *request, size_t first, int64_t matched,
                   const job *before)
{
    job *j = NULL;
    int64_t to = matched;
    for (size_t t = first; t < e->owner->setup.n_tiers; t++) {
        const int64_t n = has(rank, t, request);
        if (n <= to) {
            continue;
        }
        const bool load = worth(e, rank, t, to, n, request->record.n_prompt);
        if (!load && first > 0) { /* a prefetch that is not made */
            continue;
        }
        if (j == NULL && (j = take_job(e->owner)) == NULL) {
            return NULL;
        }
        j->owner = e;
        j->rank = rank;
        j->stream = request->stream;
        j->to = to;
        if (!load) {
            j->declined[t] = n - to;
            continue;
        }
        j->to = to = n;
        pin(j, t, request->record.n_prompt, before);
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
    job *j = decide(e, rank, request, 0, matched, old);
    forget(e, old); /* asked again */
    if (j == NULL) {
        return matched;
    }
    j->asker = request;
    return j->to;
}

static void post_store(apmw_tiers *tiers, rank_tiers *rank, size_t t, int64_t tokens)
{
    if (tokens > 0) {
        tiers->stats[t].stored_tokens += tokens;
        apmw_tier_link_post(&rank->store[t], apmw_kv_tiers_bytes_of(rank->stack, t, tokens));
    }
}

/* Tokens that have newly come to tier t, from above or by cascade. */
static int64_t new_tokens(apmw_tiers *tiers, rank_tiers *rank, size_t t)
{
    apmw_kv_stats s;
    apmw_kv_tiers_stats(rank->stack, t, &s);
    int64_t *booked = tiers->setup.tiers[t].shared ? &tiers->shared_inserted : &rank->inserted[t];
    const int64_t blocks = s.inserted_blocks - *booked;
    *booked = s.inserted_blocks;
    return blocks * apmw_kv_tiers_block_tokens(rank->stack, t);
}

static void book_stores(engine_tiers *e, rank_tiers *rank)
{
    for (size_t t = 0; t < e->owner->setup.n_tiers; t++) {
        post_store(e->owner, rank, t, new_tokens(e->owner, rank, t));
    }
}

static void store(engine_tiers *e, rank_tiers *rank, apmw_stream stream, int64_t n_tokens)
{
    set_time(e->owner, rank);
    (void)apmw_kv_tiers_store(rank->stack, 0, stream, n_tokens);
    book_stores(e, rank);
}

static writer *find_writer(const apmw_tiers *tiers, const apmw_request *request)
{
    writer *w = tiers->writers;
    while (w != NULL && w->request != request) {
        w = w->next;
    }
    return w;
}

static void begin_write(engine_tiers *e, rank_tiers *rank, const apmw_request *request, int64_t n_tokens)
{
    apmw_tiers *tiers = e->owner;
    if (n_tokens == 0 || request->stream == 0 || find_writer(tiers, request) != NULL) {
        return;
    }
    writer *w = malloc(sizeof *w);
    if (w == NULL) {
        tiers->fail(tiers->self);
        return;
    }
    *w = (writer){.rank = rank, .request = request, .next = tiers->writers};
    if (tiers->writers != NULL) {
        tiers->writers->prev = w;
    }
    tiers->writers = w;
    w->tokens = apmw_kv_tiers_write(rank->stack, 0, request->stream, n_tokens, &w->write);
    post_store(tiers, rank, 0, w->tokens);
    book_stores(e, rank); /* what it has pushed out */
}

static void released(void *self, apmw_engine *engine, const apmw_request *request, int rank_index, int64_t n_tokens,
                     int64_t n_all)
{
    (void)engine;
    (void)rank_index;
    engine_tiers *e = self;
    apmw_tiers *tiers = e->owner;
    writer *w = find_writer(tiers, request);
    if (w == NULL) {
        return;
    }
    set_time(tiers, w->rank);
    const int64_t found = apmw_kv_tiers_written(w->rank->stack, 0, &w->write, n_tokens, n_all);
    const int64_t dead = new_tokens(tiers, w->rank, 0) - found;
    /* What another had made findable meanwhile was written all the same: less than was booked may be found. */
    post_store(tiers, w->rank, 0, dead + (found > w->tokens ? found - w->tokens : 0));
    book_stores(e, w->rank);
    *(w->prev != NULL ? &w->prev->next : &tiers->writers) = w->next;
    if (w->next != NULL) {
        w->next->prev = w->prev;
    }
    free(w);
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
    settle(e, j);
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
    job *j = find_asker(e, request);
    settle(e, j);
    forget(e, j);
    if (e->owner->setup.found_when_released) {
        begin_write(e, &e->ranks[rank_index], request, n_tokens);
    } else if (!e->owner->setup.write_back) {
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
    job *j = decide(e, rank, request, 1, near, NULL);
    if (j != NULL) {
        j->engine = engine;
        load(j, near, true);
    }
}

const apmw_connector apmw_tiers_behaviour = {
    .available = available, .fetch = fetch, .computed = computed, .released = released, .evicted = evicted,
    .submitted = submitted};
