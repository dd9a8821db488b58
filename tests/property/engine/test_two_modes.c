/* SPDX-License-Identifier: GPL-3.0-or-later */
/* L26: stretches in closed form and one step at a time give the same order, counts and hits, and times within
 * a microsecond, on random closed-loop conversations over every scheduler, with small pools, ranks and
 * drafts. */
#include "engine_rig.h"
#include <math.h>
#include "apmw/rng.h"
#include "test_support.h"

enum { MAX_AGENTS = 30, MAX_TURNS = 8, MAX_LOOKS = 40 };

typedef struct case_ {
    uint64_t seed;
    apmw_linear_cost cost;
    apmw_engine_config config;
    int n_agents, n_turns, n_shared;
    int64_t mean_prompt, mean_out;
    double mean_delay_s;
    bool kept, burst;
    bool connected; /* a connector brings some prompts, whole or in part; some ended ones are held */
} case_;

typedef struct driver {
    engine_rig *rig;
    const case_ *c;
    apmw_stream stream[MAX_AGENTS];
    int64_t context[MAX_AGENTS];
    int turn[MAX_AGENTS];
    apmw_stream shared;
    apmw_request *of[MAX_AGENTS][MAX_TURNS];
    int64_t looks[MAX_LOOKS];
    int n_looks;
    apmw_connector connector;
} driver;

static double draw(const case_ *c, const char *purpose, uint64_t a, uint64_t b)
{
    return apmw_rng_uniform_at(apmw_rng_key(c->seed, purpose, a, b), 0);
}

static int64_t range(const case_ *c, const char *purpose, int64_t low, int64_t high)
{
    return low + (int64_t)(draw(c, purpose, 0, 0) * (double)(high - low + 1));
}

static case_ make_case(uint64_t seed)
{
    case_ c = {.seed = seed};
    c.cost = (apmw_linear_cost){.fixed_s = 0.002 + 0.003 * draw(&c, "fixed", 0, 0),
                                .per_token_s = 1e-5 * draw(&c, "token", 0, 0),
                                .per_seq_s = 1e-5 * draw(&c, "seq", 0, 0),
                                .per_kv_s = {1e-7 * draw(&c, "kv", 0, 0), 3e-7 * draw(&c, "kv", 1, 0)},
                                .per_pair_s = 1e-9 * draw(&c, "pair", 0, 0),
                                .flops_per_token = 3.0,
                                .bytes_per_step = 7.0,
                                .bytes_per_kv = {2.0, 1.0, 1.0},
                                .n_kinds = 3,
                                .kv_cap = {INT64_MAX, range(&c, "cap", 1, 400), range(&c, "cap2", 1, 100)},
                                .n_accelerators = 1};
    apmw_engine_config *e = &c.config;
    *e = rig_config();
    e->batching = (apmw_batching)(seed % 3);
    e->n_ranks = draw(&c, "one rank", 0, 0) < 0.5 ? 1 : (int)range(&c, "ranks", 2, 4);
    e->max_num_seqs = draw(&c, "few", 0, 0) < 0.5 ? range(&c, "seqs", 1, 4) : range(&c, "seqs", 5, 20);
    e->block_tokens = (const int64_t[]){1, 4, 16, 64}[range(&c, "block", 0, 3)];
    c.mean_prompt = range(&c, "prompt", 5, 150);
    c.mean_out = range(&c, "out", 1, 200);
    c.n_agents = (int)range(&c, "agents", 1, MAX_AGENTS);
    c.n_turns = (int)range(&c, "turns", 1, MAX_TURNS);
    c.n_shared = draw(&c, "share", 0, 0) < 0.5 ? (int)range(&c, "shared", 1, 60) : 0;
    c.mean_delay_s = draw(&c, "slow", 0, 0) < 0.5 ? 2.0 : 0.05;
    c.kept = draw(&c, "kept", 0, 0) < 0.7;
    c.burst = draw(&c, "burst", 0, 0) < 0.5;
    e->max_num_batched_tokens = range(&c, "budget", 20, 600);
    e->max_prefill_tokens = range(&c, "prefill", 0, 400);
    e->chunked_prefill = draw(&c, "chunked", 0, 0) < 0.5;
    if (draw(&c, "drafts", 0, 0) < 0.4) {
        e->draft_tokens = (int)range(&c, "draft", 1, 4);
        e->acceptance_length = 1.0 + e->draft_tokens * draw(&c, "acceptance", 0, 0);
        e->acceptance_spread = 0.2 * draw(&c, "texts", 0, 0);
    }
    /* From a pool that one long conversation fills to one that is never full. */
    const int64_t longest = (c.mean_prompt + c.mean_out) * c.n_turns;
    e->kv_blocks = longest * range(&c, "kv", 5, 40) / (10 * e->block_tokens) + 4;
    e->prefix_caching = draw(&c, "caching", 0, 0) < 0.7;
    e->kv_policy = draw(&c, "policy", 0, 0) < 0.5 ? APMW_KV_LRU : (apmw_kv_policy)(4.0 * draw(&c, "policy", 1, 0));
    e->recv_interval = draw(&c, "recv", 0, 0) < 0.6 ? (int)range(&c, "interval", 2, 40) : 0;
    if (draw(&c, "wait", 0, 0) < 0.6) {
        e->batch_wait_tokens = (int64_t)(0.9 * (double)e->max_num_batched_tokens);
        e->batch_wait_iters = (int)range(&c, "iters", 1, 30);
        e->adp_wait_iters = (int)range(&c, "adp", 1, 60);
    }
    e->reserve_output_tokens = draw(&c, "reserve", 0, 0) < 0.5 ? range(&c, "reserved", 1, 2 * c.mean_out) : 0;
    e->request_overhead_ns = draw(&c, "overhead", 0, 0) < 0.5 ? 0 : 1234567;
    e->frontend_ns_per_token = draw(&c, "frontend", 0, 0) < 0.5 ? 0.0 : 321.7;
    e->seed = seed;
    if (draw(&c, "delays prefill", 0, 0) < 0.5) {
        e->prefill_delay_passes = (int)range(&c, "passes", 1, 30);
        e->prefill_delay_ns = range(&c, "delay", 1, 200) * 1000000;
    }
    c.connected = draw(&c, "connected", 0, 0) < 0.5;
    return c;
}

