#!/usr/bin/env python3
"""`amesh mockllm` against OpenAI's own client, of the two generations that frameworks pin: what it sends is understood, and what it is sent it takes for the real thing."""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
from meshtest import AMESH, Tap, check  # noqa: E402
from venvs import python_with  # noqa: E402

PINS = {"3": "openai==3.57.0", "2": "openai==2.36.0"}
RULES = r"""
models: [m]
rules:
  - {when: {user: 'weather in (\w+)'}, call: {name: get_weather, arguments: {city: '{{1}}'}}}
  - {when: {tool: '^get_weather$'}, say: 'It is {{result}} there.'}
  - {when: {user: overloaded}, times: 1, fail: {status: 429, message: slow down, retryAfter: 0.1}}
  - {when: {user: forbidden}, fail: {status: 403, message: not for you, code: no_way}}
  - {when: {user: cut me}, say: one two three four, cut: 2}
  - {when: {user: think}, think: let me see, say: I thought.}
  - {when: {user: slowly}, say: at last, delay: 60s}
  - {when: {system: brief}, say: 'Yes: {{user}}'}
  - {say: 'You said {{user}}.'}
"""
WANTED = {
    "chat": {"text": "Yes: hello", "finish": "stop", "usage": 7},
    "chat_stream": {"pieces": ["You ", "said ", "hello ", "big ", "world."], "usages": [7]},
    "chat_tool": {"finish": "tool_calls", "name": "get_weather", "arguments": {"city": "Paris"}, "text": "It is rain there."},
    "chat_tool_stream": {"name": "get_weather", "arguments": {"city": "Paris"}},
    "responses": {"text": "Yes: hello", "status": "completed", "again": "Yes: hello", "usage": 7},
    "responses_stream": {"first": "response.created", "last": "response.completed", "thought": True, "text": "I thought."},
    "responses_helper": {"text": "You said hello."},
    "responses_tool": {"name": "get_weather", "arguments": {"city": "Rome"}, "text": "It is sun there."},
    "background": {"begun": "in_progress", "ended": "cancelled"},
    "embeddings": {"n": 3, "dimensions": 256, "is_near": True},
    "retried": {"text": "You said overloaded."},
    "refused": {"code": "no_way", "message": "not for you", "status": 403},
    "wrong_key": {"code": "invalid_api_key", "models": ["m"]},
}
tap = Tap()


def asked(generation, home):
    python = python_with(PINS[generation])
    rules, key, record = (os.path.join(home, name) for name in ("rules.yaml", "key", "record-" + generation))
    for path, text in ((rules, RULES), (key, "sk-test\n")):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    out = subprocess.run([AMESH, "mockllm", "--key-file", key, "--record", record, rules, "--", python, os.path.join(HERE, "openai/asks.py"), *WANTED, "cut"], capture_output=True, text=True, timeout=200)
    check(out.returncode == 0, "every ask came back", out.stdout, out.stderr)
    answers = {}
    for line in out.stdout.splitlines():
        answers.update(json.loads(line))
    for name, wanted in WANTED.items():
        check(answers[name] == wanted, f"{name}: {answers[name]}, not {wanted}")
    check(answers["cut"]["pieces"] == ["one ", "two "] and answers["cut"]["error"], "a stream that is cut off is an error", answers["cut"])
    with open(record, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    check([l["n"] for l in lines] == list(range(1, len(lines) + 1)), "each request is recorded once")
    check(lines[0]["system"] == "be brief" and lines[0]["user"] == "hello" and lines[0]["rule"] == 7, "with what it was and who answered", lines[0])
    check("sk-test" not in json.dumps(lines), "and without the key")


with tempfile.TemporaryDirectory() as folder:
    for which, pin in PINS.items():
        tap.run(f"the scripted model is what {pin} takes for OpenAI: chat, responses, embeddings, tools, streams, failures", asked, which, folder)
tap.done()
