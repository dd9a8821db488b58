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
    # Two leading underscores are the implementation's (sanitizers); a dot is OpenMP's lock of a critical section by name.
    wrong=$(nm -g --defined-only "$library" | awk 'NF == 3 && $3 !~ /^(apmw_|__|\.gomp_critical_user_apmw_)/ { print $3 }')
    for symbol in $wrong; do
        echo "$library exports $symbol"
        bad=1
    done
done
[ "$libraries" -gt 0 ] || { echo "no library beside $1"; exit 1; }
echo "$libraries libraries"
exit "$bad"
