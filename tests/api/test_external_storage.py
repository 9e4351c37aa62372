"""Build contexts in another object storage: that of a second control plane, whose S3 checks every signature."""

import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from aiohttp import web
from msgspec.structs import replace

from sandyard.clock import ManualClock, SystemClock
from sandyard.ids import SeededIds
from sandyard_api.errors import Unavailable
from sandyard_api.jobs.client import UnknownContext
from sandyard_api.storage.external import ExternalStorage
from sandyard_api.storage.s3_options import S3Options
from sandyard_api.storage.signature import SignedRequest, Signer, payload_hash, sign
from tests.api.conftest import World, open_world
from tests.api.test_object_storage import access, obstore, store

SEED = 7
"""Of both: then they have the same organization, and the keys of the one are in the other's own part."""


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[World]:
    """Whose storage is used."""
    folder = tmp_path / "elsewhere"
    async with open_world(f"sqlite:///{tmp_path / 'other.db'}", ids=SeededIds(SEED), storage_dir=folder) as opened:
        yield opened


async def options_for(other: World, **changes: Any) -> S3Options:
    given = await access(other)
    options = S3Options(
        endpoint=given["storageUrl"],
        bucket=given["bucket"],
        region=given["region"],
        access_key=given["accessKey"],
        secret_key=given["secret"],
        session_token=given["sessionToken"],
    )
    return replace(options, **changes)


async def open_with(tmp_path: Path, options: S3Options) -> Any:
    return open_world(
        f"sqlite:///{tmp_path / 'test.db'}",
        ids=SeededIds(SEED),
        storage_dir=tmp_path / "objects",
        external_storage=options,
    )


async def test_contexts_are_uploaded_to_it_found_and_read_from_it(tmp_path: Path, other: World) -> None:
    options = await options_for(other)
    async with await open_with(tmp_path, options) as world:
        await world.runner.beat()
        given = await access(world)
        assert (given["storageUrl"], given["bucket"]) == (options.endpoint, options.bucket)
        key, content = f"{given['organizationId']}/there/context.tar", bytes(range(256)) * 20_000
        await obstore.put_async(store(given), key, content, use_multipart=False)
        build = {"dockerfileContent": "FROM x\nCOPY a b\n", "contextHashes": ["there"]}
        made = await world.client.call("POST", "/snapshots", {"name": "s", "buildInfo": build})
        assert made.status == 200, made.body
        await world.internal.fetch_context(given["organizationId"], "there", tmp_path / "context.tar")
        assert (tmp_path / "context.tar").read_bytes() == content
        with pytest.raises(UnknownContext):
            await world.internal.fetch_context(given["organizationId"], "absent", tmp_path / "absent.tar")
        for missing in ("absent", "not/a hash"):
            absent = await world.client.call(
                "POST", "/snapshots", {"name": "t", "buildInfo": build | {"contextHashes": [missing]}}
            )
            assert absent.status == 400
            assert absent.json["message"] == f"Build context {missing} was not found in the object storage"
        embedded = await world.client.session.get(f"{world.client.url}/sandyard-contexts/{key}")
        assert embedded.status == 503
    assert not (tmp_path / "objects").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret_key": "wrong"}, "refuses SANDYARD_S3_ACCESS_KEY: SignatureDoesNotMatch"),
        ({"access_key": "UNKNOWN"}, "refuses SANDYARD_S3_ACCESS_KEY: ExpiredToken"),
        ({"bucket": "no-such-bucket"}, "has no bucket no-such-bucket"),
        ({"endpoint": "unreachable"}, "cannot be reached: "),
    ],
)
async def test_what_is_wrong_with_it_is_said_at_once(
    tmp_path: Path, other: World, changes: dict[str, str], words: str
) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there, and nobody else is given the port
        taken.bind(("127.0.0.1", 0))
        if changes.get("endpoint"):
            changes = {"endpoint": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        async with await open_with(tmp_path, await options_for(other, **changes)) as world:
            await world.runner.beat()
            build = {"dockerfileContent": "FROM x\nCOPY a b\n", "contextHashes": ["hash"]}
            asked = await world.client.call("GET", "/object-storage/push-access")
            made = await world.client.call("POST", "/snapshots", {"name": "s", "buildInfo": build})
            for answer in (asked, made):
                assert answer.status == 503
                assert words in answer.json["message"]


async def test_the_python_sdk_is_told_that_it_cannot_upload_over_http(tmp_path: Path, other: World) -> None:
    async with await open_with(tmp_path, await options_for(other)) as world:
        headers = {"X-Daytona-Source": "sdk-python"}
        answer = await world.client.call("GET", "/object-storage/push-access", headers=headers)
        assert answer.status == 503
        assert "uploads local files over https only" in answer.json["message"]
        assert "(SANDYARD_S3_ENDPOINT)" in answer.json["message"]


async def test_a_role_gives_clients_credentials_of_their_own() -> None:
    asked: list[dict[str, list[str]]] = []
    verdicts = [200, 403]

    async def assume(request: web.Request) -> web.Response:
        asked.append(parse_qs(await request.text()))
        assert "/us-east-1/sts/aws4_request" in request.headers["Authorization"]
        keys = "<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        if (status := verdicts.pop(0)) != 200:
            return web.Response(status=status, text="<Error><Code>AccessDenied</Code></Error>")
        return web.Response(text=f"<AssumeRoleResponse><Credentials>{keys}</Credentials></AssumeRoleResponse>")

    app = web.Application()
    app.router.add_post("/", assume)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        options = S3Options(endpoint, "box", "us-east-1", "KEY", "secret", role_arn="arn:aws:iam::1:role/uploads")
        storage = ExternalStorage(options, SystemClock())
        given = await storage.credentials("org-1")
        assert (given.access_key, given.secret, given.session_token) == ("ROLE", "s", "t")
        assert asked[0]["RoleArn"] == ["arn:aws:iam::1:role/uploads"]
        policy = json.loads(unquote(asked[0]["Policy"][0]))
        assert policy["Statement"][0]["Resource"] == ["arn:aws:s3:::box/org-1/*"]
        with pytest.raises(Unavailable, match=r"SANDYARD_S3_ROLE_ARN cannot be assumed at .*: AccessDenied"):
            await storage.credentials("org-1")
    finally:
        await runner.cleanup()


def test_signatures_are_those_of_the_published_example() -> None:
    """*Source:* Amazon S3 API reference, "Signature calculations for the Authorization header", GET object."""
    request = SignedRequest(
        "GET",
        "/test.txt",
        b"",
        {
            "host": "examplebucket.s3.amazonaws.com",
            "range": "bytes=0-9",
            "x-amz-content-sha256": payload_hash(b""),
        },
    )
    signer = Signer("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", "s3")
    signed = sign(request, signer, ManualClock(datetime(2013, 5, 24, tzinfo=UTC)).now())
    expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    assert signed["authorization"].endswith(f"Signature={expected}")
