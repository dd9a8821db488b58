/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The predictor: deployments of a set of points composed once, and one point at a time predicted from them. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "apmw/padded_cost.h"
#include "deployment_private.h"
#include "validate_private.h"

static bool same_spec(const apmw_serving_spec *a, const apmw_serving_spec *b)
{
    return strcmp(a->platform, b->platform) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->engine, b->engine) == 0 && strcmp(a->engine_version, b->engine_version) == 0 &&
           strcmp(a->precision, b->precision) == 0 && strcmp(a->kv_dtype, b->kv_dtype) == 0 &&
           strcmp(a->moe_backend, b->moe_backend) == 0 && strcmp(a->released, b->released) == 0 &&
           strcmp(a->role, b->role) == 0 && a->layout.tp == b->layout.tp && a->layout.pp == b->layout.pp &&
           a->layout.attention_dp == b->layout.attention_dp && a->layout.moe_tp == b->layout.moe_tp &&
           a->layout.moe_ep == b->layout.moe_ep && a->draft_tokens == b->draft_tokens &&
           a->absorbed_chunks == b->absorbed_chunks;
}

static size_t find_deployment(apmw_predictor *p, const apmw_serving_spec *spec)
{
    for (size_t i = 0; i < p->n_deployments; i++)
        if (same_spec(&p->deployments[i].spec, spec))
            return i;
    predictor_deployment *d = &p->deployments[p->n_deployments];
    d->spec = *spec;
    return p->n_deployments++;
}

/* Why a row cannot be simulated at all, or NULL. */
static const char *missing(const apmw_point *point)
{
    if (point->isl < 1 || point->osl < 1)
        return "no prompt or output length";
    if (point->concurrency < 1)
        return "no concurrency";
    if (point->disagg && (point->workers[0] < 1 || point->workers[1] < 1))
        return "no worker counts";
    if (point->layout[0].pp > 1 || point->layout[1].pp > 1)
        return "pipeline parallelism is not modelled";
    return NULL;
}

static int roles_of(const apmw_point *point, apmw_role roles[2])
{
    roles[0] = point->disagg ? APMW_ROLE_PREFILL : APMW_ROLE_ENGINE;
    roles[1] = APMW_ROLE_DECODE;
    return point->disagg ? 2 : 1;
}

/* Settings and deployments of every point: one thread, because the catalogue loads platforms on first use. */
static apmw_status prepare(apmw_predictor *p, const apmw_engine_defaults *defaults, const bool *only,
                           apmw_error *err)
{
    for (size_t i = 0; i < p->points->n; i++) {
        const apmw_point *point = &p->points->items[i];
        apmw_role roles[2];
        int n_roles = roles_of(point, roles);
        if (only && !only[i])
            continue;
        p->ready[i] = true;
        for (int r = 0; r < n_roles; r++) {
            predictor_role *role = &p->roles[i][r];
            apmw_error why = {.status = APMW_OK};
            apmw_serving_spec spec;
            const char *problem = missing(point);
            role->kv_tokens = (double)NAN;
            role->deployment = SIZE_MAX;
            if (problem) {
                apmw_copy(role->reason, sizeof role->reason, problem);
                continue;
            }
            apmw_status status = apmw_point_settings(defaults, point, roles[r], &role->settings, &why);
            if (status == APMW_E_SCENARIO) {
                apmw_copy(role->reason, sizeof role->reason, why.message);
                continue;
            }
            if (status != APMW_OK)
                return apmw_error_set(err, status, "row %s: %s", point->id, why.message);
            apmw_point_spec(point, roles[r], &role->settings, &spec);
            role->deployment = find_deployment(p, &spec);
        }
    }
    return APMW_OK;
}

