/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw list: what this program knows. */
#include <stdlib.h>
#include <string.h>

#include "apmw/trace.h"
#include "cli.h"

typedef struct options {
    const char *what; /* NULL = everything */
} options;

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one kind at a time, \"%s\" is too much", arg);
        o->what = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .parser = parse,
    .args_doc = "[KIND]",
    .doc = "Lists what this program knows. KIND is one of commands, platforms, accelerators, models, "
           "trace-formats and "
           "generators; without it all are listed.\v"
           "Example: apmw list platforms --format csv",
};

static void row(apmw_table *table, const char *kind, const char *name, const char *about)
{
    apmw_table_text(table, kind);
    apmw_table_text(table, name);
    apmw_table_text(table, about);
}

static void list_commands(apmw_cli *cli, apmw_table *table)
{
    (void)cli;
    size_t n;
    const apmw_command *const *commands = apmw_commands(&n);
    for (size_t i = 0; i < n; i++)
        row(table, "command", commands[i]->name, commands[i]->summary);
}

/* What people call the thing: its "name", or of a platform what it is made of. The text may be in `scratch`.
 */
static const char *describe(const apmw_json *doc, apmw_buf *scratch, apmw_error *err)
{
    apmw_json_cur root = apmw_json_root(doc);
    const char *name = NULL, *accelerator = NULL;
    int64_t count = 0;
    bool projected = false;
    if (apmw_json_opt_string(&root, "name", &name, err) != APMW_OK ||
        apmw_json_opt_string(&root, "accelerator", &accelerator, err) != APMW_OK ||
        apmw_json_opt_int(&root, "accelerators", 1, INT64_MAX, &count, err) != APMW_OK ||
        apmw_json_opt_bool(&root, "projected", &projected, err) != APMW_OK)
        return err->message;
    if (name)
        apmw_buf_puts(scratch, name);
    else if (accelerator)
        apmw_buf_printf(scratch, "%lld x %s", (long long)count, accelerator);
    else
        return NULL;
    if (projected)
        apmw_buf_puts(scratch, ", from specifications only, nothing measured");
    return scratch->data;
}

/* A file that cannot be read is still listed, with the reason. */
static void list_files(apmw_cli *cli, apmw_table *table, const char *kind, const char *directory)
{
    size_t n;
    char **names = apmw_cli_names(cli, directory, ".json", &n);
    for (size_t i = 0; i < n; i++) {
        apmw_buf path = {0}, scratch = {0};
        apmw_buf_printf(&path, "%s/%s/%s.json", cli->data_dir, directory, names[i]);
        apmw_json *doc = NULL;
        apmw_error err = {0};
        const char *about = err.message;
        if (!path.failed && apmw_json_load(path.data, &doc, &err) == APMW_OK)
            about = describe(doc, &scratch, &err);
        row(table, kind, names[i], about);
        apmw_json_free(doc);
        apmw_buf_free(&scratch);
        apmw_buf_free(&path);
    }
    apmw_cli_names_free(names, n);
}

static void list_platforms(apmw_cli *cli, apmw_table *table)
{
    list_files(cli, table, "platform", "hwmodels/specs/nodes");
}

static void list_accelerators(apmw_cli *cli, apmw_table *table)
{
    list_files(cli, table, "accelerator", "hwmodels/specs/accelerators");
}

static void list_models(apmw_cli *cli, apmw_table *table)
{
    list_files(cli, table, "model", "hwmodels/models");
}

static void list_trace_formats(apmw_cli *cli, apmw_table *table)
{
    (void)cli;
    size_t n;
    const apmw_trace_format *const *formats = apmw_trace_formats(&n);
    for (size_t i = 0; i < n; i++)
        row(table, "trace format", formats[i]->name, formats[i]->documentation);
}

static void list_generators(apmw_cli *cli, apmw_table *table)
{
    (void)cli;
    size_t n;
    const apmw_synth *generators = apmw_synth_list(&n);
    for (size_t i = 0; i < n; i++)
        row(table, "generator", generators[i].name, generators[i].documentation);
}

/* One line a kind; a new kind is one function and one line. */
static const struct {
    const char *name;
    void (*list)(apmw_cli *cli, apmw_table *table);
} kinds[] = {
    {"commands", list_commands}, {"platforms", list_platforms},         {"accelerators", list_accelerators},
    {"models", list_models},     {"trace-formats", list_trace_formats}, {"generators", list_generators},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static int run(apmw_cli *cli, int argc, char **argv)
{
    options o = {0};
    int code = apmw_cli_parse(cli, &parser, argc, argv, &o);
    if (code != APMW_OK)
        return code;
    static const char *const columns[] = {"kind", "name", "about"};
    apmw_table *table = apmw_table_create(3, columns);
    if (!table)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    bool found = false;
    for (size_t i = 0; i < N_KINDS; i++) {
        if (!o.what || strcmp(o.what, kinds[i].name) == 0) {
            kinds[i].list(cli, table);
            found = true;
        }
    }
    if (found)
        return apmw_cli_emit_table(cli, table);
    apmw_table_free(table);
    const char *names[N_KINDS];
    for (size_t i = 0; i < N_KINDS; i++)
        names[i] = kinds[i].name;
    return apmw_cli_unknown(cli, "kind", o.what, names, N_KINDS);
}

const apmw_command apmw_command_list = {
    "list", "List commands, platforms, accelerators, models, trace formats and generators", run};
