"""HTTP/1.1 of a sandbox with secrets, from inside, against a host of the test's own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.runner.egress.conftest import ODD_VALUE, PLACEHOLDER, VALUE, Box

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]

RAW = """python3 - <<'END'
import os, socket, ssl, sys, time
place = os.environ['http_proxy'].removeprefix('http://').split(':')
def connected(port=0):
    made = socket.create_connection((place[0], int(place[1])), timeout=120)
    if port:
        made.sendall(b'CONNECT www.example.com:%d HTTP/1.0\\r\\n\\r\\n' % port)
        assert made.recv(1000).endswith(b'established\\r\\n\\r\\n')
    if port > 400:
        made = ssl.create_default_context().wrap_socket(made, server_hostname='www.example.com')
    return made
def rest(made):
    found = b''
    while data := made.recv(65536):
        found += data
    return found
TOKEN = os.environ['TOKEN'].encode()
{program}
END
"""
CURL = "curl -sS -m 120 --http1.1"


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib() -> int:
    """The most memory that this process, and so the proxy, had since."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


async def raw(box: Box, program: str) -> str:
    code, said = await box.sh(RAW.replace("{program}", program))
    assert code == 0, said
    return said


def told(said: str) -> dict[str, Any]:
    """What `/echo` saw, out of a whole answer."""
    assert '{"version"' in said, said
    found: dict[str, Any] = json.JSONDecoder().raw_decode(said[said.index('{"version"') :])[0]
    return found


@pytest.mark.parametrize("port", [0, 80, 443, 444])
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_placeholder_cut_by_chunks_is_replaced_and_trailers_come_along(box: Box, port: int, size: int) -> None:
    """Through the proxy in clear, in a tunnel in clear, and in TLS."""
    program = f"""
made = connected({port})
body = b'aa ' + TOKEN + b' bb ' + TOKEN
head = b'POST {"http://www.example.com" if not port else ""}/echo HTTP/1.1\\r\\nHost: www.example.com\\r\\n'
made.sendall(head + b'Transfer-Encoding: chunked\\r\\nTrailer: X-Sum\\r\\n\\r\\n')
for place in range(0, len(body), {size}):
    made.sendall(b'%x\\r\\n%s\\r\\n' % (len(body[place:place + {size}]), body[place:place + {size}]))
    time.sleep(0.005)
made.sendall(b'0\\r\\nX-Sum: ' + TOKEN + b'\\r\\n\\r\\n')
print(rest(made).decode())
"""
    said = await raw(box, program)
    seen = told(said)
    assert (seen["version"], seen["body"], seen["trailers"]) == ("1.1", f"aa {VALUE} bb {VALUE}", [["x-sum", VALUE]])
    assert "x-trailer: last" in said.lower()  # of the answer


async def test_a_large_upload_streams_in_bounded_memory(box: Box) -> None:
    forget_peak()
    before = peak_kib()
    upload = f"head -c 60000000 /dev/zero | {CURL} -H 'Content-Type: text/plain' -T - https://www.example.com/echo"
    code, said = await box.sh(f"(printf %s $TOKEN; {upload.replace('|', '; printf %s $TOKEN) |', 1)}")
    assert code == 0, said
    assert told(said)["length"] == 60_000_000 + 2 * len(VALUE)
    assert peak_kib() - before < 24 << 10


async def test_a_body_of_known_length_may_be_large_and_passes_as_it_is(box: Box) -> None:
    command = f'head -c 3000000 /dev/zero >/tmp/big; {CURL} -H "X: $TOKEN" --data-binary @/tmp/big'
    code, said = await box.sh(f"{command} https://www.example.com/echo")
    seen = told(said)
    assert (code, seen["length"], dict(seen["headers"])["x"]) == (0, 3_000_000, VALUE)


@pytest.mark.parametrize("data", ["key=$TOKEN", "@/tmp/large"])
async def test_who_waits_for_100_continue_gets_it(box: Box, data: str) -> None:
    command = f'head -c 2000000 /dev/zero >/tmp/large; {CURL} -v -H "Expect: 100-continue" --data-binary "{data}"'
    code, said = await box.sh(f"{command} https://www.example.com/echo 2>/tmp/said; cat /tmp/said")
    assert (code, "< HTTP/1.1 100" in said, "< HTTP/1.1 200" in said) == (0, True, True)
    assert told(said)["length"] == (2_000_000 if data[0] == "@" else len(f"key={VALUE}"))


