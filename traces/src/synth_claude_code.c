/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sessions like those of Claude Code in WEKA / SemiAnalysis cc-traces-weka-042026 (Apache-2.0; 710 sessions,
 * 48,658 main-line requests), whose fitted distributions most defaults are. Four dependences of that corpus
 * are added by hand, since independent draws miss its mean prompt by 15 %: early turns grow more, longer
 * sessions grow less, resumed sessions are shorter the longer their first prompt is and hardly ever compact,
 * and fresh ones compact with 4 to 20 % a turn once they pass 145K tokens. Waits for tools follow TraceLab
 * (University of Washington, CC BY 4.0), because the think times of the WEKA files include the client's own
 * pacing.
 *
 * The previous output is sent again as input. By default its tokens have no identity (shared_out = 0): both
 * makers' clients re-prefill it (TraceLab: 98-99 % of it on the appended side). output_identity=1 keeps it.
 */
#include <math.h>

#include "apmw/rng.h"
#include "apmw/time.h"
#include "private.h"

enum {
    TURNS_SHORT_SHARE_FRESH,
    TURNS_SHORT_SHARE_RESUMED,
    TURNS_SHORT_MEDIAN,
    TURNS_SHORT_SIGMA,
    TURNS_LONG_MEDIAN,
    TURNS_LONG_SIGMA,
    TURNS_START_POWER,
    TURNS_MAX,
    RESUMED_SHARE,
    RESUMED_MEDIAN,
    RESUMED_SIGMA,
    RESUMED_MAX,
    FIRST_MEDIAN,
    FIRST_SIGMA,
    GLOBAL_TOKENS,
    GLOBAL_SD,
    GLOBAL_GROUPS,
    OSL_SHORT_SHARE,
    OSL_SHORT_MEDIAN,
    OSL_SHORT_SIGMA,
    OSL_LONG_MEDIAN,
    OSL_LONG_SIGMA,
    OSL_SESSION_SIGMA,
    OSL_RHO,
    OSL_MAX,
    OUTPUT_IDENTITY,
    EXT_ZERO_SHARE,
    EXT_SMALL_SHARE,
    EXT_SMALL_MEDIAN,
    EXT_SMALL_SIGMA,
    EXT_LARGE_MEDIAN,
    EXT_LARGE_SIGMA,
    EXT_USER_MEDIAN,
    EXT_USER_SIGMA,
    EXT_SESSION_SIGMA,
    EXT_TURNS_POWER,
    EXT_EARLY_MEAN,
    EXT_EARLY_POWER,
    EXT_EARLY_SHARE,
    EXT_EARLY_SIGMA,
    EXT_MAX,
    WINDOW,
    WINDOW_LARGE,
    WINDOW_LARGE_SHARE_FRESH,
    WINDOW_LARGE_SHARE_RESUMED,
    COMPACT_AT,
    COMPACT_ODDS,
    COMPACT_TO,
    COMPACT_KEEP,
    EDIT_SHARE,
    EDIT_DEEP_SHARE,
    EDIT_DEEP_KEEP,
    EDIT_SHALLOW_KEEP,
    USER_SHARE,
    TOOL_FAST_SHARE,
    TOOL_FAST_MEDIAN,
    TOOL_FAST_SIGMA,
    TOOL_10S_SHARE,
    TOOL_60S_SHARE,
    TOOL_TAIL_ALPHA,
    TOOL_MAX,
    TOOL_OVERHEAD,
    TOOL_CALLS,
    THINK_SHORT_SHARE,
    THINK_SHORT_MEDIAN,
    THINK_SHORT_SIGMA,
    THINK_LONG_MEDIAN,
    THINK_LONG_SIGMA,
    THINK_SESSION_SIGMA,
    THINK_MAX,
    SUB_SESSION_SHARE,
    SUB_GROUPS,
    SUB_TWO_SHARE,
    SUB_THREE_SHARE,
    SUB_TURNS_MEDIAN,
    SUB_TURNS_SIGMA,
    SUB_GLOBAL_TOKENS,
    SUB_FIRST_MEDIAN,
    SUB_FIRST_SIGMA,
    SUB_GROWTH_MEAN,
    SUB_GROWTH_SIGMA,
    SUB_REPORT_MIN,
    SUB_REPORT_MAX,
    SUB_FORK_SHARE,
    N_PARAMS
};

