/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Measured serving points: one row of a points.csv is one benchmark run of one deployment. This reads rows, fills in what
 * a row leaves open from hwmodels/rules/engine_defaults.json, and says which half of a split a row belongs to.
 *
 * Columns are those of the measured-points format (README); any may be missing. A cell of a disaggregated row may hold
 * "P:<prefill> D:<decode>", "-" meaning not set; a number may be a formula over the row's own numbers, such as "=CONC",
 * "=CONC//4" or "=up64(CONC+ISL+64)". */
#ifndef APMW_POINTS_H
#define APMW_POINTS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/compose.h"
#include "apmw/csv.h"
#include "apmw/engine.h"
#include "apmw/hwmodel.h"
#include "apmw/padded_cost.h"

/* Server settings of one engine; NaN, -1 or "" = not set. */
typedef struct apmw_engine_settings {
    double token_budget;       /* tokens of a pass, of a chunk (SGLang), of an iteration (TensorRT-LLM) */
    double max_prefill_tokens; /* SGLang: of a prefill batch */
    double max_seqs;           /* running requests; SGLang: of all attention-DP ranks, else of one */
    double max_model_len;
    double kv_memory_fraction; /* meaning by engine: see apmw_kv_pool_tokens */
    double block_tokens;
    double recv_interval;      /* SGLang: steps between looks for new requests */
    double batch_wait_tokens, batch_wait_iters; /* TensorRT-LLM */
    double adp_wait_iters;     /* TensorRT-LLM attention-DP */
    double draft_tokens;
    double num_prompts;        /* of the load driver */
    double max_total_tokens;   /* SGLang: the KV pool of a rank holds no more */
    bool absorbed_chunks;      /* SGLang without its chunked prefix cache: see apmw_serving_spec */
    double graph_max_batch;    /* largest batch of a captured graph */
    char graph_padding[12];    /* none, rows, sequences: what padding a batch to a captured size costs */
    int chunked_prefill;       /* -1 not set */
    char kv_dtype[12];
    char moe_backend[48];
    char batching[12];         /* vllm, sglang, trtllm */
    char precision[8];         /* where the point names none */
} apmw_engine_settings;

typedef enum apmw_role { APMW_ROLE_ENGINE, APMW_ROLE_PREFILL, APMW_ROLE_DECODE } apmw_role;

typedef struct apmw_point {
    char id[48], platform[24], model[32], engine[16], engine_version[32], precision[8];
    bool disagg;
    int64_t isl, osl, concurrency, accelerators;
    /* agg: layout[0]; disagg: prefill, decode */
    apmw_layout layout[2];
    int workers[2];            /* 1, 0 in aggregated rows */
    apmw_engine_settings settings[2]; /* cells of the row only; defaults are filled in by apmw_point_settings */
    bool has_recipe;           /* the row has server settings, so an empty cell is the engine's own default */
    bool speculative;
    double acceptance_length;  /* tokens a step as stated in the row, NaN = not stated */
    double ratio;              /* lengths uniform on [int(ratio L), L] */
    double prompt_scale;       /* tokens that the server saw for each one of isl, 1 = as labelled */
    double burst_prompt_s;     /* what the first burst waits for each prompt of its rank beside serving them */
    bool median;               /* measured values are medians over requests, else means */
    double ttft_ms, tpot_ms, power_w;         /* measured; NaN = none */
    double role_power_w[2];    /* disaggregated: prefill, decode */
    char measured[12];         /* yyyy-mm-dd or "" */
    char source[32];           /* "inferencex", "vendor" or "" */
    char excluded[160];        /* "" or why the row can judge nothing */
    bool judge;                /* half that no fit sees */
} apmw_point;

typedef struct apmw_points {
    apmw_point *items;
    size_t n;
    char hash[17]; /* of the file */
} apmw_points;

/* rules_dir = data directory (its hwmodels/rules/engine_defaults.json holds the excluded runs). */
apmw_status apmw_points_load(const char *path, const char *data_dir, apmw_points *out, apmw_error *err);
apmw_status apmw_points_from_csv(const apmw_csv *csv, const char *path, const char *data_dir, apmw_points *out,
                                 apmw_error *err);
void apmw_points_free(apmw_points *points);

/* The split, a rule on labels: a row judges when XXH3-64 (seed 0) of
 *   "platform|model|engine|precision|tp|moe_ep|attention_dp"
 * is odd; disaggregated rows take the decode worker's layout. Where all rows of one (mode, platform, model, engine,
 * precision) have the same layout, "|isl/osl" is appended, so that whole length shapes are left out instead. */
void apmw_points_split(apmw_points *points);

/* Value of a formula: + - * // / ( ) max(a,b) min(a,b) up64(a) slots(a) over numbers and CONC ISL OSL TP ADP EP K WORKERS. A
 * leading "=" is allowed. slots(a): the places a rank has when a sequences a rank are a load of 5 to 30 % more than a power of
 * two, as recipes drive, else a rounded up. APMW_E_DATA for anything else. */
typedef struct apmw_formula_vars {
    double conc, isl, osl, tp, adp, ep, k;
    double workers; /* of the role */
} apmw_formula_vars;
apmw_status apmw_formula_eval(const char *text, const apmw_formula_vars *vars, double *out, apmw_error *err);

/* The rules, opened once and shared by any number of readers. */
typedef struct apmw_engine_defaults apmw_engine_defaults;
apmw_status apmw_engine_defaults_open(const char *data_dir, apmw_engine_defaults **out, apmw_error *err);
void apmw_engine_defaults_free(apmw_engine_defaults *defaults);
/* Settings of one role of a point: its cells over the rules, later rules over earlier ones. */
apmw_status apmw_point_settings(const apmw_engine_defaults *defaults, const apmw_point *point, apmw_role role,
                                apmw_engine_settings *out, apmw_error *err);
/* The deployment of one role, for the composer. */
void apmw_point_spec(const apmw_point *point, apmw_role role, const apmw_engine_settings *settings,
                     apmw_serving_spec *out);
/* Engine configuration without cost, streams, KV blocks and overheads. */
apmw_status apmw_settings_engine_config(const apmw_engine_settings *settings, const apmw_layout *layout,
                                        const char *engine, apmw_engine_config *out, apmw_error *err);
/* The graphs of the settings: sizes by the engine's name, no padding where nothing is said. */
apmw_status apmw_settings_graphs(const apmw_engine_settings *settings, const char *engine, apmw_graphs *out, apmw_error *err);

#endif
