/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Files as a whole: reading with zstd recognised by content, writing by temporary file and rename, hashes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "apmw/buf.h"
#include "apmw/text.h"

enum { CHUNK_BYTES = 256 * 1024 };

/* A missing file is most often a misspelt one: the message names the nearest neighbour. */
static apmw_status missing_file(const char *path, apmw_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    DIR *dir = directory ? opendir(directory) : NULL;
    free(directory);
    char near[256] = "";
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        /* apmw_near takes the first of equals, so the pair goes by name and not in the order of the
         * directory. */
        bool first = strcmp(entry->d_name, near) < 0;
        const char *const pair[] = {first ? entry->d_name : near, first ? near : entry->d_name};
        if (apmw_near(name, pair, 2) == entry->d_name)
            apmw_copy(near, sizeof near, entry->d_name);
    }
    if (dir)
        closedir(dir);
    if (near[0])
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: no such file (there is \"%s\")", path, near);
    return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(ENOENT));
}

static apmw_status open_input(const char *path, int *fd, apmw_error *err)
{
    if (strcmp(path, "-") == 0) {
        *fd = STDIN_FILENO;
        return APMW_OK;
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT)
        return missing_file(path, err);
    if (*fd < 0)
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(*fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        close(*fd);
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: is a directory, a file is expected", path);
    }
    return APMW_OK;
}

static void close_input(int fd)
{
    if (fd != STDIN_FILENO)
        close(fd);
}

