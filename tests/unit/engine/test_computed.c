/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When a connector hears what is computed: with the prompt, and at the end only if more has become findable. Steps of 10 ms. */
#include "engine_rig.h"

typedef struct heard {
    apmw_des *des;
    apmw_time at[8];
    int64_t tokens[8];
    int n;
} heard;

static int64_t nothing(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t matched)
{
    (void)self;
    (void)engine;
    (void)request;
    (void)rank;
    return matched;
}

static void computed(void *self, apmw_engine *engine, const apmw_request *request, int rank, int64_t n_tokens)
{
    heard *h = self;
    (void)engine;
    (void)request;
    (void)rank;
    assert_true(h->n < 8);
    h->at[h->n] = apmw_des_now(h->des);
    h->tokens[h->n++] = n_tokens;
}

static void hear(bool plain, bool output_kept, int64_t n_out, heard *h)
{
    const apmw_linear_cost cost = rig_cost(0.01, 0.0);
    const apmw_connector connector = {.self = h, .available = nothing, .computed = computed};
    apmw_engine_config config = rig_config();
    config.plain = plain;
    config.prefix_caching = true;
    config.max_num_batched_tokens = 60; /* two chunks of the prompt */
    config.connector = &connector;
    engine_rig *rig = rig_open(&cost, config);
    *h = (heard){.des = rig->des};
    rig_add(rig, 0, 100, n_out)->output_kept = output_kept;
    rig_run(rig);
    rig_close(rig);
}

static void with_the_prompt(void **state)
{
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        heard h;
        hear(plain == 1, false, 51, &h);
        assert_int_equal(h.n, 1);
        assert_int_equal(h.at[0], 20000000);
        assert_int_equal(h.tokens[0], 96);
        /* 100 + 50 tokens are in KV at the end: 9 whole blocks. */
        hear(plain == 1, true, 51, &h);
        assert_int_equal(h.n, 2);
        assert_int_equal(h.at[0], 20000000);
        assert_int_equal(h.tokens[0], 96);
        assert_int_equal(h.at[1], 520000000);
        assert_int_equal(h.tokens[1], 144);
        /* One token: the end is the end of the prompt. */
        hear(plain == 1, true, 1, &h);
        assert_int_equal(h.n, 1);
        assert_int_equal(h.at[0], 20000000);
        assert_int_equal(h.tokens[0], 96);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(with_the_prompt)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
