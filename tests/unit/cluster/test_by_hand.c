/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Traces written as text, replayed on an engine with blocks of 16 tokens: compaction, edits of the prefix, resumed and
 * rewound sessions, outputs kept or sent again, parallel tools, forks and joins. Every hit is counted by hand. */
#include "agents_case.h"

static const char *const HEADER = "{\"schema\":\"apmw.trace/1\",\"block_tokens\":1}\n";

static void load(const char *trajectory, apmw_trace *trace)
{
    apmw_buf text = {0};
    apmw_error err = {0};
    apmw_buf_printf(&text, "%s%s\n", HEADER, trajectory);
    const char *path = test_path(test_directory(), "hand.jsonl");
    test_write(path, text.data, text.length);
    apmw_buf_free(&text);
    *trace = (apmw_trace){0};
    assert_ok(apmw_trace_load(path, NULL, trace, &err), &err);
}

static apmw_collector *replay(const apmw_agents *agents)
{
    apmw_error err = {0};
    apmw_step_cost *cost = case_cost(0.01, 1e-5, 1e-4);
    const apmw_engine_config engine = case_engine(cost);
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    apmw_workload workload;
    apmw_sim *sim = NULL;
    assert_ok(apmw_workload_agents(agents, &workload, &err), &err);
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.tokens_balance = true});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
    assert_ok(apmw_sim_create(&config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    apmw_step_cost_free(cost);
    return collector;
}

static apmw_agents agents_of(const apmw_trace *trace)
{
    return (apmw_agents){.trace = trace, .n_agents = 1, .delay_scale = 1.0, .seed = 1, .plays_per_agent = 1};
}

/* Hits by turn of one play. */
static void expect(const apmw_agents *agents, const int64_t *hits)
{
    apmw_collector *collector = replay(agents);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, agents->trace->items[0].n_turns);
    for (size_t i = 0; i < n; i++) {
        if (r[i].n_cached != hits[r[i].turn]) {
            fail_msg("turn %d finds %lld tokens, not %lld", r[i].turn, (long long)r[i].n_cached, (long long)hits[r[i].turn]);
        }
    }
    apmw_collector_free(collector);
}

static void contexts_that_change(void **state)
{
    (void)state;
    /* Tools and system prompt are 64 tokens. 0 begins; 1 appends its output and 48 tokens; 2 edits the prefix: it grows, but
     * keeps 100 tokens only; 3 is a compaction down to the tools; 4 appends; 5 goes back to before the edit; 6 shares
     * nothing; 7 begins again with the tools; 8 goes on from 1, too, with half of its output. */
    apmw_trace trace;
    load("{\"id\":\"a\",\"source\":\"hand\",\"global_id\":0,\"global_tokens\":64,"
         "\"in\":[160,240,260,130,200,300,90,100,280],\"out\":[32,20,8,8,8,8,8,8,8],"
         "\"parent\":[-1,0,1,2,3,1,5,-1,1],\"shared_in\":[0,160,100,64,130,240,0,0,240],"
         "\"shared_out\":[0,32,0,0,0,0,0,0,10],\"delay_ns\":[0,1,1,1,1,1,1,1,1],\"trigger\":\"utttttuut\"}", &trace);
    apmw_agents agents = agents_of(&trace);
    /* Sent again: of 0's output nothing is found, since it is computed for the first time as input of 1. */
    const int64_t again[] = {0, 160, 96, 64, 128, 240, 0, 64, 240};
    expect(&agents, again);
    /* Kept: 160 + 31 tokens of turn 0 are there for 1 (176 in blocks); 240 + 10 of turn 1 for 8 (240 in blocks). */
    agents.output_cached = true;
    const int64_t kept[] = {0, 176, 96, 64, 128, 240, 0, 64, 240};
    expect(&agents, kept);
    apmw_trace_free(&trace);
}

static void output_sent_again_twice(void **state)
{
    (void)state;
    /* 1 and 2 both go on from 0 and its output; the second finds what the first has sent: 160 + 40 tokens, 192 in blocks. 3
     * goes on from 0 without the output. */
    apmw_trace trace;
    load("{\"id\":\"a\",\"source\":\"hand\",\"in\":[160,320,320,320],\"out\":[40,8,8,8],\"parent\":[-1,0,0,0],"
         "\"shared_in\":[0,160,160,160],\"shared_out\":[0,40,40,0],\"delay_ns\":[0,1,1,1],\"trigger\":\"uttt\"}", &trace);
    apmw_agents agents = agents_of(&trace);
    const int64_t again[] = {0, 160, 192, 160};
    expect(&agents, again);
    agents.output_cached = true; /* 160 + 39 tokens for 1: 192 too */
    const int64_t kept[] = {0, 192, 192, 160};
    expect(&agents, kept);
    apmw_trace_free(&trace);
}

