/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw validate: predict what was measured, and compare. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/csv.h"
#include "apmw/fit_power.h"
#include "apmw/points.h"
#include "apmw/validate.h"
#include "cli.h"
#include "cli_agentic.h"
#include "cli_power.h"
#include "cli_runs.h"
#include "cli_steps.h"

typedef struct options {
    const char *path, *half;
    const char *agentic, *run; /* folder of measured runs of agents, and the only one wanted */
    char *only[8]; /* "column=value", owned copies */
    size_t n_only;
    bool no_fit, rows;
} options;

enum { OPT_NO_FIT = 256, OPT_HALF, OPT_ONLY, OPT_ROWS, OPT_AGENTIC, OPT_RUN };

static const struct argp_option option_list[] = {
    {"no-fit", OPT_NO_FIT, NULL, 0, "Sums of measured kernels and scheduler rules only: no fitted number", 0},
    {"half", OPT_HALF, "H", 0, "fit, judge or all (default all: both halves, printed apart)", 0},
    {"only", OPT_ONLY, "K=V,..", 0, "Only rows with platform, model, engine or mode of this value, or of one of several with + between them", 0},
    {"rows", OPT_ROWS, NULL, 0, "A line for each row instead of groups", 0},
    {"agentic", OPT_AGENTIC, "DIR", 0, "Instead of points: measured runs of agents, a folder with runs.csv, users.csv, "
     "client.json and scenario.json", 0},
    {"run", OPT_RUN, "NAME", 0, "With --agentic: this run only", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case OPT_NO_FIT:
        o->no_fit = true;
        return 0;
    case OPT_ROWS:
        o->rows = true;
        return 0;
    case OPT_AGENTIC:
        o->agentic = arg;
        return 0;
    case OPT_RUN:
        o->run = arg;
        return 0;
    case OPT_HALF:
        if (strcmp(arg, "fit") != 0 && strcmp(arg, "judge") != 0 && strcmp(arg, "all") != 0)
            argp_error(state, "--half is fit, judge or all, not \"%s\"", arg);
        o->half = arg;
        return 0;
    case OPT_ONLY:
        for (char *part = strtok(arg, ","); part != NULL; part = strtok(NULL, ",")) {
            char *eq = strchr(part, '=');
            static const char *const keys[] = {"platform", "model", "engine", "mode"};
            bool known = false;
            for (size_t i = 0; eq != NULL && i < 4; i++)
                known = known || (strlen(keys[i]) == (size_t)(eq - part) && strncmp(part, keys[i], strlen(keys[i])) == 0);
            if (!known || o->n_only == 8)
                argp_error(state, "--only takes platform=, model=, engine= and mode=, not \"%s\"", part);
            else
                o->only[o->n_only++] = part;
        }
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one file at a time, \"%s\" is too much", arg);
        o->path = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_list,
    .parser = parse,
    .args_doc = "POINTS.csv\n--agentic DIR",
    .doc = "Predicts every measured serving point of a CSV by simulating its server under its own load driver, and prints the "
           "errors by platform, model and engine, the half that fits saw apart from the half that judges. A table of "
           "measured power (columns avg_power_W_total, ...) is predicted with the measured and with the simulated step "
           "rate. A table of single passes (columns rank_seqs, total_seqs, ...) is predicted pass by pass, one of runs (columns "
           "accept_length, accept_from, ...) request by request as the file requests.csv beside it lists them. "
           "With --agentic, every run of a folder of measured agents is simulated from its scenario.\v"
           "Examples: apmw validate hwmodels/evidence/serving/points.csv.zst --half judge\n"
           "apmw validate --agentic hwmodels/evidence/agentic\n"
           "apmw validate hwmodels/evidence/serving/mi355x_glm52/runs.csv",
};

/* Is it among values with "+" between them? */
static bool one_of(const char *have, const char *values)
{
    const size_t length = strlen(have);
    for (const char *at = values; at != NULL; at = strchr(at, '+')) {
        at += *at == '+';
        if (strncmp(at, have, length) == 0 && (at[length] == '\0' || at[length] == '+'))
            return true;
    }
    return false;
}

static bool selected(const options *o, const apmw_point *p)
{
    for (size_t i = 0; i < o->n_only; i++) {
        const char *value = strchr(o->only[i], '=') + 1;
        const char *have = strncmp(o->only[i], "platform", 8) == 0  ? p->platform
                           : strncmp(o->only[i], "model", 5) == 0   ? p->model
                           : strncmp(o->only[i], "engine", 6) == 0  ? p->engine
                           : p->disagg ? "disagg" : "agg";
        if (!one_of(have, value))
            return false;
    }
    return true;
}

static bool progress(void *self, size_t done, size_t total)
{
    apmw_cli_progress(self, "predicting", done, total);
    return apmw_cli_interrupted();
}

