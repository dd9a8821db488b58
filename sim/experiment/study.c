/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Capacity over platforms, layouts and tiers. Work is handed out in fixed slots, so the bytes of the result do not depend
 * on the number of threads. */
#include "study_private.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

/* Abbreviated phases for the first look at every layout: how wide their brackets are, and how far their capacity may lie
 * from that of whole phases (contexts still grow while the first trajectories play), both relative. */
static const double COARSE = 0.15, SLACK = 1.12;

/* One unit of parallel work; its error is its own. */
typedef struct slot {
    apmw_error err;
    int64_t trials, turns;
} slot;

typedef struct stage {
    const apmw_study_config *config;
    apmw_study *study;
    size_t done, total;
    bool stop;
} stage;

/* Counts a finished unit; the main thread tells the caller. */
static void finished(stage *s)
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

static bool stopped(stage *s)
{
    bool stop;
#pragma omp atomic read
    stop = s->stop;
    return stop;
}

/* The first error by slot, whatever thread met it when. */
static apmw_status first_error(const slot *slots, size_t n, stage *s, apmw_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (slots[i].err.status != APMW_OK) {
            return apmw_error_set(err, slots[i].err.status, "%s", slots[i].err.message);
        }
    }
    return s->stop ? apmw_error_set(err, APMW_E_INTERRUPTED, "interrupted") : APMW_OK;
}

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

/* Best screened population of the leading candidates of a platform at a tier. */
static int64_t lead_at(const apmw_study *study, size_t platform, size_t t)
{
    int64_t best = 0;
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *c = &study->candidates[i];
        best = c->platform == platform && c->leads && c->screened[t] > best ? c->screened[t] : best;
    }
    return best;
}

/* Tiers in order: the loosest first, whose trials serve the others. A candidate that does not lead is first looked at where
 * it would have to pass to be in the race at all. */
static apmw_status screen_candidate(const apmw_study *study, const apmw_study_config *config, study_candidate *c,
                                    apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (size_t t = 0; t < config->n_tiers && status == APMW_OK && c->screen != NULL; t++) {
        const int64_t needed = c->leads || config->all_layouts ? 0 : (int64_t)((double)lead_at(study, c->platform, t) / SLACK);
        bool passes = true;
        if (needed > 0) {
            status = apmw_trial_book_passes(c->screen, t, needed, &passes, err);
        }
        if (status == APMW_OK && !passes) {
            c->screen_fail[t] = needed;
        } else if (status == APMW_OK) {
            apmw_capacity capacity;
            status = apmw_capacity_search(c->screen, t, needed, COARSE, 1.0, &capacity, err);
            c->screened[t] = capacity.bracket.pass;
            c->screen_fail[t] = capacity.bracket.fail;
        }
    }
    return status;
}

/* The contender that screened best (the first of equals): its whole search sets the mark. */
static const study_candidate *favourite(const apmw_study *study, size_t platform, size_t t)
{
    const study_candidate *best = NULL;
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *c = &study->candidates[i];
        if (c->platform == platform && c->contender[t] && (best == NULL || c->screened[t] > best->screened[t])) {
            best = c;
        }
    }
    return best;
}

/* The others have to pass one agent above the mark, or are out. */
static apmw_status search_candidate(const apmw_study *study, const apmw_study_config *config, study_candidate *c,
                                    bool favourites, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (size_t t = 0; t < config->n_tiers && status == APMW_OK; t++) {
        const study_candidate *mark = favourite(study, c->platform, t);
        if (!c->contender[t] || (mark == c) != favourites) {
            continue;
        }
        bool passes = true;
        if (mark != c && !config->all_layouts) {
            status = apmw_trial_book_passes(c->book, t, mark->capacity[t].agents + 1, &passes, err);
        }
        c->out[t] = status == APMW_OK && !passes;
        if (status == APMW_OK && passes) {
            const int64_t guess = mark != c && !config->all_layouts ? mark->capacity[t].agents + 1 : c->screened[t];
            status = apmw_capacity_search(c->book, t, guess, config->resolution, 1.0, &c->capacity[t], err);
        }
    }
    return status;
}

