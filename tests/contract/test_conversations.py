"""The Ruby, Java and Go SDKs' conversations, played header by header (sdk-wire.md 1.2, 1.5, 4.2 to 4.5).

Their packages are not to be had on every machine; what goes over the wire is known, and it is what has to work.
"""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.contract import go_models, readers
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization, command_path, wait_for_file
from tests.contract.wire_client import Message, Refused, WebSocket, request
from tests.daemon.conftest import eventually

LOUD = 'for i in {1..5}; do echo "Step $i"; echo "Error $i" >&2; sleep 0.5; done'
STREAMED = {
    "out": "".join(f"Step {i}\n" for i in range(1, 6)).encode(),
    "err": "".join(f"Error {i}\n" for i in range(1, 6)).encode(),
}
RUBY = {"X-Daytona-Source": "sdk-ruby", "X-Daytona-SDK-Version": "0.205.1", "User-Agent": "sdk-ruby/0.205.1"}
JAVA = {"X-Daytona-Source": "sdk-java", "X-Daytona-SDK-Version": "0.205.1", "User-Agent": "sdk-java/0.205.1"}
GO_OLD = {"X-Daytona-Source": "sdk-go", "X-Daytona-SDK-Version": "v0.143.0", "User-Agent": "sdk-go/v0.143.0"}
GO_ONCE = {"X-Daytona-Source": "go-sdk", "X-Daytona-SDK-Version": "v0.158.1"}
GO_NEW = {"X-Daytona-Source": "sdk-go", "X-Daytona-SDK-Version": "v0.205.1", "User-Agent": "sdk-go/v0.205.1"}


@pytest.fixture
def session(shared_toolbox: Toolbox) -> Iterator[str]:
    """A session of this test's own."""
    name = f"talk-{uuid.uuid4().hex[:8]}"
    shared_toolbox.session(name)
    yield name
    shared_toolbox.call("DELETE", f"/process/session/{name}")


def start(box: Toolbox, session: str, command: str = LOUD) -> str:
    """The id of a command that runs in the background."""
    return str(box.run(session, command, wait=False)["cmdId"])


def assert_ended_well(socket: WebSocket, messages: list[Message]) -> None:
    """Closed by 1000, in binary messages that obey the frame rules."""
    assert socket.close_code == 1000
    assert not any(message.is_text for message in messages)
    readers.assert_frame_rules(message.data for message in messages)


# Ruby: the preview URL of port 2280, path replaced, the token in a header.


def ruby_url(box: Toolbox, path: str) -> tuple[str, dict[str, str]]:
    """The WebSocket address the Ruby SDK makes of the preview link, and its headers."""
    link = box.api("GET", f"/sandbox/{box.id}/ports/2280/preview-url").json()
    assert set(link) >= {"sandboxId", "url", "token"}
    assert link["sandboxId"] == box.id
    parts = urlsplit(link["url"])
    where, _, query = path.partition("?")
    url = urlunsplit((parts.scheme.replace("http", "ws"), parts.netloc, where, query, ""))
    return url, authorization(box.sandyard) | RUBY | {"X-Daytona-Preview-Token": link["token"]}


def test_ruby_streams_by_the_preview_token_with_the_path_replaced(shared_toolbox: Toolbox, session: str) -> None:
    box, seen = shared_toolbox.speaking("0.205.1", "sdk-ruby"), f"~/{session}"
    rest = 'for i in {2..5}; do echo "Step $i"; echo "Error $i" >&2; done'
    command = start(box, session, f'echo "Step 1"; echo "Error 1" >&2; {wait_for_file(seen)} && {rest}')
    url, headers = ruby_url(box, command_path(session, command) + "/logs?follow=true")
    assert box.id not in url, "the URL of port 2280 is the plain origin, so that no wildcard DNS is needed"
    with WebSocket(url, headers=headers) as socket:
        messages = [next(socket.messages())]
        box.tell(seen)  # what is written after the first lines were seen is sent after them
        messages += socket.messages()
    assert_ended_well(socket, messages)
    assert readers.ruby(message.data for message in messages) == STREAMED
    assert box.exit_code(session, command) == 0


def test_ruby_without_the_api_key_is_let_in_by_the_token_alone(shared_toolbox: Toolbox, session: str) -> None:
    command = start(shared_toolbox, session, "echo yes")
    url, headers = ruby_url(shared_toolbox, command_path(session, command) + "/logs?follow=true")
    del headers["Authorization"]
    with WebSocket(url, headers=headers) as socket:
        messages = [message.data for message in socket.messages()]
    assert readers.ruby(messages)["out"] == b"yes\n"
    assert socket.close_code == 1000


