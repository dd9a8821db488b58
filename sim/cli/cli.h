/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What every command of the program shares: options, output, errors, provenance, interruption, progress.
 *
 * A command is one file sim/cli/cmd_<name>.c that defines `const apmw_command apmw_command_<name>` and one
 * line APMW_COMMAND(<name>) in commands.def. Its run function looks like this:
 *
 *     static int run(apmw_cli *cli, int argc, char **argv)
 *     {
 *         options o = {...};
 *         int code = apmw_cli_parse(cli, &parser, argc, argv, &o);   // --help, --format, -o, --quiet
 * included if (code != APMW_OK) return code; apmw_error err = {0}; if (work(&o, table, &err) != APMW_OK)
 *             return apmw_cli_fail(cli, &err);
 *         return apmw_cli_emit_table(cli, table);
 *     }
 */
#ifndef APMW_CLI_H
#define APMW_CLI_H
#include <argp.h>
#include <stdbool.h>
#include <stddef.h>

#include "apmw/buf.h"
#include "apmw/json.h"
#include "apmw/status.h"
#include "apmw/text.h"

typedef enum apmw_log_level { APMW_LOG_ERROR, APMW_LOG_WARN, APMW_LOG_INFO, APMW_LOG_DEBUG } apmw_log_level;

typedef struct apmw_cli_input_file {
    char *path;
    char hash[17];
} apmw_cli_input_file;

typedef struct apmw_cli {
    int argc; /* the whole command line, for provenance */
    char **argv;
    const char *data_dir; /* the tree that holds hwmodels, traces and sim/protocol */
    const char *command;  /* name of the running command, or NULL */
    apmw_log_level log_level;
    apmw_format format; /* --format, default table */
    bool format_given;
    const char *output; /* -o FILE, NULL = standard output */
    bool quiet;
    apmw_cli_input_file *inputs; /* see apmw_cli_input */
    size_t n_inputs;
} apmw_cli;

typedef struct apmw_command {
    const char *name, *summary;
    int (*run)(apmw_cli *cli, int argc, char **argv); /* returns the exit code; argv[0] = "apmw <name>" */
} apmw_command;

/* The commands of this build, in the order of commands.def. */
const apmw_command *const *apmw_commands(size_t *n);

/* Parses the command's options together with --format, -o and --quiet. `input` goes to the command's own
 * parser (state->input). An unknown long option is refused with its near miss. --help and --usage end the
 * program, as argp does. Returns APMW_OK or an exit code, the message being out already. */
int apmw_cli_parse(apmw_cli *cli, const struct argp *argp, int argc, char **argv, void *input);

/* Prints "apmw <command>: message" on standard error and returns the exit code. */
int apmw_cli_fail(const apmw_cli *cli, const apmw_error *err);
/* The same in one go, e.g. return apmw_cli_failf(cli, APMW_E_USAGE, "unknown tier \"%s\"", name). */
__attribute__((format(printf, 3, 4))) int apmw_cli_failf(const apmw_cli *cli, apmw_status status,
                                                         const char *format, ...);
/* APMW_E_USAGE "unknown <what> "<name>" (did you mean "..."?)", or with all names when none is near. */
int apmw_cli_unknown(const apmw_cli *cli, const char *what, const char *name, const char *const *names,
                     size_t n);
/* A line on standard error when `level` is within --log-level and not --quiet. */
__attribute__((format(printf, 3, 4))) void apmw_cli_log(const apmw_cli *cli, apmw_log_level level,
                                                        const char *format, ...);

/* Writes the result to standard output or, whole or not at all, to -o FILE. A reader that has gone away
 * (`apmw ... | head`) ends the program quietly. Returns the exit code. */
int apmw_cli_emit(apmw_cli *cli, const apmw_buf *result);
/* Renders in the chosen format, emits, and frees the table. */
int apmw_cli_emit_table(apmw_cli *cli, apmw_table *table);

/* data_dir/<relative>; the caller frees. NULL when out of memory. */
char *apmw_cli_data_path(const apmw_cli *cli, const char *relative);
/* Names (without `suffix`) of the files in data_dir/<relative> that end in `suffix`, sorted. The caller frees
 * with apmw_cli_names_free. A directory that is not there gives no names. */
char **apmw_cli_names(const apmw_cli *cli, const char *relative, const char *suffix, size_t *n);
void apmw_cli_names_free(char **names, size_t n);

/* Hashes a file that the result depends on and remembers it for apmw_cli_provenance. A file named twice
 * counts once. */
apmw_status apmw_cli_input(apmw_cli *cli, const char *path, apmw_error *err);
/* {"tool","version","git","argv","inputs":[{"path","hash"}]}: no times and no host, so that the same inputs
 * give the same bytes. Paths under data_dir are written relative to it. */
void apmw_cli_provenance(const apmw_cli *cli, apmw_json_writer *w, const char *key);

/* Version and source revision of this build. */
const char *apmw_cli_version(void);
const char *apmw_cli_git(void);

/* From now on the first Ctrl-C (or SIGTERM) sets a flag and the second one kills. */
void apmw_cli_catch_interrupt(void);
bool apmw_cli_interrupted(void);

/* A progress line on standard error, on a terminal only, redrawn at most every 0.2 s. Call from one thread.
 * `total` 0 = unknown. done == total, or apmw_cli_progress_end, removes the line. */
void apmw_cli_progress(const apmw_cli *cli, const char *what, size_t done, size_t total);
void apmw_cli_progress_end(const apmw_cli *cli);

#endif
