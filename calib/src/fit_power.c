/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Robust fit of the power form and its delete-one-group judgement. The unknowns are the logarithms of the scales,
 * because scales are positive and their uncertainty is a factor. */
#include "apmw/fit_power.h"
#include <gsl/gsl_blas.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FREE = 3, HUBER_ROUNDS = 12, MAX_ITERATIONS = 200 };
static const double huber_k = 1.345; /* 95 % efficiency on normal residuals; Huber 1981, section 4.5 */
static const double mad_to_sd = 1.4826;

typedef struct problem {
    const apmw_power_row *rows;
    const size_t *use;
    size_t n;
    apmw_power_params base;
    unsigned free_parameters;
} problem;

static size_t count_free(unsigned mask)
{
    return (size_t)((mask & APMW_POWER_FREE_A) != 0) + (size_t)((mask & APMW_POWER_FREE_B) != 0) +
           (size_t)((mask & APMW_POWER_FREE_TOP) != 0);
}

static void put(const problem *p, const double *x, apmw_power_params *out)
{
    size_t i = 0;
    *out = p->base;
    if (p->free_parameters & APMW_POWER_FREE_A) {
        double a = exp(x[i++]);
        *(out->use_bandwidth ? &out->a_bw : &out->a_duty) = a;
    }
    if (p->free_parameters & APMW_POWER_FREE_B)
        out->b = exp(x[i++]);
    if (p->free_parameters & APMW_POWER_FREE_TOP)
        out->pt = out->p0 + exp(x[i++]);
}

static void take(const problem *p, double *x)
{
    size_t i = 0;
    if (p->free_parameters & APMW_POWER_FREE_A)
        x[i++] = log(p->base.use_bandwidth ? p->base.a_bw : p->base.a_duty);
    if (p->free_parameters & APMW_POWER_FREE_B)
        x[i++] = log(p->base.b);
    if (p->free_parameters & APMW_POWER_FREE_TOP)
        x[i++] = log(p->base.pt - p->base.p0);
}

static double predicted(const apmw_power_params *params, const apmw_power_use *use)
{
    return apmw_power_step_w(params, use->duty, use->bw_util, use->flop_util);
}

static int residuals(const gsl_vector *x, void *data, gsl_vector *f)
{
    const problem *p = data;
    apmw_power_params params;
    put(p, x->data, &params);
    for (size_t i = 0; i < p->n; i++) {
        const apmw_power_row *row = &p->rows[p->use[i]];
        gsl_vector_set(f, i, log(predicted(&params, &row->measured) / row->watts));
    }
    return GSL_SUCCESS;
}

static double robust_sd(const gsl_vector *f, double *scratch)
{
    for (size_t i = 0; i < f->size; i++)
        scratch[i] = fabs(gsl_vector_get(f, i));
    return mad_to_sd * apmw_quantile(scratch, f->size, 0.5);
}

/* One robust fit from p->base; the solution goes to x and, if asked for, the covariance of least squares. */
static apmw_status solve(const problem *p, double *x, double covariance[MAX_FREE][MAX_FREE], apmw_error *err)
{
    size_t n_free = count_free(p->free_parameters);
    apmw_status status = APMW_OK;
    gsl_multifit_nlinear_parameters how = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_workspace *w = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &how, p->n, n_free);
    gsl_vector *weights = gsl_vector_alloc(p->n), *start = gsl_vector_alloc(n_free);
    gsl_matrix *cov = gsl_matrix_alloc(n_free, n_free);
    double *scratch = calloc(p->n, sizeof *scratch);
    if (!w || !weights || !start || !cov || !scratch) {
        status = apmw_error_set(err, APMW_E_NOMEM, "power fit: out of memory");
        goto done;
    }
    problem copy = *p;
    gsl_multifit_nlinear_fdf fdf = {.f = residuals, .n = p->n, .p = n_free, .params = &copy};
    gsl_vector_set_all(weights, 1.0);
    take(p, start->data);
    for (int round = 0; round < HUBER_ROUNDS; round++) {
        int info = 0;
        if (gsl_multifit_nlinear_winit(start, weights, &fdf, w) != GSL_SUCCESS) {
            status = apmw_error_set(err, APMW_E_DATA, "power fit: the start gives no finite power");
            goto done;
        }
        int rc = gsl_multifit_nlinear_driver(MAX_ITERATIONS, 1e-10, 1e-10, 0.0, NULL, NULL, &info, w);
        if (rc != GSL_SUCCESS && rc != GSL_ENOPROG && rc != GSL_EMAXITER) {
            status = apmw_error_set(err, APMW_E_DATA, "power fit: %s", gsl_strerror(rc));
            goto done;
        }
        gsl_vector_memcpy(start, gsl_multifit_nlinear_position(w));
        /* Weights from plain residuals: the workspace holds weighted ones. */
        gsl_vector *f = gsl_multifit_nlinear_residual(w);
        residuals(start, &copy, f);
        double sd = fmax(robust_sd(f, scratch), 1e-9);
        for (size_t i = 0; i < p->n; i++) {
            double r = fabs(gsl_vector_get(f, i));
            gsl_vector_set(weights, i, r <= huber_k * sd ? 1.0 : huber_k * sd / r);
        }
    }
    for (size_t j = 0; j < n_free; j++) {
        x[j] = gsl_vector_get(start, j);
        if (!isfinite(x[j]))
            status = apmw_error_set(err, APMW_E_DATA, "power fit: no finite solution");
    }
    if (status == APMW_OK && covariance) {
        double chi = 0;
        gsl_vector *f = gsl_multifit_nlinear_residual(w);
        for (size_t i = 0; i < p->n; i++)
            chi += gsl_vector_get(weights, i) * gsl_vector_get(f, i) * gsl_vector_get(f, i);
        double variance = p->n > n_free ? chi / (double)(p->n - n_free) : (double)NAN;
        gsl_multifit_nlinear_covar(gsl_multifit_nlinear_jac(w), 0.0, cov);
        for (size_t i = 0; i < n_free; i++)
            for (size_t j = 0; j < n_free; j++)
                covariance[i][j] = variance * gsl_matrix_get(cov, i, j);
    }
