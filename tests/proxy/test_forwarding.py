"""Requests carried to the daemon and back, over a real server: bytes, headers, streams, failures."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from sandyard_api.jobs.wire import CHANNEL_ROUTES
from sandyard_proxy.connection import HIGH_WATER
from tests.proxy.conftest import Yard
from tests.proxy.doubles import KEY, OTHER_KEY, SANDBOX, SECRET, TOKEN, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_method_path_query_headers_and_body_arrive_as_they_were_sent(yard: Yard) -> None:
    url = URL(f"{yard.toolbox}/files/a%2Fb%20c?x=%2F+y&x=2", encoded=True)
    headers = yard.key | {"X-Daytona-SDK-Version": "0.226.1", "X-Custom": "1"}
    async with yard.client.request("PATCH", url, data=b"body", headers=headers) as answer:
        seen = await answer.json()
    assert (seen["method"], seen["path"], seen["query"]) == ("PATCH", "/files/a%2Fb%20c", "x=%2F+y&x=2")
    assert seen["body"] == "body"
    assert seen["headers"]["x-daytona-sdk-version"] == "0.226.1"
    assert seen["headers"]["x-custom"] == "1"
    assert seen["headers"]["content-length"] == "4"


async def test_credentials_and_the_doors_secret_are_ours_to_set(yard: Yard) -> None:
    headers = yard.key | {
        "X-Sandyard-Door": "guess",
        "X-Daytona-Preview-Token": TOKEN,
        "X-Forwarded-Host": "evil.example",
        "Connection": "keep-alive, X-Named",
        "X-Named": "hop",
    }
    async with yard.client.get(f"{yard.toolbox}/x?DAYTONA_SANDBOX_AUTH_KEY={TOKEN}&a=1", headers=headers) as answer:
        seen = await answer.json()
    assert seen["headers"]["x-sandyard-door"] == SECRET
    assert seen["query"] == "a=1"
    assert seen["headers"]["x-forwarded-host"] == f"127.0.0.1:{yard.port}"
    assert not {"authorization", "x-daytona-preview-token", "x-named"} & set(seen["headers"])


async def test_a_request_without_a_body_has_none(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        seen = await answer.json()
    assert not {"content-length", "transfer-encoding"} & set(seen["headers"])


async def test_head_has_headers_and_no_body(yard: Yard) -> None:
    for _ in range(2):
        async with yard.client.head(f"{yard.toolbox}/x", headers=yard.key) as answer:
            assert answer.status == 200
            assert int(answer.headers["Content-Length"]) > 0


async def test_answers_are_streamed(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}/slow", headers=yard.key) as answer:
        assert await answer.content.readany() == b"first"
        yard.daemon.release.set()
        assert await answer.content.readany() == b"last"


async def test_uploads_are_streamed_and_never_held_whole(yard: Yard) -> None:
    size, piece = 64 << 20, os.urandom(1 << 20)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    async with yard.client.post(f"{yard.toolbox}/files/upload", data=body(), headers=yard.key) as answer:
        seen = await answer.json()
    assert yard.daemon.received == size
    assert seen["headers"]["transfer-encoding"] == "chunked"


async def test_a_client_that_does_not_read_holds_the_daemon_back(yard: Yard) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", yard.port, limit=1 << 10)
    request = f"GET /toolbox/{SANDBOX}/flood HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: yard.daemon.sent > 0)
    sent = -1
    while sent != yard.daemon.sent:  # until nothing moves any more
        sent = yard.daemon.sent
        await asyncio.sleep(0.2)
    assert sent < HIGH_WATER + (24 << 20), "bounded by the kernel's buffers and ours"
    writer.close()


async def test_when_the_client_leaves_the_exchange_ends(yard: Yard) -> None:
    client = await yard.client.get(f"{yard.toolbox}/slow", headers=yard.key)
    await client.content.readany()
    client.close()
    async with asyncio.timeout(30):
        await yard.daemon.left.wait()


async def test_the_daemon_may_answer_before_it_read_everything(yard: Yard) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(1 << 20)

    async with yard.client.post(f"{yard.toolbox}/refuse-body", data=body(), headers=yard.key) as answer:
        assert answer.status == 413
        assert (await answer.json())["code"] == "PAYLOAD_TOO_LARGE"


async def test_connections_to_the_daemon_are_kept(yard: Yard) -> None:
    for _ in range(20):
        async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
            await answer.read()
    assert len(yard.daemon.connections) <= 2


@pytest.mark.parametrize(
    ("to", "expected"), [("/a/b?c", "/toolbox/{id}/a/b?c"), ("https://x.example/y", "https://x.example/y")]
)
async def test_redirects_of_the_daemon_stay_below_the_toolbox(yard: Yard, to: str, expected: str) -> None:
    url = URL(f"{yard.toolbox}/redirect").with_query(to=to)
    async with yard.client.get(url, headers=yard.key, allow_redirects=False) as answer:
        assert answer.headers["Location"] == expected.format(id=SANDBOX)


async def test_what_the_toolbox_delivers_cannot_run_in_our_origin(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def expect(yard: Yard, status: int, code: str, url: str, **headers: str) -> str:
    """One refused request; returns its message."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with yard.client.get(url, headers=named) as answer:
        body = await answer.json()
    assert (answer.status, body["statusCode"], body["code"]) == (status, status, code)
    assert body["source"] == "DAYTONA_PROXY"
    assert {"message", "path", "timestamp", "method", "error"} <= set(body)
    message: str = body["message"]
    return message


