#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every combination of disaggregation, speculation, tiers of KV and protocol runs, or is refused with a reason; one that runs
# serves its requests and keeps the laws, which every run checks.
set -u
apmw=$1
cd "$2" || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
ran=0
refused=0
for pools in whole apart; do
    for drafts in 0 3; do
        for tiers in none host deep; do
            for protocol in v2026-06 agentx; do
                case $pools in
                whole) layout='"layout": "tp4x2"' ;;
                apart) layout='"disaggregation": {"prefill": {"layout": "tp4x1"}, "decode": {"layout": "tp4x1"}}' ;;
                esac
                case $tiers in
                none) kv='"_kv": 0' ;;
                host) kv='"kv_tiers": {"tiers": [{"kind": "host", "gbyte": 20}]}' ;;
                deep) kv='"kv_tiers": {"write": "back", "prefetch": true, "tiers": [{"kind": "host", "gbyte": 5},
                      {"kind": "nvme", "gbyte": 50}, {"kind": "remote", "gbyte": 100}]}' ;;
                esac
                name="$pools drafts=$drafts tiers=$tiers $protocol"
                cat >"$dir/s.json" <<END
{"platform": "h200", "model": "gpt-oss-120b", "engine": "vllm", $layout, "memory_fraction": 0.16, $kv,
 "speculation": {"draft_tokens": $drafts, "acceptance_length": $([ $drafts -eq 0 ] && echo 1 || echo 2.2)},
 "workload": {"agents": 24, "trajectories": 20, "output_cached": true}, "protocol": "$protocol", "duration_s": 120}
END
                "$apmw" simulate "$dir/s.json" --format json -q >"$dir/out" 2>"$dir/err"
                code=$?
                if [ $code -eq 0 ]; then
                    ran=$((ran + 1))
                    n=$(sed -n 's/.*"done": \([0-9]*\).*/\1/p' "$dir/out" | head -1)
                    [ "${n:-0}" -gt 20 ] || { echo "$name: ${n:-no} requests"; bad=1; }
                elif [ $code -eq 78 ] && [ -s "$dir/err" ]; then
                    refused=$((refused + 1))
                    echo "refused: $name: $(cat "$dir/err")"
                else
                    echo "$name ends with $code: $(cat "$dir/err")"
                    bad=1
                fi
            done
        done
    done
done
echo "$ran ran, $refused refused"
[ $((ran + refused)) -eq 24 ] || bad=1
[ "$ran" -ge 12 ] || bad=1
exit $bad
