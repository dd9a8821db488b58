/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mixed model of the serving fit on rows made from known numbers: it finds them, is not moved by one wild row, keeps a
 * node without evidence at its parent, and shares what a platform or a precision does. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "../../../sim/experiment/serving_fit_tree.h"
#include "apmw/rng.h"

/* 2 models x 2 platforms x 12 loads. Nodes: 0 root, 1-2 models, 3-4 platforms, 5-8 models on platforms. */
enum { MODELS = 2, PLATFORMS = 2, LOADS = 12, ROWS = MODELS * PLATFORMS * LOADS, NODES = 9 };

typedef struct scene {
    fit_tree tree;
    fit_row rows[ROWS];
    int kind[NODES];
    double start[FIT_PARAMS], x[NODES * FIT_PARAMS], variance[NODES * FIT_PARAMS];
} scene;

/* Truth: 20 us a layer, +10 for model 1, +5 on platform 1; 15 us a sequence. `slow` multiplies the times of one cell. */
static void make(scene *s, double slow)
{
    memset(s, 0, sizeof *s);
    apmw_rng rng = apmw_rng_make(3, "serving fit", 0, 0);
    const int kinds[NODES] = {SERVING_ENGINE, SERVING_MODEL, SERVING_MODEL, SERVING_PLATFORM, SERVING_PLATFORM,
                              SERVING_MODEL_PLATFORM, SERVING_MODEL_PLATFORM, SERVING_MODEL_PLATFORM, SERVING_MODEL_PLATFORM};
    memcpy(s->kind, kinds, sizeof kinds);
    for (int i = 0; i < ROWS; i++) {
        int model = i / LOADS % MODELS, platform = i / LOADS / MODELS;
        fit_row *row = &s->rows[i];
        double batch = exp2(1 + i % LOADS * 0.5), layers = model == 0 ? 60 : 36;
        double kernel_ms = 2 + 6 * apmw_rng_uniform(&rng);
        for (int k = 0; k < FIT_PATH; k++)
            row->path[k] = -1;
        row->path[SERVING_ENGINE] = 0;
        row->path[SERVING_MODEL] = 1 + model;
        row->path[SERVING_PLATFORM] = 3 + platform;
        row->path[SERVING_MODEL_PLATFORM] = 5 + 2 * platform + model;
        row->weight = 1;
        row->fold = i % SERVING_FOLDS;
        row->slope[FIT_TPOT][FIT_LAYER] = 1e-3 * layers;
        row->slope[FIT_TPOT][FIT_SEQ] = 1e-3 * batch;
        row->simulated[FIT_TPOT] = kernel_ms; /* at zero overhead */
        double us = 20 + 10 * model + 5 * platform;
        double tpot = kernel_ms + 1e-3 * layers * us + 1e-3 * batch * 15;
        row->ln_measured[FIT_TPOT] = log(tpot * (model == 1 && platform == 1 ? slow : 1));
        row->simulated[FIT_TTFT] = row->ln_measured[FIT_TTFT] = (double)NAN;
    }
    s->tree = (fit_tree){.rows = s->rows, .n_rows = ROWS, .n_nodes = NODES, .kind = s->kind, .start = s->start,
                         .down_to = apmw_serving_down_to, .row_sd = {0.01, 0.1}, .huber = 1.5};
    for (int p = 0; p < FIT_PARAMS; p++) {
        s->tree.lower[p] = -1e9;
        s->tree.upper[p] = 1e9;
    }
    for (int k = 0; k < FIT_PATH; k++) {
        s->tree.sd[k][FIT_LAYER] = k == SERVING_ENGINE ? 1000 : k == SERVING_MODEL_PLATFORM ? 3 : 20;
        s->tree.sd[k][FIT_SEQ] = k == SERVING_ENGINE ? 1000 : 0; /* one number for all */
    }
}

static void solve(scene *s, int fold)
{
    apmw_error err = {0};
    if (apmw_fit_tree_solve(&s->tree, fold, s->x, s->variance, &err) != APMW_OK)
        fail_msg("%s", err.message);
}

static double total(const scene *s, int row, unsigned kinds, int number)
{
    double out[FIT_PARAMS];
    apmw_fit_row_total(&s->tree, s->x, &s->rows[row], kinds, out);
    return out[number];
}

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance))
        fail_msg("%.6g is not %.6g", a, b);
}

