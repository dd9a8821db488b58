/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Row selection as data (hwmodels/rules/rows.json): ordered rules, the first that fits and whose table exists wins. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/text.h"

static const char *const match_keys[] = {
    "role", "engine", "family", "platform", "model", "dtype", "precision", "kv", "backend", "worker", "from", "before",
    "min_tp", "max_tp", "min_attention_dp", "max_attention_dp", "min_moe_tp", "max_moe_tp", "min_moe_ep",
    "max_moe_ep", "min_gpus", "max_gpus", NULL};
static const char *const rule_keys[] = {"match", "row", "transform", "reason", "per_rank_tokens", "weights_from",
                                         NULL};
static const char *const row_keys[] = {"op", "engine", "platform", "key", "factor", "version", NULL};
static const char *const transform_keys[] = {"kind", "with", NULL};

static bool contains_text(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) {
            i++;
        }
        if (i == n) {
            return true;
        }
    }
    return n == 0;
}

/* The member `key` is missing, equals `value`, or is a list that has it. `part`: substrings are enough. */
static apmw_status value_in(const apmw_json_cur *match, const char *key, const char *value, bool part, bool *fits,
                            apmw_error *err)
{
    apmw_json_cur cur, item;
    if (!*fits || !apmw_json_has(match, key)) {
        return APMW_OK;
    }
    apmw_status st = apmw_json_child(match, key, &cur, err);
    if (st) {
        return st;
    }
    bool list = apmw_json_typeof(&cur) == APMW_JSON_ARRAY;
    int n = list ? apmw_json_length(&cur) : 1;
    bool found = false;
    for (int i = 0; i < n && !found; i++) {
        const char *text;
        if (list && (st = apmw_json_at(&cur, i, &item, err))) {
            return st;
        }
        if ((st = apmw_json_as_string(list ? &item : &cur, &text, err))) {
            return st;
        }
        found = part ? contains_text(value, text) && (*text || !*value) : !strcmp(text, value);
    }
    *fits = found;
    return APMW_OK;
}

static apmw_status number_in(const apmw_json_cur *match, const char *low, const char *high, double value, bool *fits,
                             apmw_error *err)
{
    double lo = -INFINITY, hi = INFINITY;
    apmw_status st;
    if ((st = apmw_json_opt_double(match, low, 0, 1e9, &lo, err)) ||
        (st = apmw_json_opt_double(match, high, 0, 1e9, &hi, err))) {
        return st;
    }
    *fits = *fits && value >= lo && value <= hi;
    return APMW_OK;
}

apmw_status apmw_rule_matches(const compose_context *ctx, const apmw_json_cur *match, const char *role, const char *dtype,
                         bool *fits, apmw_error *err)
{
    const apmw_serving_spec *s = ctx->spec;
    const struct {
        const char *key, *value;
        bool part;
    } texts[] = {{"role", role, false},         {"engine", ctx->engine, false}, {"family", ctx->family, false},
                 {"platform", s->platform, false}, {"model", s->model, false},  {"dtype", dtype, false},
                 {"precision", s->precision, false}, {"kv", ctx->kv, false},    {"backend", s->moe_backend, true},
                 {"worker", s->role, false}};
    const struct {
        const char *low, *high;
        double value;
    } numbers[] = {{"min_tp", "max_tp", ctx->layout.tp},
                   {"min_attention_dp", "max_attention_dp", ctx->layout.attention_dp},
                   {"min_moe_tp", "max_moe_tp", ctx->layout.moe_tp},
                   {"min_moe_ep", "max_moe_ep", ctx->layout.moe_ep},
                   {"min_gpus", "max_gpus", ctx->gpus}};
    apmw_status st = apmw_json_only_keys(match, match_keys, err);
    *fits = true;
    for (size_t i = 0; !st && i < sizeof texts / sizeof *texts; i++) {
        st = value_in(match, texts[i].key, texts[i].value, texts[i].part, fits, err);
    }
    for (size_t i = 0; !st && *fits && i < sizeof numbers / sizeof *numbers; i++) {
        st = number_in(match, numbers[i].low, numbers[i].high, numbers[i].value, fits, err);
    }
    /* Dates are text of equal shape; an engine without a date is the newest. */
    const char *from = NULL, *before = NULL;
    if (st || (st = apmw_json_opt_string(match, "from", &from, err)) ||
        (st = apmw_json_opt_string(match, "before", &before, err))) {
        return st;
    }
    if (from && s->released[0] && strcmp(s->released, from) < 0) {
        *fits = false;
    }
    if (before && (!s->released[0] || strcmp(s->released, before) >= 0)) {
        *fits = false;
    }
    return APMW_OK;
}

