"""Preview hosts and WebSockets: who may, what the app behind sees, and what comes back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from yarl import URL

from sandyard_api.jobs.wire import CHANNEL_ROUTES
from tests.proxy.conftest import Yard, open_yard
from tests.proxy.doubles import KEY, OTHER_KEY, ROUTE, SANDBOX, TOKEN, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


SIGNED = "signedtoken12345"


def preview(yard: Yard, path: str = "/page", port: int = 3000, **headers: str) -> Any:
    """A request for a port of the sandbox, as a browser makes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Host"] = f"{port}-{SANDBOX}.localhost:{yard.port}"
    return yard.client.get(URL(yard.origin + path, encoded=True), headers=named, allow_redirects=False)


async def make_public(yard: Yard) -> None:
    """Anybody may look."""
    yard.control_plane.change(public=True)
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())


async def test_a_private_preview_asks_programs_with_json_and_browsers_with_a_page(yard: Yard) -> None:
    async with preview(yard) as answer:
        assert (answer.status, (await answer.json())["code"]) == (401, "UNAUTHORIZED")
    async with preview(yard, Accept="text/html,*/*") as answer:
        assert (answer.status, answer.content_type) == (401, "text/html")
        assert "private" in await answer.text()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/page", {"Authorization": f"Bearer {KEY}"}),
        ("/page", {"X_Daytona_Preview_Token": TOKEN}),
        (f"/page?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}", {}),
    ],
)
async def test_each_credential_opens_a_preview_and_none_reaches_the_app(
    yard: Yard, path: str, headers: dict[str, str]
) -> None:
    async with preview(yard, path, 3000, **headers) as answer:
        seen = await answer.json()
    assert (seen["path"], seen["query"]) == ("/proxy/3000/page", "")
    assert not {"authorization", "x-daytona-preview-token"} & set(seen["headers"])
    assert seen["headers"]["x-forwarded-host"] == f"3000-{SANDBOX}.localhost:{yard.port}"


async def test_an_authorization_that_is_not_ours_is_the_apps(yard: Yard) -> None:
    async with preview(yard, Authorization="Bearer app", X_Daytona_Preview_Token=TOKEN) as answer:
        assert (await answer.json())["headers"]["authorization"] == "Bearer app"


async def test_a_public_preview_asks_nobody_but_the_private_ports_do(yard: Yard) -> None:
    await make_public(yard)
    async with preview(yard, Authorization="Bearer app") as answer:
        assert (await answer.json())["headers"]["authorization"] == "Bearer app"
    for port in (2280, 22222, 33333):
        async with preview(yard, port=port) as answer:
            assert answer.status == 401
    async with yard.client.get(f"{yard.toolbox}/x") as answer:
        assert answer.status == 401


def signed(yard: Yard, *, port: int = 3000, seconds: float = 60) -> str:
    """The token of a signed preview, which the control plane knows from now on."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    yard.control_plane.signed = {SIGNED: replace(ROUTE, signed_port=port, signed_until=until)}
    return SIGNED


def at_host(yard: Yard, key: str, path: str = "/page", port: int = 3000, **headers: str) -> Any:
    """A request of a preview's host, redirects left alone."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | {
        "Host": f"{port}-{key}.localhost:{yard.port}"
    }
    return yard.client.get(URL(yard.origin + path, encoded=True), headers=sent, allow_redirects=False)


async def test_a_signed_preview_needs_no_credential_and_opens_its_port_only(yard: Yard) -> None:
    token = signed(yard)
    async with at_host(yard, token) as answer:
        assert (answer.status, (await answer.json())["path"]) == (200, "/proxy/3000/page")
    async with at_host(yard, token, port=3001) as answer:
        assert answer.status == 401
    async with yard.client.get(f"{yard.origin}/toolbox/{token}/process/session") as answer:
        assert answer.status == 401
    async with yard.client.get(f"{yard.origin}/process/session", headers={"X-Daytona-Preview-Token": token}) as answer:
        assert answer.status == 401


async def test_a_signed_preview_that_is_over_opens_nothing_even_while_it_is_remembered(yard: Yard) -> None:
    async with at_host(yard, signed(yard, seconds=-1)) as answer:
        assert answer.status == 401


async def test_a_preview_as_a_path_runs_its_scripts_as_nobodys_page(yard: Yard) -> None:
    path = f"/preview/{SANDBOX}/3000/page%2Fx?a=1"
    async with yard.client.get(URL(yard.origin + path, encoded=True)) as answer:
        assert answer.status == 401
    async with yard.client.get(
        URL(yard.origin + path, encoded=True), headers={"X-Daytona-Preview-Token": TOKEN}
    ) as answer:
        seen = await answer.json()
        assert (seen["path"], seen["query"]) == ("/proxy/3000/page%2Fx", "a=1")
        assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts")
        assert "allow-same-origin" not in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
    async with yard.client.get(f"{yard.origin}/preview/{signed(yard)}/3000/") as answer:
        assert (answer.status, (await answer.json())["path"]) == (200, "/proxy/3000/")


@pytest.mark.parametrize("location", ["/next", "http://localhost:3000/next"])
async def test_a_redirect_of_a_path_preview_stays_below_its_path(yard: Yard, location: str) -> None:
    place = f"{yard.origin}/preview/{SANDBOX}/3000"
    headers = {"X-Daytona-Preview-Token": TOKEN}
    async with yard.client.get(f"{place}/redirect?to={location}", headers=headers, allow_redirects=False) as answer:
        assert answer.headers["location"] in (f"{place}/next", f"/preview/{SANDBOX}/3000/next")


