/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Engine overheads fitted on serving points: the table, its file (hwmodels/engines.h5) and the choice of an entry. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <hdf5.h>
#include "apmw/overhead.h"
#include "apmw/text.h"

static const struct {
    const char *name;
    size_t offset, size;
} texts[] = {{"engine", offsetof(apmw_overhead_entry, engine), sizeof ((apmw_overhead_entry *)0)->engine},
             {"model", offsetof(apmw_overhead_entry, model), sizeof ((apmw_overhead_entry *)0)->model},
             {"family", offsetof(apmw_overhead_entry, family), sizeof ((apmw_overhead_entry *)0)->family},
             {"platform", offsetof(apmw_overhead_entry, platform), sizeof ((apmw_overhead_entry *)0)->platform},
             {"precision", offsetof(apmw_overhead_entry, precision), sizeof ((apmw_overhead_entry *)0)->precision},
             {"role", offsetof(apmw_overhead_entry, role), sizeof ((apmw_overhead_entry *)0)->role},
             {"released_from", offsetof(apmw_overhead_entry, released_from), sizeof ((apmw_overhead_entry *)0)->released_from},
             {"basis", offsetof(apmw_overhead_entry, value.basis), sizeof ((apmw_overhead *)0)->basis}};
static const struct {
    const char *name;
    size_t offset;
} numbers[] = {{"layer_s", offsetof(apmw_overhead_entry, value.layer_s)},
               {"seq_s", offsetof(apmw_overhead_entry, value.seq_s)},
               {"request_s", offsetof(apmw_overhead_entry, value.request_s)},
               {"frontend_s_per_token", offsetof(apmw_overhead_entry, value.frontend_s_per_token)},
               {"prefill_floor_layer_s", offsetof(apmw_overhead_entry, value.prefill_floor_layer_s)},
               {"prefill_scale", offsetof(apmw_overhead_entry, value.prefill_scale)},
               {"kernel_extra", offsetof(apmw_overhead_entry, value.kernel_extra)},
               {"acceptance", offsetof(apmw_overhead_entry, value.acceptance)},
               {"acceptance_ln_osl", offsetof(apmw_overhead_entry, value.acceptance_ln_osl)},
               {"draft_tokens", offsetof(apmw_overhead_entry, draft_tokens)},
               {"layer_tp_s", offsetof(apmw_overhead_entry, layer_tp_s)},
               {"ln_sd_time", offsetof(apmw_overhead_entry, value.ln_sd_time)},
               {"ln_sd_ttft", offsetof(apmw_overhead_entry, value.ln_sd_ttft)},
               {"sd_layer_s", offsetof(apmw_overhead_entry, sd_layer_s)},
               {"sd_seq_s", offsetof(apmw_overhead_entry, sd_seq_s)},
               {"sd_request_s", offsetof(apmw_overhead_entry, sd_request_s)}};
enum { N_TEXTS = sizeof texts / sizeof *texts, N_NUMBERS = sizeof numbers / sizeof *numbers };

/* A column of the table as one data set, without times so that equal tables are equal files. */
static bool write_column(hid_t file, const char *name, hid_t type, size_t n, const void *values)
{
    hsize_t dims = n;
    hid_t space = H5Screate_simple(1, &dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(plist, 0);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    bool ok = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
    return ok;
}

static bool write_attribute(hid_t file, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(value) + 1);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return ok;
}

