/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Schedules worked out by hand, in both modes: a step costs 10 ms + 10 us a token unless said otherwise, so a
 * step of T tokens lasts 10 + T / 100 ms. Times are in units of 10 us: a step of T tokens lasts 1000 + T. */
#include "engine_rig.h"

static const apmw_time unit = 10000;

static engine_rig *open_rig(apmw_engine_config config, bool plain)
{
    apmw_linear_cost cost = rig_cost(0.010, 1e-5);
    config.plain = plain;
    return rig_open(&cost, config);
}

#define assert_time(actual, units)                                                                           \
    do {                                                                                                     \
        const apmw_time off = (actual) - (units)*unit;                                                       \
        if (off < -1 || off > 1)                                                                             \
            fail_msg("%s is %lld ns, expected %lld", #actual, (long long)(actual), (long long)(units)*unit); \
    } while (0)

static void vllm_fills_chunks_beside_decodes(bool plain)
{
    apmw_engine_config config = rig_config();
    config.max_num_batched_tokens = 100;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 150, 3), *b = rig_add(rig, 0, 30, 2);
    const apmw_request *c = rig_add(rig, 2500 * unit, 10, 1);
    rig_run(rig);
    /* 100 of a | 50 of a + b | a, b decode; c arrives | a decodes beside c */
    assert_time(a->record.admitted, 0);
    assert_time(b->record.admitted, 1100);
    assert_time(a->record.first_token, 2180);
    assert_time(b->record.first_token, 2180);
    assert_time(b->record.done, 3182);
    assert_time(c->record.admitted, 3182);
    assert_time(a->record.done, 4193);
    assert_time(c->record.done, 4193);
    assert_int_equal(apmw_engine_steps(rig->engine), 4);
    assert_time(apmw_engine_busy(rig->engine), 4193);
    rig_close(rig);
}

static void vllm_cuts_a_prompt_that_decodes_leave_no_room_for(bool plain)
{
    apmw_engine_config config = rig_config();
    config.max_num_batched_tokens = 100;
    engine_rig *rig = open_rig(config, plain);
    /* An 'exact' prompt spills into a second step while one token of the budget goes to a decode. */
    const apmw_request *a = rig_add(rig, 0, 10, 100), *b = rig_add(rig, 1500 * unit, 100, 1);
    rig_run(rig);
    /* a: 0..1010, decode to 2011; b: 99 tokens + a to 3111; 1 token + a to 4113 */
    assert_time(a->record.first_token, 1010);
    assert_time(b->record.admitted, 2011);
    assert_time(b->record.first_token, 4113);
    assert_time(a->record.done, 4113 + 96 * 1001);
    rig_close(rig);
}

static void sglang_prefills_in_steps_of_their_own(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_SGLANG;
    config.max_num_batched_tokens = 100;
    config.max_prefill_tokens = 1000;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 150, 3), *b = rig_add(rig, 0, 30, 2);
    const apmw_request *c = rig_add(rig, 2500 * unit, 10, 1);
    rig_run(rig);
    /* 100 of a | 50 of a + b | a, b decode | c alone | a decodes */
    assert_time(a->record.first_token, 2180);
    assert_time(b->record.first_token, 2180);
    assert_time(b->record.done, 3182);
    assert_time(c->record.done, 4192);
    assert_time(a->record.done, 5193);
    rig_close(rig);
}

static void sglang_bounds_a_batch_by_its_prefill_tokens(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_SGLANG;
    config.max_num_batched_tokens = 1000;
    config.max_prefill_tokens = 100;
    engine_rig *rig = open_rig(config, plain);
    /* The first always goes, whatever its length; the second would exceed the limit beside the third. */
    const apmw_request *a = rig_add(rig, 0, 150, 1), *b = rig_add(rig, 0, 60, 1), *c = rig_add(rig, 0, 50, 1);
    rig_run(rig);
    assert_time(a->record.done, 1150);
    assert_time(b->record.done, 1150 + 1060);
    assert_time(c->record.done, 1150 + 1060 + 1050);
    rig_close(rig);
}

