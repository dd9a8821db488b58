#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# All tests: installs what is missing, builds build/sanitize (AddressSanitizer, UBSan), compiles with clang's warnings as
# errors where clang is there, and runs ctest, whose closing lines end the output.
# Arguments go to ctest: tests/run.sh -L unit, tests/run.sh -R json.
set -eu
cd "$(dirname "$0")/.."
sh sim/install.sh
cmake --preset sanitize
cmake --build --preset sanitize

# Only a second opinion on the code: nothing is run from this build.
clang=none
if command -v clang >/dev/null 2>&1 && [ "${APMW_SKIP_CLANG:-0}" = 0 ]; then
    clang=failed
    if ! cmake --preset clang -DAPMW_TESTS=OFF -DCMAKE_COMPILE_WARNING_AS_ERROR=ON >build/clang.log 2>&1; then
        echo "clang cannot be set up here (often libomp-dev is missing); see build/clang.log" >&2
        clang=none
    elif cmake --build --preset clang -- -k 0; then
        clang=passed
    fi
fi

# The leak check needs ptrace, which some containers forbid; then it would fail every program, leak or not.
leaks=1
probe=$(mktemp -d)
echo 'int main(void) { return 0; }' >"$probe/probe.c"
if ! { ${CC:-cc} -fsanitize=address "$probe/probe.c" -o "$probe/probe" && "$probe/probe"; } >/dev/null 2>&1; then
    echo "The leak check cannot run here; all other checks do." >&2
    leaks=0
fi
rm -rf "$probe"
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=$leaks:strict_string_checks=1:detect_stack_use_after_return=1}
UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export ASAN_OPTIONS UBSAN_OPTIONS
code=0
ctest --preset sanitize --timeout 300 -j "$(nproc 2>/dev/null || echo 2)" "$@" || code=$?
if [ "$clang" = failed ]; then
    echo "clang finds fault with the code, see above" >&2
    [ "$code" -ne 0 ] || code=1
fi
exit "$code"
