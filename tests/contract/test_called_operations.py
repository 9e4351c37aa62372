"""Whatever an SDK or the command line client calls is implemented, or stands here with the reason why not."""

from collections.abc import Mapping
from pathlib import Path

import daytona
import pytest

from sandyard_api.coverage.absences import absence_of
from sandyard_api.coverage.operations import OPERATIONS, Operation
from sandyard_daemon.wire.operations import OPERATIONS as TOOLBOX_OPERATIONS
from tests.contract.called_operations import API, TOOLBOX, Called, python_calls, typescript_calls
from tests.contract.programs import CACHE

EXCUSED = ("/computeruse/",)
"""Beginnings of paths: the desktop comes later, and every call of it is answered with that."""
COMMAND_LINE_CLIENT = frozenset(
    (
        *("createSandbox", "getSandbox", "listSandboxes", "startSandbox", "stopSandbox", "pauseSandbox"),
        *("archiveSandbox", "deleteSandbox", "getPortPreviewUrl", "getSignedPortPreviewUrl", "createSshAccess"),
        *("getToolboxProxyUrl", "getBuildLogs", "getAllSnapshots", "getSnapshot", "createSnapshot"),
        *("activateSnapshot", "removeSnapshot", "getSnapshotBuildLogs", "createVolume", "listVolumes", "getVolume"),
        *("getVolumeByName", "deleteVolume", "listOrganizations", "getOrganization", "listSharedRegions"),
        "getPushAccess",
    )
)
"""What it reads and does but for `snapshot push`, which needs a registry of ours. *Source:* sdk-wire.md 7.5."""

API_OPERATIONS: Mapping[tuple[str, str], Operation] = {(one.method, one.path): one for one in OPERATIONS}
TOOLBOX_IMPLEMENTED = {(one.method, one.path): one.implemented for one in TOOLBOX_OPERATIONS}


def is_implemented(called: Called) -> bool:
    """By the tables that the pages are made from."""
    if called.description == API:
        found = API_OPERATIONS.get((called.method, called.path))
        return found is not None and found.is_implemented
    return TOOLBOX_IMPLEMENTED.get((called.method, called.path), False)


def check(called: set[Called]) -> None:
    """Fails with what is called and not there."""
    assert Called(API, "POST", "/sandbox") in called, "the source was not understood"
    assert Called(TOOLBOX, "POST", "/process/execute") in called, "the source was not understood"
    assert len(called) > 100, "the source was not understood"
    missing = sorted(one for one in called if not is_implemented(one))
    assert [one for one in missing if not one.path.startswith(EXCUSED)] == []
    assert all(absence_of(one.path) for one in missing), "docs/coverage.md does not say why"


def test_what_the_python_sdk_calls_is_implemented() -> None:
    check(python_calls(Path(daytona.__file__).parents[1]))


@pytest.mark.parametrize("name", ["@daytona/sdk", "@daytonaio/sdk"])
def test_what_the_typescript_sdk_calls_is_implemented(name: str) -> None:
    package = CACHE / "typescript" / "node_modules" / name
    if not package.exists():
        pytest.skip(f"{name} is not installed: `make clients`")
    check(typescript_calls(package))


def test_what_the_command_line_client_calls_is_implemented() -> None:
    known = {one.id: one for one in OPERATIONS}
    assert {name for name in COMMAND_LINE_CLIENT if not known[name].is_implemented} == set()


def test_an_operation_that_nobody_implements_is_noticed(tmp_path: Path) -> None:
    """Source as the SDK's and the generator's is: called at once, handed on, and by the serializer."""
    api = tmp_path / "daytona_api_client" / "api"
    for folder in (api, tmp_path / "daytona_toolbox_api_client" / "api", tmp_path / "daytona"):
        folder.mkdir(parents=True)
    generated = "class A:\n" + "".join(
        f"    def _{name}_serialize(self):\n"
        f"        return self.api_client.param_serialize(method='GET', resource_path='/{name}')\n"
        for name in ("one", "two", "three", "four")
    )
    (api / "a_api.py").write_text(generated)
    (tmp_path / "daytona" / "sandbox.py").write_text(
        "def f(self):\n    self._sandbox_api.one()\n    g(self._api_client.two)\n"
        "    self._api_client._three_serialize()\n"
    )
    found = python_calls(tmp_path)
    assert found == {Called(API, "GET", f"/{name}") for name in ("one", "two", "three")}
    assert not any(is_implemented(one) for one in found)
