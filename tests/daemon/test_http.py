"""The door as an HTTP server: bounds, odd requests, and the ports behind `/proxy`."""

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from sandyard_daemon.errors import SessionEnded
from sandyard_daemon.http.messages import Response, StreamResponse
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.wire.operations import OPERATIONS
from tests.daemon.conftest import SECRET, Daemon, eventually
from tests.daemon.processes import descriptors


def test_every_operation_that_is_not_built_says_so_by_name(daemon: Daemon) -> None:
    for operation in OPERATIONS:
        if not operation.implemented:
            answer = daemon.ask(operation.method, operation.path.replace("{", "").replace("}", ""))
            assert answer.status == 501, operation
            assert operation.operation_id in answer.json["message"]


def test_a_body_of_100_mb_is_refused_without_being_kept(daemon: Daemon) -> None:
    answer = daemon.post("/process/execute", b"x" * 100_000_000)
    assert (answer.status, answer.json["source"]) == (413, "DAYTONA_DAEMON")
    assert daemon.get("/version").status == 200
    with open(f"/proc/{daemon.process.pid}/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak < 60_000


def test_an_endless_chunked_body_is_refused(daemon: Daemon) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 65536

    daemon._connection.request("POST", "/process/session", chunks(), {"X-Sandyard-Door": SECRET}, encode_chunked=True)
    response = daemon._connection.getresponse()
    assert response.status == 413
    response.read()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b'{"sessionId": 5}', b"\xff\xfe"),
        b'{"sessionId": "\xed\xa0\x80"}',
        '{"sessionId": "wide"}'.encode("utf-16"),
    ],
)
def test_malformed_json_is_a_400(daemon: Daemon, body: bytes) -> None:
    answer = daemon.post("/process/session", body)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST_BODY")


SURROGATE, NUL = rb'"a\ud800"', rb'"a\u0000"'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/process/session", b'{"sessionId": %b}'),
        ("/process/session/s/exec", b'{"command": %b}'),
        ("/process/session/s/exec", b'{"command": "true", %b: 1}'),
        ("/process/session/s/exec", b'{"command": "true", "more": {"deep": [%b]}}'),
        ("/process/execute", b'{"command": %b}'),
        ("/process/execute", b'{"command": "true", "cwd": %b}'),
        ("/process/execute", b'{"command": "true", "envs": {"A": %b}}'),
        ("/process/execute", b'{"command": "true", "envs": {%b: "x"}}'),
        ("/env", b'{"set": {"A": %b}}'),
        ("/env", b'{"unset": [%b]}'),
        ("/env", b'{"unsetValuePrefix": %b}'),
    ],
)
def test_half_a_character_is_no_text(daemon: Daemon, path: str, body: bytes) -> None:
    daemon.session()
    answer = daemon.post(path, body % SURROGATE)
    code = "BAD_REQUEST" if path == "/process/execute" else "INVALID_REQUEST_BODY"
    assert (answer.status, answer.json["code"]) == (400, code), answer.body


def test_half_a_character_is_no_input(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("cat")
    answer = daemon.post(f"/process/session/s/command/{command}/input", b'{"data": %b}' % SURROGATE)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_REQUEST_BODY")


def test_a_whole_character_in_two_escapes_is_text(daemon: Daemon) -> None:
    answer = daemon.post("/process/execute", rb'{"command": "printf %s \ud83d\ude00"}')
    assert (answer.status, answer.json["result"]) == (200, "\N{GRINNING FACE}")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/process/session", b'{"sessionId": %b}', "session id"),
        ("/process/session/s/exec", b'{"command": %b}', "command"),
        ("/process/execute", b'{"command": %b}', "command"),
        ("/process/execute", b'{"command": "true", "cwd": %b}', "cwd"),
        ("/process/execute", b'{"command": "true", "envs": {"A": %b}}', "envs"),
        ("/process/execute", b'{"command": "true", "envs": {%b: "x"}}', "envs"),
        ("/env", b'{"set": {"A": %b}}', "set"),
    ],
)
def test_a_nul_is_refused_by_name(daemon: Daemon, path: str, body: bytes, named: str) -> None:
    daemon.session()
    answer = daemon.post(path, body % NUL)
    assert answer.status == 400, answer.body
    assert named in answer.json["message"]


