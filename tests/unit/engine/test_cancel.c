/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A client that gives up: only what waits ends, whoever waits behind it moves up. One place in the batch, steps of 10 ms. */
#include "engine_rig.h"

typedef struct giving_up {
    engine_rig *rig;
    const bool *expected;
} giving_up;

static void give_up(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    const giving_up *g = subject;
    assert_true(apmw_engine_cancel(g->rig->engine, g->rig->requests[argument]) == g->expected[argument]);
}

static engine_rig *open_rig(bool plain, int64_t max_seqs, int64_t kv_blocks)
{
    const apmw_linear_cost cost = rig_cost(0.01, 0.0);
    apmw_engine_config config = rig_config();
    config.plain = plain;
    config.max_num_seqs = max_seqs > 0 ? max_seqs : config.max_num_seqs;
    config.kv_blocks = kv_blocks > 0 ? kv_blocks : config.kv_blocks;
    return rig_open(&cost, config);
}

static void only_what_waits(void **state)
{
    (void)state;
    const apmw_time ms = 1000000;
    static const bool expected[] = {false, true, false};
    for (int plain = 0; plain < 2; plain++) {
        engine_rig *rig = open_rig(plain == 1, 1, 0);
        rig_add(rig, 0, 10, 20);           /* runs until 200 ms */
        rig_add(rig, 5 * ms, 10, 20);      /* would run from 200 to 400 ms */
        rig_add(rig, 6 * ms, 10, 20);      /* moves up */
        giving_up g = {.rig = rig, .expected = expected};
        for (uint64_t i = 0; i < 3; i++) {
            apmw_des_schedule(rig->des, (i == 2 ? 399 : 55) * ms, APMW_EVENT_CLIENT, give_up, &g, i);
        }
        rig_run(rig);
        const apmw_request_record *r[] = {&rig->requests[0]->record, &rig->requests[1]->record, &rig->requests[2]->record};
        assert_int_equal(r[0]->state, APMW_REQUEST_DONE);
        assert_int_equal(r[0]->done, 200 * ms);
        assert_int_equal(r[1]->state, APMW_REQUEST_CANCELLED);
        assert_int_equal(r[1]->done, 55 * ms);
        assert_int_equal(r[2]->state, APMW_REQUEST_DONE);
        assert_int_equal(r[2]->done, 400 * ms);
        assert_int_equal(apmw_engine_load(rig->engine, -1), 0);
        rig_close(rig);
    }
}

/* A prompt that needs the whole pool waits at the head of the queue; when its client gives up the next one fits at once, at
 * the next step boundary. */
static void room_for_the_next(void **state)
{
    (void)state;
    const apmw_time ms = 1000000;
    static const bool expected[] = {false, true, false};
    for (int plain = 0; plain < 2; plain++) {
        engine_rig *rig = open_rig(plain == 1, 0, 20);
        rig_add(rig, 0, 32, 100);
        rig_add(rig, 5 * ms, 300, 2);
        rig_add(rig, 6 * ms, 32, 2);
        giving_up g = {.rig = rig, .expected = expected};
        apmw_des_schedule(rig->des, 55 * ms, APMW_EVENT_CLIENT, give_up, &g, 1);
        rig_run(rig);
        assert_int_equal(rig->requests[2]->record.admitted, 60 * ms);
        rig_close(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_what_waits), cmocka_unit_test(room_for_the_next)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
