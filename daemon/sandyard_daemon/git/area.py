"""`/git`: the routes and the git processes behind them."""

from sandyard_daemon.areas import Context
from sandyard_daemon.git.configuration import ConfigurationRoutes
from sandyard_daemon.git.local import LocalRoutes
from sandyard_daemon.git.process import Git
from sandyard_daemon.git.remote import RemoteRoutes
from sandyard_daemon.http.messages import Handler


class GitArea:
    """Keeps nothing between requests but the processes of those that run."""

    def __init__(self, context: Context) -> None:
        self._git = Git(context.environment, context.children)
        self._environment = context.environment

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        parts = (LocalRoutes, RemoteRoutes, ConfigurationRoutes)
        return {
            name: handler for part in parts for name, handler in part(self._git, self._environment).handlers().items()
        }

    async def close(self) -> None:
        """Kill what runs."""
        self._git.close()
