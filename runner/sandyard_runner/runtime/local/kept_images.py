"""What was kept of local sandboxes: copies of the files they wrote, by name, as `create` takes them.

<data_dir>/images/<name, percent-encoded>/
    files/  upper/     as in a sandbox with namespaces (see `tree`), or
    home/              of one without
    footing.json       what it stands on, where that is not the host alone (see `layers`)
"""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local.layers import FOOTING_FILE, Footing
from sandyard_runner.runtime.local.tree import LAID_OUT, remove_tree

ISOLATED = ("files", "upper")
PLAIN = ("home",)
COPY_SECONDS = 3600.0


class KeptImages(msgspec.Struct, frozen=True):
    """The directory of images. Every method blocks; names are any text."""

    directory: Path

    def exists(self, image: str) -> bool:
        """Whether there is one of that name."""
        return self._path(image).is_dir()

    def keep(self, image: str, base: Path) -> None:
        """Copy the files of the sandbox in `base`; the image is there whole or not at all. Raises `RuntimeFailure`."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self.directory / f".new-{uuid.uuid4().hex}"
        scratch.mkdir(mode=0o700)
        try:
            _copy(base, scratch, [name for name in (*ISOLATED, *PLAIN, FOOTING_FILE) if (base / name).exists()])
            self.remove(image)
            scratch.rename(self._path(image))
        except BaseException:
            remove_tree(scratch)
            raise

    def write(self, image: str, footing: Footing) -> None:
        """Make an image that is nothing but what it stands on."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = self.directory / f".new-{uuid.uuid4().hex}"
        for name in ISOLATED:
            (scratch / name).mkdir(parents=True)
        footing.save(scratch)
        self.remove(image)
        scratch.rename(self._path(image))

    def footing(self, image: str) -> Footing | None:
        """What an image stands on; `None` for the host alone, or where there is no such image."""
        return Footing.load(self._path(image))

    def folders(self) -> list[Path]:
        """The folder of each image."""
        return list(self.directory.glob("[!.]*"))

    def unpack(self, image: str, base: Path, isolated: bool) -> None:
        """Copy an image into `base`, laid out for a start. Raises `RuntimeFailure`."""
        source = self._path(image)
        names = ISOLATED if isolated else PLAIN
        if not all((source / name).is_dir() for name in names):
            problem = "does not exist" if not source.is_dir() else "was made under another isolation"
            raise RuntimeFailure(f"image {image} {problem}")
        for name in names:  # what an attempt that was cut short left
            if (base / name).exists():
                remove_tree(base / name)
        _copy(source, base, names)
        footing = Footing.load(source)
        if footing is not None:
            footing.save(base)
        elif isolated:
            for upper in (base / "upper").iterdir():
                (base / "work" / upper.name).mkdir(parents=True, exist_ok=True, mode=0o700)
            (base / LAID_OUT).touch()

    def remove(self, image: str) -> None:
        """Not there is success."""
        path = self._path(image)
        gone = self.directory / f".old-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(gone)
            remove_tree(gone)

    def names(self) -> list[str]:
        """Every image, in order of their names."""
        return sorted(unquote(path.name) for path in self.directory.glob("[!.]*"))

    def sweep(self) -> None:
        """Remove what was cut short."""
        for pattern in (".new-*", ".old-*"):
            for path in self.directory.glob(pattern):
                remove_tree(path)

    def _path(self, image: str) -> Path:
        return self.directory / quote(image, safe="").replace(".", "%2E")


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    """With owners, modes, links, times and the overlay's own marks, sharing blocks where the disk can."""
    program = shutil.which("cp") or "/bin/cp"
    command = [program, "-a", "--reflink=auto", "--sparse=auto", *(os.fspath(source / name) for name in names)]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, os.fspath(target)], stdin=subprocess.DEVNULL, capture_output=True, timeout=COPY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeFailure(f"the sandbox's files cannot be copied: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeFailure(f"the sandbox's files cannot be copied: {said[-1] if said else done.returncode}")
