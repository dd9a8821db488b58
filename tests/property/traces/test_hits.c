/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Hit rates against an oracle that knows nothing of parents: every prompt is spelled out token by token, and
 * an infinite cache keeps every whole block that was ever computed under the hash of all tokens up to its
 * end. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_random.h"

enum { MAX_TOKENS = 100000, MAX_BLOCKS = 400000 };

/* Set of block hashes; linear probing, far from full. */
typedef struct cache {
    uint64_t *slots;
    size_t n;
} cache;
enum { SLOTS = 1 << 20 };

static bool enter(cache *c, uint64_t hash, bool only_look)
{
    size_t at = (size_t)hash & (SLOTS - 1);
    while (c->slots[at] != 0) {
        if (c->slots[at] == hash) {
            return true;
        }
        at = (at + 1) & (SLOTS - 1);
    }
    if (!only_look) {
        c->slots[at] = hash;
        c->n++;
        assert_true(c->n < SLOTS / 2);
    }
    return false;
}

/* Tokens that are in the cache from the start; then keeps all whole blocks. */
static int64_t look_and_keep(cache *c, const int64_t *tokens, int64_t n, int64_t kept, int64_t block)
{
    int64_t hit = 0;
    uint64_t hash = 1;
    bool found = true;
    for (int64_t at = 0; at + block <= kept; at += block) {
        hash = apmw_hash64(tokens + at, (size_t)block * sizeof *tokens, hash) | 1;
        bool look = at + block <= n;
        bool known = enter(c, hash, false);
        found = found && known && look;
        hit += found ? block : 0;
    }
    return hit;
}

typedef struct stream {
    int64_t *tokens; /* prompt, then output */
    int64_t n_in, n_out;
} stream;

static void oracle(const apmw_trace *trace, int64_t block, bool output_cached, double *hit,
                   double *hit_shared)
{
    cache alone = {calloc(SLOTS, sizeof(uint64_t)), 0}, shared = {calloc(SLOTS, sizeof(uint64_t)), 0};
    assert_non_null(alone.slots);
    assert_non_null(shared.slots);
    int64_t next = 1000000000; /* tokens of groups are below */
    double total = 0;
    *hit = 0;
    *hit_shared = 0;
    for (size_t i = 0; i < trace->n; i++) {
        const apmw_trajectory *t = &trace->items[i];
        stream streams[RANDOM_MAX_TURNS];
        memset(alone.slots, 0, SLOTS * sizeof *alone.slots);
        alone.n = 0;
        for (int32_t k = 0; k < t->n_turns; k++) {
            const apmw_turn *u = &t->turns[k];
            stream *s = &streams[k];
            *s = (stream){malloc((size_t)(u->n_in + u->n_out) * sizeof(int64_t)), u->n_in, u->n_out};
            assert_non_null(s->tokens);
            int64_t at = 0;
            for (; u->parent == -1 && at < t->global_tokens; at++) {
                s->tokens[at] = t->global_id * 1000000 + at;
            }
            for (; u->parent >= 0 && at < u->shared_in; at++) {
                s->tokens[at] = streams[u->parent].tokens[at];
            }
            for (int64_t j = 0; j < u->shared_out; j++) {
                s->tokens[at++] = streams[u->parent].tokens[streams[u->parent].n_in + j];
            }
            while (at < u->n_in + u->n_out) {
                s->tokens[at++] = next++;
            }
            /* The last output token is never an input, so its block is not computed. */
            int64_t kept = output_cached ? u->n_in + u->n_out - 1 : u->n_in;
            *hit += (double)look_and_keep(&alone, s->tokens, u->n_in, kept, block);
            *hit_shared += (double)look_and_keep(&shared, s->tokens, u->n_in, kept, block);
            total += (double)u->n_in;
        }
        for (int32_t k = 0; k < t->n_turns; k++) {
            free(streams[k].tokens);
        }
    }
    *hit /= total;
    *hit_shared /= total;
    free(alone.slots);
    free(shared.slots);
}

static void agree_with_the_oracle(void **state)
{
    (void)state;
    static const int64_t blocks[] = {1, 7, 16, 64};
    for (uint64_t seed = 0; seed < 40; seed++) {
        apmw_trace trace = random_trace(seed, 1 + seed % 8, 300, 1);
        int64_t block = blocks[seed % 4];
        for (int cached = 0; cached < 2; cached++) {
            double hit, hit_shared;
            apmw_trace_stats stats;
            apmw_error err = {0};
            oracle(&trace, block, cached, &hit, &hit_shared);
            assert_int_equal(apmw_trace_stats_compute(&trace, block, cached, &stats, &err), APMW_OK);
            if (fabs(stats.hit_infinite - hit) > 1e-12 ||
                fabs(stats.hit_infinite_shared - hit_shared) > 1e-12) {
                fail_msg("seed %llu, block %lld, output %d: %.12g and %.12g, the oracle says %.12g and %.12g",
                         (unsigned long long)seed, (long long)block, cached, stats.hit_infinite,
                         stats.hit_infinite_shared, hit, hit_shared);
            }
            assert_true(stats.hit_previous <= stats.hit_infinite + 1e-12);
        }
        apmw_trace_free(&trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agree_with_the_oracle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
