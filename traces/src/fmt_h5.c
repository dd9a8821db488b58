/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The native binary format (traces/FORMAT.md, section 3): columns in HDF5, deflated. Metadata is written in
 * the form of HDF5 1.10, in which every block carries a checksum, and data with Fletcher-32, so that damage
 * is an error and not a wrong number. */
#include <hdf5.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apmw/text.h"
#include "private.h"

enum { CHUNK_ROWS = 1 << 14 };

/* Column of turns: name, place in the struct, bytes in the file. */
typedef enum field { N_IN, N_OUT, PARENT, LANE, SHARED_IN, SHARED_OUT, DELAY, TRIGGER, N_FIELDS } field;
static const struct {
    const char *path;
    bool is_wide;
} turn_columns[N_FIELDS] = {
    [N_IN] = {"turns/in", true},
    [N_OUT] = {"turns/out", true},
    [PARENT] = {"turns/parent", false},
    [LANE] = {"turns/lane", false},
    [SHARED_IN] = {"turns/shared_in", true},
    [SHARED_OUT] = {"turns/shared_out", true},
    [DELAY] = {"turns/delay_ns", true},
    [TRIGGER] = {"turns/trigger", false},
};

static apmw_status failed(const char *path, const char *what, apmw_error *err)
{
    return apmw_error_set(err, APMW_E_DATA, "%s: %s", path, what);
}

/* ---- writing --------------------------------------------------------------------------------------------
 */

static bool write_column(hid_t file, const char *path, hid_t disk, hid_t memory, const void *data, size_t n)
{
    hsize_t rows = n, chunk = n < CHUNK_ROWS ? (n == 0 ? 1 : n) : CHUNK_ROWS;
    hid_t space = H5Screate_simple(1, &rows, NULL);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);
    bool good = H5Pset_obj_track_times(how, false) >= 0;
    good = good && H5Pset_chunk(how, 1, &chunk) >= 0 && H5Pset_shuffle(how) >= 0 &&
           H5Pset_deflate(how, 9) >= 0 && H5Pset_fletcher32(how) >= 0;
    hid_t set = good ? H5Dcreate2(file, path, disk, space, H5P_DEFAULT, how, H5P_DEFAULT) : -1;
    good = set >= 0 && (n == 0 || H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    if (set >= 0) {
        H5Dclose(set);
    }
    H5Pclose(how);
    H5Sclose(space);
    return good;
}

static bool write_text_attribute(hid_t file, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, type, text) >= 0;
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    H5Sclose(space);
    H5Tclose(type);
    return good;
}

static bool write_int_attribute(hid_t file, const char *name, int64_t value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    H5Sclose(space);
    return good;
}

static int64_t cell(const apmw_turn *u, field f)
{
    switch (f) {
    case N_IN:
        return u->n_in;
    case N_OUT:
        return u->n_out;
    case PARENT:
        return u->parent;
    case LANE:
        return u->lane;
    case SHARED_IN:
        return u->shared_in;
    case SHARED_OUT:
        return u->shared_out;
    case DELAY:
        return u->delay_ns;
    default:
        return u->trigger;
    }
}

static bool write_turns(hid_t file, const apmw_trace *trace, int64_t *column, size_t n)
{
    bool good = true;
    for (int f = 0; f < N_FIELDS && good; f++) {
        size_t row = 0;
        for (size_t i = 0; i < trace->n; i++) {
            for (int32_t k = 0; k < trace->items[i].n_turns; k++) {
                column[row++] = cell(&trace->items[i].turns[k], (field)f);
            }
        }
        hid_t disk = f == TRIGGER ? H5T_STD_I8LE : turn_columns[f].is_wide ? H5T_STD_I64LE : H5T_STD_I32LE;
        good = write_column(file, turn_columns[f].path, disk, H5T_NATIVE_INT64, column, n);
    }
    return good;
}

static bool write_names(hid_t file, const apmw_trace *trace, bool ids)
{
    size_t size = ids ? sizeof trace->items->id : sizeof trace->items->source;
    char *text = calloc(trace->n + 1, size);
    hid_t type = H5Tcopy(H5T_C_S1);
    bool good = text != NULL && H5Tset_size(type, size) >= 0;
    for (size_t i = 0; i < trace->n && good; i++) {
        apmw_copy(text + i * size, size, ids ? trace->items[i].id : trace->items[i].source);
    }
    good = good &&
           write_column(file, ids ? "trajectories/id" : "trajectories/source", type, type, text, trace->n);
    H5Tclose(type);
    free(text);
    return good;
}

