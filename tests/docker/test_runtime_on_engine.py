"""Edges of the docker runtime that the conformance suite does not know: images, users, limits, adoption, deaths."""

import asyncio
import hashlib
import io
import json
import secrets
import tarfile
from pathlib import Path
from typing import Any

import aiohttp
import docker.errors
import pytest
from docker import APIClient

from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.errors import DaemonUnreachable, NotPresent, RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.docker import DockerOptions, open_docker_runtime, remove_everything
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import BUSYBOX, DEBIAN, execute, need_image, spec, started, within

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def images(engine: Any) -> None:
    need_image(engine, BUSYBOX)


async def test_an_image_that_holds_nothing_but_busybox_works(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    assert await execute(runtime, sandbox, "hostname; echo $0") == (0, f"{sandbox.sandbox_id}\n/bin/sh\n")


async def test_an_image_without_python_works(runtime: DockerRuntime, engine: Any) -> None:
    need_image(engine, DEBIAN)
    sandbox = await started(runtime, image=DEBIAN)
    assert await execute(runtime, sandbox, "command -v python3 || echo none") == (0, "none\n")


async def test_an_empty_image_answers_though_it_has_no_shell(runtime: DockerRuntime, engine: Any) -> None:
    image = loaded(engine, "sandyard-test:empty", engine.version()["Arch"])
    sandbox = await started(runtime, image=image)
    assert [present.state for present in await runtime.present()] == [PresentState.RUNNING]
    await runtime.remove(sandbox.sandbox_id)
    engine.remove_image(image, force=True)


async def test_an_image_of_another_architecture_is_refused_with_its_name(runtime: DockerRuntime, engine: Any) -> None:
    image = loaded(engine, "sandyard-test:foreign", "s390x")
    with pytest.raises(Unsupported, match=r"sandyard-test:foreign is for linux/s390x; this runner takes linux/"):
        await runtime.ensure_image(image, lambda line: None)
    engine.remove_image(image, force=True)


async def test_an_image_that_is_nowhere_is_said_to_be(runtime: DockerRuntime) -> None:
    lines: list[str] = []
    with pytest.raises(RuntimeFailure, match="cannot pull localhost:1/nothing:latest"):
        await runtime.ensure_image("localhost:1/nothing", lines.append)
    assert lines == ["Pulling localhost:1/nothing:latest"]


async def test_the_requests_user_is_the_one_inside(runtime: DockerRuntime, engine: Any) -> None:
    need_image(engine, DEBIAN)
    sandbox = await started(runtime, image=DEBIAN, user="nobody")
    assert (await execute(runtime, sandbox, "id -un"))[1] == "nobody\n"


async def test_a_user_the_image_does_not_have_is_named(runtime: DockerRuntime) -> None:
    sandbox = spec(user="mallory")
    await runtime.create(sandbox)
    with pytest.raises(RuntimeFailure, match="mallory"):
        await runtime.start(sandbox)


async def test_limits_hold_inside(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime, cpu=1, memory_gib=1)
    _, found = await execute(
        runtime,
        sandbox,
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max "
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || "
        "{ cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cut -d' ' -f1 /sys/fs/cgroup/cpu.max; }",
    )
    assert found.split() == [str(1 << 30), "4096", "100000"]


async def test_a_sandbox_too_busy_to_freeze_is_frozen_by_the_third_attempt(
    runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await started(runtime)
    refused = [f"Cannot pause container {sandbox.sandbox_id}: OCI runtime pause failed: unable to freeze: unknown"] * 2
    pause = APIClient.pause

    def sometimes(api: APIClient, name: str) -> None:
        if refused:
            raise docker.errors.APIError("500", explanation=refused.pop())
        pause(api, name)

    monkeypatch.setattr(APIClient, "pause", sometimes)
    await runtime.pause(sandbox.sandbox_id)
    assert [item.state for item in await runtime.present()] == [PresentState.PAUSED]
    await runtime.resume(sandbox.sandbox_id)
    refused += ["the engine is out of order"]
    with pytest.raises(RuntimeFailure, match="out of order"):
        await runtime.pause(sandbox.sandbox_id)


async def test_no_capability_is_added_and_nothing_of_the_engine_is_inside(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    _, found = await execute(runtime, sandbox, "grep CapEff /proc/self/status; ls /var/run/docker.sock 2>&1")
    granted = int(found.split()[1], 16)
    sys_admin, net_admin = 1 << 21, 1 << 12
    assert granted & (sys_admin | net_admin) == 0
    assert "No such file" in found


async def test_files_outlive_a_stop_and_processes_do_not(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    await execute(runtime, sandbox, "echo kept > /tmp/file; sleep 300 >/dev/null 2>&1 &")
    await runtime.stop(sandbox.sandbox_id)
    await runtime.start(sandbox)
    assert await execute(runtime, sandbox, "cat /tmp/file; ps | grep -c [s]leep") == (1, "kept\n0\n")


async def test_starting_what_runs_leaves_its_processes_alone(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    await execute(runtime, sandbox, "sleep 300 >/dev/null 2>&1 &")
    await runtime.start(sandbox)
    assert await execute(runtime, sandbox, "ps | grep -c [s]leep") == (0, "1\n")


async def test_a_link_in_place_of_the_door_is_not_followed_at_the_next_start(
    runtime: DockerRuntime, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    sandbox = await started(runtime)
    await execute(runtime, sandbox, f"cd /run/sandyard && rm -f * && ln -s {victim} secret && ln -s {victim} door.sock")
    await runtime.stop(sandbox.sandbox_id)
    await runtime.start(sandbox)
    assert victim.read_text() == "precious"
    assert (await execute(runtime, sandbox, "true"))[0] == 0


async def test_the_secret_is_gone_before_anything_else_runs(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    _, found = await execute(runtime, sandbox, "ls /run/sandyard; cat /proc/*/cmdline /proc/*/environ | tr '\\0' ' '")
    assert "secret" not in found.split()
    assert sandbox.door_secret not in found


async def test_a_sandbox_killed_from_outside_is_told_with_its_cause(runtime: DockerRuntime, engine: Any) -> None:
    sandbox = await started(runtime)
    async with runtime.events() as events:
        await asyncio.to_thread(engine.kill, f"sandyard-{sandbox.sandbox_id}")
        event = await within(60, anext(events))
    assert (event.sandbox_id, event.gone, event.reason) == (sandbox.sandbox_id, False, "ended by signal 9")
    [present] = await runtime.present()
    assert (present.exit_code, present.reason) == (137, "ended by signal 9")


async def test_a_container_removed_from_outside_is_told_as_gone(runtime: DockerRuntime, engine: Any) -> None:
    sandbox = await started(runtime)
    await runtime.stop(sandbox.sandbox_id)
    await runtime.start(sandbox)
    async with runtime.events() as events:
        await asyncio.to_thread(engine.remove_container, f"sandyard-{sandbox.sandbox_id}", force=True)
        told = [await within(60, anext(events))]
        while not told[-1].gone:
            told.append(await within(60, anext(events)))
    assert {event.sandbox_id for event in told} == {sandbox.sandbox_id}
    with pytest.raises(NotPresent):
        await runtime.start(sandbox)


async def test_what_we_stop_and_remove_ourselves_is_no_news(runtime: DockerRuntime, engine: Any) -> None:
    quiet, loud = await started(runtime), await started(runtime)
    async with runtime.events() as events:
        await runtime.stop(quiet.sandbox_id)
        await runtime.remove(quiet.sandbox_id)
        await asyncio.to_thread(engine.kill, f"sandyard-{loud.sandbox_id}")
        event = await within(60, anext(events))
    assert event.sandbox_id == loud.sandbox_id


async def test_running_out_of_memory_is_named(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime, memory_gib=1)
    # The kernel would choose the hog; so that the sandbox itself ends, its daemon volunteers.
    await execute(
        runtime,
        sandbox,
        "for p in $(grep -l sandyard_daemon /proc/[0-9]*/cmdline); do echo 1000 >${p%cmdline}oom_score_adj; done",
    )
    async with runtime.events() as events:
        with pytest.raises((aiohttp.ClientError, AssertionError)):
            await execute(
                runtime, sandbox, "echo 0 >/proc/$$/oom_score_adj; dd if=/dev/zero of=/dev/null bs=1500M count=1"
            )
        event = await within(60, anext(events))
    assert event.reason == "killed: out of memory"


class BrokenBundle(Bundle, frozen=True):
    """Its daemon says something and ends."""

    def command(self, mount_point: str, *daemon_args: str) -> list[str]:
        return ["/bin/sh", "-c", "echo no luck today; exit 3"]


async def test_a_daemon_that_ends_at_once_says_why(runtime: DockerRuntime) -> None:
    whole = runtime._bundle
    runtime._bundle = BrokenBundle(whole.path, whole.digest, whole.arch, whole.loader)
    sandbox = spec()
    await runtime.create(sandbox)
    with pytest.raises(DaemonUnreachable, match=r"exit code 3\. no luck today"):
        await runtime.start(sandbox)


async def test_another_runtime_of_the_same_installation_adopts(runtime: DockerRuntime, options: DockerOptions) -> None:
    sandbox = await started(runtime)
    async with open_docker_runtime(options) as later:
        assert [present.sandbox_id for present in await later.present()] == [sandbox.sandbox_id]
        assert await execute(later, sandbox, "echo still") == (0, "still\n")
        await later.remove(sandbox.sandbox_id)


async def test_removing_everything_leaves_other_installations_alone(
    runtime: DockerRuntime, options: DockerOptions, tmp_path: Path, bundles: Path, engine: Any
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bundles").symlink_to(bundles)
    name, image = secrets.token_hex(4), f"sandyard/test-neighbour:{secrets.token_hex(4)}"
    other = DockerOptions(name, tmp_path / "other", tmp_path / "other" / "doors")
    kept = await started(runtime)
    async with open_docker_runtime(other) as neighbour:
        gone = await started(neighbour)
        await neighbour.commit(gone.sandbox_id, image)
    removed = await remove_everything(other)
    assert removed == [
        f"removed container {gone.sandbox_id}",
        f"removed network sandyard-{name}",
        f"removed image {image}",
    ]
    assert await remove_everything(other) == []
    assert [present.sandbox_id for present in await runtime.present()] == [kept.sandbox_id]


async def test_creating_and_removing_twice_is_doing_it_once(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    await runtime.create(sandbox)
    await asyncio.gather(runtime.remove(sandbox.sandbox_id), runtime.remove(sandbox.sandbox_id))
    await runtime.remove(sandbox.sandbox_id)
    assert await runtime.present() == []


async def test_an_image_of_a_sandbox_starts_as_its_base_does_and_is_taken_for_no_sandbox(
    runtime: DockerRuntime, options: DockerOptions, engine: Any
) -> None:
    sandbox = await started(runtime)
    await runtime.commit(sandbox.sandbox_id, "sandyard/test-base:kept")
    try:
        kept, base = (engine.inspect_image(name)["Config"] for name in ("sandyard/test-base:kept", BUSYBOX))
        assert [kept[key] or None for key in ("Entrypoint", "Cmd", "WorkingDir", "User")] == [
            base[key] or None for key in ("Entrypoint", "Cmd", "WorkingDir", "User")
        ]
        assert kept["Labels"]["dev.sandyard.installation"] == kept["Labels"]["dev.sandyard.sandbox"] == ""
    finally:
        await runtime.remove_image("sandyard/test-base:kept")


async def test_the_network_goes_when_the_last_sandbox_has_gone(options: DockerOptions, engine: Any) -> None:
    async with open_docker_runtime(options) as opened:
        assert engine.networks(names=[options.network])
        sandbox = await started(opened)
        await opened.remove(sandbox.sandbox_id)
    assert engine.networks(names=[options.network]) == []


def loaded(engine: Any, reference: str, architecture: str) -> str:
    """An image of one empty directory and nothing else. *Source:* Docker image specification v1.2, combined format."""
    layer = packed({"empty/": None})
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    for _ in engine.load_image(packed({"manifest.json": manifest, "config.json": config, "layer.tar": layer})):
        pass
    return reference


def packed(members: dict[str, bytes | None]) -> bytes:
    """A tar file; `None` is a directory."""
    archive_bytes = io.BytesIO()
    with tarfile.open(fileobj=archive_bytes, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.mode, entry.size = 0o755, len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return archive_bytes.getvalue()
