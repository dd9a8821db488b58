/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "apmw/protocol.h"

#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/text.h"

static const char *const METRIC_NAMES[] = {
    [APMW_SLO_OUTPUT_SPEED] = "output_speed_tok_s",
    [APMW_SLO_TTFT] = "ttft_s",
    [APMW_SLO_E2E_SPEED] = "e2e_speed_tok_s",
};
enum { N_METRICS = sizeof METRIC_NAMES / sizeof METRIC_NAMES[0] };

const char *apmw_slo_metric_name(apmw_slo_metric metric)
{
    return METRIC_NAMES[metric];
}

static apmw_status copy_text(const apmw_json_cur *object, const char *key, char *out, size_t size, apmw_error *err)
{
    const char *text = NULL;
    const apmw_status status = apmw_json_get_string(object, key, &text, err);
    if (status == APMW_OK && (text[0] == '\0' || !apmw_copy(out, size, text))) {
        return apmw_json_error(object, err, APMW_E_DATA, "%s must have 1 to %zu characters", key, size - 1);
    }
    return status;
}

static apmw_status read_criterion(const apmw_json_cur *item, apmw_criterion *out, apmw_error *err)
{
    static const char *const KEYS[] = {"metric", "quantile", "at_least", "at_most", NULL};
    const char *name = NULL;
    apmw_status status = apmw_json_only_keys(item, KEYS, err);
    if (status == APMW_OK) {
        status = apmw_json_get_string(item, "metric", &name, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    size_t metric = 0;
    while (metric < N_METRICS && strcmp(METRIC_NAMES[metric], name) != 0) {
        metric++;
    }
    if (metric == N_METRICS) {
        const char *near = apmw_near(name, METRIC_NAMES, N_METRICS);
        return apmw_json_error(item, err, APMW_E_DATA, "unknown metric \"%s\"; nearest: %s", name,
                               near == NULL ? "none" : near);
    }
    out->metric = (apmw_slo_metric)metric;
    /* The side is written out so that a reader sees it, and checked against the metric. */
    const char *side = out->metric == APMW_SLO_TTFT ? "at_most" : "at_least";
    const char *other = out->metric == APMW_SLO_TTFT ? "at_least" : "at_most";
    if (apmw_json_has(item, other)) {
        return apmw_json_error(item, err, APMW_E_DATA, "%s takes %s, not %s", name, side, other);
    }
    status = apmw_json_get_double(item, "quantile", 0.0, 1.0, &out->quantile, err);
    if (status == APMW_OK) {
        status = apmw_json_get_double(item, side, 1e-9, 1e12, &out->limit, err);
    }
    return status;
}

static apmw_status read_tier(const apmw_json_cur *item, apmw_tier *out, apmw_error *err)
{
    static const char *const KEYS[] = {"model", "version", "number", "criteria", NULL};
    int64_t number = 0;
    apmw_json_cur list;
    apmw_status status = apmw_json_only_keys(item, KEYS, err);
    if (status == APMW_OK) {
        status = copy_text(item, "model", out->model, sizeof out->model, err);
    }
    if (status == APMW_OK) {
        status = copy_text(item, "version", out->version, sizeof out->version, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(item, "number", 1, 99, &number, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_child(item, "criteria", &list, err);
    }
    if (status != APMW_OK) {
        return status;
    }
    out->number = (int)number;
    out->n_criteria = apmw_json_typeof(&list) == APMW_JSON_ARRAY ? apmw_json_length(&list) : 0;
    if (out->n_criteria < 1 || out->n_criteria > APMW_CRITERIA) {
        return apmw_json_error(&list, err, APMW_E_DATA, "expected a list of 1 to %d criteria", APMW_CRITERIA);
    }
    for (int i = 0; i < out->n_criteria && status == APMW_OK; i++) {
        apmw_json_cur criterion;
        status = apmw_json_at(&list, i, &criterion, err);
        if (status == APMW_OK) {
            status = read_criterion(&criterion, &out->criteria[i], err);
        }
    }
    return status;
}

typedef struct rule_number {
    const char *key;
    double lo, hi;
    double *out;
} rule_number;

static apmw_status read_numbers(const apmw_json_cur *item, const rule_number *numbers, size_t n, apmw_error *err)
{
    apmw_status status = APMW_OK;
    for (size_t i = 0; i < n && status == APMW_OK; i++) {
        status = apmw_json_get_double(item, numbers[i].key, numbers[i].lo, numbers[i].hi, numbers[i].out, err);
    }
    return status;
}

/* Agents that begin one after another and settle (AgentPerf). */
static apmw_status read_agents(const apmw_json_cur *item, apmw_phase_rules *out, apmw_error *err)
{
    int64_t offset = 0;
    const rule_number numbers[] = {{"spawn_per_s", 1e-6, 1e9, &out->spawn_per_s},
                                   {"settle_s", 0.0, 1e6, &out->settle_s},
                                   {"steady_s", 0.0, 1e6, &out->steady_s}};
    apmw_status status = read_numbers(item, numbers, sizeof numbers / sizeof numbers[0], err);
    if (status == APMW_OK) {
        status = apmw_json_get_int(item, "min_trajectories", 0, 1000000000, &out->min_trajectories, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(item, "min_trajectories_per_agent", 0, 1000000, &out->min_trajectories_per_agent, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(item, "max_start_offset", 0, 1000000, &offset, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(item, "max_output_tokens", 0, 1000000000, &out->max_output_tokens, err);
    }
    out->max_start_offset = (int)offset;
    return status;
}

/* Sessions in lanes (AgentX). */
static apmw_status read_lanes(const apmw_json_cur *root, apmw_phase_rules *out, apmw_error *err)
{
    static const char *const KEYS[] = {"start_from", "start_to", "warmup_turns", "warmup_grace_s", "tree_idle_s",
                                       "system_idle_s", NULL};
    int64_t turns = 0;
    apmw_json_cur item;
    apmw_status status = apmw_json_child(root, "lanes", &item, err);
    if (status == APMW_OK) {
        status = apmw_json_only_keys(&item, KEYS, err);
    }
    const rule_number numbers[] = {{"start_from", 0.0, 1.0, &out->start_from},
                                   {"start_to", 0.0, 1.0, &out->start_to},
                                   {"warmup_grace_s", 0.0, 1e6, &out->warmup_grace_s},
                                   {"tree_idle_s", 0.0, 1e7, &out->tree_idle_s},
                                   {"system_idle_s", 0.0, 1e7, &out->system_idle_s}};
    if (status == APMW_OK) {
        status = read_numbers(&item, numbers, sizeof numbers / sizeof numbers[0], err);
    }
    if (status == APMW_OK) {
        status = apmw_json_get_int(&item, "warmup_turns", 0, 1000000, &turns, err);
    }
    if (status == APMW_OK && out->start_from > out->start_to) {
        status = apmw_json_error(&item, err, APMW_E_DATA, "start_from %g is above start_to %g", out->start_from, out->start_to);
    }
    out->warmup_turns = (int)turns;
    return status;
}

static apmw_status read_rules(const apmw_json_cur *item, apmw_phase_rules *out, apmw_error *err)
{
    static const char *const AGENTS[] = {"version", "spawn_per_s", "settle_s", "steady_s", "min_window_s",
                                         "min_trajectories", "min_trajectories_per_agent", "timeout_s",
                                         "max_failed_share", "max_start_offset", "max_output_tokens", NULL};
    static const char *const LANES[] = {"version", "min_window_s", "timeout_s", "max_failed_share", "lanes", NULL};
    out->lanes = apmw_json_has(item, "lanes");
    apmw_status status = apmw_json_only_keys(item, out->lanes ? LANES : AGENTS, err);
    if (status == APMW_OK) {
        status = copy_text(item, "version", out->version, sizeof out->version, err);
    }
    const rule_number numbers[] = {{"min_window_s", 0.0, 1e7, &out->min_window_s},
                                   {"timeout_s", 1.0, 1e8, &out->timeout_s},
                                   {"max_failed_share", 0.0, 1.0, &out->max_failed_share}};
    if (status == APMW_OK) {
        status = read_numbers(item, numbers, sizeof numbers / sizeof numbers[0], err);
    }
    if (status == APMW_OK) {
        status = out->lanes ? read_lanes(item, out, err) : read_agents(item, out, err);
    }
    return status;
}

/* Reads array `key` of the root into *items. */
static apmw_status read_list(const apmw_json_cur *root, const char *key, size_t size, void **items, size_t *n,
                             apmw_status (*read)(const apmw_json_cur *, void *, apmw_error *), apmw_error *err)
{
    apmw_json_cur list;
    apmw_status status = apmw_json_child(root, key, &list, err);
    if (status != APMW_OK) {
        return status;
    }
    const int length = apmw_json_typeof(&list) == APMW_JSON_ARRAY ? apmw_json_length(&list) : 0;
    if (length < 1) {
        return apmw_json_error(&list, err, APMW_E_DATA, "expected a list with at least one entry");
    }
    char *memory = calloc((size_t)length, size);
    if (memory == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    *items = memory;
    *n = (size_t)length;
    for (int i = 0; i < length && status == APMW_OK; i++) {
        apmw_json_cur item;
        status = apmw_json_at(&list, i, &item, err);
        if (status == APMW_OK) {
            status = read(&item, memory + (size_t)i * size, err);
        }
    }
    return status;
}

static apmw_status read_rules_into(const apmw_json_cur *item, void *out, apmw_error *err)
{
    return read_rules(item, out, err);
}

static apmw_status read_tier_into(const apmw_json_cur *item, void *out, apmw_error *err)
{
    return read_tier(item, out, err);
}

apmw_status apmw_tier_book_load(const char *path, apmw_tier_book *out, apmw_error *err)
{
    static const char *const KEYS[] = {"schema", "protocols", "tiers", NULL};
    *out = (apmw_tier_book){0};
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_load(path, &doc, err);
    if (status != APMW_OK) {
        return status;
    }
    const apmw_json_cur root = apmw_json_root(doc);
    const char *schema = NULL;
    status = apmw_json_only_keys(&root, KEYS, err);
    if (status == APMW_OK) {
        status = apmw_json_get_string(&root, "schema", &schema, err);
    }
    if (status == APMW_OK && strcmp(schema, "apmw.tiers/1") != 0) {
        status = apmw_json_error(&root, err, APMW_E_DATA, "schema is \"%s\", expected \"apmw.tiers/1\"", schema);
    }
    void *items = NULL;
    if (status == APMW_OK) {
        status = read_list(&root, "protocols", sizeof *out->rules, &items, &out->n_rules, read_rules_into, err);
        out->rules = items;
    }
    items = NULL;
    if (status == APMW_OK) {
        status = read_list(&root, "tiers", sizeof *out->tiers, &items, &out->n_tiers, read_tier_into, err);
        out->tiers = items;
    }
    apmw_json_free(doc);
    if (status != APMW_OK) {
        apmw_tier_book_free(out);
    }
    return status;
}

void apmw_tier_book_free(apmw_tier_book *book)
{
    free(book->rules);
    free(book->tiers);
    *book = (apmw_tier_book){0};
}

apmw_status apmw_tier_book_rules(const apmw_tier_book *book, const char *version, apmw_phase_rules *out,
                                 apmw_error *err)
{
    for (size_t i = 0; i < book->n_rules; i++) {
        if (version == NULL || strcmp(book->rules[i].version, version) == 0) {
            *out = book->rules[i];
            return APMW_OK;
        }
    }
    apmw_buf known = {0};
    for (size_t i = 0; i < book->n_rules; i++) {
        apmw_buf_printf(&known, "%s%s", i > 0 ? ", " : "", book->rules[i].version);
    }
    const apmw_status status = apmw_error_set(err, APMW_E_USAGE, "unknown protocol version \"%s\"; known: %s", version,
                                              known.length > 0 ? known.data : "none");
    apmw_buf_free(&known);
    return status;
}

int apmw_tier_book_count(const apmw_tier_book *book, const char *model, const char *version)
{
    int n = 0;
    for (size_t i = 0; i < book->n_tiers; i++) {
        n += strcmp(book->tiers[i].model, model) == 0 &&
             (version == NULL || strcmp(book->tiers[i].version, version) == 0);
    }
    return n;
}

apmw_status apmw_tier_book_tier(const apmw_tier_book *book, const char *model, const char *version, int number,
                                apmw_tier *out, apmw_error *err)
{
    for (size_t i = 0; i < book->n_tiers; i++) {
        const apmw_tier *t = &book->tiers[i];
        if (strcmp(t->model, model) == 0 && t->number == number &&
            (version == NULL || strcmp(t->version, version) == 0)) {
            *out = *t;
            return APMW_OK;
        }
    }
    apmw_buf known = {0};
    for (size_t i = 0; i < book->n_tiers; i++) {
        if (i == 0 || strcmp(book->tiers[i].model, book->tiers[i - 1].model) != 0) {
            apmw_buf_printf(&known, "%s%s (%d)", known.length > 0 ? ", " : "", book->tiers[i].model,
                            apmw_tier_book_count(book, book->tiers[i].model, version));
        }
    }
    const apmw_status status =
        apmw_error_set(err, APMW_E_USAGE,
                       "no tier %d for model \"%s\"; models with tiers: %s; others are asked with limits (slo)", number,
                       model, known.length > 0 ? known.data : "none");
    apmw_buf_free(&known);
    return status;
}

static apmw_status parse_criterion(const char *text, size_t length, apmw_criterion *out, apmw_error *err)
{
    static const struct {
        const char *name;
        apmw_slo_metric metric;
    } NAMES[] = {{"speed=", APMW_SLO_OUTPUT_SPEED}, {"ttft=", APMW_SLO_TTFT}, {"e2e=", APMW_SLO_E2E_SPEED}};
    char copy[64];
    if (length >= sizeof copy) {
        return apmw_error_set(err, APMW_E_USAGE, "criterion \"%.*s\" is too long", (int)length, text);
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    /* "p" percent "." metric; the percent may have a point of its own (p99.9.ttft). */
    char *name = copy + 1 + (copy[0] == 'p' ? strspn(copy + 1, "0123456789.") : 0);
    double percent = -1.0;
    if (name > copy + 2 && name[-1] == '.') {
        char *end;
        name[-1] = '\0';
        percent = strtod(copy + 1, &end);
        percent = *end == '\0' ? percent : -1.0;
        name[-1] = '.';
    }
    for (size_t i = 0; percent >= 0.0 && percent <= 100.0 && i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const size_t n = strlen(NAMES[i].name);
        if (strncmp(name, NAMES[i].name, n) == 0) {
            char *rest;
            const double limit = strtod(name + n, &rest);
            if (rest != name + n && *rest == '\0' && limit > 0.0 && limit < 1e12) {
                *out = (apmw_criterion){.metric = NAMES[i].metric, .quantile = percent / 100.0, .limit = limit};
                return APMW_OK;
            }
        }
    }
    return apmw_error_set(err, APMW_E_USAGE,
                          "criterion \"%s\" is not like p25.speed=20 (tok/s), p95.ttft=10 (s) or p25.e2e=15 (tok/s)", copy);
}

apmw_status apmw_tier_parse(const char *text, apmw_tier *out, apmw_error *err)
{
    *out = (apmw_tier){.number = 0};
    while (true) {
        const size_t length = strcspn(text, ",");
        if (out->n_criteria == APMW_CRITERIA) {
            return apmw_error_set(err, APMW_E_USAGE, "a tier has at most %d criteria", APMW_CRITERIA);
        }
        const apmw_status status = parse_criterion(text, length, &out->criteria[out->n_criteria++], err);
        if (status != APMW_OK || text[length] == '\0') {
            return status;
        }
        text += length + 1;
    }
}

void apmw_tier_text(const apmw_tier *tier, apmw_buf *out)
{
    for (int i = 0; i < tier->n_criteria; i++) {
        const apmw_criterion *c = &tier->criteria[i];
        const char *name = c->metric == APMW_SLO_TTFT           ? "TTFT"
                           : c->metric == APMW_SLO_OUTPUT_SPEED ? "output speed"
                                                                   : "end-to-end speed";
        apmw_buf_printf(out, "%sP%g %s %s %g %s", i > 0 ? " and " : "", 100.0 * c->quantile, name,
                        c->metric == APMW_SLO_TTFT ? "<=" : ">=", c->limit,
                        c->metric == APMW_SLO_TTFT ? "s" : "tok/s");
    }
}

void apmw_tier_title(const apmw_tier *tier, apmw_buf *out)
{
    if (tier->number > 0) {
        apmw_buf_printf(out, "tier %d (", tier->number);
    } else {
        apmw_buf_puts(out, "own limits (");
    }
    apmw_tier_text(tier, out);
    apmw_buf_puts(out, ")");
}
