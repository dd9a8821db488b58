/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Mooncake requests: rows by hand, AIPerf sessions, and the published traces with their published reuse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_same.h"

#define SAMPLES APMW_SOURCE_DIR "/traces/samples/"

static apmw_trace load(const char *path)
{
    apmw_trace trace;
    apmw_error err = {0};
    if (apmw_trace_load(path, NULL, &trace, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    return trace;
}

static void near(const char *what, double value, double target, double tolerance)
{
    if (!(fabs(value - target) <= tolerance)) {
        fail_msg("%s is %.8g, not within %g of %.8g", what, value, tolerance, target);
    }
}

static void rows_by_hand(void **state)
{
    (void)state;
    apmw_trace trace = load(SAMPLES "formats/mooncake-hand.jsonl");
    const int64_t s = 1000000000;
    apmw_turn first[] = {
        {.n_in = 1500, .n_out = 20, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 1100,
         .n_out = 30,
         .parent = 0,
         .shared_in = 1024,
         .delay_ns = 3 * s,
         .trigger = APMW_TURN_USER},
        {.n_in = 2000,
         .n_out = 40,
         .parent = 1,
         .shared_in = 1024,
         .delay_ns = 6 * s,
         .trigger = APMW_TURN_USER},
        {.n_in = 2200,
         .n_out = 10,
         .parent = 2,
         .shared_in = 1536,
         .delay_ns = 6 * s,
         .trigger = APMW_TURN_USER},
    };
    apmw_turn second[] = {
        {.n_in = 700, .n_out = 5, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 700,
         .n_out = 6,
         .parent = 0,
         .shared_in = 700,
         .delay_ns = 3 * s,
         .trigger = APMW_TURN_USER},
    };
    apmw_lane lane = {-1, -1};
    apmw_trajectory a = {.id = "mooncake-1",
                         .source = "mooncake",
                         .global_id = -1,
                         .turns = first,
                         .n_turns = 4,
                         .lanes = &lane,
                         .n_lanes = 1};
    apmw_trajectory b = {.id = "mooncake-4",
                         .source = "mooncake",
                         .global_id = -1,
                         .turns = second,
                         .n_turns = 2,
                         .lanes = &lane,
                         .n_lanes = 1};
    assert_int_equal(trace.n, 2);
    assert_int_equal(trace.block_tokens, 512);
    assert_same_trajectory(&trace.items[0], &a);
    assert_same_trajectory(&trace.items[1], &b);
    apmw_trace_free(&trace);
}

/* Context = all that came before, outputs with identity; the common first block of two sessions is a group.
 */
static void sessions_by_hand(void **state)
{
    (void)state;
    apmw_trace trace = load(SAMPLES "formats/aiperf-session-hand.jsonl");
    apmw_turn first[] = {
        {.n_in = 1300, .n_out = 50, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 1750, .n_out = 60, .parent = 0, .shared_in = 1300, .shared_out = 50, .delay_ns = 1250500000},
        {.n_in = 1890, .n_out = 10, .parent = 1, .shared_in = 1750, .shared_out = 60, .delay_ns = 40000000},
    };
    apmw_turn second[] = {{.n_in = 900, .n_out = 70, .parent = -1, .trigger = APMW_TURN_USER}};
    apmw_lane lane = {-1, -1};
    apmw_trajectory a = {.id = "s1",
                         .source = "mooncake",
                         .global_id = 0,
                         .global_tokens = 512,
                         .turns = first,
                         .n_turns = 3,
                         .lanes = &lane,
                         .n_lanes = 1};
    apmw_trajectory b = {.id = "s2",
                         .source = "mooncake",
                         .global_id = 0,
                         .global_tokens = 512,
                         .turns = second,
                         .n_turns = 1,
                         .lanes = &lane,
                         .n_lanes = 1};
    assert_int_equal(trace.n, 2);
    assert_same_trajectory(&trace.items[0], &a);
    assert_same_trajectory(&trace.items[1], &b);
    apmw_trace_free(&trace);
}

/* Hits of an infinite cache counted in block ids straight from the published rows: conversation
 * .3664, synthetic .6396; mean lengths as published. */
static void the_published_traces(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int64_t rows;
        double blocks, isl, osl;
    } cases[] = {
        {SAMPLES "mooncake-conversation.jsonl.zst", 12031, .3664124783362218, 12035, 343},
        {SAMPLES "mooncake-synthetic.jsonl.zst", 3993, .6396038629109676, 15325, 149},
    };
    for (int k = 0; k < 2; k++) {
        apmw_trace trace = load(cases[k].path);
        apmw_trace_stats s;
        apmw_error err = {0};
        assert_int_equal(apmw_trace_stats_compute(&trace, 0, false, &s, &err), APMW_OK);
        assert_int_equal(s.n_turns, cases[k].rows);
        near("hit in blocks", s.hit_blocks_shared, cases[k].blocks, 1e-12);
        near("mean prompt", s.total_in / (double)s.n_turns, cases[k].isl, .51);
        near("mean output", s.total_out / (double)s.n_turns, cases[k].osl, .51);
        apmw_trace_free(&trace);
    }
}

static char path[] = "/tmp/apmw-mooncake-XXXXXX";

static apmw_status load_text(const char *text, apmw_trace *trace, apmw_error *err)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return apmw_trace_load(path, "mooncake", trace, err);
}

