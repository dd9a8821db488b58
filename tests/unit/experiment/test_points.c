/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reading of measured points: cells, formulas, roles, defaults, the split. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "apmw/points.h"

static const char *const header =
    "id,platform,model,engine,precision,mode,isl,osl,concurrency,accelerators,tp,pp,attention_dp,moe_tp,moe_ep,"
    "prefill_workers,prefill_tp,prefill_attention_dp,prefill_moe_ep,decode_workers,decode_tp,decode_attention_dp,"
    "decode_moe_ep,spec_method,length_range_ratio,statistic,ttft_ms,tpot_ms,measured,server_certainty,token_budget,"
    "max_seqs,kv_dtype,kv_memory_fraction,scheduler_recv_interval,num_prompts,attention_dp_balance,spec_settings,"
    "server_other,moe_backend\n";

static void parse(const char *rows, apmw_points *out)
{
    char text[8192];
    apmw_csv *csv = NULL;
    apmw_error err = {0};
    int n = snprintf(text, sizeof text, "%s%s", header, rows);
    assert_int_equal(apmw_csv_parse("rows.csv", text, (size_t)n, &csv, &err), APMW_OK);
    if (apmw_points_from_csv(csv, "rows.csv", APMW_SOURCE_DIR, out, &err) != APMW_OK)
        fail_msg("%s", err.message);
    apmw_csv_free(csv);
}

static apmw_engine_settings settle(const apmw_point *point, apmw_role role)
{
    apmw_engine_defaults *defaults = NULL;
    apmw_engine_settings settings;
    apmw_error err = {0};
    assert_int_equal(apmw_engine_defaults_open(APMW_SOURCE_DIR, &defaults, &err), APMW_OK);
    if (apmw_point_settings(defaults, point, role, &settings, &err) != APMW_OK)
        fail_msg("%s", err.message);
    apmw_engine_defaults_free(defaults);
    return settings;
}

static double value(const char *text)
{
    apmw_formula_vars vars = {.conc = 100, .isl = 1024, .osl = 8192, .tp = 4, .adp = 8, .ep = 2, .k = 3, .workers = 3};
    double out = (double)NAN;
    apmw_error err = {0};
    return apmw_formula_eval(text, &vars, &out, &err) == APMW_OK ? out : (double)NAN;
}

