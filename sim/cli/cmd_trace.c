/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw trace: look at, convert, make and cut traces. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/trace.h"
#include "cli.h"
#include "cli_trace.h"

enum { MAX_WORDS = 128 };

typedef struct options {
    const char *action;
    const char *words[MAX_WORDS];
    size_t n_words;
    const char *from, *note, *range;
    uint64_t count, seed, block, max_turns, max_context, sample;
    bool output_cached, assume_outputs;
} options;

enum {
    OPT_FROM = 256,
    OPT_NOTE,
    OPT_COUNT,
    OPT_SEED,
    OPT_BLOCK,
    OPT_CACHED,
    OPT_RANGE,
    OPT_TURNS,
    OPT_CONTEXT,
    OPT_SAMPLE,
    OPT_ASSUME
};

static const struct argp_option option_list[] = {
    {"from", OPT_FROM, "FORMAT", 0, "Read as this format instead of asking the content", 1},
    {"block", OPT_BLOCK, "N", 0, "stats: tokens a cache block (default: the trace's own)", 2},
    {"output-cached", OPT_CACHED, NULL, 0, "stats: outputs with identity stay in the cache", 2},
    {"note", OPT_NOTE, "TEXT", 0, "convert, slice: the note to write", 3},
    {"assume-outputs", OPT_ASSUME, NULL, 0, "convert: appends begin with the output before (traces of block ids)", 3},
    {"count", OPT_COUNT, "N", 0, "synth: trajectories (default 4000)", 4},
    {"seed", OPT_SEED, "N", 0, "synth, slice --sample: seed (default 1)", 4},
    {"range", OPT_RANGE, "A:B", 0, "slice: trajectories A to B - 1, counted from 0", 5},
    {"max-turns", OPT_TURNS, "N", 0, "slice: cut after N main-line turns", 5},
    {"max-context", OPT_CONTEXT, "N", 0, "slice: cut before prompt + output exceed N tokens", 5},
    {"sample", OPT_SAMPLE, "N", 0, "slice: N of what is left, at random", 5},
    {0},
};

static uint64_t count_of(const char *text, struct argp_state *state)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || text[0] == '-' || errno != 0)
        argp_error(state, "\"%s\" is no count", text);
    return value;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case OPT_FROM:
        o->from = arg;
        return 0;
    case OPT_NOTE:
        o->note = arg;
        return 0;
    case OPT_COUNT:
        o->count = count_of(arg, state);
        return 0;
    case OPT_SEED:
        o->seed = count_of(arg, state);
        return 0;
    case OPT_BLOCK:
        o->block = count_of(arg, state);
        return 0;
    case OPT_CACHED:
        o->output_cached = true;
        return 0;
    case OPT_RANGE:
        o->range = arg;
        return 0;
    case OPT_TURNS:
        o->max_turns = count_of(arg, state);
        return 0;
    case OPT_CONTEXT:
        o->max_context = count_of(arg, state);
        return 0;
    case OPT_ASSUME:
        o->assume_outputs = true;
        return 0;
    case OPT_SAMPLE:
        o->sample = count_of(arg, state);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->action = arg;
        else if (o->n_words < MAX_WORDS)
            o->words[o->n_words++] = arg;
        else
            argp_error(state, "more than %d names", MAX_WORDS);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_list,
    .parser = parse,
    .args_doc = "info FILE... | check FILE... | stats FILE | convert FILE -o OUT | slice FILE -o OUT | "
                "synth [GENERATOR [NAME=VALUE...]]",
    .doc =
        "Traces of coding agents. FILE is native (JSON lines, HDF5), a Weka or a Mooncake file, or a "
        "directory of "
        "them, all with one block size; - is standard input (JSON lines). OUT ends in .jsonl, .jsonl.zst or .h5.\n"
        "info: what a file holds. check: whether it keeps every rule (exit 1 when not). stats: its "
        "statistics, beside "
        "the published ones for traces of the agentperf generator. convert: writes it in the native form. "
        "slice: "
        "writes a part. synth: makes one; without -o it prints the statistics, with a generator's name and "
        "--count 0 its parameters, without a name all generators.\v"
        "Examples: apmw trace stats traces/samples/weka-cc-042026.jsonl.zst\n"
        "          apmw trace synth agentperf isl_max=1048576 --count 500 --seed 7 -o long.jsonl.zst",
};

/* ---- helpers ---- */

