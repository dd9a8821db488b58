/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/json.h"
#include "apmw/rng.h"
#include "test_support.h"

static apmw_json *parse(const char *text)
{
    apmw_json *doc = NULL;
    apmw_error err = {0};
    assert_ok(apmw_json_parse("x.json", text, strlen(text), &doc, &err), &err);
    assert_non_null(doc);
    return doc;
}

static void refuse(const char *text, const char *message)
{
    apmw_json *doc = NULL;
    apmw_error err = {0};
    assert_error(apmw_json_parse("x.json", text, strlen(text), &doc, &err), APMW_E_DATA, &err, message);
    assert_null(doc);
}

static const char scenario[] =
    "{\"name\": \"h200 \\u00e9\", \"replicas\": [{\"tp\": 8, \"ratio\": 0.1, \"on\": true},\n"
    " {\"tp\": \"8\", \"none\": null, \"a/b~c\": [1.5]}], \"big\": 9007199254740993, "
    "\"huge\": 1e999, \"_note\": 1, \"//x\": 2}";

static void reads_values(void **state)
{
    (void)state;
    apmw_json *doc = parse(scenario);
    apmw_error err = {0};
    apmw_json_cur root = apmw_json_root(doc), replicas, first;
    const char *name;
    assert_ok(apmw_json_get_string(&root, "name", &name, &err), &err);
    assert_string_equal(name, "h200 \xc3\xa9");
    assert_ok(apmw_json_child(&root, "replicas", &replicas, &err), &err);
    assert_int_equal(apmw_json_length(&replicas), 2);
    assert_ok(apmw_json_at(&replicas, 0, &first, &err), &err);
    int64_t tp = 0;
    double ratio = 0;
    bool on = false;
    assert_ok(apmw_json_get_int(&first, "tp", 1, 8, &tp, &err), &err);
    assert_ok(apmw_json_get_double(&first, "ratio", 0, 1, &ratio, &err), &err);
    assert_ok(apmw_json_get_bool(&first, "on", &on, &err), &err);
    assert_int_equal(tp, 8);
    assert_same_double(ratio, 0.1);
    assert_true(on);
    const char *key;
    apmw_json_cur member;
    assert_ok(apmw_json_member(&first, 1, &key, &member, &err), &err);
    assert_string_equal(key, "ratio");
    assert_int_equal(apmw_json_typeof(&member), APMW_JSON_NUMBER);
    apmw_json_free(doc);
}

static void optional_values_keep_defaults(void **state)
{
    (void)state;
    apmw_json *doc = parse(scenario);
    apmw_error err = {0};
    apmw_json_cur root = apmw_json_root(doc), replicas, second;
    assert_ok(apmw_json_child(&root, "replicas", &replicas, &err), &err);
    assert_ok(apmw_json_at(&replicas, 1, &second, &err), &err);
    int64_t integer = 5;
    double number = 6;
    bool flag = true;
    const char *text = "kept";
    assert_ok(apmw_json_opt_int(&second, "none", 0, 9, &integer, &err), &err);
    assert_ok(apmw_json_opt_double(&second, "absent", 0, 9, &number, &err), &err);
    assert_ok(apmw_json_opt_bool(&second, "absent", &flag, &err), &err);
    assert_ok(apmw_json_opt_string(&second, "none", &text, &err), &err);
    assert_int_equal(integer, 5);
    assert_same_double(number, 6);
    assert_true(flag);
    assert_string_equal(text, "kept");
    assert_false(apmw_json_has(&second, "none"));
    assert_true(apmw_json_has(&second, "tp"));
    /* Present and wrong is an error all the same. */
    assert_error(apmw_json_opt_int(&second, "tp", 0, 9, &integer, &err), APMW_E_DATA, &err,
                 "x.json: /replicas/1/tp: expected a number, found a string");
    assert_error(apmw_json_opt_int(&replicas, "tp", 0, 9, &integer, &err), APMW_E_DATA, &err,
                 "x.json: /replicas: expected an object, found an array");
    apmw_json_free(doc);
}

