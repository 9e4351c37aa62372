"""Bad input through the public interface: a clear answer, bounded memory, and the service goes on."""

import contextlib
import socket
import time
from collections.abc import Iterator
from itertools import repeat

import pytest

from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, authorization, command_path
from tests.contract.wire_client import Answer, Body, request

pytestmark = pytest.mark.sdk

ENVELOPE = {"statusCode", "message", "path", "timestamp"}
BODY_LIMIT_SECONDS = 30.0
MEBI = 1 << 20
MEMORY_SLACK_MIB = 80.0
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LONE_SURROGATE = b'{"command": "\xed\xa0\x80"}'
MALFORMED: list[Body] = ["{", "[1", "nul", '{"a":}', "\x00", LONE_SURROGATE, b"\xff\xfe"]
WRONG_NUMBERS = [
    "autostop/soon", "autostop/-5", "autostop/1e9", "ports/0/preview-url", "ports/65536/preview-url",
    "ports/x/preview-url",
]  # fmt: skip


def send(sandyard: Instance, method: str, path: str, body: Body = None, **headers: str) -> Answer:
    """A request with the right key; `path` begins behind the origin."""
    return request(method, sandyard.origin + path, body, headers=authorization(sandyard) | headers)


def assert_clear(answer: Answer, *statuses: int) -> None:
    """An error in the one form that all clients read."""
    assert answer.status in statuses, answer
    body = answer.json()
    assert set(body) >= ENVELOPE, body
    assert body["statusCode"] == answer.status
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["source"] in ("DAYTONA_API", "DAYTONA_PROXY", "DAYTONA_DAEMON")
    assert "Traceback" not in answer.body.decode()
    assert "?" not in body["path"]


@pytest.fixture(autouse=True)
def _goes_on(shared_toolbox: Toolbox, sandyard: Instance) -> Iterator[None]:
    """Whatever a test sent, the service answers afterwards, and no handler died on it."""
    before = len(sandyard.log)
    yield
    assert shared_toolbox.call("POST", "/process/execute", {"command": "echo alive"}).json()["result"] == "alive\n"
    assert "Traceback" not in sandyard.log[before:], sandyard.log[before:][-3000:]


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong", "Basic abc", "Bearer " + "x" * 5000, "Bearer \xff\xfe"])
@pytest.mark.parametrize("path", ["/api/sandbox", "/toolbox/{id}/process/session", "/_sandyard/capabilities"])
def test_a_wrong_key_is_401_everywhere(sandyard: Instance, shared_toolbox: Toolbox, path: str, key: str) -> None:
    headers = {"Authorization": key} if key else {}
    answer = request("GET", sandyard.origin + path.format(id=shared_toolbox.id), headers=headers)
    assert_clear(answer, 401)
    assert sandyard.api_key not in answer.body.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/sandbox/nothing"),
        ("DELETE", "/api/sandbox/nothing"),
        ("POST", "/api/sandbox/nothing/start"),
        ("GET", "/api/no/such/route"),
        ("GET", "/toolbox/nothing/process/session"),
        ("GET", "/toolbox/{id}/process/session/nothing"),
        ("GET", "/toolbox/{id}/process/session/nothing/command/x/logs"),
        ("GET", "/toolbox/{id}/process/session/nothing/command/x/logs?follow=true"),
        ("GET", "/toolbox/{id}/no/such/route"),
        ("GET", "/_sandyard/sandboxes/nothing"),
    ],
)
def test_what_does_not_exist_is_404(sandyard: Instance, shared_toolbox: Toolbox, method: str, path: str) -> None:
    assert_clear(send(sandyard, method, path.format(id=shared_toolbox.id)), 404)


