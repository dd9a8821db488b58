/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How far a capacity may be off, by source:
 * - step time and TTFT of the fit: the search is repeated with all steps 1.645 sd slower and faster, and with TTFT
 *   scaled likewise (a monotone function of one normal variable has its 5 % and 95 % quantiles there);
 * - seed and trace: with other seeds, and with trajectories drawn with replacement, up to three populations near the point
 *   are run, and the one whose margin to the limits would be 1 is found by secants in ln margin over ln population (a
 *   search to one agent would cost several times more and say no more about a spread);
 * - acceptance of drafted tokens: the curves are single-turn; in agent replays it was seen far lower (Kimi-K3 DSpark 1.18
 *   to 1.68 tokens a step against 3.84, InferenceX perf-changelog). The lower end is a search with LEAST_ACCEPTED of it;
 * - power: the sd that its fit carries, for agents per megawatt only.
 * Sources are independent and small enough to add in quadrature on the ln scale. */
#include "study_private.h"

#include <math.h>
#include <stdlib.h>

#include "apmw/rng.h"

/* 95 % quantile of the normal distribution: bounds of a two-sided 90 % interval. */
static const double Z90 = 1.6448536269514722;
/* Share of the curve's extra tokens a step that agents may be left with: an assumption, between the one live observation
 * (0.06 to 0.24, of another kind of draft) and the curve. */
static const double LEAST_ACCEPTED = 0.6;
/* Brackets of repeated searches, relative: well below the widths that they measure. */
static const double VARIED = 0.03;

