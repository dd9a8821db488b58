#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every command file is listed and every listed command explains itself, with an example. Arguments: program, source tree.
set -u
apmw=$1
source=$2
bad=0
complain()
{
    echo "$1"
    bad=1
}
listed=$(sed -n 's/^APMW_COMMAND(\([a-z_]*\)).*/\1/p' "$source/sim/cli/commands.def")
[ -n "$listed" ] || complain "commands.def lists nothing"
for file in "$source"/sim/cli/cmd_*.c; do
    name=$(basename "$file" .c)
    name=${name#cmd_}
    # A command in several files (cmd_trace_import.c) has its definition in one of them.
    grep -q "const apmw_command apmw_command_$name\>" "$file" || continue
    echo "$listed" | grep -qx "$name" || complain "$name is not in commands.def"
done
for name in $listed; do
    help=$("$apmw" "$name" --help 2>/dev/null) || complain "apmw $name --help fails"
    echo "$help" | grep -q 'Example' || complain "apmw $name --help shows no example"
    echo "$help" | grep -q "Example.*apmw $name\|^ *apmw $name" || complain "the example of $name does not call apmw $name"
    for option in --format --output --quiet; do
        echo "$help" | grep -q -- "$option" || complain "apmw $name does not know $option"
    done
    "$apmw" "$name" --no-such-option-xyz >/dev/null 2>&1
    code=$?
    [ "$code" -eq 64 ] || complain "apmw $name with an unknown option ends with $code, not 64"
    "$apmw" help "$name" >/dev/null 2>&1 || complain "apmw help $name fails"
    "$apmw" list commands --format csv | grep -q "^command,$name," || complain "apmw list does not show $name"
done
exit "$bad"
