#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Platform models: evidence gives the same bytes each time, whatever was fitted before; check finds what has changed.
# Arguments: program, source tree.
set -u
apmw=$1
tree=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
check()
{
    "$@" || { echo "failed: $*"; bad=1; }
}
. "$tree/tests/support/gives.sh"

gives 64 "does not apply" "$apmw" fit serving --platform h200
gives 64 "fit serving" "$apmw" fit platforms --rows
gives 64 "fit serving" "$apmw" fit platforms --cross-validate
gives 64 'unknown engine "foo"' "$apmw" model rows b200 --model deepseek-v3-r1 --engine foo
gives 64 'unknown engine "foo"' "$apmw" capacity --platform h200 --model gpt-oss-120b --engine foo
gives 78 "atom does not run on nvidia parts" "$apmw" capacity --platform h200 --model gpt-oss-120b --engine atom
gives 78 "atom does not run on nvidia parts" "$apmw" simulate --platform h200 --model gpt-oss-120b --engine atom --agents 2 --duration 20

# A tree of its own: what is written must not touch the source tree.
mkdir -p "$dir/a" "$dir/b" "$dir/tree"
cp -R "$tree/hwmodels" "$dir/tree/hwmodels"
chmod -R u+w "$dir/tree"
rm -f "$dir/tree/hwmodels"/mi300x.h5 "$dir/tree/hwmodels"/b200.h5

gives 0 mi300x "$apmw" --data "$dir/tree" fit platforms --platform mi300x --into "$dir/a"
gives 0 mi300x "$apmw" --data "$dir/tree" fit platforms --platform mi300x
# Again, now that the tree has a fitted file.
gives 0 mi300x "$apmw" --data "$dir/tree" fit platforms --platform mi300x --into "$dir/b"
check cmp -s "$dir/a/mi300x.h5" "$dir/b/mi300x.h5"
check cmp -s "$dir/a/mi300x.h5" "$dir/tree/hwmodels/mi300x.h5"
# The shipped file is what its evidence gives.
if [ -f "$tree/hwmodels/mi300x.h5" ]; then
    check cmp -s "$dir/a/mi300x.h5" "$tree/hwmodels/mi300x.h5"
fi

# A few rows are fitted without a fifth of their layouts in turn; nothing is written.
mkdir -p "$dir/few/serving"
zstd -dcq "$tree/hwmodels/evidence/serving/points.csv.zst" | awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) col[$i] = i; print; next }
    $(col["platform"]) == "h200" && $(col["model"]) == "llama-3.1-70b" && $(col["engine"]) == "vllm"' |
    zstd -q >"$dir/few/serving/points.csv.zst"
before=$(ls -l "$dir/tree/hwmodels")
gives 0 'within 90 % interval' "$apmw" --data "$dir/tree" fit serving --cross-validate --evidence "$dir/few" -q
rows=$(sed -n 's/^vllm .* TPOT *\([0-9]*\) rows.*/\1/p' "$dir/out")
[ "${rows:-0}" -gt 0 ] || { echo "no row was predicted: $(cat "$dir/out")"; bad=1; }
[ "$before" = "$(ls -l "$dir/tree/hwmodels")" ] || { echo "--cross-validate has written"; bad=1; }

gives 0 reads "$apmw" --data "$dir/tree" model check mi300x
gives 0 gemm_dtype=fp8_block "$apmw" --data "$dir/tree" model show mi300x
gives 0 'no kernel power was measured' "$apmw" --data "$dir/tree" model watts mi300x
gives 0 mi300x "$apmw" --data "$dir/tree" model list

# Evidence that is no longer what was fitted, then evidence that is gone, then a damaged model.
zst=$dir/tree/hwmodels/evidence/mi300x/moe.aiter2026.08.22.csv.zst
cp "$dir/tree/hwmodels/evidence/mi355x/moe.aiter2026.08.22.csv.zst" "$zst"
gives 1 'evidence has changed' "$apmw" --data "$dir/tree" model check mi300x
rm "$zst"
gives 1 'evidence missing' "$apmw" --data "$dir/tree" model check mi300x
head -c 20000 "$dir/a/mi300x.h5" >"$dir/tree/hwmodels/mi300x.h5"
gives 1 mi300x.h5 "$apmw" --data "$dir/tree" model check mi300x
gives 65 mi300x.h5 "$apmw" --data "$dir/tree" model show mi300x

gives 64 'unknown platform "mi300" (did you mean "mi300x"?)' "$apmw" model show mi300
gives 64 'unknown platform "hgx-h20" (did you mean "hgx-h200"?)' "$apmw" model rows hgx-h20 --model gpt-oss-120b
# A node stands for its accelerator, and each of the two names gives the same bytes.
for action in "rows --model gpt-oss-120b --engine vllm" show watts check; do
    set -- $action
    name=$1
    shift
    gives 0 '' "$apmw" model "$name" h200 "$@"
    cp "$dir/out" "$dir/accelerator"
    gives 0 '' "$apmw" model "$name" hgx-h200 "$@"
    check cmp "$dir/accelerator" "$dir/out"
done
gives 0 'hgx-h200 is 8 x h200' "$apmw" --log-level info model watts hgx-h200
gives 64 'unknown action "shwo" (did you mean "show"?)' "$apmw" model shwo mi300x
gives 64 'show needs a platform' "$apmw" model show
gives 64 'unknown fit "platform" (did you mean "platforms"?)' "$apmw" fit platform
gives 73 'cannot create' "$apmw" fit platforms --platform mi300x --into "$dir/no/such/folder"
gives 66 MANIFEST.csv "$apmw" fit platforms --platform mi300x --evidence "$dir/none" --into "$dir/a"
exit $bad
