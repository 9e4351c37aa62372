"""Events as the clients' own library receives them: Socket.IO over a WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import socketio

from sandyard.bus.memory import MemoryBus
from tests.api.conftest import API_KEY, World, open_world

DEADLINE_SECONDS = 60
NAMES = (
    *("sandbox.created", "sandbox.state.updated", "sandbox.desired-state.updated"),
    *("snapshot.created", "snapshot.state.updated", "snapshot.removed"),
    *("volume.created", "volume.state.updated", "volume.lastUsedAt.updated"),
)


class Listener:
    """A Socket.IO client that keeps what it is told."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.client = socketio.AsyncClient(reconnection=False)
        for name in NAMES:
            self.client.on(name, self._keep(name))

    def _keep(self, name: str) -> Any:
        async def keep(data: Any) -> None:
            await self.events.put((name, data))

        return keep

    async def connect(self, url: str, token: str) -> None:
        """Connect as the clients do."""
        await self.client.connect(
            url,
            auth={"token": token},
            transports=["websocket"],
            socketio_path="/api/socket.io/",
            wait_timeout=DEADLINE_SECONDS,
        )

    async def until(self, name: str, new: str) -> dict[str, Any]:
        """The event of that name with that new state."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                told, data = await self.events.get()
                if told == name and new in (data.get("newState"), data.get("newDesiredState"), data.get("state")):
                    assert isinstance(data, dict)
                    return data


@asynccontextmanager
async def listening(url: str, token: str = API_KEY) -> AsyncIterator[Listener]:
    """A connected listener."""
    listener = Listener()
    await listener.connect(url, token)
    try:
        yield listener
    finally:
        await listener.client.disconnect()


async def test_the_life_of_a_sandbox_is_told_with_shown_states(world: World) -> None:
    async with listening(world.client.url) as listener:
        sandbox = await world.create(name="web")
        created = await listener.until("sandbox.created", "creating")
        assert created["id"] == sandbox["id"]
        assert created["toolboxProxyUrl"] == f"{world.client.url}/toolbox"
        started = await listener.until("sandbox.state.updated", "started")
        assert (started["oldState"], started["sandbox"]["state"]) == ("creating", "started")
        await world.client.call("DELETE", "/sandbox/web")
        deleted = await listener.until("sandbox.state.updated", "destroying")
        assert deleted["oldState"] == "started"
        wanted = await listener.until("sandbox.desired-state.updated", "destroyed")
        assert wanted["oldDesiredState"] == "started"


async def test_what_an_event_tells_can_be_read_at_once(world: World) -> None:
    async with listening(world.client.url) as listener, world.runner.working():
        creating = asyncio.create_task(world.client.call("POST", "/sandbox", {}))
        event = await listener.until("sandbox.state.updated", "started")
        read = await world.client.call("GET", f"/sandbox/{event['sandbox']['id']}")
        assert read.json == event["sandbox"]
        await creating


async def test_the_life_of_a_volume_is_told(world: World) -> None:
    async with listening(world.client.url) as listener:
        volume = (await world.client.call("POST", "/volumes", {"name": "shared"})).json
        assert await listener.until("volume.created", "ready") == volume
        await world.create(name="user", volumes=[{"volumeId": "shared", "mountPath": "/data"}])
        used = await listener.until("volume.lastUsedAt.updated", "ready")
        assert used == (await world.client.call("GET", f"/volumes/{volume['id']}")).json
        assert used["lastUsedAt"]
        await world.client.call("DELETE", "/sandbox/user")
        await world.client.call("DELETE", f"/volumes/{volume['id']}")
        deleted = await listener.until("volume.state.updated", "deleted")
    assert (deleted["oldState"], deleted["volume"]["name"]) == ("ready", "shared-deleted")


async def test_the_life_of_a_snapshot_is_told(world: World) -> None:
    async with listening(world.client.url) as listener:
        async with world.runner.working():
            made = (await world.client.call("POST", "/snapshots", {"name": "s", "imageName": "debian:12"})).json
            assert (await listener.until("snapshot.created", "pending"))["id"] == made["id"]
            pulling = await listener.until("snapshot.state.updated", "pulling")
            active = await listener.until("snapshot.state.updated", "active")
        assert (pulling["oldState"], active["oldState"], active["snapshot"]["name"]) == ("pending", "pulling", "s")
        await world.client.call("POST", f"/snapshots/{made['id']}/deactivate")
        inactive = await listener.until("snapshot.state.updated", "inactive")
        assert (inactive["oldState"], inactive["snapshot"]["state"]) == ("active", "inactive")
        await world.client.call("DELETE", f"/snapshots/{made['id']}")
        assert (await listener.until("snapshot.removed", "inactive"))["id"] == made["id"]


async def test_a_snapshot_of_a_sandbox_is_told_too(world: World) -> None:
    sandbox = await world.create()
    async with listening(world.client.url) as listener, world.runner.working():
        await world.client.call("POST", f"/sandbox/{sandbox['id']}/snapshot", {"name": "kept"})
        created = await listener.until("snapshot.created", "snapshotting")
        active = await listener.until("snapshot.state.updated", "active")
    assert (active["oldState"], active["snapshot"]["id"]) == ("snapshotting", created["id"])


async def test_a_wrong_key_is_refused_as_unauthorized(world: World) -> None:
    listener = Listener()
    refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    listener.client.on("connect_error", refused.set_result)
    with pytest.raises(socketio.exceptions.ConnectionError):
        await listener.connect(world.client.url, token="wrong")
    assert await refused == {"message": "Unauthorized"}


async def test_each_socket_gets_urls_that_lead_back_its_own_way(world: World) -> None:
    by_name = world.client.url.replace("127.0.0.1", "localhost")
    async with listening(world.client.url) as one, listening(by_name) as two:
        await world.create()
        first = await one.until("sandbox.created", "creating")
        second = await two.until("sandbox.created", "creating")
    assert first["toolboxProxyUrl"] == f"{world.client.url}/toolbox"
    assert second["toolboxProxyUrl"] == f"{by_name}/toolbox"


async def test_events_reach_the_sockets_of_other_replicas(tmp_path: object) -> None:
    bus, url = MemoryBus(), f"sqlite:///{tmp_path}/test.db"
    async with open_world(url, bus=bus) as one, open_world(url, bus=bus) as two:
        async with listening(two.client.url) as listener:
            sandbox = await one.create()
            created = await listener.until("sandbox.created", "creating")
    assert created["id"] == sandbox["id"]
    assert created["toolboxProxyUrl"] == f"{two.client.url}/toolbox"


async def test_a_create_on_one_replica_is_finished_by_a_runner_of_the_other(tmp_path: object) -> None:
    bus, url = MemoryBus(), f"sqlite:///{tmp_path}/test.db"
    async with open_world(url, bus=bus) as one, open_world(url, bus=bus) as two, two.runner.working():
        answer = await one.client.call("POST", "/sandbox", {})
    assert answer.json["state"] == "started"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://localhost:9999", 101), ("own", 101)],
)
async def test_pages_of_other_sites_cannot_open_a_socket(world: World, origin: str, status: int) -> None:
    url = f"{world.client.url}/api/socket.io/?EIO=4&transport=websocket"
    headers = {"Origin": world.client.url if origin == "own" else origin}
    if status == 101:
        async with world.client.session.ws_connect(url, headers=headers) as socket:
            assert (await socket.receive_str(timeout=DEADLINE_SECONDS)).startswith("0{")
        return
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await world.client.session.ws_connect(url, headers=headers)
    assert refused.value.status == status


async def test_hand_written_clients_work(world: World) -> None:
    url = f"{world.client.url}/api/socket.io/?EIO=4&transport=websocket"
    async with world.client.session.ws_connect(url) as socket:
        assert (await socket.receive_str(timeout=DEADLINE_SECONDS)).startswith("0{")
        await socket.send_str("40" + json.dumps({"token": API_KEY}))
        assert (await socket.receive_str(timeout=DEADLINE_SECONDS)).startswith("40{")
        await world.create()
        assert (await socket.receive_str(timeout=DEADLINE_SECONDS)).startswith('42["sandbox.created",{')
    async with world.client.session.ws_connect(url) as socket:
        await socket.receive_str(timeout=DEADLINE_SECONDS)
        await socket.send_str("40" + json.dumps({"token": "wrong"}))
        refused = await socket.receive_str(timeout=DEADLINE_SECONDS)
    assert refused.startswith("44{")
    assert json.loads(refused[2:])["message"] == "Unauthorized"


async def test_polling_is_not_served(world: World) -> None:
    answer = await world.client.session.get(f"{world.client.url}/api/socket.io/?EIO=4&transport=polling")
    assert answer.status == 400
