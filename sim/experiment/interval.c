/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How far a capacity may be off, by source. For each variation the population at which the margin to the limits would be 1
 * is found by secants in ln margin over ln population, from where the slope at the point says it is (a search to one agent
 * would cost several times more and say no more about a spread):
 * - step time and TTFT of the fit: all steps 1.645 sd slower and faster, and TTFT scaled likewise (a monotone function of
 *   one normal variable has its 5 % and 95 % quantiles there);
 * - seed and trace: other seeds, and trajectories drawn with replacement;
 * - acceptance of drafted tokens: the curves are single-turn; in agent replays it was seen far lower (Kimi-K3 DSpark 1.18
 *   to 1.68 tokens a step against 3.84, InferenceX perf-changelog). The lower end is LEAST_ACCEPTED of it;
 * - windows: what a prefix cache keeps of sliding-window layers, the last window of a sequence or that of every position,
 *   is a choice of the serving engine of the day that no source tells; the other choice is the lower end;
 * - power: the sd that its fit carries, for agents per megawatt only.
 * Sources are independent and small enough to add in quadrature on the ln scale. */
#include "study_private.h"

#include <math.h>
#include <stdlib.h>

#include "apmw/rng.h"

/* Share of the curve's extra tokens a step that agents may be left with: an assumption, between the one live observation
 * (0.06 to 0.24, of another kind of draft) and the curve. */
static const double LEAST_ACCEPTED = 0.6;
/* A crossing is known when the next step to it, or what is left between a pass and a fail, is no longer than this (ln). */
static const double NEAR = 0.02;
/* The same for seeds and samples, of which a spread is taken, and for TTFT; and the longest first steps of both, which mostly
 * move a capacity by less, while margins may fall more steeply behind the point than before it. */
static const double NEAR_OF_SAMPLES = 0.035, FIRST_OF_SAMPLES = 0.07, FIRST_OF_TTFT = 0.15;
/* The longest step at all, a factor of 1.6: slopes change where a pool overflows. */
static const double FARTHEST = 0.47;

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

/* ln margin of a trial; a population that fails outright counts as missing by half, one that was given up as failing. */
static double ln_margin(const apmw_trial_config *config, const apmw_trial_result *trial, size_t tier, double ttft_scale)
{
    const apmw_verdict *v = &trial->verdict[tier];
    const double margin = apmw_study_ln_margin(trial, &config->tiers[tier], tier, ttft_scale);
    if (trial->gave_up) {
        return fmin(margin, -NEAR);
    }
    const bool failed = (double)v->n_failed > config->rules->max_failed_share * (double)v->n_measured;
    return !v->valid || v->n_measured == 0 || failed ? log(0.5) : margin;
}

/* A population, as ln of its share of the point's, with its ln margin. */
typedef struct sight {
    double x, y;
    bool known, whole; /* whole: the phase was not given up */
} sight;

/* One variation on its way: the nearest pass and fail, and the last population looked at. */
typedef struct crossing {
    apmw_trial_config trial;
    size_t tier;
    double agents, ttft_scale, slope, near, width; /* width: from pass to fail before the last look; NaN = open */
    double most;   /* longest next step along the slope */
    double origin; /* ln of where the point's own margin is 1, relative to its agents */
    int looks; /* at most */
    sight pass, fail, last;
    double watts; /* of the last whole phase */
    int64_t trials, turns;
} crossing;

static void take(crossing *c, double x, const apmw_trial_result *result)
{
    const sight now = {x, ln_margin(&c->trial, result, c->tier, c->ttft_scale), true, !result->gave_up};
    if (c->last.known && fabs(now.x - c->last.x) > NEAR) {
        c->slope = apmw_margin_slope((now.y - c->last.y) / (now.x - c->last.x));
    }
    c->last = now;
    if (now.y >= 0.0 && (!c->pass.known || now.x > c->pass.x)) {
        c->pass = now;
    } else if (now.y < 0.0 && (!c->fail.known || now.x < c->fail.x)) {
        c->fail = now;
    }
    c->watts = now.whole ? result->energy.mean_w : c->watts;
}

/* Where the margin would be 1: between a pass and the fail above it, in the middle when the last look left more than half
 * (a pool that overflows makes a cliff); or along the slope. */
static double aim(crossing *c)
{
    if (c->pass.known && c->fail.known && c->pass.x < c->fail.x) {
        const double width = c->fail.x - c->pass.x;
        const bool slow = width > 0.5 * c->width;
        c->width = width;
        return c->pass.x + (slow ? 0.5 : c->pass.y / (c->pass.y - c->fail.y)) * width;
    }
    const double most = c->most;
    c->most = FARTHEST;
    return c->last.x - fmax(-most, fmin(most, c->last.y / c->slope));
}

/* Near enough to the limits that margins run straight to them: no cliff between a pass and a fail that both are. */
static bool straight(const sight *s)
{
    return s->whole && fabs(s->y) < 0.05;
}

