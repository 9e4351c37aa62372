"""A private Redis server for tests: its own unix socket, nothing on disk, gone with the fixture."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_SECONDS = 60.0


class RedisServer:
    """One redis-server process that can be stopped and started again on the same address."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start_or_skip(cls, folder: Path) -> "RedisServer":
        """A running server, or a skipped test where no Redis is installed."""
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        server = cls(folder)
        server.start()
        return server

    def start(self) -> None:
        """Return when the server listens."""
        arguments = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            assert self._process.poll() is None, "redis-server ended at once"
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether it listens: its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)
