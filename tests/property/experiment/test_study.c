/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A study gives the same bytes at any number of threads; its best layouts are the best; intervals contain their points. */
#include <omp.h>
#include <string.h>

#include "study_case.h"

enum { LAYOUTS = 4 };
static const char *const NAMES[LAYOUTS] = {"a", "b", "c", "d"};
static const double PER_SEQ[LAYOUTS] = {2e-3, 1e-3, 1.1e-3, 4e-3};

/* "d" carries least and draws far less, so it is best a megawatt; "c" and "a" are worse than "b" in both. */
static const double TDP[LAYOUTS] = {1.0, 1.0, 1.0, 0.2};

static int64_t all_windows_blocks; /* of every layout; 0 = as many as without */

static bool no_watts; /* as of a platform without power parameters */
static size_t search_keep; /* as of a layout search; 0 = a race */

static apmw_study *run(int threads, bool all_layouts, bool interval, uint64_t seed)
{
    apmw_deployment deployments[LAYOUTS];
    for (int i = 0; i < LAYOUTS; i++) {
        deployments[i] = case_deployment(NAMES[i], PER_SEQ[i], 1);
        deployments[i].power.tdp_w *= no_watts ? 0.0 : TDP[i];
        if (all_windows_blocks > 0) {
            deployments[i].kv_blocks_all_windows = all_windows_blocks;
        }
    }
    apmw_trace trace = {0};
    case_trace(&trace);
    apmw_scenario scenario;
    apmw_scenario_init(&scenario);
    scenario.seed = seed;
    const apmw_phase_rules rules = case_rules();
    const apmw_tier tiers[] = {case_tier(1, 30, 5), case_tier(2, 50, 2), case_tier(3, 200, 1)};
    const char *const platforms[] = {"case"};
    const apmw_study_config config = {.scenario = &scenario, .platforms = platforms, .n_platforms = 1, .trace = &trace,
                                      .rules = &rules, .tiers = tiers, .n_tiers = 3, .resolution = 0.0,
                                      .all_layouts = all_layouts, .search_keep = search_keep, .interval = interval};
    apmw_study *study = NULL;
    apmw_error err = {0};
    omp_set_num_threads(threads);
    assert_ok(apmw_study_run_on(deployments, LAYOUTS, &config, &study, &err), &err);
    apmw_trace_free(&trace);
    return study;
}

/* All numbers of a row as text: pointers and padding left out. */
static void text_of(const apmw_study *study, apmw_buf *out)
{
    size_t n;
    const apmw_study_row *rows = apmw_study_rows(study, &n);
    for (size_t i = 0; i < n; i++) {
        const apmw_study_row *r = &rows[i];
        apmw_buf_printf(out, "%s %d %s %lld %lld %d %a %a %a %a %d %s %s\n", r->platform, r->tier, r->deployment->choice.name,
                        (long long)r->capacity.bracket.pass, (long long)r->capacity.bracket.fail, r->best,
                        r->agents_per_mw, r->watts_per_accelerator, r->capacity.at_pass.steps.mean_batch,
                        r->capacity.at_fail.latency.hit_share, (int)r->capacity.at_pass.n_turns, r->capacity.limited_by,
                        r->capacity.limited_why);
        for (int k = 0; k < r->mw90.n_parts; k++) {
            apmw_buf_printf(out, "  %s %a %a\n", r->mw90.parts[k].name, r->mw90.parts[k].lower, r->mw90.parts[k].upper);
        }
        apmw_buf_printf(out, "  %a %a %a %a\n", r->agents90.lo, r->agents90.hi, r->mw90.lo, r->mw90.hi);
    }
    apmw_buf_printf(out, "%lld trials %lld turns\n", (long long)apmw_study_trials(study), (long long)apmw_study_turns(study));
}

static void threads_change_nothing(void **state)
{
    (void)state;
    apmw_buf texts[3] = {{0}, {0}, {0}};
    for (int threads = 1; threads <= 3; threads++) {
        apmw_study *study = run(threads, false, true, 42);
        text_of(study, &texts[threads - 1]);
        apmw_study_free(study);
    }
    assert_string_equal(texts[0].data, texts[1].data);
    assert_string_equal(texts[0].data, texts[2].data);
    for (int i = 0; i < 3; i++) {
        apmw_buf_free(&texts[i]);
    }
}

