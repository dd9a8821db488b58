/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Composition: a deployment (platform x model x engine x precision x layout) becomes a step cost by summing
 * measured operations. Which table row prices which operation is data (hwmodels/rules/rows.json), not code; the report
 * lists every choice and every borrow. Rules and their evidence: hwmodels/ACCURACY.md. */
#ifndef APMW_COMPOSE_H
#define APMW_COMPOSE_H
#include <stdbool.h>
#include "apmw/buf.h"
#include "apmw/hwmodel.h"
#include "apmw/step_cost.h"

/* 95 % quantile of the normal distribution: a two-sided 90 % interval is so many sds to each side. */
#define APMW_Z90 1.6448536269514722

typedef struct apmw_layout {
    int tp, pp, attention_dp, moe_tp, moe_ep; /* of one engine; tp * attention_dp * pp accelerators */
} apmw_layout;

/* What a deployment is, in the words of points.csv. Strings may be empty = engine default. */
typedef struct apmw_serving_spec {
    char platform[24];   /* accelerator id */
    char model[32];
    char engine[16];     /* vllm, sglang, trtllm, atom */
    char engine_version[32];
    char precision[8];   /* fp8, fp4, bf16, int4: of the checkpoint */
    char kv_dtype[12];   /* fp8, bf16 */
    char moe_backend[48];
    char released[12];   /* yyyy-mm-dd of the engine build, "" = newest */
    char role[12];       /* "", "prefill", "decode": disaggregated workers carry other overheads */
    apmw_layout layout;
    int draft_tokens;
    bool absorbed_chunks; /* MLA: a prompt batch in which a chunk continues a prompt runs the absorbed form, all of it */
    bool forms;          /* prices everything by forms on specifications, as of a platform where nothing was measured */
    bool kv_all_windows; /* sizes the KV pool by apmw_llm_kv_bytes_all_windows */
} apmw_serving_spec;

/* Engine overhead: fitted on serving points, kept in hwmodels/engines.h5. */
typedef struct apmw_overhead {
    double layer_s;             /* per layer and step */
    double seq_s;               /* per decoding sequence and step */
    double request_s;           /* fixed per request before scheduling */
    double frontend_s_per_token;/* serial front end; of prefill workers: handing over the KV of a prompt token, many at a time */
    double prefill_floor_layer_s; /* a prefill step lasts at least this per layer */
    double prefill_scale;       /* on composed time of prompt chunks, 1 = as composed */
    double kernel_extra;        /* decode passes: kernels in an engine take 1 + this times their time in a loop */
    double acceptance;          /* fitted tokens a step of speculative decoding at 1,024 output tokens; 0 = none fitted */
    double acceptance_ln_osl;   /* ln(acceptance) grows by this for each e-fold of output length */
    double ln_sd_time;          /* sd of ln(step time): what the prediction interval uses */
    double ln_sd_ttft;
    char basis[128];            /* what it was fitted on, or "prior" */
} apmw_overhead;

typedef struct apmw_compose_report {
    apmw_buf rows;  /* text: one line an operation: op, table, key, engine, borrowed from, reason */
    apmw_buf notes; /* what to know first, a line each: formats that the part cannot multiply, parts never measured */
    int n_borrowed;
} apmw_compose_report;

/* Overhead for this deployment: the most specific fitted entry (engine x model x platform family x release), else
 * engine x model, else engine, else a stated prior. Never fails for lack of data. */
apmw_status apmw_overhead_lookup(apmw_catalog *catalog, const apmw_serving_spec *spec, apmw_overhead *out,
                                 apmw_error *err);
/* Compiles. overhead NULL = none (the no-fit prediction). report may be NULL. APMW_E_SCENARIO with the reason when the
 * combination is not covered (no table, impossible split). */
apmw_status apmw_compose(apmw_catalog *catalog, const apmw_serving_spec *spec, const apmw_overhead *overhead,
                         apmw_step_cost **out, apmw_compose_report *report, apmw_error *err);
void apmw_compose_report_free(apmw_compose_report *report);

/* KV pool of one rank in tokens, from the reported memory, the share that the engine may use, weights on this
 * rank (expert and tensor splits, replicated attention under attention-DP), and the model's KV layout.
 * memory_fraction NaN = the engine's default, whose meaning differs (vLLM: all; SGLang: weights + pool; TRT-LLM:
 * of what is left). `context` is the length at which windows and compressed layers are priced.
 * APMW_E_SCENARIO when the weights do not fit; the message has the sums. */
apmw_status apmw_kv_pool_tokens(apmw_catalog *catalog, const apmw_serving_spec *spec, double memory_fraction,
                                double context, double *tokens, double *weight_bytes, apmw_error *err);

#endif
