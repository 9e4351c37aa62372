"""One suite over every runtime for what lies beside `Runtime`: `CanCommit`, `CanPause`, `CanResize`."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from sandyard_api.jobs.wire import Resources, SandboxSpec
from sandyard_runner.door_http import Door, ask_json
from sandyard_runner.errors import NotPresent, Unsupported
from sandyard_runner.runtime.contract import CanCommit, CanPause, CanResize, PresentState, Runtime
from sandyard_runner.wire import Enforcement
from tests.conformance.test_runtime import a_spec, execute, has_daemon, health, state_of

HOME_FILE = 'echo kept > "$HOME/note"'


@pytest.fixture
async def image(runtime: Runtime) -> AsyncIterator[str]:
    """A name for an image of the test's own."""
    name = f"sandyard/test-{uuid.uuid4().hex}:kept"
    yield name
    if isinstance(runtime, CanCommit):
        for item in await runtime.present():
            await runtime.remove(item.sandbox_id)
        await runtime.remove_image(name)


async def started(runtime: Runtime, **changes: object) -> SandboxSpec:
    spec = msgspec.structs.replace(a_spec(), **changes)
    await runtime.create(spec)
    await runtime.start(spec)
    return spec


async def said(runtime: Runtime, spec: SandboxSpec, command: str) -> str:
    if not has_daemon(runtime):
        return ""
    answer = await execute(runtime, spec, command)
    assert answer["status"] == 200, answer
    return str(json.loads(cast(bytes, answer["body"]))["result"])


