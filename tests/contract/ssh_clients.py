"""SSH clients of the tests: asyncssh, and OpenSSH's own programs."""

import asyncio
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.contract.toolbox import Toolbox

SECONDS = 60
PROGRAM_SECONDS = 240
"""For one of OpenSSH's programs: some carry hundreds of megabytes, on a machine that has other things to do."""
QUIET = ["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]


class Banners(asyncssh.SSHClient):
    """Keeps what the server says before it lets anybody in."""

    def __init__(self) -> None:
        self.said = ""

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """By the library."""
        self.said += msg


def make_access(toolbox: Toolbox, query: str = "") -> dict[str, Any]:
    """A new token for the sandbox, in place of all others."""
    answer = toolbox.api("POST", f"/sandbox/{toolbox.id}/ssh-access{query}")
    assert answer.status == 200, answer
    made: dict[str, Any] = answer.json()
    return made


def address(access: dict[str, Any]) -> tuple[str, int, str]:
    """Host, port and user name of an `sshCommand`."""
    words = access["sshCommand"].split()
    assert words[:2] == ["ssh", "-p"]
    user, _, host = words[3].partition("@")
    return host, int(words[2]), user


@asynccontextmanager
async def logged_in(
    access: dict[str, Any], client: type[asyncssh.SSHClient] = asyncssh.SSHClient
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An asyncssh connection, with a deadline over all that is done on it."""
    host, port, user = address(access)
    async with (
        asyncio.timeout(SECONDS),
        asyncssh.connect(
            host, port, username=user, known_hosts=None, config=None, client_keys=None, client_factory=client
        ) as connection,
    ):
        yield connection


async def refusal(access: dict[str, Any]) -> str:
    """What somebody who is not let in is told."""
    banners: list[Banners] = []

    class Client(Banners):
        def __init__(self) -> None:
            super().__init__()
            banners.append(self)

    with pytest.raises(asyncssh.PermissionDenied):
        async with logged_in(access, Client):
            pass
    return banners[0].said


def openssh(program: str) -> str:
    """Its path; skips where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} here: install openssh-client")
    return found


def ssh(
    access: dict[str, Any], *command: str, options: Sequence[str] = (), stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run `sshCommand` as it was given, with options that keep it off this machine's files."""
    openssh("ssh")
    words = shlex.split(access["sshCommand"])
    return subprocess.run(
        [words[0], *QUIET, *options, *words[1:], *command], input=stdin, capture_output=True, timeout=PROGRAM_SECONDS
    )


def transfer(access: dict[str, Any], program: str, *arguments: str, batch: str = "") -> None:
    """Run `scp` or `sftp`; `{}` in an argument is the sandbox."""
    host, port, user = address(access)
    found = openssh(program)
    places = [argument.replace("{}", f"{user}@{host}") for argument in arguments]
    done = subprocess.run(
        [found, *QUIET, "-P", str(port), *places], input=batch.encode(), capture_output=True, timeout=PROGRAM_SECONDS
    )
    assert done.returncode == 0, done


def random_file(path: Path, size: int) -> Path:
    """A file of bytes that do not compress."""
    with path.open("wb") as file, Path("/dev/urandom").open("rb") as source:
        for _ in range(0, size, 1 << 20):
            file.write(source.read(1 << 20))
    return path
