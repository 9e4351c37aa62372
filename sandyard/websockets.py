"""The WebSockets that `sandyard.serving` speaks: uvicorn's. Imported by the first."""

from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from sandyard.scopes import HANG_UP


class WebSocketProtocol(WSProtocol):
    """One WebSocket, which an application can hang up on."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        self.scope[HANG_UP] = self.transport.close  # type: ignore[literal-required]  # our own key in the scope
