#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What all commands share: streams, exit codes, near misses, -o, closed pipes. Arguments: program, source tree.
set -u
apmw=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0

# ends CODE TEXT COMMAND...: the exit code, TEXT on standard error, nothing on standard output.
ends()
{
    code=$1
    text=$2
    shift 2
    "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    [ "$got" -eq "$code" ] || { echo "$*: ends with $got, not $code"; bad=1; }
    [ -z "$text" ] || grep -qF -- "$text" "$dir/err" || { echo "$*: \"$text\" is not in: $(cat "$dir/err")"; bad=1; }
    [ ! -s "$dir/out" ] || { echo "$*: standard output is not empty"; bad=1; }
}
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}

ends 64 'unknown command "lst" (did you mean "list"?)' "$apmw" lst
ends 64 'unknown command "xyzzy" (known: ' "$apmw" xyzzy
ends 64 'Usage: apmw' "$apmw"
ends 64 'unknown option "--fromat" (did you mean "--format"?)' "$apmw" list --fromat csv
ends 64 'unknown format "jsn" (did you mean "json"?)' "$apmw" list --format jsn
ends 64 'unknown log level "dbug" (did you mean "debug"?)' "$apmw" --log-level dbug list
ends 64 'unknown kind "modells" (did you mean "models"?)' "$apmw" list modells
ends 64 'did you mean' "$apmw" help lisst
ends 73 'cannot write' "$apmw" list -o "$dir/no/such/file"

# With -o standard output stays empty, the file has what standard output would have had, and no temporary is left.
"$apmw" list --format json >"$dir/list.json"
ends 0 '' "$apmw" list --format json -o "$dir/named.json"
check cmp -s "$dir/list.json" "$dir/named.json"
check test "$(ls "$dir" | grep -c tmp)" -eq 0
check grep -q '"name": "list"' "$dir/list.json"

# A full device is an error; a reader that goes away is none to be told about.
"$apmw" list >/dev/full 2>"$dir/err"
check test $? -eq 74
check grep -q 'No space left' "$dir/err"
for i in 1 2 3; do "$apmw" list 2>>"$dir/pipe" | head -n 1 >/dev/null; done
check test ! -s "$dir/pipe"

check sh -c "'$apmw' --version | grep -q '^apmw [0-9.]* (.*)\$'"
check test "$("$apmw" help list)" = "$("$apmw" list --help)"

# Data come from --data, then APMW_DATA, then the source tree.
mkdir -p "$dir/data/hwmodels/models"
echo '{"name": "A model"}' >"$dir/data/hwmodels/models/m1.json"
check test "$("$apmw" --data "$dir/data" list models --format csv | tail -n 1)" = "model,m1,A model"
check test "$(APMW_DATA="$dir/data" "$apmw" list models --format csv | tail -n 1)" = "model,m1,A model"
exit "$bad"