static const apmw_tr_param params[N_PARAMS] = {
    [TURNS_SHORT_SHARE_FRESH] = {"turns_short_share_fresh", .044, 0, 1,
                                 "turns: share of the short lognormal, fresh sessions (mean 87 turns)"},
    [TURNS_SHORT_SHARE_RESUMED] = {"turns_short_share_resumed", .42, 0, 1, "the same, resumed ones"},
    [TURNS_SHORT_MEDIAN] = {"turns_short_median", 9.3, 1, 1e6, "turns: median of the short lognormal"},
    [TURNS_SHORT_SIGMA] = {"turns_short_sigma", .694, 0, 5, "turns: its log-standard deviation"},
    [TURNS_LONG_MEDIAN] = {"turns_long_median", 66, 1, 1e6, "turns: median of the long lognormal"},
    [TURNS_LONG_SIGMA] = {"turns_long_sigma", .795, 0, 5, "turns: its log-standard deviation"},
    [TURNS_START_POWER] = {"turns_start_power", .8, 0, 5,
                           "resumed above their median: turns are scaled by (first prompt / median)^-power"},
    [TURNS_MAX] = {"turns_max", 1200, 1, 1e6, "turns: most"},
    [RESUMED_SHARE] = {"resumed_share", .46, 0, 1, "share of sessions that resume a long context"},
    [RESUMED_MEDIAN] = {"resumed_median", 112000, 1, 1e9, "their first prompt: median tokens"},
    [RESUMED_SIGMA] = {"resumed_sigma", .75, 0, 5, "their first prompt: log-standard deviation"},
    [RESUMED_MAX] = {"resumed_max", 880000, 1, 1e9, "their first prompt: most tokens"},
    [FIRST_MEDIAN] = {"first_median", 4000, 1, 1e9,
                      "fresh sessions: median tokens after tools and system prompt"},
    [FIRST_SIGMA] = {"first_sigma", .8, 0, 5, "the same: log-standard deviation"},
    [GLOBAL_TOKENS] = {"global_tokens", 14300, 0, 1e9,
                       "tools and system prompt: mean tokens over agent versions"},
    [GLOBAL_SD] = {"global_sd", 2000, 0, 1e9, "the same: standard deviation"},
    [GLOBAL_GROUPS] = {"global_groups", 8, 0, 1e6,
                       "agent versions, each a shared prefix group; 0: nothing is shared between sessions"},
    [OSL_SHORT_SHARE] = {"osl_short_share", .453, 0, 1, "output: share of the first of two lognormals"},
    [OSL_SHORT_MEDIAN] = {"osl_short_median", 153, 1, 1e9, "output: median of the first"},
    [OSL_SHORT_SIGMA] = {"osl_short_sigma", .365, 0, 5, "output: log-standard deviation of the first"},
    [OSL_LONG_MEDIAN] = {"osl_long_median", 399, 1, 1e9, "output: median of the second"},
    [OSL_LONG_SIGMA] = {"osl_long_sigma", .952, 0, 5, "output: log-standard deviation of the second"},
    [OSL_SESSION_SIGMA] = {"osl_session_sigma", .30, 0, 5,
                           "output: log-standard deviation of a factor of the session"},
    [OSL_RHO] = {"osl_rho", .14, 0, .999, "output: correlation with the previous turn's (normal scores)"},
    [OSL_MAX] = {"osl_max", 32000, 1, 1e9, "output: most tokens"},
    [OUTPUT_IDENTITY] = {"output_identity", 0, 0, 1,
                         "1: the next prompt repeats the output with its identity"},
    [EXT_ZERO_SHARE] = {"ext_zero_share", .107, 0, 1, "tool results: share that adds nothing"},
    [EXT_SMALL_SHARE] = {"ext_small_share", .387, 0, 1,
                         "tool results: share of the small lognormal among the others"},
    [EXT_SMALL_MEDIAN] = {"ext_small_median", 83, 1, 1e9, "tool results: its median tokens"},
    [EXT_SMALL_SIGMA] = {"ext_small_sigma", 1.534, 0, 5, "tool results: its log-standard deviation"},
    [EXT_LARGE_MEDIAN] = {"ext_large_median", 798, 1, 1e9, "tool results: median of the large lognormal"},
    [EXT_LARGE_SIGMA] = {"ext_large_sigma", 1.383, 0, 5, "tool results: its log-standard deviation"},
    [EXT_USER_MEDIAN] = {"ext_user_median", 251, 1, 1e9, "user text: median tokens of a lognormal"},
    [EXT_USER_SIGMA] = {"ext_user_sigma", 1.686, 0, 5, "user text: log-standard deviation"},
    [EXT_SESSION_SIGMA] = {"ext_session_sigma", .45, 0, 5,
                           "both: log-standard deviation of a factor of the session (mean 1)"},
    [EXT_TURNS_POWER] = {"ext_turns_power", .2, 0, 5,
                         "both: longer sessions add less, by (turns / 68)^-power"},
    [EXT_EARLY_MEAN] = {"ext_early_mean", 3000, 0, 1e9,
                        "files read early on: mean tokens that turn 1 gets on top (8.7K against 1.7K later)"},
    [EXT_EARLY_POWER] = {"ext_early_power", 1.5, 0, 10, "the mean at turn i is that of turn 1 / i^power"},
    [EXT_EARLY_SHARE] = {"ext_early_share", .15, .001, 1,
                         "share of turns that get any (the median turn stays as it is)"},
    [EXT_EARLY_SIGMA] = {"ext_early_sigma", 1.0, 0, 5, "their log-standard deviation"},
    [EXT_MAX] = {"ext_max", 235000, 1, 1e9, "tool results and user text: most tokens"},
    [WINDOW] = {"window", 200000, 1, 1e9, "context window"},
    [WINDOW_LARGE] = {"window_large", 1000000, 1, 1e9, "large context window"},
    [WINDOW_LARGE_SHARE_FRESH] = {"window_large_share_fresh", .10, 0, 1,
                                  "share of fresh sessions that have it"},
    [WINDOW_LARGE_SHARE_RESUMED] =
        {"window_large_share_resumed", .95, 0, 1,
         "the same, of resumed ones; those that start above compact_at x window always do"},
    [COMPACT_AT] = {"compact_at", .725, 0, 1, "fraction of the window above which a turn may compact"},
    [COMPACT_ODDS] = {"compact_odds", .09, 0, 1, "probability a turn above it (1 above the window itself)"},
    [COMPACT_TO] = {"compact_to", .23, 0, 1, "prompt after a compaction as a fraction of the one before"},
    [COMPACT_KEEP] = {"compact_keep", 12800, 0, 1e9, "tokens that a compaction keeps: the tools"},
    [EDIT_SHARE] = {"edit_share", .014, 0, 1, "share of turns that edit the prefix"},
    [EDIT_DEEP_SHARE] = {"edit_deep_share", .5, 0, 1, "share of deep ones among them"},
    [EDIT_DEEP_KEEP] = {"edit_deep_keep", .1, 0, 1, "fraction of the previous prompt that a deep edit keeps"},
    [EDIT_SHALLOW_KEEP] = {"edit_shallow_keep", .97, 0, 1, "the same, of a shallow one"},
    [USER_SHARE] = {"user_share", .148, 0, 1, "share of turns that a user triggers"},
    [TOOL_FAST_SHARE] = {"tool_fast_share", .61, 0, 1,
                         "tools: share of a lognormal below a second (TraceLab)"},
    [TOOL_FAST_MEDIAN] = {"tool_fast_median", .15, 0, 1e6, "tools: its median seconds"},
    [TOOL_FAST_SIGMA] = {"tool_fast_sigma", 1.1, 0, 5, "tools: its log-standard deviation"},
    [TOOL_10S_SHARE] = {"tool_10s_share", .27, 0, 1, "tools: share of 1 to 10 s, log-uniform"},
    [TOOL_60S_SHARE] = {"tool_60s_share", .08, 0, 1,
                        "tools: share of 10 to 60 s, log-uniform; the rest is longer"},
    [TOOL_TAIL_ALPHA] = {"tool_tail_alpha", 1.2, .1, 100,
                         "tools above 60 s: Pareto exponent (85 % of all tool time)"},
    [TOOL_MAX] = {"tool_max", 3600, 0, 1e6, "tools: most seconds"},
    [TOOL_OVERHEAD] = {"tool_overhead", .5, 0, 1e6, "seconds of the harness before each request"},
    [TOOL_CALLS] = {"tool_calls", 1, 1, 1000,
                    "tools called side by side, of which the longest counts: mean of a geometric number "
                    "(TraceLab: 1.2)"},
    [THINK_SHORT_SHARE] = {"think_short_share", .681, 0, 1, "user: share of the first of two lognormals"},
    [THINK_SHORT_MEDIAN] = {"think_short_median", 65, 0, 1e6, "user: median seconds of the first"},
    [THINK_SHORT_SIGMA] = {"think_short_sigma", 1.357, 0, 5, "user: log-standard deviation of the first"},
    [THINK_LONG_MEDIAN] = {"think_long_median", 646, 0, 1e6, "user: median seconds of the second"},
    [THINK_LONG_SIGMA] = {"think_long_sigma", 1.398, 0, 5, "user: log-standard deviation of the second"},
    [THINK_SESSION_SIGMA] = {"think_session_sigma", .55, 0, 5,
                             "user: log-standard deviation of a factor of the session"},
    [THINK_MAX] = {"think_max", 77600, 0, 1e6, "user: most seconds"},
    [SUB_SESSION_SHARE] = {"sub_session_share", .024, 0, 1, "share of sessions that use sub-agents"},
    [SUB_GROUPS] = {"sub_groups", 2.2, 0, 1e6, "mean number of times that such a session starts some"},
    [SUB_TWO_SHARE] = {"sub_two_share", .24, 0, 1, "share of two at once"},
    [SUB_THREE_SHARE] = {"sub_three_share", .21, 0, 1, "share of three at once; the rest is one"},
    [SUB_TURNS_MEDIAN] = {"sub_turns_median", 10, 1, 1e6, "sub-agent: median turns of a lognormal"},
    [SUB_TURNS_SIGMA] = {"sub_turns_sigma", .45, 0, 5, "sub-agent: log-standard deviation of the turns"},
    [SUB_GLOBAL_TOKENS] = {"sub_global_tokens", 8700, 0, 1e9, "sub-agent: its own tools and system prompt"},
    [SUB_FIRST_MEDIAN] = {"sub_first_median", 3000, 1, 1e9, "sub-agent: median tokens of its task"},
    [SUB_FIRST_SIGMA] = {"sub_first_sigma", .5, 0, 5, "sub-agent: log-standard deviation of the task"},
    [SUB_GROWTH_MEAN] = {"sub_growth_mean", 6300, 0, 1e9, "sub-agent: mean new tokens a turn (lognormal)"},
    [SUB_GROWTH_SIGMA] = {"sub_growth_sigma", .8, 0, 5, "sub-agent: log-standard deviation of the growth"},
    [SUB_REPORT_MIN] = {"sub_report_min", 3000, 1, 1e9, "sub-agent: least tokens of its final report"},
    [SUB_REPORT_MAX] = {"sub_report_max", 5000, 1, 1e9, "sub-agent: most tokens of its final report"},
    [SUB_FORK_SHARE] = {"sub_fork_share", 0, 0, 1,
                        "sub-agent: share that begin with the prompt of the turn that starts them"},
};

