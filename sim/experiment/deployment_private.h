/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_DEPLOYMENT_PRIVATE_H
#define APMW_DEPLOYMENT_PRIVATE_H
#include "apmw/experiment.h"
#include "apmw/points.h"

/* One pool of engines in this role. */
apmw_status apmw_deployment_build_role(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                       apmw_role role, const apmw_layout_choice *choice, double context,
                                       apmw_deployment *out, apmw_error *err);

/* KV bytes that a token around `context` adds to a sequence on one of tp accelerators, and those it has whatever its length. */
void apmw_deployment_kv_bytes(const apmw_deployment *d, const apmw_llm_spec *llm, double context, int tp, double *per_token,
                              double *per_stream);

/* An engine that decodes what others computed: prompts come as KV, so there is no front end and nothing to gather prompts for.
 * SGLang takes no blocks for a prompt without leaving room for what running sequences will add (decode.py,
 * _allocatable_tokens: 512 tokens each by default). Taken for that is TensorRT-LLM's reservation of the whole declared output at
 * admission: about as much for outputs of 1k, of which half is left on average, too much for longer ones. */
void apmw_decode_worker(apmw_engine_config *engine);

/* The two ends of the way of KV from prefill to decode workers, for scenarios and measured points alike. */
typedef struct apmw_link_ends {
    const apmw_accelerator_spec *from, *to;
    int accelerators;                          /* of the whole deployment */
    int from_size, from_ranks, to_size, to_ranks; /* accelerators and attention-DP ranks of one engine */
    double gbyte_per_s, latency_us;            /* as stated; NaN = by the platforms, none */
    double bytes_per_token, bytes_per_request;
    double handover_s_per_token;
    bool decode_first;
    int64_t chunk_tokens;                      /* of a prefill rank */
} apmw_link_ends;
/* Inside one scale-up domain at its rate, else at that of the network; times the accelerators of a rank. APMW_E_SCENARIO where no
 * rate is known. */
apmw_status apmw_link_make(const apmw_link_ends *ends, apmw_kv_link *out, apmw_error *err);

/* Tiers of KV below its engines. */
apmw_status apmw_deployment_make_tiers(apmw_catalog *catalog, const apmw_scenario *scenario, double context,
                                       apmw_deployment *out, apmw_error *err);

/* The vendors' own engines run on their own parts, all others on any. */
bool apmw_engine_runs_on(const char *engine, const char *vendor);

#endif
