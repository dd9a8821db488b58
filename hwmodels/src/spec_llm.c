/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/spec.h"
#include "apmw/text.h"
#include "spec_private.h"

/* Integers of "architecture" that the program uses; the others are facts for readers. */
static apmw_status read_architecture(const apmw_json_cur *root, apmw_llm_spec *out, apmw_error *err)
{
    apmw_json_cur arch;
    apmw_status status = apmw_json_child(root, "architecture", &arch, err);
    if (status != APMW_OK)
        return status;
    const struct {
        const char *key, *alias;
        int *value;
    } ints[] = {{"layers", NULL, &out->layers},
                {"hidden", NULL, &out->hidden},
                {"heads", NULL, &out->heads},
                {"kv_heads", NULL, &out->kv_heads},
                {"head_dim", NULL, &out->head_dim},
                {"vocab", NULL, &out->vocab},
                {"q_lora", NULL, &out->q_lora},
                {"kv_lora", NULL, &out->kv_lora},
                {"rope_dim", NULL, &out->rope_dim},
                {"nope", NULL, &out->nope},
                {"v_dim", NULL, &out->v_dim},
                {"o_groups", NULL, &out->o_groups},
                {"o_lora", NULL, &out->o_lora},
                {"dense_layers", NULL, &out->dense_layers},
                {"dense_ffn", NULL, &out->dense_ffn},
                {"experts", NULL, &out->experts},
                {"topk", NULL, &out->topk},
                {"shared_experts", NULL, &out->shared_experts},
                {"expert_dim", NULL, &out->expert_dim},
                {"sliding_layers", NULL, &out->sliding_layers},
                {"sliding_window", NULL, &out->sliding_window},
                {"csa_layers", NULL, &out->csa_layers},
                {"hca_layers", NULL, &out->hca_layers},
                {"index_topk", NULL, &out->index_topk},
                {"index_heads", NULL, &out->index_heads},
                {"index_dim", NULL, &out->index_dim},
                {"gdn_layers", "kda_layers", &out->linear_layers},
                {"k_heads", "kda_heads", &out->linear_k_heads},
                {"v_heads", "kda_heads", &out->linear_v_heads},
                {"mtp_layers", NULL, &out->mtp_layers}};
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        int64_t value = 0;
        status = apmw_json_opt_int(&arch, ints[i].key, 0, 1 << 30, &value, err);
        if (status == APMW_OK && value == 0 && ints[i].alias != NULL)
            status = apmw_json_opt_int(&arch, ints[i].alias, 0, 1 << 30, &value, err);
        if (status != APMW_OK)
            return status;
        *ints[i].value = (int)value;
    }
    if (out->layers < 1 || out->hidden < 1 || out->heads < 1 || out->vocab < 1)
        return apmw_json_error(&arch, err, APMW_E_DATA, "layers, hidden, heads and vocab must be positive");
    return apmw_json_get_int(&arch, "context_tokens", 1, INT64_C(1) << 40, &out->context_tokens, err);
}

static apmw_status read_terms(const apmw_json_cur *parent, const char *key, apmw_term *terms, int *n, apmw_error *err)
{
    static const char *const known[] = {"name", "layers", "per_entry", "div", "cap_entries", NULL};
    apmw_json_cur list;
    apmw_status status = apmw_json_child(parent, key, &list, err);
    if (status != APMW_OK)
        return status;
    *n = apmw_json_length(&list);
    if (*n > APMW_TERMS)
        return apmw_json_error(&list, err, APMW_E_DATA, "at most %d terms", APMW_TERMS);
    for (int i = 0; i < *n; i++) {
        apmw_json_cur item;
        const char *name = NULL;
        status = apmw_json_at(&list, i, &item, err);
        if (status == APMW_OK)
            status = apmw_json_only_keys(&item, known, err);
        if (status == APMW_OK)
            status = apmw_json_get_string(&item, "name", &name, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&item, "layers", 0.0, 1e6, &terms[i].layers, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&item, "per_entry", 0.0, 1e12, &terms[i].per_entry, err);
        if (status == APMW_OK)
            status = apmw_json_get_double(&item, "div", 1.0, 1e9, &terms[i].div, err);
        terms[i].cap = (double)INFINITY;
        if (status == APMW_OK)
            status = apmw_json_opt_double(&item, "cap_entries", 0.0, 1e12, &terms[i].cap, err);
        if (status != APMW_OK)
            return status;
        apmw_copy(terms[i].name, sizeof terms[i].name, name);
    }
    return APMW_OK;
}

