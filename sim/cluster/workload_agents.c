/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Agents that replay trajectories in a closed loop (AgentPerf; cluster.h). A play runs one or more lanes: each sends a turn,
 * waits for its end and its delay, and goes on. Sequentially all turns form one lane in turn order; concurrently sub-agents
 * have lanes of their own, spawned and joined by the main line. */
#include "apmw/cluster.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/rng.h"

/* One line of turns of a play. */
typedef struct lane_run {
    struct agent *agent;
    apmw_request request;
    int32_t turn;     /* being served or about to be sent, -1 = none left */
    bool started, ended;
} lane_run;

typedef struct agent {
    struct agents *all;
    int32_t index, play; /* play: trajectories begun before this one */
    int32_t trajectory, first, n_play; /* first turn played; turns that fit the context limit */
    int32_t last_main;    /* last turn of the main line: its end ends the trajectory */
    apmw_stream *streams; /* of each turn of this play */
    bool *kept;           /* of each turn: its output continues its stream */
    int32_t room;         /* entries of the two */
    lane_run **lanes;     /* pointers, since the engine holds requests while the array grows */
    int32_t n_lanes, lane_room;
    int32_t outstanding;  /* requests in flight or about to be sent */
    bool main_waits;      /* the main line's next turn waits for lanes that it joins */
    bool failed;
} agent;

typedef struct agents {
    apmw_agents config;
    apmw_sim *sim;
    agent *items;
    int32_t *playable;    /* trajectories with at least one turn that fits */
    int32_t *n_play;      /* of each playable one */
    uint64_t n_playable;
    apmw_stream *globals; /* by prefix group: shared across agents; 0 = not made yet */
    int32_t n_globals;
    uint64_t next_id;
    bool out_of_memory;
} agents;

static void on_begin(apmw_des *des, void *subject, uint64_t argument);
static void on_send(apmw_des *des, void *subject, uint64_t argument);
static void on_done(apmw_request *request, void *self, apmw_time now);

static int64_t output_tokens(const agents *all, const apmw_turn *turn)
{
    const int64_t cap = all->config.max_output_tokens;
    return cap > 0 && turn->n_out > cap ? cap : turn->n_out;
}

/* A permutation of [0, n) as a function: four Feistel rounds on the next even power of two, walked until inside
 * (Black & Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). So a round of plays hands every trajectory to
 * one agent, and an agent's trajectories do not depend on how many agents there are. */
static uint64_t permuted(uint64_t key, uint64_t n, uint64_t x)
{
    unsigned half = 1;
    while ((1ULL << (2 * half)) < n) {
        half++;
    }
    const uint64_t mask = (1ULL << half) - 1;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            apmw_rng rng = {.key = key, .counter = (round << 32) | right};
            const uint64_t mixed = left ^ (apmw_rng_u64(&rng) & mask);
            left = right;
            right = mixed;
        }
        x = (left << half) | right;
    } while (x >= n);
    return x;
}

/* Position in `playable` of an agent's k-th trajectory. */
static uint64_t assigned(const agents *all, int32_t index, int32_t play)
{
    const uint64_t n = all->n_playable, a = (uint64_t)index;
    const uint64_t key = apmw_rng_key(all->config.seed, "trajectories", (uint64_t)play, a / n);
    return permuted(key, n, a % n);
}

/* Stream under which a turn without parent starts: the shared or the play's own copy of its prefix group. */
static apmw_stream root_prefix(agents *all, const apmw_trajectory *t, apmw_stream *own)
{
    apmw_streams *streams = apmw_sim_streams(all->sim);
    if (all->config.share_global && t->global_id >= 0) {
        apmw_stream *shared = &all->globals[t->global_id];
        if (*shared == 0) {
            *shared = apmw_streams_new(streams, 0, 0);
        }
        return *shared;
    }
    if (*own == 0) {
        *own = apmw_streams_new(streams, 0, 0);
    }
    return *own;
}

/* Content of every turn of a play, including turns before a start offset: what follows shares with their prompts. A
 * turn extends its parent's stream when it goes on exactly where that stream's content ends and is the first to do so,
 * else it forks where the two part. */