static apmw_status check(const double *v, apmw_error *err)
{
    if (v[TOOL_FAST_SHARE] + v[TOOL_10S_SHARE] + v[TOOL_60S_SHARE] > 1) {
        return apmw_error_set(err, APMW_E_USAGE,
                              "tool_fast_share + tool_10s_share + tool_60s_share exceed 1");
    }
    if (v[SUB_TWO_SHARE] + v[SUB_THREE_SHARE] > 1) {
        return apmw_error_set(err, APMW_E_USAGE, "sub_two_share + sub_three_share exceed 1");
    }
    if (v[WINDOW] > v[WINDOW_LARGE] || v[SUB_REPORT_MIN] > v[SUB_REPORT_MAX]) {
        return apmw_error_set(err, APMW_E_USAGE,
                              "window and sub_report_min must not exceed window_large and sub_report_max");
    }
    if (v[GLOBAL_TOKENS] + 6 * v[GLOBAL_SD] >= v[WINDOW]) {
        return apmw_error_set(err, APMW_E_USAGE, "global_tokens (with 6 global_sd) must stay below window");
    }
    return APMW_OK;
}

/* One stream a quantity, so that a changed law leaves the other draws as they were. */
typedef struct session {
    const double *v;
    apmw_trajectory *t;
    apmw_rng shape, output, input, wait, sub;
    double osl_factor, think_factor, ext_factor, osl_score, window;
    int32_t sub_root; /* first sub-agent turn of the session, -1 = none */
} session;

