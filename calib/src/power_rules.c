/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From rules and evidence to the power parameters of a platform: fitted, or scaled from a relative, and said so. */
#include "power_rules.h"
#include "apmw/fit_power.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 4, MIN_ROWS = 4 }; /* of "from" chains; of a fit of two numbers */

typedef struct context {
    const apmw_catalog *catalog;
    const apmw_json_cur *root;
    const apmw_power_row *rows;
    size_t n_rows;
    size_t *use; /* room for n_rows indices */
} context;

bool apmw_power_is_judge(const char *group)
{
    return (apmw_hash64(group, strlen(group), 0) & 1U) != 0;
}

apmw_status apmw_power_rules_load(const apmw_catalog *catalog, apmw_json **out, apmw_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/hwmodels/rules/power.json", apmw_catalog_dir(catalog));
    return apmw_json_load(path, out, err);
}

/* Start of every fit and end of every chain without evidence. */
static apmw_status read_priors(const apmw_json_cur *root, apmw_power_params *out, apmw_error *err)
{
    apmw_json_cur priors;
    double sd_a = 0, sd_b = 0;
    apmw_status status = apmw_json_child(root, "priors", &priors, err);
    memset(out, 0, sizeof *out);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "a_duty", 1e-3, 100, &out->a_duty, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "a_bw", 1e-3, 100, &out->a_bw, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "b", 1e-4, 100, &out->b, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "pt", 0.1, 1.2, &out->pt, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "ln_sd_a", 0, 10, &sd_a, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&priors, "ln_sd_b", 0, 10, &sd_b, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(root, "sd_config_unfitted", 0, 10, &out->sd_config, err);
    out->covariance[0][0] = sd_a * sd_a;
    out->covariance[1][1] = sd_b * sd_b;
    out->p_idle_w = NAN;
    out->heldout_median_abs = NAN;
    return status;
}

/* The rule of a platform, or the one for all others. `platforms` is the parent that the rule's cursor needs. */
static apmw_status find_rule(const apmw_json_cur *root, const char *platform, apmw_json_cur *platforms,
                             apmw_json_cur *rule, apmw_error *err)
{
    apmw_status status = apmw_json_child(root, "platforms", platforms, err);
    if (status != APMW_OK)
        return status;
    if (apmw_json_has(platforms, platform))
        return apmw_json_child(platforms, platform, rule, err);
    return apmw_json_child(root, "other", rule, err);
}