static void sglang_looks_after_the_receive_interval(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_SGLANG;
    config.recv_interval = 5;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 10, 21);
    const apmw_request *b = rig_add(rig, 1200 * unit, 10, 1);
    const apmw_request *c = rig_add(rig, 6500 * unit, 10, 1);
    rig_run(rig);
    /* a at once, since the engine idles; its prefill ends at 1010, and the count starts anew. Decodes of
     * 1001. */
    assert_time(a->record.first_token, 1010);
    assert_time(b->record.admitted, 1010 + 5 * 1001);
    /* c arrives while b is prefilled: the look after a prefill comes at once. */
    assert_time(b->record.done, 6015 + 1010);
    assert_time(c->record.admitted, 7025);
    assert_time(a->record.done, 7025 + 1010 + 15 * 1001);
    rig_close(rig);
}

static void trtllm_starts_prompts_whole(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_TRTLLM;
    config.max_num_batched_tokens = 100;
    config.chunked_prefill = false;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 60, 3), *b = rig_add(rig, 0, 60, 3);
    const apmw_request *never = rig_add(rig, 0, 101, 1);
    rig_run(rig);
    /* a | a decodes beside b | both decode | b decodes */
    assert_time(a->record.first_token, 1060);
    assert_time(b->record.first_token, 2121);
    assert_time(a->record.done, 3123);
    assert_time(b->record.done, 4124);
    assert_int_equal(never->record.state, APMW_REQUEST_REJECTED);
    rig_close(rig);
}

static void trtllm_waits_for_tokens_or_iterations(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_TRTLLM;
    config.max_num_batched_tokens = 100;
    config.chunked_prefill = false;
    config.batch_wait_tokens = 90;
    config.batch_wait_iters = 3;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 10, 30), *b = rig_add(rig, 500 * unit, 10, 2);
    rig_run(rig);
    /* Nothing decodes at 0, so a goes at once; b lets three iterations pass. */
    assert_time(a->record.first_token, 1010);
    assert_time(b->record.admitted, 1010 + 3 * 1001);
    assert_time(b->record.first_token, 4013 + 1011);
    rig_close(rig);

    rig = open_rig(config, plain);
    a = rig_add(rig, 0, 10, 30);
    b = rig_add(rig, 500 * unit, 10, 2);
    const apmw_request *c = rig_add(rig, 1500 * unit, 79, 2);
    rig_run(rig);
    /* 10 + 79 prompt tokens and one decode reach 90 when c is there. */
    assert_time(b->record.admitted, 2011);
    assert_time(c->record.admitted, 2011);
    assert_time(c->record.first_token, 2011 + 1090);
    assert_time(a->record.first_token, 1010);
    rig_close(rig);
}

static void trtllm_waits_until_every_rank_gets_a_prompt(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_TRTLLM;
    config.n_ranks = 2;
    config.adp_wait_iters = 4;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 10, 40), *b = rig_add(rig, 0, 10, 40);
    const apmw_request *c = rig_add(rig, 500 * unit, 20, 2);
    rig_run(rig);
    /* Both ranks get one at 0. Then the count of waiting iterations is 1, 2, 3 and 4 = release. A step costs
     * the rank with most tokens: 10 for the prompts, 1 for decodes, 21 for c beside a decode. */
    assert_int_equal(a->record.rank, 0);
    assert_int_equal(b->record.rank, 1);
    assert_time(a->record.first_token, 1010);
    assert_time(c->record.admitted, 1010 + 3 * 1001);
    assert_time(c->record.first_token, 4013 + 1021);
    rig_close(rig);

    rig = open_rig(config, plain);
    rig_add(rig, 0, 10, 40);
    rig_add(rig, 0, 10, 40);
    c = rig_add(rig, 500 * unit, 20, 2);
    const apmw_request *d = rig_add(rig, 1500 * unit, 5, 2);
    rig_run(rig);
    /* d makes it one prompt a rank: both go at the next iteration. */
    assert_time(c->record.admitted, 2011);
    assert_time(d->record.admitted, 2011);
    assert_int_equal(d->record.rank, 1);
    rig_close(rig);
}

