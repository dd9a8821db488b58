#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Looks for inputs that crash a parser; needs clang. Usage: sh tests/fuzz/run.sh [SECONDS [TARGET...]]
# Findings and corpus stay in build/fuzz. Not part of ctest: it has no end of its own.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
cmake -S . -B build/fuzz -G Ninja -DCMAKE_C_COMPILER=clang -DAPMW_FUZZ=ON -DAPMW_SANITIZE=ON -DCMAKE_C_FLAGS=-fsanitize=fuzzer-no-link -DAPMW_TESTS=ON \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
code=0
for source in tests/fuzz/fuzz_*.c; do
    target=$(basename "$source" .c)
    case " $* " in "  " | *" $target "*) ;; *) continue ;; esac
    cmake --build build/fuzz --target "$target" >/dev/null
    mkdir -p "build/fuzz/corpus/$target"
    seeds=$PWD/tests/fuzz/seeds/${target#fuzz_}
    [ -d "$seeds" ] || seeds=$PWD/traces/samples/formats
    (cd build/fuzz && ./tests/"$target" -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 \
        "corpus/$target" "$seeds") || code=1
done
exit "$code"
