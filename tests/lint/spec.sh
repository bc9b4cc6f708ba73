#!/usr/bin/env bash
# The HTML edition of the protocol can be made, and no link in it leads nowhere: proved by a seeded wrong one.
set -u
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0 status=0
claim() { n=$((n + 1)); if [ "$2" = 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; sed 's/^/# /' "$tmp/log"; status=1; fi; }
scripts/spec-html.sh "$tmp/html" >"$tmp/log" 2>&1
claim "make spec, and every link leads somewhere" $?
[ "$(grep -c '<p id="' "$tmp/html/spec/amp.html")" -gt 100 ]
claim "every clause of amp.md has an anchor" $?
cp -r scripts spec docs ./*.md "$tmp/" && echo 'See [there](no-such-page.md) and [here](amp.md#no-such-place).' >>"$tmp/spec/local-api.md"
(cd "$tmp" && ! scripts/spec-html.sh seeded >log 2>&1 && [ "$(grep -c 'no-such' log)" = 2 ])
claim "a wrong link is found" $?
scripts/codes-table.py --check >"$tmp/log" 2>&1
claim "the table of errors in docs/operations.md is that of spec/codes.def" $?
sed -i '0,/"the agent refused the task"/s//"another text"/' "$tmp/spec/codes.def"
! "$tmp/scripts/codes-table.py" --check >"$tmp/log" 2>&1
claim "and one that is not is found" $?
scripts/bugs-table.py --check >"$tmp/log" 2>&1
claim "the faults made on purpose in docs/reliability.md are those of sim/bugs.def and of the code, and each promise has one" $?
mkdir -p "$tmp/mesh" && cp -r sim CMakeLists.txt "$tmp/" && cp -r mesh/env mesh/base mesh/sidecar "$tmp/mesh/"
(cd "$tmp" && sed -i '/^BUG("unsafe-retry"/d' sim/bugs.def && ! scripts/bugs-table.py --check >log 2>&1 && [ "$(grep -c 'rows\|P5\|unsafe-retry' log)" = 3 ])
claim "and one that is missing is found" $?
echo "1..$n"
exit $status
