/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "apmw/compose.h"
#include "apmw/overhead.h"

static apmw_catalog *catalog;

static int open_catalog(void **state)
{
    (void)state;
    return (int)apmw_catalog_open(APMW_SOURCE_DIR, &catalog, NULL);
}

static int close_catalog(void **state)
{
    (void)state;
    apmw_catalog_free(catalog);
    return 0;
}

static apmw_serving_spec spec_of(const char *platform, const char *model, const char *engine, const char *precision,
                                 apmw_layout layout)
{
    apmw_serving_spec s = {.layout = layout};
    strcpy(s.platform, platform);
    strcpy(s.model, model);
    strcpy(s.engine, engine);
    strcpy(s.precision, precision);
    return s;
}

static apmw_step_load decode_load(int64_t seqs, double context)
{
    apmw_step_load load = {.n_seqs = seqs, .rank_tokens = seqs, .total_seqs = seqs, .total_tokens = seqs};
    load.kv[0] = (double)seqs * context;
    return load;
}

static double step_ms(const apmw_serving_spec *s, int64_t seqs, double context, double window)
{
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    if (apmw_compose(catalog, s, NULL, &cost, NULL, &err)) {
        fail_msg("%s", err.message);
    }
    apmw_step_load load = decode_load(seqs, context);
    load.kv[1] = (double)seqs * window;
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    assert_true(work.kernel_s == work.time_s);
    assert_true(work.flops > 0 && work.bytes > 0);
    apmw_step_cost_free(cost);
    return 1e3 * work.time_s;
}

/* Sums that were made by hand from the same tables (hwmodels/ACCURACY.md), contexts 0.9 (ISL + OSL / 2). */
static void hand_made_sums(void **state)
{
    (void)state;
    apmw_serving_spec r1 = spec_of("b200", "deepseek-v3-r1", "trtllm", "fp8", (apmw_layout){.tp = 8});
    strcpy(r1.moe_backend, "backend=TRTLLM");
    double ms = step_ms(&r1, 64, 0.9 * (1024 + 4096), 0);
    assert_true(fabs(ms / 19.25 - 1) < 0.01);
    apmw_serving_spec llama = spec_of("h200", "llama-3.1-70b", "trtllm", "fp8", (apmw_layout){.tp = 4});
    ms = step_ms(&llama, 32, 0.9 * (1024 + 4096), 0);
    assert_true(fabs(ms / 10.83 - 1) < 0.02);
    apmw_serving_spec oss = spec_of("b200", "gpt-oss-120b", "trtllm", "fp4", (apmw_layout){.tp = 4});
    ms = step_ms(&oss, 64, 0.9 * (1024 + 4096), 128);
    assert_true(fabs(ms / 4.34 - 1) < 0.01);
}

static void overhead_is_added(void **state)
{
    (void)state;
    apmw_serving_spec s = spec_of("h200", "llama-3.1-70b", "vllm", "fp8", (apmw_layout){.tp = 4});
    apmw_overhead o = {.layer_s = 20e-6, .seq_s = 15e-6, .prefill_scale = 2, .prefill_floor_layer_s = 1e-3};
    apmw_step_cost *bare = NULL, *full = NULL;
    assert_int_equal(apmw_compose(catalog, &s, NULL, &bare, NULL, NULL), APMW_OK);
    assert_int_equal(apmw_compose(catalog, &s, &o, &full, NULL, NULL), APMW_OK);
    apmw_step_load load = decode_load(16, 2000);
    apmw_step_work a, b;
    apmw_step_cost_eval(bare, &load, &a);
    apmw_step_cost_eval(full, &load, &b);
    assert_true(fabs(b.time_s - a.time_s - (80 * 20e-6 + 16 * 15e-6)) < 1e-12);
    assert_true(b.kernel_s == a.kernel_s);
    /* A prompt alone: twice the composed time, or the floor. */
    apmw_chunk chunk = {4000, 0, 1};
    apmw_step_load prompt = {.rank_tokens = 4000, .total_tokens = 4000, .chunks = &chunk, .n_chunks = 1};
    apmw_step_cost_eval(bare, &prompt, &a);
    apmw_step_cost_eval(full, &prompt, &b);
    assert_true(fabs(b.kernel_s / a.kernel_s - 2) < 1e-9);
    chunk.new_tokens = prompt.rank_tokens = prompt.total_tokens = 16;
    apmw_step_cost_eval(full, &prompt, &b);
    assert_true(fabs(b.time_s - (80e-3 + 80 * 20e-6)) < 1e-9);
    apmw_step_cost_free(bare);
    apmw_step_cost_free(full);
}

