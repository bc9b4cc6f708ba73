#!/usr/bin/env bash
# Calls that the design does without (docs/architecture.md): unbounded copies, a shell, blocking NATS requests, mutexes outside of the mailbox,
# clocks outside of clock.c, publishes that bypass bus.c.
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
none() { # claim, allowed-file regex, regex
  n=$((n + 1))
  local found
  found=$(grep -RnE --include='*.[ch]' "$3" protocol mesh adapters 2>/dev/null | grep -vE "^($2)" | grep -vE '^[^:]*:[0-9]*:[[:space:]]*(\*|/\*|//)')
  if [ -z "$found" ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; sed 's/^/# /' <<<"$found"; status=1; fi
}
none "no unbounded string copies" '^$' '\b(strcpy|strcat|sprintf|vsprintf|gets)\('
none "no shell" '^$' '\b(system|popen)\('
none "no blocking NATS request" '^$' 'natsConnection_Request|kvStore_'
none "publishes only in bus.c" 'mesh/base/bus' 'natsConnection_Publish'
none "mutexes only in the mailbox and bus hand-over" 'mesh/base/(mailbox|bus)' 'pthread_mutex_(lock|init)'
none "clocks only in clock.c" 'mesh/base/(clock|bus_link).c|mesh/client/' '\b(clock_gettime|gettimeofday|time)\((NULL|CLOCK|&)'
none "libamp neither logs nor prints" 'mesh/|adapters/' '\b(printf|fprintf|puts|perror|syslog)\('
none "no sleeping" '^$' '\b(usleep|nanosleep|sleep)\('
echo "1..$n"
exit $status
