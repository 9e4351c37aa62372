"""Finding out that we run in a container, and what our paths are called on the engine's machine."""

from pathlib import Path, PurePosixPath

import pytest

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.docker.surroundings import OwnContainer, own_container_id, path_on_engine

ID = "ab" * 32
MOUNTINFO = f"""\
512 480 0:51 / / rw,relatime - overlay overlay rw
530 512 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
531 512 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw
"""


def own(**mounts: str) -> OwnContainer:
    found = {PurePosixPath(inside): PurePosixPath(outside) for inside, outside in mounts.items()}
    return OwnContainer(ID, "image", found, frozenset(), {}, auto_remove=False)


def test_the_engines_own_files_give_our_container_away() -> None:
    assert own_container_id(MOUNTINFO) == ID


def test_a_plain_machine_is_not_a_container() -> None:
    assert own_container_id("25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n") is None


def test_outside_a_container_paths_are_what_they_are() -> None:
    assert path_on_engine(Path("/data/doors"), None) == "/data/doors"


def test_the_nearest_mount_decides() -> None:
    container = own(**{"/data": "/volumes/a/_data", "/data/doors": "/volumes/b/_data"})
    assert path_on_engine(Path("/data/doors/s-1"), container) == "/volumes/b/_data/s-1"
    assert path_on_engine(Path("/data/bundles"), container) == "/volumes/a/_data/bundles"


def test_a_path_that_sandboxes_cannot_share_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="must be on a volume"):
        path_on_engine(Path("/root/doors"), own(**{"/data": "/volumes/a/_data"}))
