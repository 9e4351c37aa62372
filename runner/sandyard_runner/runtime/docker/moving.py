"""Containers' files as one file, and containers from it: each as an image of its own over the base it stands on."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import structlog

from sandyard_api.jobs.wire import BUILD_REPOSITORY, SandboxSpec
from sandyard_runner.errors import NotPresent, RuntimeFailure
from sandyard_runner.runtime.contract import CanCommit, CanPause, PresentState, Runtime
from sandyard_runner.runtime.docker import layers
from sandyard_runner.runtime.docker.engine import Api, Engine, Item
from sandyard_runner.runtime.docker.failures import Missing
from sandyard_runner.runtime.docker.options import LABEL_IMAGE, DockerOptions

SAVED_REPOSITORY = "sandyard/saved"
"""Names of images that are there only while they are written."""
BY_CONTENT = f"{BUILD_REPOSITORY}:"
"""Images whose names say what they were built from: any of that name will do."""
CHUNK = 1 << 20

log = structlog.get_logger(__name__)


class _Holder(Runtime, CanCommit, CanPause, Protocol):
    """What holds the containers."""


class Moving:
    """Of one runtime; nobody else may be making or ending its sandboxes meanwhile."""

    def __init__(self, engine: Engine, options: DockerOptions, holder: _Holder) -> None:
        self._engine = engine
        self._options = options
        self._holder = holder

    async def present(self) -> list[str]:
        """Ids of the sandboxes that the engine holds."""
        return sorted(item.sandbox_id for item in await self._holder.present())

    @asynccontextmanager
    async def held_still(self) -> AsyncIterator[None]:
        """Let none of them run meanwhile; those that were paused stay so. Raises `RuntimeFailure`."""
        async with AsyncExitStack() as stack:
            for item in await self._holder.present():
                if item.state is PresentState.RUNNING:
                    with contextlib.suppress(NotPresent):  # it ended by itself since
                        await self._holder.pause(item.sandbox_id)
                        stack.push_async_callback(self._let_run, item.sandbox_id)
            yield

    async def _let_run(self, sandbox_id: str) -> None:
        try:
            await self._holder.resume(sandbox_id)
        except RuntimeFailure as failure:
            log.error("not_resumed", sandbox_id=sandbox_id, reason=failure.message)

    async def write(self, target: Path, image_names: Mapping[str, str]) -> None:
        """Write the files of the sandboxes, with all below them, and every image that was kept or built here; where
        there is neither, no file.

        `image_names` is `{sandbox id: name of the image that its files become}`. Raises `RuntimeFailure`.
        """
        names = {f"{SAVED_REPOSITORY}:{sandbox_id}": name for sandbox_id, name in image_names.items()}
        async with AsyncExitStack() as stack:
            for sandbox_id in image_names:
                image = f"{SAVED_REPOSITORY}:{sandbox_id}"
                stack.push_async_callback(self._holder.remove_image, image)
                await self._holder.commit(sandbox_id, image)
            # What a sandbox was archived into before is older than what it is now.
            kept = [name for name in await self._kept() if name not in names.values()]
            if not names and not kept:
                return
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".saving-", dir=target.parent))
            saved = Path(folder) / "images.tar"
            await self._engine.stream("save the images", lambda api: _save(api, [*names, *kept], saved), _ignore)
            await asyncio.to_thread(layers.write, target, saved, names)

    async def read(self, source: Path, specs: Sequence[SandboxSpec]) -> None:
        """Make the sandboxes of what `write` wrote, stopped; each spec has the image that its files became.

        On a failure nothing of it stays. Raises `RuntimeFailure`, `Unsupported` for another kind of machine.
        """
        present = await self.present()
        if present:
            raise RuntimeFailure(f"the engine holds sandboxes of this data directory already: {', '.join(present)}")
        async with AsyncExitStack() as undo:
            await self._load(source, undo)
            for spec in specs:
                undo.push_async_callback(self._holder.remove, spec.sandbox_id)
                await self._create(spec)
            undo.pop_all()

    async def remove_all(self) -> None:
        """Remove the sandboxes and images that `read` made."""
        for sandbox_id in await self.present():
            await self._holder.remove(sandbox_id)
        for name in await self._kept():
            await self._holder.remove_image(name)

    async def _load(self, source: Path, undo: AsyncExitStack) -> None:
        with tempfile.TemporaryDirectory(prefix=".loading-", dir=source.parent) as folder:
            whole = Path(folder) / "images.tar"
            names = await asyncio.to_thread(layers.names, source)
            there = [name for name in names if await self._holder.has_image(name)]
            if foreign := [name for name in there if not name.startswith(BY_CONTENT)]:
                raise RuntimeFailure(f"the engine has {foreign[0]} already, of another data directory")
            await asyncio.to_thread(layers.read, source, whole, self._options.installation, without=there)
            for name in set(names) - set(there):
                undo.push_async_callback(self._holder.remove_image, name)
            said: list[str] = []
            await self._engine.stream("load the images", lambda api: _load(api, whole), lambda item: _note(said, item))
            if said:
                raise RuntimeFailure(f"cannot load the images: {said[0]}")

    async def _create(self, spec: SandboxSpec) -> None:
        try:
            await self._holder.create(spec)
        except Missing as failure:
            raise RuntimeFailure(f"the file has no image of sandbox {spec.sandbox_id}: {failure.message}") from failure

    async def _kept(self) -> list[str]:
        label = {"label": f"{LABEL_IMAGE}={self._options.installation}"}
        found = await self._engine.call("list the images", lambda api: api.images(filters=label))
        names = {name for item in found for name in item["RepoTags"] or []}
        return sorted(name for name in names if name != "<none>:<none>" and not name.startswith(SAVED_REPOSITORY))


def _save(api: Api, names: Sequence[str], target: Path) -> Iterator[Item]:
    """Write the engine's archive of images. *Source:* `GET /images/get` of the Docker Engine API v1.41."""
    # docker-py's own method takes one image, and layers that several share would be there several times.
    answer = api.get(f"{api.base_url}/v{api.api_version}/images/get", params={"names": names}, stream=True)
    with answer, target.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            yield {}  # between two pieces it may be cancelled


def _load(api: Api, source: Path) -> Iterator[Item]:
    with source.open("rb") as file:
        yield from api.load_image(file)


def _note(said: list[str], item: Item) -> None:
    if error := item.get("error"):
        said.append(str(error).strip())


def _ignore(_item: Item) -> None:
    """Progress that says nothing."""
