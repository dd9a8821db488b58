/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Discrete-event core: a clock and a queue of (time, class, sequence) in total order. It knows no LLM word.
 * One apmw_des belongs to one simulation; several may live in one process, each used by one thread. */
#ifndef APMW_DES_H
#define APMW_DES_H
#include <stdbool.h>
#include <stdint.h>
#include "apmw/status.h"
#include "apmw/time.h"

typedef struct apmw_des apmw_des;
typedef void (*apmw_event_fn)(apmw_des *des, void *subject, uint64_t argument);

/* Events of equal time are handled in this order: what ends comes before what begins. */
typedef enum apmw_event_class {
    APMW_EVENT_STEP_END = 0, /* a step or stretch completes: frees slots before anything new is looked at */
    APMW_EVENT_TRANSFER = 1, /* a transfer or load completes */
    APMW_EVENT_ARRIVAL = 2,  /* a request reaches a server */
    APMW_EVENT_CLIENT = 3,   /* an agent acts */
    APMW_EVENT_ENGINE = 4,   /* an engine looks whether it can start: after all arrivals of the instant */
    APMW_EVENT_CONTROL = 5   /* phase and measurement boundaries */
} apmw_event_class;

typedef struct apmw_event_handle {
    uint32_t slot;
    uint32_t generation; /* 0 = none */
} apmw_event_handle;

/* NULL when out of memory. */
apmw_des *apmw_des_create(void);
void apmw_des_free(apmw_des *des);
apmw_time apmw_des_now(const apmw_des *des);
/* when >= now (checked; an event may schedule at its own instant, and of any class: it runs after the present
 * one). A zero handle means out of memory; apmw_des_run then returns APMW_E_NOMEM, at once and from then on.
 * Costs O(log n); nothing is allocated once the queue has reached its largest size. */
apmw_event_handle apmw_des_schedule(apmw_des *des, apmw_time when, apmw_event_class cls, apmw_event_fn fn,
                                    void *subject, uint64_t argument);
/* Cancelling an event that has run (or is running), or a zero handle, does nothing. Clears *handle. O(1)
 * amortized. A copy of the handle stays harmless: generations tell that its event is gone. */
void apmw_des_cancel(apmw_des *des, apmw_event_handle *handle);
bool apmw_des_pending(const apmw_des *des, apmw_event_handle handle);
/* Runs until the queue is empty, apmw_des_stop is called, or the next event is later than `until`
 * (the clock then stands at `until`; in the other cases at the last event). Events at `until` itself run. May
 * be called again to go on, not from inside an event (checked). */
apmw_status apmw_des_run(apmw_des *des, apmw_time until);
/* Ends the run after the present event; a later apmw_des_run goes on. */
void apmw_des_stop(apmw_des *des);
/* Events run so far; cancelled ones do not count. */
uint64_t apmw_des_handled(const apmw_des *des);

#endif
