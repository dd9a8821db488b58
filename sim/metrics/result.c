/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/metrics.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apmw/buf.h"

#define SCHEMA "apmw.result"
enum { VERSION = 1 };

/* A field of a record as one column. Booleans and enums are written as int32. */
typedef enum kind { I32, I64, U64, F64, STATE, FLAG } kind;
typedef struct column {
    const char *name;
    kind kind;
    size_t offset;
} column;
#define REQUEST(field, type) {#field, type, offsetof(apmw_request_record, field)}
#define NAMED(name, field, type) {name, type, offsetof(apmw_request_record, field)}
static const column REQUEST_COLUMNS[] = {
    REQUEST(id, U64), REQUEST(agent, I32), REQUEST(trajectory, I32), REQUEST(play, I32), REQUEST(turn, I32),
    REQUEST(engine, I32), REQUEST(rank, I32), REQUEST(state, STATE), REQUEST(n_prompt, I64), REQUEST(n_cached, I64),
    REQUEST(n_out, I64), REQUEST(n_recomputed, I64), REQUEST(n_preemptions, I32), NAMED("submitted_ns", submitted, I64),
    NAMED("admitted_ns", admitted, I64), NAMED("first_scheduled_ns", first_scheduled, I64),
    NAMED("first_token_ns", first_token, I64), NAMED("last_token_ns", last_token, I64), NAMED("done_ns", done, I64),
    REQUEST(last_of_trajectory, FLAG),
};
#define STEP(name, field, type) {name, type, offsetof(apmw_step_record, field)}
static const column STEP_COLUMNS[] = {
    STEP("engine", engine, I32), STEP("begin_ns", begin, I64), STEP("end_ns", end, I64),
    STEP("n_steps", n_steps, I64), STEP("n_seqs", n_seqs, I64), STEP("prefill_tokens", prefill_tokens, I64),
    STEP("decode_tokens", decode_tokens, I64), STEP("n_waiting", n_waiting, I64), STEP("kernel_s", kernel_s, F64),
    STEP("flops", flops, F64), STEP("bytes", bytes, F64), STEP("outside_steps", outside_steps, F64),
    STEP("kv_used_blocks", kv_used_blocks, I64), STEP("kv_capacity_blocks", kv_capacity_blocks, I64),
};
enum { N_REQUEST_COLUMNS = sizeof REQUEST_COLUMNS / sizeof REQUEST_COLUMNS[0],
       N_STEP_COLUMNS = sizeof STEP_COLUMNS / sizeof STEP_COLUMNS[0] };

static hid_t type_of(kind k)
{
    switch (k) {
    case I64:
        return H5T_NATIVE_INT64;
    case U64:
        return H5T_NATIVE_UINT64;
    case F64:
        return H5T_NATIVE_DOUBLE;
    case I32:
    case STATE:
    case FLAG:
        break;
    }
    return H5T_NATIVE_INT32;
}

static size_t size_of(kind k)
{
    return k == I64 || k == U64 || k == F64 ? 8 : 4;
}

static void pack(const column *c, const char *records, size_t stride, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        const char *from = records + i * stride + c->offset;
        if (c->kind == STATE) {
            const int32_t v = (int32_t)*(const apmw_request_state *)(const void *)from;
            memcpy(out + i * 4, &v, 4);
        } else if (c->kind == FLAG) {
            const int32_t v = *(const bool *)(const void *)from ? 1 : 0;
            memcpy(out + i * 4, &v, 4);
        } else {
            memcpy(out + i * size_of(c->kind), from, size_of(c->kind));
        }
    }
}

static void unpack(const column *c, const char *in, char *records, size_t stride, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *to = records + i * stride + c->offset;
        if (c->kind == STATE || c->kind == FLAG) {
            int32_t v;
            memcpy(&v, in + i * 4, 4);
            if (c->kind == STATE) {
                *(apmw_request_state *)(void *)to = (apmw_request_state)v;
            } else {
                *(bool *)(void *)to = v != 0;
            }
        } else {
            memcpy(to, in + i * size_of(c->kind), size_of(c->kind));
        }
    }
}