done:
    gsl_multifit_nlinear_free(w);
    if (weights)
        gsl_vector_free(weights);
    if (start)
        gsl_vector_free(start);
    if (cov)
        gsl_matrix_free(cov);
    free(scratch);
    return status;
}

/* Sets group_of[i] to the number of row i's group among those used, in order of first appearance. */
static size_t number_groups(const problem *p, size_t *group_of, bool by_config)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        const apmw_power_row *row = &p->rows[p->use[i]];
        const char *name = by_config ? row->config : row->group;
        group_of[i] = n;
        for (size_t j = 0; j < i; j++) {
            const apmw_power_row *other = &p->rows[p->use[j]];
            if (strcmp(name, by_config ? other->config : other->group) == 0) {
                group_of[i] = group_of[j];
                break;
            }
        }
        if (group_of[i] == n)
            n++;
    }
    return n;
}

/* Spread of left-out residuals between configurations and inside them: what an interval for a new deployment needs. */
static void spread(const problem *p, const double *left_out, size_t *config_of, apmw_power_fit *out)
{
    size_t n_configs = number_groups(p, config_of, true);
    double between = 0, within = 0, dof = 0;
    for (size_t c = 0; c < n_configs; c++) {
        double sum = 0, squares = 0, n = 0;
        for (size_t i = 0; i < p->n; i++)
            if (config_of[i] == c) {
                sum += left_out[i];
                squares += left_out[i] * left_out[i];
                n += 1;
            }
        double mean = sum / n;
        between += mean * mean; /* around zero: a common shift is an error of the prediction, too */
        within += squares - n * mean * mean;
        dof += n - 1;
    }
    out->sd_config = sqrt(between / (double)n_configs);
    out->sd_within = dof > 0 ? sqrt(fmax(within, 0) / dof) : (double)NAN;
}

