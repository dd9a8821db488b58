/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Configuration, rejection, books, probes, the load that a cost sees, and the ways an engine can end early.
 */
#include "engine_rig.h"
#include "test_support.h"

static apmw_step_cost *any_cost(void)
{
    const apmw_linear_cost numbers = rig_cost(0.01, 0.0);
    return apmw_step_cost_linear(&numbers);
}

static void bad_configurations_are_named(void **state)
{
    (void)state;
    apmw_des *des = apmw_des_create();
    apmw_streams *streams = apmw_streams_create();
    apmw_step_cost *cost = any_cost();
    apmw_engine_config good = rig_config();
    good.cost = cost;
    good.streams = streams;
    apmw_engine *engine = NULL;
    apmw_error err = {0};
    assert_ok(apmw_engine_create(des, &good, 0, NULL, 0, &engine, &err), &err);
    assert_int_equal(apmw_engine_ranks(engine), 1);
    apmw_engine_free(engine);
    apmw_engine_free(NULL);
#define BAD(field, value, text)                                                                              \
    do {                                                                                                     \
        apmw_engine_config bad = good;                                                                       \
        bad.field = (value);                                                                                 \
        assert_error(apmw_engine_create(des, &bad, 0, NULL, 0, &engine, &err), APMW_E_SCENARIO, &err, text); \
        assert_null(engine);                                                                                 \
    } while (0)
    BAD(cost, NULL, "cost");
    BAD(streams, NULL, "streams");
    BAD(batching, (apmw_batching)3, "batching");
    BAD(n_ranks, 0, "n_ranks");
    BAD(max_num_seqs, 0, "max_num_seqs");
    BAD(max_num_batched_tokens, 0, "max_num_batched_tokens");
    BAD(block_tokens, 0, "block_tokens");
    BAD(kv_blocks, 0, "kv_blocks");
    BAD(max_model_len, -1, "max_model_len");
    BAD(reserve_output_tokens, -1, "reserve_output_tokens");
    BAD(recv_interval, 1001, "recv_interval");
    BAD(adp_wait_iters, -1, "waiting");
    BAD(frontend_ns_per_token, -1.0, "frontend_ns_per_token");
    BAD(frontend_ns_per_token, (double)0.0 / (double)0.0, "frontend_ns_per_token");
    BAD(request_overhead_ns, -1, "request_overhead_ns");
    BAD(draft_tokens, -1, "draft_tokens");
    good.draft_tokens = 3;
    BAD(acceptance_length, 0.9, "acceptance_length");
    BAD(acceptance_length, 4.1, "acceptance_length");
    good.acceptance_length = 2.0;
    BAD(max_num_batched_tokens, 3, "max_num_batched_tokens");
    cost->n_kinds = 0;
    BAD(n_ranks, 1, "attention kinds");
#undef BAD
    cost->n_kinds = 1;
    apmw_step_cost_free(cost);
    apmw_streams_free(streams);
    apmw_des_free(des);
}

static void what_can_never_fit_is_rejected(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        apmw_engine_config config = rig_config();
        config.plain = plain;
        config.block_tokens = 10;
        config.kv_blocks = 10;
        config.max_model_len = 105;
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        engine_rig *rig = rig_open(&cost, config);
        const apmw_request *fits = rig_add(rig, 0, 81, 20); /* 100 tokens in KV, the last one never written */
        const apmw_request *model = rig_add(rig, 0, 81, 25);
        const apmw_request *pool = rig_add(rig, 0, 82, 20);
        apmw_request *declared = rig_add(rig, 0, 10, 5);
        declared->max_tokens = 96;
        const apmw_request *empty = rig_add(rig, 0, 0, 5), *silent = rig_add(rig, 0, 5, 0);
        rig_run(rig);
        assert_int_equal(fits->record.state, APMW_REQUEST_DONE);
        assert_int_equal(model->record.state, APMW_REQUEST_REJECTED);
        assert_int_equal(pool->record.state, APMW_REQUEST_REJECTED);
        assert_int_equal(declared->record.state, APMW_REQUEST_REJECTED);
        assert_int_equal(empty->record.state, APMW_REQUEST_REJECTED);
        assert_int_equal(silent->record.state, APMW_REQUEST_REJECTED);
        assert_true(pool->record.first_token == APMW_TIME_NEVER &&
                    pool->record.last_token == APMW_TIME_NEVER);
        assert_int_equal(pool->record.done, 0);
        assert_int_equal(apmw_engine_load(rig->engine, -1), 0);
        assert_int_equal(apmw_engine_tokens(rig->engine, -1), 0);
        rig_close(rig);
    }
}

