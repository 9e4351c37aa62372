"""What saving and loading ask of an engine that holds sandboxes; the docker runtime has it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from sandyard_api.jobs.wire import SandboxSpec


class Containers(Protocol):
    """The sandboxes of one data directory. All raise `RuntimeFailure` with a message for the user."""

    async def present(self) -> list[str]:
        """Their ids."""

    def held_still(self) -> AbstractAsyncContextManager[None]:
        """Let none of them run meanwhile; each is as it was afterwards."""

    async def write(self, target: Path, image_names: Mapping[str, str]) -> None:
        """Write their files and all images that were kept or built here to one file; nothing at all is no file.

        `image_names` is `{sandbox id: name of the image that its files become}`.
        """

    async def read(self, source: Path, specs: Sequence[SandboxSpec]) -> None:
        """Make the sandboxes again, stopped. On a failure nothing of them stays."""

    async def remove_all(self) -> None:
        """Remove everything that `read` made."""