def test_ruby_with_a_wrong_token_is_refused_as_json(shared_toolbox: Toolbox, session: str) -> None:
    command = start(shared_toolbox, session, "echo no")
    url, headers = ruby_url(shared_toolbox, command_path(session, command) + "/logs?follow=true")
    headers["X-Daytona-Preview-Token"] = "x" * 32
    del headers["Authorization"]
    with pytest.raises(Refused) as refused:
        WebSocket(url, headers=headers)
    assert refused.value.status in (401, 404)
    assert json.loads(refused.value.body)["statusCode"] == refused.value.status


def test_a_preview_token_dies_at_the_next_start(sandyard: Instance) -> None:
    box = Toolbox.create(sandyard)
    try:
        url, headers = ruby_url(box, "/process/session")
        del headers["Authorization"]
        http = url.replace("ws", "http", 1)
        assert request("GET", http, headers=headers).status == 200
        assert box.api("POST", f"/sandbox/{box.id}/stop").status == 200
        box.wait_for("stopped")
        assert box.api("POST", f"/sandbox/{box.id}/start").status == 200
        box.wait_for("started")
        assert request("GET", http, headers=headers).status in (401, 404)
        _, fresh = ruby_url(box, "/process/session")
        assert fresh["X-Daytona-Preview-Token"] != headers["X-Daytona-Preview-Token"]
        assert request("GET", http, headers=fresh).status == 200
    finally:
        box.delete()


# Java: Authorization and nothing else on the WebSocket; OkHttp's user agent.


def java_socket(box: Toolbox, session: str, command: str) -> WebSocket:
    """The upgrade that OkHttp sends."""
    url = box.base.replace("http", "ws", 1) + command_path(session, command) + "/logs?follow=true"
    okhttp = {"User-Agent": "okhttp/4.12.0", "Accept-Encoding": "gzip"}
    return WebSocket(url, headers=authorization(box.sandyard) | okhttp)


def test_java_streams_with_markers_though_it_sends_no_version(shared_toolbox: Toolbox, session: str) -> None:
    box, ponged = shared_toolbox.speaking("0.205.1", "sdk-java"), f"~/{session}"
    rest = 'for i in {2..5}; do echo "Step $i"; echo "Error $i" >&2; done'
    command = start(box, session, f'echo "Step 1"; echo "Error 1" >&2; {wait_for_file(ponged)} && {rest}')

    def tell_of_the_pong() -> None:
        eventually(lambda: socket.pongs)
        box.tell(ponged)

    with java_socket(box, session, command) as socket, ThreadPoolExecutor(1) as beside:
        socket.ping(b"are you there")
        telling = beside.submit(tell_of_the_pong)
        messages = list(socket.messages())
        telling.result()
    assert socket.close_code == 1000
    assert socket.pongs == [b"are you there"], "a ping sent while the log streams was not answered"
    assert readers.continuous(message.data for message in messages) == STREAMED
    assert box.exit_code(session, command) == 0


def test_java_gets_a_silent_stream_line_by_line(shared_toolbox: Toolbox, session: str) -> None:
    """It hands a payload to its callback only at the next marker: a lone trailing marker brings the line now."""
    shown = f"~/{session}"
    command = start(shared_toolbox, session, f"echo first; {wait_for_file(shown)} && echo second")
    arrived = False
    with java_socket(shared_toolbox, session, command) as socket:
        data = b""
        for message in socket.messages():
            data += message.data
            whole = [payload for _, payload in readers.split(data)[0]]
            if not arrived and (data.endswith(tuple(readers.MARKERS)) or len(whole) > 1):
                arrived = True
                shared_toolbox.tell(shown)
    assert socket.close_code == 1000
    exit_code = shared_toolbox.exit_code(session, command)
    assert (arrived, exit_code) == (True, 0), "the first line would reach the callback only at the end"


def test_java_e2e_insists_that_a_second_session_of_the_same_name_is_rejected(
    shared_toolbox: Toolbox, session: str
) -> None:
    answer = request(
        "POST",
        f"{shared_toolbox.base}/process/session",
        {"sessionId": session},
        headers=authorization(shared_toolbox.sandyard) | JAVA,
    )
    assert answer.status == 409
    assert answer.json()["source"] == "DAYTONA_DAEMON"