static apmw_table *group_table(const apmw_validation *v, const options *o, apmw_error *err)
{
    static const char *const columns[] = {"half", "platform", "model", "engine", "mode", "speculative", "excluded", "metric", "n",
                                          "median_signed_percent", "median_abs_percent", "mean_abs_percent", "p90_abs_percent",
                                          "within_90_percent"};
    static const apmw_half halves[] = {APMW_HALF_FIT, APMW_HALF_JUDGE};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (size_t h = 0; table != NULL && h < 2; h++) {
        if (o->half != NULL && strcmp(o->half, "all") != 0 && strcmp(o->half, h == 0 ? "fit" : "judge") != 0)
            continue;
        apmw_validation_group *groups = NULL;
        size_t n = 0;
        if (apmw_validation_groups(v, halves[h], true, &groups, &n, err) != APMW_OK) {
            apmw_table_free(table);
            return NULL;
        }
        for (size_t i = 0; i < n; i++) {
            const apmw_validation_group *g = &groups[i];
            apmw_table_text(table, g->half);
            apmw_table_text(table, g->platform[0] != 0 ? g->platform : "all");
            apmw_table_text(table, g->model[0] != 0 ? g->model : "all");
            apmw_table_text(table, g->engine[0] != 0 ? g->engine : "all");
            apmw_table_text(table, g->mode[0] != 0 ? g->mode : "all");
            apmw_table_text(table, g->speculative ? "yes" : "no");
            apmw_table_text(table, g->excluded ? "yes" : "no");
            apmw_table_text(table, apmw_metric_name(g->metric));
            apmw_table_int(table, (long long)g->n);
            apmw_table_number(table, 100.0 * g->median_signed, 3);
            apmw_table_number(table, 100.0 * g->median_abs, 3);
            apmw_table_number(table, 100.0 * g->mean_abs, 3);
            apmw_table_number(table, 100.0 * g->p90_abs, 3);
            apmw_table_number(table, 100.0 * g->within90, 3);
        }
        free(groups);
    }
    return table;
}

