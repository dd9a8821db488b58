/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/protocol.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* What the verdict needs of a measured request. NaN: the request has no such value (one token: no speed). */
typedef struct sample {
    double value[3]; /* by apmw_slo_metric */
} sample;

struct apmw_phase {
    apmw_phase_rules rules;
    int64_t n_agents, n_active;
    bool *active;            /* of each agent: has sent its first request */
    int64_t *trajectories;   /* of each agent: ended in this phase */
    int64_t n_trajectories, n_short; /* n_short: agents below the minimum */
    apmw_phase_state state;
    apmw_time from, to;      /* window; NEVER while unknown */
    apmw_time timeout;
    bool timed_out;
    int64_t measured_open;   /* measured requests in flight */
    int64_t n_failed;
    sample *samples;
    size_t n_samples, cap_samples;
    bool out_of_memory;
};

apmw_phase *apmw_phase_create(const apmw_phase_rules *rules, int64_t n_agents)
{
    apmw_phase *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return NULL;
    }
    p->active = calloc((size_t)n_agents, sizeof *p->active);
    p->trajectories = calloc((size_t)n_agents, sizeof *p->trajectories);
    if (p->active == NULL || p->trajectories == NULL) {
        apmw_phase_free(p);
        return NULL;
    }
    p->rules = *rules;
    p->n_agents = n_agents;
    p->n_short = rules->min_trajectories_per_agent > 0 ? n_agents : 0;
    p->from = p->to = APMW_TIME_NEVER;
    p->timeout = apmw_time_from_s(rules->timeout_s);
    return p;
}

void apmw_phase_free(apmw_phase *phase)
{
    if (phase != NULL) {
        free(phase->active);
        free(phase->trajectories);
        free(phase->samples);
        free(phase);
    }
}

void apmw_phase_begin(apmw_phase *phase, apmw_time now)
{
    memset(phase->active, true, (size_t)phase->n_agents * sizeof *phase->active);
    phase->n_active = phase->n_agents;
    phase->from = now;
    phase->state = APMW_PHASE_MEASURE;
}

static bool measured(const apmw_phase *p, const apmw_request_record *record)
{
    return record->submitted >= p->from && record->submitted < p->to;
}

void apmw_phase_on_submit(apmw_phase *phase, apmw_time now, const apmw_request_record *record)
{
    /* The clock first: a submission at the very instant of settling end is measured, one at phase end is not. */
    apmw_phase_advance(phase, now);
    if (record->agent >= 0 && record->agent < phase->n_agents && !phase->active[record->agent]) {
        phase->active[record->agent] = true;
        phase->n_active++;
        if (phase->n_active == phase->n_agents && phase->state == APMW_PHASE_SPAWN) {
            const double wait_s = fmax(phase->rules.settle_s, phase->rules.steady_s);
            phase->from = now + apmw_time_from_s(wait_s);
            phase->state = APMW_PHASE_SETTLE;
            apmw_phase_advance(phase, now);
        }
    }
    phase->measured_open += measured(phase, record);
}

static void keep_sample(apmw_phase *p, const apmw_request_record *r)
{
    if (p->n_samples == p->cap_samples) {
        const size_t wanted = p->cap_samples == 0 ? 1024 : p->cap_samples * 2;
        sample *bigger = realloc(p->samples, wanted * sizeof *bigger);
        if (bigger == NULL) {
            p->out_of_memory = true;
            return;
        }
        p->samples = bigger;
        p->cap_samples = wanted;
    }
    sample *s = &p->samples[p->n_samples++];
    s->value[APMW_SLO_OUTPUT_SPEED] =
        r->n_out < 2 ? (double)NAN : (double)(r->n_out - 1) / apmw_time_to_s(r->last_token - r->first_token);
    s->value[APMW_SLO_TTFT] = apmw_time_to_s(r->first_token - r->submitted);
    s->value[APMW_SLO_E2E_SPEED] = (double)r->n_out / apmw_time_to_s(r->last_token - r->submitted);
}

