/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Table of fitted engine overheads (hwmodels/engines.h5, schema apmw.engines/1): one entry per engine x model x
 * platform family x release, "*" = any. Written by the serving fit, read by apmw_overhead_lookup. */
#ifndef APMW_OVERHEAD_H
#define APMW_OVERHEAD_H
#include <stddef.h>
#include "apmw/compose.h"
#include "apmw/status.h"

typedef struct apmw_overhead_entry {
    char engine[16];
    char model[32];         /* or "*" */
    char family[16];        /* hopper, blackwell, cdna3, cdna4, or "*" */
    char platform[24];      /* or "*" */
    char precision[8];      /* or "*" */
    char role[12];          /* "" aggregated, "prefill", "decode", or "*" */
    double draft_tokens;    /* 0 = any; else only speculative decoding of that length */
    char released_from[12]; /* yyyy-mm-dd or "*": holds for builds of that day and later */
    apmw_overhead value;    /* layer_s at TP 1 */
    double layer_tp_s;      /* on layer_s for each doubling of TP: launches and rendezvous of more ranks */
    double sd_layer_s, sd_seq_s, sd_request_s; /* standard errors of the fit; NaN = not fitted */
} apmw_overhead_entry;

typedef struct apmw_overhead_table {
    apmw_overhead_entry *entry;
    size_t n;
    char provenance[512];
} apmw_overhead_table;

/* Equal tables give equal bytes. */
apmw_status apmw_overhead_table_save(const apmw_overhead_table *table, const char *path, apmw_error *err);
/* APMW_E_NOINPUT when there is no file. The caller frees. */
apmw_status apmw_overhead_table_load(const char *path, apmw_overhead_table *out, apmw_error *err);
void apmw_overhead_table_free(apmw_overhead_table *table);
/* What an entry is looked up by. "" of released = newest; "" of platform or precision = not known. */
typedef struct apmw_overhead_key {
    const char *engine, *model, *family, *platform, *precision, *role, *released;
    int draft_tokens;
} apmw_overhead_key;
/* The most specific entry (draft length, role, then model, platform, family, precision, then the latest release that is not after
 * `released`), or NULL. */
const apmw_overhead_entry *apmw_overhead_table_find(const apmw_overhead_table *table, const apmw_overhead_key *key);
/* The entry's value for an engine of this tensor-parallel width. */
void apmw_overhead_entry_value(const apmw_overhead_entry *entry, int tp, apmw_overhead *out);
/* The stated prior of an engine without any entry. */
void apmw_overhead_prior(const char *engine, const char *role, apmw_overhead *out);

#endif
