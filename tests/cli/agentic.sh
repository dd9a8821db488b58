#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Measured agent replays (hwmodels/evidence/agentic) against the same runs simulated: hit rates, latencies below the knee,
# the knee itself; what is refused; the same bytes twice.
set -u
apmw=$1
source=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
runs="$source/hwmodels/evidence/agentic"
# refused CODE TEXT COMMAND...
refused()
{
    code=$1
    text=$2
    shift 2
    "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    [ "$got" -eq "$code" ] || { echo "$*: ends with $got, not $code: $(cat "$dir/err")"; bad=1; }
    grep -qF -- "$text" "$dir/err" || { echo "$*: \"$text\" is not in: $(cat "$dir/err")"; bad=1; }
}
cd "$dir" || exit 1

"$apmw" validate --agentic "$runs" --format csv -o "$dir/all.csv" || bad=1
"$apmw" validate --agentic "$runs" -o "$dir/table" || bad=1
"$apmw" validate --agentic "$runs" --format csv -o "$dir/again.csv" || bad=1
cmp -s "$dir/all.csv" "$dir/again.csv" || { echo "not the same bytes twice"; bad=1; }
# Below the knee: hits within 3 points, medians within 25 %, requests within 33 %. Above it HBM keeps next to nothing for the next turn, and host memory
# what it did at 32 and 48 users; at the knee itself (24) the two together do.
awk -F, '
NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
function value(name) { return $(col[name]) }
function off(name, limit, what) {
    d = value("predicted_" name) - value(name)
    if (value("predicted_" name) == "" || d > limit || d < -limit) {
        printf "%s: %s %s against %s measured\n", $1, what, value("predicted_" name), value(name); bad = 1
    }
}
$1 == "tp4_u12_off_d8" || $1 == "tp4_u256_on_n1" {
    if (value("predicted_requests") != "" || value("reason") == "") { print $1 ": excluded, and predicted"; bad = 1 }
    next
}
value("users") <= 16 {
    below++
    off("gpu_hit_percent", 3, "GPU hit %")
    if (value("ttft_error_percent")^2 > 625) { print $1 ": TTFT off by " value("ttft_error_percent") " %"; bad = 1 }
    if (value("tpot_error_percent")^2 > 625) { print $1 ": TPOT off by " value("tpot_error_percent") " %"; bad = 1 }
    if (value("predicted_requests") > 1.33 * value("requests") || value("predicted_requests") < 0.67 * value("requests")) {
        print $1 ": " value("predicted_requests") " requests for " value("requests"); bad = 1
    }
}
value("users") >= 24 && value("offload") == "off" {
    alone++
    off("gpu_hit_percent", 4, "GPU hit %")
    if (value("ttft_error_percent")^2 > 26 * 26) { print $1 ": TTFT off by " value("ttft_error_percent") " %"; bad = 1 }
}
value("users") >= 32 && value("users") <= 64 { above++; off("gpu_hit_percent", 3, "GPU hit %") }
value("users") >= 32 && value("users") <= 48 && value("offload") == "on" { host++; off("host_hit_percent", 3, "host hit %") }
value("users") == 24 && value("offload") == "on" {
    host++
    d = value("predicted_gpu_hit_percent") + value("predicted_host_hit_percent") - value("gpu_hit_percent") - value("host_hit_percent")
    if (d > 3 || d < -3) { print $1 ": hits in both off by " d " points"; bad = 1 }
    if (value("predicted_ttft_p50_s") > 13) { print $1 ": TTFT " value("predicted_ttft_p50_s") " s against " value("ttft_p50_s"); bad = 1 }
}
END { if (below != 11 || alone != 6 || above != 6 || host != 3) { print "runs are missing: " below " " alone " " above " " host; bad = 1 } exit bad }
' "$dir/all.csv" || bad=1
for kind in without with; do
    for side in measured predicted; do
        grep -qF "knee, $kind host offload, $side: between 16 and 24 users" "$dir/table" ||
            { echo "the knee $kind offload, $side: $(grep knee "$dir/table")"; bad=1; }
    done