async def test_browsers_see_a_page_for_whatever_is_wrong_with_a_preview(yard: Yard) -> None:
    yard.control_plane.change(state="stopped")
    async with at_host(yard, SANDBOX, Accept="text/html", X_Daytona_Preview_Token=TOKEN) as answer:
        assert (answer.status, answer.content_type) == (400, "text/html")
        assert "does not run" in await answer.text()
    async with at_host(yard, "no<b>body", Accept="text/html", Authorization=f"Bearer {KEY}") as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
        assert "no&lt;b&gt;body" in await answer.text()


async def test_somebody_elses_key_finds_nothing(yard: Yard) -> None:
    async with preview(yard, Authorization=f"Bearer {OTHER_KEY}") as answer:
        assert answer.status == 404


async def test_port_2280_is_the_daemon_itself(yard: Yard) -> None:
    async with preview(yard, "/process/session", 2280, X_Daytona_Preview_Token=TOKEN) as answer:
        assert (await answer.json())["path"] == "/process/session"


async def test_a_token_in_the_url_leaves_a_cookie_that_opens_the_next_page(yard: Yard) -> None:
    async with preview(yard, f"/page?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}") as answer:
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    async with preview(yard, Cookie=f"mine=1; {pair}; other=2") as answer:
        assert (await answer.json())["headers"]["cookie"] == "mine=1; other=2"
    async with preview(yard, Cookie=pair, Origin="http://evil.example") as answer:
        assert answer.status == 401
    yard.control_plane.change(preview_token="anew")  # the next start of the sandbox
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    async with preview(yard, Cookie=pair) as answer:
        assert answer.status == 401


async def test_a_port_where_nobody_listens_is_a_502_of_the_proxy(yard: Yard) -> None:
    async with preview(yard, port=4000, X_Daytona_Preview_Token=TOKEN) as answer:
        body = await answer.json()
    assert (answer.status, body["source"]) == (502, "DAYTONA_PROXY")
    assert "4000" in body["message"]


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("/next", "/next"),
        ("http://localhost:3000/next?a=1", "http://3000-{id}.localhost:{port}/next?a=1"),
        ("http://localhost:9999/next", "http://localhost:9999/next"),
    ],
)
async def test_redirects_of_an_app_to_itself_lead_back_to_its_preview(yard: Yard, to: str, expected: str) -> None:
    path = str(URL("/redirect").with_query(to=to))
    async with preview(yard, path, X_Daytona_Preview_Token=TOKEN) as answer:
        assert answer.headers["Location"] == expected.format(id=SANDBOX, port=yard.port)


async def test_an_apps_own_policy_stays(yard: Yard) -> None:
    async with preview(yard, X_Daytona_Preview_Token=TOKEN) as answer:
        assert "Content-Security-Policy" not in answer.headers


async def test_browsers_may_call_from_any_origin(yard: Yard) -> None:
    headers = {
        "Origin": "http://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-daytona-source",
    }
    async with yard.client.options(f"{yard.toolbox}/process/execute", headers=headers) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.example"
        assert answer.headers["Access-Control-Allow-Headers"] == "authorization,x-daytona-source"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key | {"Origin": "http://app.example"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.example"
    async with yard.client.get(f"{yard.toolbox}/x", headers={"Origin": "http://app.example"}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.example"
    assert len(yard.daemon.requests) == 1


async def test_cors_can_be_left_to_the_app(yard: Yard) -> None:
    headers = yard.key | {"Origin": "http://app.example", "X-Daytona-Disable-CORS": "true"}
    async with yard.client.get(f"{yard.toolbox}/x", headers=headers) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = headers | {"Access-Control-Request-Method": "GET"}
    async with yard.client.options(f"{yard.toolbox}/x", headers=preflight) as answer:
        assert (await answer.json())["method"] == "OPTIONS"


def socket(yard: Yard, path: str, **options: Any) -> Any:
    """A WebSocket to a server in the sandbox."""
    headers = {"Host": f"3000-{SANDBOX}.localhost", "X-Daytona-Preview-Token": TOKEN} | options.pop("headers", {})
    return yard.client.ws_connect(yard.origin + path, headers=headers, **options)


async def test_websockets_carry_text_bytes_and_close_codes_both_ways(yard: Yard) -> None:
    async with socket(yard, "/echo", protocols=("chat", "other"), max_msg_size=0) as opened:
        assert opened.protocol == "chat"
        await opened.send_str("grüße")
        assert await opened.receive_str(timeout=30) == "grüße"
        big = bytes(range(256)) * 20_000
        await opened.send_bytes(big)
        assert await opened.receive_bytes(timeout=30) == big
        await opened.send_str("close")
        last = await opened.receive(timeout=30)
    assert (last.data, last.extra) == (4008, "as asked")


async def test_a_refused_upgrade_keeps_its_status_and_body(yard: Yard) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await socket(yard, "/refuse")
    assert refused.value.status == 404


async def test_a_websocket_without_credentials_is_refused_with_json(yard: Yard) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    async with yard.client.get(f"{yard.toolbox}/process/pty/x/connect", headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["source"] == "DAYTONA_PROXY"


async def test_a_client_that_closes_ends_the_tunnel(yard: Yard) -> None:
    async with socket(yard, "/echo") as opened:
        await opened.send_str("x")
        await opened.receive_str(timeout=30)
    await until(lambda: yard.daemon.closed_sockets == 1)


async def test_use_of_a_sandbox_is_told_to_the_control_plane(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        await answer.read()
    await until(lambda: SANDBOX in yard.control_plane.touched)


async def test_use_that_asks_not_to_be_counted_is_not() -> None:
    async with open_yard() as yard:
        headers = yard.key | {"X-Daytona-Skip-Last-Activity-Update": "true"}
        async with yard.client.get(f"{yard.toolbox}/x", headers=headers) as answer:
            assert answer.status == 200
    assert yard.control_plane.touched == {}, "a proxy that ends tells all uses that it knows of"
