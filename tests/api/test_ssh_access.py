"""SSH access as clients and the gateway see it, on both databases."""

from datetime import timedelta
from pathlib import Path

import pytest

from sandyard.clock import ManualClock
from sandyard_api.jobs.client import SshAccessExpired, UnknownRoute
from tests.api.conftest import World, open_world


async def test_a_new_access_replaces_the_ones_before(tmp_path: Path) -> None:
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", ssh_port=2222) as world:
        await world.runner.beat()
        sandbox = await world.create(name="web")
        first = await world.client.call("POST", "/sandbox/web/ssh-access")
        assert first.status == 200
        token = first.json["token"]
        assert first.json["sshCommand"].startswith(f"ssh -p 2222 {token}@")
        assert await world.internal.ssh_access(token) == sandbox["id"]
        second = (await world.client.call("POST", "/sandbox/web/ssh-access")).json["token"]
        with pytest.raises(UnknownRoute):
            await world.internal.ssh_access(token)
        assert await world.internal.ssh_access(second) == sandbox["id"]
        other = await world.client.call("DELETE", "/sandbox/web/ssh-access?token=another")
        assert other.status == 200
        assert await world.internal.ssh_access(second) == sandbox["id"]
        assert (await world.client.call("DELETE", "/sandbox/web/ssh-access")).json["id"] == sandbox["id"]
        with pytest.raises(UnknownRoute):
            await world.internal.ssh_access(second)


async def test_an_access_ends_by_the_clock_and_says_that_it_has(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_world(f"sqlite:///{tmp_path / 'test.db'}", clock=clock, ssh_port=2222) as world:
        await world.runner.beat()
        sandbox = await world.create(name="web")
        made = (await world.client.call("POST", "/sandbox/web/ssh-access?expiresInMinutes=2")).json
        validate = f"/sandbox/ssh-access/validate?token={made['token']}"
        await clock.advance(timedelta(minutes=2).total_seconds() - 1)
        assert (await world.client.call("GET", validate)).json == {"valid": True, "sandboxId": sandbox["id"]}
        await clock.advance(1)
        assert (await world.client.call("GET", validate)).json == {"valid": False, "sandboxId": ""}
        with pytest.raises(SshAccessExpired):
            await world.internal.ssh_access(made["token"])


async def test_an_installation_without_a_gateway_gives_no_access_and_shows_no_command(world: World) -> None:
    await world.create(name="web")
    refused = await world.client.call("POST", "/sandbox/web/ssh-access")
    assert refused.status == 400
    assert "SANDYARD_SSH_PORT" in refused.json["message"]
    assert "sshGatewayCommand" not in (await world.client.call("GET", "/config")).json
