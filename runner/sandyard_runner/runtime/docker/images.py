"""Images: pulled when missing, ours built from the package, and refused when they are for another machine."""

import asyncio
import contextlib
import hashlib
import io
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from docker.utils import parse_repository_tag

from sandyard_api.jobs.wire import BUILD_REPOSITORY, SNAPSHOT_REPOSITORY, RegistryLogin
from sandyard_runner.daemon_bundle import ARCHITECTURES
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import Build, ProgressReport
from sandyard_runner.runtime.docker.builds import (
    discard_layers,
    login_for,
    names_default_image,
    prepared,
    start_build,
)
from sandyard_runner.runtime.docker.container import Image, read_image
from sandyard_runner.runtime.docker.engine import Api, Engine, Item
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.options import LABEL_IMAGE, LABEL_INSTALLATION, DockerOptions

FRESH_SECONDS = 600.0
"""An image that was asked for that lately is not offered for removal: a sandbox may be about to be made from it."""
OF_SNAPSHOTS = (f"{BUILD_REPOSITORY}:", f"{SNAPSHOT_REPOSITORY}:")
STEP = re.compile(r"Step \d+/\d+ : (\w+)")
LAYER = re.compile(r"---> ([0-9a-f]{12})")
REPOSITORY = "sandyard/sandbox"
STAGE = "slim"
"""What the default snapshot is made from."""
FULL_REFERENCE = f"{REPOSITORY}:full"
"""The same with language servers and what data programs import; its tag does not follow the file."""
MIRROR_ARGUMENT = "DEBIAN_MIRROR"


class Images:
    """The engine's images, as far as sandboxes need them."""

    def __init__(self, engine: Engine, options: DockerOptions, *, arch: str) -> None:
        self._engine = engine
        self._options = options
        self._arch = arch
        self._asked_for: dict[str, float] = {}
        """`{reference: monotonic seconds}` of the last time that it was made usable."""
        self._fetching: dict[str, asyncio.Lock] = {}

    def default(self) -> str:
        """Reference of the default snapshot's image."""
        return self._options.default_image or own_reference()

    async def ensure(
        self,
        image: str | None,
        report: ProgressReport,
        build: Build | None = None,
        logins: Sequence[RegistryLogin] = (),
    ) -> Image:
        """Make it usable: nothing to do when the engine has it, else build or pull it. May be repeated and raced.

        Raises `RuntimeFailure`, `Unsupported` for an image of another architecture.
        """
        reference = full_reference(image) if image else self.default()
        async with self._fetching.setdefault(reference, asyncio.Lock()):
            if await self._find(reference) is not None:
                report(f"The image is there: {reference}")
            elif (stage := own_stages().get(reference)) is not None:
                await self._build(reference, stage, report)
            elif build is not None:
                await self._build_for_user(reference, build, logins, report)
            else:
                await self._pull(reference, login_for(reference, logins), report)
            self._asked_for[reference] = time.monotonic()
        return await self.inspect(image)

    async def built(self) -> Sequence[str]:
        """References of the images of builds and snapshots, but for those that were asked for just now."""
        label = {"label": f"{LABEL_IMAGE}={self._options.installation}"}
        found = await self._engine.call("list the images", lambda api: api.images(filters=label))
        since = time.monotonic() - FRESH_SECONDS
        tags = [tag for item in found for tag in item["RepoTags"] or [] if tag.startswith(OF_SNAPSHOTS)]
        return [tag for tag in tags if self._asked_for.get(tag, since) <= since]

    async def remove(self, reference: str) -> None:
        """Remove an image and the layers only it has; one in use, or not there, is left alone."""
        async with self._fetching.setdefault(reference, asyncio.Lock()):
            with contextlib.suppress(Missing, Conflict):
                await self._engine.call(f"remove {reference}", lambda api: api.remove_image(reference))
            self._asked_for.pop(reference, None)
        self._fetching.pop(reference, None)

    async def _build_for_user(
        self, reference: str, build: Build, logins: Sequence[RegistryLogin], report: ProgressReport
    ) -> None:
        default = None
        if names_default_image(build.dockerfile):
            await self.ensure(None, report)
            default = self.default()
        progress = Progress(report)
        async with prepared(build, default, self._options) as context:
            try:
                await self._follow(
                    "build the image",
                    lambda api: start_build(api, context, reference, logins, self._options),
                    progress,
                )
            except BaseException:
                await discard_layers(self._engine, progress.layers)
                raise

    async def inspect(self, image: str | None) -> Image:
        """What decides how its sandboxes start. Raises `RuntimeFailure`: `Missing`, `Unsupported` as for `ensure`."""
        reference = full_reference(image) if image else self.default()
        found = await self._find(reference)
        if found is None:
            raise Missing(f"image {reference} is not on this machine")
        self._check(reference, found)
        return read_image(reference, found, is_default=image is None)

    async def _find(self, reference: str) -> Mapping[str, Any] | None:
        try:
            return await self._engine.call(f"inspect {reference}", lambda api: api.inspect_image(reference))
        except Missing:
            return None

    def _check(self, reference: str, found: Mapping[str, Any]) -> None:
        arch = ARCHITECTURES.get(found["Architecture"], found["Architecture"])
        if found["Os"] != "linux" or arch != self._arch:
            raise Unsupported(f"image {reference} is for {found['Os']}/{arch}; this runner takes linux/{self._arch}")

    async def _pull(self, reference: str, login: dict[str, str] | None, report: ProgressReport) -> None:
        repository, tag = parse_repository_tag(reference)
        report(f"Pulling {reference}")

        def pull(api: Api) -> Any:
            options = {"platform": f"linux/{self._arch}", "auth_config": login}
            return api.pull(repository, tag=tag, stream=True, decode=True, **options)

        await self._follow(f"pull {reference}", pull, Progress(report))

    async def _build(self, reference: str, stage: str, report: ProgressReport) -> None:
        report(f"Building {reference}, one of Sandyard's own images (once)")
        mirror = self._options.debian_mirror
        packed = context()

        def build(api: Api) -> Any:
            return api.build(
                fileobj=packed,
                custom_context=True,
                target=stage,
                tag=reference,
                rm=True,
                forcerm=True,
                decode=True,
                labels={LABEL_INSTALLATION: "any"},
                buildargs={MIRROR_ARGUMENT: mirror} if mirror else {},
            )

        await self._follow(f"build {reference}", build, Progress(report))

    async def _follow(self, doing: str, work: Callable[[Api], Iterable[Item]], progress: "Progress") -> None:
        await self._engine.stream(doing, work, progress.take)
        if progress.error:
            raise RuntimeFailure(f"cannot {doing}: {progress.error}")


