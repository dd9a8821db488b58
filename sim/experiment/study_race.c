/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which layout of a platform carries most: a race in rounds. The one that looks best is searched first, then one, two, four
 * more and so on are asked whether they reach what the best so far carries; what cannot is out after one trial, which mostly
 * ends early. First with abbreviated phases, then, of those that come near the best, with whole ones. A round knows only
 * the results of earlier rounds, so the answer does not depend on the number of threads. */
#include "study_private.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

/* Abbreviated phases, relative: how wide their brackets are; what share of the best so far a candidate must carry for its
 * own capacity to be looked for; and how far the capacity of whole phases may lie from the crossing that abbreviated ones
 * show (contexts still grow while the first trajectories play). */
static const double COARSE = 0.1, REACH = 1.12, SLACK = 1.07;

void apmw_study_finished(study_stage *s)
{
    size_t done;
#pragma omp atomic capture
    done = ++s->done;
    if (s->config->progress != NULL && omp_get_thread_num() == 0 &&
        s->config->progress(s->config->self, done < s->total ? done : s->total, s->total)) {
#pragma omp atomic write
        s->stop = true;
    }
}

bool apmw_study_stopped(study_stage *s)
{
    bool stop;
#pragma omp atomic read
    stop = s->stop;
    return stop;
}

apmw_status apmw_study_first_error(const study_slot *slots, size_t n, apmw_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (slots[i].err.status != APMW_OK) {
            return apmw_error_set(err, slots[i].err.status, "%s", slots[i].err.message);
        }
    }
    return APMW_OK;
}

double apmw_study_crossing(const apmw_capacity *c, const apmw_tier *tier, size_t t)
{
    if (c->bracket.pass == 0 || c->bracket.fail == 0) {
        return (double)(c->bracket.pass > 0 ? c->bracket.pass : c->bracket.fail);
    }
    const double above = fmax(0.0, apmw_study_ln_margin(&c->at_pass, tier, t, 1.0));
    const double below = fmin(-1e-6, apmw_study_ln_margin(&c->at_fail, tier, t, 1.0));
    return (double)c->bracket.pass + above / (above - below) * (double)(c->bracket.fail - c->bracket.pass);
}

/* `needed`: what the candidate must carry to stay in the race; 0 = it is the first. */
static apmw_status screen(study_stage *s, study_candidate *c, size_t t, int64_t needed, apmw_error *err)
{
    bool passes = true;
    apmw_status status = APMW_OK;
    if (needed > 0) {
        status = apmw_trial_book_passes(c->screen, t, needed, &passes, err);
    }
    if (status == APMW_OK && passes) {
        const int64_t guess = needed > 0 ? needed : llround(c->estimate[t]);
        status = apmw_capacity_search(c->screen, t, guess, COARSE, 1.0, &c->screened[t], err);
        c->guess[t] = apmw_study_crossing(&c->screened[t], &s->config->tiers[t], t);
        c->seen[t] = status == APMW_OK;
    }
    return status;
}

/* `needed`: as above, in whole phases. */
static apmw_status refine(study_stage *s, study_candidate *c, size_t t, int64_t needed, apmw_error *err)
{
    bool passes = true;
    apmw_status status = APMW_OK;
    if (needed > 0) {
        status = apmw_trial_book_passes(c->book, t, needed, &passes, err);
    }
    if (status == APMW_OK && passes) {
        const int64_t guess = llround(c->guess[t]) > needed ? llround(c->guess[t]) : needed;
        status = apmw_capacity_search(c->book, t, guess > 1 ? guess : 1, s->config->resolution, 1.0, &c->capacity[t], err);
        c->known[t] = status == APMW_OK;
    }
    return status;
}

/* Best result of the platform so far: what another one has to carry in the next round; 0 = none yet. */
static int64_t mark_of(const apmw_study *study, const study_candidate *c, size_t t, bool whole)
{
    int64_t mark = 0;
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *other = &study->candidates[i];
        if (other->platform == c->platform && (whole ? other->known[t] : other->seen[t])) {
            const int64_t needed = whole ? other->capacity[t].agents + 1
                                         : (int64_t)ceil((double)other->screened[t].agents / REACH);
            mark = needed > mark ? needed : mark;
        }
    }
    return mark;
}

/* Place of a candidate among those of its platform, by what it is expected to carry; the earlier of equals first. */
static size_t place_of(const apmw_study *study, const study_candidate *c, size_t t, bool whole)
{
    size_t place = 0;
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *other = &study->candidates[i];
        const double its = whole ? other->guess[t] : other->estimate[t], own = whole ? c->guess[t] : c->estimate[t];
        if (other != c && other->platform == c->platform && (!whole || other->contender[t])) {
            place += its > own || (its >= own && other < c);
        }
    }
    return place;
}

/* Places by round: 0; 1; 2, 3; 4 .. 7; and so on. */
static int round_of(size_t place)
{
    int round = 0;
    for (; place > 0; place /= 2) {
        round++;
    }
    return round;
}