/* ln of the population at which the margin is 1, relative to the point's. `next`: where to look first unless a population
 * is known already. No agent at all counts as a quarter of one: the interval then reaches down to about zero. */
static apmw_status cross(crossing *c, double next, double *ln_shift, apmw_error *err)
{
    for (int i = 0; i < c->looks; i++) {
        const int64_t n = llround(c->agents * exp(next));
        c->trial.n_agents = n < 1 ? 1 : n;
        apmw_trial_result result;
        const apmw_status status = apmw_trial_run(&c->trial, &result, err);
        if (status != APMW_OK) {
            return status;
        }
        c->trials++;
        c->turns += result.n_turns;
        const double x = log((double)c->trial.n_agents / c->agents);
        take(c, x, &result);
        if (c->trial.n_agents == 1 && c->last.y < 0.0) {
            next = log(0.25 / c->agents);
            break;
        }
        next = aim(c);
        const bool closed = c->pass.known && c->fail.known &&
                            (fabs(c->fail.x - c->pass.x) <= c->near || (straight(&c->pass) && straight(&c->fail)));
        const bool same = llround(c->agents * exp(next)) == c->trial.n_agents;
        if (closed || (c->last.whole && (same || fabs(next - x) <= c->near))) {
            break;
        }
    }
    *ln_shift = next;
    return APMW_OK;
}

static crossing begin(const apmw_study_config *config, const apmw_study_row *row, size_t tier)
{
    crossing c = {.trial = apmw_study_trial_config(config, row->deployment), .tier = tier, .ttft_scale = 1.0};
    c.near = NEAR;
    c.looks = 5;
    c.width = (double)NAN;
    c.most = FARTHEST;
    c.trial.give_up_tier = (int)tier;
    c.agents = (double)row->capacity.agents;
    c.origin = log(apmw_study_crossing(&row->capacity, &config->tiers[tier], tier) / c.agents);
    c.slope = apmw_margin_slope(isnan(row->ln_slope) ? -1.0 : row->ln_slope);
    c.watts = row->watts_per_accelerator;
    return c;
}

static void report(const crossing *c, const apmw_study_row *row, double ln_shift, study_shift *out, int64_t *trials,
                   int64_t *turns)
{
    out->ln_agents = ln_shift - c->origin;
    out->ln_agents_per_w = out->ln_agents - log(c->watts / row->watts_per_accelerator);
    *trials += c->trials;
    *turns += c->turns;
}

/* A token takes `longer` times as long: along the slope of the margin that says where to look first. */
static apmw_status vary_time(crossing *c, double longer, double *ln_shift, apmw_error *err)
{
    return cross(c, fmax(-0.7, fmin(0.7, log(longer) / c->slope)), ln_shift, err);
}

/* The same trials with TTFT scaled: what the point's own bracket shows needs no further one. */
static apmw_status vary_ttft(crossing *c, const apmw_study_row *row, double scale, double *ln_shift, apmw_error *err)
{
    c->ttft_scale = scale;
    c->near = NEAR_OF_SAMPLES;
    c->most = FIRST_OF_TTFT;
    const apmw_capacity *point = &row->capacity;
    if (point->bracket.fail > 0) {
        take(c, log((double)point->bracket.fail / c->agents), &point->at_fail);
    }
    c->last.known = false; /* a bracket of a percent shows no slope */
    take(c, 0.0, &point->at_pass);
    *ln_shift = c->origin;
    if (c->pass.known && (c->fail.known || point->bracket.fail == 0)) {
        return APMW_OK;
    }
    if (c->pass.known) { /* both ends pass now: on from the upper one */
        c->last = c->pass;
    }
    return cross(c, aim(c), ln_shift, err);
}

/* A pool of a seventh is far away; but where the point holds with it too, nothing is lost. */
static apmw_status vary_windows(crossing *c, double *ln_shift, apmw_error *err)
{
    c->looks = 1;
    const apmw_status status = cross(c, 0.0, ln_shift, err);
    if (status != APMW_OK || c->last.y >= 0.0) {
        *ln_shift = c->origin;
        return status;
    }
    c->looks = 8;
    return cross(c, -0.7, ln_shift, err);
}

static apmw_status vary_sample(crossing *c, const apmw_study_config *config, study_variation variation, double *ln_shift,
                               apmw_error *err)
{
    c->near = NEAR_OF_SAMPLES;
    c->most = FIRST_OF_SAMPLES;
    c->looks = 4;
    if (variation < STUDY_TRACE_1) {
        c->trial.seed = apmw_rng_key(config->scenario->seed, "other seed", (uint64_t)variation, 0);
        return cross(c, 0.0, ln_shift, err);
    }
    apmw_trace sample = {0};
    apmw_status status = resampled(config->trace, config->scenario->seed + (uint64_t)variation, &sample, err);
    if (status == APMW_OK) {
        c->trial.trace = &sample;
        status = cross(c, 0.0, ln_shift, err);
    }
    free(sample.items);
    return status;
}

