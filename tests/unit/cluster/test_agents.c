/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Streams of turns: what each turn of a trajectory finds in the cache, by hand. Blocks of 16 tokens. */
#include "agents_case.h"

static apmw_agents agents_of(const apmw_trace *trace, int64_t n)
{
    return (apmw_agents){.trace = trace, .n_agents = n, .spawn_interval_ns = APMW_NS_PER_S, .delay_scale = 1.0,
                         .seed = 5, .plays_per_agent = 1};
}

static apmw_collector *replay(const apmw_agents *agents, size_t n_engines)
{
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-4);
    apmw_engine_config engines[4];
    for (size_t i = 0; i < n_engines; i++) {
        engines[i] = case_engine(cost);
    }
    const apmw_sim_config config = {.engines = engines, .n_engines = n_engines, .seed = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, false);
    apmw_step_cost_free(cost);
    return collector;
}

/* One agent plays the trajectory once: cached tokens of turn i are expected[i]. */
static void expect_hits(const apmw_turn *turns, int32_t n, bool output_cached, const int64_t *expected)
{
    apmw_trace trace = {0};
    case_add(&trace, turns, n, 0);
    apmw_agents agents = agents_of(&trace, 1);
    agents.output_cached = output_cached;
    apmw_collector *collector = replay(&agents, 1);
    size_t count;
    const apmw_request_record *r = apmw_collector_requests(collector, &count);
    assert_int_equal(count, n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(r[i].turn, i);
        assert_int_equal(r[i].n_cached, expected[i]);
        assert_true(r[i].last_of_trajectory == (i == n - 1));
    }
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void linear(void **state)
{
    (void)state;
    /* 100 tokens leave 6 whole blocks, 200 leave 12; the output is sent again and computed again. */
    const apmw_turn turns[] = {case_turn(100, 40, -1, 0, 0, 0), case_turn(200, 10, 0, 100, 40, 1),
                               case_turn(201, 10, 1, 200, 0, 1)};
    const int64_t again[] = {0, 96, 192};
    expect_hits(turns, 3, false, again);
    /* With the output kept: 100 + 40 tokens, of which the last is not in KV when the request ends: 139 / 16 = 8 blocks. */
    const int64_t kept[] = {0, 128, 192};
    expect_hits(turns, 3, true, kept);
}

static void forks(void **state)
{
    (void)state;
    /* Turn 1 goes on; turn 2 goes back to 80 tokens of turn 0; turn 3 goes on from turn 1 in full; turn 4 shares nothing. */
    const apmw_turn turns[] = {case_turn(160, 10, -1, 0, 0, 0), case_turn(320, 10, 0, 160, 0, 1),
                               case_turn(300, 10, 0, 80, 0, 1), case_turn(400, 10, 1, 320, 0, 1),
                               case_turn(320, 10, 3, 0, 0, 1)};
    const int64_t expected[] = {0, 160, 80, 320, 0};
    expect_hits(turns, 5, false, expected);
    /* Two turns that both go on from turn 0: what the second writes must not be taken for what the first wrote. */
    const apmw_turn twins[] = {case_turn(160, 10, -1, 0, 0, 0), case_turn(320, 10, 0, 160, 0, 1),
                               case_turn(320, 10, 0, 160, 0, 1), case_turn(480, 10, 2, 320, 0, 1)};
    const int64_t both[] = {0, 160, 160, 320};
    expect_hits(twins, 4, false, both);
}

static void kept_output_that_only_partly_recurs(void **state)
{
    (void)state;
    /* 64 prompt tokens, 200 generated of which 96 recur: 160 tokens are common, then the contents part. */
    const apmw_turn turns[] = {case_turn(64, 200, -1, 0, 0, 0), case_turn(400, 10, 0, 64, 96, 1),
                               case_turn(500, 10, 1, 400, 0, 1)};
    const int64_t expected[] = {0, 160, 400};
    expect_hits(turns, 3, true, expected);
}

static void salts_and_shared_prefixes(void **state)
{
    (void)state;
    const apmw_turn turns[] = {case_turn(1600, 10, -1, 0, 0, 0), case_turn(3200, 10, 0, 1600, 0, 1)};
    apmw_trace trace = {0};
    case_add(&trace, turns, 2, 800);
    apmw_agents agents = agents_of(&trace, 3);
    agents.plays_per_agent = 2;
    agents.spawn_interval_ns = 20 * APMW_NS_PER_S; /* one after the other */
    for (int shared = 0; shared < 2; shared++) {
        agents.share_global = shared != 0;
        apmw_collector *collector = replay(&agents, 1);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 12);
        for (size_t i = 0; i < n; i++) {
            const int64_t first = shared != 0 && i > 0 ? 800 : 0; /* tools and system prompt of the group */
            assert_int_equal(r[i].n_cached, r[i].turn == 0 ? first : 1600);
        }
        apmw_collector_free(collector);
    }
    apmw_trace_free(&trace);
}

