/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Tiers of KV in scenarios: read, written and read back, refused; and what they are on platforms. */
#include <math.h>
#include <string.h>

#include "scenario_case.h"

static void all_keys(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"kv_tiers\":{\"hbm_policy\":\"s3-fifo\",\"write\":\"back\",\"load\":\"always\",\"prefetch\":true,"
                    "\"link_sharing\":\"fair\",\"tiers\":[{\"kind\":\"host\",\"gbyte\":150,\"load_gbyte_per_s\":40,"
                    "\"store_gbyte_per_s\":30,\"latency_us\":7,\"policy\":\"lfu\",\"half_life_s\":600,\"block_tokens\":256,"
                    "\"cascade\":false},{\"kind\":\"remote\",\"gbyte\":1000,\"policy\":\"idle-ttl\",\"idle_ttl_s\":300}]}}",
                    &s, &err), &err);
    assert_int_equal(s.kv.n_tiers, 2);
    assert_int_equal(s.kv.hbm_policy, APMW_KV_S3_FIFO);
    assert_int_equal(s.kv.load, APMW_KV_LOAD_ALWAYS);
    assert_true(s.kv.write_back && s.kv.prefetch && s.kv.fair_links);
    assert_int_equal(s.kv.tiers[0].policy, APMW_KV_LFU);
    assert_int_equal(s.kv.tiers[0].block_tokens, 256);
    assert_false(s.kv.tiers[0].cascade);
    assert_near(s.kv.tiers[0].half_life_s, 600, 0);
    assert_int_equal(s.kv.tiers[1].kind, APMW_TIER_REMOTE);
    assert_true(s.kv.tiers[1].cascade && isnan(s.kv.tiers[1].load_gbyte_per_s));
    apmw_scenario again;
    case_round_trip(&s, &again);
    assert_near(again.kv.tiers[1].idle_ttl_s, 300, 0);
    assert_false(again.kv.found_when_released);
    assert_ok(case_parse("{\"kv_tiers\":{\"found\":\"released\",\"tiers\":[{\"kind\":\"host\"}]}}", &s, &err), &err);
    case_round_trip(&s, &again);
    assert_true(again.kv.found_when_released);
}

static void defaults_are_hbm_alone(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"platform\":\"h200\"}", &s, &err), &err);
    assert_int_equal(s.kv.n_tiers, 0);
    assert_int_equal(s.kv.hbm_policy, APMW_KV_LRU);
    apmw_buf out = {0};
    apmw_scenario_write(&s, &out);
    assert_null(strstr(out.data, "kv_tiers"));
    apmw_buf_free(&out);
    assert_ok(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\"}]}}", &s, &err), &err);
    assert_true(s.kv.n_tiers == 1 && !s.kv.write_back && s.kv.load == APMW_KV_LOAD_FASTER && !s.kv.prefetch);
    /* A later file replaces the list and leaves the rest. */
    assert_ok(apmw_scenario_parse("b.json", "{\"kv_tiers\":{\"tiers\":[]}}", 25, &s, &err), &err);
    assert_int_equal(s.kv.n_tiers, 0);
}

static void refusals(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_error(case_parse("{\"kv_tiers\":{\"tier\":[]}}", &s, &err), APMW_E_DATA, &err, "tiers");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":{}}}", &s, &err), APMW_E_DATA, &err, "list");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"gbyte\":1}]}}", &s, &err), APMW_E_DATA, &err, "kind");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"hots\"}]}}", &s, &err), APMW_E_DATA, &err, "\"host\"");
    assert_contains(err.message, "/kv_tiers/tiers");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"nvme\"},{\"kind\":\"host\"}]}}", &s, &err), APMW_E_DATA, &err,
                 "host cannot lie below nvme");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\",\"policy\":\"idle-ttl\"}]}}", &s, &err), APMW_E_DATA, &err,
                 "idle_ttl_s");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\",\"idle_ttl_s\":5}]}}", &s, &err), APMW_E_DATA, &err,
                 "idle_ttl_s");
    assert_error(case_parse("{\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\",\"half_life_s\":5}]}}", &s, &err), APMW_E_DATA, &err, "lfu");
    assert_error(case_parse("{\"kv_tiers\":{\"hbm_policy\":\"idle-ttl\"}}", &s, &err), APMW_E_DATA, &err, "hbm_policy");
    assert_error(case_parse("{\"kv_tiers\":{\"write\":\"back\",\"found\":\"released\"}}", &s, &err), APMW_E_DATA, &err,
                 "through");
    assert_error(case_parse("{\"kv_tiers\":{\"found\":\"release\"}}", &s, &err), APMW_E_DATA, &err, "\"released\"");
    assert_error(case_parse("{\"kv_tiers\":{\"load\":\"fast\"}}", &s, &err), APMW_E_DATA, &err, "\"faster\"");
}

