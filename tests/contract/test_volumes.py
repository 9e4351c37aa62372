"""Volumes through the SDKs: shared, by subpath, forked, archived, in use, deleted with what was in them."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    AsyncDaytona,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    Sandbox,
    VolumeMount,
)
from daytona.common.errors import (  # noqa: E402
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
)

from tests.api.test_coverage import check_schema, description  # noqa: E402
from tests.contract.programs import CLIENTS, GO_RELEASES, bundle, go_flow, run_program  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402
from tests.contract.toolbox import authorization  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402

__all__ = ["description"]

WAIT_SECONDS = 60.0

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]


@pytest.fixture
def daytona(sandyard: Instance) -> Iterator[Daytona]:
    if sandyard.combination.isolation == "none":
        pytest.skip("nothing can be mounted without namespaces")
    with client(sandyard, sandyard.api_key) as opened:
        yield opened


@pytest.fixture
def volume(daytona: Daytona) -> Iterator[Any]:
    """A volume nobody uses; it is gone afterwards."""
    made = daytona.volume.get(f"shared-{uuid.uuid4().hex[:8]}", create=True)
    yield made
    with contextlib.suppress(DaytonaNotFoundError):
        daytona.volume.delete(made)


@contextlib.contextmanager
def sandbox(daytona: Daytona, *mounts: VolumeMount) -> Iterator[Sandbox]:
    made = daytona.create(CreateSandboxFromSnapshotParams(volumes=list(mounts)))
    try:
        yield made
    finally:
        with contextlib.suppress(DaytonaNotFoundError):
            made.delete()


def said(sandbox: Sandbox, command: str) -> str:
    done = sandbox.process.exec(command)
    assert done.exit_code == 0, done
    return done.result.strip()


def wait_until(holds: Callable[[], bool]) -> None:
    """Look again and again; fails after a minute."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came true"


def folder_of(sandyard: Instance, volume: Any) -> Path:
    return sandyard.folder / "data" / "volumes" / str(volume.id)


def test_two_sandboxes_share_a_volume_and_a_subpath_shows_a_part_of_it(
    sandyard: Instance, daytona: Daytona, volume: Any
) -> None:
    whole = VolumeMount(volume_id=volume.id, mount_path="/data")
    part = VolumeMount(volume_id=volume.name, mount_path="/part", subpath="users/alice")
    with sandbox(daytona, whole) as one, sandbox(daytona, whole, part) as two, sandbox(daytona, part) as three:
        said(one, "echo hello > /data/file")
        assert said(two, "cat /data/file; echo alice > /part/own") == "hello"
        assert said(one, "cat /data/users/alice/own") == "alice"
        assert said(three, "ls -A /part; ls -d /data 2>/dev/null || echo none") == "own\nnone"
        shown = daytona.get(three.id).volumes
        assert [(item.volume_id, item.mount_path, item.subpath) for item in shown or []] == [
            (volume.id, "/part", "users/alice")
        ]
        with pytest.raises(DaytonaConflictError) as refused:
            daytona.volume.delete(volume)
        assert "Volume cannot be deleted because it is in use by one or more sandboxes (e.g. " in str(refused.value)
        folder = folder_of(sandyard, volume)
        assert (folder / "file").read_text() == "hello\n"
    daytona.volume.delete(volume)
    assert volume.id not in [one.id for one in daytona.volume.list()]
    wait_until(lambda: not folder.exists())


def test_a_fork_and_a_restored_archive_have_the_volume_again_and_nothing_of_it_was_copied(
    daytona: Daytona, volume: Any
) -> None:
    with sandbox(daytona, VolumeMount(volume_id=volume.id, mount_path="/data")) as parent:
        said(parent, "echo first > /data/file")
        fork = parent.fork()
        try:
            assert said(fork, "cat /data/file; echo second > /data/file") == "first"
        finally:
            fork.delete(wait=True)
        parent.stop()
        parent.archive()
        wait_until(lambda: daytona.get(parent.id).state == "archived")
        with sandbox(daytona, VolumeMount(volume_id=volume.id, mount_path="/data")) as other:
            said(other, "echo third > /data/file")
        parent.start()
        assert said(parent, "cat /data/file") == "third"


def test_a_subpath_that_is_a_link_is_not_followed_out_of_the_volume(daytona: Daytona, volume: Any) -> None:
    with sandbox(daytona, VolumeMount(volume_id=volume.id, mount_path="/data")) as one:
        said(one, "ln -s / /data/link")
        before = {each.id for each in daytona.list()}
        with pytest.raises(DaytonaError, match="neither is followed"):
            daytona.create(
                CreateSandboxFromSnapshotParams(
                    volumes=[VolumeMount(volume_id=volume.id, mount_path="/x", subpath="link")]
                )
            )
        for failed in {each.id for each in daytona.list()} - before:
            daytona.get(failed).delete()


