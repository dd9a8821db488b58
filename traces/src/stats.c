/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Statistics of a trace.
 *
 * Distributions are over the main line (lane 0), as published statistics of agent traces are; totals and hit
 * rates are over every turn, since a server sees them all. turns     main-line turns of a trajectory isl, osl
 * prompt and output tokens of a turn last_isl  prompt of the last main-line turn      delay_s   before each
 * turn but the first, seconds uncached  tokens of each turn but the first that an infinite cache must compute
 *   growth    prompt tokens added by a clean append: the prompt does not shrink, and of the previous prompt
 * at most the last two whole blocks (or 128 tokens) are not repeated. Compactions and prefix edits have no
 * growth.
 *
 * Infinite cache: nothing is evicted, only whole blocks are kept. A turn hits floor(shared / block) * block
 * tokens, where shared is what it has in common with its parent. No longer match exists elsewhere in the
 * trajectory, because what follows the shared part is new by definition. Of an output, the last token is
 * never cached: its keys and values would be computed by the next pass, which does not come. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "apmw/time.h"
#include "private.h"

typedef struct sample {
    double *values;
    size_t n;
} sample;

enum { TURNS, ISL, OSL, DELAY, GROWTH, UNCACHED, LAST_ISL, N_SAMPLES };

/* Longest prefix of each shared group that earlier trajectories have brought into the cache. */
typedef struct group {
    int32_t id;
    int64_t cached;
} group;

static int64_t floor_to(int64_t tokens, int64_t block)
{
    return tokens / block * block;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void push(sample *s, double value)
{
    s->values[s->n++] = value;
}

/* Tokens of a turn's prompt that are in the cache because of its parent: the shared part of the parent's
 * prompt, then of its output what was kept (all but the last token, if outputs are kept at all) or what an
 * earlier turn sent again as its input. `resent` holds the most of that by turn, and takes in this turn. */
static int64_t known_tokens(const apmw_trajectory *t, int32_t i, bool output_cached, int64_t *resent)
{
    const apmw_turn *u = &t->turns[i];
    resent[i] = 0;
    if (u->shared_out == 0) {
        return u->shared_in;
    }
    int64_t kept = output_cached ? t->turns[u->parent].n_out - 1 : 0;
    if (kept < resent[u->parent]) {
        kept = resent[u->parent];
    }
    if (resent[u->parent] < u->shared_out) {
        resent[u->parent] = u->shared_out;
    }
    return u->shared_in + smaller(u->shared_out, kept);
}

/* The group's entry, made at the first call; the table is sorted by id. NULL: out of memory. */
static group *group_of(group **groups, size_t *n, int32_t id)
{
    size_t lo = 0, hi = *n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if ((*groups)[mid].id < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo < *n && (*groups)[lo].id == id) {
        return &(*groups)[lo];
    }
    group *more = realloc(*groups, (*n + 1) * sizeof *more);
    if (more == NULL) {
        return NULL;
    }
    *groups = more;
    memmove(more + lo + 1, more + lo, (*n - lo) * sizeof *more);
    more[lo] = (group){id, 0};
    (*n)++;
    return &more[lo];
}

/* Tokens that the prompts of two turns have in common: what each hands on to the next on the way to where
 * their ancestries meet, or the shared prefix when they do not. */
static int64_t common_tokens(const apmw_trajectory *t, int32_t a, int32_t b)
{
    int64_t common = INT64_MAX;
    while (a != b && (a >= 0 || b >= 0)) {
        int32_t *later = a > b ? &a : &b;
        const apmw_turn *turn = &t->turns[*later];
        common = smaller(common, turn->parent >= 0 ? turn->shared_in : t->global_tokens);
        *later = turn->parent;
    }
    return smaller(common, a >= 0 ? t->turns[a].n_in : t->global_tokens);
}

/* Numbers of a run over all trajectories. */
typedef struct counters {
    int64_t block;
    bool output_cached;
    int64_t *resent; /* by turn of the trajectory at hand */
    double hit, hit_shared, hit_previous, blocks, found;
} counters;

/* Hits of one turn; returns that of an infinite cache that holds this trajectory alone. `own` is how much of
 * the shared prefix this trajectory has brought in. */
static int64_t count_hits(const apmw_trajectory *t, int32_t i, int32_t previous, int64_t *own, group *shared,
                          counters *c)
{
    const apmw_turn *u = &t->turns[i];
    int64_t content = known_tokens(t, i, c->output_cached, c->resent);
    int64_t tokens = floor_to(content, c->block), with_groups = tokens;
    if (u->parent == -1) {
        int64_t whole = shared != NULL && shared->cached > *own ? shared->cached : *own;
        content = smaller(whole, t->global_tokens);
        tokens = floor_to(smaller(*own, t->global_tokens), c->block);
        with_groups = floor_to(content, c->block);
        *own = t->global_tokens;
        if (shared != NULL && *own > shared->cached) {
            shared->cached = *own;
        }
    }
    if (previous >= 0) {
        c->hit_previous +=
            (double)(u->parent == previous ? tokens : floor_to(common_tokens(t, i, previous), c->block));
    }
    c->hit += (double)tokens;
    c->hit_shared += (double)with_groups;
    double blocks = (double)((u->n_in + c->block - 1) / c->block);
    c->blocks += blocks;
    c->found += content == u->n_in ? blocks : (double)(with_groups / c->block);
    return tokens;
}

static void measure(const apmw_trajectory *t, group *shared, int32_t *last, sample *samples,
                    apmw_trace_stats *out, counters *c)
{
    int32_t main_turns = 0;
    int64_t own = 0;
    int64_t slack = 2 * c->block < 128 ? 128 : 2 * c->block;
    for (int32_t k = 0; k < t->n_lanes; k++) {
        last[k] = -1;
    }
    for (int32_t i = 0; i < t->n_turns; i++) {
        const apmw_turn *u = &t->turns[i];
        int32_t previous = last[u->lane];
        last[u->lane] = i;
        int64_t tokens = count_hits(t, i, previous, &own, shared, c);
        out->n_turns++;
        out->total_in += (double)u->n_in;
        out->total_out += (double)u->n_out;
        if (u->lane != 0) {
            out->n_subagent_turns++;
            continue;
        }
        push(&samples[ISL], (double)u->n_in);
        push(&samples[OSL], (double)u->n_out);
        if (previous >= 0) {
            const apmw_turn *before = &t->turns[previous];
            push(&samples[DELAY], (double)u->delay_ns / (double)APMW_NS_PER_S);
            push(&samples[UNCACHED], (double)(u->n_in - tokens));
            if (u->parent == previous && u->n_in >= before->n_in &&
                floor_to(before->n_in, c->block) - u->shared_in <= slack) {
                push(&samples[GROWTH], (double)(u->n_in - before->n_in));
            }
        }
        main_turns++;
    }
    push(&samples[TURNS], main_turns);
    if (last[0] >= 0) {
        push(&samples[LAST_ISL], (double)t->turns[last[0]].n_in);
    }
}

static apmw_dist summary(sample *s)
{
    apmw_dist d = {.n = (double)s->n};
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        sum += s->values[i];
    }
    d.mean = s->n > 0 ? sum / (double)s->n : (double)NAN;
    d.p50 = apmw_quantile(s->values, s->n, .50); /* sorts */
    d.p5 = apmw_quantile_sorted(s->values, s->n, .05);
    d.p10 = apmw_quantile_sorted(s->values, s->n, .10);
    d.p25 = apmw_quantile_sorted(s->values, s->n, .25);
    d.p75 = apmw_quantile_sorted(s->values, s->n, .75);
    d.p90 = apmw_quantile_sorted(s->values, s->n, .90);
    d.p95 = apmw_quantile_sorted(s->values, s->n, .95);
    d.p99 = apmw_quantile_sorted(s->values, s->n, .99);
    d.min = apmw_quantile_sorted(s->values, s->n, 0);
    d.max = apmw_quantile_sorted(s->values, s->n, 1);
    return d;
}

