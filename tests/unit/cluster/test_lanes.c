/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Lanes of AgentX by hand: warm-up, start, recycling, idle caps, sub-agents, overflow, the end of the profile. */
#include "agents_case.h"

static apmw_time profile_at;
static int profiles;

static void on_profile(void *self, apmw_time now)
{
    (void)self;
    profile_at = now;
    profiles++;
}

static apmw_lanes lanes_of(const apmw_trace *trace, int64_t n)
{
    return (apmw_lanes){.trace = trace, .n_lanes = n, .start_from = 0.5, .start_to = 0.5, .warmup_turns = 10,
                        .delay_scale = 1.0, .seed = 5, .sessions_per_lane = 1, .on_profile = on_profile};
}

/* Runs until nothing is left; the caller frees the collector. */
static apmw_collector *replay(const apmw_lanes *lanes, double fixed_s, int64_t kv_blocks)
{
    apmw_error err = {0};
    apmw_workload workload;
    apmw_sim *sim = NULL;
    apmw_step_cost *cost = case_cost(fixed_s, 1e-5, 1e-4);
    apmw_engine_config engine = case_engine(cost);
    engine.kv_blocks = kv_blocks;
    engine.max_model_len = lanes->max_context;
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    profiles = 0;
    assert_ok(apmw_workload_lanes(lanes, &workload, &err), &err);
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.tokens_balance = true});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
    assert_ok(apmw_sim_create(&config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    assert_int_equal(apmw_laws_submitted(laws), apmw_laws_terminal(laws));
    assert_int_equal(profiles, 1);
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    apmw_step_cost_free(cost);
    return collector;
}

/* n turns that append 160 tokens each, so whole blocks, and answer with 7; delay_s before each. */
static void add_linear(apmw_trace *trace, int n, double delay_s)
{
    apmw_turn turns[64];
    for (int k = 0; k < n; k++) {
        turns[k] = case_turn(160 * (k + 1), 7, k - 1, k == 0 ? 0 : 160 * k, 0, delay_s);
    }
    case_add(trace, turns, n, 0);
}

static void warm_up(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 30, 2.0);
    const apmw_lanes lanes = lanes_of(&trace, 1);
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 10 + 15); /* turns 5 to 14 warm up, 15 to 29 count */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].turn, 5 + (int)i);
        assert_int_equal(r[i].n_out, i < 10 ? 1 : 7);
        assert_true((r[i].submitted < profile_at) == (i < 10));
        assert_int_equal(r[i].n_cached, i == 0 ? 0 : 160 * r[i].turn); /* what the turn before has left */
        assert_true(r[i].last_of_trajectory == (i == n - 1));
        if (i > 0 && i < 10) {
            assert_int_equal(r[i].submitted, r[i - 1].done); /* no waits */
        } else if (i > 10) {
            assert_int_equal(r[i].submitted, r[i - 1].done + 2 * APMW_NS_PER_S);
        }
    }
    /* The start falls into the wait before turn 15. */
    assert_int_equal(profile_at, r[9].done);
    assert_true(r[10].submitted > profile_at && r[10].submitted < profile_at + 2 * APMW_NS_PER_S);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void starts(void **state)
{
    (void)state;
    enum { LANES = 64, TURNS = 40 };
    apmw_trace trace = {0};
    for (int i = 0; i < 5; i++) {
        add_linear(&trace, TURNS, 1.0);
    }
    apmw_lanes lanes = lanes_of(&trace, LANES);
    lanes.start_from = 0.25;
    lanes.start_to = 0.75;
    lanes.warmup_turns = 1;
    apmw_collector *collector = replay(&lanes, 0.001, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    int first[LANES], warmups[LANES] = {0}, used[TURNS] = {0}, different = 0;
    memset(first, -1, sizeof first);
    for (size_t i = 0; i < n; i++) {
        if (r[i].submitted < profile_at) {
            warmups[r[i].agent]++;
            assert_int_equal(first[r[i].agent], -1);
        } else if (first[r[i].agent] < 0) {
            first[r[i].agent] = r[i].turn;
        }
    }
    for (int i = 0; i < LANES; i++) {
        assert_true(first[i] >= TURNS / 4 && first[i] < 3 * TURNS / 4);
        assert_int_equal(warmups[i], 1);
        different += used[first[i]]++ == 0;
    }
    assert_true(different > TURNS / 4); /* 20 places, 64 draws: 19.2 of them are expected to be taken */
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void recycling(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 8, 0.5);
    apmw_lanes lanes = lanes_of(&trace, 2);
    lanes.sessions_per_lane = 3;
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 2 * (8 + 8 + 8)); /* four of the first eight are the warm-up */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(r[i].n_cached, 160 * r[i].turn); /* a turn 0 finds nothing, whoever played it before */
        for (size_t k = 0; k < n && r[i].turn == 0; k++) {
            if (r[k].agent == r[i].agent && r[k].play == r[i].play - 1 && r[k].turn == 7) {
                assert_int_equal(r[i].submitted, r[k].done + APMW_NS_PER_S / 2);
            }
        }
    }
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void idle_caps(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 20, 1000.0);
    apmw_lanes lanes = lanes_of(&trace, 1);
    lanes.start_from = lanes.start_to = 0.0;
    const int64_t caps[][3] = {{0, 0, 1000}, {300, 0, 300}, {0, 10, 10}, {300, 10, 10}, {2000, 1500, 1000}};
    for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
        lanes.tree_idle_ns = caps[c][0] * APMW_NS_PER_S;
        lanes.system_idle_ns = caps[c][1] * APMW_NS_PER_S;
        apmw_collector *collector = replay(&lanes, 0.01, 100000);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 20);
        for (size_t i = 1; i < n; i++) {
            assert_int_equal(r[i].submitted, r[i - 1].done + caps[c][2] * APMW_NS_PER_S);
        }
        apmw_collector_free(collector);
    }
    /* The first wait is a uniform share of the capped one, so lanes do not all begin at the cap. */
    lanes = lanes_of(&trace, 30);
    lanes.tree_idle_ns = 300 * APMW_NS_PER_S;
    apmw_collector *spread = replay(&lanes, 0.01, 100000);
    size_t n_spread, begun = 0;
    const apmw_request_record *first = apmw_collector_requests(spread, &n_spread);
    double sum = 0.0;
    for (size_t i = 0; i < n_spread; i++) {
        if (first[i].turn == 10) {
            const double wait = apmw_time_to_s(first[i].submitted - profile_at);
            assert_true(wait < 300.0);
            sum += wait;
            begun++;
        }
    }
    assert_int_equal(begun, 30);
    assert_true(sum / 30.0 > 100.0 && sum / 30.0 < 200.0); /* 150 +- 16 */
    apmw_collector_free(spread);
    /* Two lanes: whenever both are idle, the time to the next request is at most the cap; waits keep their order. */
    lanes = lanes_of(&trace, 2);
    lanes.system_idle_ns = 10 * APMW_NS_PER_S;
    lanes.tree_idle_ns = 300 * APMW_NS_PER_S;
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    apmw_time busy_until = profile_at;
    for (size_t i = 0; i < n; i++) {
        if (r[i].submitted >= profile_at) {
            assert_true(r[i].submitted <= busy_until + 10 * APMW_NS_PER_S);
            busy_until = r[i].done > busy_until ? r[i].done : busy_until;
        }
    }
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

