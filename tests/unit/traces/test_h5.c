/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The binary format refuses what it does not understand; round trips are in property/traces/test_roundtrip.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <hdf5.h>

#include "apmw/trace.h"
#include "traces_random.h"
#include "traces_same.h"

static char path[] = "/tmp/apmw-h5-XXXXXX.h5";

static hid_t fresh_file(apmw_trace *trace)
{
    apmw_error err = {0};
    *trace = random_trace(9, 6, 1000, 16);
    assert_int_equal(apmw_trace_save(trace, path, &err), APMW_OK);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void set_text(hid_t file, const char *name, const char *text)
{
    H5Adelete(file, name);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_column(hid_t file, const char *name, hid_t type, int rank, hsize_t n, const void *data)
{
    hsize_t extent[2] = {n, 1};
    H5Ldelete(file, name, H5P_DEFAULT);
    hid_t space = H5Screate_simple(rank, extent, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    if (data != NULL) {
        assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    }
    H5Dclose(set);
    H5Sclose(space);
}

static void refuse(apmw_trace *trace, hid_t file, const char *what, const char *reason)
{
    apmw_trace back;
    apmw_error err = {0};
    H5Fclose(file);
    assert_int_equal(apmw_trace_load(path, NULL, &back, &err), APMW_E_DATA);
    if (strstr(err.message, path) == NULL || strstr(err.message, what) == NULL ||
        strstr(err.message, reason) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.message, what, reason);
    }
    apmw_trace_free(trace);
}

static void refuses_other_schemas(void **state)
{
    (void)state;
    apmw_trace trace;
    hid_t file = fresh_file(&trace);
    set_text(file, "schema", "apmw.trace/2");
    refuse(&trace, file, "apmw.trace/2", "newer apmw");
    file = fresh_file(&trace);
    set_text(file, "schema", "apmw.run/1");
    refuse(&trace, file, "apmw.run/1", "apmw.trace/1");
    file = fresh_file(&trace);
    H5Adelete(file, "schema");
    refuse(&trace, file, "schema", "missing");
    file = fresh_file(&trace);
    H5Adelete(file, "block_tokens");
    refuse(&trace, file, "block_tokens", "missing");
}

static void refuses_other_columns(void **state)
{
    (void)state;
    apmw_trace trace;
    const int64_t ints[4] = {1, 1, 1, 1};
    const double reals[4] = {1, 1, 1, 1};
    hid_t file = fresh_file(&trace);
    H5Ldelete(file, "turns/in", H5P_DEFAULT);
    refuse(&trace, file, "/turns/in", "missing");
    file = fresh_file(&trace);
    put_column(file, "turns/in", H5T_NATIVE_INT64, 1, 4, ints);
    refuse(&trace, file, "/turns/in", "4 rows");
    file = fresh_file(&trace);
    put_column(file, "turns/in", H5T_NATIVE_DOUBLE, 1, 4, reals);
    refuse(&trace, file, "/turns/in", "integers");
    file = fresh_file(&trace);
    put_column(file, "turns/in", H5T_NATIVE_INT64, 2, 4, ints);
    refuse(&trace, file, "/turns/in", "one column");
    file = fresh_file(&trace);
    put_column(file, "turns/in", H5T_NATIVE_INT64, 1, (hsize_t)1 << 40, NULL);
    refuse(&trace, file, "/turns/in", "claims");
    file = fresh_file(&trace);
    put_column(file, "trajectories/turns", H5T_NATIVE_INT64, 1, 4, ints);
    refuse(&trace, file, "/trajectories/", "rows");
    file = fresh_file(&trace);
    const int64_t huge[6] = {INT64_MAX, 1, 1, 1, 1, 1};
    put_column(file, "trajectories/turns", H5T_NATIVE_INT64, 1, 6, huge);
    refuse(&trace, file, "/trajectories/turns", "out of range");
    file = fresh_file(&trace);
    put_column(file, "trajectories/id", H5T_NATIVE_INT64, 1, 6, huge);
    refuse(&trace, file, "/trajectories/id", "texts");
}

/* A changed number is noticed by the hash, or by the rules. */
static void refuses_other_content(void **state)
{
    (void)state;
    apmw_trace trace;
    hid_t file = fresh_file(&trace);
    set_text(file, "hash", "0123456789abcdef");
    refuse(&trace, file, "content hash", "0123456789abcdef");
    file = fresh_file(&trace);
    const int64_t groups[6] = {(int64_t)1 << 40, -1, -1, -1, -1, -1};
    put_column(file, "trajectories/global_id", H5T_NATIVE_INT64, 1, 6, groups);
    refuse(&trace, file, "random-0", "group");
}

/* Other writers need no hash, no note, and may choose any integer type. */
static void accepts_other_writers(void **state)
{
    (void)state;
    apmw_trace trace, back;
    apmw_error err = {0};
    hid_t file = fresh_file(&trace);
    H5Adelete(file, "hash");
    H5Adelete(file, "note");
    int32_t counts[6];
    for (int i = 0; i < 6; i++) {
        counts[i] = trace.items[i].n_turns;
    }
    put_column(file, "trajectories/turns", H5T_STD_I32BE, 1, 6, NULL);
    hid_t set = H5Dopen2(file, "trajectories/turns", H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, counts) >= 0);
    H5Dclose(set);
    H5Fclose(file);
    if (apmw_trace_load(path, NULL, &back, &err) != APMW_OK) {
        fail_msg("%s", err.message);
    }
    assert_string_equal(trace.hash, back.hash);
    apmw_trace_free(&back);
    apmw_trace_free(&trace);
}

static void names_a_directory_that_is_not_there(void **state)
{
    (void)state;
    apmw_trace trace = random_trace(9, 1, 100, 16);
    apmw_error err = {0};
    assert_int_equal(apmw_trace_save(&trace, "/nowhere/t.h5", &err), APMW_E_CANTCREAT);
    assert_non_null(strstr(err.message, "/nowhere/t.h5"));
    apmw_trace_free(&trace);
}

static int make_file(void **state)
{
    (void)state;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    int handle = mkstemps(path, 3);
    return handle < 0 || close(handle) != 0;
}

static int remove_file(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_other_schemas),
        cmocka_unit_test(refuses_other_columns),
        cmocka_unit_test(refuses_other_content),
        cmocka_unit_test(accepts_other_writers),
        cmocka_unit_test(names_a_directory_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