static void finds_the_numbers(void **state)
{
    (void)state;
    static scene s;
    make(&s, 1);
    solve(&s, -1);
    for (int i = 0; i < ROWS; i += LOADS) {
        int model = i / LOADS % MODELS, platform = i / LOADS / MODELS;
        near(total(&s, i, FIT_ALL_KINDS, FIT_LAYER), 20 + 10 * model + 5 * platform, 0.3);
        near(total(&s, i, FIT_ALL_KINDS, FIT_SEQ), 15, 0.3);
    }
    /* The platform's share is the platform's, not the cells'. */
    near(s.x[4 * FIT_PARAMS + FIT_LAYER] - s.x[3 * FIT_PARAMS + FIT_LAYER], 5, 2);
    for (int i = 0; i < NODES; i++)
        assert_true(s.variance[i * FIT_PARAMS + FIT_LAYER] > 0);
}

/* A model that was never seen on platform 1 gets what its model and that platform do elsewhere. */
static void carries_over_to_a_cell_left_out(void **state)
{
    (void)state;
    static scene s;
    make(&s, 1);
    for (int i = 0; i < ROWS; i++)
        s.rows[i].fold = s.rows[i].path[SERVING_MODEL] == 2 && s.rows[i].path[SERVING_PLATFORM] == 4 ? 1 : 0;
    solve(&s, 1);
    near(s.x[8 * FIT_PARAMS + FIT_LAYER], 0, 1e-9); /* nothing was seen of the cell itself */
    near(total(&s, ROWS - 1, FIT_ALL_KINDS, FIT_LAYER), 35, 2.5);
}

/* Cells have folds of their own: leaving them out is another question than leaving layouts out, asked of the same rows. */
static void cells_and_layouts_are_left_out_apart(void **state)
{
    (void)state;
    static scene s;
    make(&s, 2);
    for (int i = 0; i < ROWS; i++)
        s.rows[i].cell_fold = s.rows[i].path[SERVING_MODEL_PLATFORM] == 8 ? 1 : 0;
    solve(&s, 1); /* a fifth of all rows: the slow cell is known by its others */
    assert_true(s.x[8 * FIT_PARAMS + FIT_LAYER] > 3);
    s.tree.cells = true;
    solve(&s, 1);
    near(s.x[8 * FIT_PARAMS + FIT_LAYER], 0, 1e-9);
    near(total(&s, ROWS - 1, FIT_ALL_KINDS, FIT_LAYER), 35, 2.5);
    solve(&s, -1); /* nothing is left out, whatever the folds */
    assert_true(s.x[8 * FIT_PARAMS + FIT_LAYER] > 3);
}

/* Two leaves of one model: two layouts that come out within 1 %, six that are 10 % off, two rows each. The first leaf's own spread
 * is drawn to that of all rows, which counts as four layouts; what both share goes by cells left out. */
