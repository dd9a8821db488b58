/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/spec.h"
#include "apmw/text.h"
#include "spec_private.h"

static const char *const number_keys[] = {"value", "unit", "grade", "note", "reason", "source", NULL};

/* A fact is an object with value and source; a null value needs a reason and reads as NaN. */
static apmw_status read_fact(const apmw_json_cur *root, const char *key, double *out, char *estimated, size_t size,
                             apmw_error *err)
{
    apmw_json_cur fact;
    apmw_status status = apmw_json_child(root, key, &fact, err);
    if (status != APMW_OK)
        return status;
    status = apmw_json_only_keys(&fact, number_keys, err);
    if (status != APMW_OK)
        return status;
    *out = (double)NAN;
    if (!apmw_json_has(&fact, "value")) {
        if (!apmw_json_has(&fact, "reason"))
            return apmw_json_error(&fact, err, APMW_E_DATA, "a null value needs a reason");
        return APMW_OK;
    }
    const char *grade = "";
    status = apmw_json_opt_string(&fact, "grade", &grade, err);
    if (status == APMW_OK && strcmp(grade, "?") == 0) {
        const size_t n = strlen(estimated);
        snprintf(estimated + n, size - n, "%s%s", n > 0 ? ", " : "", key);
    }
    return status == APMW_OK ? apmw_json_get_double(&fact, "value", 0.0, 1e20, out, err) : status;
}

apmw_status apmw_spec_check_schema(const apmw_json_cur *root, const char *want, apmw_error *err)
{
    const char *schema = NULL;
    apmw_status status = apmw_json_get_string(root, "schema", &schema, err);
    if (status == APMW_OK && strcmp(schema, want) != 0)
        return apmw_json_error(root, err, APMW_E_DATA, "schema is \"%s\", expected \"%s\"", schema, want);
    return status;
}

apmw_status apmw_spec_load_file(const char *path, apmw_spec_reader read, void *out, size_t size, apmw_error *err)
{
    memset(out, 0, size);
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_load(path, &doc, err);
    if (status != APMW_OK)
        return status;
    apmw_json_cur root = apmw_json_root(doc);
    status = read(&root, out, err);
    apmw_json_free(doc);
    return status;
}

/* Of the host side; a file that says nothing of it is whole too. */
static apmw_status read_host(const apmw_json_cur *root, apmw_accelerator_spec *out, apmw_error *err)
{
    const struct {
        const char *key;
        double *value;
    } facts[] = {{"host_load_bytes_per_s", &out->host_load_bytes_per_s},
                 {"host_store_bytes_per_s", &out->host_store_bytes_per_s},
                 {"host_dram_bytes", &out->host_dram_bytes}};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        *facts[i].value = (double)NAN;
        if (apmw_json_has(root, facts[i].key)) {
            const apmw_status status =
                read_fact(root, facts[i].key, facts[i].value, out->estimated, sizeof out->estimated, err);
            if (status != APMW_OK)
                return status;
        }
    }
    return APMW_OK;
}

static apmw_status read_accelerator(const apmw_json_cur *root, apmw_accelerator_spec *out, apmw_error *err)
{
    static const char *const known[] = {"schema", "id", "name", "vendor", "grades", "projected", "scaleup_domain",
                                        "hbm_bytes", "hbm_reported_bytes", "hbm_bytes_per_s", "bf16_flop_per_s",
                                        "fp8_flop_per_s", "fp4_flop_per_s", "tdp_w", "scaleup_bytes_per_s",
                                        "host_link_bytes_per_s", "scaleout_bytes_per_s", "idle_w", "all_in_w",
                                        "host_load_bytes_per_s", "host_store_bytes_per_s", "host_dram_bytes", NULL};
    apmw_status status = apmw_json_only_keys(root, known, err);
    if (status == APMW_OK)
        status = apmw_spec_check_schema(root, "apmw.accelerator/1", err);
    const char *id = NULL, *name = NULL, *vendor = NULL;
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "id", &id, err);
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "name", &name, err);
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "vendor", &vendor, err);
    int64_t domain = 0;
    if (status == APMW_OK)
        status = apmw_json_get_int(root, "scaleup_domain", 1, 100000, &domain, err);
    if (status == APMW_OK)
        status = apmw_json_get_bool(root, "projected", &out->projected, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->id, sizeof out->id, id);
    apmw_copy(out->name, sizeof out->name, name);
    apmw_copy(out->vendor, sizeof out->vendor, vendor);
    out->scaleup_domain = (int)domain;
    const struct {
        const char *key;
        double *value;
    } facts[] = {{"hbm_bytes", &out->hbm_bytes},
                 {"hbm_reported_bytes", &out->hbm_reported_bytes},
                 {"hbm_bytes_per_s", &out->hbm_bytes_per_s},
                 {"bf16_flop_per_s", &out->bf16_flop_per_s},
                 {"fp8_flop_per_s", &out->fp8_flop_per_s},
                 {"fp4_flop_per_s", &out->fp4_flop_per_s},
                 {"tdp_w", &out->tdp_w},
                 {"scaleup_bytes_per_s", &out->scaleup_bytes_per_s},
                 {"host_link_bytes_per_s", &out->host_link_bytes_per_s},
                 {"scaleout_bytes_per_s", &out->scaleout_bytes_per_s},
                 {"idle_w", &out->idle_w},
                 {"all_in_w", &out->all_in_w}};
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        status = read_fact(root, facts[i].key, facts[i].value, out->estimated, sizeof out->estimated, err);
        if (status != APMW_OK)
            return status;
    }
    return read_host(root, out, err);
}

