/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any trace comes back from every format that can be written, with the same content hash, and the bytes
 * written are a function of the content. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "apmw/trace.h"
#include "traces_random.h"
#include "traces_same.h"

static void comes_back(void **state)
{
    (void)state;
    char dir[] = "/tmp/apmw-roundtrip-XXXXXX";
    assert_non_null(mkdtemp(dir));
    static const char *const endings[] = {"a.jsonl", "a.jsonl.zst", "a.h5"};
    for (uint64_t seed = 0; seed < 60; seed++) {
        apmw_trace trace = random_trace(seed, 1 + seed % 17, 2000, 1 + (int64_t)(seed % 64));
        for (int k = 0; k < 3; k++) {
            char path[128], again[128], first[17], second[17];
            apmw_error err = {0};
            apmw_trace back;
            snprintf(path, sizeof path, "%s/%s", dir, endings[k]);
            snprintf(again, sizeof again, "%s/again-%s", dir, endings[k]);
            if (apmw_trace_save(&trace, path, &err) != APMW_OK ||
                apmw_trace_load(path, NULL, &back, &err) != APMW_OK) {
                fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
            }
            assert_same_trace(&trace, &back);
            if (seed == 0) {
                usleep(1100000); /* a time of day in the file would show, HDF5 counts whole seconds */
            }
            assert_int_equal(apmw_trace_save(&back, again, &err), APMW_OK);
            assert_int_equal(apmw_file_hash(path, first, &err), APMW_OK);
            assert_int_equal(apmw_file_hash(again, second, &err), APMW_OK);
            if (strcmp(first, second) != 0) {
                fail_msg("seed %llu: %s written twice is not the same", (unsigned long long)seed, path);
            }
            apmw_trace_free(&back);
            remove(path);
            remove(again);
        }
        apmw_trace_free(&trace);
    }
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(comes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
