"""Builds over the host (`--local-builds`) through the SDKs: as root with files of the client, and as anybody else."""

import json
import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import (  # noqa: E402
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Image,
    Resources,
)
from daytona.common.errors import DaytonaError  # noqa: E402

from tests.contract.conftest import running  # noqa: E402
from tests.contract.programs import CLIENTS, FLOW_SECONDS, IMAGE_SECONDS, bundle, run_program  # noqa: E402
from tests.contract.python_client import client, told_reason  # noqa: E402
from tests.contract.running import COMBINATIONS, Instance  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]

SANDYARD = str(Path(sys.executable).with_name("sandyard"))
IGNORED = "is IGNORED (--local-builds)"
METADATA = "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
needs_pip = pytest.mark.skipif(
    bool(subprocess.run(["/usr/bin/python3", "-m", "pip", "--version"], capture_output=True, check=False).returncode),
    reason="this machine's own Python has no pip",
)


@pytest.fixture(scope="module")
def trusted() -> Iterator[Instance]:
    """A Sandyard of root whose certificate this machine trusts for as long as the tests of this module run."""
    if os.geteuid() != 0:
        pytest.skip("only root can let this machine trust a certificate")
    data: list[Path] = []

    def trust(data_dir: Path) -> None:
        data.append(data_dir)
        subprocess.run([SANDYARD, "trust", "--data-dir", data_dir], check=True, capture_output=True, timeout=120)

    with running(COMBINATIONS["sqlite-memory-local"], trust, "--local-builds") as instance:
        try:
            yield instance
        finally:
            undo = [SANDYARD, "trust", "--undo", "--data-dir", str(data[0])]
            subprocess.run(undo, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Instance]:
    """A Sandyard of an ordinary user."""
    with running(COMBINATIONS["sqlite-memory-local-user"], None, "--local-builds") as instance:
        yield instance


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package to install, so that no index is needed."""
    path = tmp_path / "tinything-1.0-py3-none-any.whl"
    record = "tinything.py,,\ntinything-1.0.dist-info/METADATA,,\ntinything-1.0.dist-info/WHEEL,,\n"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tinything.py", "WORD = 'tiny'\n")
        packed.writestr("tinything-1.0.dist-info/METADATA", METADATA)
        packed.writestr("tinything-1.0.dist-info/WHEEL", WHEEL)
        packed.writestr("tinything-1.0.dist-info/RECORD", record + "tinything-1.0.dist-info/RECORD,,\n")
    return path


@needs_pip
def test_an_image_of_the_sdk_is_built_over_the_host_and_used(trusted: Instance, wheel: Path) -> None:
    image = (
        Image.base("python:3.12-slim")
        .add_local_file(str(wheel), f"/wheels/{wheel.name}")
        .pip_install(f"/wheels/{wheel.name}", extra_options="--no-index")
        .run_commands("echo from-the-build > /srv/built.txt", "cat /srv/built.txt")
        .env({"GREETING": "hi there"})
        .workdir("/work")
    )
    logs, name = list[str](), f"local-{uuid.uuid4().hex[:8]}"
    command = "pwd; cat /srv/built.txt; python -c 'import tinything; print(tinything.WORD)'; echo $GREETING"
    expected = "/work\nfrom-the-build\ntiny\nhi there\n"
    with client(trusted, trusted.api_key) as daytona:
        params = CreateSandboxFromImageParams(image=image)
        sandbox = daytona.create(params, timeout=IMAGE_SECONDS, on_snapshot_create_logs=logs.append)
        said = "\n".join(logs)
        assert f"FROM python:3.12-slim {IGNORED}" in said
        assert said.index(IGNORED) < said.index("Step 1/") < said.index("from-the-build")
        assert sandbox.process.exec(command).result == expected
        wanted = CreateSnapshotParams(name=name, image=image, resources=Resources(cpu=1, memory=2, disk=4))
        made = daytona.snapshot.create(wanted, on_logs=logs.append)
        assert (made.state, made.mem, made.size is not None) == ("active", 2, True)
        again = daytona.create(CreateSandboxFromSnapshotParams(snapshot=name))
        assert again.process.exec(command).result == expected
        again.process.exec("echo more > /srv/more.txt")
        fork = again.fork()
        assert fork.process.exec("cat /srv/built.txt /srv/more.txt").result == "from-the-build\nmore\n"
        fork.delete()
        again.stop()
        again.archive()
        again.start()
        assert again.process.exec("cat /srv/more.txt; python -c 'import tinything'").result == "more\n"
        for each in (sandbox, again):
            each.delete()
        daytona.snapshot.delete(made)
    assert not Path("/srv/built.txt").exists()
    assert not Path("/wheels").exists()


def test_a_failed_build_is_an_error_with_its_reason(trusted: Instance) -> None:
    failing, logs = Image.base("x:1").run_commands("echo going down; sleep 2; exit 9"), list[str]()
    mark = uuid.uuid4().hex
    wanted = CreateSandboxFromImageParams(image=failing, labels={"mark": mark})
    with client(trusted, trusted.api_key) as daytona:
        with pytest.raises(DaytonaError, match="BUILD_FAILED"):
            daytona.create(wanted, timeout=IMAGE_SECONDS, on_snapshot_create_logs=logs.append)
        assert "non-zero code: 9" in told_reason(daytona, mark)
        assert "going down" in "\n".join(logs)


@needs_pip
def test_an_ordinary_user_builds_what_needs_no_root(ordinary: Instance) -> None:
    image = Image.base("python:3.12").run_commands("mkdir ~/made", "echo hello > ~/made/file.txt", "id -un")
    logs, mark = list[str](), uuid.uuid4().hex
    with client(ordinary, ordinary.api_key) as daytona:
        params = CreateSandboxFromImageParams(image=image)
        sandbox = daytona.create(params, timeout=IMAGE_SECONDS, on_snapshot_create_logs=logs.append)
        assert IGNORED in "\n".join(logs)
        told = "id -un; cat ~/made/file.txt; echo more >> ~/made/file.txt; cat ~/made/file.txt"
        assert sandbox.process.exec(told).result == "daytona\nhello\nhello\nmore\n"
        sandbox.delete()
        refused = Image.base("python:3.12").run_commands("sleep 2; touch /usr/bin/new-program && apt-get update")
        with pytest.raises(DaytonaError, match="BUILD_FAILED"):
            daytona.create(CreateSandboxFromImageParams(image=refused, labels={"mark": mark}), timeout=IMAGE_SECONDS)
        assert "non-zero code" in told_reason(daytona, mark)


@pytest.mark.parametrize("whose", ["trusted", "ordinary"])
def test_the_typescript_sdk_builds_over_http(whose: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    instance: Instance = request.getfixturevalue(whose)
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "file.txt").write_text("a file\n")
    (tmp_path / "folder" / "sub" / "deep.txt").write_text("deep\n")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", "--alias:the-sdk=@daytona/sdk")
    program = bundle(CLIENTS / "typescript" / "snapshots.ts", Path("snapshots.mjs"), *options)
    arguments = (f"ts-{uuid.uuid4().hex[:8]}", tmp_path / "file.txt", tmp_path / "folder")
    done = run_program(["node", program, *arguments], instance, tmp_path, seconds=FLOW_SECONDS)
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    assert saw["made"] == [arguments[0], "active"]
    assert IGNORED in saw["logs"]
    assert saw["read"] == "a file\ndeep\n"
    assert saw["built"] == ["started", "a file\n"]
    assert "non-zero code: 9" in saw["failed"][1]