apmw_status apmw_overhead_table_save(const apmw_overhead_table *table, const char *path, apmw_error *err)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(access, 0);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, access, H5P_DEFAULT);
    H5Pclose(access);
    if (file < 0) {
        return apmw_error_set(err, APMW_E_CANTCREAT, "%s: cannot be created", path);
    }
    size_t n = table->n;
    bool ok = write_attribute(file, "schema", "apmw.engines/1") && write_attribute(file, "provenance", table->provenance);
    char *text = calloc(n + 1, 160);
    double *value = calloc(n + 1, sizeof *value);
    ok = ok && text && value;
    for (size_t c = 0; ok && c < N_TEXTS && n > 0; c++) {
        size_t width = texts[c].size;
        memset(text, 0, n * width);
        for (size_t i = 0; i < n; i++) {
            apmw_copy(text + i * width, width, (const char *)&table->entry[i] + texts[c].offset);
        }
        hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, width);
        ok = write_column(file, texts[c].name, type, n, text);
        H5Tclose(type);
    }
    for (size_t c = 0; ok && c < N_NUMBERS && n > 0; c++) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&value[i], (const char *)&table->entry[i] + numbers[c].offset, sizeof *value);
        }
        ok = write_column(file, numbers[c].name, H5T_NATIVE_DOUBLE, n, value);
    }
    free(text);
    free(value);
    ok = H5Fclose(file) >= 0 && ok;
    return ok ? APMW_OK : apmw_error_set(err, APMW_E_IO, "%s: writing failed", path);
}

static bool read_attribute(hid_t file, const char *name, char *out, size_t size)
{
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    if (attribute < 0) {
        return false;
    }
    hid_t type = H5Aget_type(attribute);
    char text[1024] = "";
    bool ok = H5Tget_size(type) < sizeof text && H5Aread(attribute, type, text) >= 0;
    apmw_copy(out, size, text);
    H5Tclose(type);
    H5Aclose(attribute);
    return ok;
}

/* Number of entries, from the column "engine"; -1 when it is not there. */
static hssize_t column_length(hid_t file)
{
    hid_t set = H5Dopen2(file, "engine", H5P_DEFAULT);
    if (set < 0) {
        return -1;
    }
    hid_t space = H5Dget_space(set);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    H5Dclose(set);
    return n;
}

static bool read_text(hid_t file, apmw_overhead_table *table, size_t c)
{
    size_t width = texts[c].size;
    char *text = calloc(table->n, width);
    hid_t set = H5Dopen2(file, texts[c].name, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, width);
    bool ok = text && set >= 0 && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) >= 0;
    for (size_t i = 0; ok && i < table->n; i++) {
        memcpy((char *)&table->entry[i] + texts[c].offset, text + i * width, width);
        *((char *)&table->entry[i] + texts[c].offset + width - 1) = 0;
    }
    H5Tclose(type);
    H5Dclose(set);
    free(text);
    return ok;
}

static bool read_number(hid_t file, apmw_overhead_table *table, size_t c)
{
    double *value = calloc(table->n, sizeof *value);
    hid_t set = H5Dopen2(file, numbers[c].name, H5P_DEFAULT);
    bool ok = value && set >= 0 && H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) >= 0;
    for (size_t i = 0; ok && i < table->n; i++) {
        memcpy((char *)&table->entry[i] + numbers[c].offset, &value[i], sizeof *value);
    }
    H5Dclose(set);
    free(value);
    return ok;
}

apmw_status apmw_overhead_table_load(const char *path, apmw_overhead_table *out, apmw_error *err)
{
    *out = (apmw_overhead_table){.n = 0};
    struct stat info;
    if (stat(path, &info)) {
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: no such file", path);
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        return apmw_error_set(err, APMW_E_DATA, "%s: not an HDF5 file", path);
    }
    char schema[64] = "";
    bool ok = read_attribute(file, "schema", schema, sizeof schema) && !strcmp(schema, "apmw.engines/1");
    if (!ok) {
        H5Fclose(file);
        return apmw_error_set(err, APMW_E_DATA, "%s: schema \"%s\", expected \"apmw.engines/1\"", path, schema);
    }
    (void)read_attribute(file, "provenance", out->provenance, sizeof out->provenance);
    hssize_t n = column_length(file);
    out->n = n > 0 ? (size_t)n : 0;
    out->entry = calloc(out->n + 1, sizeof *out->entry);
    ok = out->entry != NULL;
    for (size_t c = 0; ok && out->n > 0 && c < N_TEXTS; c++) {
        ok = read_text(file, out, c);
    }
    for (size_t c = 0; ok && out->n > 0 && c < N_NUMBERS; c++) {
        ok = read_number(file, out, c);
    }
    H5Fclose(file);
    if (!ok) {
        apmw_overhead_table_free(out);
        return apmw_error_set(err, APMW_E_DATA, "%s: a column is missing or unreadable", path);
    }
    return APMW_OK;
}

