"""Terminals over the whole stack: the Go, Ruby and Java conversations, full-screen programs, the page.

Every conversation is played header by header; what a terminal shows is drawn by pyte, an emulator of its own.
"""

import base64
import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest

from tests.contract.test_conversations import GO_NEW, JAVA, RUBY, ruby_url
from tests.contract.toolbox import Toolbox, authorization
from tests.contract.wire_client import Message, Refused, WebSocket, request

jsonschema = pytest.importorskip("jsonschema", reason="the description is checked with it")
pyte = pytest.importorskip("pyte", reason="pyte draws what a terminal shows")

EXIT = "X-Daytona-Pty-Exit-Control"
SECONDS = 60.0
SIZES = [(80, 24), (132, 43)]
DESCRIPTION = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "toolbox.json"


def envs_token(envs: dict[str, str]) -> str:
    """The variables as the SDKs send them."""
    return "X-Daytona-Pty-Envs~" + base64.urlsafe_b64encode(json.dumps(envs).encode()).decode().rstrip("=")


@pytest.fixture
def name(shared_toolbox: Toolbox) -> Iterator[str]:
    """An id of this test's own; its terminal is gone afterwards."""
    made = f"pty-{uuid.uuid4().hex[:8]}"
    yield made
    shared_toolbox.call("DELETE", f"/process/pty/{made}")


def create(
    box: Toolbox, name: str, *protocols: str, query: str = "", headers: dict[str, str] | None = None
) -> WebSocket:
    """Create and connect by the toolbox URL."""
    url = box.base.replace("http", "ws", 1) + f"/process/pty/create-connect?id={name}{query}"
    return WebSocket(url, headers=headers or box.headers, protocols=protocols)


def connect(box: Toolbox, name: str, *protocols: str) -> WebSocket:
    """Attach to a running one."""
    url = box.base.replace("http", "ws", 1) + f"/process/pty/{name}/connect"
    return WebSocket(url, headers=box.headers, protocols=protocols)


def shown(messages: list[Message]) -> bytes:
    """The output among them."""
    return b"".join(message.data for message in messages if not message.is_text)


def controls(messages: list[Message]) -> list[dict[str, Any]]:
    """The control messages among them."""
    return [json.loads(message.data) for message in messages if message.is_text]


def until(socket: WebSocket, text: bytes) -> bytes:
    """The output up to where `text` was shown."""
    seen = b""
    for message in socket.messages(SECONDS):
        seen += b"" if message.is_text else message.data
        if text in seen:
            return seen
    raise AssertionError(seen)


# The conversations.


def test_go_creates_over_rest_and_reads_the_exit_code_from_exited(shared_toolbox: Toolbox, name: str) -> None:
    box = Toolbox(shared_toolbox.sandyard, shared_toolbox.sandbox, authorization(shared_toolbox.sandyard) | GO_NEW)
    made = box.call("POST", "/process/pty", {"id": name, "cols": 100, "rows": 30, "lazyStart": False})
    assert (made.status, made.json()) == (201, {"sessionId": name})
    assert box.call("POST", "/process/pty", {"id": name}).status == 409
    with connect(box, name, EXIT) as socket:
        assert socket.subprotocol == EXIT
        socket.send(b"stty size; exit 42\n")
        messages = list(socket.messages(SECONDS))
    assert b"30 100\r\n" in shown(messages)
    assert controls(messages) == [
        {"type": "control", "status": "connected"},
        {"type": "control", "status": "exited", "exitCode": 42, "exitReason": "non-zero exit"},
    ]
    assert messages[0].is_text, "connected comes before any output"
    assert messages[-1].is_text, "exited comes behind all output"
    assert (socket.close_code, json.loads(socket.close_reason)["exitCode"]) == (1000, 42)
    assert box.call("POST", f"/process/pty/{name}/resize", {"cols": 1, "rows": 1}).status == 410


def test_ruby_types_text_by_the_preview_token_and_never_sees_exited(shared_toolbox: Toolbox, name: str) -> None:
    url, headers = ruby_url(shared_toolbox, f"/process/pty/create-connect?id={name}&cols=90&rows=20")
    protocols = [envs_token({"GREETING": "from ruby"})]
    with WebSocket(url, headers=headers, protocols=protocols) as socket:
        assert socket.subprotocol == protocols[0]
        socket.send('stty size; echo "$GREETING"; exit 5\n')
        messages = list(socket.messages(SECONDS))
    assert b"20 90\r\nfrom ruby\r\n" in shown(messages)
    assert controls(messages) == [{"type": "control", "status": "connected"}]
    assert json.loads(socket.close_reason) == {"exitCode": 5, "exitReason": "non-zero exit"}
    assert headers["X-Daytona-Source"] == RUBY["X-Daytona-Source"]


