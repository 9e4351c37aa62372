"""Folders of volumes: opened without following links, removed whole, known by what the kernel calls them."""

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import pytest

from sandyard.bus.memory import MemoryBus
from sandyard.folders import Granted, HostFolder, grant, parse_host_folders
from sandyard_api.jobs.wire import CHANNEL_VOLUMES, Mount
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.memory import MemoryRuntime
from sandyard_runner.volumes import Volumes, identity_of, plain
from tests.runner.conftest import OpenRunner
from tests.runner.doubles import ScriptedControlPlane


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "volumes")


def test_what_is_missing_is_made_and_open_to_any_user_of_a_sandbox(volumes: Volumes, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        [place] = volumes.places([Mount("/data", volume_id="v", subpath="a/./b/")])
    finally:
        os.umask(before)
    assert (place.root, place.parts, place.read_only) == (str(tmp_path / "volumes" / "v"), ("a", "b"), False)
    modes = {name: stat.S_IMODE((tmp_path / "volumes" / name).stat().st_mode) for name in ("", "v", "v/a", "v/a/b")}
    assert modes == {"": 0o700, "v": 0o777, "v/a": 0o777, "v/a/b": 0o777}
    assert volumes.places([Mount("/data", volume_id="v", subpath="a/b")]) == [place]


@pytest.mark.parametrize("subpath", ["link", "link/deep", "ok/link", "file", "link/../ok", "../other"])
def test_links_files_and_ways_back_are_never_followed(volumes: Volumes, tmp_path: Path, subpath: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    volumes.places([Mount("/data", volume_id="v", subpath="ok")])
    folder = tmp_path / "volumes" / "v"
    (folder / "link").symlink_to(victim)
    (folder / "ok" / "link").symlink_to(victim)
    (folder / "file").touch()
    with pytest.raises(RuntimeFailure):
        volumes.places([Mount("/data", volume_id="v", subpath=subpath)])
    assert list(victim.iterdir()) == []
    assert stat.S_IMODE(victim.stat().st_mode) == 0o700
    assert not (tmp_path / "volumes" / "other").exists()


@pytest.mark.parametrize("volume_id", ["", ".", "..", "a/b", "../x", "/etc", ".discarded-1"])
def test_an_id_that_is_a_path_names_no_volume(volumes: Volumes, volume_id: str) -> None:
    with pytest.raises(RuntimeFailure, match="is not the id of a volume"):
        volumes.places([Mount("/data", volume_id=volume_id)])


def test_removing_follows_no_link_and_takes_deep_and_closed_folders_along(
    volumes: Volumes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # What pytest itself cannot remove must not be left to it, whatever becomes of this test.
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", str(tmp_path / "volumes")], check=True, timeout=60))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    volumes.places([Mount("/data", volume_id="v", subpath="closed/inner"), Mount("/x", volume_id="other")])
    (tmp_path / "volumes" / "v" / "link").symlink_to(victim)
    descriptor = os.open(tmp_path / "volumes" / "v", os.O_RDONLY)
    for _ in range(1500):  # deeper than Python may recurse, and than a path may be long
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    (tmp_path / "volumes" / "v" / "closed").chmod(0)
    for _ in range(2):
        assert volumes.remove("v")
    assert volumes.names() == ["other"]
    assert (victim / "kept").exists()


def test_a_folder_has_another_identity_than_what_a_link_in_its_place_leads_to(volumes: Volumes, tmp_path: Path) -> None:
    [place] = volumes.places([Mount("/data", volume_id="v", subpath="a b")])
    folder = Path(place.path)
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(tmp_path)
    descriptor = os.open(place.path, os.O_RDONLY)
    assert place.identity is not None
    assert identity_of(descriptor) != place.identity
    os.close(descriptor)
    assert plain("/a\\040b\\134") == "/a b\\"


async def test_a_hint_removes_what_is_not_wanted_any_more(
    open_a_runner: OpenRunner, control_plane: ScriptedControlPlane, memory_runtime: MemoryRuntime, bus: MemoryBus
) -> None:
    memory_runtime.folders = {"kept", "deleted"}
    control_plane.volumes = {"kept", "deleted", "without-a-folder"}
    async with open_a_runner():
        control_plane.volumes.discard("deleted")
        async with asyncio.timeout(60):
            while memory_runtime.folders != {"kept"}:
                await bus.publish(CHANNEL_VOLUMES, b"deleted")  # heard once the runner listens
                await asyncio.sleep(0)


def test_host_folders_are_absolute_and_never_the_root() -> None:
    assert parse_host_folders(" /home/me/, /srv/data:ro ,") == (
        HostFolder("/home/me"),
        HostFolder("/srv/data", read_only=True),
    )
    for text in ("home", "/", "//", "/a/..", ":ro", "~/x"):
        with pytest.raises(ValueError, match="is not an absolute path"):
            parse_host_folders(text)


def test_the_innermost_allowed_folder_counts_and_links_are_followed_before(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    (tmp_path / "outer" / "out").symlink_to("/etc")
    allowed = [HostFolder(f"{tmp_path}/link"), HostFolder(f"{tmp_path}/outer/inner", read_only=True)]
    root = os.path.realpath(tmp_path / "outer")
    assert grant(allowed, f"{tmp_path}/link/x/../inner/deep") == Granted(f"{root}/inner", ("deep",), True)
    assert grant(allowed, f"{tmp_path}/outer") == Granted(root, (), False)
    for path in (f"{tmp_path}/outer/out", f"{tmp_path}/outer-beside", str(tmp_path), "outer", ""):
        assert grant(allowed, path) is None
