"""The organization, its owner, the region, and limits: what SDKs and the CLI read of an account."""

from pathlib import Path

import pytest

from sandyard_api.quotas.limits import Limits, parse_limits
from tests.api.conftest import World, open_world


async def test_the_organization_has_one_owner_and_one_region(either_world: World) -> None:
    world = either_world
    (organization,) = (await world.client.call("GET", "/organizations")).json
    path = f"/organizations/{organization['id']}"
    assert (await world.client.call("GET", path)).json == organization
    user = (await world.client.call("GET", "/users/me")).json
    (member,) = (await world.client.call("GET", f"{path}/users")).json
    assert (member["userId"], member["role"]) == (user["id"], "owner")
    (region,) = (await world.client.call("GET", "/regions")).json
    assert (await world.client.call("GET", "/shared-regions", key=None)).json == [region]
    assert (await world.client.call("GET", f"/regions/{region['id']}")).json == region
    assert organization["defaultRegionId"] == region["id"]
    classes = (await world.client.call("GET", f"{path}/available-sandbox-classes")).json
    assert [(each["regionId"], each["sandboxClass"]) for each in classes] == [(region["id"], "container")]


@pytest.mark.parametrize("path", ["", "/users", "/usage", "/available-sandbox-classes"])
async def test_another_organization_is_nobodys(world: World, path: str) -> None:
    assert (await world.client.call("GET", f"/organizations/other{path}")).status == 403
    assert (await world.client.call("GET", "/regions/elsewhere")).status == 404


async def test_usage_counts_what_runs_and_what_is_kept(either_world: World) -> None:
    world = either_world
    sandbox = await world.create()
    organization = (await world.client.call("GET", "/organizations")).json[0]["id"]

    async def used() -> tuple[int, int, int]:
        (region,) = (await world.client.call("GET", f"/organizations/{organization}/usage")).json["regionUsage"]
        return region["currentCpuUsage"], region["currentMemoryUsage"], region["currentDiskUsage"]

    running = await used()
    async with world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/stop")
    assert await used() == (0, 0, running[2])
    assert running == (sandbox["cpu"], sandbox["memory"], sandbox["disk"])
    await world.client.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert await used() == (0, 0, 0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("sandbox_cpu=1", "CPU request 2 exceeds maximum allowed per sandbox (1)."),
        ("sandbox_memory=3", "Memory request 4GB exceeds maximum allowed per sandbox (3GB)."),
        ("sandbox_disk=4", "Disk request 5GB exceeds maximum allowed per sandbox (4GB)."),
        ("cpu=1", "Total CPU limit exceeded. Maximum allowed: 1."),
        ("memory=3", "Total memory limit exceeded. Maximum allowed: 3GiB."),
        ("disk=4", "Total disk limit exceeded. Maximum allowed: 4GiB."),
    ],
)
async def test_what_is_beyond_a_limit_is_refused_and_leaves_nothing(tmp_path: Path, limits: str, message: str) -> None:
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", limits=parse_limits(limits)) as world:
        await world.runner.beat()
        body = {"buildInfo": {"dockerfileContent": "FROM x"}, "cpu": 2, "memory": 4, "disk": 5}
        answer = await world.client.call("POST", "/sandbox", body)
        assert answer.status == 400
        assert answer.json["message"].startswith(message + "\n")
        assert (await world.client.call("GET", "/sandbox")).json["items"] == []


def test_limits_are_read_by_name() -> None:
    assert parse_limits("cpu=4, snapshots = 2") == Limits(cpu=4, snapshots=2)
    assert parse_limits("") == Limits()
    for wrong in ("cpus=4", "cpu=many", "cpu", "cpu=-1"):
        with pytest.raises(ValueError, match="is not one of cpu=NUMBER"):
            parse_limits(wrong)
