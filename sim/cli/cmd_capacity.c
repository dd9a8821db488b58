/* SPDX-License-Identifier: GPL-3.0-or-later */
/* apmw capacity: the largest population of agents that meets each tier, on each platform. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_scenario.h"

enum { KEY_PLATFORM = 0x7200, KEY_ALL_LAYOUTS, KEY_NO_INTERVAL, KEY_RESOLUTION, KEY_SCENARIO, KEY_SEARCH, MAX_PLATFORMS = 32 };

typedef struct options {
    apmw_scenario scenario;
    char *list; /* of platforms, cut at commas; owned */
    const char *platforms[MAX_PLATFORMS];
    size_t n_platforms;
    bool all_layouts, no_interval;
    size_t search_keep;
    double resolution;
    const char *file; /* scenario, NULL = none */
} options;

static const struct argp_option options_table[] = {
    {"platform", KEY_PLATFORM, "A,B", 0, "Platforms: accelerators or nodes (apmw list platforms)", 1},
    {"scenario", KEY_SCENARIO, "FILE", 0, "Read a scenario; other options override it", 1},
    {"all-layouts", KEY_ALL_LAYOUTS, NULL, 0, "Print every layout, not only the best one", 2},
    {"search-layout", KEY_SEARCH, "N", OPTION_ARG_OPTIONAL,
     "Of all splits of --accelerators into engines of 1, 2, 4 ... 64, prefill and decode apart or not, simulate the N (default "
     "8) an engine that rate matching puts first at each tier; prints the frontier of agents an accelerator and a megawatt "
     "(with --all-layouts: all that were simulated)", 2},
    {"no-interval", KEY_NO_INTERVAL, NULL, 0, "Leave out the 90 % intervals (several times faster)", 2},
    {"resolution", KEY_RESOLUTION, "X", 0, "Brackets end at X of the capacity (default 0.01), 0 = at one agent", 2},
    {0}};

static void take_platforms(options *o, struct argp_state *state, const char *text)
{
    free(o->list);
    o->list = strdup(text);
    o->n_platforms = 0;
    char *rest = o->list;
    for (char *name = strsep(&rest, ","); name != NULL; name = strsep(&rest, ",")) {
        if (name[0] == '\0' || o->n_platforms == MAX_PLATFORMS) {
            argp_error(state, "--platform takes up to %d names with commas between them", MAX_PLATFORMS);
            return;
        }
        o->platforms[o->n_platforms++] = name;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->scenario;
        return 0;
    case KEY_PLATFORM:
        take_platforms(o, state, arg);
        return 0;
    case KEY_SCENARIO:
        o->file = arg;
        return 0;
    case KEY_ALL_LAYOUTS:
        o->all_layouts = true;
        return 0;
    case KEY_SEARCH:
        o->search_keep = arg == NULL ? 8 : (size_t)apmw_cli_whole(state, "search-layout", arg, 1, 1000);
        return 0;
    case KEY_NO_INTERVAL:
        o->no_interval = true;
        return 0;
    case KEY_RESOLUTION:
        o->resolution = apmw_cli_number(state, "resolution", arg, 0.0, 1.0);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "nothing is expected after the options, \"%s\" is", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&apmw_cli_scenario_argp, 0, NULL, 0}, {0}};
static const struct argp parser = {
    .options = options_table,
    .parser = parse,
    .children = children,
    .doc = "Finds the largest number of coding agents that meets each service-level tier on each platform, with its "
           "bracket, power and 90 % interval.\v"
           "Example: apmw capacity --platform h200,b200 --model deepseek-v4-pro --tier 1",
};

static bool show_progress(void *self, size_t done, size_t total)
{
    apmw_cli_progress(self, "capacity", done, total);
    return apmw_cli_interrupted();
}

/* ------------------------------------------------------------------ output */

static void pair_text(char *out, size_t size, const apmw_interval *interval, int digits)
{
    if (interval->n_parts == 0 || isnan(interval->lo)) {
        snprintf(out, size, "-");
    } else {
        snprintf(out, size, "%.*g..%.*g", digits, interval->lo, digits, interval->hi);
    }
}

static size_t tier_index(const apmw_study_config *config, int number)
{
    size_t k = 0;
    while (config->tiers[k].number != number) {
        k++;
    }
    return k;
}