/* Platforms and models are opened here, in one thread; unknown names become reasons. */
static apmw_status open_specs(apmw_predictor *p, apmw_error *err)
{
    for (size_t i = 0; i < p->n_deployments; i++) {
        predictor_deployment *d = &p->deployments[i];
        const apmw_hwmodel *platform;
        const apmw_llm_spec *llm;
        apmw_error why = {.status = APMW_OK};
        apmw_status status = apmw_catalog_llm(p->catalog, d->spec.model, &llm, &why);
        if (status == APMW_OK) {
            d->layers = llm->layers;
            status = apmw_catalog_platform(p->catalog, d->spec.platform, &platform, &why);
        }
        if (status == APMW_OK)
            status = apmw_overhead_lookup(p->catalog, &d->spec, &d->overhead, &why);
        if (status == APMW_OK)
            continue;
        if (status != APMW_E_USAGE && status != APMW_E_SCENARIO && status != APMW_E_NOINPUT)
            return apmw_error_set(err, status, "%s", why.message);
        apmw_copy(d->reason, sizeof d->reason, why.message);
    }
    return APMW_OK;
}

static apmw_status compose_all(apmw_predictor *p, apmw_error *err)
{
    apmw_status worst = APMW_OK;
    apmw_error first = {.status = APMW_OK};
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < p->n_deployments; i++) {
        predictor_deployment *d = &p->deployments[i];
        apmw_compose_report report = {.n_borrowed = 0};
        apmw_error why = {.status = APMW_OK};
        if (d->reason[0])
            continue;
        apmw_status status = apmw_compose(p->catalog, &d->spec, NULL, &d->cost, &report, &why);
        d->n_borrowed = report.n_borrowed;
        apmw_compose_report_free(&report);
        if (status == APMW_OK)
            continue;
        d->cost = NULL;
        apmw_copy(d->reason, sizeof d->reason, why.message);
        if (status != APMW_E_SCENARIO && status != APMW_E_USAGE)
#pragma omp critical(apmw_predictor_errors)
        {
            worst = status;
            first = why;
        }
    }
    return worst == APMW_OK ? APMW_OK : apmw_error_set(err, worst, "%s", first.message);
}

static apmw_status size_pools(apmw_predictor *p, apmw_error *err)
{
    for (size_t i = 0; i < p->points->n; i++) {
        const apmw_point *point = &p->points->items[i];
        apmw_role roles[2];
        int n_roles = roles_of(point, roles);
        if (!p->ready[i])
            continue;
        for (int r = 0; r < n_roles; r++) {
            predictor_role *role = &p->roles[i][r];
            if (role->deployment == SIZE_MAX)
                continue;
            const predictor_deployment *d = &p->deployments[role->deployment];
            if (!d->cost) {
                apmw_copy(role->reason, sizeof role->reason, d->reason);
                continue;
            }
            /* Windows and compressed layers are priced at the length that a request has in the end. */
            double context = (1 + point->ratio) / 2 * (point->prompt_scale * (double)point->isl + (double)point->osl);
            apmw_error why = {.status = APMW_OK};
            apmw_status status = apmw_kv_pool_tokens(p->catalog, &d->spec, role->settings.kv_memory_fraction, context,
                                                     &role->kv_tokens, &role->weight_bytes, &why);
            if (status == APMW_E_SCENARIO)
                apmw_copy(role->reason, sizeof role->reason, why.message);
            else if (status != APMW_OK)
                return apmw_error_set(err, status, "row %s: %s", point->id, why.message);
            role->kv_tokens = fmin(role->kv_tokens, role->settings.max_total_tokens); /* NaN: no such limit */
        }
    }
    return APMW_OK;
}

/* Tokens a step: what the row states, else what was fitted for the engine and model, else the model's own curve. */
static const double reference_osl = 1024; /* of apmw_overhead.acceptance */