/* First rule of a list that matches and has `key`. */
static apmw_status rule_find(const compose_context *ctx, const char *list, const char *key, apmw_json_cur *items,
                             apmw_json_cur *rule, bool *found, apmw_error *err)
{
    apmw_status st = apmw_json_child(&ctx->root, list, items, err);
    *found = false;
    int n = st ? 0 : apmw_json_length(items);
    for (int i = 0; i < n && !st; i++) {
        apmw_json_cur match;
        bool fits = false;
        if ((st = apmw_json_at(items, i, rule, err)) || !apmw_json_has(rule, key)) {
            continue;
        }
        if ((st = apmw_json_child(rule, "match", &match, err)) ||
            (st = apmw_rule_matches(ctx, &match, "", "", &fits, err))) {
            break;
        }
        if (fits) {
            *found = true;
            return APMW_OK;
        }
    }
    return st;
}

apmw_status apmw_rule_text(const compose_context *ctx, const char *list, const char *key, const char *fallback, char *out,
                      size_t size, apmw_error *err)
{
    apmw_json_cur items, rule;
    bool found;
    const char *text = fallback;
    apmw_status st = rule_find(ctx, list, key, &items, &rule, &found, err);
    if (!st && found) {
        st = apmw_json_get_string(&rule, key, &text, err);
    }
    apmw_copy(out, size, text);
    return st;
}

apmw_status apmw_rule_number(const compose_context *ctx, const char *list, const char *key, double fallback, double *out,
                        apmw_error *err)
{
    apmw_json_cur items, rule;
    bool found;
    *out = fallback;
    apmw_status st = rule_find(ctx, list, key, &items, &rule, &found, err);
    return !st && found ? apmw_json_get_double(&rule, key, -1e12, 1e12, out, err) : st;
}

/* Replaces "{gpus}" by the engine's number of accelerators. */
static void expand_key(const compose_context *ctx, const char *key, char *out, size_t size)
{
    const char *at = strstr(key, "{gpus}");
    if (at) {
        snprintf(out, size, "%.*s%d%s", (int)(at - key), key, ctx->gpus, at + 6);
    } else {
        apmw_copy(out, size, key);
    }
}

/* Binds one side of a rule ({op, engine, platform, key}); group NULL when the table or the group is not there. */
static apmw_status bind_side(const compose_context *ctx, const apmw_json_cur *side, const char *op, const query *q,
                             row_bound *out, double *factor, bool *borrowed, char *text, size_t size, apmw_error *err)
{
    const char *engine = ctx->engine, *platform = ctx->spec->platform, *key = "", *version = NULL;
    apmw_status st;
    *out = (row_bound){.group = NULL};
    if ((st = apmw_json_only_keys(side, row_keys, err)) || (st = apmw_json_opt_string(side, "op", &op, err)) ||
        (st = apmw_json_opt_string(side, "engine", &engine, err)) ||
        (st = apmw_json_opt_string(side, "platform", &platform, err)) ||
        (st = apmw_json_opt_string(side, "version", &version, err)) ||
        (st = apmw_json_opt_string(side, "key", &key, err)) ||
        (st = apmw_json_opt_double(side, "factor", 0, 100, factor, err))) {
        return st;
    }
    const apmw_hwmodel *hw = NULL;
    if (apmw_catalog_platform(ctx->catalog, platform, &hw, err)) {
        if (!strcmp(platform, ctx->spec->platform)) {
            return err ? err->status : APMW_E_DATA;
        }
        return APMW_OK; /* the platform borrowed from is not there: try the next rule */
    }
    const apmw_op_table *table = apmw_hwmodel_table(hw, op, engine, version);
    /* NCCL and vendor kernel libraries belong to every engine. */
    bool common = !strcmp(engine, "nccl") || !strcmp(engine, "aiter");
    *borrowed = *borrowed || strcmp(platform, ctx->spec->platform) || (!common && strcmp(engine, ctx->engine));
    char expanded[256];
    expand_key(ctx, key, expanded, sizeof expanded);
    if (table && apmw_query_bind(q, table, expanded, out)) {
        snprintf(text, size, "%s [%s]", table->source, apmw_op_group_key(out->group));
    } else {
        out->group = NULL;
    }
    return APMW_OK;
}

