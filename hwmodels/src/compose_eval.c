/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Evaluates a compiled cost. A pass is: curves over its token counts + decode attention at (sequences, mean context) +
 * prompt attention of every chunk + logits, then the engine's overhead. Rules: hwmodels/ACCURACY.md */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "compose_cost.h"

static const composed_cost *cost_of(const apmw_step_cost *cost)
{
    return (const composed_cost *)(const void *)cost;
}

/* Where a token count lies between the knots. Most lookups of a pass ask for the same few counts. */
typedef struct knot_place {
    double at, w; /* at 0: none yet */
    int i;
} knot_place;

static double curve_value(const composed_cost *c, arg_kind kind, double at, knot_place *place, bool *outside)
{
    const token_curve *curve = &c->curve[kind];
    if (!curve->used || at <= 0) {
        return 0;
    }
    if (place->at < at || place->at > at) {
        const int found = apmw_knot_find(c->token, c->n_tokens, at);
        *place = (knot_place){at, (at - c->token[found]) / (c->token[found + 1] - c->token[found]), found};
    }
    const int i = place->i;
    const double w = place->w;
    *outside = *outside || curve->outside[i] || (w > 0 && curve->outside[i + 1]);
    double y = curve->y[i] + w * (curve->y[i + 1] - curve->y[i]);
    return y > 0 ? y : curve->y[0] * at; /* below the first knot, one token, only in an average over ranks */
}

/* Two rows of a decode grid and their weights at a batch size. */
typedef struct row_pair {
    int row;
    double w0, w1;
} row_pair;

static row_pair batch_rows(const composed_cost *c, double batch)
{
    int last = c->n_batch - 1;
    if (batch >= c->batch[last]) {
        return (row_pair){last - 1, 0, batch / c->batch[last]};
    }
    int i = apmw_knot_find(c->batch, c->n_batch, batch);
    if (batch <= c->batch[i]) {
        return (row_pair){i, 1, 0};
    }
    double w = (log(batch) - c->log_batch[i]) / (c->log_batch[i + 1] - c->log_batch[i]);
    return (row_pair){i, 1 - w, w};
}

static double line_at(const double *x, const double *y, int i, double at)
{
    return y[i] + (y[i + 1] - y[i]) / (x[i + 1] - x[i]) * (at - x[i]);
}

/* Sum of a piecewise-linear function over at, at + step, ... (n values). */
static double line_sum(const double *x, const double *y, int knots, double at, double step, int64_t n)
{
    double total = 0;
    int64_t done = 0;
    int i = apmw_knot_find(x, knots, at);
    while (done < n) {
        int64_t until = n;
        if (step > 0 && i < knots - 2) {
            double steps = ceil((x[i + 1] - at) / step);
            if (steps < (double)n) {
                until = steps > (double)done ? (int64_t)steps : done;
            }
        }
        double count = (double)(until - done);
        if (until > done) {
            double middle = at + step * ((double)done + (count - 1) / 2);
            total += count * line_at(x, y, i, middle);
        }
        done = until;
        i++;
    }
    return total;
}

/* Steps of a stretch whose context lies above `hi`. */
static double steps_above(double at, double step, int64_t n, double hi)
{
    if (at > hi) {
        return (double)n;
    }
    if (step <= 0) {
        return 0;
    }
    double first = floor((hi - at) / step) + 1;
    return first >= (double)n ? 0 : (double)n - first;
}

/* The parts of a decode pass that follow the context, summed over n steps. */
typedef struct context_work {
    double attention_s, flops, bytes, outside;
} context_work;

