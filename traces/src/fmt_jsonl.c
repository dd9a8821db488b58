/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The native text format (traces/FORMAT.md): a header object, then one trajectory a line, columns as arrays.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "apmw/text.h"
#include "private.h"

static const char trigger_letter[] = "tuj"; /* by apmw_turn_trigger */

/* ---- reading --------------------------------------------------------------------------------------------
 */

static apmw_status check_schema(const apmw_json_cur *root, apmw_error *err)
{
    const char *schema = "";
    apmw_status status = apmw_json_get_string(root, "schema", &schema, err);
    if (status != APMW_OK) {
        return status;
    }
    if (strcmp(schema, APMW_TR_SCHEMA) == 0) {
        return APMW_OK;
    }
    if (strncmp(schema, "apmw.trace/", 11) == 0) {
        return apmw_json_error(root, err, APMW_E_DATA,
                               "schema %s is not the one this program reads (" APMW_TR_SCHEMA
                               "); a newer apmw wrote it",
                               schema);
    }
    return apmw_json_error(root, err, APMW_E_DATA, "schema is \"%s\", expected \"" APMW_TR_SCHEMA "\"",
                           schema);
}

static apmw_status read_header(const apmw_json_cur *root, const char *path, apmw_trace *trace,
                               int64_t *promised, char hash[17], apmw_error *err)
{
    static const char *const keys[] = {"schema", "block_tokens", "trajectories", "hash", "note", NULL};
    apmw_status status = check_schema(root, err);
    if (status == APMW_OK) {
        status = apmw_json_only_keys(root, keys, err);
    }
    int64_t block = 0;
    if (status == APMW_OK) {
        status = apmw_json_get_int(root, "block_tokens", 1, 1 << 20, &block, err);
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_int(root, "trajectories", 0, INT32_MAX, promised, err);
    }
    const char *text = "";
    if (status == APMW_OK) {
        status = apmw_json_opt_string(root, "hash", &text, err);
        apmw_copy(hash, 17, text);
    }
    const char *note = "";
    if (status == APMW_OK) {
        status = apmw_json_opt_string(root, "note", &note, err);
    }
    if (status == APMW_OK) {
        status = apmw_tr_set_block(trace, block, path, err);
    }
    if (status == APMW_OK && trace->note[0] == '\0') {
        apmw_copy(trace->note, sizeof trace->note, note);
    }
    return status;
}

static apmw_status read_name(const apmw_json_cur *root, const char *key, char *out, size_t size,
                             apmw_error *err)
{
    const char *text = "";
    apmw_status status = apmw_json_get_string(root, key, &text, err);
    if (status == APMW_OK && !apmw_copy(out, size, text)) {
        return apmw_json_error(root, err, APMW_E_DATA, "%s is longer than %zu bytes", key, size - 1);
    }
    return status;
}

/* One column: the array, or nothing when an optional one is missing. side_by_side: items may be arrays of tool
 * times. */
static apmw_status column(const apmw_json_cur *root, const char *key, bool required, bool side_by_side,
                          int64_t lo, int64_t hi, int rows, int64_t **out, apmw_error *err)
{
    int n = 0;
    apmw_status status = side_by_side ? apmw_tr_longest(root, key, lo, hi, out, &n, err)
                                      : apmw_tr_ints(root, key, required, lo, hi, out, &n, err);
    if (status == APMW_OK && *out != NULL && rows >= 0 && n != rows) {
        free(*out);
        *out = NULL;
        return apmw_json_error(root, err, APMW_E_DATA, "%s has %d items, but in has %d", key, n, rows);
    }
    return status;
}

enum { IN, OUT, PARENT, LANE, SHARED_IN, SHARED_OUT, DELAY, N_COLUMNS };
static const struct {
    const char *key;
    bool required;
    int64_t lo, hi;
} columns[N_COLUMNS] = {
    {"in", true, 1, APMW_TR_MAX_TOKENS},         {"out", true, 1, APMW_TR_MAX_TOKENS},
    {"parent", false, -1, APMW_TR_MAX_TURNS},    {"lane", false, 0, APMW_TR_MAX_TURNS},
    {"shared_in", true, 0, APMW_TR_MAX_TOKENS},  {"shared_out", false, 0, APMW_TR_MAX_TOKENS},
    {"delay_ns", true, 0, APMW_TR_MAX_DELAY_NS},
};

