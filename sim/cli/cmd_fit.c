/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw fit: evidence in, numbers out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/fit_kernels.h"
#include "apmw/fit_power.h"
#include "apmw/hwmodel.h"
#include "apmw/serving_fit.h"
#include "cli.h"
#include "cli_power.h"

typedef struct options {
    const char *what, *platform, *evidence, *folder;
    bool rows, cross;
} options;

enum { OPT_PLATFORM = 256, OPT_EVIDENCE, OPT_FOLDER, OPT_ROWS, OPT_CROSS };

static const struct argp_option option_list[] = {
    {"platform", OPT_PLATFORM, "NAME", 0, "Only this accelerator (default: all that have evidence)", 0},
    {"evidence", OPT_EVIDENCE, "DIR", 0, "Measured tables (default: hwmodels/evidence)", 0},
    {"into", OPT_FOLDER, "DIR", 0, "Where the .h5 files go (default: hwmodels)", 0},
    {"rows", OPT_ROWS, 0, 0, "serving: also a line for each row, with its errors in sample, with its layout and with its cell left out", 0},
    {"cross-validate", OPT_CROSS, 0, 0,
     "serving: fit five times without a fifth of the layouts, predict those, print errors and how often they lie inside their "
     "intervals; writes nothing", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case OPT_PLATFORM:
        o->platform = arg;
        return 0;
    case OPT_EVIDENCE:
        o->evidence = arg;
        return 0;
    case OPT_FOLDER:
        o->folder = arg;
        return 0;
    case OPT_ROWS:
        o->rows = true;
        return 0;
    case OPT_CROSS:
        o->cross = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one kind of fit at a time, \"%s\" is too much", arg);
        o->what = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_list,
    .parser = parse,
    .args_doc = "platforms | serving",
    .doc = "Fits platform models from the measured evidence in the repository and writes one HDF5 file a platform: operation "
           "tables by engine, a fitted form with covariance and held-out error for each family of operations, and power "
           "parameters. The same evidence gives the same bytes. `apmw fit serving` fits engine overheads "
           "(hwmodels/engines.h5) on the fit half of the measured serving points; with --cross-validate it writes nothing and "
           "says what layouts left out of that half are off by.\v"
           "Example: apmw fit platforms --platform b200 --into /tmp",
};

static apmw_status fit_platform(apmw_cli *cli, apmw_catalog *catalog, const apmw_accelerator_spec *a, const options *o,
                                const apmw_power_row *rows, size_t n_rows, apmw_table *table, apmw_error *err)
{
    char evidence[1024], path[1024];
    snprintf(evidence, sizeof evidence, "%s%s", o->evidence != NULL ? o->evidence : cli->data_dir,
             o->evidence != NULL ? "" : "/hwmodels/evidence");
    snprintf(path, sizeof path, "%s%s/%s.h5", o->folder != NULL ? o->folder : cli->data_dir,
             o->folder != NULL ? "" : "/hwmodels", a->id);
    apmw_hwmodel *model = NULL;
    apmw_power_fit fit = {0};
    apmw_status status = apmw_hwmodel_from_evidence(evidence, a->id, &model, err);
    /* A part known from its specifications alone gets a file for its power, which scales by TDP. */
    const bool power_only = a->projected && a->tdp_w > 0.0;
    if (status == APMW_OK && model->n_tables == 0 && !power_only) {
        apmw_hwmodel_free(model);
        return APMW_OK;
    }
    if (status == APMW_OK)
        status = apmw_fit_kernels(model, a, err);
    if (status == APMW_OK)
        status = apmw_hwmodel_add_watts(model, evidence, err);
    if (status == APMW_OK)
        status = apmw_power_params_for(catalog, a->id, rows, n_rows, &model->power, &fit, err);
    if (status == APMW_OK) {
        snprintf(model->provenance, sizeof model->provenance, "apmw %s, apmw fit platforms, %s%s", apmw_cli_version(),
                 model->n_tables > 0 ? "evidence hwmodels/evidence/" : "from specifications only, nothing measured on ",
                 a->id);
        status = apmw_hwmodel_save(model, path, err);
    }
    if (status == APMW_OK) {
        size_t forms = 0, n_errors = 0;
        double *errors = malloc((model->n_fits + 1) * sizeof *errors);
        for (size_t i = 0; errors != NULL && i < model->n_fits; i++) {
            const apmw_op_fit *f = &model->fits[i];
            bool form = strcmp(f->chosen, "form") == 0;
            forms += form;
            if (isfinite(form ? f->cv_form : f->cv_table))
                errors[n_errors++] = form ? f->cv_form : f->cv_table;
        }
        apmw_table_text(table, a->id);
        apmw_table_int(table, (long long)model->n_tables);
        apmw_table_int(table, (long long)model->n_fits);
        apmw_table_int(table, (long long)forms);
        apmw_table_number(table, errors != NULL ? 100.0 * apmw_quantile(errors, n_errors, 0.5) : (double)NAN, 3);
        apmw_table_number(table, model->power.a_duty, 3);
        apmw_table_number(table, model->power.b, 3);
        apmw_table_text(table, model->power.basis);
        free(errors);
    }
    apmw_hwmodel_free(model);
    return status;
}

