/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Samples the chosen rows once, when a deployment is compiled: a step then costs a few interpolations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "compose_cost.h"

/* Token counts at which the tables have steps (tile and wave edges of the measured GEMM and MoE grids). */
static const int measured_tokens[] = {1,   2,   4,   8,   12,  16,  17,  32,  33,  48,   64,   65,   80,   96,   112,
                                      128, 129, 160, 192, 224, 256, 257, 320, 384, 512,  513,  768,  1024, 1280, 1536,
                                      2048, 2560, 3072, 4096, 6144, 8192, 12288, 16384, 20480, 32768, 65536};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int unique(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (m == 0 || x[i] > x[m - 1]) {
            x[m++] = x[i];
        }
    }
    return m;
}

static int octaves(double *x, int capacity, double first, double last, double per_octave)
{
    int n = 0;
    for (; n < capacity; n++) {
        x[n] = first * exp2(n / per_octave);
        if (x[n] >= last) {
            n++;
            break;
        }
    }
    return n;
}

void apmw_composed_cost_knots(composed_cost *c)
{
    int n = 0;
    for (size_t i = 0; i < sizeof measured_tokens / sizeof *measured_tokens; i++) {
        c->token[n++] = measured_tokens[i];
    }
    for (int i = 1; i < 32; i++) {
        c->token[n++] = i;
    }
    for (double x = 32; x < 600000 && n < TOKEN_KNOTS; x *= 1.07) {
        c->token[n++] = floor(x);
    }
    c->n_tokens = unique(c->token, n);
    n = 0;
    for (int i = 1; i < 8; i++) {
        c->batch[n++] = i;
    }
    for (double x = 8; x <= 8192 && n < BATCH_ROWS; x *= exp2(0.25)) {
        c->batch[n++] = floor(x + 0.5);
    }
    c->n_batch = unique(c->batch, n);
    for (int i = 0; i < c->n_batch; i++) {
        c->log_batch[i] = log(c->batch[i]);
    }
    c->n_ctx = octaves(c->ctx, CTX_KNOTS, 1, 2097152, 4);
    c->n_length = octaves(c->length, LENGTH_KNOTS, 1, 2097152, 4);
}

/* Without branches that a processor would have to guess: half of all evaluations of a step end here. */
int apmw_knot_find(const double *x, int n, double at)
{
    int lo = 0;
    for (int length = n - 1; length > 1;) {
        const int half = length / 2;
        lo = x[lo + half] <= at ? lo + half : lo;
        length -= half;
    }
    return lo;
}

/* Isotonic least squares of ln y (pool adjacent violators): measured rows are not monotone in size, a running
 * maximum would keep every outlier above, this keeps the level. */
static void make_monotone(double *y, int n)
{
    double value[TOKEN_KNOTS];
    int weight[TOKEN_KNOTS], m = 0;
    for (int i = 0; i < n; i++) {
        value[m] = log(fmax(y[i], 1e-15));
        weight[m++] = 1;
        while (m > 1 && value[m - 2] > value[m - 1]) {
            int w = weight[m - 2] + weight[m - 1];
            value[m - 2] = (value[m - 2] * weight[m - 2] + value[m - 1] * weight[m - 1]) / w;
            weight[m - 2] = w;
            m--;
        }
    }
    int at = 0;
    for (int i = 0; i < m; i++) {
        double v = exp(value[i]);
        for (int j = 0; j < weight[i]; j++) {
            y[at++] = v;
        }
    }
}

static double experts_read(const compose_op *op, double tokens)
{
    return op->hit_share > 0 ? op->experts_per_rank * -expm1(tokens * log1p(-op->hit_share)) : 0;
}

