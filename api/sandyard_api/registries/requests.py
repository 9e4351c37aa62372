"""What requests about registries may say: read, checked, and made into plain values."""

import re

import msgspec

from sandyard_api.errors import BadRequest
from sandyard_api.validation import Fields

SCHEME = re.compile(r"https?://", re.IGNORECASE)
HOST_AND_PATH = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?(?:/[\w./-]+)?", re.IGNORECASE)
DOCKER_HUB = "docker.io"
DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


class RegistryFields(msgspec.Struct, frozen=True):
    """A registry as asked for; `None` says nothing."""

    name: str | None
    url: str | None
    username: str | None
    password: str | None
    project: str | None


def read_new_registry(body: object) -> RegistryFields:
    """The body of a create request. Raises `BadRequest`."""
    return _read(body, required=("name", "url", "username", "password"))


def read_registry_changes(body: object) -> RegistryFields:
    """The body of an update. Raises `BadRequest`."""
    return _read(body, required=("name", "url", "username"))


def normal_url(url: str) -> str:
    """Without a scheme, a slash at the end, and with one name for Docker Hub. Raises `BadRequest`."""
    plain = SCHEME.sub("", url.strip()).rstrip("/")
    host, slash, path = plain.partition("/")
    if host.lower() in DOCKER_HUB_NAMES:
        # The API path of older configurations says nothing about images.
        return DOCKER_HUB if path in ("", "v1", "v2") else f"{DOCKER_HUB}/{path}"
    if not HOST_AND_PATH.fullmatch(plain):
        raise BadRequest(f"url must be the address of a registry, not {url[:200]!r}")
    return host.lower() + slash + path


def _read(body: object, *, required: tuple[str, ...]) -> RegistryFields:
    fields = Fields(body)
    name = fields.name("name")
    texts = {key: fields.string(key) for key in ("url", "username", "password", "project")}
    for key in required:
        if fields.raw(key) is None or fields.raw(key) == "":
            fields.complain(f"{key} should not be empty")
    fields.check()
    url = texts["url"]
    return RegistryFields(
        name, None if url is None else normal_url(url), texts["username"], texts["password"], texts["project"]
    )
