/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How the measured table of each operation is read. Categorical columns come first, in key order; the numeric axes follow
 * in order of nesting. A kernel_source that changes along an axis by itself (DSA blocks, block-FP8 GEMM of vLLM on H200)
 * is no key. tp_size is none either: with the model given, num_heads (heads of one rank) says the same, and some files
 * write 1 whatever the split. */
#include <string.h>

#include "apmw/op_table.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE ((const char *const[]){NULL})
#define MS 1e-3
#define US 1e-6
#define ATTENTION LIST("kernel_source", "attn_dtype", "kv_cache_dtype", "head_dim", "window_size", "num_heads", "num_key_value_heads")
#define MLA_BLOCK LIST("model", "mla_dtype", "gemm_type", "kv_cache_dtype", "num_heads")
#define MLA_KERNEL LIST("kv_cache_dtype", "num_heads")
#define DSA LIST("op_name", "model", "gemm_type", "kv_cache_dtype", "num_heads")
#define V4 LIST("model", "gemm_type", "num_heads")
#define EXPERTS LIST("kernel_source", "moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "distribution")
#define WIDE LIST("op_name", "moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "num_slots", "moe_ep_size", "distribution")

static const apmw_op_schema schemas[] = {
    {"gemm", LIST("gemm_dtype"), LIST("n", "k", "m"), "latency", MS},
    {"quantize_computescale", LIST("quant_dtype"), LIST("k", "m"), "latency", MS},
    {"context_attention", ATTENTION, LIST("batch_size", "isl"), "latency", MS},
    {"generation_attention", ATTENTION, LIST("batch_size", "step"), "latency", MS},
    {"context_mla", MLA_KERNEL, LIST("batch_size", "isl"), "latency", MS},
    {"generation_mla", MLA_KERNEL, LIST("batch_size", "step"), "latency", MS},
    {"mla_bmm", LIST("op_name", "bmm_dtype", "num_heads"), LIST("num_tokens"), "latency", MS},
    {"mla_context_module", MLA_BLOCK, LIST("batch_size", "isl"), "latency", MS},
    {"mla_generation_module", MLA_BLOCK, LIST("batch_size", "step"), "latency", MS},
    {"wideep_context_mla", LIST("num_heads"), LIST("batch_size", "isl"), "latency", MS},
    {"wideep_generation_mla", LIST("num_heads"), LIST("batch_size", "isl"), "latency", MS},
    {"dsa_context_module", DSA, LIST("batch_size", "step", "isl"), "latency", MS},
    {"dsa_generation_module", DSA, LIST("batch_size", "step"), "latency", MS},
    {"dsv4_csa_context_module", V4, LIST("batch_size", "step", "isl"), "latency", MS},
    {"dsv4_hca_context_module", V4, LIST("batch_size", "step", "isl"), "latency", MS},
    {"dsv4_csa_generation_module", V4, LIST("batch_size", "step"), "latency", MS},
    {"dsv4_hca_generation_module", V4, LIST("batch_size", "step"), "latency", MS},
    {"dsv4_csa_topk_calib", LIST("score_mode", "model", "num_heads"), LIST("batch_size", "step", "isl"), "latency", MS},
    {"dsv4_mhc", LIST("op_name", "hidden_size"), LIST("num_tokens"), "latency", MS},
    {"dsv4_megamoe", LIST("phase", "moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size", "distribution"),
     LIST("num_tokens"), "latency", MS},
    {"gdn", LIST("phase", "kernel_source", "num_k_heads", "num_v_heads"), LIST("batch_size", "seq_len"), "latency", MS},
    {"moe", EXPERTS, LIST("num_tokens"), "latency", MS},
    {"wideep_moe", WIDE, LIST("num_tokens"), "latency", MS},
    {"wideep_context_moe", EXPERTS, LIST("num_tokens"), "latency", MS},
    {"wideep_generation_moe", EXPERTS, LIST("num_tokens"), "latency", MS},
    {"comm_nccl", LIST("op_name", "nccl_dtype", "num_gpus"), LIST("message_size"), "latency", MS},
    {"comm_custom_allreduce", LIST("kernel_source", "num_gpus"), LIST("message_size"), "latency", MS},
    {"comm_trtllm_alltoall",
     LIST("op_name", "kernel_source", "moe_dtype", "hidden_size", "topk", "num_experts", "moe_ep_size", "distribution"),
     LIST("num_tokens"), "latency", MS},
    {"comm_wideep_deepep_ll", LIST("hidden_size", "num_topk", "num_experts"), LIST("num_token"),
     "dispatch_avg_t_us+combine_avg_t_us", US},
    {"comm_wideep_deepep_normal", LIST("hidden_size", "num_topk", "num_experts", "dispatch_sms", "combine_sms"),
     LIST("num_token"), "dispatch_transmit_us+combine_transmit_us", US},
};

const apmw_op_schema *apmw_op_schema_find(const char *op)
{
    for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++) {
        if (strcmp(schemas[i].op, op) == 0)
            return &schemas[i];
    }
    return NULL;
}

bool apmw_op_schema_monotone(const apmw_op_schema *schema)
{
    return strstr(schema->op, "moe") != NULL || strncmp(schema->op, "comm_", 5) == 0;
}