static void errors_name_the_place(void **state)
{
    (void)state;
    apmw_json *doc = parse(scenario);
    apmw_error err = {0};
    apmw_json_cur root = apmw_json_root(doc), replicas, second, odd, element, none;
    int64_t integer = 77;
    double number;
    assert_ok(apmw_json_child(&root, "replicas", &replicas, &err), &err);
    assert_ok(apmw_json_at(&replicas, 1, &second, &err), &err);
    assert_error(apmw_json_get_int(&root, "replica", 0, 1, &integer, &err), APMW_E_DATA, &err,
                 "x.json: /replica: missing (there is \"replicas\")");
    assert_error(apmw_json_get_int(&root, "quantity", 0, 1, &integer, &err), APMW_E_DATA, &err,
                 "/quantity: missing");
    assert_null(strstr(err.message, "there is"));
    assert_error(apmw_json_at(&replicas, 2, &none, &err), APMW_E_DATA, &err,
                 "/replicas: no element 2, the array has 2");
    assert_ok(apmw_json_child(&second, "a/b~c", &odd, &err), &err);
    assert_ok(apmw_json_at(&odd, 0, &element, &err), &err);
    const char *text;
    assert_error(apmw_json_as_string(&element, &text, &err), APMW_E_DATA, &err,
                 "/replicas/1/a~1b~0c/0: expected a string, found a number");
    assert_error(apmw_json_get_int(&odd, "k", 0, 1, &integer, &err), APMW_E_DATA, &err, "expected an object");
    assert_error(apmw_json_get_int(&root, "big", 0, INT64_MAX, &integer, &err), APMW_E_DATA, &err,
                 "/big: the integer is too large");
    assert_error(apmw_json_get_double(&root, "huge", 0, INFINITY, &number, &err), APMW_E_DATA, &err,
                 "too large");
    assert_int_equal(integer, 77);
    apmw_json_free(doc);
}

static void ranges_are_checked(void **state)
{
    (void)state;
    apmw_json *doc = parse("{\"n\": 12, \"x\": 0.5, \"half\": 1.5}");
    apmw_error err = {0};
    apmw_json_cur root = apmw_json_root(doc);
    int64_t n = 0;
    double x = 0;
    assert_ok(apmw_json_get_int(&root, "n", 12, 12, &n, &err), &err);
    assert_error(apmw_json_get_int(&root, "n", 1, 11, &n, &err), APMW_E_DATA, &err,
                 "12 is not between 1 and 11");
    assert_error(apmw_json_get_int(&root, "n", 13, INT64_MAX, &n, &err), APMW_E_DATA, &err, "at least 13");
    assert_error(apmw_json_get_int(&root, "half", 0, 9, &n, &err), APMW_E_DATA, &err,
                 "expected an integer, found 1.5");
    assert_error(apmw_json_get_double(&root, "x", 0.6, 1, &x, &err), APMW_E_DATA, &err,
                 "0.5 is not between 0.6 and 1");
    assert_error(apmw_json_get_double(&root, "x", 0.6, INFINITY, &x, &err), APMW_E_DATA, &err,
                 "at least 0.6");
    assert_error(apmw_json_get_double(&root, "x", -INFINITY, 0.4, &x, &err), APMW_E_DATA, &err,
                 "at most 0.4");
    apmw_json_free(doc);
}

static void unknown_keys(void **state)
{
    (void)state;
    apmw_json *doc = parse("{\"a\": {\"platfrom\": 1, \"_note\": 2, \"//\": 3}}");
    apmw_error err = {0};
    apmw_json_cur root = apmw_json_root(doc), a;
    static const char *const known[] = {"model", "platform", NULL}, *const other[] = {"model", "tier", NULL},
                             *const all[] = {"platfrom", NULL};
    assert_ok(apmw_json_child(&root, "a", &a, &err), &err);
    assert_error(apmw_json_only_keys(&a, known, &err), APMW_E_DATA, &err,
                 "x.json: /a/platfrom: unknown key (did you mean \"platform\"?)");
    assert_error(apmw_json_only_keys(&a, other, &err), APMW_E_DATA, &err, "/a/platfrom: unknown key");
    assert_null(strstr(err.message, "did you mean"));
    assert_ok(apmw_json_only_keys(&a, all, &err), &err);
    apmw_json_free(doc);
}

static void malformed_text(void **state)
{
    (void)state;
    refuse("", "empty");
    refuse("   ", "x.json");
    refuse("{\"a\": 1,}", "line 1");
    refuse("{\n\"a\": tru}", "line 2, column 6");
    refuse("{\"a\": 1} {}", "x.json: line 1, column 10");
    refuse("{\"a\": [1, 2", "ends too early");
    refuse("{\"a\": 1, \"b\": 2, \"a\": 3}", "x.json: /: duplicate key \"a\"");
    refuse("{\"o\": [{\"a\": 1, \"a\": 2}]}", "x.json: /o/0: duplicate key \"a\"");
    apmw_json *doc = NULL;
    apmw_error err = {0};
    assert_error(apmw_json_parse("x.json", "{}\0{}", 5, &doc, &err), APMW_E_DATA, &err,
                 "NUL byte at offset 2");
    assert_error(apmw_json_load("/nonexistent/x.json", &doc, &err), APMW_E_NOINPUT, &err,
                 "/nonexistent/x.json: ");
    /* cJSON bounds the nesting, so that a hostile file cannot exhaust the stack. */
    static char deep[40000];
    memset(deep, '[', sizeof deep);
    assert_int_equal(apmw_json_parse("deep", deep, sizeof deep, &doc, &err), APMW_E_DATA);
    /* Without an error object the status is still there. */
    assert_int_equal(apmw_json_parse("x.json", "[", 1, &doc, NULL), APMW_E_DATA);
}

