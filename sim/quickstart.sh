#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# From a fresh clone to the main answer: installs what is missing, builds build/release, and asks how many agents a
# megawatt carries. Run it again and only the answer is computed. Standard output carries the answer only.
set -eu
cd "$(dirname "$0")/.."
sh sim/install.sh
# The output of a step matters only when the step fails.
quietly()
{
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
}
echo "Building build/release ..." >&2
quietly cmake --preset release
quietly cmake --build --preset release

apmw=build/release/apmw
job()
{
    echo "\$ $apmw $*" >&2
    "$apmw" "$@"
}
job capacity --platform hgx-h200,hgx-b200,hgx-b300,mi355x-8 --model deepseek-v4-pro --tier 1
job capacity --platform hgx-h200,hgx-b200 --model gpt-oss-120b --tier 1
