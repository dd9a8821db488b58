/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a client sends of recorded sessions: users that begin inside them, lengths by hand, ends, and files that are wrong. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/sent.h"
#include "test_support.h"

static apmw_turn turn(int64_t n_in, int64_t n_out, int32_t parent, int64_t shared_in, int32_t lane, double delay_s)
{
    return (apmw_turn){.n_in = n_in, .n_out = n_out, .parent = parent, .shared_in = shared_in, .lane = lane,
                       .delay_ns = apmw_time_from_s(delay_s)};
}

static void add(apmw_trace *trace, const char *id, apmw_turn *turns, int32_t n, int32_t spawn_after, int32_t join_before)
{
    apmw_lane lanes[] = {{.spawn_after = -1, .join_before = -1}, {.spawn_after = spawn_after, .join_before = join_before}};
    apmw_trajectory t = {.source = "test", .global_id = 0, .global_tokens = 150, .turns = turns, .n_turns = n, .lanes = lanes,
                         .n_lanes = spawn_after >= 0 ? 2 : 1};
    apmw_error err = {0};
    strcpy(t.id, id);
    trace->block_tokens = 64;
    assert_ok(apmw_trace_add(trace, &t, &err), &err);
}

/* "a": five turns of which the fourth is a compaction. "b": a sub-agent between two turns of the main line. */
static apmw_trace recorded(void)
{
    apmw_trace trace = {0};
    apmw_turn a[] = {turn(1000, 50, -1, 0, 0, 1), turn(1200, 60, 0, 960, 0, 2), turn(1600, 70, 1, 1152, 0, 300),
                     turn(400, 80, 2, 160, 0, 4), turn(700, 90, 3, 384, 0, 5)};
    apmw_turn b[] = {turn(200, 10, -1, 0, 0, 0), turn(300, 11, -1, 0, 1, 0), turn(500, 12, 1, 256, 1, 1),
                     turn(260, 13, 0, 192, 0, 90)};
    add(&trace, "a", a, 5, -1, -1);
    add(&trace, "b", b, 4, 0, 3);
    return trace;
}

static const char *users(const char *text)
{
    static int n;
    char name[32];
    snprintf(name, sizeof name, "users%d.csv", n++);
    const char *path = test_path(test_directory(), name);
    test_write(path, text, strlen(text));
    return path;
}

static void starts(void **state)
{
    (void)state;
    apmw_trace trace = recorded();
    apmw_start *s = NULL;
    size_t n = 0;
    apmw_error err = {0};
    /* The second turn of b's main line is its fourth turn. User 3 is missing; 4 and 9 replace, from the first turn. */
    const char *path = users("user,session,turn,note\n1,b,1,\n2,a,4,x\n4,a,2,\n9,b,1,\n");
    assert_ok(apmw_starts_load(path, &trace, 3, &s, &n, &err), &err);
    assert_int_equal(n, 4);
    const apmw_start expected[] = {{1, 3, 0}, {0, 4, 0}, {0, 0, 0}, {1, 0, 0}};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(s[i].trajectory, expected[i].trajectory);
        assert_int_equal(s[i].turn, expected[i].turn);
        assert_int_equal(s[i].after_ns, 0);
    }
    free(s);
    const struct {
        const char *text, *message;
    } wrong[] = {{"user,session\n1,a\n", "turn"},
                 {"user,session,turn\n1,c,0\n", ":2: the trace has no session \"c\""},
                 {"user,session,turn\n1,a,0\n2,b,2\n", ":3: the main line of b has no turn 2"},
                 {"user,session,turn\n2,a,0\n2,b,0\n", ":3: users are positive"},
                 {"user,session,turn\n1,a,\n", ":2: users are positive"},
                 {"user,session,turn\n0,a,1\n", ":2: users are positive"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_error(apmw_starts_load(users(wrong[i].text), &trace, 3, &s, &n, &err), APMW_E_DATA, &err, wrong[i].message);
        assert_null(s);
    }
    apmw_trace_free(&trace);
}