async def test_an_image_of_a_sandbox_makes_sandboxes_with_its_files(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    source = await started(runtime)
    await said(runtime, source, HOME_FILE)
    assert not await runtime.has_image(image)
    await runtime.commit(source.sandbox_id, image)
    assert await runtime.has_image(image)
    assert await state_of(runtime, source.sandbox_id) is PresentState.RUNNING
    await said(runtime, source, 'echo changed > "$HOME/note"')
    await runtime.remove(source.sandbox_id)
    await runtime.ensure_image(image, lambda _: None)
    copies = [await started(runtime, image=image) for _ in range(2)]
    for copy in copies:
        if has_daemon(runtime):
            assert await health(runtime, copy) == 200
            assert "kept" in await said(runtime, copy, 'cat "$HOME/note"')


async def test_a_stopped_sandbox_can_be_kept_and_an_image_of_an_image(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    first = await started(runtime)
    await said(runtime, first, HOME_FILE)
    await runtime.stop(first.sandbox_id)
    await runtime.commit(first.sandbox_id, image)
    assert await state_of(runtime, first.sandbox_id) is PresentState.STOPPED
    await runtime.remove(first.sandbox_id)
    second = await started(runtime, image=image)
    await said(runtime, second, 'echo more >> "$HOME/note"')
    await runtime.commit(second.sandbox_id, image)
    await runtime.remove(second.sandbox_id)
    third = await started(runtime, image=image)
    if has_daemon(runtime):
        assert "kept\nmore" in await said(runtime, third, 'cat "$HOME/note"')


async def test_a_sandbox_of_an_image_lives_on_when_the_image_is_removed(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    source = await started(runtime)
    await runtime.commit(source.sandbox_id, image)
    copy = await started(runtime, image=image)
    for _ in range(2):
        await runtime.remove_image(image)
    assert not await runtime.has_image(image)
    await runtime.stop(copy.sandbox_id)
    await runtime.start(copy)
    if has_daemon(runtime):
        assert await health(runtime, copy) == 200


async def test_what_is_not_there_cannot_be_kept_paused_or_resized(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    assert isinstance(runtime, CanPause)
    assert isinstance(runtime, CanResize)
    with pytest.raises(NotPresent):
        await runtime.commit("never-was", image)
    with pytest.raises(NotPresent):
        await runtime.pause("never-was")
    with pytest.raises(NotPresent):
        await runtime.resume("never-was")
    with pytest.raises(NotPresent):
        await runtime.resize("never-was", Resources(1, 1, 3))
    assert not await runtime.has_image(image)


async def test_a_paused_sandbox_stands_still_and_runs_on(runtime: Runtime) -> None:
    assert isinstance(runtime, CanPause)
    spec = await started(runtime)
    if has_daemon(runtime):
        await said(runtime, spec, "sh -c 'sleep 300 & echo $! > /tmp/child' >/dev/null 2>&1")
    for _ in range(2):
        await runtime.pause(spec.sandbox_id)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.PAUSED
    if has_daemon(runtime):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await health(runtime, spec)
    for _ in range(2):
        await runtime.resume(spec.sandbox_id)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING
    if has_daemon(runtime):
        assert await health(runtime, spec) == 200
        assert "alive" in await said(runtime, spec, "kill -0 $(cat /tmp/child) && echo alive")


@pytest.mark.parametrize("how", ["stop", "kill", "remove"])
async def test_a_paused_sandbox_can_be_ended(runtime: Runtime, how: str) -> None:
    assert isinstance(runtime, CanPause)
    spec = await started(runtime)
    await runtime.pause(spec.sandbox_id)
    if how == "remove":
        await runtime.remove(spec.sandbox_id)
        assert await state_of(runtime, spec.sandbox_id) is None
        return
    await runtime.stop(spec.sandbox_id, force=how == "kill", grace_seconds=2.0)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.STOPPED
    with pytest.raises(NotPresent):
        await runtime.resume(spec.sandbox_id)
    await runtime.start(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING


async def test_a_paused_sandbox_can_be_kept_and_stays_paused(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    assert isinstance(runtime, CanPause)
    spec = await started(runtime)
    await runtime.pause(spec.sandbox_id)
    await runtime.commit(spec.sandbox_id, image)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.PAUSED


async def test_other_limits_hold_while_it_runs_or_are_refused_as_the_table_says(runtime: Runtime) -> None:
    assert isinstance(runtime, CanResize)
    spec = await started(runtime)
    row = next((row for row in runtime.capabilities() if row.name == "resize"), None)
    if row is not None and row.enforcement is Enforcement.REFUSED:
        with pytest.raises(Unsupported):
            await runtime.resize(spec.sandbox_id, Resources(1, 2, 3))
        return
    for _ in range(2):
        await runtime.resize(spec.sandbox_id, Resources(2, 2, 3))
    if has_daemon(runtime):
        assert (await metrics(runtime, spec))["memTotal"] == 2 << 30
    await runtime.stop(spec.sandbox_id)
    await runtime.resize(spec.sandbox_id, Resources(1, 1, 3))
    await runtime.start(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING


async def test_a_sandbox_is_measured_against_limits_that_are_enforced(runtime: Runtime) -> None:
    spec = await started(runtime, cpu=1, memory_gib=1)
    enforced = {row.name for row in runtime.capabilities() if row.enforcement is Enforcement.ENFORCED}
    if not has_daemon(runtime) or not {"cpu", "memory"} <= enforced:
        return
    seen = await metrics(runtime, spec)
    assert (seen["memTotal"], seen["cpuCount"]) == (1 << 30, 1)
    await said(runtime, spec, "head -c 40000000 /dev/zero > /dev/shm/some; (while :; do :; done) & sleep 1")
    busy = await metrics(runtime, spec)
    assert busy["memUsed"] - seen["memUsed"] > 35_000_000
    assert busy["memUsed"] < 300_000_000, "the machine uses more"
    assert busy["cpuUsedPct"] > 1, "a shell without end has its share of any machine"


async def metrics(runtime: Runtime, spec: SandboxSpec) -> dict[str, Any]:
    """What a sandbox tells of its use."""
    status, answer = await ask_json(Door(runtime.door(spec.sandbox_id), spec.door_secret), "/system/metrics")
    assert status == 200, answer
    return dict(answer)


async def test_a_commit_that_is_cancelled_leaves_no_image(runtime: Runtime, image: str) -> None:
    assert isinstance(runtime, CanCommit)
    spec = await started(runtime)
    keeping = asyncio.create_task(runtime.commit(spec.sandbox_id, image))
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert keeping.cancelled() != await runtime.has_image(image)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING
    if has_daemon(runtime):
        assert await health(runtime, spec) == 200