static void few_layouts_make_no_narrow_interval(void **state)
{
    (void)state;
    enum { LEAVES = 2, LAYOUTS = 8, N = 2 * LAYOUTS, ALL = 2 + LEAVES + LAYOUTS };
    fit_row rows[N];
    int kind[ALL];
    serving_label label[ALL];
    double x[ALL * FIT_PARAMS] = {0}, variance[ALL * FIT_PARAMS] = {0}, residual[N][2], left_out[N][2], cell_out[N][2];
    memset(rows, 0, sizeof rows);
    memset(label, 0, sizeof label);
    for (int i = 0; i < ALL; i++) {
        kind[i] = label[i].kind = i == 0 ? SERVING_ENGINE : i == 1 ? SERVING_MODEL : i < 4 ? SERVING_LEAF : SERVING_LAYOUT;
        snprintf(label[i].engine, sizeof label[i].engine, "vllm");
        snprintf(label[i].model, sizeof label[i].model, "%s", i == 0 ? "" : "m");
        snprintf(label[i].precision, sizeof label[i].precision, "%s", i == 2 ? "fp8" : i == 3 ? "fp4" : "");
    }
    for (int i = 0; i < N; i++) {
        const int layout = i / 2, leaf = layout < 2 ? 0 : 1;
        for (int k = 0; k < FIT_PATH; k++)
            rows[i].path[k] = -1;
        rows[i].path[SERVING_ENGINE] = 0;
        rows[i].path[SERVING_MODEL] = 1;
        rows[i].path[SERVING_LEAF] = 2 + leaf;
        rows[i].path[SERVING_LAYOUT] = 4 + layout;
        rows[i].simulated[FIT_TPOT] = rows[i].simulated[FIT_TTFT] = (double)NAN;
        residual[i][0] = residual[i][1] = 0;
        left_out[i][FIT_TPOT] = leaf == 0 ? 0.01 : 0.1;
        left_out[i][FIT_TTFT] = (double)NAN;
        cell_out[i][FIT_TPOT] = 0.3;
        cell_out[i][FIT_TTFT] = (double)NAN;
    }
    serving_tree tree = {.n_rows = N, .n_nodes = ALL, .kind = kind, .label = label, .x = x, .variance = variance};
    const serving_stage stage = {.rows = rows, .n_rows = N, .trees = &tree, .n_trees = 1, .residual = residual,
                                 .left_out = left_out, .cell_out = cell_out};
    apmw_overhead_table table = {0};
    apmw_error err = {0};
    assert_int_equal(apmw_serving_export(&stage, &table, &err), APMW_OK);
    assert_int_equal(table.n, 4);
    for (size_t i = 0; i < table.n; i++) {
        const apmw_overhead_entry *e = &table.entry[i];
        assert_true(isnan(e->value.ln_sd_ttft)); /* nothing is known of it */
        if (strcmp(e->precision, "fp8") == 0) /* its own 0.01 of two layouts, 0.1 of four */
            near(e->value.ln_sd_time, sqrt((2 * 0.01 * 0.01 + 4 * 0.1 * 0.1) / 6) / APMW_Z90, 1e-9);
        if (strcmp(e->precision, "fp4") == 0)
            near(e->value.ln_sd_time, 0.1 / APMW_Z90, 1e-9);
        if (strcmp(e->model, "m") == 0 && strcmp(e->precision, "*") == 0)
            near(e->value.ln_sd_time, 0.3 / APMW_Z90, 1e-9);
    }
    apmw_overhead_table_free(&table);
}

static void one_wild_row_does_not_move_it(void **state)
{
    (void)state;
    static scene s;
    make(&s, 1);
    s.rows[3].ln_measured[FIT_TPOT] += log(2);
    solve(&s, -1);
    near(total(&s, 3, FIT_ALL_KINDS, FIT_LAYER), 20, 1.5);
}

static void bounds_hold_softly(void **state)
{
    (void)state;
    static scene s;
    make(&s, 0.6); /* measured times below what any overhead >= 0 explains */
    solve(&s, -1);
    assert_true(total(&s, ROWS - 1, FIT_ALL_KINDS, FIT_LAYER) < -5);
    s.tree.lower[FIT_LAYER] = 0;
    solve(&s, -1);
    assert_true(total(&s, ROWS - 1, FIT_ALL_KINDS, FIT_LAYER) > -5);
}

static void predictions_never_fall_to_nothing(void **state)
{
    (void)state;
    static scene s;
    make(&s, 1);
    double absurd[FIT_PARAMS] = {0}, predicted[2];
    absurd[FIT_LAYER] = -1e6;
    apmw_fit_row_predict(&s.rows[0], absurd, predicted);
    near(predicted[FIT_TPOT], 0.3 * s.rows[0].simulated[FIT_TPOT], 1e-12);
}

/* What a fit writes is what a lookup sums: units, roles and bounds. */
static void overheads_of_a_total(void **state)
{
    (void)state;
    double t[FIT_PARAMS] = {0};
    apmw_overhead out[2];
    t[FIT_LAYER] = 20;
    t[FIT_LAYER_TP] = 2;
    t[FIT_KERNEL] = 5;
    t[FIT_SEQ] = 15;
    t[FIT_REQUEST] = 30;
    t[FIT_FRONTEND] = 3;
    t[FIT_FLOOR] = 0.5;
    t[FIT_SCALE] = 12;
    apmw_serving_fit_overheads(t, NULL, false, 8, out);
    near(out[0].layer_s, 26e-6, 1e-15);
    near(out[0].kernel_extra, 0.05, 1e-15);
    near(out[0].request_s, 0.03, 1e-15);
    near(out[0].prefill_scale, 1.2, 1e-15);
    apmw_serving_fit_overheads(t, NULL, true, 1, out);
    near(out[0].layer_s, 0, 0); /* of the prefill worker */
    near(out[1].layer_s, 20e-6, 1e-15);
    near(out[1].request_s, 0, 0);
    near(out[1].prefill_scale, 1, 0);
    t[FIT_SEQ] = -40;
    apmw_serving_fit_overheads(t, NULL, false, 1, out);
    near(out[0].seq_s, 0, 0);
    t[FIT_ACCEPT] = 100 * log(1.1);
    t[FIT_ACCEPT_OSL] = 10;
    near(apmw_serving_fit_acceptance(t, 3, 1024), 2.2 * 1.1, 1e-12);
    near(apmw_serving_fit_acceptance(t, 3, 1024 * exp(1)), 2.2 * 1.1 * exp(0.1), 1e-12);
}

