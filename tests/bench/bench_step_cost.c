/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Cost of evaluating a composed step: a decode pass, a stretch of 1,000 passes in closed form, a pass with 1 and 8 chunks;
 * and of compiling. Targets: < 3 us, about the same, < 10 us, < 30 ms. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "apmw/compose.h"

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(void)
{
    static const struct {
        const char *platform, *model, *engine, *precision;
    } cases[] = {{"b200", "gpt-oss-120b", "vllm", "fp4"},
                 {"gb300", "deepseek-v4-pro", "sglang", "fp4"},
                 {"h200", "deepseek-v3-r1", "sglang", "fp8"},
                 {"b200", "qwen3.5-397b", "sglang", "fp8"}};
    apmw_error err = {0};
    apmw_catalog *catalog = NULL;
    if (apmw_catalog_open(APMW_SOURCE_DIR, &catalog, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%-18s %10s %10s %10s %10s %10s\n", "model", "compile ms", "decode us", "sum us", "1 chunk us", "8 chunks us");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apmw_serving_spec s = {.layout = {.tp = 8}};
        strcpy(s.platform, cases[i].platform);
        strcpy(s.model, cases[i].model);
        strcpy(s.engine, cases[i].engine);
        strcpy(s.precision, cases[i].precision);
        apmw_step_cost *cost = NULL;
        const apmw_hwmodel *platform = NULL;
        if (apmw_catalog_platform(catalog, s.platform, &platform, &err)) {
            return 1;
        }
        double t0 = now_s();
        if (apmw_compose(catalog, &s, NULL, &cost, NULL, &err)) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
        double compile = now_s() - t0, took[4], sink = 0;
        apmw_chunk chunks[8];
        enum { N = 200000 };
        for (int kind = 0; kind < 4; kind++) {
            t0 = now_s();
            for (int j = 0; j < N; j++) {
                int64_t seqs = 1 + j % 300;
                apmw_step_load load = {.n_seqs = seqs, .rank_tokens = seqs, .total_seqs = seqs, .total_tokens = seqs};
                load.kv[0] = (double)seqs * (1000 + j);
                load.kv[1] = (double)seqs * 128;
                const double growth[APMW_KV_KINDS] = {(double)seqs};
                apmw_step_work work;
                if (kind == 1) {
                    apmw_step_cost_sum(cost, &load, growth, 1000, &work);
                } else {
                    load.n_chunks = kind == 0 ? 0 : kind == 2 ? 1 : 8;
                    load.chunks = chunks;
                    for (size_t k = 0; k < load.n_chunks; k++) {
                        chunks[k] = (apmw_chunk){100 + j % 900, j, 1};
                        load.rank_tokens += chunks[k].new_tokens;
                    }
                    load.total_tokens = load.rank_tokens;
                    apmw_step_cost_eval(cost, &load, &work);
                }
                sink += work.time_s;
            }
            took[kind] = (now_s() - t0) / N * 1e6;
        }
        printf("%-18s %10.2f %10.3f %10.3f %10.3f %10.3f   (%g)\n", s.model, 1e3 * compile, took[0], took[1], took[2], took[3],
               sink > 0 ? 1.0 : 0.0);
        apmw_step_cost_free(cost);
    }
    apmw_catalog_free(catalog);
    return 0;
}
