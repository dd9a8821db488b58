/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Mooncake JSONL: one request a line with the ids of its prompt's blocks; rows with a session_id are AIPerf's
 * extension, where each row adds to the context of its session. How rows become trajectories is in
 * traces/FORMAT.md, section 5; the reuse that the ids tell is kept whole. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mooncake.h"

typedef struct file {
    const char *path;
    apmw_tr_row *rows;
    size_t n;
    int64_t block;
} file;

static apmw_status no_memory(const file *f, apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", f->path);
}

/* ---- rows -----------------------------------------------------------------------------------------------
 */

static apmw_status refuse_what_has_no_counts(const apmw_json_cur *root, apmw_error *err)
{
    if (apmw_json_has(root, "wait_for") || apmw_json_has(root, "prefix_reset")) {
        return apmw_json_error(root, err, APMW_E_DATA,
                               "Dynamo's agentic extension (wait_for, branches, prefix_reset) is not read");
    }
    if (!apmw_json_has(root, "input_length")) {
        return apmw_json_error(root, err, APMW_E_DATA,
                               "no input_length; rows that carry text instead of token counts are not read");
    }
    const char *mode = "delta";
    apmw_status status = apmw_json_opt_string(root, "message_mode", &mode, err);
    if (status == APMW_OK && strcmp(mode, "delta") != 0) {
        return apmw_json_error(root, err, APMW_E_DATA, "message_mode is \"%s\"; only \"delta\" is read",
                               mode);
    }
    return status;
}

static apmw_status read_row(const apmw_json_cur *root, apmw_tr_row *r, apmw_error *err)
{
    *r = (apmw_tr_row){.t_ms = (double)NAN, .delay_ms = (double)NAN};
    apmw_status status = refuse_what_has_no_counts(root, err);
    if (status == APMW_OK) {
        status = apmw_json_get_int(root, "input_length", 1, APMW_TR_MAX_TOKENS, &r->n_in, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(root, "output_length", 0, APMW_TR_MAX_TOKENS, &r->n_out, err);
        r->n_out = r->n_out > 0 ? r->n_out : 1;
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_double(root, "timestamp", 0, 1e15, &r->t_ms, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_double(root, "delay", 0, 8e9, &r->delay_ms, err);
    }
    const char *session = NULL;
    if (status == APMW_OK) {
        status = apmw_json_opt_string(root, "session_id", &session, err);
    }
    if (status == APMW_OK && session == NULL && isnan(r->t_ms)) {
        status = apmw_json_error(root, err, APMW_E_DATA, "neither timestamp nor session_id");
    }
    if (status == APMW_OK && apmw_json_has(root, "hash_ids")) {
        status = apmw_tr_ids(root, "hash_ids", &r->ids, &r->n_ids, err);
    }
    if (status == APMW_OK && session != NULL) {
        r->session = strdup(session);
        if (r->session == NULL) {
            status = apmw_json_error(root, err, APMW_E_NOMEM, "out of memory");
        }
    }
    return status;
}

static apmw_status read_rows(file *f, apmw_error *err)
{
    apmw_tr_reader *reader = NULL;
    apmw_status status = apmw_tr_reader_open(f->path, &reader, err);
    size_t capacity = 0;
    while (status == APMW_OK) {
        const char *text = NULL;
        size_t n = 0;
        int64_t line = 0;
        status = apmw_tr_reader_next(reader, &text, &n, &line, err);
        if (status != APMW_OK || text == NULL) {
            break;
        }
        if (f->n == capacity) {
            capacity = capacity == 0 ? 1024 : capacity * 2;
            apmw_tr_row *rows = realloc(f->rows, capacity * sizeof *rows);
            if (rows == NULL) {
                status = no_memory(f, err);
                break;
            }
            f->rows = rows;
        }
        char name[544];
        apmw_json *doc = NULL;
        snprintf(name, sizeof name, "%s:%lld", f->path, (long long)line);
        status = apmw_json_parse(name, text, n, &doc, err);
        if (status == APMW_OK) {
            apmw_json_cur root = apmw_json_root(doc);
            apmw_tr_row *r = &f->rows[f->n++];
            status = read_row(&root, r, err);
            r->line = line;
            r->order = f->n;
            apmw_json_free(doc);
        }
    }
    apmw_tr_reader_close(reader);
    if (status == APMW_OK && f->n > INT32_MAX / 2) {
        status = apmw_error_set(err, APMW_E_DATA, "%s: more than 2^30 rows", f->path);
    }
    return status;
}

/* The block size is not in the file: a prompt of n tokens has ceil(n / block) ids. 512 is the format's
 * default and is taken whenever it fits. */
static apmw_status find_block(file *f, apmw_error *err)
{
    static const int64_t sizes[] = {512, 16, 32, 64, 128, 256, 1024, 2048};
    const apmw_tr_row *bad = NULL;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        const apmw_tr_row *misfit = NULL;
        for (size_t i = 0; i < f->n && misfit == NULL; i++) {
            const apmw_tr_row *r = &f->rows[i];
            misfit = r->n_ids > 0 && (r->n_in + sizes[k] - 1) / sizes[k] != r->n_ids ? r : NULL;
        }
        if (misfit == NULL) {
            f->block = sizes[k];
            return APMW_OK;
        }
        bad = bad == NULL ? misfit : bad;
    }
    return apmw_error_set(
        err, APMW_E_DATA,
        "%s:%lld: /hash_ids: %d ids for %lld tokens; that fits neither blocks of 512 tokens nor, for "
        "all rows, of 16 to 2048",
        f->path, (long long)bad->line, bad->n_ids, (long long)bad->n_in);
}

/* Rows of sessions follow the others and keep the order of the file. */
static int by_time(const void *left, const void *right)
{
    const apmw_tr_row *a = left, *b = right;
    if ((a->session != NULL) != (b->session != NULL)) {
        return a->session != NULL ? 1 : -1;
    }
    if (a->session == NULL && a->t_ms != b->t_ms) {
        return a->t_ms > b->t_ms ? 1 : -1;
    }
    return a->order > b->order ? 1 : a->order < b->order ? -1 : 0;
}

static apmw_status load(const char *path, apmw_trace *trace, apmw_error *err)
{
    file f = {.path = path};
    apmw_status status = read_rows(&f, err);
    if (status == APMW_OK && f.n > 0) {
        status = find_block(&f, err);
        if (status == APMW_OK) {
            status = apmw_tr_set_block(trace, f.block, path, err);
        }
        if (status == APMW_OK) {
            qsort(f.rows, f.n, sizeof *f.rows, by_time);
            status = apmw_tr_mooncake_join(path, f.rows, f.n, f.block, trace, err);
        }
    }
    for (size_t i = 0; i < f.n; i++) {
        free(f.rows[i].ids);
        free(f.rows[i].session);
    }
    free(f.rows);
    return status;
}

const apmw_tr_format apmw_tr_format_mooncake = {
    {"mooncake",
     "Mooncake requests with block ids, JSON lines; also AIPerf's sessions of increments (traces/FORMAT.md, "
     "section 5)",
     false},
    load};