class Progress:
    """Turns the engine's progress items into lines, leaving out those that only count bytes."""

    def __init__(self, report: ProgressReport) -> None:
        self._report = report
        self._last: dict[str, str] = {}
        self._in_from = True
        self.layers: list[str] = []
        """Ids of the layers that this build made, oldest first."""
        self.error: str | None = None
        """What the engine said went wrong; it does so in the stream, with status 200."""

    def take(self, item: Item) -> None:
        """One item of a pull or build."""
        if error := item.get("error"):
            self.error = str(error).strip()
        elif text := str(item.get("stream", "")).strip():
            self._note_layer(text)
            self._report(text)
        elif status := item.get("status"):
            layer = str(item.get("id", ""))
            if self._last.get(layer) != status:
                self._last[layer] = str(status)
                self._report(f"{layer}: {status}" if layer else str(status))

    def _note_layer(self, text: str) -> None:
        if match := STEP.match(text):
            self._in_from = match[1].upper() == "FROM"
        elif (match := LAYER.fullmatch(text)) and not self._in_from:
            self.layers.append(match[1])
        elif text.endswith("Using cache"):
            self._in_from = True  # the layer that is named next is not this build's


def full_reference(image: str) -> str:
    """With its tag: the engine would take a name alone for every tag there is."""
    repository, tag = parse_repository_tag(image)
    return image if tag else f"{repository}:latest"


def own_reference() -> str:
    """Reference of our own image: its tag is a hash of the file it is built from."""
    return f"{REPOSITORY}:{STAGE}-{hashlib.blake2b(dockerfile(), digest_size=6).hexdigest()}"


def own_stages() -> dict[str, str]:
    """By reference, the stage of our own file that it is built from when it is missing."""
    return {own_reference(): STAGE, FULL_REFERENCE: "full"}


def dockerfile() -> bytes:
    """The file our own images are built from, the same in a checkout and in the wheel."""
    return resources.files("sandyard_runner").joinpath("images", "sandbox", "Dockerfile").read_bytes()


def context() -> io.BytesIO:
    """The build context of our own images, as a tar file."""
    content, packed = dockerfile(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    return packed
