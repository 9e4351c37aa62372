"""A docker runtime of the test's own, on a real engine, with nothing left of it afterwards."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import docker
import pytest

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.runtime.docker import DockerOptions, open_docker_runtime, remove_everything
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.engine import need_engine

BUSYBOX = "busybox:latest"
DEBIAN = "debian:bookworm-slim"


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine."""
    need_engine()
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle is made once for all tests."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def options(tmp_path: Path, bundles: Path) -> DockerOptions:
    """Options of an installation nobody else has."""
    (tmp_path / "bundles").symlink_to(bundles)
    return DockerOptions(secrets.token_hex(8), tmp_path, tmp_path / "doors")


@pytest.fixture
async def runtime(engine: Any, options: DockerOptions) -> AsyncIterator[DockerRuntime]:
    """An open runtime; whatever it holds is removed at the end."""
    async with open_docker_runtime(options) as opened:
        yield opened
    await remove_everything(options)


def need_image(engine: Any, image: str) -> None:
    """Skip unless the engine has it: these tests do not depend on a registry."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.inspect_image(image)
        return
    pytest.skip(f"the engine does not have {image}; scripts/base-images makes it")


def spec(**fields: Any) -> SandboxSpec:
    """A sandbox nobody else has."""
    given = {"sandbox_id": f"test-{secrets.token_hex(6)}", "image": BUSYBOX} | fields
    return SandboxSpec(organization_id="org", name="name", door_secret=secrets.token_hex(16), **given)


async def started(runtime: DockerRuntime, **fields: Any) -> SandboxSpec:
    """A running sandbox."""
    sandbox = spec(**fields)
    await runtime.create(sandbox)
    await runtime.start(sandbox)
    return sandbox


async def execute(
    runtime: DockerRuntime, sandbox: SandboxSpec, command: str, *, timeout_seconds: int = 90
) -> tuple[int, str]:
    """Exit code and output of a command inside, through its door."""
    connector = aiohttp.UnixConnector(path=str(runtime.door(sandbox.sandbox_id)))
    async with (
        aiohttp.ClientSession(connector=connector, headers={DOOR_HEADER: sandbox.door_secret}) as session,
        session.post("http://door/process/execute", json={"command": command, "timeout": timeout_seconds}) as answer,
    ):
        body = await answer.json()
        assert answer.status == 200, body
        return body["exitCode"], body["result"]


async def within(seconds: float, waiting: Any) -> Any:
    """What `waiting` gives, or a failure of the test when it takes longer."""
    async with asyncio.timeout(seconds):
        return await waiting
