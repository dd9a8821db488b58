/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Splits a file into top-level JSON objects, so that a corpus of any size is read one session at a time.
 * The splitter only counts braces outside strings; whether the text in between is JSON is the parser's
 * matter. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "private.h"

enum { CHUNK = 1 << 17 };
/* The largest session known (1M tokens, 3,000 requests with full hash lists) is about 100 MB of text. */
static const size_t max_value = (size_t)1 << 31;

struct apmw_tr_reader {
    char path[512];
    FILE *file;
    ZSTD_DStream *zstd; /* NULL for plain files */
    unsigned char *in;
    ZSTD_inBuffer raw;
    bool raw_end, frame_open;
    char *text; /* decompressed, not yet consumed: [at, end) */
    size_t at, end, capacity;
    int64_t line;
    bool in_array, started, done;
};

static apmw_status fill_raw(apmw_tr_reader *r, apmw_error *err)
{
    size_t n = fread(r->in, 1, CHUNK, r->file);
    if (n == 0 && ferror(r->file)) {
        return apmw_error_set(err, APMW_E_IO, "%s: %s", r->path, strerror(errno));
    }
    r->raw = (ZSTD_inBuffer){r->in, n, 0};
    r->raw_end = n == 0;
    return APMW_OK;
}

/* Appends decompressed bytes; *more = false when the content has ended. */
static apmw_status fill(apmw_tr_reader *r, bool *more, apmw_error *err)
{
    if (r->at > 0) {
        memmove(r->text, r->text + r->at, r->end - r->at);
        r->end -= r->at;
        r->at = 0;
    }
    if (r->capacity - r->end < CHUNK) {
        size_t capacity = r->capacity * 2;
        if (r->end > max_value) {
            return apmw_error_set(err, APMW_E_DATA,
                                  "%s:%lld: the object that begins here is longer than 2 GiB", r->path,
                                  (long long)r->line);
        }
        char *text = realloc(r->text, capacity);
        if (text == NULL) {
            return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", r->path);
        }
        r->text = text;
        r->capacity = capacity;
    }
    *more = false;
    while (!*more) {
        if (r->raw.pos == r->raw.size && !r->raw_end) {
            apmw_status status = fill_raw(r, err);
            if (status != APMW_OK) {
                return status;
            }
        }
        if (r->raw.pos == r->raw.size) {
            if (r->frame_open) {
                return apmw_error_set(err, APMW_E_DATA, "%s: truncated: the zstd frame is not complete",
                                      r->path);
            }
            return APMW_OK;
        }
        if (r->zstd == NULL) {
            memcpy(r->text + r->end, r->in, r->raw.size);
            r->end += r->raw.size;
            r->raw.pos = r->raw.size;
            *more = true;
            continue;
        }
        ZSTD_outBuffer out = {r->text + r->end, CHUNK, 0};
        size_t rest = ZSTD_decompressStream(r->zstd, &out, &r->raw);
        if (ZSTD_isError(rest)) {
            return apmw_error_set(err, APMW_E_DATA, "%s: damaged zstd content: %s", r->path,
                                  ZSTD_getErrorName(rest));
        }
        r->frame_open = rest != 0;
        r->end += out.pos;
        *more = out.pos > 0;
    }
    return APMW_OK;
}

apmw_status apmw_tr_reader_open(const char *path, apmw_tr_reader **out, apmw_error *err)
{
    *out = NULL;
    apmw_tr_reader *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    }
    snprintf(r->path, sizeof r->path, "%s", path);
    r->line = 1;
    r->capacity = 2 * CHUNK;
    r->in = malloc(CHUNK);
    r->text = malloc(r->capacity);
    r->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    apmw_status status = APMW_OK;
    if (r->file == NULL) {
        status = apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    } else if (r->in == NULL || r->text == NULL) {
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    } else {
        status = fill_raw(r, err);
    }
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    if (status == APMW_OK && r->raw.size >= 4 && memcmp(r->in, magic, 4) == 0) {
        r->zstd = ZSTD_createDStream();
        if (r->zstd == NULL) {
            status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
        }
    }
    if (status == APMW_OK && r->raw.size >= 2 && r->in[0] == 0x1f && r->in[1] == 0x8b) {
        status = apmw_error_set(
            err, APMW_E_DATA, "%s: gzip content; decompress it, or convert it with 'zcat FILE | zstd'", path);
    }
    if (status != APMW_OK) {
        apmw_tr_reader_close(r);
        return status;
    }
    *out = r;
    return APMW_OK;
}

