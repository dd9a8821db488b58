/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From a question to an answer: a scenario becomes a deployment (compiled step cost, KV pool, engine settings, power), a
 * deployment runs trials (one phase of the protocol at one population), trials make a capacity search, and variants of a
 * search make its interval. */
#ifndef APMW_EXPERIMENT_H
#define APMW_EXPERIMENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/buf.h"
#include "apmw/cluster.h"
#include "apmw/compose.h"
#include "apmw/hwmodel.h"
#include "apmw/kv_scenario.h"
#include "apmw/metrics.h"
#include "apmw/padded_cost.h"
#include "apmw/protocol.h"
#include "apmw/sent.h"
#include "apmw/status.h"
#include "apmw/trace.h"

/* ------------------------------------------------------------------ scenario */

typedef enum apmw_workload_kind { APMW_WORKLOAD_AGENTS, APMW_WORKLOAD_FIXED } apmw_workload_kind;

/* One pool of a disaggregated deployment. "" , 0 and NaN: as the scenario says for the whole. */
typedef struct apmw_pool_scenario {
    char platform[32];
    char engine[16];
    char layout[32];         /* with xR for R engines; "" only before a search chooses it */
    double memory_fraction;
    int64_t max_num_seqs, max_num_batched_tokens;
} apmw_pool_scenario;

enum { APMW_MAX_DRAFTS = 16 };
enum { APMW_POOL_PREFILL, APMW_POOL_DECODE, APMW_POOLS };

/* How KV travels between pools. NaN and -1: from the platforms' specifications (apmw_deployment_build_pools). */
typedef struct apmw_link_scenario {
    double gbyte_per_s;      /* of one accelerator and direction */
    double latency_us;       /* of a transfer */
    bool decode_first;       /* see apmw_kv_link */
} apmw_link_scenario;

/* What the user asks for (sim/SCENARIO.md). Empty strings, 0, -1 and NaN as said mean "the default". */
typedef struct apmw_scenario {
    char platform[32];       /* accelerator or node id */
    char model[32];
    char engine[16];         /* "" = the first of vllm, sglang, trtllm, atom that composes; capacity tries all */
    char engine_version[32];
    char precision[8];       /* "" = the model's and platform's usual one */
    char kv_dtype[12];
    char moe_backend[48];
    char layout[32];         /* "tp8", "tp4x2", "dep8", "dep4x2": see apmw_layout_parse; "" = all of the node */
    int accelerators;        /* of the deployment; 0 = of the node, at most 8 */
    double memory_fraction;  /* NaN = engine default */
    int draft_tokens;        /* -1 = capacity: the best of those that the model supports; simulate: none */
    double acceptance_length;/* NaN = the model's curve, or: */
    char acceptance_preset[40];                     /* of hwmodels/rules/acceptance.json; "" = none */
    double acceptance_by_position[APMW_MAX_DRAFTS]; /* chance of each drafted token once all before it are accepted */
    int n_acceptance;                               /* 0 = none stated */
    bool acceptance_fixed;   /* every sequence emits at the mean rate; false: it is drawn for each */
    /* engine settings: 0 = engine default */
    int64_t max_num_seqs, max_num_batched_tokens, block_tokens;
    int recv_interval;
    int prefill_delay_passes; /* SGLang's prefill delayer under attention-DP; 0 = off */
    double prefill_delay_ms;
    double frontend_scale;   /* on the fitted front-end time per prompt token: 1/n for n front ends that share the load */
    bool prefix_caching;
    bool kv_all_windows;     /* cached prompts keep sliding-window KV at every position */
    apmw_graph_padding graph_padding;
    apmw_routing routing;
    double router_delay_s;   /* age of what routers know; 0 */
    bool router_kv_by_sending;
    bool disaggregated;
    apmw_pool_scenario pools[APMW_POOLS];
    apmw_link_scenario link;
    apmw_routing decode_routing; /* routing is then that of the prefill pool */
    apmw_kv_scenario kv;     /* tiers below HBM */
    /* workload */
    apmw_workload_kind workload;
    char trace[1024];        /* file, "" = the generated AgentPerf-like set */
    int64_t trajectories;    /* of the generated set; 500 */
    int64_t agents;          /* simulate: population, or slots of a fixed loop */
    bool share_prefix, output_cached, concurrent_subagents;
    double delay_scale;
    char starts[1024];       /* simulate: users of a CSV begin inside given sessions (apmw_starts_load); "" = drawn */
    apmw_sent sent;          /* with starts: what their client sends */
    int64_t isl, osl, requests; /* fixed loop */
    double length_ratio;
    /* protocol */
    char protocol[16];       /* "" = first of tiers.json */
    int tier;                /* 0 = all of the model */
    char slo[160];           /* a tier of one's own (apmw_tier_parse) instead; "" = none */
    double duration_s;       /* simulate: 0 = a whole phase */
    uint64_t seed;
} apmw_scenario;
void apmw_scenario_init(apmw_scenario *out);
/* Reads JSON over what is there already; unknown keys are refused with path and near miss. */
apmw_status apmw_scenario_load(const char *path, apmw_scenario *inout, apmw_error *err);
apmw_status apmw_scenario_parse(const char *name, const char *text, size_t n, apmw_scenario *inout, apmw_error *err);
/* The resolved scenario as JSON, appended. Reading it back gives the same scenario. */
void apmw_scenario_write(const apmw_scenario *scenario, apmw_buf *out);

