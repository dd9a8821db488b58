/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cli_agentx.h"

#include <math.h>
#include <stdlib.h>

apmw_status apmw_cli_agentx(apmw_cli *cli, const apmw_deployment *deployment, const apmw_collector *collector,
                            const apmw_window *profile, apmw_agentx_summary *out, apmw_error *err)
{
    char *path = apmw_cli_data_path(cli, "sim/protocol/agentx.json");
    apmw_agentx_price price;
    size_t n;
    const apmw_request_record *records = apmw_collector_requests(collector, &n);
    apmw_status status = path == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : apmw_cli_input(cli, path, err);
    if (status == APMW_OK) {
        status = apmw_agentx_price_load(path, deployment->spec.platform, &price, err);
    }
    if (status == APMW_OK && deployment->prefill != NULL) { /* of a mean accelerator of both pools */
        apmw_agentx_price of_prefill;
        status = apmw_agentx_price_load(path, deployment->prefill->spec.platform, &of_prefill, err);
        const double share = (double)deployment->prefill->accelerators / (double)deployment->accelerators;
        price.all_in_kw += share * (of_prefill.all_in_kw - price.all_in_kw);
        price.usd_per_hour += share * (of_prefill.usd_per_hour - price.usd_per_hour);
    }
    free(path);
    return status == APMW_OK ? apmw_agentx_summarize(records, n, profile->from, profile->to, deployment->accelerators,
                                                     &price, out, err)
                             : status;
}

void apmw_cli_agentx_json(const apmw_agentx_summary *s, apmw_json_writer *w)
{
    apmw_json_begin_object(w, "agentx");
    apmw_json_double(w, "profile_s", s->window_s);
    apmw_json_int(w, "sent", s->n_sent);
    apmw_json_int(w, "refused", s->n_refused);
    apmw_json_int(w, "completed", s->n_completed);
    apmw_json_int(w, "sessions", s->n_sessions);
    apmw_json_double(w, "hit_share", s->hit_share);
    apmw_json_double(w, "input_tok_s_per_accelerator", s->input_tok_s);
    apmw_json_double(w, "output_tok_s_per_accelerator", s->output_tok_s);
    apmw_json_double(w, "total_tok_s_per_accelerator", s->total_tok_s);
    apmw_json_double(w, "interactivity_p50_tok_s", s->interactivity_p50);
    apmw_json_double(w, "interactivity_p90_tok_s", s->interactivity_p90);
    apmw_json_double(w, "e2e_interactivity_p50_tok_s", s->e2e_interactivity_p50);
    apmw_json_double(w, "e2e_interactivity_p90_tok_s", s->e2e_interactivity_p90);
    apmw_json_double(w, "ttft_p50_s", s->ttft_p50_s);
    apmw_json_double(w, "ttft_p90_s", s->ttft_p90_s);
    apmw_json_double(w, "ttft_p99_s", s->ttft_p99_s);
    apmw_json_double(w, "e2e_p50_s", s->e2e_p50_s);
    apmw_json_double(w, "e2e_p90_s", s->e2e_p90_s);
    apmw_json_double(w, "total_tok_s_per_all_in_mw", s->tok_s_per_mw);
    apmw_json_double(w, "usd_per_million_tokens", s->usd_per_mtok);
    apmw_json_end_object(w);
}

void apmw_cli_agentx_text(const apmw_agentx_summary *s, apmw_buf *out)
{
    apmw_buf_printf(out, "AgentX: %.5g tok/s an accelerator (input %.5g with cached tokens, output %.4g); interactivity P90 "
                    "%.3g and median %.3g tok/s, with the wait for the first token %.3g and %.3g; TTFT P50 %.3g, P90 %.3g s; "
                    "end to end P90 %.3g s; %.3g %% of prompt tokens hit; %lld requests and %lld sessions completed\n",
                    s->total_tok_s, s->input_tok_s, s->output_tok_s, s->interactivity_p90, s->interactivity_p50,
                    s->e2e_interactivity_p90, s->e2e_interactivity_p50, s->ttft_p50_s, s->ttft_p90_s, s->e2e_p90_s,
                    100.0 * s->hit_share, (long long)s->n_completed, (long long)s->n_sessions);
    if (!isnan(s->tok_s_per_mw)) {
        apmw_buf_printf(out, "AgentX constants: %.4g tok/s per all-in megawatt, $%.3g per million tokens\n", s->tok_s_per_mw,
                        s->usd_per_mtok);
    }
    if (s->n_refused > 0) {
        apmw_buf_printf(out, "%lld of %lld requests of the profile overflow the context (a run is valid up to 1 %%): apmw trace "
                        "slice --max-context\n", (long long)s->n_refused, (long long)s->n_sent);
    }
}
