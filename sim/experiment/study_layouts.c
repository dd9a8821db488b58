/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which layouts of so many accelerators are worth trials: all aggregated ones and all pairs of prefill and decode pools are
 * guessed by rate matching (what one engine of a kind and size can carry, from mean values of the load), the best are
 * simulated. Each kind and size is composed once, whatever the number of pairs. */
#include "study_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

enum { MAX_ENGINES = 96, MAX_SIZE = 64 };

/* One engine of a pool: agents that it can carry, at the first tier asked for. */
typedef struct one_engine {
    apmw_layout_choice choice;
    int draft;
    double agents;
} one_engine;

typedef struct option {
    apmw_layout_choice choice[APMW_POOLS]; /* [0] alone where it is aggregated */
    bool apart;
    int draft;
    double agents;
} option;

typedef struct search {
    apmw_study *study;
    apmw_catalog *catalog;
    const apmw_study_config *config;
    apmw_scenario scenario;
    const apmw_llm_spec *llm;
    const char *engine;
    size_t platform;
    double context;
    one_engine pool[APMW_POOLS][MAX_ENGINES];
    size_t n_pool[APMW_POOLS];
    option *best; /* descending; config->search_keep */
    size_t n_best;
    long considered;
} search;

static bool same_layouts(const option *a, const option *b)
{
    return a->apart == b->apart && strcmp(a->choice[0].name, b->choice[0].name) == 0 &&
           (!a->apart || strcmp(a->choice[1].name, b->choice[1].name) == 0);
}

/* Keeps the best draft length of a layout, and the best layouts. */
static void offer(search *s, const option *o)
{
    s->considered++;
    for (size_t i = 0; i < s->n_best; i++) {
        if (same_layouts(&s->best[i], o)) {
            if (o->agents <= s->best[i].agents) {
                return;
            }
            memmove(&s->best[i], &s->best[i + 1], (s->n_best - i - 1) * sizeof *s->best);
            s->n_best--;
            break;
        }
    }
    size_t at = s->n_best;
    while (at > 0 && s->best[at - 1].agents < o->agents) {
        at--;
    }
    if (at == s->config->search_keep) {
        return;
    }
    const size_t kept = s->n_best < s->config->search_keep ? s->n_best : s->config->search_keep - 1;
    memmove(&s->best[at + 1], &s->best[at], (kept - at) * sizeof *s->best);
    s->best[at] = *o;
    s->n_best = kept + 1;
}

/* Layouts of one engine of `size`; false where the model cannot be split so. */
static bool named(const search *s, int kind, int size, int replicas, apmw_layout_choice *out)
{
    static const char *const KINDS[] = {"tp", "tep", "dep"};
    apmw_error ignored = {0};
    char name[32];
    if (kind > 0 && (s->llm->experts == 0 || size == 1 || s->llm->experts % size != 0)) {
        return false;
    }
    snprintf(name, sizeof name, "%s%dx%d", KINDS[kind], size, replicas);
    return apmw_layout_parse(name, 0, out, &ignored) == APMW_OK;
}

/* Composes one engine of a pool and guesses what it carries; what cannot be served is noted and left out. */
static apmw_status measure(search *s, int pool, const apmw_layout_choice *choice, int draft, apmw_error *err)
{
    static const apmw_role ROLES[APMW_POOLS] = {APMW_ROLE_PREFILL, APMW_ROLE_DECODE};
    static const study_part PARTS[APMW_POOLS] = {STUDY_PREFILL, STUDY_DECODE};
    apmw_deployment deployment;
    apmw_error reason = {0};
    apmw_scenario scenario = s->scenario;
    scenario.draft_tokens = draft;
    const apmw_status status = apmw_deployment_build_role(s->catalog, &scenario, s->engine, ROLES[pool], choice, s->context,
                                                          &deployment, &reason);
    if (status == APMW_E_SCENARIO) {
        apmw_buf_printf(&s->study->refused, "%s: %s\n", pool == APMW_POOL_PREFILL ? "prefill" : "decode", reason.message);
        return APMW_OK;
    }
    if (status != APMW_OK) {
        return apmw_error_set(err, status, "%s", reason.message);
    }
    const double agents = apmw_study_estimate_part(s->config, &deployment, PARTS[pool], &s->config->tiers[0]);
    if (s->n_pool[pool] < MAX_ENGINES) {
        s->pool[pool][s->n_pool[pool]++] = (one_engine){*choice, draft, agents};
    }
    apmw_deployment_free(&deployment);
    return APMW_OK;
}

static apmw_status try_whole(search *s, const apmw_layout_choice *choice, int draft, apmw_error *err)
{
    apmw_deployment deployment;
    apmw_error reason = {0};
    apmw_scenario scenario = s->scenario;
    scenario.draft_tokens = draft;
    const apmw_status status =
        apmw_deployment_build(s->catalog, &scenario, s->engine, choice, s->context, &deployment, &reason);
    if (status != APMW_OK) {
        return status == APMW_E_SCENARIO ? APMW_OK : apmw_error_set(err, status, "%s", reason.message);
    }
    const option o = {.choice = {*choice}, .draft = draft,
                      .agents = apmw_study_estimate_part(s->config, &deployment, STUDY_WHOLE, &s->config->tiers[0])};
    offer(s, &o);
    apmw_deployment_free(&deployment);
    return APMW_OK;
}

