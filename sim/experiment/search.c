/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Searches for the largest population that passes: doubling, then bisection (AgentPerf's procedure), on any verdict; and by
 * margins, which needs fewer trials. */
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

/* ------------------------------------------------------------------ by margins */

/* What is known: the ends of the bracket with their ln margins. A pass has at least 0, a failure less. */
typedef struct margin_run {
    apmw_margin_fn margin;
    void *self;
    apmw_bracket *bracket;
    double resolution;
    double at_pass, at_fail;       /* ln margins */
    double slope;                  /* of ln margin over ln population, below 0 */
    double stride;                 /* least step while one end is open: doubles, should margins lead nowhere */
    int slow;                      /* looks in a row that left more than half of the bracket */
} margin_run;

double apmw_margin_slope(double slope)
{
    return isnan(slope) || slope > -0.3 ? -0.3 : slope < -10.0 ? -10.0 : slope;
}

static apmw_status look_margin(margin_run *run, int64_t n, apmw_error *err)
{
    double margin = 0.0;
    bool pass = false;
    const apmw_status status = run->margin(run->self, n, &margin, &pass, err);
    if (status != APMW_OK) {
        return status;
    }
    apmw_bracket *b = run->bracket;
    const int64_t width = b->fail - b->pass;
    const bool closed = b->pass > 0 && b->fail > 0;
    b->n_trials++;
    const int64_t before = pass ? b->pass : b->fail;
    const double before_margin = pass ? run->at_pass : run->at_fail;
    if (pass) {
        run->at_pass = isnan(margin) ? 0.0 : fmax(0.0, margin);
        b->pass = n;
    } else {
        run->at_fail = isnan(margin) ? -1.0 : fmin(-1e-6, margin);
        b->fail = n;
    }
    if (!closed && before > 0) {
        const double now = pass ? run->at_pass : run->at_fail;
        run->slope = apmw_margin_slope((now - before_margin) / log((double)n / (double)before));
    }
    run->slow = closed && 2 * (b->fail - b->pass) > width ? run->slow + 1 : 0;
    return APMW_OK;
}

/* While one end is open: where the margin would be 1, at most twice as far, at least as far as a bracket is wide. */
static int64_t beyond(margin_run *run, int64_t limit)
{
    const apmw_bracket *b = run->bracket;
    const double least = run->stride;
    run->stride = fmin(1.0, 2.0 * run->stride);
    if (b->fail == 0) {
        const double wanted = floor((double)b->pass * exp(fmin(log(2.0), run->at_pass / -run->slope)));
        const double n = fmax(wanted, (double)b->pass + fmax(1.0, floor(least * (double)b->pass)));
        return n >= (double)limit ? limit : (int64_t)n;
    }
    const double wanted = floor((double)b->fail * exp(-fmin(log(2.0), run->at_fail / run->slope)));
    const double n = fmin(wanted, (double)b->fail - fmax(1.0, floor(least / (1.0 + least) * (double)b->fail)));
    return n < 1.0 ? 1 : (int64_t)n;
}

/* Between both ends: the crossing by interpolation of ln margins, aimed so that two looks around it end the search; every
 * third look halves, whatever the margins say (a pool that overflows makes a cliff). */
static int64_t between(const margin_run *run)
{
    const apmw_bracket *b = run->bracket;
    const int64_t width = b->fail - b->pass;
    if (run->slow >= 2) {
        return b->pass + width / 2;
    }
    const double share = fmin(0.9, fmax(0.1, run->at_pass / (run->at_pass - run->at_fail)));
    const double crossing = (double)b->pass + share * (double)width;
    const double from_pass = fmax(1.0, floor(run->resolution * (double)b->pass));
    const double from_fail = fmax(1.0, floor(run->resolution / (1.0 + run->resolution) * (double)b->fail));
    double n;
    if (crossing - (double)b->pass <= 0.95 * from_pass) {
        n = (double)b->pass + from_pass;
    } else if ((double)b->fail - crossing <= 0.95 * from_fail) {
        n = (double)b->fail - from_fail;
    } else {
        n = floor(crossing - 0.4 * from_pass);
    }
    return n <= (double)b->pass ? b->pass + 1 : n >= (double)b->fail ? b->fail - 1 : (int64_t)n;
}

apmw_status apmw_margin_search(apmw_margin_fn margin, void *self, int64_t start, int64_t limit, double resolution,
                               apmw_bracket *out, apmw_error *err)
{
    if (start < 1 || limit < start || !(resolution >= 0.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "a search needs 1 <= start <= limit, a resolution >= 0");
    }
    *out = (apmw_bracket){0};
    margin_run run = {.margin = margin, .self = self, .bracket = out, .resolution = resolution, .slope = -1.0};
    run.stride = fmax(resolution, 0.02);
    int64_t n = start;
    for (;;) {
        const apmw_status status = look_margin(&run, n, err);
        if (status != APMW_OK) {
            return status;
        }
        const int64_t width = out->fail - out->pass;
        if (out->pass == limit || (out->fail > 0 && (width <= 1 || (double)width <= resolution * (double)out->pass))) {
            return APMW_OK;
        }
        n = out->pass == 0 || out->fail == 0 ? beyond(&run, limit) : between(&run);
    }
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
