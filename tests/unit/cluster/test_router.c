/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Routing: sessions stay where they are, spread evenly over replicas and ranks; other policies by what they promise. */
#include "agents_case.h"

enum { AGENTS = 12 };

static apmw_router_knowledge knowledge;

static apmw_collector *replay(apmw_routing routing, int n_ranks, size_t n_engines, apmw_time spawn,
                              apmw_trace *trace)
{
    for (int i = 0; i < AGENTS; i++) {
        const apmw_turn turns[] = {case_turn(1600, 20, -1, 0, 0, 0), case_turn(3200, 20, 0, 1600, 0, 1),
                                   case_turn(4800, 20, 1, 3200, 0, 1)};
        case_add(trace, turns, 3, 0);
    }
    apmw_step_cost *cost = case_cost(0.01, 1e-6, 1e-4);
    apmw_engine_config engines[4];
    for (size_t i = 0; i < n_engines; i++) {
        engines[i] = case_engine(cost);
        engines[i].n_ranks = n_ranks;
    }
    const apmw_agents agents = {.trace = trace, .n_agents = AGENTS, .spawn_interval_ns = spawn,
                                .delay_scale = 1.0, .seed = 5, .plays_per_agent = 1};
    const apmw_sim_config config = {.engines = engines, .n_engines = n_engines, .routing = routing,
                                    .knowledge = knowledge, .seed = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, false);
    apmw_step_cost_free(cost);
    apmw_trace_free(trace);
    return collector;
}

static void affinity(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_collector *collector = replay(APMW_ROUTING_AFFINITY, 3, 2, APMW_NS_PER_S / 70, &trace);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    int32_t home[AGENTS][2], sessions[2][3] = {{0}};
    bool known[AGENTS] = {false};
    assert_int_equal(n, 3 * AGENTS);
    for (size_t i = 0; i < n; i++) {
        const int32_t a = r[i].agent;
        if (!known[a]) {
            known[a] = true;
            home[a][0] = r[i].engine;
            home[a][1] = r[i].rank;
            sessions[r[i].engine][r[i].rank]++;
        }
        assert_int_equal(r[i].engine, home[a][0]);
        assert_int_equal(r[i].rank, home[a][1]);
        assert_int_equal(r[i].n_cached, r[i].turn * 1600); /* so the cache is always there */
    }
    for (int e = 0; e < 2; e++) {
        for (int k = 0; k < 3; k++) {
            assert_int_equal(sessions[e][k], AGENTS / 6);
        }
    }
    apmw_collector_free(collector);
}

static void round_robin(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_collector *collector = replay(APMW_ROUTING_ROUND_ROBIN, 1, 3, APMW_NS_PER_S / 7, &trace);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    int64_t count[3] = {0}, cached = 0;
    for (size_t i = 0; i < n; i++) {
        count[r[i].engine]++;
        assert_int_equal(r[i].engine, (int32_t)(r[i].id % 3)); /* ids count submissions */
        cached += r[i].n_cached;
    }
    assert_true(count[0] == 12 && count[1] == 12 && count[2] == 12);
    assert_true(cached < 12 * (1600 + 3200)); /* some prompts went where they are not known */
    apmw_collector_free(collector);
}

static void kv_aware(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_collector *collector = replay(APMW_ROUTING_KV_AWARE, 2, 2, APMW_NS_PER_S / 70, &trace);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    int64_t used[2] = {0};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].n_cached, r[i].turn * 1600); /* always to the longest match */
        used[r[i].engine]++;
    }
    assert_true(used[0] > 0 && used[1] > 0); /* first turns go to the least loaded */
    apmw_collector_free(collector);
}

static void least_loaded(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_collector *collector = replay(APMW_ROUTING_LEAST_LOADED, 1, 3, APMW_NS_PER_S / 70, &trace);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    /* Requests in flight at a submission, by replica, from the records: the chosen one has the fewest, first of equals. */
    for (size_t i = 0; i < n; i++) {
        int64_t load[3] = {0};
        for (size_t k = 0; k < n; k++) {
            load[r[k].engine] += r[k].submitted < r[i].submitted && r[k].done > r[i].submitted;
        }
        for (int e = 0; e < 3; e++) {
            assert_true(load[r[i].engine] <= load[e]);
        }
    }
    apmw_collector_free(collector);
}

/* What was sent is known at once and nothing is evicted: as good as looking into the pools. */
static void by_sending(void **state)
{
    (void)state;
    knowledge = (apmw_router_knowledge){.kv_by_sending = true};
    apmw_trace trace = {0};
    apmw_collector *collector = replay(APMW_ROUTING_KV_AWARE, 2, 2, APMW_NS_PER_S / 70, &trace);
    knowledge = (apmw_router_knowledge){0};
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].n_cached, r[i].turn * 1600);
    }
    apmw_collector_free(collector);
}

/* A router that hears of nothing sends all to the first engine; one that hears late spreads less evenly than one that sees. */
static void stale(void **state)
{
    (void)state;
    for (int by_sending = 0; by_sending < 2; by_sending++) {
        knowledge = (apmw_router_knowledge){.delay_ns = 1000 * APMW_NS_PER_S, .kv_by_sending = by_sending == 1};
        apmw_trace trace = {0};
        apmw_collector *collector = replay(by_sending ? APMW_ROUTING_KV_AWARE : APMW_ROUTING_LEAST_LOADED, 1, 3,
                                           APMW_NS_PER_S / 70, &trace);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 3 * AGENTS);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(r[i].engine, 0);
        }
        apmw_collector_free(collector);
    }
    knowledge = (apmw_router_knowledge){0};
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(affinity), cmocka_unit_test(round_robin),
                                       cmocka_unit_test(kv_aware), cmocka_unit_test(least_loaded), cmocka_unit_test(by_sending),
                                       cmocka_unit_test(stale)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
