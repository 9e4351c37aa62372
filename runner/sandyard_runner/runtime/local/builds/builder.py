"""Builds over the host: each step is a layer on the one before, and the same step on the same layers is made once."""

import asyncio
import hashlib
import json
import os
import platform
import posixpath
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from sandyard_api.jobs.wire import BUILD_REPOSITORY, SNAPSHOT_REPOSITORY
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import Build, ImageFacts, ProgressReport
from sandyard_runner.runtime.local.builds.context import Chosen, Context
from sandyard_runner.runtime.local.builds.dockerfile import Instruction, command_line, expand, pairs, parse
from sandyard_runner.runtime.local.builds.step import DESK_MOUNT, Step, Steps
from sandyard_runner.runtime.local.cgroups import Limits
from sandyard_runner.runtime.local.layers import Footing, ImageConfig
from sandyard_runner.runtime.local.layout import PATH, Layout
from sandyard_runner.runtime.local.options import Network
from sandyard_runner.runtime.local.tree import Account, Tree, sandbox_passwd
from sandyard_runner.runtime.local.veth import Veth

FRESH_SECONDS = 600.0
"""An image that was asked for that lately is not offered for removal: a sandbox may be about to be made from it."""
OF_SNAPSHOTS = (f"{BUILD_REPOSITORY}:", f"{SNAPSHOT_REPOSITORY}:")
PLACE = Path(__file__).with_name("place.py")
SHELL = ("/bin/sh", "-c")
MAX_OPTIONS = 3500
"""Characters of a mount's options: the kernel takes a page of them."""
OF_STEPS = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
"""For steps alone: Dockerfiles are written for images whose Python is nobody else's, and so it is in an overlay."""
WITHOUT_EFFECT = frozenset({"EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "VOLUME"})

log = structlog.get_logger(__name__)


class _Progress(msgspec.Struct):
    """How far a build has come."""

    report: ProgressReport
    context: Context
    archives: Sequence[Path]
    desk: Path
    layers: list[str] = msgspec.field(default_factory=list)
    key: str = ""
    """A hash of everything so far; what the next step's layer is called is made from it."""
    config: ImageConfig = msgspec.field(default_factory=lambda: ImageConfig(env={"PATH": PATH}))
    arguments: dict[str, str] = msgspec.field(default_factory=dict)
    """Of ARG."""
    shell: Sequence[str] = SHELL

    @property
    def variables(self) -> dict[str, str]:
        return self.arguments | self.config.env


class LocalBuilds:
    """Images for the local runtime. What a build writes is in layers; the host's own files are only read."""

    def __init__(self, layout: Layout, limits: Limits, veth: Veth) -> None:
        self._layout = layout
        self._steps = Steps(layout, limits, veth)
        self._building: dict[str, asyncio.Lock] = {}
        self._in_use: Counter[str] = Counter()
        self._asked_for: dict[str, float] = {}
        self._lock = asyncio.Lock()
        """Held while layers go, and while a sandbox begins to stand on some."""
        self._by_name: Mapping[str, Callable[[_Progress, Instruction], Awaitable[None]]] = {
            "RUN": self._run,
            "COPY": self._copy,
            "ADD": self._copy,
            "WORKDIR": self._work_dir,
        }

    async def ensure(self, image: str, build: Build, report: ProgressReport) -> ImageFacts:
        """Build it unless it is there. Raises `RuntimeFailure`; nothing of an attempt that failed stays."""
        async with self._building.setdefault(image, asyncio.Lock()):
            self.note_use(image)
            if await asyncio.to_thread(self._layout.kept.exists, image):
                report(f"The image is there: {image}")
            else:
                await self._build(image, build, report)
            self.note_use(image)
        return await self.facts(image)

    async def facts(self, image: str) -> ImageFacts:
        """What is known of an image that is there."""
        footing = await asyncio.to_thread(self._layout.kept.footing, image)
        if footing is None:
            return ImageFacts()
        size = await asyncio.to_thread(self._layout.layers.size_bytes, footing.layers)
        return ImageFacts(size, footing.config.program)

    def note_use(self, image: str) -> None:
        """A sandbox may be about to be made from it."""
        self._asked_for[image] = time.monotonic()

    async def removable(self) -> list[str]:
        """Images of builds and snapshots that nobody asked for just now."""
        names, since = await asyncio.to_thread(self._layout.kept.names), time.monotonic() - FRESH_SECONDS
        return [name for name in names if name.startswith(OF_SNAPSHOTS) and self._asked_for.get(name, since) <= since]

    async def remove(self, image: str) -> None:
        """Remove an image and the layers that only it stands on; not there is success."""
        async with self._lock:
            await asyncio.to_thread(self._layout.kept.remove, image)
            self._asked_for.pop(image, None)
            await self._prune()

    async def prune(self) -> None:
        """Remove layers that nothing stands on."""
        async with self._lock:
            await self._prune()

    def standing(self) -> asyncio.Lock:
        """To be held while a sandbox is made from an image."""
        return self._lock

    async def _prune(self) -> None:
        in_use = set(+self._in_use)
        await asyncio.to_thread(lambda: self._layout.layers.prune(self._layout.holders(), in_use))

    async def _build(self, image: str, build: Build, report: ProgressReport) -> None:
        instructions = parse(build.dockerfile)
        source = _check(instructions)
        report(f"FROM {source} is IGNORED (--local-builds): the steps run over this machine's own system, as follows.")
        folder = self._layout.options.data_dir / "builds"
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as name:
            contexts = Path(name) / "contexts"
            contexts.mkdir()
            archives = await build.fetch_contexts(contexts)
            context = await asyncio.to_thread(Context.read, archives)
            progress = _Progress(report, context, archives, Path(name))
            try:
                await self._ground(progress)
                await self._follow(progress, instructions)
                footing = Footing(tuple(progress.layers), progress.config)
                await asyncio.to_thread(self._layout.kept.write, image, footing)
            finally:
                self._in_use.subtract(progress.layers)
                await self.prune()
        report(f"Successfully built {image}")

    async def _follow(self, progress: _Progress, instructions: Sequence[Instruction]) -> None:
        steps = [one for one in instructions if one.name != "FROM"]
        for number, instruction in enumerate(steps, start=1):
            progress.report(f"Step {number}/{len(steps)} : {instruction}")
            work = self._by_name.get(instruction.name)
            if work is not None:
                await work(progress, instruction)
            elif instruction.name in WITHOUT_EFFECT:
                progress.report(" ---> has no effect in a local sandbox")
            else:
                _note(progress, instruction)

    async def _ground(self, progress: _Progress) -> None:
        """The layer below all: a fresh sandbox's own directories, and `python` where the host has only `python3`."""
        layout = self._layout
        resolver = layout.resolver(has_own_network=layout.options.network is not Network.HOST)
        facts = [os.geteuid() == 0, platform.node(), resolver, layout.hidden, sandbox_passwd()]
        progress.key = _hash("ground", json.dumps(facts))

        async def make(scratch: Path) -> None:
            await asyncio.to_thread(layout.make_ground, scratch, resolver)
            await asyncio.to_thread(_add_python, scratch / "upper" / "usr")

        await self._layer(progress, make)

    async def _layer(self, progress: _Progress, make: Callable[[Path], Awaitable[None]]) -> bool:
        """Put the layer of `progress.key` on top, made where it is not there yet; whether it was there."""
        layers, name = self._layout.layers, progress.key[:16]
        self._in_use[name] += 1
        progress.layers.append(name)
        if await asyncio.to_thread(layers.exists, name):
            return True
        scratch = await asyncio.to_thread(layers.scratch)
        try:
            await make(scratch)
            await asyncio.to_thread(layers.keep, scratch, name)
        except OSError as error:
            raise RuntimeFailure(f"cannot build the image: {error}") from error
        finally:
            await asyncio.to_thread(layers.drop, scratch)
        return False

    async def _step(
        self, progress: _Progress, words: Sequence[object], make_step: Callable[[Tree], Awaitable[Step]], what: str
    ) -> None:
        """A layer that a program makes; `words` are everything that decides what comes of it."""
        below = list(progress.layers)
        progress.key = _hash(progress.key, json.dumps(words))

        async def make(scratch: Path) -> None:
            tree = await asyncio.to_thread(self._layout.tree, scratch, below)
            await asyncio.to_thread(tree.make, ())
            if any(
                len(str(mount.get("options", ""))) > MAX_OPTIONS for mount in tree.mounts(door=None, bundle=scratch)
            ):
                raise RuntimeFailure("cannot build the image: too many steps; join some RUN, COPY and ADD into one")
            step = await make_step(tree)
            status = await self._steps.run(step, progress.desk / "step.log", progress.report)
            if status:
                raise RuntimeFailure(f"cannot build the image: {what} returned a non-zero code: {status}")

        if await self._layer(progress, make):
            progress.report(" ---> Using cache")

    async def _run(self, progress: _Progress, instruction: Instruction) -> None:
        if instruction.flags:
            raise instruction.fail(f"--{next(iter(instruction.flags))} is not part of builds over the host")
        command = command_line(instruction, progress.shell)
        if not command or not command[-1]:
            raise instruction.fail("there is nothing to run")
        words = [command, progress.variables, progress.config.user, progress.config.work_dir]

        async def step(tree: Tree) -> Step:
            account = self._layout.account_in(tree, None, progress.config)
            return self._as_user(progress, tree, command, account)

        await self._step(progress, ["RUN", *words], step, f"The command '{shlex.join(command)}'")

    def _as_user(self, progress: _Progress, tree: Tree, command: Sequence[str], account: Account) -> Step:
        env = {"HOME": account.home, "LANG": "C.UTF-8", **OF_STEPS, **progress.variables}
        # Found here and not by the kernel, which knows no PATH: the first process takes the place of another.
        program = command if command[0].startswith("/") else ["/usr/bin/env", "--", *command]
        return Step(program, tree, account, env, progress.config.work_dir or "/")

    async def _copy(self, progress: _Progress, instruction: Instruction) -> None:
        owner, mode = instruction.flags.get("chown"), instruction.flags.get("chmod")
        for flag in instruction.flags:
            if flag not in ("chown", "chmod"):
                raise instruction.fail(f"--{flag} is not part of builds over the host")
        if mode is not None and not (mode.isascii() and mode.isdigit() and set(mode) <= set("01234567")):
            raise instruction.fail(f"--chmod takes an octal number, not {mode[:20]!r}")
        *sources, target = instruction.words(progress.variables) or [""]
        if not sources or not target:
            raise instruction.fail("needs at least one source and a target")
        chosen = [_choose(progress.context, instruction, source) for source in sources]
        is_folder = target.endswith("/") or len(sources) > 1 or progress.context.is_folder(sources[0])
        path = posixpath.normpath(posixpath.join(progress.config.work_dir or "/", target))
        files = [one for found in chosen for one in found]
        if not is_folder and len(files) > 1:
            raise instruction.fail(f"{sources[0][:100]!r} names several files; the target must end in /")
        order = {
            "target": path,
            "is_folder": is_folder,
            "name": files[0].place if files else "",
            "files": [[one.member.archive, one.member.number, one.place] for one in files],
            "archives": [f"{DESK_MOUNT}/{number}.tar" for number in range(len(progress.archives))],
            "mode": int(mode, 8) if mode else None,
            "unpack": instruction.name == "ADD",
        }
        content = [[one.place, one.member.digest] for one in files]
        words = [instruction.name, path, is_folder, owner, mode, content]
        await self._place(progress, words, order, owner=owner, with_archives=True, what=str(instruction))

    async def _work_dir(self, progress: _Progress, instruction: Instruction) -> None:
        wanted = " ".join(instruction.words(progress.variables))
        if not wanted:
            raise instruction.fail("needs a path")
        path = posixpath.normpath(posixpath.join(progress.config.work_dir or "/", wanted))
        progress.config = msgspec.structs.replace(progress.config, work_dir=path)
        order = {"target": path, "is_folder": True, "files": [], "archives": []}
        await self._place(progress, ["WORKDIR", path], order, owner=None, with_archives=False, what=str(instruction))

    async def _place(
        self,
        progress: _Progress,
        words: Sequence[object],
        order: dict[str, object],
        *,
        owner: str | None,
        with_archives: bool,
        what: str,
    ) -> None:
        async def step(tree: Tree) -> Step:
            account = self._layout.account_in(tree, None, ImageConfig())
            owned = self._layout.account_in(tree, owner, ImageConfig()) if owner else account
            # As an ordinary user there is nobody else to give a file to.
            numbers = [owned.uid, owned.gid] if os.geteuid() == 0 else None
            desk = await asyncio.to_thread(_lay_out, progress, order | {"owner": numbers}, with_archives)
            command = self._steps.bundled(PLACE.name, f"{DESK_MOUNT}/order.json")
            return Step(command, tree, account, {"PATH": PATH}, desk=desk, has_network=False)

        await self._step(progress, words, step, what)


def _check(instructions: Sequence[Instruction]) -> str:
    """What the one FROM says. Raises `DockerfileError`."""
    stages = [one for one in instructions if one.name == "FROM"]
    if not stages:
        raise RuntimeFailure("cannot build the image: the Dockerfile has no FROM")
    if len(stages) > 1:
        raise stages[1].fail("more than one stage is not part of builds over the host; use --runtime docker")
    return stages[0].text


def _note(progress: _Progress, instruction: Instruction) -> None:
    """What only changes how the next steps, or sandboxes, start."""
    config, variables = progress.config, progress.variables
    match instruction.name:
        case "ENV":
            progress.config = msgspec.structs.replace(config, env=config.env | pairs(instruction, variables))
        case "ARG":
            for word in instruction.words(variables):
                name, _, value = word.partition("=")
                progress.arguments[name] = value
        case "USER":
            progress.config = msgspec.structs.replace(config, user=expand(instruction.text, variables))
        case "SHELL":
            progress.shell = instruction.json_form() or _refuse(instruction)
        case "CMD":
            progress.config = msgspec.structs.replace(config, command=command_line(instruction, progress.shell))
        case "ENTRYPOINT":
            line = command_line(instruction, progress.shell)
            # The shell's form takes no arguments, and a new one makes an end of what was said before.
            progress.config = msgspec.structs.replace(config, entrypoint=line, command=None)


def _refuse(instruction: Instruction) -> list[str]:
    raise instruction.fail('takes the form ["program", "argument"]')


def _choose(context: Context, instruction: Instruction, source: str) -> list[Chosen]:
    if instruction.name == "ADD" and source.startswith(("http://", "https://", "git@")):
        raise instruction.fail("addresses are not part of builds over the host; fetch it by a RUN step")
    found = context.choose(source)
    if not found and not context.is_folder(source):
        raise RuntimeFailure(f"cannot build the image: {instruction.name} failed: {source[:200]} is not in the context")
    return found


def _lay_out(progress: _Progress, order: dict[str, object], with_archives: bool) -> Path:
    """What a step of ours needs, in a folder that it is shown."""
    desk = Path(tempfile.mkdtemp(dir=progress.desk, prefix="desk-"))
    desk.chmod(0o755)
    shutil.copyfile(PLACE, desk / PLACE.name)
    (desk / "order.json").write_text(json.dumps(order), encoding="utf-8", errors="surrogateescape")
    for number, path in enumerate(progress.archives if with_archives else ()):
        (desk / f"{number}.tar").hardlink_to(path)
    return desk


def _add_python(usr: Path) -> None:
    """Dockerfiles of Python images say `python`; on Debian the name is `python3`."""
    if shutil.which("python", path=PATH) is None and shutil.which("python3", path=PATH) is not None:
        folder = usr / "local" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        for made in (folder.parent, folder):
            made.chmod(0o755)
        (folder / "python").symlink_to(shutil.which("python3", path=PATH) or "python3")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
