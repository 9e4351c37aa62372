"""Running client programs, with the time of each line, and finding what `scripts/client-environments` installed."""

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.contract.running import Instance

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "clients"
CLIENTS = Path(__file__).parent / "clients"
SEED = ROOT.parent / "shared" / "seed" / "programs"
PROGRAM_SECONDS = 90.0
BUILD_SECONDS = 600.0
"""For the first build of a release with an empty cache on a busy machine."""
FLOW_SECONDS = 300.0
"""For a flow in Go; builds of images on a busy machine take the longest."""
IMAGE_SECONDS = 240.0
"""For one build or pull of an image on a busy machine; the SDKs' own limit is a minute."""
NEWEST_PYTHON_SDK = "newest"
GO_RELEASES = ("0.148", "0.173")
"""Those that can be had and that the flows speak; the seed's own programs are for 0.143."""
NEWEST_GO_SDK = GO_RELEASES[-1]
GO_LACKS = "the release lacks this call"
"""What a flow saw of a call that its release does not have."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line a program wrote."""

    at: float
    """Seconds after the program's start."""
    stream: str
    text: str


@dataclass(slots=True, repr=False)
class Transcript:
    """What a program wrote and how it ended."""

    exit_code: int = -1
    seconds: float = 0.0
    lines: list[Line] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Standard output as one text."""
        return "\n".join(line.text for line in self.lines if line.stream == "out")

    @property
    def errors(self) -> str:
        """Standard error as one text."""
        return "\n".join(line.text for line in self.lines if line.stream == "err")

    def when(self, text: str) -> float:
        """Seconds after the start at which the first line that holds `text` came. Fails if none did."""
        found = next((line.at for line in self.lines if text in line.text), None)
        assert found is not None, f"{text!r} was never printed:\n{self}"
        return found

    def __repr__(self) -> str:
        shown = "\n".join(f"{line.at:7.3f} {line.stream} {line.text}" for line in self.lines)
        return f"exit {self.exit_code} after {self.seconds:.2f} s\n{shown}"


def run_program(
    command: Sequence[str | Path],
    sandyard: Instance,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = PROGRAM_SECONDS,
) -> Transcript:
    """Run a client program to its end with only the two variables a user sets. Fails when it does not end in time."""
    started = time.monotonic()
    program = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=client_environment(sandyard) | dict(environment or {}),
    )
    transcript = Transcript()

    def read(stream: str) -> None:
        pipe = program.stdout if stream == "out" else program.stderr
        assert pipe is not None
        with pipe:
            for line in pipe:
                transcript.lines.append(Line(time.monotonic() - started, stream, line.rstrip("\n")))

    readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in ("out", "err")]
    for reader in readers:
        reader.start()
    try:
        transcript.exit_code = program.wait(seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
        pytest.fail(f"the program did not end within {seconds} s:\n{transcript}\n{sandyard.log[-3000:]}")
    transcript.seconds = time.monotonic() - started
    for reader in readers:
        reader.join(10)
    return transcript


def client_environment(sandyard: Instance) -> dict[str, str]:
    """What a user's shell holds, and nothing of this test run: no settings, no key but the one for this instance."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "GOCACHE") if name in os.environ}
    ours = {"DAYTONA_API_URL": sandyard.api_url, "DAYTONA_API_KEY": sandyard.api_key}
    return kept | ours | {"PYTHONUNBUFFERED": "1"}


def python_with_sdk(release: str) -> Path:
    """An interpreter that imports this release of the Python SDK; skips the test where it is not installed."""
    if release == NEWEST_PYTHON_SDK:
        pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency and is not installed")
        return Path(sys.executable)
    return _installed(CACHE / f"python-{release}" / "bin" / "python")


def node_with_sdk() -> Path:
    """The folder whose `node_modules` holds the TypeScript SDK under both names, and esbuild."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    return _installed(CACHE / "typescript" / "node_modules").parent


def bundle(source: Path, target: Path, *options: str) -> Path:
    """Turn a TypeScript program into what Node or a browser runs, beside the libraries; returns the file made."""
    home = node_with_sdk()
    # Other workers of this run make programs of the same name, some of them from another source.
    made = home / "programs" / os.environ.get("PYTEST_XDIST_WORKER", "alone") / target
    esbuild = home / "node_modules" / ".bin" / "esbuild"
    command = [str(esbuild), str(source), f"--outfile={made}", *options]
    environment = os.environ | {"NODE_PATH": str(home / "node_modules")}
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return made


def node_program(source: Path) -> list[str | Path]:
    """The command that runs a TypeScript program on Node; its types are dropped, nothing else is changed."""
    return ["node", bundle(source, Path(source.stem + ".mjs"), "--format=esm", "--platform=node")]


def go_with_sdk(release: str) -> Path:
    """The folder of a Go module that requires this release of the Go SDK."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    return _installed(CACHE / f"go-{release}" / "go.sum").parent


@functools.cache
def go_flows(release: str) -> Path:
    """The program of all Go flows with this release of the SDK; its first argument names the flow.

    Built once for a run of the tests, by whoever comes first: Go itself sees that nothing changed. Release `0.148` is
    known to it as the build tag `sdk0148`, for the calls that the releases spell differently.
    """
    home = go_with_sdk(release)
    sources, made = home / "flows", home / "flows.program"
    with (home / "flows.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of this run have the same folder
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(CLIENTS / "go" / "flows", sources)
        command = ["go", "build", "-tags", f"sdk{release.replace('.', '')}", "-o", str(made), "./flows"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return made


def go_flow(release: str, flow: str, sandyard: Instance, folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """What a flow saw with this release of the Go SDK. `folder` takes the files that the SDK leaves behind."""
    command = [go_flows(release), flow, *arguments]
    done = run_program(command, sandyard, folder, environment={"TMPDIR": str(folder)}, seconds=FLOW_SECONDS)
    assert done.exit_code == 0, done
    saw: dict[str, Any] = json.loads(done.text)
    assert saw["release"] == f"v{release}.0"
    return saw


def seed_program(name: str) -> Path:
    """One of the seed's ten programs; skips the test where the seed is not beside the checkout."""
    path = SEED / name
    if not path.is_file():
        pytest.skip("the seed's programs are not beside this checkout")
    return path


def _installed(path: Path) -> Path:
    home = CACHE / path.relative_to(CACHE).parts[0]
    if (home / "installed-from").is_file():  # written last, so what is there is whole
        return path
    reason = CACHE / f"{home.name}.missing"
    why = reason.read_text().strip() if reason.is_file() else "run scripts/client-environments"
    pytest.skip(f"the client library {home.name} is not installed: {why}")