/* Whatever the damage, the parser answers: a document or an error, never a crash (run with sanitizers). */
static void damaged_text(void **state)
{
    (void)state;
    size_t n = strlen(scenario);
    apmw_json *doc;
    apmw_error err;
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(apmw_json_parse("cut", scenario, cut, &doc, &err), APMW_E_DATA);
        assert_null(doc);
    }
    char copy[sizeof scenario];
    int accepted = 0;
    for (size_t at = 0; at < n; at++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, scenario, sizeof scenario);
            copy[at] = (char)(copy[at] ^ (1 << bit));
            apmw_status status = apmw_json_parse("flip", copy, n, &doc, &err);
            assert_true(status == APMW_OK || status == APMW_E_DATA);
            assert_true((status == APMW_OK) == (doc != NULL));
            accepted += status == APMW_OK;
            apmw_json_free(doc);
        }
    }
    assert_true(accepted > 0 && accepted < (int)n * 8);
}

static double bits_to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void doubles_read_back(void **state)
{
    (void)state;
    for_each_seed(seed, 20000)
    {
        apmw_rng rng = apmw_rng_make(seed, "doubles", 0, 0);
        double value = bits_to_double(apmw_rng_u64(&rng));
        if (seed % 4 == 0)
            value = ldexp(1, (int)apmw_rng_below(&rng, 2000) - 1000); /* powers of two: uneven neighbours */
        if (seed % 4 == 1)
            value = (double)apmw_rng_below(&rng, 1000000) / 1000;
        if (!isfinite(value))
            continue;
        char text[32], shorter[32];
        apmw_double_text(value, text);
        assert_same_double(strtod(text, NULL), value);
        /* No decimal nearest to the value with fewer digits reads back. */
        int digits = 0;
        for (const char *p = text; *p && *p != 'e'; p++)
            digits += *p >= '0' && *p <= '9' && (digits > 0 || *p != '0');
        for (int d = 1; d < digits; d++) {
            snprintf(shorter, sizeof shorter, "%.*e", d - 1, value);
            if (strtod(shorter, NULL) == value && fabs(value) < 1e15 && value == trunc(value))
                continue; /* 1200 is written "1200", not "1.2e+03" */
            if (strtod(shorter, NULL) == value)
                fail_msg("%s could be %s", text, shorter);
        }
    }
}

static void double_text_known(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {-0.0, "-0"},
                 {0, "0"},
                 {1200, "1200"},
                 {1e22, "1e+22"},
                 {1.0 / 3, "0.3333333333333333"},
                 {5e-324, "5e-324"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"},
                 {0x1p-44, "5.684341886080802e-14"},
                 {123456789012345678.0, "1.2345678901234568e+17"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apmw_double_text(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void writes(void **state)
{
    (void)state;
    apmw_buf out = {0};
    apmw_json_writer w = apmw_json_writer_make(&out);
    apmw_json_begin_object(&w, NULL);
    apmw_json_string(&w, "te\"xt", "a\\b\"\n\t\x01\xc3\xa9\xff");
    apmw_json_double(&w, "third", 1.0 / 3);
    apmw_json_double(&w, "nan", NAN);
    apmw_json_double(&w, "inf", -INFINITY);
    apmw_json_int(&w, "big", INT64_MIN);
    apmw_json_begin_array(&w, "list");
    apmw_json_bool(&w, NULL, true);
    apmw_json_null(&w, NULL);
    apmw_json_begin_object(&w, NULL);
    apmw_json_end_object(&w);
    apmw_json_end_array(&w);
    apmw_json_string(&w, "none", NULL);
    apmw_json_end_object(&w);
    assert_string_equal(out.data, "{\n"
                                  " \"te\\\"xt\": \"a\\\\b\\\"\\n\\t\\u0001\xc3\xa9\\ufffd\",\n"
                                  " \"third\": 0.3333333333333333,\n"
                                  " \"nan\": null,\n"
                                  " \"inf\": null,\n"
                                  " \"big\": -9223372036854775808,\n"
                                  " \"list\": [\n"
                                  "  true,\n"
                                  "  null,\n"
                                  "  {}\n"
                                  " ],\n"
                                  " \"none\": null\n"
                                  "}\n");
    apmw_json *doc = parse(out.data);
    apmw_json_cur root = apmw_json_root(doc);
    apmw_error err = {0};
    double third = 0;
    assert_ok(apmw_json_get_double(&root, "third", 0, 1, &third, &err), &err);
    assert_same_double(third, 1.0 / 3);
    apmw_json_free(doc);
    apmw_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values),          cmocka_unit_test(optional_values_keep_defaults),
        cmocka_unit_test(errors_name_the_place), cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(unknown_keys),          cmocka_unit_test(malformed_text),
        cmocka_unit_test(damaged_text),          cmocka_unit_test(doubles_read_back),
        cmocka_unit_test(double_text_known),     cmocka_unit_test(writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