/* Trajectories drawn with replacement; items are shared with `trace`. */
static apmw_status resampled(const apmw_trace *trace, uint64_t seed, apmw_trace *out, apmw_error *err)
{
    *out = *trace;
    out->items = calloc(trace->n, sizeof *out->items);
    if (out->items == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    apmw_rng rng = apmw_rng_make(seed, "bootstrap", 0, 0);
    for (size_t i = 0; i < trace->n; i++) {
        out->items[i] = trace->items[apmw_rng_below(&rng, trace->n)];
    }
    return APMW_OK;
}

static apmw_status vary_search(const apmw_study_config *config, const apmw_study_row *row, size_t tier,
                               double time_scale, double ttft_scale, double acceptance_scale, study_shift *out, int64_t *trials, int64_t *turns,
                               apmw_error *err)
{
    apmw_trial_config trial = apmw_study_trial_config(config, row->deployment);
    trial.time_scale = time_scale;
    trial.acceptance_scale = acceptance_scale;
    apmw_trial_book *book = apmw_trial_book_create(&trial);
    if (book == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    apmw_capacity capacity;
    /* Time enters capacity at least linearly: a good place to begin. */
    const int64_t guess = (int64_t)floor((double)row->capacity.agents / time_scale);
    const apmw_status status =
        apmw_capacity_search(book, tier, guess > 1 ? guess : 1, VARIED, ttft_scale, &capacity, err);
    *trials += (int64_t)apmw_trial_book_count(book);
    for (size_t i = 0; i < apmw_trial_book_count(book); i++) {
        *turns += apmw_trial_book_at(book, i)->n_turns;
    }
    if (status == APMW_OK) {
        /* No agent at all counts as a quarter of one: the interval then reaches down to about zero. */
        const double agents = capacity.agents > 0 ? (double)capacity.agents : 0.25;
        const double watts = capacity.agents > 0 ? capacity.at_pass.energy.mean_w : row->watts_per_accelerator;
        out->ln_agents = log(agents / (double)row->capacity.agents);
        out->ln_agents_per_w = out->ln_agents - log(watts / row->watts_per_accelerator);
    }
    apmw_trial_book_free(book);
    return status;
}

/* ln margin of a trial; a population that fails outright counts as missing by half. */
static double ln_margin(const apmw_trial_result *trial, size_t tier)
{
    const double margin = trial->verdict[tier].margin;
    return isfinite(margin) && margin > 0.5 ? log(margin) : log(0.5);
}

/* Slope of ln margin over ln population between two trials, within what a deployment can show: margins fall with the
 * population, by a third of it at least and steeply where a pool overflows. */
static double bounded_slope(double slope)
{
    return isnan(slope) || slope > -0.3 ? -0.3 : slope < -10.0 ? -10.0 : slope;
}

enum { SECANTS = 3 };

/* ln of the population at which the margin is 1, relative to the point's. */
static apmw_status crossing(apmw_trial_config *trial, size_t tier, int64_t agents, double *ln_shift, double *watts,
                            int64_t *trials, int64_t *turns, apmw_error *err)
{
    double x[SECANTS], y[SECANTS], slope = -1.0, next = 0.0;
    for (int i = 0; i < SECANTS; i++) {
        trial->n_agents = llround((double)agents * exp(next));
        trial->n_agents = trial->n_agents < 1 ? 1 : trial->n_agents;
        apmw_trial_result result;
        const apmw_status status = apmw_trial_run(trial, &result, err);
        if (status != APMW_OK) {
            return status;
        }
        *trials += 1;
        *turns += result.n_turns;
        *watts = result.energy.mean_w;
        x[i] = log((double)trial->n_agents / (double)agents);
        y[i] = ln_margin(&result, tier);
        if (i > 0 && fabs(x[i] - x[i - 1]) > 1e-9) {
            slope = bounded_slope((y[i] - y[i - 1]) / (x[i] - x[i - 1]));
        }
        /* No step beyond a factor of 1.6: slopes change where a pool overflows. */
        next = x[i] - fmax(-0.47, fmin(0.47, y[i] / slope));
        const bool same = llround((double)agents * exp(next)) == trial->n_agents;
        if (same || fabs(y[i]) < 0.005 || (i > 0 && (y[i] < 0.0) != (y[i - 1] < 0.0))) {
            break; /* here, or between the last two */
        }
    }
    *ln_shift = next;
    return APMW_OK;
}

static apmw_status vary_sample(const apmw_study_config *config, const apmw_study_row *row, size_t tier,
                               study_variation variation, study_shift *out, int64_t *trials, int64_t *turns,
                               apmw_error *err)
{
    apmw_trial_config trial = apmw_study_trial_config(config, row->deployment);
    trial.give_up_tier = -1;
    apmw_trace sample = {0};
    if (variation >= STUDY_TRACE_1) {
        const apmw_status status = resampled(config->trace, config->scenario->seed + (uint64_t)variation, &sample, err);
        if (status != APMW_OK) {
            return status;
        }
        trial.trace = &sample;
    } else {
        trial.seed = apmw_rng_key(config->scenario->seed, "other seed", (uint64_t)variation, 0);
    }
    double watts = row->watts_per_accelerator;
    const apmw_status status =
        crossing(&trial, tier, row->capacity.agents, &out->ln_agents, &watts, trials, turns, err);
    free(sample.items);
    out->ln_agents_per_w = out->ln_agents - log(watts / row->watts_per_accelerator);
    return status;
}

apmw_status apmw_study_vary(const apmw_study_config *config, size_t tier, const apmw_study_row *row,
                            study_variation variation, study_shift *out, int64_t *trials, int64_t *turns,
                            apmw_error *err)
{
    const double time = Z90 * row->deployment->overhead.ln_sd_time;
    const double ttft = Z90 * row->deployment->overhead.ln_sd_ttft;
    switch (variation) {
    case STUDY_SLOWER:
        return vary_search(config, row, tier, exp(time), 1.0, 1.0, out, trials, turns, err);
    case STUDY_FASTER:
        return vary_search(config, row, tier, exp(-time), 1.0, 1.0, out, trials, turns, err);
    case STUDY_TTFT_LONGER:
        return vary_search(config, row, tier, 1.0, exp(ttft), 1.0, out, trials, turns, err);
    case STUDY_TTFT_SHORTER:
        return vary_search(config, row, tier, 1.0, exp(-ttft), 1.0, out, trials, turns, err);
    case STUDY_LESS_ACCEPTED:
        if (row->deployment->spec.draft_tokens == 0) {
            *out = (study_shift){0};
            return APMW_OK;
        }
        return vary_search(config, row, tier, 1.0, 1.0, LEAST_ACCEPTED, out, trials, turns, err);
    default:
        return vary_sample(config, row, tier, variation, out, trials, turns, err);
    }
}

/* A part from the two ends of one cause: each side as far as either end reaches to it. */
static apmw_interval_part two_ends(const char *name, double a, double b)
{
    apmw_interval_part part = {.lower = fmax(0.0, -fmin(a, b)), .upper = fmax(0.0, fmax(a, b))};
    for (size_t i = 0; name[i] != '\0' && i + 1 < sizeof part.name; i++) {
        part.name[i] = name[i];
    }
    return part;
}

/* A symmetric part from the spread of repetitions around the point, which is itself one of them. */
static apmw_interval_part spread_of(const char *name, const study_shift *shifts, int n, double (*value)(study_shift))
{
    double sum = 0.0, squares = 0.0, count = 1.0;
    for (int i = 0; i < n; i++) {
        const double v = value(shifts[i]);
        if (!isnan(v)) {
            sum += v;
            squares += v * v;
            count += 1.0;
        }
    }
    const double variance = count > 1.0 ? (squares - sum * sum / count) / (count - 1.0) : 0.0;
    const double half = Z90 * sqrt(fmax(0.0, variance));
    return two_ends(name, -half, half);
}

static double agents_of(study_shift shift)
{
    return shift.ln_agents;
}

static double agents_per_w_of(study_shift shift)
{
    return shift.ln_agents_per_w;
}

void apmw_study_join(const study_shift *shifts, apmw_study_row *row)
{
    double (*const values[2])(study_shift) = {agents_of, agents_per_w_of};
    for (int k = 0; k < 2; k++) {
        double (*value)(study_shift) = values[k];
        apmw_interval_part parts[APMW_INTERVAL_PARTS];
        int n = 0;
        parts[n++] = two_ends("step time", value(shifts[STUDY_SLOWER]), value(shifts[STUDY_FASTER]));
        parts[n++] = two_ends("ttft", value(shifts[STUDY_TTFT_LONGER]), value(shifts[STUDY_TTFT_SHORTER]));
        if (row->deployment->spec.draft_tokens > 0) {
            parts[n++] = two_ends("acceptance", value(shifts[STUDY_LESS_ACCEPTED]), 0.0);
        }
        parts[n++] = spread_of("seed", &shifts[STUDY_SEED_1], STUDY_SEED_3 - STUDY_SEED_1 + 1, value);
        parts[n++] = spread_of("trace", &shifts[STUDY_TRACE_1], STUDY_TRACE_5 - STUDY_TRACE_1 + 1, value);
        if (k == 1) {
            const apmw_power_params *p = &row->deployment->power;
            const double sd = Z90 * sqrt(p->sd_config * p->sd_config + p->sd_platform * p->sd_platform);
            /* No accelerator draws more than its limit for long. */
            const double most = log(p->tdp_w / row->watts_per_accelerator);
            parts[n++] = two_ends("power", -fmin(sd, fmax(0.0, most)), sd);
        }
        apmw_interval_combine(k == 0 ? (double)row->capacity.agents : row->agents_per_mw, parts, n,
                              k == 0 ? &row->agents90 : &row->mw90);
    }
}
