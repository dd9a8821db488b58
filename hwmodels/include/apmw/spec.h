/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Public facts: accelerators, nodes and racks (hwmodels/specs), LLM architectures (hwmodels/models). JSON with a source
 * each; nothing here is fitted. A missing number is NaN (or 0 for counts) and never stands for zero. */
#ifndef APMW_SPEC_H
#define APMW_SPEC_H
#include <stdbool.h>
#include <stdint.h>
#include "apmw/status.h"

typedef struct apmw_accelerator_spec {
    char id[24];      /* h200, b200, ... the platform names of points.csv */
    char name[64];
    char vendor[16];  /* nvidia, amd, ... */
    double hbm_bytes;              /* label capacity */
    double hbm_reported_bytes;     /* as the device reports it; sizes KV pools */
    double hbm_bytes_per_s;
    double bf16_flop_per_s, fp8_flop_per_s, fp4_flop_per_s; /* dense; NaN = no such rate */
    double tdp_w;
    double scaleup_bytes_per_s;    /* per direction and accelerator */
    double host_link_bytes_per_s;  /* per direction and accelerator */
    double host_load_bytes_per_s;  /* what KV gets of it to one accelerator while all of the node load; NaN = unknown */
    double host_store_bytes_per_s; /* and from it */
    double host_dram_bytes;        /* available, per accelerator of a node; NaN = unknown */
    double scaleout_bytes_per_s;   /* per direction and accelerator */
    int scaleup_domain;            /* accelerators in one scale-up domain: 8, 72 */
    double idle_w;                 /* loaded and idle; NaN = not measured */
    double all_in_w;               /* provisioned all-in IT watts per accelerator; NaN = none */
    bool projected;                /* from specifications only: no measurement of any kind behind it */
    char estimated[160];           /* facts above of grade "?", with commas between: not even specified; "" = none */
} apmw_accelerator_spec;

typedef struct apmw_node_spec {
    char id[32];                   /* hgx-h200, hgx-b200, mi355x-8, gb300-nvl72, ... */
    char accelerator[24];
    int accelerators;
    bool projected;
    int n_all_in;                  /* IT watts a whole node or rack draws per accelerator, by accelerator watts; 0 = unknown */
    double all_in_accelerator_w[8], all_in_it_w[8];
    double pue;                    /* of the facility the source assumes; NaN = unknown */
} apmw_node_spec;

/* IT watts per accelerator (host, fans, NICs, switches, conversion) when each accelerator draws `accelerator_w`: linear
 * between the node's points, the end slopes going on; NaN when the node has none. */
double apmw_node_it_w(const apmw_node_spec *node, double accelerator_w);

/* value at context L = layers * per_entry * min(L / div, cap) */
typedef struct apmw_term {
    char name[32];
    double layers, per_entry, div, cap; /* cap INFINITY = unbounded */
} apmw_term;
enum { APMW_TERMS = 8 };

typedef struct apmw_llm_spec {
    char id[32], name[96];
    int layers, hidden, heads, kv_heads, head_dim, vocab;
    int q_lora, kv_lora, rope_dim, nope, v_dim, o_groups, o_lora;      /* MLA and V4; 0 = none */
    int dense_layers, dense_ffn, experts, topk, shared_experts, expert_dim, moe_layers;
    int sliding_layers, sliding_window;
    int csa_layers, hca_layers, index_topk, index_heads, index_dim;    /* V4, DSA */
    int linear_layers, linear_k_heads, linear_v_heads;                 /* GDN, KDA */
    int mtp_layers;
    int64_t context_tokens;
    double total_params, active_params;
    /* bytes at the checkpoint's own precision */
    double always_read_bytes, expert_bytes, resident_bytes, embed_bytes, mtp_bytes, routed_bytes;
    double expert_params;
    double expert_bytes_fp8, expert_bytes_nvfp4; /* of other checkpoints of the model; NaN = none */
    double attention_bytes, shared_expert_bytes, lm_head_bytes; /* parts of always_read_bytes; NaN = not told */
    double dense_flops_per_token, recurrent_flops_per_token;
    int n_decode_flops, n_prefill_flops, n_kv_resident, n_kv_read;
    apmw_term decode_flops[APMW_TERMS], prefill_flops[APMW_TERMS], kv_resident[APMW_TERMS], kv_read[APMW_TERMS];
    double kv_state_bytes; /* fixed bytes a running sequence */
    double kv_bytes_per_element_stated; /* element size the terms assume: 1 fp8, 2 bf16; 0 = a layout of its own */
    /* mean tokens emitted per step at draft length i (index 1..7), NaN = no curve; single-turn golden values */
    double acceptance[8];
    char acceptance_source[160];
} apmw_llm_spec;

/* `path` is the JSON file. */
apmw_status apmw_accelerator_spec_load(const char *path, apmw_accelerator_spec *out, apmw_error *err);
apmw_status apmw_node_spec_load(const char *path, apmw_node_spec *out, apmw_error *err);
apmw_status apmw_llm_spec_load(const char *path, apmw_llm_spec *out, apmw_error *err);

/* Sum of terms at context L tokens. */
double apmw_terms_at(const apmw_term *terms, int n, double context);
/* KV bytes that one sequence of `context` tokens holds on ONE rank of a tensor-parallel group of `tp`:
 * latent KV is replicated, grouped-query KV is split over min(tp, kv_heads). element = bytes an element of
 * grouped-query KV (1 fp8, 2 bf16). Includes kv_state_bytes. */
double apmw_llm_kv_bytes(const apmw_llm_spec *llm, double context, int tp, double element);
/* The same where the engine keeps the entries of sliding-window layers at every position, not those of the last window
 * alone: what a prefix cache holds when a later prompt may end anywhere in it. */
double apmw_llm_kv_bytes_all_windows(const apmw_llm_spec *llm, double context, int tp, double element);

#endif
