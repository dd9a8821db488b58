/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cli_scenario.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_MODEL = 0x7100, KEY_ENGINE, KEY_ENGINE_VERSION, KEY_PRECISION, KEY_KV_DTYPE, KEY_LAYOUT, KEY_ACCELERATORS,
    KEY_MEMORY, KEY_DRAFT, KEY_ACCEPTANCE, KEY_TRACE, KEY_TRAJECTORIES, KEY_SHARE_PREFIX, KEY_OUTPUT_CACHED,
    KEY_DELAY_SCALE, KEY_CONCURRENT, KEY_TIER, KEY_PROTOCOL, KEY_SLO, KEY_SEED
};

static const struct argp_option options_table[] = {
    {"model", KEY_MODEL, "MODEL", 0, "Model that is served", 10},
    {"engine", KEY_ENGINE, "ENGINE", 0, "vllm, sglang, trtllm or atom", 10},
    {"engine-version", KEY_ENGINE_VERSION, "V", 0, "Release whose tables price the steps (default: the measured one)", 10},
    {"precision", KEY_PRECISION, "P", 0, "fp8, fp4, bf16 or int4 (default: as the model is published)", 10},
    {"kv-dtype", KEY_KV_DTYPE, "T", 0, "Element type of the KV cache (default: the engine's)", 10},
    {"layout", KEY_LAYOUT, "L", 0, "tpN, tepN, depN or dpN, with xR for R replicas", 10},
    {"accelerators", KEY_ACCELERATORS, "N", 0, "Size of the deployment (default: the node, at most 8)", 10},
    {"memory-fraction", KEY_MEMORY, "F", 0, "Share of memory that the engine may use (default: the engine's)", 10},
    {"draft-tokens", KEY_DRAFT, "K", 0, "Speculative decoding with K draft tokens a step, 0 = none", 10},
    {"acceptance", KEY_ACCEPTANCE, "A", 0, "Mean tokens emitted a step (default: the model's curve)", 10},
    {"trace", KEY_TRACE, "FILE", 0, "Trajectories to replay (default: a generated AgentPerf-like set)", 20},
    {"trajectories", KEY_TRAJECTORIES, "N", 0, "Size of the generated set (default 500)", 20},
    {"share-prefix", KEY_SHARE_PREFIX, NULL, 0, "Tools and system prompt are shared across agents", 20},
    {"output-cached", KEY_OUTPUT_CACHED, NULL, 0, "Generated tokens that recur in the next prompt can be hit", 20},
    {"concurrent-subagents", KEY_CONCURRENT, NULL, 0, "Sub-agents run beside the main line (default: in turn order)", 20},
    {"delay-scale", KEY_DELAY_SCALE, "X", 0, "Factor on tool times (default 1)", 20},
    {"tier", KEY_TIER, "N|all", 0, "Service-level tier of the model (default all)", 30},
    {"slo", KEY_SLO, "LIMITS", 0, "Limits of your own instead of tiers, e.g. p25.speed=30,p95.ttft=10", 30},
    {"protocol", KEY_PROTOCOL, "V", 0, "v2026-06 (AgentPerf, the default), or agentx, agentx-fast, agentx-mvp", 30},
    {"seed", KEY_SEED, "N", 0, "Seed of assignments and draws (default 42)", 30},
    {0}};

long long apmw_cli_whole(struct argp_state *state, const char *option, const char *text, long long lo, long long hi)
{
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < lo || value > hi) {
        argp_error(state, "--%s takes a whole number from %lld to %lld, not \"%s\"", option, lo, hi, text);
    }
    return value;
}

double apmw_cli_number(struct argp_state *state, const char *option, const char *text, double lo, double hi)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= lo && value <= hi)) {
        argp_error(state, "--%s takes a number from %g to %g, not \"%s\"", option, lo, hi, text);
    }
    return value;
}