static context_work decode_context(const composed_cost *c, const apmw_step_load *load, const double *growth,
                                   int64_t n)
{
    context_work out = {0};
    double batch = (double)load->n_seqs;
    row_pair rows = batch_rows(c, batch);
    for (int k = 0; k < c->base.n_kinds; k++) {
        const decode_grid *g = &c->decode[k];
        double at = load->kv[k] / batch, step = growth ? growth[k] / batch : 0;
        if (g->used) {
            double s0 = rows.w0 > 0 ? line_sum(c->ctx, g->t[rows.row], c->n_ctx, at, step, n) : 0;
            double s1 = rows.w1 > 0 ? line_sum(c->ctx, g->t[rows.row + 1], c->n_ctx, at, step, n) : 0;
            out.attention_s += rows.w0 * s0 + rows.w1 * s1;
            double hi = rows.w0 > 0 ? g->ctx_hi[rows.row] : HUGE_VAL;
            hi = rows.w1 > 0 ? fmin(hi, g->ctx_hi[rows.row + 1]) : hi;
            out.outside = fmax(out.outside, steps_above(at, step, n, hi));
        }
        if (k == 0) {
            out.flops = line_sum(c->ctx, c->seq_flops, c->n_ctx, at, step, n);
            out.bytes = line_sum(c->ctx, c->seq_bytes, c->n_ctx, at, step, n);
        }
    }
    out.bytes *= batch;
    out.flops *= (double)load->total_seqs * (1 + c->draft);
    return out;
}

/* ln seconds of a row over prompt lengths, linear in ln length (four knots an octave from 1). */
static double ln_length(const composed_cost *c, const double *row, double length)
{
    double u = 4 * log2(fmax(length, 1));
    int i = (int)u;
    i = i > c->n_length - 2 ? c->n_length - 2 : i;
    return row[i] + (row[i + 1] - row[i]) * (u - i);
}

static double ln_prefix(const composed_cost *c, int b, double fresh, double past)
{
    double u = log2(fmax(fresh, 1));
    int i = (int)u;
    i = i > FRESH_KNOTS - 2 ? FRESH_KNOTS - 2 : i;
    u -= i;
    /* knots 0, 128, 256 ...: the first interval is taken on log(past + 128), the others on log(past) */
    double v = past < 128 ? log2((past + 128) / 128) : log2(past / 128) + 1;
    int j = (int)v;
    j = j > PAST_KNOTS - 2 ? PAST_KNOTS - 2 : j;
    v -= j;
    double low = c->prefix[b][i][j] + u * (c->prefix[b][i + 1][j] - c->prefix[b][i][j]);
    double high = c->prefix[b][i][j + 1] + u * (c->prefix[b][i + 1][j + 1] - c->prefix[b][i][j + 1]);
    return low + v * (high - low);
}

/* Attention of one chunk as one of `prompts` equal ones in row b. Without measured prefixes a chunk n on a prefix c
 * costs F(n + c) - F(c), and at least F(n). */
static double chunk_row(const composed_cost *c, int b, double fresh, double past)
{
    double t = 0;
    if (c->has_plain) {
        double alone = exp(ln_length(c, c->plain[b], fresh));
        double on_top = past > 0 ? exp(ln_length(c, c->plain[b], fresh + past)) - exp(ln_length(c, c->plain[b], past))
                                 : alone;
        t += fmax(alone, on_top);
    }
    if (c->has_linear) {
        t += exp(ln_length(c, c->linear[b], fresh));
    }
    if (c->has_prefix) {
        t += exp(ln_prefix(c, b, fresh, past));
    }
    return t / exp2(b);
}

/* A batch in which a chunk stands on tokens of its own prompt, where the engine has only the absorbed form for it: every
 * head reads the latents, and the other prompts of the batch go the same way. 0: this batch is none. */
static double absorbed_attention(const composed_cost *c, const apmw_step_load *load)
{
    double pairs = 0;
    bool continued = false;
    for (size_t i = 0; c->absorbed_pair_s > 0 && i < load->n_chunks; i++) {
        double fresh = (double)load->chunks[i].new_tokens, past = (double)load->chunks[i].past_tokens;
        continued = continued || past > 0;
        pairs += fresh * (past + (fresh + 1) / 2);
    }
    return continued ? pairs * c->absorbed_pair_s : 0;
}

