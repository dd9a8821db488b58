#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# apmw capacity --search-layout: splits are guessed and the best simulated; a layout that was simulated alone carries no more
# than the row that won; the same bytes at 1 and 2 threads.
set -u
apmw=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
common="--platform h200 --model gpt-oss-120b --engine vllm --accelerators 4 --tier 2 --trajectories 60 --no-interval -q"
for n in 1 2; do
    OMP_NUM_THREADS=$n "$apmw" capacity $common --search-layout=3 >"$dir/$n.txt" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
done
cmp -s "$dir/1.txt" "$dir/2.txt" || { echo "other bytes at 2 threads"; bad=1; }
line=$(grep '^vllm: [0-9]* splits guessed' "$dir/1.txt") || { echo "no line on the search"; exit 1; }
[ "$(echo "$line" | grep -o '(' | wc -l)" -eq 3 ] || { echo "not three simulated: $line"; bad=1; }
# A pair of pools takes part in four accelerators.
wide=$(OMP_NUM_THREADS=2 "$apmw" capacity $common --search-layout=40 2>/dev/null)
echo "$wide" | grep -q ' [a-z0-9]*+[a-z0-9]* draft 0 (' || { echo "no pair of pools was tried"; bad=1; }
# The frontier: fewer agents an accelerator from row to row, and more a megawatt.
echo "$wide" | awk '/^h200  / {if (rows++ && ($6 >= agents || $8 <= mw)) bad = 1; agents = $6; mw = $8} END {exit bad || rows < 1}' ||
    { echo "not a frontier: $wide"; bad=1; }
won=$(awk '/^h200/ {print $5; exit}' "$dir/1.txt")
agents() { awk '/^h200/ {print $6; exit}'; }
best=$(echo "$wide" | agents)
alone=$("$apmw" capacity $common --layout tp4 | agents)
[ "${best:-0}" -ge "${alone:-1}" ] || { echo "tp4 alone carries $alone, the search found $best"; bad=1; }
[ -n "$won" ] || bad=1
"$apmw" capacity $common --search-layout=0 >/dev/null 2>"$dir/err"
[ $? -eq 64 ] || { echo "--search-layout=0 was taken"; bad=1; }
exit $bad
