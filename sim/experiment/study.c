/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Capacity over platforms, layouts and tiers. Work is handed out in fixed slots, so the bytes of the result do not depend
 * on the number of threads. */
#include "study_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

apmw_trial_config apmw_study_trial_config(const apmw_study_config *config, const apmw_deployment *deployment)
{
    const apmw_scenario *s = config->scenario;
    return (apmw_trial_config){
        .deployment = deployment,
        .trace = config->trace,
        .rules = config->rules,
        .tiers = config->tiers,
        .n_tiers = config->n_tiers,
        .seed = s->seed,
        .routing = s->routing,
        .decode_routing = s->decode_routing,
        .knowledge = {apmw_time_from_s(s->router_delay_s), s->router_kv_by_sending},
        .share_prefix = s->share_prefix,
        .output_cached = s->output_cached,
        .concurrent_subagents = s->concurrent_subagents,
        .delay_scale = s->delay_scale,
        .time_scale = 1.0,
        .acceptance_scale = 1.0,
        .max_context = deployment->engine.max_model_len,
        .give_up_tier = 0, /* enabled; a book names the tier that it asks for */
    };
}

static void fill_row(const study_candidate *c, const apmw_tier *tier, size_t t, apmw_study_row *row)
{
    const apmw_deployment *d = &c->deployment;
    *row = (apmw_study_row){.deployment = d, .tier = tier->number, .ln_slope = apmw_study_slope(c, tier, t)};
    row->capacity = c->known[t] ? c->capacity[t] : c->screened[t];
    apmw_copy(row->platform, sizeof row->platform, d->platform);
    const double agents = (double)row->capacity.agents;
    /* A platform without power parameters has unknown watts, not none. */
    const bool known = d->power.tdp_w > 0.0 && (d->prefill == NULL || d->prefill->power.tdp_w > 0.0);
    const double watts = row->capacity.agents > 0 && known ? row->capacity.at_pass.energy.mean_w : (double)NAN;
    row->agents_per_accelerator = agents / (double)d->accelerators;
    row->watts_per_accelerator = watts;
    row->agents_per_mw = row->capacity.agents > 0 ? 1e6 * row->agents_per_accelerator / watts : known ? 0.0 : (double)NAN;
    row->watts_all_in = isnan(watts) ? watts : apmw_deployment_all_in_w(d, &row->capacity.at_pass);
    if (row->capacity.agents == 0) {
        snprintf(row->reason, sizeof row->reason, "one agent already fails: %s", row->capacity.limited_why);
    }
}

/* More agents on the same accelerators; then more agents per megawatt; then the earlier layout. */
static bool better(const apmw_study_row *a, const apmw_study_row *b)
{
    return a->agents_per_accelerator > b->agents_per_accelerator ||
           (a->agents_per_accelerator >= b->agents_per_accelerator && a->agents_per_mw > b->agents_per_mw);
}

/* A row without a result, which says why. */
static void add_nothing(const apmw_study_config *config, size_t platform, size_t t, const char *why, apmw_study_row *row)
{
    *row = (apmw_study_row){.tier = config->tiers[t].number, .agents_per_accelerator = (double)NAN};
    row->agents_per_mw = row->watts_per_accelerator = row->watts_all_in = row->ln_slope = (double)NAN;
    apmw_copy(row->platform, sizeof row->platform, config->platforms[platform]);
    apmw_copy(row->reason, sizeof row->reason, why);
}

bool apmw_study_exhaustive(const apmw_study_config *config)
{
    return config->all_layouts || config->search_keep > 0;
}

/* On the frontier: no other row of these has as many agents an accelerator and as many a megawatt, and more of one. Where
 * watts are unknown, agents alone decide. */
static void mark_frontier(apmw_study_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rows[i].frontier = rows[i].capacity.agents > 0;
        for (size_t j = 0; j < n && rows[i].frontier; j++) {
            rows[i].frontier = j == i || rows[j].agents_per_accelerator < rows[i].agents_per_accelerator ||
                               rows[j].agents_per_mw < rows[i].agents_per_mw || !better(&rows[j], &rows[i]);
        }
    }
}

