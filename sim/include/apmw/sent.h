/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a client sends that replays recorded sessions against a server of its own: it begins inside sessions, the served
 * model's tokenizer and chat template make other lengths of the same text, and answers are those of the served model. */
#ifndef APMW_SENT_H
#define APMW_SENT_H
#include "apmw/cluster.h"

typedef struct apmw_sent {
    /* A prompt that continues nothing (first of a user, of a sub-agent, after a compaction) has first_prompt_scale times its
     * recorded tokens. One that continues another has that one's and growth_scale times the recorded growth, plus
     * answer_tokens: the part of the served model's answer that comes back, beyond what growth_scale says of the recorded
     * one. It is not found in the cache, since the template writes it differently (R1 drops the reasoning before it). */
    double first_prompt_scale, growth_scale; /* 1 = as recorded */
    double answer_tokens;                    /* 0 = as recorded */
    double output_tokens;                    /* of every request; 0 = as recorded */
    double output_spread; /* relative sd between requests, lognormal, drawn by session and turn; 0 = all alike */
    double max_delay_s;                      /* longest wait of the client; 0 = as recorded */
    /* Chance that an answer never ends (a model that repeats itself, and no cap): it goes on until prompt and answer fill
     * endless_context. Drawn by session and turn. */
    double endless_share;
    int64_t endless_context;
    int64_t max_recorded_tokens;             /* a session ends before the first recorded prompt after its start beyond it; 0 =
                                                never */
} apmw_sent;
apmw_sent apmw_sent_as_recorded(void);

/* Users of a CSV (columns user, session, turn: a positive number in ascending order, a session's id, the place among the
 * turns of its main line) as starts in a trace. The first n_agents numbers begin at their turn; of numbers that are
 * missing, and of all that come later and replace them, sessions begin with the first turn. The caller frees *out.
 * APMW_E_DATA names file, line and what is wrong. */
apmw_status apmw_starts_load(const char *path, const apmw_trace *trace, int64_t n_agents, apmw_start **out, size_t *n,
                             apmw_error *err);

/* One trajectory for each start, in their order, with what the client sends from that turn on; earlier turns stay as they
 * are. The trajectory of starts[i] is then i of *out. A start whose turn falls behind the end of its session
 * (max_recorded_tokens) is left out: starts and *n are changed accordingly. A client finds a prompt too long when it is to be
 * sent, so after_ns is the wait of that turn. */
apmw_status apmw_trace_as_sent(const apmw_trace *recorded, apmw_start *starts, size_t *n, const apmw_sent *sent,
                               apmw_trace *out, apmw_error *err);

#endif
