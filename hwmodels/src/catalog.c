/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apmw/hwmodel.h"
#include "apmw/text.h"

struct apmw_catalog {
    char dir[512];
    char evidence[512]; /* "": fitted files, and measured tables only where there is none */
    apmw_accelerator_spec *accelerators;
    size_t n_accelerators;
    apmw_node_spec *nodes;
    size_t n_nodes;
    apmw_llm_spec *llms;
    size_t n_llms;
    apmw_hwmodel **platforms; /* one slot an accelerator, NULL until first use */
};

static int is_json(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".json") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

typedef apmw_status (*load_fn)(const char *path, void *out, apmw_error *err);

static apmw_status load_accelerator(const char *path, void *out, apmw_error *err)
{
    return apmw_accelerator_spec_load(path, out, err);
}

static apmw_status load_node(const char *path, void *out, apmw_error *err)
{
    return apmw_node_spec_load(path, out, err);
}

static apmw_status load_llm(const char *path, void *out, apmw_error *err)
{
    return apmw_llm_spec_load(path, out, err);
}

/* Reads every .json of a folder in name order into an array of items of `size` bytes. */
static apmw_status load_all(const char *dir, const char *folder, size_t size, load_fn load, void **items, size_t *n,
                            apmw_error *err)
{
    char path[1024];
    struct dirent **entries = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, folder);
    int count = scandir(path, &entries, is_json, by_name);
    if (count < 0)
        return apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    apmw_status status = APMW_OK;
    *items = calloc((size_t)count + 1, size);
    if (*items == NULL)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    for (int i = 0; i < count; i++) {
        if (status == APMW_OK) {
            snprintf(path, sizeof path, "%s/%s/%s", dir, folder, entries[i]->d_name);
            status = load(path, (char *)*items + (size_t)i * size, err);
            *n = (size_t)i + 1;
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

apmw_status apmw_catalog_open(const char *data_dir, apmw_catalog **out, apmw_error *err)
{
    apmw_catalog *c = calloc(1, sizeof *c);
    if (c == NULL)
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    apmw_status status = APMW_OK;
    if (!apmw_copy(c->dir, sizeof c->dir, data_dir))
        status = apmw_error_set(err, APMW_E_USAGE, "%s: the path is too long", data_dir);
    void *items = NULL;
    if (status == APMW_OK) {
        status = load_all(c->dir, "hwmodels/specs/accelerators", sizeof *c->accelerators, load_accelerator, &items,
                          &c->n_accelerators, err);
        c->accelerators = items;
    }
    if (status == APMW_OK) {
        items = NULL;
        status = load_all(c->dir, "hwmodels/specs/nodes", sizeof *c->nodes, load_node, &items, &c->n_nodes, err);
        c->nodes = items;
    }
    if (status == APMW_OK) {
        items = NULL;
        status = load_all(c->dir, "hwmodels/models", sizeof *c->llms, load_llm, &items, &c->n_llms, err);
        c->llms = items;
    }
    if (status == APMW_OK) {
        c->platforms = calloc(c->n_accelerators + 1, sizeof *c->platforms);
        if (c->platforms == NULL)
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    if (status != APMW_OK) {
        apmw_catalog_free(c);
        return status;
    }
    *out = c;
    return APMW_OK;
}

void apmw_catalog_free(apmw_catalog *catalog)
{
    if (catalog == NULL)
        return;
    for (size_t i = 0; catalog->platforms != NULL && i < catalog->n_accelerators; i++)
        apmw_hwmodel_free(catalog->platforms[i]);
    free(catalog->platforms);
    free(catalog->accelerators);
    free(catalog->nodes);
    free(catalog->llms);
    free(catalog);
}

void apmw_catalog_use_evidence(apmw_catalog *catalog, const char *evidence_dir)
{
    apmw_copy(catalog->evidence, sizeof catalog->evidence, evidence_dir);
}

const char *apmw_catalog_dir(const apmw_catalog *catalog)
{
    return catalog->dir;
}

/* Every item begins with its id, an array of characters at offset 0. */
static apmw_status find(const void *items, size_t n, size_t size, const char *what, const char *id, size_t *index,
                        apmw_error *err)
{
    const char *names[256];
    size_t n_names = n < 256 ? n : 256;
    for (size_t i = 0; i < n; i++) {
        const char *name = (const char *)items + i * size;
        if (i < 256)
            names[i] = name;
        if (strcmp(name, id) == 0) {
            *index = i;
            return APMW_OK;
        }
    }
    const char *near = apmw_near(id, names, n_names);
    return apmw_error_set(err, APMW_E_USAGE, "unknown %s \"%s\"%s%s%s", what, id, near != NULL ? " (did you mean \"" : "",
                          near != NULL ? near : "", near != NULL ? "\"?)" : "");
}

apmw_status apmw_catalog_accelerator(const apmw_catalog *catalog, const char *id, const apmw_accelerator_spec **out,
                                     apmw_error *err)
{
    size_t i = 0;
    apmw_status status = find(catalog->accelerators, catalog->n_accelerators, sizeof *catalog->accelerators,
                              "accelerator", id, &i, err);
    if (status == APMW_OK)
        *out = &catalog->accelerators[i];
    return status;
}

apmw_status apmw_catalog_node(const apmw_catalog *catalog, const char *id, const apmw_node_spec **out, apmw_error *err)
{
    for (size_t i = 0; i < catalog->n_nodes; i++) {
        if (strcmp(catalog->nodes[i].accelerator, id) == 0) {
            *out = &catalog->nodes[i];
            return APMW_OK;
        }
    }
    size_t i = 0;
    apmw_status status = find(catalog->nodes, catalog->n_nodes, sizeof *catalog->nodes, "platform", id, &i, err);
    if (status == APMW_OK)
        *out = &catalog->nodes[i];
    return status;
}

apmw_status apmw_catalog_llm(const apmw_catalog *catalog, const char *id, const apmw_llm_spec **out, apmw_error *err)
{
    size_t i = 0;
    apmw_status status = find(catalog->llms, catalog->n_llms, sizeof *catalog->llms, "model", id, &i, err);
    if (status == APMW_OK)
        *out = &catalog->llms[i];
    return status;
}

static apmw_status load_platform(apmw_catalog *catalog, size_t i, const char *id, apmw_error *err)
{
    char path[1024];
    if (catalog->evidence[0] != 0)
        return apmw_hwmodel_from_evidence(catalog->evidence, id, &catalog->platforms[i], err);
    snprintf(path, sizeof path, "%s/hwmodels/%s.h5", catalog->dir, id);
    if (access(path, F_OK) == 0)
        return apmw_hwmodel_load(path, &catalog->platforms[i], err);
    snprintf(path, sizeof path, "%s/hwmodels/evidence", catalog->dir);
    return apmw_hwmodel_from_evidence(path, id, &catalog->platforms[i], err);
}

apmw_status apmw_catalog_platform(apmw_catalog *catalog, const char *id, const apmw_hwmodel **out, apmw_error *err)
{
    size_t i = 0;
    apmw_status status = find(catalog->accelerators, catalog->n_accelerators, sizeof *catalog->accelerators,
                              "accelerator", id, &i, err);
    if (status != APMW_OK)
        return status;
    /* Deployments are composed in parallel and may borrow from a platform that nobody has opened yet. */
#pragma omp critical(apmw_catalog_platform)
    {
        if (catalog->platforms[i] == NULL)
            status = load_platform(catalog, i, id, err);
        if (status == APMW_OK)
            *out = catalog->platforms[i];
    }
    return status;
}

size_t apmw_catalog_count_accelerators(const apmw_catalog *catalog)
{
    return catalog->n_accelerators;
}

const apmw_accelerator_spec *apmw_catalog_accelerator_at(const apmw_catalog *catalog, size_t i)
{
    return &catalog->accelerators[i];
}

size_t apmw_catalog_count_nodes(const apmw_catalog *catalog)
{
    return catalog->n_nodes;
}

const apmw_node_spec *apmw_catalog_node_at(const apmw_catalog *catalog, size_t i)
{
    return &catalog->nodes[i];
}

size_t apmw_catalog_count_llms(const apmw_catalog *catalog)
{
    return catalog->n_llms;
}

const apmw_llm_spec *apmw_catalog_llm_at(const apmw_catalog *catalog, size_t i)
{
    return &catalog->llms[i];
}