# Go: strict decoding before 0.188, string logs, close codes 1000 and 1001 only.


def test_go_0143_finds_no_key_it_does_not_know(shared_toolbox: Toolbox, session: str) -> None:
    box = Toolbox(shared_toolbox.sandyard, shared_toolbox.sandbox, authorization(shared_toolbox.sandyard) | GO_OLD)
    body = {"command": "echo Hello from stdout && echo Hello from stderr >&2", "runAsync": False}
    ran = box.call("POST", f"/process/session/{session}/exec", body)
    assert ran.status == 200
    answer = ran.json()
    assert set(answer) <= go_models.SESSION_EXEC
    assert answer["stdout"] == "Hello from stdout\n", "the seed's Go program prints this key"
    assert answer["exitCode"] == 0
    status = box.call("GET", command_path(session, answer["cmdId"])).json()
    assert set(status) <= go_models.COMMAND
    one = box.call("GET", f"/process/session/{session}").json()
    assert set(one) <= go_models.SESSION
    assert all(set(each) <= go_models.COMMAND for each in one["commands"])
    executed = box.call("POST", "/process/execute", {"command": "true"}).json()
    assert set(executed) <= go_models.EXECUTE


@pytest.mark.parametrize("minor", [136, 143, 147, 168, 182, 187])
def test_go_of_each_release_finds_only_keys_it_knows_in_a_sandbox(shared_toolbox: Toolbox, minor: int) -> None:
    release = (0, minor)
    box = shared_toolbox.speaking(f"v0.{minor}.0", "sdk-go")
    allowed = go_models.sandbox_keys(release)
    sandbox = box.api("GET", f"/sandbox/{box.id}").json()
    assert set(sandbox) <= allowed
    assert set(sandbox) >= go_models.SANDBOX_REQUIRED | ({"toolboxProxyUrl"} & allowed)
    page = box.api("GET", "/sandbox/paginated?page=1&limit=1").json()
    assert set(page) == go_models.PAGINATED
    assert all(set(item) <= allowed for item in page["items"])
    assert set(box.api("GET", f"/sandbox/{box.id}/ports/3000/preview-url").json()) == go_models.PREVIEW
    assert set(box.api("POST", f"/sandbox/{box.id}/autostop/15").json()) <= allowed


def test_go_0143_reads_logs_as_one_string(shared_toolbox: Toolbox, session: str) -> None:
    box = Toolbox(shared_toolbox.sandyard, shared_toolbox.sandbox, authorization(shared_toolbox.sandyard) | GO_OLD)
    ran = box.run(session, 'counter=1; while (( counter <= 5 )); do echo "Count: $counter"; ((counter++)); done')
    logs = box.call("GET", command_path(session, ran["cmdId"]) + "/logs")
    assert logs.headers["content-type"].startswith("text/plain")
    assert [f"Count: {i}" for i in range(1, 6)] == logs.body.decode().replace("\x01\x01\x01", "").splitlines()


@pytest.mark.parametrize("headers", [GO_OLD, GO_NEW], ids=["0.143", "0.205"])
def test_go_streams_until_a_normal_close(shared_toolbox: Toolbox, session: str, headers: dict[str, str]) -> None:
    box = Toolbox(shared_toolbox.sandyard, shared_toolbox.sandbox, authorization(shared_toolbox.sandyard) | headers)
    body = {"command": LOUD, "runAsync": True} | ({} if headers is GO_OLD else {"suppressInputEcho": False})
    made = box.call("POST", f"/process/session/{session}/exec", body)
    assert made.status == 202
    with box.follow(session, made.json()["cmdId"]) as socket:
        messages = list(socket.messages())
    assert socket.close_code == 1000
    assert readers.continuous(message.data for message in messages) == STREAMED


