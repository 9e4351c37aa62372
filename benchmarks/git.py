"""What git costs through the proxy, beside git itself in the same sandbox."""

import time
from collections.abc import Iterator

from benchmarks.bench import LOCAL, Bench, execute
from benchmarks.figures import Figure, Row, Target, interleaved
from tests.contract.toolbox import Toolbox

FILES = 4000
FOLDERS = 100
FILE_BYTES = 4096
SECONDS = 120
FOLDER = "/tmp/git-bench"
SOURCE = f"file://{FOLDER}/source.git"
MAKE = f"""
set -e; mkdir -p {FOLDER}; cd {FOLDER}; git init -q --bare source.git
git -C source.git symbolic-ref HEAD refs/heads/main
python3 - <<'END' | git -C source.git fast-import --quiet
import os, sys
out = sys.stdout.buffer
out.write(b"commit refs/heads/main\\ncommitter A <a@b.c> 0 +0000\\ndata 1\\nm\\n")
for number in range({FILES}):
    data = os.urandom({FILE_BYTES} // 2).hex().encode()
    out.write(b"M 644 inline %d/%d.txt\\ndata %d\\n%s\\n" % (number % {FOLDERS}, number, len(data), data))
END
git -C source.git repack -adq
"""


def measure(bench: Bench) -> Iterator[Row]:
    """Clones of a repository of some thousand files, in turns; then the status of one."""
    with bench.toolbox(LOCAL) as toolbox:
        execute(toolbox, MAKE)
        _clone(toolbox)  # whatever is read for the first time is read now
        rounds = bench.rounds(15)
        clone, plain_clone = interleaved(rounds, lambda: _clone(toolbox), lambda: _plain_clone(toolbox))
        status, plain_status = interleaved(rounds, lambda: _status(toolbox), lambda: _plain_status(toolbox))
    note = f"{FILES} files, {rounds} rounds"
    beside = "git by itself in the same sandbox"
    yield Figure("git clone through the proxy, p50", clone, "ms", plain_clone, beside, Target(1.2, of_ratio=True), note)
    yield Figure("git status through the proxy, p50", status, "ms", plain_status, beside, note=note)


def _clone(toolbox: Toolbox) -> float:
    execute(toolbox, f"rm -rf {FOLDER}/clone")
    return _timed(toolbox, "POST", "/git/clone", {"url": SOURCE, "path": f"{FOLDER}/clone"})


def _plain_clone(toolbox: Toolbox) -> float:
    execute(toolbox, f"rm -rf {FOLDER}/clone")
    return _inside(toolbox, f"git clone -q {SOURCE} {FOLDER}/clone")


def _status(toolbox: Toolbox) -> float:
    return _timed(toolbox, "GET", f"/git/status?path={FOLDER}/clone", None)


def _plain_status(toolbox: Toolbox) -> float:
    return _inside(toolbox, f"git -C {FOLDER}/clone status --porcelain=v2 -z --branch >{FOLDER}/status")


def _timed(toolbox: Toolbox, method: str, path: str, body: dict[str, str] | None) -> float:
    """Milliseconds of one call, its connection included."""
    begun = time.perf_counter()
    answer = toolbox.call(method, path, body, seconds=SECONDS)
    took = time.perf_counter() - begun
    assert answer.status == 200, answer
    return took * 1e3


def _inside(toolbox: Toolbox, command: str) -> float:
    """Milliseconds of a command, by a clock inside the sandbox."""
    return int(execute(toolbox, f"begun=$(date +%s%N); {command} && echo $(($(date +%s%N) - begun))")) / 1e6