static double acceptance_of(const apmw_predictor *p, size_t i, bool no_fit)
{
    const apmw_point *point = &p->points->items[i];
    const predictor_role *role = &p->roles[i][point->disagg ? 1 : 0];
    const apmw_llm_spec *llm;
    int k = (int)role->settings.draft_tokens;
    if (!point->speculative)
        return 1;
    if (!isnan(point->acceptance_length))
        return point->acceptance_length;
    const apmw_overhead *fitted = &p->deployments[role->deployment].overhead;
    if (!no_fit && fitted->acceptance > 0)
        return fitted->acceptance * exp(fitted->acceptance_ln_osl * log((double)point->osl / reference_osl));
    if (k >= 1 && k < 8 && apmw_catalog_llm(p->catalog, point->model, &llm, NULL) == APMW_OK)
        return llm->acceptance[k];
    return (double)NAN;
}

apmw_status apmw_predictor_create(apmw_catalog *catalog, const apmw_points *points, const bool *only,
                                  apmw_predictor **out, apmw_error *err)
{
    apmw_engine_defaults *defaults = NULL;
    size_t n = points->n + 1;
    *out = NULL;
    apmw_predictor *p = calloc(1, sizeof *p);
    if (p) {
        p->catalog = catalog;
        p->points = points;
        p->roles = calloc(n, sizeof *p->roles);
        p->ready = calloc(n, sizeof *p->ready);
        p->deployments = calloc(2 * n, sizeof *p->deployments);
    }
    if (!p || !p->roles || !p->ready || !p->deployments) {
        apmw_predictor_free(p);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu points", points->n);
    }
    apmw_status status = apmw_engine_defaults_open(apmw_catalog_dir(catalog), &defaults, err);
    if (status == APMW_OK)
        status = prepare(p, defaults, only, err);
    apmw_engine_defaults_free(defaults);
    if (status == APMW_OK)
        status = open_specs(p, err);
    if (status == APMW_OK)
        status = compose_all(p, err);
    if (status == APMW_OK)
        status = size_pools(p, err);
    if (status != APMW_OK) {
        apmw_predictor_free(p);
        return status;
    }
    *out = p;
    return APMW_OK;
}

void apmw_predictor_free(apmw_predictor *p)
{
    if (!p)
        return;
    for (size_t i = 0; p->deployments && i < p->n_deployments; i++)
        apmw_step_cost_free(p->deployments[i].cost);
    free(p->deployments);
    free(p->roles);
    free(p->ready);
    free(p);
}

static const predictor_role *role_at(const apmw_predictor *p, size_t point, apmw_role role)
{
    const predictor_role *r = &p->roles[point][role == APMW_ROLE_DECODE ? 1 : 0];
    return p->ready[point] && r->deployment != SIZE_MAX ? r : NULL;
}

const apmw_serving_spec *apmw_predictor_spec(const apmw_predictor *p, size_t point, apmw_role role)
{
    const predictor_role *r = role_at(p, point, role);
    return r ? &p->deployments[r->deployment].spec : NULL;
}

const apmw_overhead *apmw_predictor_overhead(const apmw_predictor *p, size_t point, apmw_role role)
{
    const predictor_role *r = role_at(p, point, role);
    return r ? &p->deployments[r->deployment].overhead : NULL;
}

const apmw_engine_settings *apmw_predictor_settings(const apmw_predictor *p, size_t point, apmw_role role)
{
    const predictor_role *r = role_at(p, point, role);
    return r ? &r->settings : NULL;
}

/* ------------------------------------------------------------------ one point */

typedef struct laid_costs {
    apmw_step_cost *made[4];
    int n;
} laid_costs;

static const apmw_step_cost *lay(laid_costs *costs, apmw_step_cost *made)
{
    if (made)
        costs->made[costs->n++] = made;
    return made;
}

static void free_laid(laid_costs *costs)
{
    for (int i = costs->n - 1; i >= 0; i--)
        apmw_step_cost_free(costs->made[i]);
}