/* A study that was interrupted says of each row what it lacks. */
static bool any_partial(const apmw_study_row *rows, size_t n)
{
    bool partial = false;
    for (size_t i = 0; i < n; i++) {
        partial = partial || rows[i].partial[0] != '\0';
    }
    return partial;
}

/* Readers get "(projected)" behind the platform, programs a column. */
static apmw_table *make_table(const apmw_study_row *rows, size_t n, bool for_readers)
{
    static const char *const NAMES[] = {"platform", "tier", "engine", "layout", "draft", "agents", "per accelerator", "per MW",
                                        "W/accelerator", "W all-in", "limited by", "pass", "fail", "agents 90 %",
                                        "per MW 90 %", "outside domain", "projected", "partial"};
    const bool partial = any_partial(rows, n);
    const char *names[sizeof NAMES / sizeof NAMES[0]];
    size_t n_names = 0;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const bool left_out = (strcmp(NAMES[i], "partial") == 0 && !partial) || (strcmp(NAMES[i], "projected") == 0 && for_readers);
        if (!left_out) {
            names[n_names++] = NAMES[i];
        }
    }
    apmw_table *table = apmw_table_create(n_names, names);
    for (size_t i = 0; table != NULL && i < n; i++) {
        const apmw_study_row *r = &rows[i];
        const apmw_deployment *d = r->deployment;
        const apmw_bracket *b = &r->capacity.bracket;
        char agents[64], per_mw[64];
        pair_text(agents, sizeof agents, &r->agents90, 3);
        pair_text(per_mw, sizeof per_mw, &r->mw90, 3);
        char platform[sizeof r->platform + sizeof " (projected)"];
        snprintf(platform, sizeof platform, "%s%s", r->platform, for_readers && d != NULL && d->projected ? " (projected)" : "");
        apmw_table_text(table, platform);
        if (r->tier > 0) {
            apmw_table_int(table, r->tier);
        } else {
            apmw_table_text(table, "slo");
        }
        apmw_table_text(table, d == NULL ? NULL : d->spec.engine);
        apmw_table_text(table, d == NULL ? NULL : d->name);
        if (d == NULL) {
            apmw_table_text(table, NULL);
            apmw_table_text(table, NULL);
        } else {
            apmw_table_int(table, d->spec.draft_tokens);
            apmw_table_int(table, r->capacity.agents);
        }
        apmw_table_number(table, r->agents_per_accelerator, 3);
        apmw_table_number(table, r->agents_per_mw, 4);
        apmw_table_number(table, r->watts_per_accelerator, 3);
        apmw_table_number(table, r->watts_all_in, 4);
        apmw_table_text(table, d != NULL ? r->capacity.limited_by : r->partial[0] != '\0' ? NULL : "does not fit");
        apmw_table_int(table, b->pass);
        if (b->fail > 0) {
            apmw_table_int(table, b->fail);
        } else {
            apmw_table_text(table, NULL);
        }
        apmw_table_text(table, agents);
        apmw_table_text(table, per_mw);
        /* Forms have no domain, so nothing of a projected part can lie outside one. */
        apmw_table_number(table, d == NULL || d->projected ? (double)NAN : r->capacity.outside_domain_share, 2);
        if (!for_readers) {
            apmw_table_text(table, d != NULL && d->projected ? "yes" : "no");
        }
        if (partial) {
            apmw_table_text(table, r->partial[0] != '\0' ? r->partial : "complete");
        }
    }
    return table;
}