void apmw_tr_reader_close(apmw_tr_reader *r)
{
    if (r == NULL) {
        return;
    }
    if (r->file != NULL && r->file != stdin) {
        fclose(r->file);
    }
    ZSTD_freeDStream(r->zstd);
    free(r->in);
    free(r->text);
    free(r);
}

apmw_status apmw_tr_reader_peek(apmw_tr_reader *r, const char **text, size_t *n, apmw_error *err)
{
    bool more = true;
    while (more && r->end - r->at < CHUNK / 2) {
        apmw_status status = fill(r, &more, err);
        if (status != APMW_OK) {
            return status;
        }
    }
    *text = r->text + r->at;
    *n = r->end - r->at;
    return APMW_OK;
}

/* Skips white space and what separates values; *c = the next byte, or -1 at the end. */
static apmw_status skip_to_value(apmw_tr_reader *r, int *c, apmw_error *err)
{
    bool comma = false;
    for (;;) {
        if (r->at == r->end) {
            bool more = false;
            apmw_status status = fill(r, &more, err);
            if (status != APMW_OK || !more) {
                *c = -1;
                return status;
            }
        }
        *c = (unsigned char)r->text[r->at];
        if (*c == '\n') {
            r->line++;
        } else if (*c == ',' && r->in_array && r->started && !comma) {
            comma = true;
        } else if (*c == ']' && r->in_array && !comma && !r->done) {
            r->done = true;
        } else if (*c == '[' && !r->in_array && !r->started) {
            r->in_array = true;
        } else if (*c != ' ' && *c != '\t' && *c != '\r') {
            if (*c == '{' && r->in_array && r->started && !comma) {
                return apmw_error_set(err, APMW_E_DATA, "%s:%lld: expected ',' or ']' between objects",
                                      r->path, (long long)r->line);
            }
            return APMW_OK;
        }
        r->at++;
    }
}

apmw_status apmw_tr_reader_next(apmw_tr_reader *r, const char **text, size_t *n, int64_t *line,
                                apmw_error *err)
{
    *text = NULL;
    *n = 0;
    int c = 0;
    apmw_status status = skip_to_value(r, &c, err);
    *line = r->line;
    if (status != APMW_OK) {
        return status;
    }
    if (c == -1) {
        if (r->in_array && !r->done) {
            return apmw_error_set(err, APMW_E_DATA, "%s:%lld: truncated: the array is not closed", r->path,
                                  (long long)r->line);
        }
        return APMW_OK;
    }
    if (c != '{' || r->done) {
        return apmw_error_set(err, APMW_E_DATA, "%s:%lld: expected %s, found byte 0x%02x", r->path,
                              (long long)r->line, r->done ? "the end of the file" : "an object '{'",
                              (unsigned)c);
    }
    r->started = true;
    int depth = 0;
    bool in_string = false, escaped = false;
    int64_t last = r->line;
    for (size_t k = 0;; k++) {
        if (r->at + k == r->end) {
            bool more = false;
            status = fill(r, &more, err);
            if (status != APMW_OK) {
                return status;
            }
            if (!more) {
                return apmw_error_set(
                    err, APMW_E_DATA,
                    "%s:%lld: truncated: the object that begins here is not closed at the end "
                    "of the file",
                    r->path, (long long)*line);
            }
        }
        char ch = r->text[r->at + k];
        if (ch == '\n') {
            last++;
        }
        if (in_string) {
            in_string = escaped || ch != '"';
            escaped = !escaped && ch == '\\';
        } else if (ch == '"') {
            in_string = true;
        } else if (ch == '{' || ch == '[') {
            depth++;
        } else if ((ch == '}' || ch == ']') && --depth == 0) {
            *text = r->text + r->at;
            *n = k + 1;
            r->at += k + 1;
            r->line = last;
            return APMW_OK;
        }
    }
}

apmw_status apmw_tr_reader_json(apmw_tr_reader *r, apmw_json **doc, apmw_error *err)
{
    *doc = NULL;
    const char *text = NULL;
    size_t n = 0;
    int64_t line = 0;
    apmw_status status = apmw_tr_reader_next(r, &text, &n, &line, err);
    if (status != APMW_OK || text == NULL) {
        return status;
    }
    char name[544];
    snprintf(name, sizeof name, "%s:%lld", r->path, (long long)line);
    return apmw_json_parse(name, text, n, doc, err);
}