static void best_of_all(void **state)
{
    (void)state;
    for_each_seed(seed, 3) {
        apmw_study *race = run(2, false, false, seed), *all = run(2, true, false, seed);
        size_t n_best, n_all;
        const apmw_study_row *best = apmw_study_rows(race, &n_best), *rows = apmw_study_rows(all, &n_all);
        assert_int_equal(n_best, 3);
        assert_int_equal(n_all, 3 * LAYOUTS);
        for (size_t i = 0; i < n_best; i++) {
            int marked = 0;
            for (size_t k = 0; k < n_all; k++) {
                if (rows[k].tier == best[i].tier) {
                    assert_true(rows[k].capacity.agents <= best[i].capacity.agents);
                    marked += rows[k].best;
                }
            }
            assert_int_equal(marked, 1);
            assert_true(best[i].best);
        }
        /* The layout of the least time a sequence carries most; nothing decodes 200 tokens in a second at 10 ms a step. */
        assert_string_equal(best[0].deployment->choice.name, "b");
        assert_int_equal(best[2].capacity.agents, 0);
        assert_true(strlen(best[2].reason) > 0);
        assert_true(isnan(best[2].watts_per_accelerator));
        assert_true(best[0].capacity.agents > best[1].capacity.agents);
        apmw_study_free(race);
        apmw_study_free(all);
    }
}

/* Of a layout search the rows are those of all that no other dominates, the best first. */
static void search_prints_the_frontier(void **state)
{
    (void)state;
    for_each_seed(seed, 3) {
        search_keep = LAYOUTS;
        apmw_study *search = run(2, false, false, seed);
        search_keep = 0;
        apmw_study *all = run(2, true, false, seed);
        size_t n_kept, n_all, kept = 0;
        const apmw_study_row *front = apmw_study_rows(search, &n_kept), *rows = apmw_study_rows(all, &n_all);
        for (int tier = 1; tier <= 2; tier++) {
            const apmw_study_row *before = NULL;
            for (size_t i = 0; i < n_all; i++) {
                bool dominated = false;
                for (size_t k = 0; k < n_all; k++) {
                    const apmw_study_row *a = &rows[k], *b = &rows[i];
                    const bool as_good = a->capacity.agents >= b->capacity.agents && a->agents_per_mw >= b->agents_per_mw;
                    const bool differs = a->capacity.agents > b->capacity.agents || a->agents_per_mw > b->agents_per_mw;
                    dominated = dominated || (a->tier == tier && as_good && differs);
                }
                if (rows[i].tier == tier) {
                    assert_int_equal(rows[i].frontier, !dominated);
                    kept += !dominated;
                }
            }
            for (size_t i = 0; i < n_kept; i++) {
                if (front[i].tier != tier) {
                    continue;
                }
                assert_true(front[i].frontier);
                assert_int_equal(front[i].best, before == NULL);
                assert_true(before == NULL || (before->capacity.agents > front[i].capacity.agents &&
                                               before->agents_per_mw < front[i].agents_per_mw));
                before = &front[i];
            }
        }
        assert_string_equal(front[0].deployment->choice.name, "b");
        assert_string_equal(front[1].deployment->choice.name, "d");
        assert_int_equal(n_kept, kept + 1); /* and one row of the tier that nothing passes */
        apmw_study_free(search);
        apmw_study_free(all);
    }
}

/* Where nobody knows the watts, agents alone decide, so of each tier the best is left, or what carries as many. */
static void frontier_without_watts(void **state)
{
    (void)state;
    search_keep = LAYOUTS;
    no_watts = true;
    apmw_study *study = run(1, false, false, 7);
    search_keep = 0;
    no_watts = false;
    size_t n;
    const apmw_study_row *rows = apmw_study_rows(study, &n);
    assert_true(isnan(rows[0].agents_per_mw));
    for (size_t i = 0; i < n; i++) { /* more than one only where they carry the same */
        assert_true(i == 0 || rows[i].tier != rows[i - 1].tier || rows[i].capacity.agents == rows[i - 1].capacity.agents);
    }
    assert_string_equal(rows[0].deployment->choice.name, "b");
    apmw_study_free(study);
}

