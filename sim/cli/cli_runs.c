/* SPDX-License-Identifier: GPL-3.0-or-later */
/* `apmw validate` of measured runs of listed requests. */
#include "cli_runs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"

static double error_of(double predicted, double measured)
{
    return 100.0 * (predicted / measured - 1.0);
}

static apmw_table *each(const apmw_measured_runs *all)
{
    static const char *const columns[] = {"run", "prompt_tokens", "output_tokens", "cached_tokens", "ttft_ms", "predicted_ttft_ms",
                                          "tpot_ms", "predicted_tpot_ms", "e2e_ms", "predicted_e2e_ms"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (size_t i = 0; table != NULL && i < all->n; i++) {
        for (size_t k = 0; k < all->runs[i].n; k++) {
            const apmw_run_request *r = &all->runs[i].requests[k];
            apmw_table_text(table, all->runs[i].name);
            apmw_table_int(table, (long long)r->n_prompt);
            apmw_table_int(table, (long long)r->n_out);
            apmw_table_int(table, (long long)r->n_cached);
            const double seconds[] = {r->ttft_s, r->predicted_ttft_s, r->tpot_s, r->predicted_tpot_s, r->e2e_s, r->predicted_e2e_s};
            for (size_t c = 0; c < sizeof seconds / sizeof seconds[0]; c++)
                apmw_table_number(table, 1e3 * seconds[c], 4);
        }
    }
    return table;
}

typedef double figure(const apmw_run_figures *f);
static double ttft(const apmw_run_figures *f)
{
    return f->ttft_s;
}
static double ttft_mean(const apmw_run_figures *f)
{
    return f->ttft_mean_s;
}
static double tpot(const apmw_run_figures *f)
{
    return f->tpot_s;
}
static double e2e(const apmw_run_figures *f)
{
    return f->e2e_s;
}
static figure *const FIGURES[] = {ttft, ttft_mean, tpot, e2e};
enum { N_FIGURES = sizeof FIGURES / sizeof FIGURES[0] };

/* Median absolute error over the runs of a kind. */
static void kind_line(apmw_table *table, const apmw_measured_runs *all, const char *kind, double *scratch)
{
    apmw_table_text(table, "median abs error");
    apmw_table_text(table, kind);
    for (int empty = 0; empty < 4; empty++)
        apmw_table_text(table, NULL);
    for (int f = 0; f < N_FIGURES; f++) {
        size_t n = 0;
        for (size_t i = 0; i < all->n; i++) {
            const apmw_measured_run *r = &all->runs[i];
            if (strcmp(r->kind, kind) == 0)
                scratch[n++] = fabs(error_of(FIGURES[f](&r->predicted), FIGURES[f](&r->measured)));
        }
        apmw_table_text(table, NULL);
        apmw_table_text(table, NULL);
        apmw_table_number(table, apmw_quantile_unsorted(scratch, n, 0.5), 3);
    }
}

static apmw_table *by_run(const apmw_measured_runs *all, double *scratch)
{
    static const char *const columns[] = {"run", "kind", "concurrency", "requests", "cached_percent", "accept_length",
                                          "ttft_p50_ms", "predicted_ttft_p50_ms", "ttft_error_percent",
                                          "ttft_mean_ms", "predicted_ttft_mean_ms", "ttft_mean_error_percent",
                                          "tpot_p50_ms", "predicted_tpot_p50_ms", "tpot_error_percent",
                                          "e2e_p50_ms", "predicted_e2e_p50_ms", "e2e_error_percent"};
    apmw_table *table = apmw_table_create(sizeof columns / sizeof columns[0], columns);
    for (size_t i = 0; table != NULL && i < all->n; i++) {
        const apmw_measured_run *r = &all->runs[i];
        apmw_table_text(table, r->name);
        apmw_table_text(table, r->kind);
        apmw_table_int(table, (long long)r->concurrency);
        apmw_table_int(table, (long long)r->n);
        apmw_table_number(table, 100.0 * r->cached_share, 3);
        apmw_table_number(table, r->accept_length, 4);
        for (int f = 0; f < N_FIGURES; f++) {
            const double m = FIGURES[f](&r->measured), p = FIGURES[f](&r->predicted);
            apmw_table_number(table, 1e3 * m, 4);
            apmw_table_number(table, 1e3 * p, 4);
            apmw_table_number(table, error_of(p, m), 3);
        }
    }
    for (size_t i = 0; table != NULL && i < all->n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++)
            seen = strcmp(all->runs[k].kind, all->runs[i].kind) == 0;
        if (!seen)
            kind_line(table, all, all->runs[i].kind, scratch);
    }
    return table;
}

static apmw_status note_inputs(apmw_cli *cli, const char *path, apmw_error *err)
{
    static const char *const FILES[] = {"scenario.json", "requests.csv"};
    const char *slash = strrchr(path, '/');
    apmw_status status = APMW_OK;
    for (size_t i = 0; i < 2 && status == APMW_OK; i++) {
        char beside[1100];
        snprintf(beside, sizeof beside, "%.*s%s", slash == NULL ? 0 : (int)(slash - path) + 1, path, FILES[i]);
        status = apmw_cli_input(cli, beside, err);
    }
    return status;
}

int apmw_cli_validate_runs(apmw_cli *cli, apmw_catalog *catalog, const char *path, bool rows)
{
    apmw_error err = {0};
    apmw_measured_runs all;
    apmw_status status = apmw_measured_runs_load(path, &all, &err);
    if (status == APMW_OK)
        status = note_inputs(cli, path, &err);
    bool stopped = false;
    for (size_t i = 0; i < all.n && status == APMW_OK && !stopped; i++) {
        apmw_cli_progress(cli, "simulating", i, all.n);
        status = apmw_measured_run_predict(catalog, &all.scenario, &all.runs[i], &err);
        stopped = apmw_cli_interrupted();
    }
    apmw_cli_progress_end(cli);
    double *scratch = status == APMW_OK ? calloc(all.n + 1, sizeof *scratch) : NULL;
    apmw_table *table = scratch == NULL ? NULL : rows ? each(&all) : by_run(&all, scratch);
    free(scratch);
    apmw_measured_runs_free(&all);
    if (status != APMW_OK)
        return apmw_cli_fail(cli, &err);
    if (table == NULL)
        return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
    const int code = apmw_cli_emit_table(cli, table);
    return code == APMW_OK && stopped ? 130 : code;
}
