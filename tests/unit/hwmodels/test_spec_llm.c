/* SPDX-License-Identifier: GPL-3.0-or-later */
/* LLM facts: arithmetic against figures worked out apart from this program (three digits each), and what the reader
 * refuses. */
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apmw/spec.h"

static apmw_llm_spec load(const char *id)
{
    char path[512];
    apmw_error err = {0};
    apmw_llm_spec s;
    snprintf(path, sizeof path, APMW_SOURCE_DIR "/hwmodels/models/%s.json", id);
    assert_ok(apmw_llm_spec_load(path, &s, &err), &err);
    assert_string_equal(s.id, id);
    return s;
}

/* Weight bytes of one step with n tokens: what is always read, and the experts that n tokens hit,
 * E (1 - (1 - k/E)^n) of each layer. */
static double step_bytes(const apmw_llm_spec *s, double n)
{
    if (s->experts == 0)
        return s->always_read_bytes;
    double hit = s->experts * (1.0 - pow(1.0 - (double)s->topk / s->experts, n));
    return s->always_read_bytes + s->moe_layers * hit * s->expert_bytes;
}

static void weights(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        double total_b, active_b, expert_mb, always_gb, resident_gb, gb1, gb32, gb256;
    } rows[] = {{"deepseek-v4-pro", 1573.0, 48.85, 35.09, 26.81, 864.7, 39.7, 352, 834},
                {"deepseek-v4-flash", 284.3, 13.27, 13.37, 7.76, 159.6, 11.2, 86, 155},
                {"deepseek-v3-r1", 671.0, 36.62, 44.05, 17.23, 684.8, 37.7, 434, 671},
                {"kimi-k2.5", 1026.4, 31.69, 24.77, 21.09, 594.2, 33, 301, 589},
                {"glm-5.2", 743.4, 40.30, 37.76, 18.72, 755.5, 41.4, 481, 743},
                {"gpt-oss-120b", 116.8, 5.13, 13.24, 3.10, 65.2, 5.0, 42, 64.1},
                {"qwen3-235b-a22b", 235.1, 21.57, 37.75, 14.75, 470.2, 43.1, 411, 469},
                {"qwen3.5-397b", 396.3, 16.33, 12.59, 9.93, 405.2, 17.5, 191, 394},
                {"minimax-m2.5", 228.7, 10.42, 14.16, 4.06, 230.0, 11.1, 147, 229},
                {"llama-4-scout", 107.8, 16.14, 251.66, 20.20, 215.5, 32.3, 189.0, 213.5},
                {"llama-3.1-70b", 70.6, 69.50, 0, 139.0, 141.1, 139.0, 139.0, 139.0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        apmw_llm_spec s = load(rows[i].id);
        assert_near_relative(s.total_params, 1e9 * rows[i].total_b, 1e-3);
        assert_near_relative(s.active_params, 1e9 * rows[i].active_b, 1e-3);
        assert_near_relative(s.resident_bytes, 1e9 * rows[i].resident_gb, 1e-3);
        assert_near_relative(s.always_read_bytes, 1e9 * rows[i].always_gb, 2e-3);
        assert_near(s.expert_bytes, 1e6 * rows[i].expert_mb, 0.006e6);
        assert_near_relative(step_bytes(&s, 1), 1e9 * rows[i].gb1, 0.01);
        assert_near_relative(step_bytes(&s, 32), 1e9 * rows[i].gb32, 0.005);
        assert_near_relative(step_bytes(&s, 256), 1e9 * rows[i].gb256, 0.005);
        /* The parts must make the whole. */
        double parts = s.always_read_bytes + s.routed_bytes + s.mtp_bytes + s.embed_bytes;
        assert_near_relative(parts, s.resident_bytes, 0.002);
        assert_near_relative(s.routed_bytes, (double)s.moe_layers * s.experts * s.expert_bytes, 1e-9);
    }
}