static bool write_trajectories(hid_t file, const apmw_trace *trace, int64_t *column)
{
    static const char *const paths[] = {"trajectories/global_id", "trajectories/global_tokens",
                                        "trajectories/turns", "trajectories/lanes"};
    bool good = write_names(file, trace, true) && write_names(file, trace, false);
    for (int f = 0; f < 4 && good; f++) {
        for (size_t i = 0; i < trace->n; i++) {
            const apmw_trajectory *t = &trace->items[i];
            column[i] = f == 0 ? t->global_id : f == 1 ? t->global_tokens : f == 2 ? t->n_turns : t->n_lanes;
        }
        good = write_column(file, paths[f], H5T_STD_I64LE, H5T_NATIVE_INT64, column, trace->n);
    }
    return good;
}

static bool write_lanes(hid_t file, const apmw_trace *trace, int64_t *column, size_t n)
{
    bool good = true;
    for (int f = 0; f < 2 && good; f++) {
        size_t row = 0;
        for (size_t i = 0; i < trace->n; i++) {
            for (int32_t k = 0; k < trace->items[i].n_lanes; k++) {
                const apmw_lane *lane = &trace->items[i].lanes[k];
                column[row++] = f == 0 ? lane->spawn_after : lane->join_before;
            }
        }
        good = write_column(file, f == 0 ? "lanes/spawn_after" : "lanes/join_before", H5T_STD_I32LE,
                            H5T_NATIVE_INT64, column, n);
    }
    return good;
}

static bool make_groups(hid_t file)
{
    static const char *const names[] = {"turns", "trajectories", "lanes"};
    hid_t how = H5Pcreate(H5P_GROUP_CREATE);
    bool good = H5Pset_obj_track_times(how, false) >= 0;
    for (int k = 0; k < 3 && good; k++) {
        hid_t group = H5Gcreate2(file, names[k], H5P_DEFAULT, how, H5P_DEFAULT);
        good = group >= 0 && H5Gclose(group) >= 0;
    }
    H5Pclose(how);
    return good;
}

static bool write_all(hid_t file, const apmw_trace *trace)
{
    size_t turns = 0, lanes = 0;
    for (size_t i = 0; i < trace->n; i++) {
        turns += (size_t)trace->items[i].n_turns;
        lanes += (size_t)trace->items[i].n_lanes;
    }
    int64_t *column = malloc((turns + lanes + trace->n + 1) * sizeof *column);
    apmw_trace named = *trace;
    apmw_trace_rehash(&named);
    bool good = column != NULL && make_groups(file) && write_text_attribute(file, "schema", APMW_TR_SCHEMA) &&
                write_int_attribute(file, "block_tokens", trace->block_tokens) &&
                write_text_attribute(file, "hash", named.hash) &&
                write_text_attribute(file, "note", trace->note) && write_trajectories(file, trace, column) &&
                write_turns(file, trace, column, turns) && write_lanes(file, trace, column, lanes);
    free(column);
    return good;
}

/* The newest form of metadata that every HDF5 since 1.10 reads. */
static hid_t access_list(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    return access;
}

apmw_status apmw_tr_save_h5(const apmw_trace *trace, const char *path, apmw_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    char temporary[4096];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (length < 0 || length >= (int)sizeof temporary) {
        return apmw_error_set(err, APMW_E_CANTCREAT, "%s: the name is too long", path);
    }
    hid_t access = access_list(), how = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(how, false);
    hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, how, access);
    H5Pclose(how);
    H5Pclose(access);
    if (file < 0) {
        return apmw_error_set(err, APMW_E_CANTCREAT, "%s: cannot be created", path);
    }
    bool good = write_all(file, trace);
    good = H5Fclose(file) >= 0 && good;
    if (good && rename(temporary, path) == 0) {
        return APMW_OK;
    }
    remove(temporary);
    return apmw_error_set(err, APMW_E_IO, "%s: writing failed", path);
}

/* ---- reading --------------------------------------------------------------------------------------------
 */

typedef struct reader {
    const char *path;
    hid_t file;
    apmw_error *err;
} reader;

