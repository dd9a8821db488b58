/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Result tables: the same cells as aligned text, JSON rows or CSV. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/text.h"

typedef enum cell_kind { CELL_MISSING, CELL_TEXT, CELL_NUMBER, CELL_INT } cell_kind;

typedef struct cell {
    cell_kind kind;
    int digits;
    union {
        char *text;
        double number;
        long long integer;
    } as;
} cell;

struct apmw_table {
    size_t n_cols;
    char **names;
    cell *cells;
    size_t n_cells, capacity;
    bool failed; /* an allocation failed; rendering then marks the buffer */
};

apmw_table *apmw_table_create(size_t n_cols, const char *const *names)
{
    APMW_CHECK(n_cols >= 1);
    apmw_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->n_cols = n_cols;
    table->names = calloc(n_cols, sizeof *table->names);
    for (size_t i = 0; table->names && i < n_cols; i++) {
        table->names[i] = strdup(names[i]);
        table->failed |= !table->names[i];
    }
    if (!table->names || table->failed) {
        apmw_table_free(table);
        return NULL;
    }
    return table;
}

void apmw_table_free(apmw_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->n_cells; i++) {
        if (table->cells[i].kind == CELL_TEXT)
            free(table->cells[i].as.text);
    }
    for (size_t i = 0; table->names && i < table->n_cols; i++)
        free(table->names[i]);
    free(table->names);
    free(table->cells);
    free(table);
}

static void push(apmw_table *table, cell value)
{
    if (table->n_cells == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        cell *cells = realloc(table->cells, capacity * sizeof *cells);
        if (!cells) {
            table->failed = true;
            if (value.kind == CELL_TEXT)
                free(value.as.text);
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    table->cells[table->n_cells++] = value;
}

void apmw_table_text(apmw_table *table, const char *value)
{
    cell c = {.kind = CELL_MISSING};
    if (value) {
        c.kind = CELL_TEXT;
        c.as.text = strdup(value);
        if (!c.as.text) {
            table->failed = true;
            return;
        }
    }
    push(table, c);
}

void apmw_table_number(apmw_table *table, double value, int digits)
{
    cell c = {.kind = isfinite(value) ? CELL_NUMBER : CELL_MISSING, .digits = digits};
    if (c.kind == CELL_NUMBER)
        c.as.number = value;
    push(table, c);
}

void apmw_table_int(apmw_table *table, long long value)
{
    push(table, (cell){.kind = CELL_INT, .as.integer = value});
}

/* Significant digits without an exponent where people read numbers so; 12345 with 3 digits is "12345", since
 * rounding it to 12300 would look exact. */
static void number_text(double value, int digits, char *out, size_t size)
{
    double magnitude = fabs(value);
    if (magnitude == 0)
        snprintf(out, size, "0");
    else if (magnitude < 1e-4 || magnitude >= 1e15)
        snprintf(out, size, "%.*e", digits > 1 ? digits - 1 : 0, value);
    else {
        /* The exponent after rounding to `digits`, so that 9.996 with 3 digits is 10.0 and not 10.00. */
        char scientific[48];
        snprintf(scientific, sizeof scientific, "%.*e", digits > 1 ? digits - 1 : 0, value);
        const char *e = strchr(scientific, 'e');
        int exponent = e ? atoi(e + 1) : 0;
        int decimals = digits - 1 - exponent;
        snprintf(out, size, "%.*f", decimals > 0 ? decimals : 0, value);
    }
}

static const char *cell_text(const cell *c, char *scratch, size_t size)
{
    switch (c->kind) {
    case CELL_TEXT:
        return c->as.text;
    case CELL_NUMBER:
        number_text(c->as.number, c->digits, scratch, size);
        return scratch;
    case CELL_INT:
        snprintf(scratch, size, "%lld", c->as.integer);
        return scratch;
    case CELL_MISSING:
        break;
    }
    return "-";
}

/* Columns on the screen, taking each UTF-8 character as one. */
static size_t width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static const cell *cell_at(const apmw_table *table, size_t row, size_t col)
{
    static const cell missing = {.kind = CELL_MISSING};
    size_t i = row * table->n_cols + col;
    return i < table->n_cells ? &table->cells[i] : &missing;
}

static void put_padded(apmw_buf *out, const char *text, size_t size, bool right, bool last)
{
    size_t pad = size - width(text);
    if (right)
        apmw_buf_printf(out, "%*s%s", (int)pad, "", text);
    else if (last)
        apmw_buf_puts(out, text);
    else
        apmw_buf_printf(out, "%s%*s", text, (int)pad, "");
    apmw_buf_puts(out, last ? "\n" : "  ");
}

static void render_text(const apmw_table *table, size_t n_rows, apmw_buf *out)
{
    char scratch[352]; /* %.*f of 1e15 with any sensible digits */
    size_t *widths = calloc(table->n_cols, sizeof *widths);
    bool *right = calloc(table->n_cols, sizeof *right);
    if (!widths || !right) {
        out->failed = 1;
        free(widths);
        free(right);
        return;
    }
    for (size_t col = 0; col < table->n_cols; col++) {
        widths[col] = width(table->names[col]);
        for (size_t row = 0; row < n_rows; row++) {
            const cell *c = cell_at(table, row, col);
            size_t w = width(cell_text(c, scratch, sizeof scratch));
            widths[col] = w > widths[col] ? w : widths[col];
            right[col] |= c->kind == CELL_NUMBER || c->kind == CELL_INT;
        }
    }
    for (size_t col = 0; col < table->n_cols; col++)
        put_padded(out, table->names[col], widths[col], right[col], col + 1 == table->n_cols);
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t col = 0; col < table->n_cols; col++)
            put_padded(out, cell_text(cell_at(table, row, col), scratch, sizeof scratch), widths[col],
                       right[col], col + 1 == table->n_cols);
    }
    free(widths);
    free(right);
}