@pytest.mark.parametrize("body", MALFORMED)
@pytest.mark.parametrize("path", ["/api/sandbox", "/toolbox/{id}/process/execute", "/toolbox/{id}/process/session"])
def test_malformed_json_is_400(sandyard: Instance, shared_toolbox: Toolbox, path: str, body: Body) -> None:
    answer = send(sandyard, "POST", path.format(id=shared_toolbox.id), body, **{"Content-Type": "application/json"})
    assert_clear(answer, 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/sandbox", []),
        ("/api/sandbox", {"labels": "no"}),
        ("/api/sandbox", {"cpu": "many"}),
        ("/api/sandbox", {"cpu": -1, "buildInfo": {"dockerfileContent": "FROM busybox"}}),
        ("/api/sandbox", {"autoStopInterval": "soon"}),
        ("/api/sandbox", {"env": "A=1"}),
        ("/api/sandbox", {"name": "<b>bold</b>"}),
        ("/toolbox/{id}/process/execute", {}),
        ("/toolbox/{id}/process/execute", {"command": 7}),
        ("/toolbox/{id}/process/execute", {"command": "true", "timeout": "soon"}),
        ("/toolbox/{id}/process/execute", {"command": "true", "envs": ["a"]}),
        ("/toolbox/{id}/process/session", {}),
        ("/toolbox/{id}/process/session", {"sessionId": 5}),
        ("/toolbox/{id}/process/session", {"sessionId": ""}),
        ("/toolbox/{id}/process/session/entrypoint/exec", {"command": None}),
    ],
)
def test_wrong_types_are_400_and_name_the_field(
    sandyard: Instance, shared_toolbox: Toolbox, path: str, body: Body
) -> None:
    assert_clear(send(sandyard, "POST", path.format(id=shared_toolbox.id), body), 400)


@pytest.mark.parametrize("value", WRONG_NUMBERS)
def test_wrong_numbers_in_paths_are_refused(sandyard: Instance, shared_toolbox: Toolbox, value: str) -> None:
    method = "GET" if value.startswith("ports") else "POST"
    assert_clear(send(sandyard, method, f"/api/sandbox/{shared_toolbox.id}/{value}"), 400, 404)


TRICKS = [
    "..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc", "a%00b", "%ff%fe", "a%0d%0aX-Evil:%201",
    "a%5c..%5cb", "%252e%252e", "~root", "x" * 3000, "-rf", "$(id)", "%7Bid%7D", "a%3bb", "%20", "%E2%80%AE",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    "path",
    [
        "/api/sandbox/{}",
        "/toolbox/{}/process/session",
        "/toolbox/{id}/process/session/{}",
        "/toolbox/{id}/process/session/entrypoint/command/{}/logs",
        "/_sandyard/sandboxes/{}/sessions",
    ],
)
def test_path_tricks_in_ids_find_nothing(sandyard: Instance, shared_toolbox: Toolbox, path: str, trick: str) -> None:
    target = path.replace("{id}", shared_toolbox.id).format(trick)
    answer = send(sandyard, "GET", target)
    # A dot segment may be resolved before routing and then name a route that exists; it must never leave its own tree.
    assert answer.status in (200, 307, 400, 403, 404, 405, 414, 501), answer
    assert b"root:x:" not in answer.body
    assert "x-evil" not in answer.headers
    if answer.status >= 400:
        assert_clear(answer, answer.status)


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "ünï", "-x", ".hidden", "$(id)", "a;b", "*", "CON", "x" * 200])
def test_odd_session_names_work_or_are_refused_but_never_leave_their_folder(shared_toolbox: Toolbox, name: str) -> None:
    made = shared_toolbox.call("POST", "/process/session", {"sessionId": name})
    if made.status != 201:
        assert_clear(made, 400)
        return
    quoted = command_path(name, "").removesuffix("/command/")
    ran = shared_toolbox.call("POST", f"{quoted}/exec", {"command": "echo works"})
    assert ran.json()["output"] == "works\n"
    assert shared_toolbox.call("DELETE", quoted).status == 204


def test_a_body_of_100_megabytes_where_json_is_expected_is_refused_early(
    sandyard: Instance, shared_toolbox: Toolbox
) -> None:
    before = sandyard.resident_mib()
    for path in (
        "/api/sandbox",
        f"/toolbox/{shared_toolbox.id}/process/execute",
        f"/toolbox/{shared_toolbox.id}/process/session",
        "/_sandyard/faults",
        "/_sandyard/organizations",
    ):
        started = time.monotonic()
        status = big_post(sandyard, path, declared=True)
        assert status in (400, 413), (path, status)
        assert big_post(sandyard, path, declared=False) in (400, 413), f"{path}, chunked"
        assert time.monotonic() - started < BODY_LIMIT_SECONDS
    assert sandyard.resident_mib() - before < MEMORY_SLACK_MIB


