#!/usr/bin/env bash
# An outside project builds against what `make install` puts down: shared and static, through pkg-config, as C and as C++.
set -u
cd "$(dirname "$0")/../.." || exit 1
n=0 status=0
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
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
amp_flags() { pkg-config --define-variable=prefix="$tmp/usr" "$@" libamp; }
build_shared() { gcc -std=c17 -Wall -Werror "$tmp/outside.c" -o "$tmp/shared" $(amp_flags --cflags --libs) && LD_LIBRARY_PATH=$(dirname "$libdir") "$tmp/shared" | grep -qx amp.req.up.me; }
build_static() { gcc -std=c17 -Wall -Werror "$tmp/outside.c" -o "$tmp/static" $(amp_flags --cflags) "$(dirname "$libdir")/libamp.a" $(amp_flags --static --libs-only-l | sed 's/-lamp//') && "$tmp/static" | grep -qx amp.req.up.me; }
build_cpp() { cp "$tmp/outside.c" "$tmp/outside.cc" && g++ -std=c++17 -Wall -Werror -c "$tmp/outside.cc" -o "$tmp/o.o" $(amp_flags --cflags); }
hidden() { ! nm -D --defined-only "$(dirname "$libdir")"/libamp.so | awk '$2 ~ /[TDBR]/ {print $3}' | grep -vE '^(amp_|amp__)'; }
claim "a program links with the shared library through pkg-config" build_shared
claim "and with the static one" build_static
claim "the header is fit for C++" build_cpp
claim "nothing but amp_… is visible" hidden
claim "the installed program runs" "$tmp/usr/bin/amesh" version
echo "1..$n"
exit $status
