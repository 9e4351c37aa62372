"""The test bench where API, runner and proxy are processes of their own."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from sandyard.testing.client import BenchError, Door, Yard, new_yard, remove_yard
from tests.conformance.redis_server import RedisServer
from tests.ports import kept_port
from tests.sandyard.command import SANDYARD, SECONDS, clean_environment

Answer = TypeVar("Answer")
KEY = "sy_key-of-the-owner"


@pytest.fixture(scope="module")
def yards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, Yard]]:
    """An organization of a distributed Sandyard, by either of its two proxies."""
    folder = tmp_path_factory.mktemp("parts")
    redis = RedisServer.start_or_skip(folder)
    with ExitStack() as stack:
        stack.callback(redis.stop)
        api, internal, runner, proxy, second = (stack.enter_context(kept_port()) for _ in range(5))
        environment = clean_environment(
            SANDYARD_API_KEY=KEY,
            SANDYARD_INTERNAL_TOKEN="internal",
            SANDYARD_BUS_URL=redis.url,
            SANDYARD_DATA_DIR=str(folder / "data"),
            SANDYARD_RUNTIME="local",
            SANDYARD_ISOLATION="none",
            SANDYARD_INTERNAL_LISTEN=f"127.0.0.1:{internal}",
            SANDYARD_INTERNAL_URL=f"http://127.0.0.1:{internal}",
            SANDYARD_RUNNER_LISTEN=f"127.0.0.1:{runner}",
            SANDYARD_RUNNER_URL=f"http://127.0.0.1:{runner}",
            SANDYARD_CONTROL_PLANE_URL=f"http://127.0.0.1:{api}",
            SANDYARD_JOURNAL="true",
        )
        proxies = (["proxy", "--port", str(proxy)], ["proxy", "--port", str(second)])
        for command in (["api", "--port", str(api)], ["runner", "--on-exit", "remove"], *proxies):
            log = stack.enter_context((folder / f"{command[0]}-{command[-1]}.log").open("w"))
            part = subprocess.Popen([SANDYARD, *command], env=environment, stdout=log, stderr=log)
            stack.callback(part.wait, SECONDS)
            stack.callback(part.terminate)
        owner = Door(f"http://127.0.0.1:{proxy}", KEY)
        made = _as_soon_as_ready(owner)
        other = Yard(Door(f"http://127.0.0.1:{second}", made.api_key), made.organization_id)
        _await(lambda: other.door.ask("GET", "/api/sandbox"))
        _await(lambda: _expect(any(one["alive"] for one in owner.ask("GET", "/_sandyard/capabilities")["runners"])))
        yield made, other
        remove_yard(owner, made)


@pytest.fixture
def yard(yards: tuple[Yard, Yard]) -> Yard:
    """It by the first of them."""
    return yards[0]


def _as_soon_as_ready(owner: Door) -> Yard:
    return _await(lambda: new_yard(owner))


def _await(work: Callable[[], Answer]) -> Answer:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return work()
        except (BenchError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # several processes start; there is no event that says all of them have


def _expect(holds: bool) -> None:
    if not holds:
        raise BenchError("not yet")


def _create(yard: Yard, body: dict[str, Any], state: str = "started") -> dict[str, Any]:
    """A sandbox once it is in that state: where that takes longer, the API answers before."""
    path = f"/api/sandbox/{yard.door.ask('POST', '/api/sandbox', body)['id']}"
    _await(lambda: _expect(yard.door.ask("GET", path)["state"] == state))
    made: dict[str, Any] = yard.door.ask("GET", path)
    return made


def test_proxies_count_together(yards: tuple[Yard, Yard]) -> None:
    one, other = yards
    one.faults.add("status", on={"operation": "listSandboxes", "nth": 4, "count": 2}, status=503, message="busy")
    _await(lambda: _expect(len(other.faults.all()) == 1))
    met = []
    for each in (one, other, one, other, one, other, one):
        try:
            each.door.ask("GET", "/api/sandbox")
            met.append("")
        except BenchError as error:
            met.append(str(error))
    assert met == ["", "", "", "busy", "busy", "", ""]
    assert [(told["seen"], told["fired"]) for yard in yards for told in yard.faults.all()] == [(7, 2), (7, 2)]
    assert one.faults.clear() == []
    one.reset()


def test_the_clock_moves_timers_of_another_process(yard: Yard) -> None:
    made = _create(yard, {"autoStopInterval": 15})
    yard.clock.advance(hours=1)
    assert yard.door.ask("GET", f"/api/sandbox/{made['id']}")["state"] == "stopped"
    yard.clock.release()


def test_a_sandbox_dies_on_its_runner_and_a_pull_fails_there(yard: Yard) -> None:
    made = _create(yard, {})
    yard.faults.add("die", on={"operation": "ExecuteCommand"})
    with pytest.raises(BenchError, match="Is the Sandbox started"):
        yard.door.ask("POST", f"/toolbox/{made['id']}/process/execute", {"command": "true"})
    history = yard.door.ask("GET", f"/_sandyard/sandboxes/{made['id']}")["history"]
    assert "first process was killed" in history[-1]["cause"]
    yard.faults.add("pull-fails", on={"label": "image=bad"}, message="manifest unknown")
    failed = _create(yard, {"labels": {"image": "bad"}}, "error")
    assert failed["errorReason"] == "manifest unknown"
    assert yard.faults.clear() == []


def test_statuses_drops_and_the_journal_are_the_proxys(yard: Yard) -> None:
    yard.faults.add("status", on={"operation": "listSandboxes"}, status=503, message="busy")
    with pytest.raises(BenchError, match="busy"):
        yard.door.ask("GET", "/api/sandbox")
    yard.faults.add("drop", on={"operation": "listSandboxes"})
    with pytest.raises(ConnectionError, match="without response"):
        yard.door.ask("GET", "/api/sandbox")
    assert [one["status"] for one in yard.journal(operation="listSandboxes")] == [503, None]
    yard.reset()
    assert yard.journal() == []