/* What every figure rests on: once for a platform, then why each tier ends where it does. */
static void write_notes(const apmw_study_row *rows, size_t n, const apmw_study_config *config, const char *assumptions,
                        apmw_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        const apmw_study_row *r = &rows[i];
        if (!r->best && r->deployment != NULL) {
            continue;
        }
        apmw_buf_printf(out, "\n%s ", r->platform);
        apmw_tier_title(&config->tiers[tier_index(config, r->tier)], out);
        apmw_buf_puts(out, ": ");
        if (r->deployment == NULL) {
            apmw_buf_printf(out, "%s\n", r->reason);
            continue;
        }
        const apmw_trial_result *t = r->capacity.agents > 0 ? &r->capacity.at_pass : &r->capacity.at_fail;
        char loaded[48] = "";
        if (t->latency.fetched_tokens > 0) {
            snprintf(loaded, sizeof loaded, " and loaded %.3g %%", 100.0 * t->latency.loaded_share);
        }
        apmw_buf_printf(out, "%s; at %lld agents: batch %.3g, hit %.3g %%%s of prompt tokens, KV %.3g %% full, prefill in %.3g %% of step time\n",
                        r->capacity.limited_why[0] != '\0' ? r->capacity.limited_why : r->capacity.limited_by,
                        (long long)t->n_agents, t->steps.mean_batch, 100.0 * t->latency.hit_share, loaded,
                        100.0 * t->steps.kv_mean_share, 100.0 * t->steps.prefill_step_share);
        apmw_buf_printf(out, "%s\n", r->deployment->basis);
        if (r->agents90.n_parts > 0) {
            /* Without watts there is nothing per MW: the population's own parts then. */
            const bool watts = !isnan(r->mw90.lo);
            const apmw_interval *interval = watts ? &r->mw90 : &r->agents90;
            apmw_buf_printf(out, "90 %% interval of agents%s by source:", watts ? " per MW" : "");
            for (int k = 0; k < interval->n_parts; k++) {
                const apmw_interval_part *p = &interval->parts[k];
                apmw_buf_printf(out, "%s %s %+.0f/%+.0f %%", k > 0 ? "," : "", p->name, 100.0 * expm1(-p->lower),
                                100.0 * expm1(p->upper));
            }
            apmw_buf_puts(out, "\n");
        }
    }
    apmw_buf_printf(out, "\n%s\n", assumptions);
}

/* Engines that did not take part, of all that was refused; each is named once. */
static void write_left_out(const char *refused, apmw_buf *out)
{
    for (const char *line = refused; *line != '\0';) {
        const char *end = strchr(line, '\n');
        const size_t length = end != NULL ? (size_t)(end - line) : strlen(line);
        const char *why = strstr(line, "was not measured there");
        if (why != NULL && why < line + length) {
            apmw_buf_printf(out, "left out: %.*s (--engine asks for it)\n", (int)length, line);
        }
        line += length + (end != NULL);
    }
}

static void write_pair(apmw_json_writer *w, const char *key, const apmw_interval *interval)
{
    apmw_json_begin_array(w, key);
    apmw_json_double(w, NULL, interval->lo);
    apmw_json_double(w, NULL, interval->hi);
    apmw_json_end_array(w);
}

static void write_parts(apmw_json_writer *w, const char *key, const apmw_interval *interval)
{
    apmw_json_begin_array(w, key);
    for (int i = 0; i < interval->n_parts; i++) {
        apmw_json_begin_object(w, NULL);
        apmw_json_string(w, "source", interval->parts[i].name);
        apmw_json_double(w, "ln_lower", interval->parts[i].lower);
        apmw_json_double(w, "ln_upper", interval->parts[i].upper);
        apmw_json_end_object(w);
    }
    apmw_json_end_array(w);
}

static void write_trial(apmw_json_writer *w, const char *key, const apmw_trial_result *t, const apmw_study_config *config,
                        int tier)
{
    if (t->n_agents == 0) {
        apmw_json_null(w, key);
        return;
    }
    const size_t k = tier_index(config, tier);
    const apmw_verdict *v = &t->verdict[k];
    apmw_json_begin_object(w, key);
    apmw_json_int(w, "agents", t->n_agents);
    apmw_json_bool(w, "valid", v->valid);
    apmw_json_bool(w, "ended_early", t->gave_up);
    for (int i = 0; i < config->tiers[k].n_criteria; i++) {
        const apmw_criterion *c = &config->tiers[k].criteria[i];
        char name[64];
        snprintf(name, sizeof name, "p%g_%s", 100.0 * c->quantile, apmw_slo_metric_name(c->metric));
        apmw_json_double(w, name, v->value[i]);
    }
    apmw_json_string(w, "reasons", v->reasons);
    apmw_json_int(w, "requests", v->n_measured);
    apmw_json_double(w, "window_s", v->window_s);
    apmw_json_int(w, "trajectories", v->trajectories);
    apmw_json_double(w, "hit_share", t->latency.hit_share);
    apmw_json_double(w, "loaded_share", t->latency.loaded_share);
    apmw_json_double(w, "mean_output_tokens", (double)t->latency.output_tokens / (double)t->latency.n_done);
    apmw_json_double(w, "mean_batch", t->steps.mean_batch);
    apmw_json_double(w, "mean_step_s", t->steps.mean_step_s);
    apmw_json_double(w, "prefill_tok_s", t->steps.prefill_tok_s);
    apmw_json_double(w, "decode_tok_s", t->steps.decode_tok_s);
    apmw_json_double(w, "kv_mean_share", t->steps.kv_mean_share);
    apmw_json_double(w, "kv_peak_share", t->steps.kv_peak_share);
    apmw_json_double(w, "busy_share", t->steps.busy_share);
    apmw_json_double(w, "duty", t->steps.duty);
    apmw_json_double(w, "watts_per_accelerator", t->energy.mean_w);
    apmw_json_end_object(w);
}

