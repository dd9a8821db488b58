/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef APMW_STUDY_PRIVATE_H
#define APMW_STUDY_PRIVATE_H
#include "apmw/experiment.h"

/* One deployment that is searched, with its trials. */
typedef struct study_candidate {
    apmw_deployment deployment; /* owned */
    size_t platform;            /* index in the config's platforms: candidates of one are compared */
    bool leads;                 /* screened in full, first: the others only have to be compared with the best of these */
    apmw_trial_book *book;      /* whole phases */
    apmw_trial_book *screen;    /* abbreviated phases, to see which layouts are in the race; NULL = no race */
    int64_t screened[APMW_MAX_TIERS], screen_fail[APMW_MAX_TIERS];
    apmw_capacity capacity[APMW_MAX_TIERS];
    bool contender[APMW_MAX_TIERS]; /* may be the best */
    bool out[APMW_MAX_TIERS];       /* was a contender and is not the best */
} study_candidate;

struct apmw_study {
    study_candidate *candidates;
    size_t n_candidates;
    apmw_study_row *rows;
    size_t n_rows;
    char (*unserved)[512]; /* of each platform: why nothing of it can be served, or "" */
    apmw_phase_rules screen_rules;
    apmw_buf refused;
    int64_t trials, turns;
};

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
