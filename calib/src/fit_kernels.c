/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/fit_kernels.h"

#include <gsl/gsl_blas.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

enum { MAX_GRIDS = 48, MAX_POINTS = 6000, BANDS = 4, NUMBERS = 3 };

typedef struct sample {
    double flops, bytes, time_s;
    int band;
} sample;

/* Value of "name=" in a key, or "". */
static void key_text(const char *key, const char *name, char *out, size_t size)
{
    size_t n = strlen(name);
    out[0] = 0;
    for (const char *p = key; p != NULL && *p != 0;) {
        const char *end = strchr(p, ';');
        if (strncmp(p, name, n) == 0 && p[n] == '=') {
            size_t length = (end != NULL ? (size_t)(end - p) : strlen(p)) - n - 1;
            if (length >= size)
                length = size - 1;
            memcpy(out, p + n + 1, length);
            out[length] = 0;
            return;
        }
        p = end != NULL ? end + 1 : NULL;
    }
}

static double key_number(const char *key, const char *name, double missing)
{
    char text[32];
    key_text(key, name, text, sizeof text);
    return text[0] != 0 ? strtod(text, NULL) : missing;
}

static double dtype_bytes(const char *dtype)
{
    if (strstr(dtype, "fp4") != NULL || strstr(dtype, "int4") != NULL)
        return 0.55; /* 4 bits and their block scales */
    if (strstr(dtype, "fp8") != NULL)
        return 1.0;
    return 2.0;
}

static double dtype_peak(const apmw_accelerator_spec *a, const char *dtype)
{
    double peak = a->bf16_flop_per_s;
    if (strcmp(dtype, "nvfp4") == 0 || strncmp(dtype, "w4a4", 4) == 0)
        peak = a->fp4_flop_per_s;
    else if (strstr(dtype, "fp8") != NULL)
        peak = a->fp8_flop_per_s;
    return isfinite(peak) ? peak : a->bf16_flop_per_s;
}

/* FLOPs and bytes of one call. False for operations whose row does not tell its work. */
static bool work_of(const apmw_op_table *t, const char *key, const double *x, double *flops, double *bytes)
{
    char dtype[48];
    if (strcmp(t->op, "gemm") == 0) {
        key_text(key, "gemm_dtype", dtype, sizeof dtype);
        double n = x[0], k = x[1], m = x[2], size = dtype_bytes(dtype);
        *flops = 2.0 * m * n * k;
        *bytes = n * k * size + m * k * size + 2.0 * m * n;
        return true;
    }
    if (strcmp(t->op, "moe") == 0) {
        key_text(key, "moe_dtype", dtype, sizeof dtype);
        double hidden = key_number(key, "hidden_size", 0), inter = key_number(key, "inter_size", 0);
        double topk = key_number(key, "topk", 1), experts = key_number(key, "num_experts", 1);
        double tp = key_number(key, "moe_tp_size", 1), ep = key_number(key, "moe_ep_size", 1), tokens = x[0];
        double matrix = 3.0 * hidden * inter / tp;
        double distinct = experts * (1.0 - pow(1.0 - topk / experts, tokens));
        *flops = 2.0 * tokens * topk / ep * matrix;
        *bytes = distinct / ep * matrix * dtype_bytes(dtype) + 4.0 * tokens * topk / ep * hidden;
        return true;
    }
    if (strcmp(t->op, "context_attention") == 0 || strcmp(t->op, "generation_attention") == 0) {
        key_text(key, "kv_cache_dtype", dtype, sizeof dtype);
        double heads = key_number(key, "num_heads", 1), kv = key_number(key, "num_key_value_heads", 1);
        double dim = key_number(key, "head_dim", 128), window = key_number(key, "window_size", 0);
        double length = x[1] + 1.0;
        double seen = window > 0.0 && window < length ? window : length;
        if (t->op[0] == 'c') {
            *flops = 4.0 * x[0] * heads * dim * (seen < length ? seen * length : length * length / 2.0);
            *bytes = 2.0 * x[0] * length * dim * (2.0 * heads + 2.0 * kv);
        } else {
            *flops = 4.0 * x[0] * heads * dim * seen;
            *bytes = 2.0 * x[0] * seen * kv * dim * dtype_bytes(dtype);
        }
        return true;
    }
    if (strcmp(t->op, "context_mla") == 0 || strcmp(t->op, "generation_mla") == 0) {
        /* 512 latent + 64 rope dimensions; prefill runs as 128 heads of 192 + 128. */
        key_text(key, "kv_cache_dtype", dtype, sizeof dtype);
        double heads = key_number(key, "num_heads", 1), length = x[1] + 1.0;
        if (t->op[0] == 'c') {
            *flops = x[0] * heads * (192.0 + 128.0) * length * length;
            *bytes = 2.0 * x[0] * length * heads * (2.0 * 192.0 + 2.0 * 128.0);
        } else {
            *flops = 2.0 * x[0] * heads * (576.0 + 512.0) * length;
            *bytes = x[0] * length * 576.0 * dtype_bytes(dtype);
        }
        return true;
    }
    if (strncmp(t->op, "comm_nccl", 9) == 0 || strcmp(t->op, "comm_custom_allreduce") == 0) {
        key_text(key, "nccl_dtype", dtype, sizeof dtype);
        double gpus = key_number(key, "num_gpus", 2);
        *flops = 0.0;
        *bytes = x[0] * (strcmp(dtype, "int8") == 0 ? 1.0 : 2.0) * 2.0 * (gpus - 1.0) / gpus;
        return true;
    }
    return false;
}

