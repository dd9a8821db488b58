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

/* Brackets of the first look at every layout, relative. */
static const double COARSE = 0.25;
enum { MAX_LAYOUTS = 32 };

struct apmw_study {
    study_candidate *candidates;
    size_t n_candidates;
    apmw_study_row *rows;
    size_t n_rows;
    char (*unserved)[512]; /* of each platform: why nothing of it can be served, or "" */
    apmw_buf refused;
    int64_t trials, turns;
};

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

apmw_trial_config study_trial_config(const apmw_study_config *config, const apmw_deployment *deployment)
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
        .share_prefix = s->share_prefix,
        .output_cached = s->output_cached,
        .delay_scale = s->delay_scale,
        .time_scale = 1.0,
        .max_context = deployment->engine.max_model_len,
        .give_up_tier = 0, /* enabled; a book names the tier that it asks for */
    };
}

/* Tiers in order: the loosest first, whose trials serve the others. */
static apmw_status search_candidate(const apmw_study_config *config, study_candidate *c, bool refine, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (size_t t = 0; t < config->n_tiers && status == APMW_OK; t++) {
        if (!refine || c->contender[t]) {
            status = apmw_capacity_search(c->book, t, 0, refine ? config->resolution : COARSE, 1.0, &c->capacity[t], err);
        }
    }
    return status;
}

static apmw_status search_all(stage *s, bool refine, apmw_error *err)
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
            search_candidate(s->config, &study->candidates[i], refine, &slots[i].err);
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

/* A layout stays in the race for a tier while its first failure lies above the best pass of the platform. */
static void choose_contenders(apmw_study *study, const apmw_study_config *config)
{
    for (size_t t = 0; t < config->n_tiers; t++) {
        for (size_t i = 0; i < study->n_candidates; i++) {
            study_candidate *c = &study->candidates[i];
            int64_t best = 0;
            for (size_t j = 0; j < study->n_candidates; j++) {
                const apmw_bracket *b = &study->candidates[j].capacity[t].bracket;
                best = same_platform(c, &study->candidates[j]) && b->pass > best ? b->pass : best;
            }
            const apmw_bracket *b = &c->capacity[t].bracket;
            c->contender[t] = config->all_layouts || b->fail == 0 || b->fail > best;
        }
    }
}

