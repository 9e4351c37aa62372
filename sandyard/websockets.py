"""The WebSockets that `sandyard.serving` speaks: uvicorn's. Imported by the first."""

from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from sandyard.protocols import close_gently
from sandyard.scopes import HANG_UP


class WebSocketProtocol(WSProtocol):
    """One WebSocket, which an application can hang up on."""

    _is_over = False

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        self.scope[HANG_UP] = self._hang_up  # type: ignore[literal-required]  # our own key in the scope

    def data_received(self, data: bytes) -> None:
        if not self._is_over:
            super().data_received(data)

    def shutdown(self) -> None:
        if self._is_over:
            self.transport.close()
        else:
            super().shutdown()

    def _hang_up(self) -> None:
        if self._is_over or self.transport.is_closing():
            return
        self._is_over = True
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        close_gently(self.transport, self.loop)