static void intervals_contain_the_point(void **state)
{
    (void)state;
    apmw_study *study = run(2, false, true, 7);
    size_t n;
    const apmw_study_row *rows = apmw_study_rows(study, &n);
    for (size_t i = 0; i < n; i++) {
        const apmw_study_row *r = &rows[i];
        if (r->capacity.agents == 0) {
            assert_int_equal(r->agents90.n_parts, 0);
            continue;
        }
        assert_true(r->agents90.lo <= (double)r->capacity.agents && (double)r->capacity.agents <= r->agents90.hi);
        assert_true(r->mw90.lo <= r->agents_per_mw && r->agents_per_mw <= r->mw90.hi);
        assert_string_equal(r->agents90.parts[0].name, "step time");
        /* Steps 28 % slower must cost agents, 22 % faster must bring some. */
        assert_true(r->agents90.parts[0].lower > 0.1 && r->agents90.parts[0].upper > 0.1);
        /* Agents per MW carries the power besides. */
        assert_int_equal(r->mw90.n_parts, r->agents90.n_parts + 1);
        assert_true(r->mw90.hi / r->agents_per_mw > r->agents90.hi / (double)r->capacity.agents);
        /* Power cannot exceed the limit, so agents per MW cannot fall below agents at the limit for this reason. */
        const apmw_interval_part *power = &r->mw90.parts[r->mw90.n_parts - 1];
        assert_true(power->lower <= log(700 / r->watts_per_accelerator) + 1e-12);
    }
    apmw_study_free(study);
}

/* A pool that may hold one conversation only is a cause of its own, downwards only. */
static void windows_widen_downwards(void **state)
{
    (void)state;
    double low[2];
    for (int small = 0; small < 2; small++) {
        all_windows_blocks = small ? 60 : 0;
        apmw_study *study = run(1, false, true, 7);
        size_t n;
        const apmw_study_row *r = apmw_study_rows(study, &n);
        bool found = false;
        for (int k = 0; k < r[0].agents90.n_parts; k++) {
            if (strcmp(r[0].agents90.parts[k].name, "windows") == 0) {
                found = true;
                assert_true(r[0].agents90.parts[k].lower > 0.2);
                assert_true(r[0].agents90.parts[k].upper <= 0.0);
            }
        }
        assert_int_equal(found, small);
        low[small] = r[0].agents90.lo;
        apmw_study_free(study);
    }
    all_windows_blocks = 0;
    assert_true(low[1] < low[0]);
}

/* Agents at which the loosest tier is just met, by a search to one agent with all steps scaled. */
static double searched(double time_scale, uint64_t seed)
{
    apmw_deployment d = case_deployment("b", PER_SEQ[1], 1);
    apmw_trace trace = {0};
    case_trace(&trace);
    const apmw_phase_rules rules = case_rules();
    const apmw_tier tier = case_tier(1, 30, 5);
    const apmw_trial_config config = {.deployment = &d, .trace = &trace, .rules = &rules, .tiers = &tier, .n_tiers = 1,
                                      .seed = seed, .share_prefix = false, .delay_scale = 1.0, .time_scale = time_scale,
                                      .acceptance_scale = 1.0, .max_context = d.engine.max_model_len, .give_up_tier = -1};
    apmw_trial_book *book = apmw_trial_book_create(&config);
    apmw_capacity c;
    apmw_error err = {0};
    assert_ok(apmw_capacity_search(book, 0, 0, 0.0, 1.0, &c, &err), &err);
    apmw_trial_book_free(book);
    apmw_trace_free(&trace);
    apmw_deployment_free(&d);
    return (double)c.agents;
}

/* Secants find what a search of each variation finds. */
static void intervals_agree_with_searches(void **state)
{
    (void)state;
    apmw_study *study = run(2, false, true, 11);
    size_t n;
    const apmw_study_row *row = apmw_study_rows(study, &n);
    assert_string_equal(row->deployment->choice.name, "b");
    const double scale = exp(1.6448536269514722 * row->deployment->overhead.ln_sd_time);
    const double point = searched(1.0, 11), slow = searched(scale, 11), fast = searched(1.0 / scale, 11);
    assert_near((double)row->capacity.agents, point, 0.0);
    const apmw_interval_part *steps = &row->agents90.parts[0];
    /* The search counts whole agents at both ends, and the secants stop within 2 %. */
    assert_near(steps->lower, log(point / slow), 1.0 / slow + 1.0 / point + 0.02);
    assert_near(steps->upper, log(fast / point), 1.0 / fast + 1.0 / point + 0.02);
    apmw_study_free(study);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_change_nothing), cmocka_unit_test(best_of_all), cmocka_unit_test(search_prints_the_frontier), cmocka_unit_test(frontier_without_watts),
                                       cmocka_unit_test(intervals_contain_the_point),
                                       cmocka_unit_test(windows_widen_downwards),
                                       cmocka_unit_test(intervals_agree_with_searches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