static apmw_status read_text_attribute(reader *r, const char *name, char *out, size_t size)
{
    out[0] = '\0';
    if (H5Aexists(r->file, name) <= 0) {
        return apmw_error_set(r->err, APMW_E_DATA, "%s: attribute %s is missing", r->path, name);
    }
    hid_t attribute = H5Aopen(r->file, name, H5P_DEFAULT);
    hid_t type = attribute >= 0 ? H5Aget_type(attribute) : -1,
          space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    size_t stored = type >= 0 ? H5Tget_size(type) : 0;
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_STRING &&
                H5Tis_variable_str(type) == 0 && H5Sget_simple_extent_npoints(space) == 1 && stored > 0 &&
                stored < 4096;
    char text[4096] = "";
    good = good && H5Aread(attribute, type, text) >= 0;
    if (good) {
        text[stored] = '\0';
        good = apmw_copy(out, size, text);
    }
    if (space >= 0) {
        H5Sclose(space);
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    return good ? APMW_OK
                : apmw_error_set(r->err, APMW_E_DATA, "%s: attribute %s is not a text of at most %zu bytes",
                                 r->path, name, size - 1);
}

static apmw_status read_int_attribute(reader *r, const char *name, int64_t *out)
{
    hid_t attribute = H5Aexists(r->file, name) > 0 ? H5Aopen(r->file, name, H5P_DEFAULT) : -1;
    hid_t type = attribute >= 0 ? H5Aget_type(attribute) : -1,
          space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_INTEGER &&
                H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, H5T_NATIVE_INT64, out) >= 0;
    if (space >= 0) {
        H5Sclose(space);
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    if (attribute >= 0) {
        H5Aclose(attribute);
    }
    return good ? APMW_OK
                : apmw_error_set(r->err, APMW_E_DATA, "%s: attribute %s is missing or not an integer",
                                 r->path, name);
}

/* Opens a one-dimensional dataset of the class. A damaged extent must not become an allocation, so the rows
 * it claims are held against the bytes that are stored (deflate cannot shrink by more than 1,032 to 1). */
static apmw_status open_column(reader *r, const char *path, H5T_class_t class, size_t width, hid_t *set,
                               size_t *rows)
{
    *set = H5Dopen2(r->file, path, H5P_DEFAULT);
    if (*set < 0) {
        return apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s is missing or damaged", r->path, path);
    }
    hid_t space = H5Dget_space(*set), type = H5Dget_type(*set);
    hsize_t extent = 0;
    bool good = space >= 0 && type >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                H5Sget_simple_extent_dims(space, &extent, NULL) == 1 && H5Tget_class(type) == class &&
                (class != H5T_STRING || (H5Tis_variable_str(type) == 0 && H5Tget_size(type) <= width));
    size_t bytes = type >= 0 ? H5Tget_size(type) : 0;
    if (space >= 0) {
        H5Sclose(space);
    }
    if (type >= 0) {
        H5Tclose(type);
    }
    hsize_t stored = H5Dget_storage_size(*set);
    if (good && (double)extent * (double)bytes > 1100.0 * (double)stored + 4096) {
        H5Dclose(*set);
        return apmw_error_set(r->err, APMW_E_DATA,
                              "%s: dataset /%s claims %" PRIuHSIZE " rows, but stores %" PRIuHSIZE " bytes",
                              r->path, path, extent, stored);
    }
    if (!good) {
        H5Dclose(*set);
        return apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s is not one column of %s", r->path, path,
                              class == H5T_STRING ? "short texts" : "integers");
    }
    *rows = (size_t)extent;
    return APMW_OK;
}

/* rows = 0: any number, which is returned; otherwise it must be that. */
static apmw_status read_ints(reader *r, const char *path, size_t *rows, int64_t **out)
{
    hid_t set = -1;
    size_t n = 0;
    apmw_status status = open_column(r, path, H5T_INTEGER, 8, &set, &n);
    if (status != APMW_OK) {
        return status;
    }
    int64_t *values = NULL;
    if (*rows != 0 && n != *rows) {
        status = apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s has %zu rows, expected %zu", r->path,
                                path, n, *rows);
    } else if (n == 0) {
        status = apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s is empty", r->path, path);
    } else if ((values = malloc(n * sizeof *values)) == NULL) {
        status = apmw_error_set(r->err, APMW_E_NOMEM, "%s: out of memory", r->path);
    } else if (H5Dread(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
        status = apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s cannot be read: truncated or damaged",
                                r->path, path);
    }
    H5Dclose(set);
    if (status != APMW_OK) {
        free(values);
        return status;
    }
    *rows = n;
    *out = values;
    return APMW_OK;
}

