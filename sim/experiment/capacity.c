/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Capacity of a deployment at a tier, from a book of trials that never runs one twice. */
#include "study_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* Populations beyond this are not looked at. AgentPerf's assignment files cover 20,000 users. */
enum { LIMIT = 20000 };

struct apmw_trial_book {
    apmw_trial_config config;
    apmw_trial_result *items; /* ascending n_agents */
    size_t n, capacity;
};

apmw_trial_book *apmw_trial_book_create(const apmw_trial_config *config)
{
    apmw_trial_book *book = calloc(1, sizeof *book);
    if (book != NULL) {
        book->config = *config;
    }
    return book;
}

void apmw_trial_book_free(apmw_trial_book *book)
{
    if (book != NULL) {
        free(book->items);
        free(book);
    }
}

size_t apmw_trial_book_count(const apmw_trial_book *book)
{
    return book->n;
}

const apmw_trial_result *apmw_trial_book_at(const apmw_trial_book *book, size_t i)
{
    return &book->items[i];
}

/* First entry with at least n agents. */
static size_t place_of(const apmw_trial_book *book, int64_t n)
{
    size_t i = 0;
    while (i < book->n && book->items[i].n_agents < n) {
        i++;
    }
    return i;
}

/* The trial of n agents, run now unless it is there. A trial that was given up for another tier says nothing about this
 * one unless this one was hopeless too; it is then run again, further. */
static apmw_status trial_at(apmw_trial_book *book, int64_t n, size_t tier, const apmw_trial_result **out,
                            apmw_error *err)
{
    const size_t i = place_of(book, n);
    const bool there = i < book->n && book->items[i].n_agents == n;
    if (there && (!book->items[i].gave_up || book->items[i].hopeless[tier])) {
        *out = &book->items[i];
        return APMW_OK;
    }
    apmw_trial_config config = book->config;
    config.n_agents = n;
    config.give_up_tier = config.give_up_tier < 0 ? -1 : (int)tier;
    apmw_trial_result result;
    const apmw_status status = apmw_trial_run(&config, &result, err);
    if (status != APMW_OK) {
        return apmw_error_wrap(err, "%lld agents", (long long)n);
    }
    if (!there) {
        if (book->n == book->capacity) {
            const size_t wanted = book->capacity == 0 ? 16 : book->capacity * 2;
            apmw_trial_result *bigger = realloc(book->items, wanted * sizeof *bigger);
            if (bigger == NULL) {
                return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
            }
            book->items = bigger;
            book->capacity = wanted;
        }
        memmove(&book->items[i + 1], &book->items[i], (book->n - i) * sizeof *book->items);
        book->n++;
    }
    book->items[i] = result;
    *out = &book->items[i];
    return APMW_OK;
}

typedef struct search {
    apmw_trial_book *book;
    size_t tier;
    double ttft_scale;
} search;

static bool passes_scaled(const apmw_trial_book *book, const apmw_trial_result *trial, size_t tier, double ttft_scale)
{
    const apmw_verdict *v = &trial->verdict[tier];
    if (!v->valid || v->n_measured == 0 ||
        (double)v->n_failed > book->config.rules->max_failed_share * (double)v->n_measured) {
        return false;
    }
    bool met = true;
    for (int i = 0; i < book->config.tiers[tier].n_criteria; i++) {
        const apmw_criterion *c = &book->config.tiers[tier].criteria[i];
        met = met && (c->metric == APMW_SLO_TTFT ? v->value[i] * ttft_scale <= c->limit : v->value[i] >= c->limit);
    }
    return met;
}

static apmw_status passes(void *self, int64_t n, bool *out, apmw_error *err)
{
    const search *s = self;
    const apmw_trial_result *trial = NULL;
    const apmw_status status = trial_at(s->book, n, s->tier, &trial, err);
    if (status == APMW_OK) {
        *out = passes_scaled(s->book, trial, s->tier, s->ttft_scale);
    }
    return status;
}

double apmw_study_ln_margin(const apmw_trial_result *trial, const apmw_tier *tier, size_t t, double ttft_scale)
{
    const apmw_verdict *v = &trial->verdict[t];
    double margin = (double)INFINITY;
    for (int i = 0; i < tier->n_criteria; i++) {
        const bool time = tier->criteria[i].metric == APMW_SLO_TTFT;
        const double limit = tier->criteria[i].limit;
        margin = fmin(margin, time ? limit / (v->value[i] * ttft_scale) : v->value[i] / limit);
    }
    return log(fmin(2.0, isfinite(margin) ? fmax(0.5, margin) : margin > 0.0 ? margin : 0.5));
}

static apmw_status margin(void *self, int64_t n, double *ln_margin, bool *out, apmw_error *err)
{
    const search *s = self;
    const apmw_trial_result *trial = NULL;
    const apmw_status status = trial_at(s->book, n, s->tier, &trial, err);
    if (status == APMW_OK) {
        *out = passes_scaled(s->book, trial, s->tier, s->ttft_scale);
        *ln_margin = apmw_study_ln_margin(trial, &s->book->config.tiers[s->tier], s->tier, s->ttft_scale);
    }
    return status;
}

apmw_status apmw_trial_book_passes(apmw_trial_book *book, size_t tier, int64_t n, bool *out, apmw_error *err)
{
    search s = {.book = book, .tier = tier, .ttft_scale = 1.0};
    return passes(&s, n, out, err);
}

