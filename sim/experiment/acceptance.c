/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tokens that a step of speculative decoding emits: their mean and variance, from what the scenario states (a mean, a chance
 * for each position, a preset) or the model's own curve.
 *
 * A draft token counts only if all before it do. With S_i = P(at least i drafted tokens are accepted), the mean is
 * 1 + sum S_i and E[accepted^2] = sum (2i - 1) S_i. A chance for each position gives S as its running product; a curve of
 * means over draft lengths gives S_i as its increments, since a longer draft leaves the earlier positions as they are. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/text.h"
#include "scenario_private.h"

/* Survival from a curve of means at draft lengths 1..k; false where a length is missing. Noise that would make S grow or
 * turn negative is cut. */
static bool survival_of_curve(const double *means, int k, double *survival)
{
    double before = 1.0, last = 1.0;
    for (int i = 0; i < k; i++) {
        if (isnan(means[i])) {
            return false;
        }
        last = fmax(0.0, fmin(last, means[i] - before));
        survival[i] = last;
        before = means[i];
    }
    return true;
}

static double variance_of(const double *survival, int k)
{
    double first = 0.0, second = 0.0;
    for (int i = 0; i < k; i++) {
        first += survival[i];
        second += (2.0 * i + 1.0) * survival[i];
    }
    return fmax(0.0, second - first * first);
}

static apmw_status preset(const char *data_dir, const char *id, double *means, char *source, size_t size, apmw_error *err)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/hwmodels/rules/acceptance.json", data_dir);
    apmw_json *doc = NULL;
    apmw_status status = apmw_json_load(path, &doc, err);
    if (status != APMW_OK) {
        return status;
    }
    const apmw_json_cur root = apmw_json_root(doc);
    apmw_json_cur list, item, curve;
    const char *names[64];
    size_t n = 0;
    int found = -1;
    status = apmw_json_child(&root, "presets", &list, err);
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&list) && i < 64; i++) {
        status = apmw_json_at(&list, i, &item, err);
        READ(apmw_json_get_string(&item, "id", &names[i], err));
        n = (size_t)i + 1;
        found = status == APMW_OK && strcmp(names[i], id) == 0 ? i : found;
    }
    if (status == APMW_OK && found < 0) {
        const char *near = apmw_near(id, names, n);
        status = apmw_error_set(err, APMW_E_DATA, "acceptance_preset \"%s\" is not in %s%s%s%s", id, path,
                                near == NULL ? "" : " (did you mean \"", near == NULL ? "" : near, near == NULL ? "" : "\"?)");
    }
    const char *text = NULL;
    READ(apmw_json_at(&list, found, &item, err));
    READ(apmw_json_get_string(&item, "source", &text, err));
    READ(apmw_json_child(&item, "tokens", &curve, err));
    for (int i = 0; i < APMW_MAX_DRAFTS; i++) {
        means[i] = (double)NAN;
    }
    for (int i = 0; status == APMW_OK && i < apmw_json_length(&curve) && i < APMW_MAX_DRAFTS; i++) {
        apmw_json_cur value;
        status = apmw_json_at(&curve, i, &value, err);
        if (status == APMW_OK && apmw_json_typeof(&value) == APMW_JSON_NUMBER) {
            status = apmw_json_as_double(&value, &means[i], err);
        }
    }
    if (status == APMW_OK) {
        apmw_copy(source, size, text);
    }
    apmw_json_free(doc);
    return status;
}

apmw_status apmw_scenario_acceptance(const char *data_dir, const apmw_scenario *s, const apmw_llm_spec *llm, int draft,
                                     apmw_acceptance *out, apmw_error *err)
{
    *out = (apmw_acceptance){.mean = 1.0, .source = "none"};
    if (draft == 0) {
        return APMW_OK;
    }
    double means[APMW_MAX_DRAFTS], survival[APMW_MAX_DRAFTS];
    bool known = false;
    if (draft > APMW_MAX_DRAFTS) {
        return apmw_error_set(err, APMW_E_SCENARIO, "more than %d draft tokens", APMW_MAX_DRAFTS);
    }
    if (s->n_acceptance > 0) {
        if (s->n_acceptance < draft) {
            return apmw_error_set(err, APMW_E_SCENARIO, "acceptance_by_position has %d chances for %d draft tokens",
                                  s->n_acceptance, draft);
        }
        double product = 1.0;
        for (int i = 0; i < draft; i++) {
            survival[i] = product *= s->acceptance_by_position[i];
            out->mean += product;
        }
        known = true;
        apmw_copy(out->source, sizeof out->source, "stated by position");
    } else {
        for (int i = 0; i < APMW_MAX_DRAFTS; i++) {
            means[i] = i < 7 ? llm->acceptance[i + 1] : (double)NAN;
        }
        apmw_copy(out->source, sizeof out->source, "model's curve");
        if (s->acceptance_preset[0] != '\0') {
            const apmw_status status =
                preset(data_dir, s->acceptance_preset, means, out->source, sizeof out->source, err);
            if (status != APMW_OK) {
                return status;
            }
        }
        out->mean = means[draft - 1];
        known = survival_of_curve(means, draft, survival);
        if (!isnan(s->acceptance_length)) {
            known = false;
            out->mean = s->acceptance_length;
            apmw_copy(out->source, sizeof out->source, "stated");
        }
    }
    if (isnan(out->mean)) {
        return apmw_error_set(err, APMW_E_SCENARIO, "%s has no acceptance curve at %d draft tokens: state one", llm->id,
                              draft);
    }
    if (out->mean > 1.0 + draft) {
        return apmw_error_set(err, APMW_E_SCENARIO, "acceptance length %g exceeds 1 + %d draft tokens", out->mean, draft);
    }
    out->variance = known ? variance_of(survival, draft) : 0.0;
    return APMW_OK;
}
