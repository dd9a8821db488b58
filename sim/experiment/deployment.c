/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From a scenario and a layout to what the simulator runs: names become a serving spec, the spec a compiled step cost and a
 * KV pool, the engine's rules its settings, and the platform its power. */
#include "deployment_private.h"
#include "scenario_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/power_form.h"
#include "apmw/text.h"

/* The precision of the checkpoint as published, from its bits a weight: routed experts where there are any, since they
 * are nearly all of the bytes. */
static const char *own_precision(const apmw_llm_spec *llm)
{
    const bool experts = llm->experts > 0 && llm->expert_params > 0.0;
    const double bits = experts ? 8.0 * llm->expert_bytes / llm->expert_params
                                : 8.0 * llm->resident_bytes / llm->total_params;
    return bits < 6.0 ? "fp4" : bits < 12.0 ? "fp8" : "bf16";
}

static void make_spec(const apmw_scenario *scenario, const apmw_node_spec *node, const apmw_llm_spec *llm,
                      const char *engine, apmw_role role, const apmw_layout *layout, apmw_point *point)
{
    memset(point, 0, sizeof *point);
    apmw_copy(point->platform, sizeof point->platform, node->accelerator);
    apmw_copy(point->model, sizeof point->model, llm->id);
    apmw_copy(point->engine, sizeof point->engine, engine);
    apmw_copy(point->engine_version, sizeof point->engine_version, scenario->engine_version);
    apmw_copy(point->precision, sizeof point->precision,
              scenario->precision[0] != '\0' ? scenario->precision : own_precision(llm));
    point->layout[0] = point->layout[1] = *layout;
    point->disagg = role != APMW_ROLE_ENGINE;
    point->workers[0] = 1;
    point->workers[1] = point->disagg ? 1 : 0;
    point->has_recipe = true; /* what is not stated is the engine's own default, not a recipe's */
    point->speculative = false;
    point->acceptance_length = point->ttft_ms = point->tpot_ms = point->power_w = (double)NAN;
    point->concurrency = 1;
    point->isl = point->osl = 1;
    apmw_engine_settings *s = &point->settings[0];
    s->token_budget = s->max_prefill_tokens = s->max_seqs = s->max_model_len = s->kv_memory_fraction = s->block_tokens =
        s->recv_interval = s->batch_wait_tokens = s->batch_wait_iters = s->adp_wait_iters = s->draft_tokens =
            s->num_prompts = s->max_total_tokens = s->graph_max_batch = (double)NAN;
    s->chunked_prefill = -1;
    apmw_copy(s->kv_dtype, sizeof s->kv_dtype, scenario->kv_dtype);
    apmw_copy(s->moe_backend, sizeof s->moe_backend, scenario->moe_backend);
    point->settings[1] = *s;
}

/* Rules of the engine, then what the scenario sets. */
static apmw_status make_engine(apmw_catalog *catalog, const apmw_scenario *scenario, const apmw_point *point,
                               apmw_role role, apmw_deployment *out, double *memory_fraction, apmw_graphs *graphs,
                               apmw_error *err)
{
    apmw_engine_defaults *defaults = NULL;
    apmw_engine_settings settings;
    apmw_status status = apmw_engine_defaults_open(apmw_catalog_dir(catalog), &defaults, err);
    if (status == APMW_OK) {
        status = apmw_point_settings(defaults, point, role, &settings, err);
    }
    apmw_engine_defaults_free(defaults);
    if (status != APMW_OK) {
        return status;
    }
    if (scenario->max_num_batched_tokens > 0) {
        settings.token_budget = (double)scenario->max_num_batched_tokens;
    }
    if (scenario->max_num_seqs > 0) {
        settings.max_seqs = (double)scenario->max_num_seqs;
    }
    if (scenario->block_tokens > 0) {
        settings.block_tokens = (double)scenario->block_tokens;
    }
    settings.recv_interval = (double)scenario->recv_interval;
    settings.draft_tokens = (double)out->spec.draft_tokens;
    status = apmw_settings_engine_config(&settings, &point->layout[0], point->engine, &out->engine, err);
    if (status == APMW_OK && scenario->graph_padding != APMW_PADDING_ENGINE) {
        apmw_copy(settings.graph_padding, sizeof settings.graph_padding, apmw_graph_padding_name(scenario->graph_padding));
    }
    if (status == APMW_OK) {
        status = apmw_settings_graphs(&settings, point->engine, graphs, err);
    }
    apmw_copy(out->spec.kv_dtype, sizeof out->spec.kv_dtype, settings.kv_dtype);
    apmw_copy(out->spec.moe_backend, sizeof out->spec.moe_backend, settings.moe_backend);
    *memory_fraction = isnan(scenario->memory_fraction) ? settings.kv_memory_fraction : scenario->memory_fraction;
    /* Prompts of agents are far longer than a token budget, so whole-prompt scheduling cannot serve them. */
    out->engine.chunked_prefill = true;
    out->engine.prefix_caching = scenario->prefix_caching;
    out->engine.prefill_delay_passes = scenario->prefill_delay_passes;
    out->engine.prefill_delay_ns = apmw_time_from_s(1e-3 * scenario->prefill_delay_ms);
    out->engine.seed = 1;
    return status;
}