void apmw_overhead_table_free(apmw_overhead_table *table)
{
    free(table->entry);
    *table = (apmw_overhead_table){.n = 0};
}

/* -1: does not fit; else how specific. Points are powers of two in the order of what shifts overheads most, so
 * that two different sets of keys never tie. */
static int specificity(const apmw_overhead_entry *e, const apmw_overhead_key *key)
{
    if (strcmp(e->engine, key->engine)) {
        return -1;
    }
    int score = 0;
    if (e->draft_tokens > 0) {
        if (e->draft_tokens != key->draft_tokens) {
            return -1;
        }
        score += 64;
    }
    const struct {
        const char *want, *have;
        int points;
    } keys[] = {{e->role, key->role, 32},
                {e->model, key->model, 16},
                {e->platform, key->platform, 8},
                {e->family, key->family, 4},
                {e->precision, key->precision, 2}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!strcmp(keys[i].want, "*") || (i > 0 && !keys[i].want[0])) {
            continue; /* "" is a role (aggregated) but no model, platform or precision */
        }
        if (strcmp(keys[i].want, keys[i].have)) {
            return -1;
        }
        score += keys[i].points;
    }
    if (strcmp(e->released_from, "*") && e->released_from[0]) {
        if (key->released[0] && strcmp(key->released, e->released_from) < 0) {
            return -1;
        }
        score += 1;
    }
    return score;
}

const apmw_overhead_entry *apmw_overhead_table_find(const apmw_overhead_table *table, const apmw_overhead_key *key)
{
    const apmw_overhead_entry *best = NULL;
    int best_score = -1;
    for (size_t i = 0; i < table->n; i++) {
        const apmw_overhead_entry *e = &table->entry[i];
        int score = specificity(e, key);
        /* Of equally specific entries the latest release that is not after the build. */
        bool later = score == best_score && best && strcmp(e->released_from, best->released_from) > 0;
        if (score > best_score || (score >= 0 && later)) {
            best = e;
            best_score = score;
        }
    }
    return best;
}

void apmw_overhead_entry_value(const apmw_overhead_entry *entry, int tp, apmw_overhead *out)
{
    *out = entry->value;
    out->layer_s += entry->layer_tp_s * log2(tp > 1 ? tp : 1);
}

/* Priors of hwmodels/ACCURACY.md: time per layer and step 20 +- 15 us (TensorRT-LLM 5), 15 us a sequence, 30 ms a request
 * (SGLang 90) + 3 ms per 1,000 prompt tokens. Decode workers of disaggregated deployments carry about none (section 8).
 * The sds are what such a prior leaves on the points: ln 0.15 for time, 0.45 for TTFT (section 1, columns "no fit"). */
void apmw_overhead_prior(const char *engine, const char *role, apmw_overhead *out)
{
    bool trtllm = !strcmp(engine, "trtllm"), sglang = !strcmp(engine, "sglang"), atom = !strcmp(engine, "atom");
    *out = (apmw_overhead){.layer_s = trtllm ? 5e-6 : atom ? 70e-6 : 20e-6,
                           .seq_s = 15e-6,
                           .request_s = sglang ? 90e-3 : 30e-3,
                           .frontend_s_per_token = 3e-6,
                           .prefill_floor_layer_s = 0,
                           .prefill_scale = 1,
                           .ln_sd_time = 0.15,
                           .ln_sd_ttft = 0.45};
    if (!strcmp(role, "decode")) {
        out->layer_s = out->seq_s = 0;
    }
    apmw_copy(out->basis, sizeof out->basis, "prior: no serving point fitted for this engine and model");
}
