"""The object storage as a real S3 client uses it, what its credentials are good for, and what it refuses."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import daytona_api_client as client
import pytest

from sandyard.clock import ManualClock
from sandyard.virtual_clock import VirtualClock
from sandyard_api.origins import Origin
from sandyard_api.storage.chunked import MalformedChunks, chunks_of
from sandyard_api.storage.routes import storage_url
from tests.api.conftest import World, open_world
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]

obstore = pytest.importorskip("obstore", reason="comes with the newest Python SDK")
S3Store = pytest.importorskip("obstore.store").S3Store


@pytest.fixture
async def storing(tmp_path: Path) -> AsyncIterator[World]:
    """A control plane with a small object storage."""
    limits: dict[str, Any] = {"storage_max_bytes": 24 << 20, "storage_max_object_bytes": 16 << 20}
    database = f"sqlite:///{tmp_path / 'test.db'}"
    async with open_world(database, storage_dir=tmp_path / "objects", **limits) as world:
        await world.runner.beat()
        yield world


async def access(world: World) -> dict[str, Any]:
    answer = await world.client.call("GET", "/object-storage/push-access")
    assert answer.status == 200, answer.body
    given: dict[str, Any] = answer.json
    return given


def store(given: dict[str, Any], **changes: Any) -> Any:
    """What the Python SDK opens, but for plain http, which it cannot be told to take."""
    config = {
        "access_key_id": given["accessKey"],
        "secret_access_key": given["secret"],
        "session_token": given["sessionToken"],
    } | changes
    return S3Store(
        given["bucket"],
        endpoint=given["storageUrl"],
        region=given["region"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
        **config,
    )


async def test_the_answer_fits_the_description(storing: World, description: dict[str, Any]) -> None:
    given = await access(storing)
    check_schema(description, "StorageAccessDto", given)
    assert client.StorageAccessDto.from_dict(given) is not None
    assert given["storageUrl"] == storing.client.url


async def test_a_context_is_put_in_parts_found_listed_and_used(storing: World) -> None:
    given = await access(storing)
    opened, key = store(given), f"{given['organizationId']}/0123abcd/context.tar"
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(opened, key)
    content = bytes(range(256)) * (45 << 10)  # 11 MiB: three parts
    await obstore.put_async(opened, key, content, use_multipart=True, chunk_size=5 << 20)
    assert (await obstore.head_async(opened, key))["size"] == len(content)
    listing = obstore.list(opened, given["organizationId"])
    listed = [item["path"] async for batch in listing for item in batch]
    assert listed == [key]
    got = await (await obstore.get_async(opened, key)).bytes_async()
    assert hashlib.sha256(bytes(got)).digest() == hashlib.sha256(content).digest()
    await obstore.put_async(opened, f"{given['organizationId']}/small/context.tar", b"tiny", use_multipart=False)
    build = {"dockerfileContent": "FROM x\nCOPY a b\n", "contextHashes": ["0123abcd", "small"]}
    made = await storing.client.call("POST", "/snapshots", {"name": "s", "buildInfo": build})
    assert made.status == 200, made.body
    target = Path(storing.internal_socket).with_name("context.tar")
    await storing.internal.fetch_context(given["organizationId"], "0123abcd", target)
    assert await asyncio.to_thread(target.read_bytes) == content
    absent = build | {"contextHashes": ["nowhere"]}
    for path, body in (("/snapshots", {"name": "t"}), ("/sandbox", {})):
        answer = await storing.client.call("POST", path, {**body, "buildInfo": absent})
        assert (answer.status, answer.json["message"]) == (
            400,
            "Build context nowhere was not found in the object storage",
        )


async def test_credentials_are_good_for_their_own_organization_and_for_nothing_forged(storing: World) -> None:
    given = await access(storing)
    own = f"{given['organizationId']}/hash/context.tar"
    forged = (
        (store(given, secret_access_key="x" * 40), own, "SignatureDoesNotMatch"),
        (store(given, session_token="forged"), own, "ExpiredToken"),
        (store(given, access_key_id="SYOTHER"), own, "ExpiredToken"),
        (store(given), "another-organization/hash/context.tar", "AccessDenied"),
        (store(given), f"{given['organizationId']}/hash/other.bin", "AccessDenied"),
    )
    for opened, key, code in forged:
        with pytest.raises(Exception, match=code):
            await obstore.put_async(opened, key, b"x", use_multipart=False)
    plain = await storing.client.session.get(f"{storing.client.url}/{given['bucket']}/{own}")
    assert plain.status == 403
    assert b"AccessDenied" in await plain.read()


async def test_credentials_end_after_an_hour(tmp_path: Path) -> None:
    clock = ManualClock()
    database = f"sqlite:///{tmp_path / 'test.db'}"
    async with open_world(database, clock=clock, timer_seconds=1e9, storage_dir=tmp_path / "objects") as world:
        given = await access(world)
        await clock.advance(timedelta(minutes=61).total_seconds())
        with pytest.raises(Exception, match="ExpiredToken"):
            await obstore.put_async(store(given), f"{given['organizationId']}/h/context.tar", b"x", use_multipart=False)


async def test_it_is_bounded(storing: World) -> None:
    given = await access(storing)
    opened, organization = store(given), given["organizationId"]
    with pytest.raises(Exception, match="EntityTooLarge"):
        await obstore.put_async(opened, f"{organization}/big/context.tar", bytes(17 << 20), use_multipart=False)
    with pytest.raises(FileNotFoundError):
        await obstore.head_async(opened, f"{organization}/big/context.tar")
    for number in range(2):
        await obstore.put_async(opened, f"{organization}/h{number}/context.tar", bytes(15 << 20), use_multipart=False)
    with pytest.raises(Exception, match="EntityTooLarge"):
        await obstore.put_async(opened, f"{organization}/h3/context.tar", b"x", use_multipart=False)


async def test_a_context_that_nothing_refers_to_goes_a_day_after_it_was_last_looked_at(tmp_path: Path) -> None:
    clock, hour = VirtualClock(), timedelta(hours=1)
    settings: dict[str, Any] = {"clock": clock, "timer_seconds": 1e9, "storage_dir": tmp_path / "objects"}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", **settings) as world:
        await world.runner.beat()
        look = world.plane.timers.look

        async def names() -> list[str]:
            folder = tmp_path / "objects"
            return await asyncio.to_thread(lambda: sorted(path.parent.name for path in folder.glob("*/*/context.tar")))

        opened, organization = (lambda given: (store(given), given["organizationId"]))(await access(world))
        for name in ("used", "looked-at", "forgotten"):
            await obstore.put_async(opened, f"{organization}/{name}/context.tar", b"x", use_multipart=False)
        build = {"dockerfileContent": "FROM x\nCOPY a b\n", "contextHashes": ["used"]}
        made = await world.client.call("POST", "/snapshots", {"name": "s", "buildInfo": build})
        assert made.status == 200, made.body
        clock.run_from(clock.now() + 23 * hour)
        await look()
        assert await names() == ["forgotten", "looked-at", "used"]
        again = store(await access(world))
        await obstore.head_async(again, f"{organization}/looked-at/context.tar")
        clock.run_from(clock.now() + 2 * hour)
        await look()
        assert await names() == ["looked-at", "used"]
        clock.run_from(clock.now() + 25 * hour)
        await look()
        assert await names() == ["used"]
        assert (await world.client.call("DELETE", f"/snapshots/{made.json['id']}")).status == 200
        clock.run_from(clock.now() + 1 * hour)
        await look()
        assert await names() == []


async def test_what_nothing_refers_to_makes_room_in_a_full_storage(tmp_path: Path) -> None:
    clock = VirtualClock()
    settings: dict[str, Any] = {"clock": clock, "timer_seconds": 1e9, "storage_max_bytes": 3 << 20}
    database = f"sqlite:///{tmp_path / 'test.db'}"
    async with open_world(database, storage_dir=tmp_path / "objects", **settings) as world:
        given = await access(world)
        organization = given["organizationId"]
        for name in ("one", "two"):
            key = f"{organization}/{name}/context.tar"
            await obstore.put_async(store(given), key, bytes(2 << 20), use_multipart=False)
        with pytest.raises(Exception, match="EntityTooLarge"):
            await obstore.put_async(store(given), f"{organization}/three/context.tar", b"x", use_multipart=False)
        clock.run_from(clock.now() + timedelta(hours=2))
        later = store(await access(world))
        await obstore.put_async(later, f"{organization}/three/context.tar", b"x", use_multipart=False)
        for name in ("one", "two"):
            with pytest.raises(FileNotFoundError):
                await obstore.head_async(later, f"{organization}/{name}/context.tar")


async def test_without_a_place_for_objects_there_is_no_storage(world: World) -> None:
    answer = await world.client.call("GET", "/object-storage/push-access")
    assert (answer.status, answer.json["message"]) == (503, "Object storage is not configured")
    refused = await world.client.session.get(f"{world.client.url}/sandyard-contexts/a/b/context.tar")
    assert refused.status == 503


async def test_the_python_sdk_is_sent_to_https_or_told_what_to_run(storing: World) -> None:
    headers = {"X-Daytona-Source": "sdk-python"}
    answer = await storing.client.call("GET", "/object-storage/push-access", headers=headers)
    assert answer.status == 503
    assert "Run `sandyard trust` once" in answer.json["message"]
    local = Origin("http", "localhost:3986")
    assert storage_url(local, 4000, "sdk-python-async") == "https://127.0.0.1:4000"
    assert storage_url(local, 4000, "sdk-typescript") == "http://127.0.0.1:3986"
    assert storage_url(Origin("https", "box.example.com"), None, "sdk-python") == "https://box.example.com"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_aws_chunked_bodies_lose_their_framing_wherever_they_are_cut() -> None:
    framed = (
        b"5\r\nhello\r\n6;chunk-signature=" + b"a" * 64 + b"\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    )
    for size in (1, 3, len(framed)):
        parts = [framed[start : start + size] for start in range(0, len(framed), size)]
        assert b"".join([chunk async for chunk in chunks_of(pieces(*parts), None, "")]) == b"hello world"
    for broken in (b"zz\r\n", b"5\r\nhel", b"5\r\nhelloXX0\r\n\r\n", b"fffffffff\r\n"):
        with pytest.raises(MalformedChunks):
            [chunk async for chunk in chunks_of(pieces(broken), None, "")]
    signed = b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n"
    with pytest.raises(MalformedChunks, match="signature"):
        [chunk async for chunk in chunks_of(pieces(signed), lambda before, chunk: "1" * 64, "seed")]


async def test_credentials_need_a_permission_that_contexts_are_for(storing: World) -> None:
    for permission, status in (("write:snapshots", 200), ("write:sandboxes", 200), ("write:volumes", 403)):
        key = await storing.client.call("POST", "/api-keys", {"name": permission, "permissions": [permission]})
        answer = await storing.client.call("GET", "/object-storage/push-access", key=key.json["value"])
        assert answer.status == status, permission