typedef enum pass_kind { SCREEN_LEADS, SCREEN_OTHERS, REFINE_FAVOURITES, REFINE_OTHERS } pass_kind;

static apmw_status run_candidate(stage *s, pass_kind kind, study_candidate *c, apmw_error *err)
{
    if (kind >= REFINE_FAVOURITES) {
        return search_candidate(s->study, s->config, c, kind == REFINE_FAVOURITES, err);
    }
    return c->leads == (kind == SCREEN_LEADS) ? screen_candidate(s->study, s->config, c, err) : APMW_OK;
}

static apmw_status search_all(stage *s, pass_kind kind, apmw_error *err)
{
    apmw_study *study = s->study;
    const size_t n = study->n_candidates;
    slot *slots = calloc(n > 0 ? n : 1, sizeof *slots);
    if (slots == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    s->done = 0;
    s->total = n;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < n; i++) {
        if (!stopped(s)) {
            run_candidate(s, kind, &study->candidates[i], &slots[i].err);
            finished(s);
        }
    }
    const apmw_status status = first_error(slots, n, s, err);
    free(slots);
    return status;
}

static bool same_platform(const study_candidate *a, const study_candidate *b)
{
    return a->platform == b->platform;
}

/* A layout stays in the race for a tier while its first failure may lie above the best pass of the platform. */
static void choose_contenders(apmw_study *study, const apmw_study_config *config)
{
    for (size_t t = 0; t < config->n_tiers; t++) {
        for (size_t i = 0; i < study->n_candidates; i++) {
            study_candidate *c = &study->candidates[i];
            int64_t best = 0;
            for (size_t j = 0; j < study->n_candidates; j++) {
                const study_candidate *other = &study->candidates[j];
                best = same_platform(c, other) && other->screened[t] > best ? other->screened[t] : best;
            }
            c->contender[t] = config->all_layouts || c->screen == NULL || c->screen_fail[t] == 0 ||
                              (double)c->screen_fail[t] * SLACK > (double)best;
        }
    }
}

