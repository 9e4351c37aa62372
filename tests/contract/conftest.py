"""The running Sandyard of each combination, and a sandbox in it for tests that need no fresh one."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conformance.redis_server import RedisServer
from tests.contract.postgres_server import PostgresServer
from tests.contract.running import COMBINATIONS, Combination, Instance, chosen_combinations, start
from tests.contract.toolbox import Toolbox
from tests.engine import need_engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `sandyard`, directly or not, once for every chosen combination."""
    if "sandyard" in metafunc.fixturenames:
        names = chosen_combinations(os.environ)
        metafunc.parametrize("sandyard", [_param(name) for name in names], indirect=True, scope="session")


def _param(name: str) -> object:
    combination = COMBINATIONS[name]
    needs = {"docker": combination.runtime == "docker", "postgres": combination.postgres, "redis": combination.redis}
    marks = [getattr(pytest.mark, mark) for mark, needed in needs.items() if needed]
    return pytest.param(combination, id=name, marks=marks)


@pytest.fixture(scope="session")
def sandyard(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """A Sandyard started by `sandyard up` for this combination; its end must be clean."""
    with running(request.param) as instance:
        yield instance


@contextmanager
def running(
    combination: Combination, prepare: Callable[[Path], None] | None = None, *options: str
) -> Iterator[Instance]:
    """A Sandyard of that combination; `prepare` gets its data directory before it starts."""
    if combination.runtime == "docker":
        need_engine()
    extra = list(options)
    servers: list[PostgresServer | RedisServer] = []
    # Not pytest's own temporary folder: each pytest that starts closes it to other users, PostgreSQL's among them.
    home = tempfile.TemporaryDirectory(prefix=f"{combination.name}-", ignore_cleanup_errors=True)
    folder = Path(home.name)
    try:
        if combination.postgres:
            postgres = PostgresServer.start_or_skip(folder / "postgres")
            servers.append(postgres)
            extra += ["--database-url", postgres.url]
        if combination.redis:
            redis = RedisServer.start_or_skip(folder)
            servers.append(redis)
            extra += ["--bus-url", redis.url]
        if prepare is not None:
            prepare(folder / "data")
        instance = start(combination, folder, *extra)
        try:
            yield instance
        finally:
            try:
                if combination.runtime == "docker":  # containers outlive their server
                    remove_sandboxes(instance)
            finally:
                status = instance.stop()
        assert status in (0, 143), f"`sandyard up` ended with {status}:\n{instance.log[-4000:]}"
    finally:
        for server in reversed(servers):
            server.stop()
        home.cleanup()


def remove_sandboxes(instance: Instance) -> None:
    """Delete every sandbox that tests have left in it."""
    httpx.post(
        f"{instance.origin}/_sandyard/reset",
        json={"scope": "all"},
        headers={"Authorization": f"Bearer {instance.api_key}"},
        timeout=60,
    ).raise_for_status()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working directory for a client program: no dotenv file in it."""
    return tmp_path


@pytest.fixture(scope="session")
def shared_toolbox(sandyard: Instance) -> Iterator[Toolbox]:
    """One started sandbox for all tests of a combination that leave no traces others would see."""
    toolbox = Toolbox.create(sandyard)
    yield toolbox
    toolbox.delete()
