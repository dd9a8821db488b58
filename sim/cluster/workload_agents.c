/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Agents that replay trajectories in a closed loop, one after another (AgentPerf; cluster.h). */
#include <inttypes.h>
#include <stdlib.h>

#include "apmw/rng.h"
#include "workload_play.h"

typedef struct agents {
    apmw_replay replay; /* first: a play's replay is its driver */
    apmw_agents config;
    apmw_play *plays;   /* of each agent */
    uint64_t *positions; /* of each given start's trajectory among the playable ones */
    apmw_start *starts;  /* those that fit */
    size_t n_starts, next_start;
    size_t *taken;           /* of each agent: the start that it plays */
} agents;

/* The next given start, for whoever comes first. */
static void begin_given(agents *all, apmw_play *play)
{
    if (all->next_start == all->n_starts) {
        return;
    }
    const size_t i = all->next_start++;
    all->taken[play->agent] = i;
    if (!apmw_play_take_at(play, all->positions[i])) {
        return;
    }
    apmw_play_begin(play, all->starts[i].turn);
    apmw_play_send_later(play->lines[0], apmw_play_delay(play, play->first));
}

static void on_begin(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    apmw_play *play = subject;
    agents *all = (agents *)play->replay;
    if (all->config.starts != NULL) {
        begin_given(all, play);
        return;
    }
    if (!apmw_play_take(play)) {
        return;
    }
    int32_t first = 0;
    if (play->number == 0 && all->config.max_start_offset > 0) {
        apmw_rng rng = apmw_rng_make(all->config.seed, "start offset", (uint64_t)play->agent, 0);
        const int32_t offset = (int32_t)apmw_rng_below(&rng, (uint64_t)all->config.max_start_offset + 1);
        first = offset < play->n_turns ? offset : play->n_turns - 1;
    }
    apmw_play_begin(play, first);
    apmw_play_send(play->lines[0]);
}

/* The next trajectory, or the end of the agent. */
static void on_end(apmw_play *play, apmw_time now)
{
    const agents *all = (const agents *)play->replay;
    const apmw_replay *replay = play->replay;
    play->number++;
    if (all->config.plays_per_agent > 0 && play->number >= all->config.plays_per_agent) {
        return;
    }
    apmw_time delay; /* given starts also wait when they are taken */
    if (all->config.starts != NULL) {
        delay = all->starts[all->taken[play->agent]].after_ns;
    } else {
        const int32_t next = replay->playable[apmw_replay_assigned(replay, play->agent, play->number)];
        delay = (apmw_time)((double)replay->trace->items[next].turns[0].delay_ns * replay->delay_scale + 0.5);
    }
    /* A failed request ends its trajectory, since later turns are longer; the pause keeps a deployment that rejects
     * everything from looping without time passing. */
    apmw_des_schedule(apmw_sim_des(replay->sim), now + (play->failed && delay < APMW_NS_PER_S ? APMW_NS_PER_S : delay),
                      APMW_EVENT_CLIENT, on_begin, play, 0);
}

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    agents *all = self;
    all->replay.sim = sim;
    for (int64_t i = 0; i < all->config.n_agents; i++) {
        apmw_des_schedule(apmw_sim_des(sim), i * all->config.spawn_interval_ns, APMW_EVENT_CLIENT, on_begin,
                          &all->plays[i], 0);
    }
    return APMW_OK;
}

static void free_agents(void *self)
{
    agents *all = self;
    for (int64_t i = 0; all->plays != NULL && i < all->config.n_agents; i++) {
        apmw_play_free(&all->plays[i]);
    }
    free(all->plays);
    free(all->positions);
    free(all->starts);
    free(all->taken);
    apmw_replay_free(&all->replay);
    free(all);
}

/* Which of the given starts can be played, and where their trajectories stand among the playable ones. */
static apmw_status find_starts(agents *all, apmw_error *err)
{
    const apmw_agents *c = &all->config;
    const apmw_replay *replay = &all->replay;
    all->positions = calloc(c->n_starts + 1, sizeof *all->positions);
    all->starts = calloc(c->n_starts + 1, sizeof *all->starts);
    all->taken = calloc((size_t)c->n_agents, sizeof *all->taken);
    if (all->positions == NULL || all->starts == NULL || all->taken == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %zu starts", c->n_starts);
    }
    for (size_t i = 0; i < c->n_starts; i++) {
        const apmw_start *s = &c->starts[i];
        if (s->after_ns < 0) {
            return apmw_error_set(err, APMW_E_SCENARIO, "start %zu: a wait is not negative", i);
        }
        if (s->trajectory < 0 || (size_t)s->trajectory >= c->trace->n || s->turn < 0 ||
            s->turn >= c->trace->items[s->trajectory].n_turns) {
            return apmw_error_set(err, APMW_E_SCENARIO, "start %zu: there is no turn %d of trajectory %d", i, s->turn,
                                  s->trajectory);
        }
        uint64_t position = 0;
        while (position < replay->n_playable && replay->playable[position] != s->trajectory) {
            position++;
        }
        if (position < replay->n_playable && s->turn < replay->n_fit[position]) {
            all->positions[all->n_starts] = position;
            all->starts[all->n_starts++] = *s;
        }
    }
    return APMW_OK;
}

static apmw_status prepare(agents *all, apmw_error *err)
{
    const apmw_agents *c = &all->config;
    all->replay = (apmw_replay){
        .trace = c->trace,
        .max_output_tokens = c->max_output_tokens,
        .max_context = c->max_context,
        .share_global = c->share_global,
        .output_cached = c->output_cached,
        .concurrent_lanes = c->concurrent_lanes,
        .delay_scale = c->delay_scale,
        .first_token_timeout_ns = c->first_token_timeout_ns,
        .seed = c->seed,
        .on_end = on_end,
    };
    all->plays = calloc((size_t)c->n_agents, sizeof *all->plays);
    if (all->plays == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %" PRId64 " agents", c->n_agents);
    }
    for (int64_t i = 0; i < c->n_agents; i++) {
        all->plays[i].replay = &all->replay;
        all->plays[i].agent = (int32_t)i;
    }
    const apmw_status status = apmw_replay_prepare(&all->replay, err);
    return status == APMW_OK && c->starts != NULL ? find_starts(all, err) : status;
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
