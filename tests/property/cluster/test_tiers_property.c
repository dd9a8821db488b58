/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random conversations on engines whose pools are too small, with random tiers below them: laws and books hold, and a run
 * can be repeated; the plain engine agrees with the fast one; a host without end over a link without cost makes up for
 * what HBM lacks; and more host memory never brings less.
 *
 * The two engines evict the same blocks, but not at the same instant within a stretch of decode steps, and what ends
 * within a nanosecond may end in another order. Where tiers hear of that (write-back, a tier shared by ranks) they agree
 * about what happens, not about each block. */
#include <math.h>
#include <stdlib.h>

#include "apmw/rng.h"
#include "tiers_case.h"

enum { LONGEST = 14 * 800 };

static void random_trace(uint64_t seed, apmw_trace *trace)
{
    apmw_rng rng = apmw_rng_make(seed, "tiers.trace", 0, 0);
    const int n = 2 + (int)apmw_rng_below(&rng, 5);
    for (int i = 0; i < n; i++) {
        apmw_turn turns[14];
        const int n_turns = 2 + (int)apmw_rng_below(&rng, 12);
        for (int k = 0; k < n_turns; k++) {
            const int parent = k == 0 ? -1 : apmw_rng_below(&rng, 4) > 0 ? k - 1 : (int)apmw_rng_below(&rng, (uint64_t)k);
            const bool whole = parent >= 0 && apmw_rng_below(&rng, 5) > 0;
            const int64_t in = parent < 0 ? 100 : turns[parent].n_in;
            const int64_t shared = parent < 0 ? 0 : whole ? in : (int64_t)apmw_rng_below(&rng, (uint64_t)in + 1);
            const int64_t out = whole ? turns[parent].n_out : 0;
            turns[k] = case_turn((parent < 0 ? in : shared) + out + 1 + (int64_t)apmw_rng_below(&rng, 600),
                                 1 + (int64_t)apmw_rng_below(&rng, 200), parent, shared, out, 2 * apmw_rng_uniform(&rng));
        }
        case_add(trace, turns, n_turns, 100);
    }
}

static apmw_tiers_setup random_tiers(uint64_t seed, apmw_rng *rng)
{
    apmw_rng found = apmw_rng_make(seed, "tiers.found", 0, 0);
    apmw_tiers_setup s = {.n_tiers = 1 + (size_t)apmw_rng_below(rng, 3),
                          .load = (apmw_kv_load)apmw_rng_below(rng, 3),
                          .write_back = apmw_rng_below(rng, 2) == 0,
                          .prefetch = apmw_rng_below(rng, 2) == 0,
                          .fair_links = apmw_rng_below(rng, 2) == 0};
    s.found_when_released = !s.write_back && apmw_rng_below(&found, 2) == 0;
    int64_t tokens = 1000;
    double rate = 1e9 * (double)(1 + apmw_rng_below(rng, 200));
    for (size_t t = 0; t < s.n_tiers; t++) {
        tokens += (int64_t)apmw_rng_below(rng, 20000);
        s.tiers[t] = case_tier("tier", tokens, rate);
        s.tiers[t].latency_ns = (apmw_time)apmw_rng_below(rng, 2000000);
        s.tiers[t].kv.bytes_per_stream = apmw_rng_below(rng, 2) == 0 ? 0.0 : 3e6;
        s.tiers[t].kv.block_tokens = apmw_rng_below(rng, 3) == 0 ? 64 : 16;
        s.tiers[t].kv.policy = (apmw_kv_policy)apmw_rng_below(rng, 5);
        s.tiers[t].kv.ttl_ns = APMW_NS_PER_S * (apmw_time)(1 + apmw_rng_below(rng, 20));
        s.tiers[t].kv.half_life_ns = apmw_rng_below(rng, 2) == 0 ? 0 : 5 * APMW_NS_PER_S;
        s.tiers[t].kv.cascade = apmw_rng_below(rng, 2) == 0;
        s.tiers[t].shared = t + 1 == s.n_tiers && apmw_rng_below(rng, 2) == 0;
        rate *= 0.3;
    }
    return s;
}

