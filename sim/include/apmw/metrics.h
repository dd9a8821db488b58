/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Observers of a simulation: latency of requests, what the steps did, energy, and the laws that every run must keep.
 * They see records only, never the simulator, so that records of a live client can be summarised by the same code. */
#ifndef APMW_METRICS_H
#define APMW_METRICS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/records.h"
#include "apmw/status.h"

/* Measuring window [from, to), owned by whoever runs the phase and read by the observers; an end that is not known yet
 * is APMW_TIME_NEVER. Observers pro-rate a stretch of steps that straddles an end by time. */
typedef struct apmw_window {
    apmw_time from, to;
} apmw_window;

/* ------------------------------------------------------------------ latency */

/* Seconds or tokens/s. Quantiles by linear interpolation (apmw_quantile). All NaN when n = 0. */
typedef struct apmw_spread {
    int64_t n;
    double mean, min, p5, p25, p50, p75, p90, p95, p99, max;
} apmw_spread;

typedef struct apmw_latency_summary {
    int64_t n_requests;  /* records given */
    int64_t n_done, n_rejected, n_cancelled;
    int64_t n_one_token; /* done with one output token: they have no TPOT and no speed, and are left out of both */
    int64_t n_preempted; /* requests preempted at least once */
    int64_t prompt_tokens, cached_tokens, output_tokens, recomputed_tokens; /* of done requests */
    int64_t fetched_tokens; /* of the prompts, loaded from tiers of KV below HBM */
    double hit_share;    /* cached / prompt tokens; NaN when none */
    double loaded_share; /* fetched / prompt tokens */
    apmw_spread ttft_s;  /* first token - submission */
    apmw_spread queue_s; /* first scheduled - submission */
    apmw_spread tpot_s;  /* (last - first token) / (n_out - 1) */
    apmw_spread output_speed; /* tokens/s = 1 / TPOT; infinite if all tokens came at once */
    apmw_spread e2e_s;   /* last token - submission */
    apmw_spread e2e_speed; /* n_out / e2e, tokens/s */
} apmw_latency_summary;

/* Values of one done request; NaN where it has none. */
double apmw_record_ttft_s(const apmw_request_record *record);
double apmw_record_tpot_s(const apmw_request_record *record);
double apmw_record_output_speed(const apmw_request_record *record);
double apmw_record_e2e_s(const apmw_request_record *record);

/* Counts, tokens and hit_share only (no sorting); the spreads are those of nothing. */
void apmw_latency_count(const apmw_request_record *records, size_t n, apmw_latency_summary *out);
/* APMW_E_NOMEM only. */
apmw_status apmw_latency_summarize(const apmw_request_record *records, size_t n, apmw_latency_summary *out,
                                   apmw_error *err);

/* ------------------------------------------------------------------ collector */

/* Keeps terminal requests (with a window: those submitted in it) and, if asked, step records, in order of arrival. */
typedef struct apmw_collector apmw_collector;
/* window is borrowed, NULL = everything. NULL when out of memory. */
apmw_collector *apmw_collector_create(const apmw_window *window, bool keep_steps);
void apmw_collector_free(apmw_collector *collector);
const apmw_probe *apmw_collector_probe(const apmw_collector *collector);
const apmw_request_record *apmw_collector_requests(const apmw_collector *collector, size_t *n);
const apmw_step_record *apmw_collector_steps(const apmw_collector *collector, size_t *n);
/* APMW_E_NOMEM if anything was lost. */
apmw_status apmw_collector_status(const apmw_collector *collector, apmw_error *err);

/* ------------------------------------------------------------------ steps */

typedef struct apmw_step_summary {
    double window_s;
    double n_steps;         /* pro-rated */
    double busy_share;      /* of engines x window */
    double mean_step_s;
    double mean_batch;      /* decoding sequences of an engine, weighted by time in steps */
    double mean_waiting;    /* requests waiting when a stretch began, weighted by time */
    double kv_mean_share, kv_peak_share; /* used / capacity: weighted by time, largest */
    double prefill_tok_s, decode_tok_s;  /* over the window, all engines */
    double prefill_step_share;           /* of busy time, in steps that carry prompt tokens */
    double duty;            /* kernel time / busy time */
    double outside_share;   /* of steps, priced outside the measured domain */
} apmw_step_summary;
typedef struct apmw_step_meter apmw_step_meter;
apmw_step_meter *apmw_step_meter_create(const apmw_window *window, size_t n_engines);
void apmw_step_meter_free(apmw_step_meter *meter);
const apmw_probe *apmw_step_meter_probe(const apmw_step_meter *meter);
/* After the run; `end` closes a window that has no end yet. */
void apmw_step_meter_summary(const apmw_step_meter *meter, apmw_time end, apmw_step_summary *out);

