"""Files through the proxy: bytes up and down, a large directory, and text in a large tree."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from benchmarks.bench import LOCAL, Bench, execute
from benchmarks.figures import Figure, Row, Target, at_most, interleaved
from tests.contract.toolbox import Toolbox

SECONDS = 120
MB = 1_000_000
BLOCK = 1 << 20
RATE_MB, RATE_RATIO = 300, 0.5
LIST_ENTRIES = 10_000
LIST_LIMIT_MS = 100
FIND_RATIO = 3.0
MAKE_TREE = (
    "mkdir -p tree && cd tree && for d in $(seq {folders}); do mkdir $d; done && "
    "for d in *; do (cd $d && for f in $(seq {files}); do echo some text $f > $f; done); done && "
    "echo needle > 1/needle"
)


def measure(bench: Bench) -> Iterator[Row]:
    """The local runtime: what is measured is the daemon and the proxy."""
    size = (100 if bench.is_quick else 500) * MB
    rounds = bench.rounds(15)
    with bench.toolbox(LOCAL) as toolbox:
        client = _Client(toolbox)
        try:
            value, bare = interleaved(rounds, lambda: client.upload(size), lambda: _loopback(size))
            yield _rate("file upload, raw body", value, bare, size)
            value, bare = interleaved(rounds, lambda: client.upload_form(size), lambda: _loopback(size))
            yield _rate("file upload, bulk form", value, bare, size)
            value, bare = interleaved(rounds, lambda: client.download(size), lambda: _loopback(size))
            yield _rate("file download", value, bare, size)
            value, bare = interleaved(rounds, lambda: client.download_form(size), lambda: _loopback(size))
            yield _rate("file download, bulk form", value, bare, size)
            yield from _many(bench, toolbox, client)
        finally:
            client.connection.close()


def _many(bench: Bench, toolbox: Toolbox, client: "_Client") -> Iterator[Row]:
    execute(toolbox, f"mkdir many && cd many && seq {LIST_ENTRIES} | xargs touch")
    [value] = interleaved(bench.rounds(25), lambda: client.timed("GET", "/files?path=many"))
    yield Figure(f"list of {LIST_ENTRIES} files", value, "ms", target=at_most(LIST_LIMIT_MS), note="first to last byte")
    folders, files = (20, 500) if bench.is_quick else (100, 1000)
    execute(toolbox, MAKE_TREE.format(folders=folders, files=files))
    find = "/files/find?path=tree&pattern=needle"
    value, bare = interleaved(
        bench.rounds(15),
        lambda: client.timed("GET", find),
        lambda: client.timed("POST", "/process/execute", json.dumps({"command": "grep -rn needle tree"}).encode()),
    )
    target = Target(FIND_RATIO, of_ratio=True)
    yield Figure(f"find in {folders * files} files", value, "ms", bare, "`grep -rn` by process/execute", target)


def _rate(name: str, value: float, bare: float, size: int) -> Figure:
    is_fast = value >= RATE_MB
    target = Target(RATE_MB if is_fast else RATE_RATIO, at_least=True, of_ratio=not is_fast)  # either will do
    return Figure(name, value, "MB/s", bare, "bytes over a loopback socket to a file", target, f"{size // MB} MB")


class _Client:
    """One kept connection to the proxy."""

    def __init__(self, toolbox: Toolbox) -> None:
        parts = urlsplit(toolbox.base)
        self._path = parts.path
        self._headers = dict(toolbox.headers)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS, blocksize=BLOCK)

    def timed(self, method: str, path: str, body: bytes | None = None) -> float:
        """Milliseconds until the last byte of the answer."""
        begun = time.perf_counter()
        self.connection.request(method, self._path + path, body, self._headers)
        answer = self.connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data[:500]
        return (time.perf_counter() - begun) * 1e3

    def upload(self, size: int) -> float:
        """MB/s of a raw body."""
        return self._send("/files/upload-v2?path=big", size, b"", b"", "application/octet-stream")

    def upload_form(self, size: int) -> float:
        """MB/s of a form."""
        head = b'--b\r\nContent-Disposition: form-data; name="files[0].path"\r\n\r\nbig\r\n--b\r\n'
        head += b'Content-Disposition: form-data; name="files[0].file"; filename="big"\r\n\r\n'
        return self._send("/files/bulk-upload", size, head, b"\r\n--b--\r\n", "multipart/form-data; boundary=b")

    def download(self, size: int) -> float:
        """MB/s of a plain download."""
        return self._receive("GET", f"/files/download?path={quote('big')}", None, size)

    def download_form(self, size: int) -> float:
        """MB/s of a part."""
        return self._receive("POST", "/files/bulk-download", b'{"paths": ["big"]}', size)

    def _send(self, path: str, size: int, head: bytes, tail: bytes, kind: str) -> float:
        headers = {**self._headers, "Content-Type": kind, "Content-Length": str(len(head) + size + len(tail))}
        begun = time.perf_counter()
        self.connection.request("POST", self._path + path, _Blocks(head, size, tail), headers)
        answer = self.connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data[:500]
        return size / MB / (time.perf_counter() - begun)

    def _receive(self, method: str, path: str, body: bytes | None, size: int) -> float:
        begun = time.perf_counter()
        self.connection.request(method, self._path + path, body, self._headers)
        answer = self.connection.getresponse()
        received, buffer = 0, bytearray(BLOCK)
        while count := answer.readinto(buffer):
            received += count
        assert received >= size, received
        return size / MB / (time.perf_counter() - begun)


class _Blocks:
    """A body of that many bytes, as an iterable."""

    def __init__(self, head: bytes, size: int, tail: bytes) -> None:
        self._head, self._size, self._tail = head, size, tail

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        block = os.urandom(BLOCK)
        for start in range(0, self._size, BLOCK):
            yield block[: self._size - start]
        yield self._tail


def _loopback(size: int) -> float:
    """MB/s of a Python thread sending over TCP, and another writing what it gets to a file."""
    listener = socket.create_server(("127.0.0.1", 0))
    target = Path(f"/tmp/sandyard-bench-{os.getpid()}")

    def receive() -> None:
        connection, _ = listener.accept()
        buffer = bytearray(BLOCK)
        with connection, target.open("wb", buffering=0) as file:
            while count := connection.recv_into(buffer):
                file.write(memoryview(buffer)[:count])

    thread = threading.Thread(target=receive)
    begun = time.perf_counter()
    thread.start()
    try:
        with socket.create_connection(listener.getsockname()) as sender:
            for block in _Blocks(b"", size, b""):
                sender.sendall(block)
        thread.join()
        return size / MB / (time.perf_counter() - begun)
    finally:
        listener.close()
        target.unlink(missing_ok=True)
