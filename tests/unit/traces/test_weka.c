/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Weka sessions: one by hand turn by turn, the published ones in all their forms, and the whole shipped
 * sample against statistics that were computed from the original files by other means. */
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

static apmw_trace_stats stats_of(const apmw_trace *trace)
{
    apmw_trace_stats stats;
    apmw_error err = {0};
    assert_int_equal(apmw_trace_stats_compute(trace, 0, false, &stats, &err), APMW_OK);
    return stats;
}

static void near(const char *what, double value, double target, double tolerance)
{
    if (!(fabs(value - target) <= tolerance)) {
        fail_msg("%s is %.8g, not within %g of %.8g", what, value, tolerance, target);
    }
}

/* Two parallel sub-agents whose markers stand at their completions; a compaction that keeps two blocks; then
 * a prompt that continues an older turn than the one before; a call without api_time and output. */
static void a_session_by_hand(void **state)
{
    (void)state;
    apmw_trace trace = load(SAMPLES "formats/weka-hand.json");
    const int64_t s = 1000000000;
    apmw_turn turns[] = {
        {.n_in = 330, .n_out = 40, .parent = -1, .trigger = APMW_TURN_USER},
        {.n_in = 200, .n_out = 30, .parent = 0, .lane = 1, .delay_ns = s / 2},
        {.n_in = 300, .n_out = 60, .parent = 1, .lane = 1, .shared_in = 192, .delay_ns = 3 * s / 2},
        {.n_in = 260, .n_out = 30, .parent = 2, .lane = 2, .shared_in = 128, .delay_ns = s / 2},
        {.n_in = 470,
         .n_out = 55,
         .parent = 0,
         .shared_in = 320,
         .delay_ns = s / 2,
         .trigger = APMW_TURN_JOIN},
        {.n_in = 200,
         .n_out = 1,
         .parent = 4,
         .shared_in = 128,
         .delay_ns = 60 * s,
         .trigger = APMW_TURN_USER},
        {.n_in = 600, .n_out = 10, .parent = 4, .shared_in = 448, .delay_ns = 14 * s},
    };
    apmw_lane lanes[] = {{-1, -1}, {0, 4}, {0, 4}};
    apmw_trajectory expected = {.id = "weka-hand",
                                .source = "weka",
                                .global_id = 100,
                                .global_tokens = 100,
                                .turns = turns,
                                .n_turns = 7,
                                .lanes = lanes,
                                .n_lanes = 3};
    assert_int_equal(trace.n, 1);
    assert_int_equal(trace.block_tokens, 64);
    assert_same_trajectory(&trace.items[0], &expected);
    apmw_trace_free(&trace);
}

/* The same three sessions: full ids one file each, compact, and out of the shipped sample. */
static void every_form_is_the_same(void **state)
{
    (void)state;
    static const char *const files[] = {"formats/weka-0012.json.zst", "formats/weka-0019.json.zst",
                                        "formats/weka-0277.json.zst"};
    apmw_trace compact = load(SAMPLES "formats/weka-compact.jsonl.zst");
    apmw_trace all = load(SAMPLES "weka-cc-042026.jsonl.zst");
    assert_int_equal(compact.n, 3);
    for (int k = 0; k < 3; k++) {
        char path[256];
        snprintf(path, sizeof path, SAMPLES "%s", files[k]);
        apmw_trace full = load(path);
        assert_int_equal(full.n, 1);
        assert_same_trajectory(&full.items[0], &compact.items[k]);
        size_t i = 0;
        while (i < all.n && strcmp(all.items[i].id, full.items[0].id) != 0) {
            i++;
        }
        assert_true(i < all.n);
        assert_same_trajectory(&full.items[0], &all.items[i]);
        apmw_trace_free(&full);
    }
    apmw_trace_free(&compact);
    apmw_trace_free(&all);
}

/* Figures of the 710 sessions as computed from the published files (main lines): quantiles, totals, and hit
 * rates in whole blocks, .9639 for an infinite cache and .9633 for the previous request only. */