static void kv(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        double gb_32k, gb_128k, read_mb_32k, read_mb_128k, stated, layers_read_state;
    } rows[] = {{"deepseek-v4-pro", 0.188, 0.683, 45, 109, 0, 0},
                {"deepseek-v4-flash", 0.131, 0.476, 25, 69, 0, 0},
                {"deepseek-v3-r1", 1.15, 4.61, 1151, 4605, 0, 0},
                {"kimi-k2.5", 1.15, 4.61, 1151, 4605, 0, 0},
                {"glm-5.2", 1.77, 7.07, 196, 468, 0, 0},
                {"gpt-oss-120b", 1.21, 4.84, 1213, 4837, 2, 0},
                {"qwen3-235b-a22b", 6.31, 25.2, 6308, 25233, 2, 0},
                {"qwen3.5-397b", 0.695, 2.21, 887, 2397, 1, 1},
                {"minimax-m2.5", 4.16, 16.6, 4161, 16643, 1, 0},
                {"llama-3.1-70b", 10.7, 42.9, 10737, 42950, 2, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        apmw_llm_spec s = load(rows[i].id);
        assert_same_double(s.kv_bytes_per_element_stated, rows[i].stated);
        assert_near_relative(apmw_llm_kv_bytes(&s, 32768, 1, s.kv_bytes_per_element_stated), 1e9 * rows[i].gb_32k, 0.005);
        assert_near_relative(apmw_llm_kv_bytes(&s, 131072, 1, s.kv_bytes_per_element_stated), 1e9 * rows[i].gb_128k, 0.005);
        /* Recurrent state is read and written each step; the published sums hold both. */
        double state_bytes = rows[i].layers_read_state > 0 ? 2.0 * s.kv_state_bytes : 0.0;
        double read = apmw_terms_at(s.kv_read, s.n_kv_read, 32768) + state_bytes;
        assert_near(read, 1e6 * rows[i].read_mb_32k, fmax(1.5e6, 0.002 * read));
        read = apmw_terms_at(s.kv_read, s.n_kv_read, 131072) + state_bytes;
        assert_near(read, 1e6 * rows[i].read_mb_128k, fmax(1.5e6, 0.002 * read));
    }
}

/* V4-Pro by hand: 61 windows of 128 x 584 B, 30 layers x (584 + 68) B / 4, 31 x 584 B / 128, 18.7 MB of state. */
static void v4_pro_by_hand(void **state)
{
    (void)state;
    apmw_llm_spec s = load("deepseek-v4-pro");
    double bytes = 61.0 * 128 * 584 + 131072.0 * (30 * (584 + 68) / 4.0 + 31 * 584 / 128.0) + 18710528;
    assert_near_relative(apmw_llm_kv_bytes(&s, 131072, 1, 1), bytes, 1e-12);
    /* A latent is replicated on every rank of the tensor split, whatever the element size asked for. */
    assert_near_relative(apmw_llm_kv_bytes(&s, 131072, 8, 2), bytes, 1e-12);
    /* Below the window: 61 x 584 x 100 and a quarter of 100 entries. */
    bytes = 61.0 * 100 * 584 + 100.0 * (30 * (584 + 68) / 4.0 + 31 * 584 / 128.0) + 18710528;
    assert_near_relative(apmw_llm_kv_bytes(&s, 100, 1, 1), bytes, 1e-12);
    assert_int_equal(s.csa_layers, 30);
    assert_int_equal(s.hca_layers, 31);
    assert_int_equal(s.index_topk, 1024);
    assert_int_equal(s.context_tokens, 1048576);
    assert_near_relative(s.dense_flops_per_token + apmw_terms_at(s.decode_flops, s.n_decode_flops, 131072), 132.2e9, 0.001);
}

