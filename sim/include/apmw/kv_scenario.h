/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The "kv_tiers" section of a scenario (sim/SCENARIO.md) and what it means on a platform. */
#ifndef APMW_KV_SCENARIO_H
#define APMW_KV_SCENARIO_H
#include <stdbool.h>
#include "apmw/json.h"
#include "apmw/kv_connector.h"

typedef enum apmw_tier_kind { APMW_TIER_HOST, APMW_TIER_NVME, APMW_TIER_REMOTE } apmw_tier_kind;
const char *apmw_tier_kind_name(apmw_tier_kind kind);

/* NaN and 0: by kind, from the platform's specifications (apmw_deployment_make_tiers). */
typedef struct apmw_tier_scenario {
    apmw_tier_kind kind;
    double gbyte;            /* capacity, of one accelerator; of a remote store its share */
    double load_gbyte_per_s; /* to one accelerator */
    double store_gbyte_per_s;
    double latency_us;
    apmw_kv_policy policy;
    double idle_ttl_s, half_life_s;
    int64_t block_tokens;
    bool cascade;            /* what goes from here comes to the next tier */
} apmw_tier_scenario;

typedef struct apmw_kv_scenario {
    apmw_tier_scenario tiers[APMW_KV_MAX_TIERS];
    int n_tiers;             /* 0 = HBM alone */
    apmw_kv_load load;
    bool write_back, found_when_released, prefetch, fair_links;
    apmw_kv_policy hbm_policy;
} apmw_kv_scenario;

void apmw_kv_scenario_init(apmw_kv_scenario *out);
/* Reads the section of a scenario's root over what is there, if there is one. A list of tiers replaces the list. */
apmw_status apmw_kv_scenario_read(const apmw_json_cur *root, apmw_kv_scenario *inout, apmw_error *err);
/* Writes nothing where all is default. */
void apmw_kv_scenario_write(const apmw_kv_scenario *scenario, apmw_json_writer *w);

#endif