double apmw_compose_op_time(const compose_op *op, const double var[QUERY_VARS], bool *outside)
{
    if (!op->is_attention) {
        if (!op->row.main.group) {
            return op->form_fixed_s + op->form_per_arg_s * var[0] + op->form_per_expert_s * experts_read(op, var[0]);
        }
        double t = apmw_row_time(&op->row, var, outside);
        if (op->saved_limit > 0) { /* narrower weights save, wider ones (negative) add, at most their ratio */
            double u = t - experts_read(op, var[0]) * op->saved_per_expert_s;
            t = op->saved_limit < 1 ? fmax(u, t * op->saved_limit) : fmin(u, t * op->saved_limit);
        }
        return fmax(t, op->floor_per_arg_s * var[0]);
    }
    if (op->row.main.group) {
        return apmw_row_time(&op->row, var, outside);
    }
    double units = op->attn == ATTN_DECODE ? apmw_terms_at(op->term, op->n_terms, var[1])
                                           : apmw_compose_terms_integral(op->term, op->n_terms, 0, var[1]);
    return op->form_fixed_s + var[0] * (op->form_per_arg_s + op->form_per_unit_s * units);
}

static void sample_curve(composed_cost *c, const compose_op *op)
{
    token_curve *curve = &c->curve[op->arg];
    double y[TOKEN_KNOTS];
    curve->used = true;
    for (int i = 0; i < c->n_tokens; i++) {
        double var[QUERY_VARS] = {c->token[i], 0, 0};
        bool outside = false;
        y[i] = apmw_compose_op_time(op, var, &outside);
        curve->outside[i] = curve->outside[i] || outside;
    }
    make_monotone(y, c->n_tokens);
    for (int i = 0; i < c->n_tokens; i++) {
        curve->y[i] += op->count * y[i];
    }
}

static void sample_decode(composed_cost *c, const compose_op *op)
{
    decode_grid *g = &c->decode[op->kv_kind];
    if (!g->used) {
        g->used = true;
        for (int b = 0; b < c->n_batch; b++) {
            g->ctx_hi[b] = INFINITY;
        }
    }
    bool capped = c->base.kv_cap[op->kv_kind] != INT64_MAX;
    for (int b = 0; b < c->n_batch; b++) {
        double inside = 0, t[CTX_KNOTS];
        for (int i = 0; i < c->n_ctx; i++) {
            /* A window's context stops at its cap, where the rows of longer contexts belong. */
            double cap = (double)c->base.kv_cap[op->kv_kind];
            double ctx = capped && c->ctx[i] >= cap ? fmax(2048, cap) : c->ctx[i];
            double var[QUERY_VARS] = {c->batch[b], ctx, 0};
            bool outside = false;
            t[i] = apmw_compose_op_time(op, var, &outside);
            inside = outside ? inside : c->ctx[i];
        }
        make_monotone(t, c->n_ctx);
        for (int i = 0; i < c->n_ctx; i++) {
            g->t[b][i] += op->count * t[i];
        }
        if (inside < g->ctx_hi[b] && !(capped && inside >= (double)c->base.kv_cap[op->kv_kind])) {
            g->ctx_hi[b] = inside;
        }
    }
}

static double prompt_rows(int i)
{
    return exp2(i);
}

/* Adds seconds to cells that hold ln seconds. */
static double ln_add(bool first, double ln_old, double seconds)
{
    return log((first ? 0 : exp(ln_old)) + fmax(seconds, 1e-12));
}

/* Beyond the last measured length attention goes on at the rate it has reached: as the square of the length when it
 * grows faster than length^1.25 over the last octave. The line of the last two points would promise ever higher rates. */
static void keep_rate(const double *length, double *t, int last, int n)
{
    const int octave = 4;
    if (last < octave || log2(t[last] / t[last - octave]) < 1.25) {
        return;
    }
    for (int i = last + 1; i < n; i++) {
        t[i] = t[last] * length[i] / length[last] * length[i] / length[last];
    }
}

