"""The engine binds by path: what another sandbox puts into the way at the last moment is found out and undone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandyard_api.jobs.wire import Mount
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.docker import DockerOptions, remove_everything
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from sandyard_runner.volumes import Place, Volumes
from tests.docker.conftest import BUSYBOX, execute, need_image, spec

pytestmark = pytest.mark.docker


class Quicker(Volumes):
    """The race that another sandbox may win: right after the look a folder becomes a link."""

    def __init__(self, options: DockerOptions, target: Path) -> None:
        super().__init__(options.volumes_dir)
        self._target = target
        self.is_racing = False

    def places(self, mounts: Sequence[Mount]) -> list[Place]:
        """As ever, and then the link."""
        found = super().places(mounts)
        if self.is_racing:
            folder = Path(found[0].path)
            folder.rename(folder.with_name("moved"))
            folder.symlink_to(self._target)
        return found


async def test_a_link_that_comes_between_our_look_and_the_engines_ends_the_start(
    runtime: DockerRuntime, options: DockerOptions, engine: Any, tmp_path: Path
) -> None:
    need_image(engine, BUSYBOX)
    (tmp_path / "secrets").mkdir()
    racing = runtime._volumes = Quicker(options, tmp_path / "secrets")
    sandbox = spec(mounts=(Mount("/data", volume_id="v", subpath="a/b"),))
    await runtime.create(sandbox)
    racing.is_racing = True
    with pytest.raises(RuntimeFailure, match="was replaced while the sandbox started"):
        await runtime.start(sandbox)
    [present] = await runtime.present()
    assert present.state is PresentState.STOPPED


async def test_down_takes_along_what_root_left(runtime: DockerRuntime, options: DockerOptions, engine: Any) -> None:
    need_image(engine, BUSYBOX)
    sandbox = spec(mounts=(Mount("/data", volume_id="v"),), user="root")
    await runtime.create(sandbox)
    await runtime.start(sandbox)
    code, _ = await execute(runtime, sandbox, "mkdir -p /data/a/b && chown 1234 /data/a && chmod 700 /data/a")
    assert code == 0
    assert "removed the content of volume v" in await remove_everything(options)
    assert list(options.volumes_dir.iterdir()) == []
