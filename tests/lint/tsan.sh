#!/usr/bin/env bash
# What has threads (the journal's worker, nats.c's own, mailboxes between them) runs under the thread sanitizer without a finding.
set -u
cd "$(dirname "$0")/../.." || exit 1
tests=(mailbox_test loop_test bus_test bus_inbox_test journal_test submit_test env_test env_retry_test)
log=$(mktemp) n=0 status=0
trap 'rm -f "$log" "$log".*' EXIT
claim() { n=$((n + 1)); if [ "$2" = 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; tail -n 60 "$log" | sed 's/^/# /'; status=1; fi; }
{ cmake --preset tsan -DAMESH_BENCH=OFF && cmake --build build/tsan --target "${tests[@]}"; } >"$log" 2>&1
claim "what has threads builds with the thread sanitizer" $?
for test in "${tests[@]}"; do
  [ $status = 0 ] || break
  CMOCKA_MESSAGE_OUTPUT=STDOUT TSAN_OPTIONS=halt_on_error=1 timeout 300 build/tsan/tests/"$test" >"$log" 2>&1
  claim "$test finds no race" $?
done
cat >"$log.c" <<'C'
#include <pthread.h>
static int shared;
static void *add(void *ctx) { shared++; return ctx; }
int main(void)
{
    pthread_t a, b;
    pthread_create(&a, 0, add, 0);
    pthread_create(&b, 0, add, 0);
    pthread_join(a, 0);
    pthread_join(b, 0);
    return shared == 0;
}
C
cc -g -fsanitize=thread "$log.c" -o "$log.bin" >"$log" 2>&1 && ! TSAN_OPTIONS=halt_on_error=1 "$log.bin" >"$log" 2>&1 && grep -q 'data race' "$log"
claim "a seeded race is found" $?
echo "1..$n"
exit $status
