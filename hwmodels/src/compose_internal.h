/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shared by the files of the composition: the list of operations of a deployment, the choice of measured rows,
 * and the sampled curves that a compiled cost is made of. */
#ifndef APMW_COMPOSE_INTERNAL_H
#define APMW_COMPOSE_INTERNAL_H
#include <stdbool.h>
#include "apmw/compose.h"
#include "apmw/json.h"
#include "apmw/op_table.h"

/* A request for a measured time: named values, some of them numeric axes of a table and some of them key columns.
 * Which is which is the table's affair, so that the same query can be put to tables of several engines. */
enum { QUERY_FIELDS = 20, QUERY_VARS = 3 };
typedef struct query_field {
    const char *name;
    const char *text; /* NULL: numeric */
    double number;
    int var;          /* index of the varying argument, -1 = fixed */
    double var_scale; /* the axis value is argument * var_scale */
} query_field;
typedef struct query {
    query_field field[QUERY_FIELDS];
    int n;
} query;
void apmw_query_text(query *q, const char *name, const char *text);
void apmw_query_number(query *q, const char *name, double number);
void apmw_query_var(query *q, const char *name, int var, double scale);

/* A query bound to one group of one table. */
typedef struct row_bound {
    const apmw_op_group *group;
    const apmw_op_table *table;
    int n_axes;
    double x[APMW_OP_AXES];
    int var[APMW_OP_AXES]; /* -1 = fixed */
    double scale[APMW_OP_AXES];
} row_bound;

typedef enum row_transform { ROW_NONE, ROW_MIN, ROW_MAX, ROW_MINUS, ROW_MEAN } row_transform;

/* Where the time of an operation comes from: a row, or two rows joined. */
typedef struct row_source {
    row_bound main;
    row_transform transform;
    row_bound with; /* group NULL: none */
    double factor;
    bool borrowed;
    bool per_rank_tokens;  /* the table counts tokens per rank, not of the whole expert group */
    double weights_from_bits; /* rows of experts of this width stand for narrower ones; 0 = no */
    char line[640];        /* for the report */
} row_source;

/* Everything that rules may look at. */
typedef struct compose_context {
    apmw_catalog *catalog;
    const apmw_serving_spec *spec;
    const apmw_accelerator_spec *accelerator;
    const apmw_llm_spec *llm;
    apmw_layout layout;    /* with defaults filled in */
    int gpus;              /* accelerators of the engine */
    apmw_json *rules;      /* rows.json */
    apmw_json_cur root;
    char engine[16];
    char family[16];       /* of the rules: hopper, blackwell, cdna3, ... */
    char kv[12];
    /* dtype of each role */
    char attn[16], bmm[16], mlp[16], shared[16], moe[24], head[16], router[16];
} compose_context;

/* Opens the rules and fills in defaults and dtypes. The context must be closed. */
apmw_status apmw_compose_context_open(apmw_catalog *catalog, const apmw_serving_spec *spec, compose_context *ctx,
                                 apmw_error *err);
void apmw_compose_context_close(compose_context *ctx);
/* True when the rule's "match" object fits. */
apmw_status apmw_rule_matches(const compose_context *ctx, const apmw_json_cur *match, const char *role,
                         const char *dtype, bool *fits, apmw_error *err);
/* A text / number of the first matching rule of list `list` that has key `key`; `fallback` when there is none. */
apmw_status apmw_rule_text(const compose_context *ctx, const char *list, const char *key, const char *fallback,
                      char *out, size_t size, apmw_error *err);
apmw_status apmw_rule_number(const compose_context *ctx, const char *list, const char *key, double fallback,
                        double *out, apmw_error *err);
/* Chooses the row for an operation. APMW_E_SCENARIO when no table has it. */
apmw_status apmw_row_choose(const compose_context *ctx, const char *role, const char *op, const char *dtype,
                       const query *q, row_source *out, apmw_error *err);
double apmw_row_time(const row_source *row, const double *var, bool *outside);
double apmw_row_bound_time(const row_bound *b, const double *var, bool *outside);
/* Binds the query to a group of the table; "name=value;..." of `extra` overrides the query. False: no such group, or
 * an axis that the query does not have. */
bool apmw_query_bind(const query *q, const apmw_op_table *table, const char *extra, row_bound *out);

/* One-dimensional pieces of a step, by what they are counted in. */
typedef enum arg_kind {
    ARG_RANK_TOKENS,   /* tokens of the rank's pass */
    ARG_TOTAL_TOKENS,  /* tokens of all ranks */
    ARG_DECODE_TOKENS, /* decoding sequences * (1 + draft) of the rank */
    ARG_CHUNK_TOKENS,  /* prompt tokens of the rank */
    ARG_PREFIX_TOKENS, /* tokens already in KV that a prompt chunk attends to */
    ARG_SAMPLED,       /* rows that need logits */
    ARG_KINDS
} arg_kind;

