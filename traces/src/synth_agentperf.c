/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Trajectories with the published moments of AA-AgentPerf (artificialanalysis.ai/methodology/agentperf): ISL
 * about 5K to 131K with mean 27K, up to 200 turns with 38 on average (500 trajectories = 18,997 prompts), OSL
 * median 150 and P95 2K, tool time 0.1 to 5 s with median 1 s. The trajectories themselves are not public;
 * the laws below are ours and were chosen so that these moments come out, in the middle of their tolerance:
 * sets of 4,000 trajectories scatter by about 1 %.
 *
 * AgentPerf generates the output live but replays the recorded history, so the output of a turn has no
 * identity in the next prompt (shared_out = 0) and the growth of the context is drawn apart from the output
 * length. */
#include <math.h>

#include "apmw/rng.h"
#include "apmw/time.h"
#include "private.h"

enum {
    START_MEDIAN,
    START_SIGMA,
    START_MIN,
    TURNS_MEDIAN,
    TURNS_SIGMA,
    TURNS_MIN,
    TURNS_MAX,
    GROWTH_MEAN,
    GROWTH_SIGMA,
    GROWTH_SESSION_SIGMA,
    GROWTH_MAX,
    ISL_MAX,
    OSL_SHORT_SHARE,
    OSL_SHORT_MEDIAN,
    OSL_SHORT_SIGMA,
    OSL_LONG_MEDIAN,
    OSL_LONG_SIGMA,
    OSL_MAX,
    DELAY_MEDIAN,
    DELAY_SIGMA,
    DELAY_MIN,
    DELAY_MAX,
    GLOBAL_TOKENS,
    GLOBAL_GROUPS,
    N_PARAMS
};

static const apmw_tr_param params[N_PARAMS] = {
    [START_MEDIAN] = {"start_median", 7500, 1, 1e9, "first prompt: median tokens of a lognormal"},
    [START_SIGMA] = {"start_sigma", .30, 0, 5, "first prompt: log-standard deviation"},
    [START_MIN] = {"start_min", 5000, 1, 1e9, "first prompt: least tokens"},
    [TURNS_MEDIAN] = {"turns_median", 30.4, 1, 1e6, "turns: median of a lognormal"},
    [TURNS_SIGMA] = {"turns_sigma", .70, 0, 5, "turns: log-standard deviation"},
    [TURNS_MIN] = {"turns_min", 3, 1, 1e6, "turns: least"},
    [TURNS_MAX] = {"turns_max", 200, 1, 1e6, "turns: most"},
    [GROWTH_MEAN] = {"growth_mean", 640, 0, 1e9, "new prompt tokens a turn: mean of a lognormal"},
    [GROWTH_SIGMA] = {"growth_sigma", 1.25, 0, 5, "new prompt tokens a turn: log-standard deviation"},
    [GROWTH_SESSION_SIGMA] =
        {"growth_session_sigma", .35, 0, 5,
         "log-standard deviation of a factor on the growth of one trajectory (median 1)"},
    [GROWTH_MAX] = {"growth_max", 40000, 1, 1e9, "new prompt tokens a turn: most"},
    [ISL_MAX] = {"isl_max", 131072, 1, 1e9, "the trajectory ends before a prompt exceeds this"},
    [OSL_SHORT_SHARE] = {"osl_short_share", .60, 0, 1, "output: share of the first of two lognormals"},
    [OSL_SHORT_MEDIAN] = {"osl_short_median", 105, 1, 1e9, "output: median of the first"},
    [OSL_SHORT_SIGMA] = {"osl_short_sigma", .45, 0, 5, "output: log-standard deviation of the first"},
    [OSL_LONG_MEDIAN] = {"osl_long_median", 650, 1, 1e9, "output: median of the second"},
    [OSL_LONG_SIGMA] = {"osl_long_sigma", 1.0, 0, 5, "output: log-standard deviation of the second"},
    [OSL_MAX] = {"osl_max", 16384, 1, 1e9, "output: most tokens (max_tokens of the benchmark)"},
    [DELAY_MEDIAN] = {"delay_median", 1.0, 0, 1e6, "tool time: median seconds of a lognormal"},
    [DELAY_SIGMA] = {"delay_sigma", .8, 0, 5, "tool time: log-standard deviation"},
    [DELAY_MIN] = {"delay_min", .1, 0, 1e6, "tool time: least seconds"},
    [DELAY_MAX] = {"delay_max", 5, 0, 1e6, "tool time: most seconds"},
    [GLOBAL_TOKENS] =
        {"global_tokens", 0, 0, 1e9,
         "tokens of the first prompt that are tools and system prompt shared by a group (0: the "
         "benchmark's random prefix comes first, nothing is shared)"},
    [GLOBAL_GROUPS] = {"global_groups", 1, 1, 1e6, "number of such groups, taken in turn"},
};

