/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Gauss-Newton with Huber weights on crossed deviations: the posterior mode of a linear mixed model whose rows
 * predict times linearly and are compared in logarithms. */
#include <gsl/gsl_errno.h>
#include <gsl/gsl_linalg.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "serving_fit_private.h"

enum { ITERATIONS = 14 };
static const double lowest_share = 0.3; /* of the simulated time: linear predictions never fall below */
static const double bound_sd = 0.5;     /* units by which a total may hang over its bound, about */

void apmw_fit_row_total(const fit_tree *tree, const double *x, const fit_row *row, unsigned kinds, double *total)
{
    memcpy(total, tree->start, FIT_PARAMS * sizeof *total);
    for (int l = 0; l < FIT_PATH; l++)
        for (int p = 0; row->path[l] >= 0 && (kinds & (1U << l)) && p < FIT_PARAMS; p++)
            total[p] += x[row->path[l] * FIT_PARAMS + p];
}

void apmw_fit_row_predict(const fit_row *row, const double *total, double predicted[2])
{
    for (int m = 0; m < 2; m++) {
        double value = row->simulated[m];
        for (int p = 0; p < FIT_PARAMS; p++)
            value += row->slope[m][p] * (total[p] - row->at[p]);
        predicted[m] = fmax(value, lowest_share * row->simulated[m]);
    }
}

typedef struct system_of {
    size_t n;
    gsl_matrix *h;
    gsl_vector *g, *step;
    int *unknown; /* of each (node, number); -1 = fixed */
} system_of;

static void system_free(system_of *s)
{
    if (s->h)
        gsl_matrix_free(s->h);
    if (s->g)
        gsl_vector_free(s->g);
    if (s->step)
        gsl_vector_free(s->step);
    free(s->unknown);
}

static apmw_status system_make(const fit_tree *tree, system_of *s, apmw_error *err)
{
    memset(s, 0, sizeof *s);
    s->unknown = calloc((size_t)tree->n_nodes * FIT_PARAMS + 1, sizeof *s->unknown);
    if (!s->unknown)
        return apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
    for (int i = 0; i < tree->n_nodes; i++)
        for (int p = 0; p < FIT_PARAMS; p++)
            s->unknown[i * FIT_PARAMS + p] = tree->sd[tree->kind[i]][p] > 0 ? (int)s->n++ : -1;
    if (s->n == 0)
        return apmw_error_set(err, APMW_E_INTERNAL, "serving fit: nothing to fit");
    s->h = gsl_matrix_alloc(s->n, s->n);
    s->g = gsl_vector_alloc(s->n);
    s->step = gsl_vector_alloc(s->n);
    return s->h && s->g && s->step ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "serving fit: out of memory");
}

/* Adds weight * j j' and weight * j r for a residual r with derivative d[p] in every node of the row's path. */
static void add_residual(system_of *s, const fit_row *row, const double *d, double r, double weight)
{
    int at[FIT_PATH * FIT_PARAMS];
    double j[FIT_PATH * FIT_PARAMS];
    int n = 0;
    for (int l = 0; l < FIT_PATH; l++)
        for (int p = 0; row->path[l] >= 0 && p < FIT_PARAMS; p++) {
            int u = s->unknown[row->path[l] * FIT_PARAMS + p];
            if (u >= 0 && d[p] != 0) {
                at[n] = u;
                j[n++] = d[p];
            }
        }
    for (int a = 0; a < n; a++) {
        *gsl_vector_ptr(s->g, (size_t)at[a]) += weight * j[a] * r;
        for (int b = 0; b < n; b++)
            *gsl_matrix_ptr(s->h, (size_t)at[a], (size_t)at[b]) += weight * j[a] * j[b];
    }
}

