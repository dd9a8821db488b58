/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A platform model in HDF5. Layout (schema "apmw.hwmodel", version 1):
 *   /               attributes: schema, version, platform, provenance
 *   /tables/NNNN    attributes: op, engine, table_version, source, source_hash, axes (comma-separated);
 *                   datasets: key (fixed strings, one a group), rows (rows of each group), x (rows x axes), time_s (float,
 *                   13 binary digits)
 *   /fits           one compound-free table: text columns family, chosen; numbers (fits x 16)
 *   /watts          text columns op, engine, version, family; numbers (rows x 4); absent when nothing was measured
 *   /power          attributes, one a field; absent when the platform has no power parameters
 * No object carries a time, so the same model gives the same bytes. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/buf.h"
#include "apmw/hwmodel.h"
#include "apmw/text.h"

enum { SCHEMA_VERSION = 1, FIT_NUMBERS = 16, SHORT_TEXT = 64 };
static const char schema_name[] = "apmw.hwmodel";

/* --- small helpers: every one returns false on failure --- */

static bool put_text(hid_t where, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    bool ok = type >= 0 && space >= 0 && H5Tset_size(type, strlen(value) + 1) >= 0;
    hid_t attr = ok ? H5Acreate2(where, name, type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    ok = attr >= 0 && H5Awrite(attr, type, value) >= 0;
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return ok;
}

static bool get_text(hid_t where, const char *name, char *out, size_t size)
{
    hid_t attr = H5Aopen(where, name, H5P_DEFAULT);
    hid_t type = attr >= 0 ? H5Aget_type(attr) : -1;
    bool ok = type >= 0 && H5Tget_class(type) == H5T_STRING && !(H5Tis_variable_str(type) > 0);
    size_t n = ok ? H5Tget_size(type) : 0;
    ok = ok && n < 65536;
    char *text = ok ? calloc(1, n + 1) : NULL;
    ok = text != NULL && H5Aread(attr, type, text) >= 0;
    if (ok)
        ok = apmw_copy(out, size, text);
    free(text);
    if (type >= 0)
        H5Tclose(type);
    if (attr >= 0)
        H5Aclose(attr);
    return ok;
}

static bool put_number(hid_t where, const char *name, double value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attr = space >= 0 ? H5Acreate2(where, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    bool ok = attr >= 0 && H5Awrite(attr, H5T_NATIVE_DOUBLE, &value) >= 0;
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static bool get_number(hid_t where, const char *name, double *value)
{
    hid_t attr = H5Aopen(where, name, H5P_DEFAULT);
    bool ok = attr >= 0 && H5Aread(attr, H5T_NATIVE_DOUBLE, value) >= 0;
    if (attr >= 0)
        H5Aclose(attr);
    return ok;
}

static bool put_array(hid_t where, const char *name, hid_t file_type, hid_t memory_type, size_t rows, size_t cols,
                      const void *data)
{
    hsize_t dims[2] = {rows, cols}, chunk[2] = {rows < 16384 ? rows : 16384, cols};
    hid_t space = H5Screate_simple(2, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    bool ok = space >= 0 && plist >= 0 && H5Pset_obj_track_times(plist, 0) >= 0 && H5Pset_chunk(plist, 2, chunk) >= 0 &&
              H5Pset_shuffle(plist) >= 0 && H5Pset_deflate(plist, 9) >= 0;
    hid_t set = ok ? H5Dcreate2(where, name, file_type, space, H5P_DEFAULT, plist, H5P_DEFAULT) : -1;
    ok = set >= 0 && H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (set >= 0)
        H5Dclose(set);
    if (plist >= 0)
        H5Pclose(plist);
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

/* Reads a two-dimensional dataset of `size`-byte elements; *data is malloc'ed. max_elements guards a damaged header. */
static bool get_array(hid_t where, const char *name, hid_t memory_type, size_t size, size_t *rows, size_t *cols,
                      void **data)
{
    hid_t set = H5Dopen2(where, name, H5P_DEFAULT);
    hid_t space = set >= 0 ? H5Dget_space(set) : -1;
    hsize_t dims[2] = {0, 0};
    bool ok = space >= 0 && H5Sget_simple_extent_ndims(space) == 2 && H5Sget_simple_extent_dims(space, dims, NULL) == 2 &&
              dims[0] < (1u << 26) && dims[1] < 1024;
    *data = ok ? malloc((size_t)(dims[0] * dims[1]) * size + 1) : NULL;
    ok = *data != NULL && H5Dread(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data) >= 0;
    *rows = (size_t)dims[0];
    *cols = (size_t)dims[1];
    if (space >= 0)
        H5Sclose(space);
    if (set >= 0)
        H5Dclose(set);
    return ok;
}

static hid_t fixed_string(size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0)
        H5Tset_size(type, size);
    return type;
}

static hid_t make_group(hid_t where, const char *name)
{
    hid_t plist = H5Pcreate(H5P_GROUP_CREATE);
    if (plist < 0)
        return -1;
    H5Pset_obj_track_times(plist, 0);
    hid_t group = H5Gcreate2(where, name, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Pclose(plist);
    return group;
}

/* --- tables --- */

/* Times keep 13 binary digits (relative 1.2e-4, a hundredth of the scatter of the measurement): the file then is half as
 * large. Rounding keeps order, so that monotone rows stay monotone. */
static float round_time(double seconds)
{
    int exponent;
    double mantissa = frexp(seconds, &exponent);
    return (float)ldexp(round(mantissa * 8192.0) / 8192.0, exponent);
}

static bool save_table(hid_t where, const apmw_op_table *t)
{
    size_t total = 0;
    char axes[APMW_OP_AXES * 24] = "";
    for (int a = 0; a < t->n_axes; a++) {
        strncat(axes, a > 0 ? "," : "", sizeof axes - strlen(axes) - 1);
        strncat(axes, t->axis[a], sizeof axes - strlen(axes) - 1);
    }
    for (size_t i = 0; i < t->n_groups; i++)
        total += apmw_op_group_rows(apmw_op_table_group_at(t, i));
    size_t n_axes = (size_t)t->n_axes;
    char *keys = calloc(t->n_groups + 1, APMW_OP_KEY);
    int *rows = calloc(t->n_groups + 1, sizeof *rows);
    double *x = calloc(total * n_axes + 1, sizeof *x);
    float *time_s = calloc(total + 1, sizeof *time_s);
    bool ok = keys != NULL && rows != NULL && x != NULL && time_s != NULL;
    size_t at = 0;
    for (size_t i = 0; ok && i < t->n_groups; i++) {
        const apmw_op_group *g = apmw_op_table_group_at(t, i);
        apmw_copy(keys + i * APMW_OP_KEY, APMW_OP_KEY, apmw_op_group_key(g));
        rows[i] = (int)apmw_op_group_rows(g);
        for (size_t r = 0; r < apmw_op_group_rows(g); r++, at++) {
            double seconds = 0.0;
            apmw_op_group_row(g, r, x + at * n_axes, &seconds);
            time_s[at] = round_time(seconds);
        }
    }
    ok = ok && put_text(where, "op", t->op) && put_text(where, "engine", t->engine) &&
         put_text(where, "table_version", t->version) && put_text(where, "source", t->source) &&
         put_text(where, "source_hash", t->source_hash) && put_text(where, "axes", axes);
    hid_t text = fixed_string(APMW_OP_KEY);
    ok = ok && put_array(where, "key", text, text, t->n_groups, 1, keys) &&
         put_array(where, "rows", H5T_STD_I32LE, H5T_NATIVE_INT, t->n_groups, 1, rows) &&
         put_array(where, "x", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, total, n_axes, x) &&
         put_array(where, "time_s", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, total, 1, time_s);
    H5Tclose(text);
    free(keys);
    free(rows);
    free(x);
    free(time_s);
    return ok;
}

static bool load_groups(hid_t where, apmw_op_table *t, apmw_error *err)
{
    void *keys = NULL, *rows = NULL, *x = NULL, *time_s = NULL;
    size_t n = 0, one = 0, n_rows = 0, total = 0, n_axes = 0, n_time = 0;
    hid_t text = fixed_string(APMW_OP_KEY);
    bool ok = get_array(where, "key", text, APMW_OP_KEY, &n, &one, &keys) && one == 1 &&
              get_array(where, "rows", H5T_NATIVE_INT, sizeof(int), &n_rows, &one, &rows) && n_rows == n && one == 1 &&
              get_array(where, "x", H5T_NATIVE_DOUBLE, sizeof(double), &total, &n_axes, &x) &&
              n_axes == (size_t)t->n_axes &&
              get_array(where, "time_s", H5T_NATIVE_FLOAT, sizeof(float), &n_time, &one, &time_s) && n_time == total &&
              one == 1;
    H5Tclose(text);
    double *seconds = ok ? malloc((total + 1) * sizeof *seconds) : NULL;
    ok = seconds != NULL;
    for (size_t i = 0; ok && i < total; i++)
        seconds[i] = (double)((const float *)time_s)[i];
    size_t at = 0;
    for (size_t i = 0; ok && i < n; i++) {
        int count = ((const int *)rows)[i];
        char *key = (char *)keys + i * APMW_OP_KEY;
        key[APMW_OP_KEY - 1] = 0;
        ok = count > 0 && at + (size_t)count <= total &&
             apmw_op_table_add_group(t, key, (size_t)count, (const double *)x + at * n_axes, seconds + at, false, err) ==
                 APMW_OK;
        at += (size_t)count;
    }
    free(keys);
    free(rows);
    free(x);
    free(time_s);
    free(seconds);
    return ok && at == total;
}

static apmw_op_table *load_table(hid_t where, apmw_error *err)
{
    char op[48], engine[16], version[24], axes[APMW_OP_AXES * 24], source[96], hash[17];
    const char *names[APMW_OP_AXES];
    int n_axes = 0;
    if (!get_text(where, "op", op, sizeof op) || !get_text(where, "engine", engine, sizeof engine) ||
        !get_text(where, "table_version", version, sizeof version) || !get_text(where, "axes", axes, sizeof axes) ||
        !get_text(where, "source", source, sizeof source) || !get_text(where, "source_hash", hash, sizeof hash))
        return NULL;
    for (char *save = NULL, *part = strtok_r(axes, ",", &save); part != NULL && n_axes < APMW_OP_AXES;
         part = strtok_r(NULL, ",", &save))
        names[n_axes++] = part;
    apmw_op_table *t = n_axes > 0 ? apmw_op_table_create(op, engine, version, n_axes, names) : NULL;
    if (t == NULL)
        return NULL;
    apmw_copy(t->source, sizeof t->source, source);
    apmw_copy(t->source_hash, sizeof t->source_hash, hash);
    if (!load_groups(where, t, err)) {
        apmw_op_table_free(t);
        return NULL;
    }
    return t;
}

/* --- fits and power --- */

static bool save_fits(hid_t file, const apmw_hwmodel *m)
{
    if (m->n_fits == 0)
        return true;
    hid_t group = make_group(file, "fits"), text = fixed_string(SHORT_TEXT);
    char *family = calloc(m->n_fits, SHORT_TEXT), *chosen = calloc(m->n_fits, SHORT_TEXT);
    double *numbers = calloc(m->n_fits * FIT_NUMBERS, sizeof *numbers);
    bool ok = group >= 0 && text >= 0 && family != NULL && chosen != NULL && numbers != NULL;
    for (size_t i = 0; ok && i < m->n_fits; i++) {
        const apmw_op_fit *f = &m->fits[i];
        double *v = numbers + i * FIT_NUMBERS;
        apmw_copy(family + i * SHORT_TEXT, SHORT_TEXT, f->family);
        apmw_copy(chosen + i * SHORT_TEXT, SHORT_TEXT, f->chosen);
        v[0] = (double)m->fit_table[i];
        v[1] = (double)f->n_points;
        v[2] = f->t0_s;
        v[3] = f->eff_flop;
        v[4] = f->eff_byte;
        for (int a = 0; a < 9; a++)
            v[5 + a] = f->covariance[a / 3][a % 3];
        v[14] = f->cv_form;
        v[15] = f->cv_table;
    }
    ok = ok && put_array(group, "family", text, text, m->n_fits, 1, family) &&
         put_array(group, "chosen", text, text, m->n_fits, 1, chosen) &&
         put_array(group, "numbers", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, m->n_fits, FIT_NUMBERS, numbers);
    free(family);
    free(chosen);
    free(numbers);
    if (text >= 0)
        H5Tclose(text);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

static bool load_fits(hid_t file, apmw_hwmodel *m)
{
    if (H5Lexists(file, "fits", H5P_DEFAULT) <= 0)
        return true;
    hid_t group = H5Gopen2(file, "fits", H5P_DEFAULT), text = fixed_string(SHORT_TEXT);
    void *family = NULL, *chosen = NULL, *numbers = NULL;
    size_t n = 0, n2 = 0, n3 = 0, one = 0, cols = 0;
    bool ok = group >= 0 && get_array(group, "family", text, SHORT_TEXT, &n, &one, &family) &&
              get_array(group, "chosen", text, SHORT_TEXT, &n2, &one, &chosen) && n2 == n &&
              get_array(group, "numbers", H5T_NATIVE_DOUBLE, sizeof(double), &n3, &cols, &numbers) && n3 == n &&
              cols == FIT_NUMBERS;
    m->fits = ok ? calloc(n + 1, sizeof *m->fits) : NULL;
    m->fit_table = ok ? calloc(n + 1, sizeof *m->fit_table) : NULL;
    ok = m->fits != NULL && m->fit_table != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const double *v = (const double *)numbers + i * FIT_NUMBERS;
        apmw_op_fit *f = &m->fits[i];
        ok = v[0] >= 0.0 && v[0] < (double)m->n_tables;
        m->fit_table[i] = ok ? (size_t)v[0] : 0;
        snprintf(f->family, sizeof f->family, "%.*s", (int)sizeof f->family - 1, (const char *)family + i * SHORT_TEXT);
        snprintf(f->chosen, sizeof f->chosen, "%.7s", (const char *)chosen + i * SHORT_TEXT);
        f->n_points = (int)v[1];
        f->t0_s = v[2];
        f->eff_flop = v[3];
        f->eff_byte = v[4];
        for (int a = 0; a < 9; a++)
            f->covariance[a / 3][a % 3] = v[5 + a];
        f->cv_form = v[14];
        f->cv_table = v[15];
    }
    m->n_fits = ok ? n : 0;
    free(family);
    free(chosen);
    free(numbers);
    H5Tclose(text);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

enum { WATT_TEXTS = 4, WATT_NUMBERS = 4 };
static const char *const watt_columns[WATT_TEXTS] = {"op", "engine", "version", "family"};

static char *watt_text(apmw_op_watts *w, int column, size_t *size)
{
    char *const texts[WATT_TEXTS] = {w->op, w->engine, w->version, w->family};
    const size_t sizes[WATT_TEXTS] = {sizeof w->op, sizeof w->engine, sizeof w->version, sizeof w->family};
    *size = sizes[column];
    return texts[column];
}

static bool save_watts(hid_t file, const apmw_hwmodel *m)
{
    if (m->n_watts == 0)
        return true;
    hid_t group = make_group(file, "watts"), text = fixed_string(SHORT_TEXT);
    char *column = calloc(m->n_watts, SHORT_TEXT);
    double *numbers = calloc(m->n_watts * WATT_NUMBERS, sizeof *numbers);
    bool ok = group >= 0 && text >= 0 && column != NULL && numbers != NULL;
    for (int c = 0; ok && c < WATT_TEXTS; c++) {
        size_t size = 0;
        memset(column, 0, m->n_watts * SHORT_TEXT);
        for (size_t i = 0; i < m->n_watts; i++)
            apmw_copy(column + i * SHORT_TEXT, SHORT_TEXT, watt_text(&m->watts[i], c, &size));
        ok = put_array(group, watt_columns[c], text, text, m->n_watts, 1, column);
    }
    for (size_t i = 0; ok && i < m->n_watts; i++) {
        const apmw_op_watts *w = &m->watts[i];
        const double row[WATT_NUMBERS] = {w->n, w->p10_w, w->median_w, w->p90_w};
        memcpy(numbers + i * WATT_NUMBERS, row, sizeof row);
    }
    ok = ok && put_array(group, "numbers", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, m->n_watts, WATT_NUMBERS, numbers);
    free(column);
    free(numbers);
    if (text >= 0)
        H5Tclose(text);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

static bool load_watts(hid_t file, apmw_hwmodel *m)
{
    if (H5Lexists(file, "watts", H5P_DEFAULT) <= 0)
        return true;
    hid_t group = H5Gopen2(file, "watts", H5P_DEFAULT), text = fixed_string(SHORT_TEXT);
    void *numbers = NULL;
    size_t n = 0, cols = 0;
    bool ok = group >= 0 && get_array(group, "numbers", H5T_NATIVE_DOUBLE, sizeof(double), &n, &cols, &numbers) &&
              cols == WATT_NUMBERS;
    m->watts = ok ? calloc(n + 1, sizeof *m->watts) : NULL;
    ok = m->watts != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const double *row = (const double *)numbers + i * WATT_NUMBERS;
        m->watts[i].n = (int)row[0];
        m->watts[i].p10_w = row[1];
        m->watts[i].median_w = row[2];
        m->watts[i].p90_w = row[3];
    }
    for (int c = 0; ok && c < WATT_TEXTS; c++) {
        void *column = NULL;
        size_t rows = 0, one = 0;
        ok = get_array(group, watt_columns[c], text, SHORT_TEXT, &rows, &one, &column) && rows == n && one == 1;
        for (size_t i = 0; ok && i < n; i++) {
            size_t size = 0;
            char *to = watt_text(&m->watts[i], c, &size);
            snprintf(to, size, "%.*s", (int)(size - 1), (const char *)column + i * SHORT_TEXT);
        }
        free(column);
    }
    m->n_watts = ok ? n : 0;
    free(numbers);
    if (text >= 0)
        H5Tclose(text);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

enum { POWER_NUMBERS = 16 };
typedef struct power_field {
    const char *name;
    double *value;
} power_field;

static void power_fields(apmw_power_params *p, power_field out[POWER_NUMBERS])
{
    const power_field list[POWER_NUMBERS] = {{"tdp_w", &p->tdp_w},
                                             {"p0", &p->p0},
                                             {"pt", &p->pt},
                                             {"a_duty", &p->a_duty},
                                             {"a_bw", &p->a_bw},
                                             {"b", &p->b},
                                             {"p_idle_w", &p->p_idle_w},
                                             {"sd_config", &p->sd_config},
                                             {"sd_platform", &p->sd_platform},
                                             {"var_ln_a", &p->covariance[0][0]},
                                             {"cov_ln_a_ln_b", &p->covariance[0][1]},
                                             {"cov_ln_b_ln_a", &p->covariance[1][0]},
                                             {"var_ln_b", &p->covariance[1][1]},
                                             {"heldout_median_abs", &p->heldout_median_abs},
                                             {NULL, NULL},
                                             {NULL, NULL}};
    memcpy(out, list, sizeof list);
}

static bool save_power(hid_t file, const apmw_hwmodel *m)
{
    if (!(m->power.tdp_w > 0.0))
        return true;
    hid_t group = make_group(file, "power");
    apmw_power_params p = m->power;
    power_field fields[POWER_NUMBERS];
    power_fields(&p, fields);
    bool ok = group >= 0 && put_text(group, "basis", p.basis) && put_number(group, "use_bandwidth", p.use_bandwidth);
    for (int i = 0; ok && fields[i].name != NULL; i++)
        ok = put_number(group, fields[i].name, *fields[i].value);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

static bool load_power(hid_t file, apmw_hwmodel *m)
{
    if (H5Lexists(file, "power", H5P_DEFAULT) <= 0)
        return true;
    hid_t group = H5Gopen2(file, "power", H5P_DEFAULT);
    power_field fields[POWER_NUMBERS];
    double use = 0.0;
    power_fields(&m->power, fields);
    bool ok = group >= 0 && get_text(group, "basis", m->power.basis, sizeof m->power.basis) &&
              get_number(group, "use_bandwidth", &use);
    m->power.use_bandwidth = use != 0.0;
    for (int i = 0; ok && fields[i].name != NULL; i++)
        ok = get_number(group, fields[i].name, fields[i].value);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

/* --- files --- */

apmw_status apmw_hwmodel_save(const apmw_hwmodel *model, const char *path, apmw_error *err)
{
    char temporary[1024];
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
        return apmw_error_set(err, APMW_E_CANTCREAT, "%s: the path is too long", path);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t create = H5Pcreate(H5P_FILE_CREATE);
    if (create >= 0)
        H5Pset_obj_track_times(create, 0);
    /* The formats of 1.10: their indexes of single chunks save a quarter of the file. */
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0)
        H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, create, access);
    if (create >= 0)
        H5Pclose(create);
    if (access >= 0)
        H5Pclose(access);
    if (file < 0)
        return apmw_error_set(err, APMW_E_CANTCREAT, "%s: cannot create", path);
    hid_t tables = make_group(file, "tables");
    bool ok = tables >= 0 && put_text(file, "schema", schema_name) && put_number(file, "version", SCHEMA_VERSION) &&
              put_text(file, "platform", model->platform) && put_text(file, "provenance", model->provenance);
    for (size_t i = 0; ok && i < model->n_tables; i++) {
        char name[32];
        snprintf(name, sizeof name, "%04zu", i);
        hid_t group = make_group(tables, name);
        ok = group >= 0 && save_table(group, model->tables[i]);
        if (group >= 0)
            H5Gclose(group);
    }
    ok = ok && save_fits(file, model) && save_watts(file, model) && save_power(file, model);
    if (tables >= 0)
        H5Gclose(tables);
    ok = H5Fclose(file) >= 0 && ok;
    if (!ok || rename(temporary, path) != 0) {
        remove(temporary);
        return apmw_error_set(err, APMW_E_IO, "%s: writing failed", path);
    }
    return APMW_OK;
}

static bool load_tables(hid_t file, apmw_hwmodel *m, apmw_error *err)
{
    hid_t tables = H5Gopen2(file, "tables", H5P_DEFAULT);
    H5G_info_t info;
    if (tables < 0 || H5Gget_info(tables, &info) < 0 || info.nlinks > 100000) {
        if (tables >= 0)
            H5Gclose(tables);
        return false;
    }
    m->tables = calloc((size_t)info.nlinks + 1, sizeof *m->tables);
    bool ok = m->tables != NULL;
    for (size_t i = 0; ok && i < (size_t)info.nlinks; i++) {
        char name[32];
        snprintf(name, sizeof name, "%04zu", i);
        hid_t group = H5Gopen2(tables, name, H5P_DEFAULT);
        m->tables[i] = group >= 0 ? load_table(group, err) : NULL;
        ok = m->tables[i] != NULL;
        m->n_tables = i + (ok ? 1 : 0);
        if (group >= 0)
            H5Gclose(group);
    }
    H5Gclose(tables);
    return ok;
}

apmw_status apmw_hwmodel_load(const char *path, apmw_hwmodel **out, apmw_error *err)
{
    char schema[64] = "", hash[17];
    double version = 0.0;
    apmw_status status = apmw_file_hash(path, hash, err);
    if (status != APMW_OK)
        return status;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return apmw_error_set(err, APMW_E_DATA, "%s: no HDF5 file, or a truncated one", path);
    apmw_hwmodel *m = calloc(1, sizeof *m);
    if (m == NULL)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    else if (!get_text(file, "schema", schema, sizeof schema) || strcmp(schema, schema_name) != 0)
        status = apmw_error_set(err, APMW_E_DATA, "%s: not a platform model (schema \"%s\", expected \"%s\")", path, schema,
                                schema_name);
    else if (!get_number(file, "version", &version) || version > SCHEMA_VERSION)
        status = apmw_error_set(err, APMW_E_DATA, "%s: version %g is newer than this program's %d", path, version,
                                SCHEMA_VERSION);
    else if (!get_text(file, "platform", m->platform, sizeof m->platform) ||
             !get_text(file, "provenance", m->provenance, sizeof m->provenance) || !load_tables(file, m, err) ||
             !load_fits(file, m) || !load_watts(file, m) || !load_power(file, m))
        status = apmw_error_set(err, APMW_E_DATA, "%s: damaged: a table, fit or power entry cannot be read", path);
    H5Fclose(file);
    if (status != APMW_OK) {
        apmw_hwmodel_free(m);
        return status;
    }
    apmw_copy(m->hash, sizeof m->hash, hash);
    *out = m;
    return APMW_OK;
}