static int64_t offered(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t matched)
{
    const driver *d = self;
    (void)engine;
    (void)rank;
    (void)matched;
    return draw(d->c, "none", request->record.id, 0) < 0.5
               ? 0
               : (int64_t)(draw(d->c, "part", request->record.id, 0) * (double)(request->record.n_prompt + 5));
}

static void come(apmw_des *des, void *subject, uint64_t id)
{
    (void)des;
    driver *d = subject;
    apmw_request *request = d->of[id / MAX_TURNS][id % MAX_TURNS];
    if (draw(d->c, "never", id, 0) < 0.05)
        apmw_engine_abandon(d->rig->engine, request);
    else
        apmw_engine_fetched(d->rig->engine, request);
    rig_check(d->rig);
}

static void bring(void *self, apmw_engine *engine, apmw_request *request, int rank, int64_t from, int64_t to)
{
    driver *d = self;
    (void)engine;
    (void)rank;
    assert_true(from < to && to <= request->record.n_prompt);
    const uint64_t id = request->record.id;
    const double delay = draw(d->c, "at once", id, 0) < 0.2 ? 0.0 : 0.3 * draw(d->c, "fetch", id, 0);
    apmw_des_schedule(d->rig->des, apmw_des_now(d->rig->des) + apmw_time_from_s(delay), APMW_EVENT_TRANSFER, come, d, id);
}

static void let_go(apmw_des *des, void *subject, uint64_t id)
{
    (void)des;
    driver *d = subject;
    apmw_engine_release_kv(d->rig->engine, d->of[id / MAX_TURNS][id % MAX_TURNS]);
    rig_check(d->rig);
}

static void begin_turn(apmw_des *des, void *subject, uint64_t agent);

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    driver *d = self;
    const uint64_t agent = (uint64_t)request->record.agent;
    const uint64_t turn = (uint64_t)request->record.turn;
    const double delay = draw(d->c, "no delay", agent, turn) < 0.2
                             ? 0.0
                             : -d->c->mean_delay_s * log(draw(d->c, "delay", agent, turn));
    d->context[agent] = request->record.n_prompt + request->record.n_out;
    if (request->hold_kv && request->record.state == APMW_REQUEST_DONE)
        apmw_des_schedule(d->rig->des, now + apmw_time_from_s(0.5 * draw(d->c, "hold", agent, turn)),
                          APMW_EVENT_TRANSFER, let_go, d, request->record.id);
    if (++d->turn[agent] < d->c->n_turns && request->record.state == APMW_REQUEST_DONE)
        apmw_des_schedule(d->rig->des, now + apmw_time_from_s(delay), APMW_EVENT_CLIENT, begin_turn, d,
                          agent);
    rig_check(d->rig);
}