typedef struct outcome {
    apmw_collector *collector;
    apmw_tier_stats stats[APMW_KV_MAX_TIERS];
} outcome;

static outcome run(const apmw_sim_config *config, const apmw_agents *agents)
{
    outcome out = {0};
    apmw_error err = {0};
    apmw_workload workload;
    assert_ok(apmw_workload_agents(agents, &workload, &err), &err);
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = true, .tokens_balance = true});
    out.collector = apmw_collector_create(NULL, false);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(out.collector)};
    apmw_sim *sim = NULL;
    assert_ok(apmw_sim_create(config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    for (size_t t = 0; config->tiers != NULL && t < config->tiers->n_tiers; t++) {
        apmw_tiers_stats(apmw_sim_tiers(sim), t, &out.stats[t]);
    }
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    return out;
}

static outcome run_random(uint64_t seed, const apmw_trace *trace, bool plain, bool apart)
{
    apmw_rng rng = apmw_rng_make(seed, "tiers.deployment", 0, 0);
    apmw_step_cost *cost = case_cost(0.005, 2e-5, 2e-4);
    apmw_tiers_setup tiers = random_tiers(seed, &rng);
    if (apart) { /* ranks do not see each other */
        tiers.write_back = false;
        tiers.tiers[tiers.n_tiers - 1].shared = false;
    }
    apmw_engine_config engines[2];
    const size_t n_engines = 1 + (size_t)apmw_rng_below(&rng, 2);
    const int ranks = 1 + (int)apmw_rng_below(&rng, 2);
    const apmw_batching batching = (apmw_batching)apmw_rng_below(&rng, 3);
    const int64_t blocks = LONGEST / 16 + (int64_t)apmw_rng_below(&rng, 600);
    const int64_t max_seqs = 4 + (int64_t)apmw_rng_below(&rng, 10);
    for (size_t i = 0; i < 2; i++) {
        engines[i] = case_engine(cost);
        engines[i].batching = batching;
        engines[i].n_ranks = ranks;
        engines[i].kv_blocks = blocks;
        engines[i].kv_policy = (apmw_kv_policy)apmw_rng_below(&rng, 4);
        engines[i].max_num_seqs = max_seqs;
        engines[i].max_num_batched_tokens = 512;
        engines[i].max_prefill_tokens = batching == APMW_BATCHING_SGLANG ? 512 : 0;
        engines[i].request_overhead_ns = 5000000;
        engines[i].plain = plain;
    }
    const apmw_agents agents = {.trace = trace, .n_agents = 2 + (int64_t)apmw_rng_below(&rng, 24),
                                .spawn_interval_ns = APMW_NS_PER_S / 3, .max_start_offset = 3,
                                .share_global = apmw_rng_below(&rng, 2) == 0, .output_cached = apmw_rng_below(&rng, 2) == 0,
                                .delay_scale = 1.0, .seed = seed, .plays_per_agent = 3};
    const apmw_sim_config config = {.engines = engines, .n_engines = n_engines,
                                    .routing = (apmw_routing)apmw_rng_below(&rng, 4), .tiers = &tiers, .seed = seed};
    const outcome out = run(&config, &agents);
    apmw_step_cost_free(cost);
    return out;
}

typedef struct sums {
    int64_t fetched, declined, prefetched, cascaded, preempted, again;
} sums;

static void same(const outcome *a, const outcome *b, apmw_time tolerance, sums *sum)
{
    size_t n, m;
    const apmw_request_record *x = apmw_collector_requests(a->collector, &n);
    const apmw_request_record *y = apmw_collector_requests(b->collector, &m);
    assert_int_equal(n, m);
    int64_t fetched = 0, loaded = 0, preempted = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(x[i].id == y[i].id && x[i].n_cached == y[i].n_cached && x[i].n_fetched == y[i].n_fetched &&
                    x[i].n_preemptions == y[i].n_preemptions);
        const apmw_time apart = x[i].done > y[i].done ? x[i].done - y[i].done : y[i].done - x[i].done;
        assert_true(apart <= tolerance);
        fetched += x[i].n_fetched;
        preempted += x[i].n_preemptions;
    }
    for (size_t t = 0; t < APMW_KV_MAX_TIERS; t++) {
        const apmw_tier_stats *s = &a->stats[t];
        loaded += s->loaded_tokens;
        sum->declined += s->declined_tokens;
        sum->prefetched += s->prefetched_tokens;
        sum->cascaded += t > 0 ? s->stored_tokens : 0;
        assert_true(s->cached_tokens <= s->capacity_tokens);
        assert_int_equal(s->loaded_tokens, b->stats[t].loaded_tokens);
        assert_int_equal(s->stored_tokens, b->stats[t].stored_tokens);
    }
    /* Books of requests and of tiers: what a preempted request loads again counts for the tier alone. */
    assert_true(preempted == 0 ? loaded == fetched : loaded >= fetched);
    sum->fetched += fetched;
    sum->preempted += preempted;
    sum->again += loaded - fetched;
}