static double provisioned_w(const apmw_deployment *d)
{
    if (d->prefill == NULL) {
        return d->all_in_w;
    }
    const double n = (double)d->prefill->accelerators, all = (double)d->accelerators;
    return (n * d->prefill->all_in_w + (all - n) * d->all_in_w) / all;
}

static void write_row(apmw_json_writer *w, const apmw_study_row *r, const apmw_study_config *config)
{
    const apmw_deployment *d = r->deployment;
    apmw_json_begin_object(w, NULL);
    apmw_json_string(w, "platform", r->platform);
    apmw_json_string(w, "model", config->scenario->model);
    apmw_json_int(w, "tier", r->tier);
    apmw_cli_limits(w, "limits", &config->tiers[tier_index(config, r->tier)]);
    apmw_json_string(w, "layout", d == NULL ? NULL : d->name);
    apmw_json_string(w, "engine", d == NULL ? NULL : d->spec.engine);
    apmw_json_string(w, "precision", d == NULL ? NULL : d->spec.precision);
    if (d == NULL) {
        apmw_json_null(w, "accelerators");
        apmw_json_null(w, "agents");
    } else {
        apmw_json_int(w, "accelerators", d->accelerators);
        apmw_json_int(w, "agents", r->capacity.agents);
    }
    apmw_json_double(w, "agents_per_accelerator", r->agents_per_accelerator);
    apmw_json_double(w, "agents_per_mw", r->agents_per_mw);
    apmw_json_double(w, "watts_per_accelerator", r->watts_per_accelerator);
    apmw_json_double(w, "watts_all_in_per_accelerator", r->watts_all_in);
    apmw_json_string(w, "limited_by", d == NULL ? NULL : r->capacity.limited_by);
    apmw_json_string(w, "limited_by_detail", d == NULL ? NULL : r->capacity.limited_why);
    apmw_json_begin_object(w, "bracket");
    apmw_json_int(w, "pass", r->capacity.bracket.pass);
    if (r->capacity.bracket.fail > 0) {
        apmw_json_int(w, "fail", r->capacity.bracket.fail);
    } else {
        apmw_json_null(w, "fail");
    }
    apmw_json_end_object(w);
    if (r->agents90.n_parts > 0) {
        apmw_json_begin_object(w, "interval90");
        write_pair(w, "agents", &r->agents90);
        write_pair(w, "agents_per_mw", &r->mw90);
        write_parts(w, "agents_parts", &r->agents90);
        write_parts(w, "agents_per_mw_parts", &r->mw90);
        apmw_json_end_object(w);
    } else {
        apmw_json_null(w, "interval90");
    }
    apmw_json_double(w, "outside_domain_share", d == NULL ? (double)NAN : r->capacity.outside_domain_share);
    apmw_json_bool(w, "best", r->best);
    if (config->all_layouts || config->search_keep > 0) {
        apmw_json_bool(w, "frontier", r->frontier);
    }
    apmw_json_string(w, "partial", r->partial[0] == '\0' ? NULL : r->partial);
    apmw_json_string(w, "reason", r->reason[0] == '\0' ? NULL : r->reason);
    if (d != NULL) {
        apmw_json_string(w, "basis", d->basis);
        apmw_json_bool(w, "projected", d->projected);
        apmw_cli_notes_json(w, &d->notes);
        apmw_json_double(w, "provisioned_all_in_w_per_accelerator", provisioned_w(d));
        apmw_json_int(w, "draft_tokens", d->spec.draft_tokens);
        apmw_json_double(w, "acceptance_length", d->acceptance_length);
        apmw_json_double(w, "kv_tokens_per_rank", d->kv_tokens);
        write_trial(w, "last_pass", &r->capacity.at_pass, config, r->tier);
        write_trial(w, "first_fail", &r->capacity.at_fail, config, r->tier);
    }
    apmw_json_end_object(w);
}

