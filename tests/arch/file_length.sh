#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A file of more than 800 lines is too long to be one thing; more than 600 is said. Arguments: program, source tree.
set -eu
cd "$2"
find sim hwmodels traces calib tests -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' \) | LC_ALL=C sort |
while IFS= read -r file; do
    echo "$(wc -l <"$file") $file"
done | awk '
    $1 > 800 { print $2 ": " $1 " lines, 800 is the limit"; bad = 1 }
    $1 > 600 && $1 <= 800 { print $2 ": " $1 " lines, consider splitting" }
    END {
        if (NR == 0) { print "no source file found"; bad = 1 }
        exit bad
    }'
