/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Table of fitted engine overheads (hwmodels/engines.h5, schema apmw.engines/2). An overhead is a SUM: the engine's own
 * entry, plus deviations of the model, of the model's precision, of the platform, of the model on the platform, of the build, by
 * the first day of its runs. So a model or a platform that no serving point covers still gets what is known of its engine, its platform and its
 * precision. "*" = any. Written by the serving fit, read by apmw_overhead_lookup. */
#ifndef APMW_OVERHEAD_H
#define APMW_OVERHEAD_H
#include <stddef.h>
#include "apmw/compose.h"
#include "apmw/status.h"

typedef struct apmw_overhead_entry {
    char engine[16];
    char vendor[16];        /* nvidia, amd or "*": software of one vendor says nothing of another's */
    char model[32];         /* or "*" */
    char family[16];        /* hopper, blackwell, cdna3, cdna4, or "*" */
    char platform[24];      /* or silicon, or "*" */
    char precision[8];      /* or "*" */
    char role[12];          /* "" aggregated, "prefill", "decode", or "*" */
    char released_from[12]; /* yyyy-mm-dd or "*": holds from then to the next entry of the same other keys */
    double draft_tokens;    /* 0 = any; k > 0: only speculative decoding of that length; -1: of any length */
    apmw_overhead value;    /* addends; layer_s at TP 1 */
    double layer_tp_s;      /* on layer_s for each doubling of TP: launches and rendezvous of more ranks */
    double ln_acceptance;   /* addend to ln(tokens a speculative step) at 1,024 output tokens */
    double sd_layer_s, sd_seq_s, sd_request_s; /* standard errors of what entries down to this one sum to; NaN = not fitted */
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
/* What entries are looked up by. "" of released = newest; "" of another = not known. */
typedef struct apmw_overhead_key {
    const char *engine, *vendor, *model, *family, *platform, *precision, *role, *released;
    int draft_tokens;
    int tp;
} apmw_overhead_key;
/* Sums the entries that hold, of each kind the latest release that is not after the key's, and bounds the sum below.
 * Spreads and basis are those of the most specific one. Returns the number of entries; 0 leaves *out as it is. */
size_t apmw_overhead_table_value(const apmw_overhead_table *table, const apmw_overhead_key *key, apmw_overhead *out);
/* What apmw_overhead_lookup says when the fitted entries are those of this table (which may have none). */
apmw_status apmw_overhead_lookup_in(apmw_catalog *catalog, const apmw_overhead_table *table, const apmw_serving_spec *spec,
                                    apmw_overhead *out, apmw_error *err);
/* The platform whose overheads hold for this one: an MI325X is an MI300X with more and faster memory (the same dies and builds,
 * gfx942), so the two are one to the fit. Others are themselves. */
const char *apmw_overhead_platform(const char *platform);
/* The silicon of a platform, by which an entry may name it too: H100 and H200 are one die ("hopper"), B200 and B300 another
 * ("blackwell"), in the same kind of node and under the same builds, so what an engine does around the kernels is theirs together.
 * Boards with another host (GB200, GB300) and all others are themselves. */
const char *apmw_overhead_silicon(const char *platform);
/* The stated prior of an engine without any entry. */
void apmw_overhead_prior(const char *engine, const char *role, apmw_overhead *out);

#endif
