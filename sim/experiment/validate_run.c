/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One measured point as a simulation: its engines, its client, and the statistic that it reports. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apmw/text.h"
#include "validate_private.h"

static const double long_gap_s = 1; /* stretches without work that count as idle: hwmodels/ACCURACY.md */

/* Steps of one role, with engines renumbered from 0. */
typedef struct role_books {
    int32_t first, n;
    apmw_step_meter *steps;
    apmw_energy_meter *energy;
    double flops, bytes, busy_s, kernel_s;
} role_books;

typedef struct books {
    role_books role[2];
    int n_roles;
    apmw_probe probe;
    apmw_window window;
    apmw_power_params power;
} books;

static void on_step(void *self, const apmw_step_record *record)
{
    books *b = self;
    for (int i = 0; i < b->n_roles; i++) {
        role_books *r = &b->role[i];
        if (record->engine < r->first || record->engine >= r->first + r->n)
            continue;
        apmw_step_record shifted = *record;
        shifted.engine -= r->first;
        r->flops += record->flops;
        r->bytes += record->bytes;
        r->kernel_s += record->kernel_s;
        r->busy_s += apmw_time_to_s(record->end - record->begin);
        const apmw_probe *step = apmw_step_meter_probe(r->steps);
        step->on_step(step->self, &shifted);
        if (r->energy) {
            const apmw_probe *energy = apmw_energy_meter_probe(r->energy);
            energy->on_step(energy->self, &shifted);
        }
    }
}

static double step_power(void *self, double duty, double bw_util, double flop_util)
{
    return apmw_power_step_w(self, duty, bw_util, flop_util);
}

static apmw_status open_books(books *b, const predict_run *run, apmw_error *err)
{
    memset(b, 0, sizeof *b);
    b->n_roles = run->point->disagg ? 2 : 1;
    b->window = (apmw_window){0, APMW_TIME_NEVER};
    b->probe = (apmw_probe){.self = b, .on_step = on_step};
    if (run->power)
        b->power = *run->power;
    for (int i = 0; i < b->n_roles; i++) {
        role_books *r = &b->role[i];
        r->first = i == 0 ? 0 : run->workers[0];
        r->n = run->workers[i];
        r->steps = apmw_step_meter_create(&b->window, (size_t)r->n);
        if (run->power) {
            const apmw_energy_config config = {.n_engines = (size_t)r->n,
                                               .accelerators = run->accelerators[i],
                                               .step_w = step_power,
                                               .self = &b->power,
                                               .idle_w = apmw_power_idle_w(run->power),
                                               .limit_w = run->power->tdp_w,
                                               .peak_flop_per_s = run->peak_flop_per_s,
                                               .hbm_bytes_per_s = run->hbm_bytes_per_s,
                                               .long_gap_s = long_gap_s};
            r->energy = apmw_energy_meter_create(&b->window, &config);
        }
        if (!r->steps || (run->power && !r->energy))
            return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    return APMW_OK;
}

static apmw_status close_books(books *b, const predict_run *run, apmw_time end, apmw_prediction *out,
                               apmw_error *err)
{
    double steps = 0, outside = 0, watts = 0, accelerators = 0;
    for (int i = 0; i < b->n_roles; i++) {
        role_books *r = &b->role[i];
        apmw_step_summary s;
        apmw_step_meter_summary(r->steps, end, &s);
        out->use[i] = (apmw_use){.duty = r->busy_s > 0 ? fmin(r->kernel_s / r->busy_s, 1) : 0,
                                 .bw_util = r->busy_s > 0 ? r->bytes / r->busy_s / run->hbm_bytes_per_s : 0,
                                 .flop_util = r->busy_s > 0 ? r->flops / r->busy_s / run->peak_flop_per_s : 0,
                                 .busy_share = s.busy_share};
        steps += s.n_steps;
        outside += s.n_steps * s.outside_share;
        if (i == b->n_roles - 1) {
            out->mean_step_ms = s.mean_step_s * 1e3;
            out->mean_batch = s.mean_batch;
            out->kv_peak_share = s.kv_peak_share;
        }
        if (r->energy) {
            apmw_energy_summary e;
            apmw_status status = apmw_energy_meter_finish(r->energy, end, &e, err);
            if (status != APMW_OK)
                return status;
            double n = (double)r->n * run->accelerators[i];
            if (run->point->disagg)
                out->role_power_w[i] = e.mean_w;
            watts += n * e.mean_w;
            accelerators += n;
        }
    }
    out->outside_share = steps > 0 ? outside / steps : 0;
    if (accelerators > 0)
        out->power_w = watts / accelerators;
    return APMW_OK;
}

static void free_books(books *b)
{
    for (int i = 0; i < b->n_roles; i++) {
        apmw_step_meter_free(b->role[i].steps);
        apmw_energy_meter_free(b->role[i].energy);
    }
}

/* Mean or median of the finite values, in the order of requests (a fixed order, so that sums are the same). */
static double statistic(double *values, size_t n, bool median, size_t *used)
{
    double sum = 0;
    *used = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i]))
            values[(*used)++] = values[i];
    if (*used == 0)
        return (double)NAN;
    if (median)
        return apmw_quantile(values, *used, 0.5);
    for (size_t i = 0; i < *used; i++)
        sum += values[i];
    return sum / (double)*used;
}