/* Engine of one role. On return reason is set when the role cannot run. */
static apmw_status make_engine(const apmw_predictor *p, const predictor_role *role, apmw_role kind,
                               const apmw_overhead *overhead, double acceptance, laid_costs *costs, predict_run *run,
                               apmw_error *err)
{
    int r = kind == APMW_ROLE_DECODE ? 1 : 0;
    const predictor_deployment *d = &p->deployments[role->deployment];
    apmw_engine_config *e = &run->engine[r];
    apmw_status status = apmw_settings_engine_config(&role->settings, &d->spec.layout, d->spec.engine, e, err);
    if (status != APMW_OK)
        return status;
    apmw_graphs graphs;
    status = apmw_settings_graphs(&role->settings, d->spec.engine, &graphs, err);
    if (status != APMW_OK)
        return status;
    const apmw_step_cost *composed = graphs.padding == APMW_PADDING_NONE
                                         ? d->cost
                                         : lay(costs, apmw_step_cost_padded(d->cost, false, &graphs));
    const apmw_step_cost *cost = composed ? lay(costs, apmw_overhead_cost(composed, overhead, d->layers)) : NULL;
    if (!cost)
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    e->cost = cost;
    e->kv_blocks = (int64_t)(role->kv_tokens / (double)e->block_tokens);
    e->acceptance_length = e->draft_tokens > 0 ? acceptance : 1;
    e->request_overhead_ns = apmw_time_from_s(overhead->request_s);
    e->frontend_ns_per_token = overhead->frontend_s_per_token * 1e9;
    if (kind == APMW_ROLE_DECODE)
        apmw_decode_worker(e);
    if (kind == APMW_ROLE_PREFILL) {
        e->draft_tokens = 0, e->acceptance_length = 1;
        /* What a prompt token costs beside its kernels is the handing over of its KV, many at a time: part of the link. */
        e->frontend_ns_per_token = 0;
    }
    run->accelerators[r] = d->cost->n_accelerators;
    return APMW_OK;
}

/* What scenarios take for the same pools. */
static apmw_status fill_link(const apmw_predictor *p, const apmw_point *point, const predictor_role roles[2],
                             const apmw_accelerator_spec *accelerator, const apmw_llm_spec *llm, double handover_s_per_token,
                             predict_run *run, apmw_error *err)
{
    const apmw_engine_config *prefill = &run->engine[0], *decode = &run->engine[1];
    apmw_link_ends ends = {.from = accelerator,
                           .to = accelerator,
                           .accelerators = run->workers[0] * run->accelerators[0] + run->workers[1] * run->accelerators[1],
                           .from_size = run->accelerators[0],
                           .from_ranks = prefill->n_ranks,
                           .to_size = run->accelerators[1],
                           .to_ranks = decode->n_ranks,
                           .gbyte_per_s = (double)NAN,
                           .latency_us = (double)NAN,
                           .handover_s_per_token = handover_s_per_token,
                           /* SGLang too, whose decode workers take blocks first: hwmodels/ACCURACY.md, Disaggregated. */
                           .decode_first = false};
    apmw_deployment decoder = {.spec = p->deployments[roles[1].deployment].spec};
    apmw_deployment_kv_bytes(&decoder, llm, point->prompt_scale * (double)point->isl, 1, &ends.bytes_per_token,
                             &ends.bytes_per_request);
    return apmw_link_make(&ends, &run->link, err);
}

static apmw_status fill_platform(const apmw_predictor *p, const apmw_point *point, const predictor_role roles[2], bool power,
                                 double handover_s_per_token, predict_run *run, apmw_error *err)
{
    const apmw_accelerator_spec *accelerator;
    const apmw_hwmodel *platform;
    const apmw_llm_spec *llm;
    apmw_status status = apmw_catalog_accelerator(p->catalog, point->platform, &accelerator, err);
    if (status == APMW_OK)
        status = apmw_catalog_platform(p->catalog, point->platform, &platform, err);
    if (status == APMW_OK)
        status = apmw_catalog_llm(p->catalog, point->model, &llm, err);
    if (status != APMW_OK)
        return status;
    run->peak_flop_per_s = accelerator->bf16_flop_per_s;
    run->hbm_bytes_per_s = accelerator->hbm_bytes_per_s;
    run->power = power && platform->power.tdp_w > 0 ? &platform->power : NULL;
    if (point->disagg)
        return fill_link(p, point, roles, accelerator, llm, handover_s_per_token, run, err);
    return APMW_OK;
}

