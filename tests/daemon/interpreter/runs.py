"""Running code in an interpreter, and everything it says."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from tests.contract.wire_client import WebSocket
from tests.daemon.conftest import Daemon
from tests.daemon.test_code_run import OPENAPI

EXECUTE = "/process/interpreter/execute"
CONTEXT = "/process/interpreter/context"
GO = {"X-Daytona-Source": "sdk-go", "X-Daytona-SDK-Version": "v0.205.1"}


class Heard:
    """Everything one execution said."""

    def __init__(self, socket: WebSocket) -> None:
        self.messages = [json.loads(message.data) for message in socket.messages(60)]
        self.code = socket.close_code
        self.reason = socket.close_reason
        for message in self.messages:
            assert set(message) == {"type", "text", "name", "value", "traceback"}, "every client finds every key"

    def text(self, stream: str = "stdout") -> str:
        return "".join(message["text"] for message in self.messages if message["type"] == stream)

    @property
    def error(self) -> dict[str, str] | None:
        return next((message for message in self.messages if message["type"] == "error"), None)

    @property
    def controls(self) -> list[str]:
        return [message["text"] for message in self.messages if message["type"] == "control"]


def begin(daemon: Daemon, code: str, headers: Mapping[str, str] | None = None, **fields: Any) -> WebSocket:
    """A socket with its request sent."""
    socket = daemon.websocket(EXECUTE, headers=headers)
    socket.send(json.dumps({"code": code, **fields}))
    return socket


def run(daemon: Daemon, code: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Heard:
    """One execution to its end."""
    return Heard(begin(daemon, code, headers, **fields))


def well(daemon: Daemon, code: str, **fields: Any) -> str:
    """What an execution that ends well prints."""
    heard = run(daemon, code, **fields)
    assert (heard.code, heard.controls, heard.error) == (1000, ["completed"], None), heard.messages
    return heard.text()


def context(daemon: Daemon, **fields: Any) -> str:
    """The id of a new context."""
    answer = daemon.post(CONTEXT, fields)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def first_output(socket: WebSocket) -> str:
    """Read until something was printed."""
    return str(json.loads(next(socket.messages(60)).data)["text"])


def check_schema(name: str, value: Any) -> None:
    if OPENAPI.is_file():
        definitions = json.loads(OPENAPI.read_text())["definitions"]
        jsonschema.validate(value, {"$ref": f"#/definitions/{name}", "definitions": definitions})
