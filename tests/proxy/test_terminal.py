"""The web terminal's page and socket on preview port 22222."""

import asyncio
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.proxy.conftest import Yard
from tests.proxy.doubles import SANDBOX, SECRET, TOKEN

pytestmark = pytest.mark.asyncio(loop_scope="module")


def terminal(yard: Yard, path: str = "/", method: str = "GET", **headers: str) -> Any:
    """A request for the terminal, as a browser makes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Host"] = f"22222-{SANDBOX}.localhost:{yard.port}"
    return yard.client.request(method, URL(yard.origin + path, encoded=True), headers=named)


async def test_the_page_and_its_files_are_the_proxys_own(yard: Yard) -> None:
    for path, kind, part in [
        ("/", "text/html; charset=utf-8", b'src="terminal.js"'),
        ("/terminal.js", "text/javascript; charset=utf-8", b"new Terminal("),
        ("/terminal.css", "text/css; charset=utf-8", b"#terminal"),
        ("/xterm.js", "text/javascript; charset=utf-8", b"Terminal"),
        ("/addon-fit.js", "text/javascript; charset=utf-8", b"FitAddon"),
        ("/xterm.css", "text/css; charset=utf-8", b".xterm"),
        ("/LICENSE-xterm", "text/plain; charset=utf-8", b"without restriction"),
    ]:
        async with terminal(yard, path, X_Daytona_Preview_Token=TOKEN) as answer:
            body = await answer.read()
            assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
            assert part in body
            assert b"https://" not in body or path != "/", "the page takes nothing from elsewhere"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert yard.daemon.requests == []


async def test_it_asks_for_credentials_and_leaves_a_cookie_for_its_own_files(yard: Yard) -> None:
    async with terminal(yard) as answer:
        assert answer.status == 401
    async with terminal(yard, f"/?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}") as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    async with terminal(yard, "/xterm.js", Cookie=cookie) as answer:
        assert answer.status == 200
    async with terminal(yard, "/xterm.js", Cookie=cookie, Origin="http://evil.example") as answer:
        assert answer.status == 401


async def test_what_it_does_not_have_is_a_json_error(yard: Yard) -> None:
    for path, method, status in [("/nothing", "GET", 404), ("/../errors.py", "GET", 404), ("/", "POST", 405)]:
        async with terminal(yard, path, method, X_Daytona_Preview_Token=TOKEN) as answer:
            assert (answer.status, (await answer.json())["statusCode"]) == (status, status)
    async with terminal(yard, "/", "HEAD", X_Daytona_Preview_Token=TOKEN) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_its_socket_goes_to_a_shell_of_the_daemon_without_our_credentials(yard: Yard) -> None:
    headers = {"Host": f"22222-{SANDBOX}.localhost:{yard.port}", "X-Daytona-Preview-Token": TOKEN}
    url = f"ws://127.0.0.1:{yard.port}/ws?cols=90&DAYTONA_SANDBOX_AUTH_KEY={TOKEN}&rows=20"
    async with yard.client.ws_connect(url, headers=headers) as socket:
        await socket.close()
    seen = yard.daemon.requests[-1]
    assert (seen["path"], seen["query_string"]) == ("/_daemon/terminal", b"cols=90&rows=20")
    assert dict(seen["headers"])[b"x-sandyard-door"] == SECRET.encode()
    assert b"x-daytona-preview-token" not in dict(seen["headers"])
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await yard.client.ws_connect(f"ws://127.0.0.1:{yard.port}/elsewhere", headers=headers)
    assert refused.value.status == 404


@pytest.mark.parametrize("lines", [1, 3])
async def test_long_subprotocols_on_several_lines_arrive_and_one_is_chosen(yard: Yard, lines: int) -> None:
    tokens = ["X-Daytona-Pty-Envs~" + "e" * 65_536, "X-Daytona-SDK-Version~0.226.1", "X-Daytona-Pty-Exit-Control"]
    offered = [", ".join(tokens)] if lines == 1 else tokens
    headers = [("Host", f"3000-{SANDBOX}.localhost:{yard.port}"), ("X-Daytona-Preview-Token", TOKEN)]
    headers += [("Sec-WebSocket-Protocol", each) for each in offered]
    text = "".join(f"{name}: {value}\r\n" for name, value in headers)
    reader, writer = await asyncio.open_connection("127.0.0.1", yard.port, limit=1 << 20)
    writer.write(
        f"GET /echo HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n{text}\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 101"), head
    assert yard.daemon.requests[-1]["subprotocols"] == tokens