static void sample_prompts(composed_cost *c, const compose_op *op)
{
    bool linear = op->attn == ATTN_PREFILL_LINEAR;
    double(*grid)[LENGTH_KNOTS] = linear ? c->linear : c->plain;
    bool *has = linear ? &c->has_linear : &c->has_plain;
    double inside = 0;
    for (int b = 0; b < PROMPT_ROWS; b++) {
        double t[LENGTH_KNOTS];
        int last = 0;
        for (int i = 0; i < c->n_length; i++) {
            double var[QUERY_VARS] = {prompt_rows(b), c->length[i], 0};
            bool outside = false;
            t[i] = apmw_compose_op_time(op, var, &outside);
            last = outside ? last : i;
        }
        inside = b == 0 ? c->length[last] : inside;
        make_monotone(t, c->n_length);
        keep_rate(c->length, t, last, c->n_length);
        for (int i = 0; i < c->n_length; i++) {
            grid[b][i] = ln_add(!*has, grid[b][i], op->count * t[i]);
        }
    }
    *has = true;
    c->length_hi = fmin(c->length_hi, inside);
}

static double past_knot(int i)
{
    return i == 0 ? 0 : 64 * exp2(i);
}

/* Largest prefix that is measured for all prompt lengths, on the axis that takes the third argument. At the
 * end of a 1M context (1,048,575 tokens) only prompts of a few tokens are. */
static double measured_past(const compose_op *op)
{
    double lo = 0, hi = INFINITY;
    for (int a = 0; a < op->row.main.n_axes; a++) {
        if (op->row.main.var[a] == 2) {
            apmw_op_group_range(op->row.main.group, a, &lo, &hi);
        }
    }
    return fmin(hi, 524288);
}

/* Time at a prefix; beyond the measured ones it goes on along the line of the last octave, not of the last two points,
 * which lie 5 % apart in these tables. */
static double prefix_time(const compose_op *op, double prompts, double fresh, double past, double measured, bool *outside)
{
    double at[QUERY_VARS] = {prompts, fresh, fmin(past, measured)}, half[QUERY_VARS] = {prompts, fresh, measured / 2};
    double t = apmw_row_time(&op->row, at, outside);
    if (past > measured) {
        double slope = (t - apmw_row_time(&op->row, half, outside)) / (measured / 2);
        t += fmax(slope, 0) * (past - measured);
        *outside = true;
    }
    return t;
}

static void sample_prefix(composed_cost *c, const compose_op *op)
{
    double measured = measured_past(op);
    double fresh_hi = 0, past_hi = 0;
    for (int b = 0; b < PROMPT_ROWS; b++) {
        double t[FRESH_KNOTS][PAST_KNOTS];
        for (int i = 0; i < FRESH_KNOTS; i++) {
            for (int j = 0; j < PAST_KNOTS; j++) {
                bool outside = false;
                t[i][j] = prefix_time(op, prompt_rows(b), exp2(i), past_knot(j), measured, &outside);
                if (b == 0 && !outside) {
                    fresh_hi = fmax(fresh_hi, exp2(i));
                    past_hi = fmax(past_hi, past_knot(j));
                }
            }
            make_monotone(t[i], PAST_KNOTS);
        }
        for (int j = 0; j < PAST_KNOTS; j++) {
            double column[FRESH_KNOTS];
            for (int i = 0; i < FRESH_KNOTS; i++) {
                column[i] = t[i][j];
            }
            make_monotone(column, FRESH_KNOTS);
            for (int i = 0; i < FRESH_KNOTS; i++) {
                c->prefix[b][i][j] = ln_add(!c->has_prefix, c->prefix[b][i][j], op->count * column[i]);
            }
        }
    }
    c->has_prefix = true;
    c->fresh_hi = fmin(c->fresh_hi, fresh_hi);
    c->past_hi = fmin(c->past_hi, past_hi);
}

void apmw_composed_cost_sample(composed_cost *cost, const compose_ops *ops)
{
    cost->length_hi = cost->fresh_hi = cost->past_hi = INFINITY;
    for (size_t i = 0; i < ops->n; i++) {
        const compose_op *op = &ops->op[i];
        if (!op->is_attention) {
            sample_curve(cost, op);
        } else if (op->attn == ATTN_DECODE) {
            sample_decode(cost, op);
        } else if (op->attn == ATTN_PREFILL_PREFIX) {
            sample_prefix(cost, op);
        } else {
            sample_prompts(cost, op);
        }
    }
}
