"""Answers that are changed as a whole: only small JSON ones; a bigger or streamed answer passes as it is."""

import json
from datetime import datetime, timedelta
from typing import Any

from sandyard.clock import Clock
from sandyard.faults.rules import Rewrite
from sandyard_proxy.asgi import Message, Send

MAX_BYTES = 4 << 20


class Rewritten:
    """A `send` that holds an answer back until it is whole, and changes it."""

    def __init__(self, send: Send, action: Rewrite, clock: Clock) -> None:
        self._send = send
        self._action = action
        self._clock = clock
        self._head: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Take one message; everything goes out with the last."""
        if message["type"] == "http.response.start" and _is_json(message):
            self._head = message
            return
        if self._head is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if len(self._body) > MAX_BYTES:
            head, self._head = self._head, None
            await self._send(head)
            await self._send({**message, "body": self._body})
        elif not message.get("more_body"):
            await self._finish(self._head)

    async def _finish(self, head: Message) -> None:
        body = self._changed(head["status"])
        headers = [(key, value) for key, value in head["headers"] if key != b"content-length"]
        await self._send({**head, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})

    def _changed(self, status: int) -> bytes:
        if self._action.how == "empty-errors":
            return b"" if status >= 400 else self._body
        try:
            told = json.loads(self._body)
        except ValueError:
            return self._body
        if self._action.how == "creating" and status < 300:
            told["state"] = "creating"
        elif self._action.how == "hide-young" and status < 300 and "items" in told:
            told["items"] = [item for item in told["items"] if not self._is_young(item)]
        return json.dumps(told).encode()

    def _is_young(self, item: dict[str, Any]) -> bool:
        made = datetime.fromisoformat(item["createdAt"])
        return self._clock.now() - made < timedelta(seconds=self._action.seconds)


def _is_json(head: Message) -> bool:
    return any(key == b"content-type" and value.startswith(b"application/json") for key, value in head["headers"])