/* ------------------------------------------------------------------ layouts */

/* One engine on `size` accelerators, times replicas. Names: tpN (tensor parallel, experts split likewise), tepN (tensor
 * parallel attention, expert parallel experts), depN (attention data parallel, expert parallel), dpN (N engines of one
 * accelerator), each with xR for R replicas. */
typedef struct apmw_layout_choice {
    apmw_layout layout;
    int size, replicas;
    char name[32];
} apmw_layout_choice;
/* Names of layouts that fit `accelerators`: R replicas are as many as fill them when the name has no xR. */
apmw_status apmw_layout_parse(const char *name, int accelerators, apmw_layout_choice *out, apmw_error *err);
/* Name of a choice whose replicas were changed. */
void apmw_layout_rename(apmw_layout_choice *choice);
/* All aggregated layouts that fill `accelerators` (a power of two up to 8 an engine). Returns the count, at most max. */
size_t apmw_layout_enumerate(const apmw_llm_spec *llm, int accelerators, apmw_layout_choice *out, size_t max);

/* ------------------------------------------------------------------ deployment */

typedef struct apmw_deployment apmw_deployment;
typedef struct apmw_trial_result apmw_trial_result;
struct apmw_deployment {
    apmw_deployment *prefill;    /* owned; the pool that computes prompts; NULL = each engine does both */
    apmw_kv_link link;           /* from it to this one */
    apmw_tiers_setup tiers;      /* below the HBM of engines that compute prompts; n_tiers 0 = none */
    apmw_serving_spec spec;
    apmw_layout_choice choice;
    char name[72];               /* of the layout: of both pools */
    char platform[56];           /* accelerators: of both pools where they differ */
    int accelerators;            /* all replicas of both pools */
    apmw_overhead overhead;
    apmw_step_cost *cost;        /* owned */
    apmw_engine_config engine;   /* of every replica */
    double kv_tokens;            /* of one rank */
    int64_t kv_blocks_all_windows; /* engine.kv_blocks if windows were kept at every position; 0 = no room for a block */
    double weight_bytes;         /* of one accelerator */
    apmw_power_params power;
    double peak_flop_per_s, hbm_bytes_per_s;
    apmw_node_spec node;         /* for power outside the accelerators; n_all_in 0 = unknown */
    double all_in_w;             /* provisioned, of the accelerator's spec; NaN */
    double acceptance_length;
    bool projected;              /* platform from specifications only */
    char basis[768];             /* what the numbers stand on, one line each */
    char hw_hash[17];
    apmw_buf rows;               /* which table prices which operation; owned */
    apmw_buf notes;              /* what to know first, a line each (apmw_compose_report); owned */
    int n_borrowed;
};
/* One deployment of the scenario's platform with this layout; `context` is the length at which the KV pool is sized and
 * max_context the longest prompt + output that must fit. Catalog entries must be loaded before a parallel region. */
