"""Serves one Python object as an agent: amesh_shim.py FILE.py[:OBJECT]. Speaks spec/local-api.md 2-4 on AMESH_FD or AMESH_SOCK. Coroutines run on one
event loop, other functions in AMESH_CONCURRENCY threads. stdout is the agent's own: no frame ever goes there."""
import asyncio
import concurrent.futures as futures
import contextlib
import contextvars
import dataclasses
import difflib
import importlib.util
import inspect
import itertools
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator

import amesh

LINE_MAX, PIECE, STOP_S, CANCELED = 1 << 20, 48 << 10, 3, -32800
OUTCOME = {"state", "text", "data", "parts", "artifacts", "message", "retryAfterMs"}


def refuse(reason):
    """Ends the process. The reason is the last line of stderr, which is what the sidecar shows."""
    print("amesh: " + " ".join(reason.split()), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)  # threads that the module has started would keep the process


def describe(error):
    """What the mesh refused says it itself; that somebody else's task failed is said once, however deep it was."""
    kind, text = type(error).__name__, str(error)
    return (text if type(error) is amesh.Error or text.startswith(kind + ": ") else f"{kind}: {text}".strip(": "))[:8000]


def busy(error):
    after = getattr(error, "after_ms", None)
    return {"state": "busy", "message": str(error)[:8000], **({"retryAfterMs": int(after)} if isinstance(after, (int, float)) and after > 0 else {})}


def plain(value):
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return list(value) if isinstance(value, (set, frozenset)) else str(value)


class Link:
    """The connection. Any thread writes, one reads."""

    def __init__(self):
        fd, path = os.environ.pop("AMESH_FD", ""), os.environ.get("AMESH_SOCK", "")
        if not fd and not path:
            refuse("neither AMESH_FD nor AMESH_SOCK is set; start the agent with `amesh run FILE.py:OBJECT`")
        self.sock = socket.socket(fileno=int(fd)) if fd else socket.socket(socket.AF_UNIX)
        self.sock.set_inheritable(False)
        if not fd:
            self.sock.connect(path)
        os.register_at_fork(after_in_child=lambda: os.close(self.sock.detach()))  # a child that lives on would hide our end
        self.lock, self.numbers, self.waiting = threading.Lock(), itertools.count(1), {}

    @staticmethod
    def split(text):
        return [text[i:i + PIECE] for i in range(0, len(text), PIECE)]

    def notify(self, method, params, **frame):
        line = json.dumps({"method": method, "params": params, **frame} if method else frame, ensure_ascii=False, allow_nan=False, default=plain, separators=(",", ":"))
        line = line.encode("utf-8", "replace") + b"\n"
        if len(line) > LINE_MAX:
            raise ValueError(f"{method or 'the outcome'} has {len(line)} bytes; a line of the local API may have {LINE_MAX}; what is large is given by task.artifact, as text, bytes or path")
        with self.lock:
            self.sock.sendall(line)

    def request(self, method, params, absent=None):
        """→ future of the result; `absent` stands for the error not_found."""
        number, future = next(self.numbers), futures.Future()
        self.waiting[number] = future, absent, amesh.TaskFailed if method == "send" else amesh.Error
        try:
            self.notify(method, params, id=number)
        except BaseException:
            del self.waiting[number]
            raise
        return future

    def answered(self, frame):
        future, absent, failure = self.waiting.pop(frame.get("id"), (futures.Future(), None, amesh.Error))
        error = frame.get("error") or {}
        if frame.get("id") is None:
            sys.stderr.write(f"amesh: the sidecar did not understand a line: {error.get('message')}\n")
        data = error.get("data") or {}
        with contextlib.suppress(futures.InvalidStateError):  # nobody waits any more
            if not error:
                future.set_result(frame.get("result"))
            elif absent is not None and data.get("name") == "not_found":
                future.set_result(absent)
            elif error.get("code") == CANCELED and failure is not amesh.TaskFailed:
                future.set_exception(amesh.Canceled(error.get("message")))
            else:
                future.set_exception(failure(error.get("message") or "refused", data.get("code"), data.get("name"), data.get("hint")))


