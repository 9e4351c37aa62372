"""What every runtime that mounts promises of volumes and of the host's folders (`runtime.contract.CanMount`)."""

import json
import uuid
from pathlib import Path

import msgspec
import pytest

from sandyard_api.jobs.wire import Mount, SandboxSpec
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import CanCommit, CanMount, PresentState, Runtime
from tests.conformance.test_runtime import a_spec, execute, state_of


@pytest.fixture
def mounting(runtime: Runtime) -> Runtime:
    """A runtime that mounts."""
    if runtime.name == "memory" or not mounts(runtime):
        pytest.skip("this runtime says that it does not mount")
    return runtime


def mounts(runtime: Runtime) -> bool:
    return any(row.name == "volumes" and row.enforcement != "refused" for row in runtime.capabilities())


def with_mounts(*wanted: Mount) -> SandboxSpec:
    return msgspec.structs.replace(a_spec(), mounts=wanted)


def a_volume() -> str:
    return str(uuid.uuid4())


async def started(runtime: Runtime, *wanted: Mount) -> SandboxSpec:
    spec = with_mounts(*wanted)
    await runtime.create(spec)
    await runtime.start(spec)
    return spec


async def said(runtime: Runtime, spec: SandboxSpec, command: str) -> str:
    told = await execute(runtime, spec, command)
    answer = json.loads(str(told["body"], "utf-8"))  # type: ignore[call-overload]
    assert answer["exitCode"] == 0, answer
    return str(answer["result"]).strip()


def folder_of(directory: Path, volume: str) -> Path:
    return directory / "data" / "volumes" / volume


async def test_two_sandboxes_see_the_same_files_in_a_volume(mounting: Runtime) -> None:
    volume = a_volume()
    one, two = [await started(mounting, Mount("/data/deep", volume_id=volume)) for _ in range(2)]
    await said(mounting, one, "echo hello > /data/deep/file && mkdir /data/deep/folder")
    assert await said(mounting, two, "cat /data/deep/file && echo more >> /data/deep/file") == "hello"
    assert await said(mounting, one, "cat /data/deep/file; ls /data/deep") == "hello\nmore\nfile\nfolder"
    assert isinstance(mounting, CanMount)
    assert await mounting.volumes() == [volume]


async def test_a_subpath_shows_that_folder_alone_and_is_made_on_demand(mounting: Runtime) -> None:
    volume = a_volume()
    alice = await started(mounting, Mount("/data", volume_id=volume, subpath="users/alice/"))
    bob = await started(mounting, Mount("/data", volume_id=volume, subpath="users/./bob"))
    whole = await started(mounting, Mount("/all", volume_id=volume))
    await said(mounting, alice, "echo secret > /data/file")
    assert await said(mounting, bob, "ls -A /data; ls -A /data/..  | grep -c alice || true") == "0"
    assert await said(mounting, whole, "cat /all/users/alice/file; ls /all/users") == "secret\nalice\nbob"


async def test_files_outlive_a_stop_and_the_sandbox_and_end_with_the_volume(mounting: Runtime, tmp_path: Path) -> None:
    mount = Mount("/data", volume_id=a_volume(), subpath="kept")
    spec = await started(mounting, mount)
    await said(mounting, spec, "echo kept > /data/file; mkdir -p /data/closed/inner; chmod 000 /data/closed")
    await mounting.stop(spec.sandbox_id)
    await mounting.start(spec)
    assert await said(mounting, spec, "cat /data/file") == "kept"
    await mounting.remove(spec.sandbox_id)
    again = await started(mounting, mount)
    assert await said(mounting, again, "cat /data/file") == "kept"
    await mounting.remove(again.sandbox_id)
    assert isinstance(mounting, CanMount)
    for _ in range(2):
        await mounting.remove_volume(mount.volume_id or "")
    assert await mounting.volumes() == []
    assert list((tmp_path / "data" / "volumes").iterdir()) == []


async def test_what_is_in_a_volume_is_in_no_image_of_the_sandbox(mounting: Runtime) -> None:
    assert isinstance(mounting, CanCommit)
    mount, image = Mount("/data", volume_id=a_volume()), f"sandyard/fork:{uuid.uuid4()}"
    parent = await started(mounting, mount)
    await said(mounting, parent, "echo shared > /data/file; echo own > /tmp/own")
    await mounting.commit(parent.sandbox_id, image)
    bare = msgspec.structs.replace(a_spec(), image=image)
    child = msgspec.structs.replace(a_spec(), image=image, mounts=(mount,))
    try:
        for spec in (bare, child):
            await mounting.create(spec)
            await mounting.start(spec)
        assert await said(mounting, bare, "cat /tmp/own; ls -A /data") == "own"
        assert await said(mounting, child, "cat /tmp/own /data/file; echo child > /data/other") == "own\nshared"
        assert await said(mounting, parent, "cat /data/other") == "child"
        for spec in (bare, child):
            await mounting.remove(spec.sandbox_id)
    finally:
        await mounting.remove_image(image)


