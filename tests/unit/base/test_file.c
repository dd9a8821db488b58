/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apmw/buf.h"
#include "apmw/rng.h"
#include "test_support.h"

/* Text that compresses, but not away: several zstd blocks and read chunks. */
static apmw_buf sample(size_t lines)
{
    apmw_buf out = {0};
    apmw_rng rng = apmw_rng_make(1, "sample", 0, 0);
    for (size_t i = 0; i < lines; i++)
        apmw_buf_printf(&out, "%zu,%.17g,agent\n", i, apmw_rng_uniform(&rng));
    assert_false(out.failed);
    return out;
}

static int entries(const char *directory)
{
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void buffers_grow(void **state)
{
    (void)state;
    apmw_buf buf = {0};
    apmw_buf_append(&buf, NULL, 0);
    assert_string_equal(buf.data, "");
    apmw_buf_puts(&buf, "x");
    for (int i = 0; i < 1000; i++)
        apmw_buf_printf(&buf, "%d;", i);
    apmw_buf_printf(&buf, "%0*d", 5000, 7);
    assert_int_equal(strlen(buf.data), buf.length);
    assert_int_equal(buf.length, 1 + 10 * 2 + 90 * 3 + 900 * 4 + 5000);
    assert_true(strncmp(buf.data, "x0;1;2;", 7) == 0);
    assert_int_equal(buf.data[buf.length - 1], '7');
    apmw_buf_append(&buf, "a\0b", 3);
    assert_memory_equal(buf.data + buf.length - 3, "a\0b", 3);
    /* What cannot be had is remembered, and what is there stays. */
    size_t length = buf.length;
    apmw_buf_append(&buf, "", SIZE_MAX - 10);
    assert_true(buf.failed);
    apmw_buf_puts(&buf, "more");
    assert_int_equal(buf.length, length);
    apmw_buf_free(&buf);
    assert_null(buf.data);
}

static void plain_and_zstd_round_trip(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_buf text = sample(40000); /* 1.2 MB */
    static const size_t sizes[] = {0, 1, 3, 4, 262143, 262144, 262145, 1000000};
    apmw_error err = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int level = -1; level <= 19; level += 10) {
            /* The name says nothing: the content decides. */
            const char *path = test_path(dir, "data.txt");
            assert_ok(apmw_file_write(path, text.data, sizes[i], level, &err), &err);
            apmw_buf back = {0};
            apmw_buf_puts(&back, "before");
            assert_ok(apmw_file_read(path, &back, &err), &err);
            assert_int_equal(back.length, sizes[i] + 6);
            assert_memory_equal(back.data, "before", 6);
            assert_memory_equal(back.data + 6, text.data, sizes[i]);
            assert_int_equal(back.data[back.length], '\0');
            apmw_buf_free(&back);
        }
    }
    assert_int_equal(entries(dir), 1);
    apmw_buf_free(&text);
}

static void concatenated_frames(void **state)
{
    (void)state;
    const char *dir = test_directory(), *a = test_path(dir, "a"), *both = test_path(dir, "both");
    apmw_error err = {0};
    assert_ok(apmw_file_write(a, "one\n", 4, 3, &err), &err);
    apmw_buf frame = test_read(a), packed = {0};
    assert_string_equal(frame.data, "one\n");
    apmw_buf_free(&frame);
    FILE *file = fopen(a, "rb");
    char raw[256];
    size_t n = fread(raw, 1, sizeof raw, file);
    fclose(file);
    apmw_buf_append(&packed, raw, n);
    apmw_buf_append(&packed, raw, n);
    test_write(both, packed.data, packed.length);
    apmw_buf back = test_read(both);
    assert_string_equal(back.data, "one\none\n");
    apmw_buf_free(&back);
    apmw_buf_free(&packed);
}

static void raw_bytes(const char *path, apmw_buf *out)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;)
        apmw_buf_append(out, chunk, n);
    fclose(file);
}

/* Cut anywhere, a zstd file is refused and the buffer is as it was; flipped anywhere, its checksum or
 * structure tells. */