static void limits(void **state)
{
    (void)state;
    const apmw_turn turns[] = {case_turn(100, 50, -1, 0, 0, 0), case_turn(200, 500, 0, 100, 0, 1),
                               case_turn(800, 50, 1, 200, 0, 1)};
    apmw_trace trace = {0};
    case_add(&trace, turns, 3, 0);
    apmw_agents agents = agents_of(&trace, 1);
    agents.max_output_tokens = 60;
    agents.max_context = 300; /* the third turn does not fit; the second does since its output is capped */
    apmw_collector *collector = replay(&agents, 1);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 2);
    assert_int_equal(r[0].n_out, 50);
    assert_int_equal(r[1].n_out, 60);
    assert_true(r[1].last_of_trajectory);
    /* A turn goes out its delay after the one before has ended. */
    assert_int_equal(r[1].submitted, r[0].done + APMW_NS_PER_S);
    apmw_collector_free(collector);
    agents.max_context = 100;
    apmw_workload workload;
    apmw_error err = {0};
    assert_error(apmw_workload_agents(&agents, &workload, &err), APMW_E_SCENARIO, &err, "100 tokens of context");
    apmw_trace_free(&trace);
}

static void starts_and_assignments(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    for (int i = 0; i < 10; i++) {
        apmw_turn turns[20];
        for (int k = 0; k < 20; k++) {
            turns[k] = case_turn(100 + k + i, 5, k - 1, k == 0 ? 0 : 99 + k + i, 0, 0.1);
        }
        case_add(&trace, turns, 20, 0);
    }
    apmw_agents agents = agents_of(&trace, 10);
    agents.max_start_offset = 10;
    agents.plays_per_agent = 3;
    apmw_collector *collector = replay(&agents, 1);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    int seen[3][10] = {{0}}, first_turns[11] = {0}, offsets = 0;
    int32_t trajectory_of_5[3] = {-1, -1, -1};
    for (size_t i = 0; i < n; i++) {
        if (r[i].last_of_trajectory) {
            seen[r[i].play][r[i].trajectory]++;
            if (r[i].agent == 5) {
                trajectory_of_5[r[i].play] = r[i].trajectory;
            }
        }
        if (r[i].play == 0 && r[i].submitted == r[i].agent * APMW_NS_PER_S) { /* staggered start */
            assert_true(r[i].turn <= 10);
            first_turns[r[i].turn]++;
            offsets++;
        }
        assert_true(r[i].play == 0 || r[i].turn >= 0);
    }
    assert_int_equal(offsets, 10);
    assert_true(first_turns[0] < 10); /* not all at the beginning */
    for (int play = 0; play < 3; play++) {
        for (int t = 0; t < 10; t++) {
            assert_int_equal(seen[play][t], 1); /* a round hands each trajectory to one agent */
        }
    }
    apmw_collector_free(collector);
    /* An agent's trajectories do not depend on the population. */
    agents.n_agents = 6;
    collector = replay(&agents, 1);
    r = apmw_collector_requests(collector, &n);
    for (size_t i = 0; i < n; i++) {
        if (r[i].agent == 5) {
            assert_int_equal(r[i].trajectory, trajectory_of_5[r[i].play]);
        }
    }
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void failures_end_a_trajectory(void **state)
{
    (void)state;
    /* The pool has 100 blocks; the second turn needs more. */
    const apmw_turn turns[] = {case_turn(100, 10, -1, 0, 0, 0), case_turn(5000, 10, 0, 100, 0, 1),
                               case_turn(6000, 10, 1, 5000, 0, 1)};
    apmw_trace trace = {0};
    case_add(&trace, turns, 3, 0);
    apmw_agents agents = agents_of(&trace, 1);
    agents.plays_per_agent = 2;
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-4);
    apmw_engine_config engine = case_engine(cost);
    engine.kv_blocks = 100;
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, false);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(r[i].state, i % 2 == 0 ? APMW_REQUEST_DONE : APMW_REQUEST_REJECTED);
        assert_int_equal(r[i].play, i / 2);
    }
    assert_true(r[2].submitted >= r[1].submitted + APMW_NS_PER_S);
    apmw_collector_free(collector);
    apmw_step_cost_free(cost);
    apmw_trace_free(&trace);
}

