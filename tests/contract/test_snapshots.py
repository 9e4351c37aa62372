"""Snapshots and builds through the SDKs, on a real engine, with files and folders of the client's own in them."""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    AsyncDaytona,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    DaytonaConfig,
    Image,
    Resources,
)
from daytona.common.errors import (  # noqa: E402
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaNotFoundError,
)

from sandyard_runner.runtime.docker.options import LABEL_IMAGE  # noqa: E402
from tests.contract.conftest import running  # noqa: E402
from tests.contract.programs import (  # noqa: E402
    CLIENTS,
    FLOW_SECONDS,
    GO_LACKS,
    GO_RELEASES,
    IMAGE_SECONDS,
    bundle,
    go_flow,
    run_program,
)
from tests.contract.python_client import client, told_reason  # noqa: E402
from tests.contract.running import COMBINATIONS, Combination, Instance, chosen_combinations  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.docker,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]

SANDYARD = str(Path(sys.executable).with_name("sandyard"))
DOCKER = [name for name in chosen_combinations(os.environ) if COMBINATIONS[name].runtime == "docker"]
BUSYBOX = "busybox:latest"
MANY_FILES, MANY_BYTES = 2300, 34_000_000


@pytest.fixture(scope="module", params=DOCKER)
def trusted(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A Sandyard whose certificate this machine trusts for as long as the tests of this module run."""
    if os.geteuid() != 0:
        pytest.skip("only root can let this machine trust a certificate")
    combination: Combination = COMBINATIONS[request.param]
    data: list[Path] = []

    def trust(data_dir: Path) -> None:
        data.append(data_dir)
        subprocess.run([SANDYARD, "trust", "--data-dir", data_dir], check=True, capture_output=True, timeout=120)

    with running(combination, trust) as instance:
        try:
            yield instance
        finally:
            remove_images(data[0])
            undo = [SANDYARD, "trust", "--undo", "--data-dir", str(data[0])]
            subprocess.run(undo, check=True, capture_output=True, timeout=120)


def remove_images(data_dir: Path) -> None:
    """What was built for an installation; it would only go with `sandyard down`."""
    engine = docker.APIClient(version="auto")
    label = f"{LABEL_IMAGE}={(data_dir / 'installation').read_text().strip()}"
    for image in engine.images(filters={"label": label}):
        with contextlib.suppress(docker.errors.APIError):
            engine.remove_image(image["Id"], force=True)
    engine.close()


@pytest.fixture
def daytona(trusted: Instance) -> Iterator[Daytona]:
    with client(trusted, trusted.api_key) as opened:
        yield opened


@pytest.fixture
def name(daytona: Daytona) -> Iterator[str]:
    """A name nobody has; a snapshot of it is gone afterwards."""
    made = f"team/test-{uuid.uuid4().hex[:8]}:1.0"
    yield made
    with contextlib.suppress(DaytonaNotFoundError):
        daytona.snapshot.delete(daytona.snapshot.get(made))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """`file.txt`, and `folder/sub/deep.txt`."""
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("a file\n")
    (tmp_path / "folder" / "sub" / "deep.txt").write_text("deep\n")
    return tmp_path


def image_with(files: Path) -> Image:
    return (
        Image.base(BUSYBOX)
        .add_local_file(str(files / "file.txt"), "/data/file.txt")
        .add_local_dir(str(files / "folder"), "/data/folder")
        .env({"GREETING": "hi"})
        .run_commands("echo from-the-build", "sleep 2", "echo the-end")
    )


READ_ALL = "cat /data/file.txt /data/folder/sub/deep.txt; echo $GREETING"


def test_a_snapshot_is_built_with_local_files_and_used(daytona: Daytona, name: str, files: Path) -> None:
    logs: list[str] = []
    wanted = CreateSnapshotParams(name=name, image=image_with(files), resources=Resources(cpu=2, memory=2, disk=4))
    made = daytona.snapshot.create(wanted, on_logs=logs.append)
    assert (made.name, made.state, made.cpu, made.mem, made.disk) == (name, "active", 2, 2, 4)
    said = "\n".join(logs)
    assert "from-the-build" in said
    assert said.index("from-the-build") < said.index("the-end")
    assert daytona.snapshot.get(name).id == made.id
    assert made.id in [one.id for one in daytona.snapshot.list(page=1, limit=10).items]
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(snapshot=name))
    try:
        assert (sandbox.snapshot, sandbox.cpu) == (name, 2)
        assert sandbox.process.exec(READ_ALL).result == "a file\ndeep\nhi\n"
    finally:
        sandbox.delete()
    with pytest.raises(DaytonaConflictError, match="already exists for this organization"):
        daytona.snapshot.create(CreateSnapshotParams(name=name, image="busybox:1"))
    with pytest.raises(Exception, match="is already active"):  # the SDK lets its generated client's error through
        daytona.snapshot.activate(made)
    daytona.snapshot.delete(made)
    with pytest.raises(DaytonaNotFoundError):
        daytona.snapshot.get(name)


def test_a_sandbox_is_created_from_an_image_with_local_files(daytona: Daytona, files: Path) -> None:
    logs: list[str] = []
    wanted = CreateSandboxFromImageParams(image=image_with(files).entrypoint(["sleep", "5000"]))
    sandbox = daytona.create(wanted, timeout=IMAGE_SECONDS, on_snapshot_create_logs=logs.append)
    try:
        assert sandbox.state == "started"
        assert sandbox.process.exec(READ_ALL).result == "a file\ndeep\nhi\n"
        assert "from-the-build" in "\n".join(logs)
        assert sandbox.build_info is not None
        assert len(sandbox.build_info.context_hashes or []) == 2
    finally:
        sandbox.delete()


def test_a_failed_build_is_an_error_with_its_reason_and_leaves_nothing_to_use(daytona: Daytona, name: str) -> None:
    failing, logs = Image.base(BUSYBOX).run_commands("echo going down; sleep 2; exit 9"), list[str]()
    with pytest.raises(DaytonaError, match="non-zero code: 9"):
        daytona.snapshot.create(CreateSnapshotParams(name=name, image=failing), on_logs=logs.append)
    assert "going down" in "\n".join(logs)
    failed = daytona.snapshot.get(name)
    assert failed.state == "build_failed"
    assert "non-zero code: 9" in (failed.error_reason or "")
    with pytest.raises(DaytonaBadRequestError, match="is build_failed"):
        daytona.create(CreateSandboxFromSnapshotParams(snapshot=name))
    seen, mark = list[str](), uuid.uuid4().hex
    wanted = CreateSandboxFromImageParams(image=failing, labels={"mark": mark})
    with pytest.raises(DaytonaError, match="BUILD_FAILED"):
        daytona.create(wanted, timeout=IMAGE_SECONDS, on_snapshot_create_logs=seen.append)
    assert "non-zero code: 9" in told_reason(daytona, mark)
    assert "going down" in "\n".join(seen)


def test_a_failed_pull_says_why(daytona: Daytona, name: str) -> None:
    with pytest.raises(DaytonaError, match=r"cannot pull 127\.0\.0\.1:9/no/thing:1"):
        daytona.snapshot.create(CreateSnapshotParams(name=name, image="127.0.0.1:9/no/thing:1"))


def test_an_image_of_the_engine_becomes_a_snapshot(daytona: Daytona, name: str) -> None:
    wanted = CreateSnapshotParams(name=name, image="debian:bookworm-slim", entrypoint=["sleep", "infinity"])
    made = daytona.snapshot.create(wanted)
    assert (made.state, made.image_name, made.entrypoint) == ("active", "debian:bookworm-slim", ["sleep", "infinity"])
    assert (made.size or 0) > 0.01


def test_a_sandbox_becomes_a_snapshot_with_its_files(daytona: Daytona, name: str) -> None:
    sandbox = daytona.create()
    try:
        sandbox.process.exec("echo kept > ~/kept.txt")
        sandbox.create_snapshot(name)
        assert sandbox.state == "started"
        made = daytona.snapshot.get(name)
        assert (made.state, made.source_sandbox_id) == ("active", sandbox.id)
        again = daytona.create(CreateSandboxFromSnapshotParams(snapshot=name))
        try:
            assert again.process.exec("cat ~/kept.txt").result == "kept\n"
        finally:
            again.delete()
    finally:
        sandbox.delete()


async def test_the_asynchronous_sdk_builds_too(trusted: Instance, files: Path) -> None:
    name, logs = f"async-{uuid.uuid4().hex[:8]}", list[str]()
    config = DaytonaConfig(api_key=trusted.api_key, api_url=trusted.api_url)
    async with AsyncDaytona(config) as daytona:
        made = await daytona.snapshot.create(
            CreateSnapshotParams(name=name, image=image_with(files)), on_logs=logs.append
        )
        assert made.state == "active"
        sandbox = await daytona.create(CreateSandboxFromSnapshotParams(snapshot=name))
        assert (await sandbox.process.exec(READ_ALL)).result == "a file\ndeep\nhi\n"
        await sandbox.delete()
        wanted = CreateSandboxFromImageParams(image=image_with(files).run_commands("echo asynchronously"))
        built = await daytona.create(wanted, timeout=IMAGE_SECONDS, on_snapshot_create_logs=logs.append)
        assert (await built.process.exec("cat /data/file.txt")).result == "a file\n"
        await built.delete()
        await daytona.snapshot.delete(made)
    assert "the-end" in "\n".join(logs)


def test_a_large_context_of_many_files_arrives_whole(daytona: Daytona, tmp_path: Path) -> None:
    content = os.urandom(MANY_BYTES // MANY_FILES)
    for number in range(MANY_FILES):
        path = tmp_path / f"tree/{number % 50}/{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    image = Image.base(BUSYBOX).add_local_dir(str(tmp_path / "tree"), "/tree")
    sandbox = daytona.create(CreateSandboxFromImageParams(image=image), timeout=IMAGE_SECONDS)
    try:
        counted = sandbox.process.exec("find /tree -type f | wc -l; find /tree -type f -exec cat {} + | wc -c").result
        assert [int(word) for word in counted.split()] == [MANY_FILES, MANY_FILES * len(content)]
    finally:
        sandbox.delete()


def test_the_typescript_sdk_builds_over_http(trusted: Instance, files: Path, tmp_path: Path) -> None:
    source = CLIENTS / "typescript" / "snapshots.ts"
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", "--alias:the-sdk=@daytona/sdk")
    program = bundle(source, Path("snapshots.mjs"), *options)
    arguments = (f"ts-{uuid.uuid4().hex[:8]}", files / "file.txt", files / "folder")
    done = run_program(["node", program, *arguments], trusted, tmp_path, seconds=FLOW_SECONDS)
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    assert saw["made"] == [arguments[0], "active"]
    assert "from-the-build" in saw["logs"]
    assert (saw["listed"], saw["snapshot"]) == (True, arguments[0])
    assert saw["read"] == "a file\ndeep\n"
    assert saw["built"] == ["started", "a file\n"]
    assert "for-a-sandbox" in saw["buildLogs"]
    assert "non-zero code: 9" in saw["failed"][1]
    assert "build_failed" in saw["failedSandbox"][1]
    assert "non-zero code: 9" in saw["failedReason"]
    assert saw["gone"][0] == "DaytonaNotFoundError"


def test_without_trust_the_python_sdk_is_told_what_to_run(sandyard: Instance, files: Path) -> None:
    with client(sandyard, sandyard.api_key) as daytona, pytest.raises(DaytonaError, match="Run `sandyard trust` once"):
        daytona.create(CreateSandboxFromImageParams(image=image_with(files)))


def test_the_local_runtime_says_what_to_use_instead(sandyard: Instance) -> None:
    if sandyard.combination.runtime == "docker":
        pytest.skip("docker builds")
    with client(sandyard, sandyard.api_key) as daytona:
        image = Image.base(BUSYBOX).run_commands("true")
        with pytest.raises(DaytonaError, match=r"cannot build images: .*--runtime docker.*or with --local-builds"):
            daytona.create(CreateSandboxFromImageParams(image=image))
        with pytest.raises(DaytonaError, match=r"the local runtime has no images.*--runtime docker"):
            daytona.create(CreateSandboxFromImageParams(image=BUSYBOX))


@pytest.mark.parametrize("release", GO_RELEASES)
def test_the_go_sdk_builds_over_http(trusted: Instance, files: Path, tmp_path: Path, release: str) -> None:
    name = f"go-{uuid.uuid4().hex[:8]}"
    saw = go_flow(release, "snapshots", trusted, tmp_path, name, files / "file.txt", files / "folder")
    assert saw["made"] == [True, "active", 2, 2, 4]
    assert saw["logs"].index("from-the-build") < saw["logs"].index("the-end")
    assert f"Created snapshot {name} (active)" in saw["logs"]
    assert (saw["listed"], saw["read"]) == (True, "a file\ndeep\nhi\n")
    assert saw["taken"] == ["DaytonaError", "409 Conflict", 409], "the SDK drops the message here"
    assert saw["built"] == ["started", "a file\ndeep\nhi\n"]
    assert "the-end" in saw["buildLogs"]
    assert saw["plain"] == ["active", "debian:bookworm-slim", ["sleep", "infinity"], True]
    assert saw["written"] == "active"
    assert saw["failed"][0] == "build_failed"
    assert "non-zero code: 9" in saw["failed"][1]
    assert "going down" in saw["failedLogs"]
    assert "non-zero code: 9" in saw["failedLogs"]
    assert saw["useFailed"][2] == 400
    assert "Sandbox failed to start" in saw["failedSandbox"][1]
    assert "Path does not exist: /no/such/file" in saw["noSuchFile"][1]
    assert saw["fromSandbox"] == (GO_LACKS if release == "0.148" else "kept\n")
    assert saw["gone"][0] == "DaytonaNotFoundError"
