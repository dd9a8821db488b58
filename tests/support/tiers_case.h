/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Deployments with tiers of KV below them, and requests that come as a script says. */
#ifndef APMW_TIERS_CASE_H
#define APMW_TIERS_CASE_H
#include "agents_case.h"

enum { MAX_ASKED = 40 };

/* One request: when, of which conversation (content), how long. */
typedef struct asked {
    double at_s;
    int conversation;
    int64_t n_prompt, n_out;
} asked;

typedef struct script {
    const asked *list;
    size_t n;
    apmw_sim *sim;
    apmw_stream streams[MAX_ASKED];
    apmw_request requests[MAX_ASKED];
} script;

static inline void script_submit(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    script *s = subject;
    apmw_sim_submit(s->sim, &s->requests[argument]);
}

static inline apmw_status script_start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    script *s = self;
    s->sim = sim;
    for (int i = 0; i < MAX_ASKED; i++) {
        s->streams[i] = apmw_streams_new(apmw_sim_streams(sim), 0, 0);
    }
    for (size_t i = 0; i < s->n; i++) {
        apmw_request *r = &s->requests[i];
        *r = (apmw_request){.stream = s->streams[s->list[i].conversation], .rank_hint = -1};
        r->record.id = i;
        r->record.agent = (int32_t)i;
        r->record.n_prompt = s->list[i].n_prompt;
        r->record.n_out = s->list[i].n_out;
        apmw_des_schedule(apmw_sim_des(sim), apmw_time_from_s(s->list[i].at_s), APMW_EVENT_CLIENT, script_submit, s, i);
    }
    return APMW_OK;
}

/* Runs the script to its end; requests (by order in the script) stay in *s, books of the tiers go to stats. */
static inline void script_run(script *s, const apmw_sim_config *config, apmw_tier_stats stats[APMW_KV_MAX_TIERS])
{
    apmw_error err = {0};
    apmw_laws *laws = apmw_laws_create(&(apmw_laws_config){.tokens_balance = true});
    const apmw_probe *probes[] = {apmw_laws_probe(laws)};
    const apmw_workload workload = {.self = s, .start = script_start};
    apmw_sim *sim = NULL;
    assert_ok(apmw_sim_create(config, workload, probes, 1, &sim, &err), &err);
    assert_ok(apmw_sim_run(sim, APMW_TIME_NEVER - 1, &err), &err);
    assert_ok(apmw_laws_status(laws, &err), &err);
    assert_int_equal(apmw_laws_terminal(laws), s->n);
    for (size_t t = 0; apmw_sim_tiers(sim) != NULL && t < apmw_tiers_count(apmw_sim_tiers(sim)); t++) {
        apmw_tiers_stats(apmw_sim_tiers(sim), t, &stats[t]);
    }
    apmw_sim_free(sim);
    apmw_laws_free(laws);
}

/* 100 kB a token; 1 GB/s up and down unless the test says otherwise, 5 ms a load. */
static inline apmw_tier_setup case_tier(const char *name, int64_t capacity_tokens, double bytes_per_s)
{
    apmw_tier_setup t = {.kv = {.capacity_bytes = 1e5 * (double)capacity_tokens, .bytes_per_token = 1e5, .block_tokens = 16},
                         .load_bytes_per_s = bytes_per_s,
                         .store_bytes_per_s = bytes_per_s,
                         .latency_ns = 5000000};
    strncpy(t.kv.name, name, sizeof t.kv.name - 1);
    return t;
}

#endif
