"""`/system/metrics` and `/port`: what the sandbox uses, and where its programs listen."""

import asyncio
import time

from sandyard_daemon.areas import Context
from sandyard_daemon.errors import BadRequest, timestamp
from sandyard_daemon.http.messages import Handler, Request, Response, json_response
from sandyard_daemon.system.listening import listening_ports
from sandyard_daemon.system.metrics import Meter, whole_processors

FIRST_PORT, LAST_PORT = 3000, 9999
"""What `in-use` answers about. *Source:* the toolbox description."""


class SystemArea:
    """Facts read when they are asked for; nothing runs in between."""

    def __init__(self, context: Context) -> None:
        self._meter = Meter()

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {"GetSystemMetrics": self.metrics, "GetPorts": self.ports, "IsPortInUse": self.in_use}

    async def close(self) -> None:
        """Nothing is kept running."""

    async def metrics(self, request: Request) -> Response:
        """Sizes in bytes; processor use in percent of the limit."""
        seen, now = await self._meter.look(), time.time()
        body = {
            "cpuCount": whole_processors(seen.cpu_limit),
            "cpuUsedPct": seen.cpu_used_percent,
            "memTotal": seen.memory_total,
            "memUsed": seen.memory_used,
            "memCache": seen.memory_cache,
            "diskTotal": seen.disk_total,
            "diskUsed": seen.disk_used,
            "diskFree": seen.disk_free,
            "timestamp": timestamp(now),
            "timestampUnix": int(now),
        }
        return json_response(200, body)

    async def ports(self, request: Request) -> Response:
        """Every listening TCP port."""
        return json_response(200, {"ports": await asyncio.to_thread(listening_ports)})

    async def in_use(self, request: Request) -> Response:
        """Whether a program listens on this port, on whichever address."""
        text = request.parameters[0]
        if not (text.isascii() and text.isdigit() and len(text) <= 5 and FIRST_PORT <= int(text) <= LAST_PORT):
            raise BadRequest(f"port must be a number between {FIRST_PORT} and {LAST_PORT}")
        return json_response(200, {"isInUse": int(text) in await asyncio.to_thread(listening_ports)})