static double at_most(double value, double limit)
{
    return value < limit ? value : limit;
}

static double mixture(apmw_rng *rng, double share, double median1, double sigma1, double median2,
                      double sigma2)
{
    bool first = apmw_rng_uniform(rng) < share;
    return apmw_rng_lognormal(rng, first ? median1 : median2, first ? sigma1 : sigma2);
}

static double log_uniform(apmw_rng *rng, double lo, double hi)
{
    return lo * pow(hi / lo, apmw_rng_uniform(rng));
}

static int64_t draw_output(session *s)
{
    const double *v = s->v;
    bool is_short = apmw_rng_uniform(&s->output) < v[OSL_SHORT_SHARE];
    double rho = v[OSL_RHO];
    s->osl_score = rho * s->osl_score + sqrt(1 - rho * rho) * apmw_rng_normal(&s->output);
    double osl = s->osl_factor * v[is_short ? OSL_SHORT_MEDIAN : OSL_LONG_MEDIAN] *
                 exp(v[is_short ? OSL_SHORT_SIGMA : OSL_LONG_SIGMA] * s->osl_score);
    return (int64_t)rint(fmax(1, at_most(osl, v[OSL_MAX])));
}

static double draw_tool(session *s)
{
    const double *v = s->v;
    double u = apmw_rng_uniform(&s->wait), wait;
    if ((u -= v[TOOL_FAST_SHARE]) < 0) {
        wait = v[TOOL_FAST_MEDIAN] > 0
                   ? at_most(apmw_rng_lognormal(&s->wait, v[TOOL_FAST_MEDIAN], v[TOOL_FAST_SIGMA]), 1)
                   : 0;
    } else if ((u -= v[TOOL_10S_SHARE]) < 0) {
        wait = log_uniform(&s->wait, 1, 10);
    } else if ((u -= v[TOOL_60S_SHARE]) < 0) {
        wait = log_uniform(&s->wait, 10, 60);
    } else {
        wait = 60 * pow(apmw_rng_uniform(&s->wait), -1 / v[TOOL_TAIL_ALPHA]);
    }
    return at_most(wait, v[TOOL_MAX]);
}

