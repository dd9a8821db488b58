/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of the serving fit as trees of labels, and trees as entries of the overhead table. */
#ifndef APMW_SERVING_FIT_TREE_H
#define APMW_SERVING_FIT_TREE_H
#include "apmw/serving_fit.h"
#include "serving_fit_private.h"

enum { SERVING_FOLDS = 5 };

/* What a node stands for; "" and 0 = any. */
typedef struct serving_label {
    char engine[16], vendor[16], model[32], family[16], platform[24], precision[8], month[8];
    int draft_tokens;
    bool disagg;
    int level;
} serving_label;

typedef struct serving_tree {
    size_t first, n_rows; /* of the stage's rows */
    int n_nodes;
    int *level;
    serving_label *label;
    double *x, *variance, *scratch;
    double start[FIT_PARAMS];
} serving_tree;

typedef struct serving_stage {
    bool speculative;
    fit_row *rows;
    size_t n_rows;
    serving_tree *trees;
    size_t n_trees;
    double (*residual)[2], (*left_out)[2]; /* ln(predicted / measured) of each row; NaN = none */
    apmw_overhead **base;                  /* of each point, two roles; speculative stage only */
} serving_stage;

apmw_status apmw_serving_stage_build(const apmw_catalog *catalog, const apmw_predictor *predictor, const apmw_points *points,
                                const bool *keep, const apmw_serving_fit_options *options, serving_stage *out,
                                apmw_error *err);
void apmw_serving_stage_free(serving_stage *stage, size_t n_points);
/* Plain overheads of the points of the speculative stage. */
apmw_status apmw_serving_bases(const apmw_catalog *catalog, const apmw_predictor *predictor, const apmw_points *points,
                          const apmw_overhead_table *table, serving_stage *stage, apmw_error *err);
/* Appends an entry for each node of each tree. plain: the stage whose entries a speculative one builds on. */
apmw_status apmw_serving_export(const apmw_catalog *catalog, const apmw_points *points, const serving_stage *stage,
                           const serving_stage *plain, apmw_overhead_table *table, apmw_error *err);
void apmw_serving_residuals(const fit_tree *tree, const double *x, const fit_row *row, double out[2]);
void apmw_serving_report(const apmw_points *points, const serving_stage *stages, int n_stages, apmw_buf *report);

void apmw_serving_fit_overheads(const double *total, const apmw_overhead *base, bool disagg, int tp, apmw_overhead out[2]);
double apmw_serving_fit_acceptance(const double *total, int draft_tokens, double osl);

#endif
