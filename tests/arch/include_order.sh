#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Who may include whom (sim/DESIGN.md, Layers). Reads every #include "..." line of libraries and program.
# Arguments: program (unused), source tree.
set -eu
cd "$2"

# Headers of sim/include by layer. A header that is not here belongs to experiment, which only experiment and cli see.
cat >"${TMPDIR:-/tmp}/include_order.$$" <<'TABLE'
header status base
header time base
header rng base
header buf base
header json base
header csv base
header text base
header des des
header kv kv
header kv_tiers kv
header records records
header connector engine
header engine engine
header cluster cluster
header kv_connector cluster
header metrics metrics
header protocol protocol
header agentx protocol
allow base base
allow records base records
allow des base des
allow kv base kv
allow traces base traces
allow hwmodels base hwmodels
allow engine base des kv hwmodels records engine
allow cluster base des kv hwmodels records engine traces cluster
allow metrics base records metrics
allow protocol base records protocol
allow experiment base des kv hwmodels records engine traces cluster metrics protocol experiment
allow calib base records traces hwmodels metrics protocol calib
allow cli base des kv hwmodels records engine traces cluster metrics protocol experiment calib cli
TABLE
trap 'rm -f "${TMPDIR:-/tmp}/include_order.$$"' EXIT

find sim hwmodels traces calib -name '*.[ch]' | LC_ALL=C sort | xargs grep -Hn '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
awk -v table="${TMPDIR:-/tmp}/include_order.$$" '
function stem(path) { sub(/.*\//, "", path); sub(/\.[ch]$/, "", path); return path }
function exists(path,   line, found) { found = (getline line < path) >= 0; close(path); return found }
function layer_of_header(name) {
    if (exists("hwmodels/include/apmw/" name ".h")) return "hwmodels"
    if (exists("traces/include/apmw/" name ".h")) return "traces"
    if (exists("calib/include/apmw/" name ".h")) return "calib"
    return name in header ? header[name] : "experiment"
}
function layer_of_file(path,   part) {
    if (path ~ /\/include\/apmw\//) return layer_of_header(stem(path))
    split(path, part, "/")
    return part[1] == "sim" ? part[2] : part[1]
}
function complain(message) { print file ":" line ": " message; bad++ }
BEGIN {
    while ((getline row < table) > 0) {
        n = split(row, word, " ")
        if (word[1] == "header") header[word[2]] = word[3]
        for (i = 3; word[1] == "allow" && i <= n; i++) allow[word[2], word[i]] = 1
        if (word[1] == "allow") known[word[2]] = 1
    }
}
{
    n = split($0, field, ":"); file = field[1]; line = field[2]
    match($0, /"[^"]*"/); target = substr($0, RSTART + 1, RLENGTH - 2)
    from = layer_of_file(file)
    if (!(from in known)) { complain("layer \"" from "\" is not in the table of this test"); next }
    if (target ~ /\.\./) { complain("includes \"" target "\": no way out of the directory"); next }
    if (target !~ /^apmw\//) {
        directory = file; sub(/[^\/]*$/, "", directory)
        if (!exists(directory target)) complain("includes \"" target "\", which is not in " directory)
        next
    }
    to = layer_of_header(stem(target))
    if (!((from, to) in allow)) complain(from " must not see " to " (\"" target "\")")
    seen++
}
END {
    if (seen == 0) { print "no include line was found in this tree"; bad++ }
    print seen " includes of public headers, " bad + 0 " against the order"
    exit bad > 0
}'

# des is the event core of any simulation: it knows no word of serving language models.
words='tokens?|prompts?|prefill|decod(e|es|ing)|kv|trajector(y|ies)|prefix|tpot|ttft'
if grep -nwiE "$words" sim/des/*.c sim/include/apmw/des.h 2>/dev/null; then
    echo "des must know no LLM word"
    exit 1
fi
