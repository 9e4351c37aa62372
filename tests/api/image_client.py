"""What an engine does at a registry, one request at a time."""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from tests.api.conftest import Answer, World

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class ImageClient:
    """Somebody with a login at the registry of a world."""

    world: World
    username: str
    secret: str
    project: str

    @classmethod
    async def open(cls, world: World, **options: Any) -> "ImageClient":
        """With the login that push-access gives."""
        given = await world.client.call("GET", "/docker-registry/registry-push-access", **options)
        assert given.status == 200, given.body
        return cls(world, given.json["username"], given.json["secret"], given.json["project"])

    async def call(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        """One request below the organization's repositories, or at a whole path that begins with a slash."""
        url = self.world.client.url + (path if path.startswith("/") else f"/v2/{self.project}/{path}")
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        fields.setdefault("Authorization", aiohttp.encode_basic_auth(self.username, self.secret))
        if isinstance(data, bytes):
            data = io.BytesIO(data)  # the library warns of large bodies that are bytes
        asked = self.world.client.session.request(method, URL(url, encoded=True), data=data, headers=fields)
        async with asked as answer:
            body = await answer.read()
            is_json = answer.headers.get("content-type", "").startswith("application/json")
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
            return Answer(
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                body,
                json.loads(body) if is_json and body else None,
            )

    async def push_blob(self, content: bytes, repository: str = "app") -> str:
        """As engines do: begin, send in one piece, finish. Gives the digest."""
        begun = await self.call("POST", f"{repository}/blobs/uploads/")
        assert (begun.status, begun.headers["range"]) == (202, "0-0"), begun.body
        sent = await self.call("PATCH", begun.headers["location"], content)
        assert sent.status == 202, sent.body
        done = await self.call("PUT", f"{sent.headers['location']}?digest={digest_of(content)}")
        assert done.status == 201, done.body
        return done.headers["docker-content-digest"]

    async def push(self, name: str, *layers: bytes, media_type: str = MANIFEST) -> tuple[bytes, Answer]:
        """An image of these layers as `repository:tag` or `repository@digest`; the manifest, and the last answer."""
        repository, colon, tag = name.partition(":")
        digests = [await self.push_blob(content, repository) for content in (b"{}", *layers)]
        described = [{"mediaType": "x", "size": 1, "digest": digest} for digest in digests]
        manifest = json.dumps({"schemaVersion": 2, "config": described[0], "layers": described[1:]}).encode()
        reference = tag if colon else digest_of(manifest)
        path = f"{repository}/manifests/{reference}"
        return manifest, await self.call("PUT", path, manifest, Content_Type=media_type)

    async def exists(self, path: str) -> bool:
        """Whether HEAD finds it."""
        status = (await self.call("HEAD", path)).status
        assert status in (200, 404)
        return status == 200


def refusal(answer: Answer) -> tuple[int, str]:
    """Status and code of an error in the registry's form."""
    [error] = answer.json["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert error["message"]
    return answer.status, error["code"]
