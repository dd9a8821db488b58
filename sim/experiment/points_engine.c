/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From labels and settings to what the composer and the engine take. */
#include <math.h>
#include <string.h>
#include "apmw/text.h"
#include "points_private.h"

void apmw_point_spec(const apmw_point *point, apmw_role role, const apmw_engine_settings *settings,
                     apmw_serving_spec *out)
{
    memset(out, 0, sizeof *out);
    apmw_copy(out->platform, sizeof out->platform, point->platform);
    apmw_copy(out->model, sizeof out->model, point->model);
    apmw_copy(out->engine, sizeof out->engine, point->engine);
    apmw_copy(out->engine_version, sizeof out->engine_version, point->engine_version);
    apmw_copy(out->precision, sizeof out->precision,
              point->precision[0] ? point->precision : settings->precision);
    apmw_copy(out->kv_dtype, sizeof out->kv_dtype, settings->kv_dtype);
    apmw_copy(out->moe_backend, sizeof out->moe_backend, settings->moe_backend);
    apmw_copy(out->released, sizeof out->released, point->measured);
    apmw_copy(out->role, sizeof out->role,
              role == APMW_ROLE_ENGINE ? "" : role == APMW_ROLE_PREFILL ? "prefill" : "decode");
    out->layout = point->layout[apmw_points_role_index(role)];
    out->draft_tokens = (int)settings->draft_tokens;
    out->absorbed_chunks = settings->absorbed_chunks;
}

static const char *const families[] = {
    [APMW_GRAPHS_NONE] = "", [APMW_GRAPHS_VLLM] = "vllm", [APMW_GRAPHS_SGLANG] = "sglang", [APMW_GRAPHS_TRTLLM] = "trtllm"};

apmw_status apmw_settings_graphs(const apmw_engine_settings *s, const char *engine, apmw_graphs *out, apmw_error *err)
{
    *out = (apmw_graphs){.max_batch = s->graph_max_batch >= 1 ? (int64_t)s->graph_max_batch : 0};
    const char *wanted = s->graph_padding[0] ? s->graph_padding : apmw_graph_padding_name(APMW_PADDING_NONE);
    int padding = APMW_PADDING_NONE;
    while (padding < APMW_PADDING_ENGINE && strcmp(wanted, apmw_graph_padding_name((apmw_graph_padding)padding)) != 0)
        padding++;
    if (padding == APMW_PADDING_ENGINE)
        return apmw_error_set(err, APMW_E_SCENARIO, "graph_padding \"%s\" of engine %s is not none, rows or sequences", wanted,
                              engine);
    out->padding = (apmw_graph_padding)padding;
    for (size_t i = 1; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(engine, families[i]) == 0)
            out->sizes = (apmw_graph_sizes)i;
    if (out->padding != APMW_PADDING_NONE && out->sizes == APMW_GRAPHS_NONE)
        return apmw_error_set(err, APMW_E_SCENARIO, "graph_padding: how %s captures batches is not modelled", engine);
    return APMW_OK;
}

static int64_t whole(double value, int64_t missing)
{
    return isnan(value) ? missing : llround(value);
}

apmw_status apmw_settings_engine_config(const apmw_engine_settings *s, const apmw_layout *layout, const char *engine,
                                        apmw_engine_config *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    int64_t ranks = layout->attention_dp > 1 ? layout->attention_dp : 1;
    if (strcmp(s->batching, "vllm") == 0)
        out->batching = APMW_BATCHING_VLLM;
    else if (strcmp(s->batching, "sglang") == 0)
        out->batching = APMW_BATCHING_SGLANG;
    else if (strcmp(s->batching, "trtllm") == 0)
        out->batching = APMW_BATCHING_TRTLLM;
    else
        return apmw_error_set(err, APMW_E_SCENARIO, "batching \"%s\" of engine %s is not vllm, sglang or trtllm",
                              s->batching, engine);
    /* SGLang states its limits for the whole server and divides them among attention-DP ranks. */
    int64_t shares = out->batching == APMW_BATCHING_SGLANG ? ranks : 1;
    out->n_ranks = (int)ranks;
    out->max_num_seqs = whole(s->max_seqs, 1024) / shares;
    out->max_num_batched_tokens = whole(s->token_budget, 8192) / shares;
    out->max_prefill_tokens = out->batching == APMW_BATCHING_SGLANG ? whole(s->max_prefill_tokens, 16384) : 0;
    if (out->max_num_seqs < 1)
        out->max_num_seqs = 1;
    if (out->max_num_batched_tokens < 1)
        out->max_num_batched_tokens = 1;
    out->chunked_prefill = s->chunked_prefill != 0;
    out->max_model_len = 0; /* the load driver never exceeds it */
    out->block_tokens = whole(s->block_tokens, 16);
    out->recv_interval = (int)whole(s->recv_interval, 0);
    out->batch_wait_tokens = whole(s->batch_wait_tokens, 0);
    out->batch_wait_iters = (int)whole(s->batch_wait_iters, 0);
    out->adp_wait_iters = ranks > 1 ? (int)whole(s->adp_wait_iters, 0) : 0;
    out->draft_tokens = (int)s->draft_tokens;
    out->acceptance_length = 1;
    return APMW_OK;
}