static double draw_tool_wait(session *s)
{
    double longest = draw_tool(s);
    while (s->v[TOOL_CALLS] > 1 && apmw_rng_uniform(&s->wait) >= 1 / s->v[TOOL_CALLS]) {
        longest = fmax(longest, draw_tool(s));
    }
    return longest + s->v[TOOL_OVERHEAD];
}

static double draw_think(session *s)
{
    const double *v = s->v;
    bool is_short = apmw_rng_uniform(&s->wait) < v[THINK_SHORT_SHARE];
    double median = v[is_short ? THINK_SHORT_MEDIAN : THINK_LONG_MEDIAN];
    double wait = s->think_factor * median *
                  exp(v[is_short ? THINK_SHORT_SIGMA : THINK_LONG_SIGMA] * apmw_rng_normal(&s->wait));
    return at_most(wait, v[THINK_MAX]);
}

/* Files read at the beginning: the mean growth falls with the turn's index while its median does not, so a
 * few turns get much. `index` counts main-line turns from 0. */
static double draw_early(session *s, int32_t index)
{
    const double *v = s->v;
    bool any = apmw_rng_uniform(&s->input) < v[EXT_EARLY_SHARE];
    double score = apmw_rng_normal(&s->input);
    if (!any || v[EXT_EARLY_MEAN] <= 0) {
        return 0;
    }
    double mean = v[EXT_EARLY_MEAN] * pow(index, -v[EXT_EARLY_POWER]) / v[EXT_EARLY_SHARE];
    return mean * exp(v[EXT_EARLY_SIGMA] * (score - .5 * v[EXT_EARLY_SIGMA]));
}

