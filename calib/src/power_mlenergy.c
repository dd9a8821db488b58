/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of the ML.ENERGY benchmark (serving at a steady batch, watts by NVML over all accelerators) become operating
 * points: the kernel time, FLOPs and bytes of one steady step over the step time that was measured, batch / output
 * rate. A steady step carries batch / output length prompts' worth of prompt tokens beside its decodes. */
#include "apmw/compose.h"
#include "apmw/csv.h"
#include "apmw/fit_power.h"
#include "apmw/overhead.h"
#include "power_rules.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHUNKS = 64 };

typedef struct columns {
    int model, task, precision, arch, total_b, active_b, gpu, num_gpus, dp, ep, batch, out_len, watts, rate;
} columns;

typedef struct cell_values {
    const char *model, *task, *precision, *arch;
    char platform[24];
    double total_b, active_b, batch, out_len, watts, rate;
    int64_t gpus, dp, ep;
} cell_values;

typedef struct reader {
    apmw_catalog *catalog;
    const apmw_json_cur *root;
    apmw_json_cur evidence, models, prompts, roofline;
    const char *engine;
    double bandwidth_share, flop_share, host_s_per_seq;
    double graph_tokens, padded_rows, padded_bandwidth_share;
    apmw_buf *notes;
    char noted[4096];
} reader;

