"""Short-lived containers in which we do what only the engine's machine can do; sandboxes never see them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, DockerOptions

SECONDS = 30
SAID_LINES = 3


async def run_helper(
    engine: Engine,
    options: DockerOptions,
    image: str,
    command: Sequence[str],
    *,
    doing: str,
    host: Mapping[str, Any],
) -> None:
    """Run `command` as root in `image` to its end, under the `HostConfig` given, and remove the container.

    Raises `Missing` when the engine does not have the image, `RuntimeFailure` when the command fails.
    """
    body = {
        "Image": image,
        "User": "0",
        "Entrypoint": list(command),
        "Cmd": [],
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {LABEL_INSTALLATION: options.installation},
        "HostConfig": dict(host),
    }

    def run(api: Api) -> None:
        made = api.create_container_from_config(body)["Id"]
        try:
            api.start(made)
            code = api.wait(made, timeout=SECONDS)["StatusCode"]
            if code:
                said = api.logs(made, tail=SAID_LINES).decode(errors="replace").strip()
                raise RuntimeFailure(f"cannot {doing}: {said or f'the helper ended with {code}'}")
        finally:
            api.remove_container(made, v=True, force=True)

    await engine.call(doing, run)
