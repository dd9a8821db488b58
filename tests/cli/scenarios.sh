#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every example in sim/scenarios runs for a short while, and its resolved form runs to the same result.
set -u
apmw=$1
cd "$2" || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
n=0
for file in sim/scenarios/*.json; do
    n=$((n + 1))
    load="--agents 4"
    grep -q '"kind": "fixed"' "$file" || load="$load --duration 60"
    "$apmw" simulate "$file" $load --format json -q >"$dir/out.json" 2>"$dir/err" ||
        { echo "$file: $(cat "$dir/err")"; bad=1; continue; }
    grep -q '"schema": "apmw.simulation/1"' "$dir/out.json" || { echo "$file: no schema"; bad=1; }
    # A pair of pools is named by both.
    if grep -q '"disaggregation"' "$file"; then
        grep -q '"layout": "[a-z0-9]*+[a-z0-9]*"' "$dir/out.json" || { echo "$file: one pool in the result"; bad=1; }
        "$apmw" simulate "$file" $load -q 2>/dev/null | grep -q '^pools: prefill' || { echo "$file: no line on pools"; bad=1; }
    fi
done
[ "$n" -ge 8 ] || { echo "only $n scenarios"; bad=1; }

# What cannot be is refused with the pool that is at fault.
echo '{"platform": "h200", "model": "deepseek-v4-pro", "engine": "vllm",
 "disaggregation": {"prefill": {"layout": "tp2x1"}, "decode": {"layout": "tp8x1"}}}' >"$dir/small.json"
"$apmw" simulate "$dir/small.json" >/dev/null 2>"$dir/err"
[ $? -eq 78 ] || { echo "weights that do not fit: $(cat "$dir/err")"; bad=1; }
grep -q 'prefill pool.*does not fit\|does not fit.*prefill pool' "$dir/err" || { echo "no pool named: $(cat "$dir/err")"; bad=1; }
exit $bad
