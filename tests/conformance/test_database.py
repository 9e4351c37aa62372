"""What both databases must do alike."""

import asyncio
import os
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from sandyard_api.database import Database, UnusableDatabase, open_database
from sandyard_api.errors import MovedMeanwhile
from sandyard_api.jobs import queue
from sandyard_api.jobs.models import JobRow, JobState
from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes import moves
from sandyard_api.sandboxes.models import Sandbox, StateChange
from sandyard_api.sandboxes.states import Desired, Observed, Request
from sandyard_api.tables import METADATA
from sandyard_migrations import upgrade as database_upgrade
from sandyard_migrations.upgrade import alembic_config, downgrade, newest_revision, render, upgrade
from tests import factories
from tests.factories import NOON


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as opened:
        await upgrade(opened.engine)
        async with opened.transaction() as db:
            db.add(factories.organization())
        yield opened


def test_the_newest_revision_is_the_head_of_the_scripts() -> None:
    assert newest_revision() == ScriptDirectory.from_config(alembic_config()).get_current_head()


async def test_the_migrations_build_exactly_the_models(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_an_index_of_some_rows_is_one_on_both_databases(database: Database) -> None:
    modelled = {
        index.name: str(condition)
        for table in METADATA.tables.values()
        for index in table.indexes
        if (condition := index.dialect_options["sqlite"]["where"]) is not None
    }

    def conditions(connection: Connection) -> dict[str | None, str]:
        key = f"{connection.dialect.name}_where"
        found = (each for table in METADATA.tables for each in inspect(connection).get_indexes(table))
        return {each["name"]: str(each["dialect_options"][key]) for each in found if key in each["dialect_options"]}

    async with database.engine.connect() as connection:
        made = await connection.run_sync(conditions)
    assert {name: re.sub(r"[()]|::\w+", "", where).lower() for name, where in made.items()} == modelled


async def test_an_empty_database_is_made_in_one_piece_as_the_migrations_would_make_it(tmp_path: Path) -> None:
    assert (files("sandyard_migrations") / "sqlite.sql").read_text() == render(), "run `make docs`"
    async with (
        open_database(f"sqlite:///{tmp_path}/whole") as whole,
        open_database(f"sqlite:///{tmp_path}/steps") as steps,
    ):
        await upgrade(whole.engine)
        await upgrade(steps.engine, newest_revision())
        told = []
        for each in (whole, steps):
            async with each.reading() as db:
                schema = await db.execute(text("select type, name, tbl_name, sql from sqlite_master order by 1, 2"))
                version = await db.scalar(text("select version_num from alembic_version"))
            told.append(([tuple(row) for row in schema], version))
    assert told[0] == told[1]
    assert len(told[0][0]) > 20


async def test_the_migrations_go_down_to_nothing_and_up_again(database: Database) -> None:
    await downgrade(database.engine)
    async with database.engine.connect() as connection:
        tables = await connection.run_sync(lambda c: inspect(c).get_table_names())
    assert tables == ["alembic_version"]
    await upgrade(database.engine)
    async with database.reading() as db:
        assert await db.scalar(text("select version_num from alembic_version")) == newest_revision()


async def test_two_replicas_may_upgrade_at_once(database_url: str) -> None:
    async with open_database(database_url) as one, open_database(database_url) as two:
        await asyncio.gather(upgrade(one.engine), upgrade(two.engine))
        async with two.reading() as db:
            assert await db.scalar(text("select version_num from alembic_version")) == newest_revision()


def test_nobody_fails_who_finds_an_empty_sqlite_file_at_the_same_moment(tmp_path: Path) -> None:
    """Many times over: SQLite does not wait by itself while another connection changes its journal."""
    together = threading.Barrier(2)

    def make(number: int) -> None:
        together.wait(30)
        database_upgrade._execute([str(tmp_path / f"{number}.db")], {}, ["create table made (id)"])

    with ThreadPoolExecutor(2) as pool:
        for number in range(150):
            for done in (pool.submit(make, number), pool.submit(make, number)):
                done.result(30)


async def test_a_locked_database_is_told_of_as_soon_as_sqlite_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_upgrade, "SQLITE_BUSY_MILLISECONDS", 100)
    monkeypatch.setattr("sandyard_api.database.SQLITE_BUSY_MILLISECONDS", 60_000)
    for is_new in (True, False):
        path = tmp_path / f"{is_new}.db"
        async with open_database(f"sqlite:///{path}") as opened:
            if not is_new:
                await upgrade(opened.engine)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("begin exclusive")
                with pytest.raises(UnusableDatabase, match="locked"):
                    async with asyncio.timeout(40):  # the engine's own wait is a minute
                        await upgrade(opened.engine)
                other.execute("rollback")
            await upgrade(opened.engine)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("{folder}/a.db?timeout=5", ["a.db"]),
        ("file:{folder}/a.db?nolock=1&uri=true", ["a.db"]),
        ("file:{folder}/a.db?mode=rwc&uri=true", ["a.db"]),
        (":memory:", []),
    ],
)
async def test_the_schema_is_made_where_the_url_says(
    name: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_database(f"sqlite:///{name.format(folder=tmp_path)}") as opened:
        await upgrade(opened.engine)
        async with opened.reading() as db:
            assert await db.scalar(text("select version_num from alembic_version")) == newest_revision()
    assert os.listdir(tmp_path) == files


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "the database's URL is none; it takes sqlite:///PATH or postgresql://"),
        ("mysql://somebody:secret@host/name", "the database's URL begins with mysql:"),
        ("postgresql+psycopg2://somebody:secret@host/name", "the database's URL begins with postgresql"),
        ("postgresql://somebody:secret@127.0.0.1:1/name", "somebody:***@127.0.0.1:1/name cannot be used: "),
        ("sqlite:///{folder}/nowhere/a.db", "nowhere/a.db cannot be used: unable to open database file"),
        ("sqlite:///{folder}", "cannot be used: unable to open database file"),
        ("sqlite:///{folder}/text", "/text cannot be used: file is not a database"),
    ],
)
async def test_a_url_without_a_database_is_refused_in_words_and_without_its_password(
    url: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no database, and no header of one\n" * 10)
    with pytest.raises(UnusableDatabase) as refused:
        async with open_database(url.format(folder=tmp_path)) as opened:
            await upgrade(opened.engine)
    assert reason in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    async def fail_late() -> None:
        async with database.transaction() as db:
            db.add(factories.sandbox("s1"))
            await db.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_late()
    async with database.reading() as db:
        assert await db.get(Sandbox, "s1") is None


async def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    elsewhere = datetime(2026, 7, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    async with database.transaction() as db:
        db.add(factories.sandbox("s1", created_at=elsewhere))
    async with database.reading() as db:
        read = (await db.get_one(Sandbox, "s1")).created_at
    assert read == elsewhere
    assert read.tzinfo is UTC


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1", created_at=datetime(2026, 7, 1)))  # noqa: DTZ001  that is the point
        with pytest.raises(StatementError, match="without a time zone"):
            await db.flush()
        await db.rollback()


async def test_enums_are_stored_by_value(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1", observed=Observed.PENDING_BUILD))
    async with database.reading() as db:
        assert await db.scalar(text("select observed from sandboxes")) == "pending_build"


async def test_a_name_is_unique_among_the_living_only(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1", name="web", desired=Desired.DESTROYED))
        db.add(factories.sandbox("s2", name="web"))
    with pytest.raises(IntegrityError):
        async with database.transaction() as db:
            db.add(factories.sandbox("s3", name="web"))


async def test_a_sandbox_has_at_the_most_one_open_job(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1"))
        await db.flush()
        await factories.job(db, "s1")
    with pytest.raises(IntegrityError):
        async with database.transaction() as db:
            queue.add_job(db, queue.Order(JobKind.STOP), job_id="x", sandbox_id="s1", runner_id=None, at=NOON)
    async with database.transaction() as db:
        await queue.void_open_job(db, "s1", at=NOON, reason="not wanted")
        queue.add_job(db, queue.Order(JobKind.STOP), job_id="y", sandbox_id="s1", runner_id=None, at=NOON)


async def claim_in(database: Database, runner: str, now: datetime = NOON) -> list[str]:
    async with database.transaction() as db:
        rows = await queue.claim(db, runner, lease=f"lease of {runner}", now=now, lease_seconds=30, limit=3)
        return [row.sandbox_id for row in rows]


async def test_runners_that_claim_at_once_never_share_a_job(database: Database) -> None:
    async with database.transaction() as db:
        for number in range(9):
            db.add(factories.sandbox(f"s{number}"))
        await db.flush()
        for number in range(9):
            await factories.job(db, f"s{number}")
    claims = await asyncio.gather(*(claim_in(database, f"r{number}") for number in range(6)))
    taken = [sandbox_id for claim in claims for sandbox_id in claim]
    taken += await claim_in(database, "late")
    assert sorted(taken) == [f"s{number}" for number in range(9)]


async def test_a_job_comes_back_when_its_lease_ran_out(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1"))
        await db.flush()
        job_id = await factories.job(db, "s1")
    assert await claim_in(database, "r1") == ["s1"]
    assert await claim_in(database, "r1", NOON + timedelta(seconds=29)) == []
    assert await claim_in(database, "r1", NOON + timedelta(seconds=31)) == ["s1"]
    async with database.transaction() as db:
        ended = await queue.end(db, job_id, "some other lease", at=NOON, ok=True, reason="")
        assert ended is None
        ended = await queue.end(db, job_id, "lease of r1", at=NOON, ok=True, reason="")
        assert ended is not None
        assert ended.state is JobState.DONE


async def test_a_move_loses_to_whoever_moved_first(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1"))
    async with database.reading() as db:
        seen_before = await db.get_one(Sandbox, "s1")
    async with database.transaction() as db:
        row = await db.get_one(Sandbox, "s1")
        await moves.request(db, row, Request.STOP, cause="first", at=NOON)
    with pytest.raises(MovedMeanwhile):
        async with database.transaction() as db:
            await moves.request(db, seen_before, Request.DESTROY, cause="second", at=NOON)
    async with database.reading() as db:
        causes = (await db.scalars(select(StateChange.cause))).all()
    assert causes == ["first"]


async def test_removing_a_sandbox_removes_what_hangs_on_it(database: Database) -> None:
    async with database.transaction() as db:
        db.add(factories.sandbox("s1"))
        await db.flush()
        await factories.job(db, "s1")
        moves.record(db, await db.get_one(Sandbox, "s1"), cause="made", at=NOON)
    async with database.transaction() as db:
        await db.delete(await db.get_one(Sandbox, "s1"))
    async with database.reading() as db:
        assert (await db.scalars(select(JobRow.id))).all() == []
        assert (await db.scalars(select(StateChange.cause))).all() == []


async def test_writers_queue_up_instead_of_failing(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.transaction() as db:
            db.add(factories.sandbox(f"s{number}"))

    await asyncio.gather(*(write(number) for number in range(30)))
    async with database.reading() as db:
        assert len((await db.scalars(select(Sandbox.id))).all()) == 30
