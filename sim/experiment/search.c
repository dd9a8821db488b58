/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Doubling, then bisection (AgentPerf's procedure), on any verdict. */
#include "apmw/experiment.h"

#include <math.h>

typedef struct probe_run {
    apmw_passes_fn passes;
    void *self;
    apmw_bracket *bracket;
} probe_run;

static apmw_status look(probe_run *run, int64_t n, bool *passes, apmw_error *err)
{
    const apmw_status status = run->passes(run->self, n, passes, err);
    if (status != APMW_OK) {
        return status;
    }
    run->bracket->n_trials++;
    if (*passes) {
        run->bracket->pass = n > run->bracket->pass ? n : run->bracket->pass;
    } else {
        run->bracket->fail = run->bracket->fail == 0 || n < run->bracket->fail ? n : run->bracket->fail;
    }
    return APMW_OK;
}

/* The next population up or down: at least one agent away. */
static int64_t grown(int64_t n, double growth, int64_t limit)
{
    const double next = ceil((double)n * growth);
    return next >= (double)limit ? limit : (int64_t)next > n ? (int64_t)next : n + 1;
}

static int64_t shrunk(int64_t n, double growth)
{
    const int64_t next = (int64_t)floor((double)n / growth);
    return next < n ? next : n - 1;
}

apmw_status apmw_bracket_search(apmw_passes_fn passes, void *self, int64_t start, double growth, int64_t limit,
                                double resolution, apmw_bracket *out, apmw_error *err)
{
    if (start < 1 || limit < start || !(resolution >= 0.0) || !(growth > 1.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "a search needs 1 <= start <= limit, growth above 1, a resolution >= 0");
    }
    *out = (apmw_bracket){0};
    probe_run run = {.passes = passes, .self = self, .bracket = out};
    bool passed = true;
    for (int64_t n = start; passed; n = grown(n, growth, limit)) {
        const apmw_status status = look(&run, n, &passed, err);
        if (status != APMW_OK) {
            return status;
        }
        if (passed && n == limit) {
            return APMW_OK; /* no failure up to the limit */
        }
    }
    /* A start above capacity goes down until it passes. */
    for (int64_t n = shrunk(out->fail, growth); out->pass == 0 && n >= 1; n = shrunk(n, growth)) {
        const apmw_status status = look(&run, n, &passed, err);
        if (status != APMW_OK) {
            return status;
        }
    }
    while (out->fail - out->pass > 1 && (double)(out->fail - out->pass) > resolution * (double)out->pass) {
        const int64_t middle = out->pass + (out->fail - out->pass) / 2;
        const apmw_status status = look(&run, middle, &passed, err);
        if (status != APMW_OK) {
            return status;
        }
    }
    return APMW_OK;
}

void apmw_interval_combine(double point, const apmw_interval_part *parts, int n, apmw_interval *out)
{
    *out = (apmw_interval){.n_parts = n < APMW_INTERVAL_PARTS ? n : APMW_INTERVAL_PARTS};
    double lower = 0.0, upper = 0.0;
    for (int i = 0; i < out->n_parts; i++) {
        out->parts[i] = parts[i];
        lower += parts[i].lower * parts[i].lower;
        upper += parts[i].upper * parts[i].upper;
    }
    out->lo = point * exp(-sqrt(lower));
    out->hi = point * exp(sqrt(upper));
}
