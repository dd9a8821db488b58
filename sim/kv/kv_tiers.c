/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers on prefix caches: a write is a lease that begins and takes, and later commits and ends, a store one that
 * does all at once; a load is one that ends later. */
#include "apmw/kv_tiers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kv_private.h"

typedef struct tier {
    apmw_kv_tier_config config;
    apmw_prefix_cache *cache;
    apmw_kv_tiers *stack;
    size_t index;
} tier;

struct apmw_kv_tiers {
    const apmw_streams *streams;
    tier tiers[APMW_KV_MAX_TIERS];
    size_t n;
};

/* What a tier evicted comes to the next. What that has already is not used by it. */
static void on_evict(void *self, apmw_stream stream, int64_t from_tokens, int64_t to_tokens)
{
    (void)from_tokens;
    const tier *t = self;
    const size_t next = t->index + 1;
    const int64_t block = t->stack->tiers[next].config.block_tokens;
    if (apmw_kv_tiers_match(t->stack, next, stream, to_tokens) < to_tokens / block * block) {
        (void)apmw_kv_tiers_store(t->stack, next, stream, to_tokens);
    }
}

static apmw_status share_tier(apmw_kv_tiers *tiers, const apmw_kv_tier_config *config, apmw_error *err)
{
    if (config->shared->streams != tiers->streams || config->cascade) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "%s: a shared tier is the last, and over the same streams", config->name);
    }
    tier *t = &tiers->tiers[tiers->n];
    t->config = config->shared->tiers[0].config;
    t->config.shared = config->shared;
    t->cache = config->shared->tiers[0].cache;
    t->stack = tiers;
    t->index = tiers->n++;
    return APMW_OK;
}

static apmw_status make_tier(apmw_kv_tiers *tiers, const apmw_kv_tier_config *config, apmw_error *err)
{
    if (!(config->bytes_per_token > 0.0) || !isfinite(config->bytes_per_token) ||
        !(config->bytes_per_stream >= 0.0) || !isfinite(config->bytes_per_stream) ||
        config->block_tokens < 1) {
        return apmw_error_set(
            err, APMW_E_SCENARIO,
            "%s: a token must take more than 0 bytes, a stream at least 0, a block 1 token or more",
            config->name);
    }
    if (config->policy == APMW_KV_IDLE_TTL && config->ttl_ns < 1) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%s: idle TTL needs a time above 0", config->name);
    }
    if (config->half_life_ns < 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%s: a half-life is at least 0", config->name);
    }
    const double block_bytes = config->bytes_per_token * (double)config->block_tokens;
    const double blocks = floor(config->capacity_bytes / block_bytes);
    const double stream_blocks = ceil(config->bytes_per_stream / block_bytes);
    if (!(blocks >= 1.0 + stream_blocks) || blocks > 1e15) {
        return apmw_error_set(
            err, APMW_E_SCENARIO,
            "%s: %g bytes do not hold one block of %g bytes and %g of its stream (or are beyond reason)",
            config->name, config->capacity_bytes, block_bytes, config->bytes_per_stream);
    }
    const apmw_kv_options options = {.capacity_blocks = (int64_t)blocks,
                                     .block_tokens = config->block_tokens,
                                     .caching = true,
                                     .policy = config->policy,
                                     .ttl_ns = config->ttl_ns,
                                     .half_life_ns = config->half_life_ns,
                                     .stream_blocks = (int64_t)stream_blocks};
    tier *t = &tiers->tiers[tiers->n];
    t->config = *config;
    t->stack = tiers;
    t->index = tiers->n;
    t->cache = apmw_prefix_cache_create_with(tiers->streams, &options);
    if (t->cache == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", config->name);
    }
    tiers->n++;
    return APMW_OK;
}