def test_refusals_have_the_class_of_their_status(daytona: Daytona, volume: Any) -> None:
    with pytest.raises(DaytonaBadRequestError, match=f"Volume with name {volume.name} already exists"):
        daytona.volume.create(volume.name)
    with pytest.raises(DaytonaNotFoundError, match="Volume with name nobody not found"):
        daytona.volume.get("nobody")
    refused = {
        "/etc": "Invalid mount path /etc (cannot mount to system directory)",
        "data": "Invalid mount path data (must be absolute)",
    }
    for path, message in refused.items():
        with (
            pytest.raises(DaytonaBadRequestError) as error,
            sandbox(daytona, VolumeMount(volume_id=volume.id, mount_path=path)),
        ):
            pass
        assert message in str(error.value)
    with (
        pytest.raises(DaytonaNotFoundError, match="Volume 'nobody' not found"),
        sandbox(daytona, VolumeMount(volume_id="nobody", mount_path="/data")),
    ):
        pass


async def test_the_asynchronous_client_sees_the_same(sandyard: Instance, daytona: Daytona) -> None:
    async with AsyncDaytona(DaytonaConfig(api_key=sandyard.api_key, api_url=sandyard.api_url)) as opened:
        volume = await opened.volume.get(f"async-{uuid.uuid4().hex[:8]}", create=True)
        mount = VolumeMount(volume_id=volume.id, mount_path="/data")
        parameters = CreateSandboxFromSnapshotParams(volumes=[mount])
        one, two = await asyncio.gather(opened.create(parameters), opened.create(parameters))
        try:
            await one.process.exec("echo shared > /data/file")
            assert (await two.process.exec("cat /data/file")).result == "shared\n"
            with pytest.raises(DaytonaConflictError):
                await opened.volume.delete(volume)
        finally:
            await asyncio.gather(one.delete(), two.delete())
        await opened.volume.delete(volume)
        assert volume.id not in [each.id for each in await opened.volume.list()]


def test_the_typescript_client_sees_the_same(sandyard: Instance, daytona: Daytona, folder: Path) -> None:
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external")
    source = bundle(CLIENTS / "typescript" / "volumes.ts", Path("volumes.mjs"), *options)
    done = run_program(["node", source], sandyard, folder)
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    assert saw["made"] == [True, "ready"]
    assert saw["shown"] == [[{"volumeId": saw["id"], "mountPath": "/data"}], [[True, "/part", "a/b"]]]
    assert saw["read"] == "shared\nfile\n"
    assert (saw["listed"], saw["left"]) == (True, False)
    assert saw["inUse"][0] == "DaytonaConflictError"


def test_bodies_are_as_described(
    sandyard: Instance, daytona: Daytona, volume: Any, description: dict[str, Any]
) -> None:
    base, headers = f"{sandyard.api_url}/volumes", authorization(sandyard)
    for url in (f"{base}/{volume.id}", f"{base}/by-name/{volume.name}"):
        check_schema(description, "VolumeDto", request("GET", url, headers=headers).json())
    for item in request("GET", f"{base}?includeDeleted=true", headers=headers).json():
        check_schema(description, "VolumeDto", item)
    with sandbox(daytona, VolumeMount(volume_id=volume.id, mount_path="/data", subpath="a")) as made:
        body = request("GET", f"{sandyard.api_url}/sandbox/{made.id}", headers=headers).json()
        check_schema(description, "Sandbox", body)
        check_schema(description, "SandboxVolume", body["volumes"][0])


@pytest.mark.parametrize("release", GO_RELEASES)
def test_the_go_client_sees_the_same(sandyard: Instance, daytona: Daytona, folder: Path, release: str) -> None:
    saw = go_flow(release, "volumes", sandyard, folder, f"go-{uuid.uuid4().hex[:8]}")
    assert saw["made"] == [True, "ready", True]
    assert (saw["taken"][0], saw["taken"][2]) == ("DaytonaError", 400)
    assert saw["read"] == "shared\nfile\n"
    assert (saw["listed"], saw["left"]) == (True, False)
    assert saw["inUse"][2] == 409
    assert "in use by one or more sandboxes" in saw["inUse"][1]
    assert saw["badPath"][1:] == ["Invalid mount path data (must be absolute)", 400]
    assert saw["unknown"][0] == saw["unknownMount"][0] == "DaytonaNotFoundError"
