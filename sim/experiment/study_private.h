/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_STUDY_PRIVATE_H
#define APMW_STUDY_PRIVATE_H
#include "deployment_private.h"

/* One deployment that is searched, with its trials. By tier: */
typedef struct study_candidate {
    apmw_deployment deployment; /* owned */
    size_t platform;            /* index in the config's platforms: candidates of one are compared */
    apmw_trial_book *book;      /* whole phases */
    apmw_trial_book *screen;    /* abbreviated phases, to see which layouts are in the race; NULL = no race */
    double estimate[APMW_MAX_TIERS];        /* before any trial */
    apmw_capacity screened[APMW_MAX_TIERS]; /* where `seen`: stayed in the race of abbreviated phases */
    bool seen[APMW_MAX_TIERS];
    double guess[APMW_MAX_TIERS];           /* where a search of whole phases begins */
    bool contender[APMW_MAX_TIERS];         /* in the race of whole phases */
    apmw_capacity capacity[APMW_MAX_TIERS]; /* where `known` */
    bool known[APMW_MAX_TIERS];
    int round;                  /* of the race that runs; -1 = not in it */
    int64_t mark;               /* what it must carry in this round, 0 = nothing */
} study_candidate;

/* study_layouts.c: adds the most promising of all splits of the scenario's accelerators for this engine. */
apmw_status apmw_study_search_layouts(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                      const apmw_scenario *scenario, const char *engine, size_t platform, double context,
                                      const int *drafts, size_t n_drafts, apmw_error *err);

struct apmw_study {
    study_candidate *candidates;
    size_t n_candidates;
    apmw_study_row *rows;
    size_t n_rows;
    char (*unserved)[512]; /* of each platform: why nothing of it can be served, or "" */
    apmw_phase_rules screen_rules;
    apmw_buf refused;
    apmw_buf searched; /* what a layout search guessed and chose, a line an engine */
    int64_t trials, turns;
    bool interrupted;
    bool raced[APMW_MAX_TIERS]; /* the race of this tier is over */
};

/* One unit of parallel work; its error is its own. */
typedef struct study_slot {
    apmw_error err;
    int64_t trials, turns;
    bool done;
} study_slot;

typedef struct study_stage {
    const apmw_study_config *config;
    apmw_study *study;
    size_t done, total;
    bool stop;
} study_stage;
/* Counts a finished unit; the main thread tells the caller, who may want to stop. */
void apmw_study_finished(study_stage *s);
bool apmw_study_stopped(study_stage *s);
/* The first error by slot, whatever thread met it when. */
apmw_status apmw_study_first_error(const study_slot *slots, size_t n, apmw_error *err);
/* Capacities of all candidates that may be the best of their platform, at every tier; less where it was stopped. */
apmw_status apmw_study_race(study_stage *s, apmw_error *err);
/* Every candidate's capacity is wanted, not only that of the best of a platform. */
bool apmw_study_exhaustive(const apmw_study_config *config);
/* Slope of ln margin over ln population around a known capacity, from all its trials; NaN = they lie too close. */
double apmw_study_slope(const study_candidate *c, const apmw_tier *tier, size_t t);

/* What an engine is taken for: it serves whole requests, prompts alone, or what follows them. */
typedef enum study_part { STUDY_WHOLE, STUDY_PREFILL, STUDY_DECODE } study_part;
/* Agents that mean values let expect, at least 1: of all replicas of one pool in this part, and of a deployment. */
double apmw_study_estimate_part(const apmw_study_config *config, const apmw_deployment *deployment, study_part part,
                                const apmw_tier *tier);
double apmw_study_estimate(const apmw_study_config *config, const apmw_deployment *deployment, const apmw_tier *tier);
/* The population between pass and fail at which the margin would be 1, by interpolation; the one end that is known. */
double apmw_study_crossing(const apmw_capacity *c, const apmw_tier *tier, size_t t);
/* ln of the smallest margin to the limits of tier t, held within a factor of 2, with TTFT scaled. */
double apmw_study_ln_margin(const apmw_trial_result *trial, const apmw_tier *tier, size_t t, double ttft_scale);

/* Takes the deployment over, also on failure. */
apmw_status apmw_study_add(apmw_study *study, apmw_deployment *deployment, size_t platform, apmw_error *err);
/* Adds what can be served on the platform of that index; APMW_E_SCENARIO when nothing can. */
apmw_status apmw_study_add_platform(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                    size_t platform, double context, apmw_error *err);

/* What varies in one more run for an interval. */
typedef enum study_variation {
    STUDY_SLOWER, STUDY_FASTER, /* all steps, by 1.645 sd of the fit */
    STUDY_TTFT_LONGER, STUDY_TTFT_SHORTER,
    STUDY_LESS_ACCEPTED,
    STUDY_ALL_WINDOWS,
    STUDY_SEED_1, STUDY_SEED_2, STUDY_SEED_3,
    STUDY_TRACE_1, STUDY_TRACE_2, STUDY_TRACE_3, STUDY_TRACE_4, STUDY_TRACE_5,
    STUDY_VARIATIONS
} study_variation;

/* Result of a variation: capacity and agents per W of an accelerator, in ln relative to the point; NaN = none. */
typedef struct study_shift {
    double ln_agents, ln_agents_per_w;
} study_shift;

/* Runs one variation of `row` (whose deployment and capacity stand). Thread-safe: it owns all it changes. */
apmw_status apmw_study_vary(const apmw_study_config *config, size_t tier, const apmw_study_row *row,
                            study_variation variation, study_shift *out, int64_t *trials, int64_t *turns,
                            apmw_error *err);
/* Joins the shifts of all variations to the row's two intervals. */
void apmw_study_join(const study_shift *shifts, apmw_study_row *row);
apmw_trial_config apmw_study_trial_config(const apmw_study_config *config, const apmw_deployment *deployment);

#endif
