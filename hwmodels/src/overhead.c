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
             {"vendor", offsetof(apmw_overhead_entry, vendor), sizeof ((apmw_overhead_entry *)0)->vendor},
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
               {"ln_acceptance", offsetof(apmw_overhead_entry, ln_acceptance)},
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
    bool ok = write_attribute(file, "schema", "apmw.engines/2") && write_attribute(file, "provenance", table->provenance);
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
    bool ok = read_attribute(file, "schema", schema, sizeof schema) && !strcmp(schema, "apmw.engines/2");
    if (!ok) {
        H5Fclose(file);
        return apmw_error_set(err, APMW_E_DATA, "%s: schema \"%s\", expected \"apmw.engines/2\"", path, schema);
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

enum { N_KEYS = 7 };

typedef struct key_pair {
    const char *want, *have;
} key_pair;

static void pair_keys(const apmw_overhead_entry *e, const apmw_overhead_key *key, key_pair out[N_KEYS])
{
    const key_pair pairs[N_KEYS] = {{e->role, key->role},         {e->vendor, key->vendor},
                                    {e->model, key->model},       {e->family, key->family},
                                    {e->platform, key->platform}, {e->precision, key->precision},
                                    {e->released_from, key->released}};
    memcpy(out, pairs, sizeof pairs);
}

/* "" is a role (aggregated), but no model, platform or precision. */
static bool is_any(const key_pair *pair, int i)
{
    return !strcmp(pair->want, "*") || (i > 0 && !pair->want[0]);
}

/* Whether the entry holds for the key, and which of its keys say something. */
static bool holds(const apmw_overhead_entry *e, const apmw_overhead_key *key, unsigned *kind)
{
    bool any_draft = e->draft_tokens < 0, one_draft = e->draft_tokens > 0;
    if (strcmp(e->engine, key->engine) || (any_draft && key->draft_tokens <= 0) ||
        (one_draft && (int)e->draft_tokens != key->draft_tokens)) {
        return false;
    }
    *kind = (any_draft ? 1U << N_KEYS : 0) | (one_draft ? 2U << N_KEYS : 0);
    key_pair pairs[N_KEYS];
    pair_keys(e, key, pairs);
    for (int i = 0; i < N_KEYS; i++) {
        if (is_any(&pairs[i], i)) {
            continue;
        }
        bool release = i == N_KEYS - 1, platform = pairs[i].want == e->platform;
        const char *have = pairs[i].have ? pairs[i].have : "";
        if (platform && !strcmp(apmw_overhead_silicon(have), pairs[i].want)) {
            have = pairs[i].want;
        }
        if (release ? have[0] && strcmp(have, pairs[i].want) < 0 : strcmp(have, pairs[i].want) != 0) {
            return false;
        }
        *kind |= 1U << i;
    }
    return true;
}

static int bits(unsigned kind)
{
    int n = 0;
    for (; kind; kind &= kind - 1) {
        n++;
    }
    return n;
}

/* A later release of the same kind that holds, too. */
static bool superseded(const apmw_overhead_table *table, const apmw_overhead_key *key, const apmw_overhead_entry *e,
                       unsigned kind)
{
    for (size_t j = 0; (kind & (1U << (N_KEYS - 1))) && j < table->n; j++) {
        unsigned other;
        if (holds(&table->entry[j], key, &other) && other == kind &&
            strcmp(table->entry[j].released_from, e->released_from) > 0) {
            return true;
        }
    }
    return false;
}

static void add(const apmw_overhead_entry *e, double doublings, apmw_overhead *sum)
{
    sum->layer_s += e->value.layer_s + e->layer_tp_s * doublings;
    sum->seq_s += e->value.seq_s;
    sum->request_s += e->value.request_s;
    sum->frontend_s_per_token += e->value.frontend_s_per_token;
    sum->prefill_floor_layer_s += e->value.prefill_floor_layer_s;
    sum->prefill_scale += e->value.prefill_scale;
    sum->kernel_extra += e->value.kernel_extra;
    sum->acceptance_ln_osl += e->value.acceptance_ln_osl;
}

/* Sums of deviations may leave what a number can mean. */
static void bound(apmw_overhead *sum)
{
    sum->layer_s = fmax(sum->layer_s, 0);
    sum->seq_s = fmax(sum->seq_s, 0);
    sum->request_s = fmax(sum->request_s, 0);
    sum->frontend_s_per_token = fmax(sum->frontend_s_per_token, 0);
    sum->prefill_floor_layer_s = fmax(sum->prefill_floor_layer_s, 0);
    sum->prefill_scale = fmax(sum->prefill_scale, 0.1);
    sum->kernel_extra = fmax(sum->kernel_extra, -0.5);
}

size_t apmw_overhead_table_value(const apmw_overhead_table *table, const apmw_overhead_key *key, apmw_overhead *out)
{
    apmw_overhead sum = {.layer_s = 0}, prior;
    apmw_overhead_prior(key->engine, key->role, &prior);
    sum.ln_sd_time = prior.ln_sd_time; /* until an entry says better */
    sum.ln_sd_ttft = prior.ln_sd_ttft;
    double ln_acceptance = 0, doublings = log2(key->tp > 1 ? key->tp : 1);
    size_t n = 0;
    int most = -1;
    bool accepts = false;
    for (size_t i = 0; i < table->n; i++) {
        const apmw_overhead_entry *e = &table->entry[i];
        unsigned kind;
        if (!holds(e, key, &kind) || superseded(table, key, e, kind)) {
            continue;
        }
        n++;
        add(e, doublings, &sum);
        ln_acceptance += e->ln_acceptance;
        accepts = accepts || e->draft_tokens > 0;
        if (bits(kind) > most) {
            most = bits(kind);
            sum.ln_sd_time = isnan(e->value.ln_sd_time) ? sum.ln_sd_time : e->value.ln_sd_time;
            sum.ln_sd_ttft = isnan(e->value.ln_sd_ttft) ? sum.ln_sd_ttft : e->value.ln_sd_ttft;
            apmw_copy(sum.basis, sizeof sum.basis, e->value.basis);
        }
    }
    if (n == 0) {
        return 0;
    }
    bound(&sum);
    sum.acceptance = accepts ? exp(ln_acceptance) : 0;
    *out = sum;
    return n;
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
