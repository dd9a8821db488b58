/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Outputs that are taken to recur: which turns change, to what, and that the rest stays. */
#include "apmw/trace.h"
#include "test_support.h"

static apmw_turn turn(int64_t n_in, int64_t n_out, int32_t parent, int64_t shared_in, int32_t lane)
{
    return (apmw_turn){.n_in = n_in, .n_out = n_out, .parent = parent, .shared_in = shared_in, .lane = lane};
}

static void by_hand(void **state)
{
    (void)state;
    /* Blocks of 64. Turn 1 appends to 1,000 = 15 blocks and 40 tokens: yes. 2 adds less than 1 wrote: no. 3 repeats all but
     * one block: no. 4 belongs to a sub-agent, whose parent is in another lane: no. 5 appends to it: yes. 6 goes on from an
     * older turn than the last of its lane: no. 7 adds exactly what 6 wrote: yes. */
    apmw_turn turns[] = {turn(1000, 50, -1, 0, 0),   turn(1200, 90, 0, 960, 0),  turn(1280, 10, 1, 1152, 0),
                         turn(1400, 10, 2, 1216, 0), turn(1500, 10, 3, 1344, 1), turn(1700, 10, 4, 1472, 1),
                         turn(1600, 77, 2, 1280, 0), turn(1677, 10, 6, 1600, 0)};
    apmw_lane lanes[] = {{-1, -1}, {3, -1}};
    const apmw_trajectory t = {.id = "x", .source = "test", .global_id = -1, .turns = turns, .n_turns = 8, .lanes = lanes,
                               .n_lanes = 2};
    apmw_trace trace = {.block_tokens = 64};
    apmw_error err = {0};
    int64_t changed = 0;
    assert_ok(apmw_trace_add(&trace, &t, &err), &err);
    assert_ok(apmw_trace_assume_outputs(&trace, &changed, &err), &err);
    static const int64_t EXPECTED[][2] = {{0, 0},     {1000, 50}, {1152, 0}, {1216, 0},
                                          {1344, 0},  {1500, 10}, {1280, 0}, {1600, 77}};
    assert_int_equal(changed, 3);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(trace.items[0].turns[i].shared_in, EXPECTED[i][0]);
        assert_int_equal(trace.items[0].turns[i].shared_out, EXPECTED[i][1]);
    }
    assert_ok(apmw_trajectory_check(&trace.items[0], &err), &err);
    /* Once more changes nothing. */
    assert_ok(apmw_trace_assume_outputs(&trace, &changed, &err), &err);
    assert_int_equal(changed, 0);
    apmw_trace_free(&trace);
}

static void shipped_corpus(void **state)
{
    (void)state;
    apmw_trace trace = {0};
    apmw_error err = {0};
    apmw_trace_stats before, resent, kept;
    int64_t changed = 0;
    assert_ok(apmw_trace_load(APMW_SOURCE_DIR "/traces/samples/weka-cc-042026.jsonl.zst", NULL, &trace, &err), &err);
    assert_ok(apmw_trace_stats_compute(&trace, 0, false, &before, &err), &err);
    assert_ok(apmw_trace_assume_outputs(&trace, &changed, &err), &err);
    for (size_t i = 0; i < trace.n; i++) {
        assert_ok(apmw_trajectory_check(&trace.items[i], &err), &err);
    }
    assert_ok(apmw_trace_stats_compute(&trace, 0, false, &resent, &err), &err);
    assert_ok(apmw_trace_stats_compute(&trace, 0, true, &kept, &err), &err);
    /* 97 % of turns append, and of tool turns 89 % add more than the output before them (traces/FORMAT.md, section 4). */
    assert_true((double)changed > 0.80 * (double)before.n_turns && (double)changed < 0.95 * (double)before.n_turns);
    /* Sent again, blocks tell the same; kept, what is found grows by the outputs, and by a block a turn at most. */
    assert_near(resent.hit_infinite, before.hit_infinite, 1e-9);
    const double most = (before.total_out + 64.0 * (double)changed) / before.total_in;
    assert_true(kept.hit_infinite > resent.hit_infinite && kept.hit_infinite < resent.hit_infinite + most);
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(shipped_corpus)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
