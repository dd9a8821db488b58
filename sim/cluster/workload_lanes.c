/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Lanes that replay sessions as AgentX does (cluster.h). A warm-up fills the cache with what the first session of every
 * lane has sent before its start; when all lanes are warm the profile begins for all at once; when its time is over nothing
 * more is sent. */
#include <inttypes.h>
#include <stdlib.h>

#include "apmw/rng.h"
#include "workload_play.h"

typedef struct lane {
    apmw_play play;      /* first: a lane is its play */
    apmw_request warmup;
    int32_t first;       /* turn at which the first session starts */
    int32_t next_warmup; /* turn of the warm-up to send next; = first: the lane is warm */
    apmw_time quiet_at;  /* since when nothing of the lane is in flight */
} lane;

typedef struct lanes {
    apmw_replay replay;  /* first: a play's replay is its driver */
    apmw_lanes config;
    lane *items;
    int64_t n_warm;
    bool profiling, grace_over;
    apmw_time quiet_at;  /* since when nothing at all is in flight */
} lanes;

/* ------------------------------------------------------------------ idle time */

/* Waits of a lane in which nothing is in flight are shortened to the cap: its next turn comes earlier, and all that waits
 * beside it by as much. */
static void cap_lane(const lanes *all, lane *one, apmw_time now)
{
    if (all->config.tree_idle_ns <= 0 || one->play.in_flight > 0) {
        return;
    }
    const apmw_time earliest = apmw_play_earliest(&one->play);
    apmw_time latest = one->quiet_at + all->config.tree_idle_ns;
    latest = latest < now ? now : latest;
    if (earliest != APMW_TIME_NEVER && earliest > latest) {
        apmw_play_advance(&one->play, earliest - latest);
    }
}

/* The same for the whole system: every lane's waits are shortened by as much. */
static void cap_system(lanes *all, apmw_time now)
{
    if (all->config.system_idle_ns <= 0 || all->replay.in_flight > 0) {
        return;
    }
    apmw_time earliest = APMW_TIME_NEVER;
    for (int64_t i = 0; i < all->config.n_lanes; i++) {
        const apmw_time due = apmw_play_earliest(&all->items[i].play);
        earliest = due < earliest ? due : earliest;
    }
    apmw_time latest = all->quiet_at + all->config.system_idle_ns;
    latest = latest < now ? now : latest;
    for (int64_t i = 0; earliest != APMW_TIME_NEVER && earliest > latest && i < all->config.n_lanes; i++) {
        apmw_play_advance(&all->items[i].play, earliest - latest);
    }
}

static void on_end(apmw_play *play, apmw_time now);

static void on_quiet(apmw_play *play, apmw_time now)
{
    lanes *all = (lanes *)play->replay;
    lane *one = (lane *)play;
    if (play->failed) { /* what would be sent later is not sent at all */
        apmw_play_drop(play);
        on_end(play, now);
        return;
    }
    one->quiet_at = now;
    cap_lane(all, one, now);
    if (all->replay.in_flight == 0) {
        all->quiet_at = now;
        cap_system(all, now);
    }
}

/* ------------------------------------------------------------------ sessions */

/* Main-line turn number k (from 0) of the play's trajectory. */
static int32_t main_turn(const apmw_play *play, int64_t k)
{
    int32_t turn = apmw_play_next(play, 0, 0);
    while (k-- > 0 && turn >= 0) {
        turn = apmw_play_next(play, 0, turn + 1);
    }
    return turn;
}

/* The turn at which a lane's first session starts, drawn among the main-line turns that fit the context, and the first of
 * the turns before it that the warm-up sends. A session that consists of sub-agents so far starts with its first turn. */
static void choose_start(const lanes *all, lane *one)
{
    const apmw_play *play = &one->play;
    const int32_t n_fit = all->replay.n_fit[apmw_replay_assigned(&all->replay, play->agent, 0)];
    int64_t n_main = 0;
    for (int32_t turn = apmw_play_next(play, 0, 0); turn >= 0 && turn < n_fit; turn = apmw_play_next(play, 0, turn + 1)) {
        n_main++;
    }
    apmw_rng rng = apmw_rng_make(all->config.seed, "lane start", (uint64_t)play->agent, 0);
    const double share = all->config.start_from + (all->config.start_to - all->config.start_from) * apmw_rng_uniform(&rng);
    int64_t k = (int64_t)(share * (double)n_main);
    k = n_main > 0 && k >= n_main ? n_main - 1 : k;
    const int64_t warmups = k < all->config.warmup_turns ? k : all->config.warmup_turns;
    one->first = main_turn(play, k);
    one->first = one->first < 0 ? play->last_main : one->first;
    one->next_warmup = warmups > 0 ? main_turn(play, k - warmups) : one->first;
}

