#!/usr/bin/env bash
# Nothing unfinished is left in the tree, no host of a registry, no path of somebody's machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
none() { n=$((n + 1)); local found; found=$(git ls-files -z | grep -zvE '^(tests/lint/words.sh|tests/run.py|tests/fuzz/corpus/)' | xargs -0 -r grep -HnIE "$2" 2>/dev/null | cut -c1-160)
  if [ -z "$found" ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; sed 's/^/# /' <<<"$found"; status=1; fi; }
none "nothing is marked as unfinished" '\b(TODO|FIXME|XXX|HACK)\b'
none "no registry's host is named" 'https?://[a-z0-9.-]*(pypi|npmjs|proxy\.golang|crates\.io|maven|deb\.debian)'
none "tests do not sleep" '^[^#]*\b(time\.sleep\(|usleep\(|nanosleep\()|^[[:space:]]*sleep [0-9]'
echo "1..$n"
exit $status
