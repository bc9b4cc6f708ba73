"""What an agent's own code may import: the running task, and what can be done with it (spec/local-api.md). Standard library, Python >= 3.9.

    def agent(text, task):                  async def agent(text, task):
        return task.ask("Which colour?")        return await task.ask("Which colour?")

One rule for every call that waits (ask, send, kv_*, sleep): inside of a running event loop it gives an awaitable, elsewhere it blocks. The others
(emit, status, tool, step, artifact, log) never wait for an answer. Any thread may call. A task that was cancelled raises Canceled once, out of the
call that waits or at the next call. A value that is no JSON becomes its model_dump(), dataclasses.asdict(), a list, or str().
"""
import asyncio
import base64
import concurrent.futures
import contextlib
import contextvars
import itertools
import mimetypes
import os
import tempfile
import threading
import urllib.parse

_running = contextvars.ContextVar("amesh_task", default=None)
_TYPES = {"text", "reasoning", "tool_call", "tool_result", "step", "artifact", "status", "usage", "log", "custom"}
_FILE_MAX = 64 << 10  # a larger file is read by the sidecar
_ENDS = {"TASK_STATE_FAILED": (3001, "task_failed"), "TASK_STATE_REJECTED": (3002, "rejected"), "TASK_STATE_CANCELED": (3003, "canceled")}
current = _running.get  # current() → the Task in which this code runs, or None; in coroutines, the shim's threads and asyncio.to_thread()


def _in_loop():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _written(data):
    with tempfile.NamedTemporaryFile(prefix="amesh-", delete=False) as file:
        try:
            file.write(data)
        except BaseException:
            os.unlink(file.name)
            raise
    return file.name


class Canceled(asyncio.CancelledError):
    """The caller took the task back. No Exception, so that `except Exception` does not swallow it."""


class Error(Exception):
    """The mesh refused: .code (`AMESH-2001`), .name (`no_such_agent`), .hint (what to do, or None), .task (of a send: the A2A Task, or None)."""

    def __init__(self, message, code=None, name=None, hint=None, task=None):
        super().__init__(message + (f" ({hint})" if hint else ""))
        self.code, self.name, self.hint, self.task = code, name, hint, task


class Busy(Exception):
    """Raised by an agent that can take nothing now (a rate limit of its model): load, and no failure. Others do the task, or it waits. `after_ms`: for how long, if it is known.
    Any other exception with an attribute `amesh_busy` that is true, and perhaps `after_ms`, says the same."""

    amesh_busy = True

    def __init__(self, message="", after_ms=None):
        super().__init__(message)
        self.after_ms = after_ms


class TaskFailed(Error):
    """A task that was sent did not complete, or could not be sent."""


class Result(str):
    """The answer's text, with the whole A2A Task in .task"""

    def __new__(cls, task):
        status, wire = task.get("status", {}), task.get("metadata", {}).get("amp/error", {})
        if status.get("state") not in ("TASK_STATE_COMPLETED", "TASK_STATE_SUBMITTED"):  # submitted: it was detached
            reason = "".join(p.get("text", "") for p in (status.get("message") or {}).get("parts", [])) or wire.get("message") or str(status.get("state"))
            code, name = (wire["code"], wire.get("name")) if "code" in wire else _ENDS.get(status.get("state"), (None, None))
            raise TaskFailed(reason, f"AMESH-{code}" if code else None, name, wire.get("hint"), task)
        self = super().__new__(cls, "".join(p.get("text", "") for a in task.get("artifacts", []) if a["artifactId"] == "response" for p in a.get("parts", [])))
        self.task, self.text = task, str(self)
        return self


class _Tool:
    """A call of a tool. `with task.tool("add", a=1, b=2) as call: call.result(3)`; an exception inside becomes the result, marked as an error."""

    def __init__(self, task, name, args):
        self.task, self.name, self.id, self.is_open = task, name, task.tool_call(name, args), True

    def result(self, output, is_error=False):
        if self.is_open:
            self.is_open = False
            self.task.tool_result(self.id, output, self.name, is_error)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.result(f"{kind.__name__}: {error}" if kind else None, kind is not None)