static void runs_repeat_and_modes_agree(void **state)
{
    (void)state;
    sums sum = {0};
    for_each_seed(seed, 150) {
        apmw_trace trace = {0};
        random_trace(seed, &trace);
        for (int apart = 0; apart < 2; apart++) {
            const outcome a = run_random(seed, &trace, false, apart == 1);
            const outcome b = run_random(seed, &trace, apart == 1, apart == 1);
            same(&a, &b, apart == 1 ? 1000 : 0, &sum);
            apmw_collector_free(a.collector);
            apmw_collector_free(b.collector);
        }
        apmw_trace_free(&trace);
    }
    print_message("%lld tokens fetched, %lld declined, %lld prefetched, %lld stored in far tiers, %lld preemptions, "
                  "%lld fetched again after them\n",
                  (long long)sum.fetched, (long long)sum.declined, (long long)sum.prefetched,
                  (long long)sum.cascaded, (long long)sum.preempted, (long long)sum.again);
    assert_true(sum.again > 0);
    assert_true(sum.fetched > 100000 && sum.declined > 10000 && sum.prefetched > 10000 && sum.cascaded > 10000 && sum.preempted > 20);
}

static apmw_tiers_setup free_host(double capacity_tokens, bool write_back)
{
    apmw_tiers_setup s = {.tiers = {case_tier("host", 1, (double)INFINITY)}, .n_tiers = 1, .load = APMW_KV_LOAD_ALWAYS,
                          .write_back = write_back};
    s.tiers[0].kv.capacity_bytes = 1e5 * capacity_tokens;
    s.tiers[0].latency_ns = 0;
    return s;
}

static int by_turn(const void *a, const void *b)
{
    const apmw_request_record *x = a, *y = b;
    const int64_t apart = x->agent != y->agent ? x->agent - y->agent
                          : x->play != y->play ? (int64_t)x->play - (int64_t)y->play
                                               : (int64_t)x->turn - (int64_t)y->turn;
    return (apart > 0) - (apart < 0);
}

/* Records in the order of agents and their turns, which does not follow time. */
static apmw_request_record *sorted(const apmw_collector *collector, size_t *n)
{
    const apmw_request_record *records = apmw_collector_requests(collector, n);
    apmw_request_record *copy = malloc((*n > 0 ? *n : 1) * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, records, *n * sizeof *copy);
    qsort(copy, *n, sizeof *copy, by_turn);
    return copy;
}