/* Of a layout search only the frontier is a result; the best leads it, the others follow by agents. */
static size_t keep_frontier(apmw_study_row *rows, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].frontier && !rows[i].best) {
            continue;
        }
        const apmw_study_row row = rows[i];
        size_t at = kept++;
        for (; at > 0 && better(&row, &rows[at - 1]); at--) {
            rows[at] = rows[at - 1];
        }
        rows[at] = row;
    }
    return kept;
}

/* The best layout of a platform at a tier; of a layout search the frontier, or all layouts, with the best marked. */
static void add_served(apmw_study *study, const apmw_study_config *config, size_t platform, size_t t)
{
    const size_t first = study->n_rows;
    size_t best = first;
    bool any_known = false;
    for (size_t i = 0; i < study->n_candidates; i++) {
        any_known = any_known || (study->candidates[i].platform == platform && study->candidates[i].known[t]);
    }
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *c = &study->candidates[i];
        if (c->platform != platform || !(any_known ? c->known[t] : c->seen[t])) {
            continue;
        }
        apmw_study_row row;
        fill_row(c, &config->tiers[t], t, &row);
        if (apmw_study_exhaustive(config)) {
            best = study->n_rows > best && better(&row, &study->rows[best]) ? study->n_rows : best;
            study->rows[study->n_rows++] = row;
        } else if (study->n_rows == best) {
            study->rows[study->n_rows++] = row;
        } else if (better(&row, &study->rows[best])) {
            study->rows[best] = row;
        }
    }
    if (best < study->n_rows) {
        study->rows[best].best = true;
    } else if (study->interrupted) {
        add_nothing(config, platform, t, "interrupted before a layout was searched", &study->rows[study->n_rows++]);
    }
    if (apmw_study_exhaustive(config)) {
        mark_frontier(&study->rows[first], study->n_rows - first);
    }
    if (config->search_keep > 0 && !config->all_layouts) {
        study->n_rows = first + keep_frontier(&study->rows[first], study->n_rows - first);
    }
    for (size_t i = first; i < study->n_rows && study->interrupted; i++) {
        apmw_copy(study->rows[i].partial, sizeof study->rows[i].partial,
                  study->rows[i].deployment == NULL ? "nothing known"
                  : !any_known                      ? "abbreviated phases, the race of layouts is not over"
                  : !study->raced[t]                ? "other layouts may carry more, no interval"
                                                    : "no interval");
    }
}

/* Where one agent already fails everywhere, the row is that of the layout that comes nearest, with one agent, in a whole
 * phase: the first one tried says little. */
static apmw_status show_nearest(apmw_study *study, const apmw_study_config *config, size_t platform, size_t t, apmw_error *err)
{
    apmw_study_row *row = &study->rows[study->n_rows - 1];
    if (config->all_layouts || study->interrupted || row->deployment == NULL || row->capacity.agents > 0) {
        return APMW_OK;
    }
    study_candidate *nearest = NULL;
    double best = 0.0;
    for (size_t i = 0; i < study->n_candidates; i++) {
        study_candidate *c = &study->candidates[i];
        bool passes = false;
        if (c->platform != platform || c->book == NULL) {
            continue;
        }
        const apmw_status status = apmw_trial_book_passes(c->book, t, 1, &passes, err);
        if (status != APMW_OK) {
            return status;
        }
        const double margin = apmw_study_ln_margin(apmw_trial_book_at(c->book, 0), &config->tiers[t], t, 1.0);
        if (nearest == NULL || margin > best) {
            nearest = c;
            best = margin;
        }
    }
    if (nearest == NULL) {
        return APMW_OK;
    }
    const apmw_status status =
        apmw_capacity_search(nearest->book, t, 1, config->resolution, 1.0, &nearest->capacity[t], err);
    nearest->known[t] = true;
    if (status == APMW_OK) {
        fill_row(nearest, &config->tiers[t], t, row);
        row->best = true;
    }
    return status;
}