static bool lay_streams(agents *all, agent *a, const apmw_trajectory *t)
{
    apmw_streams *streams = apmw_sim_streams(all->sim);
    bool *extended = calloc((size_t)t->n_turns, sizeof *extended);
    if (extended == NULL) {
        return false;
    }
    memset(a->kept, 0, (size_t)t->n_turns * sizeof *a->kept);
    for (int32_t i = 0; i < t->n_turns && all->config.output_cached; i++) {
        if (t->turns[i].parent >= 0 && t->turns[i].shared_out > 0) {
            a->kept[t->turns[i].parent] = true;
        }
    }
    apmw_stream own = 0;
    bool ok = true;
    for (int32_t i = 0; i < t->n_turns && ok; i++) {
        const apmw_turn *turn = &t->turns[i];
        if (turn->parent < 0) {
            const int64_t prefix = t->global_id >= 0 ? t->global_tokens : 0;
            const apmw_stream root = prefix > 0 ? root_prefix(all, t, &own) : 0;
            a->streams[i] = root == 0 && prefix > 0 ? 0 : apmw_streams_new(streams, root, root != 0 ? prefix : 0);
        } else {
            const int32_t p = turn->parent;
            const apmw_turn *parent = &t->turns[p];
            const int64_t produced = output_tokens(all, parent);
            const int64_t out = !a->kept[p] ? 0 : turn->shared_out < produced ? turn->shared_out : produced;
            const int64_t common = turn->shared_in + out;
            const int64_t end = parent->n_in + (a->kept[p] ? produced : 0);
            if (common == end && !extended[p]) {
                a->streams[i] = a->streams[p];
                extended[p] = true;
            } else if (common == 0) {
                a->streams[i] = apmw_streams_new(streams, 0, 0);
            } else {
                a->streams[i] = apmw_streams_new(streams, a->streams[p], common);
            }
        }
        ok = a->streams[i] != 0;
    }
    free(extended);
    return ok;
}

static void out_of_memory(agents *all)
{
    all->out_of_memory = true;
    apmw_des_stop(apmw_sim_des(all->sim));
}

static const apmw_trajectory *trajectory_of(const agent *a)
{
    return &a->all->config.trace->items[a->trajectory];
}

/* Which line of the play a turn belongs to. */
static int32_t line_of(const agent *a, int32_t turn)
{
    return a->all->config.concurrent_lanes ? trajectory_of(a)->turns[turn].lane : 0;
}

/* Next turn of a line at or after `from`, -1 = none. */
static int32_t next_of_line(const agent *a, int32_t line, int32_t from)
{
    for (int32_t i = from; i < a->n_play; i++) {
        if (line_of(a, i) == line) {
            return i;
        }
    }
    return -1;
}

static bool reserve(agent *a, const apmw_trajectory *t)
{
    if (t->n_turns > a->room) {
        apmw_stream *s = realloc(a->streams, (size_t)t->n_turns * sizeof *s);
        a->streams = s != NULL ? s : a->streams;
        bool *k = realloc(a->kept, (size_t)t->n_turns * sizeof *k);
        a->kept = k != NULL ? k : a->kept;
        if (s == NULL || k == NULL) {
            return false;
        }
        a->room = t->n_turns;
    }
    a->n_lanes = a->all->config.concurrent_lanes && t->n_lanes > 1 ? t->n_lanes : 1;
    if (a->n_lanes > a->lane_room) {
        lane_run **bigger = realloc(a->lanes, (size_t)a->n_lanes * sizeof *bigger);
        if (bigger == NULL) {
            return false;
        }
        a->lanes = bigger;
        while (a->lane_room < a->n_lanes) {
            lane_run *lane = calloc(1, sizeof *lane);
            if (lane == NULL) {
                return false;
            }
            lane->agent = a;
            lane->request.on_done = on_done;
            lane->request.self = lane;
            a->lanes[a->lane_room++] = lane;
        }
    }
    return true;
}

static apmw_time scaled(const agents *all, int64_t delay_ns)
{
    return (apmw_time)((double)delay_ns * all->config.delay_scale + 0.5);
}

/* The lane's turn goes out `delay` later. */
static void send_later(lane_run *lane, apmw_time delay)
{
    apmw_des *des = apmw_sim_des(lane->agent->all->sim);
    lane->agent->outstanding++;
    apmw_des_schedule(des, apmw_des_now(des) + delay, APMW_EVENT_CLIENT, on_send, lane, 0);
}

/* Starts the lanes that a turn of the main line spawns (-1: those of the beginning). A lane that begins before the turn at
 * which the agent started belongs to the past. */
static void spawn(agent *a, int32_t after)
{
    const apmw_trajectory *t = trajectory_of(a);
    for (int32_t l = 1; l < a->n_lanes; l++) {
        lane_run *lane = a->lanes[l];
        if (lane->started || t->lanes[l].spawn_after != after) {
            continue;
        }
        lane->started = true;
        lane->turn = next_of_line(a, l, 0);
        if (lane->turn < a->first) {
            lane->ended = true;
            continue;
        }
        send_later(lane, scaled(a->all, t->turns[lane->turn].delay_ns));
    }
}

