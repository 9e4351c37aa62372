"""A sandbox driven by the hand-written client, for tests that look at the wire itself."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from tests.contract.running import Instance
from tests.contract.wire_client import Answer, Body, Refused, WebSocket, request

STATE_SECONDS = 180.0
COMMAND_SECONDS = 60.0
NEWEST = "0.226.1"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """One sandbox and the headers that every request of this client carries."""

    sandyard: Instance
    sandbox: Mapping[str, Any]
    headers: Mapping[str, str]

    @classmethod
    def create(cls, sandyard: Instance, *, body: Mapping[str, Any] | None = None, **headers: str) -> Self:
        """A started sandbox. Fails when it does not start in time."""
        sent = authorization(sandyard) | headers
        answer = request("POST", f"{sandyard.api_url}/sandbox", body or {}, headers=sent, seconds=STATE_SECONDS)
        assert answer.status == 200, answer
        sandbox = answer.json()
        deadline = time.monotonic() + STATE_SECONDS
        while sandbox["state"] != "started":
            assert sandbox["state"] not in ("error", "build_failed", "destroyed"), sandbox
            assert time.monotonic() < deadline, sandbox
            time.sleep(0.2)  # a real client polls too; there is nothing to wait for in this form
            sandbox = request("GET", f"{sandyard.api_url}/sandbox/{sandbox['id']}", headers=sent).json()
        return cls(sandyard, sandbox, sent)

    def speaking(self, version: str | None, source: str = "sdk-python") -> "Toolbox":
        """The same sandbox by a client that calls itself so; `None` sends no version, as curl does."""
        names = {"X-Daytona-SDK-Version": version, "X-Daytona-Source": source} if version else {}
        return Toolbox(self.sandyard, self.sandbox, authorization(self.sandyard) | names)

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return str(self.sandbox["id"])

    @property
    def base(self) -> str:
        """The toolbox base URL, joined as the Python SDK does."""
        return f"{self.sandbox['toolboxProxyUrl']}/{self.id}"

    def call(self, method: str, path: str, body: Body = None, *, seconds: float = COMMAND_SECONDS) -> Answer:
        """One toolbox request."""
        return request(method, self.base + path, body, headers=self.headers, seconds=seconds)

    def api(self, method: str, path: str, body: Body = None) -> Answer:
        """One request to the API; `path` begins behind `/api`."""
        return request(method, self.sandyard.api_url + path, body, headers=self.headers)

    def session(self, name: str) -> None:
        """Make a session. Fails unless it is new."""
        answer = self.call("POST", "/process/session", {"sessionId": name})
        assert answer.status == 201, answer

    def run(self, session: str, command: str, *, wait: bool = True) -> dict[str, Any]:
        """Run a command in a session and return the answer's body."""
        body = {"command": command, "runAsync": not wait}
        answer = self.call("POST", f"/process/session/{session}/exec", body)
        assert answer.status == (200 if wait else 202), answer
        made: dict[str, Any] = answer.json()
        return made

    def follow(self, session: str, command_id: str, **headers: str) -> WebSocket:
        """Follow a command's log over a WebSocket. Raises `Refused`."""
        url = self.base.replace("http", "ws", 1) + command_path(session, command_id) + "/logs?follow=true"
        return WebSocket(url, headers=dict(self.headers) | headers)

    def tell(self, file: str) -> None:
        """Make a file that a command waits for: see `wait_for_file`."""
        answer = self.call("POST", "/process/execute", {"command": f"touch {file}"})
        assert answer.json()["exitCode"] == 0, answer

    def wait_for(self, *states: str) -> dict[str, Any]:
        """The sandbox once it is in one of the states. Fails on an error, and when it is in none of them in time."""
        deadline = time.monotonic() + STATE_SECONDS
        while True:
            told: dict[str, Any] = self.api("GET", f"/sandbox/{self.id}").json()
            if told["state"] in states:
                return told
            assert told["state"] not in ("error", "build_failed"), told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)  # a real client polls too

    def exit_code(self, session: str, command_id: str) -> int | None:
        """The exit code that clients see now."""
        code: int | None = self.call("GET", command_path(session, command_id)).json().get("exitCode")
        return code

    def delete(self) -> None:
        """Delete the sandbox; deleted already is fine."""
        answer = self.api("DELETE", f"/sandbox/{self.id}")
        assert answer.status in (200, 404), answer


def authorization(sandyard: Instance) -> dict[str, str]:
    """The one header that every client sends."""
    return {"Authorization": f"Bearer {sandyard.api_key}"}


def wait_for_file(file: str) -> str:
    """Shell text that waits for a file, not for ever; its status says whether the file came."""
    return f"for n in $(seq 400); do [ -e {file} ] && break; sleep 0.05; done; [ -e {file} ]"


def command_path(session: str, command_id: str) -> str:
    """Where a command is, below the toolbox base."""
    return f"/process/session/{quote(session, safe='')}/command/{quote(command_id, safe='')}"


def refusal(sandyard: Instance, url: str, headers: Mapping[str, str]) -> Refused:
    """The refusal that this upgrade must meet. Fails when the server accepts it."""
    try:
        WebSocket(url, headers=headers).cut()
    except Refused as refused:
        return refused
    raise AssertionError(f"{url} was accepted:\n{sandyard.log[-1000:]}")