static apmw_status read_turns(const apmw_json_cur *root, apmw_trajectory *t, apmw_error *err)
{
    int64_t *value[N_COLUMNS] = {0};
    int rows = -1;
    apmw_status status = APMW_OK;
    for (int c = 0; c < N_COLUMNS && status == APMW_OK; c++) {
        if (c == IN) {
            status = apmw_tr_ints(root, "in", true, columns[IN].lo, columns[IN].hi, &value[IN], &rows, err);
        } else {
            status = column(root, columns[c].key, columns[c].required, c == DELAY, columns[c].lo,
                            columns[c].hi, rows, &value[c], err);
        }
    }
    const char *triggers = "";
    if (status == APMW_OK) {
        status = apmw_json_get_string(root, "trigger", &triggers, err);
    }
    if (status == APMW_OK && strlen(triggers) != (size_t)rows) {
        status = apmw_json_error(root, err, APMW_E_DATA, "trigger has %zu letters, but in has %d items",
                                 strlen(triggers), rows);
    }
    for (int i = 0; i < rows && status == APMW_OK; i++) {
        const char *letter = strchr(trigger_letter, triggers[i]);
        if (letter == NULL) {
            status = apmw_json_error(root, err, APMW_E_DATA,
                                     "trigger %d is '%c'; letters are t (tool), u (user), j (join)", i,
                                     triggers[i]);
            break;
        }
        apmw_turn turn = {
            .n_in = value[IN][i],
            .n_out = value[OUT][i],
            .parent = value[PARENT] != NULL ? (int32_t)value[PARENT][i] : i - 1,
            .lane = value[LANE] != NULL ? (int32_t)value[LANE][i] : 0,
            .shared_in = value[SHARED_IN][i],
            .shared_out = value[SHARED_OUT] != NULL ? value[SHARED_OUT][i] : 0,
            .delay_ns = value[DELAY][i],
            .trigger = (apmw_turn_trigger)(letter - trigger_letter),
        };
        status = apmw_tr_push_turn(t, &turn, err);
    }
    for (int c = 0; c < N_COLUMNS; c++) {
        free(value[c]);
    }
    return status;
}

static apmw_status read_lanes(const apmw_json_cur *root, apmw_trajectory *t, apmw_error *err)
{
    int64_t *spawn = NULL, *join = NULL;
    int n = 0;
    apmw_status status = apmw_tr_push_lane(t, -1, -1, err);
    if (status == APMW_OK) {
        status = apmw_tr_ints(root, "spawn_after", false, -1, APMW_TR_MAX_TURNS, &spawn, &n, err);
    }
    if (status == APMW_OK) {
        int m = 0;
        status = apmw_tr_ints(root, "join_before", false, -1, APMW_TR_MAX_TURNS, &join, &m, err);
        if (status == APMW_OK && m != n) {
            status =
                apmw_json_error(root, err, APMW_E_DATA, "spawn_after has %d items, join_before %d", n, m);
        }
    }
    for (int k = 0; k < n && status == APMW_OK; k++) {
        status = apmw_tr_push_lane(t, (int32_t)spawn[k], (int32_t)join[k], err);
    }
    free(spawn);
    free(join);
    return status;
}

