#!/usr/bin/env bash
# An outside project builds against what `make install` puts down: shared and static, through pkg-config, as C and as C++; and an agent built so works.
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
tmp=$(mktemp -d)
leave() { AMESH_HOME=$tmp/home "$tmp/usr/bin/amesh" down >/dev/null 2>&1; rm -rf "$tmp"; }
trap leave EXIT
claim() { # claim, command…
  n=$((n + 1)); local what=$1; shift
  if "$@" >"$tmp/log" 2>&1; then echo "ok $n - $what"; else echo "not ok $n - $what"; tail -n 20 "$tmp/log" | sed 's/^/# /'; status=1; fi
}
claim "make install" cmake --install build/release --prefix "$tmp/usr"
cat >"$tmp/outside.c" <<'C'
#include <amp/amp.h>
#include <stdio.h>
int main(void)
{
    char subject[AMP_SUBJECT_SIZE];
    struct amp_error err;
    if (amp_subject_build(AMP_SUBJECT_REQ, "up", "me", NULL, subject, &err) != AMP_OK)
        return 1;
    puts(subject);
    return amp_subject_build(AMP_SUBJECT_REQ, "a.b", "me", NULL, subject, &err) == AMP_INVALID ? 0 : 1;
}
C
libdir=$(dirname "$(find "$tmp/usr" -name libamp.pc)")
export PKG_CONFIG_PATH=$libdir
lib=$(dirname "$libdir")
flags() { pkg-config "$@"; } # the files know where they lie
build() { gcc -std=c17 -Wall -Werror "$@"; }
build_shared() { build "$tmp/outside.c" -o "$tmp/shared" $(flags --cflags --libs libamp) && LD_LIBRARY_PATH=$lib "$tmp/shared" | grep -qx amp.req.up.me; }
build_static() { build "$tmp/outside.c" -o "$tmp/static" $(flags --cflags libamp) "$lib/libamp.a" $(flags --static --libs-only-l libamp | sed 's/-lamp//') && "$tmp/static" | grep -qx amp.req.up.me; }
build_cpp() { { cat "$tmp/outside.c"; echo '#include <amesh/client.h>'; } >"$tmp/outside.cc" && g++ -std=c++17 -Wall -Werror -c "$tmp/outside.cc" -o "$tmp/o.o" $(flags --cflags libamesh-client); }
hidden() { # library, regex of what may be seen
  ! nm -D --defined-only "$lib/$1" | awk '$2 ~ /[TDBR]/ {print $3}' | grep -vE "$2"
}
agent_shared() { build examples/agents/hello_c.c -o "$tmp/hello" $(flags --cflags --libs libamesh-client); }
agent_static() { build examples/agents/hello_c.c -o "$tmp/hello-static" $(flags --cflags libamesh-client) "$lib/libamesh-client.a" "$lib/libamp.a" $(flags --static --libs-only-l libamesh-client | sed 's/-lamesh-client//; s/-lamp//'); }
agent_answers() { # name, program: behind a sidecar, on a mesh of its own, with nothing but what was installed
  local pid status=1 ready
  export AMESH_HOME=$tmp/home LD_LIBRARY_PATH=$lib PATH=$tmp/usr/bin:$PATH
  amesh up --detach || [ $? = 8 ] || return 1
  mkfifo "$tmp/$1.ready"
  amesh run --name "$1" --mode dial -- "$2" >"$tmp/$1.ready" 2>"$tmp/$1.log" &
  pid=$!
  exec 3<"$tmp/$1.ready"
  if read -r -t 60 ready <&3 && [ "${ready%% *}" = ready ]; then amesh ask "$1" world | grep -x 'hello, world'; status=$?; fi
  kill "$pid"; wait "$pid" || status=1
  exec 3<&-
  [ $status = 0 ] || cat "$tmp/$1.log"
  return $status
}
claim "a program links with the shared library through pkg-config" build_shared
claim "and with the static one" build_static
claim "the headers are fit for C++" build_cpp
claim "libamp shows nothing but amp_…" hidden libamp.so '^(amp_|amp__)'
claim "libamesh-client shows nothing but amesh_… and no inner part" hidden libamesh-client.so '^amesh_(adopt|agent|answer_done|ask|ask_all|connect|fd|free|instance|is_pending|kv_[a-z_]+|log|replies_done|request|send|serve|set_handlers|step|task_[a-z_]+|value_done)$'
claim "an agent links with the shared client" agent_shared
claim "and with the static one" agent_static
claim "the agent answers behind a sidecar" agent_answers hello "$tmp/hello"
claim "and so does the static one" agent_answers hello-static "$tmp/hello-static"
by_cmake() {
  mkdir -p "$tmp/project" && cp examples/agents/hello_c.c "$tmp/outside.c" "$tmp/project" &&
    printf '%s\n' 'cmake_minimum_required(VERSION 3.25)' 'project(outside C)' 'find_package(amesh 0.1 REQUIRED)' 'add_executable(hello hello_c.c)' 'target_link_libraries(hello amesh::client)' \
      'add_executable(outside outside.c)' 'target_link_libraries(outside amesh::amp)' >"$tmp/project/CMakeLists.txt" &&
    cmake -S "$tmp/project" -B "$tmp/project/build" -DCMAKE_PREFIX_PATH="$tmp/usr" && cmake --build "$tmp/project/build" && LD_LIBRARY_PATH=$lib "$tmp/project/build/outside" | grep -qx amp.req.up.me
}
documents() { # each is what the installed program says
  local share=$tmp/usr/share
  "$tmp/usr/bin/amesh" man | cmp - "$share/man/man1/amesh.1" && "$tmp/usr/bin/amesh" completion bash | cmp - "$share/bash-completion/completions/amesh" &&
    "$tmp/usr/bin/amesh" completion zsh | cmp - "$share/zsh/site-functions/_amesh" && "$tmp/usr/bin/amesh" completion fish | cmp - "$share/fish/vendor_completions.d/amesh.fish"
}
claim "a CMake project finds both libraries" by_cmake
claim "the manual page and the completions are installed" documents
claim "the installed program runs" "$tmp/usr/bin/amesh" version
echo "1..$n"
exit $status