static void books_follow_requests(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        apmw_engine_config config = rig_config();
        config.plain = plain;
        config.n_ranks = 3;
        config.request_overhead_ns = 1000;
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        engine_rig *rig = rig_open(&cost, config);
        apmw_request *a = rig_request(rig, 100, 5), *b = rig_request(rig, 10, 5),
                     *c = rig_request(rig, 20, 50);
        a->rank_hint = 1;
        apmw_engine_submit(rig->engine, a);
        apmw_engine_submit(rig->engine, b);
        apmw_engine_submit(rig->engine, c);
        assert_int_equal(apmw_engine_load(rig->engine, -1), 3);
        assert_int_equal(apmw_engine_tokens(rig->engine, -1), 130);
        /* Only a's rank is known yet. */
        assert_int_equal(apmw_engine_load(rig->engine, 1), 1);
        assert_int_equal(apmw_engine_load(rig->engine, 0), 0);
        assert_int_equal(apmw_des_run(rig->des, 1000000), APMW_OK);
        assert_int_equal(a->record.rank, 1);
        assert_int_equal(b->record.rank, 0);
        assert_int_equal(c->record.rank, 2);
        assert_int_equal(apmw_engine_tokens(rig->engine, 2), 20);
        assert_int_equal(apmw_engine_busy(rig->engine), 1000000 - 1000);
        assert_int_equal(apmw_engine_steps(rig->engine), 0);
        apmw_kv_stats stats;
        apmw_engine_kv_stats(rig->engine, 1, &stats);
        assert_int_equal(stats.held_blocks, 7);
        /* In the middle of a stretch: c has made 9 decode steps by 105 ms and runs its 10th: 30 tokens. */
        assert_int_equal(apmw_des_run(rig->des, 105000000), APMW_OK);
        assert_int_equal(apmw_engine_load(rig->engine, -1), 1);
        apmw_engine_kv_stats(rig->engine, 2, &stats);
        assert_int_equal(stats.held_blocks, 2);
        assert_int_equal(apmw_des_run(rig->des, 145000000), APMW_OK);
        apmw_engine_kv_stats(rig->engine, 2, &stats);
        assert_int_equal(stats.held_blocks, 3);
        rig_check(rig);
        rig_run(rig);
        assert_int_equal(apmw_engine_tokens(rig->engine, 2), 0);
        assert_int_equal(apmw_engine_busy(rig->engine), 500000000);
        assert_int_equal(apmw_engine_steps(rig->engine), 50);
        rig_close(rig);
    }
}

/* A cost that keeps the loads it is asked for; each step lasts 10 ms. */
typedef struct spy {
    apmw_step_cost base;
    apmw_step_load loads[64];
    apmw_chunk chunks[64];
    int n;
    double time_s;
} spy;

static void spy_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    spy *s = (spy *)(uintptr_t)cost;
    if (s->n < 64) {
        s->loads[s->n] = *load;
        if (load->n_chunks > 0)
            s->chunks[s->n] = load->chunks[0];
        s->n++;
    }
    *out = (apmw_step_work){.time_s = s->time_s};
}

static void spy_sum(const apmw_step_cost *cost, const apmw_step_load *load,
                    const double growth[APMW_KV_KINDS], int64_t n_steps, apmw_step_work *out)
{
    (void)growth;
    spy_eval(cost, load, out);
    out->time_s *= (double)n_steps;
}

static const apmw_step_cost_ops spy_ops = {"spy", spy_eval, spy_sum, NULL};

static engine_rig *open_with_spy(spy *s, apmw_engine_config config)
{
    const apmw_linear_cost cost = rig_cost(0.01, 0.0);
    *s = (spy){.base = {.ops = &spy_ops, .n_kinds = 2, .kv_cap = {INT64_MAX, 25}, .n_accelerators = 1},
               .time_s = 0.01};
    engine_rig *rig = rig_open(&cost, config);
    apmw_engine_free(rig->engine);
    const apmw_probe *probes[] = {&rig->probe};
    config.cost = &s->base;
    config.streams = rig->streams;
    apmw_error err;
    assert_ok(apmw_engine_create(rig->des, &config, 7, probes, 1, &rig->engine, &err), &err);
    return rig;
}

/* The critical rank: most tokens for chunks and tokens, largest sums for sequences and KV, totals over all.
 */