class Run:
    """One task in hand."""

    def __init__(self, shim, number, params):
        self.shim, self.number, self.task, self.parts = shim, number, amesh.Task(shim.link, params), itertools.count(1)
        self.is_threaded, self.handle = False, shim.loop.create_task(self.serve())

    def cancel(self):
        if self.task.canceled:  # once: a second time would break into its cleaning up
            return
        self.task._cancel()
        if not self.is_threaded:  # a thread learns of it at its next call
            self.task._told = True
            self.handle.cancel()

    async def in_thread(self, function, *args):
        def guarded():
            self.task._check()
            try:
                return function(*args)
            except StopIteration as e:  # no future can carry it
                raise RuntimeError("StopIteration") from e
        self.is_threaded = True
        try:
            return await self.shim.loop.run_in_executor(self.shim.pool, self.context.run, guarded)
        finally:
            self.is_threaded = False

    def put(self, item):
        if isinstance(item, str) or (isinstance(item, dict) and "type" in item):
            self.task.emit(item)
        elif item is not None:
            self.task.artifact(f"data-{next(self.parts)}", data=item)

    def drain(self, items):
        try:
            while True:
                try:
                    item = next(items)
                except StopIteration as e:
                    return e.value
                self.put(item)
        finally:
            getattr(items, "close", int)()

    async def call(self):
        result = self.shim.invoke(self.task) if self.shim.is_async else await self.in_thread(self.shim.invoke, self.task)
        if inspect.isawaitable(result):
            self.task._check()
            result = await result
        if isinstance(result, Iterator):
            return await self.in_thread(self.drain, result)
        if not hasattr(result, "__aiter__"):
            return result
        try:
            async for item in result:
                self.put(item)
        finally:
            if hasattr(result, "aclose"):
                await result.aclose()

    def outcome(self, result):
        if result is None or (isinstance(result, str) and self.task.streamed):
            return None
        if isinstance(result, str):
            return result if len(result) <= PIECE else self.task.emit(result)
        if isinstance(result, dict) and result and set(result) <= OUTCOME:
            return dict(result, text=self.outcome(result["text"])) if isinstance(result.get("text"), str) else result
        return {"data": result}

    async def serve(self):
        amesh._running.set(self.task)
        self.context = contextvars.copy_context()
        try:
            self.shim.reply(self.number, result=self.outcome(await self.call()))
        except BaseException as e:
            if getattr(e, "amesh_busy", False):
                self.shim.reply(self.number, result=busy(e))
                return
            is_canceled = isinstance(e, amesh.Canceled) or (self.task.canceled and isinstance(e, (asyncio.CancelledError, amesh.TaskFailed)))  # its children end with it
            if not is_canceled:
                sys.stderr.write("".join(traceback.format_exception(type(e), e, e.__traceback__)))
                sys.stderr.flush()
            if not (is_canceled and self.shim.is_stopping):  # then it was not the caller who took the task back
                self.shim.reply(self.number, error={"code": CANCELED if is_canceled else -32000, "message": "the task was cancelled" if is_canceled else describe(e)})
        finally:
            self.shim.over(self)


