#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Single passes: the file in the repository is predicted, by point and row by row; a row that makes no pass is refused with its line.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
. "$tree/tests/support/gives.sh"
steps=$tree/hwmodels/evidence/serving/mi355x_glm52/steps.csv
gives 64 "knows no --half" "$apmw" --data "$tree" validate "$steps" --half judge
gives 0 median_abs_percent "$apmw" --data "$tree" validate "$steps" -q
[ "$(grep -c ' all ' "$dir/out")" -eq 2 ] || { echo "decode and prompt have no line for all: $(cat "$dir/out")"; bad=1; }
gives 0 predicted_ms "$apmw" --data "$tree" validate "$steps" --rows --format csv -q
[ "$(wc -l <"$dir/out")" -eq "$(wc -l <"$steps")" ] || { echo "not a line for each row"; bad=1; }
cp "$dir/out" "$dir/fitted"
gives 0 predicted_ms "$apmw" --data "$tree" validate "$steps" --rows --format csv -q --no-fit
cmp -s "$dir/out" "$dir/fitted" && { echo "--no-fit predicts the same as the fit"; bad=1; }
{ head -1 "$steps"; sed -n 2p "$steps" | sed 's/,decode,/,guess,/'; } >"$dir/wrong.csv"
gives 65 'wrong.csv:2: kind: "guess" is neither decode nor prompt' "$apmw" --data "$tree" validate "$dir/wrong.csv"
exit $bad
