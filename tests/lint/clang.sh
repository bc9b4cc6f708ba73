#!/usr/bin/env bash
# clang builds everything without a warning.
set -u
cd "$(dirname "$0")/../.." || exit 1
status=0
log=$(mktemp); trap 'rm -f "$log"' EXIT
n=1
if cmake --preset clang >"$log" 2>&1 && cmake --build build/clang >>"$log" 2>&1; then echo "ok 1 - clang builds everything without a warning"; else echo "not ok 1 - clang builds everything without a warning"; tail -n 40 "$log" | sed 's/^/# /'; exit 1; fi
echo "1..$n"
exit $status