static apmw_status bind_transform(const compose_context *ctx, const apmw_json_cur *rule, const char *op,
                                  const query *q, row_source *out, char *text, size_t size, bool *usable,
                                  apmw_error *err)
{
    static const struct {
        const char *name;
        row_transform kind;
    } kinds[] = {{"min", ROW_MIN},     {"max", ROW_MAX},   {"minus", ROW_MINUS}, {"mean", ROW_MEAN}};
    apmw_json_cur transform, side;
    const char *kind;
    double ignored = 1;
    char part[256] = "";
    text[0] = 0;
    if (!apmw_json_has(rule, "transform")) {
        return APMW_OK;
    }
    apmw_status st = apmw_json_child(rule, "transform", &transform, err);
    if (st || (st = apmw_json_only_keys(&transform, transform_keys, err)) ||
        (st = apmw_json_get_string(&transform, "kind", &kind, err)) ||
        (st = apmw_json_child(&transform, "with", &side, err)) ||
        (st = bind_side(ctx, &side, op, q, &out->with, &ignored, &out->borrowed, part, sizeof part, err))) {
        return st;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(kinds[i].name, kind)) {
            out->transform = kinds[i].kind;
        }
    }
    if (out->transform == ROW_NONE) {
        return apmw_json_error(&transform, err, APMW_E_DATA, "unknown transform \"%s\"", kind);
    }
    if (!out->with.group) {
        *usable = false;
        return APMW_OK;
    }
    snprintf(text, size, " %s %s", kind, part);
    return APMW_OK;
}

apmw_status apmw_row_choose(const compose_context *ctx, const char *role, const char *op, const char *dtype,
                       const query *q, row_source *out, apmw_error *err)
{
    apmw_json_cur rows, rule, match, side;
    apmw_status st = apmw_json_child(&ctx->root, "rows", &rows, err);
    int n = st || ctx->spec->forms ? 0 : apmw_json_length(&rows);
    for (int i = 0; i < n && !st; i++) {
        bool fits = false, usable = true, per_rank = false;
        const char *reason = "", *weights_from = NULL;
        char main_text[256] = "", with_text[300] = "";
        *out = (row_source){.factor = 1};
        if ((st = apmw_json_at(&rows, i, &rule, err)) || (st = apmw_json_only_keys(&rule, rule_keys, err)) ||
            (st = apmw_json_child(&rule, "match", &match, err)) ||
            (st = apmw_rule_matches(ctx, &match, role, dtype, &fits, err)) || !fits) {
            continue;
        }
        if ((st = apmw_json_opt_string(&rule, "reason", &reason, err)) ||
            (st = apmw_json_opt_bool(&rule, "per_rank_tokens", &per_rank, err)) ||
            (st = apmw_json_opt_string(&rule, "weights_from", &weights_from, err)) ||
            (st = apmw_json_child(&rule, "row", &side, err)) ||
            (st = bind_side(ctx, &side, op, q, &out->main, &out->factor, &out->borrowed, main_text, sizeof main_text,
                            err)) ||
            (st = bind_transform(ctx, &rule, op, q, out, with_text, sizeof with_text, &usable, err))) {
            break;
        }
        if (out->main.group && usable) {
            out->per_rank_tokens = per_rank;
            out->weights_from_bits = weights_from ? apmw_compose_bits(weights_from) : 0;
            out->borrowed = out->borrowed || weights_from;
            char factor[32] = "";
            if (out->factor != 1) {
                snprintf(factor, sizeof factor, " x %.3g", out->factor);
            }
            snprintf(out->line, sizeof out->line, "%s%s%s%s%s%.200s", main_text, with_text, factor,
                     out->borrowed ? "  BORROWED" : "", *reason ? ": " : "", reason);
            return APMW_OK;
        }
    }
    if (st) {
        return st;
    }
    char want[400];
    size_t used = 0;
    want[0] = 0;
    for (int i = 0; i < q->n && used + 64 < sizeof want; i++) {
        const query_field *f = &q->field[i];
        if (f->text) {
            used += (size_t)snprintf(want + used, sizeof want - used, " %s=%s", f->name, f->text);
        } else if (f->var < 0) {
            used += (size_t)snprintf(want + used, sizeof want - used, " %s=%g", f->name, f->number);
        }
    }
    const bool no_units = strstr(dtype, "fp4") && isnan(ctx->accelerator->fp4_flop_per_s);
    return apmw_error_set(err, APMW_E_SCENARIO,
                          "%s on %s with %s at %s: no measured rows for %s (table %s, dtype %s,%s)%s%s%s", ctx->spec->model,
                          ctx->spec->platform, ctx->engine, ctx->spec->precision, role, op, dtype, want,
                          no_units ? "; " : "", no_units ? ctx->spec->platform : "",
                          no_units ? " has no FP4 matrix units" : "");
}