def test_java_has_only_the_key_and_kills_over_rest(shared_toolbox: Toolbox, name: str) -> None:
    okhttp = authorization(shared_toolbox.sandyard) | {"User-Agent": "okhttp/4.12.0", "Accept-Encoding": "gzip"}
    with create(shared_toolbox, name, EXIT, headers=okhttp) as socket:
        socket.send("echo rea''dy\n")
        until(socket, b"ready\r\n")
        answer = request(
            "DELETE",
            f"{shared_toolbox.base}/process/pty/{name}",
            headers=authorization(shared_toolbox.sandyard) | JAVA,
        )
        assert answer.status == 200
        assert isinstance(answer.json(), dict)
        messages = list(socket.messages(SECONDS))
    assert controls(messages)[-1] == {
        "type": "control",
        "status": "exited",
        "exitCode": 137,
        "exitReason": "SIGKILL",
    }
    assert socket.close_code == 1000


def test_a_browser_offers_its_version_and_comes_by_the_query(shared_toolbox: Toolbox, name: str) -> None:
    token = shared_toolbox.api("GET", f"/sandbox/{shared_toolbox.id}/ports/1/preview-url").json()["token"]
    headers = {"Origin": "https://page.example"}
    query = f"&DAYTONA_SANDBOX_AUTH_KEY={token}"
    offered = ("X-Daytona-SDK-Version~0.226.1", envs_token({"A": "b"}))
    with create(shared_toolbox, name, *offered, query=query, headers=headers) as socket:
        assert socket.subprotocol == offered[0]
        socket.send(b"exit 0\n")
        list(socket.messages(SECONDS))
    assert json.loads(socket.close_reason) == {"exitCode": 0}


def test_connected_comes_first_and_the_terminal_is_listed_by_then(shared_toolbox: Toolbox, name: str) -> None:
    with create(shared_toolbox, name, EXIT) as socket:
        first = next(socket.messages(SECONDS))
    assert controls([first]) == [{"type": "control", "status": "connected"}]
    assert [one["id"] for one in shared_toolbox.call("GET", "/process/pty").json()["sessions"]].count(name) == 1


def test_variables_of_64_kib_pass_the_proxy(shared_toolbox: Toolbox, name: str) -> None:
    token = envs_token({"BIG": "v" * 49_000})
    assert 65_000 < len(token) < 65_536 + 19
    with create(shared_toolbox, name, EXIT, token) as socket:
        assert socket.subprotocol == EXIT
        socket.send("echo ${#BIG}; exit\n")
        assert b"49000\r\n" in shown(list(socket.messages(SECONDS)))


def test_refusals_have_their_status_and_the_envelope(shared_toolbox: Toolbox, name: str) -> None:
    with create(shared_toolbox, name):
        pass
    conversations: list[tuple[int, Callable[[], WebSocket]]] = [
        (409, lambda: create(shared_toolbox, name)),
        (404, lambda: connect(shared_toolbox, "nobody")),
        (400, lambda: create(shared_toolbox, "x", query="&cols=0x10")),
        (400, lambda: create(shared_toolbox, "x", "X-Daytona-Pty-Envs~%%%")),
        (401, lambda: create(shared_toolbox, "x", headers={"Authorization": "Bearer wrong"})),
    ]
    for status, conversation in conversations:
        with pytest.raises(Refused) as refused:
            conversation()
        body = json.loads(refused.value.body)
        assert (refused.value.status, body["statusCode"]) == (status, status)


def test_answers_are_as_the_description_says(shared_toolbox: Toolbox, name: str) -> None:
    if not DESCRIPTION.is_file():
        pytest.skip("the contract is not beside this checkout")
    definitions = json.loads(DESCRIPTION.read_text())["definitions"]

    def check(model: str, value: Any) -> None:
        jsonschema.Draft4Validator({"$ref": f"#/definitions/{model}", "definitions": definitions}).validate(value)

    check("PtyCreateResponse", shared_toolbox.call("POST", "/process/pty", {"id": name}).json())
    check("PtyListResponse", shared_toolbox.call("GET", "/process/pty").json())
    check("PtySessionInfo", shared_toolbox.call("GET", f"/process/pty/{name}").json())
    resized = shared_toolbox.call("POST", f"/process/pty/{name}/resize", {"cols": 90, "rows": 30})
    check("PtySessionInfo", resized.json())
    check("ErrorResponse", shared_toolbox.call("POST", "/process/pty", {"id": name}).json())


def test_a_client_that_vanishes_leaves_its_terminal_running(shared_toolbox: Toolbox, name: str) -> None:
    socket = create(shared_toolbox, name)
    socket.send("KEPT=still; echo rea''dy\n")
    until(socket, b"ready\r\n")
    socket.cut()
    with connect(shared_toolbox, name) as again:
        again.send("echo $KEPT-here; exit\n")
        assert b"still-here" in shown(list(again.messages(SECONDS)))


# Full-screen programs.


