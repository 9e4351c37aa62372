"""Our own registry as engines use it, what its logins are good for, what it refuses, and what goes again."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import daytona_api_client as client
import pytest
from aiohttp import encode_basic_auth

from sandyard.clock import ManualClock
from sandyard.hosts import HostRules
from sandyard.virtual_clock import VirtualClock
from sandyard_api.image_registry.credentials import ImageKeys, Scope
from sandyard_api.image_registry.names import references
from sandyard_api.image_registry.routes import registry_url
from sandyard_api.image_registry.service import ImageRegistry
from sandyard_api.image_registry.store import ImageStore
from sandyard_api.image_registry.uploads import WrongDigest
from sandyard_api.jobs.wire import Heartbeat, ImageSource
from sandyard_api.origins import Origin
from sandyard_api.sealing.service import Seal
from sandyard_api.storage.credentials import StorageKeys
from tests.api.conftest import ENCRYPTION_KEY, World, open_world
from tests.api.doubles import RUNNER_ID
from tests.api.image_client import MANIFEST, OCI_INDEX, OCI_MANIFEST, ImageClient, digest_of, refusal
from tests.api.test_coverage import check_schema, description

__all__ = ["description"]

LAYER = bytes(range(256)) * (20 << 10)  # 5 MiB
NOBODYS = f"sha256:{'0' * 64}"
PUSH_ACCESS = "/docker-registry/registry-push-access"


@pytest.fixture
async def pushing(tmp_path: Path) -> AsyncIterator[ImageClient]:
    """Somebody with a login at a registry of 32 MiB."""
    limits: dict[str, Any] = {"registry_dir": tmp_path / "registry", "registry_max_bytes": 32 << 20}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", **limits) as world:
        await world.runner.beat()
        yield await ImageClient.open(world)


def files(folder: Path) -> list[str]:
    """The stored files, blobs by the beginning of their digest."""
    found = [path for path in (folder / "registry").rglob("*") if path.is_file() and path.name != ".lock"]
    return sorted(f"{path.parent.name}/{path.name[:12]}" for path in found)


async def unannounced(size: int) -> AsyncIterator[bytes]:
    """A body whose length is not told before."""
    for _ in range(size >> 20):
        yield bytes(1 << 20)


async def test_push_access_fits_the_description(pushing: ImageClient, description: dict[str, Any]) -> None:
    world = pushing.world
    given = await world.client.call("GET", f"{PUSH_ACCESS}?regionId=local")
    check_schema(description, "RegistryPushAccessDto", given.json)
    assert client.RegistryPushAccessDto.from_dict(given.json) is not None
    assert given.json["registryUrl"] == world.client.url.removeprefix("http://")
    elsewhere = await world.client.call("GET", f"{PUSH_ACCESS}?regionId=moon")
    assert (elsewhere.status, elsewhere.json["message"]) == (404, "Region not found")
    for permissions, status in ((["write:snapshots"], 200), (["write:sandboxes"], 200), (["write:registries"], 403)):
        key = await world.client.call("POST", "/api-keys", {"name": permissions[0], "permissions": permissions})
        answer = await world.client.call("GET", PUSH_ACCESS, key=key.json["value"])
        assert answer.status == status, permissions


async def test_where_no_runner_takes_images_nobody_pushes_one(pushing: ImageClient) -> None:
    table = {"images": {"enforcement": "refused", "detail": "sandboxes show this machine's own programs"}}
    await pushing.world.internal.heartbeat(RUNNER_ID, Heartbeat("unix:/nowhere", "scripted", table))
    answer = await pushing.world.client.call("GET", PUSH_ACCESS)
    assert answer.status == 422
    assert answer.json["message"] == "Images cannot be used: sandboxes show this machine's own programs"


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (Origin("http", "localhost:3986"), "127.0.0.1:3986"),
        (Origin("https", "box.example.com"), "box.example.com"),
        (Origin("https", "box"), "box:443"),
        (Origin("http", "sandyard"), "sandyard:80"),
        (Origin("http", "[::1]:3986"), "[::1]:3986"),
    ],
)
def test_the_registrys_name_is_one_that_engines_take_for_a_registry(origin: Origin, url: str) -> None:
    assert registry_url(origin) == url


async def test_an_image_is_pushed_and_pulled(pushing: ImageClient, tmp_path: Path) -> None:
    assert (await pushing.call("GET", "/v2/")).json == {}
    manifest, put = await pushing.push("team/app:1.0", LAYER, media_type=OCI_MANIFEST)
    assert (put.status, put.headers["docker-content-digest"]) == (201, digest_of(manifest))
    for reference in ("1.0", digest_of(manifest)):
        got = await pushing.call("GET", f"team/app/manifests/{reference}")
        told = await pushing.call("HEAD", f"team/app/manifests/{reference}")
        assert (got.status, got.body, got.headers["content-type"]) == (200, manifest, OCI_MANIFEST)
        assert (told.status, told.headers["content-length"]) == (200, str(len(manifest)))
        assert told.headers["docker-content-digest"] == digest_of(manifest)
    blob = f"team/app/blobs/{digest_of(LAYER)}"
    told = await pushing.call("HEAD", blob)
    assert (told.headers["content-length"], told.headers["accept-ranges"]) == (str(len(LAYER)), "bytes")
    assert (await pushing.call("GET", blob)).body == LAYER
    for asked, part in (("5-9", LAYER[5:10]), ("-7", LAYER[-7:]), (f"{len(LAYER) - 3}-", LAYER[-3:])):
        got = await pushing.call("GET", blob, Range=f"bytes={asked}")
        assert (got.status, got.body) == (206, part), asked
    assert (await pushing.call("GET", blob, Range="bytes=5-9")).headers["content-range"] == f"bytes 5-9/{len(LAYER)}"
    assert (await pushing.call("GET", blob, Range="bytes=0-1,4-5")).status == 200
    beyond = await pushing.call("GET", blob, Range=f"bytes={len(LAYER)}-")
    assert (refusal(beyond), beyond.headers["content-range"]) == ((416, "SIZE_INVALID"), f"bytes */{len(LAYER)}")
    assert len(await asyncio.to_thread(files, tmp_path)) == 4, "two blobs, a manifest, a tag, and no upload"


async def test_layers_that_are_there_are_not_sent_again(pushing: ImageClient) -> None:
    await pushing.push("one:1", LAYER)
    assert await pushing.exists(f"two/blobs/{digest_of(LAYER)}"), "what one repository has, the others have"
    for source in (f"&from={pushing.project}/one", ""):
        mounted = await pushing.call("POST", f"two/blobs/uploads/?mount={digest_of(LAYER)}{source}")
        assert (mounted.status, mounted.headers["docker-content-digest"]) == (201, digest_of(LAYER))
    for wanted in (f"{digest_of(LAYER)}&from=somebody/else", f"{NOBODYS}&from={pushing.project}/one"):
        begun = await pushing.call("POST", f"two/blobs/uploads/?mount={wanted}")
        assert begun.status == 202
        assert (await pushing.call("DELETE", begun.headers["location"])).status == 204
        assert refusal(await pushing.call("GET", begun.headers["location"])) == (404, "BLOB_UPLOAD_UNKNOWN")
    whole = await pushing.call("POST", f"two/blobs/uploads/?digest={digest_of(b'whole')}", b"whole")
    assert (whole.status, whole.headers["docker-content-digest"]) == (201, digest_of(b"whole"))


async def test_an_index_of_images_is_kept_with_them(pushing: ImageClient) -> None:
    manifest, _ = await pushing.push("multi", b"for one machine")
    entries = [{"mediaType": MANIFEST, "size": len(manifest), "digest": digest_of(manifest)}]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    assert (await pushing.call("PUT", "multi/manifests/all", index, Content_Type=OCI_INDEX)).status == 201
    assert (await pushing.call("GET", "multi/manifests/all")).headers["content-type"] == OCI_INDEX
    elsewhere = await pushing.call("PUT", "other/manifests/all", index, Content_Type=OCI_INDEX)
    assert refusal(elsewhere) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert digest_of(manifest) in elsewhere.json["errors"][0]["message"]


async def test_tags_are_listed_in_pages_and_removed(pushing: ImageClient) -> None:
    for tag in ("b", "C", "a"):
        manifest, _ = await pushing.push(f"app:{tag}")
    listed = await pushing.call("GET", "app/tags/list")
    assert listed.json == {"name": f"{pushing.project}/app", "tags": ["a", "b", "C"]}
    assert "link" not in listed.headers
    page = await pushing.call("GET", "app/tags/list?n=2")
    assert page.json["tags"] == ["a", "b"]
    assert page.headers["link"] == f'</v2/{pushing.project}/app/tags/list?n=2&last=b>; rel="next"'
    assert (await pushing.call("GET", "app/tags/list?n=2&last=b")).json["tags"] == ["C"]
    assert (await pushing.call("GET", "app/tags/list?n=0")).json["tags"] == []
    assert refusal(await pushing.call("GET", "app/tags/list?n=many")) == (400, "UNSUPPORTED")
    assert (await pushing.call("DELETE", "app/manifests/a")).status == 202
    assert await pushing.exists(f"app/manifests/{digest_of(manifest)}")
    assert (await pushing.call("DELETE", f"app/manifests/{digest_of(manifest)}")).status == 202
    assert (await pushing.call("GET", "app/tags/list")).json["tags"] == []
    for path in ("app/manifests/b", f"app/manifests/{digest_of(manifest)}"):
        assert refusal(await pushing.call("DELETE", path)) == (404, "MANIFEST_UNKNOWN")


async def test_what_cannot_be_is_refused_in_the_specifications_words(pushing: ImageClient) -> None:
    manifest, _ = await pushing.push("app:1", b"layer")
    changed = manifest.replace(digest_of(b"layer").encode(), NOBODYS.encode())
    typed = manifest.replace(b'"schemaVersion"', b'"mediaType": "application/json", "schemaVersion"')
    typed_as: dict[str, str] = {"Content_Type": MANIFEST}
    for method, path, data, headers, expected in (
        ("GET", f"app/blobs/{NOBODYS}", None, {}, (404, "BLOB_UNKNOWN")),
        ("GET", "app/blobs/sha512:00", None, {}, (400, "DIGEST_INVALID")),
        ("GET", "app/manifests/2", None, {}, (404, "MANIFEST_UNKNOWN")),
        ("GET", f"app/manifests/{NOBODYS}", None, {}, (404, "MANIFEST_UNKNOWN")),
        ("GET", "app/manifests/.hidden", None, {}, (400, "MANIFEST_INVALID")),
        ("GET", "nothing/tags/list", None, {}, (404, "NAME_UNKNOWN")),
        ("GET", "App/tags/list", None, {}, (400, "NAME_INVALID")),
        ("GET", f"{'a' * 256}/tags/list", None, {}, (400, "NAME_INVALID")),
        ("GET", f"/v2/{pushing.project}/tags/list", None, {}, (400, "NAME_INVALID")),
        ("GET", "app%2F..%2F..%2Fx/manifests/1", None, {}, (400, "NAME_INVALID")),
        ("GET", "app/manifests/%2e%2e", None, {}, (400, "MANIFEST_INVALID")),
        ("GET", "app/blobs/uploads/..%00", None, {}, (404, "BLOB_UPLOAD_UNKNOWN")),
        ("PATCH", "app/blobs/uploads/nobodys", b"x", {}, (404, "BLOB_UPLOAD_UNKNOWN")),
        ("DELETE", f"app/blobs/{digest_of(b'layer')}", None, {}, (405, "UNSUPPORTED")),
        ("GET", f"app/referrers/{NOBODYS}", None, {}, (404, "UNSUPPORTED")),
        ("GET", "/v2/_catalog", None, {}, (404, "UNSUPPORTED")),
        ("POST", "/v2/", None, {}, (405, "UNSUPPORTED")),
        ("PUT", "app/manifests/2", changed, typed_as, (404, "MANIFEST_BLOB_UNKNOWN")),
        ("PUT", f"app/manifests/{NOBODYS}", manifest, typed_as, (400, "DIGEST_INVALID")),
        ("PUT", "app/manifests/2", manifest, {"Content_Type": "text/plain"}, (400, "MANIFEST_INVALID")),
        ("PUT", "app/manifests/2", typed, typed_as, (400, "MANIFEST_INVALID")),
        ("PUT", "app/manifests/2", b'{"x": ' + b"[" * 100_000, typed_as, (400, "MANIFEST_INVALID")),
        ("PUT", "app/manifests/2", b'{"schemaVersion": 2}', typed_as, (400, "MANIFEST_INVALID")),
        ("PUT", "app/manifests/2", changed.replace(b"sha256:", b"sha1:"), typed_as, (400, "MANIFEST_INVALID")),
        ("PUT", "app/manifests/2", b" " * (5 << 20), typed_as, (413, "SIZE_INVALID")),
        ("POST", "app/blobs/uploads/?digest=md5:0", None, {}, (400, "DIGEST_INVALID")),
        ("POST", "app/blobs/uploads/?mount=..%2f", None, {}, (400, "DIGEST_INVALID")),
    ):
        answer = await pushing.call(method, path, data, **headers)
        assert refusal(answer) == expected, (method, path)
    assert (await pushing.call("GET", "app/tags/list")).json["tags"] == ["1"]
    plain = await pushing.world.client.session.get(f"{pushing.world.client.url}/v2/sandboxes")
    assert "clients of version 2 are not served" in (await plain.json())["message"]


async def test_an_upload_is_checked_and_goes_on_where_it_was_left(pushing: ImageClient, tmp_path: Path) -> None:
    begun = await pushing.call("POST", "app/blobs/uploads/")
    upload, half = begun.headers["location"], len(LAYER) // 2
    host, port = pushing.world.client.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    login = encode_basic_auth(pushing.username, pushing.secret)
    head = f"PATCH {upload} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {login}\r\n"
    writer.write(f"{head}Content-Length: {len(LAYER)}\r\n\r\n".encode() + LAYER[:half])
    await writer.drain()

    path = tmp_path / "registry" / ".uploads" / pushing.project / upload[-32:]

    while (await asyncio.to_thread(path.stat)).st_size < half - (1 << 20):  # noqa: ASYNC110  the file has no event
        await asyncio.sleep(0.01)
    assert refusal(await pushing.call("PATCH", upload, b"x")) == (409, "BLOB_UPLOAD_INVALID")
    writer.close()
    while refusal(refused := await pushing.call("PATCH", upload, b"x", Content_Range="some"))[0] == 409:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # until the server has noticed
    assert (refusal(refused), refused.headers["location"]) == ((416, "BLOB_UPLOAD_INVALID"), upload)
    told = await pushing.call("GET", upload)
    assert (told.status, told.headers["location"], told.headers["docker-upload-uuid"]) == (204, upload, upload[-32:])
    size = int(told.headers["range"].removeprefix("0-")) + 1
    assert half - (1 << 20) <= size <= half
    for wrong, expected in (
        (f"0-{size - 1}", (416, "BLOB_UPLOAD_INVALID")),
        (f"{size}-{size + 9}", (400, "SIZE_INVALID")),
    ):
        refused = await pushing.call("PATCH", upload, b"x", Content_Range=wrong)
        assert refusal(refused) == expected
    short = await pushing.call("PATCH", upload, unannounced(1 << 20), Content_Range=f"{size}-{size + (2 << 20)}")
    assert refusal(short) == (400, "SIZE_INVALID")
    assert (await pushing.call("GET", upload)).headers["range"] == told.headers["range"]
    rest = {"Content_Range": f"{size}-{len(LAYER) - 1}"}
    done = await pushing.call("PUT", f"{upload}?digest={digest_of(LAYER)}", LAYER[size:], **rest)
    assert done.status == 201, done.body
    assert (await pushing.call("GET", f"app/blobs/{digest_of(LAYER)}")).body == LAYER
    assert refusal(await pushing.call("PATCH", upload, b"x")) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a_wrong_digest_leaves_nothing(pushing: ImageClient, tmp_path: Path) -> None:
    whole = await pushing.call("POST", f"app/blobs/uploads/?digest={NOBODYS}", b"something else")
    begun = await pushing.call("POST", "app/blobs/uploads/")
    finished = await pushing.call("PUT", f"{begun.headers['location']}?digest={NOBODYS}", b"something else")
    assert refusal(whole) == refusal(finished) == (400, "DIGEST_INVALID")
    assert await asyncio.to_thread(files, tmp_path) == []


def test_what_another_process_wrote_of_an_upload_is_checked_as_well(tmp_path: Path) -> None:
    stores = [ImageStore(tmp_path, max_bytes=1 << 20) for _ in range(2)]
    for content, outcome in ((b"onetwo", None), (b"another", WrongDigest)):
        stores[0].begin("org", "upload", 0.0)
        for store, piece in zip(stores, (b"one", b"two"), strict=True):
            upload = store.open("org", "upload")
            upload.append(piece)
            upload.close(0.0)
        upload = stores[0].open("org", "upload")
        digest = digest_of(content).removeprefix("sha256:")
        if outcome is None:
            stores[0].finish(upload, "org", digest, 0.0)
        else:
            with pytest.raises(outcome):
                stores[0].finish(upload, "org", digest, 0.0)
        upload.close(0.0)
    assert [path.read_bytes() for path in (tmp_path / "org" / "blobs").iterdir()] == [b"onetwo"]


async def test_a_login_opens_its_own_organizations_repositories_and_nothing_forged(pushing: ImageClient) -> None:
    world = pushing.world
    await pushing.push("app:1")
    made = await world.client.call("POST", "/_sandyard/organizations", {})
    other = await ImageClient.open(world, key=made.json["apiKey"])
    theirs = f"/v2/{pushing.project}/app/manifests/1"
    for method in ("GET", "DELETE"):
        assert refusal(await other.call(method, theirs)) == (403, "DENIED")
    assert refusal(await other.call("GET", f"app/blobs/{digest_of(b'{}')}")) == (404, "BLOB_UNKNOWN")
    mounted = await other.call("POST", f"app/blobs/uploads/?mount={digest_of(b'{}')}&from={pushing.project}/app")
    assert mounted.status == 202
    keys = ImageKeys(Seal(ENCRYPTION_KEY))
    now = datetime.now(UTC)
    puller = dataclasses.replace(pushing, username="pull", secret=keys.issue(pushing.project, Scope.PULL, now).secret)
    assert (await puller.call("GET", theirs)).status == 200
    for method, path in (("DELETE", theirs), ("POST", "app/blobs/uploads/"), ("PUT", theirs)):
        assert refusal(await puller.call(method, path)) == (403, "DENIED")
    stored = StorageKeys(Seal(ENCRYPTION_KEY)).issue(pushing.project, "push", "x", now)
    for forged in (
        encode_basic_auth("pull", pushing.secret),
        encode_basic_auth("push", puller.secret),
        encode_basic_auth("push", "forged"),
        encode_basic_auth("push", stored.session_token),
        f"Bearer {pushing.secret}",
        "Basic !",
        "Basic /////w==",
        "",
    ):
        refused = await pushing.call("GET", "/v2/", Authorization=forged)
        assert refusal(refused) == (401, "UNAUTHORIZED"), forged
        assert refused.headers["www-authenticate"] == 'Basic realm="sandyard"'


async def test_a_login_ends_after_an_hour(tmp_path: Path) -> None:
    clock = ManualClock()
    settings: dict[str, Any] = {"clock": clock, "timer_seconds": 1e9, "registry_dir": tmp_path / "registry"}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", **settings) as world:
        given = await ImageClient.open(world)
        await clock.advance(timedelta(minutes=59).total_seconds())
        assert (await given.call("GET", "/v2/")).status == 200
        await clock.advance(timedelta(minutes=2).total_seconds())
        assert refusal(await given.call("GET", "/v2/")) == (401, "UNAUTHORIZED")


async def test_without_a_place_for_images_there_is_no_registry(world: World) -> None:
    answer = await world.client.call("GET", PUSH_ACCESS)
    assert (answer.status, answer.json["message"]) == (503, "The image registry is not configured")
    nobody = ImageClient(world, "push", "x", "org")
    assert refusal(await nobody.call("GET", "/v2/")) == (503, "UNAVAILABLE")


async def test_a_full_registry_says_so_and_keeps_nothing_half(pushing: ImageClient, tmp_path: Path) -> None:
    await pushing.push("app:1", LAYER)
    before = await asyncio.to_thread(files, tmp_path)
    for body in (bytes(40 << 20), unannounced(40 << 20)):
        begun = await pushing.call("POST", "app/blobs/uploads/")
        refused = await pushing.call("PATCH", begun.headers["location"], body)
        assert refusal(refused) == (403, "DENIED")
        assert "32 MiB, SANDYARD_REGISTRY_GIB" in refused.json["errors"][0]["message"]
        assert await asyncio.to_thread(files, tmp_path) == before
    assert (await pushing.push("app:2", b"small"))[1].status == 201


async def test_what_nothing_refers_to_makes_room_in_a_full_registry(tmp_path: Path) -> None:
    clock = VirtualClock(ManualClock())
    limits: dict[str, Any] = {"registry_dir": tmp_path / "registry", "registry_max_bytes": 6 << 20}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock, timer_seconds=1e9, **limits) as world:
        pusher = await ImageClient.open(world)
        await pusher.push("app:1", bytes(4 << 20))
        begun = await pusher.call("POST", "app/blobs/uploads/")
        assert refusal(await pusher.call("PATCH", begun.headers["location"], LAYER)) == (403, "DENIED")
        await advance(clock, 2)
        pusher = await ImageClient.open(world)
        assert (await pusher.push("app:2", LAYER))[1].status == 201
        assert not await pusher.exists("app/manifests/1")


async def advance(clock: VirtualClock, hours: float) -> None:
    """Move the machine's time, and the users' with it."""
    assert isinstance(clock.machine, ManualClock)
    await clock.machine.advance(hours * 3600)


async def test_an_image_goes_a_day_after_nothing_refers_to_it(tmp_path: Path) -> None:
    clock = VirtualClock(ManualClock())
    settings: dict[str, Any] = {"clock": clock, "timer_seconds": 1e9, "registry_dir": tmp_path / "registry"}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", **settings) as world:
        look = world.plane.timers.look
        pusher = await ImageClient.open(world)

        async def tags() -> list[str]:
            pusher = await ImageClient.open(world)
            return [tag for tag in ("used", "built", "asked", "forgotten") if await listed(pusher, tag)]

        shared, own = b"in two of them", b"in one alone"
        for tag in ("used", "built", "asked", "forgotten"):
            await pusher.push(f"team/app:{tag}", shared, *([own] if tag == "forgotten" else []))
        by_digest, _ = await pusher.push("by-digest:1", b"by its digest")
        registry = f"localhost:1/{pusher.project}"
        await world.runner.beat()
        bodies: list[dict[str, Any]] = [
            {"imageName": f"{registry}/team/app:used"},
            {"imageName": f"{registry}/by-digest@{digest_of(by_digest)}"},
            {"buildInfo": {"dockerfileContent": f"FROM {registry}/team/app:built\nRUN true\n"}},
        ]
        made = []
        for number, body in enumerate(bodies):
            made.append(await world.client.call("POST", "/snapshots", {"name": f"s{number}", **body}))
            assert made[-1].status == 200, made[-1].body
        await advance(clock, 23)
        assert (await (await ImageClient.open(world)).call("GET", "team/app/manifests/asked")).status == 200
        await look()
        assert await tags() == ["used", "built", "asked", "forgotten"]
        await advance(clock, 2)
        await look()
        assert await tags() == ["used", "built", "asked"]
        pusher = await ImageClient.open(world)
        assert not await pusher.exists("by-digest/manifests/1")
        assert (await pusher.call("GET", f"by-digest/manifests/{digest_of(by_digest)}")).body == by_digest
        assert await pusher.exists(f"x/blobs/{digest_of(b'by its digest')}")
        assert await pusher.exists(f"x/blobs/{digest_of(shared)}")
        assert not await pusher.exists(f"x/blobs/{digest_of(own)}")
        for snapshot in made:
            assert (await world.client.call("DELETE", f"/snapshots/{snapshot.json['id']}")).status == 200
        await advance(clock, 25)
        await look()
        assert await asyncio.to_thread(files, tmp_path) == []
        assert not await asyncio.to_thread(lambda: list((tmp_path / "registry").glob("*/repositories/*")))


async def listed(pusher: ImageClient, tag: str) -> bool:
    """Whether a tag is there, without asking for it, which would keep it."""
    return tag in (await pusher.call("GET", "team/app/tags/list")).json["tags"]


async def test_a_push_in_progress_loses_nothing_and_a_forgotten_one_goes(tmp_path: Path) -> None:
    clock = VirtualClock(ManualClock())
    settings: dict[str, Any] = {"clock": clock, "timer_seconds": 1e9, "registry_dir": tmp_path / "registry"}
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", **settings) as world:
        look = world.plane.timers.look
        pusher = await ImageClient.open(world)
        await pusher.push_blob(b"old")
        await pusher.push_blob(b"found again")
        begun = await pusher.call("POST", "app/blobs/uploads/")
        await pusher.call("PATCH", begun.headers["location"], b"a half")
        clock.run_from(clock.now() + timedelta(days=30))  # the users' time alone
        await look()
        pusher = await ImageClient.open(world)
        assert await pusher.exists(f"app/blobs/{digest_of(b'old')}")
        await advance(clock, 0.9)
        pusher = await ImageClient.open(world)
        assert await pusher.exists(f"app/blobs/{digest_of(b'found again')}")
        await advance(clock, 0.2)
        await look()
        pusher = await ImageClient.open(world)
        assert await pusher.exists(f"app/blobs/{digest_of(b'found again')}")
        left = await asyncio.to_thread(files, tmp_path)
        assert f"blobs/{digest_of(b'found again')[7:19]}" in left
        assert len(left) == 2, "and the upload"
        await advance(clock, 24)
        await look()
        assert await asyncio.to_thread(files, tmp_path) == []


async def test_runners_get_a_login_for_pulling_where_an_image_is_ours(pushing: ImageClient) -> None:
    world, own = pushing.world, f"127.0.0.1:1/{pushing.project}"
    await pushing.push("app:1")

    async def source(name: str, **body: Any) -> ImageSource:
        made = await world.client.call("POST", "/snapshots", {"name": name, **body})
        assert made.status == 200, made.body
        await world.runner.work_once()
        return world.runner.image_jobs[-1].source

    [login] = (await source("pushed", imageName=f"{own}/app:1")).logins
    assert (login.url, login.username) == (own, "pull")
    puller = dataclasses.replace(pushing, username=login.username, secret=login.password)
    assert (await puller.call("GET", "app/manifests/1")).status == 200
    assert refusal(await puller.call("DELETE", "app/manifests/1")) == (403, "DENIED")
    await world.client.call("POST", "/docker-registry", {"name": "n", "url": "x.io", "username": "u", "password": "p"})
    built = await source("built", buildInfo={"dockerfileContent": f"FROM {own}/app:1\nRUN true\n"})
    assert [one.url for one in built.logins] == ["x.io", own]
    elsewhere = (f"evil.example/{pushing.project}/app:1", "127.0.0.1:1/somebody-else/app:1", "debian:12")
    for number, image in enumerate(elsewhere):
        assert [one.url for one in (await source(f"s{number}", imageName=image)).logins] == ["x.io"], image


def test_references_are_found_in_names_and_dockerfiles() -> None:
    digest = "a" * 64
    text = (
        f"FROM --platform=linux/amd64 h:1/org/a/b:1 AS x\nCOPY --from=h.io/org/c@sha256:{digest} / /\nFROM h.io/org/d"
    )
    found = [(one.host, one.repository.path, one.tag, one.digest) for one in references(text)]
    assert found == [
        ("h:1", "org/a/b", "1", None),
        ("h.io", "org/c", None, digest),
        ("h.io", "org/d", "latest", None),
    ]
    assert not list(references("debian:12 library/debian:12"))


def test_a_runner_is_given_nothing_without_a_registry() -> None:
    registry = ImageRegistry(None, ImageKeys(Seal(ENCRYPTION_KEY)), HostRules.of(), ManualClock())
    assert registry.logins("org", "127.0.0.1:1/org/app:1", None) == []
