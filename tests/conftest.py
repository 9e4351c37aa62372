"""Both databases, each empty, for every test that wants one."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings
from sqlalchemy.engine import make_url

from tests.contract.postgres_server import PostgresServer

# An example may take long where the machine stalls: that is no finding.
settings.register_profile("stalling", deadline=None)
settings.load_profile("stalling")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL server: the one that `SANDYARD_TEST_POSTGRES_URL` names, else one of our own."""
    if url := os.environ.get("SANDYARD_TEST_POSTGRES_URL"):
        yield url
        return
    # Not in pytest's own folder: every other run of pytest closes that to the server's user.
    with tempfile.TemporaryDirectory(prefix="sandyard-postgres-") as folder:
        server = PostgresServer.start_or_skip(Path(folder) / "server")
        try:
            yield server.url
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return fresh_postgres_database(request.getfixturevalue("postgres_server_url"))


def fresh_postgres_database(server_url: str) -> str:
    """The URL of a new, empty database on that server."""
    url, name = make_url(server_url), f"test_{uuid4().hex}"
    asyncio.run(_create_database(url.set(drivername="postgresql").render_as_string(hide_password=False), name))
    return url.set(database=name).render_as_string(hide_password=False)


async def _create_database(url: str, name: str) -> None:
    connection = await asyncpg.connect(url, timeout=60)
    try:
        await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
