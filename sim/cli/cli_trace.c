/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <string.h>

#include "cli_trace.h"

enum { MEAN, P5, P10, P25, P50, P75, P90, P95, P99, MIN, MAX, N_STATISTICS };
static const char *const statistic_names[N_STATISTICS] = {"mean", "p5",  "p10", "p25", "p50", "p75",
                                                          "p90",  "p95", "p99", "min", "max"};

static double statistic(const apmw_dist *d, int k)
{
    const double values[N_STATISTICS] = {d->mean, d->p5,  d->p10, d->p25, d->p50, d->p75,
                                         d->p90,  d->p95, d->p99, d->min, d->max};
    return values[k];
}

/* What Artificial Analysis publishes of AA-AgentPerf (artificialanalysis.ai/methodology/agentperf, dated
 * versions of 2026): ISL about 5K to 131K with mean 27K; OSL median 150, P95 2K; up to 200 turns, 500
 * trajectories = 18,997 prompts; tool time 0.1 to 5 s with median 1 s. */
static const struct {
    const char *quantity;
    int statistic;
    double target;
} published[] = {
    {"turns", MEAN, 18997.0 / 500}, {"turns", MAX, 200}, {"isl", MEAN, 27000}, {"isl", MIN, 5000},
    {"isl", MAX, 131072},           {"osl", P50, 150},   {"osl", P95, 2000},   {"delay_s", P50, 1},
    {"delay_s", MIN, .1},           {"delay_s", MAX, 5},
};
enum { N_PUBLISHED = sizeof published / sizeof published[0] };

typedef struct line {
    const char *name, *meaning;
    apmw_dist dist;
} line;

enum { MAX_LINES = 24 };

static apmw_dist single(double value)
{
    double none = (double)NAN;
    return (apmw_dist){1, value, none, none, none, none, none, none, none, none, none, none};
}

static size_t make_lines(const apmw_trace_stats *s, line *lines)
{
    const line all[] = {
        {"turns", "main-line turns of a trajectory", s->turns},
        {"isl", "prompt tokens of a turn", s->isl},
        {"osl", "output tokens of a turn", s->osl},
        {"delay_s", "wait before a turn", s->delay_s},
        {"growth", "prompt tokens added by an append", s->growth},
        {"uncached", "prompt tokens an infinite cache computes, turns after the first", s->uncached},
        {"last_isl", "prompt tokens of the last turn", s->last_isl},
        {"trajectories", "number", single((double)s->n_trajectories)},
        {"all_turns", "number, sub-agents included", single((double)s->n_turns)},
        {"subagent_turns", "number", single((double)s->n_subagent_turns)},
        {"lanes", "number, main lines included", single((double)s->n_lanes)},
        {"total_in", "prompt tokens of all turns", single(s->total_in)},
        {"total_out", "output tokens of all turns", single(s->total_out)},
        {"hit_infinite", "infinite cache, share of prompt tokens, each trajectory alone",
         single(s->hit_infinite)},
        {"hit_previous", "the same, only the previous turn of the lane kept", single(s->hit_previous)},
        {"hit_infinite_shared", "infinite cache with prefixes shared by trajectories",
         single(s->hit_infinite_shared)},
        {"hit_blocks_shared", "the same, share of blocks", single(s->hit_blocks_shared)},
    };
    memcpy(lines, all, sizeof all);
    return sizeof all / sizeof all[0];
}

/* The published value of a statistic, NaN where there is none. */
static double target_of(const char *quantity, int k)
{
    for (size_t i = 0; i < N_PUBLISHED; i++)
        if (published[i].statistic == k && strcmp(published[i].quantity, quantity) == 0)
            return published[i].target;
    return (double)NAN;
}

static bool is_agentperf(const apmw_trace *trace)
{
    for (size_t i = 0; i < trace->n; i++)
        if (strcmp(trace->items[i].source, "synth:agentperf") != 0)
            return false;
    return trace->n > 0;
}