/* Main line 0, 1, 2, 5; lane 1 (turns 3, 4) goes on from what turn 2 sent, is spawned by it and joined by turn 5; lane 2
 * (turn 6) runs in the background from turn 2. */
static void sub_agents(void **state)
{
    (void)state;
    apmw_turn turns[] = {case_turn(160, 10, -1, 0, 0, 0), case_turn(320, 10, 0, 160, 0, 1),
                         case_turn(480, 10, 1, 320, 0, 1), case_turn(560, 30, 2, 480, 0, 2),
                         case_turn(640, 30, 3, 560, 0, 60), case_turn(800, 10, 2, 480, 0, 3),
                         case_turn(96, 4000, -1, 0, 0, 0.5)};
    turns[3].lane = turns[4].lane = 1;
    turns[6].lane = 2;
    apmw_lane tree[] = {{-1, -1}, {2, 5}, {2, -1}};
    const apmw_trajectory t = {.id = "case", .source = "test", .global_id = -1, .turns = turns, .n_turns = 7,
                               .lanes = tree, .n_lanes = 3};
    apmw_trace trace = {.block_tokens = 1};
    apmw_error err = {0};
    assert_ok(apmw_trace_add(&trace, &t, &err), &err);
    apmw_lanes lanes = lanes_of(&trace, 1);
    lanes.sessions_per_lane = 2;
    lanes.warmup_turns = 1;
    lanes.tree_idle_ns = 5 * APMW_NS_PER_S;
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *all = apmw_collector_requests(collector, &n);
    /* Half of four main turns: it starts at turn 2, after a warm-up by turn 1. */
    assert_int_equal(n, 1 + 5 + 7);
    apmw_request_record r[2][7] = {0};
    for (size_t i = 0; i < n; i++) {
        r[all[i].play][all[i].turn] = all[i];
    }
    assert_true(r[0][1].submitted == 0 && r[0][1].n_out == 1 && r[0][2].submitted >= profile_at);
    for (int play = 0; play < 2; play++) {
        const apmw_request_record *p = r[play];
        assert_int_equal(p[2].n_cached, 320);
        assert_int_equal(p[3].n_cached, 480); /* the prefix of its parent */
        assert_int_equal(p[4].n_cached, 560);
        assert_int_equal(p[5].n_cached, 480); /* the main line finds its own, not what the sub-agent added */
        assert_int_equal(p[6].n_cached, 0);
        assert_int_equal(p[3].submitted, p[2].done + 2 * APMW_NS_PER_S);
        assert_int_equal(p[6].submitted, p[2].done + APMW_NS_PER_S / 2);
        /* The wait of 60 s passes while the background agent works; what is left of it when that ends is capped. */
        assert_true(p[6].done > p[3].done + 5 * APMW_NS_PER_S && p[6].done < p[3].done + 50 * APMW_NS_PER_S);
        assert_int_equal(p[4].submitted, p[6].done + 5 * APMW_NS_PER_S);
        assert_int_equal(p[5].submitted, p[4].done + 3 * APMW_NS_PER_S);
        assert_true(p[5].last_of_trajectory && !p[6].last_of_trajectory);
    }
    for (int k = 2; k < 7; k++) { /* the lane takes the next session when the whole tree has ended */
        assert_true(r[1][0].submitted >= r[0][k].done);
    }
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

/* Lane 1 is there from the beginning. Half of four main turns: the session starts at turn 3, when lane 1 belongs to the past
 * (case 0) or, with its turns listed later, is still to come (case 1). */
static void lines_of_the_past(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        apmw_turn turns[] = {case_turn(160, 10, -1, 0, 0, 0), case_turn(96, 10, -1, 0, 0, 1), case_turn(320, 10, 0, 160, 0, 1),
                             case_turn(480, 10, 2, 320, 0, 1), case_turn(640, 10, 3, 480, 0, 1)};
        if (later) {
            turns[1] = turns[2];
            turns[2] = turns[3];
            turns[3] = case_turn(96, 10, -1, 0, 0, 1);
            turns[2].parent = 1;
            turns[4].parent = 2;
        }
        turns[later ? 3 : 1].lane = 1;
        apmw_lane tree[] = {{-1, -1}, {-1, -1}};
        const apmw_trajectory t = {.id = "case", .source = "test", .global_id = -1, .turns = turns, .n_turns = 5,
                                   .lanes = tree, .n_lanes = 2};
        apmw_trace trace = {.block_tokens = 1};
        apmw_error err = {0};
        assert_ok(apmw_trace_add(&trace, &t, &err), &err);
        const apmw_lanes lanes = lanes_of(&trace, 1);
        apmw_collector *collector = replay(&lanes, 0.01, 100000);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 2 + 2 + later); /* two warm-ups, two main turns, the sub-agent or not */
        int sub = 0;
        for (size_t i = 0; i < n; i++) {
            sub += r[i].n_prompt == 96;
        }
        assert_int_equal(sub, later);
        apmw_collector_free(collector);
        apmw_trace_free(&trace);
    }
}