static void put_csv(apmw_buf *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        apmw_buf_puts(out, text);
        return;
    }
    apmw_buf_puts(out, "\"");
    for (; *text; text++) {
        if (*text == '"')
            apmw_buf_puts(out, "\"");
        apmw_buf_append(out, text, 1);
    }
    apmw_buf_puts(out, "\"");
}

static void render_csv(const apmw_table *table, size_t n_rows, apmw_buf *out)
{
    for (size_t col = 0; col < table->n_cols; col++) {
        apmw_buf_puts(out, col ? "," : "");
        put_csv(out, table->names[col]);
    }
    apmw_buf_puts(out, "\n");
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t col = 0; col < table->n_cols; col++) {
            const cell *c = cell_at(table, row, col);
            char number[32];
            apmw_buf_puts(out, col ? "," : "");
            if (c->kind == CELL_TEXT)
                put_csv(out, c->as.text);
            else if (c->kind == CELL_INT)
                apmw_buf_printf(out, "%lld", c->as.integer);
            else if (c->kind == CELL_NUMBER) {
                apmw_double_text(c->as.number, number);
                apmw_buf_puts(out, number);
            }
        }
        apmw_buf_puts(out, "\n");
    }
}

static void render_json(const apmw_table *table, size_t n_rows, apmw_buf *out)
{
    apmw_json_writer w = apmw_json_writer_make(out);
    apmw_json_begin_array(&w, NULL);
    for (size_t row = 0; row < n_rows; row++) {
        apmw_json_begin_object(&w, NULL);
        for (size_t col = 0; col < table->n_cols; col++) {
            const cell *c = cell_at(table, row, col);
            const char *name = table->names[col];
            if (c->kind == CELL_TEXT)
                apmw_json_string(&w, name, c->as.text);
            else if (c->kind == CELL_INT)
                apmw_json_int(&w, name, c->as.integer);
            else if (c->kind == CELL_NUMBER)
                apmw_json_double(&w, name, c->as.number);
            else
                apmw_json_null(&w, name);
        }
        apmw_json_end_object(&w);
    }
    apmw_json_end_array(&w);
}

void apmw_table_render(const apmw_table *table, apmw_format format, apmw_buf *out)
{
    if (table->failed) {
        out->failed = 1;
        return;
    }
    size_t n_rows = (table->n_cells + table->n_cols - 1) / table->n_cols;
    if (format == APMW_FORMAT_JSON)
        render_json(table, n_rows, out);
    else if (format == APMW_FORMAT_CSV)
        render_csv(table, n_rows, out);
    else
        render_text(table, n_rows, out);
}