static apmw_status leave_groups_out(const problem *p, const double *x, apmw_power_fit *out, apmw_error *err)
{
    size_t n_free = count_free(p->free_parameters);
    apmw_status status = APMW_OK;
    size_t *group_of = calloc(p->n, sizeof *group_of), *kept = calloc(p->n, sizeof *kept);
    double *left_out = calloc(p->n, sizeof *left_out), *errors = calloc(p->n, sizeof *errors);
    double *solutions = NULL;
    if (!group_of || !kept || !left_out || !errors) {
        status = apmw_error_set(err, APMW_E_NOMEM, "power fit: out of memory");
        goto done;
    }
    size_t n_groups = number_groups(p, group_of, false);
    out->n_groups = n_groups;
    solutions = calloc(n_groups * MAX_FREE, sizeof *solutions);
    if (!solutions) {
        status = apmw_error_set(err, APMW_E_NOMEM, "power fit: out of memory");
        goto done;
    }
    if (n_groups < 2) {
        out->left_out_median = out->left_out_median_abs = out->left_out_p90_abs = NAN;
        for (size_t i = 0; i < p->n; i++)
            left_out[i] = log(predicted(&out->params, &p->rows[p->use[i]].measured) / p->rows[p->use[i]].watts);
        spread(p, left_out, group_of, out);
        goto done;
    }
    for (size_t g = 0; g < n_groups; g++) {
        problem sub = *p;
        sub.n = 0;
        for (size_t i = 0; i < p->n; i++)
            if (group_of[i] != g)
                kept[sub.n++] = p->use[i];
        sub.use = kept;
        if (sub.n < n_free)
            memcpy(&solutions[g * MAX_FREE], x, n_free * sizeof *x);
        else
            status = solve(&sub, &solutions[g * MAX_FREE], NULL, err);
        if (status != APMW_OK)
            goto done;
        apmw_power_params params;
        put(p, &solutions[g * MAX_FREE], &params);
        for (size_t i = 0; i < p->n; i++)
            if (group_of[i] == g)
                left_out[i] = log(predicted(&params, &p->rows[p->use[i]].measured) / p->rows[p->use[i]].watts);
    }
    for (size_t i = 0; i < p->n; i++)
        errors[i] = expm1(left_out[i]);
    out->left_out_median = apmw_quantile(errors, p->n, 0.5);
    for (size_t i = 0; i < p->n; i++)
        errors[i] = fabs(expm1(left_out[i]));
    out->left_out_median_abs = apmw_quantile(errors, p->n, 0.5);
    out->left_out_p90_abs = apmw_quantile(errors, p->n, 0.9);
    spread(p, left_out, kept, out);
    /* Delete-one-group jackknife of (ln a, ln b): (G-1)/G sum (x_g - mean)(x_g - mean)'. */
    bool both = (p->free_parameters & APMW_POWER_FREE_A) && (p->free_parameters & APMW_POWER_FREE_B);
    for (size_t i = 0; both && i < 2; i++)
        for (size_t j = 0; j < 2; j++) {
            double mi = 0, mj = 0, sum = 0, n = (double)n_groups;
            for (size_t g = 0; g < n_groups; g++) {
                mi += solutions[g * MAX_FREE + i] / n;
                mj += solutions[g * MAX_FREE + j] / n;
            }
            for (size_t g = 0; g < n_groups; g++)
                sum += (solutions[g * MAX_FREE + i] - mi) * (solutions[g * MAX_FREE + j] - mj);
            out->params.covariance[i][j] = (n - 1) / n * sum;
        }
done:
    free(group_of);
    free(kept);
    free(left_out);
    free(errors);
    free(solutions);
    return status;
}

apmw_status apmw_fit_power(const apmw_power_row *rows, const size_t *use, size_t n_use,
                           const apmw_power_params *start, unsigned free_parameters, apmw_power_fit *out,
                           apmw_error *err)
{
    size_t n_free = count_free(free_parameters);
    memset(out, 0, sizeof *out);
    out->params = *start;
    if (n_free == 0)
        return apmw_error_set(err, APMW_E_INTERNAL, "power fit: no free parameter");
    size_t *finite = calloc(n_use + 1, sizeof *finite);
    if (!finite)
        return apmw_error_set(err, APMW_E_NOMEM, "power fit: out of memory");
    problem p = {.rows = rows, .use = finite, .base = *start, .free_parameters = free_parameters};
    for (size_t i = 0; i < n_use; i++) {
        const apmw_power_row *row = &rows[use[i]];
        double first = start->use_bandwidth ? row->measured.bw_util : row->measured.duty;
        if (isfinite(first) && isfinite(row->measured.flop_util) && row->watts > 0)
            finite[p.n++] = use[i];
    }
    apmw_status status = APMW_OK;
    if (p.n < n_free)
        status = apmw_error_set(err, APMW_E_DATA, "power fit: %zu usable rows for %zu numbers", p.n, n_free);
    gsl_set_error_handler_off();
    double x[MAX_FREE] = {0}, covariance[MAX_FREE][MAX_FREE] = {{0}};
    if (status == APMW_OK)
        status = solve(&p, x, covariance, err);
    if (status == APMW_OK) {
        put(&p, x, &out->params);
        out->n_rows = p.n;
        if ((free_parameters & APMW_POWER_FREE_A) && (free_parameters & APMW_POWER_FREE_B))
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++)
                    out->params.covariance[i][j] = covariance[i][j];
        double sum = 0;
        for (size_t i = 0; i < p.n; i++) {
            const apmw_power_row *row = &rows[finite[i]];
            double r = log(predicted(&out->params, &row->measured) / row->watts);
            sum += r * r;
        }
        out->rms = sqrt(sum / (double)p.n);
        status = leave_groups_out(&p, x, out, err);
        out->params.sd_config = out->sd_config;
        out->params.heldout_median_abs = out->left_out_median_abs;
    }
    free(finite);
    return status;
}