static void write_json(apmw_cli *cli, const apmw_study *study, const apmw_study_config *config, const char *assumptions,
                       apmw_buf *out)
{
    size_t n;
    const apmw_study_row *rows = apmw_study_rows(study, &n);
    apmw_json_writer w = apmw_json_writer_make(out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "schema", "apmw.capacity/1");
    apmw_cli_provenance(cli, &w, "provenance");
    apmw_json_string(&w, "trace_hash", config->trace->hash);
    apmw_json_string(&w, "protocol", config->rules->version);
    apmw_json_string(&w, "assumptions", assumptions);
    apmw_json_bool(&w, "partial", any_partial(rows, n));
    apmw_json_begin_array(&w, "results");
    for (size_t i = 0; i < n; i++) {
        write_row(&w, &rows[i], config);
    }
    apmw_json_end_array(&w);
    apmw_json_string(&w, "refused_layouts", apmw_study_refused(study));
    apmw_json_string(&w, "searched_layouts", apmw_study_searched(study));
    apmw_json_int(&w, "trials", apmw_study_trials(study));
    apmw_json_int(&w, "turns", apmw_study_turns(study));
    apmw_json_end_object(&w);
    apmw_buf_puts(out, "\n");
}

/* Of all rows, each once. */
static void say_notes(const apmw_cli *cli, const apmw_study_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool said = rows[i].deployment == NULL || rows[i].deployment->notes.length == 0;
        for (size_t k = 0; k < i && !said; k++) {
            const apmw_deployment *d = rows[k].deployment;
            said = d != NULL && d->notes.length > 0 && strcmp(d->notes.data, rows[i].deployment->notes.data) == 0;
        }
        if (!said) {
            apmw_cli_notes(cli, &rows[i].deployment->notes);
        }
    }
}

static int emit(apmw_cli *cli, const apmw_study *study, const apmw_study_config *config, const char *assumptions)
{
    size_t n;
    const apmw_study_row *rows = apmw_study_rows(study, &n);
    apmw_buf text = {0};
    say_notes(cli, rows, n);
    if (cli->format == APMW_FORMAT_JSON) {
        write_json(cli, study, config, assumptions, &text);
    } else {
        apmw_table *table = make_table(rows, n, cli->format == APMW_FORMAT_TABLE);
        if (table == NULL) {
            return apmw_cli_failf(cli, APMW_E_NOMEM, "out of memory");
        }
        apmw_table_render(table, cli->format, &text);
        apmw_table_free(table);
        if (cli->format == APMW_FORMAT_TABLE) {
            write_notes(rows, n, config, assumptions, &text);
            write_left_out(apmw_study_refused(study), &text);
            if (apmw_study_searched(study)[0] != '\0') {
                apmw_buf_printf(&text, "\nlayouts, with the agents that rate matching guessed (%zu tier%s); rows: at each tier the best "
                                "first, then what carries more a megawatt and less an accelerator\n%s", config->n_tiers,
                                config->n_tiers == 1 ? "" : "s", apmw_study_searched(study));
            }
        }
    }
    const int code = apmw_cli_emit(cli, &text);
    apmw_buf_free(&text);
    return code;
}

/* ------------------------------------------------------------------ run */

static void describe_assumptions(const options *o, const apmw_phase_rules *rules, const apmw_trace *trace,
                                 const char *speculation, apmw_buf *out)
{
    if (rules->lanes) {
        apmw_buf_printf(out, "assumed: protocol %s, lanes that start at %.0f to %.0f %% of a session, profile of %.0f s; ",
                        rules->version, 100.0 * rules->start_from, 100.0 * rules->start_to, rules->min_window_s);
    } else {
        apmw_buf_printf(out, "assumed: protocol %s, agents start %.3g/s, settle %.0f s, window >= %.0f s; ", rules->version,
                        rules->spawn_per_s, rules->settle_s, rules->min_window_s);
    }
    if (o->scenario.trace[0] != '\0') {
        apmw_buf_printf(out, "trace %s", o->scenario.trace);
    } else {
        apmw_buf_printf(out, "%zu generated AgentPerf-like trajectories (no measured set is public)", trace->n);
    }
    apmw_buf_printf(out, "; %s; output of a turn is %s in the next prompt%s%s",
                    o->scenario.share_prefix ? "tools and system prompt shared across agents"
                                             : "a salt before each play, so agents share nothing",
                    o->scenario.output_cached ? "found" : "computed again", speculation[0] != '\0' ? "; " : "",
                    speculation);
}

