/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Trajectories of coding agents: one session, an ordered list of turns (model calls), with sub-agent lanes.
 *
 * Content without text: a turn says how much of its prompt repeats an earlier prompt of the same trajectory.
 * prompt(i) = [first shared_in tokens of prompt(parent)] [shared_out tokens of parent's output] [new tokens];
 * shared_out > 0 only if shared_in = n_in(parent). A turn without parent starts with `global_tokens` tokens of
 * the shared prefix group (tools and system prompt), 0 if none, then new tokens. */
#ifndef APMW_TRACE_H
#define APMW_TRACE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "apmw/buf.h"
#include "apmw/status.h"

typedef enum apmw_turn_trigger { APMW_TURN_TOOL, APMW_TURN_USER, APMW_TURN_JOIN } apmw_turn_trigger;

typedef struct apmw_turn {
    int64_t n_in;       /* prompt tokens, >= 1 */
    int64_t n_out;      /* recorded output tokens, >= 1 */
    int32_t parent;     /* index of an earlier turn of this trajectory, -1 = none */
    int32_t lane;       /* 0 = main line, > 0 = sub-agent */
    int64_t shared_in;  /* <= min(n_in, n_in(parent)) */
    int64_t shared_out; /* <= n_out(parent) */
    int64_t delay_ns;   /* from the completion of the previous turn of the lane (main line after a sub-agent:
                           of the last joined child) to the submission; first turn of a lane: from its spawn */
    apmw_turn_trigger trigger;
} apmw_turn;

typedef struct apmw_lane {
    int32_t spawn_after; /* main-line turn whose completion starts it, -1 = at the start */
    int32_t join_before; /* main-line turn that waits for it, -1 = background */
} apmw_lane;

typedef struct apmw_trajectory {
    char id[64];
    char source[32];     /* weka, mooncake, synth:agentperf, ... */
    int32_t global_id;   /* shared prefix group, -1 = none */
    int64_t global_tokens;
    apmw_turn *turns;    /* sorted so that a parent precedes its children; sub-agent turns stand between their
                            spawn and join turns of the main line, so playing in order is a valid sequential play */
    int32_t n_turns;
    apmw_lane *lanes;    /* n_lanes entries; lane 0 is the main line */
    int32_t n_lanes;
} apmw_trajectory;

typedef struct apmw_trace {
    apmw_trajectory *items;
    size_t n;
    int64_t block_tokens; /* granularity at which sharing is known (64 Weka, 512 Mooncake), 1 = exact */
    char block_file[512]; /* what was read first, which set it; "" = made, not read */
    char hash[17];        /* content hash, the same whatever the file format */
    char note[256];
} apmw_trace;

void apmw_trace_free(apmw_trace *trace);
/* Appends copies; used by readers, importers and generators. */
apmw_status apmw_trace_add(apmw_trace *trace, const apmw_trajectory *trajectory, apmw_error *err);
void apmw_trajectory_free(apmw_trajectory *trajectory);
/* Every rule above; the message names trajectory and turn. */
apmw_status apmw_trajectory_check(const apmw_trajectory *trajectory, apmw_error *err);
void apmw_trace_rehash(apmw_trace *trace);

/* Formats, found by content (magic, first keys), never by file name; `format` NULL = sniff. Names: apmw-jsonl,
 * apmw-h5, weka, mooncake. A directory is read as all its files in name order. */
typedef struct apmw_trace_format {
    const char *name, *documentation;
    bool can_write;
} apmw_trace_format;
const apmw_trace_format *const *apmw_trace_formats(size_t *n);
apmw_status apmw_trace_load(const char *path, const char *format, apmw_trace *out, apmw_error *err);
/* Name of the format that a file's content shows; the string is static. */
apmw_status apmw_trace_sniff(const char *path, const char **format, apmw_error *err);
/* By the name's ending: .jsonl, .jsonl.zst, .h5. */
apmw_status apmw_trace_save(const apmw_trace *trace, const char *path, apmw_error *err);

/* Generators. Parameters are "name=value" overrides; unknown names are refused with the nearest. */
typedef struct apmw_synth {
    const char *name, *documentation; /* agentperf, claude-code */
} apmw_synth;
const apmw_synth *apmw_synth_list(size_t *n);
/* Text of all parameters of a generator with defaults and meaning, appended to out. */
apmw_status apmw_synth_describe(const char *name, apmw_buf *out, apmw_error *err);
apmw_status apmw_synth_run(const char *name, size_t n_trajectories, uint64_t seed, const char *const *overrides,
                           size_t n_overrides, apmw_trace *out, apmw_error *err);

/* Part of a trace: trajectories [first, last), cut, then sampled. Zero fields do nothing (last 0 = to the end). */
typedef struct apmw_trace_part {
    size_t first, last;
    int64_t max_turns;   /* cut each trajectory before main-line turn max_turns + 1 */
    int64_t max_context; /* cut each before its first turn with n_in + n_out above this; none left: dropped */
    size_t sample;       /* that many of what is left, drawn without replacement, in their order */
    uint64_t seed;       /* of the sample */
} apmw_trace_part;
/* Lanes whose joining turn was cut off become background lanes, those without turns vanish. Keeping fewer
 * trajectories than `sample` asks for, or none, is APMW_E_USAGE. */
apmw_status apmw_trace_slice(const apmw_trace *trace, const apmw_trace_part *part, apmw_trace *out,
                             apmw_error *err);

/* Traces of block ids (Weka) cannot tell a turn's output from new input. This takes every append to the previous turn of a
 * lane (all whole blocks of its prompt are repeated) that adds at least as many tokens as that turn wrote to begin with its
 * whole prompt and its whole output: shared_in and shared_out become n_in and n_out of the parent. An assumption, not
 * something that was recorded. *changed: how many turns. */
apmw_status apmw_trace_assume_outputs(apmw_trace *trace, int64_t *changed, apmw_error *err);

typedef struct apmw_dist {
    double n, mean, p5, p10, p25, p50, p75, p90, p95, p99, min, max;
} apmw_dist;
typedef struct apmw_trace_stats {
    size_t n_trajectories;
    int64_t n_turns, n_subagent_turns, n_lanes;
    double total_in, total_out;
    apmw_dist turns, isl, osl, delay_s, growth, uncached, last_isl;
    double hit_infinite;          /* token-weighted, infinite cache, within trajectories, block-rounded */
    double hit_infinite_shared;   /* the same with shared prefix groups kept across trajectories */
    double hit_previous;          /* the same as hit_infinite, but only the previous turn of the lane is kept */
    double hit_blocks_shared;     /* hit_infinite_shared counted in blocks as in traces of block ids: a partial last
                                     block counts as one, and as found when the whole prompt is */
} apmw_trace_stats;
/* block_tokens 0 = the trace's own. output_cached: count shared_out as hit. */
apmw_status apmw_trace_stats_compute(const apmw_trace *trace, int64_t block_tokens, bool output_cached,
                                     apmw_trace_stats *out, apmw_error *err);

#endif