apmw_status apmw_deployment_build(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                  const apmw_layout_choice *choice, double context, apmw_deployment *out,
                                  apmw_error *err);
/* Prefill and decode pools of the scenario with these layouts. The link is by default the scale-up fabric where both
 * pools are of one platform and fit one of its domains, else the scale-out network; at its nominal rate. */
apmw_status apmw_deployment_build_pools(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                        const apmw_layout_choice choices[APMW_POOLS], double context,
                                        apmw_deployment *out, apmw_error *err);
/* Layouts that the pools of a disaggregated scenario name. */
apmw_status apmw_scenario_pool_choices(const apmw_scenario *scenario, apmw_layout_choice out[APMW_POOLS], apmw_error *err);
/* The one deployment that the scenario names: its pools or its layout ("" = tensor parallel over all), its engine or the
 * first that serves. */
apmw_status apmw_deployment_of(apmw_catalog *catalog, const apmw_scenario *scenario, double context, apmw_deployment *out,
                               apmw_error *err);
/* Watts of an accelerator at these means of each pool (trial's pool_energy; [0] unused where there is one pool), with node
 * and rack; NaN = unknown. */
double apmw_deployment_all_in_w(const apmw_deployment *deployment, const apmw_trial_result *trial);
void apmw_deployment_free(apmw_deployment *deployment);

/* Mean prompt of a turn with half its output: the context at which a KV pool is sized. The trace is not empty. */
double apmw_trace_mean_context(const apmw_trace *trace);

/* A step cost whose times are `scale` times those of `inner` (borrowed; freeing the result leaves it). NULL when out of
 * memory. */
apmw_step_cost *apmw_step_cost_scaled(const apmw_step_cost *inner, double scale);

/* ------------------------------------------------------------------ trial */

enum { APMW_MAX_TIERS = 8 };
typedef struct apmw_trial_config {
    const apmw_deployment *deployment;
    const apmw_trace *trace;
    const apmw_phase_rules *rules;
    const apmw_tier *tiers;
    size_t n_tiers;
    int64_t n_agents;
    uint64_t seed;
    apmw_routing routing, decode_routing;
    apmw_router_knowledge knowledge;
    bool share_prefix, output_cached, concurrent_subagents;
    double delay_scale;
    double time_scale;      /* on every step; 1 */
    double prefill_scale;   /* on those of a prefill pool instead; 0 = time_scale */
    double acceptance_scale;/* on tokens emitted a step beyond the first; 1 */
    bool kv_all_windows;    /* pools sized by kv_blocks_all_windows, at least one block */
    int64_t max_context;    /* 0 = none */
    const apmw_start *starts; /* of the agents (cluster.h); NULL = drawn */
    size_t n_starts;
    int give_up_tier;       /* index of a tier: end the trial once hopeless for it; -1 = never */
    const apmw_collector *collector; /* further observer or NULL */
} apmw_trial_config;
struct apmw_trial_result {
    int64_t n_agents;
    apmw_verdict verdict[APMW_MAX_TIERS];
    apmw_latency_summary latency; /* measured requests: counts and tokens, no spreads (give a collector for those) */
    apmw_step_summary steps;
    apmw_energy_summary energy;
    apmw_energy_summary pool_energy[APMW_POOLS]; /* disaggregated: of each; else zeros */
    apmw_tier_stats tiers[APMW_KV_MAX_TIERS];    /* of the whole run, where the deployment has tiers of KV */
    double transfer_bytes, transfer_wait_s;      /* KV sent between pools, and the mean wait of a request for a link */
    apmw_window window;
    bool gave_up;                 /* ended before the phase did, since it could not pass */
    bool hopeless[APMW_MAX_TIERS]; /* of a given-up trial: this tier could not pass either */
    double frontend_share;        /* of the window in which the serial front ends worked; NaN without window */
    double simulated_s;
    int64_t n_turns;              /* requests ended */
    uint64_t n_events;
};
apmw_status apmw_trial_run(const apmw_trial_config *config, apmw_trial_result *out, apmw_error *err);
/* The closed loop of fixed lengths (apmw_fixed_loop) on a deployment, from first to last request; no verdict. */
apmw_status apmw_fixed_run(const apmw_deployment *deployment, const apmw_fixed_loop *loop, apmw_routing routing,
                           apmw_routing decode_routing, apmw_router_knowledge knowledge,
                           const apmw_collector *collector, apmw_trial_result *out, apmw_error *err);

