"""Answers for releases that read less than today's: the oldest Python clients, and Go's that refuse unknown keys."""

from typing import Any

import pytest

from tests.api.conftest import World
from tests.contract import go_models


def go(version: str) -> dict[str, str]:
    return {"X-Daytona-Source": "sdk-go", "X-Daytona-SDK-Version": f"v{version}"}


@pytest.mark.parametrize("version", ["0.143.0", "0.150.0", "0.170.0", "0.187.0"])
async def test_go_clients_that_refuse_unknown_keys_get_none(world: World, version: str) -> None:
    major, minor, _ = version.split(".")
    known = go_models.sandbox_keys((int(major), int(minor)))
    sandbox = await world.create(ttlMinutes=5)
    path = f"/sandbox/{sandbox['id']}"
    answers: list[dict[str, Any]] = [
        (await world.client.call("GET", path, headers=go(version))).json,
        (await world.client.call("POST", f"{path}/autostop/5", headers=go(version))).json,
        *(await world.client.call("GET", "/sandbox/paginated", headers=go(version))).json["items"],
    ]
    for answer in answers:
        assert set(answer) <= known
        assert set(answer) >= go_models.SANDBOX_REQUIRED
    assert len(answers) == 3


async def test_newer_go_clients_get_everything(world: World) -> None:
    sandbox = await world.create()
    answer = await world.client.call("GET", f"/sandbox/{sandbox['id']}", headers=go("0.188.0"))
    assert answer.json == sandbox


@pytest.mark.parametrize("version", ["0.27.1", "0.103.0"])
async def test_the_oldest_clients_list_a_bare_array(world: World, version: str) -> None:
    sandbox = await world.create(labels={"a": "b"})
    headers = {"X-Daytona-Source": "python-sdk", "X-Daytona-SDK-Version": version}
    found = await world.client.call("GET", '/sandbox?labels={"a":"b"}', headers=headers)
    assert found.json == [sandbox]
    assert (await world.client.call("GET", '/sandbox?labels={"a":"c"}', headers=headers)).json == []
