/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random sessions with sub-agents in random lanes on random deployments: the laws hold, the same seed gives the same
 * records, the plain engine gives them too, and every record keeps the rules of the driver. */
#include <stdlib.h>

#include "agents_case.h"
#include "traces_random.h"

enum { MAX_LANES = 6, MAX_SESSIONS = 4 };

typedef struct outcome {
    apmw_collector *collector;
    apmw_time profile;
    int profiles;
} outcome;

static void on_profile(void *self, apmw_time now)
{
    outcome *o = self;
    o->profile = now;
    o->profiles++;
}

/* Caps and limits of a case by its seed. */
static apmw_lanes lanes_of(uint64_t seed, const apmw_trace *trace)
{
    apmw_rng rng = apmw_rng_make(seed, "lanes", 0, 0);
    apmw_lanes lanes = {.trace = trace, .n_lanes = 1 + (int64_t)apmw_rng_below(&rng, MAX_LANES), .delay_scale = 1.0,
                        .seed = seed, .sessions_per_lane = MAX_SESSIONS};
    lanes.start_from = apmw_rng_uniform(&rng);
    lanes.start_to = lanes.start_from + (1.0 - lanes.start_from) * apmw_rng_uniform(&rng);
    lanes.warmup_turns = (int)apmw_rng_below(&rng, 4);
    lanes.warmup_grace_ns = apmw_rng_below(&rng, 3) == 0 ? APMW_NS_PER_S / 20 : 0;
    lanes.profile_ns = apmw_rng_below(&rng, 2) == 0 ? 15 * APMW_NS_PER_S : 0;
    lanes.tree_idle_ns = apmw_rng_below(&rng, 2) == 0 ? 2 * APMW_NS_PER_S : 0;
    lanes.system_idle_ns = apmw_rng_below(&rng, 2) == 0 ? APMW_NS_PER_S / 2 : 0;
    lanes.share_global = apmw_rng_below(&rng, 2) == 0;
    lanes.output_cached = apmw_rng_below(&rng, 2) == 0;
    lanes.max_context = apmw_rng_below(&rng, 3) == 0 ? 1500 : 0;
    return lanes;
}