/* A chunk on a prefix costs more than alone, and a prompt in two chunks about as much as whole. */
static void prefixes_are_priced(void **state)
{
    (void)state;
    const char *models[] = {"llama-3.1-70b", "deepseek-v3-r1", "glm-5", "deepseek-v4-pro", "gpt-oss-120b"};
    for (size_t i = 0; i < 5; i++) {
        apmw_serving_spec s = spec_of("b200", models[i], i == 1 || i == 2 || i == 3 ? "sglang" : "vllm",
                                      i == 0 || i == 2 ? "fp8" : "fp4", (apmw_layout){.tp = 8});
        apmw_step_cost *cost = NULL;
        apmw_error err = {0};
        if (apmw_compose(catalog, &s, NULL, &cost, NULL, &err)) {
            fail_msg("%s", err.message);
        }
        const apmw_chunk chunks[] = {{2048, 0, 1}, {2048, 100000, 1}, {8192, 0, 1}, {4096, 0, 0}, {4096, 4096, 1}};
        double t[5];
        for (int j = 0; j < 5; j++) {
            apmw_step_load load = {.rank_tokens = chunks[j].new_tokens, .total_tokens = chunks[j].new_tokens,
                                   .chunks = &chunks[j], .n_chunks = 1};
            apmw_step_work work;
            apmw_step_cost_eval(cost, &load, &work);
            t[j] = work.time_s;
        }
        assert_true(t[1] > 1.05 * t[0]);
        assert_true(t[3] + t[4] > 0.95 * t[2] && t[3] + t[4] < 1.6 * t[2]);
        apmw_step_cost_free(cost);
    }
}

/* Far beyond the measured lengths neither prompts nor decodes may run faster than the hardware can: prompt attention stays
 * below the part's peak (2.25 PFLOP/s bf16 a B200, dense), KV reads below its bandwidth. */
static void extrapolation_stays_physical(void **state)
{
    (void)state;
    const char *models[] = {"llama-3.1-70b", "deepseek-v3-r1", "minimax-m2.5", "glm-5", "deepseek-v4-pro"};
    const apmw_accelerator_spec *b200 = NULL;
    assert_int_equal(apmw_catalog_accelerator(catalog, "b200", &b200, NULL), APMW_OK);
    for (size_t i = 0; i < 5; i++) {
        apmw_serving_spec s = spec_of("b200", models[i], i % 2 ? "sglang" : "vllm", "fp8", (apmw_layout){.tp = 8});
        apmw_step_cost *cost = NULL;
        assert_int_equal(apmw_compose(catalog, &s, NULL, &cost, NULL, NULL), APMW_OK);
        for (int64_t past = 65536; past <= 1048576; past *= 4) {
            const apmw_chunk small = {512, past, 1}, large = {8192, past, 1};
            const apmw_chunk *chunks[] = {&small, &large};
            for (int j = 0; j < 2; j++) {
                apmw_step_load load = {.rank_tokens = chunks[j]->new_tokens, .total_tokens = chunks[j]->new_tokens,
                                       .chunks = chunks[j], .n_chunks = 1};
                apmw_step_work work;
                apmw_step_cost_eval(cost, &load, &work);
                assert_true(work.flops / work.time_s < b200->bf16_flop_per_s);
            }
            apmw_step_load load = decode_load(256, (double)past), twice = decode_load(256, 2.0 * (double)past);
            apmw_step_work a, b;
            apmw_step_cost_eval(cost, &load, &a);
            apmw_step_cost_eval(cost, &twice, &b);
            assert_true(a.outside > 0);
            assert_true(b.time_s - a.time_s > 0.99 * (b.bytes - a.bytes) / b200->hbm_bytes_per_s);
        }
        apmw_step_cost_free(cost);
    }
}

