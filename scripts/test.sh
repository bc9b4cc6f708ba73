#!/usr/bin/env bash
# Builds with sanitizers and runs every test (make test). An argument limits it to tests whose name contains it.
set -euo pipefail
cd "$(dirname "$0")/.."
for preset in asan release; do
  cmake --preset $preset >/dev/null
  cmake --build build/$preset >"build/$preset.log" 2>&1 || { cat "build/$preset.log" >&2; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
done
exec python3 tests/run.py "$@"