static void fill_row(const study_candidate *c, const apmw_tier *tier, size_t t, apmw_study_row *row)
{
    const apmw_deployment *d = &c->deployment;
    *row = (apmw_study_row){.deployment = d, .tier = tier->number, .capacity = c->capacity[t]};
    apmw_copy(row->platform, sizeof row->platform, d->spec.platform);
    const double agents = (double)row->capacity.agents;
    /* A platform without power parameters has unknown watts, not none. */
    const bool known = d->power.tdp_w > 0.0;
    const double watts = row->capacity.agents > 0 && known ? row->capacity.at_pass.energy.mean_w : (double)NAN;
    row->agents_per_accelerator = agents / (double)d->accelerators;
    row->watts_per_accelerator = watts;
    row->agents_per_mw = row->capacity.agents > 0 ? 1e6 * row->agents_per_accelerator / watts : known ? 0.0 : (double)NAN;
    row->watts_all_in = d->node.n_all_in > 0 ? apmw_node_it_w(&d->node, watts) : (double)NAN;
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

/* A platform on which nothing can be served: one row a tier that says why. */
static void add_unserved(apmw_study *study, const apmw_study_config *config, size_t platform)
{
    for (size_t t = 0; t < config->n_tiers; t++) {
        apmw_study_row *row = &study->rows[study->n_rows++];
        *row = (apmw_study_row){.tier = config->tiers[t].number, .agents_per_accelerator = (double)NAN};
        row->agents_per_mw = row->watts_per_accelerator = row->watts_all_in = (double)NAN;
        apmw_copy(row->platform, sizeof row->platform, config->platforms[platform]);
        apmw_copy(row->reason, sizeof row->reason, study->unserved[platform]);
    }
}

/* The best layout of a platform at a tier, or all of them with the best marked. */
static void add_served(apmw_study *study, const apmw_study_config *config, size_t platform, size_t t)
{
    size_t best = study->n_rows;
    for (size_t i = 0; i < study->n_candidates; i++) {
        const study_candidate *c = &study->candidates[i];
        if (c->platform != platform || !c->contender[t] || c->out[t]) {
            continue;
        }
        apmw_study_row row;
        fill_row(c, &config->tiers[t], t, &row);
        if (config->all_layouts) {
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
    }
}

/* Rows by platform, tier and, with all_layouts, layout. */
static apmw_status make_rows(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    const size_t most = config->n_tiers * (config->all_layouts ? study->n_candidates : config->n_platforms);
    study->rows = calloc(most + config->n_tiers * config->n_platforms + 1, sizeof *study->rows);
    if (study->rows == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (size_t p = 0; p < config->n_platforms; p++) {
        if (study->unserved != NULL && study->unserved[p][0] != '\0') {
            add_unserved(study, config, p);
            continue;
        }
        for (size_t t = 0; t < config->n_tiers; t++) {
            add_served(study, config, p, t);
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

/* All variations of all best rows, each in its slot. */
static apmw_status make_intervals(stage *s, apmw_error *err)
{
    apmw_study *study = s->study;
    const size_t n = study->n_rows * STUDY_VARIATIONS;
    slot *slots = calloc(n + 1, sizeof *slots);
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
        if (row->best && row->capacity.agents > 0 && !stopped(s)) {
            apmw_study_vary(s->config, tier_index(s->config, row->tier), row,
                       (study_variation)(k % STUDY_VARIATIONS), &shifts[k], &slots[k].trials, &slots[k].turns,
                       &slots[k].err);
        }
        finished(s);
    }
    const apmw_status status = first_error(slots, n, s, err);
    for (size_t r = 0; r < study->n_rows && status == APMW_OK; r++) {
        if (study->rows[r].best && study->rows[r].capacity.agents > 0) {
            apmw_study_join(&shifts[r * STUDY_VARIATIONS], &study->rows[r]);
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
    stage s = {.config = config, .study = study};
    apmw_status status = search_all(&s, SCREEN_LEADS, err);
    if (status == APMW_OK) {
        status = search_all(&s, SCREEN_OTHERS, err);
    }
    if (status == APMW_OK) {
        choose_contenders(study, config);
        status = search_all(&s, REFINE_FAVOURITES, err);
    }
    if (status == APMW_OK) {
        status = search_all(&s, REFINE_OTHERS, err);
    }
    for (size_t i = 0; i < study->n_candidates; i++) {
        count_trials(study, study->candidates[i].book);
        count_trials(study, study->candidates[i].screen);
    }
    if (status == APMW_OK) {
        status = make_rows(study, config, err);
    }
    if (status == APMW_OK && config->interval) {
        status = make_intervals(&s, err);
    }
    return status;
}

/* Layouts of the engine that came last lead, by the order of ENGINES; of given deployments all do. */
static void choose_leads(apmw_study *study)
{
    for (size_t i = 0; i < study->n_candidates; i++) {
        size_t last = i;
        for (size_t j = 0; j < study->n_candidates; j++) {
            last = same_platform(&study->candidates[i], &study->candidates[j]) ? j : last;
        }
        study->candidates[i].leads = strcmp(study->candidates[i].deployment.spec.engine,
                                            study->candidates[last].deployment.spec.engine) == 0;
    }
}

static bool races(const apmw_study *study, size_t i)
{
    size_t rivals = 0;
    for (size_t j = 0; j < study->n_candidates; j++) {
        rivals += j != i && same_platform(&study->candidates[i], &study->candidates[j]);
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
        c->screen = races(study, i) ? apmw_trial_book_create(&trial) : NULL;
        if (c->book == NULL || (c->screen == NULL && races(study, i))) {
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
        choose_leads(study);
        status = add_books(study, config, err);
    }
    if (status == APMW_OK) {
        status = run_stages(study, config, err);
    }
    if (status != APMW_OK) {
        apmw_study_free(study);
        return status;
    }
    *out = study;
    return APMW_OK;
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
    free(study);
}

const apmw_study_row *apmw_study_rows(const apmw_study *study, size_t *n)
{
    *n = study->n_rows;
    return study->rows;
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
