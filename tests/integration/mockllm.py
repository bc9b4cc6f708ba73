#!/usr/bin/env python3
"""`amesh mockllm`: the page docs/mockllm.md as it stands, what it refuses, and what it does with clients that are rude. OpenAI's own clients: tests/contract/openai_sdk.py."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
from meshtest import AMESH, TOP, Process, Tap, check, until  # noqa: E402

tap = Tap()
URL = re.compile(r"http://127\.0\.0\.1:(\d+)/v1")


def page_rules():
    with open(os.path.join(TOP, "docs/mockllm.md"), encoding="utf-8") as f:
        return re.search(r"```yaml file=rules.yaml\n(.*?)```", f.read(), re.S).group(1)


class Model:
    def __init__(self, folder, rules, *options):
        self.path = os.path.join(folder, "rules.yaml")
        with open(self.path, "w", encoding="utf-8") as f:
            f.write(rules)
        self.process = Process([AMESH, "mockllm", *options, self.path], dict(os.environ, TMPDIR=folder), "mockllm")
        self.port = int(URL.search(self.process.wait_line("http://")).group(1))

    def ask(self, path, body, method="POST", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body), headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if answer.getheader("Content-Type") == "application/json" else text
        finally:
            connection.close()

    def chat(self, text, **more):
        return self.ask("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": text}], **more})

    def text(self, text):
        return self.chat(text)[1]["choices"][0]["message"]["content"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()


def the_page(folder):
    with Model(folder, page_rules()) as model:
        status, answer = model.chat("What is the weather in Oslo?")
        call = answer["choices"][0]["message"]["tool_calls"][0]
        check(status == 200 and call["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}, "the rule of the page calls", answer)
        check(model.chat("I am overloaded")[0] == 429 and model.text("I am overloaded") != "", "it fails once, then goes on")
        status, text = model.chat("tell me more", stream=True)
        check(status == 200 and text.endswith("data: [DONE]\n\n") and text.count("data: ") > 4, "it streams", text)


def with_a_command(folder):
    rules, record = os.path.join(folder, "c.yaml"), os.path.join(folder, "record.jsonl")
    with open(rules, "w", encoding="utf-8") as f:
        f.write("rules: [{name: all, say: 'to {{user}}'}]")
    program = "import os,sys,urllib.request,json; r=urllib.request.urlopen(os.environ['OPENAI_BASE_URL']+'/chat/completions', json.dumps({'model':'m','messages':[{'role':'user','content':[{'type':'text','text':'me'}]}]}).encode()); print(json.load(r)['choices'][0]['message']['content']); sys.exit(7)"
    out = subprocess.run([AMESH, "mockllm", "--record", record, rules, "--", sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    check(out.returncode == 7 and out.stdout == "to me\n" and not out.stderr, "the command has the model, and its exit status is ours", out)
    with open(record, encoding="utf-8") as f:
        line = json.loads(f.read())
    check(line["ruleName"] == "all" and line["user"] == "me" and line["request"]["model"] == "m", "what was asked is on record", line)
    out = subprocess.run([AMESH, "mockllm", rules, "--", "sh", "-c", "kill -9 $$"], capture_output=True, text=True, timeout=60)
    check(out.returncode == 137, "a command that is killed", out)


def ends(folder):
    with Model(folder, "rules: [{say: x}]") as model:
        model.process.child.send_signal(signal.SIGTERM)
        check(model.process.child.wait(timeout=30) == 0, "SIGTERM ends it well")
        check(not [name for name in os.listdir(folder) if name.startswith("amesh-mockllm")], "and it leaves nothing behind", os.listdir(folder))
        out = subprocess.run([AMESH, "mockllm", "--port", str(model.port), "--json", model.path, "--", "true"], capture_output=True, text=True, timeout=60)
        check(out.returncode == 0, "its port can be had again at once", out)


REFUSED = [
    ("{rules: []}", "rules: the file is a mapping with a list of rules"),
    ("rules:\n  - {say: x}\n  - {sya: x}", ":3: rules[1].sya: a rule has no such member"),
    ("rules: [{sya: x}]", "did you mean say?"),
    ("rules: [{say: 1}]", "rules[0].say: a text is wanted"),
    ("rules: [{say: x, when: {user: '('}}]", "rules[0].when.user: Unmatched"),
    ("rules: [{say: x, when: {usr: a}}]", "`when` has no such member"),
    ("rules: [{fail: {status: 200}}]", "rules[0].fail: a failure is a mapping with a status from 400"),
    ("rules: [{say: x, fail: {status: 500}}]", "a rule that fails says"),
    ("rules: [{say: x, delay: soon}]", "rules[0].delay: a duration is wanted"),
    ("rules: [{when: {user: a}}]", "rules[0]: a rule says, calls, thinks, fails or stalls"),
    ("rules: [{say: x, when: {api: embeddings}}]", "embeddings are computed"),
    ("rules: [{call: {arguments: {}}}]", "each call is a mapping with the name"),
    ("rules: [{say: x}]\nmodel: m", "it has rules and models"),
    ("rules: [{say: x, cut: -1}]", "rules[0].cut: a whole number is wanted"),
    ("", "the file is empty"),
]


def refuses_rules():
    for rules, wanted in REFUSED:
        out = subprocess.run([AMESH, "mockllm", "-"], input=rules, capture_output=True, text=True, timeout=60)
        check(out.returncode == 2 and wanted in out.stderr and not out.stdout, f"{rules!r} is refused: {wanted}", out)


def picks_the_first(folder):
    rules = r"""