static void report_names_every_row(void **state)
{
    (void)state;
    apmw_serving_spec s = spec_of("b200", "deepseek-v3-r1", "trtllm", "fp8", (apmw_layout){.tp = 8});
    apmw_step_cost *cost = NULL;
    apmw_compose_report report = {0};
    assert_int_equal(apmw_compose(catalog, &s, NULL, &cost, &report, NULL), APMW_OK);
    assert_non_null(strstr(report.rows.data, "mla_generation_module.trtllm1.3.0rc20"));
    assert_non_null(strstr(report.rows.data, "kernel_source=sglang_flashinfer_trtllm_moe"));
    assert_non_null(strstr(report.rows.data, "BORROWED"));
    assert_int_equal(report.n_borrowed, 1);
    apmw_compose_report_free(&report);
    apmw_step_cost_free(cost);
}

static void impossible_combinations_say_why(void **state)
{
    (void)state;
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    apmw_serving_spec split = spec_of("b200", "deepseek-v3-r1", "sglang", "fp8",
                                      (apmw_layout){.tp = 8, .moe_tp = 4, .moe_ep = 4});
    assert_int_equal(apmw_compose(catalog, &split, NULL, &cost, NULL, &err), APMW_E_SCENARIO);
    assert_non_null(strstr(err.message, "impossible split"));
    assert_null(cost);
    apmw_serving_spec none = spec_of("h200", "kimi-k3", "vllm", "fp4", (apmw_layout){.tp = 8});
    assert_int_equal(apmw_compose(catalog, &none, NULL, &cost, NULL, &err), APMW_E_SCENARIO);
    apmw_serving_spec pp = spec_of("b200", "llama-3.1-70b", "vllm", "fp8", (apmw_layout){.tp = 2, .pp = 2});
    assert_int_equal(apmw_compose(catalog, &pp, NULL, &cost, NULL, &err), APMW_E_SCENARIO);
    assert_non_null(strstr(err.message, "pipeline"));
    apmw_serving_spec typo = spec_of("b200", "lama-3.1-70b", "vllm", "fp8", (apmw_layout){.tp = 2});
    assert_int_equal(apmw_compose(catalog, &typo, NULL, &cost, NULL, &err), APMW_E_USAGE);
}