static void the_load_is_that_of_the_critical_rank(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        spy s;
        apmw_engine_config config = rig_config();
        config.plain = plain;
        config.n_ranks = 2;
        config.max_num_batched_tokens = 60;
        engine_rig *rig = open_with_spy(&s, config);
        const int64_t prompts[] = {40, 10, 10, 70};
        const int ranks[] = {0, 1, 1, 1};
        for (int i = 0; i < 4; i++)
            rig_add(rig, 0, prompts[i], 30)->rank_hint = ranks[i];
        assert_int_equal(apmw_des_run(rig->des, 15000000), APMW_OK);
        /* Step 1: rank 0 has 40 tokens; rank 1 has 10 + 10 + 40 of 70. */
        assert_int_equal(s.loads[0].rank_tokens, 60);
        assert_int_equal(s.loads[0].total_tokens, 100);
        assert_int_equal(s.loads[0].total_seqs, 0);
        assert_int_equal(s.loads[0].n_chunks, 3);
        assert_int_equal(s.chunks[0].new_tokens, 10);
        assert_true(s.chunks[0].is_last);
        /* Step 2: contexts 41 against 11 + 11, of the window 25 against 22; 30 tokens beside two decodes. */
        const apmw_step_load *load = &s.loads[1];
        assert_int_equal(load->n_seqs, 2);
        assert_int_equal(load->total_seqs, 3);
        assert_int_equal(load->rank_tokens, 32);
        assert_int_equal(load->total_tokens, 33);
        assert_true(load->kv[0] == 41.0 && load->kv[1] == 25.0);
        assert_int_equal(load->n_chunks, 1);
        assert_int_equal(s.chunks[1].new_tokens, 30);
        assert_int_equal(s.chunks[1].past_tokens, 40);
        assert_int_equal(rig->steps[0].engine, 7);
        assert_int_equal(rig->steps[0].prefill_tokens, 100);
        rig_close(rig);
    }
}

static void drafts_are_tokens_of_the_pass(void **state)
{
    (void)state;
    spy s;
    apmw_engine_config config = rig_config();
    config.draft_tokens = 3;
    config.acceptance_length = 4.0;
    engine_rig *rig = open_with_spy(&s, config);
    rig_add(rig, 0, 10, 9);
    rig_run(rig);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.loads[1].n_seqs, 1);
    assert_int_equal(s.loads[1].rank_tokens, 4);
    assert_int_equal(apmw_engine_steps(rig->engine), 3);
    assert_int_equal(rig->steps[1].decode_tokens, 8);
    assert_int_equal(rig->steps[1].n_steps, 2);
    rig_close(rig);
}

static void a_cost_that_is_no_time_stops_the_engine(void **state)
{
    (void)state;
    const double bad[] = {0.0, -1.0, (double)0.0 / (double)0.0, 1e30};
    for (int i = 0; i < 8; i++) {
        spy s;
        apmw_engine_config config = rig_config();
        config.plain = i % 2;
        engine_rig *rig = open_with_spy(&s, config);
        s.time_s = bad[i / 2];
        rig_add(rig, 0, 10, 9);
        assert_int_equal(apmw_des_run(rig->des, APMW_TIME_NEVER), APMW_OK);
        apmw_error err = {0};
        assert_error(apmw_engine_check(rig->engine, &err), APMW_E_INTERNAL, &err, "positive time");
        assert_int_equal(rig->n_ended, 0);
        rig_close(rig);
    }
}

/* A run may end with requests at every stage; the engine frees its own and leaves the requests to their
 * owner. */
static void an_engine_can_go_at_any_time(void **state)
{
    (void)state;
    for (int i = 0; i < 40; i++) {
        apmw_engine_config config = rig_config();
        config.plain = i % 2;
        config.batching = (apmw_batching)(i % 3);
        config.recv_interval = 5;
        config.max_num_seqs = 2;
        config.max_num_batched_tokens = 30;
        config.chunked_prefill = true;
        config.frontend_ns_per_token = 1e5;
        const apmw_linear_cost cost = rig_cost(0.01, 1e-5);
        engine_rig *rig = rig_open(&cost, config);
        for (int j = 0; j < 6; j++)
            rig_add(rig, j * 20000000, 50 + j, 20);
        assert_int_equal(apmw_des_run(rig->des, i * 10000000), APMW_OK);
        rig_check(rig);
        rig_close(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bad_configurations_are_named),
                                       cmocka_unit_test(what_can_never_fit_is_rejected),
                                       cmocka_unit_test(books_follow_requests),
                                       cmocka_unit_test(the_load_is_that_of_the_critical_rank),
                                       cmocka_unit_test(drafts_are_tokens_of_the_pass),
                                       cmocka_unit_test(a_cost_that_is_no_time_stops_the_engine),
                                       cmocka_unit_test(an_engine_can_go_at_any_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
