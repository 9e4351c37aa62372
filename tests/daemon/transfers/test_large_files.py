"""Large files both ways, and many transfers at once, in bounded memory."""

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard_daemon.wire import DOOR_HEADER
from tests.daemon.conftest import SECRET, Answer, Daemon, eventually
from tests.daemon.files import BOUNDARY, FORM, form
from tests.daemon.processes import descriptors
from tests.daemon.test_files import path
from tests.daemon.transfers.uploading import UPLOADS, noise, upload

PEAK_KIB = 40 * 1024


def peak_kib(daemon: Daemon) -> int:
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", text)
    assert found
    return int(found[1])


def large_pieces(size: int) -> Iterator[bytes]:
    block = noise(1 << 20)
    for start in range(0, size, len(block)):
        yield block[: size - start]


def there_and_back(daemon: Daemon, home: Path, size: int) -> None:
    """One file up in a form and down as a part and plainly; what comes back is what was sent."""
    sent, received = hashlib.blake2b(), hashlib.blake2b()

    def body() -> Iterator[bytes]:
        yield form(("files[0].path", b"large"), ("files[0].file", b""), closed=False)[:-2]
        for piece in large_pieces(size):
            sent.update(piece)
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    headers = {DOOR_HEADER: SECRET, "Content-Type": FORM, "Transfer-Encoding": "chunked"}
    daemon._connection.request("POST", "/files/bulk-upload", body(), headers, encode_chunked=True)
    assert Answer(daemon._connection.getresponse()).json["files"] == [{"path": "large", "bytes": size}]
    daemon._connection.request("GET", path("/download", path="large"), headers={DOOR_HEADER: SECRET})
    response = daemon._connection.getresponse()
    while chunk := response.read(1 << 20):
        received.update(chunk)
    assert received.digest() == sent.digest()
    daemon._connection.request("POST", "/files/bulk-download", '{"paths": ["large"]}', {DOOR_HEADER: SECRET})
    response = daemon._connection.getresponse()
    total = 0
    while chunk := response.read(1 << 20):
        total += len(chunk)
    assert size < total < size + 1000
    assert peak_kib(daemon) < PEAK_KIB


def test_a_file_of_200_mb_goes_up_and_down_in_little_memory(daemon: Daemon, home: Path) -> None:
    there_and_back(daemon, home, 200_000_000)


@pytest.mark.long
def test_a_file_of_2_gb_goes_up_and_down_in_little_memory(daemon: Daemon, home: Path) -> None:
    there_and_back(daemon, home, 2_000_000_000)


def test_many_at_once_stay_within_memory_threads_and_descriptors(daemon: Daemon, home: Path) -> None:
    daemon.get("/files")
    before = descriptors(daemon)

    def work(number: int) -> None:
        client = daemon.client()
        content = noise(3_000_000 + number)
        assert upload(client, UPLOADS[number % 3], f"f{number}", content).status == 200
        assert client.get(path("/download", path=f"f{number}")).body == content

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(home.iterdir())) == 12
    assert len(os.listdir(f"/proc/{daemon.process.pid}/task")) <= 1 + 4
    assert peak_kib(daemon) < PEAK_KIB * 2
    daemon.close()
    eventually(lambda: descriptors(daemon) <= before)