/* Rows of one family share this. */
static void family_of(const apmw_op_table *t, const char *key, char out[64])
{
    static const char *const names[] = {"gemm_dtype", "moe_dtype", "gemm_type",  "kv_cache_dtype", "bmm_dtype",
                                        "phase",      "op_name",   "nccl_dtype", "kernel_source"};
    char value[APMW_OP_KEY];
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        key_text(key, names[i], value, sizeof value);
        /* What distinguishes long names stands at their end; a name that begins like the operation adds the rest only. */
        const char *tail = value;
        size_t n = strlen(value), same = strlen(t->op);
        if (strncmp(value, t->op, same) == 0)
            tail += value[same] == '_' ? same + 1 : same;
        else if (n > 20)
            tail += n - 20;
        if (tail[0] != 0 && used < 48)
            used += (size_t)snprintf(out + used, 64 - used, "%s%s=%.20s", used > 0 ? ";" : "", names[i], tail);
    }
    if (out[0] == 0)
        apmw_copy(out, 64, "all");
}

/* --- the form --- */

typedef struct problem {
    const sample *samples;
    const size_t *use;
    size_t n;
    double peak, bandwidth;
} problem;

static double form_time(const problem *p, const double *theta, const sample *s)
{
    double compute = s->flops / (exp(theta[1]) * p->peak), stream = s->bytes / (exp(theta[2]) * p->bandwidth);
    return exp(theta[0]) + (compute > stream ? compute : stream);
}

static int residuals(const gsl_vector *theta, void *data, gsl_vector *out)
{
    const problem *p = data;
    double v[NUMBERS];
    for (size_t i = 0; i < NUMBERS; i++)
        v[i] = gsl_vector_get(theta, i);
    for (size_t i = 0; i < p->n; i++) {
        const sample *s = &p->samples[p->use[i]];
        gsl_vector_set(out, i, log(form_time(p, v, s) / s->time_s));
    }
    return GSL_SUCCESS;
}

