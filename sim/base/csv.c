/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One allocation holds the text; separators in it become terminators and cells are pointers into it. */
#include "apmw/csv.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/buf.h"
#include "apmw/text.h"
#include "number.h"

struct apmw_csv {
    char *file;
    char *text;
    size_t n_cols, n_rows;
    const char **cells; /* the names, then the rows */
    size_t n_cells, capacity;
    uint32_t *lines; /* line of each row, for messages */
    size_t lines_capacity;
};

typedef struct reader {
    apmw_csv *csv;
    char *at, *end;
    uint32_t line;
    apmw_error *err;
} reader;

static apmw_status no_memory(const apmw_csv *csv, apmw_error *err)
{
    return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", csv->file);
}

static bool push_cell(apmw_csv *csv, const char *cell)
{
    if (csv->n_cells == csv->capacity) {
        size_t capacity = csv->capacity ? csv->capacity + csv->capacity / 2 : 256;
        const char **cells = realloc(csv->cells, capacity * sizeof *cells);
        if (!cells)
            return false;
        csv->cells = cells;
        csv->capacity = capacity;
    }
    csv->cells[csv->n_cells++] = cell;
    return true;
}

static bool push_line(apmw_csv *csv, uint32_t line)
{
    if (csv->n_rows == csv->lines_capacity) {
        size_t capacity = csv->lines_capacity ? csv->lines_capacity + csv->lines_capacity / 2 : 64;
        uint32_t *lines = realloc(csv->lines, capacity * sizeof *lines);
        if (!lines)
            return false;
        csv->lines = lines;
        csv->lines_capacity = capacity;
    }
    csv->lines[csv->n_rows++] = line;
    return true;
}

/* Reads a quoted cell in place; `at` stands behind the opening quote and ends behind the closing one. */
static apmw_status read_quoted(reader *r, char **to)
{
    uint32_t begun = r->line;
    char *out = r->at;
    while (r->at < r->end) {
        char c = *r->at++;
        if (c == '"') {
            if (r->at < r->end && *r->at == '"') {
                r->at++;
            } else {
                *to = out;
                return APMW_OK;
            }
        } else if (c == '\n') {
            r->line++;
        }
        *out++ = c;
    }
    return apmw_error_set(r->err, APMW_E_DATA, "%s:%u: a quoted cell does not end", r->csv->file, begun);
}

/* Reads the cells of one line, the line's end included. */
static apmw_status read_line(reader *r)
{
    for (;;) {
        char *cell = r->at, *stop = cell;
        if (r->at < r->end && *r->at == '"') {
            r->at++;
            cell = r->at;
            apmw_status status = read_quoted(r, &stop);
            if (status != APMW_OK)
                return status;
        } else {
            while (r->at < r->end && *r->at != ',' && *r->at != '\n' && *r->at != '"')
                r->at++;
            stop = r->at;
        }
        if (!push_cell(r->csv, cell))
            return no_memory(r->csv, r->err);
        char *next = r->at;
        if (next < r->end && *next == '\r' && (next + 1 == r->end || next[1] == '\n'))
            next++;
        bool last = next == r->end || *next == '\n';
        if (!last && *next != ',')
            return apmw_error_set(r->err, APMW_E_DATA,
                                  "%s:%u: a quote inside of a cell (quote the whole cell)", r->csv->file,
                                  r->line);
        if (last && stop > cell && stop == next && stop[-1] == '\r')
            stop--;
        r->at = next < r->end ? next + 1 : next;
        *stop = '\0';
        if (last) {
            r->line++;
            return APMW_OK;
        }
    }
}

static bool blank_line(const reader *r)
{
    const char *p = r->at;
    if (p < r->end && *p == '\r')
        p++;
    return p == r->end || *p == '\n';
}

static apmw_status check_names(const apmw_csv *csv, apmw_error *err)
{
    for (size_t i = 0; i < csv->n_cols; i++) {
        for (size_t j = 0; j < i; j++) {
            if (csv->cells[i][0] && strcmp(csv->cells[i], csv->cells[j]) == 0)
                return apmw_error_set(err, APMW_E_DATA, "%s: column \"%s\" is there twice", csv->file,
                                      csv->cells[i]);
        }
    }
    return APMW_OK;
}

