"""The process that makes sockets of another network for us, in the network of a test's host."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard_runner.egress.broker import receive, send
from tests.hosts import Host

pytestmark = pytest.mark.root


@pytest.fixture
def channel(site: Host, tmp_path: Path) -> Iterator[socket.socket]:
    """To a broker in the namespace of the site."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        listener.settimeout(30)
        program = [sys.executable, "-I", "-m", "sandyard_runner.egress.broker", str(tmp_path / "socket")]
        process = subprocess.Popen(["ip", "netns", "exec", site.name, *program])
        opened, _ = listener.accept()
        opened.settimeout(30)
        with opened:
            yield opened
        assert process.wait(timeout=30) == 0  # it ends with who asks


def ask(channel: socket.socket, **request: object) -> tuple[dict[str, object], socket.socket | None]:
    send(channel, request)
    answer = receive(channel)
    assert answer is not None
    return answer


async def test_its_sockets_are_of_that_network(channel: socket.socket) -> None:
    _, made = ask(channel, do="socket", kind=int(socket.SOCK_STREAM), family=int(socket.AF_INET))
    assert made is not None
    with made:
        made.setblocking(False)
        async with asyncio.timeout(30):
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", 80))  # nothing of ours listens there
            await asyncio.get_running_loop().sock_sendall(made, b"GET /echo HTTP/1.0\r\n\r\n")
            assert (await asyncio.get_running_loop().sock_recv(made, 8)).startswith(b"HTTP/1.1")


def test_it_reads_that_machines_addresses(channel: socket.socket, site: Host) -> None:
    files = ask(channel, do="read")[0]["files"]
    assert isinstance(files, list)
    assert site.address in files[0]


def test_it_loads_rules_there_and_tells_what_is_wrong_with_them(channel: socket.socket, site: Host) -> None:
    table = f"inet broker_{site.name}"
    assert ask(channel, do="nft", script=f"table {table} {{}}\n")[0]["problem"] == ""
    listed = ["ip", "netns", "exec", site.name, "nft", "list", "tables"]
    assert table in subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    here = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert table not in here.stdout
    assert "syntax error" in str(ask(channel, do="nft", script="nonsense")[0]["problem"])