@pytest.mark.parametrize("headers", [GO_OLD, GO_ONCE, GO_NEW], ids=["0.143", "0.158", "0.205"])
def test_go_shows_whole_lines_when_they_come(shared_toolbox: Toolbox, session: str, headers: dict[str, str]) -> None:
    """Its client keeps the last two bytes of a message until it sees more; a marker behind them is more."""
    box = Toolbox(shared_toolbox.sandyard, shared_toolbox.sandbox, authorization(shared_toolbox.sandyard) | headers)
    asked, ended = (f"~/{session}-{which}" for which in ("asked", "ended"))
    text = (
        rf"printf 'name? '; {wait_for_file(asked)}; echo Step 1; printf 'end\001'; {wait_for_file(ended)}; echo no >&2"
    )
    command = start(box, session, text)

    def messages(socket: WebSocket) -> Iterator[bytes]:
        for message in socket.messages():
            yield message.data
            # The client has shown this; only now more is written.
            for file, words in ((asked, b"name? "), (ended, b"end\x01")):
                if words in message.data:
                    box.tell(file)

    with box.follow(session, command) as socket:
        shown = readers.go(messages(socket))
    assert shown in (
        [("out", b"name? "), ("out", b"Step 1\nend\x01"), ("err", b"no\n")],
        [("out", b"name? "), ("out", b"Step 1\n"), ("out", b"end\x01"), ("err", b"no\n")],
    )


def test_go_needs_the_toolbox_url_in_every_answer(shared_toolbox: Toolbox) -> None:
    sandbox = shared_toolbox.api("GET", f"/sandbox/{shared_toolbox.id}").json()
    assert sandbox["toolboxProxyUrl"]
    assert not sandbox["toolboxProxyUrl"].endswith("/")
    page = shared_toolbox.api("GET", "/sandbox?limit=1").json()
    assert "nextCursor" in page
    assert all(item["toolboxProxyUrl"] for item in page["items"])
    assert all("env" not in item for item in page["items"]), "ts takes the key `env` for the full DTO"


# Everybody: the eight rules of the log stream, and the order of completion.


def test_an_unknown_command_fails_the_upgrade_with_404(shared_toolbox: Toolbox, session: str) -> None:
    with pytest.raises(Refused) as refused:
        shared_toolbox.follow(session, "no-such-command")
    assert refused.value.status == 404
    assert json.loads(refused.value.body)["statusCode"] == 404


def test_an_offered_subprotocol_is_echoed_and_none_is_invented(shared_toolbox: Toolbox, session: str) -> None:
    command = start(shared_toolbox, session, "echo hello")
    url = shared_toolbox.base.replace("http", "ws", 1) + command_path(session, command) + "/logs?follow=true"
    offered = ["X-Daytona-SDK-Version~0.218.0"]
    with WebSocket(url, headers=authorization(shared_toolbox.sandyard), protocols=offered) as socket:
        assert socket.subprotocol == offered[0]
        assert readers.continuous(message.data for message in socket.messages())["out"] == b"hello\n"
    with WebSocket(url, headers=authorization(shared_toolbox.sandyard)) as socket:
        assert socket.subprotocol is None


def test_history_comes_first_and_once_for_a_follower_in_the_middle(shared_toolbox: Toolbox, session: str) -> None:
    command = start(shared_toolbox, session, "for i in {1..30}; do echo line $i; sleep 0.05; done")
    with shared_toolbox.follow(session, command) as early:
        first = next(early.messages())
        with shared_toolbox.follow(session, command) as late:
            late_data = readers.continuous(message.data for message in late.messages())
        early_data = readers.continuous([first.data, *(message.data for message in early.messages())])
    expected = "".join(f"line {i}\n" for i in range(1, 31)).encode()
    assert early_data["out"] == expected
    assert late_data["out"] == expected


def test_a_client_that_vanishes_leaves_the_command_running(shared_toolbox: Toolbox, session: str) -> None:
    command = start(shared_toolbox, session, "echo begun; sleep 1; echo done")
    socket = shared_toolbox.follow(session, command)
    next(socket.messages())
    socket.cut()
    with shared_toolbox.follow(session, command) as again:
        data = readers.continuous(message.data for message in again.messages())
    assert data["out"] == b"begun\ndone\n"
    assert shared_toolbox.exit_code(session, command) == 0


def test_after_the_close_the_exit_code_and_the_whole_log_are_there(shared_toolbox: Toolbox, session: str) -> None:
    for number in range(20):
        command = start(shared_toolbox, session, f"echo out {number}; echo err {number} >&2; (exit {number})")
        with shared_toolbox.follow(session, command) as socket:
            list(socket.messages())
        assert socket.close_code == 1000
        assert shared_toolbox.exit_code(session, command) == number
        logs = shared_toolbox.speaking("0.226.1").call("GET", command_path(session, command) + "/logs").json()
        assert (logs["stdout"], logs["stderr"]) == (f"out {number}\n", f"err {number}\n")
