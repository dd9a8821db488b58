/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A damaged file of any format gives an error that names it, or a trace that keeps every rule; never a crash.
 * Cut at every 1/50th of its length, and with bytes flipped at random. Meant to be run with the address
 * sanitizer too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "apmw/rng.h"
#include "apmw/trace.h"
#include "traces_random.h"

/* libhdf5 1.10.8 itself leaks when it gives up on damaged metadata; leaks of ours still count. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

static char dir[] = "/tmp/apmw-damage-XXXXXX";
static char path[128];

static void write_bytes(const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Returns whether it loaded. */
static bool must_be_sane(const char *what, const char *format)
{
    apmw_trace trace;
    apmw_error err = {0};
    apmw_status status = apmw_trace_load(path, format, &trace, &err);
    if (status != APMW_OK) {
        if (trace.items != NULL || strstr(err.message, path) == NULL) {
            fail_msg("%s: \"%s\" does not name the file", what, err.message);
        }
        return false;
    }
    for (size_t i = 0; i < trace.n; i++) {
        if (apmw_trajectory_check(&trace.items[i], &err) != APMW_OK) {
            fail_msg("%s: loaded, but %s", what, err.message);
        }
    }
    apmw_trace_free(&trace);
    return true;
}

/* `checked`: the file knows its content's hash, so that no cut and no flip of one byte may load. */
static void damage(const char *name, const apmw_buf *file, bool checked)
{
    char what[160];
    for (size_t k = 0; k < 50; k++) {
        size_t n = file->length * k / 50;
        snprintf(what, sizeof what, "%s cut to %zu of %zu bytes", name, n, file->length);
        write_bytes(file->data, n);
        bool loaded = must_be_sane(what, NULL);
        if (loaded && checked) {
            fail_msg("%s loads", what);
        }
    }
    apmw_rng rng = apmw_rng_make(1, "test.damage", file->length, 0);
    char *copy = malloc(file->length);
    assert_non_null(copy);
    for (int k = 0; k < 400; k++) {
        memcpy(copy, file->data, file->length);
        int flips = k < 200 ? 1 : 1 + (int)apmw_rng_below(&rng, 20);
        for (int j = 0; j < flips; j++) {
            size_t at = (size_t)apmw_rng_below(&rng, file->length);
            copy[at] = (char)(copy[at] ^ (char)(1 + apmw_rng_below(&rng, 255)));
        }
        snprintf(what, sizeof what, "%s with %d bytes changed (case %d)", name, flips, k);
        write_bytes(copy, file->length);
        (void)must_be_sane(what, NULL);
    }
    free(copy);
    remove(path);
}

static void of_native_files(void **state)
{
    (void)state;
    static const char *const endings[] = {"t.jsonl", "t.jsonl.zst", "t.h5"};
    apmw_trace trace = random_trace(5, 12, 3000, 16);
    for (int k = 0; k < 3; k++) {
        apmw_error err = {0};
        apmw_buf file = {0};
        FILE *f;
        snprintf(path, sizeof path, "%s/%s", dir, endings[k]);
        assert_int_equal(apmw_trace_save(&trace, path, &err), APMW_OK);
        f = fopen(path, "rb"); /* apmw_file_read would decompress */
        assert_non_null(f);
        char chunk[4096];
        for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) {
            apmw_buf_append(&file, chunk, n);
        }
        fclose(f);
        assert_true(must_be_sane(endings[k], NULL));
        damage(endings[k], &file, true);
        apmw_buf_free(&file);
    }
    apmw_trace_free(&trace);
}

static void of_imported_files(void **state)
{
    (void)state;
    static const char *const names[] = {
        "weka-hand.json",      "weka-compact.jsonl.zst",    "weka-0277.json.zst",
        "mooncake-hand.jsonl", "aiperf-session-hand.jsonl",
    };
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char source[256];
        apmw_buf file = {0};
        apmw_error err = {0};
        snprintf(source, sizeof source, APMW_SOURCE_DIR "/traces/samples/formats/%s", names[k]);
        assert_int_equal(apmw_file_read(source, &file, &err), APMW_OK);
        snprintf(path, sizeof path, "%s/%s", dir, "import");
        write_bytes(file.data, file.length);
        assert_true(must_be_sane(names[k], NULL));
        damage(names[k], &file, false);
        apmw_buf_free(&file);
    }
}

/* A file that is told to be of a format that it is not. */
static void of_mistaken_files(void **state)
{
    (void)state;
    size_t n;
    const apmw_trace_format *const *formats = apmw_trace_formats(&n);
    static const char *const texts[] = {
        "",
        "{",
        "[",
        "{}",
        "[]",
        "[{}]",
        "[[]]",
        "{}{}",
        "null",
        "\"",
        "{\"requests\":[]}",
        "{\"id\":\"a\",\"requests\":[{\"type\":\"subagent\",\"t\":1,\"requests\":[]}]}",
        "{\"input_length\":1}",
        "{\"input_length\":1,\"output_length\":1,\"timestamp\":0,"
        "\"hash_ids\":[]}",
        "{\"schema\":\"apmw.trace/1\",\"block_tokens\":1}\n{}",
        "[{\"a\":1},]",
        "[{\"a\":1}{\"a\":1}]",
        "{\"a\":1},{\"a\":1}",
        "\x28\xb5\x2f\xfd",
        "\x89HDF\r\n\x1a\n",
        "\x1f\x8b\x08"};
    snprintf(path, sizeof path, "%s/%s", dir, "mistaken");
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            write_bytes(texts[i], strlen(texts[i]));
            (void)must_be_sane(texts[i], formats[k]->name);
            (void)must_be_sane(texts[i], NULL);
        }
    }
    remove(path);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_native_files),
        cmocka_unit_test(of_imported_files),
        cmocka_unit_test(of_mistaken_files),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
