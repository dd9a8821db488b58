/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Arrays of numbers out of a parsed document. The only place of this layer that knows cJSON: a cJSON array is
 * a linked list, and lists of ten thousand block ids must be walked, not indexed. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "private.h"

static apmw_status find(const apmw_json_cur *object, const char *key, bool required, apmw_json_cur *array,
                        int *n, apmw_error *err)
{
    *n = -1;
    if (!required && !apmw_json_has(object, key)) {
        return APMW_OK;
    }
    apmw_status status = apmw_json_child(object, key, array, err);
    if (status != APMW_OK) {
        return status;
    }
    if (apmw_json_typeof(array) != APMW_JSON_ARRAY) {
        return apmw_json_error(array, err, APMW_E_DATA, "expected an array of whole numbers");
    }
    *n = apmw_json_length(array);
    return APMW_OK;
}

static apmw_status whole(const apmw_json_cur *array, const cJSON *item, int i, double lo, double hi,
                         double *out, apmw_error *err)
{
    double v = item->valuedouble;
    if (!cJSON_IsNumber(item) || !(v >= lo && v <= hi) || v != floor(v)) {
        return apmw_json_error(array, err, APMW_E_DATA, "item %d is not a whole number in [%.0f, %.0f]", i,
                               lo, hi);
    }
    *out = v;
    return APMW_OK;
}

apmw_status apmw_tr_ints(const apmw_json_cur *object, const char *key, bool required, int64_t lo, int64_t hi,
                         int64_t **out, int *n, apmw_error *err)
{
    *out = NULL;
    apmw_json_cur array;
    apmw_status status = find(object, key, required, &array, n, err);
    if (status != APMW_OK || *n < 0) {
        *n = 0;
        return status;
    }
    int64_t *values = malloc(((size_t)*n + 1) * sizeof *values);
    if (values == NULL) {
        return apmw_json_error(&array, err, APMW_E_NOMEM, "out of memory");
    }
    int i = 0;
    const cJSON *item = ((const cJSON *)array.item)->child;
    for (; item != NULL && i < *n && status == APMW_OK; item = item->next, i++) {
        double v = 0;
        status = whole(&array, item, i, (double)lo, (double)hi, &v, err);
        values[i] = status == APMW_OK ? (int64_t)v : 0;
    }
    if (status != APMW_OK) {
        free(values);
        return status;
    }
    *out = values;
    return APMW_OK;
}

apmw_status apmw_tr_longest(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi,
                            int64_t **out, int *n, apmw_error *err)
{
    *out = NULL;
    apmw_json_cur array;
    apmw_status status = find(object, key, true, &array, n, err);
    if (status != APMW_OK) {
        *n = 0;
        return status;
    }
    int64_t *values = malloc(((size_t)*n + 1) * sizeof *values);
    if (values == NULL) {
        return apmw_json_error(&array, err, APMW_E_NOMEM, "out of memory");
    }
    int i = 0;
    const cJSON *item = ((const cJSON *)array.item)->child;
    for (; item != NULL && i < *n && status == APMW_OK; item = item->next, i++) {
        double longest = -1;
        const cJSON *one = cJSON_IsArray(item) ? item->child : item;
        if (one == NULL) {
            status = apmw_json_error(&array, err, APMW_E_DATA, "item %d is an empty array", i);
        }
        while (one != NULL && status == APMW_OK) {
            double v = 0;
            status = whole(&array, one, i, (double)lo, (double)hi, &v, err);
            longest = v > longest ? v : longest;
            one = one == item ? NULL : one->next;
        }
        values[i] = status == APMW_OK ? (int64_t)longest : 0;
    }
    if (status != APMW_OK) {
        free(values);
        return status;
    }
    *out = values;
    return APMW_OK;
}

apmw_status apmw_tr_ids(const apmw_json_cur *object, const char *key, uint64_t **out, int *n, apmw_error *err)
{
    *out = NULL;
    apmw_json_cur array;
    apmw_status status = find(object, key, true, &array, n, err);
    if (status != APMW_OK) {
        *n = 0;
        return status;
    }
    uint64_t *values = malloc(((size_t)*n + 1) * sizeof *values);
    if (values == NULL) {
        return apmw_json_error(&array, err, APMW_E_NOMEM, "out of memory");
    }
    int i = 0;
    const cJSON *item = ((const cJSON *)array.item)->child;
    for (; item != NULL && i < *n && status == APMW_OK; item = item->next, i++) {
        double v = 0;
        status = whole(&array, item, i, -1.8446744073709552e19, 1.8446744073709552e19, &v, err);
        v += 0.0; /* -0 and 0 are one id */
        memcpy(&values[i], &v, sizeof v);
    }
    if (status != APMW_OK) {
        free(values);
        return status;
    }
    *out = values;
    return APMW_OK;
}
