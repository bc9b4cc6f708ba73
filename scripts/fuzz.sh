#!/usr/bin/env bash
# Runs every fuzz target for N seconds (make fuzz SECONDS=n [ONLY=name]), or for N executions (RUNS=n); new inputs go to build/fuzz-corpus, crashes to build/fuzz-crashes.
# Inputs have at most 4 KiB here: a corpus that reaches a bound with a megabyte makes every execution as long. The ordinary test run replays it whole.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60} only=${2:-}
limit=-max_total_time=$seconds
[ -z "${RUNS:-}" ] || limit=-runs=$RUNS
cmake --preset fuzz >/dev/null
cmake --build build/fuzz >build/fuzz.log 2>&1 || { cat build/fuzz.log >&2; exit 1; }
status=0
mkdir -p build/fuzz-crashes
for target in build/fuzz/tests/fuzz/*_fuzz; do
  name=$(basename "$target" _fuzz)
  case "$name" in *"$only"*) ;; *) continue ;; esac
  mkdir -p "build/fuzz-corpus/$name"
  printf '%-16s ' "$name"
  if "$target" "$limit" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=build/fuzz-crashes/"$name"- \
      "build/fuzz-corpus/$name" "tests/fuzz/corpus/$name" >"build/fuzz-$name.log" 2>&1; then
    awk '/stat::number_of_executed_units/ {printf "%d executions, no finding\n", $2}' "build/fuzz-$name.log"
  else
    echo "FINDING: see build/fuzz-$name.log"; tail -n 25 "build/fuzz-$name.log"; status=1
  fi
done
exit $status
