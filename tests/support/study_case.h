/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Deployments on a linear cost, quick rules and a small trace, for tests of trials and studies. Header only. */
#ifndef APMW_STUDY_CASE_H
#define APMW_STUDY_CASE_H
#include <math.h>
#include <stdio.h>

#include "agents_case.h"
#include "apmw/experiment.h"

static inline apmw_deployment case_deployment(const char *name, double per_seq_s, int replicas)
{
    apmw_deployment d = {0};
    d.cost = case_cost(0.01, 1e-5, per_seq_s);
    d.engine = case_engine(d.cost);
    d.engine.max_model_len = 100000;
    d.kv_blocks_all_windows = d.engine.kv_blocks;
    d.choice = (apmw_layout_choice){.layout = {1, 1, 1, 1, 1}, .size = 1, .replicas = replicas};
    snprintf(d.choice.name, sizeof d.choice.name, "%s", name);
    snprintf(d.spec.platform, sizeof d.spec.platform, "case");
    snprintf(d.spec.engine, sizeof d.spec.engine, "vllm");
    d.accelerators = replicas;
    d.overhead.ln_sd_time = 0.15;
    d.overhead.ln_sd_ttft = 0.3;
    d.power = (apmw_power_params){.tdp_w = 700, .p0 = 0.2, .pt = 0.97, .a_duty = 1.26, .a_bw = 0.8, .b = 0.09,
                                  .p_idle_w = 115, .sd_config = 0.15, .sd_platform = 0.08};
    d.peak_flop_per_s = 1e15;
    d.hbm_bytes_per_s = 1e12;
    d.all_in_w = (double)NAN;
    d.acceptance_length = 1.0;
    return d;
}

static inline apmw_phase_rules case_rules(void)
{
    return (apmw_phase_rules){.version = "case", .spawn_per_s = 20, .settle_s = 2, .steady_s = 1, .min_window_s = 30,
                              .min_trajectories = 10, .min_trajectories_per_agent = 1, .timeout_s = 2000,
                              .max_failed_share = 0.01, .max_start_offset = 3, .max_output_tokens = 1000};
}

static inline apmw_tier case_tier(int number, double speed, double ttft_s)
{
    return (apmw_tier){.model = "case", .version = "case", .number = number, .n_criteria = 2,
                       .criteria = {{APMW_SLO_OUTPUT_SPEED, 0.25, speed}, {APMW_SLO_TTFT, 0.95, ttft_s}}};
}

/* Ten trajectories of up to 12 turns of some 40 tokens each, without tool time. */
static inline void case_trace(apmw_trace *trace)
{
    for (int i = 0; i < 10; i++) {
        apmw_turn turns[12];
        const int n = 6 + i % 7;
        for (int k = 0; k < n; k++) {
            turns[k] = case_turn(200 + 40 * k + i, 30 + (7 * i + 11 * k) % 25, k - 1, k == 0 ? 0 : 160 + 40 * k + i, 0, 0);
        }
        case_add(trace, turns, n, 0);
    }
    apmw_trace_rehash(trace);
}

#endif