done
# One run alone is the same as among the others.
"$apmw" validate --agentic "$runs" --run tp4_u4_off_d4 --format csv -o "$dir/one.csv" || bad=1
[ "$(grep '^tp4_u4_off_d4,' "$dir/one.csv")" = "$(grep '^tp4_u4_off_d4,' "$dir/all.csv")" ] || { echo "one run alone differs"; bad=1; }
"$apmw" validate --agentic "$runs" --run tp4_u1_on_n0 --format json -o "$dir/one.json" || bad=1
grep -q '"schema": *"apmw.agentic-validation/1"' "$dir/one.json" || { echo "no schema in JSON"; bad=1; }

refused 64 'no run "u4"' "$apmw" validate --agentic "$runs" --run u4
refused 64 'of --agentic DIR' "$apmw" validate --run u4
refused 64 'not both' "$apmw" validate --agentic "$runs" "$runs/steps.csv"
refused 66 'scenario.json' "$apmw" validate --agentic "$dir"
cp "$runs"/*.json "$runs"/*.csv "$dir"
sed -i 's/,duration_s,/,duration,/' "$dir/runs.csv"
refused 65 'duration_s' "$apmw" validate --agentic "$dir"
cp "$runs/runs.csv" "$dir"
# Waits are those of waits.csv, if there is one; a wrong line is refused.
rm "$dir/waits.csv"
"$apmw" validate --agentic "$dir" --run tp4_u24_on_d4 --format csv -o "$dir/short.csv" || bad=1
[ "$(grep '^tp4_u24_on_d4,' "$dir/short.csv")" != "$(grep '^tp4_u24_on_d4,' "$dir/all.csv")" ] || { echo "waits.csv changes nothing"; bad=1; }
printf 'session,turn,wait_s\ntrace_0641,100000,1\n' >"$dir/waits.csv"
refused 65 'waits.csv: line 2: session "trace_0641" has no turn 100000' "$apmw" validate --agentic "$dir"
printf 'session,turn,wait_s\ntrace_0641,1.5,1\n' >"$dir/waits.csv"
refused 65 'waits.csv: line 2: session "trace_0641" has no turn 1.5' "$apmw" validate --agentic "$dir"
printf 'session,turn,wait_s\nnobody,1,1\n' >"$dir/waits.csv"
refused 65 'waits.csv: line 2: the trace has no session "nobody"' "$apmw" validate --agentic "$dir"
rm "$dir/waits.csv"
ln -s /nowhere/at/all "$dir/waits.csv"
refused 66 'waits.csv' "$apmw" validate --agentic "$dir"
rm "$dir/waits.csv"
cp "$runs/waits.csv" "$dir"
sed -i 's/^ "kv_tiers".*$//' "$dir/scenario.json"
refused 78 'has no kv_tiers' "$apmw" validate --agentic "$dir"

# The same as a scenario of its own; a search has no use for given users.
cat >"$dir/s.json" <<END
{"platform": "b200", "model": "deepseek-v3-r1", "engine": "vllm", "precision": "fp4", "layout": "tep4", "accelerators": 4,
 "engine_settings": {"graph_padding": "sequences"},
 "workload": {"agents": 4, "trace": "$source/traces/samples/weka-cc-042026.jsonl.zst", "starts": "$runs/users.csv",
  "sent": {"output_tokens": 3000, "answer_tokens": 1500, "max_delay_s": 60, "max_recorded_tokens": 128000}}, "duration_s": 900}
END
"$apmw" simulate "$dir/s.json" >"$dir/text" || bad=1
grep -q ' 4 agents: ' "$dir/text" || { echo "no run of four users: $(cat "$dir/text")"; bad=1; }
refused 78 'apmw simulate plays it' "$apmw" capacity --scenario "$dir/s.json" --slo p25.speed=20
# Other engines capture other sizes; one whose sizes are not known is refused by test_padded_cost.
"$apmw" simulate "$dir/s.json" --engine sglang >"$dir/text" || { echo "no graph padding with SGLang"; bad=1; }
exit $bad
