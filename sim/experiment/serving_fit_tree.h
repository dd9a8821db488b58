/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of the serving fit as trees of labels, and trees as entries of the overhead table. */
#ifndef APMW_SERVING_FIT_TREE_H
#define APMW_SERVING_FIT_TREE_H
#include "apmw/serving_fit.h"
#include "serving_fit_private.h"

enum { SERVING_FOLDS = 5 };

/* Kinds of nodes. Times cross: a platform, a precision and an epoch of releases shift all their rows alike. */
enum {
    SERVING_ENGINE, /* and vendor, and whether disaggregated: the root of a tree */
    SERVING_MODEL,
    SERVING_MODEL_PRECISION,
    SERVING_PLATFORM, /* of aggregated engines: its silicon */
    SERVING_MODEL_PLATFORM,
    SERVING_MODEL_EPOCH,
    SERVING_LEAF, /* model, platform, precision, epoch */
    SERVING_LAYOUT, /* rows of one layout err alike: what they share is no knowledge of the others, and is not exported */
    SERVING_KINDS
};
_Static_assert((int)SERVING_KINDS == (int)FIT_PATH, "a path has one node of each kind");
/* Kinds that what is known at a kind sums to. */
extern const unsigned apmw_serving_down_to[SERVING_KINDS];
enum { SERVING_KNOWN_KINDS = FIT_ALL_KINDS & ~(1 << SERVING_LAYOUT) }; /* what predicts another layout */

/* What a node stands for; "" = any. draft_tokens 0 = any, -1 = speculative of any length. */
typedef struct serving_label {
    char engine[16], vendor[16], model[32], platform[24], precision[8];
    char epoch[12]; /* first day of the runs of one build, yyyy-mm-dd */
    int draft_tokens;
    int tp, moe_ep, attention_dp; /* of a layout's node, else 0 */
    bool disagg;
    int kind;
} serving_label;

typedef struct serving_tree {
    size_t first, n_rows; /* of the stage's rows */
    int n_nodes;
    int *kind;
    serving_label *label;
    double *x, *variance, *scratch;
    double start[FIT_PARAMS];
    bool workers;         /* of disaggregated deployments of NVIDIA parts */
    double wider, wider_build; /* on the sds of this tree's deviations, and on that of the time a layer of one build */
} serving_tree;

typedef struct serving_stage {
    bool speculative;
    fit_row *rows;
    size_t n_rows;
    serving_tree *trees;
    size_t n_trees;
    double (*residual)[2], (*left_out)[2], (*cell_out)[2]; /* ln(predicted / measured) of each row; NaN = none */
    apmw_overhead **base;                  /* of each point, two roles; speculative stage only */
} serving_stage;

apmw_status apmw_serving_stage_build(const apmw_catalog *catalog, const apmw_predictor *predictor, const apmw_points *points,
                                const bool *keep, const apmw_serving_fit_options *options, serving_stage *out,
                                apmw_error *err);
/* Turns the days of runs in `epoch` into the first days of their epochs; AMD's are given. */
apmw_status apmw_serving_epochs(serving_label *labels, size_t n, apmw_error *err);
/* Fold, 0 to SERVING_FOLDS - 1, in which point i is left out: with its whole layout, or its length shape where the kept points
 * of its cell have one layout. */
int apmw_serving_fold(const apmw_points *points, const bool *keep, size_t i);
void apmw_serving_stage_free(serving_stage *stage, size_t n_points);
/* Plain overheads of the points of the speculative stage. */
apmw_status apmw_serving_bases(const apmw_points *points, const apmw_overhead_table *table, serving_stage *stage,
                               apmw_error *err);
/* Appends an entry for each node of each tree. */
apmw_status apmw_serving_export(const serving_stage *stage, apmw_overhead_table *table, apmw_error *err);
void apmw_serving_residuals(const fit_tree *tree, const double *x, const fit_row *row, double out[2]);
void apmw_serving_report(const apmw_points *points, const serving_stage *stages, int n_stages, bool rows,
                         apmw_buf *report);

/* Milliseconds from a request to its last token, at the mean length of outputs. */
double apmw_serving_whole_ms(const apmw_point *point, double ttft_ms, double tpot_ms);
void apmw_serving_fit_overheads(const double *total, const apmw_overhead *base, bool disagg, int tp, apmw_overhead out[2]);
double apmw_serving_fit_acceptance(const double *total, int draft_tokens, double osl);

#endif