static outcome run(uint64_t seed, apmw_lanes lanes, bool plain)
{
    apmw_rng rng = apmw_rng_make(seed, "deployment", 0, 0);
    apmw_step_cost *cost = case_cost(0.005, 2e-5, 2e-4);
    apmw_engine_config engines[2];
    const size_t n_engines = 1 + apmw_rng_below(&rng, 2);
    const int ranks = 1 + (int)apmw_rng_below(&rng, 2);
    const apmw_batching batching = (apmw_batching)apmw_rng_below(&rng, 3);
    const int64_t blocks = 600 + (int64_t)apmw_rng_below(&rng, 2000);
    for (size_t i = 0; i < 2; i++) {
        engines[i] = case_engine(cost);
        engines[i].batching = batching;
        engines[i].n_ranks = ranks;
        engines[i].kv_blocks = blocks;
        engines[i].max_num_seqs = 8;
        engines[i].max_num_batched_tokens = 512;
        engines[i].max_prefill_tokens = batching == APMW_BATCHING_SGLANG ? 512 : 0;
        engines[i].max_model_len = lanes.max_context;
        engines[i].plain = plain;
    }
    const apmw_routing routing = (apmw_routing)apmw_rng_below(&rng, 4);
    const apmw_sim_config config = {.engines = engines, .n_engines = n_engines, .routing = routing, .seed = seed};
    outcome o = {.collector = apmw_collector_create(NULL, false)};
    lanes.on_profile = on_profile;
    lanes.self = &o;
    apmw_workload workload;
    apmw_error err = {0};
    apmw_sim *sim = NULL;
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.tokens_balance = true});
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(o.collector)};
    assert_ok(apmw_workload_lanes(&lanes, &workload, &err), &err);
    assert_ok(apmw_sim_create(&config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    assert_int_equal(apmw_laws_submitted(laws), apmw_laws_terminal(laws));
    assert_int_equal(o.profiles, 1);
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    apmw_step_cost_free(cost);
    return o;
}

static int by_submission(const void *a, const void *b)
{
    const apmw_request_record *x = a, *y = b;
    return x->submitted < y->submitted ? -1 : x->submitted > y->submitted ? 1 : x->id < y->id ? -1 : x->id > y->id;
}

/* The records of one session of a lane by turn; id is of no use, submitted NEVER = not sent. */
static void session_of(const apmw_request_record *r, size_t n, int32_t lane, int32_t play, apmw_time profile,
                       apmw_request_record *out)
{
    for (int k = 0; k < RANDOM_MAX_TURNS; k++) {
        out[k] = (apmw_request_record){.submitted = APMW_TIME_NEVER, .trajectory = -1};
    }
    for (size_t i = 0; i < n; i++) {
        if (r[i].agent == lane && r[i].play == play && r[i].submitted >= profile) {
            assert_true(out[r[i].turn].submitted == APMW_TIME_NEVER); /* no turn twice */
            out[r[i].turn] = r[i];
        }
    }
}

/* Turns of a lane in order, spawns after their turn, joins before theirs, lengths as recorded. Returns the last end. */
static apmw_time check_session(const apmw_lanes *lanes, const apmw_request_record *s, int32_t play)
{
    apmw_time last = 0;
    int32_t trajectory = -1, first = -1;
    bool whole = lanes->profile_ns == 0;
    for (int k = 0; k < RANDOM_MAX_TURNS; k++) {
        trajectory = s[k].submitted != APMW_TIME_NEVER ? s[k].trajectory : trajectory;
        first = first < 0 && s[k].submitted != APMW_TIME_NEVER ? k : first;
        whole = whole && (s[k].submitted == APMW_TIME_NEVER || s[k].state == APMW_REQUEST_DONE);
    }
    if (trajectory < 0) {
        return 0;
    }
    const apmw_trajectory *t = &lanes->trace->items[trajectory];
    const bool capped = lanes->tree_idle_ns > 0 || lanes->system_idle_ns > 0;
    assert_true(play == 0 || first == 0 || t->turns[first].lane > 0);
    for (int32_t k = 0; k < t->n_turns; k++) {
        if (s[k].submitted == APMW_TIME_NEVER) {
            /* Only turns before the start, and those of lanes that began there, may be missing from a whole session. */
            const int32_t lane = t->turns[k].lane;
            assert_true(!whole || k < first || (lane > 0 && t->lanes[lane].spawn_after < first));
            continue;
        }
        const apmw_turn *turn = &t->turns[k];
        assert_int_equal(s[k].n_out, turn->n_out);
        last = s[k].done != APMW_TIME_NEVER && s[k].done > last ? s[k].done : last;
        /* What it waits for: the turn before it in its lane, or what spawned the lane; and the lanes that it joins. */
        apmw_time from = -1;
        int32_t before = k - 1;
        while (before >= 0 && t->turns[before].lane != turn->lane) {
            before--;
        }
        before = before < 0 && turn->lane > 0 ? t->lanes[turn->lane].spawn_after : before;
        if (before >= 0 && s[before].submitted != APMW_TIME_NEVER) {
            from = s[before].done;
        }
        for (int32_t j = 0; turn->lane == 0 && j < k; j++) {
            const int32_t lane = t->turns[j].lane;
            if (lane > 0 && t->lanes[lane].join_before == k && s[j].submitted != APMW_TIME_NEVER) {
                from = s[j].done > from ? s[j].done : from;
            }
        }
        if (from >= 0) {
            assert_true(s[k].submitted >= from);
            assert_true(capped ? s[k].submitted <= from + turn->delay_ns : s[k].submitted == from + turn->delay_ns);
        }
    }
    return last;
}

static void check_rules(const apmw_lanes *lanes, const outcome *o)
{
    size_t n;
    const apmw_request_record *kept = apmw_collector_requests(o->collector, &n);
    apmw_request_record *r = malloc((n + 1) * sizeof *r);
    assert_non_null(r);
    memcpy(r, kept, n * sizeof *r);
    qsort(r, n, sizeof *r, by_submission);
    apmw_time busy_until = o->profile;
    int warmups[MAX_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        /* A refused request ends where it began. */
        const apmw_time done = r[i].state == APMW_REQUEST_DONE ? r[i].done : r[i].submitted;
        if (r[i].submitted < o->profile) {
            warmups[r[i].agent]++;
            assert_int_equal(r[i].n_out, 1);
            assert_true(lanes->warmup_grace_ns == 0 || r[i].submitted < lanes->warmup_grace_ns);
        } else {
            assert_true(lanes->profile_ns == 0 || r[i].submitted < o->profile + lanes->profile_ns);
            /* A failed session is followed by a pause of a second, which the cap of the system shortens, too. */
            assert_true(lanes->system_idle_ns == 0 || r[i].submitted <= busy_until + lanes->system_idle_ns);
        }
        busy_until = done > busy_until ? done : busy_until;
    }
    for (int32_t lane = 0; lane < lanes->n_lanes; lane++) {
        assert_true(warmups[lane] <= lanes->warmup_turns);
        apmw_time last = 0;
        for (int32_t play = 0; play < MAX_SESSIONS; play++) {
            apmw_request_record s[RANDOM_MAX_TURNS];
            session_of(r, n, lane, play, o->profile, s);
            for (int k = 0; k < RANDOM_MAX_TURNS; k++) {
                assert_true(s[k].submitted >= last); /* sessions of a lane do not overlap */
                if (s[k].submitted != APMW_TIME_NEVER && s[k].state != APMW_REQUEST_DONE) {
                    s[k].done = s[k].submitted;
                }
            }
            const apmw_time end = check_session(lanes, s, play);
            last = end > last ? end : last;
        }
    }
    free(r);
}

static void rules_hold(void **state)
{
    (void)state;
    for_each_seed(seed, 200) {
        apmw_trace trace = random_trace(seed, 1 + seed % 5, 500, 1);
        const apmw_lanes lanes = lanes_of(seed, &trace);
        outcome first = run(seed, lanes, false), again = run(seed, lanes, false), plain = run(seed, lanes, true);
        case_same_records(first.collector, again.collector, 0);
        case_same_records(first.collector, plain.collector, 1000);
        check_rules(&lanes, &first);
        apmw_collector_free(first.collector);
        apmw_collector_free(again.collector);
        apmw_collector_free(plain.collector);
        apmw_trace_free(&trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rules_hold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