static apmw_status check(const double *v, apmw_error *err)
{
    if (v[TURNS_MIN] > v[TURNS_MAX] || v[DELAY_MIN] > v[DELAY_MAX]) {
        return apmw_error_set(err, APMW_E_USAGE,
                              "turns_min and delay_min must not exceed turns_max and delay_max");
    }
    if (v[START_MIN] > v[ISL_MAX]) {
        return apmw_error_set(err, APMW_E_USAGE, "start_min %.0f exceeds isl_max %.0f", v[START_MIN],
                              v[ISL_MAX]);
    }
    if (v[GLOBAL_TOKENS] > v[START_MIN]) {
        return apmw_error_set(
            err, APMW_E_USAGE,
            "global_tokens %.0f exceeds start_min %.0f: the shared prefix must fit the first prompt",
            v[GLOBAL_TOKENS], v[START_MIN]);
    }
    return APMW_OK;
}

static double clip(double value, double lo, double hi)
{
    return fmin(fmax(value, lo), hi);
}

static apmw_status make(const double *v, uint64_t seed, size_t index, apmw_trajectory *t, apmw_error *err)
{
    /* One stream a quantity: changing one law leaves the draws of the others as they were. */
    apmw_rng shape = apmw_rng_make(seed, "agentperf.shape", index, 0);
    apmw_rng growth = apmw_rng_make(seed, "agentperf.growth", index, 0);
    apmw_rng output = apmw_rng_make(seed, "agentperf.output", index, 0);
    apmw_rng tool = apmw_rng_make(seed, "agentperf.tool", index, 0);
    double isl =
        rint(clip(apmw_rng_lognormal(&shape, v[START_MEDIAN], v[START_SIGMA]), v[START_MIN], v[ISL_MAX]));
    double turns =
        rint(clip(apmw_rng_lognormal(&shape, v[TURNS_MEDIAN], v[TURNS_SIGMA]), v[TURNS_MIN], v[TURNS_MAX]));
    double factor = apmw_rng_lognormal(&shape, 1, v[GROWTH_SESSION_SIGMA]);
    double growth_median = v[GROWTH_MEAN] * exp(-.5 * v[GROWTH_SIGMA] * v[GROWTH_SIGMA]);
    if (v[GLOBAL_TOKENS] >= 1) {
        t->global_tokens = (int64_t)v[GLOBAL_TOKENS];
        t->global_id = (int32_t)((double)index -
                                 floor((double)index / floor(v[GLOBAL_GROUPS])) * floor(v[GLOBAL_GROUPS]));
    }
    apmw_status status = apmw_tr_push_lane(t, -1, -1, err);
    int64_t before = 0;
    for (int32_t i = 0; i < (int32_t)turns && status == APMW_OK; i++) {
        if (i > 0) {
            double added =
                growth_median > 0 ? apmw_rng_lognormal(&growth, growth_median, v[GROWTH_SIGMA]) * factor : 0;
            isl += rint(clip(added, 1, v[GROWTH_MAX]));
            if (isl > v[ISL_MAX]) {
                break;
            }
        }
        bool is_short = apmw_rng_uniform(&output) < v[OSL_SHORT_SHARE];
        double osl = apmw_rng_lognormal(&output, v[is_short ? OSL_SHORT_MEDIAN : OSL_LONG_MEDIAN],
                                        v[is_short ? OSL_SHORT_SIGMA : OSL_LONG_SIGMA]);
        double delay = v[DELAY_MEDIAN] > 0 ? apmw_rng_lognormal(&tool, v[DELAY_MEDIAN], v[DELAY_SIGMA]) : 0;
        apmw_turn turn = {
            .n_in = (int64_t)isl,
            .n_out = (int64_t)rint(clip(osl, 1, v[OSL_MAX])),
            .parent = i - 1,
            .shared_in = before,
            .delay_ns = i == 0 ? 0 : apmw_time_from_s(clip(delay, v[DELAY_MIN], v[DELAY_MAX])),
            .trigger = i == 0 ? APMW_TURN_USER : APMW_TURN_TOOL,
        };
        status = apmw_tr_push_turn(t, &turn, err);
        before = turn.n_in;
    }
    return status;
}

const apmw_tr_synth apmw_tr_synth_agentperf = {
    {"agentperf",
     "trajectories with the published moments of AA-AgentPerf (mean ISL 27K, 38 turns, OSL median 150)"},
    params,
    N_PARAMS,
    make,
    check};