static int write_column(hid_t group, const column *c, const char *records, size_t stride, size_t n, char *scratch)
{
    pack(c, records, stride, n, scratch);
    const hsize_t dims = n;
    const hsize_t chunk = n < 65536 ? (n > 0 ? n : 1) : 65536;
    const hid_t space = H5Screate_simple(1, &dims, NULL);
    const hid_t props = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(props, false);
    H5Pset_chunk(props, 1, &chunk);
    H5Pset_shuffle(props);
    H5Pset_deflate(props, 4);
    const hid_t set = H5Dcreate2(group, c->name, type_of(c->kind), space, H5P_DEFAULT, props, H5P_DEFAULT);
    int ok = set >= 0 && (n == 0 || H5Dwrite(set, type_of(c->kind), H5S_ALL, H5S_ALL, H5P_DEFAULT, scratch) >= 0);
    if (set >= 0) {
        H5Dclose(set);
    }
    H5Pclose(props);
    H5Sclose(space);
    return ok;
}

static int write_table(hid_t file, const char *name, const column *columns, size_t n_columns, const void *records,
                       size_t stride, size_t n, char *scratch)
{
    const hid_t props = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(props, false);
    const hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, props, H5P_DEFAULT);
    int ok = group >= 0;
    for (size_t i = 0; ok && i < n_columns; i++) {
        ok = write_column(group, &columns[i], records, stride, n, scratch);
    }
    if (group >= 0) {
        H5Gclose(group);
    }
    H5Pclose(props);
    return ok;
}

static int write_text(hid_t object, const char *name, const char *text)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const int ok = attribute >= 0 && H5Awrite(attribute, type, text) >= 0;
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

static int write_int(hid_t object, const char *name, int value)
{
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(object, name, H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
    const int ok = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT, &value) >= 0;
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    H5Sclose(space);
    return ok;
}

/* Attributes are small (64 KiB a piece), so long texts are scalar string datasets. */
static int write_long_text(hid_t file, const char *name, const char *text)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t props = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(props, false);
    const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, props, H5P_DEFAULT);
    const int ok = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) >= 0;
    if (set >= 0) {
        H5Dclose(set);
    }
    H5Pclose(props);
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

static int write_info(hid_t file, const apmw_result_info *info)
{
    int ok = write_text(file, "schema", SCHEMA) && write_int(file, "schema_version", VERSION) &&
             write_text(file, "version", info->version == NULL ? "" : info->version) &&
             write_text(file, "git", info->git == NULL ? "" : info->git) &&
             write_long_text(file, "argv", info->argv == NULL ? "" : info->argv) &&
             write_long_text(file, "scenario", info->scenario_json == NULL ? "" : info->scenario_json);
    apmw_buf inputs = {0};
    for (size_t i = 0; i < info->n_inputs; i++) {
        apmw_buf_printf(&inputs, "%s\n", info->inputs[i]);
    }
    ok = ok && !inputs.failed && write_long_text(file, "inputs", inputs.length > 0 ? inputs.data : "");
    apmw_buf_free(&inputs);
    return ok;
}

apmw_status apmw_result_write(const char *path, const apmw_result_info *info, const apmw_request_record *requests,
                              size_t n_requests, const apmw_step_record *steps, size_t n_steps, apmw_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const size_t rows = n_requests > n_steps ? n_requests : n_steps;
    char *scratch = malloc(rows * 8 + 8);
    char temporary[4096];
    const int length = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (scratch == NULL || length < 0 || (size_t)length >= sizeof temporary) {
        free(scratch);
        return apmw_error_set(err, scratch == NULL ? APMW_E_NOMEM : APMW_E_CANTCREAT, "%s: cannot write", path);
    }
    const hid_t props = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(props, false);
    const hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, props, H5P_DEFAULT);
    H5Pclose(props);
    int ok = file >= 0 && write_info(file, info) &&
             write_table(file, "requests", REQUEST_COLUMNS, N_REQUEST_COLUMNS, requests, sizeof *requests, n_requests,
                         scratch) &&
             write_table(file, "steps", STEP_COLUMNS, N_STEP_COLUMNS, steps, sizeof *steps, n_steps, scratch);
    if (file >= 0) {
        ok = H5Fclose(file) >= 0 && ok;
    }
    free(scratch);
    if (!ok || rename(temporary, path) != 0) {
        unlink(temporary);
        return apmw_error_set(err, file < 0 ? APMW_E_CANTCREAT : APMW_E_IO, "%s: cannot write the result file", path);
    }
    return APMW_OK;
}

