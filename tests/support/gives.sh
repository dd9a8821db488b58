# SPDX-License-Identifier: GPL-3.0-or-later
# For scripts with $dir and $bad. gives CODE TEXT COMMAND...: the exit code, and TEXT in what it prints, kept in $dir/out.
gives()
{
    code=$1
    text=$2
    shift 2
    "$@" >"$dir/out" 2>&1
    got=$?
    [ "$got" -eq "$code" ] || { echo "$*: ends with $got, not $code: $(cat "$dir/out")"; bad=1; }
    [ -z "$text" ] || grep -qF -- "$text" "$dir/out" || { echo "$*: \"$text\" is not in: $(cat "$dir/out")"; bad=1; }
}
