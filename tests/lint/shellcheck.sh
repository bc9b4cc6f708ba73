#!/usr/bin/env bash
# All shell scripts pass shellcheck (warnings and errors).
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
for file in $(git ls-files -- '*.sh' .ci/run); do
  n=$((n + 1))
  if out=$(shellcheck -S warning -e SC2178,SC2034,SC2046 "$file"); then echo "ok $n - $file"; else echo "not ok $n - $file"; sed 's/^/# /' <<<"$out"; status=1; fi
done
echo "1..$n"
exit $status