/* Reads until `size` bytes or the end of the file, so that only the last chunk is short. */
static ssize_t read_full(int fd, char *out, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, out + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static bool is_zstd(const char *bytes, size_t n)
{
    return n >= 4 && memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0;
}

/* Feeds one chunk. *pending is what ZSTD_decompressStream said last: 0 exactly at the end of a frame. */
static apmw_status inflate_chunk(const char *path, ZSTD_DStream *stream, const char *bytes, size_t n,
                                 char *scratch, size_t scratch_size, size_t *pending, apmw_buf *out,
                                 apmw_error *err)
{
    ZSTD_inBuffer input = {bytes, n, 0};
    bool flushed = false;
    while (input.pos < input.size || !flushed) {
        ZSTD_outBuffer output = {scratch, scratch_size, 0};
        size_t at = input.pos;
        if (input.pos == input.size && *pending == 0)
            break;
        size_t result = ZSTD_decompressStream(stream, &output, &input);
        if (ZSTD_isError(result))
            return apmw_error_set(err, APMW_E_DATA, "%s: damaged zstd content: %s", path,
                                  ZSTD_getErrorName(result));
        *pending = result;
        apmw_buf_append(out, scratch, output.pos);
        flushed = output.pos < output.size;
        if (flushed && at == input.pos && input.pos < input.size)
            return apmw_error_set(err, APMW_E_DATA, "%s: damaged zstd content: no progress", path);
    }
    return APMW_OK;
}

static apmw_status read_all(const char *path, int fd, char *chunk, apmw_buf *out, apmw_error *err)
{
    ZSTD_DStream *stream = NULL;
    char *scratch = NULL;
    size_t scratch_size = ZSTD_DStreamOutSize(), pending = 0;
    apmw_status status = APMW_OK;
    for (bool first = true; status == APMW_OK; first = false) {
        ssize_t n = read_full(fd, chunk, CHUNK_BYTES);
        if (n < 0) {
            status = apmw_error_set(err, APMW_E_IO, "%s: %s", path, strerror(errno));
            break;
        }
        if (first && is_zstd(chunk, (size_t)n)) {
            stream = ZSTD_createDStream();
            scratch = malloc(scratch_size);
            if (!stream || !scratch) {
                status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
                break;
            }
        }
        if (stream)
            status = inflate_chunk(path, stream, chunk, (size_t)n, scratch, scratch_size, &pending, out, err);
        else
            apmw_buf_append(out, chunk, (size_t)n);
        if (n < CHUNK_BYTES)
            break;
    }
    if (status == APMW_OK && pending != 0)
        status = apmw_error_set(err, APMW_E_DATA, "%s: truncated: the zstd frame does not end", path);
    if (status == APMW_OK && out->failed)
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    ZSTD_freeDStream(stream);
    free(scratch);
    return status;
}

apmw_status apmw_file_read(const char *path, apmw_buf *out, apmw_error *err)
{
    size_t before = out->length;
    int fd;
    apmw_status status = open_input(path, &fd, err);
    if (status != APMW_OK)
        return status;
    char *chunk = malloc(CHUNK_BYTES);
    if (chunk)
        status = read_all(path, fd, chunk, out, err);
    else
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    free(chunk);
    close_input(fd);
    if (status != APMW_OK && out->data) {
        out->length = before;
        out->data[before] = '\0';
    }
    return status;
}

apmw_status apmw_file_hash(const char *path, char out[17], apmw_error *err)
{
    int fd;
    apmw_status status = open_input(path, &fd, err);
    if (status != APMW_OK)
        return status;
    XXH3_state_t *state = XXH3_createState();
    char *chunk = malloc(CHUNK_BYTES);
    if (!state || !chunk) {
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    } else {
        XXH3_64bits_reset(state);
        ssize_t n;
        do {
            n = read_full(fd, chunk, CHUNK_BYTES);
            if (n < 0)
                status = apmw_error_set(err, APMW_E_IO, "%s: %s", path, strerror(errno));
            else
                XXH3_64bits_update(state, chunk, (size_t)n);
        } while (n == CHUNK_BYTES);
        if (status == APMW_OK)
            snprintf(out, 17, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    }
    XXH3_freeState(state);
    free(chunk);
    close_input(fd);
    return status;
}

static int write_full(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

/* A pipe or a device such as /dev/null cannot be replaced by a rename; it is written in place. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

static apmw_status write_plain(const char *path, const void *bytes, size_t n, apmw_error *err)
{
    bool special = is_special(path);
    size_t size = strlen(path) + 32;
    char *temporary = malloc(size);
    if (!temporary)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    if (special)
        snprintf(temporary, size, "%s", path);
    else
        snprintf(temporary, size, "%s.tmp.%ld", path, (long)getpid());
    apmw_status status = APMW_OK;
    int fd = open(temporary, O_WRONLY | O_CLOEXEC | (special ? 0 : O_CREAT | O_TRUNC), 0666);
    if (fd < 0) {
        status = apmw_error_set(err, APMW_E_CANTCREAT, "%s: cannot write: %s", path, strerror(errno));
        free(temporary);
        return status;
    }
    int failed = write_full(fd, bytes, n);
    int cause = errno;
    if (close(fd) != 0 && !failed) {
        failed = -1;
        cause = errno;
    }
    if (failed)
        status = apmw_error_set(err, APMW_E_IO, "%s: %s", path, strerror(cause));
    else if (!special && rename(temporary, path) != 0)
        status = apmw_error_set(err, APMW_E_CANTCREAT, "%s: cannot write: %s", path, strerror(errno));
    if (status != APMW_OK && !special)
        unlink(temporary);
    free(temporary);
    return status;
}

apmw_status apmw_file_write(const char *path, const void *bytes, size_t n, int zstd_level, apmw_error *err)
{
    if (zstd_level < 0)
        return write_plain(path, bytes, n, err);
    size_t bound = ZSTD_compressBound(n);
    char *packed = malloc(bound);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    apmw_status status;
    if (!packed || !context) {
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    } else {
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, zstd_level);
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        size_t size = ZSTD_compress2(context, packed, bound, bytes, n);
        if (ZSTD_isError(size))
            status = apmw_error_set(err, APMW_E_IO, "%s: zstd: %s", path, ZSTD_getErrorName(size));
        else
            status = write_plain(path, packed, size, err);
    }
    ZSTD_freeCCtx(context);
    free(packed);
    return status;
}
