/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reading and writing parts of a scenario file. Optional keys leave what is there already. */
#ifndef APMW_SCENARIO_PRIVATE_H
#define APMW_SCENARIO_PRIVATE_H
#include "apmw/experiment.h"
#include "apmw/json.h"

/* Reads on while all is well. */
#define READ(call)                                                                                                     \
    do {                                                                                                               \
        if (status == APMW_OK) {                                                                                       \
            status = (call);                                                                                           \
        }                                                                                                              \
    } while (0)

apmw_status apmw_scenario_opt_text(const apmw_json_cur *object, const char *key, char *out, size_t size, apmw_error *err);
apmw_status apmw_scenario_opt_count(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi, int *out,
                                    apmw_error *err);
/* One of n names; *out keeps its value when the key is missing. */
apmw_status apmw_scenario_opt_choice(const apmw_json_cur *object, const char *key, const char *const *names, size_t n,
                                     size_t *out, apmw_error *err);
apmw_status apmw_scenario_opt_routing(const apmw_json_cur *object, const char *key, apmw_routing *out, apmw_error *err);
/* Child object, or *present = false. */
apmw_status apmw_scenario_opt_object(const apmw_json_cur *object, const char *key, const char *const *keys,
                                     apmw_json_cur *out, bool *present, apmw_error *err);
const char *apmw_scenario_routing_name(apmw_routing routing);

/* acceptance.c */
typedef struct apmw_acceptance {
    double mean;     /* tokens emitted a step */
    double variance; /* 0 = of one chance for all positions */
    char source[128];
} apmw_acceptance;
/* APMW_E_SCENARIO when nothing is known at this draft length, APMW_E_DATA for an unknown preset. */
apmw_status apmw_scenario_acceptance(const char *data_dir, const apmw_scenario *scenario, const apmw_llm_spec *llm,
                                     int draft, apmw_acceptance *out, apmw_error *err);

/* scenario_pools.c: "disaggregation" */
apmw_status apmw_scenario_read_pools(const apmw_json_cur *root, apmw_scenario *s, apmw_error *err);
void apmw_scenario_write_pools(const apmw_scenario *s, apmw_json_writer *w);

#endif
