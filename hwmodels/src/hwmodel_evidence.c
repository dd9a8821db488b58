/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A platform model straight from its measured tables. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/hwmodel.h"
#include "apmw/text.h"
#include "evidence_files.h"
#include "topk_correction.h"

static const char *const engines[] = {"sglang", "trtllm", "vllm", "nccl", "aiter"};
static const char suffix[] = ".csv.zst";

/* Tables of another platform that stand for this one, because none was measured here or (B300, SGLang 0.5.14)
 * because the published ones are the other platform's, see hwmodels/evidence/README.md. op NULL = all. */
static const struct {
    const char *platform, *from, *engine, *op;
} borrowed[] = {{"b300", "gb300", "sglang", "gemm"},
                {"b300", "gb300", "sglang", "context_attention"},
                {"b300", "gb300", "sglang", "generation_attention"},
                {"b300", "gb300", "sglang", "dsv4_mhc"},
                {"mi325x", "mi300x", "aiter", NULL}};

int apmw_evidence_is_table(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > sizeof suffix && strcmp(entry->d_name + n - (sizeof suffix - 1), suffix) == 0;
}

int apmw_evidence_by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

bool apmw_evidence_name(const char *file, char op[48], char engine[16], char version[24])
{
    const char *dot = strchr(file, '.');
    if (dot == NULL || dot - file >= 48)
        return false;
    memcpy(op, file, (size_t)(dot - file));
    op[dot - file] = 0;
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        size_t n = strlen(engines[i]);
        if (strncmp(dot + 1, engines[i], n) != 0)
            continue;
        const char *from = dot + 1 + n;
        size_t length = strlen(from) - (sizeof suffix - 1);
        if (length >= 24)
            return false;
        apmw_copy(engine, 16, engines[i]);
        memcpy(version, from, length);
        version[length] = 0;
        return true;
    }
    return false;
}

enum { MAX_CONSTANTS = 16 };

/* Splits "a=1; b=2" of the manifest in place. */
static size_t split_constants(char *text, const char *out[MAX_CONSTANTS])
{
    size_t n = 0;
    for (char *save = NULL, *part = strtok_r(text, ";", &save); part != NULL && n < MAX_CONSTANTS;
         part = strtok_r(NULL, ";", &save)) {
        while (*part == ' ')
            part++;
        if (*part != 0)
            out[n++] = part;
    }
    return n;
}

static apmw_status add_table(apmw_hwmodel *model, const char *dir, const char *platform, const char *file,
                             const apmw_csv *manifest, apmw_error *err)
{
    char op[48], engine[16], version[24], name[320], path[1400], constants[512] = "";
    if (!apmw_evidence_name(file, op, engine, version) || apmw_op_schema_find(op) == NULL)
        return APMW_OK; /* evidence for people or for other fits */
    snprintf(name, sizeof name, "%s/%s", platform, file);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int file_col = apmw_csv_col(manifest, "file"), constants_col = apmw_csv_col(manifest, "constants");
    for (size_t row = 0; row < apmw_csv_rows(manifest); row++) {
        if (strcmp(apmw_csv_cell(manifest, row, file_col), name) == 0)
            apmw_copy(constants, sizeof constants, apmw_csv_cell(manifest, row, constants_col));
    }
    const char *list[MAX_CONSTANTS];
    size_t n_list = split_constants(constants, list);
    apmw_csv *csv = NULL;
    apmw_op_table *table = NULL;
    apmw_status status = apmw_csv_load(path, &csv, err);
    if (status == APMW_OK)
        status = apmw_op_table_from_csv(csv, op, engine, version, list, n_list, &table, err);
    apmw_csv_free(csv);
    if (status != APMW_OK)
        return status;
    apmw_copy(table->source, sizeof table->source, name);
    status = apmw_file_hash(path, table->source_hash, err);
    apmw_op_table **tables = NULL;
    if (status == APMW_OK) {
        tables = realloc(model->tables, (model->n_tables + 1) * sizeof *tables);
        if (tables == NULL)
            status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    if (status != APMW_OK) {
        apmw_op_table_free(table);
        return status;
    }
    model->tables = tables;
    model->tables[model->n_tables++] = table;
    return APMW_OK;
}

/* only_engine and only_op NULL = all. A platform without a folder has no tables of its own: no error. */
static apmw_status add_folder(apmw_hwmodel *model, const char *dir, const char *platform, const char *only_engine,
                              const char *only_op, const apmw_csv *manifest, apmw_error *err)
{
    char path[1024];
    struct dirent **entries = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, platform);
    int count = scandir(path, &entries, apmw_evidence_is_table, apmw_evidence_by_name);
    if (count < 0)
        return errno == ENOENT ? APMW_OK : apmw_error_set(err, APMW_E_NOINPUT, "%s: %s", path, strerror(errno));
    apmw_status status = APMW_OK;
    for (int i = 0; i < count; i++) {
        char op[48], engine[16], version[24];
        if (status == APMW_OK && apmw_evidence_name(entries[i]->d_name, op, engine, version) &&
            (only_engine == NULL || strcmp(engine, only_engine) == 0) && (only_op == NULL || strcmp(op, only_op) == 0))
            status = add_table(model, dir, platform, entries[i]->d_name, manifest, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

apmw_status apmw_hwmodel_from_evidence(const char *evidence_dir, const char *platform, apmw_hwmodel **out,
                                       apmw_error *err)
{
    char path[1024];
    apmw_csv *manifest = NULL;
    int col = 0;
    snprintf(path, sizeof path, "%s/MANIFEST.csv", evidence_dir);
    apmw_status status = apmw_csv_load(path, &manifest, err);
    if (status == APMW_OK)
        status = apmw_csv_need(manifest, "file", &col, err);
    if (status == APMW_OK)
        status = apmw_csv_need(manifest, "constants", &col, err);
    apmw_hwmodel *model = status == APMW_OK ? calloc(1, sizeof *model) : NULL;
    if (status == APMW_OK && model == NULL)
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    if (status == APMW_OK) {
        apmw_copy(model->platform, sizeof model->platform, platform);
        apmw_copy(model->provenance, sizeof model->provenance, "measured tables, not fitted");
        status = add_folder(model, evidence_dir, platform, NULL, NULL, manifest, err);
    }
    for (size_t i = 0; status == APMW_OK && i < sizeof borrowed / sizeof borrowed[0]; i++) {
        if (strcmp(borrowed[i].platform, platform) == 0)
            status = add_folder(model, evidence_dir, borrowed[i].from, borrowed[i].engine, borrowed[i].op, manifest, err);
    }
    if (status == APMW_OK)
        status = apmw_topk_correct(model, err);
    apmw_csv_free(manifest);
    if (status != APMW_OK) {
        apmw_hwmodel_free(model);
        return status;
    }
    *out = model;
    return APMW_OK;
}
