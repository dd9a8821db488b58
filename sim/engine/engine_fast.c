/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "engine_fast.h"
#include <stdlib.h>

static void each(const apmw_engine *engine, void (*fn)(void *self, apmw_seq *seq), void *self)
{
    const apmw_fast *fast = engine->state;
    for (int i = 0; fast->ranks && i < engine->config.n_ranks; i++) {
        const apmw_rank *rank = &fast->ranks[i];
        const apmw_seq_list *lists[] = {&rank->unreceived, &rank->waiting, &rank->running,
                                        &rank->loading,    &rank->loaded,  &rank->held};
        for (size_t j = 0; j < sizeof lists / sizeof lists[0]; j++)
            for (apmw_seq *seq = lists[j]->head, *next; seq; seq = next) {
                next = seq->next;
                fn(self, seq);
            }
    }
}

static void close_mode(apmw_engine *engine)
{
    apmw_fast *fast = engine->state;
    for (int i = 0; fast->ranks && i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        free(rank->ends.entries);
        free(rank->caps.entries);
        free(rank->crossing);
        free(rank->chunks);
        free(rank->chunk_seqs);
    }
    free(fast->ranks);
    free(fast->done);
    free(fast);
    engine->state = NULL;
}

static apmw_status open_mode(apmw_engine *engine, apmw_error *err)
{
    apmw_fast *fast = calloc(1, sizeof *fast);
    if (!fast)
        return apmw_error_set(err, APMW_E_NOMEM, "engine %d: out of memory", (int)engine->index);
    engine->state = fast;
    fast->engine = engine;
    fast->idle = true;
    fast->ranks = calloc((size_t)engine->config.n_ranks, sizeof *fast->ranks);
    bool ok = fast->ranks != NULL;
    for (int i = 0; ok && i < engine->config.n_ranks; i++) {
        apmw_rank *rank = &fast->ranks[i];
        rank->cache = engine->caches[i];
        rank->ends.which = 0;
        rank->caps.which = 1;
        rank->crossing = calloc((size_t)engine->config.block_tokens, sizeof *rank->crossing);
        ok = rank->crossing != NULL;
    }
    return ok ? APMW_OK : apmw_error_set(err, APMW_E_NOMEM, "engine %d: out of memory", (int)engine->index);
}

const apmw_engine_mode apmw_engine_fast = {
    open_mode,          close_mode,        apmw_fast_arrive, apmw_fast_fetched,
    apmw_fast_withdraw, apmw_fast_release, apmw_fast_settle, apmw_fast_check, each};
