"""One suite over every runtime: what `sandyard_runner.runtime.contract.Runtime` promises."""

import asyncio
import contextlib
import uuid

import msgspec
import pytest

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.door_http import Door, ask, ask_json
from sandyard_runner.errors import DaemonUnreachable, NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import PresentState, Runtime
from sandyard_runner.runtime.memory import MemoryRuntime
from sandyard_runner.wire import Enforcement

SECRET = "s" * 32
EVENT_SECONDS = 60.0


def a_spec(*, secret: str = SECRET, image: str | None = None) -> SandboxSpec:
    return SandboxSpec(str(uuid.uuid4()), "org", "a sandbox", secret, image=image)


async def state_of(runtime: Runtime, sandbox_id: str) -> PresentState | None:
    return next((item.state for item in await runtime.present() if item.sandbox_id == sandbox_id), None)


async def health(runtime: Runtime, spec: SandboxSpec) -> int:
    """The status of the daemon's health check; 0 when it cannot be reached."""
    try:
        status, _ = await ask_json(Door(runtime.door(spec.sandbox_id), spec.door_secret), "/_daemon/health")
    except DaemonUnreachable:
        return 0
    return status


def has_daemon(runtime: Runtime) -> bool:
    return runtime.name != "memory"


async def test_a_created_sandbox_is_present_and_stopped(runtime: Runtime) -> None:
    spec = a_spec()
    await runtime.create(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.STOPPED


async def test_a_started_sandbox_runs_and_its_daemon_answers_on_its_door(runtime: Runtime) -> None:
    spec = a_spec()
    await runtime.create(spec)
    await runtime.start(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING
    if has_daemon(runtime):
        assert await health(runtime, spec) == 200
        wrong = msgspec.structs.replace(spec, door_secret="x" * 32)
        assert await health(runtime, wrong) == 401


async def test_the_secret_does_not_stay_in_the_door_directory(runtime: Runtime) -> None:
    spec = a_spec()
    await runtime.create(spec)
    await runtime.start(spec)
    if has_daemon(runtime):
        assert [path.name for path in runtime.door(spec.sandbox_id).parent.iterdir()] == ["door.sock"]


async def test_every_call_may_be_repeated(runtime: Runtime) -> None:
    spec = a_spec()
    for _ in range(2):
        await runtime.create(spec)
    for _ in range(2):
        await runtime.start(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING
    for _ in range(2):
        await runtime.stop(spec.sandbox_id)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.STOPPED
    for _ in range(2):
        await runtime.remove(spec.sandbox_id)
    assert await state_of(runtime, spec.sandbox_id) is None


async def test_stopping_or_removing_what_never_was_is_success(runtime: Runtime) -> None:
    await runtime.stop("never-was")
    await runtime.remove("never-was")


async def test_starting_what_was_never_created_is_refused(runtime: Runtime) -> None:
    with pytest.raises(NotPresent):
        await runtime.start(a_spec())


async def test_a_stopped_sandbox_starts_again_with_another_secret(runtime: Runtime) -> None:
    spec = a_spec()
    await runtime.create(spec)
    await runtime.start(spec)
    await runtime.stop(spec.sandbox_id, force=True)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.STOPPED
    renewed = msgspec.structs.replace(spec, door_secret="t" * 32)
    await runtime.start(renewed)
    if has_daemon(runtime):
        assert (await health(runtime, renewed), await health(runtime, spec)) == (200, 401)


async def test_two_sandboxes_do_not_touch_each_other(runtime: Runtime) -> None:
    one, two = a_spec(), a_spec(secret="u" * 32)
    for spec in (one, two):
        await runtime.create(spec)
        await runtime.start(spec)
    await runtime.remove(one.sandbox_id)
    assert await state_of(runtime, two.sandbox_id) is PresentState.RUNNING
    if has_daemon(runtime):
        assert await health(runtime, two) == 200


async def test_a_death_is_told_at_once_with_its_reason_and_a_stop_is_not_told(runtime: Runtime) -> None:
    stopped, killed = a_spec(), a_spec()
    for spec in (stopped, killed):
        await runtime.create(spec)
        await runtime.start(spec)
    async with runtime.events() as events:
        await runtime.stop(stopped.sandbox_id)
        await end_from_inside(runtime, killed)
        async with asyncio.timeout(EVENT_SECONDS):
            event = await anext(events)
    assert (event.sandbox_id, event.gone) == (killed.sandbox_id, False)
    assert event.reason
    assert await state_of(runtime, killed.sandbox_id) is PresentState.STOPPED


async def test_a_sandbox_that_died_starts_again(runtime: Runtime) -> None:
    spec = a_spec()
    await runtime.create(spec)
    await runtime.start(spec)
    async with runtime.events() as events:
        await end_from_inside(runtime, spec)
        async with asyncio.timeout(EVENT_SECONDS):
            await anext(events)
    await runtime.start(spec)
    assert await state_of(runtime, spec.sandbox_id) is PresentState.RUNNING
    if has_daemon(runtime):
        assert await health(runtime, spec) == 200


async def test_the_capability_table_names_each_promise_once(runtime: Runtime) -> None:
    rows = runtime.capabilities()
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert {"cpu", "memory", "processes", "disk", "network_isolation", "filesystem_isolation"} <= set(names)
    assert all(row.detail for row in rows)


async def test_an_image_that_cannot_be_had_is_refused_with_a_reason(runtime: Runtime) -> None:
    if isinstance(runtime, MemoryRuntime):
        runtime.fail_next("ensure_image", Unsupported("no images in memory"))
    with pytest.raises(RuntimeFailure, match=r"\w+ \w+"):
        await runtime.ensure_image("localhost:1/no/such:image", lambda _: None)
    images = [row for row in runtime.capabilities() if row.name == "images"]
    if images and images[0].enforcement is Enforcement.REFUSED:
        with pytest.raises(Unsupported):
            await runtime.create(a_spec(image="debian:bookworm"))


async def end_from_inside(runtime: Runtime, spec: SandboxSpec) -> None:
    """End the sandbox's first process without asking the runtime."""
    if isinstance(runtime, MemoryRuntime):
        runtime.kill(spec.sandbox_id)
        return
    # The daemon tells its own number; inside its namespaces only a process of the sandbox can name it.
    _, told = await ask_json(Door(runtime.door(spec.sandbox_id), spec.door_secret), "/_daemon/health")
    with contextlib.suppress(DaemonUnreachable):
        await execute(runtime, spec, f"kill -TERM {told['pid']}")


async def execute(runtime: Runtime, spec: SandboxSpec, command: str) -> dict[str, object]:
    door = Door(runtime.door(spec.sandbox_id), spec.door_secret)
    async with ask(door, "/process/execute", json_body={"command": command, "timeout": 60}) as answer:
        body = b"".join([chunk async for chunk in answer.chunks])
    return {"status": answer.status, "body": body}
