"""How fast a log reaches its followers through the proxy: one of them, over both buses, and a hundred at once."""

import hashlib
from collections.abc import Iterator
from shlex import quote

from benchmarks.bench import LOCAL, Bench, why_no_redis
from benchmarks.figures import Figure, NotMeasured, Row, Target, at_least, at_most, median
from benchmarks.follower import Follower, read_together
from benchmarks.log_capture import BLOCK, PYTHON, WRITER, bare_seconds
from benchmarks.tails import TailWatch
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox, command_path

SILENCE_SECONDS = 60
CROWD = 100


def measure(bench: Bench) -> Iterator[Row]:
    """One follower embedded."""
    yield from _one(bench, "memory bus", 150)


def measure_redis(bench: Bench) -> Iterator[Row]:
    """One follower with Redis as the bus."""
    if reason := why_no_redis():
        yield NotMeasured("one follower, over Redis", reason)
        return
    with bench.redis() as redis:
        yield from _one(bench, "Redis", 40, "--bus-url", redis.url)


def measure_crowd(bench: Bench) -> Iterator[Row]:
    """Many followers of one command."""
    total = (2 if bench.is_quick else 16) << 20
    with bench.sandyard(LOCAL) as instance:
        toolbox = Toolbox.create(instance)
        toolbox.session("bench")
        try:
            yield from _crowd(instance, toolbox, total)
        finally:
            toolbox.delete()


def _one(bench: Bench, bus: str, target: int, *extra: str) -> Iterator[Row]:
    total = (32 if bench.is_quick else 256) << 20
    live, replayed, bare = [], [], []
    with bench.toolbox(LOCAL, *extra) as toolbox:
        for _ in range(bench.rounds(5)):
            command_id = _waiting_writer(toolbox, total)
            live.append(_follow(toolbox, command_id, total, go=True))
            replayed.append(_follow(toolbox, command_id, total))
            bare.append(total / bare_seconds([PYTHON, "-c", WRITER, str(total // BLOCK), "/dev/null"]) / 1e6)
    note = f"{total >> 20} MiB a round, WebSocket, client on the same machine"
    for name, values in (("live", live), ("replay", replayed)):
        yield Figure(
            f"one follower, {bus}, {name}",
            median(values),
            "MB/s",
            median(bare),
            "the same writer read from a bare pipe",
            at_least(target),
            note,
        )


def _follow(toolbox: Toolbox, command_id: str, total: int, *, go: bool = False) -> float:
    """Throughput from the first byte to the close, MB/s. Fails unless every byte came."""
    follower = Follower(toolbox, "bench", command_id)
    if go:
        _go(toolbox, command_id)
    follower.read_all(SILENCE_SECONDS)
    assert (follower.bytes, follower.close_code) == (total, 1000), (follower.bytes, follower.close_code)
    assert follower.digest == expected_digest(total), "the bytes are not those that were written"
    return total / (follower.closed_at - follower.first_at) / 1e6


def _crowd(instance: Instance, toolbox: Toolbox, total: int) -> Iterator[Row]:
    command_id = _waiting_writer(toolbox, total)
    followers = [Follower(toolbox, "bench", command_id) for _ in range(CROWD)]
    with TailWatch(instance) as tails:
        _go(toolbox, command_id)
        read_together(followers, SILENCE_SECONDS)
    whole = expected_digest(total)
    complete = sum(each.digest == whole and each.close_code == 1000 for each in followers)
    begun, ended = min(each.first_at for each in followers), max(each.closed_at for each in followers)
    alone = _follow(toolbox, _waiting_writer(toolbox, total), total, go=True)
    note = f"{total >> 20} MiB each, compared by hash"
    yield Figure(f"{CROWD} followers, complete", complete, "followers", None, "", Target(CROWD, at_least=True), note)
    yield Figure(f"{CROWD} followers, tails on the daemon", tails.most, "tails", None, "", at_most(1), tails.HOW)
    yield Figure(
        f"{CROWD} followers, together",
        CROWD * total / (ended - begun) / 1e6,
        "MB/s",
        alone,
        "one follower of the same log",
        note=note,
    )


def _waiting_writer(toolbox: Toolbox, total: int) -> str:
    """The id of a command that writes `total` bytes as soon as it gets a line."""
    writer = f"read go; exec {PYTHON} -c {quote(WRITER)} {total // BLOCK} /dev/null"
    # What is sent as input would be part of the log otherwise.
    body = {"command": f"sh -c {quote(writer)}", "runAsync": True, "suppressInputEcho": True}
    answer = toolbox.call("POST", "/process/session/bench/exec", body)
    assert answer.status == 202, answer
    return str(answer.json()["cmdId"])


def _go(toolbox: Toolbox, command_id: str) -> None:
    answer = toolbox.call("POST", f"{command_path('bench', command_id)}/input", {"data": "\n"})
    assert answer.status == 204, answer


def expected_digest(total: int) -> str:
    """Of what the writer writes."""
    block = bytes(range(32, 127)) * 689 + b"\n" * 81
    digest = hashlib.blake2b(digest_size=16)
    for _ in range(total // BLOCK):
        digest.update(block)
    return digest.hexdigest()
