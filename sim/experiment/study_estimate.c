/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A first guess of a capacity from mean values, without a trial. It only says in which order layouts are tried and where a
 * search begins: no layout is judged by it.
 *
 * With N agents a turn lasts delay + n_out * tpot, so a rank decodes b = N/ranks * n_out * tpot / (delay + n_out * tpot)
 * sequences, and prompts of N/(delay + n_out * tpot) turns a second take the rest of the time. The guess is the largest N
 * whose tpot meets the speed limit, and no more than whose contexts fill the KV pools. Of a
 * disaggregated deployment the decode engines see no prompts, the prefill engines nothing else, and the guess is what both
 * can carry. */
#include "study_private.h"

#include <math.h>

/* Means over the turns of a trace. */
typedef struct mean_turn {
    double context, fresh, output, delay_s;
} mean_turn;

static mean_turn mean_of(const apmw_study_config *config)
{
    const apmw_trace *trace = config->trace;
    mean_turn m = {0};
    double n = 0.0;
    for (size_t i = 0; i < trace->n; i++) {
        for (int32_t k = 0; k < trace->items[i].n_turns; k++) {
            const apmw_turn *turn = &trace->items[i].turns[k];
            const int64_t shared = turn->shared_in + (config->scenario->output_cached ? turn->shared_out : 0);
            m.context += (double)turn->n_in;
            m.fresh += (double)(turn->n_in - shared);
            m.output += (double)turn->n_out;
            m.delay_s += apmw_time_to_s(turn->delay_ns);
            n += 1.0;
        }
    }
    return (mean_turn){m.context / n, m.fresh / n, m.output / n, config->scenario->delay_scale * m.delay_s / n};
}

/* Seconds of a pass of `seqs` decoding sequences a rank, with one prompt of `fresh` tokens beside them or none. */
static double pass_s(const apmw_deployment *d, const mean_turn *m, double seqs, double fresh)
{
    const int ranks = d->engine.n_ranks;
    const apmw_chunk chunk = {.new_tokens = llround(fmax(1.0, fresh)), .past_tokens = llround(m->context - m->fresh),
                              .is_last = 1};
    apmw_step_load load = {.n_seqs = seqs > 0.0 ? llround(fmax(1.0, seqs)) : 0};
    load.total_seqs = load.n_seqs * ranks;
    load.rank_tokens = load.n_seqs * (1 + d->engine.draft_tokens) + (fresh > 0.0 ? chunk.new_tokens : 0);
    load.total_tokens = load.total_seqs * (1 + d->engine.draft_tokens) + (fresh > 0.0 ? chunk.new_tokens : 0);
    load.chunks = fresh > 0.0 ? &chunk : NULL;
    load.n_chunks = fresh > 0.0 ? 1 : 0;
    for (int k = 0; k < d->cost->n_kinds; k++) {
        load.kv[k] = (double)load.n_seqs * fmin(m->context + 0.5 * m->output, (double)d->cost->kv_cap[k]);
    }
    apmw_step_work work;
    apmw_step_cost_eval(d->cost, &load, &work);
    return work.time_s;
}

/* Share of an engine's time that n agents at this time a token ask for. */
static double load_of(const apmw_deployment *d, const mean_turn *m, study_part part, double n, double tpot_s)
{
    const double engines = (double)d->choice.replicas, ranks = engines * (double)d->engine.n_ranks;
    const double cycle_s = m->delay_s + m->output * tpot_s;
    const double seqs = n / ranks * m->output * tpot_s / cycle_s;
    /* Ranks in lock-step have some of their prompts at the same time, and some make the others wait: between all and none,
     * the root of their number (trials of DEP2 to DEP8 on three platforms lie within a fifth of it). */
    const double prompts = n / cycle_s / ranks * sqrt((double)d->engine.n_ranks);
    if (part == STUDY_PREFILL) {
        return prompts * pass_s(d, m, 0.0, m->fresh);
    }
    const double decode_s = pass_s(d, m, seqs, 0.0);
    const double decode = decode_s / (d->engine.acceptance_length * tpot_s);
    return part == STUDY_DECODE ? decode : decode + prompts * (pass_s(d, m, seqs, m->fresh) - decode_s);
}

double apmw_study_estimate_part(const apmw_study_config *config, const apmw_deployment *d, study_part part,
                                const apmw_tier *tier)
{
    const mean_turn m = mean_of(config);
    const double pools = (double)(d->choice.replicas * d->engine.n_ranks);
    double tpot_s = 1.0; /* without a speed limit */
    for (int i = 0; i < tier->n_criteria; i++) {
        if (tier->criteria[i].metric != APMW_SLO_TTFT) {
            tpot_s = fmin(tpot_s, 1.0 / tier->criteria[i].limit);
        }
    }
    const double held = (double)(d->engine.kv_blocks * d->engine.block_tokens);
    /* A decode engine keeps the contexts of running requests, the others those of all agents. */
    const double running = part == STUDY_DECODE ? m.output * tpot_s / (m.delay_s + m.output * tpot_s) : 1.0;
    double lo = 1.0, hi = fmax(2.0, pools * held / (m.context + m.output) / running);
    for (int i = 0; i < 20; i++) {
        const double n = sqrt(lo * hi);
        if (load_of(d, &m, part, n, tpot_s) <= 1.0) {
            lo = n;
        } else {
            hi = n;
        }
    }
    return lo;
}

double apmw_study_estimate(const apmw_study_config *config, const apmw_deployment *deployment, const apmw_tier *tier)
{
    if (deployment->prefill == NULL) {
        return apmw_study_estimate_part(config, deployment, STUDY_WHOLE, tier);
    }
    return fmin(apmw_study_estimate_part(config, deployment->prefill, STUDY_PREFILL, tier),
                apmw_study_estimate_part(config, deployment, STUDY_DECODE, tier));
}