/* ------------------------------------------------------------------ energy */

/* Power of one accelerator is the caller's (the form lives in hwmodels, which metrics does not see). A gap between two
 * stretches of an engine of at most long_gap_s draws step power with nothing running (duty 0); a longer one draws
 * idle_w over its whole length (NaN = not measured: the former is used). Source: hwmodels/ACCURACY.md as carried in
 * hwmodels/ACCURACY.md. */
typedef struct apmw_energy_config {
    size_t n_engines;
    size_t first_engine;   /* engines [first_engine, first_engine + n_engines): others have a meter of their own */
    int accelerators;      /* of each engine */
    double (*step_w)(void *self, double duty, double bw_util, double flop_util);
    void *self;
    double idle_w;
    double limit_w;        /* TDP */
    double peak_flop_per_s;/* dense bf16 */
    double hbm_bytes_per_s;
    double long_gap_s;     /* 1 */
} apmw_energy_config;
typedef struct apmw_energy_summary {
    double window_s;
    double energy_j;       /* all accelerators of all engines */
    double busy_j, gap_j, idle_j; /* its parts: steps, short gaps, long gaps */
    double busy_share, gap_share, idle_share; /* of accelerator time */
    double mean_w;         /* of one accelerator over the window */
    double bw_util, flop_util; /* while stepping */
} apmw_energy_summary;
typedef struct apmw_energy_meter apmw_energy_meter;
apmw_energy_meter *apmw_energy_meter_create(const apmw_window *window, const apmw_energy_config *config);
void apmw_energy_meter_free(apmw_energy_meter *meter);
const apmw_probe *apmw_energy_meter_probe(const apmw_energy_meter *meter);
/* Closes the books at the window's end (or `end`) and checks law L19. Call once, after the run. */
apmw_status apmw_energy_meter_finish(apmw_energy_meter *meter, apmw_time end, apmw_energy_summary *out,
                                     apmw_error *err);

/* Two groups of engines as one: energies add up, shares and rates are those of all accelerators. */
void apmw_energy_join(const apmw_energy_summary *a, int a_accelerators, const apmw_energy_summary *b, int b_accelerators,
                      apmw_energy_summary *out);

/* ------------------------------------------------------------------ laws */

/* Checks while the run goes on: L1 clock, L2 causality, L3 turn order, L4 requests, L5 tokens, L18 time balance, L20
 * population, L21 Little's law (exact, in request-nanoseconds), L23 definitions. The first broken law is kept, with its
 * number, the time, the request or engine, and both sides. */
typedef struct apmw_laws_config {
    bool one_request_per_agent; /* L3 and L20: load drivers that keep at most one request of an agent in flight */
    bool tokens_balance;        /* L5 at the end: prompt tokens of steps = computed tokens of requests */
} apmw_laws_config;
typedef struct apmw_laws apmw_laws;
apmw_laws *apmw_laws_create(const apmw_laws_config *config);
void apmw_laws_free(apmw_laws *laws);
const apmw_probe *apmw_laws_probe(const apmw_laws *laws);
/* APMW_OK, or APMW_E_INTERNAL with the first broken law. */
apmw_status apmw_laws_status(const apmw_laws *laws, apmw_error *err);
int64_t apmw_laws_submitted(const apmw_laws *laws);
int64_t apmw_laws_terminal(const apmw_laws *laws);

/* ------------------------------------------------------------------ result files */

/* HDF5, schema "apmw.result" version 1: groups /requests and /steps with one column a field, provenance as attributes
 * of the root. No times of writing: the same records give the same bytes. */
typedef struct apmw_result_info {
    const char *version, *git, *argv;
    const char *scenario_json;  /* resolved, "" = none */
    const char *const *inputs;  /* "name=hash" of every file read */
    size_t n_inputs;
} apmw_result_info;
apmw_status apmw_result_write(const char *path, const apmw_result_info *info, const apmw_request_record *requests,
                              size_t n_requests, const apmw_step_record *steps, size_t n_steps, apmw_error *err);
/* Arrays are the caller's (free). A newer version is APMW_E_DATA. */
apmw_status apmw_result_read(const char *path, apmw_request_record **requests, size_t *n_requests,
                             apmw_step_record **steps, size_t *n_steps, apmw_error *err);

#endif
