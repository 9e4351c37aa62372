"""Who may ask, how they may address us, and what an error looks like."""

import io
import json
from typing import Any

import pytest

from sandyard_api import errors
from sandyard_api.errors import STATUS, ApiError, BadRequest, ForeignHost
from sandyard_api.origins import Origin, Origins, parse_origin, split_authority
from tests.api.conftest import World, open_world

KEYS = {"statusCode", "message", "code", "source", "error", "path", "method", "timestamp"}


def request(host: str, scheme: str = "http", **headers: str) -> dict[str, Any]:
    pairs = [(b"host", host.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"scheme": scheme, "headers": pairs}


def origins(**changes: Any) -> Origins:
    return Origins(**{"public_url": None, "allowed_hosts": (), "trust_forwarded": False} | changes)


def test_every_error_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ApiError)}
    assert kinds == set(STATUS)


@pytest.mark.parametrize("key", [None, "wrong", "", "eyJhbGciOi.eyJzdWIi.c2ln", "\u00fc"])
async def test_without_a_valid_key_everything_but_the_public_is_401(world: World, key: str | None) -> None:
    for path in ("/sandbox", "/sandbox/x", "/api-keys/current", "/_sandyard/capabilities", "/snapshots"):
        answer = await world.client.call("GET", path, key=key)
        assert (answer.status, answer.json["message"]) == (401, "Invalid credentials")
    for path in ("/config", "/health", "/health/ready"):
        assert (await world.client.call("GET", path, key=key)).status == 200


async def test_the_error_body_has_every_key_the_clients_read(world: World) -> None:
    answer = await world.client.call("GET", "/sandbox/nobody?verbose=true")
    assert set(answer.json) == KEYS
    assert answer.json | {"timestamp": ""} == {
        "statusCode": 404,
        "message": "Sandbox with ID or name nobody not found",
        "code": "NOT_FOUND",
        "source": "DAYTONA_API",
        "error": "Not Found",
        "path": "/api/sandbox/nobody",
        "method": "GET",
        "timestamp": "",
    }
    assert answer.headers["content-type"] == "application/json"


async def test_paths_that_do_not_exist_say_what_was_asked(world: World) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/config", 405),
        ("GET", "/api/sandbox/x/y/z/a", 404),
    ):
        answer = await world.client.call(method, path)
        assert (answer.status, answer.json["message"]) == (status, f"Cannot {method} {answer.json['path']}")
        assert set(answer.json) == KEYS


async def test_clients_of_version_2_are_told(world: World) -> None:
    answer = await world.client.call("GET", "/v2/sandboxes")
    assert answer.status == 404
    assert answer.json["message"].endswith("Here is the API of the 0.x clients; clients of version 2 are not served")


async def test_a_hundred_megabytes_are_refused_and_the_service_goes_on(world: World) -> None:
    answer = await world.client.call("POST", "/sandbox", data=io.BytesIO(b"x" * 100_000_000))
    assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert (await world.client.call("GET", "/health")).status == 200


async def test_an_endless_body_without_a_length_is_refused(world: World) -> None:
    async def endless() -> Any:
        for _ in range(200):
            yield b"x" * 100_000

    headers = {"Authorization": "Bearer sy_test-key-of-the-owner"}
    async with world.client.session.post(f"{world.client.url}/api/sandbox", data=endless(), headers=headers) as answer:
        assert answer.status == 413


async def test_any_page_may_ask_with_its_own_key(world: World) -> None:
    asked = "authorization,content-type,x-daytona-sdk-version"
    headers = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    preflight = await world.client.call("OPTIONS", "/sandbox", key=None, headers=headers)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"] == asked
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    for path, status in (("/config", 200), ("/sandbox/x", 404), ("/volumes", 200)):
        answer = await world.client.call("GET", path, headers={"Origin": "http://localhost:5173"})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "*")
        assert "access-control-allow-credentials" not in answer.headers


