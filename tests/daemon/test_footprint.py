"""What a daemon costs a sandbox, and what it needs to run outside this repository."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h11

import sandyard_daemon
from tests.daemon.conftest import SECRET, Daemon, eventually

PACKAGE = Path(sandyard_daemon.__file__).parent
ALLOWED = {"h11", "wsproto", "sandyard_daemon"}
"""Lengthening this needs a decision record."""


def processor_seconds(pid: int) -> float:
    """What it used of processors: what a machine that is busy or stalls makes it wait is not its own."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def private_dirty_kib(pid: int) -> int:
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    return sum(int(size) for size in re.findall(r"Private_Dirty:\s+(\d+) kB", smaps))


def test_it_imports_the_standard_library_and_two_parsers_only() -> None:
    names = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").partition(".")[0])
    assert names <= set(sys.stdlib_module_names) | ALLOWED, names - set(sys.stdlib_module_names) - ALLOWED


def test_it_runs_isolated_outside_the_repository_and_starts_fast(tmp_path: Path) -> None:
    library, door = tmp_path / "lib", tmp_path / "door"
    door.mkdir()
    (door / "secret").write_text(SECRET)
    for package in (PACKAGE, Path(h11.__file__).parent):
        shutil.copytree(package, library / package.name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(library)], check=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from sandyard_daemon.__main__ import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    command = [str(base), "-I", "-S", "-c", program, str(library), "--door-dir", str(door)]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE)
    daemon = Daemon(process, tmp_path)
    try:
        eventually(lambda: daemon.door.exists() or process.poll() is not None)
        assert processor_seconds(process.pid) < 1  # 90 ms on a quiet machine
        assert daemon.get("/version").status == 200
        daemon.session()
        assert daemon.run("echo here")["stdout"] == "here\n"
        modules = Path(f"/proc/{process.pid}/maps").read_text()
        assert "libssl" not in modules
        assert "libcrypto" not in modules
        assert private_dirty_kib(process.pid) < 14_000
        assert list(library.rglob("*.pyc"))
    finally:
        daemon.close()
        process.terminate()
        process.communicate(timeout=60)


def test_ten_thousand_idle_sessions_cost_records_only(daemon: Daemon) -> None:
    for number in range(10_000):
        assert daemon.post("/process/session", {"sessionId": f"session-{number}"}).status == 201
    assert len(daemon.get("/process/session").json) == 10_000
    assert daemon.get("/_daemon/health").json["sessions"] == 10_001
    assert private_dirty_kib(daemon.process.pid) < 60_000
    assert daemon.run("echo still", "session-9999")["stdout"] == "still\n"
    assert daemon.execute("echo here").json["result"] == "here\n"


def test_what_an_area_needs_is_not_loaded_at_the_start() -> None:
    """What `service` imports is paid for in every sandbox; areas are loaded by their first request."""
    program = "import sys, sandyard_daemon.service; print('\\n'.join(sys.modules))"
    path = {"PYTHONPATH": os.pathsep.join(str(each) for each in (PACKAGE.parent, Path(h11.__file__).parents[1]))}
    listed = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True, check=True)
    loaded = set(listed.stdout.split())
    assert "sandyard_daemon.areas" in loaded
    heavy = {"wsproto", "zlib", "email", "multipart", "shutil", "tempfile", "pty", "argparse", "uuid", "hashlib"}
    assert not loaded & heavy
    assert [name for name in loaded if name.startswith("sandyard_daemon.telemetry.")] == [
        "sandyard_daemon.telemetry.switch"
    ]


def test_nothing_of_the_daemon_is_inherited_by_user_processes(daemon: Daemon) -> None:
    daemon.session()
    daemon.start("sleep 100")
    for listing in (daemon.execute("ls -l /proc/self/fd").json["result"], daemon.execute("ulimit -n").json["result"]):
        assert "socket" not in listing
    assert daemon.execute("ls /proc/self/fd | wc -l").json["result"].strip() == "4"
    assert (
        daemon.execute("ulimit -n").json["result"]
        == subprocess.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True).stdout
    )


def test_a_huge_answer_is_made_while_it_is_sent(daemon: Daemon) -> None:
    daemon.session()
    assert len(daemon.run("head -c 40000000 /dev/zero | tr '\\0' x")["stdout"]) == 40_000_000
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 40_000  # 21 MB with answers of 500 MB too


def test_memory_comes_back_after_large_transfers(daemon: Daemon) -> None:
    def resident_kib() -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    before = resident_kib()
    for _ in range(3):
        assert daemon.ask("POST", "/files/upload-v2?path=big", bytes(64 << 20)).status == 200
        assert len(daemon.get("/files/download?path=big").body) == 64 << 20
    eventually(lambda: resident_kib() - before < 4_000)
