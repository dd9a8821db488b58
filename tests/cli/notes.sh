#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a reader has to know before the digits: FP4 checkpoints on parts without FP4 units. Notes stand on standard error and in
# JSON, and whether a part has the units is what its specification says.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
. "$tree/tests/support/gives.sh"
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}

# says TEXT FILE, and without: TEXT is, or is not, in FILE.
says() { grep -qF -- "$1" "$2" || { echo "\"$1\" is not in: $(head -c 600 "$2")"; bad=1; }; }
without() { ! grep -qF -- "$1" "$2" || { echo "\"$1\" is in: $(head -c 600 "$2")"; bad=1; }; }

fp4='has no FP4 matrix units'
for platform in h100 h200 mi300x mi325x; do
    "$apmw" model rows "$platform" --model deepseek-v4-pro --precision fp4 >"$dir/out" 2>"$dir/err" || bad=1
    says "note: $platform $fp4; deepseek-v4-pro at fp4 is priced with weights of attention fp8_block" "$dir/err"
    without "$fp4" "$dir/out"
done
for platform in b200 mi355x; do
    "$apmw" model rows "$platform" --model deepseek-v4-pro --precision fp4 >"$dir/out" 2>"$dir/err" || bad=1
    without "$fp4" "$dir/err"
done
# How the weights are priced is what the rows say.
"$apmw" model rows h200 --model deepseek-v4-pro --precision fp4 >"$dir/out" 2>"$dir/err"
says 'experts w4a16_mxfp4 (4.25 bits a weight, dequantised to fp8: measured rows of fp8_block less the time' "$dir/err"
says 'moe_dtype=fp8_block' "$dir/out"
"$apmw" model rows mi300x --model deepseek-v3-r1 --precision fp4 >"$dir/out" 2>"$dir/err"
says 'experts w4a4_mxfp4 (4.25 bits a weight, dequantised to bf16: a form, no measured row)' "$dir/err"
"$apmw" model rows h200 --model llama-3.1-70b --engine vllm --precision fp4 >"$dir/out" 2>"$dir/err"
says 'MLP bfloat16 (16 bits a weight)' "$dir/err"
says 'gemm_dtype=bfloat16' "$dir/out"
# Without the units INT4 experts are multiplied in bf16 as FP4 ones are, and are wider: their prompts take no less.
moe_ms() { "$apmw" model rows mi300x --model kimi-k2.5 --precision "$1" -q | awk '$1 == "moe" { print $4 }'; }
awk -v int4="$(moe_ms int4)" -v fp4="$(moe_ms fp4)" 'BEGIN { exit !(fp4 > 0 && int4 >= fp4) }' || { echo "INT4 experts are cheaper than FP4"; bad=1; }
# Nothing prices these.
gives 78 "no measured rows for moe" "$apmw" model rows h200 --model qwen3.5-397b --precision fp4
says "h200 $fp4" "$dir/out"
# An FP8 checkpoint needs no such units.
"$apmw" model rows h200 --model deepseek-v3-r1 --precision fp8 >"$dir/out" 2>"$dir/err"
without "$fp4" "$dir/err"

# A tree whose H200 has them.
mkdir -p "$dir/tree/hwmodels/specs/accelerators"
for part in hwmodels/evidence hwmodels/models hwmodels/rules hwmodels/specs/nodes sim traces; do
    ln -s "$tree/$part" "$dir/tree/$part"
done
for file in "$tree"/hwmodels/*.h5 "$tree"/hwmodels/specs/accelerators/*.json; do
    ln -s "$file" "$dir/tree/${file#"$tree"/}"
done
rm "$dir/tree/hwmodels/specs/accelerators/h200.json"
awk '/"fp4_flop_per_s"/ { inside = 1 } inside && /"value": null/ { sub(/null/, "4e15"); inside = 0 } { print }' \
    "$tree/hwmodels/specs/accelerators/h200.json" >"$dir/tree/hwmodels/specs/accelerators/h200.json"
"$apmw" --data "$dir/tree" model rows h200 --model deepseek-v4-pro --precision fp4 >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
without "$fp4" "$dir/err"

# Capacity says it once a platform, also in each row of its JSON; a run says it too; --quiet keeps it to JSON.
quick="--model deepseek-v4-pro --tier 1 --trajectories 40 --no-interval --layout tp8 --draft-tokens 0"
"$apmw" capacity --platform hgx-h200,mi300x,b200 $quick --format json >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
check test "$(grep -c "note: .* $fp4" "$dir/err")" -eq 2
check test "$(grep -c "\"h200 $fp4" "$dir/out")" -eq 1
check test "$(grep -c "\"mi300x $fp4" "$dir/out")" -eq 1
check test "$(grep -c '"notes": \[' "$dir/out")" -eq 3
"$apmw" simulate --platform h200 --model deepseek-v4-pro --layout tp8 --agents 2 --duration 20 --trajectories 20 --format json -q \
    >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
says "\"h200 $fp4" "$dir/out"
check test ! -s "$dir/err"
exit $bad