/* Main line 0, 1, 4; lane 1 (turns 2, 3) is spawned by turn 1 and joined by turn 4; lane 2 (turn 5) runs in the background
 * from turn 1. */
static void sub_agents(void **state)
{
    (void)state;
    apmw_turn turns[] = {case_turn(160, 10, -1, 0, 0, 0),  case_turn(320, 10, 0, 160, 0, 1),
                         case_turn(100, 30, -1, 0, 0, 2),  case_turn(200, 30, 2, 100, 0, 1),
                         case_turn(480, 10, 1, 320, 0, 3), case_turn(90, 400, -1, 0, 0, 0.5)};
    turns[2].lane = turns[3].lane = 1;
    turns[5].lane = 2;
    apmw_lane lanes[] = {{-1, -1}, {1, 4}, {1, -1}};
    const apmw_trajectory t = {.id = "case", .source = "test", .global_id = -1, .turns = turns, .n_turns = 6,
                               .lanes = lanes, .n_lanes = 3};
    apmw_trace trace = {.block_tokens = 1};
    apmw_error err = {0};
    assert_ok(apmw_trace_add(&trace, &t, &err), &err);
    apmw_agents agents = agents_of(&trace, 1);
    agents.plays_per_agent = 2;
    for (int concurrent = 0; concurrent < 2; concurrent++) {
        agents.concurrent_lanes = concurrent != 0;
        apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-4);
        const apmw_engine_config engine = case_engine(cost);
        const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
        apmw_workload workload;
        apmw_sim *sim = NULL;
        assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
        apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = !agents.concurrent_lanes,
                                                               .tokens_balance = true});
        apmw_collector *collector = apmw_collector_create(NULL, false);
        const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
        assert_ok(apmw_sim_create(&config, workload, probes, 2, &sim, &err), &err);
        assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
        assert_ok(apmw_laws_status(laws, &err), &err);
        size_t n;
        const apmw_request_record *all = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 12);
        apmw_request_record r[2][6];
        for (size_t i = 0; i < n; i++) {
            r[all[i].play][all[i].turn] = all[i];
        }
        for (int play = 0; play < 2; play++) {
            const apmw_request_record *p = r[play];
            const int32_t last = concurrent ? 4 : 5;
            for (int k = 0; k < 6; k++) {
                assert_true(p[k].last_of_trajectory == (k == last));
            }
            assert_int_equal(p[4].n_cached, 320); /* the main line finds itself again after the sub-agents */
            assert_int_equal(p[3].n_cached, 96);
            if (!concurrent) {
                assert_int_equal(p[5].submitted, p[4].done + APMW_NS_PER_S / 2);
                continue;
            }
            assert_int_equal(p[2].submitted, p[1].done + 2 * APMW_NS_PER_S);
            assert_int_equal(p[5].submitted, p[1].done + APMW_NS_PER_S / 2);
            assert_int_equal(p[3].submitted, p[2].done + APMW_NS_PER_S);
            assert_int_equal(p[4].submitted, p[3].done + 3 * APMW_NS_PER_S); /* from the end of the joined lane */
            assert_true(p[5].done > p[2].submitted);                         /* beside it */
        }
        /* The next trajectory waits for what runs in the background. */
        for (int k = 0; k < 6; k++) {
            assert_true(r[1][0].submitted >= r[0][k].done);
        }
        apmw_sim_free(sim);
        apmw_laws_free(laws);
        apmw_collector_free(collector);
        apmw_step_cost_free(cost);
    }
    apmw_trace_free(&trace);
}

/* Two agents, four starts: the order and the first turns are those that were given, each after the wait of its turn;
 * whoever ends takes the next. A start that does not fit is passed over. */
