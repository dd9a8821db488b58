/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/csv.h"
#include "apmw/rng.h"
#include "apmw/text.h"
#include "test_support.h"

static apmw_csv *parse(const char *text)
{
    apmw_csv *csv = NULL;
    apmw_error err = {0};
    assert_ok(apmw_csv_parse("x.csv", text, strlen(text), &csv, &err), &err);
    return csv;
}

static void refuse(const char *text, const char *message)
{
    apmw_csv *csv = NULL;
    apmw_error err = {0};
    assert_error(apmw_csv_parse("x.csv", text, strlen(text), &csv, &err), APMW_E_DATA, &err, message);
    assert_null(csv);
}

static void cells(void **state)
{
    (void)state;
    /* Byte order mark, quotes, commas and line breaks in cells, CRLF, a blank line, no line break at the end.
     */
    apmw_csv *csv =
        parse("\xef\xbb\xbfname,\"n,m\",x\r\n\"a \"\"b\"\"\",1,\r\n\n\"two\nlines\",,2.5e3\n\"\",-7,3");
    assert_int_equal(apmw_csv_cols(csv), 3);
    assert_int_equal(apmw_csv_rows(csv), 3);
    assert_string_equal(apmw_csv_name(csv, 0), "name");
    assert_string_equal(apmw_csv_name(csv, 1), "n,m");
    assert_int_equal(apmw_csv_col(csv, "x"), 2);
    assert_int_equal(apmw_csv_col(csv, "y"), -1);
    assert_string_equal(apmw_csv_cell(csv, 0, 0), "a \"b\"");
    assert_string_equal(apmw_csv_cell(csv, 0, 2), "");
    assert_string_equal(apmw_csv_cell(csv, 1, 0), "two\nlines");
    assert_string_equal(apmw_csv_cell(csv, 2, 0), "");
    assert_string_equal(apmw_csv_cell(csv, 2, -1), "");
    apmw_error err = {0};
    double x;
    int64_t n;
    assert_ok(apmw_csv_double(csv, 1, 2, &x, &err), &err);
    assert_same_double(x, 2500);
    assert_ok(apmw_csv_double(csv, 0, 2, &x, &err), &err);
    assert_true(isnan(x));
    assert_ok(apmw_csv_double(csv, 0, -1, &x, &err), &err);
    assert_true(isnan(x));
    assert_ok(apmw_csv_int(csv, 2, 1, -1, &n, &err), &err);
    assert_int_equal(n, -7);
    assert_ok(apmw_csv_int(csv, 1, 1, -1, &n, &err), &err);
    assert_int_equal(n, -1);
    apmw_csv_free(csv);
}

static void errors_name_file_and_line(void **state)
{
    (void)state;
    refuse("", "x.csv:1: column names");
    refuse("\n1,2\n", "x.csv:1: column names");
    refuse("a,b\n1,2\n1\n", "x.csv:3: 1 cells, 2 columns");
    refuse("a,b\n\"x\ny\",2\n\n1,2,3\n", "x.csv:5: 3 cells, 2 columns");
    refuse("a,b\n1,\"2\n3", "x.csv:2: a quoted cell does not end");
    refuse("a,b\n1,2\"\n", "x.csv:2: a quote inside");
    refuse("a,b\n1,\"2\"3\n", "x.csv:2: a quote inside");
    refuse("a,b,a\n", "column \"a\" is there twice");
    apmw_csv *csv = NULL;
    apmw_error err = {0};
    assert_error(apmw_csv_parse("x.csv", "a\n1\0", 5, &csv, &err), APMW_E_DATA, &err, "NUL byte at offset 3");
    assert_error(apmw_csv_load("/nonexistent.csv", &csv, &err), APMW_E_NOINPUT, &err, "/nonexistent.csv: ");
    csv = parse("tpot_ms,ttft_ms,n\n\"1\n\",x,1.5\n12abc,0x10,99999999999999999999\nnan,inf,4096.0\n");
    int col = 9;
    double x;
    int64_t n;
    assert_error(apmw_csv_need(csv, "tpot_m", &col, &err), APMW_E_DATA, &err,
                 "x.csv: column \"tpot_m\" is missing (there is \"tpot_ms\")");
    assert_error(apmw_csv_need(csv, "power", &col, &err), APMW_E_DATA, &err, "column \"power\" is missing");
    assert_ok(apmw_csv_need(csv, "ttft_ms", &col, &err), &err);
    assert_int_equal(col, 1);
    assert_error(apmw_csv_double(csv, 0, 1, &x, &err), APMW_E_DATA, &err,
                 "x.csv:2: ttft_ms: \"x\" is not a number");
    /* The row before spans two lines. */
    assert_error(apmw_csv_double(csv, 1, 0, &x, &err), APMW_E_DATA, &err, "x.csv:4: tpot_ms: \"12abc\"");
    assert_error(apmw_csv_double(csv, 1, 1, &x, &err), APMW_E_DATA, &err, "\"0x10\" is not a number");
    assert_error(apmw_csv_double(csv, 2, 0, &x, &err), APMW_E_DATA, &err, "\"nan\"");
    assert_error(apmw_csv_double(csv, 2, 1, &x, &err), APMW_E_DATA, &err, "\"inf\"");
    assert_error(apmw_csv_int(csv, 0, 2, 0, &n, &err), APMW_E_DATA, &err, "\"1.5\" is not an integer");
    assert_error(apmw_csv_int(csv, 1, 2, 0, &n, &err), APMW_E_DATA, &err, "is not an integer");
    assert_ok(apmw_csv_int(csv, 2, 2, 0, &n, &err), &err);
    assert_int_equal(n, 4096);
    apmw_csv_free(csv);
}

