import asyncio
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandyard.serving import listen_tcp, listen_unix, serve, sockets_directory


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_an_application_is_served_until_the_block_ends() -> None:
    listener = listen_tcp("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    async with serve(_hello, listener), aiohttp.ClientSession() as session, session.get(url) as answer:
        assert await answer.read() == b"hello"
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/")))


async def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.sock"
    async with serve(_hello, listen_unix(path), websockets=False):
        assert path.stat().st_mode & 0o077 == 0
        connector = aiohttp.UnixConnector(path=str(path))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://x/") as answer:
            assert answer.status == 200


def test_a_taken_port_is_named() -> None:
    with listen_tcp("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            listen_tcp("127.0.0.1", port)


def test_sockets_fit_their_addresses_whatever_the_temporary_directory_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with sockets_directory() as directory:
        listen_unix(directory / "internal.sock").close()
    assert not directory.exists()
