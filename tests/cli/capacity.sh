#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# apmw capacity and apmw simulate: errors with near misses, shapes of results, the same bytes at 1 and 2 threads.
set -u
apmw=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

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
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}

ends 64 'h200' "$apmw" capacity --platform h20O --model gpt-oss-120b
ends 64 'gpt-oss-120b' "$apmw" capacity --platform h200 --model gpt-oss-120
ends 64 'no tier 9' "$apmw" capacity --platform h200 --model gpt-oss-120b --tier 9
ends 64 '--platform and --model are needed' "$apmw" capacity --platform h200
ends 64 '--tier takes a whole number' "$apmw" capacity --platform h200 --model gpt-oss-120b --tier one
ends 64 'is not tpN' "$apmw" capacity --platform h200 --model gpt-oss-120b --layout ep8
ends 64 'did you mean "--platform"' "$apmw" capacity --platfrom h200
ends 66 'no/such' "$apmw" capacity --platform h200 --model gpt-oss-120b --trace no/such.jsonl
ends 78 'does not fit' "$apmw" capacity --platform h100 --model deepseek-v4-pro --tier 1
ends 78 'measured release' "$apmw" capacity --platform h200 --model gpt-oss-120b --engine vllm --engine-version 99
ends 78 'no acceptance' "$apmw" capacity --platform h200 --model gpt-oss-120b --tier 1 --draft-tokens 2

echo '{"platform": "h200", "workload": {"agnets": 3}}' >"$dir/bad.json"
ends 65 '"agents"' "$apmw" simulate "$dir/bad.json"
ends 65 '/workload' "$apmw" capacity --scenario "$dir/bad.json"

# Where nothing carries one agent the nearest miss is shown, not the first layout tried.
"$apmw" capacity --platform b200 --model deepseek-v4-pro --tier 3 --trajectories 60 -q >"$dir/none" 2>"$dir/err"
near=$(sed -n 's/.*P25 output_speed_tok_s = \([0-9.]*\), limit 180.*/\1/p' "$dir/none")
one=$("$apmw" capacity --platform b200 --model deepseek-v4-pro --tier 3 --trajectories 60 -q --engine vllm --layout tp8 --draft-tokens 0 |
    sed -n 's/.*P25 output_speed_tok_s = \([0-9.]*\), limit 180.*/\1/p')
awk -v a="${near:-0}" -v b="${one:-0}" 'BEGIN { exit !(b > 0 && a > b) }' || { echo "nearest miss $near, one layout $one"; bad=1; }

# An operation without a price must not be free: a part without FP4 arithmetic pays at least for reading its experts.
"$apmw" model rows mi300x --model gpt-oss-120b --engine vllm --precision fp4 --tp 1 >"$dir/rows" 2>"$dir/err" || bad=1
check grep -q '^moe ' "$dir/rows"
grep -qw nan "$dir/rows" && { echo "a price that is no number"; bad=1; }

# A quick search: fixed shape of the JSON, the same bytes whatever the number of threads.
quick="--platform h200 --model gpt-oss-120b --tier 2 --engine vllm --layout tp8 --trajectories 60 --format json"
for n in 1 2; do
    OMP_NUM_THREADS=$n "$apmw" capacity $quick -o "$dir/$n.json" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
done
sed 's/"-o",$//; s/.*[12]\.json.*//' "$dir/1.json" >"$dir/a"
sed 's/"-o",$//; s/.*[12]\.json.*//' "$dir/2.json" >"$dir/b"
check cmp "$dir/a" "$dir/b"
for key in schema provenance results platform model tier layout accelerators agents agents_per_accelerator agents_per_mw \
    watts_per_accelerator watts_all_in_per_accelerator limited_by bracket pass fail interval90 outside_domain_share; do
    grep -q "\"$key\":" "$dir/1.json" || { echo "no key $key"; bad=1; }
done
check grep -q '"schema": "apmw.capacity/1"' "$dir/1.json"

# One scenario with every request kept; the verdict of an asked tier is the exit code.
cat >"$dir/ok.json" <<END
{"platform": "h200", "model": "gpt-oss-120b", "engine": "vllm", "layout": "tp8",
 "workload": {"agents": 2, "trajectories": 40}, "protocol": {"tier": 1}}
END
"$apmw" simulate "$dir/ok.json" --result "$dir/r.h5" >"$dir/out" 2>"$dir/err"
check test $? -eq 0
check grep -q 'tier 1.*: met' "$dir/out"
check test -s "$dir/r.h5"
cp "$dir/r.h5" "$dir/first.h5"
"$apmw" simulate "$dir/ok.json" --result "$dir/r.h5" >"$dir/out"
check cmp "$dir/first.h5" "$dir/r.h5"
"$apmw" simulate "$dir/ok.json" --tier 4 --format json >"$dir/out" 2>"$dir/err"
check test $? -eq 1
check grep -q '"schema": "apmw.simulation/1"' "$dir/out"

# Limits of one's own are no tier of the book: they are said, not numbered, and are the exit code all the same.
sed 's/"tier": 1/"slo": "p25.speed=30,p95.ttft=10"/' "$dir/ok.json" >"$dir/own.json"
"$apmw" simulate "$dir/own.json" >"$dir/out" 2>"$dir/err"
check test $? -eq 0
check grep -q '^own limits (P25 output speed >= 30 tok/s and P95 TTFT <= 10 s): met' "$dir/out"
"$apmw" simulate "$dir/own.json" --format json >"$dir/out" 2>"$dir/err"
check grep -q '"limits": "P25 output speed >= 30 tok/s and P95 TTFT <= 10 s"' "$dir/out"
own="--platform h200 --model gpt-oss-120b --engine vllm --layout tp8 --trajectories 60 --no-interval --slo p25.speed=100"
"$apmw" capacity $own >"$dir/out" 2>"$dir/err"
check grep -Eq '^h200 +slo ' "$dir/out"
check grep -q '^h200 own limits (P25 output speed >= 100 tok/s): ' "$dir/out"
"$apmw" capacity $own --format json >"$dir/out" 2>"$dir/err"
check grep -q '"limits": "P25 output speed >= 100 tok/s"' "$dir/out"
"$apmw" simulate --platform b200 --model llama-3.1-70b --engine vllm --precision fp8 --agents 4 --duration 60 --format csv >"$dir/out"
check grep -q '^TTFT,s,' "$dir/out"
exit "$bad"
