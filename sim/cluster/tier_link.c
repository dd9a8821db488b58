/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Equal shares (processor sharing) need no look at every transfer: all are served alike, so one that begins when each
 * has been served s bytes ends when each has been served s + its bytes. */
#include "tier_link.h"

#include <math.h>
#include <stddef.h>

static apmw_time ns_of(double ns)
{
    return ns > 0.0 ? (apmw_time)llround(ns) : 0;
}

static double alone_ns(const apmw_tier_link *link, double bytes)
{
    return 1e9 * bytes / link->bytes_per_s;
}

double apmw_tier_link_ns(const apmw_tier_link *link, double bytes)
{
    const apmw_time now = apmw_des_now(link->des);
    double ns = (double)link->latency_ns + alone_ns(link, bytes);
    if (link->fair) {
        /* Those that are open end at their due, which this one may outlast. */
        double served = link->served;
        if (link->n_open > 0) {
            served += (double)(now - link->seen) * 1e-9 * link->bytes_per_s / (double)link->n_open;
        }
        for (const apmw_transfer *t = link->open; t != NULL; t = t->next) {
            ns += alone_ns(link, fmin(bytes, fmax(0.0, t->due - served)));
        }
    } else if (link->free_at > now) {
        ns += (double)(link->free_at - now);
    }
    return ns;
}

static void book(apmw_tier_link *link, double bytes, double waited_ns)
{
    link->bytes += bytes;
    link->busy_ns += alone_ns(link, bytes);
    link->waited_ns += waited_ns;
    if (ns_of(waited_ns) > link->longest_wait) {
        link->longest_wait = ns_of(waited_ns);
    }
}

static apmw_time queue(apmw_tier_link *link, double bytes)
{
    const apmw_time now = apmw_des_now(link->des);
    const apmw_time start = link->free_at > now ? link->free_at : now;
    book(link, bytes, (double)(start - now));
    link->free_at = start + ns_of(alone_ns(link, bytes));
    return link->free_at;
}

static void serve(apmw_tier_link *link)
{
    const apmw_time now = apmw_des_now(link->des);
    if (link->n_open > 0) {
        link->served += (double)(now - link->seen) * 1e-9 * link->bytes_per_s / (double)link->n_open;
    }
    link->seen = now;
}

static void on_due(apmw_des *des, void *subject, uint64_t argument);

static void wait_for_first(apmw_tier_link *link)
{
    apmw_des_cancel(link->des, &link->next);
    if (link->open != NULL) {
        const double left_ns = alone_ns(link, link->open->due - link->served) * (double)link->n_open;
        link->next = apmw_des_schedule(link->des, apmw_des_now(link->des) + ns_of(left_ns), APMW_EVENT_TRANSFER,
                                       on_due, link, 0);
    }
}

static void on_due(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_tier_link *link = subject;
    serve(link);
    /* The one that the event was for, and what ends within the same nanosecond. */
    const double until = fmax(link->open->due, link->served + 1e-9 * link->bytes_per_s / (double)link->n_open);
    while (link->open != NULL && link->open->due <= until) {
        apmw_transfer *t = link->open;
        link->open = t->next;
        link->n_open--;
        const double waited_ns = (double)(apmw_des_now(des) - t->begun) - t->alone_ns;
        book(link, 1e-9 * t->alone_ns * link->bytes_per_s, fmax(0.0, waited_ns));
        apmw_des_schedule(des, apmw_des_now(des) + link->latency_ns, APMW_EVENT_TRANSFER, t->done, t->subject, t->argument);
    }
    if (link->open == NULL) {
        link->served = 0.0; /* so that it never grows coarse */
    }
    wait_for_first(link);
}

void apmw_tier_link_load(apmw_tier_link *link, double bytes, apmw_transfer *transfer)
{
    if (!link->fair || isinf(link->bytes_per_s)) {
        apmw_des_schedule(link->des, queue(link, bytes) + link->latency_ns, APMW_EVENT_TRANSFER, transfer->done,
                          transfer->subject, transfer->argument);
        return;
    }
    serve(link);
    transfer->link = link;
    transfer->begun = apmw_des_now(link->des);
    transfer->alone_ns = alone_ns(link, bytes);
    transfer->due = link->served + bytes;
    apmw_transfer **at = &link->open;
    while (*at != NULL && (*at)->due <= transfer->due) {
        at = &(*at)->next;
    }
    transfer->next = *at;
    *at = transfer;
    link->n_open++;
    wait_for_first(link);
}

void apmw_tier_link_post(apmw_tier_link *link, double bytes)
{
    (void)queue(link, bytes);
}