static void given_starts(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    for (int i = 0; i < 4; i++) {
        const apmw_turn turns[] = {case_turn(100, 5, -1, 0, 0, 1), case_turn(200, 5, 0, 100, 0, 2),
                                   case_turn(i == 2 ? 1500 : 300, i == 0 ? 1100 : 5, 1, 200, 0, 4)};
        case_add(&trace, turns, 3, 0);
    }
    const apmw_start starts[] = {{1, 2, 3 * APMW_NS_PER_S}, {0, 2, 0}, {2, 2, 0}, {3, 1, 0}, {2, 0, 0}};
    apmw_agents agents = agents_of(&trace, 2);
    agents.plays_per_agent = 0;
    agents.spawn_interval_ns = 0;
    agents.max_context = 1450;
    agents.starts = starts;
    agents.n_starts = 5;
    apmw_collector *collector = replay(&agents, 1);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    /* Agent 0 plays the last turn of trajectory 1, then 3 from turn 1, then 2 up to the turn that does not fit, while agent 1
     * decodes 1,100 tokens of trajectory 0 at 10 ms and more each; then nothing is left for it. */
    static const int32_t expected[][3] = {{0, 1, 2}, {1, 0, 2}, {0, 3, 1}, {0, 3, 2}, {0, 2, 0}, {0, 2, 1}};
    assert_int_equal(n, 6);
    bool found[6] = {false};
    apmw_time end = 4 * APMW_NS_PER_S;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < 6; k++) {
            if (r[i].agent == expected[k][0] && r[i].trajectory == expected[k][1] && r[i].turn == expected[k][2]) {
                assert_false(found[k]);
                found[k] = true;
            }
        }
        if (r[i].trajectory <= 1) {
            assert_int_equal(r[i].submitted, 4 * APMW_NS_PER_S);
        }
        if (r[i].agent == 0) { /* one after the other, each after its own wait */
            const apmw_time wait = r[i].turn == 0 ? 1 : r[i].turn == 1 ? 2 : 4;
            assert_int_equal(r[i].submitted, r[i].trajectory == 1 ? end : end + wait * APMW_NS_PER_S);
            end = r[i].done + (r[i].trajectory == 1 ? 3 : 0) * APMW_NS_PER_S;
        }
    }
    for (size_t k = 0; k < 6; k++) {
        assert_true(found[k]);
    }
    apmw_collector_free(collector);
    const apmw_start beyond = {1, 3, 0};
    agents.starts = &beyond;
    agents.n_starts = 1;
    apmw_workload workload;
    apmw_error err = {0};
    assert_error(apmw_workload_agents(&agents, &workload, &err), APMW_E_SCENARIO, &err, "no turn 3 of trajectory 1");
    apmw_trace_free(&trace);
}

/* One place in the batch; the first agent's turn runs for 10 s. The other's client gives its first turn up after 2.5 s, waits the
 * delay of the next one, 3 s, gives that up as well at 8 s, and its third turn, sent at 9 s, is served from 10 s on. Nothing of
 * what was never computed is found. */
static void clients_that_give_up(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    const apmw_turn slow[] = {case_turn(100, 1000, -1, 0, 0, 0)};
    const apmw_turn waits[] = {case_turn(100, 10, -1, 0, 0, 0), case_turn(200, 10, 0, 100, 0, 3), case_turn(300, 10, 1, 200, 0, 1)};
    case_add(&trace, slow, 1, 0);
    case_add(&trace, waits, 3, 0);
    const apmw_start starts[] = {{.trajectory = 0}, {.trajectory = 1}};
    apmw_agents agents = agents_of(&trace, 2);
    agents.spawn_interval_ns = 0;
    agents.starts = starts;
    agents.n_starts = 2;
    agents.first_token_timeout_ns = apmw_time_from_s(2.5);
    apmw_step_cost *cost = case_cost(0.01, 0.0, 0.0);
    apmw_engine_config engine = case_engine(cost);
    engine.max_num_seqs = 1;
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
    apmw_collector *collector = case_run(&config, workload, false);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 4);
    const struct {
        int32_t agent, turn;
        apmw_request_state state;
        double submitted_s, done_s;
    } expected[] = {{1, 0, APMW_REQUEST_CANCELLED, 0.0, 2.5},
                    {1, 1, APMW_REQUEST_CANCELLED, 5.5, 8.0},
                    {0, 0, APMW_REQUEST_DONE, 0.0, 10.0},
                    {1, 2, APMW_REQUEST_DONE, 9.0, 10.1}};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].agent, expected[i].agent);
        assert_int_equal(r[i].turn, expected[i].turn);
        assert_int_equal(r[i].state, expected[i].state);
        assert_int_equal(r[i].submitted, apmw_time_from_s(expected[i].submitted_s));
        assert_int_equal(r[i].done, apmw_time_from_s(expected[i].done_s));
        assert_int_equal(r[i].n_cached, 0);
    }
    apmw_collector_free(collector);
    apmw_step_cost_free(cost);
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear), cmocka_unit_test(forks), cmocka_unit_test(kept_output_that_only_partly_recurs),
        cmocka_unit_test(salts_and_shared_prefixes), cmocka_unit_test(limits), cmocka_unit_test(starts_and_assignments),
        cmocka_unit_test(given_starts), cmocka_unit_test(failures_end_a_trajectory), cmocka_unit_test(sub_agents),
        cmocka_unit_test(clients_that_give_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