static bool fit_form(problem *p, double theta[NUMBERS], double covariance[NUMBERS][NUMBERS])
{
    if (p->n < 8)
        return false;
    gsl_multifit_nlinear_parameters options = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_workspace *w = gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &options, p->n, NUMBERS);
    gsl_matrix *cov = gsl_matrix_alloc(NUMBERS, NUMBERS);
    gsl_vector *start = gsl_vector_alloc(NUMBERS);
    bool ok = w != NULL && cov != NULL && start != NULL;
    if (ok) {
        double shortest = (double)INFINITY;
        for (size_t i = 0; i < p->n; i++)
            shortest = fmin(shortest, p->samples[p->use[i]].time_s);
        gsl_vector_set(start, 0, log(shortest));
        gsl_vector_set(start, 1, log(0.6));
        gsl_vector_set(start, 2, log(0.7));
        gsl_multifit_nlinear_fdf fdf = {.f = residuals, .n = p->n, .p = NUMBERS, .params = p};
        int info = 0;
        ok = gsl_multifit_nlinear_init(start, &fdf, w) == GSL_SUCCESS;
        /* Running out of iterations leaves the best point found, which the held-out error then judges. */
        if (ok)
            gsl_multifit_nlinear_driver(100, 1e-8, 1e-8, 1e-8, NULL, NULL, &info, w);
    }
    if (ok) {
        double sum = 0.0;
        gsl_vector *f = gsl_multifit_nlinear_residual(w), *x = gsl_multifit_nlinear_position(w);
        gsl_blas_ddot(f, f, &sum);
        gsl_multifit_nlinear_covar(gsl_multifit_nlinear_jac(w), 0.0, cov);
        for (size_t i = 0; i < NUMBERS; i++) {
            theta[i] = gsl_vector_get(x, i);
            ok = ok && isfinite(theta[i]);
            for (size_t j = 0; j < NUMBERS; j++)
                covariance[i][j] = gsl_matrix_get(cov, i, j) * sum / (double)(p->n - NUMBERS);
        }
    }
    gsl_multifit_nlinear_free(w);
    gsl_matrix_free(cov);
    gsl_vector_free(start);
    return ok;
}

/* --- one family --- */

typedef struct family {
    char name[64];
    const apmw_op_group *grids[MAX_GRIDS];
    size_t n_grids, n_seen;
} family;

/* Rows of a grid, the band of each by its place on the last varying axis within the grid's range. A grid with more rows than
 * `room` gives whole lists of the last axis at equal strides, so that every part of the outer axes is there. */
static size_t grid_samples(const apmw_op_table *t, const apmw_op_group *g, sample *out, double *x, size_t room,
                           bool *has_work)
{
    size_t n = apmw_op_group_rows(g), kept = 0, list = 0, stride = (n + room - 1) / room;
    double lo = 0.0, hi = 0.0, before[APMW_OP_AXES];
    int last = t->n_axes;
    do {
        last--; /* the last axis that varies: decode rows of one token have none of tokens */
        apmw_op_group_range(g, last, &lo, &hi);
    } while (last > 0 && !(hi > lo));
    double span = log((hi + 1.0) / (lo + 1.0));
    for (size_t i = 0; i < n && kept < room; i++) {
        double *xi = x + kept * APMW_OP_AXES;
        sample *s = &out[kept];
        apmw_op_group_row(g, i, xi, &s->time_s);
        for (int a = 0; i > 0 && a < last; a++) {
            if (xi[a] != before[a]) {
                list++;
                break;
            }
        }
        memcpy(before, xi, sizeof before);
        if (last > 0 && list % stride != 0)
            continue;
        s->flops = s->bytes = 0.0;
        *has_work = work_of(t, apmw_op_group_key(g), xi, &s->flops, &s->bytes);
        double at = span > 0.0 ? log((xi[last] + 1.0) / (lo + 1.0)) / span : 0.0;
        int band = (int)(at * BANDS);
        s->band = band < 0 ? 0 : band >= BANDS ? BANDS - 1 : band;
        kept++;
    }
    return kept;
}