@pytest.mark.parametrize(
    "request_bytes",
    [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n"],
)
def test_what_is_not_http_is_a_400_and_closes(daemon: Daemon, request_bytes: bytes) -> None:
    connection = daemon.raw(request_bytes)
    data = b"".join(iter(lambda: connection.recv(4096), b""))
    assert data.startswith(b"HTTP/1.1 400 ")


def test_a_head_without_end_is_refused(daemon: Daemon) -> None:
    connection = daemon.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
    with contextlib.suppress(OSError):
        for _ in range(40):
            connection.sendall(b"x" * 10_000)
    data = b""
    with contextlib.suppress(OSError):
        data = connection.recv(4096)
    assert not data or data.startswith(b"HTTP/1.1 431 ")
    assert daemon.get("/version").status == 200


def test_a_subprotocol_of_70_kb_fits_in_a_head(daemon: Daemon) -> None:
    assert daemon.get("/version", Sec_WebSocket_Protocol="x" * 70_000).status == 200


def test_requests_may_be_pipelined(daemon: Daemon) -> None:
    one = f"GET /version HTTP/1.1\r\nHost: x\r\nX-Sandyard-Door: {SECRET}\r\n\r\n"
    last = one.replace("Host: x", "Host: x\r\nConnection: close")
    connection = daemon.raw((one * 5 + last).encode())
    data = b"".join(iter(lambda: connection.recv(4096), b""))
    assert data.count(b"HTTP/1.1 200 ") == 6


def test_expect_100_continue_is_answered(daemon: Daemon) -> None:
    head = f"POST /process/session HTTP/1.1\r\nHost: x\r\nX-Sandyard-Door: {SECRET}\r\nExpect: 100-continue\r\n"
    connection = daemon.raw(f"{head}Content-Length: 17\r\n\r\n".encode())
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.sendall(b'{"sessionId":"e"}')
    assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")


def test_encoded_slashes_stay_inside_their_segment(daemon: Daemon) -> None:
    daemon.session("a b+ä")
    assert daemon.get("/process/session/a%20b%2B%C3%A4").json["sessionId"] == "a b+ä"
    assert daemon.get("/process/session/a%2Fexec").status == 404
    assert daemon.get("/process/session/%2e%2e").status == 404
    assert daemon.get("/version/").status == 200


class Server(http.server.BaseHTTPRequestHandler):
    """A server inside the sandbox."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str, dict[str, str]]]] = []
    gate = threading.Event()

    def do_GET(self) -> None:
        self.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.headers.get("Upgrade") == "refused":
            self.send_response(426)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"none")
            return
        if self.headers.get("Upgrade"):
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
            self.wfile.write(b"hello " + self.rfile.readline())
            return
        self.send_response(203)
        self.send_header("X-Mine", "yes")
        self.send_header("X-Sandyard-Daemon-Error", "UNAUTHORIZED")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        self.wfile.flush()
        self.gate.wait(60)
        self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[::-1])

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""


class Server6(http.server.ThreadingHTTPServer):
    """On the IPv6 loopback only."""

    address_family = socket.AF_INET6


@pytest.fixture(params=["127.0.0.1", "::1"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where the server listens."""
    Server.seen.clear()
    Server.gate.clear()
    kind = Server6 if ":" in request.param else http.server.ThreadingHTTPServer
    with socket.socket() as kept:
        while True:
            try:
                server = kind((request.param, 0), Server)
            except OSError:
                pytest.skip("no IPv6 loopback here")
            if kind is not Server6:
                break
            with contextlib.suppress(OSError):  # another process's: it would be asked first
                kept.bind(("127.0.0.1", server.server_address[1]))
                break
            server.server_close()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        Server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_port_is_forwarded_streaming(daemon: Daemon, port: int) -> None:
    daemon._connection.request(
        "GET", f"/proxy/{port}/a%2Fb/c?x=1&y=%20", headers={"X-Sandyard-Door": SECRET, "X-User": "u"}
    )
    response = daemon._connection.getresponse()
    assert (response.status, response.headers["X-Mine"]) == (203, "yes")
    assert "X-Sandyard-Daemon-Error" not in response.headers
    assert response.read1(100) == b"first"  # the server has not ended its answer yet
    Server.gate.set()
    assert response.read() == b"last"
    method, path, headers = Server.seen[0]
    assert (method, path) == ("GET", "/a%2Fb/c?x=1&y=%20")
    assert headers["host"] == f"localhost:{port}"
    assert headers["x-user"] == "u"
    assert "x-sandyard-door" not in headers


def test_bodies_pass_both_ways(daemon: Daemon, port: int) -> None:
    data = bytes(range(256)) * 20_000
    answer = daemon.post(f"/proxy/{port}/", data)
    assert (answer.status, answer.body) == (200, data[::-1])
    assert daemon.get("/version").status == 200


def test_an_upgrade_becomes_a_tunnel(daemon: Daemon, port: int) -> None:
    head = f"GET /proxy/{port}/ws HTTP/1.1\r\nHost: x\r\nX-Sandyard-Door: {SECRET}\r\n"
    connection = daemon.raw(f"{head}Connection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n".encode())
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 101 ")
    connection.sendall(b"there\n")
    assert b"".join(iter(lambda: connection.recv(4096), b"")) == b"hello there\n"
    assert "x-sandyard-door" not in Server.seen[0][2]


def test_after_a_refused_upgrade_the_server_sees_no_further_request(daemon: Daemon, port: int) -> None:
    answer = daemon.get(f"/proxy/{port}/ws", Connection="Upgrade", Upgrade="refused")
    assert (answer.status, answer.body) == (426, b"none")
    assert daemon.get("/version").status == 200
    assert len(Server.seen) == 1


def test_a_port_nobody_listens_at_is_a_502(daemon: Daemon) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = daemon.get(f"/proxy/{unused.getsockname()[1]}/")
    assert (answer.status, answer.json["source"]) == (502, "DAYTONA_DAEMON")
    for text in ("0", "65536", "x", "-1"):
        assert daemon.get(f"/proxy/{text}/").status == 400


async def test_a_silent_answer_begins_with_white_space() -> None:
    release = asyncio.Event()

    async def work() -> Response:
        await release.wait()
        return Response(200, b'{"a": 1}')

    answer = await answer_in_time(work(), lambda error: b"", 0.01)
    assert isinstance(answer, StreamResponse)
    pieces = []
    async for piece in answer.chunks:
        pieces.append(piece)
        if len(pieces) == 3:
            release.set()
    assert b"".join(pieces[:3]) == b"   "
    assert b"".join(pieces).strip() == b'{"a": 1}'


async def test_an_error_after_the_white_space_is_still_told() -> None:
    release = asyncio.Event()

    async def work() -> Response:
        await release.wait()
        raise SessionEnded("over")

    answer = await answer_in_time(work(), lambda error: str(error).encode(), 0.01)
    assert isinstance(answer, StreamResponse)
    assert await anext(answer.chunks) == b" "
    release.set()
    assert b"".join([piece async for piece in answer.chunks]).strip() == b"over"


async def test_a_quick_answer_is_not_touched() -> None:
    async def work() -> Response:
        return Response(404)

    assert await answer_in_time(work(), lambda error: b"") == Response(404)


def test_a_follower_that_leaves_is_forgotten(daemon: Daemon) -> None:
    daemon.session()
    command = daemon.start("sleep 100")
    before = descriptors(daemon)  # and not the machine's connections: other tests' daemons have doors of this name too
    followers = [daemon.follow(command) for _ in range(10)]
    for follower in followers:
        follower.close()
    daemon.close()
    eventually(lambda: descriptors(daemon) <= before)