static void begin_turn(apmw_des *des, void *subject, uint64_t agent)
{
    (void)des;
    driver *d = subject;
    const uint64_t turn = (uint64_t)d->turn[agent];
    const int64_t fresh = 1 + (int64_t)(draw(d->c, "fresh", agent, turn) * 2.0 * (double)d->c->mean_prompt);
    const int64_t out = 1 + (int64_t)(draw(d->c, "length", agent, turn) * 2.0 * (double)d->c->mean_out);
    apmw_request *request = rig_request(d->rig, d->context[agent] + fresh, out);
    request->record.agent = (int32_t)agent;
    request->record.turn = (int32_t)turn;
    /* Other content after the last prompt unless the output is kept: the stream forks there. */
    if (!d->c->kept && turn > 0)
        d->stream[agent] =
            apmw_streams_new(d->rig->streams, d->stream[agent], d->of[agent][turn - 1]->record.n_prompt);
    request->stream = d->stream[agent];
    request->output_kept = d->c->kept;
    if (draw(d->c, "hint", agent, turn) < 0.5)
        request->rank_hint = (int)agent % d->c->config.n_ranks;
    if (draw(d->c, "declare", agent, turn) < 0.5)
        request->max_tokens = out + (int64_t)(20.0 * draw(d->c, "declared", agent, turn));
    if (d->c->connected) {
        request->remote_prefill = out > 1 && draw(d->c, "remote", agent, turn) < 0.3;
        request->hold_kv = draw(d->c, "held", agent, turn) < 0.2;
    }
    request->on_done = on_done;
    request->self = d;
    d->of[agent][turn] = request;
    /* ids by conversation: the same in both modes whatever their order */
    request->record.id = agent * MAX_TURNS + turn;
    apmw_engine_submit(d->rig->engine, request);
}

/* Somebody looks from outside, at any time: pools must be what they are in that step. */
static void look(apmw_des *des, void *subject, uint64_t agent)
{
    (void)des;
    driver *d = subject;
    apmw_kv_stats stats;
    const int rank = (int)agent % d->c->config.n_ranks;
    apmw_engine_kv_stats(d->rig->engine, rank, &stats);
    d->looks[d->n_looks++] =
        apmw_engine_match(d->rig->engine, rank, d->stream[agent], d->context[agent] + 1) +
        1000000 * stats.cached_blocks + 1000003 * stats.held_blocks +
        17 * apmw_engine_load(d->rig->engine, rank) + apmw_engine_tokens(d->rig->engine, -1);
    rig_check(d->rig);
}

static driver *run(const case_ *c, bool plain)
{
    driver *d = calloc(1, sizeof *d);
    apmw_engine_config config = c->config;
    config.plain = plain;
    d->connector = (apmw_connector){.self = d, .available = offered, .fetch = bring};
    config.connector = c->connected ? &d->connector : NULL;
    d->rig = rig_open(&c->cost, config);
    d->c = c;
    if (c->n_shared)
        d->shared = apmw_streams_new(d->rig->streams, 0, 0);
    for (uint64_t i = 0; i < (uint64_t)c->n_agents; i++) {
        d->stream[i] = apmw_streams_new(d->rig->streams, d->shared, c->n_shared);
        d->context[i] = c->n_shared;
        const apmw_time at = c->burst ? 0 : apmw_time_from_s(draw(c, "start", i, 0));
        apmw_des_schedule(d->rig->des, at, APMW_EVENT_CLIENT, begin_turn, d, i);
    }
    for (uint64_t i = 0; i < MAX_LOOKS; i++)
        apmw_des_schedule(d->rig->des, apmw_time_from_s(8.0 * draw(c, "look", i, 0)), APMW_EVENT_CONTROL,
                          look, d, i % (uint64_t)c->n_agents);
    if (apmw_des_run(d->rig->des, apmw_time_from_s(1e5)) != APMW_OK)
        fail_msg("seed %llu: the clock stopped", (unsigned long long)c->seed);
    rig_check(d->rig);
    return d;
}

#define SAME(c, what, a, b)                                                                                  \
    do {                                                                                                     \
        if ((a) != (b))                                                                                      \
            fail_msg("seed %llu %s: fast %lld, plain %lld", (unsigned long long)(c)->seed, what,             \
                     (long long)(a), (long long)(b));                                                        \
    } while (0)

