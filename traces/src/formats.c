/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which format a file has is read from its content. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "apmw/text.h"
#include "private.h"

static const apmw_tr_format *const formats[] = {&apmw_tr_format_jsonl, &apmw_tr_format_h5,
                                                &apmw_tr_format_weka, &apmw_tr_format_mooncake};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

const apmw_trace_format *const *apmw_trace_formats(size_t *n)
{
    /* `about` is the first member, so a format's address is that of its public part. */
    static const apmw_trace_format *const list[N_FORMATS] = {
        &apmw_tr_format_jsonl.about, &apmw_tr_format_h5.about, &apmw_tr_format_weka.about,
        &apmw_tr_format_mooncake.about};
    *n = N_FORMATS;
    return list;
}

apmw_status apmw_tr_set_block(apmw_trace *trace, int64_t block_tokens, const char *path, apmw_error *err)
{
    if (block_tokens < 1 || block_tokens > (1 << 20)) {
        return apmw_error_set(err, APMW_E_DATA, "%s: block of %lld tokens; expected 1 to 1048576", path,
                              (long long)block_tokens);
    }
    if (trace->block_tokens != 0 && trace->block_tokens != block_tokens) {
        return apmw_error_set(
            err, APMW_E_DATA,
            "%s: sharing is known by blocks of %lld tokens, in %s by %lld; one trace has one block size: "
            "name files of one size",
            path, (long long)block_tokens, trace->block_file[0] != '\0' ? trace->block_file : "the data before it",
            (long long)trace->block_tokens);
    }
    if (trace->block_tokens == 0) {
        apmw_copy(trace->block_file, sizeof trace->block_file, path);
    }
    trace->block_tokens = block_tokens;
    return APMW_OK;
}

/* ---- sniffing -------------------------------------------------------------------------------------------
 */

enum { MAX_KEYS = 24, KEY_SIZE = 40 };

/* Keys of the first object at its own depth, as far as the text goes (it may be cut anywhere). */
static int first_keys(const char *text, size_t n, char keys[MAX_KEYS][KEY_SIZE])
{
    int count = 0, depth = 0;
    size_t start = 0;
    bool in_string = false;
    size_t begin = 0, length = 0;
    while (start < n && text[start] != '{') {
        if (strchr(" \t\r\n[", text[start]) == NULL) {
            return 0;
        }
        start++;
    }
    for (size_t i = start; i < n && count < MAX_KEYS; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
                length = i - begin;
            }
        } else if (c == '"') {
            in_string = true;
            begin = i + 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (--depth == 0) {
                break;
            }
        } else if (c == ':' && depth == 1 && length > 0 && length < KEY_SIZE) {
            memcpy(keys[count], text + begin, length);
            keys[count++][length] = '\0';
        }
    }
    return count;
}

static bool has(char keys[MAX_KEYS][KEY_SIZE], int n, const char *key)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(keys[i], key) == 0) {
            return true;
        }
    }
    return false;
}

static const apmw_tr_format *by_keys(char keys[MAX_KEYS][KEY_SIZE], int n)
{
    if (has(keys, n, "schema")) {
        return &apmw_tr_format_jsonl;
    }
    if (has(keys, n, "requests") || has(keys, n, "hash_id_scope") || has(keys, n, "tool_tokens")) {
        return &apmw_tr_format_weka;
    }
    if (has(keys, n, "input_length") || (has(keys, n, "timestamp") && has(keys, n, "hash_ids"))) {
        return &apmw_tr_format_mooncake;
    }
    return NULL;
}

static apmw_status sniff_text(const char *path, const apmw_tr_format **out, apmw_error *err)
{
    apmw_tr_reader *reader = NULL;
    apmw_status status = apmw_tr_reader_open(path, &reader, err);
    const char *text = NULL;
    size_t n = 0;
    if (status == APMW_OK) {
        status = apmw_tr_reader_peek(reader, &text, &n, err);
    }
    if (status == APMW_OK) {
        char keys[MAX_KEYS][KEY_SIZE];
        int found = first_keys(text, n, keys);
        *out = by_keys(keys, found);
        if (*out == NULL) {
            apmw_buf list = {0};
            for (int i = 0; i < found && i < 6; i++) {
                apmw_buf_printf(&list, "%s%s", i > 0 ? ", " : "", keys[i]);
            }
            status =
                apmw_error_set(err, APMW_E_DATA,
                               "%s: not a trace that is known here (%s%s); known: apmw-jsonl, apmw-h5, weka, "
                               "mooncake",
                               path,
                               n == 0       ? "the file is empty"
                               : found == 0 ? "no JSON object at its start"
                                            : "first keys: ",
                               list.length > 0 ? list.data : "");
            apmw_buf_free(&list);
        }
    }
    apmw_tr_reader_close(reader);
    return status;
}