static apmw_status read_trajectory(const apmw_json_cur *root, apmw_trajectory *t, apmw_error *err)
{
    static const char *const keys[] = {"id",       "source",  "global_id",   "global_tokens", "in",
                                       "out",      "parent",  "lane",        "shared_in",     "shared_out",
                                       "delay_ns", "trigger", "spawn_after", "join_before",   NULL};
    apmw_status status = apmw_json_only_keys(root, keys, err);
    if (status == APMW_OK) {
        status = read_name(root, "id", t->id, sizeof t->id, err);
    }
    if (status == APMW_OK) {
        status = read_name(root, "source", t->source, sizeof t->source, err);
    }
    int64_t group = -1;
    if (status == APMW_OK) {
        status = apmw_json_opt_int(root, "global_id", -1, INT32_MAX, &group, err);
        t->global_id = (int32_t)group;
    }
    if (status == APMW_OK) {
        status = apmw_json_opt_int(root, "global_tokens", 0, APMW_TR_MAX_TOKENS, &t->global_tokens, err);
    }
    if (status == APMW_OK) {
        status = read_turns(root, t, err);
    }
    if (status == APMW_OK) {
        status = read_lanes(root, t, err);
    }
    if (status == APMW_OK) {
        apmw_error why = {0};
        status = apmw_trajectory_check(t, &why);
        if (status != APMW_OK) {
            status = apmw_json_error(root, err, status, "%s", why.message);
        }
    }
    return status;
}

static apmw_status load(const char *path, apmw_trace *trace, apmw_error *err)
{
    apmw_tr_reader *reader = NULL;
    apmw_status status = apmw_tr_reader_open(path, &reader, err);
    size_t before = trace->n;
    int64_t promised = -1;
    char hash[17] = "";
    for (int64_t i = 0; status == APMW_OK; i++) {
        apmw_json *doc = NULL;
        status = apmw_tr_reader_json(reader, &doc, err);
        if (status != APMW_OK) {
            break;
        }
        if (doc == NULL) {
            if (i == 0) {
                status = apmw_error_set(err, APMW_E_DATA, "%s: empty; expected a header object", path);
            }
            break;
        }
        apmw_json_cur root = apmw_json_root(doc);
        if (i == 0) {
            status = read_header(&root, path, trace, &promised, hash, err);
        } else {
            apmw_trajectory t = {0};
            status = read_trajectory(&root, &t, err);
            if (status == APMW_OK) {
                status = apmw_tr_take(trace, &t, err);
            } else {
                apmw_trajectory_free(&t);
            }
        }
        apmw_json_free(doc);
    }
    apmw_tr_reader_close(reader);
    int64_t got = (int64_t)(trace->n - before);
    if (status == APMW_OK && promised >= 0 && got != promised) {
        status = apmw_error_set(err, APMW_E_DATA,
                                "%s: the header promises %" PRId64 " trajectories, the file holds %" PRId64
                                "; it is truncated or was edited",
                                path, promised, got);
    }
    if (status == APMW_OK && hash[0] != '\0') {
        apmw_trace part = *trace;
        part.items = trace->items + before;
        part.n = trace->n - before;
        apmw_trace_rehash(&part);
        if (strcmp(part.hash, hash) != 0) {
            status = apmw_error_set(err, APMW_E_DATA,
                                    "%s: content hash is %s, but the header says %s: the file was damaged or "
                                    "edited (without \"hash\" in the header it is accepted as it is)",
                                    path, part.hash, hash);
        }
    }
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------
 */

static int64_t cell(const apmw_turn *u, int c)
{
    switch (c) {
    case IN:
        return u->n_in;
    case OUT:
        return u->n_out;
    case PARENT:
        return u->parent;
    case LANE:
        return u->lane;
    case SHARED_IN:
        return u->shared_in;
    case SHARED_OUT:
        return u->shared_out;
    default:
        return u->delay_ns;
    }
}

/* Optional columns are left out where they say what a reader assumes. */
static bool is_plain(const apmw_trajectory *t, int c)
{
    for (int32_t i = 0; i < t->n_turns; i++) {
        if (cell(&t->turns[i], c) != (c == PARENT ? i - 1 : 0)) {
            return false;
        }
    }
    return true;
}

/* Escapes as JSON: the base writer would put every number on its own line. */
static void put_string(apmw_buf *out, const char *text)
{
    apmw_buf_puts(out, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            apmw_buf_printf(out, "\\%c", *p);
        } else if (*p < 0x20) {
            apmw_buf_printf(out, "\\u%04x", *p);
        } else {
            apmw_buf_append(out, p, 1);
        }
    }
    apmw_buf_puts(out, "\"");
}

