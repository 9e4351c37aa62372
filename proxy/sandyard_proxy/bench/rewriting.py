"""Answers that are changed as a whole: only small JSON ones; a bigger or streamed answer passes as it is."""

import json
from datetime import datetime, timedelta
from typing import Any

from sandyard.faults.rules import Rewrite
from sandyard_proxy.asgi import Message, Send
from sandyard_proxy.errors import ControlPlaneAway
from sandyard_proxy.route_table import RouteTable

MAX_BYTES = 4 << 20


class Rewritten:
    """A `send` that holds an answer back until it is whole, and changes it."""

    def __init__(self, send: Send, action: Rewrite, routes: RouteTable) -> None:
        self._send = send
        self._action = action
        self._routes = routes
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
        body = await self._changed(head["status"])
        headers = [(key, value) for key, value in head["headers"] if key != b"content-length"]
        await self._send({**head, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})

    async def _changed(self, status: int) -> bytes:
        if self._action.how == "empty-errors":
            return b"" if status >= 400 else self._body
        try:
            told = json.loads(self._body)
        except ValueError:
            return self._body
        if self._action.how == "creating" and status < 300:
            told["state"] = "creating"
        elif self._action.how == "hide-young" and status < 300 and "items" in told:
            told["items"] = await self._without_young(told["items"])
        return json.dumps(told).encode()

    async def _without_young(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Young by the clock that stamped them, which may be a virtual one."""
        if not items:
            return items
        try:
            now = await self._routes.told_now([str(item["id"]) for item in items])
        except ControlPlaneAway:
            now = self._routes.now()
        latest = now - timedelta(seconds=self._action.seconds)
        return [item for item in items if datetime.fromisoformat(item["createdAt"]) <= latest]


def _is_json(head: Message) -> bool:
    return any(key == b"content-type" and value.startswith(b"application/json") for key, value in head["headers"])