static apmw_status report(const predict_run *run, double *ttft, double *tpot, size_t n, apmw_prediction *out)
{
    size_t done, timed;
    double ttft_s = statistic(ttft, n, run->point->median, &done);
    double tpot_s = statistic(tpot, n, run->point->median, &timed);
    if (done < n) {
        snprintf(out->reason, sizeof out->reason, "%zu of %zu requests do not fit the KV pool of %.0f tokens", n - done, n,
                 out->kv_tokens);
        return APMW_OK;
    }
    /* The k-th prompt of the burst on its rank pays for itself and for the k - 1 before it; a median sees no burst. */
    if (!run->point->median) {
        double burst = fmin((double)run->point->concurrency, (double)n);
        const apmw_point *p = run->point;
        const double ranks = p->disagg ? (double)run->workers[0] * fmax(p->layout[0].attention_dp, 1) : 1;
        ttft_s += p->burst_prompt_s * (burst / ranks + 1) / 2 * burst / (double)n;
    }
    out->ttft_ms = ttft_s * 1e3;
    out->tpot_ms = tpot_s * 1e3;
    out->supported = true;
    return APMW_OK;
}

static void values_of(const apmw_collector *collector, double *ttft, double *tpot, size_t n)
{
    size_t n_records;
    const apmw_request_record *records = apmw_collector_requests(collector, &n_records);
    for (size_t i = 0; i < n; i++)
        ttft[i] = tpot[i] = (double)NAN;
    for (size_t i = 0; i < n_records; i++)
        if (records[i].id < n) {
            ttft[records[i].id] = apmw_record_ttft_s(&records[i]);
            tpot[records[i].id] = apmw_record_tpot_s(&records[i]);
        }
}

apmw_status apmw_predict_simulate(const predict_run *run, apmw_prediction *out, apmw_error *err)
{
    const apmw_point *p = run->point;
    size_t n = (size_t)run->n_requests;
    size_t n_engines = (size_t)(run->workers[0] + (p->disagg ? run->workers[1] : 0));
    apmw_status status = APMW_OK;
    apmw_workload workload = {0};
    apmw_sim *sim = NULL;
    apmw_collector *collector = NULL;
    books b = {0};
    apmw_engine_config *engines = calloc(n_engines, sizeof *engines);
    double *ttft = calloc(n, sizeof *ttft), *tpot = calloc(n, sizeof *tpot);
    if (!engines || !ttft || !tpot) {
        status = apmw_error_set(err, APMW_E_NOMEM, "out of memory");
        goto done;
    }
    for (size_t i = 0; i < n_engines; i++)
        engines[i] = run->engine[i < (size_t)run->workers[0] ? 0 : 1];
    /* One millisecond between the end of a request and the next: the client's own work; so it misses the running step. */
    const apmw_fixed_loop client = {.slots = p->concurrency, .n_requests = run->n_requests,
                                    .isl = llround(p->prompt_scale * (double)p->isl),
                                    .osl = p->osl, .ratio = p->ratio, .seed = 0, .gap_ns = 1000000};
    status = open_books(&b, run, err);
    if (status == APMW_OK) {
        collector = apmw_collector_create(NULL, false);
        status = collector ? apmw_workload_fixed_loop(&client, &workload, err)
                           : apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    if (status != APMW_OK)
        goto done;
    const apmw_probe *probes[2] = {&b.probe, apmw_collector_probe(collector)};
    /* Prefill workers hand over as those of scenarios do. */
    const apmw_sim_config config = {.engines = engines,
                                    .n_engines = n_engines,
                                    .n_prefill = p->disagg ? (size_t)run->workers[0] : 0,
                                    .link = run->link,
                                    .decode_routing = APMW_ROUTING_LEAST_LOADED,
                                    .routing = APMW_ROUTING_LEAST_LOADED};
    status = apmw_sim_create(&config, workload, probes, 2, &sim, err);
    if (status == APMW_OK)
        status = apmw_sim_run(sim, APMW_TIME_NEVER, err);
    if (status == APMW_OK)
        status = apmw_collector_status(collector, err);
    if (status == APMW_OK) {
        values_of(collector, ttft, tpot, n);
        status = close_books(&b, run, apmw_des_now(apmw_sim_des(sim)), out, err);
    }
    if (status == APMW_OK)
        status = report(run, ttft, tpot, n, out);
done:
    apmw_sim_free(sim);
    free_books(&b);
    apmw_collector_free(collector);
    free(engines);
    free(ttft);
    free(tpot);
    return status;
}
