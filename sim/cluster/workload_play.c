/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The lines of a play. Sequentially all turns form one line in turn order; concurrently sub-agents have lines of their own,
 * spawned and joined by the main line. */
#include "workload_play.h"

#include <stdlib.h>

static void on_send(apmw_des *des, void *subject, uint64_t argument);
static void on_done(apmw_request *request, void *self, apmw_time now);

const apmw_trajectory *apmw_play_trajectory(const apmw_play *play)
{
    return &play->replay->trace->items[play->trajectory];
}

/* Which line of the play a turn belongs to. */
static int32_t line_of(const apmw_play *play, int32_t turn)
{
    return play->replay->concurrent_lanes ? apmw_play_trajectory(play)->turns[turn].lane : 0;
}

int32_t apmw_play_next(const apmw_play *play, int32_t line, int32_t from)
{
    for (int32_t i = from; i < play->n_turns; i++) {
        if (line_of(play, i) == line) {
            return i;
        }
    }
    return -1;
}

static bool reserve(apmw_play *play, const apmw_trajectory *t)
{
    if (t->n_turns > play->room) {
        apmw_stream *s = realloc(play->streams, (size_t)t->n_turns * sizeof *s);
        play->streams = s != NULL ? s : play->streams;
        bool *k = realloc(play->kept, (size_t)t->n_turns * sizeof *k);
        play->kept = k != NULL ? k : play->kept;
        if (s == NULL || k == NULL) {
            return false;
        }
        play->room = t->n_turns;
    }
    play->n_lines = play->replay->concurrent_lanes && t->n_lanes > 1 ? t->n_lanes : 1;
    if (play->n_lines > play->line_room) {
        apmw_play_line **bigger = realloc(play->lines, (size_t)play->n_lines * sizeof *bigger);
        if (bigger == NULL) {
            return false;
        }
        play->lines = bigger;
        while (play->line_room < play->n_lines) {
            apmw_play_line *line = calloc(1, sizeof *line);
            if (line == NULL) {
                return false;
            }
            line->play = play;
            line->due = APMW_TIME_NEVER;
            line->request.on_done = on_done;
            line->request.self = line;
            play->lines[play->line_room++] = line;
        }
    }
    return true;
}

bool apmw_play_take(apmw_play *play)
{
    return apmw_play_take_at(play, apmw_replay_assigned(play->replay, play->agent, play->number));
}

bool apmw_play_take_at(apmw_play *play, uint64_t position)
{
    apmw_replay *replay = play->replay;
    play->trajectory = replay->playable[position];
    const apmw_trajectory *t = apmw_play_trajectory(play);
    play->n_turns = replay->send_overflow ? t->n_turns : replay->n_fit[position];
    if (!reserve(play, t) || !apmw_play_lay_streams(play)) {
        replay->out_of_memory = true;
        apmw_des_stop(apmw_sim_des(replay->sim));
        return false;
    }
    play->failed = play->main_waits = false;
    play->last_main = 0;
    for (int32_t i = 0; i < play->n_turns; i++) {
        play->last_main = line_of(play, i) == 0 ? i : play->last_main;
    }
    for (int32_t l = 0; l < play->n_lines; l++) {
        play->lines[l]->started = play->lines[l]->ended = false;
        play->lines[l]->turn = -1;
    }
    return true;
}

apmw_time apmw_play_delay(const apmw_play *play, int32_t turn)
{
    return (apmw_time)((double)apmw_play_trajectory(play)->turns[turn].delay_ns * play->replay->delay_scale + 0.5);
}

void apmw_play_send_later(apmw_play_line *line, apmw_time delay)
{
    apmw_play *play = line->play;
    if (play->replay->closed) {
        return;
    }
    apmw_des *des = apmw_sim_des(play->replay->sim);
    play->outstanding++;
    line->due = apmw_des_now(des) + delay;
    line->event = apmw_des_schedule(des, line->due, APMW_EVENT_CLIENT, on_send, line, 0);
}

/* Starts the lines that a turn of the main line spawns (-1: those of the beginning). A line that begins before the turn at
 * which the play started belongs to the past. */
static void spawn(apmw_play *play, int32_t after)
{
    const apmw_trajectory *t = apmw_play_trajectory(play);
    for (int32_t l = 1; l < play->n_lines; l++) {
        apmw_play_line *line = play->lines[l];
        if (line->started || t->lanes[l].spawn_after != after) {
            continue;
        }
        line->started = true;
        line->turn = apmw_play_next(play, l, 0);
        if (line->turn < play->first) {
            line->ended = true;
            continue;
        }
        apmw_play_send_later(line, apmw_play_delay(play, line->turn));
    }
}

void apmw_play_begin(apmw_play *play, int32_t first)
{
    const apmw_trajectory *t = apmw_play_trajectory(play);
    /* The main line begins at or after the offset; where only sub-agents follow, with its own last turn. */
    const int32_t next = apmw_play_next(play, 0, first);
    play->first = next < 0 ? play->last_main : next;
    for (int32_t l = 1; l < play->n_lines; l++) { /* lines of turns that are not played do not start */
        const int32_t after = t->lanes[l].spawn_after;
        play->lines[l]->started = play->lines[l]->ended = after >= 0 && after < play->first;
    }
    play->lines[0]->started = true;
    play->lines[0]->turn = play->first;
    spawn(play, -1);
}

/* Have the lines ended that must have before this turn of the main line? */
static bool joined(const apmw_play *play, int32_t turn)
{
    const apmw_trajectory *t = apmw_play_trajectory(play);
    for (int32_t l = 1; l < play->n_lines; l++) {
        if (t->lanes[l].join_before == turn && play->lines[l]->started && !play->lines[l]->ended) {
            return false;
        }
    }
    return true;
}

