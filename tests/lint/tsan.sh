#!/usr/bin/env bash
# What has threads runs under TSan: the mailbox, the journal with its worker, the bus.
set -u
cd "$(dirname "$0")/../.."
n=0 status=0
log=$(mktemp); trap 'rm -f "$log"' EXIT
cmake --preset tsan >"$log" 2>&1 && cmake --build build/tsan --target mailbox_test journal_test bus_test >>"$log" 2>&1 || { echo "not ok 1 - the TSan build"; tail -n 20 "$log" | sed 's/^/# /'; exit 1; }
# libnats and libevent are not instrumented: what happens between their own locks is theirs.
printf 'called_from_lib:libnats.so\nrace:libnats.so\n' >build/tsan/suppressions
for test in mailbox_test journal_test bus_test; do
  n=$((n + 1))
  if TSAN_OPTIONS="suppressions=$PWD/build/tsan/suppressions halt_on_error=0 exitcode=66 ignore_noninstrumented_modules=1" "build/tsan/tests/$test" >"$log" 2>&1; then echo "ok $n - $test is free of data races"; else echo "not ok $n - $test is free of data races"; grep -v '^ok ' "$log" | tail -n 40 | sed 's/^/# /'; status=1; fi
done
echo "1..$n"
exit $status
