"""Linked sandboxes through the Python SDK, on a real engine."""

from collections.abc import Iterator

import pytest

daytona_sdk = pytest.importorskip("daytona", reason="the newest Python SDK is a development dependency")

from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Daytona, Resources  # noqa: E402
from daytona.common.errors import DaytonaBadRequestError, DaytonaError  # noqa: E402

from tests.contract.python_client import client  # noqa: E402
from tests.contract.running import Instance  # noqa: E402

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.filterwarnings("ignore"),  # the library's own deprecations and unclosed sockets are not ours
]


@pytest.fixture
def daytona(sandyard: Instance) -> Iterator[Daytona]:
    with client(sandyard, sandyard.api_key) as opened:
        yield opened


def companion(of: str, **fields: object) -> CreateSandboxFromSnapshotParams:
    return CreateSandboxFromSnapshotParams(linked_sandbox=of, **({"ephemeral": True} | fields))  # type: ignore[arg-type]


def test_a_linked_sandbox_is_reached_by_its_owner_and_goes_with_it(sandyard: Instance, daytona: Daytona) -> None:
    owner = daytona.create()
    try:
        if sandyard.combination.runtime != "docker":
            with pytest.raises(DaytonaError, match="Linked sandboxes are not supported for this sandbox"):
                daytona.create(companion(owner.id))
            return
        linked = daytona.create(companion(owner.name))
        serve = "node -e \"require('net').createServer(c=>c.end('hello')).listen(8000)\" >/dev/null 2>&1 &"
        linked.process.exec(serve)
        see = "on('data', data => process.stdout.write(data))"
        get = f"node -e \"require('net').connect(8000, '{linked.id}.link').{see}\""
        retried = f"for i in $(seq 30); do timeout 10 {get} && break; sleep 1; done"
        assert "hello" in owner.process.exec(retried).result
        with pytest.raises(DaytonaBadRequestError, match="is linked to another sandbox"):
            daytona.create(companion(linked.id))
        with pytest.raises(DaytonaBadRequestError, match="must be ephemeral"):
            daytona.create(companion(owner.id, ephemeral=False))
    finally:
        owner.delete()
    linked.refresh_data()
    assert linked.state in ("destroying", "destroyed")


def test_a_gpu_is_refused_with_the_reason(daytona: Daytona) -> None:
    wanted = CreateSandboxFromImageParams(image="debian:12", resources=Resources(gpu=1), ephemeral=True)
    with pytest.raises(DaytonaBadRequestError, match="No available runners for GPU type any"):
        daytona.create(wanted)
