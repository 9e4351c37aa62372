"""Builds over the host, on real namespaces: what each instruction does, what is cached, what a failed one leaves."""

import asyncio
import contextlib
import io
import os
import tarfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.errors import RuntimeFailure, Unsupported
from sandyard_runner.runtime.contract import Build, ImageFacts
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.runtime.local.runtime import LocalRuntime, open_local_runtime
from sandyard_runner.wire import Enforcement
from tests.runner.conftest import eventually
from tests.runner.test_local_namespaces import AS_ROOT, SECRET, run

MARK = f"sandyard-test-{uuid.uuid4().hex[:8]}"
Make = Callable[..., Awaitable[tuple[str, list[str]]]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
def options(tmp_path: Path, bundles: Path) -> LocalOptions:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bundles").symlink_to(bundles)
    return LocalOptions(tmp_path / "data", tmp_path / "doors", network=Network.NONE, local_builds=True)


@pytest.fixture
async def runtime(options: LocalOptions) -> AsyncIterator[LocalRuntime]:
    try:
        async with open_local_runtime(options) as opened:
            yield opened
            for item in await opened.present():
                await opened.remove(item.sandbox_id)
    except RuntimeFailure as failure:
        if "--isolation none" not in failure.message:
            raise
        pytest.skip(failure.message)


def context(files: Mapping[str, str | bytes], *, links: Mapping[str, str] | None = None) -> bytes:
    """A build context as SDKs send it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(raw), 0o644
            archive.addfile(entry, io.BytesIO(raw))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return packed.getvalue()


async def build(
    runtime: LocalRuntime, dockerfile: str, *contexts: bytes, image: str | None = None
) -> tuple[str, list[str], ImageFacts]:
    """The name, the log and the facts of an image."""
    name, lines = image or f"sandyard/build:{uuid.uuid4().hex}", list[str]()

    async def fetch(folder: Path) -> Sequence[Path]:
        paths = [folder / f"context-{number}.tar" for number in range(len(contexts))]
        for path, content in zip(paths, contexts, strict=True):
            path.write_bytes(content)
        return paths

    facts = await runtime.ensure_image(name, lines.append, build=Build(f"FROM some/image:1\n{dockerfile}", fetch))
    return name, lines, facts


async def sandbox_of(runtime: LocalRuntime, image: str | None, *, user: str | None = None) -> SandboxSpec:
    spec = SandboxSpec(str(uuid.uuid4()), "org", "a sandbox", SECRET, image=image, user=user)
    await runtime.create(spec)
    await runtime.start(spec)
    return spec


async def in_image(runtime: LocalRuntime, image: str, command: str) -> str:
    """What a command says in a sandbox of the image."""
    code, text = await run(runtime, await sandbox_of(runtime, image), command)
    assert code == 0, text
    return text.strip()


async def eventually_gone(command: str) -> None:
    """Return when no process has that command; one that was killed takes a moment to be none."""

    async def is_gone() -> bool:
        done = await asyncio.create_subprocess_exec("pgrep", "-f", command, stdout=asyncio.subprocess.DEVNULL)
        return await done.wait() == 1

    await eventually(is_gone)


async def test_steps_change_the_image_and_not_the_host(runtime: LocalRuntime) -> None:
    where = f"/usr/{MARK}" if AS_ROOT else f"/srv/{MARK}"
    image, lines, facts = await build(runtime, f"RUN echo in the image > {where}\nRUN cat {where}\n")
    assert lines[0] == (
        "FROM some/image:1 is IGNORED (--local-builds): the steps run over this machine's own system, as follows."
    )
    assert "in the image" in lines
    assert "Step 2/2 : RUN cat " + where in lines
    assert Path(where).name not in os.listdir(Path(where).parent)
    assert await in_image(runtime, image, f"cat {where}") == "in the image"
    assert (facts.size_bytes or 0) > 0
    plain = await sandbox_of(runtime, None)
    assert (await run(runtime, plain, f"ls {where}"))[0] != 0


async def test_a_dockerfile_says_how_sandboxes_start(runtime: LocalRuntime) -> None:
    image, _, facts = await build(
        runtime,
        "ARG who=world\n"
        "ENV GREETING=\"hello $who\" PLAIN='$who' \\\n    PATH=/somewhere:$PATH\n"
        "ENV old form of it\n"
        "WORKDIR /work\nWORKDIR deeper\n"
        'RUN echo "$GREETING" > said; pwd\n'
        "LABEL a=b\nEXPOSE 80\n"
        'ENTRYPOINT ["/bin/sh", "-c", "echo begun > /tmp/begun; sleep 500"]\n',
    )
    assert list(facts.entrypoint) == ["/bin/sh", "-c", "echo begun > /tmp/begun; sleep 500"]
    spec = await sandbox_of(runtime, image)
    said = (await run(runtime, spec, 'pwd; cat said; echo "$PLAIN|$old|$PATH"'))[1].splitlines()
    assert said[:2] == ["/work/deeper", "hello world"]
    assert said[2].startswith("$who|form of it|/somewhere:/usr/local/sbin")


async def test_files_of_contexts_are_put_where_copy_says(runtime: LocalRuntime) -> None:
    first = context({"tmp/one.txt": "one", "tree/a.txt": "a", "tree/sub/b.txt": "b"}, links={"tree/link": "a.txt"})
    inner = context({"packed.txt": "packed"})
    second = context({"tmp/two.txt": "two", "archive.tar": inner})
    image, _, _ = await build(
        runtime,
        "COPY tmp/one.txt /data/renamed.txt\n"
        "COPY --chmod=600 tmp/*.txt /data/all/\n"
        "COPY tree /data/tree\n"
        "WORKDIR /data\nCOPY tmp/two.txt .\n"
        'COPY ["tmp/two.txt", "with space/"]\n'
        "ADD archive.tar /data/unpacked/\n",
        first,
        second,
    )
    paths = "renamed.txt all/one.txt all/two.txt tree/a.txt tree/sub/b.txt two.txt 'with space'/two.txt"
    told = await in_image(
        runtime, image, f"cd /data; cat {paths} unpacked/packed.txt; readlink tree/link; stat -c %a all/one.txt"
    )
    assert told.splitlines() == ["oneonetwoabtwotwopackeda.txt", "600"]


async def test_a_link_in_a_context_or_an_image_leads_to_nothing_of_the_host(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept.txt").write_text("untouched")
    climbing = context({"../../escape.txt": "x", "file.txt": "overwritten"}, links={"out": str(precious)})
    image, _, _ = await build(
        runtime,
        f"COPY out /out\nRUN ln -s {precious} /way; mkdir -p {precious}\nCOPY file.txt /way/kept.txt\nCOPY . /all/\n",
        climbing,
    )
    assert (precious / "kept.txt").read_text() == "untouched"
    assert sorted(path.name for path in precious.iterdir()) == ["kept.txt"]
    told = await in_image(runtime, image, f"cat {precious}/kept.txt; echo; ls /all; readlink /out")
    assert told.splitlines() == ["overwritten", *sorted(["escape.txt", "file.txt", "out"]), str(precious)]
    assert not (tmp_path.parent / "escape.txt").exists()


async def test_a_step_that_was_made_before_is_not_made_again(runtime: LocalRuntime) -> None:
    steps = "RUN date +%N > /made\nCOPY a.txt /a.txt\n"
    one, _, _ = await build(runtime, steps, context({"a.txt": "a"}))
    two, lines, _ = await build(runtime, f"{steps}RUN echo more\n", context({"a.txt": "a", "b.txt": "another"}))
    assert lines.count(" ---> Using cache") == 2
    assert await in_image(runtime, one, "cat /made") == await in_image(runtime, two, "cat /made")
    three, lines, _ = await build(runtime, steps, context({"a.txt": "changed"}))
    assert lines.count(" ---> Using cache") == 1
    assert await in_image(runtime, three, "cat /a.txt /made") != await in_image(runtime, one, "cat /a.txt /made")
    _, lines, _ = await build(runtime, "ENV A=b\nRUN date +%N > /made\n")
    assert lines.count(" ---> Using cache") == 0


async def test_a_failed_build_says_why_and_leaves_nothing(runtime: LocalRuntime, options: LocalOptions) -> None:
    with pytest.raises(RuntimeFailure, match=r"The command '/bin/sh -c 'echo down; exit 9'' returned .*code: 9"):
        await build(runtime, "RUN touch /first\nRUN echo down; exit 9\n", image="sandyard/build:failing")
    assert not await runtime.has_image("sandyard/build:failing")
    assert list((options.data_dir / "layers").iterdir()) == []
    assert list((options.data_dir / "builds").iterdir()) == []


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("COPY missing.txt /a", "COPY failed: missing.txt is not in the context"),
        ("COPY --from=other /a /b", "line 2, COPY: --from is not part of builds over the host"),
        ("FROM second AS two\nRUN true", "line 2, FROM: more than one stage"),
        ("ADD https://example.com/x /x", "line 2, ADD: addresses are not part of builds over the host"),
        ("RUN --mount=type=cache,target=/x true", "line 2, RUN: --mount is not part"),
        ("RUN <<EOF\necho\nEOF", "line 2, RUN: here-documents"),
        ("FLY me to the moon", "line 2: unknown instruction: FLY"),
        ('ENV A="open', "line 2, ENV: a quote is not closed"),
        ("COPY a.txt", "line 2, COPY: needs at least one source and a target"),
        ("USER nobody-here\nRUN true", "unable to find user nobody-here"),
        ("RUN", "line 2, RUN: there is nothing to run"),
        ("COPY --chmod=u+x a /b", "takes an octal number"),
    ],
)
async def test_what_cannot_be_built_is_refused_by_line_and_name(
    runtime: LocalRuntime, options: LocalOptions, dockerfile: str, words: str
) -> None:
    with pytest.raises(RuntimeFailure) as refused:
        await build(runtime, dockerfile)
    assert words in refused.value.message
    assert [path for path in options.data_dir.glob("layers/*")] == []


async def test_processes_that_a_step_leaves_running_end_with_it(runtime: LocalRuntime) -> None:
    image, _, _ = await build(runtime, f"RUN exec -a {MARK} sleep 77777 & echo left > /left\n")
    assert await in_image(runtime, image, "cat /left") == "left"
    await eventually_gone("sleep 77777")


async def test_a_cancelled_build_ends_its_step_and_leaves_nothing(runtime: LocalRuntime, options: LocalOptions) -> None:
    lines: list[str] = []

    async def fetch(_: Path) -> Sequence[Path]:
        return []

    order = Build("FROM x\nRUN echo begun; exec sleep 88888\n", fetch)
    building = asyncio.create_task(runtime.ensure_image("sandyard/build:cut", lines.append, build=order))
    async with asyncio.timeout(60):
        while "begun" not in lines:  # noqa: ASYNC110  the log is told by calls
            await asyncio.sleep(0.02)
    building.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await building
    await eventually_gone("sleep 88888")
    assert list((options.data_dir / "layers").iterdir()) == []
    assert list((options.data_dir / "builds").iterdir()) == []


async def test_the_same_build_asked_for_twice_at_once_is_made_once(runtime: LocalRuntime) -> None:
    name = f"sandyard/build:{uuid.uuid4().hex}"
    both = await asyncio.gather(*(build(runtime, "RUN sleep 0.3; echo made", image=name) for _ in range(2)))
    assert sorted("made" in lines for _, lines, _ in both) == [False, True]


async def test_sandboxes_forks_and_snapshots_of_a_build_keep_its_layers_until_they_go(
    runtime: LocalRuntime, options: LocalOptions
) -> None:
    image, _, _ = await build(runtime, "RUN echo built > /built; echo lower > /srv/file; mkdir -p /gone/x\n")
    spec = await sandbox_of(runtime, image)
    assert (await run(runtime, spec, "echo own >> /built; rm -r /gone; cat /built"))[1] == "built\nown\n"
    await runtime.commit(spec.sandbox_id, "sandyard/fork:one")
    await runtime.remove_build(image)
    fork = await sandbox_of(runtime, "sandyard/fork:one")
    assert (await run(runtime, fork, "cat /built /srv/file; ls -d /gone"))[1].splitlines()[:3] == [
        "built",
        "own",
        "lower",
    ]
    assert (await run(runtime, fork, "ls -d /gone"))[0] != 0
    for sandbox in (spec, fork):
        await runtime.remove(sandbox.sandbox_id)
    assert list((options.data_dir / "layers").glob("[!.]*"))
    await runtime.remove_image("sandyard/fork:one")
    await runtime.prune()
    assert list((options.data_dir / "layers").iterdir()) == []


async def test_builds_stay_over_a_restart(options: LocalOptions) -> None:
    try:
        async with open_local_runtime(options) as before:
            image, _, _ = await build(before, "RUN echo kept > /kept\n")
    except RuntimeFailure as failure:
        pytest.skip(failure.message)
    async with open_local_runtime(options) as after:
        assert await in_image(after, image, "cat /kept") == "kept"
        assert await after.built_images() == []
        await after.remove((await after.present())[0].sandbox_id)


@pytest.mark.skipif(not AS_ROOT, reason="only root has several users in its sandboxes")
async def test_users_of_steps_and_of_sandboxes_are_those_of_an_image(runtime: LocalRuntime) -> None:
    image, lines, _ = await build(
        runtime,
        "RUN id -un; useradd --uid 1500 --create-home somebody\n"
        "COPY --chown=somebody a.txt /theirs.txt\n"
        "USER somebody\nRUN id -un; echo $HOME; touch ~/mine\n",
        context({"a.txt": "a"}),
    )
    assert [line for line in lines if line in ("root", "somebody", "/home/somebody")] == [
        *("root", "somebody", "/home/somebody")
    ]
    told = "id -un; stat -c %U /theirs.txt ~/mine; pwd"
    assert (await in_image(runtime, image, told)).split() == [*["somebody"] * 3, "/home/somebody"]
    spec = await sandbox_of(runtime, image, user="daytona")
    assert (await run(runtime, spec, "id -un"))[1] == "daytona\n"
    plain, _, _ = await build(runtime, "RUN true\n")
    assert await in_image(runtime, plain, "id -un") == "root"


@pytest.mark.skipif(not AS_ROOT, reason="nothing is hidden from an ordinary user's sandboxes")
async def test_what_is_secret_on_the_host_is_hidden_from_steps(runtime: LocalRuntime) -> None:
    secret = Path("/etc") / MARK
    secret.write_text("hush")
    secret.chmod(0o600)
    try:
        runtime._layout.hidden.append(MARK)
        image, lines, _ = await build(runtime, f"RUN cat /etc/{MARK}; cat /etc/shadow; ls -A /root /home; true\n")
        assert not [line for line in lines if "hush" in line]
        assert [line for line in lines if line.startswith("root:")] == ["root:*:19000:0:99999:7:::"]
        runtime._layout.hidden.append(f"{MARK}-later")
        (Path("/etc") / f"{MARK}-later").write_text("hush")
        told = await in_image(runtime, image, f"cat /etc/{MARK}-later || echo hidden")
        assert told.endswith("hidden")
        assert "hush" not in told
    finally:
        secret.unlink()
        (Path("/etc") / f"{MARK}-later").unlink(missing_ok=True)


async def test_an_image_by_name_is_this_machine_and_its_log_says_so(runtime: LocalRuntime) -> None:
    lines: list[str] = []
    await runtime.ensure_image("python:3.12", lines.append)
    assert lines == ["python:3.12 is IGNORED (--local-builds): sandboxes of it show this machine's own system."]
    spec = await sandbox_of(runtime, "python:3.12")
    assert (await run(runtime, spec, "id -un"))[1] == "daytona\n"
    with pytest.raises(Unsupported, match="has no images, so sandyard/snapshot:gone"):
        await runtime.ensure_image("sandyard/snapshot:gone", lines.append)


async def test_the_capability_table_says_that_from_is_ignored(runtime: LocalRuntime) -> None:
    row = next(row for row in runtime.capabilities() if row.name == "images")
    assert row.enforcement is Enforcement.IGNORED
    assert "FROM is ignored" in row.detail


async def test_without_isolation_builds_are_refused_with_the_reason(options: LocalOptions) -> None:
    with pytest.raises(Unsupported, match=r"cannot be had with --isolation none: .*would change this machine itself"):
        async with open_local_runtime(replace(options, isolation=Isolation.NONE)):
            pass


async def test_without_the_option_builds_say_what_to_use(options: LocalOptions) -> None:
    with contextlib.suppress(RuntimeFailure):
        async with open_local_runtime(replace(options, local_builds=False)) as runtime:
            with pytest.raises(Unsupported, match=r"--runtime docker for builds, or with --local-builds"):
                await build(runtime, "RUN true\n")
            return
    if os.geteuid() == 0:
        pytest.fail("the runtime did not open")
