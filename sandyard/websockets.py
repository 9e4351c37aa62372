"""The WebSockets that `sandyard.serving` speaks: uvicorn's. Imported by the first."""

from typing import Any

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from sandyard.protocols import Lingering
from sandyard.scopes import HANG_UP


class WebSocketProtocol(WSProtocol):
    """One WebSocket, which an application can hang up on."""

    _lingering: Lingering | None = None

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        self.scope[HANG_UP] = self._hang_up  # type: ignore[literal-required]  # our own key in the scope

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering.heard()
        else:
            super().data_received(data)

    def shutdown(self) -> None:
        if self._lingering is not None:
            self.transport.close()
        else:
            super().shutdown()

    def _hang_up(self) -> None:
        if self._lingering is not None or self.transport.is_closing():
            return
        self.stop_keepalive()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._lingering = Lingering(self.transport, self.loop)
