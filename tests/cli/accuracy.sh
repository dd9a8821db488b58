#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The figures that the program is trusted for may not get worse unnoticed: errors on the judge half with and without fitted
# numbers, how often measured values lie inside their intervals, and power of models held out. Bounds are what was asked of
# the program, or, where that is less, what it has reached without any fitted number.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
points=$tree/hwmodels/evidence/serving/points.csv.zst
"$apmw" --data "$tree" validate "$points" --half judge --format csv -o "$dir/judge" 2>"$dir/err" || bad=1
"$apmw" --data "$tree" validate "$points" --half judge --no-fit --format csv -o "$dir/nofit" -q || bad=1
"$apmw" --data "$tree" validate "$points" --half judge --only platform=b200+h200,model=gpt-oss-120b+deepseek-v3-r1,mode=agg \
    --format csv -o "$dir/main" -q || bad=1
"$apmw" --data "$tree" validate "$tree/hwmodels/evidence/power/mlenergy_llm_configs.csv" --format csv -o "$dir/power" -q || bad=1

# within FILE COLUMN LOW HIGH KEY=VALUE...: the one row that has these values, and its COLUMN from LOW to HIGH.
within()
{
    file=$1 column=$2 low=$3 high=$4
    shift 4
    awk -F, -v want="$*" -v column="$column" -v low="$low" -v high="$high" '
    NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; n = split(want, pairs, " "); next }
    {
        for (i = 1; i <= n; i++) { split(pairs[i], kv, "="); if ($(col[kv[1]]) != kv[2]) next }
        found++
        value = $(col[column])
        if (value == "" || value + 0 < low || value + 0 > high) { print want ": " column " " value ", not " low " to " high; bad = 1 }
    }
    END { if (found != 1) { print want ": " found + 0 " rows"; bad = 1 } exit bad }
    ' "$dir/$file" || bad=1
}
all="platform=all model=all engine=all excluded=no"
plain="mode=agg speculative=no"
abs=median_abs_percent
within main $abs 0 6 $all $plain metric=tpot_ms
within main $abs 0 20 $all $plain metric=ttft_ms
within judge $abs 0 8 $all $plain metric=tpot_ms
within judge $abs 0 22 $all $plain metric=ttft_ms
for platform in mi300x mi325x mi355x; do
    within judge $abs 0 15 platform=$platform model=all engine=all excluded=no $plain metric=tpot_ms
done
within judge $abs 0 15 $all mode=agg speculative=yes metric=tpot_ms
within judge $abs 0 15 $all mode=disagg speculative=yes metric=tpot_ms
within judge within_90_percent 80 99 $all $plain metric=tpot_ms
within judge within_90_percent 80 99 $all $plain metric=ttft_ms
# Sums of measured kernels alone; a fit that hides a wrong price shows here.
within nofit $abs 10 17 $all $plain metric=tpot_ms
within nofit $abs 30 45 $all $plain metric=ttft_ms
awk '/rows supported/ { for (i = 1; i <= NF; i++) if ($i == "of") exit !($(i - 1) >= 0.9 * $(i + 1)) }' "$dir/err" ||
    { echo "fewer than 90 % of rows: $(cat "$dir/err")"; bad=1; }
grep -q 'rows supported' "$dir/err" || { echo "no count of supported rows"; bad=1; }
within power $abs 0 8 platform=b200 group=all half=judge step_rate=measured
within power $abs 0 12 platform=h100 group=all half=judge step_rate=measured
within power $abs 0 15 platform=b200 group=all half=judge step_rate=simulated
within power $abs 0 15 platform=h100 group=all half=judge step_rate=simulated
exit $bad