/* Grouped-query KV splits over the ranks up to the number of KV heads, and scales with the element. */
static void grouped_query(void **state)
{
    (void)state;
    apmw_llm_spec s = load("llama-3.1-70b"); /* 80 layers, 8 KV heads of 128, 2 B */
    double whole = 80.0 * 2 * 8 * 128 * 2 * 1000;
    assert_near_relative(apmw_llm_kv_bytes(&s, 1000, 1, 2), whole, 1e-12);
    assert_near_relative(apmw_llm_kv_bytes(&s, 1000, 4, 2), whole / 4, 1e-12);
    assert_near_relative(apmw_llm_kv_bytes(&s, 1000, 8, 1), whole / 16, 1e-12);
    assert_near_relative(apmw_llm_kv_bytes(&s, 1000, 64, 1), whole / 16, 1e-12);
    s = load("qwen3.5-397b"); /* 2 KV heads; the state does not split */
    assert_near_relative(apmw_llm_kv_bytes(&s, 1000, 8, 1) - s.kv_state_bytes, 15360.0 * 1000 / 2, 1e-9);
}

static void acceptance(void **state)
{
    (void)state;
    apmw_llm_spec s = load("deepseek-v4-pro");
    assert_same_double(s.acceptance[3], 2.49);
    assert_contains(s.acceptance_source, "MTP");
    s = load("llama-3.1-8b");
    for (int i = 0; i < 8; i++)
        assert_true(isnan(s.acceptance[i]));
}

static void terms(void **state)
{
    (void)state;
    const apmw_term t[] = {{"window", 2, 10, 1, 128}, {"quarter", 3, 4, 4, (double)INFINITY}, {"top", 1, 7, 4, 16}};
    assert_near(apmw_terms_at(t, 3, 0), 0.0, 0.0);
    assert_near_relative(apmw_terms_at(t, 3, 40), 2 * 10 * 40 + 3 * 4 * 10 + 7 * 10, 1e-12);
    assert_near_relative(apmw_terms_at(t, 3, 1000), 2 * 10 * 128 + 3 * 4 * 250 + 7 * 16, 1e-12);
    assert_same_double(apmw_terms_at(t, 0, 1000), 0.0);
}

/* Replaces the first `from` in a shipped file and reads the result. */
static void refuse(const char *from, const char *to, const char *message)
{
    apmw_buf text = test_read(APMW_SOURCE_DIR "/hwmodels/models/llama-3.1-8b.json"), changed = {0};
    const char *at = strstr(text.data, from);
    apmw_error err = {0};
    apmw_llm_spec s;
    assert_non_null(at);
    apmw_buf_append(&changed, text.data, (size_t)(at - text.data));
    apmw_buf_puts(&changed, to);
    apmw_buf_puts(&changed, at + strlen(from));
    const char *path = test_path(test_directory(), "changed.json");
    test_write(path, changed.data, changed.length);
    assert_error(apmw_llm_spec_load(path, &s, &err), APMW_E_DATA, &err, message);
    assert_contains(err.message, "changed.json");
    apmw_buf_free(&text);
    apmw_buf_free(&changed);
}

static void refused(void **state)
{
    (void)state;
    refuse("\"weights\"", "\"weight\"", "weights");
    refuse("apmw.llm/1", "apmw.llm/2", "apmw.llm/1");
    refuse("\"layers\": 32", "\"layers\": \"32\"", "/architecture/layers");
    refuse("\"vocab\": 128256", "\"vocab\": 0", "vocab");
    refuse("\"div\": 1", "\"div\": 0.5", "div");
    refuse("\"cap_entries\"", "\"cap\"", "cap");
    apmw_error err = {0};
    apmw_llm_spec s;
    assert_error(apmw_llm_spec_load("/no/such/model.json", &s, &err), APMW_E_NOINPUT, &err, "/no/such/model.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights),       cmocka_unit_test(kv),         cmocka_unit_test(v4_pro_by_hand),
        cmocka_unit_test(grouped_query), cmocka_unit_test(acceptance), cmocka_unit_test(terms),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
