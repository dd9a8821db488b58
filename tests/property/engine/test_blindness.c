/* SPDX-License-Identifier: GPL-3.0-or-later */
/* L12: policies see no true output length. Changing what one request will say changes nothing that happens
 * before the shorter version would have ended. */
#include "engine_rig.h"
#include "apmw/rng.h"
#include "test_support.h"

enum { N = 25, CHANGED = 5 };

static engine_rig *play(uint64_t seed, bool plain, int64_t longer)
{
    apmw_rng rng = apmw_rng_make(seed, "blind", 0, 0);
    apmw_engine_config config = rig_config();
    config.batching = (apmw_batching)(seed % 3);
    config.plain = plain;
    config.n_ranks = 1 + (int)apmw_rng_below(&rng, 3);
    config.max_num_seqs = 1 + (int64_t)apmw_rng_below(&rng, 8);
    config.max_num_batched_tokens = 200;
    config.chunked_prefill = apmw_rng_below(&rng, 2);
    config.prefix_caching = apmw_rng_below(&rng, 2);
    /* A small pool, so that preemption may fall on anyone. */
    config.kv_blocks = 40 + (int64_t)apmw_rng_below(&rng, 40);
    config.recv_interval = (int)apmw_rng_below(&rng, 20);
    config.batch_wait_tokens = 150;
    config.batch_wait_iters = (int)apmw_rng_below(&rng, 10);
    config.adp_wait_iters = (int)apmw_rng_below(&rng, 20);
    config.seed = seed;
    const apmw_linear_cost cost = rig_cost(0.01, 1e-5);
    engine_rig *rig = rig_open(&cost, config);
    const bool declared = apmw_rng_below(&rng, 2);
    for (int i = 0; i < N; i++) {
        const int64_t n_prompt = 1 + (int64_t)apmw_rng_below(&rng, 199);
        int64_t n_out = 1 + (int64_t)apmw_rng_below(&rng, 150);
        const apmw_time at = apmw_time_from_s(3.0 * apmw_rng_uniform(&rng));
        if (i == CHANGED)
            n_out += longer;
        apmw_request *request = rig_add(rig, at, n_prompt, n_out);
        if (declared)
            request->max_tokens = 300;
    }
    return rig;
}

static void before(apmw_time limit, apmw_time a, apmw_time b, uint64_t seed, const char *what)
{
    /* A stretch that is cut at another place may round its end to the next nanosecond. */
    if ((a < limit || b < limit) && (a > b ? a - b : b - a) > 1)
        fail_msg("seed %llu: %s at %lld or %lld, before %lld", (unsigned long long)seed, what, (long long)a,
                 (long long)b, (long long)limit);
}

static void output_lengths_change_no_earlier_decision(void **state)
{
    (void)state;
    int64_t compared = 0;
    for_each_seed(seed, 400)
    {
        for (int plain = 0; plain < 2; plain++) {
            engine_rig *shorter = play(seed, plain, 0), *longer = play(seed, plain, 77);
            rig_run(shorter);
            rig_run(longer);
            const apmw_request_record *changed = &shorter->requests[CHANGED]->record;
            const apmw_time limit = changed->done;
            /* Rejection for the true length stands for a limit of the server's own; not what this is about.
             */
            if (changed->state == APMW_REQUEST_DONE &&
                longer->requests[CHANGED]->record.state == APMW_REQUEST_DONE)
                for (int i = 0; i < N; i++) {
                    const apmw_request_record *a = &shorter->requests[i]->record,
                                              *b = &longer->requests[i]->record;
                    before(limit, a->admitted, b->admitted, seed, "admitted");
                    before(limit, a->first_token, b->first_token, seed, "first token");
                    if (i != CHANGED)
                        before(limit, a->done, b->done, seed, "done");
                    compared += a->admitted < limit;
                }
            rig_close(shorter);
            rig_close(longer);
        }
    }
    assert_true(compared > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(output_lengths_change_no_earlier_decision)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