static apmw_status read_texts(reader *r, const char *path, size_t rows, size_t size, char **out)
{
    hid_t set = -1;
    size_t n = 0;
    apmw_status status = open_column(r, path, H5T_STRING, size, &set, &n);
    if (status != APMW_OK) {
        return status;
    }
    char *text = NULL;
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    if (n != rows) {
        status = apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s has %zu rows, expected %zu", r->path,
                                path, n, rows);
    } else if ((text = calloc(rows, size)) == NULL) {
        status = apmw_error_set(r->err, APMW_E_NOMEM, "%s: out of memory", r->path);
    } else if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0) {
        status = apmw_error_set(r->err, APMW_E_DATA, "%s: dataset /%s cannot be read: truncated or damaged",
                                r->path, path);
    }
    H5Tclose(type);
    H5Dclose(set);
    if (status != APMW_OK) {
        free(text);
        return status;
    }
    *out = text;
    return APMW_OK;
}

enum { GLOBAL_ID, GLOBAL_TOKENS, TURNS, LANES, N_HEADS };

typedef struct columns {
    char *ids, *sources;
    int64_t *head[N_HEADS], *turn[N_FIELDS], *spawn, *join;
    size_t n, n_turns, n_lanes;
} columns;

static void free_columns(columns *c)
{
    free(c->ids);
    free(c->sources);
    for (int k = 0; k < N_HEADS; k++) {
        free(c->head[k]);
    }
    for (int k = 0; k < N_FIELDS; k++) {
        free(c->turn[k]);
    }
    free(c->spawn);
    free(c->join);
}

/* Sum of the parts of the trajectories; a part must be positive and small enough to be an index. */
static apmw_status sum_parts(reader *r, const char *path, const int64_t *parts, size_t n, size_t *sum)
{
    *sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (parts[i] < 1 || parts[i] > APMW_TR_MAX_TURNS) {
            return apmw_error_set(r->err, APMW_E_DATA,
                                  "%s: dataset /%s: row %zu is %" PRId64 ", out of range", r->path, path, i,
                                  parts[i]);
        }
        *sum += (size_t)parts[i];
    }
    return APMW_OK;
}

static apmw_status read_columns(reader *r, columns *c)
{
    static const char *const heads[N_HEADS] = {"trajectories/global_id", "trajectories/global_tokens",
                                               "trajectories/turns", "trajectories/lanes"};
    apmw_status status = APMW_OK;
    for (int k = 0; k < N_HEADS && status == APMW_OK; k++) {
        status = read_ints(r, heads[k], &c->n, &c->head[k]);
    }
    if (status == APMW_OK) {
        status = read_texts(r, "trajectories/id", c->n, sizeof((apmw_trajectory *)0)->id, &c->ids);
    }
    if (status == APMW_OK) {
        status =
            read_texts(r, "trajectories/source", c->n, sizeof((apmw_trajectory *)0)->source, &c->sources);
    }
    if (status == APMW_OK) {
        status = sum_parts(r, heads[TURNS], c->head[TURNS], c->n, &c->n_turns);
    }
    if (status == APMW_OK) {
        status = sum_parts(r, heads[LANES], c->head[LANES], c->n, &c->n_lanes);
    }
    for (int k = 0; k < N_FIELDS && status == APMW_OK; k++) {
        status = read_ints(r, turn_columns[k].path, &c->n_turns, &c->turn[k]);
    }
    if (status == APMW_OK) {
        status = read_ints(r, "lanes/spawn_after", &c->n_lanes, &c->spawn);
    }
    if (status == APMW_OK) {
        status = read_ints(r, "lanes/join_before", &c->n_lanes, &c->join);
    }
    return status;
}

/* A number that must fit 32 bits; what does not becomes one that the rules of a trajectory refuse. */
static int32_t narrow(int64_t value)
{
    return value < INT32_MIN || value > INT32_MAX ? INT32_MIN : (int32_t)value;
}

static apmw_turn_trigger to_trigger(int64_t value)
{
    return (apmw_turn_trigger)(value >= APMW_TURN_TOOL && value <= APMW_TURN_JOIN ? value
                                                                                  : APMW_TURN_JOIN + 1);
}

