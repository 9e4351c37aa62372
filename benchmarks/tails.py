"""How many tails the runner holds on daemons: it is asked over its own socket, as a proxy asks it."""

import http.client
import json
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.contract.running import Instance

EVERY_SECONDS = 0.05
ANSWER_SECONDS = 30


class TailWatch:
    """Asks the runner again and again in the background; `most` is the largest count it named."""

    HOW = "the runner's own count, asked 20 times a second"

    def __init__(self, instance: Instance) -> None:
        self.most = 0
        self.asked = 0
        self._socket = _listening(instance.process.pid, "runner.sock")
        self._token = (instance.folder / "data" / "internal-token").read_text().strip()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tail-watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self.most = max(self.most, int(_ask(self._socket, self._token)["tails"]))
            self.asked += 1


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("runner", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(self._path)


def _ask(path: str, token: str) -> dict[str, Any]:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/health", headers={"Authorization": f"Bearer {token}"})
        body: dict[str, Any] = json.loads(connection.getresponse().read())
        return body
    finally:
        connection.close()


def _listening(pid: int, name: str) -> str:
    """The path of the process's unix socket of that file name. *Source:* proc(5), `/proc/net/unix`."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) == 8 and Path(fields[7]).name == name and f"socket:[{fields[6]}]" in held:
            return fields[7]
    raise RuntimeError(f"process {pid} listens on no {name}")
