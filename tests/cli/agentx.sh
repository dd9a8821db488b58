#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# apmw simulate and capacity under AgentX: what is printed, what is refused, the same bytes twice.
set -u
apmw=$1
source=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}
# ends CODE TEXT COMMAND...: the exit code, TEXT on standard error, nothing on standard output.
ends()
{
    code=$1
    text=$2
    shift 2
    "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    [ "$got" -eq "$code" ] || { echo "$*: ends with $got, not $code: $(cat "$dir/err")"; bad=1; }
    grep -qF -- "$text" "$dir/err" || { echo "$*: \"$text\" is not in: $(cat "$dir/err")"; bad=1; }
    [ ! -s "$dir/out" ] || { echo "$*: standard output is not empty"; bad=1; }
}
# number KEY FILE: the value of a key that occurs once.
number()
{
    sed -n "s/^ *\"$1\": \([-0-9.e+]*\),*$/\1/p" "$2"
}

trace="$source/traces/samples/weka-cc-042026.jsonl.zst"
run="--platform b200 --model deepseek-v4-pro --engine vllm --layout dep8 --trace $trace"
cat >"$dir/s.json" <<END
{"platform": "b200", "model": "deepseek-v4-pro", "engine": "vllm", "layout": "dep8", "protocol": "agentx-fast",
 "workload": {"agents": 4, "trace": "$trace"}}
END
check "$apmw" simulate "$dir/s.json" -o "$dir/text"
check grep -q '^b200 .* 4 lanes: ' "$dir/text"
check grep -q '^AgentX: .* tok/s an accelerator' "$dir/text"
check grep -q 'per all-in megawatt' "$dir/text"
for i in 1 2; do
    check "$apmw" simulate "$dir/s.json" --format json -o "$dir/json"
    mv "$dir/json" "$dir/$i.json"
done
check cmp "$dir/1.json" "$dir/2.json"
for key in profile_s sent refused completed sessions total_tok_s_per_accelerator interactivity_p90_tok_s \
    e2e_interactivity_p90_tok_s ttft_p90_s total_tok_s_per_all_in_mw usd_per_million_tokens; do
    [ -n "$(number "$key" "$dir/1.json")" ] || { echo "no number for $key"; bad=1; }
done
# Tokens add up, and the profile is that of the rules.
check awk -v w="$(number profile_s "$dir/1.json")" -v i="$(number input_tok_s_per_accelerator "$dir/1.json")" \
    -v o="$(number output_tok_s_per_accelerator "$dir/1.json")" -v t="$(number total_tok_s_per_accelerator "$dir/1.json")" \
    'BEGIN { exit !(w > 1199.9 && w < 1200.1 && t > 0 && (i + o - t) ^ 2 < 1e-12 * t ^ 2) }'
# AgentPerf prints none of it.
check "$apmw" simulate $run --agents 2 --duration 60 -o "$dir/text"
check sh -c "! grep -q AgentX '$dir/text'"

ends 64 'has no tiers' "$apmw" capacity $run --protocol agentx
ends 64 'has no tiers' "$apmw" simulate $run --protocol agentx --tier 1
ends 64 'agentx-fast' "$apmw" simulate $run --protocol agentsx
check "$apmw" capacity $run --protocol agentx-fast --slo p10.speed=20,p90.ttft=20 --no-interval -o "$dir/capacity"
check grep -q 'protocol agentx-fast, lanes that start at 25 to 75 % of a session, profile of 1200 s' "$dir/capacity"
exit "$bad"