async def test_credentials_are_asked_for_and_tell_nothing_of_what_exists(yard: Yard) -> None:
    for url in (f"{yard.toolbox}/x", f"{yard.origin}/toolbox/unknown/x"):
        assert "missing authentication" in await expect(yard, 401, "UNAUTHORIZED", url)
        wrong = await expect(yard, 401, "UNAUTHORIZED", url, Authorization="Bearer wrong")
        assert "authentication failed" in wrong
        await expect(yard, 401, "UNAUTHORIZED", url, X_Daytona_Preview_Token="wrong")
    assert yard.daemon.requests == []


async def test_unknown_and_foreign_sandboxes_are_the_same_404(yard: Yard) -> None:
    unknown = await expect(yard, 404, "NOT_FOUND", f"{yard.origin}/toolbox/unknown/x", Authorization=f"Bearer {KEY}")
    foreign = await expect(yard, 404, "NOT_FOUND", f"{yard.toolbox}/x", Authorization=f"Bearer {OTHER_KEY}")
    assert foreign.replace(SANDBOX, "unknown") == unknown


async def test_a_token_is_a_credential_and_not_a_name(yard: Yard) -> None:
    await expect(yard, 404, "NOT_FOUND", f"{yard.origin}/toolbox/{TOKEN}/x", Authorization=f"Bearer {KEY}")
    await expect(yard, 401, "UNAUTHORIZED", f"{yard.origin}/toolbox/{TOKEN}/x", X_Daytona_Preview_Token=TOKEN)


async def test_the_daemons_internal_routes_do_not_exist_outside(yard: Yard) -> None:
    await expect(yard, 404, "NOT_FOUND", f"{yard.toolbox}/_daemon/events", Authorization=f"Bearer {KEY}")
    await expect(yard, 404, "NOT_FOUND", f"{yard.origin}/_daemon/events", X_Daytona_Preview_Token=TOKEN)
    assert yard.daemon.requests == []


async def test_a_stopped_sandbox_says_so_and_a_started_one_is_served_at_once(yard: Yard) -> None:
    yard.control_plane.change(state="stopped")
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    message = await expect(yard, 400, "BAD_REQUEST", f"{yard.toolbox}/x", Authorization=f"Bearer {KEY}")
    assert message == "bad request: no IP address found. Is the Sandbox started?"
    yard.control_plane.change(state="started")  # and no hint of it
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("state", ["pausing", "paused", "resuming"])
async def test_a_paused_sandbox_says_so(yard: Yard, state: str) -> None:
    yard.control_plane.change(state=state)
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    message = await expect(yard, 400, "BAD_REQUEST", f"{yard.toolbox}/x", Authorization=f"Bearer {KEY}")
    assert message == "bad request: the Sandbox is paused. Start it to resume it"


@pytest.mark.parametrize("state", ["resizing", "snapshotting"])
async def test_a_sandbox_is_served_while_it_is_resized_or_kept(yard: Yard, state: str) -> None:
    yard.control_plane.change(state=state)
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        assert answer.status == 200


async def test_a_sandbox_that_stopped_since_its_route_was_remembered_says_so(yard: Yard) -> None:
    gone = "33333333-5b5e-4a53-9f6e-3b6f5a0f7a11"
    first = yard.control_plane.routes[0]
    yard.control_plane.routes.append(type(first)(gone, first.organization_id, "started", "s", "t4", False, None))
    url = f"{yard.origin}/toolbox/{gone}/x"
    await expect(yard, 502, "BAD_GATEWAY", url, Authorization=f"Bearer {KEY}")
    yard.control_plane.change(gone, state="stopped")
    await expect(yard, 400, "BAD_REQUEST", url, Authorization=f"Bearer {KEY}")


async def test_a_destroyed_sandbox_is_not_found(yard: Yard) -> None:
    yard.control_plane.change(state="destroyed")
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    await expect(yard, 404, "NOT_FOUND", f"{yard.toolbox}/x", Authorization=f"Bearer {KEY}")


async def test_a_secret_of_an_earlier_start_is_replaced_by_the_next_request(yard: Yard) -> None:
    yard.control_plane.change(door_secret="old")
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    await expect(yard, 502, "BAD_GATEWAY", f"{yard.toolbox}/x", Authorization=f"Bearer {KEY}")
    yard.control_plane.change(door_secret=SECRET)
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        assert answer.status == 200


async def remember_an_old_secret(yard: Yard) -> None:
    """The proxy's route is of an earlier start, and no hint tells it."""
    yard.control_plane.change(door_secret="old")
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())
    await expect(yard, 404, "NOT_FOUND", f"{yard.toolbox}/_daemon/x", Authorization=f"Bearer {KEY}")
    yard.control_plane.change(door_secret=SECRET)