static void put_int(apmw_buf *out, int64_t value)
{
    char digits[24];
    int at = (int)sizeof digits;
    uint64_t rest = value < 0 ? (uint64_t)-value : (uint64_t)value;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) {
        digits[--at] = '-';
    }
    apmw_buf_append(out, digits + at, sizeof digits - (size_t)at);
}

static void put_lanes(apmw_buf *out, const apmw_trajectory *t, const char *key, bool spawn)
{
    apmw_buf_printf(out, ",\"%s\":[", key);
    for (int32_t k = 1; k < t->n_lanes; k++) {
        apmw_buf_puts(out, k == 1 ? "" : ",");
        put_int(out, spawn ? t->lanes[k].spawn_after : t->lanes[k].join_before);
    }
    apmw_buf_puts(out, "]");
}

static void write_trajectory(apmw_buf *out, const apmw_trajectory *t)
{
    apmw_buf_puts(out, "{\"id\":");
    put_string(out, t->id);
    apmw_buf_puts(out, ",\"source\":");
    put_string(out, t->source);
    if (t->global_id >= 0) {
        apmw_buf_printf(out, ",\"global_id\":%d,\"global_tokens\":%" PRId64, t->global_id, t->global_tokens);
    }
    for (int c = 0; c < N_COLUMNS; c++) {
        if (!columns[c].required && is_plain(t, c)) {
            continue;
        }
        apmw_buf_printf(out, ",\"%s\":[", columns[c].key);
        for (int32_t i = 0; i < t->n_turns; i++) {
            apmw_buf_puts(out, i == 0 ? "" : ",");
            put_int(out, cell(&t->turns[i], c));
        }
        apmw_buf_puts(out, "]");
    }
    apmw_buf_puts(out, ",\"trigger\":\"");
    for (int32_t i = 0; i < t->n_turns; i++) {
        apmw_buf_append(out, &trigger_letter[t->turns[i].trigger], 1);
    }
    apmw_buf_puts(out, "\"");
    if (t->n_lanes > 1) {
        put_lanes(out, t, "spawn_after", true);
        put_lanes(out, t, "join_before", false);
    }
    apmw_buf_puts(out, "}\n");
}

apmw_status apmw_tr_save_jsonl(const apmw_trace *trace, const char *path, bool compress, apmw_error *err)
{
    apmw_trace named = *trace;
    apmw_trace_rehash(&named);
    apmw_buf out = {0};
    apmw_buf_printf(&out,
                    "{\"schema\":\"" APMW_TR_SCHEMA "\",\"block_tokens\":%" PRId64
                    ",\"trajectories\":%zu,\"hash\":\"%s\"",
                    trace->block_tokens, trace->n, named.hash);
    if (trace->note[0] != '\0') {
        apmw_buf_puts(&out, ",\"note\":");
        put_string(&out, trace->note);
    }
    apmw_buf_puts(&out, "}\n");
    for (size_t i = 0; i < trace->n; i++) {
        write_trajectory(&out, &trace->items[i]);
    }
    apmw_status status = APMW_OK;
    if (out.failed) {
        status = apmw_error_set(err, APMW_E_NOMEM, "%s: out of memory", path);
    } else {
        /* Level 19 packs a tenth tighter than 9 but takes a second a megabyte, 40 times as long: for what is
         * shipped, not for bulk. */
        int level = out.length <= ((size_t)16 << 20) ? 19 : 9;
        status = apmw_file_write(path, out.data, out.length, compress ? level : -1, err);
    }
    apmw_buf_free(&out);
    return status;
}

const apmw_tr_format apmw_tr_format_jsonl = {
    {"apmw-jsonl",
     "native text: a header line, then a trajectory a line; plain or zstd (traces/FORMAT.md, section 2)",
     true},
    load};
