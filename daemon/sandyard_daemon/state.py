"""The daemon's files: one fresh directory per boot inside the state directory, those of dead daemons removed."""

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from sandyard_daemon.diary import report

_PREFIX = "boot-"


class StateDirectory:
    """A directory of our own for logs and command texts. Flat: nothing a client sends becomes part of a name."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._number = 0

    @classmethod
    def open(cls, candidates: Sequence[Path]) -> "StateDirectory":
        """Make the boot directory in the first candidate that can be written. Raises `OSError` when none can."""
        problem: OSError | None = None
        for base in candidates:
            try:
                base.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove_stale(base)
                return cls._boot(base)
            except OSError as error:
                problem = error
        raise problem if problem is not None else OSError("no place for the state directory")

    @classmethod
    def _boot(cls, base: Path) -> "StateDirectory":
        path = base / f"{_PREFIX}{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(path, lock)

    def next_name(self) -> str:
        """A path no file has yet, without suffix."""
        self._number += 1
        return str(self.path / str(self._number))

    def remove(self) -> None:
        """Leave nothing behind."""
        os.close(self._lock)
        with contextlib.suppress(OSError):
            _remove(self.path)


def _remove_stale(base: Path) -> None:
    """Remove the directories whose daemon does not live any more: its lock is free."""
    for path in base.glob(_PREFIX + "*"):
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        except BlockingIOError:
            continue  # another daemon of the same user lives there
        except OSError as error:
            report("stale_state_kept", path=str(path), error=error.strerror)
        finally:
            os.close(lock)


def _remove(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
