/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Generators: finding them, reading their parameters, running them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "private.h"

static const apmw_tr_synth *const synths[] = {&apmw_tr_synth_agentperf, &apmw_tr_synth_claude_code};
enum { N_SYNTHS = sizeof synths / sizeof synths[0], MAX_PARAMS = 96 };

const apmw_synth *apmw_synth_list(size_t *n)
{
    static apmw_synth list[N_SYNTHS];
    for (int i = 0; i < N_SYNTHS; i++) {
        list[i] = synths[i]->about;
    }
    *n = N_SYNTHS;
    return list;
}

static apmw_status find(const char *name, const apmw_tr_synth **out, apmw_error *err)
{
    const char *names[N_SYNTHS];
    for (int i = 0; i < N_SYNTHS; i++) {
        names[i] = synths[i]->about.name;
        if (strcmp(names[i], name) == 0) {
            *out = synths[i];
            return APMW_OK;
        }
    }
    const char *near = apmw_near(name, names, N_SYNTHS);
    return apmw_error_set(err, APMW_E_USAGE, "no generator '%s'%s%s%s; known: agentperf, claude-code", name,
                          near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

apmw_status apmw_synth_describe(const char *name, apmw_buf *out, apmw_error *err)
{
    const apmw_tr_synth *synth = NULL;
    apmw_status status = find(name, &synth, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_buf_printf(out, "%s: %s\n\nParameters (NAME=VALUE; default, range, meaning):\n", synth->about.name,
                    synth->about.documentation);
    for (size_t i = 0; i < synth->n_params; i++) {
        const apmw_tr_param *p = &synth->params[i];
        char value[32], lo[32], hi[32];
        apmw_double_text(p->value, value);
        apmw_double_text(p->lo, lo);
        apmw_double_text(p->hi, hi);
        apmw_buf_printf(out, "  %-22s %10s  [%s, %s]  %s\n", p->name, value, lo, hi, p->meaning);
    }
    return out->failed ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : APMW_OK;
}

static apmw_status override(const apmw_tr_synth *synth, const char *text, double *v, apmw_error *err)
{
    const char *equals = strchr(text, '=');
    char name[64];
    if (equals == NULL || equals == text || (size_t)(equals - text) >= sizeof name) {
        return apmw_error_set(err, APMW_E_USAGE, "'%s': expected NAME=VALUE", text);
    }
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = '\0';
    const char *names[MAX_PARAMS];
    for (size_t i = 0; i < synth->n_params; i++) {
        names[i] = synth->params[i].name;
        if (strcmp(names[i], name) != 0) {
            continue;
        }
        char *end = NULL;
        double value = strtod(equals + 1, &end);
        if (end == equals + 1 || *end != '\0' || !isfinite(value)) {
            return apmw_error_set(err, APMW_E_USAGE, "'%s': not a number", text);
        }
        if (value < synth->params[i].lo || value > synth->params[i].hi) {
            char lo[32], hi[32];
            apmw_double_text(synth->params[i].lo, lo);
            apmw_double_text(synth->params[i].hi, hi);
            return apmw_error_set(err, APMW_E_USAGE, "'%s': must be between %s and %s", text, lo, hi);
        }
        v[i] = value;
        return APMW_OK;
    }
    const char *near = apmw_near(name, names, synth->n_params);
    return apmw_error_set(err, APMW_E_USAGE, "generator %s has no parameter '%s'%s%s%s", synth->about.name,
                          name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

apmw_status apmw_synth_run(const char *name, size_t n_trajectories, uint64_t seed,
                           const char *const *overrides, size_t n_overrides, apmw_trace *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    const apmw_tr_synth *synth = NULL;
    apmw_status status = find(name, &synth, err);
    if (status != APMW_OK) {
        return status;
    }
    if (n_trajectories == 0 || n_trajectories > INT32_MAX) {
        return apmw_error_set(err, APMW_E_USAGE, "%zu trajectories; expected 1 to %d", n_trajectories,
                              INT32_MAX);
    }
    APMW_CHECK(synth->n_params <= MAX_PARAMS);
    double v[MAX_PARAMS];
    for (size_t i = 0; i < synth->n_params; i++) {
        v[i] = synth->params[i].value;
    }
    for (size_t i = 0; i < n_overrides && status == APMW_OK; i++) {
        status = override(synth, overrides[i], v, err);
    }
    if (status == APMW_OK && synth->check != NULL) {
        status = synth->check(v, err);
    }
    out->block_tokens = 1;
    for (size_t i = 0; i < n_trajectories && status == APMW_OK; i++) {
        apmw_trajectory t = {.global_id = -1};
        snprintf(t.id, sizeof t.id, "%s-%06zu", synth->about.name, i);
        snprintf(t.source, sizeof t.source, "synth:%s", synth->about.name);
        status = synth->make(v, seed, i, &t, err);
        if (status == APMW_OK) {
            status = apmw_tr_take(out, &t, err);
        } else {
            apmw_trajectory_free(&t);
        }
    }
    if (status != APMW_OK) {
        apmw_trace_free(out);
        return status;
    }
    /* The note says how to make the same trace again. */
    size_t at = (size_t)snprintf(out->note, sizeof out->note, "synth %s --count %zu --seed %llu",
                                 synth->about.name, n_trajectories, (unsigned long long)seed);
    for (size_t i = 0; i < n_overrides && at < sizeof out->note; i++) {
        at += (size_t)snprintf(out->note + at, sizeof out->note - at, " %s", overrides[i]);
    }
    apmw_trace_rehash(out);
    return APMW_OK;
}
