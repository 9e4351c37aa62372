"""`POST /process/code-run`: one program, its output whole, and its charts, in one answer."""

import asyncio
import os
from typing import Any, NamedTuple

from sandyard_daemon.code.charts import artifacts
from sandyard_daemon.code.programs import Programs, nameless_file
from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest
from sandyard_daemon.execution import Executions, Program
from sandyard_daemon.http.messages import Answer, Handler, Request, StreamResponse
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.routes.execute import late_error, result_body, timeout_error
from sandyard_daemon.routes.fields import required_text, seconds, texts, variables
from sandyard_daemon.state import StateDirectory

LANGUAGES = ("python", "typescript", "javascript")


class _Run(NamedTuple):
    """One request's fields."""

    language: str
    code: str
    arguments: list[str]
    envs: dict[str, str]
    timeout: float | None


class CodeArea:
    """Runs programs; each dies with its client."""

    def __init__(self, environment: Environment, state: StateDirectory, executions: Executions) -> None:
        self._state = state
        self._executions = executions
        self._programs = Programs(environment, state, executions)

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {"CodeRun": self.run}

    async def close(self) -> None:
        """What runs is ended by `Executions`."""

    async def run(self, request: Request) -> Answer:
        """200 with exit code, output and charts; 408 when it took longer than `timeout`."""
        work = self._run(_read(await request.json_object()))
        if request.caller.needs_early_bytes:
            return await answer_in_time(work, lambda error: late_error(request, error))
        return await work

    async def _run(self, run: _Run) -> StreamResponse:
        if run.language == "python":
            return await self._run_python(run)
        if run.language == "javascript":
            with self._programs.javascript(run.code, run.arguments, run.envs) as program:
                return await self._answer(run, program)
        runner = await self._programs.typescript(run.envs)
        with self._programs.typescript_file(runner, run.code, run.arguments, run.envs) as program:
            return await self._answer(run, program)

    async def _run_python(self, run: _Run) -> StreamResponse:
        charts = nameless_file(self._state)
        try:
            with self._programs.python(run.code, run.arguments, run.envs, charts) as program:
                return await self._answer(run, program, charts)
        finally:
            os.close(charts)

    async def _answer(self, run: _Run, program: Program, charts: int | None = None) -> StreamResponse:
        outcome = await self._executions.run_program(program, run.timeout)
        if outcome.timed_out:
            raise timeout_error(outcome, run.timeout)
        drawn = b""
        if charts is not None and os.fstat(charts).st_size:
            drawn = await asyncio.to_thread(artifacts, charts)
        return StreamResponse(200, result_body(outcome, drawn), "application/json")


def _read(body: dict[str, Any]) -> _Run:
    """Raises `InvalidBody`, `BadRequest`."""
    language = required_text(body, "language").strip().lower()
    code = required_text(body, "code")
    if language not in LANGUAGES:
        raise BadRequest(f"unsupported language {language!r}: one of {', '.join(LANGUAGES)}")
    arguments = texts(body, "argv")
    if any("\0" in argument for argument in arguments):
        raise BadRequest("argv holds a NUL character")
    return _Run(language, code, arguments, variables(body, "envs"), seconds(body, "timeout"))