static double draw_external(session *s, int32_t index, bool is_user)
{
    const double *v = s->v;
    double tokens = 0, early = draw_early(s, index);
    if (is_user) {
        tokens = apmw_rng_lognormal(&s->input, v[EXT_USER_MEDIAN], v[EXT_USER_SIGMA]);
    } else if (apmw_rng_uniform(&s->input) >= v[EXT_ZERO_SHARE]) {
        tokens = mixture(&s->input, v[EXT_SMALL_SHARE], v[EXT_SMALL_MEDIAN], v[EXT_SMALL_SIGMA],
                         v[EXT_LARGE_MEDIAN], v[EXT_LARGE_SIGMA]);
    }
    return rint(at_most(tokens * s->ext_factor + early, v[EXT_MAX]));
}

/* Prompt of the turn after `before`: an append, an edit of the prefix, or a compaction. */
static void set_prompt(session *s, int32_t index, const apmw_turn *before, bool is_user, apmw_turn *turn)
{
    const double *v = s->v;
    double isl = (double)(before->n_in + before->n_out) + draw_external(s, index, is_user);
    double odds = apmw_rng_uniform(&s->input), edit = apmw_rng_uniform(&s->input);
    double deep = apmw_rng_uniform(&s->input);
    if (isl > s->window || (isl > v[COMPACT_AT] * s->window && odds < v[COMPACT_ODDS])) {
        isl = fmax(1, rint(v[COMPACT_TO] * (double)before->n_in));
        turn->n_in = (int64_t)isl;
        turn->shared_in = (int64_t)at_most(at_most(v[COMPACT_KEEP], isl), (double)before->n_in);
        return;
    }
    turn->n_in = (int64_t)isl;
    turn->shared_in = before->n_in;
    if (edit < v[EDIT_SHARE]) {
        double keep = v[deep < v[EDIT_DEEP_SHARE] ? EDIT_DEEP_KEEP : EDIT_SHALLOW_KEEP];
        turn->shared_in = (int64_t)(keep * (double)before->n_in);
    } else if (v[OUTPUT_IDENTITY] >= .5) {
        turn->shared_out = before->n_out;
    }
}

