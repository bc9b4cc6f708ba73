#!/usr/bin/env python3
"""The vectors of spec/vectors, against a second implementation: Google's protobuf for the bytes, and the mapping of amp.md 3.3 written here
anew from its text. libamp replays the same files in tests/unit/vectors_test.c; so whoever agrees with the files agrees with both."""
import base64
import datetime
import importlib
import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "support"))
from meshtest import Tap, check  # noqa: E402

SYSTEM_PYTHON = "/usr/bin/python3"
VECTORS = os.path.join(TOP, "spec", "vectors")
# A2A requires these lists, so an empty one is written (amp.md 3.3.3).
REQUIRED_LISTS = {("Message", "parts"), ("AgentCard", "supported_interfaces"), ("AgentCard", "default_input_modes"),
                  ("AgentCard", "default_output_modes"), ("AgentCard", "skills"), ("AgentSkill", "tags")}


def load(name):
    with open(os.path.join(VECTORS, name), encoding="utf-8") as f:
        return json.load(f)["vectors"]


def generated(folder):
    """The module that protoc makes of amp.proto."""
    subprocess.run(["protoc", f"--python_out={folder}", f"--proto_path={TOP}/spec", "amp.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("amp_pb2")


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def moment(unix_ms):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=unix_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


class Raw(str):
    """JSON text that stands in place (clause 3.4)."""


def scalar(field, value):
    if field.type == field.TYPE_MESSAGE:
        return canonical(value)
    if field.type == field.TYPE_ENUM:
        return json.dumps(field.enum_type.values_by_number[value].name)
    if field.type == field.TYPE_BYTES:
        return json.dumps(base64.b64encode(value).decode())
    if field.type in (field.TYPE_INT64, field.TYPE_UINT64):
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False)


def canonical(message):
    """Clause 3.3 as text: members in the order of the fields, no white space, nothing that is absent."""
    kind = message.DESCRIPTOR.name
    if kind == "Json":
        return message.text.decode()
    if kind == "Timestamp":
        return json.dumps(moment(message.unix_ms))
    members = []
    for field in message.DESCRIPTOR.fields:
        if field.label == field.LABEL_REPEATED:
            values = getattr(message, field.name)
            if values or (kind, field.name) in REQUIRED_LISTS:
                members.append((field, "[" + ",".join(scalar(field, value) for value in values) + "]"))
        elif message.HasField(field.name):
            members.append((field, scalar(field, getattr(message, field.name))))
    return "{" + ",".join(json.dumps(camel(field.name)) + ":" + text for field, text in members) + "}"


def bytes_mean_the_json(amp):
    for vector in load("encodings.json"):
        message = getattr(amp, vector["type"]).FromString(bytes.fromhex(vector["protobuf"]))
        check(canonical(message) == vector["json"], vector["name"], canonical(message), vector["json"])
        check(message.SerializeToString(deterministic=True).hex() == vector["protobuf"], vector["name"] + ": is not how protobuf packs it")


def every_type_is_there(amp):
    seen = set()

    def walk(message):
        seen.add(message.DESCRIPTOR.name)
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                for one in value if field.label == field.LABEL_REPEATED else [value]:
                    walk(one)

    for vector in load("encodings.json"):
        walk(getattr(amp, vector["type"]).FromString(bytes.fromhex(vector["protobuf"])))
    missing = set(amp.DESCRIPTOR.message_types_by_name) - seen
    check(not missing, "types of amp.proto in no vector", *sorted(missing))
    bodies = {field.name for field in amp.Envelope.DESCRIPTOR.oneofs_by_name["body"].fields}
    check(bodies <= {camel_to_snake(next(k for k in json.loads(v["json"]) if camel_to_snake(k) in bodies))
                     for v in load("encodings.json") if v["type"] == "Envelope"}, "a body in no envelope")


def camel_to_snake(name):
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def a_wrong_byte_is_found(amp):
    """Could the first claim fail? With one bit of one vector changed it does."""
    vector = next(v for v in load("encodings.json") if v["type"] == "Envelope")
    wrong = bytearray.fromhex(vector["protobuf"])
    wrong[-1] ^= 1
    check(canonical(amp.Envelope.FromString(bytes(wrong))) != vector["json"], "the change was not seen")


def main():
    tap = Tap()
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        if os.path.realpath(sys.executable) != os.path.realpath(SYSTEM_PYTHON) and os.path.exists(SYSTEM_PYTHON):
            os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, os.path.abspath(__file__)])
        tap.skip("the vectors agree with Google's protobuf", "python3-protobuf is not installed")
        return tap.done()
    with tempfile.TemporaryDirectory() as folder:
        amp = generated(folder)
        tap.run("each vector's bytes, read by Google's protobuf and mapped by the text of the specification, are its JSON", bytes_mean_the_json, amp)
        tap.run("every message type and every body of an envelope is in a vector", every_type_is_there, amp)
        tap.run("a changed bit is noticed", a_wrong_byte_is_found, amp)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