static void lengths(void **state)
{
    (void)state;
    apmw_trace trace = recorded(), out = {0};
    apmw_start s[] = {{0, 1, 0}, {1, 0, 0}};
    size_t n = 2;
    const apmw_sent sent = {.first_prompt_scale = 1.1, .growth_scale = 0.5, .answer_tokens = 100, .output_tokens = 40.4,
                            .max_delay_s = 60};
    apmw_error err = {0};
    assert_ok(apmw_trace_as_sent(&trace, s, &n, &sent, &out, &err), &err);
    assert_int_equal(n, 2);
    assert_int_equal(out.n, 2);
    assert_int_equal(s[0].trajectory, 0);
    assert_int_equal(s[0].turn, 1);
    /* Before the start as recorded; 1.1 * 1200; + 0.5 * 400 + 100; compaction 1.1 * 400; + 0.5 * 300 + 100. */
    static const int64_t in_a[] = {1000, 1320, 1620, 440, 690};
    /* Of 1600 recorded 160 came back: a tenth. Whole blocks repeated are a whole prompt repeated. */
    static const int64_t shared_a[] = {0, 1000, 1320, 162, 440};
    for (int i = 0; i < 5; i++) {
        const apmw_turn *t = &out.items[0].turns[i];
        assert_int_equal(t->n_in, in_a[i]);
        assert_int_equal(t->shared_in, shared_a[i]);
        assert_int_equal(t->n_out, 40);
        assert_int_equal(t->delay_ns, (i == 2 ? 60 : i + 1) * APMW_NS_PER_S);
    }
    /* The sub-agent begins a prompt of its own and goes on; the main line goes on behind its own first turn. */
    static const int64_t in_b[] = {220, 330, 530, 350};
    static const int64_t shared_b[] = {0, 0, 330, 220};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(out.items[1].turns[i].n_in, in_b[i]);
        assert_int_equal(out.items[1].turns[i].shared_in, shared_b[i]);
    }
    assert_int_equal(out.items[1].lanes[1].join_before, 3);
    apmw_trace_free(&out);
    apmw_trace_free(&trace);
}

/* All answers from the start on fill the context, or about half of them; never shorter than they would have been. */
static void answers_without_end(void **state)
{
    (void)state;
    const double shares[] = {1.0, 0.5};
    for (int c = 0; c < 2; c++) {
        apmw_trace trace = {0}, out = {0};
        apmw_turn turns[60];
        for (int32_t i = 0; i < 60; i++) {
            turns[i] = turn(1000, 50, i - 1, i > 0 ? 960 : 0, 0, 1);
        }
        add(&trace, "long", turns, 60, -1, -1);
        apmw_start s[] = {{0, 10, 0}};
        size_t n = 1;
        const apmw_sent sent = {.first_prompt_scale = 1.0, .growth_scale = 1.0, .output_tokens = 40, .endless_share = shares[c],
                                .endless_context = 5000};
        apmw_error err = {0};
        assert_ok(apmw_trace_as_sent(&trace, s, &n, &sent, &out, &err), &err);
        int endless = 0;
        for (int32_t i = 0; i < 60; i++) {
            const int64_t n_out = out.items[0].turns[i].n_out;
            assert_true(n_out == 40 || (i >= 10 && n_out == 4000));
            endless += n_out == 4000;
        }
        assert_true(c == 0 ? endless == 50 : endless > 10 && endless < 40);
        apmw_trace_free(&out);
        apmw_trace_free(&trace);
    }
}

/* Lognormal answers: their mean and relative sd within 5 standard errors of 3,000 draws, and never one that is alike
 * to all. */
