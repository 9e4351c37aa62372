"""Code in an image that holds a static busybox and nothing else: clear refusals, by the door of a real container."""

from typing import Any

import aiohttp
import pytest

from sandyard_daemon.wire import DOOR_HEADER
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import BUSYBOX, need_image, started

pytestmark = pytest.mark.docker


async def test_an_image_without_interpreters_says_what_to_install(engine: Any, runtime: DockerRuntime) -> None:
    need_image(engine, BUSYBOX)
    sandbox = await started(runtime)
    connector = aiohttp.UnixConnector(path=str(runtime.door(sandbox.sandbox_id)))
    async with aiohttp.ClientSession(connector=connector, headers={DOOR_HEADER: sandbox.door_secret}) as session:
        for language, wanted in (("python", "python3"), ("javascript", "Node.js"), ("typescript", "tsx")):
            body = {"code": "1", "language": language}
            async with session.post("http://door/process/code-run", json=body) as answer:
                assert answer.status == 400
                assert f"install {wanted}" in (await answer.json())["message"]
        async with session.post("http://door/process/interpreter/context", json={}) as answer:
            assert answer.status == 400
            assert "no python3" in (await answer.json())["message"]
        async with session.ws_connect("http://door/process/interpreter/execute") as socket:
            await socket.send_json({"code": "1"})
            said = await socket.receive_json(timeout=60)
            assert (said["type"], said["name"]) == ("error", "InterpreterUnavailable")
            await socket.receive(timeout=60)
            assert socket.close_code == 1011
