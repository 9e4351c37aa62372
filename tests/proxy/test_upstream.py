"""The control plane as another process: requests, streams and WebSockets pass unchanged; its absence is a 503."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sandyard.serving import listen_tcp, listen_unix, serve
from sandyard_proxy.upstream import open_upstream
from tests.proxy.doubles import plain_control_plane


@asynccontextmanager
async def standing_before(base_url: str) -> AsyncIterator[str]:
    """A server that carries everything to `base_url`."""
    listener = listen_tcp("127.0.0.1", 0)
    async with open_upstream(base_url) as upstream, serve(upstream, listener):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_http_and_websockets_pass_over_tcp() -> None:
    listener = listen_tcp("127.0.0.1", 0)
    async with (
        serve(plain_control_plane, listener),
        standing_before(f"http://127.0.0.1:{listener.getsockname()[1]}") as origin,
        aiohttp.ClientSession() as client,
    ):
        headers = {"Host": "sandyard.test", "Authorization": "Bearer k"}
        async with client.post(f"{origin}/api/x?y=1", json={"a": 1}, headers=headers) as answer:
            seen = await answer.json()
        assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/api/x", "y=1")
        assert seen["headers"]["host"] == "sandyard.test"
        assert seen["headers"]["authorization"] == "Bearer k"
        async with client.ws_connect(f"{origin}/api/socket.io/?EIO=4") as socket:
            await socket.send_str("2probe")
            assert await socket.receive_str(timeout=30) == "2probe"


async def test_http_passes_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "api.sock"
        async with (
            serve(plain_control_plane, listen_unix(path)),
            standing_before(f"unix:{path}") as origin,
            aiohttp.ClientSession() as client,
            client.get(f"{origin}/api/x") as answer,
        ):
            assert (await answer.json())["control_plane"] is True


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "unix:/nowhere/api.sock"])
async def test_a_control_plane_that_is_not_there_is_a_503(url: str) -> None:
    async with standing_before(url) as origin, aiohttp.ClientSession() as client:
        async with client.get(f"{origin}/api/x") as answer:
            assert (answer.status, (await answer.json())["source"]) == (503, "DAYTONA_PROXY")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{origin}/api/socket.io/")
        assert refused.value.status == 503
