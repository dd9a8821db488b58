/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A link that several transfers want at once: one after another, or each its equal share. */
#ifndef APMW_TIER_LINK_H
#define APMW_TIER_LINK_H
#include "apmw/des.h"

typedef struct apmw_tier_link apmw_tier_link;
typedef struct apmw_transfer {
    apmw_tier_link *link;
    apmw_event_fn done; /* called with `subject` when the last byte has come */
    void *subject;
    uint64_t argument;
    double due;         /* fair: what a transfer that was there all along has been served when this one ends */
    double alone_ns;
    apmw_time begun;
    struct apmw_transfer *next;
} apmw_transfer;

struct apmw_tier_link {
    apmw_des *des;
    double bytes_per_s; /* > 0, INFINITY = no limit */
    apmw_time latency_ns;
    bool fair;
    apmw_time free_at;   /* first come, first served */
    double served;       /* fair: bytes that a transfer which was there all along has got */
    apmw_time seen;      /* when `served` was right */
    apmw_transfer *open; /* fair: by due */
    int64_t n_open;
    apmw_event_handle next;
    double bytes, busy_ns, waited_ns;
    apmw_time longest_wait;
};

/* The transfer lives until it is done. */
void apmw_tier_link_load(apmw_tier_link *link, double bytes, apmw_transfer *transfer);
/* Nobody waits for it. First come, first served. */
void apmw_tier_link_post(apmw_tier_link *link, double bytes);
/* What a transfer that begins now would take; of a fair link if nothing comes or goes meanwhile. */
double apmw_tier_link_ns(const apmw_tier_link *link, double bytes);

#endif
