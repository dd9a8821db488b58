/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Options that all commands share, errors, output and provenance. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

const char *apmw_cli_version(void)
{
    return APMW_VERSION;
}

const char *apmw_cli_git(void)
{
    return APMW_GIT;
}

static void put_prefix(const apmw_cli *cli)
{
    apmw_cli_progress_end(cli);
    if (cli->command)
        fprintf(stderr, "apmw %s: ", cli->command);
    else
        fputs("apmw: ", stderr);
}

int apmw_cli_fail(const apmw_cli *cli, const apmw_error *err)
{
    put_prefix(cli);
    fprintf(stderr, "%s\n", err->message[0] ? err->message : apmw_status_name(err->status));
    return err->status == APMW_OK ? APMW_E_INTERNAL : (int)err->status;
}

int apmw_cli_failf(const apmw_cli *cli, apmw_status status, const char *format, ...)
{
    put_prefix(cli);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\n", stderr);
    return (int)status;
}

int apmw_cli_unknown(const apmw_cli *cli, const char *what, const char *name, const char *const *names,
                     size_t n)
{
    const char *near = apmw_near(name, names, n);
    if (near)
        return apmw_cli_failf(cli, APMW_E_USAGE, "unknown %s \"%s\" (did you mean \"%s\"?)", what, name,
                              near);
    apmw_buf all = {0};
    for (size_t i = 0; i < n; i++)
        apmw_buf_printf(&all, "%s%s", i ? ", " : "", names[i]);
    int code = apmw_cli_failf(cli, APMW_E_USAGE, "unknown %s \"%s\" (known: %s)", what, name,
                              all.length ? all.data : "none");
    apmw_buf_free(&all);
    return code;
}

void apmw_cli_log(const apmw_cli *cli, apmw_log_level level, const char *format, ...)
{
    if (level > cli->log_level || (cli->quiet && level > APMW_LOG_ERROR))
        return;
    put_prefix(cli);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\n", stderr);
}

/* --- options --- */

enum { KEY_FORMAT = 0x7f00 };

static const struct argp_option shared_table[] = {
    {"format", KEY_FORMAT, "FORMAT", 0, "table (default), json or csv", 90},
    {"output", 'o', "FILE", 0, "Write the result to FILE, whole or not at all", 90},
    {"quiet", 'q', NULL, 0, "No progress and no notes on standard error", 90},
    {0}};

static error_t parse_shared(int key, char *arg, struct argp_state *state)
{
    static const char *const names[] = {"table", "json", "csv"};
    apmw_cli *cli = state->input;
    switch (key) {
    case KEY_FORMAT:
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            if (strcmp(names[i], arg) == 0) {
                cli->format = (apmw_format)i;
                cli->format_given = true;
                return 0;
            }
        }
        exit(apmw_cli_unknown(cli, "format", arg, names, sizeof names / sizeof names[0]));
    case 'o':
        cli->output = strcmp(arg, "-") == 0 ? NULL : arg;
        return 0;
    case 'q':
        cli->quiet = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp shared_argp = {.options = shared_table, .parser = parse_shared};

typedef struct both_inputs {
    apmw_cli *cli;
    void *input;
} both_inputs;

static error_t parse_both(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    both_inputs *both = state->input;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = both->input;
    state->child_inputs[1] = both->cli;
    return 0;
}

enum { MAX_OPTIONS = 128 };

static size_t collect_names(const struct argp *argp, const char **names, size_t n)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc || o->group); o++) {
        if (o->name && !(o->flags & OPTION_DOC) && n < MAX_OPTIONS)
            names[n++] = o->name;
    }
    for (const struct argp_child *child = argp->children; child && child->argp; child++)
        n = collect_names(child->argp, names, n);
    return n;
}

/* getopt only says that an option is unknown; this says which one was meant. Abbreviations stay getopt's
 * matter. */
static int check_long_options(const apmw_cli *cli, const struct argp *argp, int argc, char **argv)
{
    const char *names[MAX_OPTIONS] = {"help", "usage"};
    size_t n = collect_names(&shared_argp, names, 2);
    n = collect_names(argp, names, n);
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        char name[64];
        size_t length = strcspn(argv[i] + 2, "=");
        if (length >= sizeof name)
            continue;
        memcpy(name, argv[i] + 2, length);
        name[length] = '\0';
        bool known = false;
        for (size_t j = 0; j < n && !known; j++)
            known = strncmp(names[j], name, length) == 0;
        const char *near = known ? NULL : apmw_near(name, names, n);
        if (near)
            return apmw_cli_failf(cli, APMW_E_USAGE, "unknown option \"--%s\" (did you mean \"--%s\"?)", name,
                                  near);
    }
    return APMW_OK;
}

