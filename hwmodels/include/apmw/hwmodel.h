/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A fitted platform (hwmodels/<platform>.h5): operation tables by engine, fitted forms with covariance, domain,
 * held-out error, power parameters and provenance. Made by `apmw fit`, read by everything else.
 * A catalog opens specs, models and fitted platforms of one data directory, once, and owns them.
 * Reading after apmw_catalog_* returned is thread-safe; the first load of a platform is not: load before a
 * parallel region. */
#ifndef APMW_HWMODEL_H
#define APMW_HWMODEL_H
#include <stddef.h>
#include <stdint.h>
#include "apmw/op_table.h"
#include "apmw/spec.h"
#include "apmw/status.h"

/* Held-out error and fitted roofline of one operation table (or of one family of its groups):
 * time = t0 + max(flops / (e_f * peak), bytes / (e_b * bandwidth)), three numbers ln-fitted with GSL. */
typedef struct apmw_op_fit {
    char family[64];        /* e.g. "gemm_dtype=fp8_block" */
    int n_points;
    double t0_s, eff_flop, eff_byte;
    double covariance[3][3];/* of (ln t0, ln e_f, ln e_b) */
    double cv_form;         /* median |relative error| of the form, points left out by region */
    double cv_table;        /* the same of table interpolation, the same points left out */
    char chosen[8];         /* "table" or "form": the lower of the two, for the reader; the composer uses tables */
} apmw_op_fit;

typedef struct apmw_power_params {
    double tdp_w;
    double p0, pt;          /* floor of running steps and top, fractions of TDP */
    double a_duty, a_bw, b; /* scales of duty, bandwidth utilisation, FLOP utilisation (of bf16 peak) */
    double p_idle_w;        /* no work for more than 1 s; NaN = not measured (p0 is then used and said) */
    double sd_config, sd_platform; /* sd of ln P: between configurations, of the platform */
    double covariance[2][2];/* of (ln a, ln b) */
    int use_bandwidth;      /* 1: z uses bandwidth utilisation instead of duty (AMD) */
    char basis[96];         /* "fitted on 178 ML.ENERGY rows", "scaled from b200 by TDP: no measured power" */
    double heldout_median_abs; /* NaN = none */
} apmw_power_params;

/* Board watts of one accelerator while kernels of one kind run back to back, over rows longer than 100 us (shorter ones
 * are diluted by launch gaps). An upper reference, not serving power, which the duty cycle sets. */
typedef struct apmw_op_watts {
    char op[48], engine[16], version[24];
    char family[48]; /* dtype of the rows, or "all" */
    int n;
    double p10_w, median_w, p90_w;
} apmw_op_watts;

typedef struct apmw_hwmodel {
    char platform[24];
    apmw_op_table **tables;
    size_t n_tables;
    apmw_op_fit *fits;       /* with fit_table[i] = index of the table */
    size_t *fit_table;
    size_t n_fits;
    apmw_op_watts *watts;    /* measured platforms only */
    size_t n_watts;
    apmw_power_params power;
    char hash[17];           /* of the file */
    char provenance[512];    /* tool version, git, argv, evidence hash */
} apmw_hwmodel;

apmw_status apmw_hwmodel_load(const char *path, apmw_hwmodel **out, apmw_error *err);
/* Deterministic bytes: no times in the file. */
apmw_status apmw_hwmodel_save(const apmw_hwmodel *model, const char *path, apmw_error *err);
/* The same from the measured tables under `evidence_dir`, without forms and power: what `apmw fit kernels` starts from,
 * and what the catalog falls back to while a platform has no fitted file (the provenance says so). */
apmw_status apmw_hwmodel_from_evidence(const char *evidence_dir, const char *platform, apmw_hwmodel **out,
                                       apmw_error *err);
/* Fills model->watts from every table of this platform, old ones under watts/ too, that has a power column; families with
 * fewer than 20 such rows are left out. */
apmw_status apmw_hwmodel_add_watts(apmw_hwmodel *model, const char *evidence_dir, apmw_error *err);
void apmw_hwmodel_free(apmw_hwmodel *model);
/* Table of that operation and engine, newest version if `version` is NULL; or NULL. */
const apmw_op_table *apmw_hwmodel_table(const apmw_hwmodel *model, const char *op, const char *engine,
                                        const char *version);

typedef struct apmw_catalog apmw_catalog;
/* data_dir holds hwmodels/. Specs and models are read now, platforms on first use. */
apmw_status apmw_catalog_open(const char *data_dir, apmw_catalog **out, apmw_error *err);
/* From now on platforms come straight from the measured tables under `evidence_dir`, fitted files or not: a fit must not
 * see the files that an earlier fit wrote. Call before the first platform is asked for. */
void apmw_catalog_use_evidence(apmw_catalog *catalog, const char *evidence_dir);
void apmw_catalog_free(apmw_catalog *catalog);
const char *apmw_catalog_dir(const apmw_catalog *catalog);
/* Unknown names: APMW_E_USAGE with the nearest known one. All results are owned by the catalog. */
apmw_status apmw_catalog_accelerator(const apmw_catalog *catalog, const char *id, const apmw_accelerator_spec **out,
                                     apmw_error *err);
/* A node id, or an accelerator id (its first node is then meant). */
apmw_status apmw_catalog_node(const apmw_catalog *catalog, const char *id, const apmw_node_spec **out,
                              apmw_error *err);
apmw_status apmw_catalog_llm(const apmw_catalog *catalog, const char *id, const apmw_llm_spec **out, apmw_error *err);
apmw_status apmw_catalog_platform(apmw_catalog *catalog, const char *id, const apmw_hwmodel **out, apmw_error *err);
size_t apmw_catalog_count_accelerators(const apmw_catalog *catalog);
const apmw_accelerator_spec *apmw_catalog_accelerator_at(const apmw_catalog *catalog, size_t i);
size_t apmw_catalog_count_nodes(const apmw_catalog *catalog);
const apmw_node_spec *apmw_catalog_node_at(const apmw_catalog *catalog, size_t i);
size_t apmw_catalog_count_llms(const apmw_catalog *catalog);
const apmw_llm_spec *apmw_catalog_llm_at(const apmw_catalog *catalog, size_t i);

#endif