enum { ROUNDS = 12 }; /* up to 2048 candidates of a platform */

/* All rounds of one tier, in abbreviated or in whole phases. */
static apmw_status run_rounds(study_stage *s, size_t t, bool whole, apmw_error *err)
{
    apmw_study *study = s->study;
    const size_t n = study->n_candidates;
    const bool all = apmw_study_exhaustive(s->config);
    study_slot *slots = calloc(n + 1, sizeof *slots);
    if (slots == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        study_candidate *c = &study->candidates[i];
        c->round = (whole ? !c->contender[t] : c->screen == NULL) ? -1 : all ? 0 : round_of(place_of(study, c, t, whole));
    }
    apmw_status status = APMW_OK;
    for (int round = 0; round < ROUNDS && status == APMW_OK; round++) {
        for (size_t i = 0; i < n; i++) {
            study_candidate *c = &study->candidates[i];
            c->mark = all ? 0 : mark_of(study, c, t, whole);
        }
#pragma omp parallel for schedule(dynamic, 1)
        for (size_t i = 0; i < n; i++) {
            study_candidate *c = &study->candidates[i];
            if (c->round == round && !apmw_study_stopped(s)) {
                if (whole) {
                    refine(s, c, t, c->mark, &slots[i].err);
                } else {
                    screen(s, c, t, c->mark, &slots[i].err);
                }
                apmw_study_finished(s);
            }
        }
        status = apmw_study_first_error(slots, n, err);
    }
    free(slots);
    return status;
}

/* In the race with whole phases: what has no rival, or comes near the best of its platform with abbreviated ones. */
static void choose_contenders(apmw_study *study, const apmw_study_config *config, size_t t)
{
    for (size_t i = 0; i < study->n_candidates; i++) {
        study_candidate *c = &study->candidates[i];
        double best = 0.0;
        for (size_t j = 0; j < study->n_candidates; j++) {
            const study_candidate *other = &study->candidates[j];
            best = other->platform == c->platform && other->seen[t] && other->guess[t] > best ? other->guess[t] : best;
        }
        const bool near = c->seen[t] && c->guess[t] * SLACK >= best;
        c->contender[t] = apmw_study_exhaustive(config) || c->screen == NULL || near;
        if (!c->seen[t]) {
            c->guess[t] = c->estimate[t];
        }
    }
}

apmw_status apmw_study_race(study_stage *s, apmw_error *err)
{
    apmw_study *study = s->study;
    s->done = 0;
    s->total = 2 * study->n_candidates * s->config->n_tiers;
    apmw_status status = APMW_OK;
    /* The loosest tier first: its trials serve the others. */
    for (size_t t = 0; t < s->config->n_tiers && status == APMW_OK && !apmw_study_stopped(s); t++) {
        for (size_t i = 0; i < study->n_candidates; i++) {
            study_candidate *c = &study->candidates[i];
            c->estimate[t] = apmw_study_estimate(s->config, &c->deployment, &s->config->tiers[t]);
        }
        if (!apmw_study_exhaustive(s->config)) {
            status = run_rounds(s, t, false, err);
        }
        if (status == APMW_OK) {
            choose_contenders(study, s->config, t);
            status = run_rounds(s, t, true, err);
            study->raced[t] = !apmw_study_stopped(s);
        }
    }
    return status;
}

/* Sums for a slope of ln margin over ln population that two groups of trials share, each with its own level. */
static void add_group(const apmw_trial_book *book, const apmw_tier *tier, size_t t, double agents, double sums[2])
{
    double x[64], y[64], n = 0.0, mean_x = 0.0, mean_y = 0.0;
    int count = 0;
    for (size_t i = 0; book != NULL && i < apmw_trial_book_count(book) && count < 64; i++) {
        const apmw_trial_result *trial = apmw_trial_book_at(book, i);
        const double at = log((double)trial->n_agents / agents);
        const double margin = apmw_study_ln_margin(trial, tier, t, 1.0);
        /* Within a factor of 1.5, and on this side of a cliff. */
        if (!trial->gave_up && trial->verdict[t].valid && fabs(at) < 0.4 && fabs(margin) < 0.5) {
            x[count] = at;
            y[count++] = margin;
            mean_x += at;
            mean_y += margin;
            n += 1.0;
        }
    }
    for (int i = 0; i < count; i++) {
        sums[0] += (x[i] - mean_x / n) * (x[i] - mean_x / n);
        sums[1] += (x[i] - mean_x / n) * (y[i] - mean_y / n);
    }
}

double apmw_study_slope(const study_candidate *c, const apmw_tier *tier, size_t t)
{
    double sums[2] = {0.0, 0.0};
    const double agents = (double)c->capacity[t].agents;
    if (agents > 0.0) {
        add_group(c->book, tier, t, agents, sums);
        add_group(c->screen, tier, t, agents, sums);
    }
    /* Populations within some 3 % show noise, not a slope. */
    return sums[0] > 1e-3 ? sums[1] / sums[0] : (double)NAN;
}