void apmw_phase_on_request(apmw_phase *phase, apmw_time now, const apmw_request_record *record)
{
    if (measured(phase, record)) {
        phase->measured_open--;
        if (record->state == APMW_REQUEST_DONE) {
            keep_sample(phase, record);
        } else {
            phase->n_failed++;
        }
    }
    const bool counts = record->state == APMW_REQUEST_DONE && record->last_of_trajectory &&
                        phase->state < APMW_PHASE_DRAIN;
    if (counts) {
        phase->n_trajectories++;
        if (record->agent >= 0 && record->agent < phase->n_agents &&
            ++phase->trajectories[record->agent] == phase->rules.min_trajectories_per_agent) {
            phase->n_short--;
        }
    }
    apmw_phase_advance(phase, now);
}

static bool complete(const apmw_phase *p, apmw_time now)
{
    return now - p->from >= apmw_time_from_s(p->rules.min_window_s) && p->n_trajectories >= p->rules.min_trajectories &&
           p->n_short == 0;
}

apmw_phase_state apmw_phase_advance(apmw_phase *phase, apmw_time now)
{
    if (phase->state < APMW_PHASE_DRAIN && now >= phase->timeout) {
        phase->timed_out = true;
        phase->to = phase->timeout;
        if (phase->from > phase->to) {
            phase->from = phase->to; /* never measured */
        }
        phase->state = APMW_PHASE_DRAIN;
    }
    if (phase->state == APMW_PHASE_SETTLE && now >= phase->from) {
        phase->state = APMW_PHASE_MEASURE;
    }
    if (phase->state == APMW_PHASE_MEASURE && complete(phase, now)) {
        phase->to = now + 1; /* what was submitted in this very instant is in, whatever the order */
        phase->state = APMW_PHASE_DRAIN;
    }
    if (phase->state == APMW_PHASE_DRAIN && phase->measured_open == 0) {
        phase->state = APMW_PHASE_ENDED;
    }
    return phase->state;
}

apmw_time apmw_phase_next(const apmw_phase *phase)
{
    apmw_time next = APMW_TIME_NEVER;
    if (phase->state == APMW_PHASE_SPAWN) {
        next = phase->timeout;
    } else if (phase->state == APMW_PHASE_SETTLE) {
        next = phase->from;
    } else if (phase->state == APMW_PHASE_MEASURE) {
        /* Before the window is long enough its length decides; afterwards ends of trajectories do. */
        const apmw_time long_enough = phase->from + apmw_time_from_s(phase->rules.min_window_s);
        next = phase->n_trajectories >= phase->rules.min_trajectories && phase->n_short == 0 ? long_enough
                                                                                           : phase->timeout;
    }
    return next < phase->timeout ? next : phase->state < APMW_PHASE_DRAIN ? phase->timeout : next;
}

apmw_phase_state apmw_phase_now(const apmw_phase *phase)
{
    return phase->state;
}

void apmw_phase_window(const apmw_phase *phase, apmw_time *from, apmw_time *to)
{
    *from = phase->from;
    *to = phase->to;
}

__attribute__((format(printf, 2, 3))) static void reason(apmw_verdict *v, const char *format, ...)
{
    const size_t length = strlen(v->reasons);
    const size_t room = sizeof v->reasons - length;
    char text[128];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(v->reasons + length, room, "%s%s", length > 0 ? "; " : "", text);
}

static void judge_validity(const apmw_phase *p, apmw_verdict *v)
{
    const apmw_phase_rules *r = &p->rules;
    if (p->state != APMW_PHASE_ENDED) {
        reason(v, "the phase has not ended");
    }
    if (p->n_active < p->n_agents) {
        reason(v, "%lld of %lld agents began", (long long)p->n_active, (long long)p->n_agents);
    }
    if (v->window_s < r->min_window_s) {
        reason(v, "window %.0f s < %.0f s", v->window_s, r->min_window_s);
    }
    if (v->trajectories < r->min_trajectories) {
        reason(v, "%lld trajectories < %lld", (long long)v->trajectories, (long long)r->min_trajectories);
    }
    if (p->n_short > 0) {
        reason(v, "%lld agents ended fewer than %lld trajectories", (long long)p->n_short,
               (long long)r->min_trajectories_per_agent);
    }
    if (p->timed_out && v->reasons[0] != '\0') {
        reason(v, "timed out after %.0f s", r->timeout_s);
    }
    v->valid = v->reasons[0] == '\0';
}

