/* SPDX-License-Identifier: GPL-3.0-or-later */
/* JSON reading by cJSON with the place kept for error messages, and exact writing (cJSON 1.7.15 prints doubles
 * lossily, so nothing is written with it). Duplicate keys and trailing text are refused.
 *
 * A cursor is a value on the stack that knows its parent, so every error names file and path:
 *   "scenario.json: /replicas/0/tp: expected a number, found a string". */
#ifndef APMW_JSON_H
#define APMW_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/buf.h"
#include "apmw/status.h"

typedef struct apmw_json apmw_json; /* a parsed document; owns everything that cursors point to */
typedef struct apmw_json_cur {
    const apmw_json *doc;
    const void *item; /* a cJSON item */
    const struct apmw_json_cur *up;
    const char *key; /* of this item in its object, or NULL */
    int index;       /* in its array, or -1 */
} apmw_json_cur;
typedef enum apmw_json_type {
    APMW_JSON_NULL,
    APMW_JSON_BOOL,
    APMW_JSON_NUMBER,
    APMW_JSON_STRING,
    APMW_JSON_ARRAY,
    APMW_JSON_OBJECT
} apmw_json_type;

apmw_status apmw_json_load(const char *path, apmw_json **out, apmw_error *err);
/* `name` stands for the file in messages. text need not be NUL-terminated. */
apmw_status apmw_json_parse(const char *name, const char *text, size_t n, apmw_json **out, apmw_error *err);
void apmw_json_free(apmw_json *doc);
apmw_json_cur apmw_json_root(const apmw_json *doc);

apmw_json_type apmw_json_typeof(const apmw_json_cur *cur);
bool apmw_json_has(const apmw_json_cur *object, const char *key); /* present and not null */
/* Child by key / index. The child keeps a pointer to `cur`, which must outlive it. Missing: APMW_E_DATA. */
apmw_status apmw_json_child(const apmw_json_cur *object, const char *key, apmw_json_cur *out, apmw_error *err);
apmw_status apmw_json_at(const apmw_json_cur *array, int index, apmw_json_cur *out, apmw_error *err);
int apmw_json_length(const apmw_json_cur *array_or_object);
/* i-th member of an object; *key is owned by the document. */
apmw_status apmw_json_member(const apmw_json_cur *object, int i, const char **key, apmw_json_cur *out,
                             apmw_error *err);

/* Required values. The string is owned by the document. */
apmw_status apmw_json_get_string(const apmw_json_cur *object, const char *key, const char **out, apmw_error *err);
apmw_status apmw_json_get_double(const apmw_json_cur *object, const char *key, double lo, double hi, double *out,
                                 apmw_error *err);
apmw_status apmw_json_get_int(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi, int64_t *out,
                              apmw_error *err);
apmw_status apmw_json_get_bool(const apmw_json_cur *object, const char *key, bool *out, apmw_error *err);
/* Optional ones: *out keeps its value when the key is missing or null. */
apmw_status apmw_json_opt_string(const apmw_json_cur *object, const char *key, const char **out, apmw_error *err);
apmw_status apmw_json_opt_double(const apmw_json_cur *object, const char *key, double lo, double hi, double *out,
                                 apmw_error *err);
apmw_status apmw_json_opt_int(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi, int64_t *out,
                              apmw_error *err);
apmw_status apmw_json_opt_bool(const apmw_json_cur *object, const char *key, bool *out, apmw_error *err);
/* The item itself. */
apmw_status apmw_json_as_double(const apmw_json_cur *cur, double *out, apmw_error *err);
apmw_status apmw_json_as_string(const apmw_json_cur *cur, const char **out, apmw_error *err);

/* Refuses keys that are not in the NULL-terminated list; keys that begin with "_" or "//" are comments.
 * The message names the path and the nearest known key. */
apmw_status apmw_json_only_keys(const apmw_json_cur *object, const char *const *known, apmw_error *err);
/* Fills err with "<file>: <path>: <message>" and returns `status`. */
__attribute__((format(printf, 4, 5))) apmw_status apmw_json_error(const apmw_json_cur *cur, apmw_error *err,
                                                                  apmw_status status, const char *format, ...);

/* Writer: appends to a buffer, one space of indent a level, doubles in the shortest form that reads back to
 * the same bits, NaN and infinities as null. Key NULL inside arrays. */
typedef struct apmw_json_writer {
    apmw_buf *out;
    int depth;
    bool first[64];
} apmw_json_writer;
apmw_json_writer apmw_json_writer_make(apmw_buf *out);
void apmw_json_begin_object(apmw_json_writer *w, const char *key);
void apmw_json_end_object(apmw_json_writer *w);
void apmw_json_begin_array(apmw_json_writer *w, const char *key);
void apmw_json_end_array(apmw_json_writer *w);
void apmw_json_string(apmw_json_writer *w, const char *key, const char *value); /* NULL value: null */
void apmw_json_double(apmw_json_writer *w, const char *key, double value);
void apmw_json_int(apmw_json_writer *w, const char *key, int64_t value);
void apmw_json_bool(apmw_json_writer *w, const char *key, bool value);
void apmw_json_null(apmw_json_writer *w, const char *key);
/* Shortest decimal text of a double that reads back exactly; needs 32 bytes. */
void apmw_double_text(double value, char out[32]);

#endif