@pytest.mark.parametrize("target", ["/", "/etc", "..", "other"])
async def test_a_subpath_that_a_sandbox_made_a_link_of_is_never_followed(
    mounting: Runtime, tmp_path: Path, target: str
) -> None:
    volume = a_volume()
    whole = await started(mounting, Mount("/all", volume_id=volume))
    await said(mounting, whole, f"mkdir /all/other && ln -s {target} /all/link && echo x > /all/file")
    outside = {path.name for path in (tmp_path / "data" / "volumes").iterdir()}
    for subpath in ("link", "link/new", "file", "file/new"):
        with pytest.raises(RuntimeFailure, match="neither is followed"):
            await mounting.create(with_mounts(Mount("/data", volume_id=volume, subpath=subpath)))
    assert {path.name for path in (tmp_path / "data" / "volumes").iterdir()} == outside
    assert await said(mounting, whole, "ls -A /all /all/other") == "/all:\nfile\nlink\nother\n\n/all/other:"


async def test_one_that_becomes_a_link_while_the_sandbox_is_stopped_keeps_it_from_starting(mounting: Runtime) -> None:
    volume = a_volume()
    whole = await started(mounting, Mount("/all", volume_id=volume))
    victim = await started(mounting, Mount("/data", volume_id=volume, subpath="a/b"))
    await mounting.stop(victim.sandbox_id)
    await said(mounting, whole, "mv /all/a /all/old && ln -s / /all/a")
    with pytest.raises(RuntimeFailure, match="neither is followed"):
        await mounting.start(victim)
    assert await state_of(mounting, victim.sandbox_id) is PresentState.STOPPED
    await said(mounting, whole, "rm /all/a")
    await mounting.start(victim)
    assert await said(mounting, victim, "ls -A /data") == ""


async def test_the_hosts_folders_are_mounted_where_they_are_allowed(mounting: Runtime, tmp_path: Path) -> None:
    for name in ("writable/inner", "readable", "private"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name).chmod(0o777)
    (tmp_path / "readable" / "file").write_text("from the host\n")
    (tmp_path / "writable" / "link").symlink_to(tmp_path / "private")
    spec = await started(
        mounting,
        Mount("/inner", host_folder=f"{tmp_path}/writable/inner"),
        Mount("/readable", host_folder=f"{tmp_path}/readable"),
    )
    assert await said(mounting, spec, "cat /readable/file; touch /readable/new 2>/dev/null || echo no") == (
        "from the host\nno"
    )
    await said(mounting, spec, "echo from inside > /inner/file")
    assert (tmp_path / "writable" / "inner" / "file").read_text() == "from inside\n"
    for path in ("private", "writable/link", "writable/../private"):
        with pytest.raises(RuntimeFailure, match="SANDYARD_HOST_FOLDERS"):
            await mounting.create(with_mounts(Mount("/x", host_folder=f"{tmp_path}/{path}")))
    with pytest.raises(RuntimeFailure, match="No such file"):
        await mounting.create(with_mounts(Mount("/x", host_folder=f"{tmp_path}/writable/not-there")))


async def test_a_runtime_that_cannot_mount_refuses(runtime: Runtime) -> None:
    if runtime.name == "memory" or mounts(runtime):
        pytest.skip("this runtime mounts")
    spec = with_mounts(Mount("/data", volume_id=a_volume()))
    with pytest.raises(Unsupported, match="without isolation"):
        await runtime.create(spec)
    assert await state_of(runtime, spec.sandbox_id) is None


async def test_links_of_the_sandboxs_own_on_the_way_to_a_mount_lead_nowhere_else(
    mounting: Runtime, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    spec = await started(mounting, Mount("/data/inner", volume_id=a_volume()))
    await mounting.stop(spec.sandbox_id)
    bare = msgspec.structs.replace(spec, mounts=())
    if mounting.name == "docker":
        pytest.skip("the engine resolves them inside the container's root")
    await mounting.start(bare)
    await said(mounting, bare, f"cd /tmp && ln -s {outside} astray && ln -s /srv way && touch file")
    await mounting.stop(spec.sandbox_id)
    for path in ("/tmp/astray/deep", "/tmp/file"):
        with pytest.raises(RuntimeFailure, match="nothing can be mounted at"):
            await mounting.start(msgspec.structs.replace(spec, mounts=(Mount(path, volume_id=a_volume()),)))
    assert not outside.exists()
    await mounting.start(msgspec.structs.replace(spec, mounts=(Mount("/tmp/way/deep", volume_id=a_volume()),)))
    await said(mounting, spec, "touch /tmp/way/deep/file && ls /srv/deep/file")
