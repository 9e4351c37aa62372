"""How a log takes what is in a pipe: where the kernel moves it, where it cannot, and where there is no room."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.wire import Stream

MOST = 1 << 20
CHUNK = 60_000  # less than a pipe holds


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    for descriptor in (reader, writer):
        os.close(descriptor)


def fill(log: CommandLog, pipe: tuple[int, int]) -> bytes:
    """Both streams in turns, with what is appended between; what that makes."""
    made = b""
    for number in range(6):
        data = bytes([number]) * (CHUNK + number)
        os.write(pipe[1], data)
        taken = 0
        while taken < len(data):
            taken += log.take(Stream(1 + number % 2), pipe[0], MOST)
        if number == 2:
            log.rest()  # and the next opens its files again
        if number == 3:
            log.append(Stream.STDOUT, b"typed\n")
            data += b"typed\n"
        made += data
    return made


def kept(log: CommandLog) -> bytes:
    return b"".join(frame.payload for frame in log.frames(0, log.size))


@pytest.mark.parametrize("splices", [True, False])
def test_bytes_come_in_order_and_with_their_stream(
    tmp_path: Path, pipe: tuple[int, int], splices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if splices:
        monkeypatch.setattr("sandyard_daemon.sessions.log.read", refuse)  # nothing comes by us
    else:
        monkeypatch.setattr(os, "splice", refuse)
    log = CommandLog(str(tmp_path / "c"))
    made = fill(log, pipe)
    assert kept(log) == made
    assert (tmp_path / "c.log").read_bytes() == made
    first = next(iter(log.runs(0, log.size)))
    assert (first.start, first.end, first.stream) == (0, CHUNK, Stream.STDOUT)
    with pytest.raises(BlockingIOError):
        log.take(Stream.STDOUT, pipe[0], MOST)
    ended, writer = os.pipe()
    os.close(writer)
    assert log.take(Stream.STDOUT, ended, MOST) == 0
    os.close(ended)
    log.rest()


def test_what_is_beyond_the_limit_is_taken_and_counted(tmp_path: Path, pipe: tuple[int, int]) -> None:
    log = CommandLog(str(tmp_path / "c"), cap=CHUNK + 10)
    made = fill(log, pipe)
    assert kept(log).startswith(made[: CHUNK + 10] + b"\n[log truncated after")
    assert log.dropped == len(made) - CHUNK - 10
    log.rest()


@pytest.mark.root
def test_a_full_disk_ends_the_log_and_nobody_waits(tmp_path: Path, pipe: tuple[int, int]) -> None:
    size = 128 << 10
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(tmp_path)]
    if subprocess.run(mounting, capture_output=True, timeout=10).returncode:
        pytest.skip("needs to be root")
    try:
        log = CommandLog(str(tmp_path / "c"))
        made = fill(log, pipe)
        assert 0 < log.size <= size
        assert made.startswith(kept(log))
        assert log.dropped == len(made) - log.size
        log.rest()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def refuse(*_: object, **__: object) -> int:
    """As file systems that do not have it."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