/* The session's first turn of the profile. It falls into the wait before that turn, so a uniform share of it is left. */
static void enter_profile(lanes *all, lane *one, apmw_time now)
{
    apmw_play *play = &one->play;
    apmw_play_begin(play, one->first);
    apmw_time wait = apmw_play_delay(play, play->first);
    if (all->config.tree_idle_ns > 0 && wait > all->config.tree_idle_ns) {
        wait = all->config.tree_idle_ns;
    }
    apmw_rng rng = apmw_rng_make(all->config.seed, "lane wait", (uint64_t)play->agent, 0);
    apmw_play_send_later(play->lines[0], (apmw_time)((double)wait * apmw_rng_uniform(&rng)));
    one->quiet_at = now;
    cap_lane(all, one, now);
}

/* The lane takes its next session from its first turn. A failed request ends a session, since later turns are longer; the
 * pause keeps a deployment that rejects everything from looping without time passing. */
static void on_end(apmw_play *play, apmw_time now)
{
    lanes *all = (lanes *)play->replay;
    lane *one = (lane *)play;
    const bool failed = play->failed;
    if (all->replay.in_flight == 0) {
        all->quiet_at = now;
    }
    play->number++;
    const bool more = all->config.sessions_per_lane <= 0 || play->number < all->config.sessions_per_lane;
    if (!all->replay.closed && more) {
        if (!apmw_play_take(play)) {
            return;
        }
        apmw_play_begin(play, 0);
        const apmw_time wait = apmw_play_delay(play, play->first);
        apmw_play_send_later(play->lines[0], failed && wait < APMW_NS_PER_S ? APMW_NS_PER_S : wait);
        one->quiet_at = now;
        cap_lane(all, one, now);
    }
    cap_system(all, now);
}

/* ------------------------------------------------------------------ warm-up and profile */

static void on_profile_end(apmw_des *des, void *subject, uint64_t argument)
{
    (void)des;
    (void)argument;
    lanes *all = subject;
    all->replay.closed = true;
    for (int64_t i = 0; i < all->config.n_lanes; i++) {
        apmw_play_drop(&all->items[i].play);
    }
}

static void begin_profile(lanes *all, apmw_time now)
{
    all->profiling = true;
    if (all->config.profile_ns > 0) {
        apmw_des_schedule(apmw_sim_des(all->replay.sim), now + all->config.profile_ns, APMW_EVENT_CLIENT, on_profile_end,
                          all, 0);
    }
    if (all->config.on_profile != NULL) {
        all->config.on_profile(all->config.self, now);
    }
    all->quiet_at = now;
    for (int64_t i = 0; i < all->config.n_lanes; i++) {
        if (all->items[i].next_warmup == all->items[i].first) {
            enter_profile(all, &all->items[i], now);
        }
    }
    cap_system(all, now);
}

static void on_profile(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    lanes *all = subject;
    if (!all->profiling) {
        begin_profile(all, apmw_des_now(des));
    }
}

/* Once the grace is over the profile begins without those who are not warm; they follow when their request has ended. */
static void warm(lane *one, apmw_time now)
{
    lanes *all = (lanes *)one->play.replay;
    all->n_warm++;
    if (all->profiling) {
        enter_profile(all, one, now);
        cap_system(all, now);
    } else if (all->n_warm == all->config.n_lanes) {
        /* An event of its own: requests of this instant end before the profile begins. */
        apmw_des_schedule(apmw_sim_des(all->replay.sim), now, APMW_EVENT_CLIENT, on_profile, all, 0);
    }
}

static void send_warmup(lane *one)
{
    lanes *all = (lanes *)one->play.replay;
    apmw_play_fill(&one->play, one->next_warmup, &one->warmup);
    one->warmup.record.n_out = 1;
    one->warmup.record.last_of_trajectory = false;
    one->warmup.max_tokens = 1;
    all->replay.in_flight++;
    apmw_sim_submit(all->replay.sim, &one->warmup);
}

