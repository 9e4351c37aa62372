"""Rate limits: off by default; by key, bucket and the clock's time where they are set."""

from pathlib import Path

import pytest

from sandyard.clock import ManualClock
from sandyard.settings import InvalidSetting, read_settings
from sandyard_api.rates.limits import Rate
from sandyard_api.rates.service import MAX_COUNTED, Headers, RateLimits
from tests.api.conftest import World, open_world


async def test_nothing_is_counted_by_default(world: World) -> None:
    answer = await world.client.call("GET", "/sandbox")
    assert not [name for name in answer.headers if "ratelimit" in name]


async def test_a_key_that_asks_too_often_is_told_when_it_may_again(tmp_path: Path) -> None:
    clock = ManualClock()
    rates = {"authenticated": Rate(2, 60), "sandbox-create": Rate(1, 10), "failed-auth": Rate(1, 5)}
    async with open_world(f"sqlite:///{tmp_path / 'db'}", clock=clock, rate_limits=rates) as world:
        await world.runner.beat()
        first = await world.client.call("GET", "/sandbox")
        assert first.status == 200
        assert first.headers["x-ratelimit-limit-authenticated"] == "2"
        assert first.headers["x-ratelimit-remaining-authenticated"] == "1"
        assert first.headers["x-ratelimit-reset-authenticated"] == "60"
        assert (await world.client.call("GET", "/sandbox/none")).status == 404
        third = await world.client.call("GET", "/sandbox")
        assert (third.status, third.json["statusCode"], third.json["code"]) == (429, 429, "TOO_MANY_REQUESTS")
        assert third.json["message"] == "ThrottlerException: Too Many Requests"
        assert third.headers["retry-after"] == third.headers["retry-after-authenticated"] == "60"
        build = {"buildInfo": {"dockerfileContent": "FROM x"}}
        assert (await world.client.call("POST", "/sandbox", build)).status == 200  # counted apart
        assert (await world.client.call("POST", "/sandbox", build)).status == 429
        other = await world.client.call("GET", "/sandbox", key="sy_wrong")
        assert (other.status, other.headers["x-ratelimit-remaining-failed-auth"]) == (401, "0")
        assert (await world.client.call("GET", "/sandbox", key="sy_wrong")).status == 429
        await clock.advance(60)
        assert (await world.client.call("GET", "/sandbox")).status == 200


async def test_each_key_has_its_own_count_and_the_number_of_callers_is_bounded() -> None:
    clock = ManualClock()
    limits = RateLimits({"authenticated": Rate(1, 60)}, clock)
    headers: Headers = []
    for number in range(MAX_COUNTED + 10):
        limits.count("authenticated", f"key-{number}", headers)
    assert len(limits._windows) == MAX_COUNTED


@pytest.mark.parametrize(
    "text", ["authenticated", "nobody=1/1", "authenticated=0/5", "authenticated=5", "failed-auth=x/1"]
)
def test_a_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="SANDYARD_RATE_LIMITS"):
        read_settings({"SANDYARD_RATE_LIMITS": text})


def test_limits_are_read_from_the_setting() -> None:
    read = read_settings({"SANDYARD_RATE_LIMITS": "authenticated=300/60, sandbox-create=10/60"})
    assert read.rate_limits == {"authenticated": Rate(300, 60), "sandbox-create": Rate(10, 60)}
