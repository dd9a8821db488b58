#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every symbol that a library exports begins with apmw_. Arguments: program (its directory holds the libraries).
set -eu
cd "$(dirname "$1")"
libraries=0
bad=0
for library in libapmw_*.a; do
    [ -e "$library" ] || continue
    case $library in *test_support*) continue ;; esac
    libraries=$((libraries + 1))
    # Sanitizers add symbols that begin with two underscores, which C keeps for the implementation.
    wrong=$(nm -g --defined-only "$library" | awk 'NF == 3 && $3 !~ /^(apmw_|__)/ { print $3 }')
    for symbol in $wrong; do
        echo "$library exports $symbol"
        bad=1
    done
done
[ "$libraries" -gt 0 ] || { echo "no library beside $1"; exit 1; }
echo "$libraries libraries"
exit "$bad"
