#!/bin/sh
# The normative text, the code and the tables say the same things:
#  - each "amp.md N.N" in code, headers, specs and docs is a clause of spec/amp.md, and no clause number stands there twice;
#  - each code of codes.def stands in clause 8 with its number, exit code, HTTP status and retry;
#  - each limit of limits.h stands in clause 11 with its value.
# Prints what is missing; exit code 1 if anything is. Usage: clauses.sh [root of the source tree]
set -eu
root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
spec=$root/spec/amp.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sed -n -E 's/^#{0,4} ?([0-9]+(\.[0-9]+)*)\.? .*/\1/p' "$spec" >"$work/clauses"
sort "$work/clauses" | uniq -d | sed 's/^/spec\/amp.md: this clause number stands there twice: /' >"$work/faults"

for dir in protocol mesh spec docs tests conformance adapters examples; do
    [ ! -d "$root/$dir" ] || echo "$root/$dir"
done >"$work/dirs"
xargs grep -rnIoE 'amp\.md`?,? (clauses? )?[0-9]+(\.[0-9]+)*' --include='*.[ch]' --include='*.def' --include='*.proto' --include='*.md' \
    <"$work/dirs" >"$work/references" || true
while IFS= read -r line; do
    clause=$(printf '%s\n' "$line" | sed -E 's/.* ([0-9.]+)$/\1/')
    grep -qxF "$clause" "$work/clauses" ||
        printf '%s: no such clause in spec/amp.md: %s\n' "$(printf '%s' "${line#"$root"/}" | cut -d: -f1,2)" "$clause"
done <"$work/references" >>"$work/faults"

sed -n -E 's/^AMP_CODE\(([A-Z_]+), *([0-9]+), *([0-9]+), *([0-9]+), *(true|false), *"(.*)"\).*/\1|\2|\3|\4|\5|\6/p' \
    "$root/spec/codes.def" >"$work/codes"
[ -s "$work/codes" ] || echo "spec/codes.def: no codes found" >>"$work/faults"
while IFS='|' read -r name number exit http retry text; do
    name=$(printf '%s' "$name" | tr '[:upper:]' '[:lower:]')
    [ "$retry" = true ] && retry=yes || retry=no
    grep -qxF "| $number | \`$name\` | $exit | $http | $retry | $text |" "$spec" ||
        echo "spec/amp.md: clause 8 lacks the row: | $number | \`$name\` | $exit | $http | $retry | $text |"
done <"$work/codes" >>"$work/faults"

# 8u << 20 is 8 MiB in the text.
sed -n -E 's/^#define (AMP_[A-Z_]+) \(?([0-9]+)u( << ([0-9]+))?\)?( .*)?$/\1 \2 \4/p' "$root/protocol/include/amp/limits.h" >"$work/limits"
[ -s "$work/limits" ] || echo "limits.h: no limits found" >>"$work/faults"
while read -r name value shift; do
    case $name:$shift in
    AMP_PROTOCOL_VERSION:*) continue ;;
    *:10) value="$value KiB" ;;
    *:20) value="$value MiB" ;;
    esac
    grep -qF "| \`$name\` | $value |" "$spec" || echo "spec/amp.md: clause 11 lacks the limit $name, $value"
done <"$work/limits" >>"$work/faults"

said="the text agrees with the code: $(wc -l <"$work/references") references, $(wc -l <"$work/codes") codes, $(wc -l <"$work/limits") limits"
if [ -s "$work/faults" ]; then
    echo "not ok 1 - $said"
    sed 's/^/# /' "$work/faults"
    echo "1..1"
    exit 1
fi
echo "ok 1 - $said"
echo "1..1"