static void refuse(const char *text, const char *place, const char *reason)
{
    apmw_trace trace;
    apmw_error err = {0};
    assert_int_equal(load_text(text, &trace, &err), APMW_E_DATA);
    if (strstr(err.message, path) == NULL || strstr(err.message, place) == NULL ||
        strstr(err.message, reason) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.message, place, reason);
    }
}

static void names_what_is_wrong(void **state)
{
    (void)state;
    refuse("{\"timestamp\":0,\"text_input\":\"hi\",\"output_length\":5}", ":1", "input_length");
    refuse("{\"input_length\":5,\"output_length\":5}", ":1", "timestamp");
    refuse("{\"timestamp\":0,\"input_length\":5}", ":1", "output_length");
    refuse("{\"timestamp\":0,\"input_length\":0,\"output_length\":5}", "/input_length", "");
    refuse("{\"timestamp\":-1,\"input_length\":1,\"output_length\":5}", "/timestamp", "");
    refuse("{\"timestamp\":0,\"input_length\":9000,\"output_length\":5,\"hash_ids\":[1,2]}", ":1: /hash_ids",
           "9000");
    refuse("{\"timestamp\":0,\"input_length\":1,\"output_length\":5,\"wait_for\":[\"a\"]}", ":1", "wait_for");
    refuse("{\"session_id\":\"a\",\"input_length\":1,\"output_length\":5,\"message_mode\":\"history\"}", ":1",
           "history");
    refuse("{\"session_id\":\"a\",\"input_length\":1,\"output_length\":5}\n"
           "{\"session_id\":\"a\",\"input_length\":1,\"output_length\":5}",
           ":2", "delay");
    refuse("{\"session_id\":\"\",\"input_length\":1,\"output_length\":5}", ":1", "session_id");
    refuse("", "", "no trajectory");
}

/* A block size other than 512 is found from the number of ids. */
static void finds_the_block_size(void **state)
{
    (void)state;
    apmw_trace trace;
    apmw_error err = {0};
    assert_int_equal(
        load_text("{\"timestamp\":0,\"input_length\":256,\"output_length\":4,\"hash_ids\":[1,2,3,4]}\n"
                  "{\"timestamp\":9,\"input_length\":130,\"output_length\":4,\"hash_ids\":[1,2,9]}",
                  &trace, &err),
        APMW_OK);
    assert_int_equal(trace.block_tokens, 64);
    assert_int_equal(trace.n, 1);
    assert_int_equal(trace.items[0].turns[1].shared_in, 128);
    apmw_trace_free(&trace);
}

/* 40 rows that have only a system prompt in common are 40 trajectories of one group. */
static void independent_rows_share_a_group(void **state)
{
    (void)state;
    apmw_buf text = {0};
    for (int i = 0; i < 40; i++) {
        apmw_buf_printf(&text,
                        "{\"timestamp\":%d,\"input_length\":1024,\"output_length\":4,\"hash_ids\":[7,%d]}\n",
                        i, 100 + i);
    }
    apmw_trace trace;
    apmw_trace_stats s;
    apmw_error err = {0};
    assert_int_equal(load_text(text.data, &trace, &err), APMW_OK);
    assert_int_equal(trace.n, 40);
    for (size_t i = 0; i < trace.n; i++) {
        assert_int_equal(trace.items[i].global_id, 0);
        assert_int_equal(trace.items[i].global_tokens, 512);
    }
    assert_int_equal(apmw_trace_stats_compute(&trace, 0, false, &s, &err), APMW_OK);
    near("hit", s.hit_infinite_shared, 39 * 512 / (40 * 1024.0), 1e-12);
    apmw_trace_free(&trace);
    apmw_buf_free(&text);
}

static int make_file(void **state)
{
    (void)state;
    int handle = mkstemp(path);
    return handle < 0 || close(handle) != 0;
}

static int remove_file(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_by_hand),         cmocka_unit_test(sessions_by_hand),
        cmocka_unit_test(the_published_traces), cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(finds_the_block_size), cmocka_unit_test(independent_rows_share_a_group),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
