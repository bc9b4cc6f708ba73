#!/usr/bin/env bash
# Hard bounds: files 600 lines, functions 75 lines and complexity 30. CONTRIBUTING.md asks for functions of 60; between them it is a smell.
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
report() { n=$((n + 1)); if [ -z "$2" ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; sed 's/^/# /' <<<"$2"; status=1; fi; }
sources=$(git ls-files -- '*.c' '*.h' '*.py' '*.mjs' '*.sh' | grep -v '^tests/fuzz/corpus/')
report "no file is longer than 600 lines" "$(xargs -r wc -l <<<"$sources" | awk '$2 != "total" && $1 > 600 {print $2 ": " $1}')"
report "no function is longer than 75 lines or more tangled than 30" "$(grep -E '^(protocol|mesh|adapters)/.*\.c$' <<<"$sources" | xargs -r pmccabe 2>/dev/null | awk -F'\t' '$5 > 75 || $2 > 30 {print $6 ": " $5 " lines, complexity " $2}')"
echo "1..$n"
exit $status
