"""What stands between a local sandbox and the host, tried from inside."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.door_http import Door, ask
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local.options import LocalOptions, Network
from sandyard_runner.runtime.local.runtime import LocalRuntime, open_local_runtime
from sandyard_runner.wire import Enforcement
from tests.runner.conftest import eventually

SECRET = "s" * 32
AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture
async def runtime(tmp_path: Path, bundles: Path) -> AsyncIterator[LocalRuntime]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bundles").symlink_to(bundles)
    options = LocalOptions(tmp_path / "data", tmp_path / "doors")
    try:
        async with open_local_runtime(options) as opened:
            yield opened
            for item in await opened.present():
                await opened.remove(item.sandbox_id)
    except RuntimeFailure as failure:
        if "--isolation none" not in failure.message:
            raise
        pytest.skip(failure.message)


def a_spec(*, user: str | None = None) -> SandboxSpec:
    return SandboxSpec(str(uuid.uuid4()), "org", "a sandbox", SECRET, user=user, env={"GREETING": "hello"})


async def started(runtime: LocalRuntime, spec: SandboxSpec) -> SandboxSpec:
    await runtime.create(spec)
    await runtime.start(spec)
    return spec


async def run(runtime: LocalRuntime, spec: SandboxSpec, command: str) -> tuple[int, str]:
    """Exit code and output of a command inside."""
    door = Door(runtime.door(spec.sandbox_id), spec.door_secret)
    async with ask(door, "/process/execute", json_body={"command": command, "timeout": 120}) as answer:
        body = json.loads(b"".join([chunk async for chunk in answer.chunks]))
    assert answer.status == 200, body
    return body["exitCode"], body["result"]


async def test_commands_run_as_the_sandbox_user_in_a_home_of_its_own(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec())
    code, text = await run(
        runtime, spec, 'echo "$(id -un) $(hostname) $PWD $HOME $GREETING"; touch made && ls -A | grep -v sandyard'
    )
    assert (code, text.split()) == (0, ["daytona", spec.sandbox_id, "/home/daytona", "/home/daytona", "hello", "made"])


async def test_the_hosts_environment_does_not_come_along(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "hush")
    spec = await started(runtime, a_spec())
    assert "hush" not in (await run(runtime, spec, "env; cat /proc/1/environ"))[1]
    assert SECRET not in (await run(runtime, spec, "env; cat /proc/1/environ /proc/1/cmdline"))[1]


async def test_the_hosts_homes_sockets_and_our_own_state_are_hidden(runtime: LocalRuntime, tmp_path: Path) -> None:
    marker = tmp_path / "on-the-host"
    marker.touch()
    one, two = await started(runtime, a_spec()), await started(runtime, a_spec())
    _, text = await run(runtime, one, f"ls /home /run /var/run /mnt; ls {marker}; ls -d {tmp_path}; ls -A /root /sys")
    assert text.split("/home:")[1].split()[0] == "daytona"
    assert "docker.sock" not in text
    assert text.count("No such file") >= 2
    assert two.sandbox_id not in (await run(runtime, one, "cat /proc/mounts; ls -R /run"))[1]


async def test_only_its_own_processes_are_seen(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec())
    _, text = await run(runtime, spec, "ls /proc | grep -c '^[0-9]'")
    assert int(text) < 15


async def test_files_outlive_a_stop_and_end_with_the_sandbox(runtime: LocalRuntime, tmp_path: Path) -> None:
    spec = await started(runtime, a_spec())
    await run(runtime, spec, "echo kept > ~/file; echo kept > /tmp/file")
    await runtime.stop(spec.sandbox_id)
    renewed = replace(spec, door_secret="t" * 32)
    await runtime.start(renewed)
    assert await run(runtime, renewed, "cat ~/file /tmp/file") == (0, "kept\nkept\n")
    await runtime.remove(spec.sandbox_id)
    assert list((tmp_path / "data" / "sandboxes").iterdir()) == []
    assert list((tmp_path / "doors").iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user's sandbox cannot change what belongs to root")
async def test_what_its_root_changes_of_the_hosts_directories_stays_inside(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec(user="root"))
    name = f"sandyard-test-{uuid.uuid4().hex}"
    code, text = await run(
        runtime, spec, f"id -u; touch /usr/{name} /etc/{name} /opt/{name} && echo x >> /etc/passwd; ls /usr/{name}"
    )
    assert (code, text.split()) == (0, ["0", f"/usr/{name}"])
    assert not _existing(f"/usr/{name}", f"/etc/{name}", f"/opt/{name}")
    assert not _read("/etc/passwd").endswith("x\n")


def _existing(*paths: str) -> list[str]:
    return [path for path in paths if os.path.lexists(path)]


def _read(path: str) -> str:
    return Path(path).read_text()


@pytest.mark.root
@pytest.mark.skipif(not AS_ROOT, reason="only root's sandboxes have a root that the host would obey")
async def test_its_root_has_no_power_over_the_host(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec(user="root"))
    attempts = (
        "echo x > /proc/sys/kernel/core_pattern",
        "echo c > /proc/sysrq-trigger",
        "mount -t tmpfs none /mnt",
        "umount /etc",
        "umount /proc/sys",
        "mknod /tmp/disk b 8 0",
        "mount -t sysfs none /mnt",
        "unshare -Urmp --fork mount -t proc proc /mnt",
        "ip route flush table main",
        "hostname other",
        "chroot /proc/1/root/.. ls /work",
        "grep -q '^root:[$]' /etc/shadow",
        "cat /etc/ssh/ssh_host_rsa_key /etc/ssl/private/*",
        "dd if=/dev/mem of=/dev/null count=1",
    )
    for attempt in attempts:
        code, text = await run(runtime, spec, attempt)
        assert code != 0, (attempt, text)


@pytest.mark.root
@pytest.mark.skipif(not AS_ROOT, reason="an ordinary user's sandbox cannot replace these directories")
async def test_links_it_made_are_not_followed_on_the_host(runtime: LocalRuntime, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    spec = await started(runtime, a_spec(user="root"))
    assert (await run(runtime, spec, f"rmdir /root || rm -rf /root; ln -s {victim} /root"))[0] == 0
    await runtime.stop(spec.sandbox_id, force=True)
    before = victim.stat()
    await runtime.create(spec)
    with contextlib.suppress(RuntimeFailure):
        await runtime.start(spec)
    after = victim.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert list(victim.iterdir()) == []


async def test_a_user_that_does_not_exist_is_refused(runtime: LocalRuntime) -> None:
    with pytest.raises(RuntimeFailure, match="unable to find user nobody-knows"):
        await runtime.create(a_spec(user="nobody-knows"))


async def test_the_hosts_services_cannot_be_reached(runtime: LocalRuntime) -> None:
    spec = await started(runtime, a_spec())
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104  so that every address would answer
        port = server.getsockname()[1]
        for address in ("127.0.0.1", "10.0.2.2", own_address(), "169.254.169.254"):
            code, text = await run(
                runtime, spec, f"python3 -c 'import socket; socket.create_connection((\"{address}\", {port}), 3)'"
            )
            assert code != 0, (address, text)


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def test_a_server_inside_is_its_own(runtime: LocalRuntime) -> None:
    one, two = await started(runtime, a_spec()), await started(runtime, a_spec())
    listen = "python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 0.1"
    await run(runtime, one, listen)
    connect = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123), 30)'"

    async def reached() -> bool:
        return (await run(runtime, one, connect))[0] == 0

    await eventually(reached)
    assert (await run(runtime, two, connect))[0] != 0


async def test_a_sandbox_with_all_network_blocked_has_loopback_only(runtime: LocalRuntime) -> None:
    spec = await started(runtime, replace(a_spec(), network_block_all=True))
    _, text = await run(runtime, spec, "cat /proc/net/dev")
    devices = [line.split(":")[0].strip() for line in text.splitlines() if ":" in line]
    assert "tap0" not in devices
    assert "lo" in devices


async def test_a_process_beyond_the_memory_limit_is_killed_and_the_sandbox_lives(runtime: LocalRuntime) -> None:
    limits = {row.name: row.enforcement for row in runtime.capabilities()}
    if limits["memory"] is not Enforcement.ENFORCED:
        pytest.skip("no control group is delegated to this user")
    spec = await started(runtime, a_spec())
    code, _ = await run(runtime, spec, "python3 -c 'x = bytearray(3 << 30)'")
    assert code == 137
    assert (await run(runtime, spec, "echo alive"))[1] == "alive\n"


async def test_many_sandboxes_start_at_once(runtime: LocalRuntime) -> None:
    specs = [a_spec() for _ in range(6)]
    await asyncio.gather(*(started(runtime, spec) for spec in specs))
    answers = await asyncio.gather(*(run(runtime, spec, "hostname") for spec in specs))
    assert [text.strip() for _, text in answers] == [spec.sandbox_id for spec in specs]


@pytest.mark.parametrize("user", [None, "root"])
async def test_a_sandbox_sees_its_limits_and_cannot_change_them(runtime: LocalRuntime, user: str | None) -> None:
    enforced = {row.name for row in runtime.capabilities() if row.enforcement is Enforcement.ENFORCED}
    if "memory" not in enforced:
        pytest.skip("no control group can be had here")
    spec = await started(runtime, a_spec(user=user))
    # Version 2 of control groups, then version 1.
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    _, limits = await run(runtime, spec, f"cat {files} 2>/dev/null")
    assert limits.split() == [str(spec.memory_gib << 30)]
    freeing = "for file in $(ls FILES 2>/dev/null); do echo 99999999999 > $file && exit 1; done; exit 0"
    remounting = "mount -o remount,bind,rw $(dirname $(ls FILES 2>/dev/null)) && exit 1; exit 0"
    for attempt in (freeing, remounting, f"unshare --user --map-root-user --mount sh -c '{remounting}'"):
        code, said = await run(runtime, spec, attempt.replace("FILES", files))
        assert code == 0, said
    _, mounts = await run(runtime, spec, "grep -c ' /sys/fs/cgroup' /proc/self/mountinfo")
    assert int(mounts) >= 1
    _, writable = await run(runtime, spec, "grep ' /sys/fs/cgroup' /proc/self/mountinfo | grep -v ' ro,'")
    assert writable == ""


@contextlib.contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """A directory on an overlay file system, as one within a container's own root is."""
    merged, lower, upper, work = (folder / name for name in ("merged", "lower", "upper", "work"))
    for made in (merged, lower, upper, work):
        made.mkdir()
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "overlay", "-o", layers, str(merged)]
    if subprocess.run(command, capture_output=True, timeout=10).returncode:
        pytest.skip("needs to be root, on a file system that an overlay can be upon")
    try:
        yield merged
    finally:
        subprocess.run(["umount", str(merged)], check=True, timeout=10)


@pytest.mark.root
async def test_a_data_directory_on_an_overlay_file_system_says_where_it_would_do(tmp_path: Path) -> None:
    with overlay(tmp_path) as folder, pytest.raises(RuntimeFailure, match="on a volume or a tmpfs may do"):
        async with open_local_runtime(LocalOptions(folder / "data", tmp_path / "doors", network=Network.NONE)):
            pass


async def test_a_machine_that_is_slow_is_not_said_to_forbid_anything(
    tmp_path: Path, runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "enter.py"
    slow.write_text("import time; time.sleep(60)")
    monkeypatch.setattr("sandyard_runner.runtime.local.launch.ENTER", slow)
    monkeypatch.setattr("sandyard_runner.runtime.local.launch.NAMESPACES_TIMEOUT_SECONDS", 0.5)
    spec = SandboxSpec(sandbox_id="slow", organization_id="o", name="slow", door_secret=SECRET)
    await runtime.create(spec)
    with pytest.raises(RuntimeFailure, match="namespaces did not stand within"):
        await runtime.start(spec)