async def test_options_without_a_preflight_names_the_methods_of_the_path(world: World) -> None:
    for path, methods in (("/volumes", "GET, OPTIONS, POST"), ("/volumes/by-name/x", "GET, OPTIONS")):
        answer = await world.client.call("OPTIONS", path)
        assert (answer.status, answer.headers["allow"], answer.body) == (204, methods, b"")
        assert (await world.client.call("OPTIONS", path, key=None)).status == 401
    assert (await world.client.call("OPTIONS", "/nothing")).status == 404


async def test_a_foreign_host_is_refused_before_anything_else(world: World) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "8.8.8.8:3986"):
        answer = await world.client.call("GET", "/config", headers={"Host": host})
        assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")


async def test_a_service_name_works_where_a_setting_allows_it(tmp_path: object) -> None:
    async with open_world(f"sqlite:///{tmp_path}/test.db", allowed_hosts=("sandyard",)) as world:
        answer = await world.client.call("GET", "/config", headers={"Host": "Sandyard:3986"})
    assert answer.json["proxyToolboxUrl"] == "http://sandyard:3986/toolbox"
    assert answer.json["proxyTemplateUrl"] == "http://{{PORT}}-{{sandboxId}}.sandyard:3986"


async def test_a_changed_key_replaces_the_old_one(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    async with open_world(url) as world:
        first = await world.client.call("GET", "/api-keys/current")
    async with open_world(url, api_key="another-key") as world:
        assert (await world.client.call("GET", "/api-keys/current")).status == 401
        second = await world.client.call("GET", "/api-keys/current", key="another-key")
    assert second.json["organizationId"] == first.json["organizationId"]
    assert second.json["value"] == "ano" + "*" * 20 + "key"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request("127.0.0.1:3986"), "http://127.0.0.1:3986"),
        (request("LocalHost"), "http://localhost"),
        (request("[::1]:3986"), "http://[::1]:3986"),
        (request("3000-abc.localhost:3986"), "http://3000-abc.localhost:3986"),
        (request("localhost", "wss"), "https://localhost"),
        (request("localhost:1", x_forwarded_host="evil.example", x_forwarded_proto="https"), "http://localhost:1"),
    ],
)
def test_urls_follow_the_host_of_the_request(asked: dict[str, Any], expected: str) -> None:
    assert origins().of(asked).url == expected


@pytest.mark.parametrize("host", ["", "a b", "user@localhost", "localhost/x", "localhost:port", "[::1", "localhost?x"])
def test_hosts_that_are_no_hosts_are_refused(host: str) -> None:
    with pytest.raises((BadRequest, ForeignHost)):
        origins().of(request(host))


def test_forwarded_headers_count_where_they_are_trusted() -> None:
    trusting = origins(trust_forwarded=True, allowed_hosts=["yard.example"])
    asked = request("10.0.0.2:3985", x_forwarded_host="yard.example", x_forwarded_proto="https")
    assert trusting.of(asked).url == "https://yard.example"
    asked = request("x", x_forwarded_host="yard.example", x_forwarded_proto="https", x_forwarded_port="8443")
    assert trusting.of(asked).url == "https://yard.example:8443"
    with pytest.raises(ForeignHost):
        trusting.of(request("localhost", x_forwarded_host="evil.example"))


def test_a_public_url_wins_and_its_host_is_ours() -> None:
    fixed = origins(public_url="https://yard.example/")
    assert fixed.of(request("127.0.0.1:3986")).url == "https://yard.example"
    assert fixed.of(request("yard.example")).url == "https://yard.example"
    with pytest.raises(ValueError, match="not an http or https URL"):
        parse_origin("yard.example")


def test_previews_of_a_loopback_address_live_under_localhost() -> None:
    for authority in ("127.0.0.1:3986", "[::1]:3986", "localhost:3986"):
        assert Origin("http", authority).preview_url("abc", 3000) == "http://3000-abc.localhost:3986"
    assert Origin("https", "yard.example").preview_url("abc", 80) == "https://80-abc.yard.example"
    assert split_authority("[::1]:80") == ("::1", ":80")


async def test_answers_are_json_without_surprises(world: World) -> None:
    answer = await world.client.call("GET", "/config")
    assert json.loads(answer.body)["maintananceMode"] is False
    assert "server" not in answer.headers
