/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Splits of accelerators: every one is offered once, the lists keep the best of each tier, and the join keeps the order. */
#include "../../../sim/experiment/splits.h"

#include <stdio.h>
#include <string.h>

#include "test_support.h"

static split_engine engine_of(const char *name, int draft, double loose, double tight)
{
    split_engine e = {.draft = draft, .agents = {loose, tight}};
    apmw_error err = {0};
    assert_int_equal(apmw_layout_parse(name, 0, &e.choice, &err), APMW_OK);
    return e;
}

/* Counted by hand: prefill engines of 1 and 4, decode engines of 2 and 8, on 16 accelerators. n x 1 leaves 16 - n, which
 * engines of 2 fill for n = 2, 4 .. 14 (7) and engines of 8 for n = 8 (1); n x 4 leaves 12, 8, 4, which engines of 2 fill
 * (3) and engines of 8 for n = 2 (1). */
static void test_every_split_once(void **state)
{
    (void)state;
    const split_engine prefill[] = {engine_of("tp1", 0, 1, 1), engine_of("dep4", 0, 5, 4)};
    const split_engine decode[] = {engine_of("tp2", 0, 2, 1), engine_of("dep8", 1, 12, 3)};
    split_list list;
    assert_true(apmw_split_list_init(&list, 1, 20));
    apmw_split_pairs(&list, prefill, 2, decode, 2, 16);
    assert_int_equal(list.considered, 12);
    assert_int_equal(list.n[0], 12);
    for (size_t i = 0; i < list.n[0]; i++) {
        const split *o = &list.best[0][i];
        assert_true(o->apart);
        assert_int_equal(o->choice[0].size * o->choice[0].replicas + o->choice[1].size * o->choice[1].replicas, 16);
        for (size_t j = 0; j < i; j++) {
            assert_false(strcmp(o->choice[0].name, list.best[0][j].choice[0].name) == 0 &&
                         strcmp(o->choice[1].name, list.best[0][j].choice[1].name) == 0);
            assert_true(list.best[0][j].agents[0] >= o->agents[0]);
        }
    }
    /* The weaker pool decides: dep4x2 (10) with dep8 (12). */
    assert_string_equal(list.best[0][0].choice[0].name, "dep4x2");
    assert_string_equal(list.best[0][0].choice[1].name, "dep8");
    assert_float_equal(list.best[0][0].agents[0], 10.0, 0.0);
    apmw_split_list_free(&list);
}

static split whole(const char *name, int draft, double loose, double tight)
{
    const split_engine e = engine_of(name, draft, loose, tight);
    return (split){.choice = {e.choice}, .draft = draft, .agents = {loose, tight}};
}

static void test_best_of_each_tier(void **state)
{
    (void)state;
    split_list list;
    assert_true(apmw_split_list_init(&list, 2, 2));
    const split offered[] = {whole("tp8", 0, 10, 9), whole("dep8", 0, 30, 2), whole("tep8", 0, 20, 5), whole("dep8", 3, 25, 6),
                             whole("tp4x2", 0, 10, 1)};
    for (size_t i = 0; i < sizeof offered / sizeof offered[0]; i++) {
        apmw_split_offer(&list, &offered[i]);
    }
    assert_int_equal(list.considered, 5);
    /* Loose: dep8 without drafts, tep8. Tight: tp8, dep8 with three drafts. */
    assert_int_equal(list.n[0], 2);
    assert_string_equal(list.best[0][0].choice[0].name, "dep8");
    assert_int_equal(list.best[0][0].draft, 0);
    assert_string_equal(list.best[0][1].choice[0].name, "tep8");
    assert_int_equal(list.n[1], 2);
    assert_string_equal(list.best[1][0].choice[0].name, "tp8");
    assert_string_equal(list.best[1][1].choice[0].name, "dep8");
    assert_int_equal(list.best[1][1].draft, 3);
    split joined[4];
    assert_int_equal(apmw_split_join(&list, joined), 4);
    assert_string_equal(joined[0].choice[0].name, "dep8");
    assert_string_equal(joined[1].choice[0].name, "tp8");
    assert_string_equal(joined[2].choice[0].name, "tep8");
    assert_int_equal(joined[3].draft, 3);
    apmw_split_list_free(&list);
}

static void test_join_names_one_once(void **state)
{
    (void)state;
    split_list list;
    assert_true(apmw_split_list_init(&list, 2, 3));
    const split a = whole("tp8", 0, 10, 9), b = whole("dep8", 0, 8, 7);
    apmw_split_offer(&list, &a);
    apmw_split_offer(&list, &b);
    split joined[6];
    assert_int_equal(apmw_split_join(&list, joined), 2);
    apmw_split_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_split_once), cmocka_unit_test(test_best_of_each_tier),
                                       cmocka_unit_test(test_join_names_one_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