/* "P25 output_speed_tok_s = 19.9, limit 20" for each criterion that is missed, or why the phase is invalid. */
static void missed(const apmw_trial_book *book, size_t tier, const apmw_trial_result *trial, char *out, size_t size)
{
    const apmw_verdict *v = &trial->verdict[tier];
    size_t length = 0;
    out[0] = '\0';
    for (int i = 0; i < book->config.tiers[tier].n_criteria && length < size; i++) {
        const apmw_criterion *c = &book->config.tiers[tier].criteria[i];
        if (!v->met[i]) {
            length += (size_t)snprintf(out + length, size - length, "%sP%g %s = %.4g, limit %g", length > 0 ? "; " : "",
                                       100.0 * c->quantile, apmw_slo_metric_name(c->metric), v->value[i], c->limit);
        }
    }
    if (length == 0) {
        snprintf(out, size, "%s", v->reasons);
    }
}

/* Why the first failing population fails. Memory is named when the fail shows what an overfull KV pool does: requests
 * that can never fit, preemptions, or prompts that are no longer found although they are at a small population. */
static apmw_status explain(apmw_trial_book *book, size_t tier, apmw_capacity *out, apmw_error *err)
{
    if (out->bracket.fail == 0) {
        snprintf(out->limited_by, sizeof out->limited_by, "limit");
        snprintf(out->limited_why, sizeof out->limited_why, "no failure up to %d agents", LIMIT);
        return APMW_OK;
    }
    const apmw_trial_result *fail = &out->at_fail;
    const apmw_verdict *v = &fail->verdict[tier];
    bool speed = false, ttft = false;
    for (int i = 0; i < book->config.tiers[tier].n_criteria; i++) {
        const bool time = book->config.tiers[tier].criteria[i].metric == APMW_SLO_TTFT;
        ttft = ttft || (time && !v->met[i]);
        speed = speed || (!time && !v->met[i]);
    }
    char why[96];
    missed(book, tier, fail, why, sizeof why);
    const double n = (double)(fail->latency.n_requests > 0 ? fail->latency.n_requests : 1);
    const double preempted = (double)fail->latency.n_preempted / n;
    const bool full = fail->steps.kv_peak_share > 0.95;
    /* What was loaded from tiers below did not have to be computed either. */
    const double found = fail->latency.hit_share + fail->latency.loaded_share;
    double alone = found; /* what one agent with the whole pool to itself hits */
    if (full) {
        const apmw_trial_result *one = NULL;
        const apmw_status status = trial_at(book, 1, tier, &one, err);
        if (status != APMW_OK) {
            return status;
        }
        alone = one->latency.hit_share + one->latency.loaded_share;
    }
    /* Half as much again to compute as with the pool to oneself. */
    const bool lost = 1.0 - found > 1.5 * (1.0 - alone);
    const char *by = speed ? "speed" : ttft ? "ttft" : "validity";
    if ((double)v->n_failed > book->config.rules->max_failed_share * (double)v->n_measured) {
        by = "kv memory";
        snprintf(out->limited_why, sizeof out->limited_why, "%.3g %% of requests can never fit the KV pool",
                 100.0 * (double)v->n_failed / (double)v->n_measured);
    } else if (full && (preempted > 0.02 || lost)) {
        by = "kv memory";
        snprintf(out->limited_why, sizeof out->limited_why,
                 "KV pool full: %.3g %% of prompt tokens hit%s, %.3g %% by one agent alone; %.2g %% of requests preempted; %s",
                 100.0 * found, fail->latency.fetched_tokens > 0 ? " or loaded" : "", 100.0 * alone, 100.0 * preempted, why);
    } else {
        const double front = fail->frontend_share;
        snprintf(out->limited_why, sizeof out->limited_why, front > 0.9 ? "%s; the engine's serial front end is busy %.0f %%" : "%s",
                 why, 100.0 * front);
    }
    apmw_copy(out->limited_by, sizeof out->limited_by, by);
    return APMW_OK;
}

apmw_status apmw_capacity_search(apmw_trial_book *book, size_t tier, int64_t guess, double resolution, double ttft_scale,
                                 apmw_capacity *out, apmw_error *err)
{
    *out = (apmw_capacity){0};
    search s = {.book = book, .tier = tier, .ttft_scale = ttft_scale};
    apmw_status status = guess > 0 ? apmw_margin_search(margin, &s, guess, LIMIT, resolution, &out->bracket, err)
                                   : apmw_bracket_search(passes, &s, 2, 2.0, LIMIT, resolution, &out->bracket, err);
    const apmw_trial_result *trial = NULL;
    if (status == APMW_OK && out->bracket.pass > 0) {
        status = trial_at(book, out->bracket.pass, tier, &trial, err);
        if (status == APMW_OK) {
            out->at_pass = *trial;
        }
    }
    if (status == APMW_OK && out->bracket.fail > 0) {
        status = trial_at(book, out->bracket.fail, tier, &trial, err);
        if (status == APMW_OK) {
            out->at_fail = *trial;
        }
    }
    if (status != APMW_OK) {
        return status;
    }
    out->agents = out->bracket.pass;
    out->outside_domain_share = out->agents > 0 ? out->at_pass.steps.outside_share : (double)NAN;
    return explain(book, tier, out, err);
}