/* Errors of a table that lacks one band of one grid, appended to errors. */
static apmw_status table_errors(const apmw_op_table *t, const sample *samples, const double *x, size_t n, double *errors,
                                size_t *n_errors, apmw_error *err)
{
    double *keep_x = malloc((n * (size_t)t->n_axes + 1) * sizeof *keep_x), *keep_t = malloc((n + 1) * sizeof *keep_t);
    apmw_status status = keep_x != NULL && keep_t != NULL ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    const char *axes[APMW_OP_AXES];
    for (int a = 0; a < t->n_axes; a++)
        axes[a] = t->axis[a];
    for (int band = 0; status == APMW_OK && band < BANDS; band++) {
        size_t kept = 0, left = 0;
        for (size_t i = 0; i < n; i++) {
            if (samples[i].band == band) {
                left++;
                continue;
            }
            for (int a = 0; a < t->n_axes; a++)
                keep_x[kept * (size_t)t->n_axes + (size_t)a] = x[i * APMW_OP_AXES + (size_t)a];
            keep_t[kept++] = samples[i].time_s;
        }
        if (left == 0 || kept < 2)
            continue;
        apmw_op_table *part = apmw_op_table_create(t->op, t->engine, t->version, t->n_axes, axes);
        status = part != NULL ? apmw_op_table_add_group(part, "part", kept, keep_x, keep_t, false, err)
                              : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        for (size_t i = 0; status == APMW_OK && i < n; i++) {
            if (samples[i].band == band) {
                bool outside = false;
                double guess = apmw_op_group_time(apmw_op_table_group_at(part, 0), x + i * APMW_OP_AXES, &outside);
                errors[(*n_errors)++] = fabs(guess / samples[i].time_s - 1.0);
            }
        }
        apmw_op_table_free(part);
    }
    free(keep_x);
    free(keep_t);
    return status;
}

/* A side of the roofline that no row lies on has no measured efficiency: where the fit left it says nothing. */
static void forget_unseen(const problem *p, const double theta[NUMBERS], apmw_op_fit *out)
{
    size_t on_side[2] = {0, 0};
    for (size_t i = 0; i < p->n; i++) {
        const sample *s = &p->samples[p->use[i]];
        double compute = s->flops / (exp(theta[1]) * p->peak), stream = s->bytes / (exp(theta[2]) * p->bandwidth);
        on_side[compute > stream ? 0 : 1]++;
    }
    for (size_t side = 0; side < 2; side++) {
        if (on_side[side] > 0)
            continue;
        *(side == 0 ? &out->eff_flop : &out->eff_byte) = (double)NAN;
        for (size_t i = 0; i < NUMBERS; i++)
            out->covariance[i][side + 1] = out->covariance[side + 1][i] = (double)NAN;
    }
}

static apmw_status fit_family(const apmw_op_table *t, const family *f, const apmw_accelerator_spec *a, apmw_op_fit *out,
                              apmw_error *err)
{
    sample *samples = malloc(MAX_POINTS * sizeof *samples);
    double *x = malloc(MAX_POINTS * APMW_OP_AXES * sizeof *x), *errors = malloc(2 * MAX_POINTS * sizeof *errors);
    size_t *use = malloc(MAX_POINTS * sizeof *use);
    apmw_status status = samples != NULL && x != NULL && errors != NULL && use != NULL
                             ? APMW_OK
                             : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    size_t n = 0, n_errors = 0;
    bool has_work = false;
    for (size_t g = 0; status == APMW_OK && g < f->n_grids && n < MAX_POINTS; g++) {
        size_t room = (MAX_POINTS - n) / (f->n_grids - g);
        size_t added = grid_samples(t, f->grids[g], samples + n, x + n * APMW_OP_AXES, room, &has_work);
        status = table_errors(t, samples + n, x + n * APMW_OP_AXES, added, errors, &n_errors, err);
        n += added;
    }
    if (status == APMW_OK) {
        char dtype[48];
        const char *key = apmw_op_group_key(f->grids[0]);
        key_text(key, strcmp(t->op, "moe") == 0 ? "moe_dtype" : "gemm_dtype", dtype, sizeof dtype);
        bool comm = strncmp(t->op, "comm_", 5) == 0;
        problem p = {.samples = samples, .use = use, .peak = dtype_peak(a, dtype)};
        p.bandwidth = comm ? a->scaleup_bytes_per_s : a->hbm_bytes_per_s;
        apmw_copy(out->family, sizeof out->family, f->name);
        out->n_points = (int)n;
        out->t0_s = out->eff_flop = out->eff_byte = out->cv_form = (double)NAN;
        out->cv_table = apmw_quantile(errors, n_errors, 0.5);
        double theta[NUMBERS], ignored[NUMBERS][NUMBERS];
        for (size_t i = 0; i < n; i++)
            use[i] = i;
        p.n = n;
        if (has_work && fit_form(&p, theta, out->covariance)) {
            out->t0_s = exp(theta[0]);
            out->eff_flop = exp(theta[1]);
            out->eff_byte = exp(theta[2]);
            forget_unseen(&p, theta, out);
            n_errors = 0;
            for (int band = 0; band < BANDS; band++) {
                p.n = 0;
                for (size_t i = 0; i < n; i++) {
                    if (samples[i].band != band)
                        use[p.n++] = i;
                }
                if (p.n == n || !fit_form(&p, theta, ignored))
                    continue;
                for (size_t i = 0; i < n; i++) {
                    if (samples[i].band == band)
                        errors[n_errors++] = fabs(form_time(&p, theta, &samples[i]) / samples[i].time_s - 1.0);
                }
            }
            out->cv_form = apmw_quantile(errors, n_errors, 0.5);
        }
        bool form = isfinite(out->cv_form) && isfinite(out->cv_table) && out->cv_form < out->cv_table;
        apmw_copy(out->chosen, sizeof out->chosen, form ? "form" : "table");
    }
    free(samples);
    free(x);
    free(errors);
    free(use);
    return status;
}

