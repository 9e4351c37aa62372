"""Warm pools and ten thousand sandboxes: creating from a pool, a burst, what waiting costs, lists and timers."""

import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from daytona import Daytona, DaytonaConfig

from benchmarks.bench import LOCAL, Bench
from benchmarks.figures import Figure, Row, at_least, at_most, median, percentile
from benchmarks.memory import Memory, descendants
from tests.contract.running import Instance
from tests.contract.toolbox import authorization
from tests.contract.wire_client import request

SECONDS = 300.0
BURST = 100
IDLE = 200
MANY = 10_000
WATCHED_SECONDS = 20.0


def measure(bench: Bench) -> Iterator[Row]:
    """What is made from pools, and what waits in them, with the local runtime."""
    with bench.sandyard(LOCAL) as instance:
        yield from _claims(instance, bench.rounds(60))
    with bench.sandyard(LOCAL) as instance:
        yield _burst(instance, BURST // 5 if bench.is_quick else BURST)
    with bench.sandyard(LOCAL) as instance:
        yield from _waiting(instance, IDLE // 5 if bench.is_quick else IDLE)


def measure_many(bench: Bench) -> Iterator[Row]:
    """Lists and timers with ten thousand sandboxes in the database."""
    with bench.sandyard(LOCAL) as instance:
        few = _list(instance, bench.rounds(40))
        idle = _processor(instance)
        _insert(instance, MANY)
        yield Figure(
            f"a page of 100 of {MANY} sandboxes, p50",
            _list(instance, bench.rounds(40)),
            "ms",
            few,
            "the same with none",
            at_most(50),
        )
        yield Figure(
            f"processor while {MANY} sandboxes are idle",
            _processor(instance),
            "% of a core",
            idle,
            "the same with none",
            at_most(2 + idle),
            "timers and all else; the target is 2 above the baseline",
        )


def _claims(instance: Instance, rounds: int) -> Iterator[Row]:
    daytona, taken = _client(instance), []
    pool_id = _pool(instance, 5)
    for _ in range(rounds):
        _wait(instance, pool_id, 5)
        begun = time.perf_counter()
        sandbox = daytona.create()
        sandbox.process.exec("true")
        taken.append((time.perf_counter() - begun) * 1e3)
        sandbox.delete()
    name, note = "create from a warm pool to first command, Python SDK", f"{rounds} rounds"
    yield Figure(f"{name}, p50", median(taken), "ms", target=at_most(40), note=note)
    yield Figure(f"{name}, p99", percentile(taken, 99), "ms", target=at_most(120), note=note)


def _burst(instance: Instance, count: int) -> Row:
    _wait(instance, _pool(instance, count), count)

    def create(_number: int) -> bool:
        answer = _call(instance, "POST", "/api/sandbox", {})
        return bool(answer["state"] == "started")

    begun = time.perf_counter()
    with ThreadPoolExecutor(count) as threads:
        started = sum(threads.map(create, range(count)))
    took = time.perf_counter() - begun
    name = f"burst of {count} creates from a pool of {count}, started"
    return Figure(name, 100 * started / count, "%", target=at_least(100), note=f"all answered after {took:.2f} s")


def _waiting(instance: Instance, count: int) -> Iterator[Row]:
    before = _memory(instance)
    begun = time.perf_counter()
    _wait(instance, _pool(instance, count), count)
    took = time.perf_counter() - begun
    total = _memory(instance) - before
    yield Figure(
        f"memory of {count} idle sandboxes, local",
        total,
        "MB",
        note=f"{total / count:.1f} MB each; made in {took:.0f} s",
    )


def _memory(instance: Instance) -> float:
    """Of the process and all below it, shared pages counted in parts, in MB."""
    total = 0.0
    for pid in (instance.process.pid, *descendants(instance.process.pid)):
        try:
            total += Memory.of(pid).proportional
        except (OSError, KeyError):
            continue  # it ended meanwhile
    return total


def _list(instance: Instance, rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        _call(instance, "GET", "/api/sandbox?limit=100")
        taken.append((time.perf_counter() - begun) * 1e3)
    return median(taken)


def _processor(instance: Instance) -> float:
    """What the process uses while nobody asks, in percent of a core. *Source:* proc(5), `stat`."""
    begun, used = time.monotonic(), _ticks(instance.process.pid)
    time.sleep(WATCHED_SECONDS)
    used = _ticks(instance.process.pid) - used
    return 100 * used / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _insert(instance: Instance, count: int) -> None:
    """Rows like that of a sandbox that was made, on no runner, used just now and to be stopped in an hour."""
    made = _call(instance, "POST", "/api/sandbox", {"autoStopInterval": 60})
    [path] = instance.folder.rglob("sandyard.db")
    with sqlite3.connect(path, timeout=30) as db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("select * from sandboxes where id = ?", (made["id"],)).fetchone())
        columns = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        rows = []
        for _ in range(count):
            own = uuid.uuid4()
            rows.append(row | {"id": str(own), "name": str(own), "preview_token_hash": own.hex, "runner_id": None})
        db.executemany(f"insert into sandboxes ({columns}) values ({places})", rows)  # noqa: S608  our own names
    db.close()


def _client(instance: Instance) -> Daytona:
    return Daytona(DaytonaConfig(api_key=instance.api_key, api_url=instance.api_url))


def _pool(instance: Instance, size: int) -> str:
    made = _call(instance, "POST", "/api/warm-pools", {"snapshot": "sandyard-default", "pool": size})
    return str(made["id"])


def _wait(instance: Instance, pool_id: str, size: int) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        [pool] = [each for each in _call(instance, "GET", "/api/warm-pools") if each["id"] == pool_id]
        if pool["currentSize"] == size:
            return
        assert time.monotonic() < deadline, pool
        time.sleep(0.05)


def _call(instance: Instance, method: str, path: str, body: Any = None) -> Any:
    answer = request(method, instance.origin + path, body, headers=authorization(instance))
    assert answer.status < 300, answer
    return answer.json()
