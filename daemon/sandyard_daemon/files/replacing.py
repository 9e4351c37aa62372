"""Replacing a literal text in a file, block by block; the file changes in one step, or not at all."""

from collections.abc import Iterator

from sandyard_daemon.files.reading import Readable
from sandyard_daemon.files.staging import Staged
from sandyard_daemon.files.workers import Steps

BLOCK = 128 << 10
"""Small: cut at every byte it becomes a hundred thousand pieces."""
_JOINED = 1 << 20


def replace_text(path: str, text: bytes, value: bytes) -> Steps[None]:
    """Every occurrence. A file without one is left alone. Raises `OSError`, `BadRequest`."""
    file = Readable(path)
    try:
        file.open()
        holds_it = False
        for piece in _replaced(file, text, None):
            holds_it = holds_it or bool(piece)
            if holds_it:
                break
            yield None
        if not holds_it:
            return
        staged = Staged(path)
        try:
            staged.open()
            for piece in _replaced(file, text, value):
                staged.write((piece,))
                yield None
            staged.commit()
        finally:
            staged.discard()
    finally:
        file.close()


def _replaced(file: Readable, text: bytes, value: bytes | None) -> Iterator[bytes]:
    """The new content; with `None` for the value, something when the text is there, and nothing else."""
    size, offset, data = file.status.st_size, 0, b""
    while offset < size:
        count = min(BLOCK, size - offset)
        data += file.read(offset, count)
        offset += count
        parts = data.split(text)
        if value is None:
            if len(parts) > 1:
                yield data
                return
            yield b""
        # The end of the last part may be the beginning of the text; it waits for what comes next.
        keep = min(len(parts[-1]), len(text) - 1) if offset < size else 0
        data = parts[-1][len(parts[-1]) - keep :]
        if value is not None:
            parts[-1] = parts[-1][: len(parts[-1]) - keep]
            yield from _with_value_between(parts, value)


def _with_value_between(parts: list[bytes], value: bytes) -> Iterator[bytes]:
    if len(parts) * len(value) <= _JOINED:
        yield value.join(parts)
        return
    for part in parts[:-1]:
        yield part
        yield value
    yield parts[-1]
