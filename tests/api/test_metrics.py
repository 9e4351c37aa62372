"""`GET /sandbox/{id}/telemetry/metrics` over a runner that has samples."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import daytona_api_client as client
import pytest
from msgspec.structs import astuple

from sandyard.serving import listen_unix, serve
from sandyard_runner.wire import UsageSample
from tests.api.conftest import World, open_world
from tests.api.doubles import ScriptedRunner

HOUR = 3_600.0
BEGIN = 1_767_225_600.0  # 2026-01-01T00:00:00Z
SAMPLES = [UsageSample(BEGIN + n * HOUR, 10.0 * n, 2, 100, 1_000, 5, 7, 3_000) for n in range(4)]
WHOLE_DAY = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00%2B00:00"


async def samples_of_all(scope: Any, receive: Any, send: Any) -> None:
    """A runner's API that has the same samples for whichever sandbox."""
    assert scope["path"].startswith("/usage/")
    body = json.dumps({"samples": [astuple(sample) for sample in SAMPLES]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def measured(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}") as world:
        async with serve(samples_of_all, listen_unix(tmp_path / "runner.sock")):
            world.runner = ScriptedRunner(world.internal, url=f"unix:{tmp_path / 'runner.sock'}")
            await world.runner.beat()
            await world.create(name="web")
            yield world


async def read(world: World, query: str) -> dict[str, Any]:
    answer = await world.client.call("GET", f"/sandbox/web/telemetry/metrics?{query}")
    assert answer.status == 200, answer
    assert client.MetricsResponse.from_dict(answer.json) is not None
    return {one["metricName"]: [point["value"] for point in one["dataPoints"]] for one in answer.json["series"]}


async def test_every_series_that_the_sdks_know_is_there(measured: World) -> None:
    assert await read(measured, WHOLE_DAY) == {
        "daytona.sandbox.cpu.utilization": [0, 10, 20, 30],
        "daytona.sandbox.cpu.limit": [2] * 4,
        "daytona.sandbox.memory.usage": [100] * 4,
        "daytona.sandbox.memory.limit": [1_000] * 4,
        "daytona.sandbox.memory.cache": [5] * 4,
        "daytona.sandbox.filesystem.usage": [7] * 4,
        "daytona.sandbox.filesystem.total": [3_000] * 4,
    }


async def test_names_and_times_choose(measured: World) -> None:
    cpu = "metricNames=daytona.sandbox.cpu.utilization"
    assert await read(measured, f"from=2026-01-01T01:00:00Z&to=2026-01-01T02:00:00Z&{cpu}&metricNames=unknown") == {
        "daytona.sandbox.cpu.utilization": [10, 20]
    }
    assert await read(measured, f"from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z&{cpu}") == {
        "daytona.sandbox.cpu.utilization": []
    }


@pytest.mark.parametrize("query", ["", "from=2026-01-01", "to=2026-01-01", "from=soon&to=2026-01-01"])
async def test_both_times_are_needed(measured: World, query: str) -> None:
    answer = await measured.client.call("GET", f"/sandbox/web/telemetry/metrics?{query}")
    assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")


async def test_what_is_not_there_has_no_metrics(measured: World) -> None:
    assert (await measured.client.call("GET", f"/sandbox/nothing/telemetry/metrics?{WHOLE_DAY}")).status == 404


async def test_without_its_runner_nobody_knows(world: World) -> None:
    await world.create(name="web")
    answer = await world.client.call("GET", f"/sandbox/web/telemetry/metrics?{WHOLE_DAY}")
    assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")


async def test_a_sandbox_that_nobody_holds_has_no_samples(world: World) -> None:
    await world.client.call("POST", "/sandbox", {"name": "web", "buildInfo": {"dockerfileContent": "FROM x"}})
    assert set(map(tuple, (await read(world, WHOLE_DAY)).values())) == {()}