static void the_sample_has_the_published_statistics(void **state)
{
    (void)state;
    apmw_trace trace = load(SAMPLES "weka-cc-042026.jsonl.zst");
    apmw_trace_stats s = stats_of(&trace);
    assert_int_equal(s.n_trajectories, 710);
    assert_int_equal(s.n_turns - s.n_subagent_turns, 48658);
    assert_int_equal(s.n_subagent_turns, 676);
    assert_int_equal(s.n_lanes - 710, 63);
    near("turns mean", s.turns.mean, 68.5, .05);
    near("turns p90", s.turns.p90, 155, .5);
    near("turns max", s.turns.max, 514, 0);
    near("ISL mean", s.isl.mean, 123450, .5);
    near("ISL p50", s.isl.p50, 104644, .5);
    near("ISL p95", s.isl.p95, 302272, .5);
    near("OSL mean", s.osl.mean, 439, .5);
    near("OSL p50", s.osl.p50, 216, 0);
    near("OSL p95", s.osl.p95, 1543, .5);
    near("last ISL mean", s.last_isl.mean, 172445, .5);
    near("appends", s.growth.n, 46871, 0);
    near("growth mean", s.growth.mean, 1653, .5);
    near("growth p50", s.growth.p50, 653, .5);
    near("growth max", s.growth.max, 235045, 0);
    near("uncached p50", s.uncached.p50, 705, .5);
    near("input of main lines", s.isl.mean * s.isl.n, 6.007e9, 1e6);
    near("output of main lines", s.osl.mean * s.osl.n, 21.4e6, 1e5);
    near("infinite-cache hit", s.hit_infinite, .9639, .001);
    near("previous request only", s.hit_previous, .9633, .001);
    assert_true(s.hit_previous < s.hit_infinite && s.hit_infinite < s.hit_infinite_shared);
    apmw_trace_free(&trace);
}

/* Each session cut where prompt and output exceed 131,072 tokens: 575 sessions and 25,918 requests are left.
 */
static void cut_to_a_window_it_has_the_published_statistics(void **state)
{
    (void)state;
    apmw_trace trace = load(SAMPLES "weka-cc-042026.jsonl.zst"), cut;
    apmw_error err = {0};
    apmw_trace_part part = {.max_context = 131072};
    assert_int_equal(apmw_trace_slice(&trace, &part, &cut, &err), APMW_OK);
    apmw_trace_stats s = stats_of(&cut);
    assert_int_equal(s.n_trajectories, 575);
    near("requests", s.isl.n, 25918, 0);
    near("turns mean", s.turns.mean, 45, .5);
    near("turns p50", s.turns.p50, 40, 0);
    near("turns max", s.turns.max, 252, 0);
    near("ISL mean", s.isl.mean, 78800, 50);
    near("ISL p50", s.isl.p50, 80700, 50);
    near("OSL p50", s.osl.p50, 206, 0);
    near("OSL p95", s.osl.p95, 1420, .5);
    apmw_trace_free(&cut);
    apmw_trace_free(&trace);
}

static char path[] = "/tmp/apmw-weka-XXXXXX";

static apmw_status load_text(const char *text, apmw_trace *trace, apmw_error *err)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return apmw_trace_load(path, NULL, trace, err);
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

#define SESSION(requests) "{\"id\":\"a\",\"block_size\":64,\"requests\":[" requests "]}"
#define REQUEST(t, in, ids) "{\"t\":" t ",\"type\":\"n\",\"in\":" in ",\"out\":5,\"hash_ids\":" ids "}"

