/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Events a second in the hold model (each event schedules the next, so the queue keeps its size; Vaucher and
 * Duval 1975), without and with cancels: in the second, every event also cancels and replaces a random other
 * one, as an engine does whose stretch is cut short by an arrival. */
#include <stdlib.h>

#include "apmw/des.h"
#include "apmw/rng.h"
#include "bench.h"

typedef struct hold {
    apmw_event_handle *handles;
    uint64_t n, left, draws;
    uint64_t state;
    bool cancels;
} hold;

/* xorshift64* (Vigna 2016): its cost must not hide the queue's. */
static uint64_t draw(hold *h)
{
    h->state ^= h->state >> 12;
    h->state ^= h->state << 25;
    h->state ^= h->state >> 27;
    return h->state * 2685821657736338717ULL;
}

static void on_event(apmw_des *des, void *subject, uint64_t argument)
{
    hold *h = subject;
    if (h->left == 0) {
        apmw_des_stop(des);
        return;
    }
    h->left--;
    const apmw_time now = apmw_des_now(des);
    h->handles[argument] = apmw_des_schedule(des, now + 1 + (apmw_time)(draw(h) % 1000000), APMW_EVENT_CLIENT,
                                             on_event, h, argument);
    if (h->cancels) {
        const uint64_t other = draw(h) % h->n;
        apmw_des_cancel(des, &h->handles[other]);
        h->handles[other] = apmw_des_schedule(des, now + 1 + (apmw_time)(draw(h) % 1000000),
                                              APMW_EVENT_ENGINE, on_event, h, other);
    }
}

static double events_per_s(uint64_t n, uint64_t events, bool cancels)
{
    hold h = {.n = n, .left = n + events / 10, .state = 88172645463325252ULL, .cancels = cancels};
    h.handles = calloc(n, sizeof *h.handles);
    apmw_des *des = apmw_des_create();
    for (uint64_t i = 0; i < n; i++) {
        h.handles[i] =
            apmw_des_schedule(des, 1 + (apmw_time)(draw(&h) % 1000000), APMW_EVENT_CLIENT, on_event, &h, i);
    }
    apmw_des_run(des, APMW_TIME_NEVER); /* warm up, the arrays have their size after it */
    h.left = events;
    const uint64_t before = apmw_des_handled(des);
    const double begin = bench_now_s();
    apmw_des_run(des, APMW_TIME_NEVER);
    const double seconds = bench_now_s() - begin;
    const double rate = (double)(apmw_des_handled(des) - before) / seconds;
    apmw_des_free(des);
    free(h.handles);
    return rate;
}

int main(int argc, char **argv)
{
    const uint64_t events = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000000;
    bench_head("des", argc, argv);
    printf("\"results\":[");
    static const uint64_t sizes[] = {100, 10000, 1000000};
    for (int i = 0; i < 3; i++) {
        const double plain = events_per_s(sizes[i], events, false);
        const double cancelled = events_per_s(sizes[i], events, true);
        printf("%s{\"queue\":%llu,\"events_per_s\":%.4g,\"events_per_s_with_a_cancel_each\":%.4g}",
               i == 0 ? "" : ",", (unsigned long long)sizes[i], plain, cancelled);
    }
    printf("]}\n");
    return 0;
}