static void near(const case_ *c, const char *what, uint64_t id, apmw_time a, apmw_time b)
{
    if (a != b && (a == APMW_TIME_NEVER || b == APMW_TIME_NEVER || llabs(a - b) > 1000))
        fail_msg("seed %llu request %llu %s: fast %lld, plain %lld", (unsigned long long)c->seed,
                 (unsigned long long)id, what, (long long)a, (long long)b);
}

/* L2, L5 and the counts of one ended request. */
static void check_laws(const apmw_engine_config *config, const apmw_request_record *r)
{
    if (r->state == APMW_REQUEST_REJECTED) { /* at once, or when its fetch was given up */
        assert_true(r->first_token == APMW_TIME_NEVER);
        return;
    }
    assert_int_equal(r->state, APMW_REQUEST_DONE);
    assert_true(r->submitted + config->request_overhead_ns <= r->admitted);
    assert_true(r->admitted <= r->first_scheduled && r->first_scheduled <= r->first_token);
    assert_true(r->first_scheduled < r->first_token || r->n_transferred > 0);
    assert_true(r->first_token <= r->last_token && r->last_token == r->done);
    assert_true(r->n_out == 1 || r->first_token < r->last_token);
    assert_true(r->n_cached >= 0 && r->n_cached < r->n_prompt && r->n_cached % config->block_tokens == 0);
    assert_true(r->n_fetched >= 0 && r->n_cached + r->n_fetched < r->n_prompt);
    assert_true(r->n_preemptions > 0 || r->n_recomputed == 0);
}

/* L9: between two steps nothing is in the engine. L10: first come, first served on each rank. L8. */
static void check_schedule(const case_ *c, const engine_rig *rig)
{
    const apmw_engine_config *e = &c->config;
    for (size_t i = 0; i < rig->n_requests; i++)
        for (size_t j = i + 1; j < rig->n_requests; j++) {
            const apmw_request_record *x = &rig->requests[i]->record, *y = &rig->requests[j]->record;
            if (x->rank == y->rank && x->rank >= 0 && y->admitted < x->admitted)
                fail_msg("seed %llu: L10: request %llu was admitted before %llu", (unsigned long long)c->seed,
                         (unsigned long long)y->id, (unsigned long long)x->id);
        }
    for (size_t i = 0; i < rig->n_steps; i++) {
        const apmw_step_record *s = &rig->steps[i];
        const int64_t tokens = s->n_seqs * (1 + e->draft_tokens) + s->prefill_tokens;
        if (e->batching != APMW_BATCHING_SGLANG)
            assert_true(tokens <= e->n_ranks * e->max_num_batched_tokens);
        assert_true(s->prefill_tokens <= e->n_ranks * e->max_num_batched_tokens);
        assert_true(s->n_seqs <= e->n_ranks * e->max_num_seqs);
        const apmw_time from = i == 0 ? 0 : rig->steps[i - 1].end;
        for (size_t j = 0; j < rig->n_requests && from < s->begin && e->frontend_ns_per_token == 0.0 && !c->connected; j++) {
            const apmw_request_record *r = &rig->requests[j]->record;
            if (r->state == APMW_REQUEST_DONE && r->submitted + e->request_overhead_ns < s->begin &&
                r->done > from)
                fail_msg("seed %llu: L9: idle from %lld to %lld with request %llu",
                         (unsigned long long)c->seed, (long long)from, (long long)s->begin,
                         (unsigned long long)r->id);
        }
    }
}

typedef struct totals {
    int64_t hits, fetched, transferred, preemptions, rejected, requests, stretches, steps;
} totals;

