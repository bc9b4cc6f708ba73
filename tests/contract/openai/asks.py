"""Runs inside an environment that has the package openai: asks the model at OPENAI_BASE_URL in every way, and prints what came as one JSON document per line."""
import json
import sys

import openai

client = openai.OpenAI(max_retries=1)
WEATHER = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def say(text):
    return [{"role": "user", "content": text}]


def chat():
    answer = client.chat.completions.create(model="m", messages=[{"role": "system", "content": "be brief"}] + say("hello"))
    return {"text": answer.choices[0].message.content, "finish": answer.choices[0].finish_reason, "usage": answer.usage.total_tokens}


def chat_stream():
    pieces, usage = [], []
    for chunk in client.chat.completions.create(model="m", messages=say("hello big world"), stream=True, stream_options={"include_usage": True}):
        pieces += [c.delta.content for c in chunk.choices if c.delta.content]
        usage += [chunk.usage.completion_tokens] if chunk.usage else []
    return {"pieces": pieces, "usages": usage}


def chat_tool():
    messages, tools = say("weather in Paris"), [{"type": "function", "function": WEATHER}]
    first = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0]
    call = first.message.tool_calls[0]
    messages += [first.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    last = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0]
    return {"finish": first.finish_reason, "name": call.function.name, "arguments": json.loads(call.function.arguments), "text": last.message.content}


def chat_tool_stream():
    name, arguments = "", ""
    for chunk in client.chat.completions.create(model="m", messages=say("weather in Paris"), stream=True):
        for call in (c for choice in chunk.choices for c in choice.delta.tool_calls or []):
            name, arguments = name + (call.function.name or ""), arguments + (call.function.arguments or "")
    return {"name": name, "arguments": json.loads(arguments)}


def responses():
    answer = client.responses.create(model="m", instructions="be brief", input="hello")
    again = client.responses.retrieve(answer.id)
    return {"text": answer.output_text, "status": answer.status, "again": again.output_text, "usage": answer.usage.total_tokens}


def responses_stream():
    types, pieces = [], []
    for event in client.responses.create(model="m", input="think about it", stream=True):
        types.append(event.type)
        pieces += [event.delta] if event.type == "response.output_text.delta" else []
    return {"first": types[0], "last": types[-1], "thought": "response.reasoning_summary_text.delta" in types, "text": "".join(pieces)}


def responses_helper():
    with client.responses.stream(model="m", input="hello") as stream:
        for _ in stream:
            pass
        return {"text": stream.get_final_response().output_text}


def responses_tool():
    first = client.responses.create(model="m", input="weather in Rome", tools=[dict(WEATHER, type="function")])
    call = first.output[0]
    last = client.responses.create(model="m", previous_response_id=first.id, input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}])
    return {"name": call.name, "arguments": json.loads(call.arguments), "text": last.output_text}


def background():
    begun = client.responses.create(model="m", input="slowly please", background=True)
    ended = client.responses.cancel(begun.id)
    return {"begun": begun.status, "ended": ended.status}


def embeddings():
    vectors = [v.embedding for v in client.embeddings.create(model="m", input=["a cat sat", "the cat sat", "stock prices"]).data]
    near, far = (sum(a * b for a, b in zip(vectors[0], v)) for v in vectors[1:])
    return {"n": len(vectors), "dimensions": len(vectors[0]), "is_near": near > far}


def retried():
    return {"text": client.chat.completions.create(model="m", messages=say("overloaded")).choices[0].message.content}


def refused():
    try:
        client.chat.completions.create(model="m", messages=say("forbidden"))
    except openai.PermissionDeniedError as e:
        return {"code": e.code, "message": e.body["message"], "status": e.status_code}
    return {}


def cut():
    pieces = []
    try:
        for chunk in client.chat.completions.create(model="m", messages=say("cut me"), stream=True):
            pieces += [c.delta.content for c in chunk.choices if c.delta.content]
    except Exception as e:  # which one is the transport's affair
        return {"pieces": pieces, "error": type(e).__name__}
    return {"pieces": pieces}


def wrong_key():
    try:
        openai.OpenAI(api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError as e:
        return {"code": e.code, "models": [m.id for m in client.models.list()]}
    return {}


if __name__ == "__main__":
    for ask in sys.argv[1:]:
        print(json.dumps({ask: globals()[ask]()}), flush=True)
