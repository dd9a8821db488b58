/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Listed requests: what each finds cached, in which order they go out. Blocks of 16 tokens, steps of 10 ms. */
#include "agents_case.h"

static apmw_collector *play(const apmw_listed_request *requests, size_t n, int64_t slots, int n_ranks)
{
    apmw_step_cost *cost = case_cost(0.01, 0.0, 0.0);
    apmw_engine_config engine = case_engine(cost);
    engine.n_ranks = n_ranks;
    const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = 1};
    const apmw_listed listed = {.requests = requests, .n_requests = n, .slots = slots};
    apmw_workload workload;
    apmw_error err = {0};
    assert_ok(apmw_workload_listed(&listed, &workload, &err), &err);
    /* Without the law of balanced tokens: what puts the root there is computed, and no request that observers see. */
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = true});
    apmw_collector *collector = apmw_collector_create(NULL, false);
    const apmw_probe *probes[] = {apmw_laws_probe(laws), apmw_collector_probe(collector)};
    apmw_sim *sim = NULL;
    assert_ok(apmw_sim_create(&config, workload, probes, 2, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    apmw_sim_free(sim);
    apmw_laws_free(laws);
    apmw_step_cost_free(cost);
    return collector;
}

/* Whatever was sent before with more of the root, each finds as much as the list says, on any rank. */
static void finds_what_the_list_says(void **state)
{
    (void)state;
    const apmw_listed_request list[] = {{200, 3, 160}, {200, 3, 0}, {200, 3, 64}, {200, 3, 160}, {200, 3, 70}, {200, 3, 64}};
    const int64_t found[] = {160, 0, 64, 160, 64, 64};
    for (int n_ranks = 1; n_ranks <= 3; n_ranks++) {
        apmw_collector *collector = play(list, 6, 4, n_ranks);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 6); /* those that put the root there are not seen */
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(r[i].n_cached, found[r[i].id]);
        }
        apmw_collector_free(collector);
    }
}

/* One at a time: 30 ms each (a prompt, two tokens), in order, the next when one ends; with nothing cached they begin at 0. */
static void closed_loop(void **state)
{
    (void)state;
    const apmw_listed_request list[] = {{20, 3, 0}, {30, 3, 0}, {40, 3, 0}};
    apmw_collector *collector = play(list, 3, 1, 1);
    size_t n;
    const apmw_request_record *r = apmw_collector_requests(collector, &n);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(r[i].id, i);
        assert_int_equal(r[i].n_prompt, list[i].n_prompt);
        assert_int_equal(r[i].submitted, (apmw_time)i * 30000000);
    }
    apmw_collector_free(collector);
}

static void refuses(void **state)
{
    (void)state;
    const apmw_listed_request whole[] = {{20, 3, 0}, {32, 3, 32}};
    apmw_listed listed = {.requests = whole, .n_requests = 2, .slots = 1};
    apmw_workload workload;
    apmw_error err = {0};
    assert_error(apmw_workload_listed(&listed, &workload, &err), APMW_E_SCENARIO, &err, "listed request 1");
    listed.slots = 0;
    assert_error(apmw_workload_listed(&listed, &workload, &err), APMW_E_SCENARIO, &err, "slots");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_what_the_list_says), cmocka_unit_test(closed_loop),
                                       cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
