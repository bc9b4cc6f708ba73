#!/usr/bin/env python3
"""clang-tidy over protocol/, mesh/ and sim/, with the checks of .clang-tidy. A file is looked at again when what the compiler sees of it has changed."""
import concurrent.futures
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build/tidy")  # its own: another test builds in build/clang meanwhile
CACHE = os.path.join(TOP, "build/analyze")
TIDY = shutil.which("clang-tidy")
DEFECT = """#include <string.h>
int seeded(const char *text);
int seeded(const char *text)
{
    const char *found = strchr(text, 'x');
    return found ? 0 : *found;
}
"""


def flags(entry):
    """What to compile it with, without what names the output."""
    words, kept, skip = entry["command"].split(), [], False
    for word in words[1:]:
        if skip or word in ("-c", "-MD", entry["file"]) or word.startswith("-ffile-prefix-map"):
            skip = False
        elif word in ("-o", "-MT", "-MF"):
            skip = True
        else:
            kept.append(word.replace('\\"', '"'))
    return kept


def look(file, compile_flags):
    """→ findings as text; "" if there are none."""
    seen = subprocess.run(["clang", "-E", "-P", *compile_flags, file], cwd=TOP, capture_output=True, check=False)
    if seen.returncode:
        return seen.stderr.decode("utf-8", "replace")
    with open(os.path.join(TOP, ".clang-tidy"), "rb") as f:
        key = hashlib.sha256(seen.stdout + f.read() + repr(compile_flags).encode()).hexdigest()
    if not file.startswith(TOP):  # the seeded one
        key = None
    if key and os.path.exists(os.path.join(CACHE, key)):
        return ""
    r = subprocess.run([TIDY, "--quiet", "--warnings-as-errors=*", f"--config-file={TOP}/.clang-tidy", file, "--", *compile_flags], cwd=TOP, capture_output=True, text=True, check=False)
    if r.returncode == 0:
        if key:
            open(os.path.join(CACHE, key), "w").close()
        return ""
    return r.stdout or r.stderr


def main():
    if not TIDY:
        print("ok 1 - clang-tidy finds nothing # SKIP there is no clang-tidy: apt-get install clang-tidy")
        print("1..1")
        return 1 if os.environ.get("CI") == "true" else 0
    subprocess.run(["cmake", "--preset", "clang", "-B", BUILD], cwd=TOP, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", BUILD, "--target", "amp_objects"], cwd=TOP, check=True, capture_output=True)  # generated headers
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(BUILD, "compile_commands.json")) as f:
        entries = {e["file"]: e for e in json.load(f)}
    files = sorted(f for pattern in ("protocol/src/*.c", "mesh/*.c", "mesh/*/*.c", "sim/*.c") for f in glob.glob(os.path.join(TOP, pattern)) if f in entries)
    status = 0
    with tempfile.NamedTemporaryFile("w", suffix=".c") as seeded:
        seeded.write(DEFECT)
        seeded.flush()
        found = look(seeded.name, ["-std=c17"])
    bites = "null pointer" in found
    print(f"{'ok' if bites else 'not ok'} 1 - it finds a seeded use of a null pointer")
    status |= not bites
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(files, pool.map(lambda f: look(f, flags(entries[f])), files)))
    bad = {f: text for f, text in results.items() if text}
    print(f"{'not ok' if bad or not files else 'ok'} 2 - clang-tidy finds nothing in {len(files)} files")
    for text in bad.values():
        print("".join(f"# {line}\n" for line in text.replace(TOP + "/", "").splitlines()), end="")
    print("1..2")
    return 1 if status or bad or not files else 0


sys.exit(main())
