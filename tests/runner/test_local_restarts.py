"""A killed Sandyard leaves nothing behind, or leaves its sandboxes to the next one: as it was told."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.door_http import Door, ask, ask_json
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.local.options import Isolation, LocalOptions
from sandyard_runner.runtime.local.process import ProcessId, Run
from sandyard_runner.runtime.local.runtime import open_local_runtime
from tests.runner import doubles
from tests.runner.conftest import eventually

SANDBOX = f"sandbox-{uuid.uuid4().hex[:12]}"
"""Control groups are called by it, and another run of these tests on this machine ends what is in its own."""

HOLD = """
import asyncio, json, sys
from pathlib import Path
from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.runtime.local.options import Isolation, LocalOptions
from sandyard_runner.runtime.local.runtime import open_local_runtime

async def main(told):
    options = LocalOptions(Path(told["data"]), Path(told["doors"]), Isolation(told["isolation"]),
                           keep_running=told["keep_running"])
    async with open_local_runtime(options) as runtime:
        spec = SandboxSpec(**told["spec"])
        await runtime.create(spec)
        await runtime.start(spec)
        print("started", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(json.loads(sys.argv[1])))
"""


def a_spec() -> SandboxSpec:
    return doubles.a_spec(SANDBOX)


@dataclasses.dataclass
class Place:
    """Where one installation keeps its things."""

    options: LocalOptions

    def run_of(self, sandbox_id: str) -> Run:
        run = Run.load(self.options.data_dir / "sandboxes" / sandbox_id / "run.json")
        assert run is not None
        return run

    def hold_and_kill(self) -> Run:
        """Start a sandbox in a process of its own and kill that process with SIGKILL."""
        spec = a_spec()
        told = {
            "data": str(self.options.data_dir),
            "doors": str(self.options.doors_dir),
            "isolation": self.options.isolation.value,
            "keep_running": self.options.keep_running,
            "spec": {"sandbox_id": spec.sandbox_id, "organization_id": "o", "name": "n", "door_secret": "s" * 32},
        }
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        )
        assert holder.stdout is not None
        assert holder.stderr is not None
        if not any(line == b"started\n" for line in holder.stdout):  # others are our own log
            holder.kill()
            said = holder.communicate()[1].decode().strip()
            if self.options.isolation is Isolation.NAMESPACES and "--isolation none" in said.splitlines()[-1]:
                pytest.skip(said.splitlines()[-1])
            pytest.fail(said)
        run = self.run_of(spec.sandbox_id)
        holder.kill()
        holder.communicate()
        return run


@pytest.fixture(params=[Isolation.NAMESPACES, Isolation.NONE])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    return Isolation(request.param)


@pytest.fixture
def place(tmp_path: Path, isolation: Isolation) -> Place:
    return Place(LocalOptions(tmp_path / "data", tmp_path / "doors", isolation))


def existing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if os.path.lexists(path)]


async def all_gone(run: Run) -> None:
    async def gone() -> bool:
        return not any(process.is_alive() for process in (run.monitor, run.first, *run.helpers))

    await eventually(gone)


async def test_sandboxes_end_with_a_killed_sandyard_and_the_next_start_clears_away(place: Place) -> None:
    run = await asyncio.to_thread(place.hold_and_kill)
    await all_gone(run)
    async with open_local_runtime(place.options) as runtime:
        present = list(await runtime.present())
        assert [(item.sandbox_id, item.state) for item in present] == [(SANDBOX, PresentState.STOPPED)]
        assert not existing(run.cgroup)
        await runtime.start(a_spec())
        await runtime.remove(SANDBOX)


async def test_sandboxes_that_shall_run_on_are_adopted_and_watched(place: Place) -> None:
    options = msgspec.structs.replace(place.options, keep_running=True)
    run = await asyncio.to_thread(Place(options).hold_and_kill)
    assert run.first.is_alive()
    async with open_local_runtime(options) as runtime:
        assert [item.state for item in await runtime.present()] == [PresentState.RUNNING]
        status, _ = await ask_json(Door(runtime.door(SANDBOX), "s" * 32), "/_daemon/health")
        assert status == 200
        async with runtime.events() as events:
            run.first.signal(signal.SIGKILL)
            async with asyncio.timeout(60):
                assert (await anext(events)).sandbox_id == SANDBOX
        await runtime.remove(SANDBOX)
    await all_gone(run)


async def test_what_ran_on_is_ended_by_a_sandyard_that_does_not_keep_sandboxes_running(place: Place) -> None:
    run = await asyncio.to_thread(Place(msgspec.structs.replace(place.options, keep_running=True)).hold_and_kill)
    assert run.first.is_alive()
    async with open_local_runtime(place.options) as runtime:
        await all_gone(run)
        await runtime.remove(SANDBOX)


async def test_a_removal_that_was_cut_short_is_finished_by_the_next_start(place: Place) -> None:
    async with open_local_runtime(place.options) as runtime:
        await runtime.create(a_spec())
    sandboxes = place.options.data_dir / "sandboxes"
    os.unlink(sandboxes / SANDBOX / "spec.json")
    async with open_local_runtime(place.options) as runtime:
        assert list(await runtime.present()) == []
    assert os.listdir(sandboxes) == []


@pytest.mark.parametrize("isolation", [Isolation.NONE], indirect=True)
async def test_without_isolation_processes_that_left_their_group_are_ended_too(place: Place) -> None:
    async with open_local_runtime(place.options) as runtime:
        await runtime.create(a_spec())
        await runtime.start(a_spec())
        door = Door(runtime.door(SANDBOX), "s" * 32)
        command = (
            "setsid sh -c 'echo $$ > pid; exec sleep 600' >/dev/null 2>&1 & while [ ! -s pid ]; do :; done; cat pid"
        )
        async with ask(door, "/process/execute", json_body={"command": command}) as answer:
            told = json.loads(b"".join([chunk async for chunk in answer.chunks]))
        stray = ProcessId.of(int(told["result"]))
        assert stray is not None
        await runtime.stop(SANDBOX, force=True)

        async def ended() -> bool:
            return not stray.is_alive()

        await eventually(ended)  # a killed process takes a moment to be none
        await runtime.remove(SANDBOX)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="dropping a capability needs root")
def test_where_namespaces_are_refused_the_error_names_the_way_without(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from sandyard_runner.runtime.local.options import LocalOptions\n"
        "from sandyard_runner.runtime.local.runtime import open_local_runtime\n"
        "async def main():\n"
        "    async with open_local_runtime(LocalOptions(Path(sys.argv[1]), Path(sys.argv[1]) / 'doors')):\n"
        "        pass\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        timeout=60,
        check=False,
    )
    assert RuntimeFailure.__name__ in done.stderr
    assert "--isolation none" in done.stderr.splitlines()[-1]
