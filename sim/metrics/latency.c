/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "apmw/text.h"

double apmw_record_ttft_s(const apmw_request_record *record)
{
    if (record->state != APMW_REQUEST_DONE || record->first_token == APMW_TIME_NEVER) {
        return NAN;
    }
    return apmw_time_to_s(record->first_token - record->submitted);
}

double apmw_record_tpot_s(const apmw_request_record *record)
{
    if (record->state != APMW_REQUEST_DONE || record->n_out < 2) {
        return NAN;
    }
    return apmw_time_to_s(record->last_token - record->first_token) / (double)(record->n_out - 1);
}

double apmw_record_output_speed(const apmw_request_record *record)
{
    return 1.0 / apmw_record_tpot_s(record);
}

double apmw_record_e2e_s(const apmw_request_record *record)
{
    if (record->state != APMW_REQUEST_DONE || record->last_token == APMW_TIME_NEVER) {
        return NAN;
    }
    return apmw_time_to_s(record->last_token - record->submitted);
}

static double queue_s(const apmw_request_record *record)
{
    if (record->state != APMW_REQUEST_DONE || record->first_scheduled == APMW_TIME_NEVER) {
        return NAN;
    }
    return apmw_time_to_s(record->first_scheduled - record->submitted);
}

static double e2e_speed(const apmw_request_record *record)
{
    return (double)record->n_out / apmw_record_e2e_s(record);
}

/* Uses `values` (room for n) as scratch. */
static void spread(const apmw_request_record *records, size_t n, double (*value)(const apmw_request_record *),
                   double *values, apmw_spread *out)
{
    size_t count = 0;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double v = value(&records[i]);
        if (!isnan(v)) {
            values[count++] = v;
            sum += v;
        }
    }
    out->n = (int64_t)count;
    out->p5 = apmw_quantile(values, count, 0.05); /* sorts */
    out->p25 = apmw_quantile_sorted(values, count, 0.25);
    out->p50 = apmw_quantile_sorted(values, count, 0.50);
    out->p75 = apmw_quantile_sorted(values, count, 0.75);
    out->p90 = apmw_quantile_sorted(values, count, 0.90);
    out->p95 = apmw_quantile_sorted(values, count, 0.95);
    out->p99 = apmw_quantile_sorted(values, count, 0.99);
    out->mean = count > 0 ? sum / (double)count : (double)NAN;
    out->min = count > 0 ? values[0] : (double)NAN;
    out->max = count > 0 ? values[count - 1] : (double)NAN;
}

void apmw_latency_count(const apmw_request_record *records, size_t n, apmw_latency_summary *out)
{
    const apmw_spread none = {0, (double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN,
                              (double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN};
    *out = (apmw_latency_summary){.n_requests = (int64_t)n};
    out->ttft_s = out->queue_s = out->tpot_s = out->output_speed = out->e2e_s = out->e2e_speed = none;
    for (size_t i = 0; i < n; i++) {
        const apmw_request_record *r = &records[i];
        out->n_rejected += r->state == APMW_REQUEST_REJECTED;
        out->n_cancelled += r->state == APMW_REQUEST_CANCELLED;
        out->n_preempted += r->n_preemptions > 0;
        if (r->state == APMW_REQUEST_DONE) {
            out->n_done++;
            out->n_one_token += r->n_out == 1;
            out->prompt_tokens += r->n_prompt;
            out->cached_tokens += r->n_cached;
            out->fetched_tokens += r->n_fetched;
            out->output_tokens += r->n_out;
            out->recomputed_tokens += r->n_recomputed;
        }
    }
    out->hit_share =
        out->prompt_tokens > 0 ? (double)out->cached_tokens / (double)out->prompt_tokens : (double)NAN;
    out->loaded_share =
        out->prompt_tokens > 0 ? (double)out->fetched_tokens / (double)out->prompt_tokens : (double)NAN;
}

apmw_status apmw_latency_summarize(const apmw_request_record *records, size_t n, apmw_latency_summary *out,
                                   apmw_error *err)
{
    double *values = malloc((n > 0 ? n : 1) * sizeof *values);
    if (values == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu latencies", n);
    }
    apmw_latency_count(records, n, out);
    spread(records, n, apmw_record_ttft_s, values, &out->ttft_s);
    spread(records, n, queue_s, values, &out->queue_s);
    spread(records, n, apmw_record_tpot_s, values, &out->tpot_s);
    spread(records, n, apmw_record_output_speed, values, &out->output_speed);
    spread(records, n, apmw_record_e2e_s, values, &out->e2e_s);
    spread(records, n, e2e_speed, values, &out->e2e_speed);
    free(values);
    return APMW_OK;
}
