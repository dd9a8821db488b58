/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw model: what a platform model stands on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apmw/compose.h"
#include "apmw/hwmodel.h"
#include "apmw/overhead.h"
#include "cli_scenario.h"

typedef struct options {
    const char *what, *platform, *model, *engine, *precision, *kv_dtype;
    int tp, attention_dp, ep, draft;
    bool forms;
} options;

enum { OPT_MODEL = 256, OPT_ENGINE, OPT_PRECISION, OPT_KV, OPT_TP, OPT_DP, OPT_EP, OPT_DRAFT, OPT_FORMS };

static const struct argp_option option_list[] = {
    {"model", OPT_MODEL, "NAME", 0, "rows: the LLM", 0},
    {"engine", OPT_ENGINE, "NAME", 0, "rows: sglang, trtllm, vllm or atom (default sglang)", 0},
    {"precision", OPT_PRECISION, "P", 0, "rows: fp4, fp8, bf16 or int4 (default fp8)", 0},
    {"kv-dtype", OPT_KV, "T", 0, "rows: fp8 or bf16 (default: the engine's)", 0},
    {"tp", OPT_TP, "N", 0, "rows: tensor parallelism (default 8)", 0},
    {"attention-dp", OPT_DP, "N", 0, "rows: attention data parallelism (default 1)", 0},
    {"ep", OPT_EP, "N", 0, "rows: expert parallelism (default 1)", 0},
    {"draft-tokens", OPT_DRAFT, "K", 0, "rows: drafted tokens a step (default 0)", 0},
    {"forms", OPT_FORMS, NULL, 0, "rows: by forms on specifications alone, as where nothing was measured", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case OPT_MODEL:
        o->model = arg;
        return 0;
    case OPT_ENGINE:
        o->engine = arg;
        return 0;
    case OPT_PRECISION:
        o->precision = arg;
        return 0;
    case OPT_KV:
        o->kv_dtype = arg;
        return 0;
    case OPT_FORMS:
        o->forms = true;
        return 0;
    case OPT_TP:
    case OPT_DP:
    case OPT_EP:
    case OPT_DRAFT: {
        char *end = NULL;
        long value = strtol(arg, &end, 10);
        if (*end != 0 || value < (key == OPT_DRAFT ? 0 : 1) || value > 1024)
            argp_error(state, "\"%s\" is no count", arg);
        *(key == OPT_TP ? &o->tp : key == OPT_DP ? &o->attention_dp : key == OPT_EP ? &o->ep : &o->draft) = (int)value;
        return 0;
    }
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->what = arg;
        else if (state->arg_num == 1)
            o->platform = arg;
        else
            argp_error(state, "\"%s\" is too much", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_list,
    .parser = parse,
    .args_doc = "list | show PLATFORM | watts PLATFORM | check [PLATFORM] | rows PLATFORM --model M",
    .doc = "Explains platform models. PLATFORM is an accelerator, or a node of them (hgx-h200: h200). list: all of them "
           "and their evidence. show: every family of operations with the "
           "error of its table and of its fitted form on bands left out (chosen = the lower; steps are priced by the tables all the same). watts: board power of kernels run back to back, an "
           "upper reference and not serving power. check: that each file reads and that its tables "
           "still are those of the evidence (exit 1 when not). rows: which measured row prices which operation of a "
           "deployment, and what is borrowed from where.\v"
           "Example: apmw model rows b200 --model deepseek-v3-r1 --engine trtllm --precision fp4 --tp 8",
};

static int list(apmw_cli *cli, apmw_catalog *catalog)
{
    static const char *const columns[] = {"platform", "accelerator", "tables", "families", "power_basis", "model"};
    apmw_table *table = apmw_table_create(6, columns);
    apmw_error err = {0};
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; i < apmw_catalog_count_accelerators(catalog); i++) {
        const apmw_accelerator_spec *a = apmw_catalog_accelerator_at(catalog, i);
        const apmw_hwmodel *m = NULL;
        if (apmw_catalog_platform(catalog, a->id, &m, &err) != APMW_OK) {
            apmw_table_free(table);
            return apmw_cli_fail(cli, &err);
        }
        apmw_table_text(table, a->id);
        apmw_table_text(table, a->name);
        apmw_table_int(table, (long long)m->n_tables);
        apmw_table_int(table, (long long)m->n_fits);
        apmw_table_text(table, m->power.basis[0] != 0 ? m->power.basis : NULL);
        apmw_table_text(table, a->projected ? "from specifications only, nothing measured"
                                            : m->n_tables == 0 ? "no measured table" : m->provenance);
    }
    return apmw_cli_emit_table(cli, table);
}

/* Operations of a part that no table prices: lines of the form "<operation> <times> <ms> <ms>  form: ..." of a deployment of
 * DeepSeek-R1, the model whose every kind of operation is the plainest. Parts with tables for all of them have none. */
static apmw_status form_rows(apmw_catalog *catalog, const char *platform, apmw_table *table, apmw_error *err)
{
    apmw_serving_spec spec = {.model = "deepseek-v3-r1", .precision = "fp8", .layout = {8, 1, 1, 8, 1}};
    apmw_step_cost *cost = NULL;
    apmw_compose_report report = {0};
    apmw_copy(spec.platform, sizeof spec.platform, platform);
    apmw_status status = apmw_compose(catalog, &spec, NULL, &cost, &report, err);
    if (status != APMW_OK)
        return status == APMW_E_SCENARIO ? APMW_OK : status; /* no such deployment: nothing to say of it */
    apmw_step_cost_free(cost);
    for (const char *line = report.rows.data; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n'), *form = strstr(line, "form: ");
        char operation[32] = "", text[200] = "";
        if (form != NULL && (end == NULL || form < end) && sscanf(line, "%31s", operation) == 1) {
            snprintf(text, sizeof text, "%.*s", end == NULL ? 199 : (int)(end - form - 6), form + 6);
            apmw_table_text(table, operation);
            apmw_table_text(table, "any");
            apmw_table_text(table, NULL);
            apmw_table_text(table, text);
            apmw_table_int(table, 0);
            for (int i = 0; i < 6; i++)
                apmw_table_text(table, NULL);
            apmw_table_text(table, "form, wide");
            apmw_table_text(table, "not measured");
        }
        line = end == NULL ? NULL : end + 1;
    }
    apmw_compose_report_free(&report);
    return APMW_OK;
}

static int show(apmw_cli *cli, apmw_catalog *catalog, const options *o)
{
    static const char *const columns[] = {"operation", "engine",   "version",       "family",         "points", "t0_us", "eff_flop",
                                          "eff_byte",  "sd_ln_eff_byte", "heldout_table", "heldout_form", "chosen", "source"};
    apmw_error err = {0};
    const apmw_hwmodel *m = NULL;
    if (apmw_catalog_platform(catalog, o->platform, &m, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->n_fits; i++) {
        const apmw_op_fit *f = &m->fits[i];
        const apmw_op_table *t = m->tables[m->fit_table[i]];
        apmw_table_text(table, t->op);
        apmw_table_text(table, t->engine);
        apmw_table_text(table, t->version);
        apmw_table_text(table, f->family);
        apmw_table_int(table, f->n_points);
        apmw_table_number(table, f->t0_s * 1e6, 3);
        apmw_table_number(table, f->eff_flop, 3);
        apmw_table_number(table, f->eff_byte, 3);
        apmw_table_number(table, isfinite(f->t0_s) ? sqrt(f->covariance[2][2]) : (double)NAN, 2);
        apmw_table_number(table, f->cv_table, 3);
        apmw_table_number(table, f->cv_form, 3);
        apmw_table_text(table, f->chosen);
        apmw_table_text(table, t->source);
    }
    const apmw_accelerator_spec *a = NULL;
    apmw_status status = apmw_catalog_accelerator(catalog, o->platform, &a, &err);
    if (status == APMW_OK && (a->projected || (strcmp(a->vendor, "amd") == 0 && m->n_tables > 0)))
        status = form_rows(catalog, o->platform, table, &err);
    if (status != APMW_OK) {
        apmw_table_free(table);
        return apmw_cli_fail(cli, &err);
    }
    apmw_cli_log(cli, APMW_LOG_INFO, "%s: %s", m->platform, m->provenance);
    return apmw_cli_emit_table(cli, table);
}

static int watts(apmw_cli *cli, apmw_catalog *catalog, const options *o)
{
    static const char *const columns[] = {"operation", "engine", "version", "family", "rows", "p10_w", "median_w", "p90_w"};
    apmw_error err = {0};
    const apmw_hwmodel *m = NULL;
    if (apmw_catalog_platform(catalog, o->platform, &m, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; i < m->n_watts; i++) {
        const apmw_op_watts *w = &m->watts[i];
        apmw_table_text(table, w->op);
        apmw_table_text(table, w->engine);
        apmw_table_text(table, w->version);
        apmw_table_text(table, w->family);
        apmw_table_int(table, w->n);
        apmw_table_number(table, w->p10_w, 3);
        apmw_table_number(table, w->median_w, 3);
        apmw_table_number(table, w->p90_w, 3);
    }
    if (m->n_watts == 0)
        apmw_cli_log(cli, APMW_LOG_WARN, "%s: no kernel power was measured on this platform", m->platform);
    return apmw_cli_emit_table(cli, table);
}

/* A table is in order when the evidence file it names still has the hash it was made from. */
static int check(apmw_cli *cli, apmw_catalog *catalog, const options *o)
{
    static const char *const columns[] = {"platform", "file", "state"};
    apmw_error err = {0};
    apmw_table *table = apmw_table_create(3, columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    char engines[1024];
    apmw_overhead_table overheads = {0};
    snprintf(engines, sizeof engines, "%s/hwmodels/engines.h5", cli->data_dir);
    bool good = apmw_overhead_table_load(engines, &overheads, &err) == APMW_OK;
    apmw_table_text(table, "engines");
    apmw_table_text(table, "hwmodels");
    apmw_table_text(table, good ? "reads" : err.message);
    apmw_overhead_table_free(&overheads);
    for (size_t i = 0; i < apmw_catalog_count_accelerators(catalog); i++) {
        const apmw_accelerator_spec *a = apmw_catalog_accelerator_at(catalog, i);
        char path[1024], hash[17];
        if (o->platform != NULL && strcmp(o->platform, a->id) != 0)
            continue;
        snprintf(path, sizeof path, "%s/hwmodels/%s.h5", cli->data_dir, a->id);
        if (access(path, F_OK) != 0)
            continue;
        apmw_hwmodel *m = NULL;
        apmw_status status = apmw_hwmodel_load(path, &m, &err);
        apmw_table_text(table, a->id);
        apmw_table_text(table, "hwmodels");
        apmw_table_text(table, status == APMW_OK ? "reads" : err.message);
        good = good && status == APMW_OK;
        for (size_t t = 0; status == APMW_OK && t < m->n_tables; t++) {
            snprintf(path, sizeof path, "%s/hwmodels/evidence/%s", cli->data_dir, m->tables[t]->source);
            const char *state = "as measured";
            if (apmw_file_hash(path, hash, &err) != APMW_OK)
                state = "evidence missing";
            else if (strcmp(hash, m->tables[t]->source_hash) != 0)
                state = "evidence has changed: run apmw fit platforms";
            if (strcmp(state, "as measured") == 0)
                continue;
            good = false;
            apmw_table_text(table, a->id);
            apmw_table_text(table, m->tables[t]->source);
            apmw_table_text(table, state);
        }
        apmw_hwmodel_free(m);
    }
    int code = apmw_cli_emit_table(cli, table);
    return code != APMW_OK ? code : good ? APMW_OK : APMW_NO;
}

static int rows(apmw_cli *cli, apmw_catalog *catalog, const options *o)
{
    apmw_error err = {0};
    apmw_serving_spec spec = {
        .layout = {o->tp, 1, o->attention_dp, 1, o->ep}, .draft_tokens = o->draft, .forms = o->forms};
    static const char *const engines[] = {"sglang", "trtllm", "vllm", "atom"};
    bool known = false;
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++)
        known = known || strcmp(o->engine, engines[i]) == 0;
    if (!known)
        return apmw_cli_unknown(cli, "engine", o->engine, engines, sizeof engines / sizeof engines[0]);
    if (o->model == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "rows needs --model");
    int gpus = o->tp * o->attention_dp;
    if (gpus % o->ep != 0)
        return apmw_cli_failf(cli, APMW_E_SCENARIO, "expert parallelism %d does not divide %d accelerators", o->ep, gpus);
    spec.layout.moe_tp = gpus / o->ep;
    apmw_copy(spec.platform, sizeof spec.platform, o->platform);
    apmw_copy(spec.model, sizeof spec.model, o->model);
    apmw_copy(spec.engine, sizeof spec.engine, o->engine);
    apmw_copy(spec.precision, sizeof spec.precision, o->precision);
    apmw_copy(spec.kv_dtype, sizeof spec.kv_dtype, o->kv_dtype != NULL ? o->kv_dtype : "");
    apmw_step_cost *cost = NULL;
    apmw_compose_report report = {0};
    apmw_status status = apmw_compose(catalog, &spec, NULL, &cost, &report, &err);
    if (status == APMW_OK)
        apmw_cli_notes(cli, &report.notes);
    int code = status == APMW_OK ? apmw_cli_emit(cli, &report.rows) : apmw_cli_fail(cli, &err);
    apmw_compose_report_free(&report);
    apmw_step_cost_free(cost);
    return code;
}

static int run(apmw_cli *cli, int argc, char **argv)
{
    static const char *const kinds[] = {"list", "show", "watts", "check", "rows"};
    options o = {.engine = "sglang", .precision = "fp8", .tp = 8, .attention_dp = 1, .ep = 1};
    int code = apmw_cli_parse(cli, &parser, argc, argv, &o);
    if (code != APMW_OK)
        return code;
    if (o.what == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "say what to do: list, show, watts, check or rows");
    bool needs_platform = strcmp(o.what, "show") == 0 || strcmp(o.what, "rows") == 0 || strcmp(o.what, "watts") == 0;
    if (needs_platform && o.platform == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s needs a platform", o.what);
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    if (apmw_catalog_open(cli->data_dir, &catalog, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    const apmw_accelerator_spec *a = NULL;
    if (o.platform != NULL && apmw_cli_accelerator(cli, catalog, o.platform, &a, &err) != APMW_OK) {
        apmw_catalog_free(catalog);
        return apmw_cli_fail(cli, &err);
    }
    o.platform = a != NULL ? a->id : NULL;
    if (strcmp(o.what, "list") == 0)
        code = list(cli, catalog);
    else if (strcmp(o.what, "show") == 0)
        code = show(cli, catalog, &o);
    else if (strcmp(o.what, "watts") == 0)
        code = watts(cli, catalog, &o);
    else if (strcmp(o.what, "check") == 0)
        code = check(cli, catalog, &o);
    else if (strcmp(o.what, "rows") == 0)
        code = rows(cli, catalog, &o);
    else
        code = apmw_cli_unknown(cli, "action", o.what, kinds, sizeof kinds / sizeof kinds[0]);
    apmw_catalog_free(catalog);
    return code;
}

const apmw_command apmw_command_model = {"model", "What a platform model stands on: evidence, held-out error, borrowed rows",
                                         run};
