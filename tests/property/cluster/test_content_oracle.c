/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What each turn of random trajectories finds in a cache that never evicts, against a naive model that writes out every
 * prompt and output token by token and looks for the longest known prefix. */
#include <stdlib.h>

#include "agents_case.h"
#include "apmw/rng.h"

enum { BLOCK = 4, MAX_TURNS = 14 };

/* Tokens with an identity; all sequences whose keys and values were computed. */
typedef struct text {
    int64_t *tokens;
    int64_t n;
} text;

typedef struct naive {
    text known[256];
    int n_known;
    int64_t next_token;
} naive;

static void append(text *t, const int64_t *tokens, int64_t n)
{
    t->tokens = realloc(t->tokens, (size_t)(t->n + n + 1) * sizeof *t->tokens);
    assert_non_null(t->tokens);
    if (n > 0) {
        memcpy(t->tokens + t->n, tokens, (size_t)n * sizeof *tokens);
    }
    t->n += n;
}

static void append_new(naive *m, text *t, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        append(t, &m->next_token, 1);
        m->next_token++;
    }
}

static int64_t hit(const naive *m, const text *prompt)
{
    int64_t best = 0;
    for (int i = 0; i < m->n_known; i++) {
        int64_t k = 0;
        while (k < m->known[i].n && k < prompt->n - 1 && m->known[i].tokens[k] == prompt->tokens[k]) {
            k++;
        }
        best = k > best ? k : best;
    }
    return best / BLOCK * BLOCK;
}

/* One play of a trajectory: expected[i] = what turn i finds. `group` is the shared prefix group's text. */
static void play_naively(naive *m, const apmw_trajectory *t, const text *group, bool share, bool cached, int64_t cap,
                         int64_t *expected)
{
    text prompts[MAX_TURNS] = {0}, outputs[MAX_TURNS] = {0}, own = {0};
    append_new(m, &own, group->n);
    for (int32_t i = 0; i < t->n_turns; i++) {
        const apmw_turn *turn = &t->turns[i];
        text *p = &prompts[i];
        if (turn->parent >= 0) {
            append(p, prompts[turn->parent].tokens, turn->shared_in);
            append(p, outputs[turn->parent].tokens, turn->shared_out);
        } else if (t->global_id >= 0) {
            append(p, share ? group->tokens : own.tokens, t->global_tokens);
        }
        append_new(m, p, turn->n_in - p->n);
        append_new(m, &outputs[i], turn->n_out); /* as recorded: what a later prompt repeats */
        expected[i] = hit(m, p);
        text *known = &m->known[m->n_known++];
        append(known, p->tokens, p->n);
        if (cached) { /* the keys and values of the last token are never computed */
            append(known, outputs[i].tokens, (turn->n_out < cap ? turn->n_out : cap) - 1);
        }
    }
    for (int32_t i = 0; i < t->n_turns; i++) {
        free(prompts[i].tokens);
        free(outputs[i].tokens);
    }
    free(own.tokens);
}

/* Clean appends, compactions and edits (a part of the parent's prompt), returns to older turns, resets, and outputs of which
 * all, a part or nothing recurs. */
static void random_trajectory(apmw_rng *rng, int64_t global, apmw_trace *trace)
{
    apmw_turn turns[MAX_TURNS];
    const int n = 2 + (int)apmw_rng_below(rng, MAX_TURNS - 1);
    for (int k = 0; k < n; k++) {
        const bool back = apmw_rng_below(rng, 3) == 0;
        const int parent = k == 0 || apmw_rng_below(rng, 12) == 0 ? -1
                           : back && apmw_rng_below(rng, 2) == 0 ? (int)apmw_rng_below(rng, (uint64_t)k)
                           : back                                ? 0
                                                                 : k - 1;
        const bool whole = parent >= 0 && apmw_rng_below(rng, 4) > 0;
        const int64_t in = parent < 0 ? 0 : turns[parent].n_in;
        const int64_t shared = parent < 0 ? 0 : whole ? in : (int64_t)apmw_rng_below(rng, (uint64_t)in + 1);
        const uint64_t kind = apmw_rng_below(rng, 3);
        const int64_t out = !whole || kind == 0 ? 0
                            : kind == 1         ? turns[parent].n_out
                                                : (int64_t)apmw_rng_below(rng, (uint64_t)turns[parent].n_out + 1);
        turns[k] = case_turn((parent < 0 ? global : 0) + shared + out + 1 + (int64_t)apmw_rng_below(rng, 100),
                             1 + (int64_t)apmw_rng_below(rng, 90), parent, shared, out, 0.01);
    }
    case_add(trace, turns, n, global);
}

static void same_hits(void **state)
{
    (void)state;
    for_each_seed(seed, 800) {
        apmw_rng rng = apmw_rng_make(seed, "content", 0, 0);
        const int64_t global = apmw_rng_below(&rng, 2) == 0 ? 0 : 1 + (int64_t)apmw_rng_below(&rng, 200);
        apmw_trace trace = {0};
        random_trajectory(&rng, global, &trace);
        const apmw_trajectory *t = &trace.items[0];
        const int64_t cap = apmw_rng_below(&rng, 2) == 0 ? INT64_MAX : 1 + (int64_t)apmw_rng_below(&rng, 90);
        const apmw_agents agents = {.trace = &trace, .n_agents = 1, .max_output_tokens = cap,
                                    .share_global = apmw_rng_below(&rng, 2) == 0,
                                    .output_cached = apmw_rng_below(&rng, 2) == 0, .delay_scale = 1.0, .seed = seed,
                                    .plays_per_agent = 3};
        apmw_step_cost *cost = case_cost(0.001, 1e-6, 1e-5);
        apmw_engine_config engine = case_engine(cost);
        engine.block_tokens = BLOCK;
        const apmw_sim_config config = {.engines = &engine, .n_engines = 1, .seed = seed};
        apmw_workload workload;
        apmw_error err = {0};
        assert_ok(apmw_workload_agents(&agents, &workload, &err), &err);
        apmw_collector *collector = case_run(&config, workload, false);
        size_t n;
        const apmw_request_record *r = apmw_collector_requests(collector, &n);
        assert_int_equal(n, 3 * t->n_turns);
        naive m = {0};
        text group = {0};
        append_new(&m, &group, global);
        for (int play = 0; play < 3; play++) {
            int64_t expected[MAX_TURNS];
            play_naively(&m, t, &group, agents.share_global, agents.output_cached, cap, expected);
            for (int32_t i = 0; i < t->n_turns; i++) {
                const apmw_request_record *x = &r[play * t->n_turns + i];
                if (x->turn != i || x->play != play || x->n_cached != expected[i]) {
                    fail_msg("seed %llu, play %d, turn %d: %lld tokens found, %lld expected", (unsigned long long)seed, play,
                             i, (long long)x->n_cached, (long long)expected[i]);
                }
            }
        }
        for (int i = 0; i < m.n_known; i++) {
            free(m.known[i].tokens);
        }
        free(group.tokens);
        apmw_collector_free(collector);
        apmw_step_cost_free(cost);
        apmw_trace_free(&trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_hits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