static apmw_status read_weights(const apmw_json_cur *root, apmw_llm_spec *out, apmw_error *err)
{
    apmw_json_cur weights;
    apmw_status status = apmw_json_child(root, "weights", &weights, err);
    if (status != APMW_OK)
        return status;
    const struct {
        const char *key;
        double *value;
    } numbers[] = {{"always_read_bytes", &out->always_read_bytes}, {"expert_params", &out->expert_params},
                   {"expert_bytes", &out->expert_bytes},           {"routed_bytes", &out->routed_bytes},
                   {"embed_bytes", &out->embed_bytes},             {"mtp_bytes", &out->mtp_bytes},
                   {"resident_bytes", &out->resident_bytes}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i].value = 0.0;
        status = apmw_json_opt_double(&weights, numbers[i].key, 0.0, 1e16, numbers[i].value, err);
        if (status != APMW_OK)
            return status;
    }
    int64_t moe_layers = 0;
    status = apmw_json_get_int(&weights, "moe_layers", 0, 100000, &moe_layers, err);
    out->moe_layers = (int)moe_layers;
    out->attention_bytes = out->shared_expert_bytes = out->lm_head_bytes = (double)NAN;
    apmw_json_cur parts;
    if (status == APMW_OK && apmw_json_has(&weights, "always_read_breakdown_bytes")) {
        status = apmw_json_child(&weights, "always_read_breakdown_bytes", &parts, err);
        if (status == APMW_OK)
            status = apmw_json_opt_double(&parts, "attn", 0.0, 1e16, &out->attention_bytes, err);
        if (status == APMW_OK && isnan(out->attention_bytes))
            status = apmw_json_opt_double(&parts, "attn_proj_fp8", 0.0, 1e16, &out->attention_bytes, err);
        if (status == APMW_OK)
            status = apmw_json_opt_double(&parts, "shared_expert", 0.0, 1e16, &out->shared_expert_bytes, err);
        if (status == APMW_OK && isnan(out->shared_expert_bytes))
            status = apmw_json_opt_double(&parts, "shared_expert_fp8", 0.0, 1e16, &out->shared_expert_bytes, err);
        if (status == APMW_OK)
            status = apmw_json_opt_double(&parts, "lm_head", 0.0, 1e16, &out->lm_head_bytes, err);
    }
    out->expert_bytes_fp8 = out->expert_bytes_nvfp4 = (double)NAN;
    if (status == APMW_OK && apmw_json_has(root, "variants")) {
        apmw_json_cur variants;
        status = apmw_json_child(root, "variants", &variants, err);
        if (status == APMW_OK)
            status = apmw_json_opt_double(&variants, "expert_bytes_fp8", 0.0, 1e12, &out->expert_bytes_fp8, err);
        if (status == APMW_OK)
            status = apmw_json_opt_double(&variants, "expert_bytes_nvfp4", 0.0, 1e12, &out->expert_bytes_nvfp4, err);
    }
    return status;
}

static apmw_status read_acceptance(const apmw_json_cur *root, apmw_llm_spec *out, apmw_error *err)
{
    for (int i = 0; i < 8; i++)
        out->acceptance[i] = (double)NAN;
    if (!apmw_json_has(root, "acceptance"))
        return APMW_OK;
    apmw_json_cur acceptance, curve;
    const char *source = NULL;
    apmw_status status = apmw_json_child(root, "acceptance", &acceptance, err);
    if (status == APMW_OK)
        status = apmw_json_opt_string(&acceptance, "source", &source, err);
    if (status == APMW_OK)
        status = apmw_json_child(&acceptance, "per_draft_length", &curve, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->acceptance_source, sizeof out->acceptance_source, source == NULL ? "" : source);
    for (int i = 1; i < 8; i++) {
        char key[4] = {(char)('0' + i), 0, 0, 0};
        status = apmw_json_opt_double(&curve, key, 1.0, 1.0 + i, &out->acceptance[i], err);
        if (status != APMW_OK)
            return status;
    }
    return APMW_OK;
}