static int read_table(hid_t file, const char *name, const column *columns, size_t n_columns, size_t stride, char **out,
                      size_t *n_out)
{
    const hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    if (group < 0) {
        return 0;
    }
    char *records = NULL, *scratch = NULL;
    size_t n = 0;
    int ok = 1;
    for (size_t i = 0; ok && i < n_columns; i++) {
        const hid_t set = H5Dopen2(group, columns[i].name, H5P_DEFAULT);
        if (set < 0) {
            ok = 0;
            break;
        }
        const hid_t space = H5Dget_space(set);
        const hssize_t points = H5Sget_simple_extent_npoints(space);
        H5Sclose(space);
        if (i == 0 && points >= 0) {
            n = (size_t)points;
            records = calloc(n > 0 ? n : 1, stride);
            scratch = malloc(n * 8 + 8);
        }
        ok = points >= 0 && (size_t)points == n && records != NULL && scratch != NULL &&
             (n == 0 || H5Dread(set, type_of(columns[i].kind), H5S_ALL, H5S_ALL, H5P_DEFAULT, scratch) >= 0);
        if (ok) {
            unpack(&columns[i], scratch, records, stride, n);
        }
        H5Dclose(set);
    }
    H5Gclose(group);
    free(scratch);
    if (!ok) {
        free(records);
        records = NULL;
    }
    *out = records;
    *n_out = n;
    return ok;
}

static apmw_status check_schema(hid_t file, const char *path, apmw_error *err)
{
    int version = 0;
    char schema[64] = "";
    const hid_t number = H5Aopen(file, "schema_version", H5P_DEFAULT);
    const hid_t text = H5Aopen(file, "schema", H5P_DEFAULT);
    int ok = number >= 0 && text >= 0 && H5Aread(number, H5T_NATIVE_INT, &version) >= 0;
    if (ok) {
        const hid_t type = H5Aget_type(text);
        ok = H5Tget_class(type) == H5T_STRING && H5Tget_size(type) < sizeof schema && H5Aread(text, type, schema) >= 0;
        H5Tclose(type);
    }
    if (number >= 0) {
        H5Aclose(number);
    }
    if (text >= 0) {
        H5Aclose(text);
    }
    if (!ok || strcmp(schema, SCHEMA) != 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s: no " SCHEMA " file (schema \"%s\")", path, schema);
    }
    if (version > VERSION) {
        return apmw_error_set(err, APMW_E_DATA, "%s: " SCHEMA " version %d is newer than this program knows (%d)", path,
                              version, VERSION);
    }
    return APMW_OK;
}

apmw_status apmw_result_read(const char *path, apmw_request_record **requests, size_t *n_requests,
                             apmw_step_record **steps, size_t *n_steps, apmw_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (access(path, R_OK) != 0) {
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    }
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s: not an HDF5 file", path);
    }
    char *r = NULL, *s = NULL;
    apmw_status status = check_schema(file, path, err);
    if (status == APMW_OK && (!read_table(file, "requests", REQUEST_COLUMNS, N_REQUEST_COLUMNS,
                                          sizeof(apmw_request_record), &r, n_requests) ||
                              !read_table(file, "steps", STEP_COLUMNS, N_STEP_COLUMNS, sizeof(apmw_step_record), &s,
                                          n_steps))) {
        status = apmw_error_set(err, APMW_E_DATA, "%s: tables of requests and steps are incomplete", path);
    }
    H5Fclose(file);
    if (status != APMW_OK) {
        free(r);
        free(s);
        return status;
    }
    *requests = (apmw_request_record *)(void *)r;
    *steps = (apmw_step_record *)(void *)s;
    return APMW_OK;
}
