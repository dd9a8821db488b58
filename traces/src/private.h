/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the files of this layer share and nobody else may use. */
#ifndef APMW_TRACES_PRIVATE_H
#define APMW_TRACES_PRIVATE_H
#include "apmw/json.h"
#include "apmw/trace.h"

/* Far above any context or corpus, low enough that sums of a trace never overflow 64 bits. */
#define APMW_TR_MAX_TOKENS (INT64_C(1) << 40)
#define APMW_TR_MAX_DELAY_NS (INT64_C(1) << 53) /* 104 days; exact as a JSON number */
#define APMW_TR_MAX_TURNS (INT32_C(1) << 24)
#define APMW_TR_SCHEMA "apmw.trace/1"

/* Appends to a trajectory under construction (arrays grow by doubling). */
apmw_status apmw_tr_push_turn(apmw_trajectory *trajectory, const apmw_turn *turn, apmw_error *err);
apmw_status apmw_tr_push_lane(apmw_trajectory *trajectory, int32_t spawn_after, int32_t join_before,
                              apmw_error *err);
/* Checks, then moves the trajectory into the trace; `trajectory` is empty afterwards, also on failure. */
apmw_status apmw_tr_take(apmw_trace *trace, apmw_trajectory *trajectory, apmw_error *err);

/* Top-level JSON values of a file, plain or zstd, one at a time: an object a line, objects that span lines,
 * or one array of objects. Only the value at hand is in memory. */
typedef struct apmw_tr_reader apmw_tr_reader;
apmw_status apmw_tr_reader_open(const char *path, apmw_tr_reader **out, apmw_error *err);
void apmw_tr_reader_close(apmw_tr_reader *reader);
/* *text = NULL at the end. `text` holds until the next call. `line` is where the value begins. */
apmw_status apmw_tr_reader_next(apmw_tr_reader *reader, const char **text, size_t *n, int64_t *line,
                                apmw_error *err);
/* The next value parsed; *doc = NULL at the end. Messages begin with "path:line". */
apmw_status apmw_tr_reader_json(apmw_tr_reader *reader, apmw_json **doc, apmw_error *err);
/* First bytes of the decompressed content without consuming them. */
apmw_status apmw_tr_reader_peek(apmw_tr_reader *reader, const char **text, size_t *n, apmw_error *err);

/* All numbers of an array in one pass (a cJSON array is a list: access by index is linear). The result is
 * malloc'd, also when empty. Missing key: *out = NULL, *n = 0 unless `required`. */
apmw_status apmw_tr_ints(const apmw_json_cur *object, const char *key, bool required, int64_t lo, int64_t hi,
                         int64_t **out, int *n, apmw_error *err);
/* As apmw_tr_ints, but an item may be an array of numbers, of which the largest counts. */
apmw_status apmw_tr_longest(const apmw_json_cur *object, const char *key, int64_t lo, int64_t hi,
                            int64_t **out, int *n, apmw_error *err);
/* Block ids: any whole numbers; ids above 2^53 are compared by the 53 bits that JSON doubles keep. */
apmw_status apmw_tr_ids(const apmw_json_cur *object, const char *key, uint64_t **out, int *n,
                        apmw_error *err);

/* Prompts as paths of block ids. Node 0 is the empty prefix; a node stands for one prefix, so two prompts
 * share exactly the path they have in common. */
typedef struct apmw_tr_trie {
    int32_t *owner;  /* by node: a turn or row whose prompt has this prefix; the caller sets it */
    int32_t *up;     /* by node: the prefix without its last block */
    uint64_t *id;    /* by node: its last block */
    uint32_t *slots; /* open addressing; 0 = free, since the root is nobody's child */
    size_t n, capacity, n_slots;
} apmw_tr_trie;
apmw_status apmw_tr_trie_init(apmw_tr_trie *trie, apmw_error *err);
void apmw_tr_trie_free(apmw_tr_trie *trie);
/* -1 when no prompt continues the prefix that way. */
int32_t apmw_tr_trie_find(const apmw_tr_trie *trie, int32_t node, uint64_t id);
/* Finds or makes the child; *made tells which. */
apmw_status apmw_tr_trie_step(apmw_tr_trie *trie, int32_t node, uint64_t id, int32_t *child, bool *made,
                              apmw_error *err);

typedef struct apmw_tr_format {
    apmw_trace_format about;
    apmw_status (*load)(const char *path, apmw_trace *trace, apmw_error *err); /* appends */
} apmw_tr_format;
extern const apmw_tr_format apmw_tr_format_jsonl, apmw_tr_format_h5, apmw_tr_format_weka,
    apmw_tr_format_mooncake;
apmw_status apmw_tr_save_jsonl(const apmw_trace *trace, const char *path, bool compress, apmw_error *err);
apmw_status apmw_tr_save_h5(const apmw_trace *trace, const char *path, apmw_error *err);
/* The granularity of every file of one load must agree. */
apmw_status apmw_tr_set_block(apmw_trace *trace, int64_t block_tokens, const char *path, apmw_error *err);

/* Generators. */
typedef struct apmw_tr_param {
    const char *name;
    double value, lo, hi; /* default and accepted range */
    const char *meaning;
} apmw_tr_param;
typedef struct apmw_tr_synth {
    apmw_synth about;
    const apmw_tr_param *params;
    size_t n_params;
    /* Fills an empty trajectory; `v` holds one value a parameter, in the table's order. */
    apmw_status (*make)(const double *v, uint64_t seed, size_t index, apmw_trajectory *out, apmw_error *err);
    /* Refuses values that contradict each other; may be NULL. */
    apmw_status (*check)(const double *v, apmw_error *err);
} apmw_tr_synth;
extern const apmw_tr_synth apmw_tr_synth_agentperf, apmw_tr_synth_claude_code;

#endif
