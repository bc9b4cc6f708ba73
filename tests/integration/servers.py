#!/usr/bin/env python3
"""The main job on Debian's nats-server and on a current one; the stock services client sees our agents on both."""
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../support")]
from meshtest import TOP, Mesh, Tap, check, until  # noqa: E402

tap = Tap()
CLIENT = """
import { connect } from "@nats-io/transport-node"; import { Svcm } from "@nats-io/services";
const nc = await connect({ servers: process.argv[2] }); const c = new Svcm(nc).client();
const all = async (it) => { const out = []; for await (const x of await it) out.push(x); return out; };
console.log(JSON.stringify({ ping: await all(c.ping("upper")), info: await all(c.info("upper")), stats: await all(c.stats("upper")) })); await nc.close();
"""


def main_job(server, version):
    with Mesh(nats=server) as mesh:
        mesh.agent("upper", "--skill", "shout", "--", "tr", "a-z", "A-Z")
        check(mesh.run("ask", "upper", "direct").ok().out.strip() == "DIRECT", "direct")
        check(mesh.run("ask", "--durable", "--skill", "shout", "durable").ok().out.strip() == "DURABLE", "durable")
        doc = mesh.run("check", "--json").ok().json()
        check(version in json.dumps(doc), f"check names the server's version {version}", doc)
        check(mesh.run("ask", "nobody", "x", deadline=10).status == 4, "no responders is known at once")


def client_dir():
    folder = os.path.join(TOP, "build/cache/nats-services-3")
    if not os.path.isdir(os.path.join(folder, "node_modules/@nats-io/services")):
        os.makedirs(folder, exist_ok=True)
        r = subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "@nats-io/services@3.0.0-25", "@nats-io/transport-node@3.4.0"], capture_output=True, text=True)
        if r.returncode != 0:
            raise RuntimeError("npm: " + (r.stderr.strip().splitlines() or ["failed"])[-1])
    return folder


def micro(server, folder):
    script = os.path.join(folder, "client.mjs")
    with open(script, "w") as f:
        f.write(CLIENT)
    with Mesh(nats=server) as mesh:
        agent = mesh.agent("upper", "--skill", "shout", "--", "tr", "a-z", "A-Z")
        mesh.run("ask", "upper", "counted").ok()
        r = subprocess.run(["node", script, mesh.bus], capture_output=True, text=True, timeout=60)
        check(r.returncode == 0, "the client runs", r.stderr)
        seen = json.loads(r.stdout)
        for kind in ("ping", "info", "stats"):
            check(len(seen[kind]) == 1 and seen[kind][0]["name"] == "upper" and seen[kind][0]["id"] == agent.instance, kind, seen[kind])
        check(any(e["subject"].startswith("amp.req.upper") for e in seen["info"][0]["endpoints"]), "endpoints", seen["info"])
        check(sum(e["num_requests"] for e in seen["stats"][0]["endpoints"]) == 1, "requests are counted truly", seen["stats"])


debian = shutil.which("nats-server") or "/usr/sbin/nats-server"
new = os.environ.get("AMESH_TEST_NATS_NEW")
servers = [("Debian's nats-server", debian)] + ([("a current nats-server", new)] if new else [])
for name, server in servers:
    version = subprocess.run([server, "--version"], capture_output=True, text=True).stdout.strip().split("v")[-1]
    tap.run(f"{name} ({version}): direct, durable, no responders, version detected", main_job, server, version)
if not new:
    tap.skip("a current nats-server", "it could not be fetched")
try:
    folder = client_dir() if shutil.which("npm") else None
    reason = "npm is not there"
except RuntimeError as e:
    folder, reason = None, str(e)
for name, server in servers:
    if folder:
        tap.run(f"{name}: the stock services client sees ping, info and stats", micro, server, folder)
    else:
        tap.skip(f"{name}: the stock services client", reason)
tap.done()