static void formulas(void **state)
{
    (void)state;
    assert_true(value("=CONC") == 100);
    assert_true(value("=10*CONC") == 1000);
    assert_true(value("=CONC//8") == 12);
    assert_true(value("CONC/8") == 12.5);
    assert_true(value("up64(CONC+ISL+64)") == 1216); /* 1188 rounded up to 64 */
    assert_true(value("max(8192, up64((K+1)*CONC//ADP+ISL+64))") == 8192);
    assert_true(value("2*(ISL-1)") == 2046);
    assert_true(value("0.85") == 0.85);
    assert_true(value("slots(4301/32)") == 128 && value("slots(1229/16)") == 64 && value("slots(666/32)") == 16);
    assert_true(value("slots(8192/32)") == 256 && value("slots(48/8)") == 6 && value("slots(180/16)") == 12);
    assert_true(value("WORKERS*CONC") == 300);
    assert_true(value("-3 - -4") == 1);
    static const char *const bad[] = {"", "=", "FOO", "max(1)", "up64(1", "1/0", "1//0", "2 3", "CONC CONC", "$", "up65(3)"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_true(isnan(value(bad[i])));
    char deep[200];
    memset(deep, '(', 100);
    deep[100] = '\0';
    assert_true(isnan(value(deep)));
}

static void aggregated_row(void **state)
{
    (void)state;
    apmw_points points;
    parse("a1,b200,deepseek-v3-r1,sglang,fp4,agg,1024,8192,64,8,8,1,1,8,1,,,,,,,,,none,0.8,mean,320.5,11.25,2026-03-25,"
          "known,16384,=CONC,fp8_e4m3,0.85,30,=10*CONC,,,,flashinfer_trtllm\n", &points);
    assert_int_equal(points.n, 1);
    const apmw_point *p = &points.items[0];
    assert_string_equal(p->id, "a1");
    assert_false(p->disagg || p->speculative || p->median);
    assert_true(p->has_recipe && p->ratio == 0.8 && p->ttft_ms == 320.5 && p->tpot_ms == 11.25);
    assert_true(isnan(p->power_w));
    apmw_engine_settings s = settle(p, APMW_ROLE_ENGINE);
    assert_true(s.token_budget == 16384 && s.max_seqs == 64 && s.recv_interval == 30 && s.num_prompts == 640);
    assert_true(s.max_prefill_tokens == 16384); /* the engine's own default */
    assert_string_equal(s.kv_dtype, "fp8");
    apmw_serving_spec spec;
    apmw_point_spec(p, APMW_ROLE_ENGINE, &s, &spec);
    assert_int_equal(spec.layout.tp, 8);
    assert_int_equal(spec.draft_tokens, 0);
    assert_string_equal(spec.moe_backend, "flashinfer_trtllm");
    assert_string_equal(spec.released, "2026-03-25");
    apmw_engine_config config;
    apmw_error err = {0};
    assert_int_equal(apmw_settings_engine_config(&s, &spec.layout, "sglang", &config, &err), APMW_OK);
    assert_int_equal(config.batching, APMW_BATCHING_SGLANG);
    assert_int_equal(config.recv_interval, 30);
    assert_int_equal(config.max_num_seqs, 64);
    apmw_points_free(&points);
}

static void disaggregated_row(void **state)
{
    (void)state;
    apmw_points points;
    parse("d1,gb200,deepseek-v3-r1,trtllm,fp4,disagg,8192,1024,1229,40,,,,,,5,4,4,4,1,16,16,16,mtp,0.8,mean,2000,15,"
          "2026-02-03,known,P:16384 D:128,P:2 D:32,P:fp8 D:fp8,P:- D:0.8,,sa-bench client of srt-slurm,"
          "P:- D:batching_wait_iters=0 enable_balance=true timeout_iters=60,"
          "P:decoding_type=MTP num_nextn_predict_layers=3 D:decoding_type=MTP num_nextn_predict_layers=3,,"
          "P:backend=TRTLLM D:backend=CUTEDSL load_balancer.num_slots=288\n", &points);
    const apmw_point *p = &points.items[0];
    assert_true(p->disagg && p->speculative);
    assert_int_equal(p->workers[0], 5);
    assert_int_equal(p->layout[1].attention_dp, 16);
    apmw_engine_settings pre = settle(p, APMW_ROLE_PREFILL), dec = settle(p, APMW_ROLE_DECODE);
    assert_true(pre.token_budget == 16384 && dec.token_budget == 128 && pre.max_seqs == 2 && dec.max_seqs == 32);
    assert_true(isnan(pre.kv_memory_fraction) && dec.kv_memory_fraction == 0.8);
    assert_true(dec.draft_tokens == 3 && dec.adp_wait_iters == 60);
    assert_true(dec.num_prompts == 12290);
    assert_string_equal(pre.moe_backend, "backend=TRTLLM");
    assert_string_equal(dec.moe_backend, "backend=CUTEDSL load_balancer.num_slots=288");
    apmw_points_free(&points);
}

/* What SGLang's recipes state of a worker's pool and of chunks that continue a prompt. */
static void sglang_worker_row(void **state)
{
    (void)state;
    apmw_points points;
    parse("d2,gb300,deepseek-v3-r1,sglang,fp4,disagg,1024,1024,8192,48,,,,,,4,1,4,4,1,1,32,32,none,0.8,mean,2000,15,"
          "2026-02-12,known,P:65536 D:786432,P:30000 D:67584,P:fp8 D:fp8,P:0.84 D:0.83,,sa-bench client of srt-slurm,"
          ",,P:disable-chunked-prefix-cache max-total-tokens=131072 quantization=modelopt_fp4 D:max-total-tokens=3122380,\n",
          &points);
    const apmw_point *p = &points.items[0];
    apmw_engine_settings pre = settle(p, APMW_ROLE_PREFILL), dec = settle(p, APMW_ROLE_DECODE);
    assert_true(pre.max_total_tokens == 131072 && dec.max_total_tokens == 3122380);
    assert_true(pre.absorbed_chunks && !dec.absorbed_chunks);
    apmw_serving_spec spec;
    apmw_point_spec(p, APMW_ROLE_PREFILL, &pre, &spec);
    assert_true(spec.absorbed_chunks);
    apmw_points_free(&points);
}

/* Rows that say nothing about the server get the recipe rules of their engine, platform, model and day. */
static void silent_rows(void **state)
{
    (void)state;
    apmw_points points;
    parse("s1,b200,deepseek-v3-r1,sglang,fp8,agg,1024,1024,16,8,8,,,,,,,,,,,,,none,0.8,median,500,20,2025-12-01,,,,,,,,,,,\n"
          "s2,b200,deepseek-v3-r1,sglang,fp8,agg,1024,1024,8,8,8,,,,,,,,,,,,,none,0.8,median,500,20,2025-12-01,,,,,,,,,,,\n"
          "s3,b200,deepseek-v3-r1,trtllm,fp8,agg,8192,1024,64,8,8,,,,,,,,,,,,,none,0.8,median,500,20,2025-12-01,,,,,,,,,,,\n"
          "s4,b200,deepseek-v3-r1,trtllm,fp8,agg,1024,1024,64,8,8,,,,,,,,,,,,,none,0.8,median,500,20,2026-02-01,,,,,,,,,,,\n"
          "s5,h200,llama-3.1-70b,trtllm,fp8,agg,1024,1024,4,2,2,,,,,,,,,,,,,,,,100,9,,,,,,,,,,,,\n"
          "s6,h200,llama-3.1-70b,vllm,fp8,agg,1024,1024,,2,2,,,,,,,,,,,,,,,,100,9,,,,,,,,,,,,\n", &points);
    assert_true(settle(&points.items[0], APMW_ROLE_ENGINE).recv_interval == 30);
    assert_true(settle(&points.items[1], APMW_ROLE_ENGINE).recv_interval == 10);
    assert_true(settle(&points.items[2], APMW_ROLE_ENGINE).token_budget == 8320);
    assert_true(settle(&points.items[3], APMW_ROLE_ENGINE).token_budget == 8192);
    apmw_engine_settings s5 = settle(&points.items[4], APMW_ROLE_ENGINE);
    assert_true(s5.batch_wait_iters == 20 && s5.batch_wait_tokens == 14745 && s5.num_prompts == 40);
    assert_true(points.items[4].ratio == 1); /* lengths taken exact where nothing is said */
    assert_true(isnan(settle(&points.items[5], APMW_ROLE_ENGINE).num_prompts)); /* no concurrency */
    apmw_points_free(&points);
}

static void split_rule(void **state)
{
    (void)state;
    apmw_points points;
    parse("a,b200,m,vllm,fp8,agg,1024,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n"
          "b,b200,m,vllm,fp8,agg,8192,1024,64,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n"
          "c,b200,m,vllm,fp8,agg,1024,1024,4,4,4,1,1,4,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n"
          "d,h200,m,vllm,fp8,agg,1024,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n"
          "e,h200,m,vllm,fp8,agg,8192,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n", &points);
    static const char *const keys[] = {"b200|m|vllm|fp8|2|1|1", "b200|m|vllm|fp8|2|1|1", "b200|m|vllm|fp8|4|1|1",
                                       "h200|m|vllm|fp8|2|1|1|1024/1024", "h200|m|vllm|fp8|2|1|1|8192/1024"};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(points.items[i].judge, apmw_hash64(keys[i], strlen(keys[i]), 0) & 1U);
    apmw_points_free(&points);
}

/* Layouts that settings contradict are mended, each role by itself; the split still goes by the labels. */
static void mended_layouts(void **state)
{
    (void)state;
    apmw_points points;
    parse("a,gb200,kimi-k2.5,vllm,fp4,disagg,1024,1024,256,20,,,,,,1,4,1,4,1,16,1,16,none,0.8,mean,500,19,2026-04-07,known,,,,,,,,,,\n"
          "b,gb200,kimi-k2.5,vllm,fp4,disagg,1024,1024,4,20,,,,,,1,4,1,4,4,4,1,4,none,0.8,mean,500,19,2026-04-07,known,,,,,,,,,,\n"
          "c,gb200,deepseek-v3-r1,sglang,fp4,disagg,1024,1024,512,64,,,,,,4,1,1,1,1,1,1,1,none,0.8,mean,9,9,2025-12-21,known,,,,,,,,,,\n"
          "d,gb200,deepseek-v3-r1,sglang,fp4,disagg,1024,1024,512,64,,,,,,4,1,1,1,1,1,1,1,none,0.8,mean,9,9,2026-02-21,known,,,,,,,,,,\n",
          &points);
    const apmw_point *p = points.items;
    assert_int_equal(p[0].layout[1].tp, 1); /* 16 GPUs with an all-to-all: data-parallel attention */
    assert_int_equal(p[0].layout[1].attention_dp, 16);
    assert_int_equal(p[0].layout[1].moe_ep, 16);
    assert_int_equal(p[0].layout[0].attention_dp, 4);
    assert_int_equal(p[1].layout[1].tp, 4); /* 4 GPUs without one: as labelled */
    assert_int_equal(p[1].layout[1].attention_dp, 1);
    assert_int_equal(p[2].layout[1].attention_dp, 48); /* 12 nodes of 4 */
    assert_int_equal(p[2].layout[0].attention_dp, 4);
    assert_int_equal(p[3].layout[1].attention_dp, 1); /* not of that time */
    static const char labelled[] = "gb200|kimi-k2.5|vllm|fp4|16|16|1";
    assert_int_equal(p[0].judge, apmw_hash64(labelled, strlen(labelled), 0) & 1U);
    apmw_points_free(&points);
}

/* What clients did where a row is silent: lengths of the vendor's own runs, prompts that the server saw longer. */
static void clients(void **state)
{
    (void)state;
    static const char text[] = "platform,model,engine,precision,mode,isl,osl,concurrency,tp,length_range_ratio,measured,source\n"
                               "h100,qwen3-32b,vllm,,agg,1024,128,16,2,,,source_file=data/h100_sxm/vllm\n"
                               "h100,qwen3-32b,sglang,,agg,1024,128,16,4,,,source_file=data/h100_sxm/sglang\n"
                               "h100,qwen3-32b,vllm,,agg,1024,128,16,2,0.5,,source_file=data/h100_sxm/vllm\n"
                               "h200,deepseek-v3-r1,sglang,fp8,agg,1024,1024,16,8,0.8,2026-05-13,inferencex-capture\n"
                               "h200,deepseek-v3-r1,sglang,fp8,agg,1024,1024,16,8,0.8,2026-05-14,inferencex-capture\n";
    const double ratio[] = {0.8, 1, 0.5, 0.8, 0.8}, scale[] = {1, 1, 1, 5, 1}, burst[] = {0, 0, 0, 0.05, 0.05};
    apmw_csv *csv = NULL;
    apmw_points points;
    apmw_error err = {0};
    assert_int_equal(apmw_csv_parse("rows.csv", text, sizeof text - 1, &csv, &err), APMW_OK);
    if (apmw_points_from_csv(csv, "rows.csv", APMW_SOURCE_DIR, &points, &err) != APMW_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < points.n; i++) {
        assert_true(points.items[i].ratio == ratio[i]);
        assert_true(points.items[i].prompt_scale == scale[i]);
        assert_true(points.items[i].burst_prompt_s == burst[i]);
    }
    apmw_points_free(&points);
    apmw_csv_free(csv);
}

/* The burst of a split deployment: by month, engine, number format and ranks of the prompt worker. */
static void clients_of_split_deployments(void **state)
{
    (void)state;
    static const char *const kinds[] = {"sglang,fp4,disagg,8192,1024,512,4,1,2025-12-21", "sglang,fp4,disagg,8192,1024,512,4,1,2026-02-08",
                                        "trtllm,fp4,disagg,1024,1024,512,4,8,2025-12-05", "trtllm,fp4,disagg,8192,1024,512,4,8,2025-12-05",
                                        "trtllm,fp8,disagg,1024,1024,512,8,4,2026-03-23", "trtllm,fp8,disagg,1024,1024,512,4,8,2026-03-23"};
    const double burst[] = {0.15, 0, 0.045, 0, 0.06, 0};
    char text[2048];
    int n = snprintf(text, sizeof text, "platform,model,engine,precision,mode,isl,osl,concurrency,prefill_attention_dp,"
                                        "decode_attention_dp,measured,prefill_tp,decode_tp,prefill_workers,decode_workers,length_range_ratio\n");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "gb200,deepseek-v3-r1,%s,1,1,1,1,0.8\n", kinds[i]);
    apmw_csv *csv = NULL;
    apmw_points points;
    apmw_error err = {0};
    assert_int_equal(apmw_csv_parse("rows.csv", text, (size_t)n, &csv, &err), APMW_OK);
    if (apmw_points_from_csv(csv, "rows.csv", APMW_SOURCE_DIR, &points, &err) != APMW_OK)
        fail_msg("%s", err.message);
    apmw_csv_free(csv);
    for (size_t i = 0; i < points.n; i++)
        if (points.items[i].burst_prompt_s != burst[i])
            fail_msg("%s: %g", kinds[i], points.items[i].burst_prompt_s);
    assert_int_equal(points.n, sizeof burst / sizeof burst[0]);
    apmw_points_free(&points);
}

