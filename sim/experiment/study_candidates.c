/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which deployments of a platform compete: engines, layouts and draft lengths that can be served there. */
#include "study_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

enum { MAX_LAYOUTS = 32 };

apmw_status apmw_study_add(apmw_study *study, apmw_deployment *deployment, size_t platform, apmw_error *err)
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
    if (scenario->disaggregated) { /* the pools that the scenario names, as one pair */
        *n = 1;
        return apmw_scenario_pool_choices(scenario, out, err);
    }
    if (scenario->layout[0] != '\0') {
        *n = 1;
        return apmw_layout_parse(scenario->layout, accelerators, &out[0], err);
    }
    *n = apmw_layout_enumerate(llm, accelerators, out, MAX_LAYOUTS);
    return APMW_OK;
}

/* Draft lengths that compete: the scenario's, or, for a model with draft layers of its own and measured acceptance, none,
 * one (the vendor's advice for throughput) and three (for latency). */
static apmw_status choose_drafts(const apmw_catalog *catalog, const apmw_scenario *scenario, int drafts[3], size_t *n,
                                 apmw_error *err)
{
    const apmw_llm_spec *llm = NULL;
    const apmw_status status = apmw_catalog_llm(catalog, scenario->model, &llm, err);
    if (status != APMW_OK) {
        return status;
    }
    *n = 0;
    if (scenario->draft_tokens < 0 && !isnan(scenario->acceptance_length)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "an acceptance length is stated, but not how many tokens are drafted "
                              "(speculation.draft_tokens, --draft-tokens)");
    }
    if (scenario->draft_tokens < 0 && scenario->n_acceptance > 0) { /* as many as there are chances, or none */
        drafts[(*n)++] = 0;
        drafts[(*n)++] = scenario->n_acceptance;
        return APMW_OK;
    }
    const bool preset = scenario->acceptance_preset[0] != '\0';
    for (int k = 0; k <= 3 && scenario->draft_tokens < 0; k += k == 0 ? 1 : 2) {
        if (k == 0 || preset || (llm->mtp_layers > 0 && !isnan(llm->acceptance[k]))) {
            drafts[(*n)++] = k;
        }
    }
    if (scenario->draft_tokens >= 0) {
        drafts[(*n)++] = scenario->draft_tokens;
    }
    return APMW_OK;
}

/* Layouts are stated once. */
static apmw_status check_layouts(const apmw_study_config *config, apmw_error *err)
{
    const apmw_scenario *s = config->scenario;
    if (s->layout[0] != '\0' && s->disaggregated) {
        return apmw_error_set(err, APMW_E_SCENARIO, "both a layout (%s) and disaggregation are stated: state one", s->layout);
    }
    if (config->search_keep > 0 && (s->layout[0] != '\0' || s->disaggregated)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "--search-layout chooses layouts: state no %s",
                              s->disaggregated ? "disaggregation" : "layout");
    }
    if (config->n_platforms > 1 && s->disaggregated && s->pools[0].platform[0] != '\0' && s->pools[1].platform[0] != '\0') {
        return apmw_error_set(err, APMW_E_SCENARIO, "both pools state their platform, so there is nothing to compare %zu with",
                              config->n_platforms);
    }
    return APMW_OK;
}

/* Do both pools say what they run? */
static bool engines_stated(const apmw_scenario *s)
{
    return s->disaggregated && s->pools[0].engine[0] != '\0' && s->pools[1].engine[0] != '\0';
}

/* An engine takes part when its own attention of this kind of model was measured on the platform. Where another engine's
 * was and its own was not (TensorRT-LLM's DeepSeek-V4 on Hopper), it is not known to serve the model there, though its
 * steps could be composed from borrowed rows; asked for by name it still is. */
static bool measured_there(const apmw_hwmodel *hw, const apmw_llm_spec *llm, const char *engine)
{
    const char *const ops[2] = {llm->csa_layers > 0   ? "dsv4_csa_generation_module"
                                : llm->index_topk > 0 ? "dsa_generation_module"
                                : llm->kv_lora > 0    ? "generation_mla"
                                                      : "generation_attention",
                                llm->csa_layers == 0 && llm->index_topk == 0 && llm->kv_lora > 0 ? "mla_generation_module"
                                                                                                 : ""};
    bool own = false, others = false;
    for (size_t i = 0; i < hw->n_tables; i++) {
        if (strcmp(hw->tables[i]->op, ops[0]) == 0 || strcmp(hw->tables[i]->op, ops[1]) == 0) {
            own = own || strcmp(hw->tables[i]->engine, engine) == 0;
            others = true;
        }
    }
    return own || !others;
}

