/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any one allocation may fail: the engine says so, never crashes, and leaks nothing. */
#include "engine_rig.h"
#include "failing_alloc.h"
#include "test_support.h"

enum { N = 24 };

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    (void)request;
    (void)now;
    ++*(int *)self;
}

typedef struct outcome {
    apmw_status status;
    int ended;
} outcome;

/* Memory fails at the countdown'th allocation after the clock, streams and cost are there. */
static outcome run(apmw_des *des, apmw_streams *streams, const apmw_step_cost *cost,
                   const apmw_stream *stream, int variant, long countdown)
{
    outcome result = {APMW_OK, 0};
    apmw_request requests[N];
    apmw_engine_config config = rig_config();
    config.cost = cost;
    config.streams = streams;
    config.plain = variant % 2;
    config.batching = (apmw_batching)(variant % 3);
    config.n_ranks = 2;
    config.prefix_caching = true;
    config.kv_blocks = 40;
    config.recv_interval = 3;
    config.max_num_seqs = 20;
    apmw_engine *engine = NULL;
    apmw_error err = {0};
    failing_alloc_countdown = countdown;
    result.status = apmw_engine_create(des, &config, 0, NULL, 0, &engine, &err);
    if (result.status == APMW_OK) {
        for (int i = 0; i < N; i++) {
            requests[i] = (apmw_request){.record = {.id = (uint64_t)i, .n_prompt = 20 + i, .n_out = 40},
                                         .stream = stream[i],
                                         .rank_hint = -1,
                                         .on_done = on_done,
                                         .self = &result.ended};
            apmw_engine_submit(engine, &requests[i]);
        }
        result.status = apmw_des_run(des, APMW_TIME_NEVER);
        if (result.status == APMW_OK)
            result.status = apmw_engine_check(engine, &err);
    }
    failing_alloc_countdown = 0;
    apmw_engine_free(engine);
    return result;
}

static void a_failed_allocation_is_reported(void **state)
{
    (void)state;
    if (!FAILING_ALLOC)
        skip();
    const apmw_linear_cost numbers = rig_cost(0.01, 1e-5);
    apmw_step_cost *cost = apmw_step_cost_linear(&numbers);
    apmw_streams *streams = apmw_streams_create();
    apmw_stream stream[N];
    for (int i = 0; i < N; i++)
        stream[i] = apmw_streams_new(streams, 0, 0);
    for (int variant = 0; variant < 6; variant++) {
        int failures = 0;
        for (long countdown = 1;; countdown++) {
            const long live = failing_alloc_live;
            apmw_des *des = apmw_des_create();
            const outcome got = run(des, streams, cost, stream, variant, countdown);
            apmw_des_free(des);
            assert_int_equal(failing_alloc_live, live);
            if (got.status == APMW_OK) {
                assert_int_equal(got.ended, N);
                break;
            }
            assert_int_equal(got.status, APMW_E_NOMEM);
            failures++;
        }
        assert_true(failures > 20);
    }
    apmw_streams_free(streams);
    apmw_step_cost_free(cost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_failed_allocation_is_reported)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