def big_post(sandyard: Instance, path: str, *, declared: bool) -> int:
    """Send 100 MB of JSON string, by length or chunked, until it is answered; the status."""
    chunk = b"x" * MEBI
    head = f"POST {path} HTTP/1.1\r\nHost: {sandyard.host}:{sandyard.port}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {sandyard.api_key}\r\n"
    head += f"Content-Length: {100 * MEBI}\r\n\r\n" if declared else "Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection((sandyard.host, sandyard.port), 30) as connection:
        connection.sendall(head.encode())
        try:
            for part in repeat(chunk if declared else b"%x\r\n%s\r\n" % (MEBI, chunk), 100):
                connection.sendall(part)
            if not declared:
                connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered and closed before we were done, as it should be
        try:
            first = connection.recv(4096)
        except ConnectionResetError:
            return 413  # the answer was lost with the connection: refused all the same
    return int(first.split()[1])


def test_header_smuggling_is_refused(sandyard: Instance) -> None:
    for head in (
        HEALTH + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEALTH + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEALTH + b"Bad Header: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ):
        with socket.create_connection((sandyard.host, sandyard.port), 30) as connection:
            with contextlib.suppress(OSError):  # refused and closed before we were done
                connection.sendall(head)
                connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                continue
            assert answer == b"" or answer.split()[1] in (b"400", b"414", b"431", b"404"), answer


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_many_sessions_end_in_a_clear_refusal_or_all_work(sandyard: Instance, count: int) -> None:
    box = Toolbox.create(sandyard)
    before = sandyard.resident_mib()
    try:
        made = 0
        for number in range(count):
            answer = box.call("POST", "/process/session", {"sessionId": f"s{number}"})
            if answer.status != 201:
                assert_clear(answer, 400, 409, 429, 503)
                break
            made += 1
        assert made >= 256, f"only {made} sessions fit"
        listed = box.call("GET", "/process/session").json()
        assert made <= len(listed) <= made + 1
        assert box.run(f"s{made - 1}", "echo still here")["output"] == "still here\n"
        assert sandyard.resident_mib() - before < MEMORY_SLACK_MIB
    finally:
        box.delete()


@pytest.mark.parametrize("megabytes", [200, pytest.param(5000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_flood_is_capped_and_the_sandbox_goes_on(sandyard: Instance, megabytes: int) -> None:
    box = Toolbox.create(sandyard)
    before = sandyard.resident_mib()
    try:
        box.session("flood")
        command = box.run("flood", f"head -c {megabytes}000000 /dev/zero | tr '\\0' 'x'", wait=False)["cmdId"]
        follower_saw = 0
        with box.follow("flood", command) as stream:
            for message in stream.messages(seconds=900):
                follower_saw += len(message.data) - 3
        assert stream.close_code == 1000
        assert box.exit_code("flood", command) == 0
        assert follower_saw >= min(megabytes * 1_000_000, 1 << 30)
        assert sandyard.resident_mib() - before < MEMORY_SLACK_MIB
        assert box.call("POST", "/process/execute", {"command": "echo ok"}).json()["result"] == "ok\n"
    finally:
        box.delete()


def test_a_client_that_never_reads_holds_up_nobody(shared_toolbox: Toolbox) -> None:
    box = shared_toolbox
    box.session("slow")
    command = box.run("slow", "head -c 100000000 /dev/zero | tr '\\0' 'y'", wait=False)["cmdId"]
    with box.follow("slow", command):  # accepted, and never read
        with box.follow("slow", command) as reader:
            total = sum(len(message.data) - 3 for message in reader.messages(seconds=60))
        assert total == 100_000_000
    box.call("DELETE", "/process/session/slow")


def test_one_sandbox_cannot_reach_the_doors_or_the_keys(sandyard: Instance, shared_toolbox: Toolbox) -> None:
    """From inside: no API key, no internal token, no other sandbox's door in any file or variable one could read."""
    command = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; ls -laR /opt/sandyard | head -50"
    seen = shared_toolbox.call("POST", "/process/execute", {"command": command}).json()["result"]
    assert sandyard.api_key not in seen
    if sandyard.combination.isolation == "none":
        return  # plain processes of the same user read what that user reads; each start says so
    search = f"grep -rsl '{sandyard.api_key}' /root /home /tmp /run /var 2>/dev/null"
    found = shared_toolbox.call("POST", "/process/execute", {"command": search}).json()["result"]
    assert found.strip() == "", "the installation's key can be read from inside"
