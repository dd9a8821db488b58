/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <string.h>

#include "apmw/rng.h"
#include "apmw/text.h"
#include "test_support.h"

static void errors_wrap_and_stay_whole(void **state)
{
    (void)state;
    apmw_error err = {0};
    assert_int_equal(apmw_error_set(&err, APMW_E_DATA, "row %d", 7), APMW_E_DATA);
    assert_int_equal(apmw_error_wrap(&err, "file %s", "a.csv"), APMW_E_DATA);
    assert_string_equal(err.message, "file a.csv: row 7");
    /* The old message may be an argument of the new one. */
    apmw_error_set(&err, APMW_E_SCENARIO, "[%s]", err.message);
    assert_string_equal(err.message, "[file a.csv: row 7]");
    assert_int_equal(err.status, APMW_E_SCENARIO);
    assert_int_equal(apmw_error_set(NULL, APMW_E_IO, "dropped"), APMW_E_IO);
    assert_int_not_equal(apmw_error_wrap(NULL, "dropped"), APMW_OK);
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    apmw_error_set(&err, APMW_E_DATA, "%s", longer);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_string_equal(err.message + sizeof err.message - 5, "x...");
    assert_string_equal(apmw_status_name(APMW_E_NOINPUT), "no input");
    assert_string_equal(apmw_status_name((apmw_status)12), "unknown");
}

static void near_names(void **state)
{
    (void)state;
    static const char *const names[] = {"hgx-h200",     "hgx-b200",        "mi355x-8",
                                        "gpt-oss-120b", "deepseek-v4-pro", "tp"};
    enum { N = sizeof names / sizeof names[0] };
    assert_string_equal(apmw_near("hgx-h20", names, N), "hgx-h200");
    assert_string_equal(apmw_near("HGX-B200", names, N), "hgx-b200");
    assert_string_equal(apmw_near("deepseek-v4pro", names, N), "deepseek-v4-pro");
    assert_string_equal(apmw_near("deepsek-pro", names, N) ? "near" : "none",
                        "none"); /* 4 edits of 11 letters */
    assert_string_equal(apmw_near("gpt-oss-20b", names, N), "gpt-oss-120b");
    assert_string_equal(apmw_near("tpp", names, N), "tp");
    assert_null(apmw_near("qx", names, N)); /* shares nothing with "tp" */
    assert_null(apmw_near("platform", names, N));
    assert_null(apmw_near("", names, N));
    assert_null(apmw_near("tp", names, 0));
    /* The first of equals, so that messages do not depend on anything else. */
    assert_string_equal(apmw_near("hgx-x200", names, N), "hgx-h200");
}

static void copies(void **state)
{
    (void)state;
    char out[4];
    assert_true(apmw_copy(out, sizeof out, "abc"));
    assert_string_equal(out, "abc");
    assert_false(apmw_copy(out, sizeof out, "abcd"));
    assert_string_equal(out, "abc");
    assert_false(apmw_copy(out, 0, "a"));
}

/* numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6], q), numpy 2.4.6. */
static void quantiles_are_those_of_numpy(void **state)
{
    (void)state;
    static const double q[] = {0, .05, .25, .5, .75, .95, .99, 1};
    static const double expected[] = {1.0, 1.0, 1.75, 3.5, 5.25, 7.949999999999998, 8.79, 9.0};
    for (size_t i = 0; i < sizeof q / sizeof q[0]; i++) {
        double values[] = {3, 1, 4, 1, 5, 9, 2, 6};
        assert_same_double(apmw_quantile(values, 8, q[i]), expected[i]);
        assert_same_double(values[7], 9); /* sorted in place */
        double others[] = {3, 1, 4, 1, 5, 9, 2, 6};
        assert_same_double(apmw_quantile_unsorted(others, 8, q[i]), expected[i]);
    }
    double one[] = {2.5}, unknown[] = {1, (double)NAN, 2}, inf[] = {1, INFINITY, INFINITY};
    assert_same_double(apmw_quantile(one, 1, 0.3), 2.5);
    assert_true(isnan(apmw_quantile(one, 0, 0.3)));
    assert_true(isnan(apmw_quantile(unknown, 3, 0.5)));
    assert_same_double(apmw_quantile(inf, 3, 0.9), INFINITY);
    assert_same_double(apmw_quantile_unsorted(one, 1, 0.3), 2.5);
    assert_true(isnan(apmw_quantile_unsorted(one, 0, 0.3)));
    assert_true(isnan(apmw_quantile_unsorted(unknown, 3, 0.5)));
    assert_same_double(apmw_quantile_unsorted(inf, 3, 0.9), INFINITY);
}