/* Rows by platform, tier and, where every layout was searched, layout. */
static apmw_status make_rows(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    const size_t most = config->n_tiers * (apmw_study_exhaustive(config) ? study->n_candidates : config->n_platforms);
    study->rows = calloc(most + config->n_tiers * config->n_platforms + 1, sizeof *study->rows);
    if (study->rows == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (size_t p = 0; p < config->n_platforms; p++) {
        if (study->unserved != NULL && study->unserved[p][0] != '\0') {
            for (size_t t = 0; t < config->n_tiers; t++) {
                add_nothing(config, p, t, study->unserved[p], &study->rows[study->n_rows++]);
            }
            continue;
        }
        for (size_t t = 0; t < config->n_tiers; t++) {
            add_served(study, config, p, t);
            const apmw_status status = show_nearest(study, config, p, t, err);
            if (status != APMW_OK) {
                return status;
            }
        }
    }
    return APMW_OK;
}

static size_t tier_index(const apmw_study_config *config, int number)
{
    size_t t = 0;
    while (config->tiers[t].number != number) {
        t++;
    }
    return t;
}

/* All variations of all best rows, each in its slot; where it was stopped, of the rows that have all of theirs. */
static apmw_status make_intervals(study_stage *s, apmw_error *err)
{
    apmw_study *study = s->study;
    const size_t n = study->n_rows * STUDY_VARIATIONS;
    study_slot *slots = calloc(n + 1, sizeof *slots);
    study_shift *shifts = calloc(n + 1, sizeof *shifts);
    if (slots == NULL || shifts == NULL) {
        free(slots);
        free(shifts);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    s->done = 0;
    s->total = n;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t k = 0; k < n; k++) {
        const apmw_study_row *row = &study->rows[k / STUDY_VARIATIONS];
        if (row->best && row->capacity.agents > 0 && !apmw_study_stopped(s)) {
            slots[k].done = apmw_study_vary(s->config, tier_index(s->config, row->tier), row,
                                            (study_variation)(k % STUDY_VARIATIONS), &shifts[k], &slots[k].trials,
                                            &slots[k].turns, &slots[k].err) == APMW_OK;
        }
        apmw_study_finished(s);
    }
    const apmw_status status = apmw_study_first_error(slots, n, err);
    for (size_t r = 0; r < study->n_rows && status == APMW_OK; r++) {
        apmw_study_row *row = &study->rows[r];
        bool all = row->best && row->capacity.agents > 0;
        for (size_t k = 0; k < STUDY_VARIATIONS; k++) {
            all = all && slots[r * STUDY_VARIATIONS + k].done;
        }
        if (all) {
            apmw_study_join(&shifts[r * STUDY_VARIATIONS], row);
        } else if (s->stop && row->best && row->capacity.agents > 0) {
            apmw_copy(row->partial, sizeof row->partial, "no interval");
        }
    }
    for (size_t k = 0; k < n; k++) {
        study->trials += slots[k].trials;
        study->turns += slots[k].turns;
    }
    free(slots);
    free(shifts);
    return status;
}

static void count_trials(apmw_study *study, const apmw_trial_book *book)
{
    const size_t n = book == NULL ? 0 : apmw_trial_book_count(book);
    study->trials += (int64_t)n;
    for (size_t k = 0; k < n; k++) {
        study->turns += apmw_trial_book_at(book, k)->n_turns;
    }
}

static apmw_status run_stages(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    study_stage s = {.config = config, .study = study};
    apmw_status status = apmw_study_race(&s, err);
    study->interrupted = s.stop;
    for (size_t i = 0; i < study->n_candidates; i++) {
        count_trials(study, study->candidates[i].book);
        count_trials(study, study->candidates[i].screen);
    }
    if (status == APMW_OK) {
        status = make_rows(study, config, err);
    }
    if (status == APMW_OK && config->interval && !s.stop) {
        status = make_intervals(&s, err);
        study->interrupted = s.stop;
    }
    return status == APMW_OK && s.stop ? apmw_error_set(err, APMW_E_INTERRUPTED, "interrupted") : status;
}

static bool races(const apmw_study *study, size_t i)
{
    size_t rivals = 0;
    for (size_t j = 0; j < study->n_candidates; j++) {
        rivals += j != i && study->candidates[i].platform == study->candidates[j].platform;
    }
    return rivals > 0;
}

/* Books point at deployments, so they come when no candidate moves any more. */
static apmw_status add_books(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    study->screen_rules = *config->rules;
    study->screen_rules.min_trajectories_per_agent = config->rules->min_trajectories_per_agent > 0 ? 1 : 0;
    for (size_t i = 0; i < study->n_candidates; i++) {
        study_candidate *c = &study->candidates[i];
        apmw_trial_config trial = apmw_study_trial_config(config, &c->deployment);
        c->book = apmw_trial_book_create(&trial);
        trial.rules = &study->screen_rules;
        c->screen = races(study, i) && !apmw_study_exhaustive(config) ? apmw_trial_book_create(&trial) : NULL;
        if (c->book == NULL || (c->screen == NULL && races(study, i) && !apmw_study_exhaustive(config))) {
            return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        }
    }
    return APMW_OK;
}

static apmw_status check_config(const apmw_study_config *config, apmw_error *err)
{
    if (config->n_tiers < 1 || config->n_tiers > APMW_MAX_TIERS || config->trace->n == 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "a study needs a trace and 1 to %d tiers", APMW_MAX_TIERS);
    }
    return APMW_OK;
}

