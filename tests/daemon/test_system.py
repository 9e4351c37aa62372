"""`/system/metrics`, `/port` and `/port/{port}/in-use` through the door; control groups from recorded files."""

import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sandyard_daemon.system.groups import Groups
from sandyard_daemon.system.metrics import Meter, whole_processors
from tests.daemon.conftest import Daemon
from tests.daemon.processes import children_of
from tests.daemon.toolbox_schema import check_body

SIZES = ("memTotal", "memUsed", "memCache", "diskTotal", "diskUsed", "diskFree")

Listen = Callable[..., int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listens on a free port of 3000 to 9999, or on the one that is given, and says which."""
    opened: list[socket.socket] = []

    def start(host: str = "127.0.0.1", port: int = 0) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for candidate in [port] if port else range(3000, 10_000):
            listener = socket.socket(family)
            opened.append(listener)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((host, candidate))
            except OSError:
                continue
            listener.listen()
            return candidate
        raise AssertionError("no port is free")

    yield start
    for listener in opened:
        listener.close()


def in_use(daemon: Daemon, port: int | str) -> bool:
    answer = daemon.get(f"/port/{port}/in-use")
    assert answer.status == 200, answer.body
    check_body("get", "/port/{port}/in-use", 200, answer.json)
    return bool(answer.json["isInUse"])


def test_metrics_are_whole_numbers_within_their_totals(daemon: Daemon) -> None:
    for _ in range(2):
        answer = daemon.get("/system/metrics")
        check_body("get", "/system/metrics", answer.status, answer.json)
        seen = answer.json
        assert all(type(seen[name]) is int and seen[name] >= 0 for name in (*SIZES, "cpuCount", "timestampUnix"))
        assert 0 <= seen["cpuUsedPct"] <= 100
        assert seen["cpuCount"] >= 1
        assert seen["memUsed"] <= seen["memTotal"]
        assert seen["diskUsed"] + seen["diskFree"] <= seen["diskTotal"]
        assert int(datetime.fromisoformat(seen["timestamp"]).timestamp()) == seen["timestampUnix"]


def test_nothing_measures_when_nobody_asks(daemon: Daemon) -> None:
    assert daemon.get("/system/metrics").status == 200
    assert children_of(daemon.process.pid) == []
    threads = Path(f"/proc/{daemon.process.pid}/task")
    assert len(list(threads.iterdir())) == 1


def test_d34_ports_of_both_families_are_listed_once_and_at_once(daemon: Daemon, listen: Listen) -> None:
    first = listen()
    listen("::1", first)
    second = listen("::1")
    for _ in range(2):
        answer = daemon.get("/port")
        check_body("get", "/port", answer.status, answer.json)
        ports = answer.json["ports"]
        assert ports.count(first) == ports.count(second) == 1
        assert ports == sorted(ports)
    assert in_use(daemon, first)
    assert in_use(daemon, second)


def test_d34_asking_leaves_no_connection_and_a_closed_port_is_free_at_once(daemon: Daemon) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen(1)
        listener.settimeout(0)
        assert port in daemon.get("/port").json["ports"]
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert port not in daemon.get("/port").json["ports"]


def test_a_bound_port_that_does_not_listen_is_not_in_use(daemon: Daemon, listen: Listen) -> None:
    assert in_use(daemon, listen())
    with socket.socket() as bound:
        port = next(number for number in range(3000, 10_000) if binds(bound, number))
        assert not in_use(daemon, port)


def binds(bound: socket.socket, port: int) -> bool:
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("port", ["2999", "10000", "0", "-1", "65536", "x", "3000.5", "%20", "99999999999999", "³000"])
def test_only_ports_from_3000_to_9999_are_asked_about(daemon: Daemon, port: str) -> None:
    answer = daemon.get(f"/port/{port.replace('³', '%C2%B3')}/in-use")
    assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")
    check_body("get", "/port/{port}/in-use", 400, answer.json)


def test_the_ends_of_the_range_are_answered(daemon: Daemon) -> None:
    for port in (3000, 9999):
        in_use(daemon, port)


@pytest.fixture
def hierarchy(tmp_path: Path) -> Callable[..., Groups]:
    """Control groups from recorded files: `groups(membership, mounts, files)`, places below the temporary folder."""

    def make(membership: str, mounts: list[tuple[str, str, str, str]], files: dict[str, str]) -> Groups:
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(membership)
        lines = [
            f"30 23 0:26 {root} {tmp_path}/{place} rw,nosuid shared:4 - {kind} {kind} {options}\n"
            for kind, root, place, options in mounts
        ]
        (proc / "mountinfo").write_text("25 1 0:1 / / rw - ext4 /dev/x rw\n" + "".join(lines))
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Groups.of_this_process(str(proc))

    return make


V2 = {
    "cpu.max": "150000 100000\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
    "memory.max": "1073741824\n",
    "memory.current": "400000000\n",
    "memory.stat": "anon 1\nfile 300000000\ninactive_file 100000000\n",
}


def check_version_2(groups: Groups) -> None:
    assert groups.cpu_limit() == 1.5
    assert groups.cpu_used() == 2.5
    assert groups.memory_limit() == 1 << 30
    assert groups.memory_used() == (300_000_000, 300_000_000)


def test_version_2_in_a_namespace_of_its_own(hierarchy: Callable[..., Groups]) -> None:
    files = {f"sys/{name}": text for name, text in V2.items()}
    check_version_2(hierarchy("0::/\n", [("cgroup2", "/", "sys", "rw")], files))


def test_version_2_below_the_machines_root(hierarchy: Callable[..., Groups]) -> None:
    files = {f"sys/sandyard/one/{name}": text for name, text in V2.items()}
    check_version_2(hierarchy("0::/sandyard/one\n", [("cgroup2", "/", "sys", "rw")], files))


def test_version_1_as_a_container_sees_it_beside_an_empty_version_2(hierarchy: Callable[..., Groups]) -> None:
    mounts = [
        ("cgroup", "/docker/abc", "sys/cpu,cpuacct", "rw,cpu,cpuacct"),
        ("cgroup", "/docker/abc", "sys/memory", "rw,memory"),
        ("cgroup2", "/docker/abc", "sys/unified", "rw"),
    ]
    files = {
        "sys/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/cpu,cpuacct/cpuacct.usage": "2500000000\n",
        "sys/memory/memory.limit_in_bytes": "536870912\n",
        "sys/memory/memory.usage_in_bytes": "300000000\n",
        "sys/memory/memory.stat": "cache 1\ntotal_cache 200000000\ntotal_inactive_file 50000000\n",
        "sys/unified/cgroup.procs": "",
    }
    groups = hierarchy("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n", mounts, files)
    assert groups.cpu_limit() == 2.0
    assert groups.cpu_used() == 2.5
    assert groups.memory_limit() == 1 << 29
    assert groups.memory_used() == (250_000_000, 200_000_000)


@pytest.mark.parametrize("quota", ["max 100000\n", "-1 100000\n", "", "odd\n"])
def test_no_limit_is_none(hierarchy: Callable[..., Groups], quota: str) -> None:
    groups = hierarchy("0::/\n", [("cgroup2", "/", "sys", "rw")], {"sys/cpu.max": quota, "sys/memory.max": "max\n"})
    assert groups.cpu_limit() is None
    assert groups.memory_limit() is None
    assert groups.memory_used() is None


async def test_without_any_group_the_machine_itself_is_measured() -> None:
    seen = await Meter(Groups({}, None)).look()
    assert 0 <= seen.cpu_used_percent <= 100
    assert 0 < seen.memory_used < seen.memory_total


async def test_use_is_relative_to_the_limit_and_never_above_it(hierarchy: Callable[..., Groups]) -> None:
    files = {"sys/cpu.max": "50000 100000\n", "sys/cpu.stat": "usage_usec 0\n", "sys/memory.max": "1000000\n"}
    files |= {"sys/memory.current": "5000000\n", "sys/memory.stat": "file 10\n"}
    groups = hierarchy("0::/\n", [("cgroup2", "/", "sys", "rw")], files)
    seen = await Meter(groups).look()
    assert (seen.cpu_limit, seen.cpu_used_percent) == (0.5, 0.0)
    assert (seen.memory_total, seen.memory_used, seen.memory_cache) == (1_000_000, 1_000_000, 10)


@pytest.mark.parametrize(("limit", "shown"), [(0.5, 1), (1.0, 1), (1.5, 2), (2.0000000001, 2), (4, 4)])
def test_a_part_of_a_processor_counts_as_one(limit: float, shown: int) -> None:
    assert whole_processors(limit) == shown
