#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# How far forms on specifications are off where tables exist: ln(forms / tables) of a decode pass (64 sequences at 4,608
# tokens) and of a prompt of 1,024 tokens, over six NVIDIA parts, models, precisions and layouts, each engine its default.
#   sh tests/bench/forms_against_tables.sh [APMW]   (minutes; deployments without tables are left out)
set -u
apmw=${1:-build/release/apmw}
for part in h100 h200 b200 b300 gb200 gb300; do
    for model in deepseek-v3-r1 deepseek-v3.2 deepseek-v4-pro deepseek-v4-flash glm-5 gpt-oss-120b kimi-k2.5 llama-3.1-70b \
        minimax-m2.5 qwen3-32b qwen3-235b-a22b qwen3.5-397b; do
        for precision in fp8 fp4; do
            for layout in "tp1 --tp 1 --ep 1" "tp4 --tp 4 --ep 1" "tp8 --tp 8 --ep 1" "dep8 --tp 1 --attention-dp 8 --ep 8"; do
                name=${layout%% *}
                for forms in "" --forms; do
                    # shellcheck disable=SC2086
                    "$apmw" model rows $part --model $model --precision $precision ${layout#* } $forms -q 2>/dev/null |
                        awk '$1 == "sum" { print $2, $3 }'
                done | awk -v key="$part $model $precision $name" '{ d[NR] = $1; p[NR] = $2 }
                    END { if (NR == 2) print key, log(d[2] / d[1]), log(p[2] / p[1]) }'
            done
        done
    done
done | awk '
    function add(group) { n[group]++; d[group] += $5; p[group] += $6; dd[group] += $5 ^ 2; pp[group] += $6 ^ 2 }
    { add("all"); add("part " $1); add("model " $2); add("layout " $4) }
    END {
        printf "%-24s %5s %22s %22s\n", "group", "n", "decode pass mean, rms", "prompt mean, rms"
        for (g in n) printf "%-24s %5d %+11.2f %10.2f %+11.2f %10.2f\n", g, n[g], d[g] / n[g], sqrt(dd[g] / n[g]), p[g] / n[g], sqrt(pp[g] / n[g]) | "sort"
    }'
