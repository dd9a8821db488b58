/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/metrics.h"

#include <stdlib.h>

struct apmw_collector {
    apmw_probe probe;
    const apmw_window *window;
    apmw_request_record *requests;
    size_t n_requests, cap_requests;
    apmw_step_record *steps;
    size_t n_steps, cap_steps;
    bool failed;
};

/* Makes room for one more; false and `failed` when memory is short. */
static bool grow(apmw_collector *c, void **items, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity) {
        return true;
    }
    const size_t wanted = *capacity == 0 ? 256 : *capacity * 2;
    void *bigger = realloc(*items, wanted * size);
    if (bigger == NULL) {
        c->failed = true;
        return false;
    }
    *items = bigger;
    *capacity = wanted;
    return true;
}

static void on_request(void *self, apmw_time now, const apmw_request_record *record)
{
    apmw_collector *c = self;
    (void)now;
    if (c->window != NULL && (record->submitted < c->window->from || record->submitted >= c->window->to)) {
        return;
    }
    void *items = c->requests;
    if (grow(c, &items, c->n_requests, &c->cap_requests, sizeof *record)) {
        c->requests = items;
        c->requests[c->n_requests++] = *record;
    }
}

static void on_step(void *self, const apmw_step_record *record)
{
    apmw_collector *c = self;
    void *items = c->steps;
    if (grow(c, &items, c->n_steps, &c->cap_steps, sizeof *record)) {
        c->steps = items;
        c->steps[c->n_steps++] = *record;
    }
}

apmw_collector *apmw_collector_create(const apmw_window *window, bool keep_steps)
{
    apmw_collector *c = calloc(1, sizeof *c);
    if (c != NULL) {
        c->window = window;
        c->probe = (apmw_probe){.self = c, .on_request = on_request, .on_step = keep_steps ? on_step : NULL};
    }
    return c;
}

void apmw_collector_free(apmw_collector *collector)
{
    if (collector != NULL) {
        free(collector->requests);
        free(collector->steps);
        free(collector);
    }
}

const apmw_probe *apmw_collector_probe(const apmw_collector *collector)
{
    return &collector->probe;
}

const apmw_request_record *apmw_collector_requests(const apmw_collector *collector, size_t *n)
{
    *n = collector->n_requests;
    return collector->requests;
}

const apmw_step_record *apmw_collector_steps(const apmw_collector *collector, size_t *n)
{
    *n = collector->n_steps;
    return collector->steps;
}

apmw_status apmw_collector_status(const apmw_collector *collector, apmw_error *err)
{
    if (collector->failed) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory: records were lost after %zu requests",
                              collector->n_requests);
    }
    return APMW_OK;
}
