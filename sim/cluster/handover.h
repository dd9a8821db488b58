/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Disaggregated serving: one request of a client becomes one of a prefill engine and one of a decode engine, and a
 * transfer between them. */
#ifndef APMW_HANDOVER_H
#define APMW_HANDOVER_H
#include "router.h"

typedef struct apmw_handover apmw_handover;
typedef struct apmw_handover_config {
    apmw_des *des;
    apmw_engine *const *engines; /* prefill first; they are made after the handover, since they need its connector */
    size_t n_prefill, n_decode;
    apmw_kv_link link;
    apmw_router *prefill, *decode; /* borrowed */
    const apmw_probe *const *probes;
    size_t n_probes;
    void (*fail)(void *self); /* out of memory */
    void *self;
} apmw_handover_config;
apmw_handover *apmw_handover_create(const apmw_handover_config *config);
void apmw_handover_free(apmw_handover *handover);
/* What the decode engines are configured with. */
const apmw_connector *apmw_handover_connector(const apmw_handover *handover);
void apmw_handover_submit(apmw_handover *handover, apmw_request *request);
void apmw_handover_transfers(const apmw_handover *handover, double *bytes, apmw_time *waited_ns);

#endif