apmw_status apmw_kv_tiers_create(const apmw_streams *streams, const apmw_kv_tier_config *tiers, size_t n,
                                 apmw_kv_tiers **out, apmw_error *err)
{
    *out = NULL;
    if (n < 1 || n > APMW_KV_MAX_TIERS) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%zu tiers of KV, where 1 to %d can be", n,
                              APMW_KV_MAX_TIERS);
    }
    apmw_kv_tiers *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    made->streams = streams;
    for (size_t i = 0; i < n; i++) {
        const apmw_status status =
            tiers[i].shared != NULL ? share_tier(made, &tiers[i], err) : make_tier(made, &tiers[i], err);
        if (status != APMW_OK) {
            apmw_kv_tiers_free(made);
            return status;
        }
    }
    for (size_t i = 0; i + 1 < n; i++) {
        if (tiers[i].cascade) {
            apmw_prefix_cache_observe(made->tiers[i].cache, on_evict, &made->tiers[i]);
        }
    }
    *out = made;
    return APMW_OK;
}

void apmw_kv_tiers_free(apmw_kv_tiers *tiers)
{
    if (tiers == NULL) {
        return;
    }
    for (size_t i = 0; i < tiers->n; i++) {
        if (tiers->tiers[i].config.shared == NULL) {
            apmw_prefix_cache_free(tiers->tiers[i].cache);
        }
    }
    free(tiers);
}

static const tier *at(const apmw_kv_tiers *tiers, size_t index)
{
    APMW_CHECK(index < tiers->n);
    return &tiers->tiers[index];
}

size_t apmw_kv_tiers_count(const apmw_kv_tiers *tiers)
{
    return tiers->n;
}

void apmw_kv_tiers_at(apmw_kv_tiers *tiers, int64_t now_ns)
{
    for (size_t i = tiers->n; i-- > 0;) { /* the farthest first: what expires above comes to it now */
        apmw_prefix_cache_at(tiers->tiers[i].cache, now_ns);
    }
}

int64_t apmw_kv_tiers_match(const apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens)
{
    APMW_CHECK(n_tokens >= 0);
    /* A request computes its last token always; a tier gives all that it has. */
    return apmw_prefix_cache_match(at(tiers, index)->cache, stream, n_tokens + 1);
}

/* Streams of the path that own whole blocks of [from, to) and may not be here yet: each is charged once. */
static int64_t streams_between(const apmw_prefix_cache *cache, apmw_stream stream, int64_t from, int64_t to)
{
    int64_t n = 0;
    while (stream != 0 && to > from) {
        const apmw_kv_stream *item = &cache->streams->items[stream];
        const int64_t first = item->fork_tokens / cache->block_tokens;
        if (first < to) {
            n += apmw_kv_entry_find(cache, stream) == 0;
            to = first;
        }
        stream = item->base;
    }
    return n;
}

/* Takes room until the write covers `want` blocks of its path, as far as there is any. */
static void widen(apmw_prefix_cache *cache, apmw_kv_write *write, int64_t want)
{
    const int64_t have = write->blocks;
    if (want <= have || write->lease.stream == 0) {
        return;
    }
    const int64_t charge = cache->stream_blocks * streams_between(cache, write->lease.stream, have, want);
    const int64_t room = apmw_prefix_cache_available(cache) - charge;
    const int64_t more = want - have < room ? want - have : room;
    if (more > 0 && apmw_prefix_cache_take(cache, &write->lease, more + charge)) {
        write->blocks = have + more;
    }
}

int64_t apmw_kv_tiers_write(apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens,
                            apmw_kv_write *write)
{
    APMW_CHECK(n_tokens >= 0);
    apmw_prefix_cache *cache = at(tiers, index)->cache;
    apmw_prefix_cache_resume(cache, stream, n_tokens + 1, &write->lease);
    write->blocks = write->lease.pinned_blocks;
    widen(cache, write, n_tokens / cache->block_tokens);
    return (write->blocks - write->lease.pinned_blocks) * cache->block_tokens;
}

