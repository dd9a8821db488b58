/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of a Mooncake file on their way to trajectories. */
#ifndef APMW_TRACES_MOONCAKE_H
#define APMW_TRACES_MOONCAKE_H
#include "private.h"

typedef struct apmw_tr_row {
    double t_ms, delay_ms; /* NaN = not there */
    int64_t n_in, n_out;   /* of a session's later rows: what the turn adds */
    uint64_t *ids;
    int n_ids;
    char *session; /* NULL = none */
    int64_t line;
    size_t order;
} apmw_tr_row;

/* Appends the trajectories that the rows make; rows without session come first, by time. */
apmw_status apmw_tr_mooncake_join(const char *path, const apmw_tr_row *rows, size_t n, int64_t block,
                                  apmw_trace *trace, apmw_error *err);

#endif
