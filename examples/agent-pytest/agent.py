"""An agent that solves a task by running programs in a sandbox until one of them succeeds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from daytona import CreateSandboxFromSnapshotParams, Daytona
from daytona.common.errors import DaytonaError

Model = Callable[[str, list[str]], str]
"""Gives the next shell program for a task, knowing what the earlier attempts said."""

TRANSIENT = (429, 502, 503, 504)


@dataclass
class Outcome:
    """What came of a task."""

    solved: bool
    output: str
    attempts: list[str] = field(default_factory=list)


class Agent:
    """One sandbox, as many attempts as it takes. Use it in a `with` block."""

    def __init__(self, client: Daytona, model: Model, *, attempts: int = 3, idle_minutes: int = 15) -> None:
        self._client = client
        self._model = model
        self._attempts = attempts
        self._idle_minutes = idle_minutes

    def __enter__(self) -> "Agent":
        params = CreateSandboxFromSnapshotParams(
            labels={"made-by": "agent"}, auto_stop_interval=self._idle_minutes
        )
        self.sandbox = self._client.create(params)
        return self

    def __exit__(self, *_: object) -> None:
        self.sandbox.delete()

    def solve(self, task: str) -> Outcome:
        """Try until a program exits with 0."""
        said: list[str] = []
        for _ in range(self._attempts):
            result = self._run(self._model(task, said))
            said.append(result.result)
            if result.exit_code == 0:
                return Outcome(True, result.result, said)
        return Outcome(False, said[-1] if said else "", said)

    def _run(self, program: str):
        """Run a program, waking the sandbox if it fell asleep and trying again when the service is busy."""
        for attempt in range(4):
            try:
                return self.sandbox.process.exec(program)
            except DaytonaError as error:
                if "Is the Sandbox started?" in str(error):
                    self.sandbox.start()
                elif error.status_code not in TRANSIENT or attempt == 3:
                    raise
                time.sleep(0.01 * 2**attempt)
        raise RuntimeError("the sandbox does not stay awake")
