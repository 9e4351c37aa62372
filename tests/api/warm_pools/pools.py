"""A control plane with warm pools whose keeper looks only when told."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from sandyard.clock import ManualClock
from sandyard.serving import listen_unix, serve
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired
from tests.api.conftest import World, open_world
from tests.api.doubles import ScriptedRunner

FOREVER = 10**9
SNAPSHOT = "sandyard-default"


class Doors:
    """A runner's API that takes variables for sandboxes, as long as `silent` does not name them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self.silent: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        sandbox_id = scope["path"].rsplit("/", 1)[-1]
        body = (await receive())["body"]
        is_silent = sandbox_id in self.silent or "all" in self.silent
        if not is_silent:
            self.told.append((sandbox_id, json.loads(body)))
        await send({"type": "http.response.start", "status": 502 if is_silent else 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Pools:
    """A world whose keeper looks only when told, and whose time goes by hand."""

    def __init__(self, world: World, clock: ManualClock, doors: Doors) -> None:
        self.world = world
        self.clock = clock
        self.doors = doors

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return await self.world.client.call(method, path, body, **more)

    async def pool(self, size: int, snapshot: str = SNAPSHOT) -> dict[str, Any]:
        """A full pool."""
        made = await self.call("POST", "/warm-pools", {"snapshot": snapshot, "pool": size})
        assert made.status == 201, made.body
        await self.fill()
        return dict(made.json)

    async def fill(self) -> None:
        """Let the keeper and the runner work until neither has anything to do."""
        await self.clock.advance(2)
        for _ in range(200):
            await self.world.plane.warm_keeper.look()
            if not await self.world.runner.work_once():
                return
        raise AssertionError("the keeper never comes to rest")

    async def sizes(self) -> list[int]:
        """How many wait in each pool."""
        return [pool["currentSize"] for pool in (await self.call("GET", "/warm-pools")).json]

    async def create(self, **body: Any) -> Any:
        """The answer to a create, whoever makes it."""
        async with self.world.runner.working():
            return await self.call("POST", "/sandbox", body)

    async def rows(self) -> Sequence[Sandbox]:
        async with self.world.plane.database.reading() as db:
            warm = Sandbox.warm_pool_id.is_not(None) & (Sandbox.desired != Desired.DESTROYED)
            return (await db.scalars(select(Sandbox).where(warm).order_by(Sandbox.id))).all()


@asynccontextmanager
async def open_pools(database_url: str, folder: Path, **changes: Any) -> AsyncIterator[Pools]:
    clock, doors = ManualClock(), Doors()
    async with open_world(database_url, clock=clock, timer_seconds=FOREVER, **changes) as world:
        async with serve(doors, listen_unix(folder / "runner.sock")):
            world.runner = ScriptedRunner(world.internal, url=f"unix:{folder / 'runner.sock'}")
            await world.runner.beat()
            yield Pools(world, clock, doors)
