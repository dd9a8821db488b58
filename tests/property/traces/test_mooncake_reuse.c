/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Importing Mooncake rows loses no reuse: on random forests of prompts, in random order of time, the hits of
 * the trajectories are those of a set of block prefixes that reads the rows themselves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "apmw/rng.h"
#include "apmw/trace.h"

enum { MAX_ROWS = 300, MAX_IDS = 64, MAX_NODES = 20000 };

/* A forest grows at random: node n > 0 has a parent and the id n. */
typedef struct forest {
    int up[MAX_NODES], depth[MAX_NODES];
    bool seen[MAX_NODES];
    bool partial[MAX_NODES]; /* a prompt ends within this block: nothing can follow it */
    int n;
} forest;

static int new_node(forest *f, int up)
{
    assert_true(f->n < MAX_NODES);
    f->up[f->n] = up;
    f->depth[f->n] = up == 0 ? 1 : f->depth[up] + 1;
    return f->n++;
}

/* End of a prompt: from some earlier prompt (or the root) up a little, then new blocks. */
static int next_prompt(forest *f, apmw_rng *rng, const int *ends, int n)
{
    int node = 0;
    if (n > 0 && apmw_rng_below(rng, 8) != 0) {
        node = ends[apmw_rng_below(rng, (uint64_t)n)];
        for (uint64_t up = apmw_rng_below(rng, 6); up > 0 && node != 0; up--) {
            node = f->up[node];
        }
    } else if (apmw_rng_below(rng, 2) == 0 && f->n > 1) {
        node = 1; /* a system prompt that many share */
    }
    uint64_t more = apmw_rng_below(rng, 7);
    if (more > 0 && f->partial[node]) {
        node = f->up[node];
    }
    for (; (more > 0 || node == 0) && f->depth[node]<MAX_IDS - 1; more -= more> 0) {
        node = new_node(f, node);
    }
    return node;
}

static void loses_nothing(void **state)
{
    (void)state;
    char path[] = "/tmp/apmw-mooncake-XXXXXX";
    int handle = mkstemp(path);
    assert_true(handle >= 0);
    close(handle);
    forest *f = malloc(sizeof *f);
    assert_non_null(f);
    int most_trajectories = 0, most_lanes = 0;
    for (uint64_t seed = 0; seed < 80; seed++) {
        apmw_rng rng = apmw_rng_make(seed, "test.mooncake", 0, 0);
        memset(f, 0, sizeof *f);
        f->n = 1;
        int ends[MAX_ROWS], rows = 1 + (int)apmw_rng_below(&rng, MAX_ROWS);
        double blocks = 0, found = 0, tokens = 0, hit = 0;
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        double time = 0;
        int64_t length_of[MAX_NODES] = {0};
        for (int i = 0; i < rows; i++) {
            int node = next_prompt(f, &rng, ends, i);
            ends[i] = node;
            int depth = f->depth[node], known = 0, ids[MAX_IDS];
            /* One id = one content: a last block that was partial once is so always. */
            int64_t length = (int64_t)depth * 512 - (int64_t)apmw_rng_below(&rng, 512);
            if (f->seen[node]) {
                length = length_of[node] != 0 ? length_of[node] : (int64_t)depth * 512;
            } else {
                length_of[node] = length;
            }
            f->partial[node] = length % 512 != 0;
            for (int at = node, k = depth; at != 0; at = f->up[at]) {
                ids[--k] = at;
                known += f->seen[at];
            }
            for (int at = node; at != 0; at = f->up[at]) {
                f->seen[at] = true;
            }
            time += (double)apmw_rng_below(&rng, 3) * 1000;
            fprintf(file, "{\"timestamp\":%g,\"input_length\":%lld,\"output_length\":%d,\"hash_ids\":[", time,
                    (long long)length, i);
            for (int k = 0; k < depth; k++) {
                fprintf(file, "%s%d", k > 0 ? "," : "", ids[k]);
            }
            fprintf(file, "]}\n");
            blocks += depth;
            found += known;
            tokens += (double)length;
            hit += (double)(known < depth ? known : length / 512) * 512;
        }
        assert_int_equal(fclose(file), 0);
        apmw_trace trace;
        apmw_trace_stats stats;
        apmw_error err = {0};
        if (apmw_trace_load(path, "mooncake", &trace, &err) != APMW_OK) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        }
        assert_int_equal(apmw_trace_stats_compute(&trace, 512, false, &stats, &err), APMW_OK);
        assert_int_equal(stats.n_turns, rows);
        if (fabs(stats.hit_blocks_shared * blocks - found) > 1e-6 ||
            fabs(stats.hit_infinite_shared * tokens - hit) > 1e-3) {
            fail_msg("seed %llu: %g blocks and %g tokens are found, the rows have %g and %g",
                     (unsigned long long)seed, stats.hit_blocks_shared * blocks,
                     stats.hit_infinite_shared * tokens, found, hit);
        }
        most_trajectories = (int)trace.n > most_trajectories ? (int)trace.n : most_trajectories;
        for (size_t i = 0; i < trace.n; i++) {
            most_lanes = trace.items[i].n_lanes > most_lanes ? trace.items[i].n_lanes : most_lanes;
        }
        apmw_trace_free(&trace);
    }
    /* Both ways of cutting were met. */
    assert_true(most_trajectories > 32);
    assert_true(most_lanes > 4);
    free(f);
    remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(loses_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
