#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Libraries do not print, end the program, or read environment, clock or hidden random state: whatever they need is
# handed to them. Reads the undefined symbols of every object. Arguments: program (its directory holds the libraries).
set -eu
cd "$(dirname "$1")"
ls libapmw_*.a >/dev/null 2>&1 || { echo "no library beside $1"; exit 1; }
for library in libapmw_*.a; do
    case $library in *test_support*) continue ;; esac
    nm -u "$library" 2>/dev/null | awk -v library="$library" '
        BEGIN {
            n = split("printf vprintf puts putchar __printf_chk __vprintf_chk stdout stderr fputs_unlocked perror " \
                      "exit _exit _Exit quick_exit abort __assert_fail getenv secure_getenv setenv " \
                      "time gettimeofday clock clock_gettime localtime gmtime omp_get_wtime " \
                      "rand srand rand_r random srandom drand48 arc4random getrandom setlocale " \
                      "gsl_rng_env_setup system popen signal sigaction", name, " ")
            for (i = 1; i <= n; i++) banned[name[i]] = 1
            # The check of our own invariants says what broke and stops: the one place that may.
            allowed["libapmw_base.a", "status.c.o", "abort"] = allowed["libapmw_base.a", "status.c.o", "stderr"] = 1
        }
        /:$/ { object = $1; sub(/:$/, "", object); next }
        $1 == "U" {
            symbol = $2; sub(/@.*/, "", symbol)
            if ((symbol in banned) && !((library, object, symbol) in allowed)) {
                print library "(" object ") uses " symbol; bad = 1
            }
        }
        END { exit bad }' || failed=1
done
exit "${failed:-0}"
