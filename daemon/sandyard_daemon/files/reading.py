"""Regular files that are sent: their bytes in order, as many as were announced, and the descriptor closed."""

import errno
import os
import stat
import threading

from sandyard_daemon.errors import BadRequest
from sandyard_daemon.files.paths import shown
from sandyard_daemon.files.workers import Workers

CHUNK = 256 << 10


class Readable:
    """A regular file. Blocks; every method may be called from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._is_over = False
        self.status: os.stat_result

    def open(self) -> None:
        """Raises `OSError`, and `BadRequest` for what is no regular file; `close` is to be called all the same.

        Opening a FIFO could wait for ever, and opening some devices does something.
        """
        with self._lock:
            if self._is_over:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            _check_regular(os.stat(self._path), self._path)
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            self.status = os.fstat(self._descriptor)
            _check_regular(self.status, self._path)

    def read(self, offset: int, count: int) -> bytes:
        """Exactly that many bytes. Raises `OSError` when the file became shorter, or was closed."""
        with self._lock:
            if self._descriptor is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            data = os.pread(self._descriptor, count, offset)
            while len(data) < count:
                more = os.pread(self._descriptor, count - len(data), offset + len(data))
                if not more:
                    raise OSError(errno.EIO, "the file became shorter while it was read")
                data += more
        return data

    def close(self) -> None:
        """For good: whoever opens it later, on a thread that was slower, is refused. May be repeated."""
        with self._lock:
            self._is_over = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


async def opened(workers: Workers, path: str) -> Readable:
    """An open file, which the caller closes. Raises as `Readable.open` does."""
    file = Readable(path)
    try:
        await workers.run(file.open)
    except BaseException:  # a cancelled caller among them: the thread may be just about to open it
        workers.post(file.close)
        raise
    return file


class Content:
    """Some bytes of a file, as an answer's chunks; closes it, also where it was never read from."""

    def __init__(self, workers: Workers, file: Readable, offset: int, count: int) -> None:
        self._workers = workers
        self._file = file
        self._offset = offset
        self._end = offset + count

    def __aiter__(self) -> "Content":
        return self

    async def __anext__(self) -> bytes:
        if self._offset >= self._end:
            await self.aclose()
            raise StopAsyncIteration
        count = min(CHUNK, self._end - self._offset)
        data = await self._workers.run(self._file.read, self._offset, count)
        self._offset += count
        return data

    async def aclose(self) -> None:
        """May be repeated."""
        self._workers.post(self._file.close)


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise BadRequest(f"not a regular file: {shown(path)}")
