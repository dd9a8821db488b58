/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What InferenceX AgentX reports of a run, and its constants for the power and price of an accelerator
 * (sim/protocol/agentx.json, with sources). There is no pass or fail in AgentX: it draws throughput over interactivity at
 * chosen numbers of lanes. */
#ifndef APMW_AGENTX_H
#define APMW_AGENTX_H
#include <stddef.h>
#include <stdint.h>
#include "apmw/records.h"
#include "apmw/status.h"

/* Constants, not measurements. NaN = not listed. */
typedef struct apmw_agentx_price {
    char platform[32];    /* accelerator id */
    double all_in_kw;     /* utility power of one accelerator, everything included */
    double usd_per_hour;  /* of one accelerator */
} apmw_agentx_price;

/* Both numbers NaN where the file does not list the platform. */
apmw_status apmw_agentx_price_load(const char *path, const char *platform, apmw_agentx_price *out, apmw_error *err);

typedef struct apmw_agentx_summary {
    double window_s;
    int64_t n_sent;       /* in the profile */
    int64_t n_done, n_refused; /* of these: ended, or refused since they overflow the context or the pool */
    int64_t n_completed;  /* ended within the profile: throughput counts these */
    int64_t n_sessions;   /* whose main line ended within the profile */
    double hit_share;     /* cached / prompt tokens of the completed ones */
    /* Tokens a second and accelerator over the profile. Input counts cached tokens, as AgentX does. */
    double input_tok_s, output_tok_s, total_tok_s;
    /* Tokens a second of a request: 1 / quantile of (last - first token) / (n_out - 1), and of E2E latency / n_out. So the
     * P90 value is what nine tenths of the requests reach. Requests with one token have no inter-token latency. */
    double interactivity_p50, interactivity_p90, e2e_interactivity_p50, e2e_interactivity_p90;
    double ttft_p50_s, ttft_p90_s, ttft_p99_s, e2e_p50_s, e2e_p90_s;
    double tok_s_per_mw;  /* total, per all-in utility megawatt; NaN without constants */
    double usd_per_mtok;  /* of a million total tokens */
} apmw_agentx_summary;

/* records: all terminal requests of a run in any order; those sent before `from` are the warm-up. The profile is
 * [from, to); accelerators >= 1. APMW_E_NOMEM only. */
apmw_status apmw_agentx_summarize(const apmw_request_record *records, size_t n, apmw_time from, apmw_time to,
                                  int accelerators, const apmw_agentx_price *price, apmw_agentx_summary *out,
                                  apmw_error *err);

#endif
