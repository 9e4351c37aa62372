"""What a data directory keeps between runs: secrets, the lock of its one process, and where that one listens."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class DataDirectoryInUse(RuntimeError):
    """Another Sandyard runs on this data directory."""


class Running(msgspec.Struct, frozen=True):
    """Where the Sandyard of a data directory can be reached."""

    pid: int
    url: str
    """Origin, without a path."""
    runtime: str


def keep_secret(data_dir: Path, name: str, make: Callable[[], str]) -> str:
    """The secret of that name, made at first and readable only to its owner."""
    path = data_dir / name
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = make()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
    return secret


@contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Be the only Sandyard on this data directory. Raises `DataDirectoryInUse`.

    The lock is the kernel's, so `kill -9` releases it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            running = read_running(data_dir)
            where = f" (process {running.pid}, {running.url})" if running else ""
            raise DataDirectoryInUse(
                f"another Sandyard uses {data_dir}{where}; end it with `sandyard down`, or choose another --data-dir"
            ) from None
        yield


def is_held(data_dir: Path) -> bool:
    """Whether a live process holds the data directory."""
    try:
        with (data_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def announce(data_dir: Path, running: Running) -> Iterator[None]:
    """Let the other commands find us while we run."""
    path = data_dir / "running.json"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(running))
    temporary.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_running(data_dir: Path) -> Running | None:
    """Who announced itself last; whether it still lives, `is_held` tells."""
    try:
        return msgspec.json.decode((data_dir / "running.json").read_bytes(), type=Running)
    except (FileNotFoundError, ValueError):
        return None