static bool windows_matter(const apmw_deployment *d)
{
    return (double)d->kv_blocks_all_windows < 0.99 * (double)d->engine.kv_blocks ||
           (d->prefill != NULL && windows_matter(d->prefill));
}

apmw_status apmw_study_vary(const apmw_study_config *config, size_t tier, const apmw_study_row *row,
                            study_variation variation, study_shift *out, int64_t *trials, int64_t *turns,
                            apmw_error *err)
{
    const apmw_deployment *prefill = row->deployment->prefill;
    const double time = exp(APMW_Z90 * row->deployment->overhead.ln_sd_time);
    /* Of pools, the first token is the prefill pool's. Its steps go with the others': what is wrong may be wrong of both. */
    const double prompts = prefill != NULL ? exp(APMW_Z90 * prefill->overhead.ln_sd_time) : time;
    const double ttft = exp(APMW_Z90 * (prefill != NULL ? prefill : row->deployment)->overhead.ln_sd_ttft);
    const double accepted = row->deployment->engine.acceptance_length;
    crossing c = begin(config, row, tier);
    double shift = c.origin;
    apmw_status status = APMW_OK;
    switch (variation) {
    case STUDY_SLOWER:
    case STUDY_FASTER:
        c.trial.time_scale = variation == STUDY_SLOWER ? time : 1.0 / time;
        c.trial.prefill_scale = variation == STUDY_SLOWER ? prompts : 1.0 / prompts;
        status = vary_time(&c, c.trial.time_scale, &shift, err);
        break;
    case STUDY_TTFT_LONGER:
    case STUDY_TTFT_SHORTER:
        status = vary_ttft(&c, row, variation == STUDY_TTFT_LONGER ? ttft : 1.0 / ttft, &shift, err);
        break;
    case STUDY_LESS_ACCEPTED:
        if (row->deployment->spec.draft_tokens > 0) {
            c.trial.acceptance_scale = LEAST_ACCEPTED;
            status = vary_time(&c, accepted / (1.0 + (accepted - 1.0) * LEAST_ACCEPTED), &shift, err);
        }
        break;
    case STUDY_ALL_WINDOWS:
        if (windows_matter(row->deployment) && !row->deployment->spec.kv_all_windows) {
            c.trial.kv_all_windows = true;
            status = vary_windows(&c, &shift, err);
        }
        break;
    default:
        status = vary_sample(&c, config, variation, &shift, err);
    }
    report(&c, row, shift, out, trials, turns);
    return status;
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
    const double half = APMW_Z90 * sqrt(fmax(0.0, variance));
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

/* sd of ln watts, and the limit of a mean accelerator. Pools are taken as wrong together, each by its share of the watts. */
static double power_sd(const apmw_study_row *row, double *limit_w)
{
    const apmw_deployment *d = row->deployment;
    const apmw_power_params *p = &d->power;
    const double sd = sqrt(p->sd_config * p->sd_config + p->sd_platform * p->sd_platform);
    *limit_w = p->tdp_w;
    if (d->prefill == NULL) {
        return sd;
    }
    const apmw_power_params *q = &d->prefill->power;
    const double n = (double)d->prefill->accelerators, m = (double)d->accelerators - n;
    const apmw_energy_summary *e = row->capacity.at_pass.pool_energy;
    const double a = n * e[APMW_POOL_PREFILL].mean_w, b = m * e[APMW_POOL_DECODE].mean_w;
    *limit_w = (n * q->tdp_w + m * p->tdp_w) / (n + m);
    return (a * sqrt(q->sd_config * q->sd_config + q->sd_platform * q->sd_platform) + b * sd) / (a + b);
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
        if (windows_matter(row->deployment)) {
            parts[n++] = two_ends("windows", fmin(0.0, value(shifts[STUDY_ALL_WINDOWS])), 0.0);
        }
        parts[n++] = spread_of("seed", &shifts[STUDY_SEED_1], STUDY_SEED_3 - STUDY_SEED_1 + 1, value);
        parts[n++] = spread_of("trace", &shifts[STUDY_TRACE_1], STUDY_TRACE_5 - STUDY_TRACE_1 + 1, value);
        if (k == 1) {
            double limit_w;
            const double sd = APMW_Z90 * power_sd(row, &limit_w);
            /* No accelerator draws more than its limit for long. */
            const double most = log(limit_w / row->watts_per_accelerator);
            parts[n++] = two_ends("power", -fmin(sd, fmax(0.0, most)), sd);
        }
        apmw_interval_combine(k == 0 ? (double)row->capacity.agents : row->agents_per_mw, parts, n,
                              k == 0 ? &row->agents90 : &row->mw90);
    }
}
