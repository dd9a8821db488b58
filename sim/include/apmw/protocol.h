/* SPDX-License-Identifier: GPL-3.0-or-later */
/* AA-AgentPerf v2026-06 and InferenceX AgentX as code: one phase (a population of closed-loop agents) and its verdict; tiers
 * and phase rules are data (sim/protocol/tiers.json). The phase object sees times and records only: the simulator and a live client
 * drive it alike. Sources of the rules: sim/protocol/tiers.json names one for each. */
#ifndef APMW_PROTOCOL_H
#define APMW_PROTOCOL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/buf.h"
#include "apmw/records.h"
#include "apmw/status.h"

typedef enum apmw_slo_metric {
    APMW_SLO_OUTPUT_SPEED, /* tokens/s after the first token, larger is better */
    APMW_SLO_TTFT,         /* s, smaller is better */
    APMW_SLO_E2E_SPEED     /* n_out / (last token - submission), tokens/s, larger is better */
} apmw_slo_metric;
enum { APMW_CRITERIA = 4 };
typedef struct apmw_criterion {
    apmw_slo_metric metric;
    double quantile; /* 0.25 = P25 */
    double limit;    /* at least (speeds) or at most (times) */
} apmw_criterion;
typedef struct apmw_tier {
    char model[32];
    char version[16]; /* of the protocol: "v2026-06" */
    int number;       /* #1, #2, ...; 0 = not a published one */
    int n_criteria;
    apmw_criterion criteria[APMW_CRITERIA];
} apmw_tier;

typedef struct apmw_phase_rules {
    char version[16];
    double spawn_per_s;          /* agents begin one after another */
    double settle_s;             /* after the last agent has begun */
    double steady_s;             /* all agents active at least so long before a request counts */
    double min_window_s;
    int64_t min_trajectories;    /* ended in the phase, all agents */
    int64_t min_trajectories_per_agent;
    double timeout_s;            /* of the phase from its start: then it ends, and is invalid if short of anything */
    double max_failed_share;     /* of measured requests: above it the tier is not met */
    int max_start_offset;
    int64_t max_output_tokens;
    /* AgentX: sessions in lanes (cluster.h, apmw_lanes) instead of agents that spawn and settle. The window is the profile;
     * spawn_per_s, settle_s, steady_s, trajectories, max_start_offset and max_output_tokens then say nothing. */
    bool lanes;
    double start_from, start_to; /* shares of a session between which a lane's first one starts */
    int warmup_turns;
    double warmup_grace_s;
    double tree_idle_s, system_idle_s; /* 0 = not capped */
} apmw_phase_rules;

typedef struct apmw_tier_book {
    apmw_phase_rules *rules;
    size_t n_rules;
    apmw_tier *tiers;
    size_t n_tiers;
} apmw_tier_book;
apmw_status apmw_tier_book_load(const char *path, apmw_tier_book *out, apmw_error *err);
void apmw_tier_book_free(apmw_tier_book *book);
/* version NULL = the first of the file. Unknown names: APMW_E_USAGE with what there is. */
apmw_status apmw_tier_book_rules(const apmw_tier_book *book, const char *version, apmw_phase_rules *out,
                                 apmw_error *err);
apmw_status apmw_tier_book_tier(const apmw_tier_book *book, const char *model, const char *version, int number,
                                apmw_tier *out, apmw_error *err);
/* A tier of one's own: "p25.speed=30,p95.ttft=10", also "p90.e2e=20"; number 0. APMW_E_USAGE with what is wrong. */
apmw_status apmw_tier_parse(const char *text, apmw_tier *out, apmw_error *err);
int apmw_tier_book_count(const apmw_tier_book *book, const char *model, const char *version);
/* "P25 output speed >= 20 tok/s and P95 TTFT <= 10 s", appended. */
void apmw_tier_text(const apmw_tier *tier, apmw_buf *out);
/* "tier 2 (its text)", or "own limits (its text)" where the tier is none of the book's, appended. */
void apmw_tier_title(const apmw_tier *tier, apmw_buf *out);
const char *apmw_slo_metric_name(apmw_slo_metric metric);

typedef enum apmw_phase_state {
    APMW_PHASE_SPAWN,   /* not all agents have sent their first request */
    APMW_PHASE_SETTLE,
    APMW_PHASE_MEASURE, /* requests that begin now are measured */
    APMW_PHASE_DRAIN,   /* the phase has ended; measured requests are still in flight, and the load goes on */
    APMW_PHASE_ENDED
} apmw_phase_state;

typedef struct apmw_phase apmw_phase;
/* NULL when out of memory. n_agents >= 1. */
apmw_phase *apmw_phase_create(const apmw_phase_rules *rules, int64_t n_agents);
void apmw_phase_free(apmw_phase *phase);
/* Of calls at one instant, submissions and ends come before apmw_phase_advance. Times must not decrease. */
void apmw_phase_on_submit(apmw_phase *phase, apmw_time now, const apmw_request_record *record);
void apmw_phase_on_request(apmw_phase *phase, apmw_time now, const apmw_request_record *record);
/* The window begins now, whoever has sent what: for drivers with a warm-up of their own, whose requests the phase is not
 * told of. Once, before anything else. */
void apmw_phase_begin(apmw_phase *phase, apmw_time now);
/* Looks at the clock; returns the state. */
apmw_phase_state apmw_phase_advance(apmw_phase *phase, apmw_time now);
/* When apmw_phase_advance has to be called next though nothing happens; APMW_TIME_NEVER = events decide. */
apmw_time apmw_phase_next(const apmw_phase *phase);
apmw_phase_state apmw_phase_now(const apmw_phase *phase);
/* [settling end, phase end); APMW_TIME_NEVER while unknown. */
void apmw_phase_window(const apmw_phase *phase, apmw_time *from, apmw_time *to);

typedef struct apmw_verdict {
    bool valid;           /* an invalid phase has reasons and no pass */
    bool pass;
    int64_t n_measured, n_failed, n_one_token;
    int64_t trajectories, trajectories_fewest_agent;
    double window_s;
    double value[APMW_CRITERIA]; /* of each criterion; NaN = no measured request has it */
    bool met[APMW_CRITERIA];
    double margin;        /* smallest over criteria of value/limit (speeds) or limit/value (times): >= 1 passes */
    char reasons[256];    /* why invalid or not met, "" if passed */
} apmw_verdict;
/* The verdict of an ended phase on a tier; any number of tiers may be asked. APMW_E_NOMEM only. */
apmw_status apmw_phase_verdict(apmw_phase *phase, const apmw_tier *tier, apmw_verdict *out, apmw_error *err);

/* Early answer while the phase still runs: of at least min_requests measured ones, more than `slack` times the share
 * that a criterion allows have missed it (P25 allows a quarter, P95 a twentieth). A search may end such a trial as failed;
 * a result that is reported comes from whole phases. */
bool apmw_phase_hopeless(const apmw_phase *phase, const apmw_tier *tier, int64_t min_requests, double slack);

#endif