/* The fast way of reading numbers must give what strtod gives, which rounds correctly. */
static void numbers_are_correctly_rounded(void **state)
{
    (void)state;
    for_each_seed(seed, 20000)
    {
        apmw_rng rng = apmw_rng_make(seed, "csv numbers", 0, 0);
        char text[64], line[96];
        unsigned long long mantissa = apmw_rng_u64(&rng) >> apmw_rng_below(&rng, 60);
        switch (seed % 3) {
        case 0:
            snprintf(text, sizeof text, "%s%llu.%04u", seed % 2 ? "-" : "", mantissa >> 20,
                     (unsigned)apmw_rng_below(&rng, 10000));
            break;
        case 1:
            snprintf(text, sizeof text, "%llue%d", mantissa, (int)apmw_rng_below(&rng, 60) - 30);
            break;
        default:
            snprintf(text, sizeof text, "+0.000%llu", mantissa);
            break;
        }
        snprintf(line, sizeof line, "x\n%s\n", text);
        apmw_csv *csv = parse(line);
        apmw_error err = {0};
        double value;
        assert_ok(apmw_csv_double(csv, 0, 0, &value, &err), &err);
        assert_same_double(value, strtod(text, NULL));
        apmw_csv_free(csv);
    }
}

/* What the tables write, the reader reads: random cells with every special character. */
static void tables_read_back(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a", ",", "\"", "\n", " ", "\xc3\xa9", "0", ""};
    for_each_seed(seed, 300)
    {
        apmw_rng rng = apmw_rng_make(seed, "csv cells", 0, 0);
        static const char *const names[] = {"text", "num,ber", "int\"eger"};
        char texts[8][64];
        double numbers[8];
        size_t rows = 1 + apmw_rng_below(&rng, 8);
        apmw_table *table = apmw_table_create(3, names);
        for (size_t i = 0; i < rows; i++) {
            texts[i][0] = '\0';
            for (uint64_t k = apmw_rng_below(&rng, 10); k > 0; k--)
                strcat(texts[i], pieces[apmw_rng_below(&rng, 8)]);
            numbers[i] = seed % 5 == 0 ? (double)NAN : apmw_rng_normal(&rng);
            apmw_table_text(table, texts[i]);
            apmw_table_number(table, numbers[i], 3);
            apmw_table_int(table, (long long)i - 3);
        }
        apmw_buf out = {0};
        apmw_table_render(table, APMW_FORMAT_CSV, &out);
        apmw_csv *csv = parse(out.data);
        assert_int_equal(apmw_csv_rows(csv), rows);
        for (size_t i = 0; i < rows; i++) {
            apmw_error err = {0};
            double number;
            int64_t integer;
            assert_string_equal(apmw_csv_cell(csv, i, 0), texts[i]);
            assert_ok(apmw_csv_double(csv, i, 1, &number, &err), &err);
            assert_same_double(number, numbers[i]);
            assert_ok(apmw_csv_int(csv, i, 2, 99, &integer, &err), &err);
            assert_int_equal(integer, (int64_t)i - 3);
        }
        apmw_csv_free(csv);
        apmw_table_free(table);
        apmw_buf_free(&out);
    }
}

static void damaged_text(void **state)
{
    (void)state;
    static const char text[] = "id,platform,\"tp,ot\"\r\n\"a\"\"\",h200,1.5\r\n\"b\nc\",,2e1\n";
    size_t n = strlen(text);
    apmw_csv *csv;
    apmw_error err;
    char copy[sizeof text];
    int refused = 0;
    for (size_t cut = 0; cut <= n; cut++) {
        apmw_status status = apmw_csv_parse("cut", text, cut, &csv, &err);
        assert_true((status == APMW_OK) == (csv != NULL));
        refused += status != APMW_OK;
        apmw_csv_free(csv);
    }
    for (size_t at = 0; at < n; at++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, text, sizeof text);
            copy[at] = (char)(copy[at] ^ (1 << bit));
            apmw_status status = apmw_csv_parse("flip", copy, n, &csv, &err);
            assert_true(status == APMW_OK || status == APMW_E_DATA);
            for (size_t row = 0; status == APMW_OK && row < apmw_csv_rows(csv); row++)
                for (int col = 0; col < (int)apmw_csv_cols(csv); col++)
                    refused += strlen(apmw_csv_cell(csv, row, col)) > n;
            apmw_csv_free(csv);
        }
    }
    assert_true(refused > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(numbers_are_correctly_rounded),
        cmocka_unit_test(tables_read_back),
        cmocka_unit_test(damaged_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
