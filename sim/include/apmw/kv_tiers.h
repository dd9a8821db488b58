/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers of KV below HBM: host memory, local drives, a remote store. A tier is a prefix cache (kv.h) without
 * running requests: it keeps leading blocks of streams, shares what streams share, and evicts from the tail
 * of a path by its policy. It has no clock and moves no bytes: the caller says when what is stored or used,
 * and asks what a move costs.
 *
 * What a tier keeps of a path always begins with its first token. Content that HBM evicted from a path's tail
 * is therefore stored with everything before it that the tier does not have yet; HBM still has that at the
 * moment (it too keeps prefixes), and under recency it is what HBM evicts next.
 *
 * Footprint: so many bytes a token for layers that keep every token, compressed ones at their own rate, and
 * so many a stream whatever its length for sliding windows and recurrent states. A window stands at the end
 * of what is stored of its stream: that a hit further up would find another one is not told apart. */
#ifndef APMW_KV_TIERS_H
#define APMW_KV_TIERS_H
#include "apmw/kv.h"

enum { APMW_KV_MAX_TIERS = 4 };

typedef struct apmw_kv_tiers apmw_kv_tiers;
typedef struct apmw_kv_tier_config {
    char name[24]; /* "host", for messages */
    double capacity_bytes;
    double bytes_per_token;  /* > 0 */
    double bytes_per_stream; /* >= 0 */
    int64_t block_tokens;    /* granularity of what is kept here, >= 1 */
    apmw_kv_policy policy;
    int64_t ttl_ns, half_life_ns; /* as in apmw_kv_options */
    bool cascade;                 /* what goes from here comes to the next tier; else it is gone */
    /* This tier is the first of another stack over the same streams, such as one store for several engines:
     * the other numbers are that one's. Borrowed. NULL = a tier of its own. */
    apmw_kv_tiers *shared;
} apmw_kv_tier_config;

/* Tiers from the nearest to the farthest. APMW_E_SCENARIO: a tier that does not hold a block, a number that
 * cannot be. streams is borrowed and may grow meanwhile. */
apmw_status apmw_kv_tiers_create(const apmw_streams *streams, const apmw_kv_tier_config *tiers, size_t n,
                                 apmw_kv_tiers **out, apmw_error *err);
void apmw_kv_tiers_free(apmw_kv_tiers *tiers);
size_t apmw_kv_tiers_count(const apmw_kv_tiers *tiers);
/* The time of what follows, as apmw_prefix_cache_at. */
void apmw_kv_tiers_at(apmw_kv_tiers *tiers, int64_t now_ns);
/* Of the first n_tokens >= 0 of the stream's path, how many the tier has from the first on: whole blocks. No
 * side effect. Stream 0 is content without identity and never found. */
int64_t apmw_kv_tiers_match(const apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens);
/* Makes the tier keep the first n_tokens of the path as far as it has room that is not pinned; a use of what
 * it has of them already. Returns the tokens that are new here: what must be written. */
int64_t apmw_kv_tiers_store(apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens);
/* What a running request writes here bit by bit. */
typedef struct apmw_kv_write {
    apmw_kv_lease lease;
    int64_t blocks; /* of its path, from the first on, that are here or have room */
} apmw_kv_write;
/* Takes room for what the tier has not of the first n_tokens of the path, as far as there is any that is not pinned;
 * what it has of them stays pinned. Nothing of the rest can be found, nor evicted, until apmw_kv_tiers_written.
 * Returns the tokens that are new here: what must be written. The write is the caller's. */
int64_t apmw_kv_tiers_write(apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens,
                            apmw_kv_write *write);
/* Ends a write: the first n_tokens of the path can be found, as far as there is room by now, and were used; what
 * else was written, up to n_all >= n_tokens, will not be asked for and lies here until it is evicted. Returns the
 * tokens that this write made findable. */
int64_t apmw_kv_tiers_written(apmw_kv_tiers *tiers, size_t tier, apmw_kv_write *write, int64_t n_tokens, int64_t n_all);
/* A load from this tier: pins what the tier has of the first n_tokens, and counts the query and the hit,
 * until apmw_kv_tiers_end, which is the use. The lease is the caller's. */
void apmw_kv_tiers_begin(apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens,
                         apmw_kv_lease *lease);
/* The same for one that asks once more: pins, and counts nothing. */
void apmw_kv_tiers_again(apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens, apmw_kv_lease *lease);
void apmw_kv_tiers_end(apmw_kv_tiers *tiers, size_t tier, apmw_kv_lease *lease);
/* A use without a load. */
void apmw_kv_tiers_touch(apmw_kv_tiers *tiers, size_t tier, apmw_stream stream, int64_t n_tokens);
/* Bytes of n tokens of one stream here: what a load or a write of them moves. 0 tokens are 0 bytes. */
double apmw_kv_tiers_bytes_of(const apmw_kv_tiers *tiers, size_t tier, int64_t n_tokens);
/* Blocks of this tier; hit_tokens and query_tokens of apmw_kv_tiers_begin and _touch. */
void apmw_kv_tiers_stats(const apmw_kv_tiers *tiers, size_t tier, apmw_kv_stats *out);
int64_t apmw_kv_tiers_block_tokens(const apmw_kv_tiers *tiers, size_t tier);
apmw_status apmw_kv_tiers_check(const apmw_kv_tiers *tiers, apmw_error *err);
bool apmw_kv_tiers_out_of_memory(const apmw_kv_tiers *tiers);

/* Load what a tier has, or compute it again. */
typedef enum apmw_kv_load { APMW_KV_LOAD_FASTER, APMW_KV_LOAD_ALWAYS, APMW_KV_LOAD_NEVER } apmw_kv_load;
/* "faster", "always", "never". */
const char *apmw_kv_load_name(apmw_kv_load load);
bool apmw_kv_load_parse(const char *name, apmw_kv_load *out);
/* FASTER: the load, waiting for its link included, ends before computing would. */
bool apmw_kv_load_worth(apmw_kv_load load, double load_ns, double recompute_ns);

#endif
