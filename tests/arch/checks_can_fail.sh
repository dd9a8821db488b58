#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A check that cannot fail is worth nothing: each script of this directory is run on a small tree that breaks its rule,
# and on the same tree without the fault. Arguments: program, source tree.
set -eu
source=$(cd "$2" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cc=${CC:-cc}
bad=0

fresh()
{
    rm -rf "$dir/tree" "$dir/build"
    mkdir -p "$dir/tree/sim/include/apmw" "$dir/tree/sim/base" "$dir/tree/sim/des" "$dir/tree/sim/engine" "$dir/tree/sim/cli" \
        "$dir/tree/hwmodels/include/apmw" "$dir/tree/traces" "$dir/tree/calib/src" "$dir/tree/tests" "$dir/build"
    cd "$dir/tree"
    echo 'int apmw_status;' >sim/include/apmw/status.h
    echo '#include "apmw/status.h"' >sim/include/apmw/des.h
    echo '#include "apmw/des.h"' >sim/include/apmw/engine.h
    echo '#include "apmw/status.h"' >hwmodels/include/apmw/compose.h
    printf '#include "apmw/status.h"\nint apmw_one(void) { return 1; }\n' >sim/base/one.c
    echo '#include "apmw/des.h"' >sim/des/des.c
}
library()
{
    $cc -w -c "$dir/tree/sim/base/one.c" -I"$dir/tree/sim/include" -o "$dir/build/one.c.o"
    rm -f "$dir/build/libapmw_base.a"
    ar rc "$dir/build/libapmw_base.a" "$dir/build/one.c.o"
}
passes()
{
    sh "$source/tests/arch/$1.sh" "${2:-$dir/build/apmw}" "$dir/tree" >"$dir/log" 2>&1 ||
        { echo "$1 refuses a good tree:"; cat "$dir/log"; bad=1; }
}
fails()
{
    if sh "$source/tests/arch/$1.sh" "${3:-$dir/build/apmw}" "$dir/tree" >"$dir/log" 2>&1; then
        echo "$1 does not see: $2"
        bad=1
    fi
}

fresh && passes include_order
echo '#include "apmw/des.h"' >sim/base/two.c && fails include_order "base includes des"
fresh && echo '#include "apmw/engine.h"' >calib/src/x.c && fails include_order "calib includes engine"
fresh && echo '#include "apmw/compose.h"' >sim/des/x.c && fails include_order "des includes hwmodels"
fresh && echo '#include "apmw/engine.h"' >sim/include/apmw/kv.h && fails include_order "the header of kv includes engine"
fresh && echo '#include "apmw/scenario.h"' >sim/engine/x.c && fails include_order "engine includes a header of experiment"
fresh && echo '#include "../des/private.h"' >sim/engine/x.c && fails include_order "a way out of the directory"
fresh && echo '#include "private.h"' >sim/engine/x.c && fails include_order "a private header of nobody"
fresh && echo 'int prompt;' >>sim/des/des.c && fails include_order "des knows a prompt"

fresh && library && passes symbols && passes banned_calls
echo 'int helper(void) { return 2; }' >>sim/base/one.c && library && fails symbols "an exported helper"
rm "$dir/build/libapmw_base.a" && fails symbols "no library at all" && fails banned_calls "no library at all"
for call in 'int printf(const char *, ...); void apmw_f(int x) { printf("%d", x); }' \
    'int puts(const char *); void apmw_f(void) { puts("x"); }' \
    'extern void *stdout; void *apmw_f(void) { return stdout; }' \
    'void exit(int); void apmw_f(void) { exit(1); }' \
    'void abort(void); void apmw_f(void) { abort(); }' \
    'char *getenv(const char *); char *apmw_f(void) { return getenv("X"); }' \
    'long time(long *); long apmw_f(void) { return time(0); }' \
    'int rand(void); int apmw_f(void) { return rand(); }' \
    'void gsl_rng_env_setup(void); void apmw_f(void) { gsl_rng_env_setup(); }'; do
    fresh && echo "$call" >>sim/base/one.c && library && fails banned_calls "$call"
done

fresh && passes file_length
yes '/* line */' | head -n 801 >sim/base/long.c && fails file_length "801 lines"

fresh && passes machine_paths
echo "see /w""ork/x" >sim/NOTES && fails machine_paths "a path of one machine"
fresh && printf 'argv\0/h''ome/me/apmw\0' >hwmodels/x.h5 && fails machine_paths "a path in binary data"

# A program that answers anything, and one whose help has no example.
fresh
echo 'APMW_COMMAND(go)' >sim/cli/commands.def
echo 'const apmw_command apmw_command_go = {0};' >sim/cli/cmd_go.c
cat >"$dir/build/good" <<'GOOD'
#!/bin/sh
case "$*" in
*--no-such*) exit 64 ;;
"list commands"*) echo "command,go,x" ;;
*) echo "--format --output --quiet Example: apmw go" ;;
esac
GOOD
sed 's/Example: //' "$dir/build/good" >"$dir/build/no_example"
sed 's/exit 64/exit 1/' "$dir/build/good" >"$dir/build/wrong_code"
chmod +x "$dir"/build/*
passes commands "$dir/build/good"
fails commands "help without example" "$dir/build/no_example"
fails commands "a wrong exit code" "$dir/build/wrong_code"
echo 'const apmw_command apmw_command_lost = {0};' >sim/cli/cmd_lost.c
fails commands "a command that is not listed" "$dir/build/good"
exit "$bad"