/* Have the lanes ended that must have before this turn of the main line? */
static bool joined(const agent *a, int32_t turn)
{
    const apmw_trajectory *t = trajectory_of(a);
    for (int32_t l = 1; l < a->n_lanes; l++) {
        if (t->lanes[l].join_before == turn && a->lanes[l]->started && !a->lanes[l]->ended) {
            return false;
        }
    }
    return true;
}

/* The next turn of the main line goes out its delay after whatever came last: the turn before it or the end of a lane that
 * it joins. Called at both. */
static void advance_main(agent *a)
{
    lane_run *lane = a->lanes[0];
    a->main_waits = lane->turn >= 0 && !joined(a, lane->turn);
    if (lane->turn >= 0 && !a->main_waits) {
        send_later(lane, scaled(a->all, trajectory_of(a)->turns[lane->turn].delay_ns));
    }
}

static void begin_play(agents *all, agent *a)
{
    const uint64_t position = assigned(all, a->index, a->play);
    a->trajectory = all->playable[position];
    a->n_play = all->n_play[position];
    const apmw_trajectory *t = trajectory_of(a);
    if (!reserve(a, t) || !lay_streams(all, a, t)) {
        out_of_memory(all);
        return;
    }
    a->first = 0;
    a->failed = a->main_waits = false;
    if (a->play == 0 && all->config.max_start_offset > 0) {
        apmw_rng rng = apmw_rng_make(all->config.seed, "start offset", (uint64_t)a->index, 0);
        const int32_t offset = (int32_t)apmw_rng_below(&rng, (uint64_t)all->config.max_start_offset + 1);
        a->first = offset < a->n_play ? offset : a->n_play - 1;
    }
    for (int32_t l = 0; l < a->n_lanes; l++) {
        a->lanes[l]->started = a->lanes[l]->ended = false;
        a->lanes[l]->turn = -1;
    }
    /* The main line begins at or after the offset; where only sub-agents follow, with its own last turn. */
    int32_t start = next_of_line(a, 0, a->first);
    a->last_main = 0;
    for (int32_t i = 0; i < a->n_play; i++) {
        a->last_main = line_of(a, i) == 0 ? i : a->last_main;
    }
    start = start < 0 ? a->last_main : start;
    a->first = start;
    for (int32_t l = 1; l < a->n_lanes; l++) { /* lanes of turns that are not played do not start */
        const int32_t after = t->lanes[l].spawn_after;
        a->lanes[l]->started = a->lanes[l]->ended = after >= 0 && after < start;
    }
    a->lanes[0]->started = true;
    a->lanes[0]->turn = start;
    spawn(a, -1);
}

/* The client asks for at most its cap and never beyond the context of the model, which a server would refuse. */
static int64_t declared_cap(const agents *all, const apmw_turn *turn)
{
    const int64_t cap = all->config.max_output_tokens;
    const int64_t room = all->config.max_context > 0 ? all->config.max_context - turn->n_in : cap;
    return cap > 0 && room < cap ? room : cap;
}

static void send_turn(lane_run *lane)
{
    agent *a = lane->agent;
    agents *all = a->all;
    const apmw_turn *turn = &trajectory_of(a)->turns[lane->turn];
    apmw_request *r = &lane->request;
    r->record = (apmw_request_record){
        .id = all->next_id++,
        .agent = a->index,
        .trajectory = a->trajectory,
        .play = a->play,
        .turn = lane->turn,
        .rank = -1,
        .n_prompt = turn->n_in,
        .n_out = output_tokens(all, turn),
        .last_of_trajectory = lane->turn == a->last_main,
    };
    r->stream = a->streams[lane->turn];
    r->output_kept = a->kept[lane->turn];
    r->rank_hint = -1;
    r->max_tokens = declared_cap(all, turn);
    apmw_sim_submit(all->sim, r);
}

/* Nothing of the play is in flight or to come: the next trajectory, or the end of the agent. */
static void end_play(agent *a, apmw_time now)
{
    agents *all = a->all;
    a->play++;
    if (all->config.plays_per_agent > 0 && a->play >= all->config.plays_per_agent) {
        return;
    }
    const apmw_trajectory *next = &all->config.trace->items[all->playable[assigned(all, a->index, a->play)]];
    const apmw_time delay = scaled(all, next->turns[0].delay_ns);
    /* A failed request ends its trajectory, since later turns are longer; the pause keeps a deployment that rejects
     * everything from looping without time passing. */
    apmw_des_schedule(apmw_sim_des(all->sim), now + (a->failed && delay < APMW_NS_PER_S ? APMW_NS_PER_S : delay),
                      APMW_EVENT_CLIENT, on_begin, a, 0);
}

static void on_begin(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    agent *a = subject;
    begin_play(a->all, a);
    if (!a->all->out_of_memory) {
        a->outstanding++;
        send_turn(a->lanes[0]);
    }
}

