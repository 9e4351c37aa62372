"""What builds over the host leave: layers that sandboxes share, and what a sandbox or an image stands on.

<data_dir>/layers/<id>/
    files/  upper/     what one step changed, as in a sandbox (see `tree`)

A sandbox, or an image, that stands on layers says so in its `footing.json`. What nothing stands on any more is removed.
"""

import contextlib
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local.tree import remove_tree

FOOTING_FILE = "footing.json"
NEW, OLD = ".new-", ".old-"


class ImageConfig(msgspec.Struct, frozen=True):
    """How sandboxes of an image start, as its Dockerfile says."""

    env: dict[str, str] = msgspec.field(default_factory=dict)
    work_dir: str = ""
    user: str = ""
    """Empty: nobody said."""
    entrypoint: list[str] | None = None
    command: list[str] | None = None

    @property
    def program(self) -> list[str]:
        """ENTRYPOINT and CMD as one command line; empty when it has none."""
        return [*(self.entrypoint or []), *(self.command or [])]


class Footing(msgspec.Struct, frozen=True):
    """What a sandbox or an image stands on."""

    layers: tuple[str, ...]
    """Ids, the lowest first; none: the host's own directories alone."""
    config: ImageConfig = msgspec.field(default_factory=ImageConfig)

    @classmethod
    def load(cls, folder: Path) -> "Footing | None":
        """Of a sandbox's or an image's folder; `None` where it stands on the host alone. Raises `RuntimeFailure`."""
        try:
            return msgspec.json.decode((folder / FOOTING_FILE).read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"what {folder.name} was built on cannot be read: {error}") from error

    def save(self, folder: Path) -> None:
        (folder / FOOTING_FILE).write_bytes(msgspec.json.encode(self))


class Layers(msgspec.Struct, frozen=True):
    """The directory of layers. Every method blocks."""

    directory: Path

    def path(self, layer: str) -> Path:
        """Where a layer is."""
        return self.directory / layer

    def paths(self, layers: Sequence[str]) -> list[Path]:
        """Their folders, the uppermost first. Raises `RuntimeFailure` where one is missing."""
        found = [self.path(layer) for layer in reversed(layers)]
        for path in found:
            if not path.is_dir():
                raise RuntimeFailure(f"a layer that it was built on is not on this machine any more: {path.name}")
        return found

    def exists(self, layer: str) -> bool:
        return self.path(layer).is_dir()

    def scratch(self) -> Path:
        """A fresh folder to make a layer in; `keep` or `drop` it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / f"{NEW}{uuid.uuid4().hex}"
        path.mkdir(mode=0o700)
        return path

    def keep(self, scratch: Path, layer: str) -> None:
        """Make it the layer, whole at once; where another build was first, that one's stays."""
        if (scratch / "work").exists():
            remove_tree(scratch / "work")
        with contextlib.suppress(OSError):
            scratch.rename(self.path(layer))
            return
        self.drop(scratch)

    def drop(self, scratch: Path) -> None:
        """Remove one that came to nothing."""
        if scratch.exists():
            remove_tree(scratch)

    def prune(self, holders: Sequence[Path], in_use: Collection[str] = ()) -> None:
        """Remove every layer that no folder of `holders` stands on and that is not in use."""
        wanted = {*in_use, *(layer for holder in holders for layer in _named(holder))}
        for path in self._present():
            if path.name not in wanted:
                gone = self.directory / f"{OLD}{uuid.uuid4().hex}"
                path.rename(gone)
                remove_tree(gone)

    def sweep(self) -> None:
        """Remove what was cut short."""
        for pattern in (f"{NEW}*", f"{OLD}*"):
            for path in self.directory.glob(pattern):
                remove_tree(path)

    def size_bytes(self, layers: Sequence[str]) -> int:
        """What the layers hold on disk."""
        return sum(_size(self.path(layer)) for layer in layers)

    def _present(self) -> list[Path]:
        return [path for path in self.directory.glob("[!.]*") if path.is_dir()]


def _named(holder: Path) -> tuple[str, ...]:
    with contextlib.suppress(RuntimeFailure):
        footing = Footing.load(holder)
        return footing.layers if footing else ()
    return ()


def _size(folder: Path) -> int:
    return sum(os.lstat(path).st_size for path in _files(folder))


def _files(folder: Path) -> Iterator[str]:
    for directory, _, names in os.walk(folder):
        yield from (os.path.join(directory, name) for name in names)