typedef enum attn_kind { ATTN_DECODE, ATTN_PREFILL, ATTN_PREFILL_PREFIX, ATTN_PREFILL_LINEAR } attn_kind;

typedef struct compose_op {
    char role[24];
    double count;       /* times a pass */
    bool is_attention;
    arg_kind arg;
    attn_kind attn;
    int kv_kind;
    bool draft;         /* takes part in a draft pass (all but head, which is added by itself) */
    row_source row;     /* row.main.group NULL: `form` below */
    /* without a table: seconds = fixed + argument * per_arg */
    double floor_per_arg_s;  /* never faster than this an argument */
    /* A narrower weight saves this many seconds an expert read, of experts_per_rank that a token hits with hit_share. */
    double saved_per_expert_s, saved_limit, experts_per_rank, hit_share;
    double form_per_expert_s; /* without a table: an expert read costs this */
    double form_fixed_s, form_per_arg_s;
    /* attention without a table: terms of the model (KV bytes read, or prompt flops) times seconds a unit */
    apmw_term term[APMW_TERMS];
    int n_terms;
    double form_per_unit_s;
} compose_op;

typedef struct compose_ops {
    compose_op *op;
    size_t n, capacity;
    int n_kinds;
    int64_t kv_cap[APMW_KV_KINDS];
} compose_ops;

/* Seconds of one call: var = tokens, or (sequences, context), or (prompts, new tokens, past tokens). */
double apmw_compose_op_time(const compose_op *op, const double var[QUERY_VARS], bool *outside);
apmw_status apmw_compose_ops_build(const compose_context *ctx, compose_ops *ops, apmw_error *err);
apmw_status apmw_compose_ops_attention(const compose_context *ctx, compose_ops *ops, apmw_error *err);
/* Measured rows where there are any, and forms on the part's specifications for all else. */
apmw_status apmw_compose_ops_forms(const compose_context *ctx, compose_ops *ops, apmw_error *err);
compose_op *apmw_compose_ops_add(compose_ops *ops, const char *role, double count, arg_kind arg);
void apmw_compose_ops_free(compose_ops *ops);
/* A dense product (n, k) of one role and dtype at m = the argument. */
apmw_status apmw_compose_add_gemm(const compose_context *ctx, compose_ops *ops, const char *role, const char *dtype,
                             double count, arg_kind arg, double n, double k, apmw_error *err);

/* Lines of what a reader of the deployment's times has to know first; each begins with the platform. */
void apmw_compose_notes(const compose_context *ctx, const compose_ops *ops, apmw_buf *out);
/* Does the deployment serve an FP4 checkpoint, or hold weights in FP4, on a part without FP4 units? */
bool apmw_compose_lacks_fp4(const compose_context *ctx);

/* Bytes and flops. */
typedef struct compose_weights {
    double attention_bytes, dense_mlp_bytes, shared_bytes, router_bytes, head_bytes; /* of the rank, all layers */
    double embed_bytes;
    double routed_bytes;       /* experts held by one accelerator */
    double expert_rank_bytes;  /* one expert's share of one accelerator */
    double experts_per_rank;
    double mtp_bytes;          /* of one accelerator */
} compose_weights;
void apmw_compose_weights_of(const compose_context *ctx, compose_weights *out);
double apmw_compose_bits(const char *dtype);
/* What products with weights of this format run in on the part: "fp4", "fp8" or "bf16", the next wider where it has no
 * such units; *flop_per_s (may be NULL) is the rate. */
const char *apmw_compose_product(const compose_context *ctx, const char *dtype, double *flop_per_s);
double apmw_compose_weight_total(const compose_weights *w);
/* Integral of the terms over contexts past .. past + fresh: prompt attention. */
double apmw_compose_terms_integral(const apmw_term *terms, int n, double past, double fresh);
double apmw_compose_kv_scale(const compose_context *ctx);
double apmw_compose_kv_split(const compose_context *ctx);
/* Factor on the KV bytes of apmw_llm_kv_bytes, which scales grouped-query KV only. */
double apmw_compose_latent_scale(const compose_context *ctx);
/* KV bytes that one accelerator reads for one sequence of this context in a decode pass. */
double apmw_compose_kv_read_bytes(const compose_context *ctx, double context);
/* Attention flops of one decoded token at this context, of the whole model. */
double apmw_compose_decode_flops(const compose_context *ctx, double context);

#endif