static apmw_status read_accelerator_any(const apmw_json_cur *root, void *out, apmw_error *err)
{
    return read_accelerator(root, out, err);
}

apmw_status apmw_accelerator_spec_load(const char *path, apmw_accelerator_spec *out, apmw_error *err)
{
    return apmw_spec_load_file(path, read_accelerator_any, out, sizeof *out, err);
}

static apmw_status read_node(const apmw_json_cur *root, apmw_node_spec *out, apmw_error *err)
{
    static const char *const known[] = {"schema", "id",     "accelerator",   "accelerators",
                                        "all_in", "pue",    "all_in_source", "projected", NULL};
    static const char *const point_keys[] = {"accelerator_w", "it_w_per_accelerator", NULL};
    apmw_status status = apmw_json_only_keys(root, known, err);
    if (status == APMW_OK)
        status = apmw_spec_check_schema(root, "apmw.node/1", err);
    const char *id = NULL, *accelerator = NULL;
    int64_t count = 0;
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "id", &id, err);
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "accelerator", &accelerator, err);
    if (status == APMW_OK)
        status = apmw_json_get_int(root, "accelerators", 1, 100000, &count, err);
    if (status == APMW_OK)
        status = apmw_json_get_bool(root, "projected", &out->projected, err);
    out->pue = (double)NAN;
    if (status == APMW_OK)
        status = apmw_json_opt_double(root, "pue", 1.0, 10.0, &out->pue, err);
    apmw_json_cur points;
    if (status == APMW_OK)
        status = apmw_json_child(root, "all_in", &points, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->id, sizeof out->id, id);
    apmw_copy(out->accelerator, sizeof out->accelerator, accelerator);
    out->accelerators = (int)count;
    out->n_all_in = apmw_json_length(&points);
    if (out->n_all_in > 8)
        return apmw_json_error(&points, err, APMW_E_DATA, "at most 8 points");
    for (int i = 0; i < out->n_all_in; i++) {
        apmw_json_cur point;
        status = apmw_json_at(&points, i, &point, err);
        if (status == APMW_OK)
            status = apmw_json_only_keys(&point, point_keys, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&point, "accelerator_w", i > 0 ? out->all_in_accelerator_w[i - 1] + 1.0 : 0.0,
                                          1e5, &out->all_in_accelerator_w[i], err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&point, "it_w_per_accelerator", 0.0, 1e5, &out->all_in_it_w[i], err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static apmw_status read_node_any(const apmw_json_cur *root, void *out, apmw_error *err)
{
    return read_node(root, out, err);
}

apmw_status apmw_node_spec_load(const char *path, apmw_node_spec *out, apmw_error *err)
{
    return apmw_spec_load_file(path, read_node_any, out, sizeof *out, err);
}

double apmw_node_it_w(const apmw_node_spec *node, double accelerator_w)
{
    if (node->n_all_in < 2)
        return (double)NAN;
    int i = 1;
    while (i < node->n_all_in - 1 && accelerator_w > node->all_in_accelerator_w[i])
        i++;
    double x0 = node->all_in_accelerator_w[i - 1], x1 = node->all_in_accelerator_w[i];
    double y0 = node->all_in_it_w[i - 1], y1 = node->all_in_it_w[i];
    return y0 + (y1 - y0) * (accelerator_w - x0) / (x1 - x0);
}