static apmw_status sniff(const char *path, const apmw_tr_format **out, apmw_error *err)
{
    static const unsigned char h5_magic[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char head[8] = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    }
    size_t n = fread(head, 1, sizeof head, file);
    fclose(file);
    if (n == sizeof head && memcmp(head, h5_magic, sizeof head) == 0) {
        *out = &apmw_tr_format_h5;
        return APMW_OK;
    }
    return sniff_text(path, out, err);
}

apmw_status apmw_trace_sniff(const char *path, const char **format, apmw_error *err)
{
    const apmw_tr_format *found = NULL;
    apmw_status status = sniff(path, &found, err);
    *format = status == APMW_OK ? found->about.name : NULL;
    return status;
}

/* ---- loading --------------------------------------------------------------------------------------------
 */

static apmw_status load_file(const char *path, const apmw_tr_format *format, apmw_trace *trace,
                             apmw_error *err)
{
    apmw_status status = APMW_OK;
    if (format == NULL) {
        status = sniff(path, &format, err);
    }
    return status == APMW_OK ? format->load(path, trace, err) : status;
}

/* Papers that lie beside traces. */
static bool is_paper(const char *name)
{
    const char *dot = strrchr(name, '.');
    return name[0] == '.' || strncmp(name, "LICENSE", 7) == 0 || strncmp(name, "README", 6) == 0 ||
           (dot != NULL && (strcmp(dot, ".md") == 0 || strcmp(dot, ".txt") == 0));
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* alphasort would follow the locale */
}

static apmw_status load_directory(const char *path, const apmw_tr_format *format, apmw_trace *trace,
                                  apmw_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, compare_names);
    if (n < 0) {
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    }
    apmw_status status = APMW_OK;
    int files = 0;
    for (int i = 0; i < n; i++) {
        char name[4096];
        struct stat info;
        int length = snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (status == APMW_OK && !is_paper(entries[i]->d_name) && length < (int)sizeof name &&
            stat(name, &info) == 0 && S_ISREG(info.st_mode)) {
            status = load_file(name, format, trace, err);
            files++;
        }
        free(entries[i]);
    }
    free(entries);
    if (status == APMW_OK && files == 0) {
        status = apmw_error_set(err, APMW_E_NOINPUT, "%s: no trace files in this directory", path);
    }
    return status;
}

apmw_status apmw_trace_load(const char *path, const char *format, apmw_trace *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    const apmw_tr_format *chosen = NULL;
    if (format != NULL) {
        const char *names[N_FORMATS];
        for (int i = 0; i < N_FORMATS; i++) {
            names[i] = formats[i]->about.name;
            if (strcmp(names[i], format) == 0) {
                chosen = formats[i];
            }
        }
        if (chosen == NULL) {
            const char *near = apmw_near(format, names, N_FORMATS);
            return apmw_error_set(err, APMW_E_USAGE,
                                  "no trace format '%s'%s%s%s; known: apmw-jsonl, apmw-h5, weka, mooncake",
                                  format, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        }
    }
    struct stat info;
    apmw_status status;
    if (strcmp(path, "-") == 0) {
        /* Standard input cannot be read twice, so nothing is sniffed. */
        status = load_file(path, chosen != NULL ? chosen : &apmw_tr_format_jsonl, out, err);
    } else if (stat(path, &info) != 0) {
        status = apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    } else if (S_ISDIR(info.st_mode)) {
        status = load_directory(path, chosen, out, err);
    } else {
        status = load_file(path, chosen, out, err);
    }
    if (status == APMW_OK && out->n == 0) {
        status = apmw_error_set(err, APMW_E_DATA, "%s: holds no trajectory", path);
    }
    if (status != APMW_OK) {
        apmw_trace_free(out);
        return status;
    }
    apmw_trace_rehash(out);
    return APMW_OK;
}

/* ---- saving ---------------------------------------------------------------------------------------------
 */

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);
    return n > m && strcmp(text + n - m, tail) == 0;
}

apmw_status apmw_trace_save(const apmw_trace *trace, const char *path, apmw_error *err)
{
    if (ends_with(path, ".jsonl.zst")) {
        return apmw_tr_save_jsonl(trace, path, true, err);
    }
    if (ends_with(path, ".jsonl")) {
        return apmw_tr_save_jsonl(trace, path, false, err);
    }
    if (ends_with(path, ".h5")) {
        return apmw_tr_save_h5(trace, path, err);
    }
    return apmw_error_set(
        err, APMW_E_USAGE,
        "%s: the name must end in .jsonl, .jsonl.zst or .h5, which says the format to write", path);
}