/* The next turn of the main line goes out its delay after whatever came last: the turn before it or the end of a line that
 * it joins. Called at both. */
static void advance_main(apmw_play *play)
{
    apmw_play_line *line = play->lines[0];
    play->main_waits = line->turn >= 0 && !joined(play, line->turn);
    if (line->turn >= 0 && !play->main_waits) {
        apmw_play_send_later(line, apmw_play_delay(play, line->turn));
    }
}

/* The client asks for at most its cap and never beyond the context of the model, which a server would refuse. */
static int64_t declared_cap(const apmw_replay *replay, const apmw_turn *turn)
{
    if (replay->forced_output) {
        return apmw_replay_output(replay, turn);
    }
    const int64_t cap = replay->max_output_tokens;
    const int64_t room = replay->max_context > 0 ? replay->max_context - turn->n_in : cap;
    return cap > 0 && room < cap ? room : cap;
}

void apmw_play_fill(apmw_play *play, int32_t turn, apmw_request *request)
{
    apmw_replay *replay = play->replay;
    const apmw_turn *t = &apmw_play_trajectory(play)->turns[turn];
    request->record = (apmw_request_record){
        .id = replay->next_id++,
        .agent = play->agent,
        .trajectory = play->trajectory,
        .play = play->number,
        .turn = turn,
        .rank = -1,
        .n_prompt = t->n_in,
        .n_out = apmw_replay_output(replay, t),
        .last_of_trajectory = turn == play->last_main,
    };
    request->stream = play->streams[turn];
    request->output_kept = play->kept[turn];
    request->rank_hint = -1;
    request->max_tokens = declared_cap(replay, t);
}

static void on_timeout(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    apmw_play_line *line = subject;
    apmw_sim *sim = line->play->replay->sim;
    if (line->request.record.engine < 0) {
        return; /* split between pools, and so not with one engine that could let go of it */
    }
    (void)apmw_engine_cancel(apmw_sim_engine(sim, (size_t)line->request.record.engine), &line->request);
}

static void submit(apmw_play_line *line)
{
    apmw_play *play = line->play;
    const apmw_replay *replay = play->replay;
    apmw_play_fill(play, line->turn, &line->request);
    play->in_flight++;
    play->replay->in_flight++;
    apmw_sim_submit(replay->sim, &line->request);
    if (replay->first_token_timeout_ns > 0) {
        apmw_des *des = apmw_sim_des(replay->sim);
        line->timeout = apmw_des_schedule(des, apmw_des_now(des) + replay->first_token_timeout_ns, APMW_EVENT_CLIENT, on_timeout,
                                          line, 0);
    }
}

void apmw_play_send(apmw_play_line *line)
{
    line->play->outstanding++;
    submit(line);
}

/* The tools of a line are done. */
static void on_send(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    apmw_play_line *line = subject;
    line->due = APMW_TIME_NEVER;
    if (!line->play->failed) {
        submit(line);
    } else if (--line->play->outstanding == 0) {
        line->play->replay->on_end(line->play, apmw_des_now(des));
    }
}

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    apmw_play_line *line = self;
    apmw_play *play = line->play;
    const int32_t number = line == play->lines[0] ? 0 : line_of(play, line->turn);
    const int32_t done = line->turn;
    play->in_flight--;
    play->replay->in_flight--;
    if (play->replay->first_token_timeout_ns > 0) {
        apmw_des_cancel(apmw_sim_des(play->replay->sim), &line->timeout);
    }
    /* What the client gave up does not end the play. */
    play->failed = play->failed || request->record.state == APMW_REQUEST_REJECTED;
    line->turn = play->failed ? -1 : apmw_play_next(play, number, done + 1);
    if (line->turn < 0) {
        line->ended = true;
    }
    if (!play->failed) {
        if (number == 0) {
            spawn(play, done);
            advance_main(play);
        } else if (line->turn >= 0) {
            apmw_play_send_later(line, apmw_play_delay(play, line->turn));
        } else if (play->main_waits) {
            advance_main(play);
        }
    }
    if (--play->outstanding == 0) {
        play->replay->on_end(play, now);
    } else if (play->in_flight == 0 && play->replay->on_quiet != NULL) {
        play->replay->on_quiet(play, now);
    }
}

apmw_time apmw_play_earliest(const apmw_play *play)
{
    apmw_time earliest = APMW_TIME_NEVER;
    for (int32_t l = 0; l < play->n_lines; l++) {
        earliest = play->lines[l]->due < earliest ? play->lines[l]->due : earliest;
    }
    return earliest;
}

void apmw_play_advance(apmw_play *play, apmw_time by)
{
    apmw_des *des = apmw_sim_des(play->replay->sim);
    for (int32_t l = 0; l < play->n_lines; l++) {
        apmw_play_line *line = play->lines[l];
        if (line->due != APMW_TIME_NEVER) {
            apmw_des_cancel(des, &line->event);
            line->due -= by;
            line->event = apmw_des_schedule(des, line->due, APMW_EVENT_CLIENT, on_send, line, 0);
        }
    }
}

void apmw_play_drop(apmw_play *play)
{
    apmw_des *des = apmw_sim_des(play->replay->sim);
    for (int32_t l = 0; l < play->n_lines; l++) {
        apmw_play_line *line = play->lines[l];
        if (line->due != APMW_TIME_NEVER) {
            apmw_des_cancel(des, &line->event);
            line->due = APMW_TIME_NEVER;
            play->outstanding--;
        }
    }
}

void apmw_play_free(apmw_play *play)
{
    free(play->streams);
    free(play->kept);
    for (int32_t l = 0; l < play->line_room; l++) {
        free(play->lines[l]);
    }
    free(play->lines);
}
