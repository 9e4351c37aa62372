"""What the control plane asks of runners while a client waits: everything else is a job."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from sandyard_runner.client import HttpRunner
from sandyard_runner.client import RunnerUnreachable as RunnerUnreachable  # part of what callers import from here
from sandyard_runner.wire import UsageSample


class RunnerClients:
    """The API of each runner. Close it after use. Every method raises `RunnerUnreachable`."""

    def __init__(self, internal_token: str) -> None:
        self._token = internal_token
        self._runners: dict[str, HttpRunner] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "RunnerClients":
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._stack.aclose()

    async def change(self, runner_url: str, sandbox_id: str, variables: Mapping[str, str]) -> None:
        """Set variables for all processes to come in a sandbox."""
        await self._runner(runner_url).change_environment(sandbox_id, variables)

    async def usage(self, runner_url: str, sandbox_id: str) -> Sequence[UsageSample]:
        """What a sandbox used, oldest first."""
        return await self._runner(runner_url).usage(sandbox_id)

    def _runner(self, url: str) -> HttpRunner:
        if (runner := self._runners.get(url)) is None:
            runner = self._runners[url] = HttpRunner(url, self._token)
            self._stack.push_async_callback(runner.close)
        return runner
