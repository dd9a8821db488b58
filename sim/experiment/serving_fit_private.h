/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mixed model behind the serving fit: rows with a path of nodes, linear predictions, one mode. */
#ifndef APMW_SERVING_FIT_PRIVATE_H
#define APMW_SERVING_FIT_PRIVATE_H
#include <stdbool.h>
#include <stddef.h>
#include "apmw/status.h"

/* Numbers of an overhead, in fitting units (serving_fit.c). */
enum {
    FIT_LAYER,      /* us per layer */
    FIT_LAYER_TP,   /* us per layer and doubling of TP */
    FIT_KERNEL,     /* % on decode kernels */
    FIT_SEQ,        /* us per sequence */
    FIT_REQUEST,    /* ms */
    FIT_FRONTEND,   /* us per prompt token */
    FIT_FLOOR,      /* ms per layer */
    FIT_SCALE,      /* tenths, on prompts' kernels */
    FIT_ACCEPT,     /* % on the tokens of a speculative step */
    FIT_ACCEPT_OSL, /* % for each e-fold of output length */
    FIT_PARAMS
};
enum { FIT_PATH = 8, FIT_TPOT = 0, FIT_TTFT = 1 };

typedef struct fit_row {
    size_t point;
    int path[FIT_PATH];           /* node of each kind, -1 = none */
    double at[FIT_PARAMS];        /* where it was simulated */
    double simulated[2];          /* TPOT, TTFT, ms; NaN = could not be */
    double slope[2][FIT_PARAMS];  /* of the same, by unit */
    double ln_measured[2];        /* NaN = says nothing */
    bool queued;                  /* a queue stands before prompts: FIT_TTFT is the whole time of a request */
    int fold;                     /* for leaving layouts out */
    int cell_fold;                /* for leaving whole cells out: platform, model, engine, precision */
    double weight;                /* copies of one measurement share one */
} fit_row;

typedef struct fit_tree {
    fit_row *rows;
    size_t n_rows;
    int n_nodes;
    const int *kind;              /* of each node */
    const double *start;          /* FIT_PARAMS: prior means, or zero deviations */
    double sd[FIT_PATH][FIT_PARAMS]; /* of a deviation, by kind; 0 = none */
    const unsigned *down_to;      /* [FIT_PATH]: kinds that a sum down to a kind is made of */
    double lower[FIT_PARAMS], upper[FIT_PARAMS]; /* of a row's total; soft */
    double row_sd[2], huber;
    bool cells;                   /* folds are those of cells */
} fit_tree;

/* Mode of all deviations: x[n_nodes * FIT_PARAMS]. With fold >= 0 rows of that fold are left out. variance (may be NULL,
 * same size) gets the diagonal of the inverse curvature of the sums down to each node. */
apmw_status apmw_fit_tree_solve(const fit_tree *tree, int fold, double *x, double *variance, apmw_error *err);
/* The sum of a row's nodes of some kinds (bits), and its linear predictions of both times. */
void apmw_fit_row_total(const fit_tree *tree, const double *x, const fit_row *row, unsigned kinds, double *total);
void apmw_fit_row_predict(const fit_row *row, const double *total, double predicted[2]);
enum { FIT_ALL_KINDS = (1 << FIT_PATH) - 1 };

#endif
