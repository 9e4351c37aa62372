"""JSON-RPC with a language server over its standard streams: framing, ids, deadlines, and what the server asks of us.

*Source:* Language Server Protocol 3.17, base protocol.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from sandyard_daemon.errors import BadRequest, DaemonError, Internal, RequestTimeout

MAX_MESSAGE = 8 << 20
"""Bytes of one message of a server. It is parsed in one go, so this also bounds how long that takes."""
MAX_UNSENT = 16 << 20
"""Bytes that wait because a server does not read."""

_MAX_HEAD = 8 << 10
_METHOD_NOT_FOUND = -32601
_MAX_SHOWN = 500

Answerer = Callable[[Any], Any]


class Connection:
    """One conversation. `ended` is called once when it is over, with the reason."""

    def __init__(
        self,
        ours: socket.socket,
        *,
        answers: Mapping[str, Answerer],
        heard: Callable[[str, Any], None],
        ended: Callable[[str], None],
    ) -> None:
        """`answers`: what the server may ask, by method; `heard`: its notifications."""
        self._socket = ours
        self._answers = answers
        self._heard = heard
        self._ended = ended
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to read."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._reading = asyncio.ensure_future(self._read(reader))

    async def request(self, method: str, params: Any, seconds: float) -> Any:
        """The result. Raises `RequestTimeout`, `BadRequest` for the server's own error, `Internal` at its end."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(seconds):
                await self._send({"id": number, "method": method, "params": params})
                return await future
        except TimeoutError as error:
            raise RequestTimeout(f"the language server did not answer {method} in {seconds:g} seconds") from error
        finally:
            if self._waiting.pop(number, None) is not None:
                self._write({"method": "$/cancelRequest", "params": {"id": number}})
            future.cancel()

    async def notify(self, method: str, params: Any, seconds: float) -> None:
        """Tell something. Raises `RequestTimeout` when the server does not read, `Internal` when it is gone."""
        try:
            async with asyncio.timeout(seconds):
                await self._send({"method": method, "params": params})
        except TimeoutError as error:
            raise RequestTimeout(f"the language server did not take {method} in {seconds:g} seconds") from error

    async def close(self) -> None:
        """End the conversation; may be repeated."""
        self._finish("it was stopped")
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        self._socket.close()

    async def _send(self, message: dict[str, Any]) -> None:
        self._write(message)
        writer = self._writer
        if writer is None or writer.is_closing():
            raise Internal("the language server has ended")
        try:
            await writer.drain()
        except ConnectionError as error:
            raise Internal("the language server has ended") from error

    def _write(self, message: dict[str, Any]) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        body = json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode("utf-8", "replace")
        if writer.transport.get_write_buffer_size() + len(body) > MAX_UNSENT:
            self._finish(f"it left more than {MAX_UNSENT} bytes unread")
            return
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "it closed its output"
        try:
            while True:
                self._take(await _message(reader))
        except asyncio.IncompleteReadError:
            pass
        except OSError as error:
            reason = f"its output failed: {error.strerror}"
        except _Broken as error:
            reason = str(error)
        self._finish(reason)

    def _take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        if isinstance(method, str):
            if number is None:
                self._heard(method, message.get("params"))
            else:
                self._write({"id": number, **self._answer(method, message.get("params"))})
            return
        future = self._waiting.pop(number, None) if isinstance(number, int) else None
        if future is None or future.done():
            return  # the answer to a question that is not asked any more
        if message.get("error") is not None:
            future.set_exception(_server_error(message["error"]))
        else:
            future.set_result(message.get("result"))

    def _answer(self, method: str, params: Any) -> dict[str, Any]:
        answer = self._answers.get(method)
        if answer is None:
            return {"error": {"code": _METHOD_NOT_FOUND, "message": f"this client has no {method}"}}
        return {"result": answer(params)}

    def _finish(self, reason: str) -> None:
        """Fail whoever waits, and let go of the streams. Repeating it changes nothing."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Internal(f"the language server ended: {reason}"))
        self._waiting.clear()
        if self._writer is not None and not self._writer.is_closing():
            self._writer.transport.abort()
            self._ended(reason)


class _Broken(Exception):
    """What came is not the protocol; the text says what."""


async def _message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next message. Raises `_Broken`, `IncompleteReadError` at the end, `OSError`."""
    length, seen = -1, 0
    while line := (await _line(reader)).strip():
        seen += len(line)
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value) if value.strip().isdigit() else -1
        if seen > _MAX_HEAD:
            raise _Broken("a message's head does not end")
    if not 0 < length <= MAX_MESSAGE:
        raise _Broken(f"a message of {length} bytes was announced; at the most {MAX_MESSAGE} are taken")
    body = await reader.readexactly(length)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Broken("a message is not JSON") from error
    if not isinstance(value, dict):
        raise _Broken("a message is not a JSON object")
    return value


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        raise _Broken("a line of a message's head does not end") from error


def _server_error(error: Any) -> DaemonError:
    text = error.get("message") if isinstance(error, dict) else None
    return BadRequest(f"the language server says: {str(text or error).strip()[:_MAX_SHOWN]}")