static void describe(apmw_deployment *d, const char *source, const apmw_llm_spec *llm,
                     const apmw_accelerator_spec *accelerator)
{
    const char *no_power = isnan(accelerator->tdp_w) ? "none: the power of the platform is not published"
                                                     : "none: the platform has no fitted file (apmw fit platforms)";
    char speculation[224] = "no speculation";
    if (d->spec.draft_tokens > 0) {
        snprintf(speculation, sizeof speculation, "%d draft tokens, %.3g tokens a step (%s)", d->spec.draft_tokens,
                 d->acceptance_length, source);
    }
    const double half = 100.0 * expm1(APMW_Z90 * d->overhead.ln_sd_time);
    snprintf(d->basis, sizeof d->basis,
             "time: %.100s, step time within +-%.0f %% (90 %%), %d operations borrowed\npower: %s\n%s %s, %s%s",
             d->overhead.basis, half, d->n_borrowed,
             d->power.tdp_w > 0.0 ? d->power.basis : no_power, llm->id, d->spec.precision, speculation,
             d->projected ? "; platform projected from specifications" : "");
}

/* Decode at captured batch sizes. */
static apmw_status pad_graphs(const apmw_graphs *graphs, apmw_deployment *out, apmw_error *err)
{
    if (graphs->padding == APMW_PADDING_NONE) {
        return APMW_OK;
    }
    apmw_step_cost *padded = apmw_step_cost_padded(out->cost, true, graphs);
    if (padded == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for a cost");
    }
    out->cost = padded;
    return APMW_OK;
}

/* Everything that needs the catalog's platform. */
static apmw_status compile(apmw_catalog *catalog, double frontend_scale, double memory_fraction, double context, apmw_deployment *out,
                           apmw_error *err)
{
    apmw_compose_report report = {0};
    apmw_status status = apmw_overhead_lookup(catalog, &out->spec, &out->overhead, err);
    if (status == APMW_OK) {
        status = apmw_kv_pool_tokens(catalog, &out->spec, memory_fraction, context, &out->kv_tokens, &out->weight_bytes,
                                     err);
    }
    if (status == APMW_OK) {
        status = apmw_compose(catalog, &out->spec, &out->overhead, &out->cost, &report, err);
    }
    /* Which of the two a server of the day does is not known, so the other one is at hand for the interval. */
    if (status == APMW_OK) {
        apmw_serving_spec all = out->spec;
        all.kv_all_windows = true;
        double tokens = 0.0, weights = 0.0;
        status = apmw_kv_pool_tokens(catalog, &all, memory_fraction, context, &tokens, &weights, err);
        out->kv_blocks_all_windows = (int64_t)floor(tokens / (double)out->engine.block_tokens);
    }
    out->n_borrowed = report.n_borrowed;
    apmw_buf_append(&out->rows, report.rows.data == NULL ? "" : report.rows.data, report.rows.length);
    apmw_buf_append(&out->notes, report.notes.data == NULL ? "" : report.notes.data, report.notes.length);
    apmw_compose_report_free(&report);
    if (status != APMW_OK) {
        return status;
    }
    out->engine.kv_blocks = (int64_t)floor(out->kv_tokens / (double)out->engine.block_tokens);
    if (out->engine.kv_blocks < 1) {
        return apmw_error_set(err, APMW_E_SCENARIO, "the weights leave %.0f tokens of KV, less than a block of %lld",
                              out->kv_tokens, (long long)out->engine.block_tokens);
    }
    out->engine.request_overhead_ns = apmw_time_from_s(out->overhead.request_s);
    out->engine.frontend_ns_per_token = 1e9 * out->overhead.frontend_s_per_token * frontend_scale;
    return APMW_OK;
}

/* Steps are priced by the newest tables of an engine (rules may name another); a release without any would be priced by those
 * of another one in silence. */
static apmw_status check_version(const apmw_hwmodel *hw, const char *engine, const char *version, apmw_error *err)
{
    const char *other = "";
    for (size_t i = 0; version[0] != '\0' && i < hw->n_tables; i++) {
        if (strcmp(hw->tables[i]->engine, engine) == 0) {
            if (strcmp(hw->tables[i]->version, version) == 0) {
                return APMW_OK;
            }
            other = hw->tables[i]->version;
        }
    }
    return version[0] == '\0' || other[0] == '\0'
               ? APMW_OK
               : apmw_error_set(err, APMW_E_SCENARIO, "no table of %s %s: the measured release is %s", engine, version, other);
}

bool apmw_engine_runs_on(const char *engine, const char *vendor)
{
    return strcmp(engine, "trtllm") == 0 ? strcmp(vendor, "nvidia") == 0
           : strcmp(engine, "atom") == 0 ? strcmp(vendor, "amd") == 0
                                         : true;
}

