#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Measured runs of listed requests: those in the repository are predicted, within 15 % of time per token and 35 % of time to first
# token at every fixed-length point and 15 % of agents' turns from end to end (partly in sample: acceptance and cached tokens
# are those logged); files that make no run are refused with their line.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
. "$tree/tests/support/gives.sh"
data=$tree/hwmodels/evidence/serving/mi355x_glm52
gives 0 e2e_error_percent "$apmw" --data "$tree" validate "$data/runs.csv" --format csv -q
awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    function beyond(x, most) { return x > most || x < -most }
    NR > 1 && $2 == "fixed" && $3 != "" { fixed++; if (beyond($at["tpot_error_percent"], 15) || beyond($at["ttft_error_percent"], 35)) { print; wrong++ } }
    NR > 1 && $2 == "turns" && $3 != "" { turns++; if (beyond($at["e2e_error_percent"], 15)) { print; wrong++ } }
    END { exit fixed != 12 || turns != 3 || wrong > 0 }' "$dir/out" || { echo "runs are missing, or out of bounds"; bad=1; }
gives 0 predicted_e2e_ms "$apmw" --data "$tree" validate "$data/runs.csv" --rows --format csv -q
[ "$(wc -l <"$dir/out")" -eq "$(wc -l <"$data/requests.csv")" ] || { echo "not a line for each request"; bad=1; }
cp "$data/scenario.json" "$data/runs.csv" "$dir"
{ head -2 "$data/requests.csv"; echo fixed_p50_c1,100,10,100,,,; } >"$dir/requests.csv"
gives 65 'requests.csv:3: cached_tokens: as long as the prompt' "$apmw" --data "$tree" validate "$dir/runs.csv"
{ head -2 "$data/requests.csv"; echo fixed_p50_c2,100,10,0,,,; } >"$dir/requests.csv"
gives 65 'requests.csv:3: run: "fixed_p50_c2" is not in runs.csv' "$apmw" --data "$tree" validate "$dir/runs.csv"
head -2 "$data/requests.csv" >"$dir/requests.csv"
gives 65 'no request of run fixed_p50_c8' "$apmw" --data "$tree" validate "$dir/runs.csv"
sed 's/^fixed_p50_c1,fixed,1,2.913/fixed_p50_c1,fixed,1,0.5/' "$data/runs.csv" >"$dir/runs.csv"
gives 65 'runs.csv:2: accept_length' "$apmw" --data "$tree" validate "$dir/runs.csv"
exit $bad
