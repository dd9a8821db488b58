/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bytes as operations on two tiers of KV and on a prefix cache with leases, under any policy: whatever comes, the books
 * balance. Each operation is 4 bytes: what, which stream, how far (two bytes). */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "apmw/kv_tiers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_STREAMS = 32, N_LEASES = 8, HEAD = 8 };

typedef struct world {
    apmw_streams *streams;
    apmw_stream known[N_STREAMS];
    uint32_t n_streams;
    apmw_kv_tiers *tiers;
    apmw_prefix_cache *cache;
    apmw_kv_lease loads[N_LEASES], leases[N_LEASES];
    size_t tier_of[N_LEASES];
    int64_t block, now;
} world;

static void check(world *w)
{
    apmw_error err = {APMW_OK, ""};
    if (apmw_kv_tiers_check(w->tiers, &err) != APMW_OK || apmw_prefix_cache_check(w->cache, &err) != APMW_OK) {
        abort();
    }
}

static void lease_operation(world *w, uint8_t what, apmw_stream stream, int64_t n)
{
    apmw_kv_lease *lease = &w->leases[what % N_LEASES];
    if (!lease->active) {
        apmw_prefix_cache_begin(w->cache, stream, n + 1, lease);
    } else if (what & 64) {
        const int64_t own = lease->taken_blocks - lease->inserted_blocks;
        apmw_prefix_cache_end(w->cache, lease, n % (own * w->block + 1));
    } else {
        const int64_t more = n % 24;
        if (apmw_prefix_cache_take(w->cache, lease, more)) {
            /* As far as the blocks that it holds go. */
            apmw_prefix_cache_commit(w->cache, lease, (lease->pinned_blocks + lease->taken_blocks) * w->block);
        }
    }
}

static void operate(world *w, const uint8_t *op)
{
    const apmw_stream stream = w->known[op[1] % w->n_streams];
    const int64_t n = (op[2] | op[3] << 8) % 1024;
    const size_t tier = op[0] >> 7;
    apmw_kv_lease *load = &w->loads[op[1] % N_LEASES];
    switch (op[0] % 8) {
    case 0:
        if (w->n_streams < N_STREAMS) {
            w->known[w->n_streams++] = apmw_streams_new(w->streams, stream, n);
        }
        break;
    case 1:
    case 2:
        (void)apmw_kv_tiers_store(w->tiers, tier, stream, n);
        break;
    case 3:
        apmw_kv_tiers_touch(w->tiers, tier, stream, n);
        break;
    case 4:
        if (load->active) {
            apmw_kv_tiers_end(w->tiers, w->tier_of[op[1] % N_LEASES], load);
        } else {
            w->tier_of[op[1] % N_LEASES] = tier;
            apmw_kv_tiers_begin(w->tiers, tier, stream, n, load);
        }
        break;
    case 5:
        w->now += n;
        apmw_kv_tiers_at(w->tiers, w->now);
        apmw_prefix_cache_at(w->cache, w->now);
        break;
    default:
        lease_operation(w, op[0] >> 1, stream, n);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD) {
        return 0;
    }
    world w = {.streams = apmw_streams_create(), .n_streams = 2, .block = 1 + data[0] % 16};
    apmw_error err;
    apmw_kv_tier_config config[2];
    for (int t = 0; t < 2; t++) {
        const int64_t block = t == 0 ? w.block : 1 + data[1] % 32;
        config[t] = (apmw_kv_tier_config){.name = "tier", .bytes_per_token = 1.0, .block_tokens = block,
                                          .bytes_per_stream = (double)(data[2 + t] % 4 * block),
                                          .capacity_bytes = (double)(block * (4 + data[4 + t])),
                                          .policy = (apmw_kv_policy)(data[6] / (t == 0 ? 1 : 5) % 5), .ttl_ns = 500,
                                          .half_life_ns = data[7] % 2 * 300, .cascade = t == 0 && data[7] & 2};
    }
    const apmw_kv_options options = {.capacity_blocks = 4 + data[5], .block_tokens = w.block, .caching = true,
                                     .policy = (apmw_kv_policy)(data[6] / 25 % 5), .ttl_ns = 700,
                                     .half_life_ns = data[7] % 2 * 300};
    if (apmw_kv_tiers_create(w.streams, config, 2, &w.tiers, &err) != APMW_OK) {
        abort();
    }
    w.cache = apmw_prefix_cache_create_with(w.streams, &options);
    w.known[0] = apmw_streams_new(w.streams, 0, 0);
    w.known[1] = apmw_streams_new(w.streams, w.known[0], 37);
    for (size_t i = HEAD; i + 4 <= size; i += 4) {
        operate(&w, data + i);
        check(&w);
    }
    apmw_prefix_cache_free(w.cache);
    apmw_kv_tiers_free(w.tiers);
    apmw_streams_free(w.streams);
    return 0;
}
