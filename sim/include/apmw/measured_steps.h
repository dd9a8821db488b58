/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Single passes of a measured engine, predicted without any simulation: what a batch log says directly of the step cost, where a
 * serving point says it through a whole load. A file has a row for each operating point (columns: point, platform, model, engine,
 * precision, released, tp, attention_dp, moe_ep, draft_tokens, kind, rank_seqs, total_seqs, rank_kv_tokens, new_tokens,
 * past_tokens, chunk_tokens, samples, ms):
 *   kind decode: a pass of total_seqs sequences on all ranks, rank_seqs of them with rank_kv_tokens on the busiest;
 *   kind prompt: time to first token of a prompt alone on the engine, new_tokens to compute on past_tokens cached, chunk by chunk. */
#ifndef APMW_MEASURED_STEPS_H
#define APMW_MEASURED_STEPS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/compose.h"
#include "apmw/csv.h"

typedef struct apmw_measured_step {
    char point[48];
    apmw_serving_spec spec;
    bool prompt; /* kind */
    int64_t rank_seqs, total_seqs, new_tokens, past_tokens, chunk_tokens, samples;
    double rank_kv_tokens;
    double measured_ms;
    double predicted_ms; /* NaN: reason */
    char reason[160];
} apmw_measured_step;

/* The caller frees *out. APMW_E_DATA with file and line for a row that makes no pass. */
apmw_status apmw_measured_steps_load(const apmw_csv *csv, const char *path, apmw_measured_step **out, size_t *n,
                                     apmw_error *err);
/* Fills predictions. no_fit: composed kernels only, and no front end. A combination that is not covered leaves a reason. */
apmw_status apmw_measured_steps_predict(apmw_catalog *catalog, bool no_fit, apmw_measured_step *steps, size_t n,
                                        apmw_error *err);

#endif