/* Prompts of unequal length share their kernels: each pays its share of a pass of as many prompts like itself. */
static double chunks_attention(const composed_cost *c, const apmw_step_load *load, bool *outside)
{
    double absorbed = absorbed_attention(c, load);
    if (absorbed > 0) {
        *outside = true; /* of this kernel nothing was measured */
        return absorbed;
    }
    double u = log2((double)load->n_chunks);
    int b = (int)u;
    b = b > PROMPT_ROWS - 2 ? PROMPT_ROWS - 2 : b;
    double w = fmin(u - b, 1), total = 0;
    for (size_t i = 0; i < load->n_chunks; i++) {
        double fresh = (double)load->chunks[i].new_tokens, past = (double)load->chunks[i].past_tokens;
        double t = (1 - w) * chunk_row(c, b, fresh, past);
        total += w > 0 ? t + w * chunk_row(c, b + 1, fresh, past) : t;
        *outside = *outside || (c->has_plain && fresh + past > c->length_hi) ||
                   (c->has_prefix && (fresh > c->fresh_hi || past > c->past_hi));
    }
    return total;
}

/* Expert bytes that one accelerator reads in one layer: distinct experts of `tokens` tokens, uniform routing
 * (hwmodels/ACCURACY.md). */
static double expert_read(const composed_cost *c, double tokens)
{
    return c->expert_bytes * c->experts_per_rank * -expm1(tokens * log1p(-c->hit_share));
}

/* Curves of a pass of `tokens` rank tokens, `total` of all ranks. */
static double dense_time(const composed_cost *c, double tokens, double total, double decode, knot_place *place,
                         bool *outside)
{
    return curve_value(c, ARG_RANK_TOKENS, tokens, place, outside) +
           curve_value(c, ARG_TOTAL_TOKENS, total, place, outside) +
           curve_value(c, ARG_DECODE_TOKENS, decode, place, outside);
}

/* Everything of a decode pass that does not follow the context. *draft_scale multiplies the attention. */
static double decode_constant(const composed_cost *c, const apmw_step_load *load, double *flops, double *bytes,
                              bool *outside)
{
    double seqs = (double)load->n_seqs, all = (double)load->total_seqs, k = c->draft;
    knot_place place = {0};
    double t = dense_time(c, seqs * (1 + k), all * (1 + k), seqs * (1 + k), &place, outside) +
               curve_value(c, ARG_SAMPLED, seqs * (1 + k), &place, outside);
    *flops = c->dense_flops_per_token * all * (1 + k) * c->flops_share;
    *bytes = c->dense_bytes + c->moe_layers * expert_read(c, all * (1 + k));
    if (k > 0) { /* k passes of one layer and the head */
        t += k * (dense_time(c, seqs, all, seqs, &place, outside) / c->layers +
                  curve_value(c, ARG_SAMPLED, seqs, &place, outside));
        *flops += k * c->dense_flops_per_token * all * c->flops_share / c->layers;
        *bytes += k * ((c->dense_bytes - c->head_bytes_draft) / c->layers + c->head_bytes_draft + expert_read(c, all));
    }
    return t;
}