rules:
  - {when: {model: '^big'}, say: big}
  - {when: {turn: 2}, say: second}
  - {when: {system: 'be (\w+)'}, say: '{{1}}'}
  - {when: {user: a}, times: 2, say: 'once or twice'}
  - {when: {user: a}, say: 'again, {{user}} {{turn}} {{unknown}}'}
  - {when: {result: 'error'}, say: 'it failed: {{tool}}'}
  - {when: {user: '^tool$'}, call: [{name: one}, {name: two, arguments: 'as it {stands'}]}
"""
    with Model(folder, rules) as model:
        def ask(*messages, name="m"):
            status, answer = model.ask("/v1/chat/completions", {"model": name, "messages": list(messages)})
            return answer["choices"][0]["message"] if status == 200 else answer["error"]

        def user(text):
            return {"role": "user", "content": text}
        check(ask(user("x"), name="big-1")["content"] == "big", "by model")
        check(ask(user("x"), {"role": "assistant", "content": "y"}, user("z"))["content"] == "second", "by turn")
        check(ask({"role": "developer", "content": "be quick"}, user("a"))["content"] == "quick", "by system, with what it caught")
        check([model.text("a") for _ in range(3)] == ["once or twice", "once or twice", "again, a 1 {{unknown}}"], "so many times")
        calls = ask(user("tool"))["tool_calls"]
        check([(c["function"]["name"], c["function"]["arguments"]) for c in calls] == [("one", "{}"), ("two", "as it {stands")] and calls[0]["id"] != calls[1]["id"], "several calls", calls)
        results = [{"role": "tool", "tool_call_id": c["id"], "content": text} for c, text in zip(calls, ("fine", "an error"))]
        check(ask(user("tool"), {"role": "assistant", "tool_calls": calls}, *results)["content"] == "it failed: one\ntwo", "by what tools said")
        error = ask(user("\x1b[31mnobody knows"))
        check(error["code"] == "no_rule" and "nobody knows" in error["message"] and "\x1b" not in error["message"], "none fits: said, with what was asked", error)


def rude_clients(folder):
    with Model(folder, "rules: [{when: {user: wait}, stall: 1, say: 'one two three'}, {when: {user: never}, stall: 0}, {say: fine, pace: 1ms}]") as model:
        for body in (b"", b"{", b"[]", b"{}", b'{"model":"m"}', b'{"model":"m","messages":7}', b'{"model":"m","messages":[7]}', b'{"model":7,"messages":[]}', b'{"model":"m","messages":[{"role":"user","content":{"a":' + b"[" * 5000):
            status, answer = model.ask("/v1/chat/completions", body)
            check(status == 400 and answer["error"]["message"], f"{body[:40]} is refused", status, answer)
        check(model.ask("/v1/responses", {"model": "m", "previous_response_id": "resp_mock_999", "input": "x"})[0] == 400, "a response that never was")
        check(model.ask("/v1/responses/resp_mock_999", None, "GET")[0] == 404 and model.ask("/v1/nothing", {})[0] == 404, "and what is not there")
        check(model.ask("/v1/embeddings", {"model": "m", "input": "x", "dimensions": 10**9})[0] == 400, "vectors without end")
        waiting = []
        for text in ["wait", "never"] * 20:
            connection = socket.create_connection(("127.0.0.1", model.port), timeout=30)
            body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}).encode()
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            waiting.append(connection)
        came = b""
        while b"one " not in came:
            part = waiting[0].recv(65536)
            check(part, "a stream that stalls begins", came)
            came += part
        check(model.text("x") == "fine", "others are answered meanwhile")
        for connection in waiting:
            connection.close()
        until(lambda: len(os.listdir(f"/proc/{model.process.child.pid}/fd")) < 30, "what the clients left is closed")
        check(model.text("x") == "fine", "and after it")


with tempfile.TemporaryDirectory() as home:
    tap.run("the rules of the page answer as the page says", the_page, home)
    tap.run("a command runs with the model, and the requests are on record", with_a_command, home)
    tap.run("it ends in good order, and leaves nothing behind", ends, home)
    tap.run("rules that are wrong are refused with line, member and what is wanted", refuses_rules)
    tap.run("the first rule that fits answers, with what it caught", picks_the_first, home)
    tap.run("bad requests, stalls and clients that leave cost nobody else", rude_clients, home)
tap.done()
