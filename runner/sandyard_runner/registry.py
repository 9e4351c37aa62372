"""What the runner knows of the sandboxes it runs: their doors' secrets. The one place where ids become paths."""

from sandyard_runner.door_http import Door
from sandyard_runner.runtime.contract import Runtime


class Registry:
    """Doors of running sandboxes. An id that was never registered has no door, whatever it looks like."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._secrets: dict[str, str] = {}

    def add(self, sandbox_id: str, secret: str) -> None:
        """The sandbox runs, and its door asks for `secret`."""
        self._secrets[sandbox_id] = secret

    def discard(self, sandbox_id: str) -> None:
        """The sandbox does not run any more."""
        self._secrets.pop(sandbox_id, None)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the sandboxes that run."""
        return tuple(self._secrets)

    def find_door(self, sandbox_id: str) -> Door | None:
        """The door of a running sandbox."""
        secret = self._secrets.get(sandbox_id)
        return None if secret is None else Door(self._runtime.door(sandbox_id), secret)