static apmw_status work(apmw_cli *cli, options *o, apmw_catalog *catalog, int *code, apmw_error *err)
{
    apmw_phase_rules rules;
    apmw_tier tiers[APMW_MAX_TIERS];
    apmw_trace trace = {0};
    apmw_study *study = NULL;
    size_t n_tiers = 0;
    const char *speculation = "";
    const apmw_llm_spec *llm = NULL;
    apmw_status status = apmw_catalog_llm(catalog, o->scenario.model, &llm, err);
    for (size_t i = 0; i < o->n_platforms && status == APMW_OK; i++) {
        status = apmw_cli_platform(catalog, o->platforms[i], err);
    }
    if (status == APMW_OK) {
        status = apmw_cli_tiers(cli, &o->scenario, &rules, tiers, &n_tiers, err);
    }
    if (status == APMW_OK) {
        status = apmw_cli_trace(cli, &o->scenario, &trace, err);
    }
    if (status == APMW_OK) {
        if (o->scenario.draft_tokens < 0 && o->scenario.n_acceptance == 0 && o->scenario.acceptance_preset[0] == '\0' &&
            llm->mtp_layers > 0 && !isnan(llm->acceptance[1])) {
            speculation = "draft lengths 0, 1 and 3 compete with the acceptance of single-turn measurements, which agents may "
                          "not reach (--draft-tokens 0 for none)";
        }
        apmw_buf assumptions = {0};
        describe_assumptions(o, &rules, &trace, speculation, &assumptions);
        const apmw_study_config config = {
            .scenario = &o->scenario,
            .platforms = o->platforms,
            .n_platforms = o->n_platforms,
            .trace = &trace,
            .rules = &rules,
            .tiers = tiers,
            .n_tiers = n_tiers,
            .resolution = o->resolution,
            .all_layouts = o->all_layouts,
            .search_keep = o->search_keep,
            .interval = !o->no_interval,
            .progress = show_progress,
            .self = cli,
        };
        status = apmw_study_run(catalog, &config, &study, err);
        apmw_cli_progress_end(cli);
        if (study != NULL) { /* also when interrupted: what is known is not lost */
            *code = emit(cli, study, &config, assumptions.length > 0 ? assumptions.data : "");
        }
        if (status == APMW_E_INTERRUPTED) {
            apmw_error_set(err, status, "interrupted: what was known by then is printed, marked partial");
        }
        apmw_buf_free(&assumptions);
    }
    apmw_study_free(study);
    apmw_trace_free(&trace);
    return status;
}

static int run(apmw_cli *cli, int argc, char **argv)
{
    options o = {.resolution = 0.01};
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    apmw_status status = APMW_OK;
    int code = apmw_cli_parse_scenario(cli, &parser, argc, argv, &o, &o.scenario, &o.file, &status, &err);
    if (code != APMW_OK) {
        free(o.list);
        return code;
    }
    if (o.n_platforms == 0 && o.scenario.platform[0] != '\0') {
        o.platforms[o.n_platforms++] = o.scenario.platform;
    }
    if (status == APMW_OK && (o.n_platforms == 0 || o.scenario.model[0] == '\0')) {
        status = apmw_error_set(&err, APMW_E_USAGE, "--platform and --model are needed (apmw list platforms, models)");
    }
    if (status == APMW_OK) {
        status = apmw_catalog_open(cli->data_dir, &catalog, &err);
    }
    if (status == APMW_OK) {
        apmw_cli_catch_interrupt();
        status = work(cli, &o, catalog, &code, &err);
    }
    apmw_catalog_free(catalog);
    free(o.list);
    return status == APMW_OK ? code : apmw_cli_fail(cli, &err);
}

const apmw_command apmw_command_capacity = {"capacity", "Largest agent population that meets each tier", run};