static void compare(const case_ *c, totals *sum)
{
    driver *fast = run(c, false), *plain = run(c, true);
    engine_rig *a = fast->rig, *b = plain->rig;
    SAME(c, "requests", a->n_requests, b->n_requests);
    SAME(c, "ended", a->n_ended, b->n_ended);
    SAME(c, "all ended", a->n_ended, a->n_requests);
    for (int i = 0; i < c->n_agents; i++)
        for (int t = 0; t < c->n_turns && fast->of[i][t]; t++) {
            const apmw_request_record *x = &fast->of[i][t]->record, *y = &plain->of[i][t]->record;
            SAME(c, "state", x->state, y->state);
            SAME(c, "rank", x->rank, y->rank);
            SAME(c, "preemptions", x->n_preemptions, y->n_preemptions);
            SAME(c, "cached", x->n_cached, y->n_cached);
            SAME(c, "fetched", x->n_fetched, y->n_fetched);
            SAME(c, "transferred", x->n_transferred, y->n_transferred);
            SAME(c, "recomputed", x->n_recomputed, y->n_recomputed);
            near(c, "submitted", x->id, x->submitted, y->submitted);
            near(c, "admitted", x->id, x->admitted, y->admitted);
            near(c, "first token", x->id, x->first_token, y->first_token);
            near(c, "done", x->id, x->done, y->done);
            check_laws(&c->config, x);
            sum->hits += x->n_cached;
            sum->fetched += x->n_fetched;
            sum->transferred += x->n_transferred;
            sum->preemptions += x->n_preemptions;
            sum->rejected += x->state == APMW_REQUEST_REJECTED;
        }
    for (size_t i = 0; i < a->n_ended; i++)
        SAME(c, "order of ends", a->ended[i], b->ended[i]);
    for (int i = 0; i < fast->n_looks; i++)
        SAME(c, "view from outside", fast->looks[i], plain->looks[i]);
    SAME(c, "steps", apmw_engine_steps(a->engine), apmw_engine_steps(b->engine));
    for (int r = 0; r < c->config.n_ranks; r++) {
        apmw_kv_stats x, y;
        apmw_engine_kv_stats(a->engine, r, &x);
        apmw_engine_kv_stats(b->engine, r, &y);
        SAME(c, "hit tokens", x.hit_tokens, y.hit_tokens);
        SAME(c, "query tokens", x.query_tokens, y.query_tokens);
        SAME(c, "evicted", x.evicted_blocks, y.evicted_blocks);
        SAME(c, "peak", x.peak_used_blocks, y.peak_used_blocks);
        SAME(c, "held at the end", x.held_blocks, 0);
    }
    double kernel[2] = {0}, bytes[2] = {0}, flops[2] = {0};
    int64_t emitted[2] = {0}, prefilled[2] = {0}, time[2] = {0};
    for (int m = 0; m < 2; m++) {
        const engine_rig *rig = m ? b : a;
        for (size_t i = 0; i < rig->n_steps; i++) {
            const apmw_step_record *s = &rig->steps[i];
            assert_true(s->end - s->begin >= s->n_steps);
            assert_true(i == 0 || s->begin >= rig->steps[i - 1].end);
            kernel[m] += s->kernel_s;
            bytes[m] += s->bytes;
            flops[m] += s->flops;
            emitted[m] += s->decode_tokens;
            prefilled[m] += s->prefill_tokens;
            time[m] += s->end - s->begin;
        }
        assert_int_equal(time[m], apmw_engine_busy(rig->engine)); /* L18 */
    }
    SAME(c, "emitted", emitted[0], emitted[1]);
    SAME(c, "prefilled", prefilled[0], prefilled[1]);
    assert_true(fabs(kernel[0] - kernel[1]) <= 1e-9 * kernel[1]);
    assert_true(fabs(bytes[0] - bytes[1]) <= 1e-9 * bytes[1]);
    assert_true(fabs(flops[0] - flops[1]) <= 1e-9 * flops[1]);
    check_schedule(c, a);
    check_schedule(c, b);
    sum->requests += (int64_t)a->n_requests;
    sum->stretches += (int64_t)a->n_steps;
    sum->steps += (int64_t)b->n_steps;
    rig_close(a);
    rig_close(b);
    free(fast);
    free(plain);
}

static void both_modes_agree(void **state)
{
    (void)state;
    totals sum = {0};
    int n = 0;
    for_each_seed(seed, 1000)
    {
        const case_ c = make_case(seed);
        compare(&c, &sum);
        n++;
    }
    print_message(
        "%lld requests, %lld hit, %lld fetched, %lld transferred tokens, %lld preemptions, %lld rejected, %lld steps in "
        "%lld events\n",
        (long long)sum.requests, (long long)sum.hits, (long long)sum.fetched, (long long)sum.transferred,
        (long long)sum.preemptions, (long long)sum.rejected,
        (long long)sum.steps, (long long)sum.stretches);
    /* The cases reach what they are about. */
    if (n >= 1000) {
        assert_true(sum.hits > 0 && sum.fetched > 0 && sum.transferred > 0);
        assert_true(sum.preemptions > 1000 && sum.rejected > 0);
        assert_true(sum.stretches < sum.steps / 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_modes_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
