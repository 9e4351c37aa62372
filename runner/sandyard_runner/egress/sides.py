"""One HTTP/2 connection of the proxy, to a sandbox or to a host: what it takes, and what comes on it."""

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived
from h2.settings import SettingCodes, Settings

from sandyard_runner.egress.exchange import HEAD_SECONDS, IDLE_SECONDS
from sandyard_runner.egress.frames import FrameReader, GoAway, go_away
from sandyard_runner.egress.requests import Refused
from sandyard_runner.egress.upstreams import READ_BYTES, Stream

STREAM_WINDOW, CONNECTION_WINDOW = 1 << 20, 4 << 20
FIRST_WINDOW = (1 << 16) - 1
"""Of a connection. *Source:* RFC 9113 6.9.2."""
MAX_HEADER_BYTES = 1 << 16


class Side:
    """One of the two connections."""

    def __init__(self, stream: Stream, *, is_client: bool) -> None:
        self.reader, self.writer = stream
        self.frames = FrameReader(is_client=is_client)
        self.connection = H2Connection(H2Configuration(client_side=not is_client, header_encoding=None))
        self.wake = asyncio.Event()

    def begin(self, max_streams: int) -> None:
        """Say what we take."""
        connection = self.connection
        values = {
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        }
        if connection.config.client_side:
            values[SettingCodes.ENABLE_PUSH] = 0
        connection.local_settings = Settings(client=connection.config.client_side, initial_values=values)
        connection.initiate_connection()
        connection.increment_flow_control_window(CONNECTION_WINDOW - FIRST_WINDOW)
        self.flush()

    def flush(self) -> None:
        """Hand what is to be sent to the transport."""
        if data := self.connection.data_to_send():
            self.writer.write(data)

    async def events(self, data: bytes = b"") -> "list[Event | GoAway] | None":
        """What came next; `None` at the end. Raises `OSError`, `ProtocolError`, `BadFrame`."""
        if not data:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await self.reader.read(READ_BYTES)
        if not data:
            return None
        found: list[Event | GoAway] = []
        for frame in self.frames.feed(data):
            found += [frame] if isinstance(frame, GoAway) else self.connection.receive_data(frame)
        return found


def answer(connection: H2Connection, number: int, refused: Refused) -> None:
    """Tell on a stream why not; what else comes on it is not wanted."""
    text = f"{refused}\n".encode()
    headers = [(":status", str(refused.status)), ("content-type", "text/plain"), ("content-length", str(len(text)))]
    connection.send_headers(number, headers)
    connection.send_data(number, text, end_stream=True)


async def refuse(downstream: Stream, refused: Refused, first: bytes = b"") -> None:
    """Answer the first request of a sandbox with the reason, and end."""
    side = Side(downstream, is_client=True)
    side.begin(1)
    async with asyncio.timeout(HEAD_SECONDS):
        while (found := await side.events(first)) is not None:
            first = b""
            asked = [each.stream_id or 0 for each in found if isinstance(each, RequestReceived)]
            for number in asked:
                answer(side.connection, number, refused)
            side.flush()
            if asked:
                side.writer.write(go_away(asked[-1], ErrorCodes.NO_ERROR))
                await side.writer.drain()
                return