static apmw_status add_subagent(session *s, int32_t spawn_after, apmw_error *err)
{
    const double *v = s->v;
    apmw_trajectory *t = s->t;
    int32_t lane = t->n_lanes, root = t->n_turns;
    apmw_status status = apmw_tr_push_lane(t, spawn_after, -1, err);
    double drawn = rint(apmw_rng_lognormal(&s->sub, v[SUB_TURNS_MEDIAN], v[SUB_TURNS_SIGMA]));
    int32_t turns = (int32_t)fmax(1, at_most(drawn, v[TURNS_MAX]));
    double growth_median = v[SUB_GROWTH_MEAN] * exp(-.5 * v[SUB_GROWTH_SIGMA] * v[SUB_GROWTH_SIGMA]);
    double task = fmax(1, rint(apmw_rng_lognormal(&s->sub, v[SUB_FIRST_MEDIAN], v[SUB_FIRST_SIGMA])));
    double spawner = (double)t->turns[spawn_after].n_in;
    bool fork = v[SUB_FORK_SHARE] > 0 && apmw_rng_uniform(&s->sub) < v[SUB_FORK_SHARE] &&
                spawner + task <= s->window;
    double isl = task + (fork ? spawner : floor(v[SUB_GLOBAL_TOKENS]));
    double window = fork ? s->window : v[WINDOW];
    for (int32_t i = 0; i < turns && status == APMW_OK; i++) {
        apmw_turn turn = {.lane = lane, .parent = t->n_turns - 1};
        if (i == 0 && fork) {
            turn.parent = spawn_after;
            turn.shared_in = t->turns[spawn_after].n_in;
            turn.delay_ns = apmw_time_from_s(v[TOOL_OVERHEAD]);
        } else if (i == 0) {
            /* Sub-agents share their own tools, with each other and not with the main line. */
            turn.parent = s->sub_root >= 0 ? s->sub_root : spawn_after;
            turn.shared_in = s->sub_root >= 0 ? (int64_t)v[SUB_GLOBAL_TOKENS] : 0;
            turn.delay_ns = apmw_time_from_s(v[TOOL_OVERHEAD]);
        } else {
            turn.shared_in = (int64_t)isl;
            isl +=
                growth_median > 0 ? rint(apmw_rng_lognormal(&s->sub, growth_median, v[SUB_GROWTH_SIGMA])) : 0;
            if (isl > window) {
                break;
            }
            turn.delay_ns = apmw_time_from_s(draw_tool_wait(s));
        }
        turn.n_in = (int64_t)isl;
        turn.n_out = draw_output(s);
        if (i == turns - 1) {
            double report =
                v[SUB_REPORT_MIN] + apmw_rng_uniform(&s->sub) * (v[SUB_REPORT_MAX] - v[SUB_REPORT_MIN]);
            turn.n_out = (int64_t)rint(report);
        }
        status = apmw_tr_push_turn(t, &turn, err);
    }
    s->sub_root = s->sub_root >= 0 || fork ? s->sub_root : root;
    return status;
}

/* Sub-agents after main-line turn `after`, joined before the next main-line turn. */
static apmw_status add_group(session *s, int32_t after, apmw_error *err)
{
    const double *v = s->v;
    double u = apmw_rng_uniform(&s->sub);
    int count = u < v[SUB_THREE_SHARE] ? 3 : u < v[SUB_THREE_SHARE] + v[SUB_TWO_SHARE] ? 2 : 1;
    int32_t first = s->t->n_lanes;
    apmw_status status = APMW_OK;
    for (int k = 0; k < count && status == APMW_OK; k++) {
        status = add_subagent(s, after, err);
    }
    for (int32_t k = first; k < s->t->n_lanes; k++) {
        s->t->lanes[k].join_before = s->t->n_turns; /* the main-line turn that comes next */
    }
    return status;
}

/* Tokens and group of the session's tools and system prompt; a group has the same length in every session. */
static int64_t draw_group(session *s, uint64_t seed)
{
    const double *v = s->v;
    uint64_t groups = (uint64_t)v[GLOBAL_GROUPS];
    uint64_t group = groups > 0 ? apmw_rng_below(&s->shape, groups) : apmw_rng_u64(&s->shape);
    apmw_rng rng = apmw_rng_make(seed, "claude-code.group", group, 0);
    double tokens = v[GLOBAL_TOKENS] + v[GLOBAL_SD] * at_most(fmax(apmw_rng_normal(&rng), -6), 6);
    int64_t whole = (int64_t)fmax(0, rint(tokens));
    if (groups > 0 && whole > 0) {
        s->t->global_id = (int32_t)group;
        s->t->global_tokens = whole;
    }
    return whole;
}

