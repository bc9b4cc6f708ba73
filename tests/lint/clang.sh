#!/usr/bin/env bash
# clang builds everything without a warning, and its static analyser finds nothing in our sources.
set -u
cd "$(dirname "$0")/../.."
n=0 status=0
log=$(mktemp); trap 'rm -f "$log"' EXIT
n=1
if cmake --preset clang >"$log" 2>&1 && cmake --build build/clang >>"$log" 2>&1; then echo "ok 1 - clang builds everything without a warning"; else echo "not ok 1 - clang builds everything without a warning"; tail -n 40 "$log" | sed 's/^/# /'; exit 1; fi
n=2
git ls-files -- 'protocol/*.c' 'mesh/*.c' | xargs -P 2 -n 4 clang-tidy -p build/clang --quiet --warnings-as-errors='*' \
  --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,-clang-analyzer-valist.Uninitialized,bugprone-sizeof-expression,bugprone-suspicious-*,bugprone-macro-parentheses,bugprone-infinite-loop' >"$log" 2>&1
if [ $? -eq 0 ]; then echo "ok 2 - the analyser finds nothing"; else echo "not ok 2 - the analyser finds nothing"; grep -E 'error:|warning:' "$log" | sort -u | head -40 | sed 's/^/# /'; status=1; fi
echo "1..$n"
exit $status
