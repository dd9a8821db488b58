/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Scenarios and layouts: read, written and read back, and refused with the place and the near miss. */
#include <math.h>
#include <string.h>

#include "scenario_case.h"

static void all_keys(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"schema\":\"apmw.scenario/1\",\"platform\":\"h200\",\"model\":\"m\",\"engine\":\"vllm\","
                    "\"engine_version\":\"0.24.0\",\"precision\":\"fp8\",\"kv_dtype\":\"fp8\",\"moe_backend\":\"x\","
                    "\"layout\":\"tp4x2\",\"accelerators\":8,\"memory_fraction\":0.9,"
                    "\"speculation\":{\"draft_tokens\":3,\"acceptance_length\":2.5},"
                    "\"engine_settings\":{\"max_num_seqs\":64,\"max_num_batched_tokens\":4096,\"block_tokens\":32,"
                    "\"recv_interval\":10,\"prefix_caching\":false,\"frontend_scale\":0.5},\"routing\":\"kv-aware\","
                    "\"workload\":{\"kind\":\"agents\",\"trace\":\"t.jsonl\",\"trajectories\":7,\"agents\":9,"
                    "\"share_prefix\":true,\"output_cached\":true,\"concurrent_subagents\":true,\"delay_scale\":2},"
                    "\"protocol\":{\"version\":\"v2026-06\",\"tier\":2,\"slo\":\"p25.speed=30\"},\"duration_s\":60,\"seed\":7,\"_note\":\"free text\"}",
                    &s, &err), &err);
    assert_string_equal(s.platform, "h200");
    assert_string_equal(s.layout, "tp4x2");
    assert_near(s.memory_fraction, 0.9, 0);
    assert_near(s.frontend_scale, 0.5, 0);
    assert_int_equal(s.draft_tokens, 3);
    assert_int_equal(s.max_num_seqs, 64);
    assert_int_equal(s.recv_interval, 10);
    assert_false(s.prefix_caching);
    assert_int_equal(s.routing, APMW_ROUTING_KV_AWARE);
    assert_int_equal(s.agents, 9);
    assert_true(s.share_prefix && s.output_cached);
    assert_int_equal(s.tier, 2);
    assert_int_equal(s.seed, 7);
    /* What is written reads back to the same. */
    apmw_scenario again;
    case_round_trip(&s, &again);
    assert_near(again.acceptance_length, 2.5, 0);
}

static void pools(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"platform\":\"gb300\",\"model\":\"m\",\"disaggregation\":{\"prefill\":{\"layout\":\"dep4x6\","
                    "\"platform\":\"gb200\",\"engine\":\"trtllm\",\"memory_fraction\":0.5,\"max_num_seqs\":128},"
                    "\"decode\":{\"layout\":\"dep8\",\"max_num_batched_tokens\":512},\"link\":{\"gbyte_per_s\":50,"
                    "\"latency_us\":20,\"decode_first\":true},\"decode_routing\":\"least-loaded\"}}",
                    &s, &err), &err);
    assert_true(s.disaggregated && s.link.decode_first);
    assert_string_equal(s.pools[APMW_POOL_PREFILL].platform, "gb200");
    assert_near(s.pools[APMW_POOL_PREFILL].memory_fraction, 0.5, 0);
    assert_true(isnan(s.pools[APMW_POOL_DECODE].memory_fraction));
    assert_int_equal(s.pools[APMW_POOL_DECODE].max_num_batched_tokens, 512);
    assert_int_equal(s.decode_routing, APMW_ROUTING_LEAST_LOADED);
    apmw_layout_choice choices[APMW_POOLS];
    assert_ok(apmw_scenario_pool_choices(&s, choices, &err), &err);
    assert_true(choices[0].size == 4 && choices[0].replicas == 6 && choices[1].replicas == 1);
    s.accelerators = 31;
    assert_error(apmw_scenario_pool_choices(&s, choices, &err), APMW_E_SCENARIO, &err, "32 accelerators");
    s.accelerators = 0;
    apmw_scenario again;
    case_round_trip(&s, &again);
    assert_near(again.link.latency_us, 20, 0);
    assert_error(case_parse("{\"disaggregation\":{\"prefill\":{\"layout\":\"tp4\"}}}", &s, &err), APMW_E_DATA, &err,
                 "decode needs a layout");
    assert_error(case_parse("{\"disaggregation\":{\"prefil\":{}}}", &s, &err), APMW_E_DATA, &err, "prefill");
    assert_error(case_parse("{\"disaggregation\":{\"link\":{\"gbyte_per_s\":0},\"prefill\":{\"layout\":\"tp4\"},"
                       "\"decode\":{\"layout\":\"tp4\"}}}", &s, &err), APMW_E_DATA, &err, "gbyte_per_s");
}

