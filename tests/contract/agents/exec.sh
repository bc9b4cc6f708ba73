#!/usr/bin/env bash
# The eight behaviours by a program that is run once per task (local-api.md 6).
set -eu
text=$(cat)
case "$text" in
  "echo "*) printf '%s' "${text#echo }" ;;
  stream) printf 'one '; "$AMESH" task emit text 'two '; printf 'three ' ; "$AMESH" task emit step reading; printf 'four' ;;
  tool) "$AMESH" task emit tool add '{"a":1,"b":2}' --call c1; "$AMESH" task emit tool-result add 3 --call c1; printf 'sum 3' ;;
  "remember "*) "$AMESH" kv put --context "$AMESH_CONTEXT" word "\"${text#remember }\"" >/dev/null; printf 'noted' ;;
  recall) printf 'you said %s' "$("$AMESH" kv get --context "$AMESH_CONTEXT" word | tr -d '"')" ;;
  ask) colour=$("$AMESH" task ask 'Which colour?'); printf 'painted %s' "$colour" ;;
  form) d=$(mktemp -d)
    "$AMESH" task ask 'Which colour?' -o red=Red -o blue=Blue >"$d/colour" & "$AMESH" task ask 'How often?' --schema '{"type":"integer","minimum":1,"maximum":9}' >"$d/count" &
    "$AMESH" task ask 'Sure?' -o yes -o no --default no --expires-in 300ms >"$d/sure" & wait
    printf '%s %s %s' "$(cat "$d/colour")" "$(cat "$d/count")" "$(cat "$d/sure")"; rm -r "$d" ;;
  late) if "$AMESH" task ask 'Now?' --expires-in 200ms; then printf answered; else printf 'exit %s' $?; fi ;;
  hang) printf 'working'; exec tail -f /dev/null ;;
  fail) echo 'ValueError: broken as asked' >&2; exit 3 ;;
  artifact) f=$(mktemp -d)/report.txt; printf 'forty-two' >"$f"; "$AMESH" task emit artifact --file "$f" --name report; rm -f "$f"; printf 'made' ;;
  *) printf 'what is %s?' "$text" ;;
esac