/* A sub-agent overflows while another one waits for its tools: the session ends at once, not after the wait. */
static void failed_tree(void **state)
{
    (void)state;
    apmw_turn turns[] = {case_turn(160, 10, -1, 0, 0, 0), case_turn(96, 10, -1, 0, 0, 500), case_turn(5000, 10, -1, 0, 0, 1),
                         case_turn(320, 10, 0, 160, 0, 1)};
    turns[1].lane = 1;
    turns[2].lane = 2;
    apmw_lane tree[] = {{-1, -1}, {0, 3}, {0, 3}};
    const apmw_trajectory t = {.id = "case", .source = "test", .global_id = -1, .turns = turns, .n_turns = 4,
                               .lanes = tree, .n_lanes = 3};
    apmw_trace trace = {.block_tokens = 1};
    apmw_error err = {0};
    assert_ok(apmw_trace_add(&trace, &t, &err), &err);
    apmw_lanes lanes = lanes_of(&trace, 1);
    lanes.start_from = lanes.start_to = 0.0;
    lanes.max_context = 1000;
    lanes.sessions_per_lane = 2;
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 4);
    assert_int_equal(r[1].state, APMW_REQUEST_REJECTED);
    assert_true(r[2].play == 1 && r[2].turn == 0);
    assert_int_equal(r[2].submitted, r[1].submitted + APMW_NS_PER_S);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void overflow(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 20, 1.0);
    apmw_lanes lanes = lanes_of(&trace, 1);
    lanes.max_context = 1000; /* six turns fit: it starts at turn 3 */
    lanes.sessions_per_lane = 2;
    apmw_collector *collector = replay(&lanes, 0.01, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 3 + 3 + 1 + 6 + 1);
    assert_int_equal(r[3].turn, 3);
    int refused = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true((r[i].state == APMW_REQUEST_REJECTED) == (r[i].turn == 6)); /* sent, refused, and the end */
        refused += r[i].state == APMW_REQUEST_REJECTED;
    }
    assert_int_equal(refused, 2);
    assert_true(r[7].turn == 0 && r[7].submitted >= r[6].submitted + APMW_NS_PER_S);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void end_of_profile(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 6, 1.0);
    apmw_lanes lanes = lanes_of(&trace, 3);
    lanes.sessions_per_lane = 0; /* endless: only the profile ends it */
    lanes.profile_ns = 100 * APMW_NS_PER_S;
    apmw_collector *collector = replay(&lanes, 0.5, 100000);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    apmw_time last = 0;
    int finished_later = 0;
    for (size_t i = 0; i < n; i++) {
        last = r[i].submitted > last ? r[i].submitted : last;
        finished_later += r[i].done > profile_at + lanes.profile_ns;
        assert_int_equal(r[i].state, APMW_REQUEST_DONE);
    }
    assert_true(last < profile_at + lanes.profile_ns && last > profile_at + lanes.profile_ns - 10 * APMW_NS_PER_S);
    assert_true(finished_later > 0);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void grace(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    add_linear(&trace, 30, 1.0);
    apmw_lanes lanes = lanes_of(&trace, 2);
    lanes.warmup_grace_ns = 3 * APMW_NS_PER_S; /* ten warm-ups of a second each do not fit */
    apmw_collector *collector = replay(&lanes, 1.0, 100000);
    size_t n, warmups = 0;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(profile_at, 3 * APMW_NS_PER_S);
    for (size_t i = 0; i < n; i++) {
        warmups += r[i].n_out == 1;
        assert_true(r[i].n_out == 7 || r[i].submitted < profile_at);
    }
    assert_true(warmups >= 4 && warmups <= 8);
    assert_int_equal(n, warmups + 2 * 15);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void refusals(void **state)
{
    (void)state;
    apmw_trace trace = {0}, none = {0};
    add_linear(&trace, 6, 1.0);
    apmw_workload workload;
    apmw_error err = {0};
    apmw_lanes lanes = lanes_of(&none, 1);
    assert_error(apmw_workload_lanes(&lanes, &workload, &err), APMW_E_SCENARIO, &err, "at least one session");
    lanes = lanes_of(&trace, 0);
    assert_error(apmw_workload_lanes(&lanes, &workload, &err), APMW_E_SCENARIO, &err, "at least one");
    lanes = lanes_of(&trace, 1);
    lanes.start_from = 0.8;
    assert_error(apmw_workload_lanes(&lanes, &workload, &err), APMW_E_SCENARIO, &err, "0.8 and 0.5");
    lanes = lanes_of(&trace, 1);
    lanes.max_context = 100;
    assert_error(apmw_workload_lanes(&lanes, &workload, &err), APMW_E_SCENARIO, &err, "100 tokens of context");
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm_up), cmocka_unit_test(starts), cmocka_unit_test(recycling), cmocka_unit_test(idle_caps),
        cmocka_unit_test(sub_agents), cmocka_unit_test(lines_of_the_past), cmocka_unit_test(failed_tree),
        cmocka_unit_test(overflow), cmocka_unit_test(end_of_profile),
        cmocka_unit_test(grace), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
