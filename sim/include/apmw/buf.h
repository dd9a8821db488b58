/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Growing byte buffer, file reading (plain, .zst) and writing by temporary file + rename, content hashes. */
#ifndef APMW_BUF_H
#define APMW_BUF_H
#include <stddef.h>
#include <stdint.h>
#include "apmw/status.h"

typedef struct apmw_buf {
    char *data; /* always NUL-terminated when length > 0 or after any append */
    size_t length;
    size_t capacity;
    int failed; /* an allocation failed; later appends do nothing */
} apmw_buf;

void apmw_buf_append(apmw_buf *buf, const void *bytes, size_t n);
void apmw_buf_puts(apmw_buf *buf, const char *text);
__attribute__((format(printf, 2, 3))) void apmw_buf_printf(apmw_buf *buf, const char *format, ...);
void apmw_buf_free(apmw_buf *buf);

/* Reads a whole file into `out` (appended, NUL-terminated). Zstandard content is recognised by its magic
 * number, never by name. A truncated zstd frame is APMW_E_DATA. path "-" is standard input. */
apmw_status apmw_file_read(const char *path, apmw_buf *out, apmw_error *err);
/* Writes path.tmp.<pid> and renames it; on failure nothing is left. level < 0: plain, else zstd level. */
apmw_status apmw_file_write(const char *path, const void *bytes, size_t n, int zstd_level, apmw_error *err);
/* XXH3-64 of the raw file as 16 hex digits. */
apmw_status apmw_file_hash(const char *path, char out[17], apmw_error *err);
void apmw_bytes_hash(const void *bytes, size_t n, char out[17]);
uint64_t apmw_hash64(const void *bytes, size_t n, uint64_t seed);

#endif
