/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Outputs in traces whose sharing is known in blocks of ids only. */
#include <stdlib.h>

#include "private.h"

/* Does the turn append to `before`, with room for its output? */
static bool appends(const apmw_turn *before, const apmw_turn *turn, int64_t block)
{
    return turn->shared_out == 0 && turn->shared_in >= before->n_in / block * block &&
           turn->n_in - before->n_in >= before->n_out;
}

apmw_status apmw_trace_assume_outputs(apmw_trace *trace, int64_t *changed, apmw_error *err)
{
    *changed = 0;
    for (size_t k = 0; k < trace->n; k++) {
        apmw_trajectory *t = &trace->items[k];
        int32_t *last = malloc((size_t)t->n_lanes * sizeof *last);
        if (last == NULL) {
            return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %d lanes", t->n_lanes);
        }
        for (int32_t l = 0; l < t->n_lanes; l++) {
            last[l] = -1;
        }
        for (int32_t i = 0; i < t->n_turns; i++) {
            apmw_turn *turn = &t->turns[i];
            const int32_t before = last[turn->lane];
            last[turn->lane] = i;
            if (before >= 0 && turn->parent == before && appends(&t->turns[before], turn, trace->block_tokens)) {
                turn->shared_in = t->turns[before].n_in;
                turn->shared_out = t->turns[before].n_out;
                ++*changed;
            }
        }
        free(last);
    }
    apmw_trace_rehash(trace);
    return APMW_OK;
}
