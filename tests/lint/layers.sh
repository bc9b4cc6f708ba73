#!/usr/bin/env bash
# Includes go one way (docs/architecture.md): spec ← protocol ← mesh/base ← sidecar | env | cli; client sees protocol only; main and up see all.
# And each foreign library has one room. Proved by a seeded wrong include for every rule.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)

# rule: folder  regex of includes that are wrong there
rules='
protocol        "(base|sidecar|env|cli|client)/|<nats|<event2|<sqlite3|<curl|<yaml|<sys/socket|<pthread|<time\.h>
mesh/base       "(sidecar|env|cli|client)/
mesh/sidecar    "(env|cli|client)/|<nats/|<sqlite3
mesh/env        "(sidecar|cli|client)/|<nats/|<event2/
mesh/cli        "(sidecar|env|client)/|<nats/|<event2/|<sqlite3
adapters        "(sidecar|env|cli|client)/|<nats/|<event2/|<sqlite3|<yaml
mesh/client     "(base|sidecar|env|cli)/|"(up|main)\.h|<nats/|<event2/|<sqlite3|<curl|<yaml|<sodium|<pthread|<uthash
'
# room: header regex, files that may have it
rooms='
<nats/          mesh/base/bus[a-z_]*\.[ch]
<event2/http    mesh/base/http[a-z_]*\.c
<sqlite3        mesh/env/journal[a-z_]*\.[ch]
<curl/          mesh/base/fetch\.c
<yaml           mesh/base/[a-z_]*\.c
<protobuf-c/    protocol/
'
check() { # tree → lines of violations
  local tree=$1 folder regex room
  while read -r folder regex; do
    [ -n "$folder" ] && [ -d "$tree/$folder" ] && grep -RnE --include='*.[ch]' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<].*" "$tree/$folder" | grep -E "include[[:space:]]*($regex)"
  done <<<"$rules"
  while read -r header room; do
    [ -n "$header" ] && grep -RnE --include='*.[ch]' "include[[:space:]]*$header" "$tree/mesh" "$tree/protocol" "$tree/adapters" 2>/dev/null | grep -vE "^$tree/$room"
  done <<<"$rooms"
}
n=0 status=0
report() { n=$((n + 1)); if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; status=1; fi; }

found=$(check "$top")
[ -z "$found" ]; report $? "no include goes against the layers"
[ -n "$found" ] && sed "s|^$top/|# |" <<<"$found"

# The check must be able to fail: seed one wrong include per rule and see it found.
seed=$(mktemp -d); trap 'rm -rf "$seed"' EXIT
try() { # folder line
  rm -rf "${seed:?}"/*; mkdir -p "$seed/protocol" "$seed/mesh" "$seed/adapters" "$seed/$1"
  printf '%s\n' "$2" >"$seed/$1/wrong.c"
  [ -n "$(check "$seed")" ]; report $? "a seeded $2 in $1 is found"
}
try protocol '#include "base/bus.h"'
try protocol '#include <nats/nats.h>'
try mesh/base '#include "sidecar/task.h"'
try mesh/sidecar '#include "env/env.h"'
try mesh/env '#include "sidecar/task.h"'
try mesh/env '# include <nats/nats.h>'
try mesh/cli '#include "env/journal.h"'
try mesh/cli '#include <sqlite3.h>'
try mesh/client '#include "base/loop.h"'
try mesh/client '#include <event2/event.h>'
try mesh/sidecar '#include <event2/http.h>'
echo "1..$n"
exit $status
