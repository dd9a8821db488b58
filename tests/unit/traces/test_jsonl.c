/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The native text format: what is written is read back, plain and compressed; what is wrong is named. */
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

static char dir[] = "/tmp/apmw-jsonl-XXXXXX";

static char *file(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* A parent whose child lane (two turns) is joined, a background lane, shared output, all triggers. */
static apmw_trace sample(void)
{
    static apmw_turn turns[] = {
        {.n_in = 1000, .n_out = 50, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 500, .n_out = 7, .parent = 0, .lane = 1, .delay_ns = 1},
        {.n_in = 700,
         .n_out = 9,
         .parent = 1,
         .lane = 1,
         .shared_in = 500,
         .shared_out = 7,
         .delay_ns = 2000000000},
        {.n_in = 800, .n_out = 9, .parent = 0, .lane = 2, .shared_in = 640, .delay_ns = 5},
        {.n_in = 1200,
         .n_out = 1,
         .parent = 0,
         .shared_in = 1000,
         .shared_out = 50,
         .delay_ns = 77,
         .trigger = APMW_TURN_JOIN},
        {.n_in = 300,
         .n_out = 16384,
         .parent = 4,
         .shared_in = 256,
         .delay_ns = 900000000000,
         .trigger = APMW_TURN_TOOL},
    };
    static apmw_lane lanes[] = {{-1, -1}, {0, 4}, {0, -1}};
    apmw_trajectory t = {.id = "odd \"id\"\\\t",
                         .source = "test",
                         .global_id = 3,
                         .global_tokens = 128,
                         .turns = turns,
                         .n_turns = 6,
                         .lanes = lanes,
                         .n_lanes = 3};
    apmw_trace trace = {.block_tokens = 64, .note = "a note"};
    apmw_error err = {0};
    if (apmw_trace_add(&trace, &t, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    t = (apmw_trajectory){.id = "plain",
                          .source = "test",
                          .global_id = -1,
                          .turns = turns,
                          .n_turns = 1,
                          .lanes = lanes,
                          .n_lanes = 1};
    assert_int_equal(apmw_trace_add(&trace, &t, &err), APMW_OK);
    apmw_trace_rehash(&trace);
    return trace;
}

static void reads_what_it_wrote(void **state)
{
    (void)state;
    static const char *const names[] = {"a.jsonl", "a.jsonl.zst"};
    apmw_trace trace = sample();
    for (int i = 0; i < 2; i++) {
        apmw_error err = {0};
        apmw_trace back;
        assert_int_equal(apmw_trace_save(&trace, file(names[i]), &err), APMW_OK);
        if (apmw_trace_load(file(names[i]), NULL, &back, &err) != APMW_OK) {
            fail_msg("%s", err.message);
        }
        assert_same_trace(&trace, &back);
        apmw_trace_free(&back);
    }
    apmw_trace_free(&trace);
}

static void reads_by_hand_without_optional_parts(void **state)
{
    (void)state;
    write_text(file("hand.jsonl"),
               "{\"schema\":\"apmw.trace/1\",\"block_tokens\":16}\n"
               "{\"id\":\"x\",\"source\":\"me\",\"in\":[100,150],\"out\":[5,6],\"shared_in\":[0,100],"
               "\"delay_ns\":[0,1000],\"trigger\":\"ut\"}\n");
    apmw_trace trace;
    apmw_error err = {0};
    if (apmw_trace_load(file("hand.jsonl"), "apmw-jsonl", &trace, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(trace.n, 1);
    assert_int_equal(trace.items[0].global_id, -1);
    assert_int_equal(trace.items[0].turns[1].parent, 0);
    assert_int_equal(trace.items[0].n_lanes, 1);
    apmw_trace_free(&trace);
}

static void refuse(const char *text, apmw_status status, const char *a, const char *b)
{
    write_text(file("bad.jsonl"), text);
    apmw_trace trace;
    apmw_error err = {0};
    assert_int_equal(apmw_trace_load(file("bad.jsonl"), NULL, &trace, &err), status);
    if (strstr(err.message, "bad.jsonl") == NULL || strstr(err.message, a) == NULL ||
        strstr(err.message, b) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.message, a, b);
    }
    assert_null(trace.items);
}

#define HEAD "{\"schema\":\"apmw.trace/1\",\"block_tokens\":16}\n"
#define LINE(in, shared, trigger)                                                                            \
    "{\"id\":\"x\",\"source\":\"me\",\"in\":" in ",\"out\":[5,6],\"shared_in\":" shared                      \
    ",\"delay_ns\":[0,1000],\"trigger\":\"" trigger "\"}\n"

#define WAITS(delay)                                                                                         \
    "{\"id\":\"x\",\"source\":\"me\",\"in\":[100,150],\"out\":[5,5],\"shared_in\":[0,100],\"delay_ns\":" delay          \
    ",\"trigger\":\"ut\"}\n"

/* Tools called side by side: the longest counts, and it is the same content as that number alone. */
static void waits_for_the_longest_tool(void **state)
{
    (void)state;
    apmw_trace one, side_by_side;
    apmw_error err = {0};
    write_text(file("one.jsonl"), HEAD WAITS("[0,7000]"));
    write_text(file("tools.jsonl"), HEAD WAITS("[[0],[3,7000,20]]"));
    assert_int_equal(apmw_trace_load(file("one.jsonl"), NULL, &one, &err), APMW_OK);
    assert_int_equal(apmw_trace_load(file("tools.jsonl"), NULL, &side_by_side, &err), APMW_OK);
    assert_int_equal(side_by_side.items[0].turns[1].delay_ns, 7000);
    assert_string_equal(one.hash, side_by_side.hash);
    apmw_trace_free(&one);
    apmw_trace_free(&side_by_side);
    unlink(file("one.jsonl"));
    unlink(file("tools.jsonl"));
}

static void names_file_line_and_reason(void **state)
{
    (void)state;
    refuse("", APMW_E_DATA, "empty", "");
    refuse("hello\n", APMW_E_DATA, "no JSON object", "");
    refuse("{\"a\":1,\"b\":2}\n", APMW_E_DATA, "first keys: a, b", "known");
    refuse("{\"schema\":\"apmw.trace/2\",\"block_tokens\":16}\n", APMW_E_DATA, "apmw.trace/2", "newer");
    refuse("{\"schema\":\"apmw.trce/1\",\"block_tokens\":16}\n", APMW_E_DATA, "apmw.trce/1", "expected");
    refuse("{\"schema\":\"apmw.trace/1\"}\n", APMW_E_DATA, ":1:", "block_tokens");
    refuse("{\"schema\":\"apmw.trace/1\",\"block_token\":16}\n", APMW_E_DATA, "block_token", "block_tokens");
    refuse(HEAD, APMW_E_DATA, "no trajectory", "");
    refuse(HEAD LINE("[100,150]", "[0,101]", "ut"), APMW_E_DATA, ":2:", "turn 1");
    refuse(HEAD LINE("[100,150]", "[0]", "ut"), APMW_E_DATA, ":2:", "shared_in has 1");
    refuse(HEAD LINE("[100,1.5]", "[0,0]", "ut"), APMW_E_DATA, "/in", "item 1");
    refuse(HEAD LINE("[100,\"a\"]", "[0,0]", "ut"), APMW_E_DATA, "/in", "item 1");
    refuse(HEAD WAITS("[0,[]]"), APMW_E_DATA, "/delay_ns", "item 1 is an empty array");
    refuse(HEAD WAITS("[0,[5,-1]]"), APMW_E_DATA, "/delay_ns", "item 1 is not a whole number");
    refuse(HEAD WAITS("[0,[5,[1]]]"), APMW_E_DATA, "/delay_ns", "item 1 is not a whole number");
    refuse(HEAD WAITS("[0]"), APMW_E_DATA, "delay_ns has 1", "");
    refuse(HEAD LINE("[100,150]", "[0,100]", "ux"), APMW_E_DATA, "'x'", "");
    refuse(HEAD LINE("[100,150]", "[0,100]", "uj"), APMW_E_DATA, "no lane is joined", "");
    refuse(HEAD "{\"id\":\"x\",\"source\":\"me\",\"in\":[1", APMW_E_DATA, ":2:", "truncated");
    refuse(HEAD LINE("[100,150]", "[0,100]", "ut") "]", APMW_E_DATA, ":3:", "0x5d");
    refuse("{\"schema\":\"apmw.trace/1\",\"block_tokens\":16,\"trajectories\":2}\n" LINE("[100,150]",
                                                                                         "[0,100]", "ut"),
           APMW_E_DATA, "promises 2", "holds 1");
    refuse("{\"schema\":\"apmw.trace/1\",\"block_tokens\":16,\"hash\":\"0123456789abcdef\"}\n" LINE(
               "[100,150]", "[0,100]", "ut"),
           APMW_E_DATA, "content hash", "0123456789abcdef");
}

static void names_what_cannot_be_opened_or_written(void **state)
{
    (void)state;
    apmw_trace trace = sample(), none;
    apmw_error err = {0};
    assert_int_equal(apmw_trace_load("/nowhere/t.jsonl", NULL, &none, &err), APMW_E_NOINPUT);
    assert_int_equal(apmw_trace_load(file("a.jsonl"), "apmw-json", &none, &err), APMW_E_USAGE);
    assert_non_null(strstr(err.message, "did you mean 'apmw-jsonl'"));
    assert_int_equal(apmw_trace_save(&trace, file("a.txt"), &err), APMW_E_USAGE);
    assert_int_equal(apmw_trace_save(&trace, "/nowhere/t.jsonl", &err), APMW_E_CANTCREAT);
    apmw_trace_free(&trace);
}

static void the_hash_sees_every_field(void **state)
{
    (void)state;
    apmw_trace trace = sample();
    char before[17];
    int64_t *fields[] = {&trace.block_tokens,
                         &trace.items[0].global_tokens,
                         &trace.items[0].turns[2].n_in,
                         &trace.items[0].turns[2].n_out,
                         &trace.items[0].turns[2].shared_in,
                         &trace.items[0].turns[2].shared_out,
                         &trace.items[0].turns[2].delay_ns};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        memcpy(before, trace.hash, sizeof before);
        ++*fields[i];
        apmw_trace_rehash(&trace);
        assert_string_not_equal(before, trace.hash);
    }
    int32_t *small[] = {&trace.items[0].global_id, &trace.items[0].turns[2].parent,
                        &trace.items[0].turns[2].lane, &trace.items[0].lanes[1].join_before,
                        &trace.items[0].lanes[1].spawn_after};
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        memcpy(before, trace.hash, sizeof before);
        ++*small[i];
        apmw_trace_rehash(&trace);
        assert_string_not_equal(before, trace.hash);
    }
    apmw_trace_free(&trace);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const names[] = {"a.jsonl", "a.jsonl.zst", "hand.jsonl", "bad.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        remove(file(names[i]));
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_it_wrote),
        cmocka_unit_test(reads_by_hand_without_optional_parts),
        cmocka_unit_test(waits_for_the_longest_tool),
        cmocka_unit_test(names_file_line_and_reason),
        cmocka_unit_test(names_what_cannot_be_opened_or_written),
        cmocka_unit_test(the_hash_sees_every_field),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