static apmw_table *row_table(const apmw_validation *v)
{
    static const char *const columns[] = {"id", "platform", "model", "engine", "mode", "half", "concurrency", "isl", "osl",
                                          "ttft_ms", "predicted_ttft_ms", "ttft_error_percent", "tpot_ms", "predicted_tpot_ms",
                                          "tpot_error_percent", "ttft_within_90", "tpot_within_90", "reason"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (size_t i = 0; table != NULL && i < v->points->n; i++) {
        const apmw_point *p = &v->points->items[i];
        const apmw_prediction *q = &v->predictions[i];
        if (!v->selected[i])
            continue;
        apmw_table_text(table, p->id);
        apmw_table_text(table, p->platform);
        apmw_table_text(table, p->model);
        apmw_table_text(table, p->engine);
        apmw_table_text(table, p->disagg ? "disagg" : "agg");
        apmw_table_text(table, p->judge ? "judge" : "fit");
        apmw_table_number(table, (double)p->concurrency, 6);
        apmw_table_number(table, (double)p->isl, 6);
        apmw_table_number(table, (double)p->osl, 6);
        apmw_table_number(table, p->ttft_ms, 4);
        apmw_table_number(table, q->supported ? q->ttft_ms : (double)NAN, 4);
        apmw_table_number(table, 100.0 * apmw_validation_error(v, i, APMW_METRIC_TTFT), 3);
        apmw_table_number(table, p->tpot_ms, 4);
        apmw_table_number(table, q->supported ? q->tpot_ms : (double)NAN, 4);
        apmw_table_number(table, 100.0 * apmw_validation_error(v, i, APMW_METRIC_TPOT), 3);
        apmw_table_number(table, apmw_validation_within90(v, i, APMW_METRIC_TTFT), 1);
        apmw_table_number(table, apmw_validation_within90(v, i, APMW_METRIC_TPOT), 1);
        apmw_table_text(table, q->supported ? NULL : q->reason);
    }
    return table;
}

static int emit(apmw_cli *cli, const options *o, const apmw_validation *v)
{
    apmw_error err = {0};
    if (cli->format == APMW_FORMAT_JSON) {
        apmw_buf out = {0};
        apmw_json_writer w = apmw_json_writer_make(&out);
        apmw_json_begin_object(&w, NULL);
        apmw_json_string(&w, "schema", "apmw.validation/1");
        apmw_cli_provenance(cli, &w, "provenance");
        apmw_json_bool(&w, "complete", !v->interrupted);
        apmw_status status = apmw_validation_write(v, &w, &err);
        apmw_json_end_object(&w);
        apmw_buf_puts(&out, "\n");
        int code = status == APMW_OK ? apmw_cli_emit(cli, &out) : apmw_cli_fail(cli, &err);
        apmw_buf_free(&out);
        return code;
    }
    apmw_table *table = o->rows ? row_table(v) : group_table(v, o, &err);
    if (table == NULL)
        return err.status != APMW_OK ? apmw_cli_fail(cli, &err) : apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    apmw_cli_log(cli, APMW_LOG_WARN, "%zu of %zu rows supported", v->n_supported, v->n_selected);
    return apmw_cli_emit_table(cli, table);
}

static int validate_points(apmw_cli *cli, const options *o, apmw_catalog *catalog)
{
    apmw_error err = {0};
    apmw_points points = {0};
    apmw_validation v = {0};
    apmw_validate_options settings = {.no_fit = o->no_fit, .progress = progress, .self = cli};
    if (o->half != NULL)
        settings.half = strcmp(o->half, "fit") == 0 ? APMW_HALF_FIT : strcmp(o->half, "judge") == 0 ? APMW_HALF_JUDGE : APMW_HALF_ALL;
    apmw_status status = apmw_points_load(o->path, cli->data_dir, &points, &err);
    bool *keep = status == APMW_OK ? calloc(points.n + 1, sizeof *keep) : NULL;
    if (status == APMW_OK && keep == NULL)
        status = apmw_error_set(&err, APMW_E_NOMEM, "out of memory");
    size_t n_kept = 0;
    for (size_t i = 0; status == APMW_OK && i < points.n; i++)
        n_kept += keep[i] = selected(o, &points.items[i]);
    if (status == APMW_OK && n_kept == 0 && o->n_only > 0)
        status = apmw_error_set(&err, APMW_E_USAGE, "%s: no row is left by --only %s", o->path, o->only[0]);
    if (status == APMW_OK)
        status = apmw_validate_run(catalog, &points, keep, &settings, &v, &err);
    apmw_cli_progress_end(cli);
    int code = status == APMW_OK ? emit(cli, o, &v) : apmw_cli_fail(cli, &err);
    if (code == APMW_OK && v.interrupted)
        code = 130;
    apmw_validation_free(&v);
    apmw_points_free(&points);
    free(keep);
    return code;
}

static int validate_power(apmw_cli *cli, const options *o, apmw_catalog *catalog)
{
    apmw_error err = {0};
    apmw_power_row *rows = NULL;
    apmw_table *table = NULL;
    size_t n = 0;
    apmw_status status = apmw_cli_power_rows(cli, catalog, o->path, NULL, &rows, &n, &err);
    if (status == APMW_OK)
        status = apmw_power_judge_table(catalog, rows, n, &table, &err);
    free(rows);
    return status == APMW_OK ? apmw_cli_emit_table(cli, table) : apmw_cli_fail(cli, &err);
}

static int validate_agents(apmw_cli *cli, const options *o)
{
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    if (o->agentic == NULL || o->path != NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, o->agentic == NULL ? "--run names a run of --agentic DIR"
                                                                    : "either points or --agentic, not both");
    apmw_cli_catch_interrupt();
    if (apmw_catalog_open(cli->data_dir, &catalog, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    const int code = apmw_cli_agentic(cli, catalog, o->agentic, o->run);
    apmw_catalog_free(catalog);
    return code;
}

static int run(apmw_cli *cli, int argc, char **argv)
{
    options o = {0};
    apmw_error err = {0};
    int code = apmw_cli_parse(cli, &parser, argc, argv, &o);
    if (code != APMW_OK)
        return code;
    if (o.agentic != NULL || o.run != NULL)
        return validate_agents(cli, &o);
    if (o.path == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "which file of measured points?");
    apmw_csv *csv = NULL;
    apmw_catalog *catalog = NULL;
    apmw_cli_catch_interrupt();
    apmw_status status = apmw_csv_load(o.path, &csv, &err);
    bool power = status == APMW_OK && apmw_csv_col(csv, "avg_power_W_total") >= 0;
    bool steps = status == APMW_OK && apmw_csv_col(csv, "rank_seqs") >= 0;
    bool runs = status == APMW_OK && apmw_csv_col(csv, "accept_from") >= 0;
    apmw_csv_free(csv);
    if (status == APMW_OK)
        status = apmw_cli_input(cli, o.path, &err);
    if (status == APMW_OK)
        status = apmw_catalog_open(cli->data_dir, &catalog, &err);
    if (status != APMW_OK)
        return apmw_cli_fail(cli, &err);
    const char *kind = power ? "a table of power" : steps ? "a table of passes" : runs ? "a table of runs" : NULL;
    if (kind != NULL && (o.half != NULL || o.n_only > 0)) {
        apmw_catalog_free(catalog);
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s: %s knows no --half and no --only", o.path, kind);
    }
    code = power   ? validate_power(cli, &o, catalog)
           : steps ? apmw_cli_validate_steps(cli, catalog, o.path, o.no_fit, o.rows)
           : runs  ? apmw_cli_validate_runs(cli, catalog, o.path, o.rows)
                   : validate_points(cli, &o, catalog);
    apmw_catalog_free(catalog);
    return code;
}

const apmw_command apmw_command_validate = {"validate", "Predict measured serving points or power, and report the errors", run};