static void assemble(const fit_tree *tree, int fold, const double *x, system_of *s)
{
    gsl_matrix_set_zero(s->h);
    gsl_vector_set_zero(s->g);
    for (int i = 0; i < tree->n_nodes; i++)
        for (int p = 0; p < FIT_PARAMS; p++) {
            int u = s->unknown[i * FIT_PARAMS + p];
            if (u < 0)
                continue;
            double sd = tree->sd[tree->kind[i]][p];
            gsl_matrix_set(s->h, (size_t)u, (size_t)u, 1 / (sd * sd));
            gsl_vector_set(s->g, (size_t)u, x[i * FIT_PARAMS + p] / (sd * sd));
        }
    for (size_t i = 0; i < tree->n_rows; i++) {
        const fit_row *row = &tree->rows[i];
        double total[FIT_PARAMS], predicted[2], d[FIT_PARAMS];
        if (fold >= 0 && (tree->cells ? row->cell_fold : row->fold) == fold)
            continue;
        apmw_fit_row_total(tree, x, row, FIT_ALL_KINDS, total);
        apmw_fit_row_predict(row, total, predicted);
        for (int m = 0; m < 2; m++) {
            if (isnan(row->ln_measured[m]) || isnan(predicted[m]))
                continue;
            double sd = tree->row_sd[row->queued ? FIT_TPOT : m];
            double r = (log(predicted[m]) - row->ln_measured[m]) / sd;
            double weight = row->weight * (fabs(r) <= tree->huber ? 1 : tree->huber / fabs(r));
            for (int p = 0; p < FIT_PARAMS; p++)
                d[p] = row->slope[m][p] / predicted[m] / sd;
            add_residual(s, row, d, r, weight);
        }
        for (int p = 0; p < FIT_PARAMS; p++) {
            double over = fmin(total[p] - tree->lower[p], 0) + fmax(total[p] - tree->upper[p], 0);
            if (over == 0)
                continue;
            memset(d, 0, sizeof d);
            d[p] = 1 / bound_sd;
            add_residual(s, row, d, over / bound_sd, 1);
        }
    }
}

/* Variance of the sum down to each node, by the path of the first row that has it. */
static void variances(const fit_tree *tree, const system_of *s, double *variance)
{
    gsl_vector *e = gsl_vector_alloc(s->n), *z = gsl_vector_alloc(s->n);
    for (int i = 0; i < tree->n_nodes * FIT_PARAMS; i++)
        variance[i] = (double)NAN;
    for (size_t i = 0; e && z && i < tree->n_rows; i++)
        for (int kind = 0; kind < FIT_PATH; kind++) {
            const fit_row *row = &tree->rows[i];
            for (int p = 0; row->path[kind] >= 0 && p < FIT_PARAMS; p++) {
                double *out = &variance[row->path[kind] * FIT_PARAMS + p];
                if (!isnan(*out))
                    continue;
                gsl_vector_set_zero(e);
                for (int l = 0; l < FIT_PATH; l++) {
                    int u = row->path[l] >= 0 && (tree->down_to[kind] & (1U << l))
                                ? s->unknown[row->path[l] * FIT_PARAMS + p]
                                : -1;
                    if (u >= 0)
                        gsl_vector_set(e, (size_t)u, 1);
                }
                gsl_linalg_cholesky_solve(s->h, e, z);
                *out = 0;
                for (size_t u = 0; u < s->n; u++)
                    *out += gsl_vector_get(e, u) * gsl_vector_get(z, u);
            }
        }
    if (e)
        gsl_vector_free(e);
    if (z)
        gsl_vector_free(z);
}

apmw_status apmw_fit_tree_solve(const fit_tree *tree, int fold, double *x, double *variance, apmw_error *err)
{
    system_of s;
    gsl_set_error_handler_off();
    memset(x, 0, (size_t)tree->n_nodes * FIT_PARAMS * sizeof *x);
    apmw_status status = system_make(tree, &s, err);
    for (int it = 0; status == APMW_OK && it < ITERATIONS; it++) {
        assemble(tree, fold, x, &s);
        if (gsl_linalg_cholesky_decomp1(s.h) != GSL_SUCCESS || gsl_linalg_cholesky_solve(s.h, s.g, s.step) != GSL_SUCCESS) {
            status = apmw_error_set(err, APMW_E_DATA, "serving fit: the system of a tree is not positive definite");
            break;
        }
        for (int i = 0; i < tree->n_nodes * FIT_PARAMS; i++)
            if (s.unknown[i] >= 0)
                x[i] -= gsl_vector_get(s.step, (size_t)s.unknown[i]);
    }
    if (status == APMW_OK && variance)
        variances(tree, &s, variance);
    system_free(&s);
    return status;
}