static void on_warmup_done(apmw_request *request, void *self, apmw_time now)
{
    (void)request;
    lane *one = self;
    lanes *all = (lanes *)one->play.replay;
    all->replay.in_flight--;
    if (all->replay.in_flight == 0) {
        all->quiet_at = now;
    }
    one->next_warmup = all->profiling ? one->first : apmw_play_next(&one->play, 0, one->next_warmup + 1);
    if (one->next_warmup != one->first) {
        send_warmup(one);
    } else {
        warm(one, now);
    }
}

static void on_begin(apmw_des *des, void *subject, uint64_t argument)
{
    (void)argument;
    lane *one = subject;
    lanes *all = (lanes *)one->play.replay;
    if (!apmw_play_take(&one->play)) {
        return;
    }
    choose_start(all, one);
    if (one->next_warmup == one->first) {
        warm(one, apmw_des_now(des));
    } else {
        send_warmup(one);
    }
}

/* ------------------------------------------------------------------ driver */

static apmw_status start(void *self, apmw_sim *sim, apmw_error *err)
{
    (void)err;
    lanes *all = self;
    all->replay.sim = sim;
    for (int64_t i = 0; i < all->config.n_lanes; i++) {
        apmw_des_schedule(apmw_sim_des(sim), 0, APMW_EVENT_CLIENT, on_begin, &all->items[i], 0);
    }
    if (all->config.warmup_grace_ns > 0) {
        apmw_des_schedule(apmw_sim_des(sim), all->config.warmup_grace_ns, APMW_EVENT_CLIENT, on_profile, all, 0);
    }
    return APMW_OK;
}

static void free_lanes(void *self)
{
    lanes *all = self;
    for (int64_t i = 0; all->items != NULL && i < all->config.n_lanes; i++) {
        apmw_play_free(&all->items[i].play);
    }
    free(all->items);
    apmw_replay_free(&all->replay);
    free(all);
}

static apmw_status prepare(lanes *all, apmw_error *err)
{
    const apmw_lanes *c = &all->config;
    all->replay = (apmw_replay){
        .trace = c->trace,
        .max_context = c->max_context,
        .forced_output = true,
        .send_overflow = true,
        .share_global = c->share_global,
        .output_cached = c->output_cached,
        .concurrent_lanes = true,
        .delay_scale = c->delay_scale,
        .seed = c->seed,
        .on_end = on_end,
        .on_quiet = on_quiet,
    };
    all->items = calloc((size_t)c->n_lanes, sizeof *all->items);
    if (all->items == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory for %" PRId64 " lanes", c->n_lanes);
    }
    for (int64_t i = 0; i < c->n_lanes; i++) {
        lane *one = &all->items[i];
        one->play.replay = &all->replay;
        one->play.agent = (int32_t)i;
        one->warmup.on_done = on_warmup_done;
        one->warmup.self = one;
    }
    return apmw_replay_prepare(&all->replay, err);
}

apmw_status apmw_workload_lanes(const apmw_lanes *config, apmw_workload *out, apmw_error *err)
{
    if (config->trace == NULL || config->trace->n == 0 || config->trace->n > INT32_MAX) {
        return apmw_error_set(err, APMW_E_SCENARIO, "lanes need a trace with at least one session");
    }
    if (config->n_lanes < 1 || config->n_lanes > INT32_MAX || config->warmup_turns < 0 || config->warmup_grace_ns < 0 ||
        config->profile_ns < 0 || config->tree_idle_ns < 0 || config->system_idle_ns < 0 ||
        !(config->delay_scale >= 0.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "lanes: at least one, and no negative count, time or delay scale");
    }
    if (!(config->start_from >= 0.0 && config->start_from <= config->start_to && config->start_to <= 1.0)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "lanes start between %g and %g of a session: shares of 0 to 1, in order",
                              config->start_from, config->start_to);
    }
    lanes *all = calloc(1, sizeof *all);
    if (all == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    all->config = *config;
    const apmw_status status = prepare(all, err);
    if (status != APMW_OK) {
        free_lanes(all);
        return status;
    }
    *out = (apmw_workload){.self = all, .start = start, .free = free_lanes};
    return APMW_OK;
}