static apmw_status find_columns(const apmw_csv *csv, columns *c, apmw_error *err)
{
    const struct {
        const char *name;
        int *col;
    } need[] = {{"model", &c->model}, {"task", &c->task}, {"weight_precision", &c->precision}, {"arch", &c->arch},
                {"total_B", &c->total_b}, {"active_B", &c->active_b}, {"gpu", &c->gpu}, {"num_gpus", &c->num_gpus},
                {"dp", &c->dp}, {"ep", &c->ep}, {"avg_batch", &c->batch}, {"avg_output_len", &c->out_len},
                {"avg_power_W_total", &c->watts}, {"out_tok_per_s", &c->rate}};
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++) {
        apmw_status status = apmw_csv_need(csv, need[i].name, need[i].col, err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static apmw_status read_cell(const apmw_csv *csv, size_t row, const columns *c, cell_values *out, apmw_error *err)
{
    const char *gpu = apmw_csv_cell(csv, row, c->gpu);
    memset(out, 0, sizeof *out);
    out->model = apmw_csv_cell(csv, row, c->model);
    out->task = apmw_csv_cell(csv, row, c->task);
    out->precision = apmw_csv_cell(csv, row, c->precision);
    out->arch = apmw_csv_cell(csv, row, c->arch);
    for (size_t i = 0; gpu[i] && i + 1 < sizeof out->platform; i++)
        out->platform[i] = (char)tolower((unsigned char)gpu[i]);
    const struct {
        int col;
        double *value;
    } reals[] = {{c->total_b, &out->total_b}, {c->active_b, &out->active_b}, {c->batch, &out->batch},
                 {c->out_len, &out->out_len}, {c->watts, &out->watts}, {c->rate, &out->rate}};
    apmw_status status = APMW_OK;
    for (size_t i = 0; status == APMW_OK && i < sizeof reals / sizeof reals[0]; i++)
        status = apmw_csv_double(csv, row, reals[i].col, reals[i].value, err);
    if (status == APMW_OK)
        status = apmw_csv_int(csv, row, c->num_gpus, 1, &out->gpus, err);
    if (status == APMW_OK)
        status = apmw_csv_int(csv, row, c->dp, 1, &out->dp, err);
    if (status == APMW_OK)
        status = apmw_csv_int(csv, row, c->ep, 1, &out->ep, err);
    if (status == APMW_OK && (out->gpus < 1 || out->dp < 1 || out->ep < 1))
        status = apmw_error_set(err, APMW_E_DATA, "row %zu: num_gpus, dp and ep must be at least 1", row + 2);
    return status;
}

/* Seconds of kernels, FLOPs and bytes of one accelerator in a steady step. */
typedef struct step {
    double kernel_s, time_s, flops, bytes;
} step;

/* Passes over expert inputs that are padded to whole blocks (rules: padded_experts), in bytes of one accelerator and step.
 * A row of hidden h and expert width i passes memory as: gate and up product, bf16, written and read, 8 i; their activation,
 * bf16, written and read, 4 i; the same quantised, 2 i; the quantised input h and the bf16 output 2 h. */
static double padded_bytes(const reader *r, const apmw_llm_spec *llm, const apmw_layout *layout)
{
    double row = 14.0 * llm->expert_dim / layout->moe_tp + 3.0 * llm->hidden;
    return llm->moe_layers * ((double)llm->experts / layout->moe_ep) * r->padded_rows * row;
}

/* Attention is taken as tensor-parallel over all accelerators of a replica: the benchmark does not say. */
static apmw_status compose_step(reader *r, const cell_values *cell, const char *llm, double prompt, step *out,
                                apmw_error *err)
{
    apmw_serving_spec spec = {.layout = {.tp = (int)(cell->gpus / cell->dp), .pp = 1, .attention_dp = 1,
                                         .moe_ep = (int)cell->ep}};
    if (spec.layout.tp < 1)
        spec.layout.tp = 1;
    spec.layout.moe_tp = spec.layout.tp / spec.layout.moe_ep > 0 ? spec.layout.tp / spec.layout.moe_ep : 1;
    apmw_copy(spec.platform, sizeof spec.platform, cell->platform);
    apmw_copy(spec.model, sizeof spec.model, llm);
    apmw_copy(spec.engine, sizeof spec.engine, r->engine);
    apmw_copy(spec.precision, sizeof spec.precision, strcmp(cell->precision, "bfloat16") == 0 ? "bf16" : "fp8");
    apmw_copy(spec.kv_dtype, sizeof spec.kv_dtype, "bf16");
    apmw_overhead overhead;
    apmw_step_cost *cost = NULL;
    const apmw_accelerator_spec *accelerator = NULL;
    const apmw_llm_spec *model = NULL;
    double batch = cell->batch / (double)cell->dp; /* dp here is replicas: independent engines */
    apmw_status status = apmw_catalog_accelerator(r->catalog, cell->platform, &accelerator, err);
    if (status == APMW_OK)
        status = apmw_catalog_llm(r->catalog, llm, &model, err);
    if (status == APMW_OK)
        status = apmw_overhead_lookup(r->catalog, &spec, &overhead, err);
    /* The floor of prompt steps is the host's, which launches kernel after kernel; a captured graph has none. */
    if (status == APMW_OK && batch + prompt * fmax(round(batch / cell->out_len), 1) <= r->graph_tokens)
        overhead.prefill_floor_layer_s = 0;
    if (status == APMW_OK)
        status = apmw_compose(r->catalog, &spec, &overhead, &cost, NULL, err);
    if (status != APMW_OK)
        return status;
    double context = prompt + cell->out_len / 2;
    /* Prompts a step. Where they are fewer than one, a step either takes a whole prompt or none: what a prompt costs at least is
     * not paid in every step. */
    double prompts = batch / cell->out_len, whole = fmax(round(prompts), 1), share = fmin(prompts / whole, 1);
    apmw_chunk chunks[MAX_CHUNKS];
    apmw_step_load load = {.n_seqs = llround(fmax(batch, 1))};
    load.total_seqs = load.n_seqs;
    for (int k = 0; k < cost->n_kinds; k++)
        load.kv[k] = batch * fmin(context, (double)cost->kv_cap[k]);
    load.rank_tokens = load.total_tokens = load.n_seqs;
    apmw_step_work decode, mixed;
    apmw_step_cost_eval(cost, &load, &decode);
    size_t n = (size_t)fmin(whole, MAX_CHUNKS);
    for (size_t i = 0; i < n; i++) {
        chunks[i] = (apmw_chunk){.new_tokens = llround(prompt * fmax(prompts / whole, 1) * whole / (double)n), .is_last = 1};
        load.rank_tokens += chunks[i].new_tokens;
    }
    load.chunks = chunks;
    load.n_chunks = n;
    load.total_tokens = load.rank_tokens;
    apmw_step_cost_eval(cost, &load, &mixed);
    apmw_step_cost_free(cost);
    double padded = strcmp(spec.precision, "fp8") == 0 ? padded_bytes(r, model, &spec.layout) : 0;
    double padded_s = padded > 0 ? padded / (r->padded_bandwidth_share * accelerator->hbm_bytes_per_s) : 0;
    *out = (step){.kernel_s = (1 - share) * decode.kernel_s + share * mixed.kernel_s + padded_s,
                  .time_s = (1 - share) * decode.time_s + share * mixed.time_s + padded_s + r->host_s_per_seq * batch,
                  .flops = (1 - share) * decode.flops + share * mixed.flops,
                  .bytes = (1 - share) * decode.bytes + share * mixed.bytes + padded};
    return APMW_OK;
}

/* Without rules for a model: its weights once a step, its active parameters twice a token, KV by the stated bytes. */
static apmw_status roofline_step(reader *r, const cell_values *cell, const apmw_json_cur *model, double prompt, step *out,
                                 apmw_error *err)
{
    const apmw_accelerator_spec *spec = NULL;
    double experts = 0, topk = 0, kv_bytes = 0, state_bytes = 0, layers = 0;
    apmw_status status = apmw_catalog_accelerator(r->catalog, cell->platform, &spec, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(model, "experts", 1, 1e5, &experts, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(model, "topk", 1, 1e4, &topk, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(model, "kv_bytes_per_token", 0, 1e9, &kv_bytes, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(model, "state_bytes_per_seq", 0, 1e12, &state_bytes, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(model, "layers", 0, 1e4, &layers, err);
    if (status != APMW_OK)
        return status;
    double element = strcmp(cell->precision, "bfloat16") == 0 ? 2 : 1;
    double per_gpu = (double)cell->gpus / (double)cell->dp;
    double batch = cell->batch / (double)cell->dp;
    double tokens = batch * (1 + prompt / cell->out_len);
    double read_b = cell->total_b;
    if (experts > topk && topk > 0) {
        double per_expert = (cell->total_b - cell->active_b) / (experts - topk);
        double always = cell->active_b - topk * per_expert;
        read_b = always + per_expert * experts * (1 - pow(1 - topk / experts, tokens));
    }
    out->bytes = (read_b * 1e9 * element + batch * ((prompt + cell->out_len / 2) * kv_bytes + 2 * state_bytes)) /
                 per_gpu; /* a recurrent state is read and written */
    out->flops = 2 * cell->active_b * 1e9 * tokens / per_gpu;
    out->kernel_s = fmax(out->bytes / (r->bandwidth_share * spec->hbm_bytes_per_s),
                         out->flops / (r->flop_share * spec->bf16_flop_per_s));
    apmw_overhead prior; /* no serving point knows the model: the engine's prior */
    apmw_overhead_prior(r->engine, "", &prior);
    out->time_s = layers > 0 ? out->kernel_s + prior.layer_s * layers + (prior.seq_s + r->host_s_per_seq) * batch : (double)NAN;
    return APMW_OK;
}

static void note(reader *r, const char *model, const char *why)
{
    if (!r->notes || strstr(r->noted, model))
        return;
    size_t used = strlen(r->noted);
    snprintf(r->noted + used, sizeof r->noted - used, "%s\n", model);
    apmw_buf_printf(r->notes, "%s: priced by a roofline: %s\n", model, why);
}

static apmw_status price(reader *r, const cell_values *cell, step *out, bool *composed, apmw_error *err)
{
    double prompt = NAN;
    apmw_json_cur model;
    const char *llm = NULL;
    apmw_status status =
        apmw_json_get_double(&r->prompts, apmw_json_has(&r->prompts, cell->task) ? cell->task : "*", 1, 1e7,
                             &prompt, err);
    if (status == APMW_OK)
        status = apmw_json_child(&r->models, cell->model, &model, err);
    if (status == APMW_OK)
        status = apmw_json_opt_string(&model, "llm", &llm, err);
    if (status != APMW_OK)
        return status;
    *composed = false;
    if (llm) {
        apmw_error why = {.status = APMW_OK};
        status = compose_step(r, cell, llm, prompt, out, &why);
        if (status == APMW_OK) {
            *composed = true;
            return APMW_OK;
        }
        if (status != APMW_E_SCENARIO) {
            if (err)
                *err = why;
            return status;
        }
        note(r, cell->model, why.message);
    } else {
        note(r, cell->model, "no architecture on file");
    }
    return roofline_step(r, cell, &model, prompt, out, err);
}

static apmw_power_use use_over(const step *s, double time_s, const apmw_accelerator_spec *spec)
{
    double duty = s->kernel_s / time_s; /* NaN where no step was predicted */
    return (apmw_power_use){.duty = duty > 1 ? 1 : duty,
                            .bw_util = s->bytes / time_s / spec->hbm_bytes_per_s,
                            .flop_util = s->flops / time_s / spec->bf16_flop_per_s};
}

static apmw_status make_row(reader *r, const cell_values *cell, apmw_power_row *out, apmw_error *err)
{
    const apmw_accelerator_spec *spec = NULL;
    step s = {0};
    apmw_status status = apmw_catalog_accelerator(r->catalog, cell->platform, &spec, err);
    if (status == APMW_OK)
        status = price(r, cell, &s, &out->composed, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->platform, sizeof out->platform, cell->platform);
    snprintf(out->group, sizeof out->group, "%s|%s", cell->model, cell->platform);
    snprintf(out->config, sizeof out->config, "%s|%s|%s|%s|%d", cell->model, cell->task, cell->precision,
             cell->platform, (int)cell->gpus);
    out->judge = apmw_power_is_judge(out->group);
    out->batch = cell->batch;
    out->kernel_s = s.kernel_s;
    out->measured_step_s = cell->batch / cell->rate;
    out->simulated_step_s = s.time_s;
    out->measured = use_over(&s, out->measured_step_s, spec);
    out->simulated = use_over(&s, s.time_s, spec);
    out->watts = cell->watts / (double)cell->gpus;
    return APMW_OK;
}

static apmw_status open_rules(reader *r, apmw_error *err)
{
    apmw_json_cur padded;
    apmw_status status = apmw_json_child(r->root, "evidence", &r->evidence, err);
    if (status == APMW_OK)
        status = apmw_json_child(r->root, "models", &r->models, err);
    if (status == APMW_OK)
        status = apmw_json_get_string(&r->evidence, "engine", &r->engine, err);
    if (status == APMW_OK)
        status = apmw_json_child(&r->evidence, "prompt_tokens", &r->prompts, err);
    if (status == APMW_OK)
        status = apmw_json_child(&r->evidence, "roofline", &r->roofline, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&r->roofline, "bandwidth_share", 0.01, 1, &r->bandwidth_share, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&r->roofline, "flop_share", 0.01, 1, &r->flop_share, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(&r->evidence, "host_s_per_seq", 0, 1, &r->host_s_per_seq, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(&r->evidence, "graph_tokens", 0, 1e6, &r->graph_tokens, err);
    if (status == APMW_OK && apmw_json_has(&r->evidence, "padded_experts")) {
        status = apmw_json_child(&r->evidence, "padded_experts", &padded, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&padded, "rows", 0, 1e4, &r->padded_rows, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&padded, "bandwidth_share", 0.01, 1, &r->padded_bandwidth_share, err);
    }
    return status;
}

apmw_status apmw_power_rows_mlenergy(apmw_catalog *catalog, const char *path, apmw_power_row **rows, size_t *n,
                                     apmw_buf *notes, apmw_error *err)
{
    apmw_json *doc = NULL;
    apmw_csv *csv = NULL;
    columns cols = {0};
    char file[4096] = "";
    *rows = NULL;
    *n = 0;
    apmw_status status = apmw_power_rules_load(catalog, &doc, err);
    if (status != APMW_OK)
        return status;
    apmw_json_cur root = apmw_json_root(doc);
    reader r = {.catalog = catalog, .root = &root, .notes = notes};
    status = open_rules(&r, err);
    if (status == APMW_OK && !path) {
        const char *name = NULL;
        status = apmw_json_get_string(&r.evidence, "file", &name, err);
        if (status == APMW_OK)
            snprintf(file, sizeof file, "%s/%s", apmw_catalog_dir(catalog), name);
        path = file;
    }
    if (status == APMW_OK)
        status = apmw_csv_load(path, &csv, err);
    if (status == APMW_OK)
        status = find_columns(csv, &cols, err);
    if (status == APMW_OK) {
        *rows = calloc(apmw_csv_rows(csv) + 1, sizeof **rows);
        if (!*rows)
            status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    }
    for (size_t i = 0; status == APMW_OK && i < apmw_csv_rows(csv); i++) {
        cell_values c;
        status = read_cell(csv, i, &cols, &c, err);
        if (status == APMW_OK)
            status = make_row(&r, &c, &(*rows)[*n], err);
        if (status == APMW_OK)
            (*n)++;
        else
            status = apmw_error_wrap(err, "%s:%zu", path, i + 2);
    }
    if (status != APMW_OK) {
        free(*rows);
        *rows = NULL;
        *n = 0;
    }
    apmw_csv_free(csv);
    apmw_json_free(doc);
    return status;
}
