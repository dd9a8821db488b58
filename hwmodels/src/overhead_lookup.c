/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "compose_internal.h"
#include "apmw/overhead.h"

const char *apmw_overhead_platform(const char *platform)
{
    return strcmp(platform, "mi325x") ? platform : "mi300x";
}

const char *apmw_overhead_silicon(const char *platform)
{
    static const char *const known[][2] = {{"h100", "hopper"}, {"h200", "hopper"}, {"b200", "blackwell"}, {"b300", "blackwell"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!strcmp(platform, known[i][0])) {
            return known[i][1];
        }
    }
    return platform;
}

/* What a model adds to the spread whose served times the fit does not know: what whole cells left out of it were off by, and
 * more where forms stand for unmeasured kernels. */
static apmw_status add_spread_of_forms(const compose_context *ctx, apmw_overhead *out, apmw_error *err)
{
    double time = 0, ttft = 0;
    apmw_status st = apmw_rule_number(ctx, "models", "form_sd_time", 0, &time, err);
    if (st || (st = apmw_rule_number(ctx, "models", "form_sd_ttft", 0, &ttft, err))) {
        return st;
    }
    out->ln_sd_time = hypot(out->ln_sd_time, time);
    out->ln_sd_ttft = hypot(out->ln_sd_ttft, ttft);
    return APMW_OK;
}

apmw_status apmw_overhead_lookup_in(apmw_catalog *catalog, const apmw_overhead_table *table, const apmw_serving_spec *spec,
                                    apmw_overhead *out, apmw_error *err)
{
    compose_context ctx;
    apmw_status st = apmw_compose_context_open(catalog, spec, &ctx, err);
    if (st) {
        return st;
    }
    apmw_overhead_prior(ctx.engine, spec->role, out);
    const apmw_overhead_key key = {.engine = ctx.engine,
                                   .vendor = ctx.accelerator->vendor,
                                   .model = spec->model,
                                   .family = ctx.family,
                                   .platform = apmw_overhead_platform(spec->platform),
                                   .precision = spec->precision,
                                   .role = spec->role,
                                   .released = spec->released,
                                   .draft_tokens = spec->draft_tokens,
                                   .tp = ctx.layout.tp};
    (void)apmw_overhead_table_value(table, &key, out); /* no entry: the prior stays */
    st = add_spread_of_forms(&ctx, out, err);
    apmw_compose_context_close(&ctx);
    return st;
}

apmw_status apmw_overhead_lookup(apmw_catalog *catalog, const apmw_serving_spec *spec, apmw_overhead *out,
                                 apmw_error *err)
{
    char path[1024];
    apmw_overhead_table table = {0};
    snprintf(path, sizeof path, "%s/hwmodels/engines.h5", apmw_catalog_dir(catalog));
    apmw_status st = apmw_overhead_table_load(path, &table, err);
    const bool none = st == APMW_E_NOINPUT; /* nothing fitted yet */
    if (st == APMW_OK || none) {
        st = apmw_overhead_lookup_in(catalog, &table, spec, out, err);
    }
    if (st == APMW_OK && none) {
        snprintf(out->basis, sizeof out->basis, "prior: hwmodels/engines.h5 is missing, nothing is fitted (apmw fit serving)");
    }
    apmw_overhead_table_free(&table);
    return st;
}
