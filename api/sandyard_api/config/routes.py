"""Configuration and health: what anybody may ask."""

import asyncio
from typing import Any

from litestar import Router, get
from litestar.di import NamedDependency as Given
from litestar.response import Response
from sqlalchemy.exc import SQLAlchemyError

from sandyard.bus import Bus, BusError
from sandyard_api.access import PUBLIC
from sandyard_api.config.schemas import Config, config
from sandyard_api.database import Database
from sandyard_api.errors import Forbidden
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin

PROBE_SECONDS = 3.0


@get("/config", opt={PUBLIC: True})
async def read_config(options: Given[ControlPlaneOptions], origin: Given[Origin]) -> Config:
    """ConfigController_getConfig"""
    return config(options, origin)


@get("/health", opt={PUBLIC: True})
async def live() -> dict[str, str]:
    """HealthController_live"""
    return {"status": "ok"}


@get("/health/ready", opt={PUBLIC: True})
async def ready(database: Given[Database], bus: Given[Bus], origin: Given[Origin]) -> Response[dict[str, Any]]:
    """HealthController_check"""
    if not origin.is_loopback:
        raise Forbidden("health/ready is for probes on this machine")
    probes = {"database": database.ping, "bus": bus.ping}
    found: dict[str, dict[str, str]] = {}
    for name, probe in probes.items():
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await probe()
            found[name] = {"status": "up"}
        except (SQLAlchemyError, BusError, OSError, TimeoutError) as error:
            found[name] = {"status": "down", "message": type(error).__name__}
    down = {name: state for name, state in found.items() if state["status"] == "down"}
    body = {
        "status": "error" if down else "ok",
        "info": {name: state for name, state in found.items() if name not in down},
        "error": down,
        "details": found,
    }
    return Response(body, status_code=503 if down else 200)


ROUTER = Router(path="/api", route_handlers=[read_config, live, ready])
