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

# What is stated twice, or in part, is refused.
refused()
{
    code=$1
    text=$2
    shift 2
    "$@" >/dev/null 2>"$dir/err"
    got=$?
    [ "$got" -eq "$code" ] || { echo "$*: ends with $got, not $code: $(cat "$dir/err")"; bad=1; }
    grep -qF -- "$text" "$dir/err" || { echo "$*: \"$text\" is not in: $(cat "$dir/err")"; bad=1; }
}
mix=sim/scenarios/b200-prefill-h200-decode.json
refused 78 'state one' "$apmw" simulate "$mix" --layout tp8
refused 78 'state one' "$apmw" capacity --scenario "$mix" --layout tp8
refused 78 'state no disaggregation' "$apmw" capacity --scenario "$mix" --search-layout
refused 78 'state no layout' "$apmw" capacity --platform h200 --model gpt-oss-120b --layout tp8 --search-layout
refused 78 'more than 65536' "$apmw" simulate --platform h200 --model gpt-oss-120b --engine vllm --layout tp65536x65536
refused 78 'draft_tokens' "$apmw" simulate --platform h200 --model gpt-oss-120b --engine vllm --acceptance 2.5
refused 78 'draft' "$apmw" capacity --platform h200 --model gpt-oss-120b --acceptance 2.5
echo '{"disaggregation": {"prefill": {"layout": "tp4x1", "platform": "b200"}, "decode": {"layout": "tp4x1", "platform": "h200"}},
 "model": "gpt-oss-120b", "engine": "vllm"}' >"$dir/both.json"
refused 78 'nothing to compare' "$apmw" capacity --scenario "$dir/both.json" --platform h100,h200

# Pools of different hardware: both are named, and the limit is that of a mean accelerator, (2 x 1000 + 8 x 700) / 10.
"$apmw" simulate "$mix" --agents 4 --duration 60 -q >"$dir/out" 2>"$dir/err"
grep -q '^b200+h200 ' "$dir/out" || { echo "not both platforms: $(head -1 "$dir/out")"; bad=1; }
grep -q '(limit 760)' "$dir/out" || { echo "limit of a mean accelerator: $(grep limit "$dir/out")"; bad=1; }

# KV of two bytes an element is twice the bytes on the link.
for dtype in fp8 bf16; do
    echo '{"platform": "h200", "model": "deepseek-v3-r1", "engine": "sglang", "kv_dtype": "'$dtype'", "disaggregation":
     {"prefill": {"layout": "tp8x1"}, "decode": {"layout": "tp8x1"}}, "workload": {"kind": "fixed", "slots": 2, "requests": 4}}' \
        >"$dir/$dtype.json"
    "$apmw" simulate "$dir/$dtype.json" --format json -q | sed -n 's/.*"kv_bytes_sent": \([0-9]*\).*/\1/p' >"$dir/$dtype"
done
awk -v a="$(cat "$dir/fp8")" -v b="$(cat "$dir/bf16")" 'BEGIN { exit !(a > 0 && b / a > 1.99 && b / a < 2.01) }' ||
    { echo "bytes of fp8 and bf16: $(cat "$dir/fp8") $(cat "$dir/bf16")"; bad=1; }

# Tokenizing costs pools what it costs engines that do everything: the same front end is at its limit.
for pools in '"layout": "tp8"' '"disaggregation": {"prefill": {"layout": "tp8x1"}, "decode": {"layout": "tp8x1"}}'; do
    echo '{"platform": "h200", "model": "gpt-oss-120b", "engine": "vllm", '"$pools"', "engine_settings": {"frontend_scale": 30},
     "workload": {"agents": 30}, "duration_s": 120}' >"$dir/front.json"
    "$apmw" simulate "$dir/front.json" --format json -q | awk '/"queue_s"/ {inside = 1} inside && /"p50"/ {gsub(/[^0-9.]/, "", $2);
        print ($2 > 2) ? "slow" : "fast"; exit}' >>"$dir/front"
done
[ "$(sort -u "$dir/front")" = slow ] || { echo "front ends: $(cat "$dir/front")"; bad=1; }
exit $bad
