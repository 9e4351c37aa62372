"""Exactness from outside: numbered lines on both streams, followers cut off at random that resume by cursor."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest

from tests.contract import readers
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, command_path
from tests.contract.wire_client import WebSocket

pytestmark = pytest.mark.sdk

FOLLOWERS = 5
WRITE = "for i in range({lines}): print(f'line {{i}}', file=sys.stderr if i // {burst} % 3 else sys.stdout)"
CANARY = f'python3 -c "import sys\n{WRITE}"'


def expected(lines: int, burst: int) -> dict[str, bytes]:
    """Each stream's bytes."""
    return {
        "out": b"".join(b"line %d\n" % i for i in range(lines) if i // burst % 3 == 0),
        "err": b"".join(b"line %d\n" % i for i in range(lines) if i // burst % 3),
    }


class CutFollower:
    """Reads the marked log, is cut off after a random number of bytes, and goes on at its cursor."""

    def __init__(self, box: Toolbox, session: str, command: str, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # where to cut must be repeatable, not unguessable
        self._box = box
        self._path = command_path(session, command)
        self.cuts = 0
        self.received: list[bytes] = []

    def run(self) -> None:
        """Until the command's end."""
        cursor = 0
        while True:
            limit = self._random.randrange(1, 400_000)
            got = 0
            for message in self._messages(cursor):
                self.received.append(message)
                got += len(message) - readers.MARKER_BYTES
                if got >= limit:
                    break
            else:
                return
            cursor += got
            self.cuts += 1

    def _messages(self, cursor: int) -> Iterator[bytes]:
        url = self._box.base.replace("http", "ws", 1) + f"{self._path}/logs?follow=true&cursor={cursor}"
        with WebSocket(url, headers=self._box.headers) as connection:
            for message in connection.messages(seconds=600):
                yield message.data
        assert connection.close_code == 1000, connection.close_reason


# The stream changes after each `burst` lines. A message holds one stream only, so with bursts of one a long form would
# measure this client, which is Python, on fifty million messages.
@pytest.mark.parametrize(
    ("lines", "burst"),
    [(200_000, 1), pytest.param(10_000_000, 50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_every_follower_gets_every_byte_once_and_in_order(sandyard: Instance, lines: int, burst: int) -> None:
    box = Toolbox.create(sandyard).speaking("0.226.1")
    try:
        box.session("canary")
        command = box.run("canary", CANARY.format(lines=lines, burst=burst), wait=False)["cmdId"]
        followers = [CutFollower(box, "canary", command, seed) for seed in range(FOLLOWERS)]
        threads = [threading.Thread(target=follower.run) for follower in followers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3000)
        wanted = expected(lines, burst)
        for number, follower in enumerate(followers):
            assert readers.ruby(follower.received) == wanted, f"follower {number}, cut {follower.cuts} times"
        assert sum(follower.cuts for follower in followers) > FOLLOWERS, "nobody was cut off"
        assert box.exit_code("canary", command) == 0
    finally:
        box.delete()


def test_plain_http_follow_gives_the_same_bytes(shared_toolbox: Toolbox) -> None:
    box = shared_toolbox.speaking(None)
    box.session("plain")
    command = box.run("plain", "seq 1 50000", wait=False)["cmdId"]
    parts = urlsplit(box.base)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=60)) as connection:
        path = f"{parts.path}{command_path('plain', command)}/logs?follow=true"
        connection.request("GET", path, headers=dict(box.headers))
        try:
            body = connection.getresponse().read()
        except HTTPException as problem:
            pytest.fail(f"the stream was cut: {problem}")
    assert body == "".join(f"{i}\n" for i in range(1, 50001)).encode()
    box.call("DELETE", "/process/session/plain")