static void overhead_table_round_trip_and_sums(void **state)
{
    (void)state;
    apmw_overhead_entry entries[] = {
        {.engine = "vllm", .model = "*", .role = "", .released_from = "*", .value = {.layer_s = 1, .prefill_scale = 1}},
        {.engine = "vllm", .vendor = "nvidia", .model = "llama-3.1-70b", .role = "", .released_from = "*", .value.layer_s = 2,
         .layer_tp_s = 0.25, .value.basis = "llama"},
        {.engine = "vllm", .model = "llama-3.1-70b", .role = "", .released_from = "2026-02-01", .value.layer_s = 10},
        {.engine = "vllm", .model = "llama-3.1-70b", .role = "", .released_from = "2026-04-01", .value.layer_s = 20},
        {.engine = "vllm", .model = "*", .platform = "h200", .role = "", .released_from = "*", .value.layer_s = -0.5},
        {.engine = "vllm", .model = "*", .role = "decode", .released_from = "*", .value.layer_s = 4,
         .value.basis = "decode workers", .sd_layer_s = NAN},
        {.engine = "vllm", .model = "llama-3.1-70b", .role = "", .released_from = "*", .draft_tokens = 3, .value.seq_s = 7,
         .ln_acceptance = 0.75},
        {.engine = "vllm", .model = "*", .role = "", .released_from = "*", .draft_tokens = -1, .value.seq_s = 1,
         .ln_acceptance = 0.25}};
    apmw_overhead_table table = {.entry = entries, .n = 8, .provenance = "test"}, back;
    char path[64];
    snprintf(path, sizeof path, "/tmp/apmw_engines_%d.h5", (int)getpid());
    assert_int_equal(apmw_overhead_table_save(&table, path, NULL), APMW_OK);
    assert_int_equal(apmw_overhead_table_load(path, &back, NULL), APMW_OK);
    remove(path);
    assert_int_equal(back.n, 8);
    assert_string_equal(back.provenance, "test");
    assert_string_equal(back.entry[5].value.basis, "decode workers");
    assert_true(isnan(back.entry[5].sd_layer_s));
    const struct {
        const char *vendor, *model, *platform, *role, *released;
        int tp;
        size_t entries;
        double want;
    } cases[] = {{"nvidia", "glm-5", "b200", "", "", 4, 1, 1},
                 {"nvidia", "glm-5", "h200", "", "", 4, 2, 0.5},
                 {"nvidia", "llama-3.1-70b", "b200", "", "2026-01-01", 1, 2, 3},
                 {"nvidia", "llama-3.1-70b", "b200", "", "2026-01-01", 4, 2, 3.5}, /* two doublings */
                 {"nvidia", "llama-3.1-70b", "b200", "", "2026-03-01", 1, 3, 13}, /* the latest release not after it */
                 {"nvidia", "llama-3.1-70b", "b200", "", "", 1, 3, 23},
                 {"amd", "llama-3.1-70b", "mi355x", "", "2026-01-01", 1, 1, 1},
                 {"nvidia", "llama-3.1-70b", "h200", "decode", "", 1, 1, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apmw_overhead value = {.layer_s = -1};
        const apmw_overhead_key key = {.engine = "vllm", .vendor = cases[i].vendor, .model = cases[i].model, .family = "x",
                                       .platform = cases[i].platform, .precision = "fp8", .role = cases[i].role,
                                       .released = cases[i].released, .tp = cases[i].tp};
        assert_int_equal(apmw_overhead_table_value(&back, &key, &value), cases[i].entries);
        assert_true(value.layer_s == cases[i].want);
        assert_true(value.acceptance == 0);
    }
    apmw_overhead value = {.layer_s = -1};
    apmw_overhead_key drafts = {.engine = "vllm", .vendor = "nvidia", .model = "llama-3.1-70b", .family = "", .platform = "b200",
                                .precision = "fp8", .role = "", .released = "2026-01-01", .draft_tokens = 3, .tp = 1};
    assert_int_equal(apmw_overhead_table_value(&back, &drafts, &value), 4);
    assert_true(value.seq_s == 8 && fabs(value.acceptance - exp(1)) < 1e-12);
    drafts.draft_tokens = 2; /* of any length, but no acceptance is known */
    assert_int_equal(apmw_overhead_table_value(&back, &drafts, &value), 3);
    assert_true(value.seq_s == 1 && value.acceptance == 0);
    const apmw_overhead_key other = {.engine = "atom", .vendor = "amd", .model = "glm-5", .family = "cdna4",
                                     .platform = "mi355x", .precision = "fp4", .role = "", .released = ""};
    value.layer_s = -1;
    assert_int_equal(apmw_overhead_table_value(&back, &other, &value), 0);
    assert_true(value.layer_s == -1);
    apmw_overhead_table_free(&back);
    apmw_overhead prior;
    apmw_overhead_prior("trtllm", "", &prior);
    assert_true(prior.layer_s == 5e-6 && prior.prefill_scale == 1);
}

/* What a node of silicon says holds for all its parts, beside what is said of one of them. */
static void parts_of_one_silicon_share(void **state)
{
    (void)state;
    apmw_overhead_entry entries[] = {
        {.engine = "sglang", .model = "*", .role = "", .released_from = "*", .value.layer_s = 1},
        {.engine = "sglang", .model = "*", .platform = "blackwell", .role = "", .released_from = "*", .value.layer_s = 2},
        {.engine = "sglang", .model = "m", .platform = "b300", .role = "", .released_from = "*", .value.layer_s = 4}};
    apmw_overhead_table table = {.entry = entries, .n = sizeof entries / sizeof entries[0]};
    const struct {
        const char *platform;
        double want;
    } cases[] = {{"b200", 3}, {"b300", 7}, {"h200", 1}, {"gb200", 1}, {"", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apmw_overhead value = {.layer_s = -1};
        const apmw_overhead_key key = {.engine = "sglang", .vendor = "nvidia", .model = "m", .family = "", .platform = cases[i].platform,
                                       .precision = "fp8", .role = "", .released = ""};
        assert_true(apmw_overhead_table_value(&table, &key, &value) > 0);
        assert_true(value.layer_s == cases[i].want);
    }
    assert_string_equal(apmw_overhead_silicon("h100"), apmw_overhead_silicon("h200"));
    assert_string_equal(apmw_overhead_silicon("gb300"), "gb300");
}

/* Milliseconds of all operations of one role in the reference decode pass, from the report: 64 sequences a rank. */
static double role_ms(const char *rows, const char *role)
{
    double total = 0;
    for (const char *line = rows; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char name[24];
        double times, ms;
        if (sscanf(line, "%23s %lf %lf", name, &times, &ms) == 3 && !strcmp(name, role)) {
            total += ms;
        }
    }
    return total;
}

static void report_of(const apmw_serving_spec *s, apmw_compose_report *report)
{
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    if (apmw_compose(catalog, s, NULL, &cost, report, &err)) {
        fail_msg("%s", err.message);
    }
    apmw_step_cost_free(cost);
}

/* Exchanges and experts of disaggregated workers with data-parallel attention, against sums made by hand from the tables. */
static void workers_exchange_as_their_engine_does(void **state)
{
    (void)state;
    apmw_compose_report report;
    apmw_serving_spec s = spec_of("gb300", "deepseek-v3-r1", "sglang", "fp8",
                                  (apmw_layout){.tp = 1, .attention_dp = 32, .moe_tp = 1, .moe_ep = 32});
    strcpy(s.role, "decode");
    report_of(&s, &report);
    assert_true(fabs(role_ms(report.rows.data, "deepep") / (58 * (0.026443 + 0.021713)) - 1) < 1e-3);
    /* EP 32 at 32 x 64 = 2,048 tokens of all ranks, not at 64. */
    assert_true(fabs(role_ms(report.rows.data, "moe") / (58 * 0.122712) - 1) < 1e-3);
    apmw_compose_report_free(&report);

    s.layout = (apmw_layout){.tp = 1, .attention_dp = 8, .moe_tp = 1, .moe_ep = 8};
    report_of(&s, &report); /* EP 8 lies between the measured 4 and 16: at 512 tokens 0.483547 and 0.13618 ms */
    assert_true(fabs(role_ms(report.rows.data, "moe") / (58 * sqrt(0.483547 * 0.13618)) - 1) < 1e-3);
    apmw_compose_report_free(&report);
    strcpy(s.role, "prefill");
    report_of(&s, &report);
    assert_non_null(strstr(report.rows.data, "wideep_context_moe"));
    assert_non_null(strstr(report.rows.data, "comm_wideep_deepep_normal"));
    apmw_compose_report_free(&report);

    s = spec_of("b200", "deepseek-v3-r1", "sglang", "fp4", s.layout);
    strcpy(s.role, "decode");
    strcpy(s.moe_backend, "flashinfer_trtllm");
    report_of(&s, &report); /* 512 x 7,168 elements: between the rows of 2 and 4 million, gather 29.23 .. 44.18 us, scatter 27.21 .. 43.64 */
    double one = role_ms(report.rows.data, "gather_scatter") / 58;
    assert_true(one > 0.02923 + 0.02721 && one < 0.04418 + 0.04364);
    assert_true(role_ms(report.rows.data, "exchange") == 0 && role_ms(report.rows.data, "deepep") == 0);
    apmw_compose_report_free(&report);

    s = spec_of("gb200", "deepseek-v3-r1", "trtllm", "fp4", (apmw_layout){.tp = 1, .attention_dp = 32, .moe_tp = 1, .moe_ep = 32});
    strcpy(s.role, "decode");
    strcpy(s.released, "2026-03-23");
    report_of(&s, &report); /* at 64 tokens a rank the older kernel in low precision, 26.506 us, is below 39.824 */
    assert_true(fabs(role_ms(report.rows.data, "combine") / (58 * 0.026506) - 1) < 1e-3);
    double balanced = role_ms(report.rows.data, "moe"); /* rows that fall with size are levelled by the table: 5 % */
    assert_true(fabs(balanced / (58 * sqrt(0.129984 * 0.0891648)) - 1) < 0.05);
    apmw_compose_report_free(&report);
    strcpy(s.released, "2025-12-05");
    report_of(&s, &report); /* before: two-sided, in full precision, experts by the power law */
    assert_true(fabs(role_ms(report.rows.data, "combine") / (58 * 0.02839) - 1) < 1e-3);
    assert_true(fabs(role_ms(report.rows.data, "moe") / (58 * sqrt(0.191315 * 0.1336)) - 1) < 0.05);
    apmw_compose_report_free(&report);
}

static double prompt_ms(const apmw_serving_spec *s, int64_t tokens)
{
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    if (apmw_compose(catalog, s, NULL, &cost, NULL, &err)) {
        fail_msg("%s", err.message);
    }
    const apmw_chunk chunk = {tokens, 0, 1};
    apmw_step_load load = {.rank_tokens = tokens, .total_tokens = tokens, .chunks = &chunk, .n_chunks = 1};
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    apmw_step_cost_free(cost);
    return 1e3 * work.time_s;
}

/* Milliseconds of the line of the report that begins with `role`, in the prompt column. */
static double reported_ms(const apmw_serving_spec *s, const char *role, bool prompt, char *line, size_t size)
{
    apmw_step_cost *cost = NULL;
    apmw_compose_report report = {0};
    apmw_error err = {0};
    if (apmw_compose(catalog, s, NULL, &cost, &report, &err)) {
        fail_msg("%s", err.message);
    }
    apmw_step_cost_free(cost);
    char start[40];
    snprintf(start, sizeof start, "\n%s ", role);
    const char *at = strstr(report.rows.data, start);
    assert_non_null(at);
    double times, decode_ms, ms;
    assert_int_equal(sscanf(at + strlen(start), "%lf %lf %lf", &times, &decode_ms, &ms), 3);
    snprintf(line, size, "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
    apmw_compose_report_free(&report);
    return prompt ? ms : decode_ms;
}

/* What no table of an AMD part holds follows the hardware: a group of n parts has n - 1 links each, ranks on two nodes meet at
 * the network, and a prompt of eight times the tokens pays for its experts again (the rows of this shape stand still). */
static void amd_forms_follow_the_hardware(void **state)
{
    (void)state;
    char line[400];
    apmw_serving_spec eight = spec_of("mi355x", "deepseek-v3-r1", "sglang", "fp8", (apmw_layout){.tp = 8});
    apmw_serving_spec four = spec_of("mi355x", "deepseek-v3-r1", "sglang", "fp8", (apmw_layout){.tp = 4});
    const double start = 122 * 10e-3, bytes = 1024.0 * 7168 * 2;
    /* 2 (n - 1) / n of the bytes over 65 % of (n - 1) / 7 of 538 GB/s, 122 times */
    double want = start + 122 * 1e3 * 2 * 7 / 8 * bytes / (0.65 * 538e9);
    assert_true(fabs(reported_ms(&eight, "allreduce", true, line, sizeof line) / want - 1) < 1e-3);
    want = start + 122 * 1e3 * 2 * 3 / 4 * bytes / (0.65 * 538e9 * 3 / 7);
    assert_true(fabs(reported_ms(&four, "allreduce", true, line, sizeof line) / want - 1) < 1e-3);
    double one = reported_ms(&eight, "moe", true, line, sizeof line);
    assert_non_null(strstr(line, "hidden_size=6144"));
    assert_true(prompt_ms(&eight, 8192) > prompt_ms(&eight, 1024) + 2 * one);

    apmw_serving_spec node = spec_of("mi355x", "deepseek-v3-r1", "sglang", "fp8",
                                     (apmw_layout){.tp = 1, .attention_dp = 8, .moe_ep = 8});
    apmw_serving_spec two = spec_of("mi355x", "deepseek-v3-r1", "sglang", "fp8",
                                    (apmw_layout){.tp = 1, .attention_dp = 16, .moe_ep = 16});
    double in = reported_ms(&node, "exchange", false, line, sizeof line);
    double out = reported_ms(&two, "exchange", false, line, sizeof line);
    assert_non_null(strstr(line, "between nodes"));
    assert_true(out > 1.5 * in);
    /* Attention of all 128 heads of a sequence on one rank is products, of 16 heads bytes. */
    (void)reported_ms(&node, "attn_decode", false, line, sizeof line);
    assert_non_null(strstr(line, "products"));
    (void)reported_ms(&eight, "attn_decode", false, line, sizeof line);
    assert_non_null(strstr(line, "KV bytes"));
}

static double prompts_ms(const apmw_serving_spec *spec, int64_t past)
{
    apmw_step_cost *cost = NULL;
    apmw_error err = {0};
    if (apmw_compose(catalog, spec, NULL, &cost, NULL, &err))
        fail_msg("%s", err.message);
    const apmw_chunk chunks[3] = {{512, past, 1}, {1024, 0, 1}, {512, 0, 0}};
    const apmw_step_load load = {.rank_tokens = 2048, .total_tokens = 8192, .chunks = chunks, .n_chunks = 3};
    apmw_step_work work;
    apmw_step_cost_eval(cost, &load, &work);
    apmw_step_cost_free(cost);
    return work.time_s * 1e3;
}

/* SGLang without its chunked prefix cache: a batch of whole prompts costs what it did, one that continues a prompt has all of
 * its attention in the absorbed form, 2 x (2 x 512 + 64) products a pair of tokens and head at 12 % of the bf16 rate. */
static void continued_chunks_run_absorbed(void **state)
{
    (void)state;
    apmw_serving_spec with = spec_of("gb300", "deepseek-v3-r1", "sglang", "fp4", (apmw_layout){.tp = 1, .attention_dp = 4, .moe_ep = 4});
    strcpy(with.role, "prefill");
    apmw_serving_spec without = with;
    without.absorbed_chunks = true;
    assert_true(prompts_ms(&with, 0) == prompts_ms(&without, 0));
    const double extra = prompts_ms(&without, 700) - prompts_ms(&without, 1);
    const apmw_accelerator_spec *a = NULL;
    assert_int_equal(apmw_catalog_accelerator(catalog, "gb300", &a, NULL), APMW_OK);
    const double by_hand = 1e3 * 512.0 * 699.0 * 61.0 * 128.0 * 2.0 * (2 * 512 + 64) / (0.12 * a->bf16_flop_per_s);
    assert_true(fabs(extra / by_hand - 1) < 0.05); /* and the prefix's own products with the latent */
    assert_true(prompts_ms(&without, 700) > 1.2 * prompts_ms(&with, 700));
}

/* Prompts of ranks of unequal length are gathered and scattered by sums, decode steps and FP4 prompts by gathers. */
static void prompts_gather_by_sums(void **state)
{
    (void)state;
    static const struct {
        const char *role, *backend, *op;
        int times;
    } cases[] = {{"decode", "", "all_reduce", 0}, {"prefill", "", "all_reduce", 2}, {"prefill", "flashinfer_cutlass", "all_reduce", 0}};
    double ms[3] = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        apmw_serving_spec s = spec_of("b200", "deepseek-v3-r1", "sglang", "fp4", (apmw_layout){.tp = 1, .attention_dp = 4, .moe_ep = 4});
        strcpy(s.role, cases[i].role);
        strcpy(s.moe_backend, cases[i].backend);
        apmw_step_cost *cost = NULL;
        apmw_compose_report report;
        apmw_error err = {0};
        if (apmw_compose(catalog, &s, NULL, &cost, &report, &err))
            fail_msg("%s", err.message);
        int found = 0;
        for (const char *at = strstr(report.rows.data, "gather_scatter"); at; at = strstr(at + 1, "\ngather_scatter")) {
            const char *line = *at == '\n' ? at + 1 : at, *end = strchr(line, '\n');
            const char *op = strstr(line, cases[i].op);
            double decode, prompt;
            assert_int_equal(sscanf(line, "gather_scatter %*g %lf %lf", &decode, &prompt), 2);
            ms[i] += prompt;
            found += op && op < end;
        }
        assert_int_equal(found, cases[i].times);
        apmw_compose_report_free(&report);
        apmw_step_cost_free(cost);
    }
    assert_true(ms[1] > 1.5 * ms[0] && ms[2] < 0.8 * ms[0]);
}

/* MI325X takes MI300X's overheads; a model that was never served on AMD carries the spread of its forms. */
static void amd_overheads_and_spreads(void **state)
{
    (void)state;
    assert_string_equal(apmw_overhead_platform("mi325x"), "mi300x");
    assert_string_equal(apmw_overhead_platform("mi300x"), "mi300x");
    assert_string_equal(apmw_overhead_platform("b200"), "b200");
    apmw_serving_spec old = spec_of("mi300x", "deepseek-v3-r1", "sglang", "fp8", (apmw_layout){.tp = 8}), new = old;
    strcpy(new.platform, "mi325x");
    apmw_overhead a, b, c;
    assert_int_equal(apmw_overhead_lookup(catalog, &old, &a, NULL), APMW_OK);
    assert_int_equal(apmw_overhead_lookup(catalog, &new, &b, NULL), APMW_OK);
    assert_true(a.layer_s == b.layer_s && a.request_s == b.request_s && a.ln_sd_time == b.ln_sd_time);
    apmw_serving_spec served = spec_of("mi355x", "deepseek-v3-r1", "sglang", "fp4", (apmw_layout){.tp = 8}), never = served;
    strcpy(never.model, "deepseek-v4-pro");
    assert_int_equal(apmw_overhead_lookup(catalog, &served, &b, NULL), APMW_OK);
    assert_int_equal(apmw_overhead_lookup(catalog, &never, &c, NULL), APMW_OK);
    assert_true(b.ln_sd_time < 0.3 && c.ln_sd_time >= 0.3 && c.ln_sd_ttft >= 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hand_made_sums),
                                       cmocka_unit_test(workers_exchange_as_their_engine_does),
                                       cmocka_unit_test(amd_forms_follow_the_hardware),
                                       cmocka_unit_test(amd_overheads_and_spreads),
                                       cmocka_unit_test(continued_chunks_run_absorbed),
                                       cmocka_unit_test(prompts_gather_by_sums),
                                       cmocka_unit_test(overhead_is_added),
                                       cmocka_unit_test(prefixes_are_priced),
                                       cmocka_unit_test(extrapolation_stays_physical),
                                       cmocka_unit_test(report_names_every_row),
                                       cmocka_unit_test(impossible_combinations_say_why),
                                       cmocka_unit_test(parts_of_one_silicon_share),
                                       cmocka_unit_test(overhead_table_round_trip_and_sums)};
    return cmocka_run_group_tests(tests, open_catalog, close_catalog);
}