static apmw_status read_table(reader *r)
{
    apmw_csv *csv = r->csv;
    const char *nul = memchr(r->at, '\0', (size_t)(r->end - r->at));
    if (nul)
        return apmw_error_set(r->err, APMW_E_DATA, "%s: NUL byte at offset %zu", csv->file,
                              (size_t)(nul - r->at));
    if (r->end - r->at >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0)
        r->at += 3;
    if (r->at == r->end || blank_line(r))
        return apmw_error_set(r->err, APMW_E_DATA, "%s:1: column names are expected, the line is empty",
                              csv->file);
    apmw_status status = read_line(r);
    if (status != APMW_OK)
        return status;
    csv->n_cols = csv->n_cells;
    status = check_names(csv, r->err);
    while (status == APMW_OK && r->at < r->end) {
        if (blank_line(r)) {
            while (r->at < r->end && *r->at != '\n')
                r->at++;
            r->at += r->at < r->end;
            r->line++;
            continue;
        }
        uint32_t line = r->line;
        size_t before = csv->n_cells;
        status = read_line(r);
        if (status != APMW_OK)
            break;
        if (csv->n_cells - before != csv->n_cols)
            return apmw_error_set(r->err, APMW_E_DATA,
                                  "%s:%u: %zu cells, %zu columns are named in the first line", csv->file,
                                  line, csv->n_cells - before, csv->n_cols);
        if (!push_line(csv, line))
            return no_memory(csv, r->err);
    }
    return status;
}

/* Takes over `text` (length n, text[n] writable). */
static apmw_status parse_owned(const char *name, char *text, size_t n, apmw_csv **out, apmw_error *err)
{
    apmw_csv *csv = calloc(1, sizeof *csv);
    if (!csv || !(csv->file = strdup(name))) {
        free(text);
        free(csv);
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", name);
    }
    csv->text = text;
    reader r = {.csv = csv, .at = text, .end = text + n, .line = 1, .err = err};
    apmw_status status = read_table(&r);
    if (status != APMW_OK) {
        apmw_csv_free(csv);
        return status;
    }
    *out = csv;
    return APMW_OK;
}

apmw_status apmw_csv_parse(const char *name, const char *text, size_t n, apmw_csv **out, apmw_error *err)
{
    *out = NULL;
    char *copy = malloc(n + 1);
    if (!copy)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", name);
    if (n > 0)
        memcpy(copy, text, n);
    copy[n] = '\0';
    return parse_owned(name, copy, n, out, err);
}

apmw_status apmw_csv_load(const char *path, apmw_csv **out, apmw_error *err)
{
    *out = NULL;
    apmw_buf text = {0};
    apmw_status status = apmw_file_read(path, &text, err);
    if (status != APMW_OK) {
        apmw_buf_free(&text);
        return status;
    }
    return parse_owned(path, text.data, text.length, out, err);
}

void apmw_csv_free(apmw_csv *csv)
{
    if (!csv)
        return;
    free(csv->file);
    free(csv->text);
    free(csv->cells);
    free(csv->lines);
    free(csv);
}

size_t apmw_csv_rows(const apmw_csv *csv)
{
    return csv->n_rows;
}

size_t apmw_csv_cols(const apmw_csv *csv)
{
    return csv->n_cols;
}

const char *apmw_csv_name(const apmw_csv *csv, size_t col)
{
    APMW_CHECK(col < csv->n_cols);
    return csv->cells[col];
}

int apmw_csv_col(const apmw_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->n_cols; i++) {
        if (strcmp(csv->cells[i], name) == 0)
            return (int)i;
    }
    return -1;
}

apmw_status apmw_csv_need(const apmw_csv *csv, const char *name, int *col, apmw_error *err)
{
    *col = apmw_csv_col(csv, name);
    if (*col >= 0)
        return APMW_OK;
    const char *near = apmw_near(name, csv->cells, csv->n_cols);
    if (near)
        return apmw_error_set(err, APMW_E_DATA, "%s: column \"%s\" is missing (there is \"%s\")", csv->file,
                              name, near);
    return apmw_error_set(err, APMW_E_DATA, "%s: column \"%s\" is missing", csv->file, name);
}

const char *apmw_csv_cell(const apmw_csv *csv, size_t row, int col)
{
    if (col < 0)
        return "";
    APMW_CHECK(row < csv->n_rows && (size_t)col < csv->n_cols);
    return csv->cells[(row + 1) * csv->n_cols + (size_t)col];
}

static apmw_status not_a(const apmw_csv *csv, size_t row, int col, const char *what, apmw_error *err)
{
    return apmw_error_set(err, APMW_E_DATA, "%s:%u: %s: \"%.80s\" is not %s", csv->file, csv->lines[row],
                          csv->cells[col], apmw_csv_cell(csv, row, col), what);
}

apmw_status apmw_csv_double(const apmw_csv *csv, size_t row, int col, double *out, apmw_error *err)
{
    const char *cell = apmw_csv_cell(csv, row, col);
    *out = (double)NAN;
    if (*cell == '\0' || apmw_parse_double(cell, out))
        return APMW_OK;
    return not_a(csv, row, col, "a number", err);
}

apmw_status apmw_csv_int(const apmw_csv *csv, size_t row, int col, int64_t missing, int64_t *out,
                         apmw_error *err)
{
    const char *cell = apmw_csv_cell(csv, row, col);
    *out = missing;
    if (*cell == '\0' || apmw_parse_int(cell, out))
        return APMW_OK;
    return not_a(csv, row, col, "an integer", err);
}
