/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which layouts of so many accelerators are worth trials: all aggregated ones and all pairs of prefill and decode pools are
 * guessed by rate matching (what one engine of a kind and size can carry, from mean values of the load), the best are
 * simulated. Each kind and size is composed once, whatever the number of pairs. */
#include "splits.h"
#include "study_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

enum { MAX_ENGINES = 96, MAX_SIZE = 64 };

typedef struct search {
    apmw_study *study;
    apmw_catalog *catalog;
    const apmw_study_config *config;
    apmw_scenario scenario;
    const apmw_llm_spec *llm;
    const char *engine;
    size_t platform;
    double context;
    split_engine pool[APMW_POOLS][MAX_ENGINES];
    size_t n_pool[APMW_POOLS];
    split_list list;
} search;

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
    if (s->n_pool[pool] < MAX_ENGINES) {
        split_engine *one = &s->pool[pool][s->n_pool[pool]++];
        *one = (split_engine){.choice = *choice, .draft = draft};
        for (size_t t = 0; t < s->config->n_tiers; t++) {
            one->agents[t] = apmw_study_estimate_part(s->config, &deployment, PARTS[pool], &s->config->tiers[t]);
        }
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
    split o = {.choice = {*choice}, .draft = draft};
    for (size_t t = 0; t < s->config->n_tiers; t++) {
        o.agents[t] = apmw_study_estimate_part(s->config, &deployment, STUDY_WHOLE, &s->config->tiers[t]);
    }
    apmw_split_offer(&s->list, &o);
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

static apmw_status add_one(search *s, const split *o, apmw_error *err)
{
    apmw_deployment deployment;
    apmw_error reason = {0};
    apmw_scenario scenario = s->scenario;
    scenario.draft_tokens = o->draft;
    const apmw_status status =
        o->apart ? apmw_deployment_build_pools(s->catalog, &scenario, s->engine, o->choice, s->context, &deployment, &reason)
                 : apmw_deployment_build(s->catalog, &scenario, s->engine, &o->choice[0], s->context, &deployment, &reason);
    if (status == APMW_E_SCENARIO) {
        apmw_buf_printf(&s->study->refused, "%s\n", reason.message);
        return APMW_OK;
    }
    if (status != APMW_OK) {
        return apmw_error_set(err, status, "%s", reason.message);
    }
    apmw_buf_printf(&s->study->searched, " %s draft %d (", deployment.name, o->draft);
    for (size_t t = 0; t < s->config->n_tiers; t++) {
        apmw_buf_printf(&s->study->searched, "%s%.0f", t > 0 ? ", " : "", o->agents[t]);
    }
    apmw_buf_puts(&s->study->searched, ")");
    return apmw_study_add(s->study, &deployment, s->platform, err);
}

static apmw_status add_best(search *s, apmw_error *err)
{
    split *chosen = calloc(s->list.n_tiers * s->list.keep + 1, sizeof *chosen);
    if (chosen == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    const size_t n = apmw_split_join(&s->list, chosen);
    apmw_buf_printf(&s->study->searched, "%s: %ld splits guessed, these simulated:", s->engine, s->list.considered);
    apmw_status status = APMW_OK;
    for (size_t i = 0; i < n && status == APMW_OK; i++) {
        status = add_one(s, &chosen[i], err);
    }
    apmw_buf_puts(&s->study->searched, "\n");
    free(chosen);
    return status;
}

apmw_status apmw_study_search_layouts(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                      const apmw_scenario *scenario, const char *engine, size_t platform, double context,
                                      const int *drafts, size_t n_drafts, apmw_error *err)
{
    const apmw_node_spec *node = NULL;
    const apmw_accelerator_spec *accelerator = NULL;
    search *s = calloc(1, sizeof *s);
    apmw_status status = s == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : APMW_OK;
    if (status == APMW_OK) {
        *s = (search){.study = study, .catalog = catalog, .config = config, .scenario = *scenario, .engine = engine,
                      .platform = platform, .context = context};
        if (!apmw_split_list_init(&s->list, config->n_tiers, config->search_keep)) {
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        }
    }
    if (status == APMW_OK) {
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
            apmw_split_pairs(&s->list, s->pool[APMW_POOL_PREFILL], s->n_pool[APMW_POOL_PREFILL], s->pool[APMW_POOL_DECODE],
                             s->n_pool[APMW_POOL_DECODE], n);
            status = add_best(s, err);
        }
    }
    if (s != NULL) {
        apmw_split_list_free(&s->list);
    }
    free(s);
    return status;
}
