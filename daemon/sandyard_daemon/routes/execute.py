"""`POST /process/execute`: one command by `sh -c`, its output whole, in one answer."""

import codecs
import json
from collections.abc import AsyncIterator
from typing import Any

from sandyard_daemon.errors import BadRequest, DaemonError, ExecutionTimeout, Internal, InvalidBody, envelope
from sandyard_daemon.execution import Executions, Outcome
from sandyard_daemon.http.messages import Answer, Handler, Request, StreamResponse
from sandyard_daemon.routes.early import answer_in_time
from sandyard_daemon.routes.fields import optional_text, required_text, seconds, variables
from sandyard_daemon.routes.text import json_text

_DETAIL_BYTES = 64 << 10
"""Of the output so far, in the error of a timeout."""
_PIECE = 64 << 10


class ExecuteRoutes:
    """One-shot commands."""

    def __init__(self, executions: Executions) -> None:
        self._executions = executions

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {"ExecuteCommand": self.execute}

    async def execute(self, request: Request) -> Answer:
        """200 with exit code and output; 408 when it took longer than `timeout`. It dies with its client."""
        try:
            body = await request.json_object()
            command = required_text(body, "command")
            cwd = optional_text(body, "cwd")
            envs, timeout = variables(body, "envs"), seconds(body, "timeout")
        except InvalidBody as error:
            raise BadRequest(error.message) from error  # the code this operation has always had
        for name, text in (("command", command), ("cwd", cwd or "")):
            if "\0" in text:
                raise BadRequest(f"{name} holds a NUL character")
        work = self._run(command, cwd, envs, timeout)
        if request.caller.needs_early_bytes:
            return await answer_in_time(work, lambda error: late_error(request, error))
        return await work

    async def _run(self, command: str, cwd: str | None, envs: dict[str, str], timeout: float | None) -> StreamResponse:
        outcome = await self._executions.run(command, cwd=cwd, envs=envs, timeout=timeout)
        if outcome.timed_out:
            raise timeout_error(outcome, timeout)
        return StreamResponse(200, result_body(outcome), "application/json")


def timeout_error(outcome: Outcome, timeout: float | None) -> ExecutionTimeout:
    """What a command that was killed at its limit becomes, with the end of what it had written."""
    last = bytes(outcome.output[-_DETAIL_BYTES:]).decode("utf-8", "replace")
    message = f"process execution timeout: the command was killed after {timeout:g} seconds"
    if last:
        message += f"; its output so far:\n{last}"
    return ExecutionTimeout(message, output=last, exitCode=outcome.exit_code)


async def result_body(outcome: Outcome, artifacts: bytes = b"") -> AsyncIterator[bytes]:
    """`{"exitCode", "result"[, "artifacts"]}`; `artifacts` is JSON."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield b'{"exitCode": %d, "result": "' % outcome.exit_code
    for start in range(0, len(outcome.output), _PIECE):
        yield json_text(decoder.decode(outcome.output[start : start + _PIECE]))
    yield json_text(decoder.decode(b"", final=True))
    if outcome.dropped:
        yield json_text(f"\n[output truncated: {outcome.dropped} more bytes were not kept]\n")
    yield b'", "artifacts": %s}' % artifacts if artifacts else b'"}'


def late_error(request: Request, error: BaseException) -> bytes:
    """The body when the status is out already: what stands for an error is an exit code that is not zero."""
    problem = error if isinstance(error, DaemonError) else Internal(str(error))
    result: dict[str, Any] = {"exitCode": problem.details.get("exitCode", -1), "result": problem.message}
    return json.dumps({**envelope(problem, method=request.method, path=request.raw_path), **result}).encode()