static apmw_status read_llm(const apmw_json_cur *root, apmw_llm_spec *out, apmw_error *err)
{
    static const char *const known[] = {"schema", "id",    "name", "release",  "grade",      "sources", "architecture",
                                        "params", "weights", "flops", "kv", "variants", "acceptance", "notes", NULL};
    const char *id = NULL, *name = NULL;
    apmw_status status = apmw_json_only_keys(root, known, err);
    if (status == APMW_OK)
        status = apmw_spec_check_schema(root, "apmw.llm/1", err);
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "id", &id, err);
    if (status == APMW_OK)
        status = apmw_json_get_string(root, "name", &name, err);
    if (status == APMW_OK)
        status = read_architecture(root, out, err);
    apmw_json_cur params, flops, kv;
    if (status == APMW_OK)
        status = apmw_json_child(root, "params", &params, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&params, "total", 1.0, 1e15, &out->total_params, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&params, "active", 1.0, 1e15, &out->active_params, err);
    if (status == APMW_OK)
        status = read_weights(root, out, err);
    if (status == APMW_OK)
        status = apmw_json_child(root, "flops", &flops, err);
    if (status == APMW_OK)
        status = apmw_json_get_double(&flops, "dense_per_token", 1.0, 1e15, &out->dense_flops_per_token, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(&flops, "recurrent_per_token", 0.0, 1e15, &out->recurrent_flops_per_token, err);
    if (status == APMW_OK)
        status = read_terms(&flops, "decode_terms", out->decode_flops, &out->n_decode_flops, err);
    if (status == APMW_OK)
        status = read_terms(&flops, "prefill_terms", out->prefill_flops, &out->n_prefill_flops, err);
    if (status == APMW_OK)
        status = apmw_json_child(root, "kv", &kv, err);
    if (status == APMW_OK)
        status = read_terms(&kv, "resident_terms", out->kv_resident, &out->n_kv_resident, err);
    if (status == APMW_OK)
        status = read_terms(&kv, "read_terms", out->kv_read, &out->n_kv_read, err);
    if (status == APMW_OK)
        status = apmw_json_opt_double(&kv, "state_bytes", 0.0, 1e12, &out->kv_state_bytes, err);
    if (status == APMW_OK)
        status = read_acceptance(root, out, err);
    if (status != APMW_OK)
        return status;
    apmw_copy(out->id, sizeof out->id, id);
    apmw_copy(out->name, sizeof out->name, name);
    /* Grouped-query terms state their own element size: bytes an entry = 2 (K and V) * heads * dim * element. */
    out->kv_bytes_per_element_stated = 0.0;
    if (out->kv_lora == 0 && out->csa_layers == 0 && out->kv_heads > 0 && out->head_dim > 0 && out->n_kv_resident > 0)
        out->kv_bytes_per_element_stated = out->kv_resident[0].per_entry / (2.0 * out->kv_heads * out->head_dim);
    return APMW_OK;
}

static apmw_status read_llm_any(const apmw_json_cur *root, void *out, apmw_error *err)
{
    return read_llm(root, out, err);
}

apmw_status apmw_llm_spec_load(const char *path, apmw_llm_spec *out, apmw_error *err)
{
    return apmw_spec_load_file(path, read_llm_any, out, sizeof *out, err);
}

double apmw_terms_at(const apmw_term *terms, int n, double context)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += terms[i].layers * terms[i].per_entry * fmin(context / terms[i].div, terms[i].cap);
    return sum;
}

static double kv_bytes(const apmw_llm_spec *llm, double context, int tp, double element, bool all_windows)
{
    double bytes = 0.0;
    for (int i = 0; i < llm->n_kv_resident; i++) {
        const apmw_term *t = &llm->kv_resident[i];
        const double entries = context / t->div;
        bytes += t->layers * t->per_entry * (all_windows ? entries : fmin(entries, t->cap));
    }
    if (llm->kv_bytes_per_element_stated > 0.0) {
        if (element > 0.0)
            bytes *= element / llm->kv_bytes_per_element_stated;
        bytes /= (double)(tp < llm->kv_heads ? tp : llm->kv_heads);
    }
    return bytes + llm->kv_state_bytes;
}

double apmw_llm_kv_bytes(const apmw_llm_spec *llm, double context, int tp, double element)
{
    return kv_bytes(llm, context, tp, element, false);
}

double apmw_llm_kv_bytes_all_windows(const apmw_llm_spec *llm, double context, int tp, double element)
{
    return kv_bytes(llm, context, tp, element, true);
}