int apmw_cli_parse(apmw_cli *cli, const struct argp *argp, int argc, char **argv, void *input)
{
    int code = check_long_options(cli, argp, argc, argv);
    if (code != APMW_OK)
        return code;
    const struct argp_child children[] = {{argp, 0, NULL, 0}, {&shared_argp, 0, NULL, 0}, {0}};
    const struct argp both_argp = {.parser = parse_both, .children = children};
    both_inputs both = {cli, input};
    error_t wrong = argp_parse(&both_argp, argc, argv, 0, NULL, &both);
    if (wrong)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s", strerror(wrong));
    return APMW_OK;
}

/* --- output --- */

static int write_stdout(const apmw_cli *cli, const apmw_buf *result)
{
    const char *p = result->data;
    size_t n = result->length;
    while (n > 0) {
        ssize_t done = write(STDOUT_FILENO, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <
            0) /* without SIGPIPE (a parent may have it ignored) a closed pipe ends here, quietly too */
            return errno == EPIPE ? (int)APMW_E_IO
                                  : apmw_cli_failf(cli, APMW_E_IO, "standard output: %s", strerror(errno));
        p += done;
        n -= (size_t)done;
    }
    return APMW_OK;
}

int apmw_cli_emit(apmw_cli *cli, const apmw_buf *result)
{
    apmw_cli_progress_end(cli);
    if (result->failed)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    if (!cli->output)
        return write_stdout(cli, result);
    apmw_error err = {0};
    if (apmw_file_write(cli->output, result->data, result->length, -1, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    return APMW_OK;
}

int apmw_cli_emit_table(apmw_cli *cli, apmw_table *table)
{
    if (!table)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    apmw_buf out = {0};
    apmw_table_render(table, cli->format, &out);
    apmw_table_free(table);
    int code = apmw_cli_emit(cli, &out);
    apmw_buf_free(&out);
    return code;
}

/* --- data files --- */

char *apmw_cli_data_path(const apmw_cli *cli, const char *relative)
{
    apmw_buf path = {0};
    apmw_buf_printf(&path, "%s/%s", cli->data_dir, relative);
    if (path.failed) {
        apmw_buf_free(&path);
        return NULL;
    }
    return path.data;
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

char **apmw_cli_names(const apmw_cli *cli, const char *relative, const char *suffix, size_t *n)
{
    *n = 0;
    char *path = apmw_cli_data_path(cli, relative);
    DIR *dir = path ? opendir(path) : NULL;
    free(path);
    if (!dir)
        return NULL;
    char **names = NULL;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name), cut = strlen(suffix);
        if (entry->d_name[0] == '.' || length <= cut || strcmp(entry->d_name + length - cut, suffix) != 0)
            continue;
        char **more = realloc(names, (*n + 1) * sizeof *names);
        if (!more)
            break;
        names = more;
        names[*n] = strndup(entry->d_name, length - cut);
        if (!names[*n])
            break;
        ++*n;
    }
    closedir(dir);
    if (*n > 1)
        qsort(names, *n, sizeof *names, by_name);
    return names;
}

void apmw_cli_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* --- provenance --- */

apmw_status apmw_cli_input(apmw_cli *cli, const char *path, apmw_error *err)
{
    for (size_t i = 0; i < cli->n_inputs; i++) {
        if (strcmp(cli->inputs[i].path, path) == 0)
            return APMW_OK;
    }
    apmw_cli_input_file input;
    apmw_status status = apmw_file_hash(path, input.hash, err);
    if (status != APMW_OK)
        return status;
    apmw_cli_input_file *inputs = realloc(cli->inputs, (cli->n_inputs + 1) * sizeof *inputs);
    if (inputs)
        cli->inputs = inputs;
    input.path = strdup(path);
    if (!inputs || !input.path) {
        free(input.path);
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    cli->inputs[cli->n_inputs++] = input;
    return APMW_OK;
}

void apmw_cli_provenance(const apmw_cli *cli, apmw_json_writer *w, const char *key)
{
    size_t skip = strlen(cli->data_dir);
    apmw_json_begin_object(w, key);
    apmw_json_string(w, "tool", "apmw");
    apmw_json_string(w, "version", APMW_VERSION);
    apmw_json_string(w, "git", APMW_GIT);
    apmw_json_begin_array(w, "argv");
    for (int i = 0; i < cli->argc; i++)
        apmw_json_string(w, NULL, cli->argv[i]);
    apmw_json_end_array(w);
    apmw_json_begin_array(w, "inputs");
    for (size_t i = 0; i < cli->n_inputs; i++) {
        const char *path = cli->inputs[i].path;
        bool inside = strncmp(path, cli->data_dir, skip) == 0 && path[skip] == '/';
        apmw_json_begin_object(w, NULL);
        apmw_json_string(w, "path", inside ? path + skip + 1 : path);
        apmw_json_string(w, "hash", cli->inputs[i].hash);
        apmw_json_end_object(w);
    }
    apmw_json_end_array(w);
    apmw_json_end_object(w);
}