static void mixed_pass(const composed_cost *c, const apmw_step_load *load, apmw_step_work *out)
{
    double k = c->draft, fresh = 0, past = 0, last = 0, pair_flops = 0, chunk_bytes = 0;
    for (size_t i = 0; i < load->n_chunks; i++) {
        fresh += (double)load->chunks[i].new_tokens;
        past += (double)load->chunks[i].past_tokens;
        last += load->chunks[i].is_last ? 1 : 0;
        pair_flops += apmw_compose_terms_integral(c->prefill_flops, c->n_prefill_flops, (double)load->chunks[i].past_tokens,
                                             (double)load->chunks[i].new_tokens);
        double at = (double)load->chunks[i].past_tokens;
        chunk_bytes += line_at(c->ctx, c->seq_bytes, apmw_knot_find(c->ctx, c->n_ctx, at), at);
    }
    bool outside = false;
    knot_place place = {0};
    double decode = (double)load->n_seqs * (1 + k), all_decode = (double)load->total_seqs * (1 + k);
    double tokens = decode + fresh, total = fmax((double)load->total_tokens, tokens);
    double alone_s = 0, flops = 0, bytes = 0;
    context_work ctx = {0};
    if (load->n_seqs > 0) {
        alone_s = decode_constant(c, load, &flops, &bytes, &outside);
        ctx = decode_context(c, load, NULL, 1);
        ctx.attention_s *= 1 + k / c->layers;
        alone_s += ctx.attention_s;
    }
    double all_s = dense_time(c, tokens, total, decode, &place, &outside) +
                   curve_value(c, ARG_SAMPLED, decode + last, &place, &outside) +
                   curve_value(c, ARG_CHUNK_TOKENS, fresh, &place, &outside) +
                   curve_value(c, ARG_PREFIX_TOKENS, past, &place, &outside) + chunks_attention(c, load, &outside) +
                   ctx.attention_s;
    if (k > 0 && load->n_seqs > 0) {
        double seqs = (double)load->n_seqs, all = (double)load->total_seqs;
        all_s += k * (dense_time(c, seqs, all, seqs, &place, &outside) / c->layers +
                      curve_value(c, ARG_SAMPLED, seqs, &place, &outside));
    }
    const apmw_overhead *o = &c->overhead;
    double kernel = (1 + o->kernel_extra) * alone_s + o->prefill_scale * fmax(all_s - alone_s, 0);
    double floor_s = o->prefill_floor_layer_s * c->layers;
    out->kernel_s = kernel;
    out->time_s = fmax(kernel, floor_s) + o->layer_s * c->layers + o->seq_s * (double)load->n_seqs;
    /* Chunks are those of one rank; the others' are in the total of tokens. */
    double ranks = fresh > 0 ? fmax((total - all_decode) / fresh, 1) : 1;
    out->flops = flops + ctx.flops + c->flops_share * ranks * (c->dense_flops_per_token * fresh + pair_flops);
    out->bytes = fmax(bytes, c->dense_bytes) + c->moe_layers * (expert_read(c, total) - expert_read(c, all_decode)) +
                 ctx.bytes + chunk_bytes;
    out->outside = outside || ctx.outside > 0 ? 1 : 0;
}

static void decode_sum(const apmw_step_cost *cost, const apmw_step_load *load, const double growth[APMW_KV_KINDS],
                       int64_t n_steps, apmw_step_work *out)
{
    const composed_cost *c = cost_of(cost);
    *out = (apmw_step_work){0};
    if (load->n_seqs <= 0 || n_steps <= 0) {
        return;
    }
    bool outside = false;
    double n = (double)n_steps, flops, bytes;
    double constant = decode_constant(c, load, &flops, &bytes, &outside);
    context_work ctx = decode_context(c, load, growth, n_steps);
    out->kernel_s = (1 + c->overhead.kernel_extra) * (n * constant + ctx.attention_s * (1 + c->draft / c->layers));
    out->time_s = out->kernel_s + n * (c->overhead.layer_s * c->layers + c->overhead.seq_s * (double)load->n_seqs);
    out->flops = n * flops + ctx.flops;
    out->bytes = n * bytes + ctx.bytes;
    out->outside = outside ? n : ctx.outside;
}

static void composed_eval(const apmw_step_cost *cost, const apmw_step_load *load, apmw_step_work *out)
{
    const double none[APMW_KV_KINDS] = {0};
    if (load->n_chunks == 0) {
        decode_sum(cost, load, none, 1, out);
    } else {
        mixed_pass(cost_of(cost), load, out);
    }
}

static void composed_free(apmw_step_cost *cost)
{
    free(cost);
}

const apmw_step_cost_ops apmw_composed_cost_ops = {"composed", composed_eval, decode_sum, composed_free};