async def test_an_answer_before_the_end_of_the_body_arrives(box: Box) -> None:
    command = f"head -c 30000000 /dev/zero | {CURL} -o /dev/null -w '%{{http_code}}' -T - https://www.example.com/early"
    assert (await box.sh(command))[1].startswith("413")


async def test_events_arrive_as_they_are_sent(box: Box) -> None:
    """The host sends the next one when the client has told, by another request, that it has the one before."""
    program = """
made = connected(443)
made.sendall(b'GET /events HTTP/1.1\\r\\nHost: www.example.com\\r\\n\\r\\n')
seen = b''
for number in range(4):
    while b'data: %d' % number not in seen: seen += made.recv(65536) or sys.exit('it ended early')
    with connected(443) as other:
        other.sendall(b'GET /go HTTP/1.1\\r\\nHost: www.example.com\\r\\nConnection: close\\r\\n\\r\\n')
        rest(other)
print((seen + rest(made)).count(b'data: '))
"""
    assert (await raw(box, program)).strip() == "4"


@pytest.mark.parametrize("port", [80, 443])
async def test_after_an_upgrade_bytes_go_both_ways(box: Box, port: int) -> None:
    program = f"""
made = connected({port})
head = b'GET /upgrade HTTP/1.1\\r\\nHost: www.example.com\\r\\n'
made.sendall(head + b'Connection: Upgrade\\r\\nUpgrade: echo\\r\\n\\r\\n')
head = made.recv(1000)
while b'\\r\\n\\r\\n' not in head: head += made.recv(1000)
for text in (b'one', TOKEN):
    made.sendall(text)
    head += made.recv(1000)
print(head.decode())
"""
    said = await raw(box, program)
    assert said.startswith("HTTP/1.1 101")
    assert said.endswith(f"one{PLACEHOLDER}\n")  # what is said after an upgrade is nobody's but theirs


async def test_another_protocol_in_a_tunnel_passes_as_it_is(box: Box) -> None:
    """The host answers what is no HTTP by hanging up; what counts is that the client's bytes got there, not TLS."""
    program = """
made = connected(80)
made.sendall(b'SSH-2.0-something\\r\\n\\r\\n')
print(rest(made))
"""
    assert (await raw(box, program)).strip() == "b''"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_request_within_for_another_host_is_refused(box: Box, version: str) -> None:
    """Sites of others share the addresses of large providers."""
    _, said = await box.sh(
        f'curl -sS -m 120 {version} -w "%{{http_code}}" -H "Host: other.example.org" -H "X: $TOKEN" https://www.example.com/echo'
    )
    assert ("for another host" in said, said.endswith("421"), VALUE in said) == (True, True, False)


async def test_the_target_decides_where_a_request_in_clear_goes(box: Box) -> None:
    command = f'{CURL} -H "Host: www.example.com" -H "X: $TOKEN" http://other.example.org/echo'
    seen = dict(told((await box.sh(command))[1])["headers"])
    assert (seen["host"], seen["x"]) == ("other.example.org", PLACEHOLDER)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_value_that_does_not_fit_is_told_of_by_its_variable(box: Box, version: str) -> None:
    _, said = await box.sh(f'curl -sS -m 120 {version} -w "%{{http_code}}" -H "X: $ODD" https://www.example.com/echo')
    assert ("secret of ODD" in said, said.endswith("400")) == (True, True)
    ask = f'curl -sS -m 120 {version} -H \'Content-Type: application/json\' -d "{{\\"a\\": \\"$ODD\\"}}"'
    _, said = await box.sh(f"{ask} https://www.example.com/echo")
    assert json.loads(told(said)["body"]) == {"a": ODD_VALUE}


async def test_many_requests_at_a_time_are_answered(box: Box) -> None:
    ask = f'{CURL} -f -o /dev/null -H "X: $TOKEN" https://www.example.com/echo'
    answers = await asyncio.gather(*(box.sh(ask) for _ in range(12)))
    assert [code for code, _ in answers] == [0] * 12