static void bad_cells(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "a,,m,vllm,fp8,agg,1024,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n",
        "a,b200,m,vllm,fp8,agg,x,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n",
        "a,b200,m,vllm,fp8,agg,1024,1024,4,2,2,1,1,2,1,,,,,,,,,none,1.5,,1,1,,,,,,,,,,,,\n",
        "a,b200,m,vllm,fp8,agg,1024,1024,4,2,2,1,1,2,1,,,,,,,,,none,,,1,1,,known,=BATCH,,,,,,,,,\n",
        "a,b200,m,vllm,fp8,agg,1024,1024,4,2,0,1,1,2,1,,,,,,,,,none,,,1,1,,,,,,,,,,,,\n"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[8192];
        apmw_csv *csv = NULL;
        apmw_points points;
        apmw_error err = {0};
        int n = snprintf(text, sizeof text, "%s%s", header, rows[i]);
        assert_int_equal(apmw_csv_parse("rows.csv", text, (size_t)n, &csv, &err), APMW_OK);
        assert_int_equal(apmw_points_from_csv(csv, "rows.csv", APMW_SOURCE_DIR, &points, &err), APMW_E_DATA);
        assert_non_null(strstr(err.message, "rows.csv:2"));
        apmw_csv_free(csv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas),    cmocka_unit_test(aggregated_row), cmocka_unit_test(sglang_worker_row), cmocka_unit_test(disaggregated_row),
        cmocka_unit_test(silent_rows), cmocka_unit_test(split_rule),     cmocka_unit_test(bad_cells),
        cmocka_unit_test(mended_layouts), cmocka_unit_test(clients), cmocka_unit_test(clients_of_split_deployments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