static void resumed_session(void **state)
{
    (void)state;
    /* A session taken up at 8,000 tokens is cold but for the tools that another agent has sent, if they are shared. */
    apmw_trace trace;
    load("{\"id\":\"a\",\"source\":\"hand\",\"global_id\":3,\"global_tokens\":800,\"in\":[8000,8160],\"out\":[16,16],"
         "\"shared_in\":[0,8000],\"delay_ns\":[0,1],\"trigger\":\"ut\"}", &trace);
    apmw_agents agents = agents_of(&trace);
    agents.plays_per_agent = 2;
    for (int shared = 0; shared < 2; shared++) {
        agents.share_global = shared != 0;
        apmw_collector *collector = replay(&agents);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 4);
        const int64_t hits[] = {0, 8000, shared ? 800 : 0, 8000};
        for (int i = 0; i < 4; i++) {
            assert_int_equal(r[i].n_cached, hits[i]);
        }
        apmw_collector_free(collector);
    }
    apmw_trace_free(&trace);
}

static void parallel_tools(void **state)
{
    (void)state;
    /* Two tools of 1 and 3 s beside each other, then one of 2 s. */
    apmw_trace trace;
    load("{\"id\":\"a\",\"source\":\"hand\",\"in\":[160,320,480],\"out\":[8,8,8],\"shared_in\":[0,160,320],"
         "\"delay_ns\":[0,[1000000000,3000000000],[2000000000]],\"trigger\":\"utt\"}", &trace);
    const apmw_agents agents = agents_of(&trace);
    apmw_collector *collector = replay(&agents);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 3);
    assert_int_equal(r[1].submitted, r[0].done + 3 * APMW_NS_PER_S);
    assert_int_equal(r[2].submitted, r[1].done + 2 * APMW_NS_PER_S);
    apmw_collector_free(collector);
    apmw_trace_free(&trace);
}

static void fork_and_join(void **state)
{
    (void)state;
    /* Turn 0 spawns three sub-agents that begin with its 320 tokens: lane 1 (turns 1, 2), lane 2 (turn 3) with its output,
     * too, lane 3 (turn 4) in the background. Turn 5 joins the first two and goes on from turn 0. */
    apmw_trace trace;
    load("{\"id\":\"a\",\"source\":\"hand\",\"in\":[320,400,480,420,352,512],\"out\":[32,8,8,300,2000,8],"
         "\"parent\":[-1,0,1,0,0,0],\"lane\":[0,1,1,2,3,0],\"shared_in\":[0,320,400,320,320,320],"
         "\"shared_out\":[0,0,0,32,0,32],\"delay_ns\":[0,500000000,1000000000,500000000,500000000,2000000000],"
         "\"trigger\":\"uttttj\",\"spawn_after\":[0,0,0],\"join_before\":[5,5,-1]}", &trace);
    apmw_agents agents = agents_of(&trace);
    agents.concurrent_lanes = true;
    for (int kept = 0; kept < 2; kept++) {
        agents.output_cached = kept != 0;
        apmw_collector *collector = replay(&agents);
        size_t n;
        const apmw_request_record *all = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 6);
        apmw_request_record r[6];
        for (size_t i = 0; i < n; i++) {
            r[all[i].turn] = all[i];
        }
        /* Three at once, each with the parent's prefix. Kept: 320 + 31 tokens are 336 in blocks. The main line finds the
         * whole output, since lane 2 has sent it as input. */
        const int64_t hits[] = {0, 320, 400, kept ? 336 : 320, 320, 352};
        for (int i = 0; i < 6; i++) {
            assert_int_equal(r[i].n_cached, hits[i]);
        }
        for (int i = 1; i <= 4; i++) {
            assert_int_equal(r[i].submitted, i == 2 ? r[1].done + APMW_NS_PER_S : r[0].done + APMW_NS_PER_S / 2);
        }
        const apmw_time later = r[2].done > r[3].done ? r[2].done : r[3].done;
        assert_true(r[3].done > r[2].done && r[4].done > r[5].done); /* who is the longest, and who is not waited for */
        assert_int_equal(r[5].submitted, later + 2 * APMW_NS_PER_S);
        apmw_collector_free(collector);
    }
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(contexts_that_change), cmocka_unit_test(output_sent_again_twice),
                                       cmocka_unit_test(resumed_session), cmocka_unit_test(parallel_tools),
                                       cmocka_unit_test(fork_and_join)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
