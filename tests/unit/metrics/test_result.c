/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Result files: what is written is read back, the bytes depend on the records only, foreign files are refused. */
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/metrics.h"
#include "test_support.h"

static const char *const INPUTS[] = {"trace=0123456789abcdef"};
static const apmw_result_info INFO = {.version = "1", .git = "abc", .argv = "apmw simulate", .scenario_json = "{}",
                                      .inputs = INPUTS, .n_inputs = 1};

static void fill(apmw_request_record *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memset(&r[i], 0, sizeof r[i]);
        r[i].id = UINT64_MAX - i;
        r[i].agent = (int32_t)i;
        r[i].trajectory = -1;
        r[i].state = i % 2 == 0 ? APMW_REQUEST_DONE : APMW_REQUEST_REJECTED;
        r[i].n_prompt = 1000 + (int64_t)i;
        r[i].first_token = APMW_TIME_NEVER;
        r[i].done = (apmw_time)i * 1000000007;
        r[i].last_of_trajectory = i % 3 == 0;
    }
}

static void there_and_back(void **state)
{
    (void)state;
    const char *dir = test_directory();
    const char *path = test_path(dir, "a.h5"), *again = test_path(dir, "b.h5");
    apmw_request_record requests[100];
    apmw_step_record steps[7];
    fill(requests, 100);
    for (int i = 0; i < 7; i++) {
        memset(&steps[i], 0, sizeof steps[i]);
        steps[i].engine = i;
        steps[i].n_steps = i + 1;
        steps[i].kernel_s = 0.1 * i;
    }
    apmw_error err = {0};
    assert_ok(apmw_result_write(path, &INFO, requests, 100, steps, 7, &err), &err);
    apmw_request_record *r = NULL;
    apmw_step_record *s = NULL;
    size_t n_r, n_s;
    assert_ok(apmw_result_read(path, &r, &n_r, &s, &n_s, &err), &err);
    assert_int_equal(n_r, 100);
    assert_int_equal(n_s, 7);
    for (int i = 0; i < 100; i++) {
        assert_true(r[i].id == requests[i].id && r[i].state == requests[i].state && r[i].done == requests[i].done &&
                    r[i].first_token == APMW_TIME_NEVER && r[i].n_prompt == requests[i].n_prompt &&
                    r[i].trajectory == -1 && r[i].last_of_trajectory == requests[i].last_of_trajectory);
    }
    for (int i = 0; i < 7; i++) {
        assert_same_double(s[i].kernel_s, steps[i].kernel_s);
        assert_int_equal(s[i].n_steps, i + 1);
    }
    assert_ok(apmw_result_write(again, &INFO, r, n_r, s, n_s, &err), &err);
    apmw_buf a = test_read(path), b = test_read(again);
    assert_int_equal(a.length, b.length);
    assert_memory_equal(a.data, b.data, a.length);
    apmw_buf_free(&a);
    apmw_buf_free(&b);
    free(r);
    free(s);
}

static void nothing_is_fine(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "empty.h5");
    apmw_error err = {0};
    apmw_request_record *r = NULL;
    apmw_step_record *s = NULL;
    size_t n_r = 1, n_s = 1;
    assert_ok(apmw_result_write(path, &INFO, NULL, 0, NULL, 0, &err), &err);
    assert_ok(apmw_result_read(path, &r, &n_r, &s, &n_s, &err), &err);
    assert_int_equal(n_r + n_s, 0);
    free(r);
    free(s);
}

static void refusals(void **state)
{
    (void)state;
    const char *dir = test_directory();
    const char *path = test_path(dir, "newer.h5"), *text = test_path(dir, "text.h5");
    apmw_error err = {0};
    apmw_request_record *r = NULL;
    apmw_step_record *s = NULL;
    size_t n_r, n_s;
    test_write(text, "no hdf5", 7);
    assert_error(apmw_result_read(text, &r, &n_r, &s, &n_s, &err), APMW_E_DATA, &err, "not an HDF5 file");
    assert_error(apmw_result_read(test_path(dir, "none.h5"), &r, &n_r, &s, &n_s, &err), APMW_E_NOINPUT, &err, "none.h5");
    assert_ok(apmw_result_write(path, &INFO, NULL, 0, NULL, 0, &err), &err);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hid_t version = H5Aopen(file, "schema_version", H5P_DEFAULT);
    const int two = 2;
    H5Awrite(version, H5T_NATIVE_INT, &two);
    H5Aclose(version);
    H5Fclose(file);
    assert_error(apmw_result_read(path, &r, &n_r, &s, &n_s, &err), APMW_E_DATA, &err, "newer");
    assert_error(apmw_result_write(test_path(dir, "no/such/file.h5"), &INFO, NULL, 0, NULL, 0, &err), APMW_E_CANTCREAT,
                 &err, "cannot write");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(nothing_is_fine),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