static apmw_status build(reader *r, const columns *c, apmw_trace *trace)
{
    size_t turn = 0, lane = 0;
    const size_t id_size = sizeof((apmw_trajectory *)0)->id,
                 source_size = sizeof((apmw_trajectory *)0)->source;
    for (size_t i = 0; i < c->n; i++) {
        apmw_trajectory t = {.global_id = narrow(c->head[GLOBAL_ID][i]),
                             .global_tokens = c->head[GLOBAL_TOKENS][i]};
        memcpy(t.id, c->ids + i * id_size, id_size - 1);
        memcpy(t.source, c->sources + i * source_size, source_size - 1);
        apmw_status status = APMW_OK;
        for (int64_t k = 0; k < c->head[TURNS][i] && status == APMW_OK; k++, turn++) {
            apmw_turn u = {
                .n_in = c->turn[N_IN][turn],
                .n_out = c->turn[N_OUT][turn],
                .parent = narrow(c->turn[PARENT][turn]),
                .lane = narrow(c->turn[LANE][turn]),
                .shared_in = c->turn[SHARED_IN][turn],
                .shared_out = c->turn[SHARED_OUT][turn],
                .delay_ns = c->turn[DELAY][turn],
                .trigger = to_trigger(c->turn[TRIGGER][turn]),
            };
            status = apmw_tr_push_turn(&t, &u, r->err);
        }
        for (int64_t k = 0; k < c->head[LANES][i] && status == APMW_OK; k++, lane++) {
            status = apmw_tr_push_lane(&t, narrow(c->spawn[lane]), narrow(c->join[lane]), r->err);
        }
        if (status != APMW_OK) {
            apmw_trajectory_free(&t);
            return status;
        }
        status = apmw_tr_take(trace, &t, r->err);
        if (status != APMW_OK) {
            return apmw_error_wrap(r->err, "%s", r->path);
        }
    }
    return APMW_OK;
}

static apmw_status read_file(reader *r, apmw_trace *trace)
{
    char schema[64], hash[17] = "", note[sizeof trace->note] = "";
    int64_t block = 0;
    size_t before = trace->n;
    columns c = {0};
    apmw_status status = read_text_attribute(r, "schema", schema, sizeof schema);
    if (status == APMW_OK && strcmp(schema, APMW_TR_SCHEMA) != 0) {
        bool newer = strncmp(schema, "apmw.trace/", 11) == 0;
        return apmw_error_set(r->err, APMW_E_DATA,
                              "%s: schema is %s; this program reads " APMW_TR_SCHEMA "%s", r->path, schema,
                              newer ? "; a newer apmw wrote it" : "");
    }
    if (status == APMW_OK) {
        status = read_int_attribute(r, "block_tokens", &block);
    }
    if (status == APMW_OK) {
        status = apmw_tr_set_block(trace, block, r->path, r->err);
    }
    if (status == APMW_OK && H5Aexists(r->file, "hash") > 0) {
        status = read_text_attribute(r, "hash", hash, sizeof hash);
    }
    if (status == APMW_OK && H5Aexists(r->file, "note") > 0) {
        status = read_text_attribute(r, "note", note, sizeof note);
    }
    if (status == APMW_OK) {
        status = read_columns(r, &c);
    }
    if (status == APMW_OK) {
        status = build(r, &c, trace);
    }
    free_columns(&c);
    if (status == APMW_OK && trace->note[0] == '\0') {
        memcpy(trace->note, note, sizeof note);
    }
    if (status == APMW_OK && hash[0] != '\0') {
        apmw_trace part = *trace;
        part.items = trace->items + before;
        part.n = trace->n - before;
        apmw_trace_rehash(&part);
        if (strcmp(part.hash, hash) != 0) {
            status = apmw_error_set(r->err, APMW_E_DATA,
                                    "%s: content hash is %s, but the file says %s: it was damaged", r->path,
                                    part.hash, hash);
        }
    }
    return status;
}

static apmw_status load(const char *path, apmw_trace *trace, apmw_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = access_list();
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (file < 0) {
        return failed(path, "not a readable HDF5 file: truncated, damaged or locked", err);
    }
    reader r = {path, file, err};
    apmw_status status = read_file(&r, trace);
    H5Fclose(file);
    return status;
}

const apmw_tr_format apmw_tr_format_h5 = {
    {"apmw-h5", "native binary: HDF5 columns, deflated (traces/FORMAT.md, section 3)", true}, load};