apmw_status apmw_study_add_platform(apmw_study *study, apmw_catalog *catalog, const apmw_study_config *config,
                                    size_t platform, double context, apmw_error *err)
{
    /* The last one that serves leads the race. */
    static const char *const ENGINES[] = {"vllm", "sglang", "trtllm", "atom"};
    const apmw_node_spec *node = NULL;
    const apmw_accelerator_spec *accelerator = NULL;
    const apmw_hwmodel *hw = NULL;
    const apmw_llm_spec *llm = NULL;
    apmw_scenario scenario = *config->scenario;
    apmw_copy(scenario.platform, sizeof scenario.platform, config->platforms[platform]);
    apmw_layout_choice layouts[MAX_LAYOUTS];
    size_t n_layouts = 0;
    int drafts[3] = {0};
    size_t n_drafts = 1;
    apmw_status status = platform_layouts(catalog, &scenario, layouts, &n_layouts, err);
    if (status == APMW_OK) {
        status = choose_drafts(catalog, &scenario, drafts, &n_drafts, err);
    }
    if (status == APMW_OK) {
        status = check_layouts(config, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_node(catalog, scenario.platform, &node, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_accelerator(catalog, node->accelerator, &accelerator, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_platform(catalog, node->accelerator, &hw, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_llm(catalog, scenario.model, &llm, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    const size_t before = study->n_candidates;
    apmw_error last = {0};
    if (scenario.engine[0] != '\0') {
        bool known = false;
        for (size_t e = 0; e < sizeof ENGINES / sizeof ENGINES[0]; e++) {
            const bool stated = strcmp(scenario.engine, ENGINES[e]) == 0;
            if (stated && !apmw_engine_runs_on(ENGINES[e], accelerator->vendor)) {
                return apmw_error_set(err, APMW_E_SCENARIO, "%s does not run on %s parts", scenario.engine, accelerator->vendor);
            }
            known = known || stated;
        }
        if (!known) {
            return apmw_error_set(err, APMW_E_USAGE, "unknown engine \"%s\": vllm, sglang, trtllm or atom", scenario.engine);
        }
    }
    for (size_t e = 0; e < sizeof ENGINES / sizeof ENGINES[0]; e++) {
        if (scenario.engine[0] != '\0' ? strcmp(scenario.engine, ENGINES[e]) != 0
                                        : !apmw_engine_runs_on(ENGINES[e], accelerator->vendor)) {
            continue;
        }
        if (engines_stated(&scenario) && study->n_candidates > before) {
            break; /* the loop's engine stands for none */
        }
        if (scenario.engine[0] == '\0' && !engines_stated(&scenario) && !measured_there(hw, llm, ENGINES[e])) {
            apmw_buf_printf(&study->refused, "%s %s %s: the engine's attention of this model was not measured there\n",
                            node->accelerator, llm->id, ENGINES[e]);
            continue;
        }
        if (config->search_keep > 0) {
            status = apmw_study_search_layouts(study, catalog, config, &scenario, ENGINES[e], platform, context, drafts,
                                               n_drafts, err);
            if (status != APMW_OK) {
                return status;
            }
            continue;
        }
        for (size_t i = 0; i < n_layouts * n_drafts; i++) {
            apmw_deployment deployment;
            apmw_error reason = {0};
            scenario.draft_tokens = drafts[i % n_drafts];
            status = scenario.disaggregated
                         ? apmw_deployment_build_pools(catalog, &scenario, ENGINES[e], layouts, context, &deployment, &reason)
                         : apmw_deployment_build(catalog, &scenario, ENGINES[e], &layouts[i / n_drafts], context, &deployment,
                                                 &reason);
            if (status == APMW_E_SCENARIO) {
                apmw_buf_printf(&study->refused, "%s\n", reason.message);
                last = reason;
                continue;
            }
            if (status != APMW_OK) {
                return apmw_error_set(err, status, "%s", reason.message);
            }
            status = apmw_study_add(study, &deployment, platform, err);
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
