"""Users' builds: their context, what they may reach, the logins of their base images, and what a failed one leaves."""

import asyncio
import contextlib
import io
import re
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from docker.auth import resolve_repository_name

from sandyard_api.jobs.wire import DEFAULT_IMAGE_NAMES, RegistryLogin
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import Build
from sandyard_runner.runtime.docker.engine import Api, Engine, Item
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.options import LABEL_IMAGE, DockerOptions

DOCKERFILE = ".sandyard.Dockerfile"
"""Name of the request's Dockerfile in the context: none that a user's own file has."""
DOCKER_HUB = "docker.io"
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""What the engine calls Docker Hub where it looks for a login."""
MAX_MEMBERS = 500_000
MAX_CONTEXT_BYTES = 8 << 30
_NAMES = "|".join(sorted(re.escape(name) for name in DEFAULT_IMAGE_NAMES))
_DEFAULT_FROM = re.compile(
    rf"^(\s*FROM\s+(?:--platform=\S+\s+)?)(?:{_NAMES})(?:[:@]\S+)?(?=\s|$)", re.IGNORECASE | re.MULTILINE
)


def names_default_image(dockerfile: str) -> bool:
    """Whether a build begins with the vendor's default image, for which ours stands in."""
    return _DEFAULT_FROM.search(dockerfile) is not None


@asynccontextmanager
async def prepared(build: Build, default_image: str | None, options: DockerOptions) -> AsyncIterator[IO[bytes]]:
    """The build context as one tar file: the Dockerfile and everything of the contexts. Raises `RuntimeFailure`."""
    folder = options.data_dir / "builds"
    await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        contexts = await build.fetch_contexts(place)
        dockerfile = build.dockerfile
        if default_image is not None:
            dockerfile = _DEFAULT_FROM.sub(lambda match: f"{match[1]}{default_image}", dockerfile)
        target = place / "context"
        await asyncio.to_thread(_merge, dockerfile, contexts, target)
        with target.open("rb") as file:
            yield file


def start_build(
    api: Api, context: IO[bytes], reference: str, logins: Sequence[RegistryLogin], options: DockerOptions
) -> Iterable[Item]:
    """Ask the engine to build; its steps run on the sandboxes' network, under its rules, with the memory of a step."""
    for login in logins:
        # docker-py takes no login with a build: it sends those of its configuration.
        api._auth_configs.add_auth(registry_key(login.url), _credentials(login))
    stream: Iterable[Item] = api.build(
        fileobj=context,
        custom_context=True,
        dockerfile=DOCKERFILE,
        tag=reference,
        rm=True,
        forcerm=True,
        decode=True,
        labels={LABEL_IMAGE: options.installation},
        network_mode=options.network,
        container_limits={"memory": options.build_memory_bytes, "memswap": options.build_memory_bytes},
    )
    return stream


def login_for(reference: str, logins: Sequence[RegistryLogin]) -> dict[str, str] | None:
    """What to show for a pull: the login with the longest prefix of the reference; `None` asks as docker-py would."""
    registry, repository = resolve_repository_name(reference)
    host = registry if registry != "docker.io" else DOCKER_HUB
    whole = f"{host}/{repository}"
    matching = [login for login in logins if whole == login.url or whole.startswith(f"{login.url}/")]
    return _credentials(max(matching, key=lambda login: len(login.url))) if matching else None


def registry_key(url: str) -> str:
    """What the engine looks a login of a build up by: the host, and a URL of old for Docker Hub."""
    host = url.partition("/")[0]
    return DOCKER_HUB_KEY if host == DOCKER_HUB else host


async def discard_layers(engine: Engine, layers: Sequence[str]) -> None:
    """Remove what the steps of a failed build left, unless something else is made from it."""
    for layer in reversed(layers):
        with contextlib.suppress(Missing, Conflict, RuntimeFailure):
            await engine.call("look at a layer", partial(_discard, layer=layer))


def _discard(api: Api, layer: str) -> None:
    found = api.inspect_image(layer)
    if not found["RepoTags"] and not found.get("RepoDigests"):
        api.remove_image(layer)


def _credentials(login: RegistryLogin) -> dict[str, str]:
    return {"username": login.username, "password": login.password}


def _merge(dockerfile: str, contexts: Sequence[Path], target: Path) -> None:
    content, members, size = dockerfile.encode(), 0, 0
    with tarfile.open(target, "w") as merged:
        for context in contexts:
            for member, data in _members(context):
                members, size = members + 1, size + member.size
                if members > MAX_MEMBERS or size > MAX_CONTEXT_BYTES:
                    raise RuntimeFailure(
                        f"the build context is too large: {MAX_MEMBERS} files and {MAX_CONTEXT_BYTES >> 30} GiB at most"
                    )
                merged.addfile(member, data)
        entry = tarfile.TarInfo(DOCKERFILE)
        entry.size, entry.mode = len(content), 0o644
        merged.addfile(entry, io.BytesIO(content))


def _members(context: Path) -> Iterable[tuple[tarfile.TarInfo, Any]]:
    """The files, folders and links of a context under safe names. Raises `RuntimeFailure` for what is no tar file."""
    try:
        with tarfile.open(context, "r|*") as archive:
            for member in archive:
                if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                    continue  # devices and sockets are no content
                member.name = _inside(member.name)
                if member.name:
                    yield member, archive.extractfile(member) if member.isreg() else None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise RuntimeFailure(f"a build context is not a tar file: {error}") from error


def _inside(name: str) -> str:
    """A member's name below the context, whatever it says."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..", "."))
