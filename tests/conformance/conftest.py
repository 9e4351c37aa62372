"""Every runtime, opened for one test and left without sandboxes."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sandyard.folders import HostFolder
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import Runtime
from sandyard_runner.runtime.local.options import Isolation, LocalOptions
from sandyard_runner.runtime.local.runtime import open_local_runtime
from sandyard_runner.runtime.memory import MemoryRuntime
from tests.engine import need_engine, no_engine


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a command begins when the command has ended; on a busy machine that is late for an answer."""
    monkeypatch.setattr("sandyard_runner.door_http.HEAD_TIMEOUT_SECONDS", 60.0)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all tests."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(
    params=[
        "memory",
        "namespaces",
        "none",
        pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.timeout(600)]),
    ]
)
async def runtime(request: pytest.FixtureRequest, tmp_path: Path, bundles: Path) -> AsyncIterator[Runtime]:
    async with AsyncExitStack() as stack:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "bundles").symlink_to(bundles)
        opened = await _open(str(request.param), tmp_path, stack)
        yield opened
        for item in await opened.present():
            await opened.remove(item.sandbox_id)


def host_folders(directory: Path) -> tuple[HostFolder, ...]:
    """What sandboxes of a test's runtime may mount of the host."""
    return HostFolder(str(directory / "writable")), HostFolder(str(directory / "readable"), read_only=True)


async def _open(name: str, directory: Path, stack: AsyncExitStack) -> Runtime:
    doors = directory / "doors"
    if name == "memory":
        return MemoryRuntime(doors)
    if name == "docker":
        return await _open_docker(directory, doors, stack)
    folders = host_folders(directory)
    options = LocalOptions(directory / "data", doors, Isolation(name), host_folders=folders)
    try:
        return await stack.enter_async_context(open_local_runtime(options))
    except RuntimeFailure as failure:
        if name == "namespaces":
            pytest.skip(failure.message)
        raise


async def _open_docker(directory: Path, doors: Path, stack: AsyncExitStack) -> Runtime:
    docker = pytest.importorskip("sandyard_runner.runtime.docker")
    need_engine()
    options = docker.DockerOptions(
        installation=uuid.uuid4().hex,
        data_dir=directory / "data",
        doors_dir=doors,
        host_folders=host_folders(directory),
    )
    try:
        runtime: Runtime = await stack.enter_async_context(docker.open_docker_runtime(options))
        await runtime.ensure_image(None, lambda _: None)
    except RuntimeFailure as failure:
        no_engine(f"no default image: {failure.message}")
    return runtime