/* Numbers of the rule that replace what was inherited. */
static apmw_status read_rule(const apmw_json_cur *rule, apmw_power_params *out, apmw_error *err)
{
    const char *term = "duty";
    apmw_status status = apmw_json_opt_string(rule, "term", &term, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(rule, "p0", 0.01, 1, &out->p0, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(rule, "pt", 0.1, 1.2, &out->pt, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(rule, "sd_platform", 0, 10, &out->sd_platform, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(rule, "sd_config", 0, 10, &out->sd_config, err);
    out->p_idle_w = NAN;
    if (status == APMW_OK)
        status = apmw_json_opt_double(rule, "idle_w", 0, 1e5, &out->p_idle_w, err);
    out->use_bandwidth = strcmp(term, "bandwidth") == 0;
    if (status == APMW_OK && !out->use_bandwidth && strcmp(term, "duty") != 0)
        status = apmw_json_error(rule, err, APMW_E_DATA, "term \"%s\" is neither duty nor bandwidth", term);
    return status;
}

static size_t select_rows(const context *c, const char *platform)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_rows; i++)
        if (!c->rows[i].judge && strcmp(c->rows[i].platform, platform) == 0)
            c->use[n++] = i;
    return n;
}

static apmw_status tdp_of(const context *c, const char *platform, double *out, apmw_error *err)
{
    const apmw_accelerator_spec *spec = NULL;
    apmw_status status = apmw_catalog_accelerator(c->catalog, platform, &spec, err);
    if (status != APMW_OK)
        return status;
    if (!(spec->tdp_w > 0))
        return apmw_error_set(err, APMW_E_DATA, "%s: no TDP in its spec, so it has no power", platform);
    *out = spec->tdp_w;
    return APMW_OK;
}

/* The scale of bandwidth and of FLOPs as fitted on a relative: the start of platforms where only the top is fitted. */
static apmw_status borrow_bandwidth_scales(const context *c, const char *from, apmw_power_params *out,
                                           apmw_error *err)
{
    apmw_json_cur platforms, rule;
    apmw_power_params start;
    apmw_power_fit fit;
    size_t n = select_rows(c, from);
    if (n < MIN_ROWS)
        return APMW_OK;
    apmw_status status = read_priors(c->root, &start, err);
    if (status == APMW_OK)
        status = find_rule(c->root, from, &platforms, &rule, err);
    if (status == APMW_OK)
        status = read_rule(&rule, &start, err);
    if (status == APMW_OK)
        status = tdp_of(c, from, &start.tdp_w, err);
    start.use_bandwidth = 1;
    if (status == APMW_OK)
        status = apmw_fit_power(c->rows, c->use, n, &start, APMW_POWER_FREE_A | APMW_POWER_FREE_B, &fit, err);
    if (status == APMW_OK) {
        out->a_bw = fit.params.a_bw;
        out->b = fit.params.b;
    }
    return status;
}

static apmw_status fit_by_rule(const context *c, const apmw_json_cur *rule, const char *platform,
                               apmw_power_params *out, apmw_power_fit *fit, apmw_error *err)
{
    const char *what = NULL, *a_from = NULL;
    apmw_status status = apmw_json_opt_string(rule, "fit", &what, err);
    if (status == APMW_OK)
        status = apmw_json_opt_string(rule, "a_from", &a_from, err);
    if (status == APMW_OK && a_from)
        status = borrow_bandwidth_scales(c, a_from, out, err);
    if (status != APMW_OK || !what)
        return status;
    bool top = strcmp(what, "top") == 0;
    if (!top && strcmp(what, "ab") != 0)
        return apmw_json_error(rule, err, APMW_E_DATA, "fit \"%s\" is neither ab nor top", what);
    size_t n = select_rows(c, platform);
    if (n < (top ? 1 : MIN_ROWS)) {
        apmw_copy(out->basis, sizeof out->basis, "prior numbers: no measured power in the evidence");
        return APMW_OK;
    }
    apmw_power_fit local;
    double sd_config = out->sd_config;
    status = apmw_fit_power(c->rows, c->use, n, out,
                            top ? APMW_POWER_FREE_TOP : APMW_POWER_FREE_A | APMW_POWER_FREE_B, &local, err);
    if (status != APMW_OK)
        return apmw_error_wrap(err, "power of %s", platform);
    *out = local.params;
    if (top) /* few rows of one model: their spread says little about other models */
        out->sd_config = fmax(sd_config, local.sd_config);
    snprintf(out->basis, sizeof out->basis, "%s fitted on %zu measured rows of %zu models",
             top ? "top" : "both scales", local.n_rows, local.n_groups);
    if (fit)
        *fit = local;
    return APMW_OK;
}

static apmw_status resolve(const context *c, const char *platform, int depth, apmw_power_params *out,
                           apmw_power_fit *fit, apmw_error *err)
{
    apmw_json_cur platforms, rule;
    const char *from = NULL;
    if (depth > MAX_DEPTH)
        return apmw_error_set(err, APMW_E_DATA, "hwmodels/rules/power.json: the \"from\" of %s has no end", platform);
    apmw_status status = find_rule(c->root, platform, &platforms, &rule, err);
    if (status == APMW_OK)
        status = apmw_json_opt_string(&rule, "from", &from, err);
    if (status == APMW_OK)
        status = from ? resolve(c, from, depth + 1, out, NULL, err) : read_priors(c->root, out, err);
    if (status == APMW_OK)
        status = read_rule(&rule, out, err);
    if (status == APMW_OK)
        status = tdp_of(c, platform, &out->tdp_w, err);
    if (status == APMW_OK && from) {
        snprintf(out->basis, sizeof out->basis, "scaled from %s by TDP: no measured power", from);
        out->heldout_median_abs = NAN;
    }
    if (status == APMW_OK)
        status = fit_by_rule(c, &rule, platform, out, fit, err);
    return status;
}

apmw_status apmw_power_params_for(const apmw_catalog *catalog, const char *platform, const apmw_power_row *rows,
                                  size_t n_rows, apmw_power_params *out, apmw_power_fit *fit, apmw_error *err)
{
    apmw_json *doc = NULL;
    apmw_status status = apmw_power_rules_load(catalog, &doc, err);
    if (fit)
        memset(fit, 0, sizeof *fit);
    if (status != APMW_OK)
        return status;
    apmw_json_cur root = apmw_json_root(doc);
    context c = {.catalog = catalog, .root = &root, .rows = rows, .n_rows = n_rows};
    c.use = calloc(n_rows + 1, sizeof *c.use);
    if (!c.use)
        status = apmw_error_set(err, APMW_E_NOMEM, "power rules: out of memory");
    else
        status = resolve(&c, platform, 0, out, fit, err);
    free(c.use);
    apmw_json_free(doc);
    return status;
}