static apmw_status finish(apmw_study *study, const apmw_study_config *config, apmw_study **out, apmw_error *err)
{
    apmw_status status = check_config(config, err);
    if (status == APMW_OK) {
        status = add_books(study, config, err);
    }
    if (status == APMW_OK) {
        status = run_stages(study, config, err);
    }
    if (status != APMW_OK && status != APMW_E_INTERRUPTED) {
        apmw_study_free(study);
        return status;
    }
    *out = study;
    return status;
}

apmw_status apmw_study_run_on(apmw_deployment *deployments, size_t n, const apmw_study_config *config, apmw_study **out,
                              apmw_error *err)
{
    *out = NULL;
    apmw_study *study = calloc(1, sizeof *study);
    apmw_status status = study == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : APMW_OK;
    for (size_t i = 0; i < n; i++) {
        if (status == APMW_OK) {
            status = apmw_study_add(study, &deployments[i], 0, err);
        } else {
            apmw_deployment_free(&deployments[i]);
        }
    }
    if (status != APMW_OK) {
        apmw_study_free(study);
        return status;
    }
    return finish(study, config, out, err);
}

apmw_status apmw_study_run(apmw_catalog *catalog, const apmw_study_config *config, apmw_study **out, apmw_error *err)
{
    *out = NULL;
    apmw_status status = check_config(config, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_study *study = calloc(1, sizeof *study);
    if (study == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    const double context = apmw_trace_mean_context(config->trace);
    study->unserved = calloc(config->n_platforms + 1, sizeof *study->unserved);
    if (study->unserved == NULL) {
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    size_t n_unserved = 0;
    apmw_error last = {0};
    for (size_t i = 0; i < config->n_platforms && status == APMW_OK; i++) {
        apmw_error why = {0};
        status = apmw_study_add_platform(study, catalog, config, i, context, &why);
        if (status == APMW_E_SCENARIO) {
            apmw_copy(study->unserved[i], sizeof study->unserved[i], why.message);
            n_unserved++;
            last = why;
            status = APMW_OK;
        } else if (status != APMW_OK) {
            apmw_error_set(err, status, "%s", why.message);
        }
    }
    if (status == APMW_OK && n_unserved == config->n_platforms) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "%s", last.message);
    }
    if (status != APMW_OK) {
        apmw_study_free(study);
        return status;
    }
    return finish(study, config, out, err);
}

void apmw_study_free(apmw_study *study)
{
    if (study == NULL) {
        return;
    }
    for (size_t i = 0; i < study->n_candidates; i++) {
        apmw_trial_book_free(study->candidates[i].book);
        apmw_trial_book_free(study->candidates[i].screen);
        apmw_deployment_free(&study->candidates[i].deployment);
    }
    free(study->candidates);
    free(study->rows);
    free(study->unserved);
    apmw_buf_free(&study->refused);
    apmw_buf_free(&study->searched);
    free(study);
}

const apmw_study_row *apmw_study_rows(const apmw_study *study, size_t *n)
{
    *n = study->n_rows;
    return study->rows;
}

const char *apmw_study_searched(const apmw_study *study)
{
    return study->searched.length > 0 ? study->searched.data : "";
}

const char *apmw_study_refused(const apmw_study *study)
{
    return study->refused.length > 0 ? study->refused.data : "";
}

int64_t apmw_study_trials(const apmw_study *study)
{
    return study->trials;
}

int64_t apmw_study_turns(const apmw_study *study)
{
    return study->turns;
}
