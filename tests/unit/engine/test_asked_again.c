/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A connector is asked again when a request that waited could start, and after a preemption; it hears when KV is let
 * go. Steps of 10 ms, loads of 5 ms. */
#include "engine_rig.h"

enum { MS = 1000000 };

typedef struct teller {
    apmw_des *des;
    int asked[2];          /* of the request with this id */
    int64_t offers;        /* from the second question on, or after a preemption */
    bool after_preemption;
    int n_released;
    int64_t released[4], all[4];
    apmw_time at[4];
} teller;

static int64_t available(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t matched)
{
    teller *t = self;
    (void)engine;
    (void)rank;
    const bool first = t->asked[request->record.id]++ == 0;
    const bool has = t->after_preemption ? request->record.n_preemptions > 0 : !first && request->record.id == 1;
    return has && t->offers > matched ? t->offers : matched;
}

static void there(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    apmw_request *request = subject;
    apmw_engine_fetched(request->self, request);
}

static void fetch(void *self, apmw_engine *engine, apmw_request *request, int rank, int64_t from, int64_t to)
{
    teller *t = self;
    (void)rank;
    (void)from;
    (void)to;
    request->self = engine;
    apmw_des_schedule(t->des, apmw_des_now(t->des) + 5 * MS, APMW_EVENT_CONTROL, there, request, 0);
}

static void released(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t n_tokens,
                     int64_t n_all)
{
    teller *t = self;
    (void)engine;
    (void)request;
    (void)rank;
    assert_true(t->n_released < 4);
    t->at[t->n_released] = apmw_des_now(t->des);
    t->released[t->n_released] = n_tokens;
    t->all[t->n_released++] = n_all;
}

static engine_rig *open_rig(const apmw_linear_cost *cost, apmw_engine_config config, const apmw_connector *connector,
                           teller *t)
{
    config.connector = connector;
    engine_rig *rig = rig_open(cost, config);
    t->des = rig->des;
    return rig;
}

/* The second of two prompts waits until the first has ended, at 100 ms; what it was not offered when it came it is
 * then. */
static void what_has_come_meanwhile(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        teller t = {.offers = 100};
        const apmw_connector connector = {.self = &t, .available = available, .fetch = fetch, .released = released};
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        apmw_engine_config config = rig_config();
        config.plain = plain == 1;
        config.prefix_caching = true;
        config.kv_blocks = 20;
        engine_rig *rig = open_rig(&cost, config, &connector, &t);
        const apmw_request *a = rig_add(rig, 0, 160, 10), *b = rig_add(rig, 5 * MS, 208, 1);
        rig_run(rig);
        assert_true(a->record.done == 100 * MS);
        assert_int_equal(b->record.n_fetched, 100);
        assert_int_equal(b->record.n_cached, 0);
        assert_true(b->record.admitted == 100 * MS);
        assert_true(b->record.done == 115 * MS);
        assert_true(t.asked[1] >= 2);
        /* 160 + 9 tokens, 10 blocks findable; 208 tokens, all of them. */
        assert_int_equal(t.n_released, 2);
        assert_int_equal(t.released[0], 160);
        assert_int_equal(t.all[0], 169);
        assert_true(t.at[0] == 100 * MS);
        assert_int_equal(t.released[1], 208);
        assert_int_equal(t.all[1], 208);
        rig_close(rig);
    }
}

/* Two sequences outgrow 6 blocks of 10 tokens at 110 ms; the second gives way with 30 tokens in KV, waits until the
 * first has ended at 300 ms, and then has 19 of the 20 of its prompt loaded: it computes 12, of which 11 a second
 * time. */
static void a_preempted_one_loads_what_it_can(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        teller t = {.offers = 20, .after_preemption = true};
        const apmw_connector connector = {.self = &t, .available = available, .fetch = fetch, .released = released};
        const apmw_linear_cost cost = rig_cost(0.01, 0.0);
        apmw_engine_config config = rig_config();
        config.plain = plain == 1;
        config.block_tokens = 10;
        config.kv_blocks = 6;
        engine_rig *rig = open_rig(&cost, config, &connector, &t);
        const apmw_request *a = rig_add(rig, 0, 20, 30), *b = rig_add(rig, 0, 20, 30);
        rig_run(rig);
        assert_true(a->record.done == 300 * MS);
        assert_int_equal(b->record.n_preemptions, 1);
        assert_int_equal(b->record.n_fetched, 0); /* it had computed them */
        assert_int_equal(b->record.n_recomputed, 11);
        assert_true(b->record.done == 495 * MS);
        assert_int_equal(t.n_released, 3);
        assert_true(t.at[0] == 110 * MS);
        assert_int_equal(t.all[0], 30);
        rig_close(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_has_come_meanwhile),
                                       cmocka_unit_test(a_preempted_one_loads_what_it_can)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