static void fill_row(const study_candidate *c, const apmw_tier *tier, size_t t, apmw_study_row *row)
{
    const apmw_deployment *d = &c->deployment;
    *row = (apmw_study_row){.deployment = d, .tier = tier->number, .capacity = c->capacity[t]};
    apmw_copy(row->platform, sizeof row->platform, d->spec.platform);
    const double agents = (double)row->capacity.agents;
    const double watts = row->capacity.agents > 0 ? row->capacity.at_pass.energy.mean_w : (double)NAN;
    row->agents_per_accelerator = agents / (double)d->accelerators;
    row->watts_per_accelerator = watts;
    row->agents_per_mw = row->capacity.agents > 0 ? 1e6 * row->agents_per_accelerator / watts : 0.0;
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
        if (c->platform != platform || !c->contender[t]) {
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

static const study_candidate *candidate_of(const apmw_study *study, const apmw_study_row *row)
{
    size_t i = 0;
    while (&study->candidates[i].deployment != row->deployment) {
        i++;
    }
    return &study->candidates[i];
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
            study_vary(s->config, candidate_of(study, row), tier_index(s->config, row->tier), row,
                       (study_variation)(k % STUDY_VARIATIONS), &shifts[k], &slots[k].trials, &slots[k].turns,
                       &slots[k].err);
        }
        finished(s);
    }
    const apmw_status status = first_error(slots, n, s, err);
    for (size_t r = 0; r < study->n_rows && status == APMW_OK; r++) {
        if (study->rows[r].best && study->rows[r].capacity.agents > 0) {
            study_join(&shifts[r * STUDY_VARIATIONS], &study->rows[r]);
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

static apmw_status run_stages(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    stage s = {.config = config, .study = study};
    apmw_status status = search_all(&s, false, err);
    if (status == APMW_OK) {
        choose_contenders(study, config);
        status = search_all(&s, true, err);
    }
    for (size_t i = 0; i < study->n_candidates; i++) {
        const apmw_trial_book *book = study->candidates[i].book;
        study->trials += (int64_t)apmw_trial_book_count(book);
        for (size_t k = 0; k < apmw_trial_book_count(book); k++) {
            study->turns += apmw_trial_book_at(book, k)->n_turns;
        }
    }
    if (status == APMW_OK) {
        status = make_rows(study, config, err);
    }
    if (status == APMW_OK && config->interval) {
        status = make_intervals(&s, err);
    }
    return status;
}

static apmw_status add_candidate(apmw_study *study, apmw_deployment *deployment, size_t platform, apmw_error *err)
{
    study_candidate *bigger = realloc(study->candidates, (study->n_candidates + 1) * sizeof *bigger);
    if (bigger == NULL) {
        apmw_deployment_free(deployment);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    study->candidates = bigger;
    memset(&bigger[study->n_candidates], 0, sizeof *bigger);
    bigger[study->n_candidates].platform = platform;
    bigger[study->n_candidates++].deployment = *deployment;
    return APMW_OK;
}

/* Books point at deployments, so they come when no candidate moves any more. */
static apmw_status add_books(apmw_study *study, const apmw_study_config *config, apmw_error *err)
{
    for (size_t i = 0; i < study->n_candidates; i++) {
        const apmw_trial_config trial = study_trial_config(config, &study->candidates[i].deployment);
        study->candidates[i].book = apmw_trial_book_create(&trial);
        if (study->candidates[i].book == NULL) {
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
            status = add_candidate(study, &deployments[i], 0, err);
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

/* Mean prompt of a turn with half its output: the context at which the KV pool is sized. */
static double mean_context(const apmw_trace *trace)
{
    double sum = 0.0, n = 0.0;
    for (size_t i = 0; i < trace->n; i++) {
        for (int32_t t = 0; t < trace->items[i].n_turns; t++) {
            sum += (double)trace->items[i].turns[t].n_in + 0.5 * (double)trace->items[i].turns[t].n_out;
            n += 1.0;
        }
    }
    return sum / n;
}

/* Layouts of one platform: the one that the scenario names, or all that fill its accelerators. */
static apmw_status platform_layouts(apmw_catalog *catalog, const apmw_scenario *scenario, apmw_layout_choice *out,
                                    size_t *n, apmw_error *err)
{
    const apmw_node_spec *node = NULL;
    const apmw_llm_spec *llm = NULL;
    apmw_status status = apmw_catalog_node(catalog, scenario->platform, &node, err);
    if (status == APMW_OK) {
        status = apmw_catalog_llm(catalog, scenario->model, &llm, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    /* A rack is studied by a slice of 8: aggregated engines of a rack do not meet each other. */
    const int whole = node->accelerators > 8 ? 8 : node->accelerators;
    const int accelerators = scenario->accelerators > 0 ? scenario->accelerators : whole;
    if (scenario->layout[0] != '\0') {
        *n = 1;
        return apmw_layout_parse(scenario->layout, accelerators, &out[0], err);
    }
    *n = apmw_layout_enumerate(llm, accelerators, out, MAX_LAYOUTS);
    return APMW_OK;
}

static apmw_status add_platform(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                size_t platform, double context, apmw_error *err)
{
    static const char *const ENGINES[] = {"vllm", "sglang", "trtllm", "atom"};
    apmw_scenario scenario = *config->scenario;
    apmw_copy(scenario.platform, sizeof scenario.platform, config->platforms[platform]);
    apmw_layout_choice layouts[MAX_LAYOUTS];
    size_t n_layouts = 0;
    apmw_status status = platform_layouts(catalog, &scenario, layouts, &n_layouts, err);
    if (status != APMW_OK) {
        return status;
    }
    const size_t before = study->n_candidates;
    apmw_error last = {0};
    for (size_t e = 0; e < sizeof ENGINES / sizeof ENGINES[0]; e++) {
        if (scenario.engine[0] != '\0' && (strcmp(scenario.engine, ENGINES[e]) != 0)) {
            continue;
        }
        for (size_t i = 0; i < n_layouts; i++) {
            apmw_deployment deployment;
            apmw_error reason = {0};
            status = apmw_deployment_build(catalog, &scenario, ENGINES[e], &layouts[i], context, &deployment, &reason);
            if (status == APMW_E_SCENARIO) {
                apmw_buf_printf(&study->refused, "%s\n", reason.message);
                last = reason;
                continue;
            }
            if (status != APMW_OK) {
                return apmw_error_set(err, status, "%s", reason.message);
            }
            status = add_candidate(study, &deployment, platform, err);
            if (status != APMW_OK) {
                return status;
            }
        }
    }
    if (study->n_candidates == before) {
        return apmw_error_set(err, APMW_E_SCENARIO, "no layout of %s on %s can be served; the last one tried: %s",
                              scenario.model, scenario.platform, last.message);
    }
    return APMW_OK;
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
    const double context = mean_context(config->trace);
    study->unserved = calloc(config->n_platforms + 1, sizeof *study->unserved);
    if (study->unserved == NULL) {
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    size_t n_unserved = 0;
    apmw_error last = {0};
    for (size_t i = 0; i < config->n_platforms && status == APMW_OK; i++) {
        apmw_error why = {0};
        status = add_platform(study, catalog, config, i, context, &why);
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
