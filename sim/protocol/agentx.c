/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/agentx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/text.h"

static apmw_status read_price(const apmw_json_cur *item, const char *platform, apmw_agentx_price *out, apmw_error *err)
{
    static const char *const KEYS[] = {"platform", "all_in_kw", "usd_per_hour", NULL};
    const char *name = NULL;
    double kw = 0.0, usd = 0.0;
    apmw_status status = apmw_json_only_keys(item, KEYS, err);
    if (status == APMW_OK) {
        status = apmw_json_get_string(item, "platform", &name, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_double(item, "all_in_kw", 1e-3, 1e3, &kw, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_double(item, "usd_per_hour", 0.0, 1e6, &usd, err);
    }
    if (status == APMW_OK && strcmp(name, platform) == 0) {
        out->all_in_kw = kw;
        out->usd_per_hour = usd;
    }
    return status;
}

apmw_status apmw_agentx_price_load(const char *path, const char *platform, apmw_agentx_price *out, apmw_error *err)
{
    static const char *const KEYS[] = {"schema", "platforms", NULL};
    *out = (apmw_agentx_price){.all_in_kw = (double)NAN, .usd_per_hour = (double)NAN};
    if (!apmw_copy(out->platform, sizeof out->platform, platform)) {
        return apmw_error_set(err, APMW_E_USAGE, "platform \"%s\" has more than %zu characters", platform,
                              sizeof out->platform - 1);
    }
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_load(path, &doc, err);
    if (status != APMW_OK) {
        return status;
    }
    const apmw_json_cur root = apmw_json_root(doc);
    apmw_json_cur list;
    const char *schema = NULL;
    status = apmw_json_only_keys(&root, KEYS, err);
    if (status == APMW_OK) {
        status = apmw_json_get_string(&root, "schema", &schema, err);
    }
    if (status == APMW_OK && strcmp(schema, "apmw.agentx/1") != 0) {
        status = apmw_json_error(&root, err, APMW_E_DATA, "schema is \"%s\", expected \"apmw.agentx/1\"", schema);
    }
    if (status == APMW_OK) {
        status = apmw_json_child(&root, "platforms", &list, err);
    }
    if (status == APMW_OK && apmw_json_typeof(&list) != APMW_JSON_ARRAY) {
        status = apmw_json_error(&list, err, APMW_E_DATA, "expected a list of platforms");
    }
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&list); i++) {
        apmw_json_cur item;
        status = apmw_json_at(&list, i, &item, err);
        if (status == APMW_OK) {
            status = read_price(&item, platform, out, err);
        }
    }
    apmw_json_free(doc);
    return status;
}

/* Latencies of the done requests that were sent in the profile. */
typedef struct samples {
    double *itl, *e2e_per_token, *ttft, *e2e;
    size_t n_itl, n;
} samples;

static void keep(samples *s, const apmw_request_record *r)
{
    const double e2e = apmw_time_to_s(r->last_token - r->submitted);
    if (r->n_out > 1) {
        s->itl[s->n_itl++] = apmw_time_to_s(r->last_token - r->first_token) / (double)(r->n_out - 1);
    }
    s->e2e_per_token[s->n] = e2e / (double)r->n_out;
    s->ttft[s->n] = apmw_time_to_s(r->first_token - r->submitted);
    s->e2e[s->n++] = e2e;
}

static void count(const apmw_request_record *records, size_t n, apmw_time from, apmw_time to, samples *s,
                  apmw_agentx_summary *out, int64_t *prompt, int64_t *cached, int64_t *output)
{
    for (size_t i = 0; i < n; i++) {
        const apmw_request_record *r = &records[i];
        if (r->submitted < from || r->submitted >= to) {
            continue;
        }
        out->n_sent++;
        if (r->state != APMW_REQUEST_DONE) {
            out->n_refused++;
            continue;
        }
        out->n_done++;
        keep(s, r);
        if (r->done < to) {
            out->n_completed++;
            out->n_sessions += r->last_of_trajectory ? 1 : 0;
            *prompt += r->n_prompt;
            *cached += r->n_cached;
            *output += r->n_out;
        }
    }
}

apmw_status apmw_agentx_summarize(const apmw_request_record *records, size_t n, apmw_time from, apmw_time to,
                                  int accelerators, const apmw_agentx_price *price, apmw_agentx_summary *out,
                                  apmw_error *err)
{
    *out = (apmw_agentx_summary){.window_s = apmw_time_to_s(to - from)};
    double *memory = malloc((4 * n + 1) * sizeof *memory);
    if (memory == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu requests", n);
    }
    samples s = {.itl = memory, .e2e_per_token = memory + n, .ttft = memory + 2 * n, .e2e = memory + 3 * n};
    int64_t prompt = 0, cached = 0, output = 0;
    count(records, n, from, to, &s, out, &prompt, &cached, &output);
    const double each = 1.0 / (out->window_s * (double)accelerators);
    out->hit_share = (double)cached / (double)prompt;
    out->input_tok_s = (double)prompt * each;
    out->output_tok_s = (double)output * each;
    out->total_tok_s = out->input_tok_s + out->output_tok_s;
    out->interactivity_p50 = 1.0 / apmw_quantile(s.itl, s.n_itl, 0.50);
    out->interactivity_p90 = 1.0 / apmw_quantile(s.itl, s.n_itl, 0.90);
    out->e2e_interactivity_p50 = 1.0 / apmw_quantile(s.e2e_per_token, s.n, 0.50);
    out->e2e_interactivity_p90 = 1.0 / apmw_quantile(s.e2e_per_token, s.n, 0.90);
    out->ttft_p50_s = apmw_quantile(s.ttft, s.n, 0.50);
    out->ttft_p90_s = apmw_quantile(s.ttft, s.n, 0.90);
    out->ttft_p99_s = apmw_quantile(s.ttft, s.n, 0.99);
    out->e2e_p50_s = apmw_quantile(s.e2e, s.n, 0.50);
    out->e2e_p90_s = apmw_quantile(s.e2e, s.n, 0.90);
    out->tok_s_per_mw = out->total_tok_s / (price->all_in_kw * 1e-3);
    out->usd_per_mtok = price->usd_per_hour / (out->total_tok_s * 3600.0) * 1e6;
    free(memory);
    return APMW_OK;
}
