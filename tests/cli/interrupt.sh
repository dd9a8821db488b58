#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# SIGINT during apmw capacity: it ends soon with exit code 75 and prints what is known by then, marked partial, in every
# format; the same study left alone has nothing partial.
set -u
apmw=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}

# Half a minute of work or more, of which the first results come within seconds.
long="--platform h200,b200,b300,gb300,mi355x --model deepseek-v4-pro"
# interrupt AFTER OPTIONS...: the exit code.
interrupt()
{
    after=$1
    shift
    "$apmw" capacity $long "$@" >"$dir/out" 2>"$dir/err" &
    pid=$!
    sleep "$after"
    kill -INT "$pid"
    wait "$pid"
    code=$?
}

interrupt 3 --format json
check test "$code" -eq 75
# That it ended before its work was done is what "partial" says below; how much it still did after the signal is counted in
# passes by tests/property/experiment/test_study_stop.c: seconds are a matter of the machine.
check grep -q 'interrupted: what was known' "$dir/err"
check grep -q '"schema": "apmw.capacity/1"' "$dir/out"
check grep -q '^ "partial": true,' "$dir/out"
check grep -q '"partial": "' "$dir/out"
# Whole JSON: it ends with the brace that closes the first line's, and rows of all platforms are there.
check test "$(grep -v '^$' "$dir/out" | tail -n 1)" = "}"
for platform in h200 b200 b300 gb300 mi355x; do
    grep -q "\"platform\": \"$platform\"" "$dir/out" || { echo "no row of $platform"; bad=1; }
done
# Something was found: at least one row has agents.
check grep -q '"agents": [1-9]' "$dir/out"

interrupt 2 --format csv
check test "$code" -eq 75
check grep -q '^platform,.*,partial$' "$dir/out"

# Left alone, a study is complete and says so.
"$apmw" capacity --platform h200 --model gpt-oss-120b --tier 2 --engine vllm --layout tp8 --trajectories 60 --no-interval \
    --format json >"$dir/out" 2>"$dir/err"
check test $? -eq 0
check grep -q '^ "partial": false,' "$dir/out"
check grep -q '"partial": null' "$dir/out"
exit "$bad"
