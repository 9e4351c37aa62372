"""What the command line client's `snapshot push` does, by the real engine: a push, a snapshot, a sandbox of it."""

import contextlib
import io
import os
import tarfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import docker
import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    Image,
    Sandbox,
)

from tests.contract.conftest import running  # noqa: E402
from tests.contract.programs import IMAGE_SECONDS  # noqa: E402
from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import COMBINATIONS, Instance  # noqa: E402
from tests.contract.test_snapshots import remove_images  # noqa: E402
from tests.contract.toolbox import authorization  # noqa: E402
from tests.contract.wire_client import request  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]


@dataclass
class Pusher:
    """An engine and what was tagged in it, which is gone afterwards."""

    sandyard: Instance
    engine: Any
    tagged: list[str] = field(default_factory=list)

    def build(self, layer_mib: int) -> str:
        """An image of busybox and a layer that does not get smaller on its way; gives its name."""
        files = {"Dockerfile": b"FROM busybox:latest\nCOPY big /big\n", "big": os.urandom(1 << 20) * layer_mib}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        packed.seek(0)
        name = f"pushed-{uuid.uuid4().hex[:8]}:1"
        for item in self.engine.build(fileobj=packed, custom_context=True, tag=name, rm=True, decode=True):
            assert "error" not in item, item
        self.tagged.append(name)
        return name

    def access(self) -> dict[str, str]:
        """What the client asks for."""
        url = f"{self.sandyard.api_url}/docker-registry/registry-push-access?regionId=local"
        given: dict[str, str] = request("GET", url, headers=authorization(self.sandyard)).json()
        return given

    def push(self, image: str, name: str, **changes: str) -> tuple[str, list[str]]:
        """Tag and push as the client does; the reference, and what the engine said of the layers, its error last."""
        given = self.access() | changes
        reference = f"{given['registryUrl']}/{given['project']}/{name}"
        repository, _, tag = reference.rpartition(":")
        self.engine.tag(image, repository, tag)
        self.tagged.append(reference)
        login = {"username": given["username"], "password": given["secret"]}
        said = list(self.engine.push(repository, tag=tag, auth_config=login, stream=True, decode=True))
        ends = [
            item["status"]
            for item in said
            if item.get("id") and "progressDetail" in item and not item["progressDetail"]
        ]
        return reference, ends + [item["error"] for item in said if "error" in item]

    def end(self, sandbox: Sandbox) -> None:
        """Delete a sandbox and wait for its container to go, which holds its image."""
        sandbox.delete()
        deadline = time.monotonic() + 60
        with contextlib.suppress(docker.errors.NotFound):
            while True:
                self.engine.inspect_container(f"sandyard-{sandbox.id}")
                assert time.monotonic() < deadline, "the container is still there"
                time.sleep(0.1)

    def forget(self) -> None:
        """Remove what was built from those images, every tag, and so the layers that only they have."""
        remove_images(self.sandyard.folder / "data")
        for name in self.tagged:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.engine.remove_image(name, force=True)
        self.tagged.clear()


@pytest.fixture(scope="module")
def sandyard_with_engine() -> Iterator[Instance]:
    with running(COMBINATIONS["sqlite-memory-docker"]) as instance:
        yield instance


@pytest.fixture
def pusher(sandyard_with_engine: Instance) -> Iterator[Pusher]:
    opened = Pusher(sandyard_with_engine, docker.APIClient(version="auto", timeout=300))
    try:
        yield opened
    finally:
        opened.forget()
        opened.engine.close()


@pytest.fixture
def daytona(sandyard_with_engine: Instance) -> Iterator[Daytona]:
    with client(sandyard_with_engine, sandyard_with_engine.api_key) as opened:
        yield opened


@pytest.mark.timeout(600)
@pytest.mark.parametrize("layer_mib", [16, pytest.param(200, marks=pytest.mark.long)])
def test_an_image_of_the_clients_engine_is_pushed_pulled_and_used(
    pusher: Pusher, daytona: Daytona, layer_mib: int
) -> None:
    image = pusher.build(layer_mib)
    _, refused = pusher.push(image, "refused:1", secret="wrong")
    assert refused[-1].startswith("unauthorized: the login is not valid, or not any more")
    reference, said = pusher.push(image, "team/app:20260101")
    assert "Pushed" in said
    for name in ("team/app:again", "team/other:1"):
        _, said = pusher.push(image, name)
        assert set(said) == {"Preparing", "Layer already exists"}
    pusher.forget()
    made = daytona.snapshot.create(CreateSnapshotParams(name=f"pushed-{layer_mib}", image=reference))
    pusher.tagged.append(reference)
    assert (made.state, made.image_name) == ("active", reference)
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(snapshot=f"pushed-{layer_mib}"))
    try:
        assert sandbox.process.exec("wc -c < /big").result.strip() == str(layer_mib << 20)
    finally:
        pusher.end(sandbox)
    daytona.snapshot.delete(made)
    pusher.forget()
    base = Image.base(reference).run_commands("test -s /big")
    pusher.end(daytona.create(CreateSandboxFromImageParams(image=base), timeout=IMAGE_SECONDS))
    pusher.tagged.append(reference)