static apmw_status build(const char *text, const char *layout, double context, apmw_deployment *out, apmw_error *err)
{
    apmw_catalog *catalog = NULL;
    apmw_scenario s;
    apmw_layout_choice choice;
    assert_ok(case_parse(text, &s, err), err);
    assert_ok(apmw_catalog_open(APMW_SOURCE_DIR, &catalog, err), err);
    assert_ok(apmw_layout_parse(layout, 0, &choice, err), err);
    const apmw_status status = apmw_deployment_build(catalog, &s, "vllm", &choice, context, out, err);
    apmw_catalog_free(catalog);
    return status;
}

/* DeepSeek-R1 in fp8: 61 layers of 576 bytes a token, on each accelerator. */
static void latents_are_on_every_accelerator(void **state)
{
    (void)state;
    apmw_deployment d;
    apmw_error err = {0};
    assert_ok(build("{\"platform\":\"b200\",\"model\":\"deepseek-v3-r1\",\"precision\":\"fp4\",\"kv_dtype\":\"fp8\","
                    "\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\"},{\"kind\":\"nvme\",\"gbyte\":1000},"
                    "{\"kind\":\"remote\",\"gbyte\":500}]}}", "tep4", 80000.0, &d, &err), &err);
    assert_int_equal(d.tiers.n_tiers, 3);
    const apmw_tier_setup *host = &d.tiers.tiers[0], *nvme = &d.tiers.tiers[1], *remote = &d.tiers.tiers[2];
    assert_near(host->kv.bytes_per_token, 61 * 576, 1e-6);
    assert_near(host->kv.bytes_per_stream, 0, 1e-3);
    assert_near(host->kv.capacity_bytes, 405770207232.0, 1);
    assert_near(host->load_bytes_per_s, 56.0e9, 1);
    assert_near(host->store_bytes_per_s, 52.7e9, 1);
    assert_int_equal(host->latency_ns, 15000);
    assert_int_equal(host->kv.block_tokens, d.engine.block_tokens);
    assert_near(nvme->kv.capacity_bytes, 1e12, 1);
    assert_near(nvme->load_bytes_per_s, 7e9, 1);
    /* 500 GB for each of four accelerators, in which a token is kept once. */
    assert_true(remote->shared && !host->shared && !nvme->shared);
    assert_near(remote->kv.capacity_bytes / remote->kv.bytes_per_token, 2e12 / (61 * 576), 1e-3);
    assert_near(remote->load_bytes_per_s, 0.87 * 50e9, 1);
    apmw_deployment_free(&d);
}

/* Llama-3.1-70B in fp8: 80 layers of 8 heads of 128, keys and values; 4 accelerators keep 2 heads each. */
static void heads_are_split(void **state)
{
    (void)state;
    apmw_deployment d;
    apmw_error err = {0};
    assert_ok(build("{\"platform\":\"b200\",\"model\":\"llama-3.1-70b\",\"precision\":\"fp8\",\"kv_dtype\":\"fp8\","
                    "\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\",\"gbyte\":100,\"load_gbyte_per_s\":10},"
                    "{\"kind\":\"remote\",\"gbyte\":100}]}}", "tp4x2", 20000.0, &d, &err), &err);
    assert_near(d.tiers.tiers[0].kv.bytes_per_token, 80 * 2 * 128 * 2, 1e-6);
    assert_near(d.tiers.tiers[0].load_bytes_per_s, 1e10, 1);
    assert_near(d.tiers.tiers[1].kv.capacity_bytes / d.tiers.tiers[1].kv.bytes_per_token, 8e11 / (80 * 2 * 128 * 8), 1e-3);
    apmw_deployment_free(&d);
}

static void what_is_not_known_must_be_stated(void **state)
{
    (void)state;
    apmw_deployment d;
    apmw_error err = {0};
    assert_error(build("{\"platform\":\"b200\",\"model\":\"llama-3.1-70b\",\"precision\":\"fp8\","
                       "\"kv_tiers\":{\"tiers\":[{\"kind\":\"nvme\"}]}}", "tp4", 20000.0, &d, &err),
                 APMW_E_SCENARIO, &err, "state gbyte of the nvme tier");
    assert_error(build("{\"platform\":\"b200\",\"model\":\"llama-3.1-70b\",\"precision\":\"fp8\",\"engine_settings\":"
                       "{\"prefix_caching\":false},\"kv_tiers\":{\"tiers\":[{\"kind\":\"host\"}]}}", "tp4", 20000.0, &d, &err),
                 APMW_E_SCENARIO, &err, "prefix_caching");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_keys),
        cmocka_unit_test(defaults_are_hbm_alone),
        cmocka_unit_test(refusals),
        cmocka_unit_test(latents_are_on_every_accelerator),
        cmocka_unit_test(heads_are_split),
        cmocka_unit_test(what_is_not_known_must_be_stated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
