/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw [--log-level L] [--data DIR] <command> [options] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#define APMW_COMMAND(name) extern const apmw_command apmw_command_##name;
#include "commands.def"
#undef APMW_COMMAND

static const apmw_command *const commands[] = {
#define APMW_COMMAND(name) &apmw_command_##name,
#include "commands.def"
#undef APMW_COMMAND
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

const apmw_command *const *apmw_commands(size_t *n)
{
    *n = N_COMMANDS;
    return commands;
}

enum { KEY_LOG_LEVEL = 0x100, KEY_DATA, KEY_VERSION };

typedef struct global_options {
    apmw_cli *cli;
    int first; /* index of the command in argv, 0 = none */
} global_options;

static const struct argp_option global_table[] = {
    {"data", KEY_DATA, "DIR", 0, "Tree with hwmodels, traces and sim/protocol (default: the source tree)", 0},
    {"log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warn (default), info or debug, on standard error", 0},
    {"version", KEY_VERSION, NULL, 0, "Print version and source revision", -1},
    {0}};

static int set_log_level(apmw_cli *cli, const char *name)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            cli->log_level = (apmw_log_level)i;
            return APMW_OK;
        }
    }
    return apmw_cli_unknown(cli, "log level", name, names, sizeof names / sizeof names[0]);
}

static error_t parse_global(int key, char *arg, struct argp_state *state)
{
    global_options *o = state->input;
    switch (key) {
    case KEY_DATA:
        o->cli->data_dir = arg;
        return 0;
    case KEY_LOG_LEVEL: {
        int code = set_log_level(o->cli, arg);
        if (code != APMW_OK)
            exit(code);
        return 0;
    }
    case KEY_VERSION:
        printf("apmw %s (%s)\n", apmw_cli_version(), apmw_cli_git());
        exit(APMW_OK);
    case ARGP_KEY_ARG:
        /* The rest belongs to the command. */
        o->first = state->next - 1;
        state->next = state->argc;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The list of commands stands behind the options in `apmw --help`. */
static char *help_filter(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)(size_t)text;
    apmw_buf out = {0};
    apmw_buf_puts(&out, "Commands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        apmw_buf_printf(&out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    apmw_buf_puts(&out, "\nExample: apmw list commands\n`apmw help <command>` explains one command.");
    return out.data;
}

static const struct argp global_argp = {
    .options = global_table,
    .parser = parse_global,
    .args_doc = "COMMAND [OPTION...]",
    .doc = "How many coding agents does this platform carry per megawatt, at this service level, and how "
           "sure are "
           "we?\v",
    .help_filter = help_filter,
};

static const apmw_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static int unknown_command(const apmw_cli *cli, const char *name)
{
    const char *names[N_COMMANDS + 1];
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i]->name;
    names[N_COMMANDS] = "help";
    return apmw_cli_unknown(cli, "command", name, names, N_COMMANDS + 1);
}

/* argp and getopt print argv[0] before their messages, so it names program and command. */
static int run_command(apmw_cli *cli, const apmw_command *command, int argc, char **argv)
{
    char title[64];
    snprintf(title, sizeof title, "apmw %s", command->name);
    char **args = malloc(((size_t)argc + 1) * sizeof *args);
    if (!args)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    args[0] = title;
    for (int i = 1; i < argc; i++)
        args[i] = argv[i];
    args[argc] = NULL;
    cli->command = command->name;
    int code = command->run(cli, argc, args);
    free(args);
    return code;
}

static char program[] = "apmw";

static int help(apmw_cli *cli, int argc, char **argv)
{
    static char option[] = "--help";
    if (argc < 2) {
        argp_help(&global_argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK, program);
        return APMW_OK;
    }
    const apmw_command *command = find_command(argv[1]);
    if (!command)
        return unknown_command(cli, argv[1]);
    char *args[] = {argv[1], option, NULL};
    return run_command(cli, command, 2, args);
}

int main(int argc, char **argv)
{
    apmw_cli cli = {.argc = argc, .argv = argv, .log_level = APMW_LOG_WARN, .data_dir = getenv("APMW_DATA")};
    if (!cli.data_dir || !cli.data_dir[0])
        cli.data_dir = APMW_DATA_DIR;
    global_options o = {.cli = &cli};
    if (argc > 0)
        argv[0] = program;
    error_t wrong = argp_parse(&global_argp, argc, argv, ARGP_IN_ORDER, NULL, &o);
    if (wrong)
        return apmw_cli_failf(&cli, APMW_E_USAGE, "%s", strerror(wrong));
    if (o.first == 0) {
        argp_help(&global_argp, stderr, ARGP_HELP_STD_USAGE & ~(unsigned)ARGP_HELP_EXIT_ERR, program);
        return APMW_E_USAGE;
    }
    argc -= o.first;
    argv += o.first;
    int code;
    const apmw_command *command = find_command(argv[0]);
    if (command)
        code = run_command(&cli, command, argc, argv);
    else if (strcmp(argv[0], "help") == 0)
        code = help(&cli, argc, argv);
    else
        code = unknown_command(&cli, argv[0]);
    for (size_t i = 0; i < cli.n_inputs; i++)
        free(cli.inputs[i].path);
    free(cli.inputs);
    return code;
}
