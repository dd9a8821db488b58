/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Turns a second of the prefix cache: begin, two prompt chunks, decode growth and end, of 1,000 conversations
 * that grow from 100K to 200K tokens and then begin anew, with 64 leases running at once. Once in a pool that
 * holds them all, once in one that holds a third (so that most turns evict and recompute), and once with
 * contexts a tenth as long in a pool a tenth as large: the cost must not follow the length. Forked: each turn
 * is a stream of its own, forked from the last (output that is not re-used), so that paths are up to 100
 * streams deep. The pressed case under the other policies too. */
#include <stdlib.h>

#include "apmw/kv.h"
#include "bench.h"

enum { STREAMS = 1000, RUNNING = 64, TURNS_OF_A_CONVERSATION = 100, BLOCK = 16 };

typedef struct conversation {
    apmw_stream stream;
    int64_t n_tokens;
    int64_t turn;
} conversation;

static uint64_t state = 88172645463325252ULL;

static uint64_t draw(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ULL;
}

typedef struct running {
    size_t conversation; /* index + 1, 0 = none */
    int64_t n_prompt, n_kv;
    apmw_kv_lease lease;
} running;

static bool take_to(apmw_prefix_cache *cache, apmw_kv_lease *lease, int64_t n_tokens)
{
    return apmw_prefix_cache_take(
        cache, lease, (n_tokens + BLOCK - 1) / BLOCK - lease->pinned_blocks - lease->taken_blocks);
}

static void finish(apmw_prefix_cache *cache, running *r, bool forked)
{
    const int64_t half = r->lease.matched_tokens + (r->n_prompt - r->lease.matched_tokens) / 2;
    int64_t dead = 0;
    if (take_to(cache, &r->lease, half)) {
        apmw_prefix_cache_commit(cache, &r->lease, half);
        if (take_to(cache, &r->lease, r->n_kv)) {
            apmw_prefix_cache_commit(cache, &r->lease, forked ? r->n_prompt : r->n_kv);
            dead = forked ? (r->n_kv / BLOCK - r->n_prompt / BLOCK) * BLOCK : 0;
        }
    }
    apmw_prefix_cache_end(cache, &r->lease, dead);
    r->conversation = 0;
}

static void run(const char *name, int64_t base, int64_t pool_tokens, bool forked, apmw_kv_policy policy,
                long turns)
{
    static conversation all[STREAMS];
    static running batch[RUNNING];
    apmw_streams *streams = apmw_streams_create();
    const apmw_kv_options options = {
        .capacity_blocks = pool_tokens / BLOCK, .block_tokens = BLOCK, .caching = true, .policy = policy};
    apmw_prefix_cache *cache = apmw_prefix_cache_create_with(streams, &options);
    for (size_t i = 0; i < STREAMS; i++) {
        all[i].stream = apmw_streams_new(streams, 0, 0);
        all[i].turn = (int64_t)(draw() % TURNS_OF_A_CONVERSATION);
        all[i].n_tokens = base + all[i].turn * base / TURNS_OF_A_CONVERSATION;
    }
    for (size_t i = 0; i < RUNNING; i++) {
        batch[i].conversation = 0;
    }
    double begin = 0;
    for (long t = -turns / 10; t < turns; t++) {
        if (t == 0) {
            begin = bench_now_s();
        }
        running *r = &batch[draw() % RUNNING];
        if (r->conversation != 0) {
            finish(cache, r, forked);
        }
        const size_t pick = (size_t)(draw() % STREAMS);
        conversation *c = &all[pick];
        if (c->turn == TURNS_OF_A_CONVERSATION) {
            c->stream = apmw_streams_new(streams, 0, 0);
            c->n_tokens = base;
            c->turn = 0;
        } else if (forked) {
            c->stream = apmw_streams_new(streams, c->stream, c->n_tokens);
        }
        const int64_t grow = base / TURNS_OF_A_CONVERSATION;
        r->conversation = pick + 1;
        r->n_prompt = c->n_tokens + grow / 2;
        r->n_kv = c->n_tokens + grow;
        apmw_prefix_cache_begin(cache, c->stream, r->n_prompt, &r->lease);
        c->n_tokens = forked ? r->n_prompt : r->n_kv;
        c->turn++;
    }
    const double seconds = bench_now_s() - begin;
    for (size_t i = 0; i < RUNNING; i++) {
        if (batch[i].conversation != 0) {
            finish(cache, &batch[i], forked);
        }
    }
    apmw_kv_stats s;
    apmw_prefix_cache_stats(cache, &s);
    apmw_error err;
    const bool sound = apmw_prefix_cache_check(cache, &err) == APMW_OK;
    printf("{\"case\":\"%s\",\"context_tokens\":%lld,\"turns_per_s\":%.4g,\"hit_rate\":%.4f,\"evicted_"
           "blocks\":%lld,"
           "\"bytes\":%zu,\"sound\":%s}",
           name, (long long)base, (double)turns / seconds, (double)s.hit_tokens / (double)s.query_tokens,
           (long long)s.evicted_blocks, apmw_prefix_cache_bytes(cache), sound ? "true" : "false");
    apmw_prefix_cache_free(cache);
    apmw_streams_free(streams);
}

int main(int argc, char **argv)
{
    const long turns = argc > 1 ? strtol(argv[1], NULL, 10) : 2000000;
    const int64_t whole = 2LL * 100000 * STREAMS;
    bench_head("kv", argc, argv);
    printf("\"results\":[");
    run("fits", 100000, whole, false, APMW_KV_LRU, turns);
    printf(",");
    run("pressed", 100000, whole / 3, false, APMW_KV_LRU, turns);
    printf(",");
    run("pressed_short", 10000, whole / 30, false, APMW_KV_LRU, turns);
    printf(",");
    run("forked", 100000, whole, true, APMW_KV_LRU, turns);
    printf(",");
    run("forked_pressed", 100000, whole / 3, true, APMW_KV_LRU, turns);
    for (int p = APMW_KV_FIFO; p <= APMW_KV_S3_FIFO; p++) {
        printf(",");
        run(apmw_kv_policy_name((apmw_kv_policy)p), 100000, whole / 3, false, (apmw_kv_policy)p, turns);
    }
    printf("]}\n");
    return 0;
}