static outcome run_pool(uint64_t seed, const apmw_trace *trace, int64_t n_agents, int64_t blocks, const apmw_tiers_setup *tiers)
{
    apmw_step_cost *cost = case_cost(0.005, 2e-5, 2e-4);
    apmw_engine_config engine = case_engine(cost);
    engine.kv_blocks = blocks;
    const apmw_agents agents = {.trace = trace, .n_agents = n_agents, .spawn_interval_ns = APMW_NS_PER_S / 3,
                                .output_cached = true, .delay_scale = 1.0, .seed = seed, .plays_per_agent = 2};
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .tiers = tiers, .seed = seed};
    const outcome out = run(&config, &agents);
    apmw_step_cost_free(cost);
    return out;
}

/* Also what HBM loses while a request waits that had found all of it there: a connector is asked again when it
 * starts. */
static void an_endless_host_is_as_good_as_endless_hbm(void **state)
{
    (void)state;
    int64_t fetched = 0;
    for_each_seed(seed, 60) {
        apmw_trace trace = {0};
        random_trace(seed, &trace);
        const int64_t n_agents = 2 + (int64_t)(seed % 7);
        const apmw_tiers_setup host = free_host(1e9, seed % 2 == 0);
        const outcome small = run_pool(seed, &trace, n_agents, LONGEST / 16, &host);
        const outcome endless = run_pool(seed, &trace, n_agents, 1000000, NULL);
        size_t n, m;
        apmw_request_record *x = sorted(small.collector, &n), *y = sorted(endless.collector, &m);
        assert_int_equal(n, m);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(x[i].turn, y[i].turn);
            const int64_t hits = x[i].n_cached + x[i].n_fetched;
            assert_int_equal(hits, y[i].n_cached);
            fetched += x[i].n_fetched;
        }
        free(x);
        free(y);
        apmw_collector_free(small.collector);
        apmw_collector_free(endless.collector);
        apmw_trace_free(&trace);
    }
    print_message("%lld tokens fetched\n", (long long)fetched);
    assert_true(fetched > 100000);
}

/* Requests far apart come in the same order whatever the host has. */
static void more_host_never_brings_less(void **state)
{
    (void)state;
    enum { SIZES = 3 };
    static const double TOKENS[SIZES] = {21000.0, 28000.0, 50000.0};
    int64_t hits[SIZES] = {0};
    for_each_seed(seed, 60) {
        apmw_rng rng = apmw_rng_make(seed, "tiers.monotone", 0, 0);
        asked list[MAX_ASKED];
        int64_t length[12] = {0};
        for (int i = 0; i < MAX_ASKED; i++) {
            const int c = (int)apmw_rng_below(&rng, 1 + apmw_rng_below(&rng, 12));
            length[c] += 100 + (int64_t)apmw_rng_below(&rng, 2000);
            list[i] = (asked){.at_s = 5.0 * i, .conversation = c, .n_prompt = length[c], .n_out = 2};
        }
        int64_t before[MAX_ASKED] = {0};
        for (int h = 0; h < SIZES; h++) {
            apmw_step_cost *cost = case_cost(0.005, 2e-5, 2e-4);
            apmw_engine_config engine = case_engine(cost);
            engine.kv_blocks = 1300; /* the longest conversation must fit */
            const apmw_tiers_setup host = free_host(TOKENS[h], false);
            const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .tiers = &host, .seed = 1};
            apmw_tier_stats stats[APMW_KV_MAX_TIERS];
            static script s;
            s = (script){.list = list, .n = MAX_ASKED};
            script_run(&s, &config, stats);
            for (int i = 0; i < MAX_ASKED; i++) {
                const int64_t now = s.requests[i].record.n_cached + s.requests[i].record.n_fetched;
                assert_true(now >= before[i]);
                before[i] = now;
                hits[h] += now;
            }
            apmw_step_cost_free(cost);
        }
    }
    print_message("%lld, %lld, %lld tokens hit\n", (long long)hits[0], (long long)hits[1], (long long)hits[2]);
    assert_true(hits[2] > hits[1] && hits[1] > hits[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_repeat_and_modes_agree),
                                       cmocka_unit_test(an_endless_host_is_as_good_as_endless_hbm),
                                       cmocka_unit_test(more_host_never_brings_less)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
