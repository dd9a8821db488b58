#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# apmw trace: every action once, the formats of its output, and what it refuses.
set -u
apmw=$1
source=$2
samples=$source/traces/samples
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0

fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}
# expect CODE TEXT COMMAND...: exit code, and TEXT somewhere in what it prints
expect() {
    code=$1
    text=$2
    shift 2
    out=$("$@" 2>&1)
    got=$?
    [ "$got" = "$code" ] || fail "$* exits $got, not $code: $out"
    case $out in
    *"$text"*) ;;
    *) fail "$* does not say '$text': $out" ;;
    esac
}

expect 0 "Example" "$apmw" trace --help
expect 64 "info, check, stats, convert, slice or synth" "$apmw" trace
expect 64 'did you mean "stats"' "$apmw" trace stat x
expect 64 "needs a file" "$apmw" trace stats
expect 66 "nowhere" "$apmw" trace stats "$dir/nowhere.jsonl"
expect 64 "needs -o" "$apmw" trace convert "$samples/agentperf-500.jsonl.zst"
expect 64 ".jsonl.zst or .h5" "$apmw" trace convert "$samples/agentperf-500.jsonl.zst" -o "$dir/x.txt"

# Conversion keeps the content in every native form.
content() { "$apmw" trace info "$1" --format csv | tail -1 | cut -d, -f8; }
first=$(content "$samples/formats/weka-0277.json.zst")
"$apmw" trace convert "$samples/formats/weka-0277.json.zst" -o "$dir/a.jsonl" || fail convert
"$apmw" trace convert "$dir/a.jsonl" -o "$dir/b.h5" || fail convert
grep -q shared_out "$dir/a.jsonl" && fail "ids of blocks cannot tell outputs"
expect 0 "turns are taken to repeat the output" "$apmw" --log-level info trace convert "$dir/a.jsonl" --assume-outputs -o "$dir/outputs.jsonl"
grep -q shared_out "$dir/outputs.jsonl" || fail "no output is taken to recur"
"$apmw" trace convert "$dir/b.h5" -o "$dir/c.jsonl.zst" || fail convert
for file in a.jsonl b.h5 c.jsonl.zst; do
    [ "$(content "$dir/$file")" = "$first" ] || fail "$file has other content than the original"
done
[ ${#first} = 16 ] || fail "no content hash: '$first'"
expect 0 "yes" "$apmw" trace check "$dir/a.jsonl" "$dir/b.h5"
"$apmw" trace stats - <"$dir/a.jsonl" >"$dir/stdin" || fail "standard input is not read"

# check says no, and why.
head -c 1000 "$dir/a.jsonl" >"$dir/cut.jsonl"
expect 1 "truncated" "$apmw" trace check "$dir/a.jsonl" "$dir/cut.jsonl"
sed 's/,"hash":"[0-9a-f]*"//; s/"trajectories":1/"trajectories":2/' "$dir/a.jsonl" >"$dir/twice.jsonl"
sed -n 2p "$dir/a.jsonl" >>"$dir/twice.jsonl"
expect 1 "two trajectories are called trace_0277" "$apmw" trace check "$dir/twice.jsonl"
expect 65 "cut.jsonl" "$apmw" trace stats "$dir/cut.jsonl"

# Generators: the same seed, the same bytes; the published values stand beside.
"$apmw" trace synth agentperf --count 20 --seed 5 -o "$dir/s1.jsonl" || fail synth
"$apmw" trace synth agentperf --count 20 --seed 5 -o "$dir/s2.jsonl" || fail synth
cmp -s "$dir/s1.jsonl" "$dir/s2.jsonl" || fail "two runs of one seed differ"
expect 0 "published_mean" "$apmw" trace stats "$dir/s1.jsonl"
expect 0 '"published"' "$apmw" trace stats "$dir/s1.jsonl" --format json
expect 0 "claude-code" "$apmw" trace synth
expect 0 "isl_max" "$apmw" trace synth agentperf --count 0
expect 64 "makes no trace" "$apmw" trace synth agentperf --count 0 -o "$dir/none.jsonl"
expect 64 "did you mean 'isl_max'" "$apmw" trace synth agentperf islmax=5
"$apmw" trace synth claude-code --count 3 | grep -q published && fail "published values of another benchmark"
rows=$("$apmw" trace synth agentperf --count 4000 --format csv)
echo "$rows" | awk -F, '
    $1 == "isl" && ($3 < 25650 || $3 > 28350) { bad = 1 }
    $1 == "osl" && ($7 < 142.5 || $7 > 157.5 || $10 < 1900 || $10 > 2100) { bad = 1 }
    $1 == "turns" && ($3 < 36.1 || $3 > 39.9) { bad = 1 }
    { n++ }
    END { exit bad || n < 10 }' || fail "agentperf misses its published moments: $rows"

# Slices.
"$apmw" trace slice "$samples/agentperf-500.jsonl.zst" --range 10:20 --max-turns 5 -o "$dir/part.h5" || fail slice
"$apmw" trace info "$dir/part.h5" --format csv | awk -F, 'END { exit !($4 == 10 && $5 > 30 && $5 <= 50) }' ||
    fail "slice by range and turns"
"$apmw" trace slice "$samples/agentperf-500.jsonl.zst" --sample 30 --seed 2 -o "$dir/p1.jsonl" || fail sample
"$apmw" trace slice "$samples/agentperf-500.jsonl.zst" --sample 30 --seed 2 -o "$dir/p2.jsonl" || fail sample
cmp -s "$dir/p1.jsonl" "$dir/p2.jsonl" || fail "two samples of one seed differ"
expect 64 "501 out of 500" "$apmw" trace slice "$samples/agentperf-500.jsonl.zst" --sample 501 -o "$dir/p.jsonl"
expect 64 "A:B" "$apmw" trace slice "$samples/agentperf-500.jsonl.zst" --range 5 -o "$dir/p.jsonl"

# A directory is all its files; JSON output is JSON.
mkdir "$dir/all"
cp "$dir/p1.jsonl" "$dir/all/b.jsonl"
cp "$dir/s1.jsonl" "$dir/all/a.jsonl"
echo "not a trace" >"$dir/all/README.md"
expect 0 ",50," "$apmw" trace info "$dir/all" --format csv
# One trace has one block size: of two files that differ both are named, each with its own.
mkdir "$dir/blocks"
cp "$samples/formats/weka-hand.json" "$dir/blocks/a.json"
cp "$samples/formats/mooncake-hand.jsonl" "$dir/blocks/b.jsonl"
size() { "$apmw" trace info "$1" --format csv | tail -1 | cut -d, -f7; }
a=$(size "$dir/blocks/a.json")
b=$(size "$dir/blocks/b.jsonl")
[ "$a" != "$b" ] || fail "the two samples have one block size, $a"
for action in stats info; do
    expect 65 "$dir/blocks/b.jsonl: sharing is known by blocks of $b tokens, in $dir/blocks/a.json by $a" "$apmw" trace $action "$dir/blocks"
done
if command -v python3 >/dev/null; then
    "$apmw" trace stats "$dir/s1.jsonl" --format json | python3 -m json.tool >"$dir/pretty" || fail "stats is not JSON"
fi

[ $failures = 0 ] && echo "trace: all passed"
[ $failures = 0 ]
