"""Where the daemon is and what processes will see: version, directories, `/init`, `/env`."""

from collections.abc import Callable

from sandyard_daemon import VERSION
from sandyard_daemon.environment import Environment
from sandyard_daemon.http.messages import Handler, Request, Response, json_response
from sandyard_daemon.routes.fields import optional_text, texts, variables


class InfoRoutes:
    """Small facts, and the two calls that change what user processes see."""

    def __init__(
        self, environment: Environment, on_init: Callable[[str | None], None], on_change: Callable[[], None]
    ) -> None:
        """`on_init` gets the token of `/init`; `on_change` is called behind each change of the environment."""
        self._environment = environment
        self._on_init = on_init
        self._on_change = on_change

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "GetVersion": self.version,
            "GetUserHomeDir": self.home,
            "GetProjectDir": self.home,
            "GetWorkDir": self.work_dir,
            "Initialize": self.init,
            "UpdateEnv": self.env,
        }

    async def version(self, request: Request) -> Response:
        """The daemon's version."""
        return json_response(200, {"version": f"v{VERSION}"})

    async def home(self, request: Request) -> Response:
        """The user's home; `/project-dir` is its name of old."""
        return json_response(200, {"dir": self._environment.home})

    async def work_dir(self, request: Request) -> Response:
        """What relative paths start from."""
        return json_response(200, {"dir": self._environment.work_dir})

    async def init(self, request: Request) -> Response:
        """The sandbox's network rules stand: from now on user code may run. Repeating it changes only
        the token that telemetry is sent with."""
        self._on_init(optional_text(await request.json_object(optional=True), "token"))
        return json_response(200, {"message": "Sandbox initialized"})

    async def env(self, request: Request) -> Response:
        """Change the environment of processes to come."""
        body = await request.json_object(optional=True)
        prefix = optional_text(body, "unsetValuePrefix") or ""
        self._environment.change(variables(body, "set"), texts(body, "unset"), prefix)
        self._on_change()
        return json_response(200, {"message": "Environment updated"})
