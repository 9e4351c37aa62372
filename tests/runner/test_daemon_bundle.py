"""The daemon bundle: complete, relocatable, built once."""

import fcntl
import importlib.util
import ipaddress
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

import sandyard_daemon
from sandyard.certificates import new_authority, new_server_certificate
from sandyard_runner import daemon_bundle
from sandyard_runner.daemon_bundle import Bundle, ensure_bundle, main
from tests.otlp import running_collector

PROBE = """
import asyncio, base64, ctypes, fcntl, hashlib, hmac, json, os, pwd, select, signal, socket, struct, sys, termios, zlib
import h11
import sandyard_daemon
import sandyard_daemon.wire
files = [getattr(module, "__file__", None) for module in sys.modules.values()]
outside = [file for file in files if file and not file.startswith(sys.prefix)]
print(json.dumps([sys.prefix, outside, hashlib.sha1(b"x").hexdigest()[:8], sys.flags.utf8_mode]))
"""

POSTING = """
import sys
sys.modules["ssl"] = None  # as the daemon's own start does
import asyncio
from sandyard_daemon.telemetry.collector import Collector
async def post():
    try:
        await Collector(sys.argv[1], {}).post("/v1/logs", {"from": "the bundle"}, "token")
    except OSError as error:
        print(type(error).__name__, error.strerror)
asyncio.run(post())
"""
MAX_BUNDLE = (28 if sys.version_info < (3, 14) else 34) << 20
"""Bytes; 20.9 MB, and 5.7 of OpenSSL with what is Python's of it. Of Python 3.14 and OpenSSL 3.6 24.9 and 8.2."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return ensure_bundle(tmp_path_factory.mktemp("bundles"))


def test_the_bundled_interpreter_runs_from_another_place_with_its_own_modules_only(
    bundle: Bundle, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(bundle.path, moved)
    done = subprocess.run(
        [*bundle.python(str(moved)), "-c", PROBE], cwd="/", capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == f'["{moved}", [], "11f6ad8e", 1]'


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_bundle_runs_in_a_root_that_holds_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "opt/sandyard")
    command = ["chroot", str(tmp_path), *bundle.python("/opt/sandyard"), "-c", "import asyncio; print('alive')"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("alive\n", "")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_bundle_speaks_tls_and_trusts_whom_the_root_around_it_does(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(bundle.path, root / "opt/sandyard")
    authority, key = new_authority(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of this test")]))
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = tmp_path / "server.pem"
    server.write_bytes(b"".join(new_server_certificate(authority, key, "collector", names, timedelta(days=1))))

    def post() -> str:
        command = ["chroot", str(root), *bundle.python("/opt/sandyard"), "-c", POSTING, collector.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    with running_collector(certificate=server) as collector:
        told = post()
        assert told.startswith("NoAuthorities this sandbox has no CA certificates")
        assert "install ca-certificates" in told
        (root / "etc/ssl/certs").mkdir(parents=True)
        (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(authority)
        assert post() == ""
        assert collector.posts == [("/base/v1/logs", "token", {"from": "the bundle"})]


def test_it_is_small(bundle: Bundle) -> None:
    interpreters = [bundle.path / "bin/python3", *(bundle.path / "lib").glob("libpython*")]
    if any(b".debug_info" in path.read_bytes() for path in interpreters):
        pytest.skip("this Python was built with what debuggers read, which is as much again")
    assert sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file()) < MAX_BUNDLE


def test_a_second_call_gives_the_same_bundle_and_leaves_no_scratch(bundle: Bundle) -> None:
    made = bundle.path.stat().st_ino
    again = ensure_bundle(bundle.path.parent)
    assert again == bundle
    assert again.path.stat().st_ino == made
    assert {path.name for path in bundle.path.parent.iterdir()} == {bundle.path.name, daemon_bundle.KNOWN}


def test_files_that_did_not_change_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    digest = daemon_bundle._digest

    def counted(entries: Any) -> str:
        taken.append(len(entries))
        return digest(entries)

    monkeypatch.setattr(daemon_bundle, "_digest", counted)
    first = ensure_bundle(tmp_path)
    assert (ensure_bundle(tmp_path), len(taken)) == (first, 1)
    for damage in ("", "nothing that was ever written", (tmp_path / daemon_bundle.KNOWN).read_text()[:-1] + "/"):
        (tmp_path / daemon_bundle.KNOWN).write_text(damage)
        before = len(taken)
        assert (ensure_bundle(tmp_path), len(taken)) == (first, before + 1)
    shutil.rmtree(first.path)
    assert ensure_bundle(tmp_path).path.is_dir(), "it is built again where somebody removed it"


def test_what_it_needs_is_the_same_whether_the_loader_is_asked_once_or_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = daemon_bundle._interpreter()
    loader = daemon_bundle._loader_of(interpreter)
    extensions = sorted(daemon_bundle._extensions())
    needed = daemon_bundle._libraries(loader, interpreter, extensions)
    assert {name.partition(".so")[0] for name in needed} >= {"libc", "libssl", "libcrypto"}
    elsewhere = tmp_path / "with a space"  # the loader's list of files to preload is separated by those
    shutil.copytree(extensions[0].parent, elsewhere)
    copies = [elsewhere / extension.name for extension in extensions]
    assert daemon_bundle._libraries(loader, interpreter, copies) == needed

    def old(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        """A loader from before glibc 2.30."""
        if "--preload" in command:
            return subprocess.CompletedProcess(command, 127, "", "error: --preload: no such file")
        return run(command, **options)

    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", old)
    assert daemon_bundle._libraries(loader, interpreter, extensions) == needed

    def musl(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        """One that lists what it loads beforehand as it lists libraries."""
        done = run(command, **options)
        done.stdout += "".join(f"\t{path} => {path} (0x7f0000000000)\n" for path in extensions)
        return done

    monkeypatch.setattr(subprocess, "run", musl)
    assert daemon_bundle._libraries(loader, interpreter, extensions) == needed


def test_a_changed_file_makes_another_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(sandyard_daemon.__file__).parent, package / "sandyard_daemon")
    found = SimpleNamespace(submodule_search_locations=[str(package / "sandyard_daemon")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    monkeypatch.setattr(daemon_bundle, "PACKAGES", ("sandyard_daemon",))
    first = ensure_bundle(tmp_path / "bundles")
    version = package / "sandyard_daemon" / "__init__.py"
    version.write_text(version.read_text() + "\n")
    assert ensure_bundle(tmp_path / "bundles").digest != first.digest
    assert first.path.is_dir(), "sandboxes may run from it"


def test_whoever_comes_while_it_is_built_waits_for_it(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as one that builds has it
    with ThreadPoolExecutor() as pool:
        try:
            waiting = [pool.submit(ensure_bundle, tmp_path) for _ in range(2)]
            done, _ = wait(waiting, timeout=1)
            assert (len(done), list(tmp_path.iterdir())) == (0, [])
        finally:
            os.close(descriptor)
        first, second = (each.result(timeout=60) for each in waiting)
    assert first == second
    assert {path.name for path in tmp_path.iterdir()} == {first.path.name, daemon_bundle.KNOWN}


def test_every_file_can_be_read_by_any_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = ensure_bundle(tmp_path / "bundles")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in made.path.rglob("*")}
    assert not [path for path, mode in modes.items() if mode & 0o444 != 0o444 or (path.is_dir() and mode != 0o755)]


def test_the_library_is_bytecode_only_but_for_the_sandboxs_own_python(bundle: Bundle) -> None:
    text = {"/".join(path.parts[-3:]) for path in (*bundle.path.rglob("*.py"), *bundle.path.rglob("*.cjs"))}
    assert text == {f"sandyard_daemon/guest/{name}" for name in ("run.py", "charts.py", "worker.py", "argv.cjs")}
    assert (bundle.path / sys.platlibdir / f"python3.{sys.version_info.minor}" / "os.pyc").is_file()


def test_the_command_starts_the_daemon_through_the_bundles_own_loader(bundle: Bundle) -> None:
    command = bundle.command("/opt/sandyard", "--door-dir", "/door")
    assert command[0] == f"/opt/sandyard/{bundle.loader}"
    assert command[-2:] == ["--door-dir", "/door"]
    daemon = command[-3].replace("/opt/sandyard", str(bundle.path))
    assert daemon.endswith("sandyard_daemon/__main__.pyc")


def test_the_command_line_form_prints_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).is_dir()
    assert main([]) == 2