static apmw_status make(const double *v, uint64_t seed, size_t index, apmw_trajectory *t, apmw_error *err)
{
    session s = {.v = v, .t = t, .sub_root = -1};
    s.shape = apmw_rng_make(seed, "claude-code.shape", index, 0);
    s.output = apmw_rng_make(seed, "claude-code.output", index, 0);
    s.input = apmw_rng_make(seed, "claude-code.input", index, 0);
    s.wait = apmw_rng_make(seed, "claude-code.wait", index, 0);
    s.sub = apmw_rng_make(seed, "claude-code.sub", index, 0);
    int64_t group = draw_group(&s, seed);
    bool resumed = apmw_rng_uniform(&s.shape) < v[RESUMED_SHARE];
    double first =
        resumed ? at_most(apmw_rng_lognormal(&s.shape, v[RESUMED_MEDIAN], v[RESUMED_SIGMA]), v[RESUMED_MAX])
                : (double)group + apmw_rng_lognormal(&s.shape, v[FIRST_MEDIAN], v[FIRST_SIGMA]);
    bool large =
        apmw_rng_uniform(&s.shape) < v[resumed ? WINDOW_LARGE_SHARE_RESUMED : WINDOW_LARGE_SHARE_FRESH] ||
        first > v[COMPACT_AT] * v[WINDOW];
    s.window = v[large ? WINDOW_LARGE : WINDOW];
    first = at_most(fmax(rint(first), (double)group + 1), s.window);
    double drawn =
        mixture(&s.shape, v[resumed ? TURNS_SHORT_SHARE_RESUMED : TURNS_SHORT_SHARE_FRESH],
                v[TURNS_SHORT_MEDIAN], v[TURNS_SHORT_SIGMA], v[TURNS_LONG_MEDIAN], v[TURNS_LONG_SIGMA]);
    drawn *= resumed ? pow(fmax(1, first / v[RESUMED_MEDIAN]), -v[TURNS_START_POWER]) : 1;
    int32_t turns = (int32_t)fmax(1, at_most(rint(drawn), v[TURNS_MAX]));
    s.osl_factor = apmw_rng_lognormal(&s.shape, 1, v[OSL_SESSION_SIGMA]);
    s.think_factor = apmw_rng_lognormal(&s.shape, 1, v[THINK_SESSION_SIGMA]);
    s.ext_factor = apmw_rng_lognormal(&s.shape, exp(-.5 * v[EXT_SESSION_SIGMA] * v[EXT_SESSION_SIGMA]),
                                      v[EXT_SESSION_SIGMA]) *
                   pow(turns / 68.0, -v[EXT_TURNS_POWER]);
    s.osl_score = apmw_rng_normal(&s.output);
    bool uses_subs = apmw_rng_uniform(&s.sub) < v[SUB_SESSION_SHARE];
    double group_odds = uses_subs && turns > 1 ? v[SUB_GROUPS] / (turns - 1) : 0;

    apmw_status status = apmw_tr_push_lane(t, -1, -1, err);
    int32_t previous = -1;
    for (int32_t i = 0; i < turns && status == APMW_OK; i++) {
        apmw_turn turn = {.parent = previous, .trigger = APMW_TURN_USER};
        if (i == 0) {
            turn.n_in = (int64_t)first;
        } else {
            bool joins = t->n_turns - 1 != previous;
            bool is_user = apmw_rng_uniform(&s.shape) < v[USER_SHARE] && !joins;
            apmw_turn before = t->turns[previous];
            turn.trigger = joins ? APMW_TURN_JOIN : is_user ? APMW_TURN_USER : APMW_TURN_TOOL;
            set_prompt(&s, i, &before, is_user, &turn);
            double wait = joins ? v[TOOL_OVERHEAD] : is_user ? draw_think(&s) : draw_tool_wait(&s);
            turn.delay_ns = apmw_time_from_s(wait);
        }
        turn.n_out = draw_output(&s);
        status = apmw_tr_push_turn(t, &turn, err);
        previous = t->n_turns - 1;
        if (status == APMW_OK && i + 1 < turns && group_odds > 0 && apmw_rng_uniform(&s.sub) < group_odds) {
            status = add_group(&s, previous, err);
        }
    }
    return status;
}

const apmw_tr_synth apmw_tr_synth_claude_code = {
    {"claude-code",
     "sessions like Claude Code's in cc-traces-weka-042026 (mean ISL 123K, 68 turns, OSL median 216)"},
    params,
    N_PARAMS,
    make,
    check};