static void quantiles_are_monotone_and_inside(void **state)
{
    (void)state;
    for_each_seed(seed, 300)
    {
        apmw_rng rng = apmw_rng_make(seed, "quantile", 0, 0);
        double values[40];
        size_t n = 1 + apmw_rng_below(&rng, 40);
        for (size_t i = 0; i < n; i++)
            values[i] = floor(10 * apmw_rng_normal(&rng));
        /* Finding one order statistic and sorting all agree, with ties and in any order. */
        double copy[40], sorted[40];
        memcpy(sorted, values, sizeof values);
        for (int k = 0; k <= 20; k++) {
            memcpy(copy, values, sizeof values);
            assert_same_double(apmw_quantile_unsorted(copy, n, k / 20.0), apmw_quantile(sorted, n, k / 20.0));
        }
        double before = apmw_quantile(values, n, 0);
        assert_same_double(before, values[0]);
        for (int k = 1; k <= 50; k++) {
            double now = apmw_quantile_sorted(values, n, k / 50.0);
            assert_true(now >= before && now <= values[n - 1]);
            before = now;
        }
        assert_same_double(before, values[n - 1]);
    }
}

static apmw_table *sample(void)
{
    static const char *const names[] = {"name", "watts", "n", "note"};
    apmw_table *table = apmw_table_create(4, names);
    assert_non_null(table);
    apmw_table_text(table, "h\xc3\xa9");
    apmw_table_number(table, 1234.5678, 3);
    apmw_table_int(table, -12);
    apmw_table_text(table, "a,b");
    apmw_table_text(table, "longer");
    apmw_table_number(table, (double)NAN, 3);
    apmw_table_int(table, 3);
    apmw_table_text(table, NULL);
    apmw_table_text(table, "x");
    apmw_table_number(table, 0.099996,
                      3); /* rounds up to the next power of ten; the last cells are missing */
    return table;
}

static void tables(void **state)
{
    (void)state;
    apmw_table *table = sample();
    apmw_buf out = {0};
    apmw_table_render(table, APMW_FORMAT_TABLE, &out);
    assert_string_equal(out.data, "name    watts    n  note\n"
                                  "h\xc3\xa9       1235  -12  a,b\n"
                                  "longer      -    3  -\n"
                                  "x       0.100    -  -\n");
    apmw_buf_free(&out);
    apmw_table_render(table, APMW_FORMAT_CSV, &out);
    assert_string_equal(out.data,
                        "name,watts,n,note\nh\xc3\xa9,1234.5678,-12,\"a,b\"\nlonger,,3,\nx,0.099996,,\n");
    apmw_buf_free(&out);
    apmw_table_render(table, APMW_FORMAT_JSON, &out);
    assert_contains(out.data, "[\n {\n  \"name\": \"h\xc3\xa9\",\n  \"watts\": 1234.5678,\n  \"n\": -12,\n");
    assert_contains(out.data, "  \"watts\": null,\n  \"n\": 3,\n  \"note\": null\n }");
    apmw_buf_free(&out);
    apmw_table_free(table);
}

static void number_cells(void **state)
{
    (void)state;
    static const struct {
        double value;
        int digits;
        const char *text;
    } cases[] = {{0, 3, "0"},           {9.996, 3, "10.0"},    {9.994, 3, "9.99"}, {-0.0123456, 3, "-0.0123"},
                 {12345, 3, "12345"},   {1e-7, 3, "1.00e-07"}, {0.5, 1, "0.5"},    {2e16, 2, "2.0e+16"},
                 {123.456, 5, "123.46"}};
    static const char *const names[] = {"x"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apmw_table *table = apmw_table_create(1, names);
        apmw_table_number(table, cases[i].value, cases[i].digits);
        apmw_buf out = {0};
        apmw_table_render(table, APMW_FORMAT_TABLE, &out);
        char *cell = strchr(out.data, '\n') + 1; /* below the name, right-aligned, one line */
        cell[strcspn(cell, "\n")] = '\0';
        assert_string_equal(cell + strspn(cell, " "), cases[i].text);
        apmw_buf_free(&out);
        apmw_table_free(table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_wrap_and_stay_whole),
        cmocka_unit_test(near_names),
        cmocka_unit_test(copies),
        cmocka_unit_test(quantiles_are_those_of_numpy),
        cmocka_unit_test(quantiles_are_monotone_and_inside),
        cmocka_unit_test(tables),
        cmocka_unit_test(number_cells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
