"""Configuration and health: what anybody may ask."""

from litestar import get
from litestar.di import NamedDependency as Given
from litestar.response import Response

from sandyard_api.access import PUBLIC
from sandyard_api.config.schemas import Config, Readiness, config
from sandyard_api.config.service import Health
from sandyard_api.errors import Forbidden
from sandyard_api.options import ControlPlaneOptions
from sandyard_api.origins import Origin
from sandyard_api.routing import Slice


@get("/config", opt={PUBLIC: True})
async def read_config(options: Given[ControlPlaneOptions], origin: Given[Origin]) -> Config:
    """ConfigController_getConfig"""
    return config(options, origin)


@get("/health", opt={PUBLIC: True})
async def live() -> dict[str, str]:
    """HealthController_live"""
    return {"status": "ok"}


@get("/health/ready", opt={PUBLIC: True})
async def ready(health: Given[Health], origin: Given[Origin]) -> Response[Readiness]:
    """HealthController_check"""
    if not origin.is_loopback:
        raise Forbidden("health/ready is for probes on this machine")
    found = await health.probe()
    return Response(found, status_code=200 if found.is_ready else 503)


SLICE = Slice("/api", [read_config, live, ready])
