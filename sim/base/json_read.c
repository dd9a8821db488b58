/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Parsing by cJSON, with an index beside each container so that access by position does not walk a list. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/text.h"

struct apmw_json {
    char *name;
    cJSON *root;
};

/* cJSON leaves valuestring and valueint of containers unused and frees valuestring with the item: they hold
 * the vector of children and its length. */
static cJSON **children_of(const cJSON *item)
{
    return (cJSON **)(void *)item->valuestring;
}

static int by_key(const void *a, const void *b)
{
    const cJSON *const *x = a, *const *y = b;
    return strcmp((*x)->string, (*y)->string);
}

/* Builds the vectors, depth first; cJSON bounds the depth to 1000. */
static apmw_status index_children(const apmw_json_cur *cur, cJSON *item, apmw_error *err)
{
    if (!cJSON_IsArray(item) && !cJSON_IsObject(item))
        return APMW_OK;
    int n = 0;
    for (const cJSON *child = item->child; child; child = child->next)
        n++;
    item->valueint = n;
    if (n == 0)
        return APMW_OK;
    cJSON **children = cJSON_malloc((size_t)n * sizeof *children);
    if (!children)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", cur->doc->name);
    item->valuestring = (char *)children;
    if (cJSON_IsObject(item)) {
        int i = 0;
        for (cJSON *child = item->child; child; child = child->next)
            children[i++] = child;
        qsort(children, (size_t)n, sizeof(cJSON *), by_key);
        for (i = 1; i < n; i++) {
            if (strcmp(children[i - 1]->string, children[i]->string) == 0)
                return apmw_json_error(cur, err, APMW_E_DATA, "duplicate key \"%s\"", children[i]->string);
        }
    }
    int i = 0;
    for (cJSON *child = item->child; child; child = child->next)
        children[i++] = child;
    for (i = 0; i < n; i++) {
        apmw_json_cur next = {cur->doc, children[i], cur, children[i]->string, children[i]->string ? -1 : i};
        apmw_status status = index_children(&next, children[i], err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static apmw_status syntax_error(const char *name, const char *text, const char *at, size_t n, apmw_error *err)
{
    long line = 1;
    const char *start = text;
    for (const char *p = text; p < at; p++) {
        if (*p == '\n') {
            line++;
            start = p + 1;
        }
    }
    if (at >= text + n)
        return apmw_error_set(err, APMW_E_DATA, "%s: line %ld: JSON text ends too early", name, line);
    return apmw_error_set(err, APMW_E_DATA, "%s: line %ld, column %ld: not valid JSON here", name, line,
                          (long)(at - start) + 1);
}

/* text[n] must be NUL. */
static apmw_status parse_terminated(const char *name, const char *text, size_t n, apmw_json **out,
                                    apmw_error *err)
{
    if (n == 0)
        return apmw_error_set(err, APMW_E_DATA, "%s: empty, JSON is expected", name);
    const char *nul = memchr(text, '\0', n);
    if (nul)
        return apmw_error_set(err, APMW_E_DATA, "%s: NUL byte at offset %zu", name, (size_t)(nul - text));
    apmw_json *doc = calloc(1, sizeof *doc);
    if (!doc || !(doc->name = strdup(name))) {
        apmw_json_free(doc);
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", name);
    }
    const char *end = text;
    doc->root = cJSON_ParseWithLengthOpts(text, n + 1, &end, 1);
    apmw_status status;
    if (doc->root) {
        apmw_json_cur root = apmw_json_root(doc);
        status = index_children(&root, doc->root, err);
    } else {
        status = syntax_error(name, text, end, n, err);
    }
    if (status != APMW_OK) {
        apmw_json_free(doc);
        return status;
    }
    *out = doc;
    return APMW_OK;
}

apmw_status apmw_json_parse(const char *name, const char *text, size_t n, apmw_json **out, apmw_error *err)
{
    *out = NULL;
    char *copy = malloc(n + 1);
    if (!copy)
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", name);
    if (n > 0)
        memcpy(copy, text, n);
    copy[n] = '\0';
    apmw_status status = parse_terminated(name, copy, n, out, err);
    free(copy);
    return status;
}

apmw_status apmw_json_load(const char *path, apmw_json **out, apmw_error *err)
{
    *out = NULL;
    apmw_buf text = {0};
    apmw_status status = apmw_file_read(path, &text, err);
    if (status == APMW_OK)
        status = parse_terminated(path, text.data ? text.data : "", text.length, out, err);
    apmw_buf_free(&text);
    return status;
}

void apmw_json_free(apmw_json *doc)
{
    if (!doc)
        return;
    cJSON_Delete(doc->root);
    free(doc->name);
    free(doc);
}

apmw_json_cur apmw_json_root(const apmw_json *doc)
{
    return (apmw_json_cur){.doc = doc, .item = doc->root, .up = NULL, .key = NULL, .index = -1};
}

apmw_json_type apmw_json_typeof(const apmw_json_cur *cur)
{
    const cJSON *item = cur->item;
    if (cJSON_IsBool(item))
        return APMW_JSON_BOOL;
    if (cJSON_IsNumber(item))
        return APMW_JSON_NUMBER;
    if (cJSON_IsString(item))
        return APMW_JSON_STRING;
    if (cJSON_IsArray(item))
        return APMW_JSON_ARRAY;
    if (cJSON_IsObject(item))
        return APMW_JSON_OBJECT;
    return APMW_JSON_NULL;
}

static const char *type_name(const apmw_json_cur *cur)
{
    static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
    return names[apmw_json_typeof(cur)];
}

/* Path as an RFC 6901 pointer, outermost first. */
static void put_path(const apmw_json_cur *cur, apmw_buf *out)
{
    if (!cur->up)
        return;
    put_path(cur->up, out);
    apmw_buf_puts(out, "/");
    if (!cur->key) {
        apmw_buf_printf(out, "%d", cur->index);
        return;
    }
    for (const char *p = cur->key; *p; p++) {
        if (*p == '~')
            apmw_buf_puts(out, "~0");
        else if (*p == '/')
            apmw_buf_puts(out, "~1");
        else
            apmw_buf_append(out, p, 1);
    }
}

apmw_status apmw_json_error(const apmw_json_cur *cur, apmw_error *err, apmw_status status, const char *format,
                            ...)
{
    if (!err)
        return status;
    char message[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    apmw_buf path = {0};
    put_path(cur, &path);
    apmw_error_set(err, status, "%s: %s: %s", cur->doc->name, path.length ? path.data : "/", message);
    apmw_buf_free(&path);
    return status;
}

static apmw_status wrong_type(const apmw_json_cur *cur, const char *expected, apmw_error *err)
{
    return apmw_json_error(cur, err, APMW_E_DATA, "expected %s, found %s", expected, type_name(cur));
}

static const cJSON *find(const cJSON *object, const char *key)
{
    if (!cJSON_IsObject(object))
        return NULL;
    for (const cJSON *child = object->child; child; child = child->next) {
        if (strcmp(child->string, key) == 0)
            return child;
    }
    return NULL;
}

static apmw_json_cur child_cursor(const apmw_json_cur *up, const cJSON *item, const char *key)
{
    return (apmw_json_cur){.doc = up->doc, .item = item, .up = up, .key = key, .index = -1};
}

bool apmw_json_has(const apmw_json_cur *object, const char *key)
{
    const cJSON *item = find(object->item, key);
    return item && !cJSON_IsNull(item);
}

/* The nearest key that is there, or NULL. */
static const char *near_key(const cJSON *object, const char *key)
{
    if (object->valueint == 0)
        return NULL;
    size_t n = (size_t)object->valueint;
    const char **names = malloc(n * sizeof *names);
    if (!names)
        return NULL;
    for (size_t i = 0; i < n; i++)
        names[i] = children_of(object)[i]->string;
    const char *near = apmw_near(key, names, n);
    free(names);
    return near;
}

apmw_status apmw_json_child(const apmw_json_cur *object, const char *key, apmw_json_cur *out, apmw_error *err)
{
    const cJSON *item = object->item;
    if (!cJSON_IsObject(item))
        return wrong_type(object, "an object", err);
    const cJSON *child = find(item, key);
    *out = child_cursor(object, child, key);
    if (child) {
        out->key = child->string;
        return APMW_OK;
    }
    const char *near = near_key(item, key);
    if (near)
        return apmw_json_error(out, err, APMW_E_DATA, "missing (there is \"%s\")", near);
    return apmw_json_error(out, err, APMW_E_DATA, "missing");
}

apmw_status apmw_json_at(const apmw_json_cur *array, int index, apmw_json_cur *out, apmw_error *err)
{
    const cJSON *item = array->item;
    if (!cJSON_IsArray(item))
        return wrong_type(array, "an array", err);
    if (index < 0 || index >= item->valueint)
        return apmw_json_error(array, err, APMW_E_DATA, "no element %d, the array has %d", index,
                               item->valueint);
    *out = (apmw_json_cur){array->doc, children_of(item)[index], array, NULL, index};
    return APMW_OK;
}

int apmw_json_length(const apmw_json_cur *array_or_object)
{
    const cJSON *item = array_or_object->item;
    return cJSON_IsArray(item) || cJSON_IsObject(item) ? item->valueint : 0;
}

apmw_status apmw_json_member(const apmw_json_cur *object, int i, const char **key, apmw_json_cur *out,
                             apmw_error *err)
{
    const cJSON *item = object->item;
    if (!cJSON_IsObject(item))
        return wrong_type(object, "an object", err);
    if (i < 0 || i >= item->valueint)
        return apmw_json_error(object, err, APMW_E_DATA, "no member %d, the object has %d", i,
                               item->valueint);
    const cJSON *child = children_of(item)[i];
    if (key)
        *key = child->string;
    *out = child_cursor(object, child, child->string);
    return APMW_OK;
}

apmw_status apmw_json_as_double(const apmw_json_cur *cur, double *out, apmw_error *err)
{
    const cJSON *item = cur->item;
    if (!cJSON_IsNumber(item))
        return wrong_type(cur, "a number", err);
    if (!isfinite(item->valuedouble))
        return apmw_json_error(cur, err, APMW_E_DATA, "the number is too large");
    *out = item->valuedouble;
    return APMW_OK;
}

apmw_status apmw_json_as_string(const apmw_json_cur *cur, const char **out, apmw_error *err)
{
    const cJSON *item = cur->item;
    if (!cJSON_IsString(item))
        return wrong_type(cur, "a string", err);
    *out = item->valuestring;
    return APMW_OK;
}

static apmw_status as_bool(const apmw_json_cur *cur, bool *out, apmw_error *err)
{
    const cJSON *item = cur->item;
    if (!cJSON_IsBool(item))
        return wrong_type(cur, "true or false", err);
    *out = cJSON_IsTrue(item);
    return APMW_OK;
}

static apmw_status as_double_in(const apmw_json_cur *cur, double lo, double hi, double *out, apmw_error *err)
{
    double value;
    apmw_status status = apmw_json_as_double(cur, &value, err);
    if (status != APMW_OK)
        return status;
    if (value >= lo && value <= hi) {
        *out = value;
        return APMW_OK;
    }
    char found[32], low[32], high[32];
    apmw_double_text(value, found);
    apmw_double_text(lo, low);
    apmw_double_text(hi, high);
    if (isinf(hi))
        return apmw_json_error(cur, err, APMW_E_DATA, "%s is too small, at least %s is allowed", found, low);
    if (isinf(lo))
        return apmw_json_error(cur, err, APMW_E_DATA, "%s is too large, at most %s is allowed", found, high);
    return apmw_json_error(cur, err, APMW_E_DATA, "%s is not between %s and %s", found, low, high);
}

static apmw_status as_int_in(const apmw_json_cur *cur, int64_t lo, int64_t hi, int64_t *out, apmw_error *err)
{
    double value;
    apmw_status status = apmw_json_as_double(cur, &value, err);
    if (status != APMW_OK)
        return status;
    if (value != trunc(value)) {
        char found[32];
        apmw_double_text(value, found);
        return apmw_json_error(cur, err, APMW_E_DATA, "expected an integer, found %s", found);
    }
    /* cJSON keeps numbers as doubles: from 2^53 on, neighbours fall together and the file may have said another. */
    if (fabs(value) >= 0x1p53)
        return apmw_json_error(cur, err, APMW_E_DATA, "the integer is too large, less than 2^53 is expected");
    int64_t integer = (int64_t)value;
    if (integer >= lo && integer <= hi) {
        *out = integer;
        return APMW_OK;
    }
    if (hi == INT64_MAX)
        return apmw_json_error(cur, err, APMW_E_DATA, "%lld is too small, at least %lld is allowed",
                               (long long)integer, (long long)lo);
    return apmw_json_error(cur, err, APMW_E_DATA, "%lld is not between %lld and %lld", (long long)integer,
                           (long long)lo, (long long)hi);
}

apmw_status apmw_json_get_string(const apmw_json_cur *object, const char *key, const char **out,
                                 apmw_error *err)
{
    apmw_json_cur child;
    apmw_status status = apmw_json_child(object, key, &child, err);
    return status == APMW_OK ? apmw_json_as_string(&child, out, err) : status;
}

apmw_status apmw_json_get_double(const apmw_json_cur *object, const char *key, double lo, double hi,
                                 double *out, apmw_error *err)
{
    apmw_json_cur child;
    apmw_status status = apmw_json_child(object, key, &child, err);
    return status == APMW_OK ? as_double_in(&child, lo, hi, out, err) : status;
}

apmw_status apmw_json_get_int(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi,
                              int64_t *out, apmw_error *err)
{
    apmw_json_cur child;
    apmw_status status = apmw_json_child(object, key, &child, err);
    return status == APMW_OK ? as_int_in(&child, lo, hi, out, err) : status;
}

apmw_status apmw_json_get_bool(const apmw_json_cur *object, const char *key, bool *out, apmw_error *err)
{
    apmw_json_cur child;
    apmw_status status = apmw_json_child(object, key, &child, err);
    return status == APMW_OK ? as_bool(&child, out, err) : status;
}

/* Something that is no object has no optional members either, which would hide a wrong type. */
static apmw_status absent(const apmw_json_cur *object, const char *key, bool *out, apmw_error *err)
{
    if (!cJSON_IsObject((const cJSON *)object->item))
        return wrong_type(object, "an object", err);
    *out = !apmw_json_has(object, key);
    return APMW_OK;
}

apmw_status apmw_json_opt_string(const apmw_json_cur *object, const char *key, const char **out,
                                 apmw_error *err)
{
    bool skip = false;
    apmw_status status = absent(object, key, &skip, err);
    return status != APMW_OK || skip ? status : apmw_json_get_string(object, key, out, err);
}

apmw_status apmw_json_opt_double(const apmw_json_cur *object, const char *key, double lo, double hi,
                                 double *out, apmw_error *err)
{
    bool skip = false;
    apmw_status status = absent(object, key, &skip, err);
    return status != APMW_OK || skip ? status : apmw_json_get_double(object, key, lo, hi, out, err);
}

apmw_status apmw_json_opt_int(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi,
                              int64_t *out, apmw_error *err)
{
    bool skip = false;
    apmw_status status = absent(object, key, &skip, err);
    return status != APMW_OK || skip ? status : apmw_json_get_int(object, key, lo, hi, out, err);
}

apmw_status apmw_json_opt_bool(const apmw_json_cur *object, const char *key, bool *out, apmw_error *err)
{
    bool skip = false;
    apmw_status status = absent(object, key, &skip, err);
    return status != APMW_OK || skip ? status : apmw_json_get_bool(object, key, out, err);
}

apmw_status apmw_json_only_keys(const apmw_json_cur *object, const char *const *known, apmw_error *err)
{
    const cJSON *item = object->item;
    if (!cJSON_IsObject(item))
        return wrong_type(object, "an object", err);
    size_t n = 0;
    while (known[n])
        n++;
    for (const cJSON *child = item->child; child; child = child->next) {
        const char *key = child->string;
        bool found = key[0] == '_' || strncmp(key, "//", 2) == 0;
        for (size_t i = 0; i < n && !found; i++)
            found = strcmp(known[i], key) == 0;
        if (found)
            continue;
        apmw_json_cur cur = child_cursor(object, child, key);
        const char *near = apmw_near(key, known, n);
        if (near)
            return apmw_json_error(&cur, err, APMW_E_DATA, "unknown key (did you mean \"%s\"?)", near);
        return apmw_json_error(&cur, err, APMW_E_DATA, "unknown key");
    }
    return APMW_OK;
}
