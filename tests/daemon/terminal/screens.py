"""A client of a daemon's terminals, and what can be seen of the daemon's processes from outside."""

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

from tests.contract.wire_client import WebSocket
from tests.daemon.conftest import Daemon

EXIT = "X-Daytona-Pty-Exit-Control"


class Screen:
    """A client of a terminal that keeps what it saw."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.controls: list[dict[str, Any]] = []
        self.seen = b""
        self._messages = socket.messages(120)  # seconds from now, not for each: a hundred terminals take their time

    def read(self) -> bool:
        """One more message; false at the close."""
        message = next(self._messages, None)
        if message is None:
            return False
        if message.is_text:
            self.controls.append(json.loads(message.data))
        else:
            self.seen += message.data
        return True

    def until(self, text: bytes) -> bytes:
        """Read until the text was shown; what came before it."""
        while text not in self.seen:
            assert self.read(), self.seen[-500:]
        before, _, self.seen = self.seen.partition(text)
        return before

    def rest(self) -> bytes:
        """Everything to the close."""
        while self.read():
            pass
        return self.seen

    def type(self, text: str | bytes) -> None:
        self.socket.send(text)

    def run(self, command: str) -> bytes:
        """Run a command and return what it printed; the typed line's echo does not hold the end marker."""
        self.type(command + "; printf 'd%s\\n' one\n")
        return self.until(b"done\r\n")


def envs_token(envs: Any) -> str:
    return "X-Daytona-Pty-Envs~" + base64.urlsafe_b64encode(json.dumps(envs).encode()).decode().rstrip("=")


def open_screen(daemon: Daemon, name: str = "t", query: str = "", protocols: tuple[str, ...] = (EXIT,)) -> Screen:
    """Create and connect, quiet: without prompt and line editing, so that a test sees what programs write.

    Nor with the hooks of `/etc/profile.d`: systemd's announce every command to the terminal.
    """
    screen = Screen(daemon.websocket(f"/process/pty/create-connect?id={name}{query}", protocols))
    quiet = "unset PROMPT_COMMAND; PS0=; PS1=; PS2=; stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null"
    screen.type(quiet + "; printf 'rea%s\\n' dy\n")
    screen.until(b"ready\r\n")
    return screen


def connect(daemon: Daemon, name: str = "t", protocols: tuple[str, ...] = (EXIT,)) -> Screen:
    return Screen(daemon.websocket(f"/process/pty/{name}/connect", protocols))


def tree(daemon: Daemon) -> list[int]:
    """Every process below the daemon."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, ahead = [], [daemon.process.pid]
    while ahead:
        below = parents.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def memory(daemon: Daemon, field: str) -> str:
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field))


def running(daemon: Daemon, name: str) -> list[int]:
    """The processes of this name below the daemon."""
    found = []
    for pid in tree(daemon):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                found.append(pid)
    return found


def held_back(daemon: Daemon) -> bool:
    """Whether `seq` waits for the terminal to take more."""
    for pid in running(daemon, "seq"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if "\nState:\tS" in Path(f"/proc/{pid}/status").read_text():
                return True
    return False