static void truncated_and_damaged_zstd(void **state)
{
    (void)state;
    const char *dir = test_directory(), *path = test_path(dir, "t.zst");
    apmw_buf text = sample(60), packed = {0};
    apmw_error err = {0};
    assert_ok(apmw_file_write(path, text.data, text.length, 3, &err), &err);
    raw_bytes(path, &packed);
    assert_true(packed.length > 100 && packed.length < text.length);
    for (size_t cut = 4; cut < packed.length; cut++) {
        test_write(path, packed.data, cut);
        apmw_buf back = {0};
        apmw_buf_puts(&back, "kept");
        assert_error(apmw_file_read(path, &back, &err), APMW_E_DATA, &err, "t.zst: ");
        assert_string_equal(back.data, "kept");
        assert_int_equal(back.length, 4);
        apmw_buf_free(&back);
    }
    assert_contains(err.message, "truncated");
    for (size_t at = 4; at < packed.length; at++) {
        packed.data[at] = (char)(packed.data[at] ^ (1 << (at % 8)));
        test_write(path, packed.data, packed.length);
        packed.data[at] = (char)(packed.data[at] ^ (1 << (at % 8)));
        apmw_buf back = {0};
        apmw_status status = apmw_file_read(path, &back, &err);
        /* A flip in an unused header bit may leave the content whole, but never changes it unseen. */
        if (status == APMW_OK)
            assert_memory_equal(back.data, text.data, text.length);
        else
            assert_int_equal(status, APMW_E_DATA);
        apmw_buf_free(&back);
    }
    apmw_buf_free(&packed);
    apmw_buf_free(&text);
}

static void missing_and_unwritable(void **state)
{
    (void)state;
    const char *dir = test_directory();
    apmw_error err = {0};
    apmw_buf out = {0};
    char hash[17];
    assert_error(apmw_file_read(test_path(dir, "absent"), &out, &err), APMW_E_NOINPUT, &err, "No such file");
    test_write(test_path(dir, "points.csv"), "x", 1);
    test_write(test_path(dir, "paints.csv"), "x", 1);
    assert_error(apmw_file_read(test_path(dir, "ponts.csv"), &out, &err), APMW_E_NOINPUT, &err,
                 "ponts.csv: no such file (there is \"points.csv\")");
    assert_error(apmw_file_read(test_path(dir, "punts.csv"), &out, &err), APMW_E_NOINPUT, &err,
                 "\"paints.csv\"");
    remove(test_path(dir, "points.csv"));
    remove(test_path(dir, "paints.csv"));
    assert_error(apmw_file_read(dir, &out, &err), APMW_E_NOINPUT, &err, "is a directory");
    assert_error(apmw_file_hash(test_path(dir, "absent"), hash, &err), APMW_E_NOINPUT, &err, "absent");
    assert_error(apmw_file_write(test_path(dir, "no/file"), "x", 1, -1, &err), APMW_E_CANTCREAT, &err,
                 "no/file");
    /* The rename fails on a directory; the temporary file must be gone. */
    mkdir(test_path(dir, "taken"), 0777);
    test_write(test_path(dir, "taken/inside"), "x", 1);
    assert_int_not_equal(apmw_file_write(test_path(dir, "taken"), "x", 1, -1, &err), APMW_OK);
    assert_int_equal(entries(dir), 1);
    assert_error(apmw_file_write("/dev/full", "x", 1, -1, &err), APMW_E_IO, &err, "No space left");
    assert_ok(apmw_file_write("/dev/null", "x", 1, -1, &err), &err);
    struct stat info;
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode)); /* written in place, not replaced by a file */
    apmw_buf_free(&out);
}

static void hashes(void **state)
{
    (void)state;
    const char *path = test_path(test_directory(), "data");
    apmw_error err = {0};
    char of_file[17], of_bytes[17];
    /* XXH3-64 of no bytes with seed 0, from the xxHash specification's sanity vectors. */
    apmw_bytes_hash("", 0, of_bytes);
    assert_string_equal(of_bytes, "2d06800538d394c2");
    apmw_buf text = sample(30000);
    test_write(path, text.data, text.length);
    assert_ok(apmw_file_hash(path, of_file, &err), &err);
    apmw_bytes_hash(text.data, text.length, of_bytes);
    assert_string_equal(of_file, of_bytes);
    text.data[500] ^= 1;
    apmw_bytes_hash(text.data, text.length, of_bytes);
    assert_string_not_equal(of_file, of_bytes);
    assert_true(apmw_hash64("a", 1, 1) != apmw_hash64("a", 1, 2));
    apmw_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_grow),           cmocka_unit_test(plain_and_zstd_round_trip),
        cmocka_unit_test(concatenated_frames),    cmocka_unit_test(truncated_and_damaged_zstd),
        cmocka_unit_test(missing_and_unwritable), cmocka_unit_test(hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
