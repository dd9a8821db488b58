#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What a reader has to know before the digits: FP4 checkpoints on parts without FP4 units, and parts of which nothing but
# specifications is known. Notes stand on standard error and in
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

# Projected parts are priced by forms on their specifications, marked, and without watts where no power is published.
projected='is projected, nothing was measured on it: every operation is priced by a form on its specifications'
"$apmw" model rows vr-nvl72 --model deepseek-v4-pro --precision fp4 >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
says "note: vr200 $projected (hwmodels/specs/accelerators/vr200.json)" "$dir/err"
grep -v '^#' "$dir/out" | grep -v '^sum ' | grep -v 'form: ' && { echo "priced by no form"; bad=1; }
# A switch gives any group the whole of a part's bandwidth.
bandwidth=$(awk '/"scaleup_bytes_per_s"/ { inside = 1 } inside && /"value"/ { print $2 + 0; exit }' "$tree/hwmodels/specs/accelerators/vr200.json")
awk -v rate="$bandwidth" '$1 == "allreduce" { match($0, /form: [0-9]+ x \([0-9]+ us/); split(substr($0, RSTART, RLENGTH), w, /[ (]+/)
        want = 1e3 * w[2] * (1e-6 * w[4] + 2 * 7 / 8 * 1024 * 7168 * 2 / (0.65 * rate)); found = $4 - want < 0.01 && want - $4 < 0.01 }
    END { exit !found }' "$dir/out" || { echo "all-reduce through a switch: $(grep allreduce "$dir/out")"; bad=1; }

gives 0 'form, wide' "$apmw" model show vr200 -q

quick="--model deepseek-v4-pro --tier 1 --trajectories 40 --layout tp8 --draft-tokens 0 --engine sglang"
"$apmw" capacity --platform vr-nvl72,helios-72 $quick --no-interval >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
check grep -Eq '^vr200 \(projected\) +1 ' "$dir/out"
check grep -Eq '^mi455x \(projected\) +1 ' "$dir/out"
says "note: mi455x $projected" "$dir/err"
says 'where bf16_flop_per_s is an estimate; its power is not published, so there are no figures per MW' "$dir/err"
"$apmw" capacity --platform helios-72 $quick >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
without nan "$dir/out"
check grep -q '^90 % interval of agents by source: step time -[1-9]' "$dir/out"
"$apmw" simulate --platform vr-nvl72 --model deepseek-v4-pro --layout tp8 --agents 2 --duration 20 --trajectories 20 --format json -q \
    >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; bad=1; }
check grep -q '"projected": true' "$dir/out"
says "\"vr200 $projected" "$dir/out"

# Power of a projected part scales by TDP, where there is one.
gives 0 'scaled from b200 by TDP: no measured power' "$apmw" fit platforms --platform vr200 --into "$dir"
check cmp "$dir/vr200.h5" "$tree/hwmodels/vr200.h5"
rm -f "$dir/tree/hwmodels/vr200.h5"
"$apmw" --data "$dir/tree" capacity --platform vr-nvl72 $quick --no-interval --format csv -q >"$dir/out" 2>&1
check grep -Eq '^vr200,1,sglang,tp8,0,[1-9][0-9]*,[0-9.]+,,.*,,yes$' "$dir/out" # no watts, no domain, projected
cp "$dir/vr200.h5" "$dir/tree/hwmodels/vr200.h5"
"$apmw" --data "$dir/tree" capacity --platform vr-nvl72 $quick --no-interval --format json -q >"$dir/out" 2>&1
check grep -q '"agents_per_mw": [1-9]' "$dir/out"
"$apmw" fit platforms --platform mi455x --into "$dir" >/dev/null
check test ! -e "$dir/mi455x.h5"

# A form without the number that it scales by is refused.
rm "$dir/tree/hwmodels/specs/accelerators/mi455x.json"
awk '/"bf16_flop_per_s"/ { inside = 1 } inside && /"value"/ { $0 = "  \"value\": null, \"reason\": \"not published\","; inside = 0 } { print }' \
    "$tree/hwmodels/specs/accelerators/mi455x.json" >"$dir/tree/hwmodels/specs/accelerators/mi455x.json"
for command in capacity simulate; do
    gives 78 'mi455x is projected from specifications only, and its specifications do not tell bf16_flop_per_s' \
        "$apmw" --data "$dir/tree" "$command" --platform helios-72 --model deepseek-v4-pro
done

# Forms on the specifications of parts with tables come as near to these as the interval of projected parts says.
for run in "b200 deepseek-v4-pro fp4" "b200 deepseek-v3-r1 fp8" "b200 gpt-oss-120b fp4" "h200 deepseek-v3-r1 fp8" "h200 llama-3.1-70b fp8"; do
    set -- $run
    for forms in "" --forms; do
        "$apmw" model rows "$1" --model "$2" --precision "$3" -q $forms | awk '$1 == "sum" { print $2, $3 }'
    done | awk -v run="$run" -v rules="$tree/hwmodels/rules/rows.json" '{ decode[NR] = $1; prompt[NR] = $2 }
        END {
            while ((getline line <rules) > 0)
                if (line ~ /\["rubin", "cdna5"\]}, "form_sd_time"/) {
                    match(line, /"form_sd_time": [0-9.]+/); time = substr(line, RSTART + 16, RLENGTH - 16)
                    match(line, /"form_sd_ttft": [0-9.]+/); ttft = substr(line, RSTART + 16, RLENGTH - 16)
                }
            d = log(decode[2] / decode[1]); p = log(prompt[2] / prompt[1])
            bad = NR != 2 || d == 0 || d * d > (1.645 * time) ^ 2 || p * p > (1.645 * ttft) ^ 2
            if (bad) print run ": forms by tables, ln " d " and " p
            exit bad
        }' || bad=1
done

# Hyper-connections by form: within a third of their tables, whose rows are two.
for forms in "" --forms; do
    "$apmw" model rows b200 --model deepseek-v4-pro --precision fp4 -q $forms | awk '$1 == "mhc" { d += $3; p += $4 } END { print d, p }'
done | awk '{ decode[NR] = $1; prompt[NR] = $2 }
    function far(a, b) { return !(a > b / 1.5 && a < b * 1.5) }
    END { exit NR != 2 || far(decode[2], decode[1]) || far(prompt[2], prompt[1]) }' || { echo "hyper-connections: form and tables"; bad=1; }
exit $bad