static void set(struct argp_state *state, const char *option, char *out, size_t size, const char *text)
{
    if (!apmw_copy(out, size, text)) {
        argp_error(state, "--%s takes at most %zu characters", option, size - 1);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    apmw_scenario *s = state->input;
    switch (key) {
    case KEY_MODEL:
        set(state, "model", s->model, sizeof s->model, arg);
        return 0;
    case KEY_ENGINE:
        set(state, "engine", s->engine, sizeof s->engine, arg);
        return 0;
    case KEY_ENGINE_VERSION:
        set(state, "engine-version", s->engine_version, sizeof s->engine_version, arg);
        return 0;
    case KEY_PRECISION:
        set(state, "precision", s->precision, sizeof s->precision, arg);
        return 0;
    case KEY_KV_DTYPE:
        set(state, "kv-dtype", s->kv_dtype, sizeof s->kv_dtype, arg);
        return 0;
    case KEY_LAYOUT:
        set(state, "layout", s->layout, sizeof s->layout, arg);
        return 0;
    case KEY_ACCELERATORS:
        s->accelerators = (int)apmw_cli_whole(state, "accelerators", arg, 1, 65536);
        return 0;
    case KEY_MEMORY:
        s->memory_fraction = apmw_cli_number(state, "memory-fraction", arg, 0.01, 1.0);
        return 0;
    case KEY_DRAFT:
        s->draft_tokens = (int)apmw_cli_whole(state, "draft-tokens", arg, 0, 16);
        return 0;
    case KEY_ACCEPTANCE:
        s->acceptance_length = apmw_cli_number(state, "acceptance", arg, 1.0, 17.0);
        return 0;
    case KEY_TRACE:
        set(state, "trace", s->trace, sizeof s->trace, arg);
        return 0;
    case KEY_TRAJECTORIES:
        s->trajectories = apmw_cli_whole(state, "trajectories", arg, 1, 10000000);
        return 0;
    case KEY_SHARE_PREFIX:
        s->share_prefix = true;
        return 0;
    case KEY_OUTPUT_CACHED:
        s->output_cached = true;
        return 0;
    case KEY_CONCURRENT:
        s->concurrent_subagents = true;
        return 0;
    case KEY_DELAY_SCALE:
        s->delay_scale = apmw_cli_number(state, "delay-scale", arg, 0.0, 1e6);
        return 0;
    case KEY_TIER:
        s->tier = strcmp(arg, "all") == 0 ? 0 : (int)apmw_cli_whole(state, "tier", arg, 1, 99);
        return 0;
    case KEY_PROTOCOL:
        set(state, "protocol", s->protocol, sizeof s->protocol, arg);
        return 0;
    case KEY_SLO:
        set(state, "slo", s->slo, sizeof s->slo, arg);
        return 0;
    case KEY_SEED:
        s->seed = (uint64_t)apmw_cli_whole(state, "seed", arg, 0, INT64_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp apmw_cli_scenario_argp = {.options = options_table, .parser = parse};

apmw_status apmw_cli_platform(const apmw_catalog *catalog, const char *name, apmw_error *err)
{
    const apmw_node_spec *node = NULL;
    const apmw_status status = apmw_catalog_node(catalog, name, &node, err);
    if (status != APMW_E_USAGE) {
        return status;
    }
    const size_t n_nodes = apmw_catalog_count_nodes(catalog), n_parts = apmw_catalog_count_accelerators(catalog);
    const char **names = calloc(n_nodes + n_parts + 1, sizeof *names);
    if (names == NULL) {
        return apmw_error_set(err, APMW_E_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < n_parts; i++) {
        names[i] = apmw_catalog_accelerator_at(catalog, i)->id;
    }
    for (size_t i = 0; i < n_nodes; i++) {
        names[n_parts + i] = apmw_catalog_node_at(catalog, i)->id;
    }
    const char *near = apmw_near(name, names, n_nodes + n_parts);
    free(names);
    return apmw_error_set(err, APMW_E_USAGE, near == NULL ? "unknown platform \"%s\"%s (apmw list platforms)"
                                                          : "unknown platform \"%s\" (did you mean \"%s\"?)",
                          name, near == NULL ? "" : near);
}

apmw_status apmw_cli_accelerator(const apmw_cli *cli, const apmw_catalog *catalog, const char *name,
                                 const apmw_accelerator_spec **out, apmw_error *err)
{
    const apmw_node_spec *node = NULL;
    apmw_error none = {0};
    if (apmw_catalog_accelerator(catalog, name, out, &none) == APMW_OK) {
        return APMW_OK;
    }
    apmw_status status = apmw_cli_platform(catalog, name, err);
    if (status == APMW_OK) {
        status = apmw_catalog_node(catalog, name, &node, err);
    }
    if (status == APMW_OK) {
        status = apmw_catalog_accelerator(catalog, node->accelerator, out, err);
    }
    if (status == APMW_OK) {
        apmw_cli_log(cli, APMW_LOG_INFO, "%s is %d x %s: this is of one %s", name, node->accelerators,
                     node->accelerator, node->accelerator);
    }
    return status;
}

apmw_status apmw_cli_load(apmw_cli *cli, const apmw_scenario *scenario, apmw_trace *out, apmw_start **starts,
                          size_t *n_starts, apmw_error *err)
{
    *out = (apmw_trace){0};
    *starts = NULL;
    *n_starts = 0;
    if (scenario->starts[0] == '\0') {
        return apmw_cli_trace(cli, scenario, out, err);
    }
    apmw_scenario recorded = *scenario;
    recorded.starts[0] = '\0';
    apmw_trace trace = {0};
    apmw_status status = apmw_cli_trace(cli, &recorded, &trace, err);
    if (status == APMW_OK) {
        status = apmw_cli_input(cli, scenario->starts, err);
    }
    if (status == APMW_OK) {
        status = apmw_starts_load(scenario->starts, &trace, scenario->agents, starts, n_starts, err);
    }
    if (status == APMW_OK) {
        status = apmw_trace_as_sent(&trace, *starts, n_starts, &scenario->sent, out, err);
    }
    apmw_trace_free(&trace);
    return status;
}

apmw_status apmw_cli_trace(apmw_cli *cli, const apmw_scenario *scenario, apmw_trace *out, apmw_error *err)
{
    *out = (apmw_trace){0};
    if (scenario->starts[0] != '\0') {
        return apmw_error_set(err, APMW_E_SCENARIO, "workload.starts names users of one run: apmw simulate plays it");
    }
    if (scenario->trace[0] == '\0') {
        return apmw_synth_run("agentperf", (size_t)scenario->trajectories, scenario->seed, NULL, 0, out, err);
    }
    const apmw_status status = apmw_cli_input(cli, scenario->trace, err);
    return status == APMW_OK ? apmw_trace_load(scenario->trace, NULL, out, err) : status;
}

apmw_status apmw_cli_tiers(apmw_cli *cli, const apmw_scenario *scenario, apmw_phase_rules *rules, apmw_tier *tiers,
                           size_t *n_tiers, apmw_error *err)
{
    char *path = apmw_cli_data_path(cli, "sim/protocol/tiers.json");
    apmw_tier_book book = {0};
    apmw_status status = path == NULL ? apmw_error_set(err, APMW_E_NOMEM, "out of memory") : APMW_OK;
    if (status == APMW_OK) {
        status = apmw_cli_input(cli, path, err);
    }
    if (status == APMW_OK) {
        status = apmw_tier_book_load(path, &book, err);
    }
    free(path);
    if (status == APMW_OK) {
        status = apmw_tier_book_rules(&book, scenario->protocol[0] == '\0' ? NULL : scenario->protocol, rules, err);
    }
    *n_tiers = 0;
    if (status == APMW_OK && scenario->slo[0] != '\0') {
        status = apmw_tier_parse(scenario->slo, &tiers[0], err);
        *n_tiers = 1;
    } else if (status == APMW_OK && rules->lanes) {
        status = apmw_error_set(err, APMW_E_USAGE, "protocol %s has no tiers; give limits of your own (--slo), for example "
                                "p10.e2e=20,p90.ttft=10", rules->version);
    } else if (status == APMW_OK && scenario->tier > 0) {
        status = apmw_tier_book_tier(&book, scenario->model, rules->version, scenario->tier, &tiers[0], err);
        *n_tiers = 1;
    } else if (status == APMW_OK) {
        /* Tier 1 of an unknown model gives the error that lists what there is. */
        const int known = apmw_tier_book_count(&book, scenario->model, rules->version);
        for (int i = 1; status == APMW_OK && (i <= known || i == 1) && i <= APMW_MAX_TIERS; i++) {
            status = apmw_tier_book_tier(&book, scenario->model, rules->version, i, &tiers[i - 1], err);
            *n_tiers = (size_t)i;
        }
    }
    apmw_tier_book_free(&book);
    return status;
}

/* The next line of *rest without its end, or false; *rest goes past it. */
static bool next_line(const char **rest, const char **line, int *length)
{
    *line = *rest;
    if (*rest == NULL || **rest == '\0') {
        return false;
    }
    *length = (int)strcspn(*rest, "\n");
    *rest += *length + ((*rest)[*length] != '\0');
    return true;
}

void apmw_cli_notes(const apmw_cli *cli, const apmw_buf *notes)
{
    const char *rest = notes->data, *line;
    int length;
    while (next_line(&rest, &line, &length)) {
        apmw_cli_log(cli, APMW_LOG_WARN, "note: %.*s", length, line);
    }
}

void apmw_cli_notes_json(apmw_json_writer *w, const apmw_buf *notes)
{
    const char *rest = notes->data, *line;
    int length;
    apmw_json_begin_array(w, "notes");
    while (next_line(&rest, &line, &length)) {
        char *copy = strndup(line, (size_t)length);
        apmw_json_string(w, NULL, copy);
        free(copy);
    }
    apmw_json_end_array(w);
}

void apmw_cli_limits(apmw_json_writer *w, const char *key, const apmw_tier *tier)
{
    apmw_buf text = {0};
    apmw_tier_text(tier, &text);
    apmw_json_string(w, key, text.length > 0 ? text.data : "");
    apmw_buf_free(&text);
}

int apmw_cli_parse_scenario(apmw_cli *cli, const struct argp *parser, int argc, char **argv, void *input,
                            apmw_scenario *scenario, const char *const *file, apmw_status *status, apmw_error *err)
{
    apmw_scenario_init(scenario);
    const int code = apmw_cli_parse(cli, parser, argc, argv, input);
    if (code != APMW_OK || *file == NULL) {
        return code;
    }
    apmw_scenario_init(scenario);
    *status = apmw_cli_input(cli, *file, err);
    if (*status == APMW_OK) {
        *status = apmw_scenario_load(*file, scenario, err);
    }
    return *status == APMW_OK ? apmw_cli_parse(cli, parser, argc, argv, input) : code;
}
