"""The docker runtime: one container per sandbox, adopted by label after a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from docker.errors import NotFound

from sandyard_api.jobs.wire import RegistryLogin, SandboxSpec
from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.door_http import Door
from sandyard_runner.doors import door_path, is_well, wait_until_daemon_answers
from sandyard_runner.egress.policy import Policy
from sandyard_runner.errors import DaemonUnreachable, NotPresent, RuntimeFailure
from sandyard_runner.runtime.contract import (
    Build,
    ImageFacts,
    Present,
    PresentState,
    ProgressReport,
    RuntimeEvent,
)
from sandyard_runner.runtime.docker import door
from sandyard_runner.runtime.docker.capabilities import capabilities
from sandyard_runner.runtime.docker.container import HostPaths, configuration, exit_reason, read_present, was_killed
from sandyard_runner.runtime.docker.disk import DiskWatch
from sandyard_runner.runtime.docker.egress import Egress
from sandyard_runner.runtime.docker.engine import Api, Engine
from sandyard_runner.runtime.docker.failures import Conflict, Missing
from sandyard_runner.runtime.docker.images import Images
from sandyard_runner.runtime.docker.keeping import Keeping
from sandyard_runner.runtime.docker.links import Links
from sandyard_runner.runtime.docker.mounting import Mounting
from sandyard_runner.runtime.docker.moving import Moving
from sandyard_runner.runtime.docker.network import Rules
from sandyard_runner.runtime.docker.options import LABEL_INSTALLATION, LABEL_SANDBOX, DockerOptions
from sandyard_runner.runtime.docker.surroundings import OwnContainer, path_on_engine
from sandyard_runner.volumes import Place, Volumes
from sandyard_runner.wire import Capability

log = structlog.get_logger(__name__)

LIVE = {"running": PresentState.RUNNING, "paused": PresentState.PAUSED}
OOM_SECONDS = 0.5
"""An end and the lack of memory that caused it are two events of the engine, in either order."""
LOG_LINES = 5
"""Of a container that died while starting, shown to the user."""


class DockerRuntime(Keeping, Mounting):
    """Implements `Runtime` and what lies beside it (`runtime.contract`). Make it with `open_docker_runtime`."""

    name = "docker"

    def __init__(
        self,
        engine: Engine,
        options: DockerOptions,
        *,
        bundle: Bundle,
        images: Images,
        rules: Rules,
        egress: Egress,
        own: OwnContainer | None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._bundle = bundle
        self._images = images
        self._rules = rules
        self._egress = egress
        self._own = own
        self._volumes = Volumes(options.volumes_dir, options.host_folders)
        self._ours: set[str] = set()
        """Sandboxes that we are stopping, have stopped or removed: their deaths are not news."""
        self._died: dict[str, asyncio.Event] = {}
        """Set when the container dies; there while `start` waits."""
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self.links = Links(engine, options)
        self.disk = DiskWatch(engine, [f"{LABEL_INSTALLATION}={options.installation}", LABEL_SANDBOX], self._note)
        self.moving = Moving(engine, options, self)

    def capabilities(self) -> Sequence[Capability]:
        """What is enforced and what is not."""
        return capabilities(
            rules_problem=self._rules.problem,
            oci_runtime=self._options.oci_runtime,
        )

    async def ensure_image(
        self,
        image: str | None,
        report: ProgressReport,
        *,
        build: Build | None = None,
        logins: Sequence[RegistryLogin] = (),
    ) -> ImageFacts:
        """Make the image usable. Raises `RuntimeFailure`, `Unsupported` for one of another architecture."""
        found = await self._images.ensure(image, report, build, logins)
        if self._rules.problem:
            # Our image may be the helper that was missing.
            await self._rules.apply()
        return ImageFacts(found.size_bytes, found.entrypoint)

    async def built_images(self) -> Sequence[str]:
        """The images of users' builds, but for those asked for just now."""
        return await self._images.built()

    async def remove_build(self, image: str) -> None:
        """Remove one of them."""
        await self._images.remove(image)

    async def create(self, spec: SandboxSpec) -> None:
        """Make the container. One that is there under that name already is taken as it is."""
        image = await self._images.inspect(spec.image)
        paths = HostPaths(
            bundle=path_on_engine(self._bundle.path, self._own),
            door=path_on_engine(self._door_directory(spec.sandbox_id), self._own),
            folders=self._folders(await self._places(spec)),
        )
        body = configuration(spec, image, self._bundle, paths, self._options)
        name = self._options.container(spec.sandbox_id)
        # The engine wants a bind's source to exist when the container is made, too.
        await asyncio.to_thread(self._door_directory(spec.sandbox_id).mkdir, parents=True, exist_ok=True)
        try:
            await self._engine.call("create the container", lambda api: api.create_container_from_config(body, name))
        except Conflict:
            found = await self._inspect(spec.sandbox_id)
            if found["Config"]["Labels"].get(LABEL_INSTALLATION) != self._options.installation:
                raise

    async def start(self, spec: SandboxSpec) -> None:
        """Start it, or leave it alone when it runs and its daemon knows this secret already."""
        directory = self._door_directory(spec.sandbox_id)
        self.disk.limit(spec.sandbox_id, spec.disk_gib)
        if (await self._inspect(spec.sandbox_id))["State"]["Running"]:
            if await is_well(self.door(spec.sandbox_id), spec.door_secret):
                return
            await self.stop(spec.sandbox_id)
        places = await self._places(spec)
        await asyncio.to_thread(door.prepare, directory, spec.door_secret)
        if spec.link is not None:
            await self.links.join(spec.link, spec.sandbox_id)
        self._ours.add(spec.sandbox_id)
        died = self._died[spec.sandbox_id] = asyncio.Event()
        try:
            await self._engine.call(
                "start the container", lambda api: api.start(self._options.container(spec.sandbox_id))
            )
            await self._await_daemon(spec, died, places)
            await self._hold_or_stop(spec)
        finally:
            del self._died[spec.sandbox_id]
        self._ours.discard(spec.sandbox_id)

    async def hold_network(self, spec: SandboxSpec) -> Mapping[str, str]:
        """Hold the spec's rules and secrets from now on."""
        return await self._egress.hold(spec.sandbox_id, Policy.of(spec))

    async def _hold_or_stop(self, spec: SandboxSpec) -> None:
        """The address is new at every start. No user code has run: without its rules it does not begin."""
        try:
            await self._egress.forget(spec.sandbox_id)
            await self.hold_network(spec)
        except RuntimeFailure:
            await self.stop(spec.sandbox_id, force=True)
            raise

    async def _await_daemon(self, spec: SandboxSpec, died: asyncio.Event, places: Sequence[Place]) -> None:
        """Return when the daemon answers and sees these folders. Raises `RuntimeFailure`, the container ended."""
        seconds = self._options.start_timeout_seconds
        answer = asyncio.create_task(
            wait_until_daemon_answers(self.door(spec.sandbox_id), spec.door_secret, timeout_seconds=seconds)
        )
        death = asyncio.create_task(died.wait())
        try:
            await asyncio.wait((answer, death), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise DaemonUnreachable(await self._why_ended(spec.sandbox_id))
            try:
                answer.result()
                await self._check_mounted(Door(self.door(spec.sandbox_id), spec.door_secret), places)
            except RuntimeFailure:
                await self.stop(spec.sandbox_id, force=True)
                raise
        finally:
            answer.cancel()
            death.cancel()
            await asyncio.gather(answer, death, return_exceptions=True)

    async def _why_ended(self, sandbox_id: str) -> str:
        name = self._options.container(sandbox_id)
        reason = exit_reason((await self._inspect(sandbox_id))["State"])
        said = await self._engine.call("read its output", lambda api: api.logs(name, tail=LOG_LINES))
        return f"the sandbox ended while starting: {reason}. {said.decode(errors='replace')}".strip()

    async def stop(self, sandbox_id: str, *, force: bool = False, grace_seconds: float = 5.0) -> None:
        """End its processes; its files stay. One that is not there is success."""
        self._ours.add(sandbox_id)
        name = self._options.container(sandbox_id)
        grace = 0 if force else max(1, round(grace_seconds))
        try:
            await self._engine.call("stop the container", lambda api: api.stop(name, timeout=grace))
        except Missing:
            log.debug("already_removed", sandbox_id=sandbox_id)
        await self._egress.forget(sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        """End it and remove everything of it. One that is not there is success."""
        self._ours.add(sandbox_id)
        name = self._options.container(sandbox_id)
        try:
            await self._engine.call("remove the container", lambda api: api.remove_container(name, v=True, force=True))
        except Missing:
            log.debug("already_removed", sandbox_id=sandbox_id)
        except Conflict:
            await self._engine.call("await its removal", lambda api: _await_removal(api, name))
        await self._egress.forget(sandbox_id)
        await self.links.prune()
        await asyncio.to_thread(door.discard, self._door_directory(sandbox_id))

    async def present(self) -> Sequence[Present]:
        """Every container with our label, and why those that do not run ended."""
        labels = [f"{LABEL_INSTALLATION}={self._options.installation}", LABEL_SANDBOX]
        found = await self._engine.call(
            "list the containers", lambda api: api.containers(all=True, filters={"label": labels})
        )
        return [present for item in found if (present := await self._present(item)) is not None]

    async def _present(self, listed: dict[str, Any]) -> Present | None:
        sandbox_id = listed["Labels"][LABEL_SANDBOX]
        if listed["State"] in LIVE:
            return Present(sandbox_id, LIVE[listed["State"]])
        try:
            return read_present(sandbox_id, await self._inspect(sandbox_id))
        except NotPresent:
            return None

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        """Deaths and removals from the moment of entering."""
        # Unbounded on purpose: one entry for each sandbox that died, and no death may be lost.
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.discard(queue)

    def take_event(self, action: str, labels: Mapping[str, str]) -> None:
        """A container of this installation died or was removed; called by the event reader, in our loop."""
        sandbox_id = labels.get(LABEL_SANDBOX)
        if sandbox_id is None:
            return
        if action == "die" and (died := self._died.get(sandbox_id)) is not None:
            died.set()
        if sandbox_id not in self._ours and self._listeners:
            task = asyncio.create_task(self._tell(sandbox_id, action))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, sandbox_id: str, action: str) -> None:
        reason, gone = "its container was removed by somebody else", True
        if action == "die":
            try:
                state = (await self._inspect(sandbox_id))["State"]
                if was_killed(state):
                    await asyncio.sleep(OOM_SECONDS)
                    state = (await self._inspect(sandbox_id))["State"]
            except RuntimeFailure:
                return  # the removal that made it vanish has an event of its own
            if state["Running"]:
                return  # started again since
            reason, gone = exit_reason(state), False
        for queue in self._listeners:
            queue.put_nowait(RuntimeEvent(sandbox_id, gone, reason))

    def door(self, sandbox_id: str) -> Path:
        """The daemon's socket as this process sees it."""
        return door_path(self._options.doors_dir, sandbox_id)

    def _note(self, sandbox_id: str, text: str) -> None:
        log.warning("sandbox_over_limit", sandbox_id=sandbox_id, reason=text)
        for queue in self._listeners:
            queue.put_nowait(RuntimeEvent(sandbox_id, gone=False, reason=text, is_note=True))

    async def close(self) -> None:
        """Let go; containers stay as they are."""
        for task in list(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await self._egress.close()

    def _door_directory(self, sandbox_id: str) -> Path:
        return self._options.doors_dir / sandbox_id

    async def _inspect(self, sandbox_id: str) -> dict[str, Any]:
        name = self._options.container(sandbox_id)
        try:
            found: dict[str, Any] = await self._engine.call(
                "inspect the container", lambda api: api.inspect_container(name)
            )
        except Missing as error:
            raise NotPresent(sandbox_id) from error
        return found


async def _drain(queue: "asyncio.Queue[RuntimeEvent]") -> AsyncIterator[RuntimeEvent]:
    while True:
        yield await queue.get()


def _await_removal(api: Api, name: str) -> None:
    """Somebody else is removing it: return when that is done."""
    with contextlib.suppress(NotFound):
        api.wait(name, condition="removed", timeout=60)