static void names_what_is_wrong(void **state)
{
    (void)state;
    refuse(SESSION(""), "/requests", "one request or more");
    refuse("\n\n{\"id\":\"a\",\"block_size\":64,\"hash_id_scope\":\"local\"}", ":3", "requests");
    refuse("{\"block_size\":64,\"requests\":[]}", ":1", "id");
    refuse(SESSION("{\"t\":0,\"in\":100,\"hash_ids\":[]}"), "/requests/0/out", "");
    refuse(SESSION("{\"t\":0,\"in\":100,\"out\":5}"), "/requests/0", "hash_ids");
    refuse(SESSION(REQUEST("0", "100", "[1,2,3]")), "/requests/0", "3 hash_ids");
    refuse(SESSION(REQUEST("0", "100", "[\"x\"]")), "/requests/0/hash_ids", "item 0");
    refuse(SESSION(REQUEST("0", "0", "[]")), "/requests/0/in", "");
    refuse(SESSION(REQUEST("-1", "100", "[1]")), "/requests/0/t", "");
    refuse(SESSION(REQUEST("0", "100", "[1]") "," REQUEST("99999999", "100", "[1]")), "/requests/1", "days");
    refuse(SESSION("{\"t\":5,\"type\":\"subagent\",\"duration_ms\":1000}"), "/requests/0", "requests");
    refuse(SESSION("{\"t\":5,\"type\":\"subagent\",\"duration_ms\":1000,\"requests\":[]}"), "", "no turns");
    refuse(SESSION("{\"t\":0,\"in\":100,\"out\":5,\"hk\":1,\"hr\":[]}"), "/requests/0/hk", "");
    refuse(SESSION("{\"t\":0,\"in\":100,\"out\":5,\"hk\":0,\"hr\":[[1,3]]}"), "/requests/0/hr/0", "2 blocks");
    refuse(SESSION("{\"t\":0,\"in\":100,\"out\":5,\"hk\":0,\"hr\":[[1]]}"), "/requests/0/hr/0",
           "[first, count]");
    refuse("[" SESSION(REQUEST("0", "100", "[1]")) ",{\"id\":\"b\",\"block_size\":32,\"requests\":[]}]", "32",
           "64");
    refuse("[" SESSION(REQUEST("0", "100", "[1]")), "", "truncated");
    refuse(SESSION(REQUEST("0", "100", "[1]")) "\n{\"id\":", ":2", "truncated");
}

/* Later corpora count inner times from the session's start; a sub-agent without duration is in the
 * background. */
static void sub_agents_of_later_corpora(void **state)
{
    (void)state;
    apmw_trace trace;
    apmw_error err = {0};
    const char *text = SESSION(
        "{\"t\":0,\"in\":100,\"out\":5,\"api_time\":19,\"hash_ids\":[1]},"
        "{\"t\":50,\"type\":\"subagent\",\"duration_ms\":30000,\"requests\":[" REQUEST(
            "21", "70",
            "[5]") "]},"
                   "{\"t\":51,\"in\":200,\"out\":5,\"api_time\":9,\"hash_ids\":[1,2,3]},"
                   "{\"t\":60.5,\"type\":\"subagent\",\"duration_ms\":null,\"requests\":[" REQUEST(
                       "61", "70",
                       "[7]") "]},"
                              "{\"t\":70,\"in\":300,\"out\":5,\"api_time\":9,\"hash_ids\":[1,2,3,4]}");
    if (load_text(text, &trace, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    const apmw_trajectory *t = &trace.items[0];
    assert_int_equal(t->n_turns, 5);
    assert_int_equal(t->n_lanes, 3);
    assert_int_equal(t->turns[1].lane, 1);
    assert_int_equal(t->turns[1].delay_ns, 2000000000); /* 21 - 19, not 20 + 21 - 19 */
    assert_int_equal(t->lanes[1].spawn_after, 0);
    assert_int_equal(t->lanes[1].join_before, 2);
    assert_int_equal(t->turns[2].delay_ns, 1000000000); /* 51 - 50 */
    assert_int_equal(t->turns[2].trigger, APMW_TURN_JOIN);
    assert_int_equal(t->lanes[2].spawn_after, 2);
    assert_int_equal(t->lanes[2].join_before, -1);
    assert_int_equal(t->turns[4].trigger, APMW_TURN_TOOL);
    assert_int_equal(t->turns[4].delay_ns, 10000000000); /* 70 - 51 - 9: not of the sub-agent */
    apmw_trace_free(&trace);
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
        cmocka_unit_test(a_session_by_hand),
        cmocka_unit_test(every_form_is_the_same),
        cmocka_unit_test(the_sample_has_the_published_statistics),
        cmocka_unit_test(cut_to_a_window_it_has_the_published_statistics),
        cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(sub_agents_of_later_corpora),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