int64_t apmw_kv_tiers_written(apmw_kv_tiers *tiers, size_t index, apmw_kv_write *write, int64_t n_tokens, int64_t n_all)
{
    APMW_CHECK(n_tokens >= 0 && n_all >= n_tokens);
    apmw_prefix_cache *cache = at(tiers, index)->cache;
    const int64_t size = cache->block_tokens, whole = n_tokens / size;
    int64_t dead = 0;
    if (write->lease.stream != 0) {
        widen(cache, write, whole);
        apmw_prefix_cache_commit(cache, &write->lease, (whole < write->blocks ? whole : write->blocks) * size);
        const int64_t room = apmw_prefix_cache_available(cache), rest = n_all / size - whole;
        dead = rest < room ? rest : room;
        dead = dead > 0 && apmw_prefix_cache_take(cache, &write->lease, dead) ? dead : 0;
    }
    const int64_t stored = write->lease.inserted_blocks;
    apmw_prefix_cache_end(cache, &write->lease, dead * size);
    return stored * size;
}

int64_t apmw_kv_tiers_store(apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens)
{
    if (stream == 0) {
        return 0;
    }
    apmw_kv_write write;
    (void)apmw_kv_tiers_write(tiers, index, stream, n_tokens, &write);
    return apmw_kv_tiers_written(tiers, index, &write, n_tokens, n_tokens);
}

void apmw_kv_tiers_begin(apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens,
                         apmw_kv_lease *lease)
{
    APMW_CHECK(n_tokens >= 0);
    apmw_prefix_cache_begin(at(tiers, index)->cache, stream, n_tokens + 1, lease);
}

void apmw_kv_tiers_again(apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens,
                         apmw_kv_lease *lease)
{
    APMW_CHECK(n_tokens >= 0);
    apmw_prefix_cache_resume(at(tiers, index)->cache, stream, n_tokens + 1, lease);
}

void apmw_kv_tiers_end(apmw_kv_tiers *tiers, size_t index, apmw_kv_lease *lease)
{
    apmw_prefix_cache_end(at(tiers, index)->cache, lease, 0);
}

void apmw_kv_tiers_touch(apmw_kv_tiers *tiers, size_t index, apmw_stream stream, int64_t n_tokens)
{
    apmw_kv_lease lease;
    apmw_kv_tiers_begin(tiers, index, stream, n_tokens, &lease);
    apmw_kv_tiers_end(tiers, index, &lease);
}

double apmw_kv_tiers_bytes_of(const apmw_kv_tiers *tiers, size_t index, int64_t n_tokens)
{
    const apmw_kv_tier_config *config = &at(tiers, index)->config;
    return n_tokens <= 0 ? 0.0 : config->bytes_per_token * (double)n_tokens + config->bytes_per_stream;
}

void apmw_kv_tiers_stats(const apmw_kv_tiers *tiers, size_t index, apmw_kv_stats *out)
{
    apmw_prefix_cache_stats(at(tiers, index)->cache, out);
}

int64_t apmw_kv_tiers_block_tokens(const apmw_kv_tiers *tiers, size_t index)
{
    return at(tiers, index)->config.block_tokens;
}

apmw_status apmw_kv_tiers_check(const apmw_kv_tiers *tiers, apmw_error *err)
{
    for (size_t i = 0; i < tiers->n; i++) {
        if (apmw_prefix_cache_check(tiers->tiers[i].cache, err) != APMW_OK) {
            return apmw_error_wrap(err, "%s", tiers->tiers[i].config.name);
        }
    }
    return APMW_OK;
}

bool apmw_kv_tiers_out_of_memory(const apmw_kv_tiers *tiers)
{
    bool any = false;
    for (size_t i = 0; i < tiers->n; i++) {
        any = any || apmw_prefix_cache_out_of_memory(tiers->tiers[i].cache);
    }
    return any;
}

static const char *const LOADS[] = {"faster", "always", "never"};

const char *apmw_kv_load_name(apmw_kv_load load)
{
    return LOADS[load];
}

bool apmw_kv_load_parse(const char *name, apmw_kv_load *out)
{
    for (size_t i = 0; i < sizeof LOADS / sizeof *LOADS; i++) {
        if (strcmp(name, LOADS[i]) == 0) {
            *out = (apmw_kv_load)i;
            return true;
        }
    }
    return false;
}

bool apmw_kv_load_worth(apmw_kv_load load, double load_ns, double recompute_ns)
{
    return load == APMW_KV_LOAD_ALWAYS || (load == APMW_KV_LOAD_FASTER && load_ns < recompute_ns);
}
