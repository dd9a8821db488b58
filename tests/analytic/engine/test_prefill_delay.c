/* SPDX-License-Identifier: GPL-3.0-or-later */
/* SGLang's prefill delayer by hand: two ranks, steps of 10 ms whatever they do. */
#include "engine_rig.h"

static apmw_engine_config config_of(bool plain, int passes, apmw_time limit)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_SGLANG;
    config.n_ranks = 2;
    config.plain = plain;
    config.prefill_delay_passes = passes;
    config.prefill_delay_ns = limit;
    return config;
}

static const apmw_request *add(engine_rig *rig, apmw_time when, int64_t n_out, int rank)
{
    apmw_request *request = rig_add(rig, when, 10, n_out);
    request->rank_hint = rank;
    return request;
}

/* Rank 0 decodes from 10 ms on; a prompt of rank 1 that is there at 15 ms is first looked at at 20 ms. */
static void waits_for_the_other_rank(void **state)
{
    (void)state;
    const apmw_time ms = 1000000;
    const struct {
        int passes;
        apmw_time limit;
        apmw_time first_token; /* of rank 1 */
    } cases[] = {
        {0, 0, 30 * ms},              /* off: prefill in the pass from 20 to 30 ms */
        {5, 10000 * ms, 80 * ms},     /* 5 passes at 20..60 ms wait, the one at 70 ms goes */
        {100, 35 * ms, 70 * ms},      /* at 55 ms the time is over; the next boundary is at 60 ms */
        {100, 10000 * ms, 320 * ms},  /* rank 0 has nothing to decode after 310 ms */
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const size_t c = i / 2;
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        engine_rig *rig = rig_open(&cost, config_of(i % 2 == 1, cases[c].passes, cases[c].limit));
        add(rig, 0, 31, 0);
        const apmw_request *late = add(rig, 15 * ms, 2, 1);
        rig_run(rig);
        assert_int_equal(late->record.first_token, cases[c].first_token);
        rig_close(rig);
    }
}

/* A prompt of two chunks waits once: at 20..60 ms, then both chunks follow each other and its first token comes at 90 ms. */
static void does_not_wait_within_a_prompt(void **state)
{
    (void)state;
    const apmw_time ms = 1000000;
    for (int plain = 0; plain < 2; plain++) {
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        apmw_engine_config config = config_of(plain == 1, 5, 10000 * ms);
        config.max_num_batched_tokens = 10;
        engine_rig *rig = rig_open(&cost, config);
        add(rig, 0, 31, 0);
        apmw_request *late = rig_add(rig, 15 * ms, 20, 2), *next = rig_add(rig, 16 * ms, 10, 2);
        late->rank_hint = next->rank_hint = 1;
        rig_run(rig);
        assert_int_equal(late->record.first_token, 90 * ms);
        /* One that has not begun is held back for 5 passes more, at 80..120 ms: the count began again with the pass that went. */
        assert_int_equal(next->record.first_token, 140 * ms);
        rig_close(rig);
    }
}

/* Both ranks have a prompt: nothing waits. */
static void goes_together(void **state)
{
    (void)state;
    const apmw_time ms = 1000000;
    const apmw_linear_cost cost = rig_cost(0.01, 0.0);
    engine_rig *rig = rig_open(&cost, config_of(false, 100, 10000 * ms));
    add(rig, 0, 31, 0);
    const apmw_request *a = add(rig, 15 * ms, 2, 1), *b = add(rig, 15 * ms, 2, 0);
    rig_run(rig);
    assert_int_equal(a->record.first_token, 30 * ms);
    assert_int_equal(b->record.first_token, 30 * ms);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(waits_for_the_other_rank), cmocka_unit_test(does_not_wait_within_a_prompt),
                                       cmocka_unit_test(goes_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