static int load(apmw_cli *cli, const options *o, const char *path, apmw_trace *trace)
{
    apmw_error err = {0};
    if (apmw_trace_load(path, o->from, trace, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    return APMW_OK;
}

static int save(apmw_cli *cli, const options *o, apmw_trace *trace)
{
    apmw_error err = {0};
    if (o->note != NULL)
        apmw_copy(trace->note, sizeof trace->note, o->note);
    if (apmw_trace_save(trace, cli->output, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    apmw_cli_log(cli, APMW_LOG_INFO, "%s: %zu trajectories, content %s", cli->output, trace->n, trace->hash);
    return APMW_OK;
}

static int need(apmw_cli *cli, const options *o, size_t most, bool output)
{
    if (o->n_words == 0)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s needs a file", o->action);
    if (o->n_words > most)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s: \"%s\" is too much", o->action, o->words[most]);
    if (output && cli->output == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s needs -o OUT (.jsonl, .jsonl.zst or .h5)", o->action);
    return APMW_OK;
}

/* ---- actions ---- */

static int info(apmw_cli *cli, const options *o)
{
    static const char *const columns[] = {"file",       "format",       "source",  "trajectories", "turns",
                                          "sub_agents", "block_tokens", "content", "note"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; i < o->n_words; i++) {
        apmw_trace trace;
        apmw_error ignored = {0};
        const char *format = o->from;
        int code = load(cli, o, o->words[i], &trace);
        if (code != APMW_OK) {
            apmw_table_free(table);
            return code;
        }
        if (format == NULL && apmw_trace_sniff(o->words[i], &format, &ignored) != APMW_OK)
            format = NULL; /* a directory or standard input */
        long long turns = 0, lanes = 0;
        bool mixed = false;
        for (size_t k = 0; k < trace.n; k++) {
            turns += trace.items[k].n_turns;
            lanes += trace.items[k].n_lanes - 1;
            mixed = mixed || strcmp(trace.items[k].source, trace.items[0].source) != 0;
        }
        apmw_table_text(table, o->words[i]);
        apmw_table_text(table, format);
        apmw_table_text(table, mixed ? "mixed" : trace.items[0].source);
        apmw_table_int(table, (long long)trace.n);
        apmw_table_int(table, turns);
        apmw_table_int(table, lanes);
        apmw_table_int(table, trace.block_tokens);
        apmw_table_text(table, trace.hash);
        apmw_table_text(table, trace.note[0] != '\0' ? trace.note : NULL);
        apmw_trace_free(&trace);
    }
    return apmw_cli_emit_table(cli, table);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* An id that two trajectories share, or NULL; it stays owned by the trace. */
static const char *repeated_id(const apmw_trace *trace)
{
    const char **ids = malloc(trace->n * sizeof *ids);
    const char *found = NULL;
    if (ids == NULL)
        return NULL;
    for (size_t i = 0; i < trace->n; i++)
        ids[i] = trace->items[i].id;
    qsort(ids, trace->n, sizeof *ids, by_text);
    for (size_t i = 1; i < trace->n && found == NULL; i++)
        found = strcmp(ids[i], ids[i - 1]) == 0 ? ids[i] : NULL;
    free(ids);
    return found;
}

static int check(apmw_cli *cli, const options *o)
{
    static const char *const columns[] = {"file", "ok", "reason"};
    apmw_table *table = apmw_table_create(3, columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    bool good = true;
    for (size_t i = 0; i < o->n_words; i++) {
        apmw_trace trace;
        apmw_error err = {0};
        apmw_status status = apmw_trace_load(o->words[i], o->from, &trace, &err);
        if (status == APMW_E_NOINPUT || status == APMW_E_USAGE || status == APMW_E_NOMEM) {
            apmw_table_free(table);
            return apmw_cli_fail(cli, &err);
        }
        const char *twice = status == APMW_OK ? repeated_id(&trace) : NULL;
        if (twice != NULL)
            status = apmw_error_set(&err, APMW_E_DATA, "two trajectories are called %s", twice);
        good = good && status == APMW_OK;
        apmw_table_text(table, o->words[i]);
        apmw_table_text(table, status == APMW_OK ? "yes" : "no");
        apmw_table_text(table, status == APMW_OK ? NULL : err.message);
        apmw_trace_free(&trace);
    }
    int code = apmw_cli_emit_table(cli, table);
    return code != APMW_OK ? code : good ? APMW_OK : (int)APMW_NO;
}

static int stats(apmw_cli *cli, const options *o)
{
    apmw_trace trace;
    apmw_error err = {0};
    int code = load(cli, o, o->words[0], &trace);
    if (code != APMW_OK)
        return code;
    if (strcmp(o->words[0], "-") != 0)
        (void)apmw_cli_input(cli, o->words[0], &err); /* a directory has no hash; the content hash is shown */
    code = apmw_cli_trace_stats(cli, &trace, (int64_t)o->block, o->output_cached);
    apmw_trace_free(&trace);
    return code;
}

static int convert(apmw_cli *cli, const options *o)
{
    apmw_trace trace;
    int code = load(cli, o, o->words[0], &trace);
    if (code != APMW_OK)
        return code;
    apmw_error err = {0};
    int64_t changed = 0;
    if (o->assume_outputs && apmw_trace_assume_outputs(&trace, &changed, &err) != APMW_OK) {
        code = apmw_cli_fail(cli, &err);
    } else {
        code = save(cli, o, &trace);
    }
    if (code == APMW_OK && o->assume_outputs)
        apmw_cli_log(cli, APMW_LOG_INFO, "%lld turns are taken to repeat the output before them", (long long)changed);
    apmw_trace_free(&trace);
    return code;
}

static int slice(apmw_cli *cli, const options *o)
{
    apmw_trace_part part = {.max_turns = (int64_t)(o->max_turns & INT64_MAX),
                            .max_context = (int64_t)(o->max_context & INT64_MAX),
                            .sample = (size_t)o->sample,
                            .seed = o->seed};
    if (o->range != NULL) {
        char *colon = NULL, *end = NULL;
        part.first = strtoull(o->range, &colon, 10);
        if (*colon == ':' && colon[1] != '\0')
            part.last = strtoull(colon + 1, &end, 10);
        if (*colon != ':' || (end != NULL && *end != '\0') || strchr(o->range, '-') != NULL ||
            (end != NULL && part.last == 0))
            return apmw_cli_failf(cli, APMW_E_USAGE, "--range \"%s\": expected A:B or A:", o->range);
    }
    apmw_trace trace, cut;
    int code = load(cli, o, o->words[0], &trace);
    if (code != APMW_OK)
        return code;
    apmw_error err = {0};
    if (apmw_trace_slice(&trace, &part, &cut, &err) != APMW_OK) {
        code = apmw_cli_fail(cli, &err);
    } else {
        code = save(cli, o, &cut);
        apmw_trace_free(&cut);
    }
    apmw_trace_free(&trace);
    return code;
}

static int describe(apmw_cli *cli, const options *o)
{
    apmw_buf text = {0};
    apmw_error err = {0};
    size_t n;
    const apmw_synth *all = apmw_synth_list(&n);
    apmw_status status = APMW_OK;
    if (o->n_words > 0)
        status = apmw_synth_describe(o->words[0], &text, &err);
    for (size_t i = 0; o->n_words == 0 && i < n; i++)
        apmw_buf_printf(&text, "%-12s %s\n", all[i].name, all[i].documentation);
    int code = status == APMW_OK ? apmw_cli_emit(cli, &text) : apmw_cli_fail(cli, &err);
    apmw_buf_free(&text);
    return code;
}

static int synth(apmw_cli *cli, const options *o)
{
    if ((o->n_words == 0 || o->count == 0) && cli->output != NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE, "%s makes no trace to write to %s",
                              o->n_words == 0 ? "synth without a generator" : "--count 0", cli->output);
    if (o->n_words == 0 || o->count == 0)
        return describe(cli, o);
    apmw_trace trace;
    apmw_error err = {0};
    if (apmw_synth_run(o->words[0], (size_t)o->count, o->seed, o->words + 1, o->n_words - 1, &trace, &err) !=
        APMW_OK)
        return apmw_cli_fail(cli, &err);
    int code = cli->output != NULL ? save(cli, o, &trace)
                                   : apmw_cli_trace_stats(cli, &trace, (int64_t)o->block, o->output_cached);
    apmw_trace_free(&trace);
    return code;
}

static const struct {
    const char *name;
    int (*run)(apmw_cli *cli, const options *o);
    size_t most; /* words */
    bool needs_file, needs_output;
} actions[] = {
    {"info", info, MAX_WORDS, true, false}, {"check", check, MAX_WORDS, true, false},
    {"stats", stats, 1, true, false},       {"convert", convert, 1, true, true},
    {"slice", slice, 1, true, true},        {"synth", synth, MAX_WORDS, false, false},
};
enum { N_ACTIONS = sizeof actions / sizeof actions[0] };

static int run(apmw_cli *cli, int argc, char **argv)
{
    options o = {.count = 4000, .seed = 1};
    int code = apmw_cli_parse(cli, &parser, argc, argv, &o);
    if (code != APMW_OK)
        return code;
    if (o.action == NULL)
        return apmw_cli_failf(cli, APMW_E_USAGE,
                              "say what to do: info, check, stats, convert, slice or synth");
    const char *names[N_ACTIONS];
    for (size_t i = 0; i < N_ACTIONS; i++) {
        names[i] = actions[i].name;
        if (strcmp(o.action, names[i]) == 0) {
            code = actions[i].needs_file ? need(cli, &o, actions[i].most, actions[i].needs_output) : APMW_OK;
            return code != APMW_OK ? code : actions[i].run(cli, &o);
        }
    }
    return apmw_cli_unknown(cli, "action", o.action, names, N_ACTIONS);
}

const apmw_command apmw_command_trace = {"trace",
                                         "Look at, check, convert, cut and generate traces of agents", run};
