"""The pytest plugin: a Sandyard for the run, an organization for each test, and what happened in the report.

Active wherever Sandyard is installed; nothing beyond this file is imported before a test asks for a fixture.
"""

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sandyard.testing.client import ClockHandle, Door, FaultsHandle, Yard
    from sandyard.testing.sharing import TestRun

RUN = pytest.StashKey["TestRun"]()
YARD = pytest.StashKey["Yard"]()
FOLDER, OWNER = "sandyard_folder", "sandyard_owner"
MAX_LINES = 200


class UnusedFault(UserWarning):
    """A fault was ordered and its conditions were never met."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the run."""
    group = parser.getgroup("sandyard", "Sandyard")
    group.addoption("--sandyard-runtime", choices=("auto", "docker", "local"), help="what holds sandboxes")
    group.addoption("--sandyard-isolation", choices=("namespaces", "none"), help="for the local runtime")
    group.addoption("--sandyard-url", help="use the Sandyard that runs there; its owner's key is in DAYTONA_API_KEY")
    group.addoption("--sandyard-key", help="the owner's key, instead of DAYTONA_API_KEY")
    parser.addini("sandyard_organization", "one for each `test` or for each `worker`", default="test")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "sandyard_own_server: the test gets a server that no other worker uses")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker which folder the run shares; the server is started by the first that needs it."""
    run = _run(node.config)
    node.workerinput[FOLDER], node.workerinput[OWNER] = str(run.folder), run.owner_pid


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run's servers, in the process that owns the run."""
    run = config.stash.get(RUN, None)
    if run is not None and run.owner_pid == os.getpid():
        run.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Add the journal and the command logs of this test's sandboxes to the report of its failure."""
    report = yield
    yard = item.stash.get(YARD, None)
    if yard is not None and report.failed and report.when in ("setup", "call"):
        from sandyard.testing.report import sections

        report.sections += sections(yard)
    return report


@pytest.fixture(scope="session")
def sandyard_server(request: pytest.FixtureRequest) -> "Door":
    """The server of this run: started once, shared by all workers; or the one of `--sandyard-url`."""
    from sandyard.testing.client import Door

    config = request.config
    if url := config.getoption("--sandyard-url"):
        key = config.getoption("--sandyard-key") or os.environ.get("DAYTONA_API_KEY")
        if not key:
            raise pytest.UsageError("--sandyard-url needs the owner's key, in DAYTONA_API_KEY or --sandyard-key")
        return Door(url.rstrip("/").removesuffix("/api"), key)
    return _run(config).server()


@pytest.fixture(scope="session")
def sandyard_own_server(request: pytest.FixtureRequest) -> "Door":
    """A server that only this worker uses, for tests that move the clock."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "main")
    return _run(request.config).server(f"own-{worker}")


@pytest.fixture(scope="session")
def _sandyard_of_worker(request: pytest.FixtureRequest) -> "Iterator[Yard]":
    owner = request.getfixturevalue("sandyard_server")
    from sandyard.testing.client import new_yard, remove_yard

    yard = new_yard(owner)
    yield yard
    remove_yard(owner, yard)


@pytest.fixture
def sandyard(request: pytest.FixtureRequest) -> "Iterator[Yard]":
    """An organization of this test's own, with its key, its faults and its journal; removed afterwards."""
    from sandyard.testing.client import new_yard, remove_yard

    owns = request.node.get_closest_marker("sandyard_own_server") or "sandyard_clock" in request.fixturenames
    if not owns and request.config.getini("sandyard_organization") == "worker":
        yard = request.getfixturevalue("_sandyard_of_worker")
        request.node.stash[YARD] = yard
        yield yard
        _tell_unused(yard)
        yard.reset()
        return
    owner = request.getfixturevalue("sandyard_own_server" if owns else "sandyard_server")
    yard = request.node.stash[YARD] = new_yard(owner)
    yield yard
    _tell_unused(yard)
    remove_yard(owner, yard)


@pytest.fixture
def sandyard_env(sandyard: "Yard", monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """`DAYTONA_API_URL` and `DAYTONA_API_KEY`, set for the length of the test."""
    for name, value in sandyard.environment.items():
        monkeypatch.setenv(name, value)
    return sandyard.environment


@pytest.fixture
def sandyard_client(sandyard_env: dict[str, str]) -> Iterator[Any]:
    """A client of the installed Python SDK; the test is skipped where there is none."""
    sdk = pytest.importorskip("daytona", reason="no Daytona SDK is installed")
    config = sdk.DaytonaConfig(api_key=sandyard_env["DAYTONA_API_KEY"], api_url=sandyard_env["DAYTONA_API_URL"])
    client = sdk.Daytona(config)
    yield client
    # Left alone, its event socket reconnects for ever, also when the server is gone.
    dispatcher = getattr(client, "_event_dispatcher", None)
    if dispatcher is not None:
        dispatcher.disconnect()


@pytest.fixture
def sandyard_faults(sandyard: "Yard") -> "FaultsHandle":
    """Failures on order; those that never fired are told as a warning."""
    return sandyard.faults


@pytest.fixture
def sandyard_clock(sandyard: "Yard") -> "Iterator[ClockHandle]":
    """The clock, on a server that only this worker uses; real time again afterwards."""
    yield sandyard.clock
    sandyard.clock.release()


def _run(config: pytest.Config) -> "TestRun":
    """The run that this process belongs to."""
    from pathlib import Path

    from sandyard.testing.sharing import TestRun

    run = config.stash.get(RUN, None)
    if run is None:
        options = {name: config.getoption(f"--sandyard-{name}") for name in ("runtime", "isolation")}
        chosen = {name: value for name, value in options.items() if value}
        shared = getattr(config, "workerinput", {})
        if FOLDER in shared:
            run = TestRun(Path(shared[FOLDER]), shared[OWNER], chosen)
        else:
            run = TestRun.begin(chosen)
        config.stash[RUN] = run
    return run


def _tell_unused(yard: "Yard") -> None:
    for entry in yard.faults.clear():
        if str(entry["rule"].get("name", "")).startswith("quirk:"):
            continue  # a quirk is about a whole run, not about one request
        warnings.warn(UnusedFault(f"never fired: {entry['rule']}"), stacklevel=2)
