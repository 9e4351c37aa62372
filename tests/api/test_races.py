"""A user's request and a runner's word at the same moment, with PostgreSQL's row locks between them."""

import asyncio

import pytest
from sqlalchemy import func, text, update

from sandyard_api.database import Database
from sandyard_api.jobs.models import JobRow
from sandyard_api.sandboxes.models import Sandbox
from tests.api.conftest import open_world
from tests.conftest import fresh_postgres_database

pytestmark = pytest.mark.postgres
LOCKED = text("select count(*) from pg_locks where not granted and locktype in ('transactionid', 'tuple')")


async def test_neither_waits_for_the_other_for_ever(postgres_server_url: str) -> None:
    url = await asyncio.to_thread(fresh_postgres_database, postgres_server_url)
    async with open_world(url, wait_seconds=0.0) as world:
        await world.runner.beat()
        sandbox = (await world.client.call("POST", "/sandbox", {})).json
        [job] = await world.runner.claim()
        database = world.plane.database
        async with database.transaction() as db:  # as a runner's word is taken in: the job, then the sandbox
            await db.execute(update(JobRow).where(JobRow.id == job.id).values(lease_until=func.now()))
            deleting = asyncio.create_task(world.client.call("DELETE", f"/sandbox/{sandbox['id']}"))
            await asyncio.wait_for(somebody_waits(database), 30)
            await db.execute(update(Sandbox).where(Sandbox.id == sandbox["id"]).values(updated_at=Sandbox.updated_at))
        answer = await asyncio.wait_for(deleting, 30)
    assert (answer.status, answer.json["desiredState"]) == (200, "destroyed")


async def somebody_waits(database: Database) -> None:
    while True:
        async with database.reading() as db:
            if await db.scalar(LOCKED):
                return
        await asyncio.sleep(0.02)