apmw_status apmw_trace_stats_compute(const apmw_trace *trace, int64_t block_tokens, bool output_cached,
                                     apmw_trace_stats *out, apmw_error *err)
{
    memset(out, 0, sizeof *out);
    if (block_tokens < 0) {
        return apmw_error_set(err, APMW_E_USAGE, "block of %lld tokens; expected 1 or more",
                              (long long)block_tokens);
    }
    int64_t block = block_tokens > 0 ? block_tokens : trace->block_tokens;
    if (block < 1) {
        return apmw_error_set(err, APMW_E_DATA, "the trace has no block size");
    }
    size_t turns = 0, lanes = 1, longest = 1;
    for (size_t i = 0; i < trace->n; i++) {
        size_t n = (size_t)trace->items[i].n_lanes;
        turns += (size_t)trace->items[i].n_turns;
        lanes = n > lanes ? n : lanes;
        n = (size_t)trace->items[i].n_turns;
        longest = n > longest ? n : longest;
    }
    sample samples[N_SAMPLES] = {{0}};
    bool failed = false;
    for (int k = 0; k < N_SAMPLES; k++) {
        samples[k].values = malloc((turns + trace->n + 1) * sizeof(double));
        failed = failed || samples[k].values == NULL;
    }
    int32_t *last = malloc(lanes * sizeof *last);
    int64_t *resent = malloc(longest * sizeof *resent);
    failed = failed || last == NULL || resent == NULL;
    group *groups = NULL;
    size_t n_groups = 0;
    counters c = {.block = block, .output_cached = output_cached, .resent = resent};
    for (size_t i = 0; i < trace->n && !failed; i++) {
        const apmw_trajectory *t = &trace->items[i];
        group *shared = NULL;
        if (t->global_id >= 0) {
            shared = group_of(&groups, &n_groups, t->global_id);
            failed = shared == NULL;
        }
        out->n_lanes += t->n_lanes;
        measure(t, shared, last, samples, out, &c);
    }
    if (!failed) {
        out->n_trajectories = trace->n;
        /* An empty trace has no hit rate: 0 / 0 is NaN, which means missing. */
        out->hit_infinite = c.hit / out->total_in;
        out->hit_infinite_shared = c.hit_shared / out->total_in;
        out->hit_previous = c.hit_previous / out->total_in;
        out->hit_blocks_shared = c.found / c.blocks;
        out->turns = summary(&samples[TURNS]);
        out->isl = summary(&samples[ISL]);
        out->osl = summary(&samples[OSL]);
        out->delay_s = summary(&samples[DELAY]);
        out->growth = summary(&samples[GROWTH]);
        out->uncached = summary(&samples[UNCACHED]);
        out->last_isl = summary(&samples[LAST_ISL]);
    }
    for (int k = 0; k < N_SAMPLES; k++) {
        free(samples[k].values);
    }
    free(last);
    free(resent);
    free(groups);
    return failed ? apmw_error_set(err, APMW_E_NOMEM, "out of memory for the statistics of %zu turns", turns)
                  : APMW_OK;
}
