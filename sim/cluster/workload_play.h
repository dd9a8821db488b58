/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What load drivers that replay trajectories have in common: which trajectory an agent plays, the content of its turns,
 * and the lines of a play (the main line and its sub-agents) with their forks, joins and waits. A driver owns one
 * apmw_replay and one apmw_play an agent, and decides when a play begins and what follows it. */
#ifndef APMW_WORKLOAD_PLAY_H
#define APMW_WORKLOAD_PLAY_H
#include "apmw/cluster.h"

/* One line of turns of a play: sends a turn, waits for its end and its delay, and goes on. */
typedef struct apmw_play_line {
    struct apmw_play *play;
    apmw_request request;
    int32_t turn;            /* being served or about to be sent, -1 = none left */
    bool started, ended;
    apmw_event_handle timeout; /* of the turn in flight, if there is one */
    apmw_event_handle event; /* of a turn that waits to be sent */
    apmw_time due;           /* when it goes out; APMW_TIME_NEVER = none waits */
} apmw_play_line;

typedef struct apmw_play {
    struct apmw_replay *replay;
    int32_t agent, number;     /* number: trajectories that the agent began before this one */
    int32_t trajectory, first; /* first turn played */
    int32_t n_turns;           /* turns before the end of the play */
    int32_t last_main;         /* last turn of the main line: its end ends the trajectory */
    apmw_stream *streams;      /* of each turn */
    bool *kept;                /* of each turn: its output continues its stream */
    int32_t room;              /* entries of the two */
    apmw_play_line **lines;    /* pointers, since the engine holds requests while the array grows */
    int32_t n_lines, line_room;
    int32_t outstanding;       /* requests in flight or about to be sent */
    int32_t in_flight;
    bool main_waits;           /* the main line's next turn waits for lines that it joins */
    bool failed;               /* a request failed: nothing more is sent */
} apmw_play;

typedef struct apmw_replay {
    /* Set by the driver. */
    const apmw_trace *trace;   /* borrowed */
    int64_t max_output_tokens; /* 0 = as recorded */
    int64_t max_context;       /* 0 = none */
    bool forced_output;        /* the client declares the recorded length, not its cap */
    bool send_overflow;        /* a turn beyond max_context is sent, and refused; false: the play ends before it */
    bool share_global, output_cached, concurrent_lanes;
    double delay_scale;
    apmw_time first_token_timeout_ns; /* 0 = none */
    uint64_t seed;
    /* Nothing of the play is in flight or to come. */
    void (*on_end)(apmw_play *play, apmw_time now);
    /* Nothing of the play is in flight, but turns wait to be sent. May be NULL. */
    void (*on_quiet)(apmw_play *play, apmw_time now);
    apmw_sim *sim;
    /* The rest belongs to workload_play.c and workload_content.c. */
    int32_t *playable;         /* trajectories whose first turn fits */
    int32_t *n_fit;            /* turns of each playable one before the first that does not fit */
    uint64_t n_playable;
    apmw_stream *globals;      /* by prefix group: shared across agents; 0 = not made yet */
    int32_t n_globals;
    uint64_t next_id;
    int64_t in_flight;
    bool closed;               /* nothing more is sent */
    bool out_of_memory;
} apmw_replay;

/* ------------------------------------------------------------------ content (workload_content.c) */

/* Finds the playable trajectories. APMW_E_SCENARIO if there is none. */
apmw_status apmw_replay_prepare(apmw_replay *replay, apmw_error *err);
void apmw_replay_free(apmw_replay *replay);
/* Position among the playable ones of an agent's k-th trajectory: a round hands every trajectory to one agent, and an
 * agent's trajectories do not depend on how many agents there are. */
uint64_t apmw_replay_assigned(const apmw_replay *replay, int32_t agent, int32_t number);
int64_t apmw_replay_output(const apmw_replay *replay, const apmw_turn *turn);
/* Streams of all turns of a play, under a salt of its own. False: out of memory. */
bool apmw_play_lay_streams(apmw_play *play);

/* ------------------------------------------------------------------ plays (workload_play.c) */

const apmw_trajectory *apmw_play_trajectory(const apmw_play *play);
/* The agent's next trajectory by play->number: content and lines, nothing is sent. False: out of memory (the run has been
 * stopped). */
bool apmw_play_take(apmw_play *play);
/* The same with a given one: its position among the playable ones. */
bool apmw_play_take_at(apmw_play *play, uint64_t position);
/* Next turn of a line at or after `from`, -1 = none. */
int32_t apmw_play_next(const apmw_play *play, int32_t line, int32_t from);
/* The play begins at the first turn of the main line at or after `first` (or its last one), which the caller sends next.
 * Lines that began before it belong to the past. */
void apmw_play_begin(apmw_play *play, int32_t first);
/* Fills the record and content of a request for a turn; on_done and self are left alone. */
void apmw_play_fill(apmw_play *play, int32_t turn, apmw_request *request);
/* Sends the line's turn now, or after a wait. */
void apmw_play_send(apmw_play_line *line);
void apmw_play_send_later(apmw_play_line *line, apmw_time delay);
apmw_time apmw_play_delay(const apmw_play *play, int32_t turn);
/* When the next waiting turn goes out, APMW_TIME_NEVER = none waits; all of them brought forward; none of them sent. */
apmw_time apmw_play_earliest(const apmw_play *play);
void apmw_play_advance(apmw_play *play, apmw_time by);
void apmw_play_drop(apmw_play *play);
void apmw_play_free(apmw_play *play);

#endif