class Task:
    """id, context, text, message (A2A), attempt (from 1), sender, skill, parent, timeout_ms, meta; resume: {text, message} after input-required."""

    def __init__(self, link, params):
        self._link, self._canceled, self._told, self._waiting, self._numbers = link, threading.Event(), False, set(), itertools.count(1)
        self.id, self.context, self.text, self.message = params["taskId"], params.get("contextId"), params.get("text", ""), params.get("message")
        self.attempt, self.sender, self.skill, self.parent = params.get("attempt", 1), params.get("from"), params.get("skill"), params.get("parent")
        self.timeout_ms, self.meta, self.resume, self.streamed = params.get("timeoutMs"), params.get("meta") or {}, params.get("resume"), False
        self._answered = []  # parts that are files
        self.canceled = False

    def _cancel(self):
        self.canceled, waiting = True, list(self._waiting)
        self._told = self._told or bool(waiting)
        self._canceled.set()
        for future in waiting:
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # answered at this moment
                future.set_exception(Canceled("the task was cancelled"))

    def raise_if_canceled(self):
        if self.canceled:
            self._told = True
            raise Canceled("the task was cancelled")

    def _check(self):  # raises once: what cleans up after a Canceled can still tell about it
        if not self._told:
            self.raise_if_canceled()

    def emit(self, event):
        """Text of the answer, or an event: {"type": …}, local-api.md 4."""
        self._check()
        if isinstance(event, dict) and event.get("type") == "text" and isinstance(event.get("text"), str):
            event = event["text"]
        if isinstance(event, str):
            self.streamed = self.streamed or event != ""
            for piece in self._link.split(event):
                self._link.notify("task.event", {"taskId": self.id, "event": {"type": "text", "text": piece}})
        elif isinstance(event, dict) and event.get("type") in _TYPES:
            self._link.notify("task.event", {"taskId": self.id, "event": event})
        else:
            raise ValueError(f"an event is a text, or a dict with a type of {', '.join(sorted(_TYPES))}; not {event!r:.80}")

    def status(self, text):
        self.emit({"type": "status", "text": text})

    def log(self, level, text):
        self.emit({"type": "log", "level": level, "text": text})

    def tool(self, name, /, **args):
        return _Tool(self, name, args)

    def tool_call(self, name, args=None, call_id=None):
        call_id = call_id or f"c{next(self._numbers)}"
        self.emit({"type": "tool_call", "callId": call_id, "name": name, "args": {} if args is None else args})
        return call_id

    def tool_result(self, call_id, output, name=None, is_error=False):
        self.emit({"type": "tool_result", "callId": call_id, "output": output, "isError": is_error, **({"name": name} if name else {})})

    @contextlib.contextmanager
    def step(self, name):
        self.emit({"type": "step", "name": name, "phase": "start"})
        try:
            yield
        finally:
            self.emit({"type": "step", "name": name, "phase": "end"})

    def artifact(self, name, text=None, data=None, bytes=None, path=None, media_type=None, filename=None):
        """A result beside the answer: a text, bytes or a file of any size, or JSON data. In a plain function the file has been taken in afterwards; in an async one a large one
        must stay as it is until the task is over."""
        if path is not None:
            filename = filename or os.path.basename(path)
            if os.path.getsize(path) <= _FILE_MAX:
                with open(path, "rb") as file:
                    bytes = file.read()
        media_type = media_type or (mimetypes.guess_type(filename)[0] if filename else None)
        about = {k: v for k, v in (("filename", filename), ("mediaType", media_type)) if v}
        if bytes is None and path is not None:
            with open(path, "rb"):  # what cannot be read is said here
                pass
            return self._file(name, path, about)
        if bytes is not None and len(bytes) > _FILE_MAX:
            return self._file(name, _written(bytes), about, os.unlink)
        if bytes is not None:
            bodies = [{"parts": [{"raw": base64.b64encode(bytes).decode(), **about}]}]
        else:
            bodies = [{"data": data, **about}] if text is None else [{"text": piece, **about} for piece in self._link.split(text) or [""]]
        for i, body in enumerate(bodies):
            self.emit({"type": "artifact", "artifactId": name, "name": name, **body, "append": i > 0, "last": i == len(bodies) - 1})

    def _file(self, name, path, about, then=lambda path: None):
        """The sidecar reads it: `then` it is ours again."""
        event = {"type": "artifact", "artifactId": name, "name": name, "parts": [{"file": os.path.abspath(path), **about}], "last": True}
        with contextlib.ExitStack() as stack:
            stack.callback(then, path)
            self._check()
            taken = self._link.request("task.event", {"taskId": self.id, "event": event})
            if _in_loop():
                taken.add_done_callback(lambda _, later=stack.pop_all(): later.close())
            else:
                self._wait(taken, lambda r: None)

    @property
    def files(self):
        """Files that came with the task, and behind them those of answers: [{"name", "mediaType", "path" or "bytes"}, …]; large ones are at a path, where they may be read until
        the task is over."""
        found = []
        for part in self.message.get("parts", []) + self._answered:
            about = {"name": part.get("filename", ""), "mediaType": part.get("mediaType", "")}
            if part.get("url", "").startswith("file://"):
                found.append({**about, "path": urllib.parse.unquote(part["url"][7:])})
            elif "raw" in part:
                found.append({**about, "bytes": base64.b64decode(part["raw"])})
        return found

    def ask(self, prompt, options=None, schema=None, expires_ms=None, default=None, multiple=False, other=False):
        """→ what the caller, or whoever reads `amesh inbox`, answers. The task is INPUT_REQUIRED until then; several may be asked at once.
        options: texts, or {value, label}: the answer is the value of one, with multiple a list of them, with other also any other text. schema: the answer
        is a value that fits it. Else a text; of a file it is empty, and `files` has the file. After expires_ms: the default, or an Error of the name `expired`."""
        asked = {"prompt": prompt, "options": options, "schema": schema, "expiresMs": expires_ms, "default": default, "multiple": multiple or None, "other": other or None}
        return self._request("task.ask", asked, self._take_answer)

    def _take_answer(self, answer):
        self._answered += [p for p in answer.get("message", {}).get("parts", []) if "raw" in p or p.get("url", "").startswith("file://")]
        return answer["value"] if "value" in answer else answer["text"]

    def send(self, agent, text, skill=None, context=None, timeout_ms=None, durable=None, key=None, detach=None):
        """→ Result of a task given to another agent (None: to whoever has the skill); raises TaskFailed. It has no more time than this task, and ends with it unless
        this one is completed; with detach it is durable and goes on by itself, and the Result is the task as it was accepted."""
        asked = {"to": agent, "text": text, "skill": skill, "contextId": context, "timeoutMs": timeout_ms, "durable": durable, "key": key, "detach": detach}
        return self._request("send", asked, Result)

    def kv_get(self, key, default=None, scope="context"):
        return self._request("kv.get", {"key": key, "scope": scope}, lambda r: r["value"], {"value": default})

    def kv_put(self, key, value, scope="context", if_version=None):
        """→ the new version. With if_version (0: there is none yet) another version is an Error of the name `conflict`."""
        return self._request("kv.put", {"key": key, "scope": scope, "ifVersion": if_version}, lambda r: r["version"], value=value)

    def kv_delete(self, key, scope="context"):
        return self._request("kv.del", {"key": key, "scope": scope}, lambda r: None, {})

    def kv_list(self, scope="context", prefix=""):
        """→ [{key, value, version}, …]"""
        return self._request("kv.list", {"key": prefix, "scope": scope}, lambda r: r["entries"])

    def sleep(self, seconds):
        """A pause that ends with Canceled when the task is cancelled."""
        if _in_loop():
            return asyncio.sleep(seconds)
        return self._canceled.wait(seconds) and self._check()

    def _request(self, method, params, then, absent=None, **raw):
        self._check()
        return self._wait(self._link.request(method, {"taskId": self.id, **{k: v for k, v in params.items() if v is not None}, **raw}, absent), then)

    def _wait(self, future, then):
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self.canceled and not self._told:
            self._cancel()  # it came after the check
        if not _in_loop():
            return then(future.result())

        async def later():
            return then(await asyncio.wrap_future(future))
        return later()
