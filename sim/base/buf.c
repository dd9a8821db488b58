/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Room for n more bytes and the terminator. */
static int reserve(apmw_buf *buf, size_t n)
{
    if (buf->failed)
        return 0;
    if (n < buf->capacity - buf->length && buf->capacity > 0)
        return 1;
    size_t want = buf->length + n + 1;
    if (want <= n) {
        buf->failed = 1;
        return 0;
    }
    size_t capacity = buf->capacity + buf->capacity / 2;
    if (capacity < want)
        capacity = want;
    if (capacity < 256)
        capacity = 256;
    char *data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = 1;
        return 0;
    }
    buf->data = data;
    buf->capacity = capacity;
    return 1;
}

void apmw_buf_append(apmw_buf *buf, const void *bytes, size_t n)
{
    if (!reserve(buf, n))
        return;
    if (n > 0)
        memcpy(buf->data + buf->length, bytes, n);
    buf->length += n;
    buf->data[buf->length] = '\0';
}

void apmw_buf_puts(apmw_buf *buf, const char *text)
{
    apmw_buf_append(buf, text, strlen(text));
}

void apmw_buf_printf(apmw_buf *buf, const char *format, ...)
{
    if (!reserve(buf, 128))
        return;
    size_t room = buf->capacity - buf->length;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(buf->data + buf->length, room, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n >= room) {
        if (!reserve(buf, (size_t)n)) {
            buf->data[buf->length] = '\0';
            return;
        }
        va_start(args, format);
        n = vsnprintf(buf->data + buf->length, (size_t)n + 1, format, args);
        va_end(args);
    }
    if (n < 0) {
        buf->data[buf->length] = '\0';
        buf->failed = 1;
        return;
    }
    buf->length += (size_t)n;
}

void apmw_buf_free(apmw_buf *buf)
{
    free(buf->data);
    *buf = (apmw_buf){0};
}

uint64_t apmw_hash64(const void *bytes, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, n, seed);
}

void apmw_bytes_hash(const void *bytes, size_t n, char out[17])
{
    snprintf(out, 17, "%016llx", (unsigned long long)XXH3_64bits(bytes, n));
}