class Shim:
    def __init__(self, loop, link, target):
        self.loop, self.link, self.runs, self.is_draining, self.is_stopping = loop, link, {}, False, False
        self.slots = max(1, int(os.environ.get("AMESH_CONCURRENCY") or 1))
        self.pool, self.ended = futures.ThreadPoolExecutor(self.slots, "amesh"), loop.create_future()
        agent = load(target)
        self.card = card_of(agent, target)
        self.is_async, self.invoke = entry(agent, target)

    def reply(self, number, **what):
        with contextlib.suppress(OSError):  # the sidecar is gone, which the reader sees too
            self.link.notify(None, None, id=number, **what)

    def over(self, run):
        if self.runs.get(run.task.id) is run:
            del self.runs[run.task.id]
        if not self.runs and (self.is_draining or self.is_stopping):
            self.end()

    def end(self):
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self):
        if self.is_stopping:
            return
        self.is_stopping = True
        for run in list(self.runs.values()):
            run.cancel()
        self.loop.call_later(STOP_S if self.runs else 0, self.end)

    def take(self, frame):
        method, params = frame.get("method"), frame.get("params") or {}
        if method == "task.run":
            self.runs[params["taskId"]] = Run(self, frame["id"], params)
        elif method == "task.cancel" and params.get("taskId") in self.runs:
            self.runs[params["taskId"]].cancel()
        elif method == "drain":
            self.is_draining = True
            if not self.runs:
                self.end()
        elif method == "ping":
            self.reply(frame["id"], result={})
        elif method and "id" in frame:
            self.reply(frame["id"], error={"code": -32601, "message": f"there is no method {method}"})

    def read(self):
        with contextlib.suppress(OSError, RuntimeError):  # the connection or our loop has ended
            for line in self.link.sock.makefile("rb"):
                frame = json.loads(line)
                if "method" in frame:
                    self.loop.call_soon_threadsafe(self.take, frame)
                else:
                    self.link.answered(frame)
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stop)

    async def main(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop)
        reader = threading.Thread(target=self.read, daemon=True)
        reader.start()
        about = {"proto": 1, "role": "worker", "concurrency": self.slots, "framework": "python", "features": ["text", "events", "ask", "cancel", "drain"]}
        hello = asyncio.wrap_future(self.link.request("hello", {**about, **({"card": self.card} if self.card else {})}))
        await asyncio.wait({hello, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        if hello.done() and hello.exception():
            refuse(f"the sidecar does not take this agent: {hello.exception()}")
        await self.ended
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1)


def is_task(parameter):
    annotation = parameter.annotation
    return annotation is amesh.Task or (isinstance(annotation, str) and annotation.strip("'\"") in ("Task", "amesh.Task"))


def entry(function, target):
    """→ (does it run on the loop?, function of the task). What a parameter takes is told by its place or by the annotation amesh.Task, not by its name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins
        parameters = []
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    extra = [p.name for p in parameters if p not in needed and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and (is_task(p) or p.name == "task")]
    if len(needed) > 2:
        refuse(f"{target} needs {len(needed)} arguments; an agent takes (text) or (text, task)")
    places = [is_task(p) for p in needed] or [False]
    if len(places) == 2 and places != [True, False]:
        places = [False, True]
    if not needed and parameters and all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters) or (not parameters and inspect.isfunction(function)):
        refuse(f"{target} takes no text; an agent takes (text) or (text, task)")

    def invoke(task):
        return function(*(task if place else task.text for place in places), **{name: task for name in extra})
    return any(test(f) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction) for f in (function, getattr(function, "__call__", None))), invoke


def card_of(agent, target):
    """Its attribute `card`, else the first paragraph of the docstring that was written for it: not that of a framework's class."""
    owner = getattr(agent, "__self__", agent)
    card = next((c for c in (getattr(agent, "card", None), getattr(owner, "card", None)) if isinstance(c, dict)), None)
    if card is not None:
        return card
    home = sys.modules.get(type(owner).__module__)
    is_own = getattr(home, "__file__", None) == os.path.abspath(target if target.endswith(".py") else target.rsplit(":", 1)[0])
    doc = (agent.__doc__ if inspect.isroutine(agent) else None) or (type(owner).__doc__ if is_own else None)
    return {"description": " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())[:1000]} if isinstance(doc, str) and doc.strip() else None


def similar(name, names):
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(sorted(names)[:8])}" if names else ""


def load(target):
    path, name = (target, "") if target.endswith(".py") or ":" not in target else target.rsplit(":", 1)
    path = os.path.abspath(path)
    folder, file = os.path.split(path)
    if not os.path.isfile(path):
        refuse(f"{path}: no such file" + (similar(file, [f for f in os.listdir(folder) if f.endswith(".py")]) if os.path.isdir(folder) else ""))
    sys.path.insert(0, folder)
    stem = file[:-3] if file[:-3] not in sys.modules else "agent_" + file[:-3]
    spec = importlib.util.spec_from_file_location(stem, path)
    module = sys.modules[stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as e:
        trace = e.__traceback__
        while trace and trace.tb_frame.f_code.co_filename != path:
            trace = trace.tb_next
        sys.stderr.write("".join(traceback.format_exception(type(e), e, trace)))
        refuse(f"{path} cannot be loaded: {describe(e)}" + (f" (looked for by {sys.executable})" if isinstance(e, ImportError) else ""))
    own = [k for k, v in vars(module).items() if not k.startswith("_") and callable(v) and getattr(v, "__module__", stem) == stem]
    if not name:
        name = "agent" if "agent" in own or len(own) != 1 else own[0]
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            refuse(f"{path} has no {name}" + similar(name, own))
        found = getattr(found, part)
    if isinstance(found, type):
        try:
            found = found()
        except Exception as e:
            refuse(f"{path}:{name} is a class that cannot be made without arguments: {describe(e)}")
    for method in ("run", "handle"):
        if not callable(found):
            found = getattr(found, method, found)
    if not callable(found):
        refuse(f"{path}:{name} is a {type(found).__name__}, which cannot be called and has no method run or handle")
    return found


def main():
    if len(sys.argv) != 2:
        refuse("usage: amesh_shim.py FILE.py[:OBJECT]")
    sys.stdout.reconfigure(line_buffering=True)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # before the module is loaded: what it makes belongs to this loop
    shim = Shim(loop, Link(), sys.argv[1])
    loop.run_until_complete(shim.main())
    sys.stdout.flush()
    if shim.runs:
        sys.stderr.write(f"amesh: {len(shim.runs)} tasks did not stop within {STOP_S} s\n")
        sys.stderr.flush()
        os._exit(1)  # their threads would keep the process


if __name__ == "__main__":
    main()
