/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"

apmw_json_writer apmw_json_writer_make(apmw_buf *out)
{
    apmw_json_writer w = {.out = out, .depth = 0};
    w.first[0] = true;
    return w;
}

/* Length of the valid UTF-8 sequence at p, or 0 (RFC 3629: no overlong forms, surrogates or values over
 * 10FFFF). */
static size_t utf8_length(const unsigned char *p)
{
    size_t n = 0;
    if (p[0] < 0x80)
        n = 1;
    else if (p[0] >= 0xc2 && p[0] < 0xe0)
        n = 2;
    else if ((p[0] & 0xf0) == 0xe0)
        n = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        n = 4;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    bool wrong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                 (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return wrong ? 0 : n;
}

static void put_string(apmw_buf *out, const char *value)
{
    apmw_buf_puts(out, "\"");
    const unsigned char *p = (const unsigned char *)value;
    while (*p) {
        size_t n = utf8_length(p);
        if (*p == '"' || *p == '\\')
            apmw_buf_printf(out, "\\%c", *p);
        else if (*p == '\n')
            apmw_buf_puts(out, "\\n");
        else if (*p == '\t')
            apmw_buf_puts(out, "\\t");
        else if (*p < 0x20)
            apmw_buf_printf(out, "\\u%04x", *p);
        else if (n == 0)
            apmw_buf_puts(out, "\\ufffd"); /* a byte that is no UTF-8 would make the whole file unreadable */
        else
            apmw_buf_append(out, p, n);
        p += n ? n : 1;
    }
    apmw_buf_puts(out, "\"");
}

static void new_line(apmw_json_writer *w)
{
    static const char spaces[] = "                                                                ";
    apmw_buf_puts(w->out, "\n");
    apmw_buf_append(w->out, spaces, (size_t)w->depth);
}

static void begin_value(apmw_json_writer *w, const char *key)
{
    if (!w->first[w->depth])
        apmw_buf_puts(w->out, ",");
    w->first[w->depth] = false;
    if (w->depth > 0)
        new_line(w);
    if (key) {
        put_string(w->out, key);
        apmw_buf_puts(w->out, ": ");
    }
}

/* The root value ends the last line of the file. */
static void end_value(apmw_json_writer *w)
{
    if (w->depth == 0)
        apmw_buf_puts(w->out, "\n");
}

static void begin_container(apmw_json_writer *w, const char *key, const char *bracket)
{
    begin_value(w, key);
    apmw_buf_puts(w->out, bracket);
    APMW_CHECK(w->depth + 1 < (int)(sizeof w->first / sizeof w->first[0]));
    w->depth++;
    w->first[w->depth] = true;
}

static void end_container(apmw_json_writer *w, const char *bracket)
{
    APMW_CHECK(w->depth > 0);
    bool empty = w->first[w->depth];
    w->depth--;
    if (!empty)
        new_line(w);
    apmw_buf_puts(w->out, bracket);
    end_value(w);
}

void apmw_json_begin_object(apmw_json_writer *w, const char *key)
{
    begin_container(w, key, "{");
}

void apmw_json_end_object(apmw_json_writer *w)
{
    end_container(w, "}");
}

void apmw_json_begin_array(apmw_json_writer *w, const char *key)
{
    begin_container(w, key, "[");
}

void apmw_json_end_array(apmw_json_writer *w)
{
    end_container(w, "]");
}

void apmw_json_string(apmw_json_writer *w, const char *key, const char *value)
{
    begin_value(w, key);
    if (value)
        put_string(w->out, value);
    else
        apmw_buf_puts(w->out, "null");
    end_value(w);
}

void apmw_json_double(apmw_json_writer *w, const char *key, double value)
{
    begin_value(w, key);
    char text[32] = "null";
    if (isfinite(value))
        apmw_double_text(value, text);
    apmw_buf_puts(w->out, text);
    end_value(w);
}

void apmw_json_int(apmw_json_writer *w, const char *key, int64_t value)
{
    begin_value(w, key);
    apmw_buf_printf(w->out, "%lld", (long long)value);
    end_value(w);
}

void apmw_json_bool(apmw_json_writer *w, const char *key, bool value)
{
    begin_value(w, key);
    apmw_buf_puts(w->out, value ? "true" : "false");
    end_value(w);
}

void apmw_json_null(apmw_json_writer *w, const char *key)
{
    begin_value(w, key);
    apmw_buf_puts(w->out, "null");
    end_value(w);
}
