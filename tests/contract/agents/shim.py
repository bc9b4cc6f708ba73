"""The eight behaviours by functions that a shim serves: a function, a coroutine, a generator and an async generator, each as its users would write it."""
import asyncio
import concurrent.futures

import amesh

COLOURS = [{"value": "red", "label": "Red"}, {"value": "blue", "label": "Blue"}]
COUNT = {"type": "integer", "minimum": 1, "maximum": 9}


def form(task):
    """Three questions at once, by threads."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(task.ask, "Which colour?", options=COLOURS), pool.submit(task.ask, "How often?", schema=COUNT),
                 pool.submit(task.ask, "Sure?", options=["yes", "no"], default="no", expires_ms=300)]
        return " ".join(str(a.result()) for a in asked)


async def async_form(task):
    return " ".join(map(str, await asyncio.gather(task.ask("Which colour?", options=COLOURS), task.ask("How often?", schema=COUNT),
                                                  task.ask("Sure?", options=["yes", "no"], default="no", expires_ms=300))))


async def async_late(task):
    try:
        return await task.ask("Now?", expires_ms=200)
    except amesh.Error as e:
        return f"late: {e.name}"


def late(task):
    try:
        return task.ask("Now?", expires_ms=200)
    except amesh.Error as e:
        return f"late: {e.name}"


def sync_agent(text, task):
    if text.startswith("echo "):
        return text[5:]
    if text == "stream":
        for word in ("one ", "two ", "three ", "four"):
            task.emit(word)
        return None
    if text == "tool":
        with task.tool("add", a=1, b=2) as call:
            call.result(1 + 2)
        return "sum 3"
    if text.startswith("remember "):
        task.kv_put("word", text[9:])
        return "noted"
    if text == "recall":
        return "you said " + task.kv_get("word")
    if text == "ask":
        return "painted " + task.ask("Which colour?")
    if text == "form":
        return form(task)
    if text == "late":
        return late(task)
    if text == "hang":
        task.emit("working")
        task.sleep(3600)
    if text == "fail":
        raise ValueError("broken as asked")
    if text == "artifact":
        task.artifact("report", "forty-two", filename="report.txt")
        return "made"
    return f"what is {text}?"


async def async_agent(text, task):
    if text.startswith("echo "):
        return text[5:]
    if text == "stream":
        for word in ("one ", "two ", "three ", "four"):
            task.emit(word)
        return None
    if text == "tool":
        call = task.tool("add", a=1, b=2)
        await asyncio.sleep(0)
        call.result(1 + 2)
        return "sum 3"
    if text.startswith("remember "):
        await task.kv_put("word", text[9:])
        return "noted"
    if text == "recall":
        return "you said " + await task.kv_get("word")
    if text == "ask":
        return "painted " + await task.ask("Which colour?")
    if text == "form":
        return await async_form(task)
    if text == "late":
        return await async_late(task)
    if text == "hang":
        task.emit("working")
        await asyncio.Event().wait()
    if text == "fail":
        raise ValueError("broken as asked")
    if text == "artifact":
        task.artifact("report", "forty-two", filename="report.txt")
        return "made"
    return f"what is {text}?"


def generator_agent(text, task):
    if text.startswith("echo "):
        yield text[5:]
    elif text == "stream":
        yield from ("one ", "two ", "three ", "four")
    elif text == "tool":
        yield {"type": "tool_call", "callId": "c1", "name": "add", "args": {"a": 1, "b": 2}}
        yield {"type": "tool_result", "callId": "c1", "name": "add", "output": 1 + 2}
        yield "sum 3"
    elif text.startswith("remember "):
        task.kv_put("word", text[9:])
        yield "noted"
    elif text == "recall":
        yield "you said " + task.kv_get("word")
    elif text == "ask":
        yield "painted " + task.ask("Which colour?")
    elif text == "form":
        yield form(task)
    elif text == "late":
        yield late(task)
    elif text == "hang":
        yield "working"
        task.sleep(3600)
    elif text == "fail":
        raise ValueError("broken as asked")
    elif text == "artifact":
        yield {"type": "artifact", "artifactId": "report", "name": "report", "text": "forty-two", "filename": "report.txt"}
        return "made"
    else:
        return f"what is {text}?"


async def async_generator_agent(text, task):
    if text.startswith("echo "):
        yield text[5:]
    elif text == "stream":
        for word in ("one ", "two ", "three ", "four"):
            yield word
    elif text == "tool":
        with task.tool("add", a=1, b=2) as call:
            call.result(1 + 2)
        yield "sum 3"
    elif text.startswith("remember "):
        await task.kv_put("word", text[9:])
        yield "noted"
    elif text == "recall":
        yield "you said " + await task.kv_get("word")
    elif text == "ask":
        yield "painted " + await task.ask("Which colour?")
    elif text == "form":
        yield await async_form(task)
    elif text == "late":
        yield await async_late(task)
    elif text == "hang":
        yield "working"
        await task.sleep(3600)
    elif text == "fail":
        raise ValueError("broken as asked")
    elif text == "artifact":
        yield {"type": "artifact", "artifactId": "report", "name": "report", "text": "forty-two", "filename": "report.txt"}
        yield "made"
    else:
        yield f"what is {text}?"
