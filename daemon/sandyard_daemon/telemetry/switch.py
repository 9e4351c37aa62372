"""Whether there is telemetry at all: everything else of this folder is loaded only then."""

from typing import TYPE_CHECKING

from sandyard_daemon.environment import Environment
from sandyard_daemon.sessions.registry import ENTRYPOINT, ENTRYPOINT_COMMAND, Sessions

if TYPE_CHECKING:
    from sandyard_daemon.telemetry.exporter import Exporter
    from sandyard_daemon.telemetry.spans import Tracer

ENDPOINT = "DAYTONA_OTEL_ENDPOINT"


class TelemetrySwitch:
    """Off until `/init` came in a sandbox whose environment names a collector."""

    def __init__(self, environment: Environment, sessions: Sessions) -> None:
        self._environment = environment
        self._sessions = sessions
        self._exporter: Exporter | None = None
        self._token: str | None = None
        """`None` until `/init`."""
        self._is_decided = False
        self.tracer: Tracer | None = None
        """What makes spans of requests, once there is telemetry."""

    def turn_on(self, token: str | None) -> None:
        """Begin to export; again, go on with the new token. Never fails: a collector is not worth a sandbox."""
        self._token = token or ""
        if self._exporter is not None:
            self._exporter.token = self._token
        self.look()

    def look(self) -> None:
        """Begin if there is an endpoint by now: `/env` brings it to a sandbox that waited in a warm pool."""
        endpoint = self._environment.variables.get(ENDPOINT)
        if not endpoint or self._token is None or self._is_decided:
            return
        self._is_decided = True
        from sandyard_daemon.telemetry.exporter import open_exporter

        log = self._sessions.get(ENTRYPOINT).command(ENTRYPOINT_COMMAND).log
        self._exporter = open_exporter(endpoint, self._token, self._environment.variables, log)
        self.tracer = None if self._exporter is None else self._exporter.tracer

    async def close(self) -> None:
        """Send what is waiting, in at the most a second, and stop."""
        if self._exporter is not None:
            await self._exporter.close()