apmw_status apmw_predict(const apmw_predictor *p, size_t i, const apmw_predict_options *options,
                         apmw_prediction *out, apmw_error *err)
{
    static const apmw_overhead none = {.prefill_scale = 1};
    const apmw_point *point = &p->points->items[i];
    double nan = (double)NAN;
    *out = (apmw_prediction){.ttft_ms = nan, .tpot_ms = nan, .ttft_ln_sd = nan, .tpot_ln_sd = nan, .power_w = nan,
                             .role_power_w = {nan, nan}};
    if (!p->ready[i]) {
        apmw_copy(out->reason, sizeof out->reason, "not selected");
        return APMW_OK;
    }
    apmw_role roles[2];
    int n_roles = roles_of(point, roles);
    for (int r = 0; r < n_roles; r++)
        if (p->roles[i][r].reason[0]) {
            apmw_copy(out->reason, sizeof out->reason, p->roles[i][r].reason);
            return APMW_OK;
        }
    double acceptance = isnan(options->acceptance_length) || !point->speculative
                            ? acceptance_of(p, i, options->no_fit)
                            : options->acceptance_length;
    if (isnan(acceptance)) {
        apmw_copy(out->reason, sizeof out->reason, "speculative decoding without a known acceptance length");
        return APMW_OK;
    }
    acceptance = fmax(1, fmin(acceptance, 1 + p->roles[i][n_roles - 1].settings.draft_tokens));
    laid_costs costs = {.n = 0};
    predict_run run = {.point = point, .workers = {point->workers[0], point->workers[1]}};
    apmw_status status = APMW_OK;
    double handover_s_per_token = 0;
    for (int r = 0; status == APMW_OK && r < n_roles; r++) {
        const predictor_role *role = &p->roles[i][r];
        const predictor_deployment *d = &p->deployments[role->deployment];
        const apmw_overhead *overhead = options->overhead[r] ? options->overhead[r]
                                        : options->no_fit    ? &none
                                                             : &d->overhead;
        handover_s_per_token = r == 0 ? overhead->frontend_s_per_token : handover_s_per_token;
        status = make_engine(p, role, roles[r], overhead, acceptance, &costs, &run, err);
        if (r == 0 && !options->no_fit)
            out->ttft_ln_sd = overhead->ln_sd_ttft;
        if (r == n_roles - 1 && !options->no_fit)
            out->tpot_ln_sd = overhead->ln_sd_time;
        out->n_borrowed += d->n_borrowed;
        out->kv_tokens = role->kv_tokens;
        apmw_copy(out->basis, sizeof out->basis, options->no_fit ? "no fit" : overhead->basis);
        if (status == APMW_OK && run.engine[r].kv_blocks < 1) {
            snprintf(out->reason, sizeof out->reason, "a KV pool of %.0f tokens", role->kv_tokens);
            free_laid(&costs);
            return APMW_OK;
        }
    }
    out->acceptance_length = acceptance;
    double prompts = p->roles[i][0].settings.num_prompts;
    run.n_requests = isnan(prompts) || prompts < 1 ? 10 * point->concurrency : llround(prompts);
    if (status == APMW_OK)
        status = fill_platform(p, point, p->roles[i], options->power, handover_s_per_token, &run, err);
    if (status == APMW_OK)
        status = apmw_predict_simulate(&run, out, err);
    free_laid(&costs);
    if (status != APMW_OK)
        return apmw_error_wrap(err, "row %s", point->id);
    return APMW_OK;
}