/* The tools of a lane are done. */
static void on_send(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    lane_run *lane = subject;
    if (!lane->agent->failed) {
        send_turn(lane);
    } else if (--lane->agent->outstanding == 0) {
        end_play(lane->agent, apmw_des_now(des));
    }
}

static void on_done(apmw_request *request, void *self, apmw_time now)
{
    lane_run *lane = self;
    agent *a = lane->agent;
    const int32_t line = lane == a->lanes[0] ? 0 : line_of(a, lane->turn);
    const int32_t done = lane->turn;
    a->failed = a->failed || request->record.state != APMW_REQUEST_DONE;
    lane->turn = a->failed ? -1 : next_of_line(a, line, done + 1);
    if (lane->turn < 0) {
        lane->ended = true;
    }
    if (!a->failed) {
        if (line == 0) {
            spawn(a, done);
            advance_main(a);
        } else if (lane->turn >= 0) {
            send_later(lane, scaled(a->all, trajectory_of(a)->turns[lane->turn].delay_ns));
        } else if (a->main_waits) {
            advance_main(a);
        }
    }
    if (--a->outstanding == 0) {
        end_play(a, now);
    }
}

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    agents *all = self;
    all->sim = sim;
    for (int64_t i = 0; i < all->config.n_agents; i++) {
        apmw_des_schedule(apmw_sim_des(sim), i * all->config.spawn_interval_ns, APMW_EVENT_CLIENT, on_begin,
                          &all->items[i], 0);
    }
    return APMW_OK;
}

static void free_agents(void *self)
{
    agents *all = self;
    for (int64_t i = 0; all->items != NULL && i < all->config.n_agents; i++) {
        free(all->items[i].streams);
        free(all->items[i].kept);
        for (int32_t l = 0; l < all->items[i].lane_room; l++) {
            free(all->items[i].lanes[l]);
        }
        free(all->items[i].lanes);
    }
    free(all->items);
    free(all->playable);
    free(all->n_play);
    free(all->globals);
    free(all);
}

/* Turns that fit the context limit: all before the first that does not. */
static int32_t fitting_turns(const agents *all, const apmw_trajectory *t)
{
    int32_t n = 0;
    while (n < t->n_turns && (all->config.max_context <= 0 ||
                              t->turns[n].n_in + output_tokens(all, &t->turns[n]) <= all->config.max_context)) {
        n++;
    }
    return n;
}

static apmw_status prepare(agents *all, apmw_error *err)
{
    const apmw_trace *trace = all->config.trace;
    all->items = calloc((size_t)all->config.n_agents, sizeof *all->items);
    all->playable = calloc(trace->n, sizeof *all->playable);
    all->n_play = calloc(trace->n, sizeof *all->n_play);
    if (all->items == NULL || all->playable == NULL || all->n_play == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %" PRId64 " agents", all->config.n_agents);
    }
    for (size_t i = 0; i < trace->n; i++) {
        const int32_t n = fitting_turns(all, &trace->items[i]);
        all->n_globals = trace->items[i].global_id >= all->n_globals ? trace->items[i].global_id + 1 : all->n_globals;
        if (n > 0) {
            all->playable[all->n_playable] = (int32_t)i;
            all->n_play[all->n_playable++] = n;
        }
    }
    if (all->n_playable == 0) {
        return apmw_error_set(err, APMW_E_SCENARIO, "no trajectory has a first turn within %" PRId64 " tokens of context",
                              all->config.max_context);
    }
    all->globals = calloc((size_t)all->n_globals + 1, sizeof *all->globals);
    if (all->globals == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %d prefix groups", all->n_globals);
    }
    for (int64_t i = 0; i < all->config.n_agents; i++) {
        agent *a = &all->items[i];
        a->all = all;
        a->index = (int32_t)i;
    }
    return APMW_OK;
}

apmw_status apmw_workload_agents(const apmw_agents *config, apmw_workload *out, apmw_error *err)
{
    if (config->trace == NULL || config->trace->n == 0 || config->trace->n > INT32_MAX) {
        return apmw_error_set(err, APMW_E_SCENARIO, "agents need a trace with at least one trajectory");
    }
    if (config->n_agents < 1 || config->n_agents > INT32_MAX || config->spawn_interval_ns < 0 ||
        config->max_start_offset < 0 || !(config->delay_scale >= 0.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO,
                              "agents: at least one agent, no negative interval, offset or delay scale");
    }
    agents *all = calloc(1, sizeof *all);
    if (all == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    all->config = *config;
    const apmw_status status = prepare(all, err);
    if (status != APMW_OK) {
        free_agents(all);
        return status;
    }
    *out = (apmw_workload){.self = all, .start = start, .free = free_agents};
    return APMW_OK;
}