static void trtllm_reserves_the_declared_output(bool plain)
{
    apmw_engine_config config = rig_config();
    config.batching = APMW_BATCHING_TRTLLM;
    config.block_tokens = 10;
    config.kv_blocks = 10;
    engine_rig *rig = open_rig(config, plain);
    apmw_request *a = rig_add(rig, 0, 20, 3), *b = rig_add(rig, 0, 20, 3);
    a->max_tokens = b->max_tokens = 40;
    rig_run(rig);
    /* 6 blocks each of 10: b waits for a although a ends long before its cap. */
    assert_time(a->record.done, 1020 + 2 * 1001);
    assert_time(b->record.admitted, 3022);
    rig_close(rig);

    config.reserve_output_tokens = 20;
    rig = open_rig(config, plain);
    a = rig_add(rig, 0, 20, 3);
    b = rig_add(rig, 0, 20, 3);
    apmw_request *c = rig_add(rig, 0, 20, 85);
    c->max_tokens = 85;
    rig_run(rig);
    /* 4 blocks each by the server's default; c could never have its 11. */
    assert_time(b->record.admitted, 0);
    assert_int_equal(c->record.state, APMW_REQUEST_REJECTED);
    rig_close(rig);
}

/* Two sequences outgrow a pool of 6 blocks of 10 tokens. A step costs 10 ms whatever it does. */
static void preemption_gives_way_and_recomputes(bool plain)
{
    apmw_engine_config config = rig_config();
    config.block_tokens = 10;
    config.kv_blocks = 6;
    config.plain = plain;
    const apmw_linear_cost cost = rig_cost(0.010, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    const apmw_request *a = rig_add(rig, 0, 20, 30), *b = rig_add(rig, 0, 20, 30);
    const apmw_request *c = rig_add(rig, 1000 * unit, 20, 1);
    rig_run(rig);
    /* Prefill to 10 ms. Decode steps 1-10 fill both thirds of 3 blocks (contexts of 30) by 110 ms. Then two
     * blocks are wanted and none is left: b gives way with 11 tokens produced and 30 in KV, and a goes on to
     * its 29th step at 300 ms. b needs ceil(31 / 10) = 4 blocks and a holds at least 4 of 6 until then. It
     * computes 31 tokens, 30 of them again, and its 12th token comes at 310 ms; 18 steps more. c waits behind
     * b. */
    assert_time(a->record.done, 30000);
    assert_int_equal(a->record.n_preemptions, 0);
    assert_int_equal(b->record.n_preemptions, 1);
    assert_int_equal(b->record.n_recomputed, 30);
    assert_time(b->record.first_token, 1000);
    assert_time(b->record.admitted, 0);
    assert_time(b->record.done, 49000);
    assert_time(c->record.admitted, 30000);
    assert_int_equal(b->record.n_cached + b->record.n_recomputed, 30);
    rig_close(rig);
}

/* The same pressure with a cache: what gave way finds its prompt again, to the last whole block, but not its
 * output, which is no content of the stream; the output's whole blocks stay in the pool until others need
 * them. */
static void preemption_finds_its_prompt_again(bool plain)
{
    apmw_engine_config config = rig_config();
    config.block_tokens = 10;
    config.kv_blocks = 7;
    config.prefix_caching = true;
    config.plain = plain;
    const apmw_linear_cost cost = rig_cost(0.010, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    const apmw_request *a = rig_add(rig, 0, 20, 20), *b = rig_add(rig, 0, 20, 30);
    /* b gives way at 110 ms with 30 tokens in KV; a ends after 19 decode steps at 200 ms with 39. */
    assert_int_equal(apmw_des_run(rig->des, 20500 * unit), APMW_OK);
    assert_time(a->record.done, 20000);
    assert_int_equal(b->record.n_preemptions, 1);
    assert_int_equal(b->record.n_recomputed, 10);
    apmw_kv_stats stats;
    apmw_engine_kv_stats(rig->engine, 0, &stats);
    /* b pins the 2 blocks of its prompt and takes 2. Cached were these, 2 of a's prompt and one of each
     * output; one block was free, so one of those four is evicted. */
    assert_int_equal(stats.held_blocks, 4);
    assert_int_equal(stats.cached_blocks, 3);
    assert_int_equal(stats.free_blocks, 0);
    assert_int_equal(stats.hit_tokens, 0);
    rig_run(rig);
    assert_time(b->record.done, 21000 + 18 * 1000);
    assert_int_equal(b->record.n_cached, 0);
    rig_close(rig);
}

/* What arrives at the very instant of a step boundary takes part in the next step. */
static void an_arrival_at_a_boundary_is_in_time(bool plain)
{
    apmw_engine_config config = rig_config();
    config.plain = plain;
    const apmw_linear_cost cost = rig_cost(0.010, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    rig_add(rig, 0, 20, 20);
    const apmw_request *b = rig_add(rig, 5000 * unit, 20, 1), *c = rig_add(rig, 5000 * unit + 1, 20, 1);
    const apmw_request *d = rig_add(rig, 7000 * unit - 1, 20, 1);
    rig_run(rig);
    assert_time(b->record.admitted, 5000);
    assert_time(c->record.admitted, 6000);
    assert_time(d->record.admitted, 7000);
    rig_close(rig);
}

/* Step times are no whole nanoseconds; their sum is not rounded step by step. */
static void fractions_of_a_nanosecond_add_up(bool plain)
{
    apmw_engine_config config = rig_config();
    config.plain = plain;
    const apmw_linear_cost cost = rig_cost(0.0100000004, 0.0);
    engine_rig *rig = rig_open(&cost, config);
    const apmw_request *a = rig_add(rig, 0, 20, 100000), *b = rig_add(rig, 500 * unit, 20, 50000);
    rig_run(rig);
    const apmw_time expected = 100000 * (apmw_time)10000000 + 40000;
    assert_in_range(a->record.done, expected - 1, expected + 1);
    assert_in_range(b->record.done, 50001 * (apmw_time)10000000 + 20000 - 1,
                    50001 * (apmw_time)10000000 + 20000 + 1);
    rig_close(rig);

    /* Nor from one stretch to the next. */
    config.max_num_seqs = 1;
    rig = rig_open(&cost, config);
    for (int i = 0; i < 20000; i++)
        a = rig_add(rig, 0, 20, 1);
    rig_run(rig);
    assert_in_range(a->record.done, 20000 * (apmw_time)10000000 + 8000 - 1,
                    20000 * (apmw_time)10000000 + 8000 + 1);
    rig_close(rig);
}

/* A second turn finds the first turn's prompt and output, but not the last partial block. */
static void a_turn_computes_only_what_is_new(bool plain)
{
    apmw_engine_config config = rig_config();
    config.block_tokens = 10;
    config.prefix_caching = true;
    engine_rig *rig = open_rig(config, plain);
    apmw_request *a = rig_request(rig, 52, 9), *b = rig_request(rig, 75, 2), *c = rig_request(rig, 75, 2);
    a->output_kept = b->output_kept = true;
    b->stream = a->stream;
    c->stream = apmw_streams_new(rig->streams, a->stream, 30);
    rig_submit_at(rig, 0, a);
    rig_submit_at(rig, 20000 * unit, b);
    rig_submit_at(rig, 40000 * unit, c);
    rig_run(rig);
    /* a leaves 52 + 8 = 60 tokens in KV: the last of its 9 tokens was never an input. */
    assert_int_equal(b->record.n_cached, 60);
    assert_time(b->record.first_token, 20000 + 1015);
    /* c shares 30 tokens. */
    assert_int_equal(c->record.n_cached, 30);
    assert_time(c->record.first_token, 40000 + 1045);
    rig_close(rig);
}

/* Requests pass the tokenizer one after another, then wait the fixed overhead. */
static void the_front_end_is_serial(bool plain)
{
    apmw_engine_config config = rig_config();
    config.frontend_ns_per_token = 1e6; /* 1 ms a token = 100 units */
    config.request_overhead_ns = 50 * unit;
    engine_rig *rig = open_rig(config, plain);
    const apmw_request *a = rig_add(rig, 0, 10, 1), *b = rig_add(rig, 0, 20, 1),
                       *c = rig_add(rig, 9000 * unit, 1, 1);
    rig_run(rig);
    assert_time(a->record.admitted, 1050);
    assert_time(a->record.done, 1050 + 1010);
    assert_time(b->record.admitted, 3050); /* 1000 + 2000 + 50 */
    assert_time(c->record.admitted, 9150);
    assert_time(c->record.submitted, 9000);
    rig_close(rig);
}

#define BOTH(name)                                                                                           \
    static void name##_fast(void **state)                                                                    \
    {                                                                                                        \
        (void)state;                                                                                         \
        name(false);                                                                                         \
    }                                                                                                        \
    static void name##_plain(void **state)                                                                   \
    {                                                                                                        \
        (void)state;                                                                                         \
        name(true);                                                                                          \
    }
#define TESTS(name) cmocka_unit_test(name##_fast), cmocka_unit_test(name##_plain)
BOTH(vllm_fills_chunks_beside_decodes)
BOTH(vllm_cuts_a_prompt_that_decodes_leave_no_room_for)
BOTH(sglang_prefills_in_steps_of_their_own)
BOTH(sglang_bounds_a_batch_by_its_prefill_tokens)
BOTH(sglang_looks_after_the_receive_interval)
BOTH(trtllm_starts_prompts_whole)
BOTH(trtllm_waits_for_tokens_or_iterations)
BOTH(trtllm_waits_until_every_rank_gets_a_prompt)
BOTH(trtllm_reserves_the_declared_output)
BOTH(preemption_gives_way_and_recomputes)
BOTH(preemption_finds_its_prompt_again)
BOTH(an_arrival_at_a_boundary_is_in_time)
BOTH(fractions_of_a_nanosecond_add_up)
BOTH(a_turn_computes_only_what_is_new)
BOTH(the_front_end_is_serial)

int main(void)
{
    const struct CMUnitTest tests[] = {TESTS(vllm_fills_chunks_beside_decodes),
                                       TESTS(vllm_cuts_a_prompt_that_decodes_leave_no_room_for),
                                       TESTS(sglang_prefills_in_steps_of_their_own),
                                       TESTS(sglang_bounds_a_batch_by_its_prefill_tokens),
                                       TESTS(sglang_looks_after_the_receive_interval),
                                       TESTS(trtllm_starts_prompts_whole),
                                       TESTS(trtllm_waits_for_tokens_or_iterations),
                                       TESTS(trtllm_waits_until_every_rank_gets_a_prompt),
                                       TESTS(trtllm_reserves_the_declared_output),
                                       TESTS(preemption_gives_way_and_recomputes),
                                       TESTS(preemption_finds_its_prompt_again),
                                       TESTS(an_arrival_at_a_boundary_is_in_time),
                                       TESTS(fractions_of_a_nanosecond_add_up),
                                       TESTS(a_turn_computes_only_what_is_new),
                                       TESTS(the_front_end_is_serial)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