static int emit_json(apmw_cli *cli, const apmw_trace *trace, const line *lines, size_t n, bool targets)
{
    apmw_buf out = {0};
    apmw_json_writer w = apmw_json_writer_make(&out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "schema", "apmw.trace-stats/1");
    apmw_cli_provenance(cli, &w, "provenance");
    apmw_json_string(&w, "content", trace->hash);
    apmw_json_string(&w, "note", trace->note);
    apmw_json_begin_object(&w, "quantities");
    for (size_t i = 0; i < n; i++) {
        apmw_json_begin_object(&w, lines[i].name);
        apmw_json_string(&w, "meaning", lines[i].meaning);
        bool is_single = lines[i].dist.n == 1 && isnan(lines[i].dist.p50);
        if (is_single) {
            apmw_json_double(&w, "value", lines[i].dist.mean);
        } else {
            apmw_json_double(&w, "n", lines[i].dist.n);
            for (int k = 0; k < N_STATISTICS; k++)
                apmw_json_double(&w, statistic_names[k], statistic(&lines[i].dist, k));
        }
        apmw_json_end_object(&w);
    }
    apmw_json_end_object(&w);
    if (targets) {
        apmw_json_begin_array(&w, "published");
        for (size_t i = 0; i < N_PUBLISHED; i++) {
            apmw_json_begin_object(&w, NULL);
            apmw_json_string(&w, "quantity", published[i].quantity);
            apmw_json_string(&w, "statistic", statistic_names[published[i].statistic]);
            for (size_t k = 0; k < n; k++)
                if (strcmp(lines[k].name, published[i].quantity) == 0)
                    apmw_json_double(&w, "value", statistic(&lines[k].dist, published[i].statistic));
            apmw_json_double(&w, "published", published[i].target);
            apmw_json_end_object(&w);
        }
        apmw_json_end_array(&w);
    }
    apmw_json_end_object(&w);
    apmw_buf_puts(&out, "\n");
    int code = apmw_cli_emit(cli, &out);
    apmw_buf_free(&out);
    return code;
}

/* Columns: quantity, n, the statistics, then those that have a published value. */
static int emit_table(apmw_cli *cli, const line *lines, size_t n, bool targets)
{
    static const int with_target[] = {MEAN, P50, P95, MIN, MAX};
    static const char *const target_names[] = {"published_mean", "published_p50", "published_p95",
                                               "published_min", "published_max"};
    enum { N_TARGETS = sizeof with_target / sizeof with_target[0] };
    const char *columns[3 + N_STATISTICS + N_TARGETS] = {"quantity", "n"};
    size_t n_columns = 2;
    for (int k = 0; k < N_STATISTICS; k++)
        columns[n_columns++] = statistic_names[k];
    for (int k = 0; targets && k < N_TARGETS; k++)
        columns[n_columns++] = target_names[k];
    columns[n_columns++] = "meaning";
    apmw_table *table = apmw_table_create(n_columns, columns);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        apmw_table_text(table, lines[i].name);
        apmw_table_int(table, (long long)lines[i].dist.n);
        for (int k = 0; k < N_STATISTICS; k++)
            apmw_table_number(table, statistic(&lines[i].dist, k), 5);
        for (int k = 0; targets && k < N_TARGETS; k++)
            apmw_table_number(table, target_of(lines[i].name, with_target[k]), 5);
        apmw_table_text(table, lines[i].meaning);
    }
    return apmw_cli_emit_table(cli, table);
}

int apmw_cli_trace_stats(apmw_cli *cli, const apmw_trace *trace, int64_t block_tokens, bool output_cached)
{
    apmw_error err = {0};
    apmw_trace_stats s;
    if (apmw_trace_stats_compute(trace, block_tokens, output_cached, &s, &err) != APMW_OK)
        return apmw_cli_fail(cli, &err);
    line lines[MAX_LINES];
    size_t n = make_lines(&s, lines);
    bool targets = is_agentperf(trace);
    if (cli->format == APMW_FORMAT_JSON)
        return emit_json(cli, trace, lines, n, targets);
    return emit_table(cli, lines, n, targets);
}
