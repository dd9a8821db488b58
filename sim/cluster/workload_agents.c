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
} agents;

static void on_begin(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    apmw_play *play = subject;
    const agents *all = (const agents *)play->replay;
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
    const int32_t next = replay->playable[apmw_replay_assigned(replay, play->agent, play->number)];
    const apmw_time delay = (apmw_time)((double)replay->trace->items[next].turns[0].delay_ns * replay->delay_scale + 0.5);
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
    apmw_replay_free(&all->replay);
    free(all);
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
    return apmw_replay_prepare(&all->replay, err);
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