static void answers_spread(void **state)
{
    (void)state;
    enum { N = 3000 };
    apmw_trace trace = {0}, out = {0};
    apmw_turn *turns = calloc(N, sizeof *turns);
    for (int32_t i = 0; i < N; i++) {
        turns[i] = turn(1000, 50, i - 1, i > 0 ? 960 : 0, 0, 1);
    }
    add(&trace, "long", turns, N, -1, -1);
    apmw_start s[] = {{0, 0, 0}};
    size_t n = 1;
    const apmw_sent sent = {.first_prompt_scale = 1.0, .growth_scale = 1.0, .output_tokens = 10000,
                            .output_spread = 0.3};
    apmw_error err = {0};
    assert_ok(apmw_trace_as_sent(&trace, s, &n, &sent, &out, &err), &err);
    double sum = 0.0, square = 0.0;
    for (int32_t i = 0; i < N; i++) {
        const double x = (double)out.items[0].turns[i].n_out / 10000.0;
        assert_true(x > 0.0);
        sum += x;
        square += x * x;
    }
    const double mean = sum / N, sd = sqrt(square / N - mean * mean);
    assert_true(fabs(mean - 1.0) < 5.0 * 0.3 / sqrt(N));
    /* The error of an sd is that of the fourth moment: kurtosis of this lognormal is 3 + 1.6. */
    assert_true(fabs(sd - 0.3) < 5.0 * 0.3 * sqrt((4.6 - 1.0) / (4.0 * N)));
    apmw_trace_free(&out);
    apmw_trace_free(&trace);
    free(turns);
}

static void as_recorded(void **state)
{
    (void)state;
    apmw_trace trace = recorded(), out = {0};
    apmw_start s[] = {{0, 0, 0}, {1, 0, 0}};
    size_t n = 2;
    const apmw_sent sent = apmw_sent_as_recorded();
    apmw_error err = {0};
    assert_ok(apmw_trace_as_sent(&trace, s, &n, &sent, &out, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        for (int32_t k = 0; k < trace.items[i].n_turns; k++) {
            assert_int_equal(out.items[i].turns[k].n_in, trace.items[i].turns[k].n_in);
            assert_int_equal(out.items[i].turns[k].n_out, trace.items[i].turns[k].n_out);
            assert_int_equal(out.items[i].turns[k].delay_ns, trace.items[i].turns[k].delay_ns);
        }
    }
    apmw_trace_free(&out);
    apmw_trace_free(&trace);
}

/* A session ends before the first long prompt after its start; long ones before it are the past. */
static void ends(void **state)
{
    (void)state;
    apmw_trace trace = recorded(), out = {0};
    apmw_start s[] = {{0, 0, 0}, {0, 2, 0}, {0, 3, 0}};
    size_t n = 3;
    apmw_sent sent = apmw_sent_as_recorded();
    apmw_error err = {0};
    sent.max_recorded_tokens = 1200;
    sent.max_delay_s = 60;
    assert_ok(apmw_trace_as_sent(&trace, s, &n, &sent, &out, &err), &err);
    assert_int_equal(n, 2);
    assert_int_equal(out.n, 2);
    assert_int_equal(out.items[0].n_turns, 2);
    assert_int_equal(s[0].after_ns, 60 * APMW_NS_PER_S); /* the client finds out after the wait of that turn, here 300 s */
    assert_int_equal(s[1].after_ns, 0);
    assert_int_equal(s[1].trajectory, 1);
    assert_int_equal(s[1].turn, 3);
    assert_int_equal(out.items[1].n_turns, 5);
    apmw_trace_free(&out);
    apmw_start none[] = {{0, 2, 0}};
    n = 1;
    assert_error(apmw_trace_as_sent(&trace, none, &n, &sent, &out, &err), APMW_E_SCENARIO, &err, "no start is left");
    sent.growth_scale = -1.0;
    n = 1;
    assert_error(apmw_trace_as_sent(&trace, none, &n, &sent, &out, &err), APMW_E_SCENARIO, &err, "not negative");
    apmw_trace_free(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(starts), cmocka_unit_test(lengths),
                                       cmocka_unit_test(answers_without_end),
                                       cmocka_unit_test(answers_spread), cmocka_unit_test(as_recorded),
                                       cmocka_unit_test(ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
