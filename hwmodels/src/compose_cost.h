/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The compiled cost: curves over token counts, decode attention over (batch, mean context), prompt attention over
 * (prompts, new tokens, past tokens). */
#ifndef APMW_COMPOSE_COST_H
#define APMW_COMPOSE_COST_H
#include "compose_internal.h"

enum {
    TOKEN_KNOTS = 420,
    BATCH_ROWS = 64,
    CTX_KNOTS = 88,   /* decode contexts, 1 .. 2^21, four an octave */
    PROMPT_ROWS = 8,  /* prompts in a pass: 1, 2, 4 .. 128 */
    LENGTH_KNOTS = 88,/* prompt lengths, four an octave */
    FRESH_KNOTS = 19, /* new tokens on a measured prefix: 1 .. 262144 */
    PAST_KNOTS = 16   /* measured prefixes: 0, 128 .. 2^21 */
};

typedef struct token_curve {
    double y[TOKEN_KNOTS];
    bool outside[TOKEN_KNOTS];
    bool used;
} token_curve;

typedef struct decode_grid {
    double t[BATCH_ROWS][CTX_KNOTS];
    double ctx_hi[BATCH_ROWS]; /* contexts above it are extrapolated */
    bool used;
} decode_grid;

typedef struct composed_cost {
    apmw_step_cost base;
    double layers;
    int draft;
    apmw_overhead overhead;
    int n_tokens, n_batch, n_ctx, n_length;
    double token[TOKEN_KNOTS], batch[BATCH_ROWS], log_batch[BATCH_ROWS], ctx[CTX_KNOTS], length[LENGTH_KNOTS];
    token_curve curve[ARG_KINDS];
    decode_grid decode[APMW_KV_KINDS];
    bool has_plain, has_linear, has_prefix;
    double plain[PROMPT_ROWS][LENGTH_KNOTS];          /* ln seconds of whole prompts */
    double linear[PROMPT_ROWS][LENGTH_KNOTS];         /* the same of kernels that do not see the past */
    double prefix[PROMPT_ROWS][FRESH_KNOTS][PAST_KNOTS];
    double length_hi, fresh_hi, past_hi;              /* measured */
    double absorbed_pair_s; /* attention of one new token to one token in the absorbed form; 0: the engine has it not */
    /* work, per accelerator */
    double dense_flops_per_token, dense_bytes;
    double moe_layers, expert_bytes, experts_per_rank, hit_share; /* share of experts one token reaches */
    double head_bytes_draft;
    double seq_flops[CTX_KNOTS], seq_bytes[CTX_KNOTS];/* of one sequence with this context on one accelerator */
    double flops_share, kv_share;                     /* 1 / accelerators, 1 / ranks that split a sequence */
    apmw_term prefill_flops[APMW_TERMS];
    int n_prefill_flops;
} composed_cost;

extern const apmw_step_cost_ops apmw_composed_cost_ops;
/* Fills curves and grids of `cost` from the list of operations. */
void apmw_composed_cost_sample(composed_cost *cost, const compose_ops *ops);
void apmw_composed_cost_knots(composed_cost *cost);
/* Index i with x[i] <= at < x[i + 1], within 0 .. n - 2. */
int apmw_knot_find(const double *x, int n, double at);

#endif