apmw_status apmw_deployment_build_role(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                       apmw_role role, const apmw_layout_choice *choice, double context,
                                       apmw_deployment *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    const apmw_node_spec *node = NULL;
    const apmw_accelerator_spec *accelerator = NULL;
    const apmw_llm_spec *llm = NULL;
    const apmw_hwmodel *hw = NULL;
    apmw_status status = apmw_catalog_node(catalog, scenario->platform, &node, err);
    if (status == APMW_OK) {
        status = apmw_catalog_llm(catalog, scenario->model, &llm, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_accelerator(catalog, node->accelerator, &accelerator, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_platform(catalog, node->accelerator, &hw, err);
    }
    if (status == APMW_OK && !apmw_engine_runs_on(engine, accelerator->vendor)) {
        status = apmw_error_set(err, APMW_E_SCENARIO, "%s does not run on %s parts", engine, accelerator->vendor);
    }
    if (status != APMW_OK) {
        return status;
    }
    out->choice = *choice;
    out->accelerators = choice->size * choice->replicas;
    out->power = hw->power;
    out->peak_flop_per_s = accelerator->bf16_flop_per_s;
    out->hbm_bytes_per_s = accelerator->hbm_bytes_per_s;
    out->node = *node;
    out->all_in_w = accelerator->all_in_w;
    out->projected = accelerator->projected;
    apmw_copy(out->hw_hash, sizeof out->hw_hash, hw->hash);
    apmw_point point;
    make_spec(scenario, node, llm, engine, role, &choice->layout, &point);
    apmw_point_spec(&point, role, &point.settings[0], &out->spec);
    out->spec.kv_all_windows = scenario->kv_all_windows;
    apmw_copy(out->name, sizeof out->name, choice->name);
    apmw_copy(out->platform, sizeof out->platform, node->accelerator);
    out->spec.draft_tokens = scenario->draft_tokens > 0 ? scenario->draft_tokens : 0;
    double memory_fraction = (double)NAN;
    apmw_graphs graphs = {.padding = APMW_PADDING_NONE};
    apmw_acceptance accepted;
    status = check_version(hw, engine, scenario->engine_version, err);
    if (status != APMW_OK) {
        return apmw_error_wrap(err, "%s %s %s %s", node->accelerator, llm->id, engine, choice->name);
    }
    status = apmw_scenario_acceptance(apmw_catalog_dir(catalog), scenario, llm, out->spec.draft_tokens, &accepted, err);
    out->acceptance_length = accepted.mean;
    if (status == APMW_OK) {
        status = make_engine(catalog, scenario, &point, role, out, &memory_fraction, &graphs, err);
    }
    if (status == APMW_OK) {
        out->engine.acceptance_length = out->acceptance_length;
        out->engine.acceptance_variance = accepted.variance;
        out->engine.acceptance_fixed = scenario->acceptance_fixed;
        out->engine.max_model_len = llm->context_tokens;
        status = compile(catalog, scenario->frontend_scale, memory_fraction, context, out, err);
    }
    if (status == APMW_OK) {
        status = pad_graphs(&graphs, out, err);
    }
    if (status == APMW_OK && role != APMW_ROLE_DECODE) {
        status = apmw_deployment_make_tiers(catalog, scenario, context, out, err);
    }
    if (status != APMW_OK) {
        apmw_deployment_free(out);
        return apmw_error_wrap(err, "%s %s %s %s", node->accelerator, llm->id, engine, choice->name);
    }
    describe(out, accepted.source, llm, accelerator);
    return APMW_OK;
}

apmw_status apmw_deployment_build(apmw_catalog *catalog, const apmw_scenario *scenario, const char *engine,
                                  const apmw_layout_choice *choice, double context, apmw_deployment *out,
                                  apmw_error *err)
{
    return apmw_deployment_build_role(catalog, scenario, engine, APMW_ROLE_ENGINE, choice, context, out, err);
}

static double all_in_of(const apmw_deployment *d, double accelerator_w)
{
    return d->node.n_all_in > 0 ? apmw_node_it_w(&d->node, accelerator_w) : (double)NAN;
}

double apmw_deployment_all_in_w(const apmw_deployment *d, const apmw_trial_result *trial)
{
    if (d->prefill == NULL) {
        return all_in_of(d, trial->energy.mean_w);
    }
    const double n = (double)d->prefill->accelerators, m = (double)(d->accelerators - d->prefill->accelerators);
    return (n * all_in_of(d->prefill, trial->pool_energy[APMW_POOL_PREFILL].mean_w) +
            m * all_in_of(d, trial->pool_energy[APMW_POOL_DECODE].mean_w)) / (n + m);
}

void apmw_deployment_free(apmw_deployment *deployment)
{
    if (deployment->prefill != NULL) {
        apmw_deployment_free(deployment->prefill);
        free(deployment->prefill);
        deployment->prefill = NULL;
    }
    if (deployment->cost != NULL) {
        apmw_step_cost_free(deployment->cost);
    }
    apmw_buf_free(&deployment->rows);
    apmw_buf_free(&deployment->notes);
    deployment->cost = NULL;
}

double apmw_trace_mean_context(const apmw_trace *trace)
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
