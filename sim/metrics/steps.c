/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "metrics_private.h"

#include <math.h>
#include <stdlib.h>

struct apmw_step_meter {
    apmw_probe probe;
    const apmw_window *window;
    size_t n_engines;
    apmw_time last;  /* latest end of a step */
    double busy_s, steps, outside, prefill_tokens, decode_tokens, prefill_busy_s, kernel_s;
    double seq_s, waiting_s, kv_s, kv_peak;
};

double apmw_window_overlap(const apmw_window *window, apmw_time begin, apmw_time end, apmw_time *from, apmw_time *to)
{
    const apmw_time lo = window == NULL ? 0 : window->from;
    const apmw_time hi = window == NULL ? APMW_TIME_NEVER : window->to;
    *from = begin > lo ? begin : lo;
    *to = end < hi ? end : hi;
    if (*to <= *from) {
        return 0.0;
    }
    return (double)(*to - *from) / (double)(end - begin);
}

static void on_step(void *self, const apmw_step_record *record)
{
    apmw_step_meter *m = self;
    apmw_time from, to;
    const double share = apmw_window_overlap(m->window, record->begin, record->end, &from, &to);
    if (share <= 0.0) {
        return;
    }
    const double seconds = apmw_time_to_s(to - from);
    m->last = to > m->last ? to : m->last;
    m->busy_s += seconds;
    m->steps += share * (double)record->n_steps;
    m->outside += share * record->outside_steps;
    m->prefill_tokens += share * (double)record->prefill_tokens;
    m->decode_tokens += share * (double)record->decode_tokens;
    m->kernel_s += share * record->kernel_s;
    m->prefill_busy_s += record->prefill_tokens > 0 ? seconds : 0.0;
    m->seq_s += seconds * (double)record->n_seqs;
    m->waiting_s += seconds * (double)record->n_waiting;
    if (record->kv_capacity_blocks > 0) {
        const double used = (double)record->kv_used_blocks / (double)record->kv_capacity_blocks;
        m->kv_s += seconds * used;
        m->kv_peak = used > m->kv_peak ? used : m->kv_peak;
    }
}

apmw_step_meter *apmw_step_meter_create(const apmw_window *window, size_t n_engines)
{
    apmw_step_meter *m = calloc(1, sizeof *m);
    if (m != NULL) {
        m->window = window;
        m->n_engines = n_engines;
        m->probe = (apmw_probe){.self = m, .on_step = on_step};
    }
    return m;
}

void apmw_step_meter_free(apmw_step_meter *meter)
{
    free(meter);
}

const apmw_probe *apmw_step_meter_probe(const apmw_step_meter *meter)
{
    return &meter->probe;
}

void apmw_step_meter_summary(const apmw_step_meter *meter, apmw_time end, apmw_step_summary *out)
{
    const apmw_window all = {.from = 0, .to = APMW_TIME_NEVER};
    const apmw_window *w = meter->window == NULL ? &all : meter->window;
    const apmw_time to = w->to == APMW_TIME_NEVER ? end : w->to;
    const double window_s = to > w->from ? apmw_time_to_s(to - w->from) : 0.0;
    const double some = meter->busy_s > 0.0 ? meter->busy_s : (double)NAN;
    const double whole = window_s > 0.0 ? window_s : (double)NAN;
    *out = (apmw_step_summary){
        .window_s = window_s,
        .n_steps = meter->steps,
        .busy_share = meter->busy_s / (whole * (double)meter->n_engines),
        .mean_step_s = meter->steps > 0.0 ? meter->busy_s / meter->steps : (double)NAN,
        .mean_batch = meter->seq_s / some,
        .mean_waiting = meter->waiting_s / some,
        .kv_mean_share = meter->kv_s / some,
        .kv_peak_share = meter->kv_peak,
        .prefill_tok_s = meter->prefill_tokens / whole,
        .decode_tok_s = meter->decode_tokens / whole,
        .prefill_step_share = meter->prefill_busy_s / some,
        .duty = meter->kernel_s / some,
        .outside_share = meter->steps > 0.0 ? meter->outside / meter->steps : (double)NAN,
    };
}