/* A row with a queue says by the whole time of its requests how fast prompts are served, as sharply as a time per token,
 * and nothing of the time to the first token. */
static void a_queue_says_how_fast_prompts_are_served(void **state)
{
    (void)state;
    static scene s;
    make(&s, 1);
    for (int k = 0; k < FIT_PATH; k++)
        s.tree.sd[k][FIT_SCALE] = k == SERVING_ENGINE ? 5 : 0;
    for (int i = 0; i < ROWS; i++) {
        fit_row *row = &s.rows[i];
        row->queued = i % 2 == 0;
        row->simulated[FIT_TTFT] = 1e4;
        row->slope[FIT_TTFT][FIT_SCALE] = 2e3;
        row->ln_measured[FIT_TTFT] = log(row->queued ? 1.4e4 : 2e4); /* two tenths more, or five */
    }
    s.tree.row_sd[FIT_TTFT] = 1; /* first tokens say next to nothing here */
    solve(&s, -1);
    near(total(&s, 0, FIT_ALL_KINDS, FIT_SCALE), 2, 0.05);
    double left[2];
    apmw_serving_residuals(&s.tree, s.x, &s.rows[0], left);
    assert_true(isnan(left[FIT_TTFT]) && isfinite(left[FIT_TPOT]));
    apmw_serving_residuals(&s.tree, s.x, &s.rows[1], left);
    near(left[FIT_TTFT], log(1.4 / 2), 0.01);
    const apmw_point point = {.osl = 1024, .ratio = 0.8};
    near(apmw_serving_whole_ms(&point, 9000, 10), 9000 + 10 * (0.9 * 1024 - 1), 1e-9);
}

/* Runs less than a week apart are one build's; another model's or a missing day say nothing. */
static void runs_of_a_week_are_one_epoch(void **state)
{
    (void)state;
    static const char *const days[] = {"2026-02-03", "2026-01-29", "2026-01-14", "2026-02-06", "", "2025-12-31", "2026-01-20"};
    static const char *const want[] = {"2026-01-29", "2026-01-29", "2026-01-14", "2026-01-29", "", "2025-12-31", "2026-01-20"};
    enum { N = sizeof days / sizeof days[0] };
    serving_label labels[N];
    apmw_error err = {0};
    memset(labels, 0, sizeof labels);
    for (int i = 0; i < N; i++) {
        strcpy(labels[i].engine, "trtllm");
        strcpy(labels[i].vendor, "nvidia");
        strcpy(labels[i].model, i == N - 1 ? "gpt-oss-120b" : "deepseek-v3-r1");
        strcpy(labels[i].epoch, days[i]);
    }
    assert_int_equal(apmw_serving_epochs(labels, N, &err), APMW_OK);
    for (int i = 0; i < N; i++)
        assert_string_equal(labels[i].epoch, want[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_numbers),          cmocka_unit_test(carries_over_to_a_cell_left_out),
        cmocka_unit_test(cells_and_layouts_are_left_out_apart), cmocka_unit_test(one_wild_row_does_not_move_it),
        cmocka_unit_test(few_layouts_make_no_narrow_interval), cmocka_unit_test(bounds_hold_softly),
        cmocka_unit_test(a_queue_says_how_fast_prompts_are_served), cmocka_unit_test(runs_of_a_week_are_one_epoch), cmocka_unit_test(predictions_never_fall_to_nothing), cmocka_unit_test(overheads_of_a_total),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
