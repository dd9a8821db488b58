/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/experiment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ACCELERATORS = 65536 }; /* of a deployment, as a scenario's "accelerators" */
typedef enum layout_kind { TP, TEP, DEP, DP, N_KINDS } layout_kind;
static const char *const KINDS[N_KINDS] = {[TP] = "tp", [TEP] = "tep", [DEP] = "dep", [DP] = "dp"};

static void fill(layout_kind kind, int size, int replicas, apmw_layout_choice *out)
{
    *out = (apmw_layout_choice){.layout = {.tp = 1, .pp = 1, .attention_dp = 1, .moe_tp = 1, .moe_ep = 1},
                                .size = size, .replicas = replicas};
    switch (kind) {
    case TP:
        out->layout.tp = out->layout.moe_tp = size;
        break;
    case TEP:
        out->layout.tp = out->layout.moe_ep = size;
        break;
    case DEP:
        out->layout.attention_dp = out->layout.moe_ep = size;
        break;
    case DP:
    case N_KINDS:
        break;
    }
    if (replicas > 1) {
        snprintf(out->name, sizeof out->name, "%s%dx%d", KINDS[kind], size, replicas);
    } else {
        snprintf(out->name, sizeof out->name, "%s%d", KINDS[kind], size);
    }
}

void apmw_layout_rename(apmw_layout_choice *choice)
{
    const layout_kind kind = choice->layout.attention_dp > 1 ? DEP : choice->layout.moe_ep > 1 ? TEP : TP;
    fill(kind, choice->size, choice->replicas, choice);
}

/* A number of at least 1 at *text, which moves behind it; 0 = none. */
static int number(const char **text)
{
    if (**text < '1' || **text > '9') {
        return 0;
    }
    char *end;
    const long value = strtol(*text, &end, 10);
    *text = end;
    return value > 65536 ? 0 : (int)value;
}

apmw_status apmw_layout_parse(const char *name, int accelerators, apmw_layout_choice *out, apmw_error *err)
{
    const char *at = name;
    int kind = 0;
    /* Longest names first, since "tp" begins no other but "dp" ends none either: compare whole prefixes. */
    static const layout_kind ORDER[N_KINDS] = {TEP, DEP, TP, DP};
    bool found = false;
    for (int i = 0; i < N_KINDS && !found; i++) {
        const size_t length = strlen(KINDS[ORDER[i]]);
        if (strncmp(name, KINDS[ORDER[i]], length) == 0) {
            kind = (int)ORDER[i];
            at = name + length;
            found = true;
        }
    }
    int size = found ? number(&at) : 0;
    int replicas = 0;
    if (size > 0 && *at == 'x') {
        at++;
        replicas = number(&at);
        size = replicas == 0 ? 0 : size;
    }
    if (size == 0 || *at != '\0') {
        return apmw_error_set(err, APMW_E_USAGE,
                              "layout \"%s\" is not tpN, tepN, depN or dpN (N accelerators an engine), with xR for R replicas",
                              name);
    }
    if (kind == DP) { /* N engines of one accelerator */
        const long long engines = replicas > 0 ? (long long)replicas * size : size;
        replicas = engines > MAX_ACCELERATORS ? MAX_ACCELERATORS + 1 : (int)engines;
        size = 1;
        kind = TP;
    }
    if (replicas == 0) {
        replicas = accelerators / size > 0 ? accelerators / size : 1;
    }
    if ((long long)size * replicas > MAX_ACCELERATORS) {
        return apmw_error_set(err, APMW_E_SCENARIO, "layout %s needs %lld accelerators, more than %d", name,
                              (long long)size * replicas, MAX_ACCELERATORS);
    }
    if (accelerators > 0 && size * replicas > accelerators) {
        return apmw_error_set(err, APMW_E_SCENARIO, "layout %s needs %d accelerators, the deployment has %d", name,
                              size * replicas, accelerators);
    }
    fill((layout_kind)kind, size, replicas, out);
    return APMW_OK;
}

size_t apmw_layout_enumerate(const apmw_llm_spec *llm, int accelerators, apmw_layout_choice *out, size_t max)
{
    size_t n = 0;
    for (int size = 1; size <= accelerators && size <= 8; size *= 2) {
        if (accelerators % size != 0) {
            continue;
        }
        for (int kind = TP; kind <= DEP; kind++) {
            /* Expert layouts need experts to split and more than one accelerator. */
            if (kind != TP && (llm->experts == 0 || size == 1 || llm->experts % size != 0)) {
                continue;
            }
            if (n < max) {
                fill((layout_kind)kind, size, accelerators / size, &out[n++]);
            }
        }
    }
    return n;
}
