#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The fixed shape of validation results, the halves, and errors that name the place.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
. "$tree/tests/support/gives.sh"
has()
{
    grep -qF -- "$1" "$dir/out" || { echo "\"$1\" is not in the result"; bad=1; }
}

gives 66 "nofile.csv" "$apmw" validate "$dir/nofile.csv"
echo "a,b" >"$dir/columns.csv"
gives 65 'column "platform" is missing' "$apmw" validate "$dir/columns.csv"
echo "platform,model,engine,isl,osl" >"$dir/columns.csv"
gives 65 'column "concurrency" is missing' "$apmw" validate "$dir/columns.csv"
gives 64 "--half" "$apmw" validate --half both "$dir/columns.csv"
gives 64 "--only" "$apmw" validate --only colour=red "$dir/columns.csv"

# Two points: one that can be predicted and one of a model that does not exist.
cat >"$dir/points.csv" <<'P'
id,platform,model,engine,precision,mode,isl,osl,concurrency,accelerators,tp,pp,attention_dp,moe_tp,moe_ep,spec_method,length_range_ratio,statistic,ttft_ms,tpot_ms
one,h200,llama-3.1-70b,trtllm,fp8,agg,1024,1024,4,4,4,1,1,1,1,none,0.8,mean,100,10
two,h200,llama-9,trtllm,fp8,agg,1024,1024,4,4,4,1,1,1,1,none,0.8,mean,100,10
P
gives 0 '"schema": "apmw.validation/1"' "$apmw" --data "$tree" validate "$dir/points.csv" --format json
for key in '"provenance"' '"rows"' '"groups"' '"measured"' '"predicted"' '"power_w_per_gpu"' '"median_signed_error"' \
    '"p90_abs_error"' '"supported": true' '"supported": false' 'llama-9'; do
    has "$key"
done
cp "$dir/out" "$dir/fitted"
# Some of several values.
gives 64 'no row is left' "$apmw" --data "$tree" validate "$dir/points.csv" --only model=llama-3.1-7
for case in llama-3.1-70b:1 llama-9+llama-3.1-70b:2 llama-3.1-70b+qwen3-32b:1; do
    "$apmw" --data "$tree" validate "$dir/points.csv" --only "model=${case%:*}" --rows --format csv >"$dir/some" 2>/dev/null
    n=$(($(wc -l <"$dir/some") - 1))
    [ "$n" -eq "${case#*:}" ] || { echo "--only model=${case%:*}: $n rows"; bad=1; }
done
gives 0 apmw.validation/1 "$apmw" --data "$tree" validate "$dir/points.csv" --format json --no-fit
grep tpot_ms "$dir/out" >"$dir/plain.tpot"
grep tpot_ms "$dir/fitted" >"$dir/fitted.tpot"
cmp -s "$dir/plain.tpot" "$dir/fitted.tpot" && { echo "--no-fit predicts the same as the fit"; bad=1; }
# Errors of tables are in %: as many of the measured value as the row's own two values are apart.
"$apmw" --data "$tree" validate "$dir/points.csv" --rows --format csv -q >"$dir/rows" 2>&1
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; next }
    $1 == "one" {
        want = 100 * ($(col["predicted_tpot_ms"]) / $(col["tpot_ms"]) - 1)
        have = $(col["tpot_error_percent"])
        found = have != "" && have - want < 0.5 && want - have < 0.5
    }
    END { exit !found }' "$dir/rows" || { echo "no TPOT error in %: $(cat "$dir/rows")"; bad=1; }
{ head -1 "$tree/hwmodels/evidence/power/mlenergy_llm_configs.csv"; grep -m 30 B200 "$tree/hwmodels/evidence/power/mlenergy_llm_configs.csv"; } >"$dir/power.csv"
gives 0 median_abs_percent "$apmw" --data "$tree" validate "$dir/power.csv" -q
grep -q '_error' "$dir/out" && { echo "errors of power are not in %: $(head -1 "$dir/out")"; bad=1; }
exit $bad
