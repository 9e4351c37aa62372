"""Disk use of containers is watched and told, on a real engine."""

from typing import Any

import pytest

from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import BUSYBOX, execute, need_image, started, within

pytestmark = pytest.mark.docker


@pytest.mark.timeout(600)
async def test_a_container_over_its_limit_is_told_once_and_goes_on(runtime: DockerRuntime, engine: Any) -> None:
    need_image(engine, BUSYBOX)
    sandbox = await started(runtime, disk_gib=1)
    async with runtime.events() as events:
        await runtime.disk.look()
        fill = "head -c 1200000000 /dev/zero >/big; echo $?"
        assert await execute(runtime, sandbox, fill, timeout_seconds=240) == (0, "0\n")
        for _ in range(2):
            await runtime.disk.look()
        event = await within(60, anext(events))
        assert (event.sandbox_id, event.is_note) == (sandbox.sandbox_id, True)
        assert event.reason == "uses 1.1 GiB of disk, more than its 1 GiB; nothing was stopped"
        assert await execute(runtime, sandbox, "rm /big; echo on") == (0, "on\n")
        await runtime.disk.look()
        await runtime.stop(sandbox.sandbox_id)
        await runtime.remove(sandbox.sandbox_id)
        await runtime.disk.look()  # one that is gone is forgotten