static int fit_platforms(apmw_cli *cli, const options *o)
{
    static const char *const columns[] = {"platform",      "tables", "families", "forms_chosen", "heldout_median_percent",
                                          "power_a", "power_b", "power_basis"};
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_power_row *rows = NULL;
    size_t n_rows = 0;
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    apmw_status status = table != NULL ? apmw_catalog_open(cli->data_dir, &catalog, &err)
                                       : apmw_error_set(&err, APMW_E_NOMEM, "out of memory");
    char *evidence = apmw_cli_data_path(cli, "hwmodels/evidence");
    if (status == APMW_OK && evidence == NULL)
        status = apmw_error_set(&err, APMW_E_NOMEM, "out of memory");
    if (status == APMW_OK)
        apmw_catalog_use_evidence(catalog, o->evidence != NULL ? o->evidence : evidence);
    free(evidence);
    const apmw_accelerator_spec *only = NULL;
    if (status == APMW_OK && o->platform != NULL)
        status = apmw_catalog_accelerator(catalog, o->platform, &only, &err);
    if (status == APMW_OK)
        status = apmw_cli_power_rows(cli, catalog, NULL, NULL, &rows, &n_rows, &err);
    for (size_t i = 0; status == APMW_OK && i < apmw_catalog_count_accelerators(catalog); i++) {
        const apmw_accelerator_spec *a = apmw_catalog_accelerator_at(catalog, i);
        apmw_cli_progress(cli, "fitting", i, apmw_catalog_count_accelerators(catalog));
        if (only == NULL || only == a)
            status = fit_platform(cli, catalog, a, o, rows, n_rows, table, &err);
    }
    apmw_cli_progress_end(cli);
    free(rows);
    apmw_catalog_free(catalog);
    if (status != APMW_OK) {
        apmw_table_free(table);
        return apmw_cli_fail(cli, &err);
    }
    return apmw_cli_emit_table(cli, table);
}

static bool progress(void *self, size_t done, size_t total)
{
    apmw_cli_progress(self, "fitting", done, total);
    return apmw_cli_interrupted();
}

static int fit_serving(apmw_cli *cli, const options *o)
{
    char points[1024], engines[1024], provenance[256];
    snprintf(points, sizeof points, "%s/serving/points.csv.zst", o->evidence != NULL ? o->evidence : "");
    if (o->evidence == NULL)
        snprintf(points, sizeof points, "%s/hwmodels/evidence/serving/points.csv.zst", cli->data_dir);
    snprintf(engines, sizeof engines, "%s%s/engines.h5", o->folder != NULL ? o->folder : cli->data_dir,
             o->folder != NULL ? "" : "/hwmodels");
    snprintf(provenance, sizeof provenance, "apmw %s, apmw fit serving, fit half of hwmodels/evidence/serving/points.csv.zst",
             apmw_cli_version());
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_buf report = {0};
    apmw_serving_fit_options settings;
    apmw_serving_fit_defaults(&settings);
    settings.report_rows = o->rows;
    settings.progress = progress;
    settings.self = cli;
    apmw_cli_catch_interrupt();
    apmw_status status = apmw_catalog_open(cli->data_dir, &catalog, &err);
    if (status == APMW_OK)
        status = o->cross ? apmw_experiment_cross_validate(catalog, points, &settings, &report, &err)
                          : apmw_experiment_fit_serving(catalog, points, engines, provenance, &settings, &report, &err);
    apmw_cli_progress_end(cli);
    int code = status == APMW_OK ? apmw_cli_emit(cli, &report) : apmw_cli_fail(cli, &err);
    apmw_buf_free(&report);
    apmw_catalog_free(catalog);
    return code;
}

static int run(apmw_cli *cli, int argc, char **argv)
{
    static const char *const kinds[] = {"platforms", "serving"};
    options o = {0};
    int code = apmw_cli_parse(cli, &parser, argc, argv, &o);
    if (code != APMW_OK)
        return code;
    if (o.what == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "say what to fit: platforms or serving");
    if (strcmp(o.what, "platforms") == 0 && (o.rows || o.cross))
        return apmw_cli_failf(cli, APMW_E_USAGE, "--rows and --cross-validate are those of fit serving");
    if (strcmp(o.what, "platforms") == 0)
        return fit_platforms(cli, &o);
    if (strcmp(o.what, "serving") == 0 && o.platform != NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "fit serving takes all platforms at once: --platform does not apply");
    if (strcmp(o.what, "serving") == 0)
        return fit_serving(cli, &o);
    return apmw_cli_unknown(cli, "fit", o.what, kinds, sizeof kinds / sizeof kinds[0]);
}

const apmw_command apmw_command_fit = {"fit", "Fit platform models and engine overheads from measured evidence", run};
