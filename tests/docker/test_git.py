"""Git in images that have it and in images that do not."""

import aiohttp
import pytest

from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import started

pytestmark = pytest.mark.docker


async def test_an_image_without_git_says_what_to_install(runtime: DockerRuntime) -> None:
    sandbox = await started(runtime)
    connector = aiohttp.UnixConnector(path=str(runtime.door(sandbox.sandbox_id)))
    async with aiohttp.ClientSession(connector=connector, headers={DOOR_HEADER: sandbox.door_secret}) as session:
        for method, path, body in (
            ("GET", "/git/status?path=repo", None),
            ("POST", "/git/clone", {"url": "https://somewhere/x.git", "path": "repo"}),
            ("POST", "/git/credentials", {"username": "a", "password": "b"}),
        ):
            async with session.request(method, f"http://door{path}", json=body) as answer:
                error = await answer.json()
                assert (answer.status, error["code"]) == (500, "INTERNAL_SERVER_ERROR")
                assert "install the package `git`" in error["message"]