/* Families of a table in order of appearance; grids beyond the limit replace earlier ones so that those kept lie at
 * equal strides over all. */
static size_t collect(const apmw_op_table *t, family *families, size_t room)
{
    size_t n = 0, *total = calloc(room, sizeof *total);
    for (int pass = 0; total != NULL && pass < 2; pass++) {
        for (size_t i = 0; i < t->n_groups; i++) {
            char name[64];
            const apmw_op_group *g = apmw_op_table_group_at(t, i);
            family_of(t, apmw_op_group_key(g), name);
            size_t f = 0;
            while (f < n && strcmp(families[f].name, name) != 0)
                f++;
            if (f == n) {
                if (n == room)
                    continue;
                memset(&families[n], 0, sizeof families[n]);
                apmw_copy(families[n].name, sizeof families[n].name, name);
                n++;
            }
            if (pass == 0) {
                total[f]++;
                continue;
            }
            size_t seen = families[f].n_seen++;
            size_t stride = (total[f] + MAX_GRIDS - 1) / MAX_GRIDS;
            if (seen % stride == 0 && families[f].n_grids < MAX_GRIDS)
                families[f].grids[families[f].n_grids++] = g;
        }
    }
    free(total);
    return n;
}

apmw_status apmw_fit_kernels(apmw_hwmodel *model, const apmw_accelerator_spec *accelerator, apmw_error *err)
{
    enum { ROOM = 64 };
    gsl_set_error_handler_off();
    family *families = malloc(ROOM * sizeof *families);
    apmw_status status = families != NULL ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; status == APMW_OK && i < model->n_tables; i++) {
        const apmw_op_table *t = model->tables[i];
        size_t n = collect(t, families, ROOM);
        apmw_op_fit *fits = realloc(model->fits, (model->n_fits + n + 1) * sizeof *fits);
        if (fits != NULL)
            model->fits = fits;
        size_t *tables = realloc(model->fit_table, (model->n_fits + n + 1) * sizeof *tables);
        if (tables != NULL)
            model->fit_table = tables;
        if (fits == NULL || tables == NULL)
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        for (size_t f = 0; status == APMW_OK && f < n; f++) {
            memset(&model->fits[model->n_fits], 0, sizeof *model->fits);
            model->fit_table[model->n_fits] = i;
            status = fit_family(t, &families[f], accelerator, &model->fits[model->n_fits], err);
            if (status == APMW_OK)
                model->n_fits++;
        }
    }
    free(families);
    return status;
}
