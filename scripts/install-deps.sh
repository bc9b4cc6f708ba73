#!/usr/bin/env bash
# Installs what is missing, from Debian 12's packages. Groups: build, run, test. Nothing is touched when all is there.
# As root: apt-get. With sudo: sudo apt-get. Else: prints the one command for somebody who may, and fails.
set -euo pipefail

build=(gcc cmake ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev libnats-dev libsodium-dev libcjson-dev
       libcurl4-openssl-dev libevent-dev libsqlite3-dev libyaml-dev uthash-dev)
run=(nats-server curl)
test=(libcmocka-dev zsh fish g++ clang clang-tidy libclang-rt-14-dev pmccabe shellcheck cmark-gfm python3 python3-venv protobuf-compiler python3-protobuf python3-cryptography mandoc procps faketime tzdata iproute2 nftables e2fsprogs)

missing=()
is_there() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
for group in "$@"; do
  declare -n list=$group
  for package in "${list[@]}"; do is_there "$package" || missing+=("$package"); done
  unset -n list
done
# Interpreters may come from elsewhere than Debian: what counts is that they run.
command -v python3 >/dev/null || missing+=(python3)
command -v node >/dev/null || missing+=(nodejs)
case " $* " in *" test "*) command -v npm >/dev/null || missing+=(npm) ;; esac

[ ${#missing[@]} -eq 0 ] && exit 0

command -v apt-get >/dev/null || { echo "install-deps: this machine has no apt-get; needed: ${missing[*]}" >&2; exit 1; }
install="apt-get install -y --no-install-recommends ${missing[*]}"
run_as_root() { # quiet unless it fails
  local log; log=$(mktemp)
  if "$@" >"$log" 2>&1; then rm -f "$log"; else cat "$log" >&2; rm -f "$log"; return 1; fi
}
export DEBIAN_FRONTEND=noninteractive
echo "installing: ${missing[*]}" >&2
if [ "$(id -u)" -eq 0 ]; then
  run_as_root apt-get update -qq || echo "install-deps: apt-get update failed; trying with the lists that are there" >&2
  run_as_root $install
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  sudo apt-get update -qq || true
  sudo DEBIAN_FRONTEND=noninteractive $install >/dev/null
else
  { echo "install-deps: some packages are missing and this user may not install them. Please have somebody run:"
    echo; echo "    sudo apt-get update && sudo $install"; echo; } >&2
  exit 1
fi