async def test_a_request_that_meets_a_new_start_is_repeated_with_its_body(yard: Yard) -> None:
    for body in (b"", b"body", bytes(1 << 16)):
        await remember_an_old_secret(yard)
        async with yard.client.post(f"{yard.toolbox}/x", data=body, headers=yard.key) as answer:
            assert answer.status == 200
            assert (await answer.json())["body"].encode() == body[:1000]


async def test_a_websocket_that_meets_a_new_start_is_repeated(yard: Yard) -> None:
    await remember_an_old_secret(yard)
    async with yard.client.ws_connect(f"{yard.toolbox}/proxy/3000/", headers=yard.key) as socket_of_client:
        await socket_of_client.send_str("hello")
        assert await socket_of_client.receive_str() == "hello"


async def test_a_body_too_long_to_keep_is_not_repeated(yard: Yard) -> None:
    await remember_an_old_secret(yard)
    async with yard.client.post(f"{yard.toolbox}/x", data=bytes(1 << 17), headers=yard.key) as answer:
        assert answer.status == 502
    async with yard.client.get(f"{yard.toolbox}/x", headers=yard.key) as answer:
        assert answer.status == 200


async def test_a_door_that_is_no_socket_or_not_there_is_a_502(yard: Yard) -> None:
    other = "11111111-5b5e-4a53-9f6e-3b6f5a0f7a11"
    first = yard.control_plane.routes[0]
    yard.control_plane.routes.append(type(first)(other, first.organization_id, "started", "s", "t2", False, None))
    directory = yard.doors_dir / other
    directory.mkdir(exist_ok=True)
    url = f"{yard.origin}/toolbox/{other}/x"
    assert "does not answer" in await expect(yard, 502, "BAD_GATEWAY", url, Authorization=f"Bearer {KEY}")
    (directory / "door.sock").symlink_to(yard.doors_dir / SANDBOX / "door.sock")
    assert "replaced" in await expect(yard, 502, "BAD_GATEWAY", url, Authorization=f"Bearer {KEY}")
    (directory / "door.sock").unlink()


async def test_a_door_that_is_elsewhere_is_reached_through_the_runner(yard: Yard) -> None:
    elsewhere = "22222222-5b5e-4a53-9f6e-3b6f5a0f7a11"
    first = yard.control_plane.routes[0]
    route = type(first)(elsewhere, first.organization_id, "started", SECRET, "t3", False, "http://runner")
    yard.control_plane.routes.append(route)
    url = f"{yard.origin}/toolbox/{elsewhere}/x"
    assert "runner" in await expect(yard, 502, "BAD_GATEWAY", url, Authorization=f"Bearer {KEY}")
    yard.runner.door = yard.doors_dir / SANDBOX / "door.sock"
    async with yard.client.get(url, headers=yard.key) as answer:
        assert answer.status == 200


async def test_the_control_plane_away_is_a_503(yard: Yard) -> None:
    yard.control_plane.away = True
    await expect(yard, 503, "SERVICE_UNAVAILABLE", f"{yard.origin}/toolbox/new/x", Authorization=f"Bearer {KEY}")


async def test_foreign_hosts_are_refused_everywhere(yard: Yard) -> None:
    for path in ("/api/sandbox", f"/toolbox/{SANDBOX}/x", "/health", "/"):
        await expect(yard, 403, "FORBIDDEN", yard.origin + path, Host="evil.example", Authorization=f"Bearer {KEY}")
    await expect(
        yard, 403, "FORBIDDEN", yard.origin, Host=f"3000-{SANDBOX}.evil.example", X_Daytona_Preview_Token=TOKEN
    )
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await yard.client.ws_connect(f"{yard.origin}/api/socket.io/", headers={"Host": "evil.example"})
    assert refused.value.status == 403


async def test_everything_else_is_the_control_planes_with_an_origin_it_can_believe(yard: Yard) -> None:
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher", "Host": "sandyard.test:88"}
    async with yard.client.get(f"{yard.origin}/api/sandbox/a%2Fb?x=1", headers=headers) as answer:
        seen = await answer.json()
    assert (seen["control_plane"], seen["path"], seen["query"]) == (True, "/api/sandbox/a%2Fb", "x=1")
    told = {name: value for name, value in seen["headers"].items() if name.startswith("x-forwarded")}
    assert told == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "sandyard.test:88",
        "x-forwarded-port": "88",
        "x-forwarded-proto": "http",
    }


async def test_health_tells_version_and_counters(yard: Yard) -> None:
    async with yard.client.get(f"{yard.origin}/health") as answer:
        seen = await answer.json()
    assert (seen["status"], seen["version"]) == ("ok", "1.2.3")
    assert seen["logs"]["followers"] == 0


async def test_garbage_is_not_our_end(yard: Yard) -> None:
    with socket.create_connection(("127.0.0.1", yard.port)) as garbage:
        garbage.sendall(b"\x16\x03\x01 what \r\n\r\n")
        garbage.setblocking(False)
    async with yard.client.get(f"{yard.origin}/health") as answer:
        assert answer.status == 200
