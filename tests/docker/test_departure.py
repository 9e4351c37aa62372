"""What a runner in a stack concludes from what became of the services that depend on it."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest
from docker.errors import NotFound

from sandyard_runner.runtime.docker.departure import PROJECT, Departure, Dependents
from sandyard_runner.runtime.docker.engine import Engine
from sandyard_runner.runtime.docker.failures import translate
from sandyard_runner.runtime.docker.surroundings import OwnContainer

ANONYMOUS = "c0ffee00" * 8


class ScriptedApi:
    """An engine whose containers and volumes are what the test says."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.volumes: set[str] = set()

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return self.listed

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.volumes:
            raise NotFound(f"no volume {name}")
        return {"Name": name}

    def remove_volume(self, name: str) -> None:
        self.inspect_volume(name)
        self.volumes.remove(name)

    def bring_up(self) -> None:
        self.volumes = {ANONYMOUS, "doors"}
        self.listed = [
            {"Id": "proxy", "Mounts": [{"Type": "volume", "Name": name} for name in sorted(self.volumes)]},
        ]


class ScriptedEngine(Engine):
    """Calls the scripted API at once."""

    def __init__(self, api: ScriptedApi) -> None:
        self._scripted = api

    async def call(self, doing: str, work: Callable[[Any], Any]) -> Any:
        try:
            return work(self._scripted)
        except NotFound as error:
            raise translate(error, doing) from error


def own(**changed: Any) -> OwnContainer:
    fields: dict[str, Any] = {
        "id": "runner",
        "image": "image",
        "mounts": {PurePosixPath("/var/lib/sandyard"): PurePosixPath("/volumes/runner")},
        "volumes": frozenset({"runner"}),
        "labels": {PROJECT: "sandyard"},
        "auto_remove": False,
    }
    return OwnContainer(**(fields | changed))


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


async def dependents(api: ScriptedApi, container: OwnContainer | None = None) -> Dependents:
    seen = Dependents(ScriptedEngine(api), container or own())
    await seen.look()
    return seen


async def test_stop_and_restart_leave_the_proxy_and_so_the_sandboxes(api: ScriptedApi) -> None:
    api.bring_up()
    assert await (await dependents(api)).departure() is Departure.PROCESS


async def test_down_removes_the_proxy_first(api: ScriptedApi) -> None:
    api.bring_up()
    seen = await dependents(api)
    api.listed = []
    assert await seen.departure() is Departure.STACK
    await seen.remove_volumes()
    assert api.volumes == {"doors"}


async def test_down_with_its_volumes_takes_the_anonymous_one_along(api: ScriptedApi) -> None:
    api.bring_up()
    seen = await dependents(api)
    api.listed, api.volumes = [], {"doors"}
    assert await seen.departure() is Departure.EVERYTHING
    await seen.remove_volumes()


async def test_a_proxy_made_anew_counts_from_then_on(api: ScriptedApi) -> None:
    api.bring_up()
    seen = await dependents(api)
    renewed = "beef0000" * 8
    api.listed = [{"Id": "proxy-2", "Mounts": [{"Type": "volume", "Name": renewed}]}]
    api.volumes = {renewed, "doors"}
    await seen.look()
    api.listed = []
    assert await seen.departure() is Departure.STACK


async def test_a_runner_without_a_proxy_never_removes(api: ScriptedApi) -> None:
    assert await (await dependents(api)).departure() is Departure.PROCESS


async def test_outside_a_stack_only_the_process_ends(api: ScriptedApi) -> None:
    api.bring_up()
    assert await (await dependents(api, own(labels={}))).departure() is Departure.PROCESS
    assert await Dependents(ScriptedEngine(api), None).departure() is Departure.PROCESS


@pytest.mark.parametrize(
    ("volumes", "departure"),
    [
        (frozenset({ANONYMOUS}), Departure.EVERYTHING),
        (frozenset({"mine"}), Departure.PROCESS),
        (frozenset(), Departure.PROCESS),
    ],
)
async def test_a_container_that_is_not_kept_takes_its_memory_along(
    api: ScriptedApi, volumes: frozenset[str], departure: Departure
) -> None:
    container = own(labels={}, volumes=volumes, auto_remove=True)
    assert await (await dependents(api, container)).departure() is departure