/* An infinite speed (all tokens in one instant) must not turn an interpolated quantile into NaN. */
static double finite_quantile(double *values, size_t n, double q)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = values[i] > 1e300 ? 1e300 : values[i];
    }
    return apmw_quantile_unsorted(values, n, q);
}

apmw_status apmw_phase_verdict(apmw_phase *phase, const apmw_tier *tier, apmw_verdict *out, apmw_error *err)
{
    double *values = malloc((phase->n_samples + 1) * sizeof *values);
    if (values == NULL || phase->out_of_memory) {
        free(values);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for the measured requests");
    }
    *out = (apmw_verdict){
        .n_measured = (int64_t)phase->n_samples + phase->n_failed,
        .n_failed = phase->n_failed,
        .trajectories = phase->n_trajectories,
        .window_s = phase->to != APMW_TIME_NEVER && phase->to > phase->from ? apmw_time_to_s(phase->to - phase->from)
                                                                            : 0.0,
        .margin = (double)INFINITY,
    };
    out->trajectories_fewest_agent = phase->n_agents > 0 ? phase->trajectories[0] : 0;
    for (int64_t i = 1; i < phase->n_agents; i++) {
        const int64_t n = phase->trajectories[i];
        out->trajectories_fewest_agent = n < out->trajectories_fewest_agent ? n : out->trajectories_fewest_agent;
    }
    judge_validity(phase, out);
    bool met = out->n_measured > 0;
    const double failed = out->n_measured > 0 ? (double)out->n_failed / (double)out->n_measured : 0.0;
    if (failed > phase->rules.max_failed_share) {
        met = false;
        out->margin = 0.0;
        reason(out, "%.1f %% of requests failed", 100.0 * failed);
    }
    for (size_t i = 0; i < phase->n_samples; i++) {
        out->n_one_token += isnan(phase->samples[i].value[APMW_SLO_OUTPUT_SPEED]);
    }
    for (int i = 0; i < tier->n_criteria; i++) {
        const apmw_criterion *c = &tier->criteria[i];
        size_t n = 0;
        for (size_t j = 0; j < phase->n_samples; j++) {
            values[n] = phase->samples[j].value[c->metric];
            n += isnan(values[n]) ? 0 : 1;
        }
        const double value = finite_quantile(values, n, c->quantile);
        const bool smaller = c->metric == APMW_SLO_TTFT;
        const double margin = smaller ? c->limit / value : value / c->limit;
        out->value[i] = value;
        out->met[i] = smaller ? value <= c->limit : value >= c->limit;
        met = met && out->met[i];
        out->margin = isnan(margin) ? 0.0 : fmin(margin, out->margin);
        if (!out->met[i] && !isnan(value)) {
            reason(out, "P%g %s = %.4g, limit %g", 100.0 * c->quantile, apmw_slo_metric_name(c->metric), value, c->limit);
        }
    }
    out->pass = out->valid && met;
    free(values);
    return APMW_OK;
}

bool apmw_phase_hopeless(const apmw_phase *phase, const apmw_tier *tier, int64_t min_requests, double slack)
{
    if ((int64_t)phase->n_samples < min_requests) {
        return false;
    }
    for (int i = 0; i < tier->n_criteria; i++) {
        const apmw_criterion *c = &tier->criteria[i];
        const bool smaller = c->metric == APMW_SLO_TTFT;
        size_t n = 0, missed = 0;
        for (size_t j = 0; j < phase->n_samples; j++) {
            const double v = phase->samples[j].value[c->metric];
            n += isnan(v) ? 0 : 1;
            missed += (smaller ? v > c->limit : v < c->limit) ? 1 : 0;
        }
        const double allowed = smaller ? 1.0 - c->quantile : c->quantile;
        if (n > 0 && (double)missed > fmin(slack * allowed, 0.5 * (1.0 + allowed)) * (double)n) {
            return true;
        }
    }
    return false;
}
