/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The laws: a clean history passes, and each way of breaking it is named by its number. */
#include <string.h>

#include "apmw/metrics.h"
#include "test_support.h"

typedef struct history {
    apmw_laws *laws;
    const apmw_probe *probe;
} history;

static history begin(void)
{
    history h;
    h.laws = apmw_laws_create(&(apmw_laws_config){.one_request_per_agent = true, .tokens_balance = true});
    h.probe = apmw_laws_probe(h.laws);
    return h;
}

static apmw_request_record request(uint64_t id, int32_t agent, int32_t turn, apmw_time at)
{
    return (apmw_request_record){.id = id, .agent = agent, .turn = turn, .n_prompt = 100, .n_out = 5, .submitted = at,
                                 .admitted = APMW_TIME_NEVER, .first_scheduled = APMW_TIME_NEVER,
                                 .first_token = APMW_TIME_NEVER, .last_token = APMW_TIME_NEVER, .done = APMW_TIME_NEVER};
}

static apmw_request_record ended(apmw_request_record r, apmw_time at)
{
    r.state = APMW_REQUEST_DONE;
    r.admitted = r.submitted + 1;
    r.first_scheduled = r.submitted + 2;
    r.first_token = r.submitted + 10;
    r.last_token = r.done = at;
    r.n_cached = 64;
    return r;
}

static apmw_step_record step(apmw_time begin, apmw_time end)
{
    return (apmw_step_record){.begin = begin, .end = end, .n_steps = 1, .n_seqs = 1, .kv_capacity_blocks = 10};
}

static void submit(history *h, const apmw_request_record *r)
{
    h->probe->on_submit(h->probe->self, r->submitted, r);
}

static void finish(history *h, const apmw_request_record *r)
{
    h->probe->on_request(h->probe->self, r->done, r);
}

/* Ends the history, which must break that law (NULL: none). */
static void breaks(history *h, apmw_time end, const char *law)
{
    apmw_error err = {0};
    h->probe->on_end(h->probe->self, end);
    if (law == NULL) {
        assert_ok(apmw_laws_status(h->laws, &err), &err);
    } else {
        assert_error(apmw_laws_status(h->laws, &err), APMW_E_INTERNAL, &err, law);
    }
    apmw_laws_free(h->laws);
}

static void clean(void **state)
{
    (void)state;
    history h = begin();
    for (int32_t turn = 0; turn < 3; turn++) {
        for (int32_t agent = 0; agent < 200; agent++) { /* enough to make the tables grow */
            apmw_request_record r = request((uint64_t)(turn * 200 + agent), agent, turn, turn * 1000 + agent);
            submit(&h, &r);
        }
        for (int32_t agent = 199; agent >= 0; agent--) {
            apmw_request_record r = request((uint64_t)(turn * 200 + agent), agent, turn, turn * 1000 + agent);
            r = ended(r, turn * 1000 + 500 + (199 - agent));
            finish(&h, &r);
        }
        apmw_step_record s = step(turn * 1000, turn * 1000 + 900);
        s.prefill_tokens = 36 * 200;
        h.probe->on_step(h.probe->self, &s);
    }
    assert_int_equal(apmw_laws_submitted(h.laws), 600);
    assert_int_equal(apmw_laws_terminal(h.laws), 600);
    breaks(&h, 4000, NULL);
}

static void order(void **state)
{
    (void)state;
    history h = begin();
    apmw_request_record r = request(1, 0, 0, 100);
    submit(&h, &r);
    r = ended(r, 90); /* ends before it began */
    h.probe->on_request(h.probe->self, 90, &r);
    breaks(&h, 100, "law L1");

    h = begin();
    r = request(1, 0, 0, 100);
    submit(&h, &r);
    r = ended(r, 200);
    r.admitted = r.first_token + 1;
    finish(&h, &r);
    breaks(&h, 300, "law L2");

    h = begin();
    r = request(1, 0, 1, 100);
    submit(&h, &r);
    apmw_request_record e = ended(r, 200);
    finish(&h, &e);
    r = request(2, 0, 1, 210); /* the same turn again */
    submit(&h, &r);
    breaks(&h, 300, "law L3");
}

static void conservation(void **state)
{
    (void)state;
    history h = begin();
    apmw_request_record r = request(1, 0, 0, 100);
    submit(&h, &r);
    apmw_request_record e = ended(r, 200);
    finish(&h, &e);
    finish(&h, &e); /* twice */
    breaks(&h, 300, "law L4");

    h = begin();
    submit(&h, &r);
    e = ended(r, 200);
    e.n_out = 4;
    finish(&h, &e);
    breaks(&h, 300, "law L5");

    h = begin();
    submit(&h, &r);
    e = ended(r, 200);
    finish(&h, &e); /* 36 tokens computed, no step did */
    breaks(&h, 300, "law L5");

    h = begin();
    submit(&h, &r);
    e = ended(r, 200);
    e.n_cached = 100; /* at least one token must be computed */
    finish(&h, &e);
    breaks(&h, 300, "law L13");

    h = begin();
    submit(&h, &r);
    e = ended(r, 200);
    e.state = APMW_REQUEST_DECODE;
    finish(&h, &e);
    breaks(&h, 300, "law L4");
}

static void population(void **state)
{
    (void)state;
    history h = begin();
    apmw_request_record r = request(1, 0, 0, 100);
    submit(&h, &r);
    r = request(2, 0, 1, 110);
    submit(&h, &r);
    breaks(&h, 300, "law L20");

    h = begin();
    r = request(1, 0, 0, 100);
    submit(&h, &r);
    apmw_request_record e = ended(r, 200);
    finish(&h, &e);
    r = request(2, 0, 0, 210);
    r.play = 1; /* though its first trajectory has not ended */
    submit(&h, &r);
    breaks(&h, 300, "law L20");
}

static void engines(void **state)
{
    (void)state;
    history h = begin();
    apmw_step_record s = step(0, 100);
    h.probe->on_step(h.probe->self, &s);
    s = step(99, 200);
    h.probe->on_step(h.probe->self, &s);
    breaks(&h, 300, "law L18");

    h = begin();
    s = step(0, 100);
    s.n_steps = 101; /* less than a nanosecond a step */
    h.probe->on_step(h.probe->self, &s);
    breaks(&h, 300, "law L1");

    h = begin();
    s = step(0, 100);
    s.kv_used_blocks = 11;
    h.probe->on_step(h.probe->self, &s);
    breaks(&h, 300, "law L6");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(clean), cmocka_unit_test(order), cmocka_unit_test(conservation),
                                       cmocka_unit_test(population), cmocka_unit_test(engines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
