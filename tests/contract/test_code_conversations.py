"""The interpreter as the Ruby, Java and Go SDKs talk to it, message by message (sdk-wire.md 4.8), and each language."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.contract.test_conversations import GO_NEW, RUBY, ruby_url
from tests.contract.toolbox import Toolbox, authorization
from tests.contract.wire_client import WebSocket

EXECUTE = "/process/interpreter/execute"
JAVA = {"User-Agent": "okhttp/4.12.0", "Accept-Encoding": "gzip"}


def talk(url: str, headers: Mapping[str, str], **request: Any) -> tuple[list[dict[str, str]], int | None]:
    """All messages and the close code."""
    with WebSocket(url, headers=headers) as socket:
        socket.send(json.dumps(request))
        messages = list(socket.messages())
        assert all(message.is_text for message in messages)
        return [json.loads(message.data) for message in messages], socket.close_code


def address(box: Toolbox, client: str) -> tuple[str, dict[str, str]]:
    """Where a client's socket goes, and with which headers."""
    if client == "ruby":
        return ruby_url(box, EXECUTE)
    headers = authorization(box.sandyard) | {"go": GO_NEW, "java": JAVA}[client]
    return box.base.replace("http", "ws", 1) + EXECUTE, headers


CLIENTS = pytest.mark.parametrize("client", ["ruby", "go", "java"])


@CLIENTS
def test_output_error_and_end_come_in_order_and_then_the_close(shared_toolbox: Toolbox, client: str) -> None:
    url, headers = address(shared_toolbox, client)
    messages, code = talk(url, headers, code="print('hello')\n1 / 0")
    assert [message["type"] for message in messages] == ["stdout", "error", "control"]
    assert messages[0]["text"] == "hello\n"
    assert messages[1]["name"] == "ZeroDivisionError"
    assert messages[1]["traceback"].startswith("Traceback")
    assert messages[2]["text"] == "completed"
    assert code == 1000


@CLIENTS
def test_variables_are_kept_for_the_next_socket(shared_toolbox: Toolbox, client: str) -> None:
    url, headers = address(shared_toolbox, client)
    talk(url, headers, code=f"kept = {client!r}", envs={}, timeout=10)
    messages, _ = talk(url, headers, code="print(kept)")
    assert messages[0]["text"] == f"{client}\n"


@pytest.mark.parametrize(("client", "close"), [("ruby", 4008), ("go", 4001), ("java", 4008)])
def test_a_timeout_is_each_clients_own_close_code_and_no_control(
    shared_toolbox: Toolbox, client: str, close: int
) -> None:
    url, headers = address(shared_toolbox, client)
    messages, code = talk(url, headers, code="import time; time.sleep(60)", timeout=1)
    assert (messages, code) == ([], close)


@CLIENTS
def test_contexts_by_rest_and_then_by_socket(shared_toolbox: Toolbox, client: str) -> None:
    url, headers = address(shared_toolbox, client)
    made = shared_toolbox.call("POST", "/process/interpreter/context", {"cwd": "/tmp"})
    assert made.status == 200
    assert set(made.json()) == {"id", "cwd", "language", "active", "createdAt"}
    where = f"/process/interpreter/context/{made.json()['id']}"
    messages, _ = talk(url, headers, code="import os; print(os.getcwd())", contextId=made.json()["id"])
    assert messages[0]["text"] == "/tmp\n"
    assert shared_toolbox.call("DELETE", where).status == 200
    assert shared_toolbox.call("DELETE", where).status == 404
    messages, code = talk(url, headers, code="1", contextId=made.json()["id"])
    assert [message["type"] for message in messages] == ["error"]
    assert code == 1008


def test_ruby_needs_no_more_than_the_preview_token(shared_toolbox: Toolbox) -> None:
    url, headers = ruby_url(shared_toolbox, EXECUTE)
    token = {name: value for name, value in headers.items() if name != "Authorization"}
    assert set(RUBY) <= set(token)
    assert talk(url, token, code="print(1)")[1] == 1000


@pytest.mark.parametrize("language", ["python", "javascript", "typescript"])
def test_the_default_sandbox_runs_every_language(shared_toolbox: Toolbox, language: str) -> None:
    print_it = "print(40 + 2)" if language == "python" else "console.log(40 + 2)"
    code = f"const n: number = 1\n{print_it}" if language == "typescript" else print_it
    answer = shared_toolbox.call("POST", "/process/code-run", {"code": code, "language": language})
    if answer.status == 400:
        assert "install" in answer.json()["message"]
        pytest.skip(f"the host of this local sandbox has nothing that runs {language}: {answer.json()['message']}")
    assert answer.json() == {"exitCode": 0, "result": "42\n"}


def test_code_of_an_unknown_language_is_refused(shared_toolbox: Toolbox) -> None:
    answer = shared_toolbox.call("POST", "/process/code-run", {"code": "puts 1", "language": "ruby"})
    assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST")
