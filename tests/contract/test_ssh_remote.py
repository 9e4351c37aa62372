"""`ssh -R`: clients in the sandbox reach servers out here, by OpenSSH's client and by asyncssh."""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.contract.running import Instance
from tests.contract.ssh_clients import SECONDS, address, logged_in, make_access, openssh
from tests.contract.toolbox import Toolbox

LAX = ["-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"]


@pytest.fixture(scope="session")
def box(sandyard: Instance) -> Iterator[Toolbox]:
    toolbox = Toolbox.create(sandyard)
    yield toolbox
    toolbox.delete()


@pytest.fixture
def access(box: Toolbox) -> dict[str, Any]:
    return make_access(box)


TALK = (
    "import socket, sys; s = socket.socket(*eval(sys.argv[1])); s.settimeout(20); s.connect(eval(sys.argv[2])); "
    "s.sendall(bytes(range(256)) * 4096); s.shutdown(1); n = 0\n"
    "while d := s.recv(65536): n += len(d); last = d\nprint(n, last[-3:])"
)


def talk(box: Toolbox, place: object, family: str = "2, 1") -> str:
    """What a client inside says that sends a MiB, ends, and reads to the end."""
    program = base64.b64encode(TALK.encode()).decode()
    command = f"echo {program} | base64 -d >~/talk.py; python3 ~/talk.py '({family})' \"{place!r}\" 2>&1"
    answer = box.call("POST", "/process/execute", {"command": command, "timeout": 40})
    if "python3: " in answer.json()["result"]:
        pytest.skip("no Python in this sandbox to ask with")
    return str(answer.json()["result"]).strip()


async def told(box: Toolbox, words: str, place: object, family: str = "2, 1") -> None:
    """Return when a client inside is told so there: what was listened on goes a moment after its client."""
    async with asyncio.timeout(SECONDS):
        while words not in await asyncio.to_thread(talk, box, place, family):
            pass


@contextlib.asynccontextmanager
async def reversing() -> AsyncIterator[tuple[str, int]]:
    """A server out here that answers what it got, the other way round, once it got all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(-1))[::-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


async def test_openssh_lets_the_sandbox_reach_servers_out_here(
    box: Toolbox, access: dict[str, Any], tmp_path: Path
) -> None:
    path = f"/tmp/{box.id}.sock"  # some of these sandboxes share the machine's own
    async with reversing() as (_, port):
        said = tmp_path / "said"
        command = [openssh("ssh"), "-F", "none", "-N", "-o", "ExitOnForwardFailure=yes", *LAX]
        command += ["-R", f"8124:127.0.0.1:{port}", "-R", "8125:127.0.0.1:9"]
        # They are asked for in this order: once the port of the last is said, the others are listened on.
        command += ["-R", f"{path}:127.0.0.1:{port}", "-R", f"0:127.0.0.1:{port}"]
        host, ssh_port, user = address(access)
        with said.open("wb") as file:
            command += ["-p", str(ssh_port), f"{user}@{host}"]
            process = await asyncio.create_subprocess_exec(*command, stderr=file)
        try:
            free = None
            async with asyncio.timeout(40):
                while free is None:
                    await asyncio.sleep(0.1)
                    assert process.returncode is None, said.read_text()
                    free = re.search(r"Allocated port (\d+) for", said.read_text())
            whole = f"{1 << 20} {bytes([2, 1, 0])!r}"
            for place in (("127.0.0.1", 8124), ("127.0.0.1", int(free[1]))):
                assert await asyncio.to_thread(talk, box, place) == whole
            assert await asyncio.to_thread(talk, box, path, "1, 1") == whole
            assert "Error" in await asyncio.to_thread(talk, box, ("127.0.0.1", 8125))  # nothing serves it out here
        finally:
            process.terminate()
            async with asyncio.timeout(20):
                await process.wait()
    await told(box, "refused", ("127.0.0.1", 8124))
    await told(box, "No such file", path, "1, 1")


async def test_what_the_sandbox_has_already_is_not_listened_on_twice(box: Toolbox, access: dict[str, Any]) -> None:
    async with logged_in(access) as connection, logged_in(access) as other, reversing() as (host, port):
        listener = await connection.forward_remote_port("localhost", 0, host, port)
        assert (await asyncio.to_thread(talk, box, ("127.0.0.1", listener.get_port()))).startswith(str(1 << 20))
        with pytest.raises(asyncssh.ChannelListenError):
            await other.forward_remote_port("", listener.get_port(), host, port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("192.0.2.1", 0, host, port)
        listener.close()
        await told(box, "refused", ("127.0.0.1", listener.get_port()))
        again = await other.forward_remote_port("", listener.get_port(), host, port)
        assert (await asyncio.to_thread(talk, box, ("127.0.0.1", again.get_port()))).startswith(str(1 << 20))
