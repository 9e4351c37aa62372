"""A request that can be sent once more: its messages kept while they are few and small."""

from sandyard_proxy.asgi import Message, Receive

MAX_KEPT_BYTES = (1 << 16) + 64
"""Of bodies, and one for each message."""


class Replay:
    """A `receive` that can begin again, as long as what was read so far is not longer than `MAX_KEPT_BYTES`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._kept_bytes = 0
        self._again: list[Message] = []

    async def __call__(self) -> Message:
        if self._again:
            return self._again.pop(0)
        message = await self._receive()
        if self._kept_bytes <= MAX_KEPT_BYTES:
            self._kept.append(message)
            self._kept_bytes += _size(message)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept.clear()
        return message

    def rewind(self) -> bool:
        """Begin again with the first message; `False` when it is not kept any more."""
        self._again = list(self._kept)
        return self._kept_bytes <= MAX_KEPT_BYTES


def _size(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"") + 1
