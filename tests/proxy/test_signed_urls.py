"""Signed file URLs at the proxy: they open one file, one way, until their time, and nothing else."""

import asyncio
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace
from yarl import URL

from sandyard_api.jobs.wire import CHANNEL_ROUTES
from sandyard_proxy.asgi import Scope
from sandyard_proxy.destinations import Destination, Mount
from sandyard_proxy.signed_urls import read_signed_url
from tests.contract.signing import signed_query
from tests.proxy.conftest import Yard
from tests.proxy.doubles import KEY, SANDBOX, TOKEN

SIGNING_KEY = "sk_test"
DOWNLOAD, UPLOAD = "/files/download", "/files/upload-v2"


def ask(yard: Yard, method: str, path: str, query: str, key: str = SANDBOX, **headers: str) -> Any:
    """A request with nothing but its URL, unless told otherwise."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(f"{yard.origin}/toolbox/{key}{path}?{query}", encoded=True)
    return yard.client.request(method, url, headers=named, data=b"x" if method == "POST" else None)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("method", "path", "signed"), [("GET", DOWNLOAD, "GET"), ("HEAD", DOWNLOAD, "GET"), ("POST", UPLOAD, "POST")]
)
async def test_a_signed_url_needs_no_other_credential(yard: Yard, method: str, path: str, signed: str) -> None:
    for name in ("/home/daytona/a b.txt", "out/ü+&=%.txt", "x"):
        for expires in (0, int(time.time()) + 60):
            async with ask(yard, method, path, signed_query(SIGNING_KEY, signed, name, expires)) as answer:
                assert answer.status == 200, name


@pytest.mark.parametrize(
    ("method", "path", "is_asked_again"),
    [
        ("POST", f"/api/sandbox/{SANDBOX}/signing-key", True),
        ("DELETE", f"/api/sandbox/{SANDBOX}", True),
        ("PATCH", "/api/sandbox/my%20box/labels", True),
        ("POST", "/api/sandbox/another/signing-key", False),
        ("POST", "/api/sandbox", False),
        ("GET", f"/api/sandbox/{SANDBOX}", False),
    ],
)
async def test_what_was_changed_through_the_proxy_is_asked_for_again_before_any_hint(
    yard: Yard, method: str, path: str, is_asked_again: bool
) -> None:
    yard.control_plane.routes = [replace(route, name="my box") for route in yard.control_plane.routes]
    query = signed_query(SIGNING_KEY, "GET", "x", 0)
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert answer.status == 200
    rotated = [replace(route, signing_key="sk_rotated") for route in yard.control_plane.routes]
    yard.control_plane.routes = rotated
    async with yard.client.request(method, URL(yard.origin + path, encoded=True), headers=yard.key) as answer:
        await answer.read()
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert (answer.status != 200) == is_asked_again


async def test_a_key_that_was_revoked_through_the_proxy_opens_nothing_before_any_hint(yard: Yard) -> None:
    async with yard.client.get(f"{yard.toolbox}/version", headers=yard.key) as answer:
        assert answer.status == 200
    yard.control_plane.grants.clear()
    async with yard.client.delete(f"{yard.origin}/api/api-keys/mine", headers=yard.key) as answer:
        await answer.read()
    async with yard.client.get(f"{yard.toolbox}/version", headers=yard.key) as answer:
        assert answer.status == 401


async def test_the_query_reaches_the_daemon_as_it_was_written(yard: Yard) -> None:
    query = signed_query(SIGNING_KEY, "GET", "a b", 0)
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert (await answer.json())["query"] == query


@pytest.mark.parametrize(
    "query",
    [
        signed_query("sk_other", "GET", "x", 0),
        signed_query(SIGNING_KEY, "POST", "x", 0),
        signed_query(SIGNING_KEY, "GET", "x", 1),
        signed_query(SIGNING_KEY, "GET", "x", 0).replace("path=x", "path=y"),
        signed_query(SIGNING_KEY, "GET", "x", 1).replace("expires=1", "expires=0"),
        signed_query(SIGNING_KEY, "GET", "x", 0) + "&path=y",
        "path=y&" + signed_query(SIGNING_KEY, "GET", "x", 0),
        signed_query(SIGNING_KEY, "GET", "x", 0) + "&expires=0",
        signed_query(SIGNING_KEY, "GET", "x", 0) + "&signature=",
        signed_query(SIGNING_KEY, "GET", "�", 0).replace("%EF%BF%BD", "%FF"),
        "path=x&signature=" + signed_query(SIGNING_KEY, "GET", "x", 0).partition("signature=")[2],
        urlencode({"path": "x", "expires": "-1", "signature": "v1_x"}),
        urlencode({"path": "x", "expires": "soon", "signature": "v1_x"}),
        "path=x&expires=0&signature=",
        "path=x&expires=0&signature=%FF%FE",
    ],
)
async def test_what_was_not_signed_so_is_refused(yard: Yard, query: str) -> None:
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "FORBIDDEN")


async def test_a_signature_opens_nothing_else(yard: Yard) -> None:
    for method, path in (("GET", "/files"), ("GET", "/files/info"), ("DELETE", "/files"), ("POST", "/process/execute")):
        async with ask(yard, method, path, signed_query(SIGNING_KEY, method, "x", 0)) as answer:
            assert answer.status == 401, path
    query = signed_query(SIGNING_KEY, "GET", "x", 0)
    for path in ("/files/../files/info", "/files/download/", "/files%2Fdownload", "//files/download"):
        async with ask(yard, "GET", path, query) as answer:
            assert answer.status in (401, 404), path
    for key in ("unknown", TOKEN):
        async with ask(yard, "GET", DOWNLOAD, query, key=key) as answer:
            assert answer.status == 403, key


async def test_no_signature_holds_for_a_sandbox_without_a_key(yard: Yard) -> None:
    yard.control_plane.change(signing_key="")
    async with ask(yard, "GET", DOWNLOAD, signed_query("", "GET", "x", 0)) as answer:
        assert answer.status == 403


async def test_a_rotated_key_is_refused_at_once(yard: Yard) -> None:
    query = signed_query(SIGNING_KEY, "GET", "x", 0)
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert answer.status == 200
    yard.control_plane.change(signing_key="sk_new")
    await yard.bus.publish(CHANNEL_ROUTES, SANDBOX.encode())

    for _ in range(500):
        async with ask(yard, "GET", DOWNLOAD, query) as answer:
            if answer.status == 403:
                return
        await asyncio.sleep(0.01)
    raise AssertionError("the old key still opens it")


async def test_a_key_that_was_made_just_now_is_asked_for(yard: Yard) -> None:
    query = signed_query(SIGNING_KEY, "GET", "x", 0)
    yard.control_plane.change(signing_key="")
    async with ask(yard, "GET", DOWNLOAD, signed_query("sk_x", "GET", "x", 0)) as answer:
        assert answer.status == 403
    yard.control_plane.change(signing_key=SIGNING_KEY)
    async with ask(yard, "GET", DOWNLOAD, query) as answer:
        assert answer.status == 200


async def test_other_credentials_win_over_a_signature(yard: Yard) -> None:
    query = urlencode({"path": "x", "expires": 0, "signature": "v1_wrong"})
    async with ask(yard, "GET", DOWNLOAD, query, Authorization=f"Bearer {KEY}") as answer:
        assert answer.status == 200
    async with ask(yard, "GET", DOWNLOAD, query, X_Daytona_Preview_Token=TOKEN) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "expires", "signature"),
    [
        ("GET", "/home/daytona/a b.txt", 1700000000, "v1_Aqpswd_vXWsq00qg2j__CrcZMPh4X_K9Lm45mnP1EGk"),
        ("POST", "out/x.txt", 0, "v1_J2EJZtsWQojm-gchjT3tgOEqqzJJCQjnnGmC1GM3v8o"),
    ],
)
async def test_the_vectors_of_the_contract(method: str, path: str, expires: int, signature: str) -> None:
    query = urlencode({"path": path, "expires": expires, "signature": signature})
    target = DOWNLOAD if method == "GET" else UPLOAD
    scope: Scope = {"type": "http", "method": method, "query_string": query.encode()}
    url = read_signed_url(scope, Destination(Mount.TOOLBOX, SANDBOX, target.encode()))
    assert url is not None
    assert url.holds("sk_test", 1)
    assert not url.holds("sk_tesu", 1)
    assert url.holds("sk_test", 1_700_000_000) == (expires == 0)