/* ------------------------------------------------------------------ search */

typedef struct apmw_bracket {
    int64_t pass;  /* largest population that passed, 0 = none */
    int64_t fail;  /* smallest above it that failed, 0 = none up to the limit */
    int n_trials;  /* new ones */
} apmw_bracket;
/* passes: the verdict at n agents. Called at most once for each n. */
typedef apmw_status (*apmw_passes_fn)(void *self, int64_t n, bool *passes, apmw_error *err);
/* `start` agents, multiplied by `growth` (2 in AgentPerf) until a failure, then bisection until fail - pass <= max(1,
 * resolution * pass). A failure at `start` is divided by growth until something passes, down to 1. */
apmw_status apmw_bracket_search(apmw_passes_fn passes, void *self, int64_t start, double growth, int64_t limit,
                                double resolution, apmw_bracket *out, apmw_error *err);

/* The verdict at n agents with its ln margin: at or above 0 where it passes, below where it fails, however roughly known.
 * Called at most once for each n. */
typedef apmw_status (*apmw_margin_fn)(void *self, int64_t n, double *ln_margin, bool *passes, apmw_error *err);
/* The bracket of apmw_bracket_search with fewer trials: from `start` to where the margin would be 1 by secants of ln margin
 * over ln population, halving where they mislead. Where verdicts are monotone, both searches end around the same capacity;
 * at resolution 0 with the same bracket. */
apmw_status apmw_margin_search(apmw_margin_fn margin, void *self, int64_t start, int64_t limit, double resolution,
                               apmw_bracket *out, apmw_error *err);
/* A slope of ln margin over ln population held within what deployments show: margins fall with the population, by a third
 * of its growth at least (NaN: that) and steeply where a pool overflows. */
double apmw_margin_slope(double slope);

/* All trials of one deployment and workload by population: no trial is run twice, tiers share them. */
typedef struct apmw_trial_book apmw_trial_book;
apmw_trial_book *apmw_trial_book_create(const apmw_trial_config *config); /* borrows what config points to */
void apmw_trial_book_free(apmw_trial_book *book);
/* Verdict at n agents: from the book, or by running the trial. */
apmw_status apmw_trial_book_passes(apmw_trial_book *book, size_t tier, int64_t n, bool *passes, apmw_error *err);
size_t apmw_trial_book_count(const apmw_trial_book *book);
const apmw_trial_result *apmw_trial_book_at(const apmw_trial_book *book, size_t i); /* ascending n_agents */

typedef struct apmw_capacity {
    apmw_bracket bracket;
    int64_t agents;              /* = bracket.pass */
    apmw_trial_result at_pass, at_fail; /* n_agents 0 = none */
    char limited_by[16];         /* "speed", "ttft", "kv memory", "validity", "limit" */
    char limited_why[256];
    double outside_domain_share; /* of steps at pass */
} apmw_capacity;
/* guess 0: from 2 by doubling, as the protocol does; else from there by margins (apmw_margin_search). ttft_scale multiplies TTFT before it meets its limit (1). */
apmw_status apmw_capacity_search(apmw_trial_book *book, size_t tier, int64_t guess, double resolution, double ttft_scale,
                                 apmw_capacity *out, apmw_error *err);