static void acceptance_is_stated_once(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"speculation\":{\"draft_tokens\":2,\"acceptance_by_position\":[0.8,0.5],\"acceptance_fixed\":true}}", &s,
                    &err), &err);
    assert_int_equal(s.n_acceptance, 2);
    assert_true(s.acceptance_fixed);
    apmw_buf text = {0};
    apmw_scenario again;
    apmw_scenario_write(&s, &text);
    assert_ok(case_parse(text.data, &again, &err), &err);
    assert_near(again.acceptance_by_position[1], 0.5, 0);
    apmw_buf_free(&text);
    assert_error(case_parse("{\"speculation\":{\"acceptance_length\":2,\"acceptance_preset\":\"v4-pro-mtp\"}}", &s, &err),
                 APMW_E_DATA, &err, "state one");
    assert_error(case_parse("{\"speculation\":{\"acceptance_by_position\":[1.5]}}", &s, &err), APMW_E_DATA, &err, "0..1");
    assert_error(case_parse("{\"speculation\":{\"acceptance_by_position\":0.5}}", &s, &err), APMW_E_DATA, &err, "list");
}

static void defaults_survive(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_ok(case_parse("{\"workload\":{\"kind\":\"fixed\",\"slots\":3}}", &s, &err), &err);
    assert_int_equal(s.workload, APMW_WORKLOAD_FIXED);
    assert_int_equal(s.agents, 3);
    assert_int_equal(s.draft_tokens, -1);
    assert_true(isnan(s.memory_fraction) && s.prefix_caching && s.seed == 42);
    assert_ok(case_parse("{\"protocol\":\"agentx\"}", &s, &err), &err); /* the version alone */
    assert_string_equal(s.protocol, "agentx");
    assert_int_equal(s.tier, 0);
}

static void refusals(void **state)
{
    (void)state;
    apmw_scenario s;
    apmw_error err = {0};
    assert_error(case_parse("{\"platfrom\":\"h200\"}", &s, &err), APMW_E_DATA, &err, "platform");
    assert_error(case_parse("{\"workload\":{\"agent\":3}}", &s, &err), APMW_E_DATA, &err, "agents");
    assert_contains(err.message, "/workload");
    assert_error(case_parse("{\"workload\":{\"kind\":\"agnts\"}}", &s, &err), APMW_E_DATA, &err, "did you mean \"agents\"");
    assert_error(case_parse("{\"routing\":\"afinity\"}", &s, &err), APMW_E_DATA, &err, "did you mean \"affinity\"");
    assert_error(case_parse("{\"memory_fraction\":2}", &s, &err), APMW_E_DATA, &err, "memory_fraction");
    assert_error(case_parse("{\"schema\":\"apmw.scenario/2\"}", &s, &err), APMW_E_DATA, &err, "apmw.scenario/1");
    assert_error(case_parse("{\"protocol\":\"a-name-that-is-too-long\"}", &s, &err), APMW_E_DATA, &err, "protocol");
    assert_error(case_parse("{\"protocol\":3}", &s, &err), APMW_E_DATA, &err, "protocol");
    assert_error(case_parse("{\"seed\":\"x\"}", &s, &err), APMW_E_DATA, &err, "seed");
}

static void layouts(void **state)
{
    (void)state;
    apmw_layout_choice c;
    apmw_error err = {0};
    assert_ok(apmw_layout_parse("tp4", 8, &c, &err), &err);
    assert_string_equal(c.name, "tp4x2");
    assert_true(c.layout.tp == 4 && c.layout.moe_tp == 4 && c.layout.moe_ep == 1 && c.replicas == 2 && c.size == 4);
    assert_ok(apmw_layout_parse("dep8", 8, &c, &err), &err);
    assert_true(c.layout.tp == 1 && c.layout.attention_dp == 8 && c.layout.moe_ep == 8 && c.replicas == 1);
    assert_ok(apmw_layout_parse("tep2x3", 8, &c, &err), &err);
    assert_true(c.layout.tp == 2 && c.layout.moe_ep == 2 && c.layout.moe_tp == 1 && c.replicas == 3);
    assert_ok(apmw_layout_parse("dp8", 8, &c, &err), &err);
    assert_string_equal(c.name, "tp1x8");
    assert_error(apmw_layout_parse("tp16", 8, &c, &err), APMW_E_SCENARIO, &err, "needs 16");
    const char *const wrong[] = {"", "tp", "tpx2", "tp0", "tp8x", "ep8", "tp8 ", "8", "tp4x0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_error(apmw_layout_parse(wrong[i], 8, &c, &err), APMW_E_USAGE, &err, "is not tpN");
    }
    apmw_layout_choice all[32];
    const apmw_llm_spec dense = {.experts = 0}, moe = {.experts = 128};
    assert_int_equal(apmw_layout_enumerate(&dense, 8, all, 32), 4);
    const size_t n = apmw_layout_enumerate(&moe, 8, all, 32);
    assert_int_equal(n, 10); /* tp1 and three kinds on 2, 4, 8 */
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(all[i].size * all[i].replicas, 8);
        assert_ok(apmw_layout_parse(all[i].name, 8, &c, &err), &err);
        assert_string_equal(c.name, all[i].name);
        assert_memory_equal(&c.layout, &all[i].layout, sizeof c.layout);
        assert_int_equal(c.layout.tp * c.layout.attention_dp * c.layout.pp, c.size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_keys), cmocka_unit_test(pools), cmocka_unit_test(acceptance_is_stated_once), cmocka_unit_test(defaults_survive),
                                       cmocka_unit_test(refusals), cmocka_unit_test(layouts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
