#!/usr/bin/env bash
# The eight behaviours by curl alone: a long-polling worker on the HTTP side of the local API (local-api.md 5).
set -u
api() { curl -sS --unix-socket "$AMESH_SOCK" "$@"; }
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
post() { api -X POST -H 'Content-Type: application/json' --data-binary "$2" "http://mesh/v1/tasks/$1" >/dev/null; }
text() { api -X POST -H 'Content-Type: text/plain' --data-binary "$2" "http://mesh/v1/tasks/$1" ; }
while :; do
  work=$(api "http://mesh/v1/work?wait=30") || exit 0
  [ -n "$work" ] || continue
  id=$(field taskId <<<"$work") said=$(field text <<<"$work")
  case "$said" in
    "echo "*) text "$id/result" "${said#echo }" ;;
    stream) for w in 'one ' 'two ' 'three ' four; do text "$id/events" "$w"; done; post "$id/result" null ;;
    tool) post "$id/events" '[{"type":"tool_call","callId":"c1","name":"add","args":{"a":1,"b":2}},{"type":"tool_result","callId":"c1","name":"add","output":3}]'; text "$id/result" 'sum 3' ;;
    "remember "*) api -X PUT -H 'Content-Type: application/json' --data-binary "\"${said#remember }\"" "http://mesh/v1/kv/context/word?task=$id" >/dev/null; text "$id/result" noted ;;
    recall) word=$(api "http://mesh/v1/kv/context/word?task=$id" | field value); text "$id/result" "you said $word" ;;
    ask) colour=$(api -X POST -H 'Content-Type: text/plain' -H 'Accept: text/plain' --data-binary 'Which colour?' "http://mesh/v1/tasks/$id/ask"); text "$id/result" "painted $colour" ;;
    form) d=$(mktemp -d)
      ask() { api -X POST -H 'Content-Type: application/json' -H 'Accept: text/plain' --data-binary "$1" "http://mesh/v1/tasks/$id/ask"; }
      ask '{"prompt":"Which colour?","options":[{"value":"red","label":"Red"},{"value":"blue","label":"Blue"}]}' >"$d/colour" &
      ask '{"prompt":"How often?","schema":{"type":"integer","minimum":1,"maximum":9}}' >"$d/count" &
      ask '{"prompt":"Sure?","options":["yes","no"],"default":"no","expiresMs":300}' >"$d/sure" &
      wait; text "$id/result" "$(cat "$d/colour") $(cat "$d/count") $(cat "$d/sure")"; rm -r "$d" ;;
    late) said=$(api -X POST -H 'Content-Type: application/json' --data-binary '{"prompt":"Now?","expiresMs":200}' "http://mesh/v1/tasks/$id/ask"); text "$id/result" "$said" ;;
    hang) until text "$id/events" 'working ' | grep -q '"canceled":true'; do :; done; post "$id/result" '{"state":"canceled"}' ;;
    fail) post "$id/result" '{"state":"failed","message":"ValueError: broken as asked"}' ;;
    artifact) post "$id/events" '{"type":"artifact","artifactId":"report","name":"report","text":"forty-two","filename":"report.txt","mediaType":"text/plain"}'; text "$id/result" made ;;
    *) text "$id/result" "what is $said?" ;;
  esac >/dev/null
done