static apmw_status measure_all(search *s, int accelerators, int domain, const int *drafts, size_t n_drafts, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (int size = 1; size <= accelerators && size <= domain && size <= MAX_SIZE; size *= 2) {
        for (int kind = 0; kind < 3; kind++) {
            apmw_layout_choice one, all;
            if (!named(s, kind, size, 1, &one)) {
                continue;
            }
            if (size < accelerators && status == APMW_OK) {
                status = measure(s, APMW_POOL_PREFILL, &one, 0, err);
            }
            for (size_t i = 0; i < n_drafts && status == APMW_OK; i++) {
                if (size < accelerators) {
                    status = measure(s, APMW_POOL_DECODE, &one, drafts[i], err);
                }
                if (status == APMW_OK && accelerators % size == 0 && named(s, kind, size, accelerators / size, &all)) {
                    status = try_whole(s, &all, drafts[i], err);
                }
            }
        }
    }
    return status;
}

/* Every split of the accelerators between engines of two kinds. */
static void pair_pools(search *s, int accelerators)
{
    for (size_t i = 0; i < s->n_pool[APMW_POOL_PREFILL]; i++) {
        const one_engine *a = &s->pool[APMW_POOL_PREFILL][i];
        for (size_t j = 0; j < s->n_pool[APMW_POOL_DECODE]; j++) {
            const one_engine *b = &s->pool[APMW_POOL_DECODE][j];
            for (int n = 1; n * a->choice.size < accelerators; n++) {
                const int rest = accelerators - n * a->choice.size;
                if (rest % b->choice.size != 0) {
                    continue;
                }
                option o = {.choice = {a->choice, b->choice}, .apart = true, .draft = b->draft};
                o.choice[0].replicas = n;
                o.choice[1].replicas = rest / b->choice.size;
                o.agents = fmin(n * a->agents, o.choice[1].replicas * b->agents);
                for (int k = 0; k < APMW_POOLS; k++) {
                    apmw_layout_rename(&o.choice[k]);
                }
                offer(s, &o);
            }
        }
    }
}

static apmw_status add_best(search *s, apmw_error *err)
{
    apmw_buf_printf(&s->study->searched, "%s: %ld splits guessed, these simulated:", s->engine, s->considered);
    apmw_status status = APMW_OK;
    for (size_t i = 0; i < s->n_best && status == APMW_OK; i++) {
        const option *o = &s->best[i];
        apmw_deployment deployment;
        apmw_error reason = {0};
        apmw_scenario scenario = s->scenario;
        scenario.draft_tokens = o->draft;
        status = o->apart ? apmw_deployment_build_pools(s->catalog, &scenario, s->engine, o->choice, s->context, &deployment,
                                                        &reason)
                          : apmw_deployment_build(s->catalog, &scenario, s->engine, &o->choice[0], s->context, &deployment,
                                                  &reason);
        if (status == APMW_E_SCENARIO) {
            apmw_buf_printf(&s->study->refused, "%s\n", reason.message);
            status = APMW_OK;
            continue;
        }
        if (status != APMW_OK) {
            return apmw_error_set(err, status, "%s", reason.message);
        }
        apmw_buf_printf(&s->study->searched, " %s (%.0f)", deployment.name, o->agents);
        status = apmw_study_add(s->study, &deployment, s->platform, err);
    }
    apmw_buf_printf(&s->study->searched, "\n");
    return status;
}

apmw_status apmw_study_search_layouts(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                      const apmw_scenario *scenario, const char *engine, size_t platform, double context,
                                      const int *drafts, size_t n_drafts, apmw_error *err)
{
    const apmw_node_spec *node = NULL;
    const apmw_accelerator_spec *accelerator = NULL;
    search *s = calloc(1, sizeof *s);
    option *best = calloc(config->search_keep + 1, sizeof *best);
    apmw_status status = s == NULL || best == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : APMW_OK;
    if (status == APMW_OK) {
        *s = (search){.study = study, .catalog = catalog, .config = config, .scenario = *scenario, .engine = engine,
                      .platform = platform, .context = context, .best = best};
        status = apmw_catalog_llm(catalog, scenario->model, &s->llm, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_node(catalog, scenario->platform, &node, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_accelerator(catalog, node->accelerator, &accelerator, err);
    }
    if (status == APMW_OK) {
        const int whole = node->accelerators > 8 ? 8 : node->accelerators;
        const int n = scenario->accelerators > 0 ? scenario->accelerators : whole;
        status = measure_all(s, n, accelerator->scaleup_domain, drafts, n_drafts, err);
        if (status == APMW_OK) {
            pair_pools(s, n);
            status = add_best(s, err);
        }
    }
    free(best);
    free(s);
    return status;
}
