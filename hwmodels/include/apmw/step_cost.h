/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The compiled cost of a step of one engine (a deployment compiled against a platform model), cheap to evaluate
 * and to sum over a stretch of decode steps. See compose.h for how one is made.
 *
 * Attention kinds: a model's decode attention reads up to APMW_KV_KINDS "effective KV" sums, kind k being
 * sum over decoding sequences of min(context, cap[k]) (cap = INT64_MAX: full attention). Sliding windows and
 * sparse top-k are capped kinds. The engine keeps these sums; the cost knows what they mean. */
#ifndef APMW_STEP_COST_H
#define APMW_STEP_COST_H
#include <stddef.h>
#include <stdint.h>

enum { APMW_KV_KINDS = 4 };

/* One prompt chunk in the pass: new tokens on top of tokens already in KV. */
typedef struct apmw_chunk {
    int64_t new_tokens;
    int64_t past_tokens;
    int32_t is_last; /* the chunk completes its prompt, so a token is sampled */
} apmw_chunk;

/* A pass. With attention-DP n_seqs, rank_tokens, kv and chunks are those of the critical rank (most tokens;
 * kv: largest sum of each kind), totals are over all ranks. Without it they are equal. */
typedef struct apmw_step_load {
    int64_t n_seqs;       /* decoding sequences */
    int64_t rank_tokens;  /* n_seqs * (1 + draft) + chunk tokens */
    int64_t total_seqs;
    int64_t total_tokens;
    double kv[APMW_KV_KINDS];  /* effective KV tokens, summed over the rank's decoding sequences */
    const apmw_chunk *chunks;
    size_t n_chunks;
} apmw_step_load;

/* Sums over the steps asked for. flops and bytes are per accelerator. kernel_s is composed kernel time without
 * host overhead. outside counts steps that needed a value outside the measured domain. */
typedef struct apmw_step_work {
    double time_s;
    double kernel_s;
    double flops;
    double bytes;
    double outside;
} apmw_step_work;

typedef struct apmw_step_cost apmw_step_cost;
typedef struct apmw_step_cost_ops {
    const char *name;
    /* One pass. */
    void (*eval)(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out);
    /* n_steps decode-only passes (n_chunks = 0) that begin at `load`; after each, kv[k] grows by growth[k]. Must
     * equal the sum of n_steps evals (relative 1e-9) at a cost that does not depend on n_steps. */
    void (*sum)(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                int64_t n_steps, apmw_step_work *out);
    void (*free)(apmw_step_cost *cost);
} apmw_step_cost_ops;
struct apmw_step_cost {
    const apmw_step_cost_ops *ops;
    int n_kinds;                    /* 1..APMW_KV_KINDS */
    int64_t kv_cap[APMW_KV_KINDS];  /* INT64_MAX = uncapped */
    int n_accelerators;             /* of the engine */
};

void apmw_step_cost_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out);
void apmw_step_cost_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                        int64_t n_steps, apmw_step_work *out);
void apmw_step_cost_free(apmw_step_cost *cost);

/* A cost with few numbers, for tests and for first estimates of hardware without tables:
 * time = fixed + per_token * tokens + per_seq * n_seqs + sum_k per_kv[k] * kv[k]
 *        + sum over chunks of per_pair * new * (past + (new + 1) / 2). */
typedef struct apmw_linear_cost {
    double fixed_s, per_token_s, per_seq_s, per_kv_s[APMW_KV_KINDS], per_pair_s;
    double flops_per_token, bytes_per_step, bytes_per_kv[APMW_KV_KINDS];
    int n_kinds;
    int64_t kv_cap[APMW_KV_KINDS];
    int n_accelerators;
} apmw_linear_cost;
/* NULL when out of memory. */
apmw_step_cost *apmw_step_cost_linear(const apmw_linear_cost *numbers);

#endif