class Drawn:
    """What a terminal of this size shows, drawn as its messages come."""

    def __init__(self, socket: WebSocket, size: tuple[int, int]) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self._socket = socket

    def until(self, looks_right: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen looks right. Fails with what it shows instead."""
        with contextlib.suppress(TimeoutError):
            for message in self._socket.messages(SECONDS):
                if not message.is_text:
                    self._stream.feed(message.data)
                if looks_right(self.lines):
                    return self.lines
        raise AssertionError("\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def drawn(shared_toolbox: Toolbox, name: str, request: pytest.FixtureRequest) -> Iterator[tuple[Drawn, WebSocket]]:
    """A terminal of each size with an emulator on it."""
    cols, rows = request.param
    with create(shared_toolbox, name, query=f"&cols={cols}&rows={rows}") as socket:
        yield Drawn(socket, (cols, rows)), socket


def need(box: Toolbox, program: str) -> None:
    """Skip where the sandbox has no such program."""
    if box.call("POST", "/process/execute", {"command": f"command -v {program}"}).json()["exitCode"] != 0:
        pytest.skip(f"{program} is not in this sandbox")


def test_vim_edits_a_file(shared_toolbox: Toolbox, drawn: tuple[Drawn, WebSocket]) -> None:
    need(shared_toolbox, "vim")
    screen, socket = drawn
    rows = screen.screen.lines
    socket.send("seq 1 100 > ~/numbers; TERM=linux vim -N -u NONE +'set ruler' ~/numbers; echo le''ft\n")
    expected = [str(number) for number in range(1, rows)]
    screen.until(lambda lines: lines[: rows - 1] == expected)
    socket.send("G")
    screen.until(lambda lines: lines[rows - 2] == "100" and "100,1" in lines[rows - 1])
    socket.send("ohello \u00e9\u4e16\x1b:wq\n")
    screen.until(lambda lines: any(line == "left" for line in lines))
    socket.send("exit\n")
    list(socket.messages(SECONDS))
    last = shared_toolbox.call("POST", "/process/execute", {"command": "tail -1 ~/numbers"}).json()["result"]
    assert last == "hello \u00e9\u4e16\n"


def test_less_pages_through_a_file(shared_toolbox: Toolbox, drawn: tuple[Drawn, WebSocket]) -> None:
    need(shared_toolbox, "less")
    screen, socket = drawn
    rows = screen.screen.lines
    socket.send("seq 1 500 | less\n")
    screen.until(lambda lines: lines[: rows - 1] == [str(number) for number in range(1, rows)])
    socket.send(" ")
    screen.until(lambda lines: lines[: rows - 1] == [str(number) for number in range(rows, 2 * rows - 1)])
    socket.send("G")
    screen.until(lambda lines: lines[rows - 2] == "500")
    socket.send("q")


def test_top_fills_the_screen_and_follows_a_resize(
    shared_toolbox: Toolbox, drawn: tuple[Drawn, WebSocket], name: str
) -> None:
    need(shared_toolbox, "top")
    screen, socket = drawn
    socket.send("top\n")
    lines = screen.until(lambda lines: lines[0].startswith("top - ") and any(" PID " in line for line in lines))
    assert all(len(line) <= screen.screen.columns for line in lines)
    screen.screen.resize(20, 100)
    assert shared_toolbox.call("POST", f"/process/pty/{name}/resize", {"cols": 100, "rows": 20}).status == 200
    screen.until(lambda lines: lines[0].startswith("top - ") and any(" PID " in line for line in lines[:10]))
    socket.send("q")


# The web terminal.


def terminal_url(box: Toolbox, path: str, scheme: str = "http") -> str:
    """Below the origin that a browser is sent to."""
    link = box.api("GET", f"/sandbox/{box.id}/ports/22222/preview-url").json()
    parts = urlsplit(link["url"])
    query = f"DAYTONA_SANDBOX_AUTH_KEY={quote(link['token'])}"
    return str(urlunsplit((scheme, parts.netloc, path, query, "")))


def test_the_web_terminal_has_a_page_and_a_shell(shared_toolbox: Toolbox) -> None:
    parts = urlsplit(terminal_url(shared_toolbox, "/"))
    host = {"Host": parts.netloc}
    page = request("GET", f"{shared_toolbox.sandyard.origin}/?{parts.query}", headers=host)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert request("GET", f"{shared_toolbox.sandyard.origin}/", headers=host).status == 401
    url = terminal_url(shared_toolbox, "/ws", "ws") + "&cols=100&rows=30"
    with WebSocket(url, connect_to=shared_toolbox.sandyard.host) as socket:
        socket.send(b"stty size; pwd\n")
        seen = b""
        for message in socket.messages(SECONDS):
            assert message.is_text
            seen += message.data
            if b"30 100\r\n" in seen:
                break
        socket.send('{"rows": 31, "cols": 101}')
        socket.send(b"stty size; exit 7\n")
        rest = b"".join(message.data for message in socket.messages(SECONDS))
    assert b"31 101\r\n" in rest
    assert json.loads(socket.close_reason)["exitCode"] == 7
