/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "metrics_private.h"

#include <math.h>
#include <stdlib.h>

struct apmw_energy_meter {
    apmw_probe probe;
    const apmw_window *window;
    apmw_energy_config config;
    apmw_time *last_end; /* of each engine: where its books stand */
    double floor_w;      /* a running engine between two steps */
    double idle_w;       /* in a long gap */
    double busy_j, gap_j, idle_j; /* of one accelerator, summed over engines */
    int64_t busy_ns, gap_ns, idle_ns; /* of engines in the window: exact, so that law L18 is exact */
    double bytes, flops;
};

/* A gap is judged by its whole length and charged for the part in the window. */
static void gap(apmw_energy_meter *m, apmw_time begin, apmw_time end)
{
    apmw_time from, to;
    if (end <= begin || apmw_window_overlap(m->window, begin, end, &from, &to) <= 0.0) {
        return;
    }
    const double seconds = apmw_time_to_s(to - from);
    if (apmw_time_to_s(end - begin) > m->config.long_gap_s) {
        m->idle_ns += to - from;
        m->idle_j += seconds * m->idle_w;
    } else {
        m->gap_ns += to - from;
        m->gap_j += seconds * m->floor_w;
    }
}

static void on_step(void *self, const apmw_step_record *record)
{
    apmw_energy_meter *m = self;
    if (record->engine < 0 || (size_t)record->engine < m->config.first_engine ||
        (size_t)record->engine >= m->config.first_engine + m->config.n_engines) {
        return;
    }
    const size_t engine = (size_t)record->engine - m->config.first_engine;
    gap(m, m->last_end[engine], record->begin);
    m->last_end[engine] = record->end;
    apmw_time from, to;
    const double share = apmw_window_overlap(m->window, record->begin, record->end, &from, &to);
    if (share <= 0.0) {
        return;
    }
    /* A rate over the stretch: equal steps, so its mean is each step's. */
    const double length_s = apmw_time_to_s(record->end - record->begin);
    double duty = record->kernel_s / length_s;
    duty = duty > 1.0 ? 1.0 : duty;
    const double bw = record->bytes / length_s / m->config.hbm_bytes_per_s;
    const double flop = record->flops / length_s / m->config.peak_flop_per_s;
    const double seconds = apmw_time_to_s(to - from);
    m->busy_ns += to - from;
    m->busy_j += seconds * m->config.step_w(m->config.self, duty, bw, flop);
    m->bytes += share * record->bytes;
    m->flops += share * record->flops;
}

apmw_energy_meter *apmw_energy_meter_create(const apmw_window *window, const apmw_energy_config *config)
{
    apmw_energy_meter *m = calloc(1, sizeof *m);
    apmw_time *last_end = calloc(config->n_engines > 0 ? config->n_engines : 1, sizeof *last_end);
    if (m == NULL || last_end == NULL) {
        free(m);
        free(last_end);
        return NULL;
    }
    m->window = window;
    m->config = *config;
    m->last_end = last_end;
    m->floor_w = config->step_w(config->self, 0.0, 0.0, 0.0);
    m->idle_w = isnan(config->idle_w) ? m->floor_w : config->idle_w;
    m->probe = (apmw_probe){.self = m, .on_step = on_step};
    return m;
}

void apmw_energy_meter_free(apmw_energy_meter *meter)
{
    if (meter != NULL) {
        free(meter->last_end);
        free(meter);
    }
}

const apmw_probe *apmw_energy_meter_probe(const apmw_energy_meter *meter)
{
    return &meter->probe;
}

apmw_status apmw_energy_meter_finish(apmw_energy_meter *meter, apmw_time end, apmw_energy_summary *out,
                                     apmw_error *err)
{
    const apmw_window all = {.from = 0, .to = APMW_TIME_NEVER};
    const apmw_window *w = meter->window == NULL ? &all : meter->window;
    const apmw_time to = w->to < end ? w->to : end;
    for (size_t i = 0; i < meter->config.n_engines; i++) {
        gap(meter, meter->last_end[i], end);
    }
    const int64_t window_ns = to > w->from ? to - w->from : 0;
    const int64_t engines_ns = window_ns * (int64_t)meter->config.n_engines;
    const double engines_s = apmw_time_to_s(engines_ns);
    const double whole = engines_ns > 0 ? engines_s : (double)NAN;
    const double busy_s = meter->busy_ns > 0 ? apmw_time_to_s(meter->busy_ns) : (double)NAN;
    const double n = (double)meter->config.accelerators;
    const double joule = meter->busy_j + meter->gap_j + meter->idle_j;
    *out = (apmw_energy_summary){
        .window_s = apmw_time_to_s(window_ns),
        .energy_j = joule * n,
        .busy_j = meter->busy_j * n,
        .gap_j = meter->gap_j * n,
        .idle_j = meter->idle_j * n,
        .busy_share = apmw_time_to_s(meter->busy_ns) / whole,
        .gap_share = apmw_time_to_s(meter->gap_ns) / whole,
        .idle_share = apmw_time_to_s(meter->idle_ns) / whole,
        .mean_w = joule / whole,
        .bw_util = meter->bytes / busy_s / meter->config.hbm_bytes_per_s,
        .flop_util = meter->flops / busy_s / meter->config.peak_flop_per_s,
    };
    const int64_t booked_ns = meter->busy_ns + meter->gap_ns + meter->idle_ns;
    if (booked_ns != engines_ns) {
        return apmw_error_set(err, APMW_E_INTERNAL, "law L18 at %.9f s: busy + idle = %lld ns of %lld engine-ns",
                              apmw_time_to_s(end), (long long)booked_ns, (long long)engines_ns);
    }
    const double lowest = meter->idle_w < meter->floor_w ? meter->idle_w : meter->floor_w;
    const double least = lowest * engines_s, most = meter->config.limit_w * engines_s;
    if (joule < least * (1.0 - 1e-9) || joule > most * (1.0 + 1e-9)) {
        return apmw_error_set(err, APMW_E_INTERNAL, "law L19 at %.9f s: %.6g J lie outside [%.6g, %.6g]",
                              apmw_time_to_s(end), joule, least, most);
    }
    return APMW_OK;
}

void apmw_energy_join(const apmw_energy_summary *a, int a_accelerators, const apmw_energy_summary *b, int b_accelerators,
                      apmw_energy_summary *out)
{
    const double n = (double)a_accelerators, m = (double)b_accelerators, all = n + m;
    /* What a group does while it steps counts by how long it steps. */
    const double x = n * a->busy_share, y = m * b->busy_share, busy = x + y > 0.0 ? x + y : (double)NAN;
    const double of_a = x > 0.0 ? x / busy : 0.0, of_b = y > 0.0 ? y / busy : 0.0;
    *out = (apmw_energy_summary){
        .window_s = a->window_s,
        .energy_j = a->energy_j + b->energy_j,
        .busy_j = a->busy_j + b->busy_j,
        .gap_j = a->gap_j + b->gap_j,
        .idle_j = a->idle_j + b->idle_j,
        .busy_share = (n * a->busy_share + m * b->busy_share) / all,
        .gap_share = (n * a->gap_share + m * b->gap_share) / all,
        .idle_share = (n * a->idle_share + m * b->idle_share) / all,
        .mean_w = (n * a->mean_w + m * b->mean_w) / all,
        .bw_util = (of_a > 0.0 ? of_a * a->bw_util : 0.0) + (of_b > 0.0 ? of_b * b->bw_util : 0.0),
        .flop_util = (of_a > 0.0 ? of_a * a->flop_util : 0.0) + (of_b > 0.0 ? of_b * b->flop_util : 0.0),
    };
}