/* 90 % interval by parts, in ln units (half-widths, lower and upper side). */
typedef struct apmw_interval_part {
    char name[24];
    double lower, upper;
} apmw_interval_part;
enum { APMW_INTERVAL_PARTS = 8 };
typedef struct apmw_interval {
    double lo, hi;
    int n_parts;
    apmw_interval_part parts[APMW_INTERVAL_PARTS];
} apmw_interval;
/* Adds parts in quadrature on each side around `point`. */
void apmw_interval_combine(double point, const apmw_interval_part *parts, int n, apmw_interval *out);

/* ------------------------------------------------------------------ study */

/* Capacity of several platforms at several tiers: layouts (and engines) that fit race each other, first with abbreviated
 * phases, those that come near the best with whole ones; the best is reported with its interval. */
typedef struct apmw_study_config {
    const apmw_scenario *scenario;     /* its platform is replaced by each of: */
    const char *const *platforms;
    size_t n_platforms;
    const apmw_trace *trace;
    const apmw_phase_rules *rules;
    const apmw_tier *tiers;            /* of the model, in order of their number */
    size_t n_tiers;
    double resolution;                 /* of the final brackets, relative; 0 = to one agent */
    bool all_layouts;                  /* report every layout, refined */
    /* > 0: of all layouts of the scenario's accelerators, prefill and decode apart or not, so many an engine are simulated:
     * those that a guess by rate matching puts first at each tier. Rows are then the frontier of each tier, the best first.
     * The scenario's own layout is not used. */
    size_t search_keep;
    bool interval;
    /* Called now and then by one thread; may be NULL. true = stop as soon as possible. */
    bool (*progress)(void *self, size_t done, size_t total);
    void *self;
} apmw_study_config;
typedef struct apmw_study_row {
    const apmw_deployment *deployment; /* owned by the study; NULL = nothing fits, see reason */
    char platform[56];
    int tier;                          /* number */
    apmw_capacity capacity;
    double agents_per_accelerator, agents_per_mw, watts_per_accelerator, watts_all_in; /* NaN = none */
    bool best;                         /* of its platform and tier */
    bool frontier;                     /* where all were searched: no other carries as many an accelerator and a megawatt */
    apmw_interval agents90, mw90;      /* n_parts 0 = not computed */
    char reason[512];                  /* "" or why there is no result */
    char partial[64];                  /* "" or, of a study that was stopped, what the row lacks */
    double ln_slope;                   /* of ln margin over ln population around the capacity; NaN = unknown */
} apmw_study_row;
typedef struct apmw_study apmw_study;
/* APMW_E_INTERRUPTED: `progress` stopped it; *out then holds what is known so far, with `partial` in its rows. */
apmw_status apmw_study_run(apmw_catalog *catalog, const apmw_study_config *config, apmw_study **out, apmw_error *err);
/* The same on deployments made elsewhere (taken over, also on failure). */
apmw_status apmw_study_run_on(apmw_deployment *deployments, size_t n, const apmw_study_config *config, apmw_study **out,
                              apmw_error *err);
void apmw_study_free(apmw_study *study);
const apmw_study_row *apmw_study_rows(const apmw_study *study, size_t *n);
/* Layouts that were not searched and why, one line each ("" = none). Owned by the study. */
const char *apmw_study_refused(const apmw_study *study);
/* What a layout search considered and chose, one line an engine ("" = none was asked for). Owned by the study. */
const char *apmw_study_searched(const apmw_study *study);
int64_t apmw_study_trials(const apmw_study *study);
int64_t apmw_study_turns(const apmw_study *study);

#endif
